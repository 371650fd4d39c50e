//! Which ids is this text? Tokenizers, their training, and the token stream.
//!
//! The idea: a tokenizer is one JSON text that travels with everything made by it, and the ids are those that
//! Hugging Face `tokenizers` would give. Byte-level BPE is done here, a hundred times faster; that crate does the
//! rest, and the tests ask it for every answer.
//!
//! ```text
//! documents ─▶ CountMapper ─▶ WordCounter ─▶ train ─▶ tokenizer.json
//!                                                          │
//! documents ─▶ EncodeMapper ◀── Tokenizer::load ◀──────────┘
//!                  └─▶ EncodedDocument ─▶ TokenStreamWriter ═══ pipe ═══▶ TokenStreamReader ─▶ pack
//! ```
//!
//! Encoding one text:
//!
//! ```ignore
//! let tokenizer = Tokenizer::load("tokenizer.json", &LoadOptions::default())?;
//! let (mut scratch, mut ids) = (EncodeScratch::default(), Vec::new());
//! tokenizer.encode_document("The sun rose.", &mut scratch, &mut ids)?; // ends in tokenizer.info().eod
//! assert_eq!(tokenizer.decode(&ids), b"The sun rose.");
//! ```
//!
//! Nothing here knows a terminal, a clock or a thread; only [`Tokenizer::load`] opens a file.

mod tokenizer;
mod builtin;
mod hf;
mod byte_level;
mod fast;
mod words;
mod blocks;
mod classes;
mod lookup;
mod cache;
mod seams;
mod bpe;
mod encode;
mod stream;
mod train;
#[cfg(test)]
mod testing;
mod merges;
mod error;

pub use blocks::Instructions;
pub use classes::UNICODE_VERSION;
pub use encode::{EncodeMapper, EncodedDocument, KeyOf};
pub use error::{Error, Result};
pub use fast::EncodeScratch;
pub use stream::{
    DocumentRef, STREAM_VERSION, StreamHeader, TokenBatch, TokenStreamReader, TokenStreamWriter,
};
pub use tokenizer::{LoadOptions, Tokenizer, TokenizerInfo};
pub use train::{BpeTrainerOptions, CountMapper, CountScratch, EOD_TOKEN, WordCounter, train};

/// What a model sees in place of text: an index into the vocabulary.
pub type TokenId = u32;
