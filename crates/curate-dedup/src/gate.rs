//! The half of the stage that sees documents in input order and decides.

use curate_core::{Document, Dropped, Gate, Value, Verdict};

use crate::banding::match_probability;
use crate::error::{Error, Result};
use crate::index::{Buckets, DocNumber, MAX_DOCS};
use crate::options::{DedupOptions, MinHashOptions};
use crate::sketch::{DedupMapper, DedupWork, Sketcher};
use crate::star::{Nearest, Star};
use crate::store::StringStore;
use crate::summary::{DedupSummary, MemorySummary, MinHashSummary, Tally};

/// Checked options, ready to become the two halves of a stage.
#[derive(Debug, Clone)]
pub struct Deduplicator {
    sketcher: Option<Sketcher>,
    /// With the banding filled in.
    minhash: Option<MinHashOptions>,
}

impl Deduplicator {
    /// An error says which option is out of range and what the range is.
    pub fn new(options: DedupOptions) -> Result<Self> {
        options.validate()?;
        let Some(mut minhash) = options.minhash else {
            return Ok(Self { sketcher: None, minhash: None });
        };
        let banding = minhash.banding()?;
        (minhash.bands, minhash.rows) = (Some(banding.bands), Some(banding.rows));
        Ok(Self { sketcher: Some(Sketcher::new(&minhash)?), minhash: Some(minhash) })
    }

    /// The MinHash options that will be used, with their bands and rows.
    pub fn minhash(&self) -> Option<&MinHashOptions> {
        self.minhash.as_ref()
    }

    /// The two halves, for `Stage::gated`. Lend the gate (`&mut gate`) to read its summary after the run.
    pub fn split(self) -> (DedupMapper, DedupGate) {
        let minhash = self.minhash.zip(self.sketcher.as_ref()).map(|(options, sketcher)| {
            let bands = sketcher.banding().bands as usize;
            (Star::new(options.threshold, bands, options.max_candidates_per_band), options)
        });
        (DedupMapper { sketcher: self.sketcher }, DedupGate::new(minhash))
    }
}

/// Keeps the first of every set of duplicates and remembers what it kept.
///
/// The memory grows with each kept document as the documentation of the crate says, and with each removed one
/// only by its id, for the first few of a cluster. At most 2^31 - 1 documents can be kept.
#[derive(Debug)]
pub struct DedupGate {
    /// From the lower half of a content key to the kept documents that have it.
    exact: Buckets,
    /// Of kept documents, by number.
    keys: Vec<u128>,
    ids: StringStore,
    minhash: Option<(Star, MinHashOptions)>,
    tally: Tally,
    /// A buffer.
    found: Vec<DocNumber>,
}

impl DedupGate {
    fn new(minhash: Option<(Star, MinHashOptions)>) -> Self {
        Self {
            exact: Buckets::default(),
            keys: Vec::new(),
            ids: StringStore::default(),
            minhash,
            tally: Tally::default(),
            found: Vec::new(),
        }
    }

    /// What was found so far.
    pub fn summary(&self) -> DedupSummary {
        let Self { ids, tally, .. } = self;
        let kept = ids.len() as u64;
        DedupSummary {
            documents: kept + tally.exact_duplicates + tally.near_duplicates,
            kept,
            exact_duplicates: tally.exact_duplicates,
            near_duplicates: tally.near_duplicates,
            minhash: self.minhash_summary(),
            clusters: tally.clusters(),
            biggest_clusters: tally.biggest_clusters(ids),
            sources: tally.sources.clone(),
            memory: self.memory(),
        }
    }

    fn minhash_summary(&self) -> Option<MinHashSummary> {
        let (star, options) = self.minhash.as_ref()?;
        let banding = options.banding().expect("checked when the gate was made");
        let counts = star.counts();
        Some(MinHashSummary {
            options: options.clone(),
            match_probability_at_threshold: match_probability(options.threshold, banding.bands, banding.rows),
            candidates: counts.candidates,
            verified: counts.verified,
            candidate_precision: (counts.candidates > 0)
                .then(|| counts.verified as f64 / counts.candidates as f64),
            skipped_comparisons: counts.skipped,
            jaccard_histogram: self.tally.histogram(),
        })
    }

    fn memory(&self) -> MemorySummary {
        let star = self.minhash.as_ref().map(|(star, _)| star);
        let mut memory = MemorySummary {
            exact_keys: self.exact.bytes() + (self.keys.capacity() * size_of::<u128>()) as u64,
            band_tables: star.map_or(0, Star::band_table_bytes),
            shingle_sets: star.map_or(0, Star::shingle_bytes),
            ids: self.ids.bytes(),
            clusters: self.tally.bytes(),
            total: 0,
        };
        memory.total =
            memory.exact_keys + memory.band_tables + memory.shingle_sets + memory.ids + memory.clusters;
        memory
    }

    fn decide(&mut self, doc: &Document<'_>, work: DedupWork) -> Result<Verdict> {
        let DedupWork { key, sketch } = work;
        if let Some(original) = self.kept_with_key(key) {
            self.tally.exact_duplicate(doc.id(), doc.source(), original);
            return Ok(self.exact_duplicate(original));
        }
        if let (Some((star, _)), Some(sketch)) = (&mut self.minhash, &sketch)
            && let Some(nearest) = star.nearest(sketch)
        {
            self.tally.near_duplicate(doc.id(), doc.source(), nearest.doc, nearest.jaccard);
            return Ok(self.near_duplicate(nearest));
        }
        let number = self.next_number()?;
        self.exact.insert(key as u64, number, u32::MAX);
        self.keys.push(key);
        self.ids.push(doc.id());
        if let (Some((star, _)), Some(sketch)) = (&mut self.minhash, &sketch) {
            star.keep(number, sketch);
        }
        self.tally.kept(doc.source());
        Ok(Verdict::Keep)
    }

    /// The kept document with this content key. There is at most one, since the next one would be its duplicate.
    ///
    /// Removed documents are not remembered: a copy of one is judged as it was, and its proof names a kept
    /// document.
    fn kept_with_key(&mut self, key: u128) -> Option<DocNumber> {
        self.found.clear();
        self.exact.lookup(key as u64, &mut self.found);
        self.found.iter().copied().find(|&doc| self.keys[doc as usize] == key)
    }

    fn next_number(&self) -> Result<DocNumber> {
        let number = u32::try_from(self.keys.len()).ok().filter(|&number| number < MAX_DOCS);
        number.ok_or(Error::TooManyDocuments { limit: MAX_DOCS })
    }

    fn exact_duplicate(&self, original: DocNumber) -> Verdict {
        let proof = vec![
            ("dup_of", self.id(original)),
            ("jaccard", Value::Number(1.0)),
            ("rule", Value::Text("exact".to_owned())),
        ];
        Verdict::Drop(Dropped { reason: "exact_duplicate".into(), proof })
    }

    fn near_duplicate(&self, nearest: Nearest) -> Verdict {
        let proof = vec![
            ("dup_of", self.id(nearest.doc)),
            ("jaccard", Value::Number(nearest.jaccard)),
            ("rule", Value::Text("minhash".to_owned())),
            ("bands_shared", Value::Count(nearest.bands_shared)),
        ];
        Verdict::Drop(Dropped { reason: "near_duplicate".into(), proof })
    }

    fn id(&self, doc: DocNumber) -> Value {
        Value::Text(self.ids.get(doc as usize).to_owned())
    }
}

impl Gate for DedupGate {
    type Work = DedupWork;

    fn admit(&mut self, doc: &mut Document<'_>, work: DedupWork) -> curate_core::Result<Verdict> {
        self.decide(doc, work).map_err(curate_core::Error::other)
    }
}
