//! What can be wrong with the options of a deduplication, and what can go wrong in a run.

use std::io;
use std::path::{Path, PathBuf};

use crate::banding::{Banding, MAX_BANDS, MAX_ROWS};
use crate::options::{MAX_NGRAM, MIN_MEMORY, MIN_THRESHOLD};
use crate::semantic::SemanticError;

pub type Result<T> = std::result::Result<T, Error>;

/// A value that cannot be worked with, and the range that can.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nothing to do: neither exact nor MinHash deduplication was asked for")]
    NothingToDo,
    #[error("threshold {got} is outside {MIN_THRESHOLD}..=1")]
    Threshold { got: f64 },
    #[error("n-grams of {got} words: expected 1..={MAX_NGRAM}")]
    Ngram { got: usize },
    #[error("{got} bands: expected 1..={MAX_BANDS}")]
    Bands { got: u32 },
    #[error("{got} rows in a band: expected 1..={MAX_ROWS}")]
    Rows { got: u32 },
    #[error("the number of {given} is given, but not the number of {missing}")]
    HalfBanding { given: &'static str, missing: &'static str, threshold: f64 },
    #[error("at most 0 candidates in a band: expected 1 or more")]
    NoCandidates,
    #[error("seed {got}: expected 0..={}, the seeds of numpy's RandomState", u32::MAX)]
    DatatroveSeed { got: u64 },
    #[error("unknown profile {got:?}: expected curate-1, raw or datatrove")]
    Profile { got: String },
    #[error("more than {limit} documents were kept: the tables of one pass cannot number more")]
    TooManyDocuments { limit: u32 },
    #[error("a Bloom filter for 0 documents: expected 1 or more")]
    NoDocuments,
    #[error("a false positive rate of {got}: expected 1e-12 to 0.5")]
    FalsePositiveRate { got: f64 },
    #[error("a share of {got} repeated: expected 0 to 1")]
    MaxRepeated { got: f64 },
    #[error("repeated substrings of {got} {unit}: expected {least} to 65536")]
    SubstringLength { got: usize, unit: &'static str, least: usize },
    #[error("the datatrove profile has no words that can be cut out of a text")]
    SubstringProfile,
    #[error("document {id} has {bytes} bytes: substrings are found in texts of less than 4 GiB")]
    TextTooLong { id: String, bytes: u64 },
    #[error("more than {limit} units of text: repeated substrings of so many cannot be found in one run")]
    TooManyUnits { limit: u64 },
    #[error("document {id} is not what it was in the first pass")]
    Changed { id: String },
    #[error("{attempts} hash functions in a row took different texts for equal ones")]
    Collisions { attempts: u32 },
    #[error("an index remembers whole documents only")]
    IndexOfUnits,
    #[error("an index cannot be used where all documents must be seen first")]
    IndexOfAll,
    #[error("components are made of near-duplicates: MinHash was not asked for")]
    ComponentsOfCopies,
    #[error("only the profile datatrove has the signatures by which datatrove chooses what to keep")]
    UnionBySize,
    #[error(
        "the inputs have changed between the two passes: {first} documents in the first, {second} in the second"
    )]
    InputsChanged { first: u64, second: u64 },
    #[error(transparent)]
    Semantic(#[from] SemanticError),
    #[error("the embedding of document {id} in {place} cannot be used: {what}")]
    Embedding { id: String, place: String, what: String },
    #[error("{name} has no row for document {id}")]
    NoEmbedding { id: String, name: String },
    #[error("{name} has two rows with the same id: {} and {}, counted from 0", rows[0], rows[1])]
    RepeatedEmbedding { name: String, rows: [u64; 2] },
    #[error("{name} has {rows} rows, but there are {} documents", documents.map_or("more".to_owned(), |n| n.to_string()))]
    EmbeddingRows { name: String, rows: usize, documents: Option<u64> },
    #[error("{got} bytes of memory: expected {MIN_MEMORY} or more")]
    Memory { got: u64 },
    #[error("cannot {action} {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error("the index {path} is in use by another process")]
    IndexInUse { path: PathBuf },
    #[error("the index {path} was made with {parameter} {found}, not {wanted}")]
    OtherParameters { path: PathBuf, parameter: String, found: String, wanted: String },
    #[error("{path} holds an index of format {found}: this version reads format {wanted}")]
    OtherFormat { path: PathBuf, found: u32, wanted: u32 },
    #[error("{path} is no index: it has files but no manifest")]
    NoIndex { path: PathBuf },
}

impl From<Error> for curate_core::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { action, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }

    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NothingToDo => Some("choose exact deduplication, MinHash, or both".to_owned()),
            Self::Threshold { .. } => {
                Some("the threshold is a Jaccard similarity; 0.8 and 0.7 are the usual values".to_owned())
            }
            Self::HalfBanding { threshold, .. } => {
                let Banding { bands, rows } = Banding::for_threshold(*threshold);
                Some(format!(
                    "give both or neither; without them the threshold {threshold} means {bands} bands of {rows} rows"
                ))
            }
            Self::SubstringProfile => Some("choose --profile curate-1 or raw".to_owned()),
            Self::TooManyUnits { .. } => Some("split the input and deduplicate the parts".to_owned()),
            Self::TooManyDocuments { .. } => Some("split the input and deduplicate the parts".to_owned()),
            Self::OtherParameters { .. } => {
                Some("give the same options, or another directory for another index".to_owned())
            }
            Self::Damaged { .. } => Some(
                "restore the index from a copy, or make it anew from its documents with another directory"
                    .to_owned(),
            ),
            Self::IndexInUse { .. } => Some("wait for it to end".to_owned()),
            Self::NoIndex { .. } => Some("name an empty directory, or one that does not exist".to_owned()),
            Self::IndexOfAll => Some(
                "an index keeps the first copy and decides at once: leave out --keep, --cluster and --semantic, or the index"
                    .to_owned(),
            ),
            Self::InputsChanged { .. } => {
                Some("wait until nothing writes to them, or give them on standard input".to_owned())
            }
            Self::Semantic(error) => error.hint(),
            Self::Embedding { .. } => Some(
                "make the embeddings of all documents with one model; `curate embed` does for a model of our own"
                    .to_owned(),
            ),
            Self::NoEmbedding { .. } => Some(
                "ids are those of the documents as --id-field says: embed the same input, or leave the others out"
                    .to_owned(),
            ),
            Self::RepeatedEmbedding { .. } => Some("give each document an id of its own".to_owned()),
            Self::EmbeddingRows { .. } => Some(
                "the rows stand for the documents in input order, without records that cannot be read: embed this very input"
                    .to_owned(),
            ),
            Self::File { .. }
            | Self::ComponentsOfCopies
            | Self::UnionBySize
            | Self::OtherFormat { .. }
            | Self::NoDocuments
            | Self::FalsePositiveRate { .. }
            | Self::MaxRepeated { .. }
            | Self::IndexOfUnits
            | Self::SubstringLength { .. }
            | Self::TextTooLong { .. }
            | Self::Changed { .. }
            | Self::Collisions { .. }
            | Self::Memory { .. }
            | Self::Ngram { .. }
            | Self::Bands { .. }
            | Self::Rows { .. }
            | Self::NoCandidates
            | Self::DatatroveSeed { .. }
            | Self::Profile { .. } => None,
        }
    }
}
