//! Bytes to records and back: where documents come from and where they go.
//!
//! [`Inputs`] turns files, directories and standard input into blocks of records, decompressing on a thread of
//! its own; [`Records`] is the codec between records and documents; [`DocumentSink`] writes what is kept, and
//! beside it what was dropped and why. An untouched record is written back byte for byte, and a file appears
//! under its final name only when it is complete.

mod format;
mod input;
mod decompress;
mod archive;
mod object;
mod reader;
mod warc;
mod http;
mod charset;
mod page;
mod records;
mod json;
mod members;
mod tables;
mod output;
mod parquet_output;
mod numbers;
mod vectors;
mod layout;
mod sink;
mod spool;
mod error;

pub use error::{IoError, Result};
pub use format::Format;
pub use input::{InputFile, InputOptions, Inputs, Progress, Resolved, resolve};
pub use json::{FieldPath, append_json_string, document_fields};
pub use layout::{Destination, OutputError, OutputFormat};
pub use numbers::{NumberLayout, NumberReader, NumberWriter};
pub use output::{AtomicFile, Output, write_atomically};
pub use page::{Extraction, Extractor, MainText, Page};
pub use reader::TextSplit;
pub use records::{Records, field_of};
pub use sink::{DocumentSink, DropLog, DropLogStyle};
pub use spool::{Run, SpoolReader, SpoolWriter, copy_decompressed};
pub use vectors::{VectorBatch, VectorReader};
