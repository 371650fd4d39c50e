//! Star clustering: which kept document, if any, stands for this one?

use crate::index::{BandIndex, DocNumber};
use crate::similar::similar_at_least;
use crate::sketch::Sketch;
use crate::store::SetStore;

/// The kept documents, to be searched by sketch.
///
/// Its answers are those of the definition: of all kept documents that share a band, the one of the highest exact
/// Jaccard similarity, if that reaches the threshold. Only buckets beyond their limit are cut short, and counted.
#[derive(Debug)]
pub(crate) struct Star {
    threshold: f64,
    index: BandIndex,
    sets: SetStore,
    counts: StarCounts,
    /// Entries of the buckets looked at; a buffer.
    entries: Vec<DocNumber>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct StarCounts {
    /// Pairs that shared a band and were compared.
    pub(crate) candidates: u64,
    /// Pairs of these that reached the threshold.
    pub(crate) verified: u64,
    /// Bucket entries that the limit has hidden from a document.
    pub(crate) skipped: u64,
}

/// The kept document that stands for another one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Nearest {
    pub(crate) doc: DocNumber,
    pub(crate) jaccard: f64,
    pub(crate) bands_shared: u64,
}

impl Star {
    pub(crate) fn new(threshold: f64, bands: usize, max_candidates_per_band: u32) -> Self {
        Self {
            threshold,
            index: BandIndex::new(bands, max_candidates_per_band),
            sets: SetStore::default(),
            counts: StarCounts::default(),
            entries: Vec::new(),
        }
    }

    pub(crate) fn nearest(&mut self, sketch: &Sketch) -> Option<Nearest> {
        self.entries.clear();
        self.counts.skipped += self.index.lookup(&sketch.band_keys, &mut self.entries);
        self.entries.sort_unstable();
        let mut nearest: Option<Nearest> = None;
        for entries in self.entries.chunk_by(|a, b| a == b) {
            let doc = entries[0];
            self.counts.candidates += 1;
            if let Some(jaccard) = similar_at_least(self.threshold, self.sets.get(doc), &sketch.shingles) {
                self.counts.verified += 1;
                // Candidates come in the order they were kept, so the first of several equals stays.
                if nearest.is_none_or(|best| jaccard > best.jaccard) {
                    nearest = Some(Nearest { doc, jaccard, bands_shared: entries.len() as u64 });
                }
            }
        }
        nearest
    }

    /// Adds a kept document; documents are numbered as they come.
    pub(crate) fn keep(&mut self, doc: DocNumber, sketch: &Sketch) {
        self.index.insert(&sketch.band_keys, doc);
        self.sets.push(&sketch.shingles);
    }

    pub(crate) fn counts(&self) -> StarCounts {
        self.counts
    }

    pub(crate) fn band_table_bytes(&self) -> u64 {
        self.index.bytes()
    }

    pub(crate) fn shingle_bytes(&self) -> u64 {
        self.sets.bytes()
    }
}
