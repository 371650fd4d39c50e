//! Star clustering: which kept document, if any, stands for this one?

use crate::error::Result;
use crate::kept::Kept;
use crate::similar::{can_be_similar, similar_at_least};
use crate::sketch::Sketch;
use crate::spill::SpillDir;
use crate::table::{DocNumber, KeyTable};

/// Searches the kept documents by sketch.
///
/// Its answers are those of the definition: of all kept documents that share a band, the one of the highest exact
/// Jaccard similarity, if that reaches the threshold. Only buckets beyond their limit are cut short, and counted.
#[derive(Debug)]
pub(crate) struct Star {
    threshold: f64,
    verify: bool,
    counts: StarCounts,
    /// What the last search found: all entries, band by band, and how many each band has. Buffers.
    entries: Vec<DocNumber>,
    members: Vec<usize>,
    set: Vec<u64>,
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
    /// `None` where nothing is verified.
    pub(crate) jaccard: Option<f64>,
    pub(crate) bands_shared: u64,
}

impl Star {
    pub(crate) fn new(threshold: f64, verify: bool) -> Self {
        Self {
            threshold,
            verify,
            counts: StarCounts::default(),
            entries: Vec::new(),
            members: Vec::new(),
            set: Vec::new(),
        }
    }

    pub(crate) fn nearest(
        &mut self,
        sketch: &Sketch,
        table: &KeyTable,
        kept: &mut Kept,
    ) -> Result<Option<Nearest>> {
        self.entries.clear();
        self.members.clear();
        for key in table_keys(sketch) {
            let before = self.entries.len();
            self.counts.skipped += u64::from(table.lookup(key, &mut self.entries)?);
            self.members.push(self.entries.len() - before);
        }
        self.entries.sort_unstable();
        let mut nearest: Option<Nearest> = None;
        for entries in self.entries.chunk_by(|a, b| a == b) {
            let (doc, bands_shared) = (entries[0], entries.len() as u64);
            self.counts.candidates += 1;
            if !self.verify {
                nearest.get_or_insert(Nearest { doc, jaccard: None, bands_shared });
                continue;
            }
            let (threshold, set) = (self.threshold, &mut self.set);
            let own = sketch.shingles.len();
            if kept.shingles(doc, set, |len| can_be_similar(threshold, len, own))?
                && let Some(jaccard) = similar_at_least(threshold, set, &sketch.shingles)
            {
                self.counts.verified += 1;
                // Candidates come in the order they were kept, so the first of several equals stays.
                if nearest.is_none_or(|best| best.jaccard < Some(jaccard)) {
                    nearest = Some(Nearest { doc, jaccard: Some(jaccard), bands_shared });
                }
            }
        }
        Ok(nearest)
    }

    /// Enters the document that was last searched for, and is kept.
    pub(crate) fn keep(
        &mut self,
        doc: DocNumber,
        sketch: &Sketch,
        table: &mut KeyTable,
        dir: &mut SpillDir,
    ) -> Result<()> {
        let keys = table_keys(sketch).zip(&self.members);
        keys.into_iter().try_for_each(|(key, &members)| table.insert(key, doc, members, dir))
    }

    pub(crate) fn verifies(&self) -> bool {
        self.verify
    }

    pub(crate) fn counts(&self) -> StarCounts {
        self.counts
    }
}

/// The keys of the bands as the one table has them, where equal keys of two bands must not meet.
fn table_keys(sketch: &Sketch) -> impl Iterator<Item = u64> {
    let bands = (1u64..).zip(&sketch.band_keys);
    bands.map(|(band, &key)| key.wrapping_add(band.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}
