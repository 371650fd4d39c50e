//! Have we seen this before? Exact and MinHash deduplication with verified removals.
//!
//! # The answer
//!
//! Documents have an order: that of the input. Document *i* is removed if an earlier document that was **kept**
//! - has the same text up to white space (`exact_duplicate`), or
//! - shares a band of its MinHash signature with *i*, and the exact Jaccard similarity of their shingle sets is at
//!   least the threshold (`near_duplicate`).
//!
//! Each removal names the kept document that stands for it: the one of the highest similarity, the earliest of
//! several. So every removal has a proof that can be checked against the output, and nothing is removed because a
//! neighbour's neighbour was: of a chain A ~ B ~ C where only neighbours are similar, B goes and A and C stay. This
//! is *star* clustering; connected components would remove C without a kept document like it.
//!
//! The definition does not mention how candidates are found or in which order work is done, so any engine that
//! keeps to it gives the same set. MinHash only proposes: it decides which pairs are compared (with the
//! probability that [`match_probability`] gives), never which are duplicates.
//!
//! # How it is computed
//!
//! ```text
//! text ─ Shingler ─▶ shingle set ─ MinHasher::sign ─▶ signature ─ band_keys ─▶ keys     mapper: any thread
//!                        │                                                     │
//!                        └──────── similar_at_least ◀── candidates ◀── tables ◀┘      gate: input order
//! ```
//!
//! [`Deduplicator`] makes the two halves of a stage; the parts are pure functions, to be called by other engines
//! too.
//!
//! ```ignore
//! let options = DedupOptions { minhash: Some(MinHashOptions::default()), ..DedupOptions::default() };
//! let storage = Storage { memory: Storage::DEFAULT_MEMORY, place: Place::TemporaryIn(std::env::temp_dir()) };
//! let (mapper, mut gate) = Deduplicator::new(options)?.split(&storage)?;
//! run(.., [Stage::gated("dedup", mapper, &mut gate)], ..)?;
//! let summary = gate.summary()?;
//! ```
//!
//! # Memory
//!
//! One pass, in the memory that [`Storage`] names; what does not fit goes to files, and the answer is the same. Only
//! kept documents are remembered: 8 bytes for each different shingle (about one a word), 12 bytes (6 in files) for each band
//! and for the content, a record of 40 bytes, and the id. Of these the newest are in memory; the keys of the rest are in sorted
//! files behind a filter that says of most documents, with one access to memory a band, that they have no
//! candidates. Documents in flight between mapper and gate carry their shingle sets too. [`DedupSummary`] counts the bytes of
//! memory and disk. Beyond the budget there are 32 bytes for each full bucket, about 12 for each cluster, and one fence of 8 bytes
//! for each KiB of keys on disk.
//!
//! An index is the same files in a directory that stays ([`Place::Index`]): deduplicating A and then B with one gives
//! what deduplicating A and B together gives.

mod words;
mod shingle;
mod sort;
mod similar;
mod minhash;
mod datatrove;
mod banding;
mod sketch;
mod spill;
mod runs;
mod external;
mod table;
mod kept;
mod components;
mod star;
mod gate;
mod keys;
mod twopass;
mod lines;
mod mark;
mod bloom;
mod substring;
mod semantic;
mod index;
mod options;
mod summary;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traps;
mod error;

pub use banding::{Banding, MAX_BANDS, MAX_ROWS, match_probability};
pub use bloom::{BloomGate, BloomMapper, BloomOptions, BloomSummary};
pub use components::{Components, Partition, Representative};
pub use datatrove::{DatatroveBuffers, DatatroveHasher};
pub use error::{Error, Result};
pub use gate::{DedupGate, Deduplicator};
pub use index::{Manifest, Part, RunEntry, merge_index, verify_index};
pub use keys::{KeyGate, KeyMapper, KeySummary, comparable_url};
pub use lines::{Unit, UnitGate, UnitMapper, UnitOfText, UnitOptions, UnitSummary};
pub use minhash::MinHasher;
pub use options::{DedupOptions, MAX_NGRAM, MIN_MEMORY, MIN_THRESHOLD, MinHashOptions, Place, Storage};
pub use semantic::{
    CosineBin, DocumentCounter, EmbeddingSlice, EmbeddingSource, EmbeddingTable, Embeddings, NpyFile,
    Removal, SemanticError, SemanticOptions, SemanticReport, SemanticResult, SemanticSummary, VectorOf,
    semantic_dedup,
};
pub use shingle::{ShingleBuffers, Shingler};
pub use similar::{similar, similar_at_least};
pub use sketch::{DedupMapper, DedupWork, Sketch, SketchBuffers, Sketcher};
pub use substring::{
    Copies, RepeatFinder, RepeatMapper, Repeats, SpanAction, SpanLog, SubstringGate, SubstringMapper,
    SubstringOptions, SubstringSummary, SubstringUnit,
};
pub use summary::{
    ClusterSample, ClusterSizes, DedupSummary, JaccardBin, MemorySummary, MinHashSummary, SourceSummary,
};
pub use twopass::{
    Cluster, DecidedGate, DecidedMapper, DecidedSummary, Decisions, GatherGate, GatherMapper, GatherWork,
    KeyOf, NumberOf, Order, gather_contents, gather_keys, gather_semantic,
};
pub use words::Profile;
