//! What a deduplication found: enough to judge whether its settings suit the corpus.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::index::DocNumber;
use crate::options::MinHashOptions;
use crate::store::StringStore;

/// What a deduplication found; `documents = kept + exact_duplicates + near_duplicates`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DedupSummary {
    pub documents: u64,
    pub kept: u64,
    pub exact_duplicates: u64,
    pub near_duplicates: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minhash: Option<MinHashSummary>,
    /// Kept documents that stand for at least one removed one.
    pub clusters: u64,
    /// The biggest of them, biggest first, then by input order.
    pub biggest_clusters: Vec<Cluster>,
    /// By source, for what has one.
    pub sources: BTreeMap<String, SourceSummary>,
    pub memory: MemorySummary,
}

/// How the near-duplicates were found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MinHashSummary {
    /// The options, with the bands and rows that were used.
    pub options: MinHashOptions,
    /// The probability that a pair just at the threshold shares a band.
    pub match_probability_at_threshold: f64,
    /// Pairs that shared a band and were compared.
    pub candidates: u64,
    /// Pairs of these whose exact similarity reached the threshold.
    pub verified: u64,
    /// `verified / candidates`, the precision of the bands; absent without candidates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate_precision: Option<f64>,
    /// Entries of full buckets that were not looked at: one for each document, band and kept document beyond
    /// `max_candidates_per_band`. Where it is not 0, a near-duplicate may have been missed for that reason alone.
    pub skipped_comparisons: u64,
    /// Similarities of the removed near-duplicates to the documents that stand for them; empty bins are left out.
    pub jaccard_histogram: Vec<JaccardBin>,
}

/// Documents with a similarity from `from` to less than `from + 0.05`; the bin from 0.95 includes 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct JaccardBin {
    pub from: f64,
    pub count: u64,
}

/// A kept document and those removed in its favour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// The id of the kept document.
    pub representative: String,
    /// All of them, the representative included.
    pub size: u64,
    /// The ids of the first few removed ones.
    pub members: Vec<String>,
}

/// The documents of one source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct SourceSummary {
    pub documents: u64,
    pub removed: u64,
}

impl SourceSummary {
    /// The share of its documents that was removed, 0..=1.
    pub fn removed_ratio(&self) -> f64 {
        if self.documents == 0 { 0.0 } else { self.removed as f64 / self.documents as f64 }
    }
}

/// Bytes held by each structure at the end, which is their peak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct MemorySummary {
    /// Content keys of kept documents and their table.
    pub exact_keys: u64,
    pub band_tables: u64,
    pub shingle_sets: u64,
    /// Ids of kept documents.
    pub ids: u64,
    /// Cluster sizes, and the ids of a few members of each.
    pub clusters: u64,
    pub total: u64,
}

const HISTOGRAM_BINS: usize = 20;
/// Clusters that a summary shows, and members of each.
const BIGGEST_CLUSTERS: usize = 10;
const SAMPLED_MEMBERS: u32 = 5;

/// The running counts from which a summary is made.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) exact_duplicates: u64,
    pub(crate) near_duplicates: u64,
    histogram: [u64; HISTOGRAM_BINS],
    /// For each kept document, how many were removed in its favour.
    removed: Vec<u32>,
    /// The first few removals of each cluster: in whose favour, and the ids.
    sampled: Vec<DocNumber>,
    sampled_ids: StringStore,
    pub(crate) sources: BTreeMap<String, SourceSummary>,
}

impl Tally {
    pub(crate) fn kept(&mut self, source: &str) {
        self.removed.push(0);
        self.source(source, 0);
    }

    pub(crate) fn exact_duplicate(&mut self, id: &str, source: &str, dup_of: DocNumber) {
        self.exact_duplicates += 1;
        self.removed(id, source, dup_of);
    }

    pub(crate) fn near_duplicate(&mut self, id: &str, source: &str, dup_of: DocNumber, jaccard: f64) {
        self.near_duplicates += 1;
        let bin = (jaccard * HISTOGRAM_BINS as f64) as usize;
        self.histogram[bin.min(HISTOGRAM_BINS - 1)] += 1;
        self.removed(id, source, dup_of);
    }

    fn removed(&mut self, id: &str, source: &str, dup_of: DocNumber) {
        let removed = &mut self.removed[dup_of as usize];
        *removed = removed.saturating_add(1);
        if *removed <= SAMPLED_MEMBERS {
            self.sampled.push(dup_of);
            self.sampled_ids.push(id);
        }
        self.source(source, 1);
    }

    fn source(&mut self, source: &str, removed: u64) {
        if source.is_empty() {
            return;
        }
        if !self.sources.contains_key(source) {
            self.sources.insert(source.to_owned(), SourceSummary::default());
        }
        let counts = self.sources.get_mut(source).expect("present or just inserted");
        counts.documents += 1;
        counts.removed += removed;
    }

    pub(crate) fn histogram(&self) -> Vec<JaccardBin> {
        let bins = self.histogram.iter().enumerate();
        let bins = bins.map(|(i, &count)| JaccardBin { from: i as f64 / HISTOGRAM_BINS as f64, count });
        bins.filter(|bin| bin.count > 0).collect()
    }

    pub(crate) fn clusters(&self) -> u64 {
        self.removed.iter().filter(|&&removed| removed > 0).count() as u64
    }

    pub(crate) fn biggest_clusters(&self, ids: &StringStore) -> Vec<Cluster> {
        let mut biggest: Vec<(u32, DocNumber)> = Vec::new();
        for (&removed, doc) in self.removed.iter().zip(0..) {
            let full = biggest.len() == BIGGEST_CLUSTERS;
            if removed == 0 || full && biggest.last().is_some_and(|smallest| removed <= smallest.0) {
                continue;
            }
            biggest.truncate(BIGGEST_CLUSTERS - 1);
            let place = biggest.partition_point(|&(other, _)| other >= removed);
            biggest.insert(place, (removed, doc));
        }
        let mut members = vec![Vec::new(); biggest.len()];
        for (i, &dup_of) in self.sampled.iter().enumerate() {
            if let Some(place) = biggest.iter().position(|&(_, doc)| doc == dup_of) {
                members[place].push(self.sampled_ids.get(i).to_owned());
            }
        }
        let cluster = |((removed, doc), members): ((u32, DocNumber), _)| Cluster {
            representative: ids.get(doc as usize).to_owned(),
            size: u64::from(removed) + 1,
            members,
        };
        biggest.into_iter().zip(members).map(cluster).collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        let numbers = (self.removed.capacity() + self.sampled.capacity()) * size_of::<u32>();
        numbers as u64 + self.sampled_ids.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_biggest_clusters_come_first_and_ties_in_input_order() {
        let (mut tally, mut ids) = (Tally::default(), StringStore::default());
        let sizes = [0u32, 3, 1, 3, 0, 9, 1, 1, 1, 1, 1, 1, 2, 1];
        for (doc, &removed) in sizes.iter().enumerate() {
            ids.push(&format!("k{doc}"));
            tally.kept("");
            for i in 0..removed {
                tally.exact_duplicate(&format!("r{doc}.{i}"), "", doc as u32);
            }
        }
        let found = tally.biggest_clusters(&ids);
        let shown: Vec<(&str, u64)> = found.iter().map(|c| (c.representative.as_str(), c.size)).collect();
        let expected = [
            ("k5", 10),
            ("k1", 4),
            ("k3", 4),
            ("k12", 3),
            ("k2", 2),
            ("k6", 2),
            ("k7", 2),
            ("k8", 2),
            ("k9", 2),
            ("k10", 2),
        ];
        assert_eq!(shown, expected);
        assert_eq!(found[0].members, ["r5.0", "r5.1", "r5.2", "r5.3", "r5.4"]);
        assert_eq!(found[1].members, ["r1.0", "r1.1", "r1.2"]);
        assert_eq!(tally.clusters(), 12);
    }

    #[test]
    fn similarities_fall_into_their_bins() {
        let mut tally = Tally::default();
        tally.kept("");
        for twentieth in 0..=20 {
            tally.near_duplicate("", "", 0, f64::from(twentieth) / 20.0);
        }
        let bins = tally.histogram();
        assert_eq!(bins.len(), 20);
        assert_eq!(bins[3], JaccardBin { from: 0.15, count: 1 });
        assert_eq!(bins[19], JaccardBin { from: 0.95, count: 2 });
    }
}
