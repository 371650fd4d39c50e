//! What a deduplication says after a run: enough to judge whether its settings suit the corpus.

use std::collections::BTreeMap;

use curate_dedup::{ClusterSample, ClusterSizes, DedupSummary, JaccardBin, MinHashSummary, SourceSummary};

use crate::chain::parameters;
use crate::summary::{Extra, bytes, thousands};

/// A source of fewer documents is not warned about.
const MANY: u64 = 100;

/// The share of a source beyond which one should look at what was removed.
const MOST: f64 = 0.5;

/// What a dedup stage has to say after a run.
pub(super) fn extra(summary: &DedupSummary) -> Extra {
    let mut lines = Vec::new();
    if let Some(minhash) = &summary.minhash {
        lines.extend(candidates(minhash));
    }
    lines.extend(clusters(summary.clusters, &summary.cluster_sizes, &summary.biggest_clusters));
    let (warnings, mostly_removed) = mostly_removed(&summary.sources);
    lines.extend(warnings);
    let (memory, disk) = (bytes(summary.memory.total), bytes(summary.disk_bytes));
    lines.push(match summary.indexed {
        Some(indexed) => {
            format!("dedup: {memory} of memory, {disk} on disk; {} documents were known", thousands(indexed))
        }
        None => format!("dedup: {memory} of memory, {disk} on disk"),
    });
    let mut value = parameters(summary);
    value["sources_mostly_removed"] = mostly_removed.into();
    Extra { name: "dedup", value, lines }
}

/// Sources that lost more than half: warnings, and their names.
pub(super) fn mostly_removed(sources: &BTreeMap<String, SourceSummary>) -> (Vec<String>, Vec<&str>) {
    let lost = |counts: &SourceSummary| counts.removed_ratio() > MOST && counts.documents >= MANY;
    let warning = |(source, counts): (&String, &SourceSummary)| {
        format!(
            "dedup: warning: {:.0} % of the {} documents of {source} were removed",
            100.0 * counts.removed_ratio(),
            thousands(counts.documents)
        )
    };
    let found = || sources.iter().filter(|(_, counts)| lost(counts));
    (found().map(warning).collect(), found().map(|(source, _)| source.as_str()).collect())
}

fn candidates(minhash: &MinHashSummary) -> Vec<String> {
    let verified = minhash.verified.map_or("none verified".to_owned(), |verified| {
        let precision =
            minhash.candidate_precision.map_or(String::new(), |p| format!(" ({:.1} %)", 100.0 * p));
        format!("{} reach the threshold{precision}", thousands(verified))
    });
    let mut lines = vec![format!("dedup: {} candidate pairs, {verified}", thousands(minhash.candidates))];
    if minhash.skipped_comparisons > 0 {
        let n = thousands(minhash.skipped_comparisons);
        lines.push(format!("dedup: {n} comparisons skipped in crowded buckets"));
    }
    if !minhash.jaccard_histogram.is_empty() {
        let bin = |bin: &JaccardBin| format!("{:.2}+: {}", bin.from, thousands(bin.count));
        let bins: Vec<String> = minhash.jaccard_histogram.iter().map(bin).collect();
        lines.push(format!("dedup: similarity to what stayed {}", bins.join(", ")));
    }
    lines
}

/// How large the clusters are; nothing if there is none.
pub(super) fn clusters(count: u64, sizes: &[ClusterSizes], biggest: &[ClusterSample]) -> Option<String> {
    let biggest = biggest.first()?;
    let bin = |bin: &ClusterSizes| match bin.from == bin.to {
        true => format!("{}: {}", bin.from, thousands(bin.clusters)),
        false => format!("{}-{}: {}", bin.from, bin.to, thousands(bin.clusters)),
    };
    let sizes: Vec<String> = sizes.iter().map(bin).collect();
    Some(format!(
        "dedup: {} clusters (documents in them: {}), the biggest of {} documents, kept {}",
        thousands(count),
        sizes.join(", "),
        thousands(biggest.size),
        biggest.representative
    ))
}

#[cfg(test)]
mod tests {
    use curate_dedup::{MemorySummary, MinHashOptions};

    use super::*;

    fn summary() -> DedupSummary {
        let minhash = MinHashSummary {
            options: MinHashOptions::default(),
            match_probability_at_threshold: 0.9995,
            candidates: 2000,
            verified: Some(1500),
            candidate_precision: Some(0.75),
            skipped_comparisons: 7000,
            jaccard_histogram: vec![
                JaccardBin { from: 0.8, count: 3 },
                JaccardBin { from: 0.95, count: 1200 },
            ],
        };
        let sources = [("small", 99, 99), ("half", 100, 50), ("most", 200, 150)]
            .map(|(name, documents, removed)| (name.to_owned(), SourceSummary { documents, removed }));
        let biggest =
            ClusterSample { representative: "d7".to_owned(), size: 1100, members: vec!["d9".to_owned()] };
        DedupSummary {
            documents: 5000,
            kept: 3600,
            indexed: None,
            exact_duplicates: 197,
            near_duplicates: 1203,
            minhash: Some(minhash),
            clusters: 41,
            cluster_sizes: vec![
                ClusterSizes { from: 2, to: 2, clusters: 40 },
                ClusterSizes { from: 1025, to: 2048, clusters: 1 },
            ],
            biggest_clusters: vec![biggest],
            sources: sources.into(),
            memory: MemorySummary { total: 2048, ..MemorySummary::default() },
            disk_bytes: 0,
        }
    }

    #[test]
    fn what_is_said_for_people() {
        let extra = extra(&summary());
        let expected = [
            "dedup: 2,000 candidate pairs, 1,500 reach the threshold (75.0 %)",
            "dedup: 7,000 comparisons skipped in crowded buckets",
            "dedup: similarity to what stayed 0.80+: 3, 0.95+: 1,200",
            "dedup: 41 clusters (documents in them: 2: 40, 1025-2048: 1), the biggest of 1,100 documents, kept d7",
            "dedup: warning: 75 % of the 200 documents of most were removed",
            "dedup: 2.0 kB of memory, 0 B on disk",
        ];
        assert_eq!(extra.lines, expected);
        assert_eq!(extra.value["sources_mostly_removed"], serde_json::json!(["most"]));
        assert_eq!(extra.value["biggest_clusters"][0]["members"][0], "d9");
    }

    #[test]
    fn nothing_is_said_of_what_there_is_not() {
        let empty = DedupSummary {
            minhash: None,
            cluster_sizes: Vec::new(),
            biggest_clusters: Vec::new(),
            sources: Default::default(),
            indexed: Some(3),
            ..summary()
        };
        assert_eq!(extra(&empty).lines, ["dedup: 2.0 kB of memory, 0 B on disk; 3 documents were known"]);
    }
}
