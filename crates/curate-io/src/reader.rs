//! Readers of one input each: the lines of JSON Lines, the documents of a plain text.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use curate_core::{Block, Error, Malformed};
use regex::bytes::{Match, Regex, RegexBuilder};

use crate::error::IoError;
use crate::format::{Format, PIECE_TAG};
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
    /// multi-line mode. A match may be cut where it is longer than 64 KiB; an empty one separates nothing.
    Separator(Regex),
}

impl TextSplit {
    /// Splits at matches of `pattern`, in which `^` and `$` stand for the ends of a line.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn separator(pattern: &str) -> std::result::Result<Self, regex::Error> {
        RegexBuilder::new(pattern).multi_line(true).build().map(Self::Separator)
    }

    /// What lies between two documents; `None` where the input is one.
    pub(crate) fn expression(&self) -> Option<Regex> {
        match self {
            Self::Whole => None,
            Self::BlankLine => Some(Regex::new(BLANK_LINES).expect("the expression is well-formed")),
            Self::Separator(separator) => Some(separator.clone()),
        }
    }
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
        block.offset = self.offset;
        block.first_record = self.records;
        block.format = Format::JsonLines.tag();
        if self.stream.failed.is_some() && self.carry.is_empty() {
            return Err(self.stream.failed.take().expect("just seen"));
        }
        block.data.append(&mut self.carry);
        let mut searched = 0;
        let complete = loop {
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
                self.skip_line(block, options);
                return Ok(true);
            }
            searched = if end == 0 { block.data.len() } else { 0 };
            let want = options.block_bytes.saturating_sub(block.data.len()).max(64 << 10);
            self.stream.read_more(&mut block.data, want);
        };
        if self.stream.failed.is_none() {
            self.carry.extend_from_slice(&block.data[complete..]);
        }
        block.data.truncate(complete);
        split_lines(block, &self.stream.name, options.max_record_bytes);
        self.offset += block.data.len() as u64;
        self.records += block.records.len() as u64;
        if block.records.is_empty() {
            return self.stream.failed.take().map_or(Ok(false), Err);
        }
        Ok(true)
    }
}

impl LineReader {
    /// Reads over the line that begins with all of `block.data` and is too long, without keeping it.
    fn skip_line(&mut self, block: &mut Block, options: &InputOptions) {
        let mut length = block.data.len() as u64;
        while !self.stream.at_end {
            block.data.clear();
            self.stream.read_more(&mut block.data, 64 << 10);
            if let Some(end) = memchr::memchr(b'\n', &block.data) {
                self.carry.extend_from_slice(&block.data[end + 1..]);
                length += end as u64 + 1;
                break;
            }
            length += block.data.len() as u64;
        }
        block.data.clear();
        let line = self.records + 1;
        block.damage.push(too_long_record(&self.stream.name, line, self.offset, options.max_record_bytes));
        self.offset += length;
        self.records = line;
    }
}

pub(crate) fn too_long(name: &str, offset: u64, options: &InputOptions) -> Error {
    IoError::RecordTooLong { name: name.to_owned(), offset, limit: options.max_record_bytes }.into()
}

/// Notes a record that is passed over for its length.
pub(crate) fn too_long_record(name: &str, line: u64, offset: u64, limit: usize) -> Malformed {
    let message = format!("a record longer than {limit} bytes: raise --max-record-bytes");
    Malformed { file: name.to_owned(), line, offset, message }
}

/// The end of the last whole line of `data`, looking from `from` on; 0 if there is none.
fn line_end(data: &[u8], from: usize) -> usize {
    memchr::memrchr(b'\n', &data[from..]).map_or(0, |i| from + i + 1)
}

/// Records the lines of a block. A blank line is a record too, so that ordinals are line numbers; so is one that is
/// longer than `limit`, as an empty record, with a note of the damage.
fn split_lines(block: &mut Block, name: &str, limit: usize) {
    let mut line_start = 0;
    let mut start = if block.offset == 0 { byte_order_mark(&block.data) } else { 0 };
    let last = Some(block.data.len()).filter(|end| !block.data.ends_with(b"\n") && start < *end);
    for end in memchr::memchr_iter(b'\n', &block.data).chain(last) {
        if end - line_start > limit {
            let line = block.first_record + block.records.len() as u64 + 1;
            let offset = block.offset + line_start as u64;
            block.damage.push(too_long_record(name, line, offset, limit));
            start = end;
        }
        block.records.push((start, end));
        start = end + 1;
        line_start = start;
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
        block.offset = 0;
        block.first_record = 0;
        block.format = self.format.tag();
        if self.stream.at_end {
            return Ok(false);
        }
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

/// Reads a text that is several records.
///
/// What is found does not depend on the size of blocks: the text is searched in pieces of a fixed size, and a match is
/// believed only when so much of what follows it is known that no longer one can begin there.
pub(crate) struct TextReader {
    stream: Stream,
    separator: Regex,
    /// Bytes read at once.
    chunk_bytes: usize,
    /// The longest separator that is surely found whole.
    window_bytes: usize,
    /// What is not handed out yet, after [`CONTEXT_BYTES`] that may be.
    buffer: Vec<u8>,
    /// Offset of `buffer` in the decompressed input.
    offset: u64,
    /// Where in `buffer` the current record starts.
    start: usize,
    /// No separator begins in `buffer` between `start` and here.
    searched: usize,
    /// Offset of the current record, if it is already known to be too long; its beginning is gone.
    overlong: Option<u64>,
    /// Nothing was read yet.
    is_new: bool,
    /// A record that did not fit into the last block, if `buffer` still holds it.
    pending: Option<Piece>,
    /// Records found so far.
    records: u64,
}

/// Bytes before a search that the expression may look at: for `^`, `\b`.
const CONTEXT_BYTES: usize = 8;
const SEPARATOR_BYTES: usize = 64 << 10;
/// Separators of more bytes than this end a block.
const GAP_BYTES: u64 = 64 << 10;
/// One or more lines without text: at the beginning, behind a line, at the end.
const BLANK_LINES: &str = r"(?-u)(?:\A|\n)(?:[ \t\r]*\n)+(?:[ \t\r]+\z)?|(?:\A|\n)[ \t\r]*\z";

/// A record of a [`TextReader`], by its offsets in the input.
enum Piece {
    Text(Range<u64>),
    Overlong(u64),
}

impl TextReader {
    pub(crate) fn new(stream: Stream, separator: Regex) -> Self {
        Self {
            stream,
            separator,
            chunk_bytes: 4 * SEPARATOR_BYTES,
            window_bytes: SEPARATOR_BYTES,
            buffer: Vec::new(),
            offset: 0,
            start: 0,
            searched: 0,
            overlong: None,
            is_new: true,
            pending: None,
            records: 0,
        }
    }

    /// The next record; `None` at the end of the input.
    fn next_piece(&mut self, limit: usize) -> Option<Piece> {
        loop {
            let len = self.buffer.len();
            let found = (self.searched <= len).then(|| self.separator.find_at(&self.buffer, self.searched));
            match found.flatten() {
                Some(separator) if self.is_certain(&separator, limit) => {
                    let (start, end) = (separator.start(), separator.end());
                    if start == end {
                        self.searched = end + 1;
                        continue;
                    }
                    let piece = self.take_piece(start, limit);
                    (self.start, self.searched) = (end, end);
                    if piece.is_some() {
                        return piece;
                    }
                    continue;
                }
                Some(separator) => self.searched = separator.start(),
                None if self.stream.at_end => {
                    self.searched = len;
                    // After an error the last record may be torn: it is not handed out.
                    let torn = self.stream.failed.is_some();
                    let piece = if torn { None } else { self.take_piece(len, limit) };
                    self.start = len;
                    return piece;
                }
                None => self.searched = self.searched.max(len.saturating_sub(self.window_bytes)).min(len),
            }
            self.skip_newlines(self.searched);
            if self.searched - self.start > limit {
                self.overlong.get_or_insert(self.offset + self.start as u64);
                self.start = self.searched;
            }
            self.read_more();
        }
    }

    /// True if more input could not change the match: it would have to be longer than the window.
    fn is_certain(&self, separator: &Match<'_>, limit: usize) -> bool {
        let len = self.buffer.len();
        let known = separator.start() + self.window_bytes <= len && separator.end() + CONTEXT_BYTES <= len;
        known || self.stream.at_end || len - separator.start() > limit.max(self.window_bytes)
    }

    /// The record from `start` to `end`; `None` if it has no text.
    fn take_piece(&mut self, end: usize, limit: usize) -> Option<Piece> {
        self.skip_newlines(end);
        let at = self.offset + self.start as u64;
        if let Some(at) = self.overlong.take() {
            return Some(Piece::Overlong(at));
        }
        if end - self.start > limit {
            return Some(Piece::Overlong(at));
        }
        let text = &self.buffer[self.start..end];
        let trimmed = text.iter().rposition(|b| !is_newline(*b))? as u64 + 1;
        Some(Piece::Text(at..at + trimmed))
    }

    /// Begins the current record behind the newlines before it, `end` at most.
    fn skip_newlines(&mut self, end: usize) {
        if self.overlong.is_none() {
            let newlines = self.buffer[self.start..end].iter().take_while(|b| is_newline(**b));
            self.start += newlines.count();
        }
    }

    /// Lets go of what has been handed out and reads on.
    fn read_more(&mut self) {
        let gone = self.start.min(self.searched).saturating_sub(CONTEXT_BYTES);
        self.buffer.drain(..gone);
        self.offset += gone as u64;
        self.start -= gone;
        self.searched -= gone;
        if std::mem::take(&mut self.is_new) {
            self.stream.read_more(&mut self.buffer, 3);
            let mark = byte_order_mark(&self.buffer);
            self.buffer.drain(..mark);
            self.offset = mark as u64;
        }
        if !self.stream.at_end {
            self.stream.read_more(&mut self.buffer, self.chunk_bytes);
        }
    }
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

impl RecordReader for TextReader {
    fn fill(&mut self, block: &mut Block, options: &InputOptions) -> curate_core::Result<bool> {
        block.offset = self.offset;
        block.first_record = self.records;
        block.format = PIECE_TAG;
        while block.data.len() < options.block_bytes || block.records.is_empty() {
            let piece = self.pending.take().or_else(|| self.next_piece(options.max_record_bytes));
            match piece {
                None if block.records.is_empty() => return self.stream.failed.take().map_or(Ok(false), Err),
                None => break,
                Some(Piece::Overlong(at)) => {
                    self.records += 1;
                    let limit = options.max_record_bytes;
                    block.damage.push(too_long_record(&self.stream.name, self.records, at, limit));
                    // The next record has not the next ordinal: it begins another block.
                    break;
                }
                Some(Piece::Text(range)) => {
                    if block.records.is_empty() {
                        block.offset = range.start;
                    }
                    let gap = range.start - (block.offset + block.data.len() as u64);
                    if gap > GAP_BYTES {
                        self.pending = Some(Piece::Text(range));
                        break;
                    }
                    // Separators need not be copied: nobody looks at what lies between records.
                    block.data.resize(block.data.len() + gap as usize, b'\n');
                    let start = (range.start - self.offset) as usize;
                    let length = (range.end - range.start) as usize;
                    block.records.push((block.data.len(), block.data.len() + length));
                    block.data.extend_from_slice(&self.buffer[start..start + length]);
                    self.records += 1;
                }
            }
        }
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

/// What `error` says of lost bytes, if the reads after it go on behind them.
pub(crate) fn skipped_bytes(error: &io::Error) -> Option<&SkippedBytes> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Found = (Vec<(Vec<u8>, u64, u64)>, Vec<(u64, u64)>);

    /// All records with offset and ordinal, and the place of all damage; then the error, if there is one.
    fn read_all(
        mut reader: impl RecordReader,
        block_bytes: usize,
        max_record_bytes: usize,
    ) -> (Found, Option<Error>) {
        let options = InputOptions { block_bytes, max_record_bytes, ..InputOptions::default() };
        let mut block = Block { offset: 999, ..Block::default() };
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        loop {
            block.clear();
            match reader.fill(&mut block, &options) {
                Ok(true) => {}
                Ok(false) => return ((records, damage), None),
                Err(error) => return ((records, damage), Some(error)),
            }
            for i in 0..block.records.len() {
                let record = block.record(i);
                records.push((record.bytes.to_vec(), record.offset, record.ordinal));
            }
            damage.extend(block.damage.iter().map(|d| (d.line, d.offset)));
        }
    }

    fn stream(bytes: &[u8]) -> Stream {
        Stream::new("test".into(), Box::new(io::Cursor::new(bytes.to_vec())))
    }

    fn lines(bytes: &[u8], block_bytes: usize, limit: usize) -> Found {
        let ((mut records, damage), error) = read_all(LineReader::new(stream(bytes)), block_bytes, limit);
        assert!(error.is_none());
        // A line that is too long and in the middle of a block is an empty record.
        records.retain(|(_, _, ordinal)| damage.iter().all(|(line, _)| line - 1 != *ordinal));
        (records, damage)
    }

    /// What lines there are, by looking at all of the input.
    fn lines_oracle(bytes: &[u8], limit: usize) -> Found {
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        let mut offset = 0;
        for (i, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            if text.len() > limit {
                damage.push((i as u64 + 1, offset));
            } else {
                records.push((text.to_vec(), offset, i as u64));
            }
            offset += line.len() as u64;
        }
        (records, damage)
    }

    #[test]
    fn a_long_line_is_passed_over() {
        let long = "x".repeat(300_000);
        let text = format!("a\n{long}\nb\n{long}\n{long}\nc\n{long}");
        for block_bytes in [1, 1000, 1 << 20] {
            for limit in [1, 1000, 299_999, 300_000] {
                assert_eq!(lines(text.as_bytes(), block_bytes, limit), lines_oracle(text.as_bytes(), limit));
            }
        }
        assert_eq!(lines(text.as_bytes(), 1000, 1000).1[0], (2, 2));
        let ((_, _), error) = read_all(LineReader::new(stream(b"a\n")), 1, 1);
        assert!(error.is_none());
        let mut block = Block::default();
        let options = InputOptions { max_record_bytes: 1000, ..InputOptions::default() };
        LineReader::new(stream(long.as_bytes())).fill(&mut block, &options).unwrap();
        assert_eq!(block.damage[0].message, "a record longer than 1000 bytes: raise --max-record-bytes");
    }

    /// Gives `bytes`, then an error.
    fn torn(bytes: &[u8]) -> Stream {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("told to"))
            }
        }
        Stream::new("test".into(), Box::new(io::Cursor::new(bytes.to_vec()).chain(Fails)))
    }

    #[test]
    fn a_torn_end_is_not_handed_out() {
        for block_bytes in [1, 1 << 20] {
            let ((records, _), error) = read_all(LineReader::new(torn(b"a\nb\nc")), block_bytes, 100);
            assert_eq!(records.len(), 2);
            assert!(error.is_some());
            let split = TextSplit::BlankLine.expression().unwrap();
            let ((records, _), error) =
                read_all(TextReader::new(torn(b"a\n\nb\n\nc"), split), block_bytes, 100);
            assert_eq!(records.len(), 2);
            assert!(error.is_some());
        }
        let long = [&b"a\n"[..], &[b'x'; 200_000]].concat();
        let ((records, damage), error) = read_all(LineReader::new(torn(&long)), 1, 1000);
        assert_eq!((records.len(), damage), (1, vec![(2, 2)]));
        assert!(error.is_some());
    }

    fn pieces(
        bytes: &[u8],
        split: &TextSplit,
        block_bytes: usize,
        limit: usize,
        chunk: usize,
        window: usize,
    ) -> Found {
        let mut reader = TextReader::new(stream(bytes), split.expression().unwrap());
        (reader.chunk_bytes, reader.window_bytes) = (chunk, window);
        let (found, error) = read_all(reader, block_bytes, limit);
        assert!(error.is_none());
        found
    }

    /// The pieces of a whole text in memory.
    fn pieces_oracle(bytes: &[u8], split: &TextSplit, limit: usize) -> Found {
        let mark = byte_order_mark(bytes);
        let bytes = &bytes[mark..];
        let expression = split.expression().unwrap();
        let separators = expression.find_iter(bytes).filter(|m| !m.is_empty()).map(|m| (m.start(), m.end()));
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        let (mut start, mut ordinal) = (0, 0);
        for (end, next) in separators.chain([(bytes.len(), bytes.len())]) {
            let piece = &bytes[start..end];
            let front = piece.iter().take_while(|b| is_newline(**b)).count();
            let offset = (mark + start + front) as u64;
            let text = &piece[front..];
            let length = text.iter().rposition(|b| !is_newline(*b)).map_or(0, |i| i + 1);
            if text.len() > limit {
                ordinal += 1;
                damage.push((ordinal, offset));
            } else if length > 0 {
                records.push((text[..length].to_vec(), offset, ordinal));
                ordinal += 1;
            }
            start = next;
        }
        (records, damage)
    }

    #[test]
    fn blank_lines_separate_texts() {
        let check = |text: &str, expected: &[&str]| {
            for chunk in [1, 3, 1000] {
                let (found, damage) = pieces(text.as_bytes(), &TextSplit::BlankLine, 4, 1000, chunk, 64);
                let texts: Vec<_> = found.iter().map(|(t, ..)| std::str::from_utf8(t).unwrap()).collect();
                assert_eq!((texts.as_slice(), damage.len()), (expected, 0), "{text:?}");
            }
        };
        check("", &[]);
        check("\n\n \n", &[]);
        check("   ", &[]);
        check("a", &["a"]);
        check("a\nb\n", &["a\nb"]);
        check("a\n\nb", &["a", "b"]);
        check("\n\n  a\n \t\n\n\n  b\n\n", &["  a", "  b"]);
        check("a\r\n\r\nb\r\n", &["a", "b"]);
        check("\u{feff}é\n \n", &["é"]);
    }

    #[test]
    fn long_separators_and_pieces_take_no_memory() {
        let blank = vec![b'\n'; 3 << 20];
        let text = [b"a", &blank[..], b"b", &blank[..]].concat();
        let found = pieces(&text, &TextSplit::BlankLine, 1000, 1000, 4 << 16, 1 << 16);
        let expected = vec![(b"a".to_vec(), 0, 0), (b"b".to_vec(), 1 + blank.len() as u64, 1)];
        assert_eq!(found, (expected, vec![]));
        let long = vec![b'x'; 3 << 20];
        let text = [b"a\n\n", &long[..], b"\n\nb"].concat();
        let mut reader = TextReader::new(stream(&text), TextSplit::BlankLine.expression().unwrap());
        let options = InputOptions { max_record_bytes: 1000, ..InputOptions::default() };
        let mut block = Block::default();
        let (mut texts, mut damage) = (Vec::new(), 0);
        while reader.fill(&mut block, &options).unwrap() {
            assert!(reader.buffer.len() < 1 << 20, "{}", reader.buffer.len());
            texts.extend((0..block.records.len()).map(|i| block.record(i).bytes.to_vec()));
            damage += block.damage.len();
            block.clear();
        }
        assert_eq!((texts, damage), (vec![b"a".to_vec(), b"b".to_vec()], 1));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_blocks(
            text in "(\u{feff})?[ab\n]{0,40}", block_bytes in 1..30usize, limit in 0..12usize
        ) {
            // The mark is part of the first line's length; without it the oracle is simpler.
            let text = text.trim_start_matches('\u{feff}').as_bytes();
            prop_assert_eq!(lines(text, block_bytes, limit), lines_oracle(text, limit));
        }

        #[test]
        fn pieces_do_not_depend_on_blocks_or_chunks(
            text in "(\u{feff})?([ab\\-é\n]|\n\n|--|\r\n){0,60}",
            block_bytes in 1..40usize, limit in 4..100usize, chunk in 1..50usize, which in 0..6usize
        ) {
            let patterns = ["--", "^-+$", "(?s)-.", "\\bé", "b*", "(?:\n|^)a\n"];
            let split = TextSplit::separator(patterns[which]).unwrap();
            let text = text.as_bytes();
            // The window is longer than any separator, as the promise has it.
            let found = pieces(text, &split, block_bytes, limit, chunk, 200);
            prop_assert_eq!(found, pieces_oracle(text, &split, limit));
            let blank = TextSplit::BlankLine;
            let found = pieces(text, &blank, block_bytes, limit, chunk, 200);
            prop_assert_eq!(found, pieces_oracle(text, &blank, limit));
        }

        #[test]
        fn any_bytes_are_split_alike_for_any_block(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n')], 0..300), block_bytes in 1..100usize
        ) {
            let split = TextSplit::separator("(?-u)[\\x80-\\xff]+\n|\n\n").unwrap();
            let one = pieces(&bytes, &split, 1, 50, 7, 16);
            prop_assert_eq!(pieces(&bytes, &split, block_bytes, 50, 7, 16), one);
        }
    }
}
