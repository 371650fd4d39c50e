//! The half of the stage that sees documents in input order and decides.

use std::collections::BTreeMap;

use curate_core::{Document, Dropped, Gate, Value, Verdict};

use crate::banding::match_probability;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::kept::{Kept, KeptBudget};
use crate::mark::mark;
use crate::options::{DedupOptions, MinHashOptions, Place, Storage};
use crate::sketch::{DedupMapper, DedupWork, Sketcher};
use crate::spill::SpillDir;
use crate::star::{Nearest, Star};
use crate::summary::{DedupSummary, MemorySummary, MinHashSummary, Tally};
use crate::table::{DocNumber, KeyTable, MAX_DOCS};

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
    ///
    /// # Errors
    /// Too little memory; an index that cannot be used, or was made with other options.
    pub fn split(self, storage: &Storage) -> Result<(DedupMapper, DedupGate)> {
        storage.validate()?;
        self.split_in(storage)
    }

    pub(crate) fn split_in(self, storage: &Storage) -> Result<(DedupMapper, DedupGate)> {
        let gate = DedupGate::new(self.minhash, storage)?;
        Ok((DedupMapper { sketcher: self.sketcher }, gate))
    }
}

/// Keeps the first of every set of duplicates and remembers what it kept.
///
/// It holds no more than its [`Storage`] says in memory, and the rest in files, which grow with each kept document as the
/// documentation of the crate says. At most 2^32 - 1 documents can be kept.
#[derive(Debug)]
pub struct DedupGate {
    /// From content keys and the keys of bands to kept documents.
    table: KeyTable,
    kept: Kept,
    dir: SpillDir,
    index: Option<Index>,
    minhash: Option<(Star, MinHashOptions)>,
    tally: Tally,
    /// A buffer.
    found: Vec<DocNumber>,
    /// Field for the cluster of a document, where copies stay.
    mark: Option<String>,
}

impl DedupGate {
    fn new(minhash: Option<MinHashOptions>, storage: &Storage) -> Result<Self> {
        // Shares of the memory: the table needs half as much again while it grows.
        let memory = usize::try_from(storage.memory).unwrap_or(usize::MAX);
        let budget = KeptBudget { records: memory / 32, ids: memory / 32, sets: memory / 6 };
        let max_members = minhash.as_ref().map_or(u32::MAX, |options| options.max_candidates_per_band);
        let table = KeyTable::new(memory / 4, memory / 4, max_members);
        // What is found is compared, unless a band alone is to decide.
        let table = match minhash.as_ref().is_none_or(|options| options.verify) {
            true => table.with_short_keys(),
            false => table,
        };
        let (dir, index, kept, table) = match &storage.place {
            Place::TemporaryIn(parent) => {
                (SpillDir::temporary_below(parent.clone()), None, Kept::new(budget), table)
            }
            Place::Index(path) => {
                let (index, kept, table) = Index::open(path, parameters(minhash.as_ref()), budget, table)?;
                (index.dir(), Some(index), kept, table)
            }
        };
        let minhash = minhash.map(|options| (Star::new(options.threshold, options.verify), options));
        let tally = Tally::new(memory / 32);
        Ok(Self { table, kept, dir, index, minhash, tally, found: Vec::new(), mark: None })
    }

    /// Keeps copies too, and writes into this field of every document the id of the kept one that it repeats, or its own.
    pub fn set_mark(&mut self, field: Option<String>) {
        self.mark = field;
    }

    /// What was found so far.
    ///
    /// # Errors
    /// What is in files could not be read.
    pub fn summary(&self) -> Result<DedupSummary> {
        let Self { kept, tally, .. } = self;
        let indexed = self.index.as_ref().map_or(0, Index::documents);
        let kept_now = u64::from(kept.len() - indexed);
        Ok(DedupSummary {
            documents: kept_now + tally.exact_duplicates + tally.near_duplicates,
            kept: kept_now,
            indexed: self.index.is_some().then_some(indexed.into()),
            exact_duplicates: tally.exact_duplicates,
            near_duplicates: tally.near_duplicates,
            minhash: self.minhash_summary(),
            clusters: tally.clusters(),
            cluster_sizes: tally.cluster_sizes(),
            biggest_clusters: tally.biggest_clusters(|doc| kept.id(doc))?,
            sources: tally.sources.clone(),
            memory: self.memory(),
            disk_bytes: self.table.disk()
                + kept.stores().iter().map(|store| store.disk()).sum::<u64>()
                + tally.disk(),
        })
    }

    /// Adds what was kept to the index, if there is one. Call it when the output is complete: a run that is killed before
    /// can be repeated, with the same answer.
    ///
    /// # Errors
    /// The index could not be written; it is then as it was before.
    pub fn commit(&mut self) -> Result<()> {
        match &mut self.index {
            Some(index) => index.commit(&mut self.kept, &mut self.table, &mut self.dir),
            None => Ok(()),
        }
    }

    /// Whether it compares shingles.
    pub(crate) fn verifies(&self) -> bool {
        self.minhash.as_ref().is_some_and(|(star, _)| star.verifies())
    }

    fn minhash_summary(&self) -> Option<MinHashSummary> {
        let (star, options) = self.minhash.as_ref()?;
        let banding = options.banding().expect("checked when the gate was made");
        let counts = star.counts();
        let verified = star.verifies().then_some(counts.verified);
        Some(MinHashSummary {
            options: options.clone(),
            match_probability_at_threshold: match_probability(options.threshold, banding.bands, banding.rows),
            candidates: counts.candidates,
            verified,
            candidate_precision: verified
                .filter(|_| counts.candidates > 0)
                .map(|verified| verified as f64 / counts.candidates as f64),
            skipped_comparisons: counts.skipped,
            jaccard_histogram: self.tally.histogram(),
        })
    }

    fn memory(&self) -> MemorySummary {
        let [records, ids, sets] = self.kept.stores().map(|store| store.memory());
        let (keys, clusters) = (self.table.memory(), self.tally.memory());
        let total = keys + records + ids + sets + clusters;
        MemorySummary { keys, records, ids, shingle_sets: sets, clusters, order: 0, total }
    }

    fn decide(&mut self, doc: &Document<'_>, work: DedupWork) -> Result<Verdict> {
        let DedupWork { key, sketch } = work;
        if let Some(original) = self.kept_with_key(key)? {
            self.tally.exact_duplicate(doc.id(), doc.source(), original, &mut self.dir)?;
            return self.exact_duplicate(original);
        }
        let Self { table, kept, dir, minhash, tally, .. } = self;
        if let (Some((star, _)), Some(sketch)) = (minhash.as_mut(), &sketch)
            && let Some(nearest) = star.nearest(sketch, table, kept)?
        {
            tally.near_duplicate(doc.id(), doc.source(), nearest.doc, nearest.jaccard, dir)?;
            return self.near_duplicate(nearest);
        }
        if kept.len() == MAX_DOCS {
            return Err(Error::TooManyDocuments { limit: MAX_DOCS });
        }
        let shingles = match (minhash.as_ref(), &sketch) {
            (Some((star, _)), Some(sketch)) if star.verifies() => &*sketch.shingles,
            _ => &[],
        };
        let number = kept.push(key, doc.id(), shingles, dir)?;
        // However many texts there are of one short key and different 128-bit keys: their bucket has no limit.
        table.insert(key as u64, number, 0, dir)?;
        if let (Some((star, _)), Some(sketch)) = (minhash, &sketch) {
            star.keep(number, sketch, table, dir)?;
        }
        tally.kept(doc.source());
        Ok(Verdict::Keep)
    }

    /// The kept document with this content key. There is at most one, since the next one would be its duplicate.
    ///
    /// Removed documents are not remembered: a copy of one is judged as it was, and its proof names a kept
    /// document.
    fn kept_with_key(&mut self, key: u128) -> Result<Option<DocNumber>> {
        self.found.clear();
        self.table.lookup(key as u64, &mut self.found)?;
        for &doc in &self.found {
            if self.kept.key(doc)? == key {
                return Ok(Some(doc));
            }
        }
        Ok(None)
    }

    fn exact_duplicate(&self, original: DocNumber) -> Result<Verdict> {
        let proof = vec![
            ("dup_of", self.id(original)?),
            ("jaccard", Value::Number(1.0)),
            ("rule", Value::Text("exact".to_owned())),
        ];
        Ok(Verdict::Drop(Dropped { reason: "exact_duplicate".into(), proof }))
    }

    fn near_duplicate(&self, nearest: Nearest) -> Result<Verdict> {
        let mut proof = vec![("dup_of", self.id(nearest.doc)?)];
        proof.extend(nearest.jaccard.map(|jaccard| ("jaccard", Value::Number(jaccard))));
        proof.push(("rule", Value::Text("minhash".to_owned())));
        proof.push(("bands_shared", Value::Count(nearest.bands_shared)));
        Ok(Verdict::Drop(Dropped { reason: "near_duplicate".into(), proof }))
    }

    fn id(&self, doc: DocNumber) -> Result<Value> {
        self.kept.id(doc).map(Value::Text)
    }
}

impl Gate for DedupGate {
    type Work = DedupWork;

    fn admit(&mut self, doc: &mut Document<'_>, work: DedupWork) -> curate_core::Result<Verdict> {
        let verdict = self.decide(doc, work).map_err(curate_core::Error::other)?;
        Ok(match &self.mark {
            Some(field) => mark(doc, field, &verdict),
            None => verdict,
        })
    }
}

/// What an index must be used with, by name.
fn parameters(minhash: Option<&MinHashOptions>) -> BTreeMap<String, serde_json::Value> {
    let mut parameters = BTreeMap::from([("method".to_owned(), "exact".into())]);
    if let Some(options) = minhash {
        parameters.insert("method".to_owned(), "minhash".into());
        if let Ok(serde_json::Value::Object(options)) = serde_json::to_value(options) {
            parameters.extend(options);
        }
    }
    parameters
}
