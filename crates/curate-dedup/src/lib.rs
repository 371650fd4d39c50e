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
//! let (mapper, mut gate) = Deduplicator::new(options)?.split();
//! run(.., [Stage::gated("dedup", mapper, &mut gate)], ..)?;
//! let summary = gate.summary();
//! ```
//!
//! # Memory
//!
//! One pass, all in memory, of kept documents only: their shingle sets (8 bytes for each different shingle, about
//! one a word), 0.5 to 1 KB of band tables (32 bands), some 60 bytes of keys and numbers, and the id. Documents in
//! flight between mapper and gate carry their shingle sets too. [`DedupSummary`] counts the bytes.

mod words;
mod shingle;
mod sort;
mod similar;
mod minhash;
mod datatrove;
mod banding;
mod sketch;
mod components;
mod index;
mod store;
mod star;
mod gate;
mod options;
mod summary;
#[cfg(test)]
mod tests;
mod error;

pub use banding::{Banding, MAX_BANDS, MAX_ROWS, match_probability};
pub use components::{Components, Partition, Representative};
pub use datatrove::{DatatroveBuffers, DatatroveHasher};
pub use error::{Error, Result};
pub use gate::{DedupGate, Deduplicator};
pub use minhash::MinHasher;
pub use options::{DedupOptions, MAX_NGRAM, MIN_THRESHOLD, MinHashOptions};
pub use shingle::{ShingleBuffers, Shingler};
pub use similar::{similar, similar_at_least};
pub use sketch::{DedupMapper, DedupWork, Sketch, SketchBuffers, Sketcher};
pub use summary::{Cluster, DedupSummary, JaccardBin, MemorySummary, MinHashSummary, SourceSummary};
pub use words::Profile;
