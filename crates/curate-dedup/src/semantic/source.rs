//! Which row of numbers belongs to which document.
//!
//! The rows of an array stand in the order of the documents, those of a table have ids, and a document can carry its own.
//! What is read from tables and documents lies in a spool: in memory first, then in a file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use curate_core::{Counters, Document, Gate, Mapper, Verdict, Work};
use xxhash_rust::xxh3::xxh3_128;

use super::Embeddings;
use super::error::{Result as SemanticResult, SemanticError};
use crate::error::{Error, Result};
use crate::options::{Place, Storage};
use crate::spill::{AppendStore, SpillDir};

/// Asks a document for its embedding; an `Err` says what is there instead.
pub type VectorOf = Box<dyn Fn(&Document<'_>) -> std::result::Result<Vec<f32>, String> + Send + Sync>;

/// Where the embeddings of documents are.
pub enum EmbeddingSource {
    /// In the documents.
    InDocuments(VectorOf),
    /// In rows in the order of all documents that have passed the counter, which are as many.
    InOrder {
        /// What the rows are called in messages.
        name: String,
        rows: Box<dyn Embeddings + Send>,
        counter: DocumentCounter,
    },
    /// In rows that have ids.
    ById(Box<EmbeddingTable>),
}

impl std::fmt::Debug for EmbeddingSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InDocuments(_) => "InDocuments",
            Self::InOrder { .. } => "InOrder",
            Self::ById(_) => "ById",
        })
    }
}

/// Numbers documents, as mapper and as gate, before any is dropped. Clones share their count.
#[derive(Debug, Clone, Default)]
pub struct DocumentCounter(Arc<AtomicU64>);

impl DocumentCounter {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Mapper for DocumentCounter {
    type Work = ();
    type Scratch = ();

    fn map(&self, _: &mut Document<'_>, _: &mut (), _: &mut Counters) -> Work<()> {
        Work::Pending(())
    }
}

impl Gate for DocumentCounter {
    type Work = ();

    fn admit(&mut self, doc: &mut Document<'_>, (): ()) -> curate_core::Result<Verdict> {
        doc.set_number(self.0.fetch_add(1, Ordering::Relaxed));
        Ok(Verdict::Keep)
    }
}

/// Rows of numbers that are given one after the other.
#[derive(Debug)]
pub(crate) struct Spool {
    store: AppendStore,
    dir: SpillDir,
    dim: usize,
    rows: usize,
    /// A buffer.
    bytes: Vec<u8>,
}

impl Spool {
    pub(crate) fn new(storage: &Storage) -> Result<Self> {
        let Place::TemporaryIn(parent) = &storage.place else { return Err(Error::IndexOfAll) };
        let memory = usize::try_from(storage.memory).unwrap_or(usize::MAX);
        Ok(Self {
            store: AppendStore::new("embeddings.bin", memory / 4),
            dir: SpillDir::temporary_below(parent.clone()),
            dim: 0,
            rows: 0,
            bytes: Vec::new(),
        })
    }

    /// Appends a row and returns its number; the first row says how long all are. An `Err` inside says what is wrong.
    pub(crate) fn push(&mut self, row: &[f32]) -> Result<std::result::Result<usize, String>> {
        if self.rows == 0 {
            self.dim = row.len();
        }
        if row.is_empty() {
            return Ok(Err("it has no numbers".to_owned()));
        }
        if row.len() != self.dim {
            return Ok(Err(format!("it has {} numbers, the first one {}", row.len(), self.dim)));
        }
        if let Some(at) = row.iter().position(|x| !x.is_finite()) {
            return Ok(Err(format!("number {} of it is infinite, or none", at + 1)));
        }
        self.bytes.clear();
        self.bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
        self.store.append(&self.bytes, &mut self.dir)?;
        self.rows += 1;
        Ok(Ok(self.rows - 1))
    }

    fn memory(&self) -> u64 {
        self.store.memory()
    }

    fn disk(&self) -> u64 {
        self.store.disk()
    }
}

impl Embeddings for Spool {
    fn rows(&self) -> usize {
        self.rows
    }

    fn dim(&self) -> usize {
        // Of no rows nobody knows it.
        self.dim.max(1)
    }

    fn read(&self, first: usize, out: &mut [f32]) -> SemanticResult<()> {
        let mut bytes = vec![0; size_of_val(out)];
        let at = (first * self.dim * size_of::<f32>()) as u64;
        self.store.read(at, &mut bytes).map_err(|error| SemanticError::Spool(Box::new(error)))?;
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *out = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }
}

/// Rows with ids. Ids are known by 128 bits of xxh3: 24 bytes of memory a row.
#[derive(Debug)]
pub struct EmbeddingTable {
    name: String,
    spool: Spool,
    /// Both halves of the hash, and the row; sorted by [`finish`](Self::finish).
    ids: Vec<[u64; 3]>,
}

impl EmbeddingTable {
    /// `name` is what the table is called in messages.
    ///
    /// # Errors
    /// A storage that is an index.
    pub fn new(name: impl Into<String>, storage: &Storage) -> Result<Self> {
        Ok(Self { name: name.into(), spool: Spool::new(storage)?, ids: Vec::new() })
    }

    /// Adds the embedding of a document.
    ///
    /// # Errors
    /// Another number of dimensions than before; what is no finite number; a file that cannot be written.
    pub fn push(&mut self, id: &str, row: &[f32]) -> Result<()> {
        let embedding = |what| Error::Embedding { id: id.to_owned(), place: self.name.clone(), what };
        let row = self.spool.push(row)?.map_err(embedding)?;
        let [high, low] = halves(id);
        self.ids.push([high, low, row as u64]);
        Ok(())
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// Two rows with one id.
    pub fn finish(mut self) -> Result<Self> {
        self.ids.sort_unstable();
        match self.ids.array_windows().find(|[a, b]| a[..2] == b[..2]) {
            Some([a, b]) => Err(Error::RepeatedEmbedding { name: self.name, rows: [a[2], b[2]] }),
            None => Ok(self),
        }
    }

    fn row_of(&self, id: &str) -> Option<usize> {
        let halves = halves(id);
        let found = self.ids.binary_search_by(|[high, low, _]| [*high, *low].cmp(&halves)).ok()?;
        Some(self.ids[found][2] as usize)
    }
}

fn halves(id: &str) -> [u64; 2] {
    let hash = xxh3_128(id.as_bytes());
    [(hash >> 64) as u64, hash as u64]
}

/// Rows, and who has which.
#[derive(Debug)]
pub(crate) enum Rows {
    InDocuments(Box<Spool>),
    InOrder { name: String, rows: InOrder, counter: DocumentCounter },
    ById(Box<EmbeddingTable>),
}

pub(crate) struct InOrder(Box<dyn Embeddings + Send>);

impl std::fmt::Debug for InOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows of {}", self.0.rows(), self.0.dim())
    }
}

/// What the mapper finds in a document.
#[derive(Debug)]
pub(crate) enum Found {
    Vector(std::result::Result<Vec<f32>, String>),
    Number(Option<u64>),
    Id,
}

/// What the mapper looks for in documents.
pub(crate) enum Wanted {
    Vector(VectorOf),
    Number,
    Id,
}

impl Wanted {
    pub(crate) fn find(&self, doc: &Document<'_>) -> Found {
        match self {
            Self::Vector(vector) => Found::Vector(vector(doc)),
            Self::Number => Found::Number(doc.number()),
            Self::Id => Found::Id,
        }
    }
}

impl EmbeddingSource {
    pub(crate) fn split(self, storage: &Storage) -> Result<(Wanted, Rows)> {
        Ok(match self {
            Self::InDocuments(vector) => {
                (Wanted::Vector(vector), Rows::InDocuments(Box::new(Spool::new(storage)?)))
            }
            Self::InOrder { name, rows, counter } => {
                (Wanted::Number, Rows::InOrder { name, rows: InOrder(rows), counter })
            }
            Self::ById(table) => (Wanted::Id, Rows::ById(table)),
        })
    }
}

impl Rows {
    /// The number of a document's row.
    pub(crate) fn row(&mut self, id: &str, found: Found) -> Result<usize> {
        match (self, found) {
            (Self::InDocuments(spool), Found::Vector(vector)) => {
                let row = match vector {
                    Ok(vector) => spool.push(&vector)?,
                    Err(what) => Err(what),
                };
                row.map_err(|what| Error::Embedding {
                    id: id.to_owned(),
                    place: "the document".to_owned(),
                    what,
                })
            }
            (Self::InOrder { name, rows, .. }, Found::Number(number)) => {
                let number = number.expect("a counter stands before every other stage");
                let rows = rows.0.rows();
                match usize::try_from(number).ok().filter(|number| *number < rows) {
                    Some(row) => Ok(row),
                    None => Err(Error::EmbeddingRows { name: name.clone(), rows, documents: None }),
                }
            }
            (Self::ById(table), Found::Id) => table
                .row_of(id)
                .ok_or_else(|| Error::NoEmbedding { id: id.to_owned(), name: table.name.clone() }),
            _ => unreachable!("both halves are made from one source"),
        }
    }

    /// Fails if there are more rows than documents, where there should be as many.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::InOrder { name, rows, counter } if rows.0.rows() as u64 != counter.count() => {
                let documents = Some(counter.count());
                Err(Error::EmbeddingRows { name: name.clone(), rows: rows.0.rows(), documents })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn embeddings(&self) -> &dyn Embeddings {
        match self {
            Self::InDocuments(spool) => &**spool,
            Self::ById(table) => &table.spool,
            Self::InOrder { rows, .. } => &*rows.0,
        }
    }

    /// What the rows are called in messages.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::InDocuments(_) => "the document",
            Self::InOrder { name, .. } => name,
            Self::ById(table) => &table.name,
        }
    }

    pub(crate) fn memory(&self) -> u64 {
        match self {
            Self::InDocuments(spool) => spool.memory(),
            Self::InOrder { .. } => 0,
            Self::ById(table) => table.spool.memory() + size_of_val(&table.ids[..]) as u64,
        }
    }

    pub(crate) fn disk(&self) -> u64 {
        match self {
            Self::InDocuments(spool) => spool.disk(),
            Self::ById(table) => table.spool.disk(),
            Self::InOrder { .. } => 0,
        }
    }
}

/// Some rows of others, in an order of their own.
pub(crate) struct Chosen<'a> {
    pub(crate) embeddings: &'a dyn Embeddings,
    pub(crate) rows: Vec<u32>,
}

impl Embeddings for Chosen<'_> {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.embeddings.dim()
    }

    fn read(&self, first: usize, out: &mut [f32]) -> SemanticResult<()> {
        let dim = self.dim();
        let mut rows = &self.rows[first..first + out.len() / dim];
        let mut out = out;
        while let Some(&start) = rows.first() {
            // Neighbours are read together.
            let run = rows.iter().zip(start..).take_while(|(row, expected)| *row == expected).count();
            let (now, later) = out.split_at_mut(run * dim);
            self.embeddings.read(start as usize, now)?;
            (out, rows) = (later, &rows[run..]);
        }
        Ok(())
    }
}

/// Cosines of removals, in bins of a hundredth.
#[derive(Debug, Default)]
pub(crate) struct Cosines(BTreeMap<u8, u64>);

impl Cosines {
    pub(crate) fn add(&mut self, cosine: f64) {
        *self.0.entry((cosine * 100.0).clamp(0.0, 99.0) as u8).or_default() += 1;
    }

    pub(crate) fn bins(&self) -> Vec<super::CosineBin> {
        let bin =
            |(bin, count): (&u8, &u64)| super::CosineBin { from: f64::from(*bin) / 100.0, count: *count };
        self.0.iter().map(bin).collect()
    }
}
