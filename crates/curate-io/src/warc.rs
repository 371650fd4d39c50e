//! Web archives: WARC (ISO 28500, with its relatives WET and WAT) and the older ARC, split into records.
//!
//! A record is handed out whole: its head, and the block of content whose length the head declares. Archives in the
//! wild are cut, glued together and mislabelled, so a length is believed only as far as another record, or the end,
//! follows it. Where none does, the reader notes the damage and goes on at the next line that begins a record:
//!
//! ```text
//! WARC/1.0⏎ headers ⏎⏎ content ⏎⏎ WARC/1.0⏎ headers … x&%$?! … ⏎WARC/1.0⏎ …
//! └───────── a record ──────────┘     └─ a record ─┘└─ damage ─┘└─ found again
//! ```
//!
//! What was believed in vain is not taken back: a length that is too great swallows the records that it covers.

mod header;
mod record;

use std::marker::PhantomData;

use curate_core::{Block, Malformed};

pub(crate) use header::{Headers, headers_end};
pub(crate) use record::{parse_arc, parse_warc};

use header::{Head, arc_head, find_arc, find_warc, warc_head};

use crate::format::Format;
use crate::input::InputOptions;
use crate::reader::{RecordReader, SkippedBytes, Stream};

/// Read beyond a record, to have the head of the next one with it; what is read too much is copied once more.
const HEAD_BYTES: usize = 8 << 10;
/// The most that is read at once, and while reading over what is left out.
const READ_BYTES: usize = 1 << 20;
/// Faults in a block after which it is handed out, however few records it has.
const DAMAGE_MAX: usize = 256;

/// How an archive marks its records.
pub(crate) trait Layout: Send {
    const FORMAT: Format;
    fn head(bytes: &[u8]) -> Head;
    fn find(bytes: &[u8]) -> Result<usize, usize>;
}

pub(crate) struct WarcLayout;

impl Layout for WarcLayout {
    const FORMAT: Format = Format::Warc;

    fn head(bytes: &[u8]) -> Head {
        warc_head(bytes)
    }

    fn find(bytes: &[u8]) -> Result<usize, usize> {
        find_warc(bytes)
    }
}

pub(crate) struct ArcLayout;

impl Layout for ArcLayout {
    const FORMAT: Format = Format::Arc;

    fn head(bytes: &[u8]) -> Head {
        arc_head(bytes)
    }

    fn find(bytes: &[u8]) -> Result<usize, usize> {
        find_arc(bytes)
    }
}

pub(crate) type WarcReader = ArchiveReader<WarcLayout>;
pub(crate) type ArcReader = ArchiveReader<ArcLayout>;

/// Splits an archive into records; memory is bounded by `block_bytes` and `max_record_bytes`.
///
/// Because heads tell lengths, a block is read up to the end of its last record, and hardly any byte is copied twice.
pub(crate) struct ArchiveReader<L> {
    stream: Stream,
    /// What was read beyond the last block.
    carry: Vec<u8>,
    /// Offset of `carry` in the decompressed input.
    offset: u64,
    /// Records handed out so far.
    records: u64,
    state: State,
    /// A loss in the stream, behind the bytes read so far.
    gap: Option<SkippedBytes>,
    layout: PhantomData<L>,
}

enum State {
    /// The next bytes are line ends or a record.
    Between,
    /// Reading over a record that is too long.
    Over { left: u64 },
    /// Looking for the next record since the byte `since`, where `why` says what is wrong.
    Search { since: u64, why: String },
}

/// What a round of splitting ended with.
enum Next {
    Full,
    Read(usize),
}

impl<L: Layout> ArchiveReader<L> {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            carry: Vec::new(),
            offset: 0,
            records: 0,
            state: State::Between,
            gap: None,
            layout: PhantomData,
        }
    }

    /// Takes records off `block.data` from `pos` on, as far as they are there.
    fn split(&mut self, block: &mut Block, pos: &mut usize, options: &InputOptions) -> Next {
        let room = options.block_bytes.saturating_sub(block.data.len()).clamp(HEAD_BYTES, READ_BYTES);
        while block.damage.len() < DAMAGE_MAX && (block.records.is_empty() || *pos < options.block_bytes) {
            let rest = &block.data[*pos..];
            let here = block.offset + *pos as u64;
            match &mut self.state {
                State::Over { left } => {
                    let n = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *pos += n;
                    *left -= n as u64;
                    if *left > 0 {
                        return Next::Read(READ_BYTES);
                    }
                    self.state = State::Between;
                }
                State::Search { since, why } => match L::find(rest) {
                    Ok(n) => {
                        *pos += n;
                        let message = left_out(why, here + n as u64 - *since);
                        block.damage.push(self.stream.fault(*since, message));
                        self.state = State::Between;
                    }
                    Err(n) => {
                        *pos += n;
                        return Next::Read(room);
                    }
                },
                State::Between => {
                    let blank = rest.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
                    *pos += blank;
                    let (rest, here) = (&rest[blank..], here + blank as u64);
                    if rest.is_empty() {
                        return Next::Read(room);
                    }
                    match L::head(rest) {
                        Head::Incomplete => return Next::Read(room),
                        Head::Alien(why) => self.state = State::Search { since: here, why },
                        Head::Record { header, content } => {
                            let total = content.saturating_add(header as u64);
                            match usize::try_from(total) {
                                Ok(len) if len <= options.max_record_bytes => {
                                    if rest.len() < len {
                                        let missing = len - rest.len();
                                        return Next::Read(missing.saturating_add(HEAD_BYTES).max(room));
                                    }
                                    block.records.push((*pos, *pos + len));
                                    *pos += len;
                                }
                                _ => {
                                    block.damage.push(self.stream.fault(here, too_long(total, options)));
                                    self.state = State::Over { left: total };
                                }
                            }
                        }
                    }
                }
            }
        }
        Next::Full
    }

    /// Gives up what follows `pos` in `block`, because the stream ends there or has lost what comes next.
    fn give_up_rest(&mut self, block: &mut Block, pos: &mut usize) {
        let rest = &block.data[*pos..];
        let (here, end) = (block.offset + *pos as u64, block.offset + block.data.len() as u64);
        *pos = block.data.len();
        let gap = self.gap.take();
        match std::mem::replace(&mut self.state, State::Between) {
            State::Search { since, why } => {
                block.damage.push(self.stream.fault(since, left_out(&why, end - since)));
            }
            State::Over { left } if gap.is_none() && !self.stream.has_failed() => {
                let message = format!("expected {left} more bytes of a record, found the end of the input");
                block.damage.push(self.stream.fault(end, message));
            }
            State::Between if !rest.is_empty() && !self.stream.has_failed() => {
                block.damage.push(self.stream.fault(here, torn::<L>(rest)));
            }
            State::Over { .. } | State::Between => {}
        }
        if let Some(gap) = gap {
            block.damage.push(self.stream.fault(gap.offset, gap.message));
        }
    }
}

impl<L: Layout> RecordReader for ArchiveReader<L> {
    fn fill(&mut self, block: &mut Block, options: &InputOptions) -> curate_core::Result<bool> {
        block.offset = self.offset;
        block.first_record = self.records;
        block.format = L::FORMAT.tag();
        block.data.append(&mut self.carry);
        let mut pos = 0;
        while let Next::Read(want) = self.split(block, &mut pos, options) {
            if self.gap.is_some() {
                self.give_up_rest(block, &mut pos);
                continue;
            }
            if self.stream.is_at_end() {
                self.give_up_rest(block, &mut pos);
                break;
            }
            if !matches!(self.state, State::Between) && !block.records.is_empty() {
                break;
            }
            if block.records.is_empty() {
                // What is left out must not pile up.
                block.data.drain(..pos);
                block.offset += pos as u64;
                pos = 0;
            }
            self.gap = self.stream.read_up_to_gap(&mut block.data, want.min(READ_BYTES));
        }
        self.carry.extend_from_slice(&block.data[pos..]);
        block.data.truncate(pos);
        self.offset = block.offset + pos as u64;
        self.records += block.records.len() as u64;
        if block.records.is_empty() && block.damage.is_empty() {
            return self.stream.take_error().map_or(Ok(false), Err);
        }
        Ok(true)
    }
}

impl Stream {
    fn fault(&self, offset: u64, message: String) -> Malformed {
        Malformed { file: self.name.to_string(), line: 0, offset, message }
    }
}

fn left_out(why: &str, bytes: u64) -> String {
    format!("{why}; {bytes} bytes up to the next record are left out")
}

fn too_long(len: u64, options: &InputOptions) -> String {
    let limit = options.max_record_bytes;
    format!("a record of {len} bytes is left out: raise --max-record-bytes (now {limit}) to read it")
}

fn torn<L: Layout>(rest: &[u8]) -> String {
    match L::head(rest) {
        Head::Record { header, content } => {
            let found = rest.len().saturating_sub(header);
            format!("expected {content} bytes of content, found {found}; the record is left out")
        }
        Head::Incomplete | Head::Alien(_) => {
            format!("expected the whole head of a record, found {} bytes of it", rest.len())
        }
    }
}

#[cfg(test)]
mod tests;
