//! Tokens on disk and in batches: shard format, packing views, memory-mapped reader, batch plan.
//!
//! The idea: token ids are written once, document after document, in files that Megatron-LM, NeMo, GPT-NeoX and
//! nanoGPT read as they are. Everything that depends on how they will be used lies beside them and is cheap to
//! make again: a *view* says which runs of which documents form the rows of one `seq_len`, a [`BatchPlan`] says
//! which rows form which step. Both are pure functions of what they are given, so that a run can be repeated,
//! resumed and checked.
//!
//! ```text
//! TokenDocument ─▶ ShardSetWriter ─▶ SPLIT-NNNNN.{bin,idx,bytes,dom}  SPLIT.T1024.view  manifest.json
//!                                                    │
//!                  ShardSet::open ◀──────────────────┘
//!                    ├─ split("val") ─▶ Split::document(i)           one document, borrowed from the map
//!                    └─ view("train", 1024) ─▶ View::fill(row)       T + 1 tokens, ready for a tensor
//!                                               ▲
//!                  BatchPlan::step(s) ─ rows ───┘
//! ```
//!
//! Writing:
//!
//! ```ignore
//! let mut writer = ShardSetWriter::create(dir, WriterOptions { seed: 7, ..WriterOptions::new(tokenizer) })?;
//! writer.push(&TokenDocument { tokens: &[17, 4, 0], n_bytes: 9, domain: "web", key: 1 })?;
//! writer.finish(&[ViewOptions { seq_len: 1024, policy: PackPolicy::Concat }])?;
//! ```
//!
//! Reading:
//!
//! ```ignore
//! let set = ShardSet::open(dir)?;
//! let (split, view) = (set.split("train")?, set.view("train", 1024)?);
//! let plan = BatchPlan::new(seed, view.num_rows(), 32)?;
//! let mut row = Row::new(view.seq_len());
//! for r in plan.step(step) {
//!     view.try_fill(split, r, &mut row)?;
//! }
//! ```
//!
//! Byte layouts are drawn beside the code that writes them: token files in `format.rs`, views in `view.rs`, mixes of
//! sources in `mix.rs`, copied rows in `rows.rs`, the journal of an unfinished set in `journal.rs`, `vocabulary.bin` in `vocabulary.rs`, `manifest.json` in `manifest.rs`; the order of rows, which a resumed run relies
//! on, in `plan.rs`. Nothing here knows about tokenizers, terminals, clocks or threads. Offsets and counts are `u64`.
#![warn(clippy::cast_possible_truncation)]

#[cfg(target_endian = "big")]
compile_error!(
    "token files are little-endian and are read where they lie: big-endian machines are not supported"
);
#[cfg(not(target_pointer_width = "64"))]
compile_error!("shards are memory-mapped whole: a 64-bit address space is needed");

mod format;
mod manifest;
mod writer;
mod splits;
mod packing;
mod view;
mod mix;
mod rows;
mod leak;
mod journal;
mod atomic;
pub mod convert;
mod reader;
mod map;
#[cfg(test)]
mod testing;
mod plan;
mod vocabulary;
mod error;

pub use error::{Error, Result};
pub use format::{MAX_SEQ_LEN, TokenId, Width};
pub use leak::{LeakOptions, LeakReport, SplitLeak, check_leak};
pub use manifest::{
    Balance, DomainCount, FORMAT_VERSION, FileManifest, Manifest, ShardHashes, ShardManifest, SplitManifest,
    TokenizerInfo, ViewManifest,
};
pub use mix::{Mix, MixManifest, MixSample, MixSource, MixSpec, SourceManifest};
pub use packing::{LongDocuments, PackPolicy, Run, Tally, ViewOptions, pack_lengths};
pub use plan::BatchPlan;
pub use reader::{DocumentRef, ShardSet, Split, Tokens};
pub use rows::{RowOrder, RowsManifest};
pub use splits::Splits;
pub use view::{Row, View, ViewRequest};
pub use vocabulary::Vocabulary;
pub use writer::{
    DEFAULT_SHARD_TOKENS, Resume, ShardSetWriter, TokenDocument, WriterOptions, add_view, add_views,
};
