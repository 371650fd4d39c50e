//! Repeated substrings: what a text says that was said before, word for word, in the middle of something else.
//!
//! # The answer
//!
//! A *window* is `length` units (bytes or words) in a row within one document. A window is repeated if the same window
//! stands earlier in the input and ends before this one begins. What repeated windows cover is cut, or marked; the first
//! copy stays. With [`Copies::None`] a window is repeated if it stands anywhere else, and every copy goes, as Lee et al. (2022,
//! "Deduplicating Training Data Makes Language Models Better") do. Both definitions speak of the input as it comes: what is cut from
//! one document still counts as an earlier copy for the next, so that the answer has no order of decisions in it.
//!
//! Bytes are compared as they are, and cuts move inward to whole characters. Words are the units of a [`Profile`]: with
//! `curate-1` neither case nor punctuation matters, and a character of a script without spaces is a word.
//!
//! # How it is computed
//!
//! Lee et al. sort all suffixes, which costs 8 bytes of disk and a random access for each byte of text. Only repeats of
//! a fixed length are asked for here, and they can be had for less, with the same answer:
//!
//! 1. *Anchors.* Of the `length / 2`-grams in a window the one with the least hash is its anchor (a minimiser, Roberts et al. 2004).
//!    Equal windows have equal anchors, and neighbouring windows mostly the same one, so there is an anchor for about
//!    every `length / 4` units. Windows whose anchor occurs once are not repeated; that is nearly all of them.
//! 2. *Windows.* The others are hashed to 88 bits and sorted with their positions; the first of each group is the first copy.
//! 3. *Proof.* Neighbouring windows whose first copies are neighbours too make a segment, and each segment is compared with its
//!    first copy, unit by unit. If any differs, step 2 is done again with another hash function: the answer is exact.
//!
//! # Memory and disk
//!
//! Every step is an external sort of entries of 8 or 16 bytes within the memory that [`Storage`](crate::Storage) names. Disk: the units (1 byte, or 12 for
//! a word), 16 bytes for each anchor, and 16 for each window whose anchor is not alone. Beyond the budget each worker holds the units
//! of a document, and the gate the segments of one.

mod anchors;
mod windows;
mod find;
mod cut;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use cut::{SpanLog, SubstringGate, SubstringMapper};
pub use find::{RepeatFinder, RepeatMapper, Repeats};

use crate::error::{Error, Result};
use crate::words::Profile;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubstringUnit {
    Bytes,
    Words(Profile),
}

/// Which copies stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Copies {
    First,
    /// None: every copy goes.
    None,
}

/// What becomes of a repeated span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanAction {
    Remove,
    /// Nothing, but it is written to the field at this dotted path: `[{"start","end","dup_of","offset"}]`, in bytes of the text.
    Mark(String),
}

/// Which substrings are repeats, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubstringOptions {
    pub unit: SubstringUnit,
    /// Units of the shortest repeat that counts, 2 to 65,536.
    pub length: usize,
    pub copies: Copies,
    pub action: SpanAction,
    /// A document of which fewer characters remain, white space apart, is dropped; 1 drops what is empty.
    pub min_chars: usize,
}

impl SubstringOptions {
    /// # Errors
    /// A value out of its range.
    pub fn validate(&self) -> Result<()> {
        let unit = match self.unit {
            SubstringUnit::Bytes => "bytes",
            SubstringUnit::Words(Profile::Datatrove) => return Err(Error::SubstringProfile),
            SubstringUnit::Words(_) => "words",
        };
        match (2..=1 << 16).contains(&self.length) {
            true => Ok(()),
            false => Err(Error::SubstringLength { got: self.length, unit, least: 2 }),
        }
    }
}

/// What was found and done.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SubstringSummary {
    pub documents: u64,
    /// Bytes or words of all texts.
    pub units: u64,
    /// Anchors of windows, and windows whose anchor was not alone.
    pub anchors: u64,
    pub windows: u64,
    /// Documents with a repeated span that were kept, edited or marked.
    pub edited: u64,
    pub dropped: u64,
    /// Whether spans are marked and not cut.
    pub marked: bool,
    /// Spans that were cut or marked, and their bytes; without those of dropped documents.
    pub spans: u64,
    pub span_bytes: u64,
    /// Hash functions that took different windows for equal ones.
    pub collisions: u32,
    /// Bytes in memory and in files at their most.
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}
