//! What a document and a stage are, and how stages run: in parallel, in order, in bounded memory.
//!
//! A stage has two halves. Its [`Mapper`] sees one document and may run on any thread; its [`Gate`] sees the
//! mapper's work in input order and decides. [`run`] takes blocks of records from a [`Source`], maps them on a
//! thread pool, admits them in order and hands what is left to a [`Sink`]: the output is the same for any number
//! of threads and any block size.
//!
//! This crate knows no file format, no path, no terminal and no clock.

mod document;
mod stage;
mod block;
mod runner;
mod report;
mod key;
mod error;

pub use block::{Block, Record};
pub use document::{Document, EncodedText, Parked, Text};
pub use error::{Error, Result};
pub use key::content_key;
pub use report::{Malformed, Report, Sample, StageReport};
pub use runner::{Codec, OnError, Parsed, RunOptions, Sink, Source, run};
pub use stage::{Counters, Dropped, Gate, Mapper, Never, NoGate, Stage, Value, Verdict, Work};
