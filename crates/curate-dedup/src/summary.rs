//! What a deduplication found: enough to judge whether its settings suit the corpus.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::Result;
use crate::options::MinHashOptions;
use crate::spill::{AppendStore, SpillDir};
use crate::table::DocNumber;

/// What a deduplication found; `documents = kept + exact_duplicates + near_duplicates`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DedupSummary {
    pub documents: u64,
    pub kept: u64,
    /// Documents that the index held before; they are in none of the other counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indexed: Option<u64>,
    pub exact_duplicates: u64,
    pub near_duplicates: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minhash: Option<MinHashSummary>,
    /// Kept documents that stand for at least one removed one.
    pub clusters: u64,
    /// How many of them have how many documents; empty bins are left out.
    pub cluster_sizes: Vec<ClusterSizes>,
    /// The biggest of them, biggest first, then by input order.
    pub biggest_clusters: Vec<ClusterSample>,
    /// By source, for what has one.
    pub sources: BTreeMap<String, SourceSummary>,
    pub memory: MemorySummary,
    /// Bytes in files at the end.
    pub disk_bytes: u64,
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
    /// Pairs of these whose exact similarity reached the threshold; absent if nothing was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<u64>,
    /// `verified / candidates`, the precision of the bands; absent without either.
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

/// Clusters of `from` to `to` documents, the representative included: 2, 3 to 4, 5 to 8, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClusterSizes {
    pub from: u64,
    pub to: u64,
    pub clusters: u64,
}

/// A kept document and those removed in its favour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterSample {
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

/// Bytes of memory that each structure holds at the end, which is its peak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct MemorySummary {
    /// Content keys and keys of bands: the table, the filter, and the fences of the files.
    pub keys: u64,
    /// Where the parts of each kept document are.
    pub records: u64,
    pub ids: u64,
    pub shingle_sets: u64,
    /// Cluster sizes, and the ids of a few members of each.
    pub clusters: u64,
    /// Where the documents come in the order, for two passes.
    #[serde(skip_serializing_if = "is_zero")]
    pub order: u64,
    pub total: u64,
}

impl MemorySummary {
    pub(crate) fn add_order(&mut self, bytes: u64) {
        self.order += bytes;
        self.total += bytes;
    }
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

const HISTOGRAM_BINS: usize = 20;
/// Clusters that a summary shows, and members of each.
const BIGGEST_CLUSTERS: usize = 10;
const SAMPLED_MEMBERS: u32 = 5;

/// The running counts from which a summary is made.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) exact_duplicates: u64,
    pub(crate) near_duplicates: u64,
    histogram: [u64; HISTOGRAM_BINS],
    /// For kept documents in whose favour others were removed, how many.
    removed: BTreeMap<DocNumber, u32>,
    /// The first few removals of each cluster: in whose favour (4 bytes), the length of the id (4 bytes), the id.
    sampled: AppendStore,
    pub(crate) sources: BTreeMap<String, SourceSummary>,
}

impl Tally {
    /// `memory` bytes are for the ids of removed documents.
    pub(crate) fn new(memory: usize) -> Self {
        Self {
            exact_duplicates: 0,
            near_duplicates: 0,
            histogram: [0; HISTOGRAM_BINS],
            removed: BTreeMap::new(),
            sampled: AppendStore::new("removed.bin", memory),
            sources: BTreeMap::new(),
        }
    }

    pub(crate) fn kept(&mut self, source: &str) {
        self.source(source, 0);
    }

    pub(crate) fn exact_duplicate(
        &mut self,
        id: &str,
        source: &str,
        dup_of: DocNumber,
        dir: &mut SpillDir,
    ) -> Result<()> {
        self.exact_duplicates += 1;
        self.removed(id, source, dup_of, dir)
    }

    pub(crate) fn near_duplicate(
        &mut self,
        id: &str,
        source: &str,
        dup_of: DocNumber,
        jaccard: Option<f64>,
        dir: &mut SpillDir,
    ) -> Result<()> {
        self.near_duplicates += 1;
        if let Some(jaccard) = jaccard {
            let bin = (jaccard * HISTOGRAM_BINS as f64) as usize;
            self.histogram[bin.min(HISTOGRAM_BINS - 1)] += 1;
        }
        self.removed(id, source, dup_of, dir)
    }

    fn removed(&mut self, id: &str, source: &str, dup_of: DocNumber, dir: &mut SpillDir) -> Result<()> {
        let removed = self.removed.entry(dup_of).or_default();
        *removed = removed.saturating_add(1);
        if *removed <= SAMPLED_MEMBERS {
            self.sampled.append(&dup_of.to_le_bytes(), dir)?;
            self.sampled.append(&(id.len() as u32).to_le_bytes(), dir)?;
            self.sampled.append(id.as_bytes(), dir)?;
        }
        self.source(source, 1);
        Ok(())
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
        self.removed.len() as u64
    }

    pub(crate) fn cluster_sizes(&self) -> Vec<ClusterSizes> {
        // A cluster with n removed documents has n + 1, and falls into the bin that ends at the next power of two.
        let mut bins = [0u64; 33];
        for &removed in self.removed.values() {
            bins[(u64::from(removed) + 1).next_power_of_two().ilog2() as usize] += 1;
        }
        let bins = (0u32..).zip(bins).filter(|(_, clusters)| *clusters > 0);
        let bin = |(log, clusters)| ClusterSizes { from: (1u64 << (log - 1)) + 1, to: 1u64 << log, clusters };
        bins.map(bin).collect()
    }

    /// The biggest clusters; `id_of` knows the ids of kept documents.
    pub(crate) fn biggest_clusters(
        &self,
        id_of: impl Fn(DocNumber) -> Result<String>,
    ) -> Result<Vec<ClusterSample>> {
        let mut biggest: Vec<(u32, DocNumber)> = Vec::new();
        for (&doc, &removed) in &self.removed {
            let full = biggest.len() == BIGGEST_CLUSTERS;
            if full && biggest.last().is_some_and(|smallest| removed <= smallest.0) {
                continue;
            }
            biggest.truncate(BIGGEST_CLUSTERS - 1);
            let place = biggest.partition_point(|&(other, _)| other >= removed);
            biggest.insert(place, (removed, doc));
        }
        let mut members = vec![Vec::new(); biggest.len()];
        let mut at = 0;
        while at < self.sampled.len() {
            let (mut dup_of, mut len) = ([0; 4], [0; 4]);
            self.sampled.read(at, &mut dup_of)?;
            self.sampled.read(at + 4, &mut len)?;
            let (dup_of, len) = (u32::from_le_bytes(dup_of), u32::from_le_bytes(len));
            if let Some(place) = biggest.iter().position(|&(_, doc)| doc == dup_of) {
                let mut id = vec![0; len as usize];
                self.sampled.read(at + 8, &mut id)?;
                members[place].push(String::from_utf8_lossy(&id).into_owned());
            }
            at += 8 + u64::from(len);
        }
        let cluster = |((removed, doc), members): ((u32, DocNumber), _)| {
            Ok(ClusterSample { representative: id_of(doc)?, size: u64::from(removed) + 1, members })
        };
        biggest.into_iter().zip(members).map(cluster).collect()
    }

    /// Bytes in memory, about: a count of a cluster takes some 12.
    pub(crate) fn memory(&self) -> u64 {
        12 * self.removed.len() as u64 + self.sampled.memory()
    }

    pub(crate) fn disk(&self) -> u64 {
        self.sampled.disk()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_biggest_clusters_come_first_and_ties_in_input_order() {
        let parent = tempfile::tempdir().unwrap();
        let (mut tally, mut dir) = (Tally::new(0), SpillDir::temporary_below(parent.path().to_owned()));
        let sizes = [0u32, 3, 1, 3, 0, 9, 1, 1, 1, 1, 1, 1, 2, 1];
        for (doc, &removed) in sizes.iter().enumerate() {
            tally.kept("");
            for i in 0..removed {
                tally.exact_duplicate(&format!("r{doc}.{i}"), "", doc as u32, &mut dir).unwrap();
            }
        }
        let found = tally.biggest_clusters(|doc| Ok(format!("k{doc}"))).unwrap();
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
        let sizes: Vec<_> = tally.cluster_sizes().iter().map(|s| (s.from, s.to, s.clusters)).collect();
        assert_eq!(sizes, [(2, 2, 8), (3, 4, 3), (9, 16, 1)]);
    }

    #[test]
    fn similarities_fall_into_their_bins() {
        let mut tally = Tally::new(0);
        let mut dir = SpillDir::temporary_below(std::env::temp_dir());
        for twentieth in 0..=20 {
            tally.near_duplicate("", "", 0, Some(f64::from(twentieth) / 20.0), &mut dir).unwrap();
        }
        let bins = tally.histogram();
        assert_eq!(bins.len(), 20);
        assert_eq!(bins[3], JaccardBin { from: 0.15, count: 1 });
        assert_eq!(bins[19], JaccardBin { from: 0.95, count: 2 });
    }
}
