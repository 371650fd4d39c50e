//! Deduplication that must see every document before it can say which stay.
//!
//! There are three such wishes: to keep the *best* of several copies and not the first ([`Order`]), to join all that is
//! connected ([`Cluster::Components`]), and to compare meanings ([`gather_semantic`]), for which the embeddings of all documents
//! are clustered first. All take two passes over the same documents:
//!
//! ```text
//! pass 1   text ─ GatherMapper ─▶ rank, sketch or embedding ─ GatherGate ─▶ spool ─ decide ─▶ Decisions
//! pass 2   document number i ─ DecidedGate ─▶ keep, or drop with the proof
//! ```
//!
//! With an order the answer is that of the definition, read in this order: a document goes if and only if a document that
//! comes earlier *in the order* was kept and is similar. Between the passes the sketches are brought into the order and
//! go through the very gate that a single pass has, so there is one engine. The output stays in input order.
//!
//! Memory: that of the [`Storage`], and for components what [`Components`] says. Files: about the size of the texts for the
//! sketches (8 bytes a distinct shingle, 8 a band), 24 bytes a document for its place in the order, and the proofs.
//! The sketches are read in the order, hence at random places of a file that the page cache may not hold.

use std::sync::Arc;

use curate_core::{Counters, Document, Dropped, Gate, Mapper, Value, Verdict, Work};
use xxhash_rust::xxh3::Xxh3;

use crate::banding::match_probability;
use crate::components::{Components, Representative};
use crate::error::{Error, Result};
use crate::external::{Cursor, Sorted, Sorter};
use crate::gate::{DedupGate, Deduplicator};
use crate::keys::{KeyGate, KeySummary};
use crate::mark::mark;
use crate::options::{DedupOptions, MinHashOptions, Place, Storage};
use crate::semantic::{
    Chosen, Cosines, EmbeddingSource, Found, Rows, SemanticError, SemanticOptions, SemanticReport, Wanted,
    semantic_dedup,
};
use crate::similar::similar;
use crate::sketch::{DedupMapper, DedupWork, Sketch, SketchBuffers};
use crate::spill::{AppendStore, SpillDir};
use crate::summary::{DedupSummary, MemorySummary, MinHashSummary, Tally};
use crate::words::Profile;

/// Asks a document for a number.
pub type NumberOf = Box<dyn Fn(&Document<'_>) -> Option<f64> + Send + Sync>;
/// Asks a document for its key.
pub type KeyOf = Box<dyn Fn(&Document<'_>) -> Option<String> + Send + Sync>;

/// Which of several copies comes first, and is kept. Equals come in input order.
pub enum Order {
    Input,
    /// The text of most bytes of UTF-8.
    Longest,
    /// The largest number. Documents without a (finite) one come last, and are counted.
    Largest(NumberOf),
    /// The smallest number; the others as with [`Order::Largest`].
    Smallest(NumberOf),
}

impl Order {
    /// Lower ranks come first; [`NO_NUMBER`] after all numbers.
    fn rank(&self, doc: &Document<'_>) -> u64 {
        match self {
            Self::Input => 0,
            Self::Longest => u64::MAX - doc.text_len() as u64,
            Self::Largest(number) => number(doc).and_then(ordered_bits).map_or(NO_NUMBER, |bits| !bits),
            Self::Smallest(number) => number(doc).and_then(ordered_bits).unwrap_or(NO_NUMBER),
        }
    }

    fn is_by_number(&self) -> bool {
        matches!(self, Self::Largest(_) | Self::Smallest(_))
    }
}

const NO_NUMBER: u64 = u64::MAX;

/// Bits that are ordered as the numbers are, for finite ones; neither they nor their complement are [`NO_NUMBER`].
fn ordered_bits(number: f64) -> Option<u64> {
    // Adding 0 makes the negative zero a positive one.
    let bits = number.is_finite().then_some((number + 0.0).to_bits())?;
    Some(if bits >> 63 == 0 { bits | 1 << 63 } else { !bits })
}

/// What a document is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster {
    /// Kept documents: it goes if one that comes earlier in the order is similar.
    Star,
    /// All documents: it stays if it is the one of its component that stays. With any [`Order`] but that of the input this is
    /// the first in the order.
    Components(Representative),
}

/// What is to be decided.
enum Subject {
    Contents(DedupMapper),
    Key(KeyOf),
    Meaning(Wanted),
}

/// The mapper of the first pass.
pub struct GatherMapper {
    subject: Subject,
    order: Order,
}

/// What the mapper of the first pass tells its gate.
#[derive(Debug)]
pub struct GatherWork {
    rank: u64,
    subject: SubjectWork,
}

#[derive(Debug)]
enum SubjectWork {
    /// With the minima that [`Representative::UnionBySize`] needs.
    Contents(DedupWork, Box<[u64]>),
    Key(Option<String>),
    Meaning(Found),
}

impl Mapper for GatherMapper {
    type Work = GatherWork;
    type Scratch = SketchBuffers;

    fn map(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut SketchBuffers,
        counters: &mut Counters,
    ) -> Work<GatherWork> {
        let rank = self.order.rank(doc);
        let subject = match &self.subject {
            Subject::Key(key) => SubjectWork::Key(key(doc)),
            Subject::Meaning(wanted) => SubjectWork::Meaning(wanted.find(doc)),
            Subject::Contents(mapper) => match mapper.map(doc, scratch, counters) {
                Work::Decided(verdict) => return Work::Decided(verdict),
                Work::Pending(work) => SubjectWork::Contents(work, scratch.datatrove_signature().into()),
            },
        };
        Work::Pending(GatherWork { rank, subject })
    }
}

/// The gate of the first pass: drops nothing and remembers all that [`GatherGate::decide`] needs.
#[derive(Debug)]
pub struct GatherGate {
    engine: Engine,
    by_number: bool,
    without_number: u64,
    documents: u64,
    seen: Seen,
    spool: AppendStore,
    memory: usize,
    threads: usize,
    parent: std::path::PathBuf,
    dir: SpillDir,
    /// A buffer.
    bytes: Vec<u8>,
}

/// Who decides, and what has been gathered for it.
#[derive(Debug)]
enum Engine {
    Star(Box<DedupGate>, Sorter<3>),
    Key(Box<KeyGate>, Sorter<3>),
    Components(Box<ComponentsEngine>),
    Semantic(Box<SemanticEngine>, Sorter<3>),
}

#[derive(Debug)]
struct SemanticEngine {
    options: SemanticOptions,
    rows: Rows,
}

#[derive(Debug)]
struct ComponentsEngine {
    components: Components,
    options: MinHashOptions,
    /// Whether an order chooses the representatives.
    ordered: bool,
    /// Of each document its place in the spool and its rank, 8 bytes each.
    places: AppendStore,
}

/// The two halves of the first pass for contents: what is equal, or similar.
///
/// # Errors
/// Options out of range; too little memory; an index, which cannot know what later documents will be like; components
/// without MinHash.
pub fn gather_contents(
    options: DedupOptions,
    cluster: Cluster,
    order: Order,
    storage: &Storage,
) -> Result<(GatherMapper, GatherGate)> {
    storage.validate()?;
    gather_contents_in(options, cluster, order, storage)
}

pub(crate) fn gather_contents_in(
    options: DedupOptions,
    cluster: Cluster,
    order: Order,
    storage: &Storage,
) -> Result<(GatherMapper, GatherGate)> {
    let Place::TemporaryIn(parent) = &storage.place else { return Err(Error::IndexOfAll) };
    let deduplicator = Deduplicator::new(options)?;
    let minhash = deduplicator.minhash().cloned();
    let half = Storage { memory: storage.memory / 2, place: storage.place.clone() };
    let (mapper, gate) = deduplicator.split_in(&half)?;
    let memory = usize::try_from(storage.memory).unwrap_or(usize::MAX);
    let engine = match (cluster, minhash) {
        (Cluster::Star, _) => Engine::Star(Box::new(gate), Sorter::new("order", memory / 4)),
        (Cluster::Components(_), None) => return Err(Error::ComponentsOfCopies),
        (Cluster::Components(representative), Some(options)) => {
            if representative == Representative::UnionBySize && options.profile != Profile::Datatrove {
                return Err(Error::UnionBySize);
            }
            let components = Components::new(options.banding()?, representative, &half)?;
            Engine::Components(Box::new(ComponentsEngine {
                components,
                options,
                ordered: !matches!(order, Order::Input),
                places: AppendStore::new("places.bin", memory / 8),
            }))
        }
    };
    let gate = GatherGate::new(engine, &order, memory, parent.clone());
    Ok((GatherMapper { subject: Subject::Contents(mapper), order }, gate))
}

/// The two halves of the first pass for a key called `name`.
///
/// # Errors
/// Too little memory; an index.
pub fn gather_keys(
    name: impl Into<String>,
    key: KeyOf,
    order: Order,
    storage: &Storage,
) -> Result<(GatherMapper, GatherGate)> {
    storage.validate()?;
    let Place::TemporaryIn(parent) = &storage.place else { return Err(Error::IndexOfAll) };
    let memory = usize::try_from(storage.memory).unwrap_or(usize::MAX);
    let half = Storage { memory: storage.memory / 2, place: storage.place.clone() };
    let keys = KeyGate::new_in(name, &half)?;
    let engine = Engine::Key(Box::new(keys), Sorter::new("order", memory / 4));
    let gate = GatherGate::new(engine, &order, memory, parent.clone());
    Ok((GatherMapper { subject: Subject::Key(key), order }, gate))
}

/// The two halves of the first pass for embeddings: what means nearly the same.
///
/// Where the rows of `source` are in the order of the documents, its counter must be the first stage of the chain. In the order a
/// document comes before another as for contents. Memory is 8 bytes a document besides that of the [`Storage`] and what
/// [`semantic_dedup`] says.
///
/// # Errors
/// Options out of range; too little memory; an index.
pub fn gather_semantic(
    options: SemanticOptions,
    source: EmbeddingSource,
    order: Order,
    storage: &Storage,
) -> Result<(GatherMapper, GatherGate)> {
    storage.validate()?;
    options.validate()?;
    let Place::TemporaryIn(parent) = &storage.place else { return Err(Error::IndexOfAll) };
    let memory = usize::try_from(storage.memory).unwrap_or(usize::MAX);
    let (wanted, rows) = source.split(storage)?;
    let engine = SemanticEngine { options, rows };
    let engine = Engine::Semantic(Box::new(engine), Sorter::new("order", memory / 4));
    let gate = GatherGate::new(engine, &order, memory, parent.clone());
    Ok((GatherMapper { subject: Subject::Meaning(wanted), order }, gate))
}

impl GatherGate {
    fn new(engine: Engine, order: &Order, memory: usize, parent: std::path::PathBuf) -> Self {
        Self {
            engine,
            by_number: order.is_by_number(),
            without_number: 0,
            documents: 0,
            seen: Seen::default(),
            spool: AppendStore::new("sketches.bin", memory / 8),
            memory,
            threads: 1,
            dir: SpillDir::temporary_below(parent.clone()),
            parent,
            bytes: Vec::new(),
        }
    }

    /// Lets [`decide`](Self::decide) use so many threads; the answer does not depend on it.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    fn gather(&mut self, doc: &Document<'_>, work: GatherWork) -> Result<()> {
        let GatherWork { rank, subject } = work;
        let place = self.documents;
        self.documents += 1;
        self.seen.add(doc);
        self.without_number += u64::from(self.by_number && rank == NO_NUMBER);
        self.bytes.clear();
        match (&mut self.engine, subject) {
            (Engine::Components(engine), SubjectWork::Contents(work, signature)) => {
                if place >= u64::from(u32::MAX) {
                    return Err(Error::TooManyDocuments { limit: u32::MAX });
                }
                let sketch = work.sketch.expect("MinHash was asked for");
                engine.components.add(&sketch.band_keys, &signature)?;
                let set: &[u64] = if engine.options.verify { &sketch.shingles } else { &[] };
                Spooled { key: work.key, id: doc.id(), source: doc.source(), extra: None, words: [&[], set] }
                    .encode(&mut self.bytes);
                let at = self.spool.append(&self.bytes, &mut self.dir)?;
                let mut entry = [0; PLACE];
                entry[..8].copy_from_slice(&at.to_le_bytes());
                entry[8..].copy_from_slice(&rank.to_le_bytes());
                engine.places.append(&entry, &mut self.dir)?;
                return Ok(());
            }
            (Engine::Star(gate, _), SubjectWork::Contents(work, _)) => {
                let sketch = work.sketch.as_ref();
                let keys = sketch.map_or(&[][..], |sketch| &sketch.band_keys);
                let set = sketch.filter(|_| gate.verifies()).map_or(&[][..], |sketch| &sketch.shingles);
                Spooled {
                    key: work.key,
                    id: doc.id(),
                    source: doc.source(),
                    extra: None,
                    words: [keys, set],
                }
                .encode(&mut self.bytes);
            }
            (Engine::Key(..), SubjectWork::Key(key)) => {
                let extra = key.as_deref();
                Spooled { key: 0, id: doc.id(), source: doc.source(), extra, words: [&[], &[]] }
                    .encode(&mut self.bytes);
            }
            (Engine::Semantic(engine, _), SubjectWork::Meaning(found)) => {
                let key = engine.rows.row(doc.id(), found)? as u128;
                Spooled { key, id: doc.id(), source: doc.source(), extra: None, words: [&[], &[]] }
                    .encode(&mut self.bytes);
            }
            _ => unreachable!("both halves are made for one subject"),
        }
        let at = self.spool.append(&self.bytes, &mut self.dir)?;
        match &mut self.engine {
            Engine::Star(_, order) | Engine::Key(_, order) | Engine::Semantic(_, order) => {
                order.push([rank, place, at], &mut self.dir)
            }
            Engine::Components(_) => Ok(()),
        }
    }

    /// Decides, now that all documents have been seen. `alive` is asked now and then; its error ends the work.
    ///
    /// # Errors
    /// Files could not be written or read; too many documents were kept.
    pub fn decide(
        self,
        alive: impl Fn() -> curate_core::Result<()> + Sync,
    ) -> curate_core::Result<Decisions> {
        let Self { engine, documents, seen, spool, memory, threads, parent, mut dir, .. } = self;
        let mut notes = Notes {
            removals: Sorter::new("removals", memory / 16),
            texts: AppendStore::new("proofs.bin", memory / 16),
            dir: SpillDir::temporary_below(parent),
            bytes: Vec::new(),
        };
        let failed = curate_core::Error::other;
        let summary = match engine {
            Engine::Star(mut gate, order) => {
                let order = order.finish(&mut dir).map_err(failed)?;
                judge(&mut *gate, &order, &spool, &mut notes, &alive)?;
                let mut summary = gate.summary().map_err(failed)?;
                summary.memory.add_order(order.memory() + spool.memory());
                summary.disk_bytes += order.disk() + spool.disk();
                DecidedSummary::Contents(Box::new(summary))
            }
            Engine::Key(mut gate, order) => {
                let order = order.finish(&mut dir).map_err(failed)?;
                judge(&mut *gate, &order, &spool, &mut notes, &alive)?;
                let mut summary = gate.summary();
                summary.memory_bytes += order.memory() + spool.memory();
                summary.disk_bytes += order.disk() + spool.disk();
                DecidedSummary::Key(summary)
            }
            Engine::Components(engine) => {
                let summary = engine.decide(documents, memory, &spool, &mut notes, &mut dir, &alive)?;
                DecidedSummary::Contents(Box::new(summary))
            }
            Engine::Semantic(engine, order) => {
                let order = order.finish(&mut dir).map_err(failed)?;
                let gathered = Gathered { documents, order: &order, spool: &spool };
                let summary = engine.decide(&gathered, memory, threads, &mut notes, &mut dir, &alive)?;
                DecidedSummary::Semantic(Box::new(summary))
            }
        };
        let Notes { removals, texts, dir: mut notes_dir, .. } = notes;
        let removals = removals.finish(&mut notes_dir).map_err(failed)?;
        let without_number = self.by_number.then_some(self.without_number);
        let found = seen.digest();
        Ok(Decisions {
            removals,
            notes: texts,
            documents,
            seen: found,
            summary,
            without_number,
            _dir: notes_dir,
        })
    }
}

impl Gate for GatherGate {
    type Work = GatherWork;

    fn admit(&mut self, doc: &mut Document<'_>, work: GatherWork) -> curate_core::Result<Verdict> {
        self.gather(doc, work).map_err(curate_core::Error::other)?;
        Ok(Verdict::Keep)
    }
}

/// Documents between two questions whether to go on.
const ALIVE_EVERY: u64 = 4096;

/// Lets the documents pass the gate of a single pass in their order.
fn judge<G: Gate>(
    gate: &mut G,
    order: &Sorted<3>,
    spool: &AppendStore,
    notes: &mut Notes,
    alive: &(impl Fn() -> curate_core::Result<()> + Sync),
) -> curate_core::Result<()>
where
    G::Work: FromSpool,
{
    let failed = curate_core::Error::other;
    let (mut cursor, mut bytes, mut count) = (order.start().map_err(failed)?, Vec::new(), 0u64);
    while let Some([_, place, at]) = cursor.next(order).map_err(failed)? {
        if count.is_multiple_of(ALIVE_EVERY) {
            alive()?;
        }
        count += 1;
        let read = ReadBack::read(spool, at, &mut bytes).map_err(failed)?;
        let work = G::Work::from_spool(&read);
        let mut doc = Document::new(b"", read.id, read.source, "");
        if let Verdict::Drop(dropped) = gate.admit(&mut doc, work)? {
            notes.remove(place, &dropped).map_err(failed)?;
        }
    }
    Ok(())
}

/// What a gate needs, from what was spooled.
trait FromSpool {
    fn from_spool(read: &ReadBack<'_>) -> Self;
}

impl FromSpool for DedupWork {
    fn from_spool(read: &ReadBack<'_>) -> Self {
        // A sketch without keys shares no band; there is none at all without MinHash, and both are judged alike.
        let [band_keys, shingles] = [read.keys, read.set].map(|words| words_of(words).collect());
        Self { key: read.key, sketch: Some(Sketch { band_keys, shingles }) }
    }
}

impl FromSpool for Option<String> {
    fn from_spool(read: &ReadBack<'_>) -> Self {
        read.extra.map(str::to_owned)
    }
}

impl ComponentsEngine {
    fn decide(
        self,
        documents: u64,
        memory: usize,
        spool: &AppendStore,
        notes: &mut Notes,
        dir: &mut SpillDir,
        alive: &(impl Fn() -> curate_core::Result<()> + Sync),
    ) -> curate_core::Result<DedupSummary> {
        let Self { components, options, ordered, places } = self;
        let failed = curate_core::Error::other;
        let (keys, bands_disk) = (components.memory(), components.disk());
        let mut partition = components.partition().map_err(failed)?;
        if ordered {
            partition.keep_lowest(|doc| Ok(place_of(&places, doc)?.1)).map_err(failed)?;
        }
        let mut tally = Tally::new(memory / 32);
        let (mut own_bytes, mut other_bytes) = (Vec::new(), Vec::new());
        let mut verified = 0;
        for (doc, &stands) in (0u32..).zip(&partition.representatives) {
            if u64::from(doc).is_multiple_of(ALIVE_EVERY) {
                alive()?;
            }
            let own = ReadBack::of(&places, doc, spool, &mut own_bytes).map_err(failed)?;
            if stands == doc {
                tally.kept(own.source);
                continue;
            }
            let other = ReadBack::of(&places, stands, spool, &mut other_bytes).map_err(failed)?;
            let jaccard = options.verify.then(|| {
                let [a, b]: [Vec<u64>; 2] = [own.set, other.set].map(|set| words_of(set).collect());
                similar(&a, &b)
            });
            verified += u64::from(jaccard.is_some_and(|jaccard| jaccard >= options.threshold));
            tally.near_duplicate(own.id, own.source, stands, jaccard, dir).map_err(failed)?;
            notes.remove(u64::from(doc), &connected(other.id, jaccard)).map_err(failed)?;
        }
        let id_of = |doc| {
            let mut bytes = Vec::new();
            Ok(ReadBack::of(&places, doc, spool, &mut bytes)?.id.to_owned())
        };
        let removed = tally.near_duplicates;
        let banding = options.banding().map_err(failed)?;
        let verified = options.verify.then_some(verified);
        let mut memory = MemorySummary {
            keys,
            records: places.memory(),
            shingle_sets: spool.memory(),
            clusters: tally.memory() + 8 * documents,
            ..MemorySummary::default()
        };
        memory.total = memory.keys + memory.records + memory.shingle_sets + memory.clusters;
        Ok(DedupSummary {
            documents,
            kept: documents - removed,
            indexed: None,
            exact_duplicates: 0,
            near_duplicates: removed,
            clusters: tally.clusters(),
            cluster_sizes: tally.cluster_sizes(),
            biggest_clusters: tally.biggest_clusters(id_of).map_err(failed)?,
            sources: tally.sources.clone(),
            memory,
            disk_bytes: bands_disk + places.disk() + spool.disk() + tally.disk(),
            minhash: Some(MinHashSummary {
                match_probability_at_threshold: match_probability(
                    options.threshold,
                    banding.bands,
                    banding.rows,
                ),
                options,
                candidates: removed,
                verified,
                candidate_precision: verified
                    .filter(|_| removed > 0)
                    .map(|verified| verified as f64 / removed as f64),
                skipped_comparisons: 0,
                jaccard_histogram: tally.histogram(),
            }),
        })
    }
}

/// The documents of a first pass, with the order in which they are to be looked at.
struct Gathered<'g> {
    documents: u64,
    order: &'g Sorted<3>,
    spool: &'g AppendStore,
}

impl SemanticEngine {
    fn decide(
        self,
        gathered: &Gathered<'_>,
        memory: usize,
        threads: usize,
        notes: &mut Notes,
        dir: &mut SpillDir,
        alive: &(impl Fn() -> curate_core::Result<()> + Sync),
    ) -> curate_core::Result<SemanticReport> {
        let Self { options, rows } = self;
        let Gathered { documents, order, spool } = gathered;
        let failed = curate_core::Error::other;
        rows.check().map_err(failed)?;
        if *documents >= u64::from(u32::MAX) {
            return Err(failed(Error::TooManyDocuments { limit: u32::MAX }));
        }
        // By the order: the row of each document, its place in the input, and where it is in the spool.
        let (mut chosen, mut places) = (Vec::new(), Vec::new());
        let mut spooled = AppendStore::new("places.bin", memory / 8);
        let (mut cursor, mut bytes) = (order.start().map_err(failed)?, Vec::new());
        while let Some([_, place, at]) = cursor.next(order).map_err(failed)? {
            if place.is_multiple_of(ALIVE_EVERY) {
                alive()?;
            }
            let key = ReadBack::read(spool, at, &mut bytes).map_err(failed)?.key;
            chosen.push(u32::try_from(key).map_err(|_| failed(Error::TooManyDocuments { limit: u32::MAX }))?);
            places.push(place as u32);
            spooled.append(&at.to_le_bytes(), dir).map_err(failed)?;
        }
        let at_of = |doc: u32| {
            let mut at = [0; 8];
            spooled.read(8 * u64::from(doc), &mut at).map(|()| u64::from_le_bytes(at))
        };
        let id_of = |doc: u32| {
            let mut bytes = Vec::new();
            Ok(ReadBack::read(spool, at_of(doc)?, &mut bytes)?.id.to_owned())
        };
        let chosen = Chosen { embeddings: rows.embeddings(), rows: chosen };
        let result = semantic_dedup(&chosen, &options, threads, &|| alive().is_ok());
        let result = match result {
            Ok(result) => result,
            Err(SemanticError::Stopped) => {
                return Err(alive().err().unwrap_or_else(|| failed(Error::Semantic(SemanticError::Stopped))));
            }
            Err(SemanticError::NotFinite { row }) => {
                let id = id_of(row as u32).map_err(failed)?;
                let what = "a number of it is infinite, or none".to_owned();
                return Err(failed(Error::Embedding { id, place: rows.name().to_owned(), what }));
            }
            Err(error) => return Err(failed(Error::Semantic(error))),
        };
        let (mut tally, mut cosines) = (Tally::new(memory / 32), Cosines::default());
        let mut removals = result.removed.iter().peekable();
        for (doc, &place) in (0u32..).zip(&places) {
            if u64::from(doc).is_multiple_of(ALIVE_EVERY) {
                alive()?;
            }
            let own = ReadBack::read(spool, at_of(doc).map_err(failed)?, &mut bytes).map_err(failed)?;
            let Some(removal) = removals.next_if(|removal| removal.row == doc) else {
                tally.kept(own.source);
                continue;
            };
            tally.near_duplicate(own.id, own.source, removal.dup_of, None, dir).map_err(failed)?;
            cosines.add(removal.cosine);
            let proof = vec![
                ("dup_of", Value::Text(id_of(removal.dup_of).map_err(failed)?)),
                ("cosine", Value::Number(removal.cosine)),
                ("rule", Value::Text("semantic".to_owned())),
            ];
            let dropped = Dropped { reason: "semantic_duplicate".into(), proof };
            notes.remove(u64::from(place), &dropped).map_err(failed)?;
        }
        let kept_bytes = 8 * documents + size_of_val(&result.removed[..]) as u64;
        Ok(SemanticReport {
            documents: *documents,
            kept: documents - tally.near_duplicates,
            removed: tally.near_duplicates,
            clusters: tally.clusters(),
            cluster_sizes: tally.cluster_sizes(),
            biggest_clusters: tally.biggest_clusters(id_of).map_err(failed)?,
            cosine_histogram: cosines.bins(),
            sources: tally.sources.clone(),
            memory_bytes: kept_bytes
                + rows.memory()
                + spool.memory()
                + order.memory()
                + spooled.memory()
                + tally.memory(),
            disk_bytes: rows.disk() + spool.disk() + order.disk() + spooled.disk() + tally.disk(),
            search: result.summary,
        })
    }
}

/// A document that goes for its component, whatever its similarity.
fn connected(stands: &str, jaccard: Option<f64>) -> Dropped {
    let similarity = match jaccard {
        Some(jaccard) => ("jaccard", Value::Number(jaccard)),
        None => ("verify", Value::Text("none".to_owned())),
    };
    let proof = vec![
        ("dup_of", Value::Text(stands.to_owned())),
        similarity,
        ("rule", Value::Text("components".into())),
    ];
    Dropped { reason: "near_duplicate".into(), proof }
}

/// Bytes of an entry of the places: where in the spool, and the rank.
const PLACE: usize = 16;

fn place_of(places: &AppendStore, doc: u32) -> Result<(u64, u64)> {
    let mut entry = [0; PLACE];
    places.read(u64::from(doc) * PLACE as u64, &mut entry)?;
    let (words, _) = entry.as_chunks::<8>();
    Ok((u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])))
}

/// A document on its way into the spool.
///
/// ```text
/// key 16 · lengths of id, source, extra (+ 1; 0: none), keys, set: 4 each · id · source · extra · keys · set
/// ```
struct Spooled<'s> {
    key: u128,
    id: &'s str,
    source: &'s str,
    extra: Option<&'s str>,
    /// Keys of bands, shingles.
    words: [&'s [u64]; 2],
}

const HEADER: usize = 36;

impl Spooled<'_> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let Self { key, id, source, extra, words } = self;
        bytes.extend(key.to_le_bytes());
        let lengths = [id.len(), source.len(), extra.map_or(0, |extra| extra.len() + 1)];
        for length in lengths.into_iter().chain(words.map(<[u64]>::len)) {
            bytes.extend((length as u32).to_le_bytes());
        }
        [*id, *source, extra.unwrap_or_default()].iter().for_each(|text| bytes.extend(text.as_bytes()));
        bytes.extend(words.iter().flat_map(|words| words.iter()).flat_map(|word| word.to_le_bytes()));
    }
}

/// A document from the spool.
struct ReadBack<'b> {
    key: u128,
    id: &'b str,
    source: &'b str,
    extra: Option<&'b str>,
    /// 8 bytes each.
    keys: &'b [u8],
    set: &'b [u8],
}

impl<'b> ReadBack<'b> {
    /// The document with this number.
    fn of(places: &AppendStore, doc: u32, spool: &AppendStore, bytes: &'b mut Vec<u8>) -> Result<Self> {
        Self::read(spool, place_of(places, doc)?.0, bytes)
    }

    fn read(spool: &AppendStore, at: u64, bytes: &'b mut Vec<u8>) -> Result<Self> {
        let mut header = [0; HEADER];
        spool.read(at, &mut header)?;
        let (key, lengths) = header.split_at(16);
        let mut ends = [0usize; 5];
        let mut end = 0;
        let (lengths, _) = lengths.as_chunks::<4>();
        let has_extra = lengths[2] != [0; 4];
        for (i, length) in lengths.iter().enumerate() {
            let length = u32::from_le_bytes(*length) as usize;
            end += match i {
                2 => length.saturating_sub(1),
                3 | 4 => 8 * length,
                _ => length,
            };
            ends[i] = end;
        }
        bytes.resize(end, 0);
        spool.read(at + HEADER as u64, bytes)?;
        let part = |i: usize| &bytes[if i == 0 { 0 } else { ends[i - 1] }..ends[i]];
        let text = |i| std::str::from_utf8(part(i)).expect("written as text by this process");
        Ok(Self {
            key: u128::from_le_bytes(key.try_into().expect("16 bytes")),
            id: text(0),
            source: text(1),
            extra: has_extra.then(|| text(2)),
            keys: part(3),
            set: part(4),
        })
    }
}

fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

/// The removals, as they are found.
struct Notes {
    /// The number of the document, and where its proof is.
    removals: Sorter<2>,
    texts: AppendStore,
    dir: SpillDir,
    bytes: Vec<u8>,
}

impl Notes {
    fn remove(&mut self, place: u64, dropped: &Dropped) -> Result<()> {
        self.bytes.clear();
        encode(dropped, &mut self.bytes);
        let at = self.texts.len();
        self.texts.append(&(self.bytes.len() as u32).to_le_bytes(), &mut self.dir)?;
        self.texts.append(&self.bytes, &mut self.dir)?;
        self.removals.push([place, at], &mut self.dir)
    }
}

/// The reasons and facts that the gates of this crate give, by their numbers in a proof.
const REASONS: [&str; 4] = ["exact_duplicate", "near_duplicate", "duplicate_key", "semantic_duplicate"];
const FACTS: [&str; 7] = ["dup_of", "jaccard", "rule", "bands_shared", "key", "verify", "cosine"];

/// The number of the reason; then for each fact its number, its kind, and its value (a text with its length before it).
fn encode(dropped: &Dropped, bytes: &mut Vec<u8>) {
    let number = |names: &[&str], name: &str| {
        names.iter().position(|known| *known == name).expect("a name that the gates of this crate give") as u8
    };
    bytes.push(number(&REASONS, &dropped.reason));
    for (name, value) in &dropped.proof {
        bytes.push(number(&FACTS, name));
        match value {
            Value::Text(text) => {
                bytes.push(0);
                bytes.extend((text.len() as u32).to_le_bytes());
                bytes.extend(text.as_bytes());
            }
            Value::Number(number) => {
                bytes.push(1);
                bytes.extend(number.to_le_bytes());
            }
            Value::Count(count) => {
                bytes.push(2);
                bytes.extend(count.to_le_bytes());
            }
        }
    }
}

fn decode(mut bytes: &[u8]) -> Dropped {
    fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
        let (head, rest) = bytes.split_first_chunk().expect("written whole by this process");
        *bytes = rest;
        *head
    }
    let [reason] = take(&mut bytes);
    let mut proof = Vec::new();
    while !bytes.is_empty() {
        let [name, kind] = take(&mut bytes);
        let value = match kind {
            0 => {
                let (text, rest) = {
                    let length = u32::from_le_bytes(take(&mut bytes)) as usize;
                    bytes.split_at(length)
                };
                bytes = rest;
                Value::Text(String::from_utf8_lossy(text).into_owned())
            }
            1 => Value::Number(f64::from_le_bytes(take(&mut bytes))),
            _ => Value::Count(u64::from_le_bytes(take(&mut bytes))),
        };
        proof.push((FACTS[name as usize], value));
    }
    Dropped { reason: REASONS[reason as usize].into(), proof }
}

/// A digest of the documents of a pass, by which the second one knows that it sees those of the first.
#[derive(Default)]
pub(crate) struct Seen(Xxh3);

impl Seen {
    pub(crate) fn add(&mut self, doc: &Document<'_>) {
        self.0.update(doc.id().as_bytes());
        self.0.update(&(doc.id().len() as u64).to_le_bytes());
        self.0.update(&(doc.text_len() as u64).to_le_bytes());
    }

    pub(crate) fn digest(&self) -> u64 {
        self.0.digest()
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Seen").finish()
    }
}

/// What has been decided about each document, with the proofs.
#[derive(Debug)]
pub struct Decisions {
    removals: Sorted<2>,
    notes: AppendStore,
    documents: u64,
    seen: u64,
    summary: DecidedSummary,
    without_number: Option<u64>,
    /// Holds the files of the above, and goes with them.
    _dir: SpillDir,
}

/// What was found.
#[derive(Debug)]
pub enum DecidedSummary {
    Contents(Box<DedupSummary>),
    Key(KeySummary),
    Semantic(Box<SemanticReport>),
}

impl Decisions {
    pub fn summary(&self) -> &DecidedSummary {
        &self.summary
    }

    /// Documents without a number to order them by, which came last; `None` where the order asks for none.
    pub fn without_number(&self) -> Option<u64> {
        self.without_number
    }

    /// A gate that applies them to the same documents in the same order.
    ///
    /// # Errors
    /// A file could not be read.
    pub fn gate(self: &Arc<Self>) -> Result<DecidedGate> {
        let mut cursor = self.removals.start()?;
        let next = cursor.next(&self.removals)?;
        let seen = Seen::default();
        let decisions = Arc::clone(self);
        Ok(DecidedGate { decisions, cursor, next, place: 0, seen, bytes: Vec::new(), mark: None })
    }
}

/// The mapper of the second pass, which has nothing to do.
#[derive(Debug)]
pub struct DecidedMapper;

impl Mapper for DecidedMapper {
    type Work = ();
    type Scratch = ();

    fn map(&self, _: &mut Document<'_>, _: &mut (), _: &mut Counters) -> Work<()> {
        Work::Pending(())
    }
}

/// The gate of the second pass.
#[derive(Debug)]
pub struct DecidedGate {
    decisions: Arc<Decisions>,
    cursor: Cursor<2>,
    /// The next removal.
    next: Option<[u64; 2]>,
    place: u64,
    seen: Seen,
    bytes: Vec<u8>,
    /// Field for the cluster of a document, where copies stay.
    mark: Option<String>,
}

impl DecidedGate {
    /// Keeps copies too, and writes into this field of every document the id of the kept one that it repeats, or its own.
    pub fn set_mark(&mut self, field: Option<String>) {
        self.mark = field;
    }

    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// Call it after the last document, before the output counts as complete.
    ///
    /// # Errors
    /// The documents were not those of the first pass.
    pub fn check(&self) -> Result<()> {
        let expected = self.decisions.documents;
        match self.place == expected && self.seen.digest() == self.decisions.seen {
            true => Ok(()),
            false => Err(Error::InputsChanged { first: expected, second: self.place }),
        }
    }

    fn apply(&mut self, doc: &Document<'_>) -> Result<Verdict> {
        let place = self.place;
        self.place += 1;
        self.seen.add(doc);
        let Some([_, at]) = self.next.filter(|[next, _]| *next == place) else { return Ok(Verdict::Keep) };
        let Self { decisions, cursor, bytes, .. } = self;
        self.next = cursor.next(&decisions.removals)?;
        let mut length = [0; 4];
        decisions.notes.read(at, &mut length)?;
        bytes.resize(u32::from_le_bytes(length) as usize, 0);
        decisions.notes.read(at + 4, bytes)?;
        Ok(Verdict::Drop(decode(bytes)))
    }
}

impl Gate for DecidedGate {
    type Work = ();

    fn admit(&mut self, doc: &mut Document<'_>, (): ()) -> curate_core::Result<Verdict> {
        let verdict = self.apply(doc).map_err(curate_core::Error::other)?;
        Ok(match &self.mark {
            Some(field) => mark(doc, field, &verdict),
            None => verdict,
        })
    }
}

#[cfg(test)]
mod tests;
