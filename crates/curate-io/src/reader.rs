//! Readers of one input each: the lines of JSON Lines, the documents of a plain text.

use std::io::{self, Read};
use std::sync::Arc;

use curate_core::{Block, Error};
use regex::bytes::Regex;

use crate::error::IoError;
use crate::format::Format;
use crate::input::InputOptions;

/// One open input that gives its records block by block.
///
/// A reader fills in `data`, `records`, `offset`, `first_record` and `format` of a cleared block, and hands out whole
/// records only: one that does not end within the block is carried into the next. `false` means that the input has
/// ended. An error ends this input, not the run; records read before it are handed out first. A fault after which
/// reading can go on is pushed to the block's `damage`.
pub(crate) trait RecordReader: Send {
    fn fill(&mut self, block: &mut Block, options: &InputOptions) -> curate_core::Result<bool>;
}

/// How a plain text becomes documents.
#[derive(Debug, Clone, Default)]
pub enum TextSplit {
    /// The whole input is one document.
    #[default]
    Whole,
    /// Documents are separated by one or more blank lines.
    BlankLine,
    /// Documents are separated by matches of an expression, which belong to neither side. Searched in `^` and `$`
    /// multi-line mode.
    Separator(Regex),
}

/// The decompressed bytes of one input, and how far they have been read.
pub(crate) struct Stream {
    reader: Box<dyn Read + Send>,
    pub(crate) name: Arc<str>,
    at_end: bool,
    /// A read error, held back until the records before it are handed out.
    failed: Option<Error>,
}

impl Stream {
    pub(crate) fn new(name: Arc<str>, reader: Box<dyn Read + Send>) -> Self {
        Self { reader, name, at_end: false, failed: None }
    }

    /// Appends up to `want` bytes; notes the end of the input, and an error as its end.
    fn read_more(&mut self, data: &mut Vec<u8>, want: usize) {
        match self.reader.by_ref().take(want as u64).read_to_end(data) {
            Ok(n) => self.at_end = n < want,
            Err(source) => {
                self.at_end = true;
                self.failed = Some(read_error(&self.name, source));
            }
        }
    }
}

pub(crate) fn read_error(name: &str, source: io::Error) -> Error {
    IoError::file("read", name, source).into()
}

/// Reads JSON Lines: a record is a line, a blank one too, so that ordinals are line numbers.
pub(crate) struct LineReader {
    stream: Stream,
    /// The beginning of a record whose end was not in the last block.
    carry: Vec<u8>,
    /// Offset of `carry` in the decompressed input.
    offset: u64,
    /// Records handed out so far.
    records: u64,
}

impl LineReader {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, carry: Vec::new(), offset: 0, records: 0 }
    }
}

impl RecordReader for LineReader {
    fn fill(&mut self, block: &mut Block, options: &InputOptions) -> curate_core::Result<bool> {
        if self.stream.failed.is_some() && self.carry.is_empty() {
            return Err(self.stream.failed.take().expect("just seen"));
        }
        block.offset = self.offset;
        block.first_record = self.records;
        block.format = Format::JsonLines.tag();
        block.data.append(&mut self.carry);
        let mut searched = 0;
        let complete = loop {
            let want = options.block_bytes.saturating_sub(block.data.len()).max(64 << 10);
            self.stream.read_more(&mut block.data, want);
            if self.stream.at_end {
                // After an error the last line may be torn: it is not handed out.
                let torn = self.stream.failed.is_some();
                break if torn { line_end(&block.data, 0) } else { block.data.len() };
            }
            let end = line_end(&block.data, searched);
            if end > 0 && block.data.len() >= options.block_bytes {
                break end;
            }
            if end == 0 && block.data.len() > options.max_record_bytes {
                return Err(too_long(&self.stream.name, self.offset, options));
            }
            searched = if end == 0 { block.data.len() } else { 0 };
        };
        if self.stream.failed.is_none() {
            self.carry.extend_from_slice(&block.data[complete..]);
        }
        block.data.truncate(complete);
        split_lines(block, self.offset == 0);
        self.offset += block.data.len() as u64;
        self.records += block.records.len() as u64;
        if block.records.is_empty() {
            return self.stream.failed.take().map_or(Ok(false), Err);
        }
        Ok(true)
    }
}

pub(crate) fn too_long(name: &str, offset: u64, options: &InputOptions) -> Error {
    IoError::RecordTooLong { name: name.to_owned(), offset, limit: options.max_record_bytes }.into()
}

/// The end of the last whole line of `data`, looking from `from` on; 0 if there is none.
fn line_end(data: &[u8], from: usize) -> usize {
    memchr::memrchr(b'\n', &data[from..]).map_or(0, |i| from + i + 1)
}

/// Records the lines of a block. A blank line is a record too, so that ordinals are line numbers.
fn split_lines(block: &mut Block, is_first: bool) {
    let mut start = if is_first { byte_order_mark(&block.data) } else { 0 };
    for end in memchr::memchr_iter(b'\n', &block.data) {
        block.records.push((start, end));
        start = end + 1;
    }
    if start < block.data.len() {
        block.records.push((start, block.data.len()));
    }
}

/// The length of a UTF-8 byte order mark at the start of `data`.
pub(crate) fn byte_order_mark(data: &[u8]) -> usize {
    if data.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }
}

/// Reads an input that is one record: a text, a page. An input that ends in an error gives nothing but the error.
pub(crate) struct WholeReader {
    stream: Stream,
    format: Format,
}

impl WholeReader {
    pub(crate) fn new(stream: Stream, format: Format) -> Self {
        Self { stream, format }
    }
}

impl RecordReader for WholeReader {
    fn fill(&mut self, block: &mut Block, options: &InputOptions) -> curate_core::Result<bool> {
        if self.stream.at_end {
            return Ok(false);
        }
        block.offset = 0;
        block.first_record = 0;
        block.format = self.format.tag();
        while !self.stream.at_end {
            self.stream.read_more(&mut block.data, options.block_bytes);
            if block.data.len() > options.max_record_bytes {
                return Err(too_long(&self.stream.name, 0, options));
            }
        }
        if let Some(error) = self.stream.failed.take() {
            return Err(error);
        }
        let start = if self.format == Format::Text { byte_order_mark(&block.data) } else { 0 };
        block.records.push((start, block.data.len()));
        Ok(true)
    }
}

/// What a reader says of bytes that it lost, where those after them can be read again.
///
/// It travels as the inner error of an [`io::Error`]; the reads after it go on behind the gap.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SkippedBytes {
    /// Where the loss begins, as `message` counts: in the input as it is stored.
    pub(crate) offset: u64,
    pub(crate) message: String,
}

impl Stream {
    /// Like [`read_more`](Self::read_more), but a loss behind which reading can go on is no end: it is returned,
    /// and what was read before it has been appended.
    pub(crate) fn read_up_to_gap(&mut self, data: &mut Vec<u8>, want: usize) -> Option<SkippedBytes> {
        match self.reader.by_ref().take(want as u64).read_to_end(data) {
            Ok(n) => self.at_end = n < want,
            Err(error) => match error.downcast::<SkippedBytes>() {
                Ok(skipped) => return Some(skipped),
                Err(error) => {
                    self.at_end = true;
                    self.failed = Some(read_error(&self.name, error));
                }
            },
        }
        None
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// The error that ended the stream, once.
    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.failed.take()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }
}
