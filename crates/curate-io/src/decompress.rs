//! Decompression, chosen by the first bytes of the stream and done on a thread of its own.
//!
//! gzip, zstd, bzip2, xz and lz4, each with any number of members, frames or streams one after the other. A stream
//! that is cut or damaged gives what was decoded before the fault, then the error. A gzip file whose members stand on
//! their own (a web archive) can be read on behind a damaged one: see [`SkippedBytes`].

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::bufread::GzDecoder;
use lz4_flex::frame::FrameDecoder;

use crate::reader::{SkippedBytes, skipped_bytes};

/// Bytes of a stream that tell its compression.
const MAGIC_BYTES: usize = 10;
/// Frames made with `zstd --long=31` need a window of 2 GiB; smaller ones take only what they declare.
const ZSTD_WINDOW_LOG_MAX: u32 = 31;
/// xz dictionaries end at 1.5 GiB; a stream that asks for more than this is damaged.
const XZ_MEMORY_MAX: u64 = 2 << 30;
const READ_BYTES: usize = 256 << 10;
/// Chunks that the decompressing thread may be ahead of the reader.
const CHUNKS_AHEAD: usize = 4;
/// Decompressed bytes below which no stream is called a bomb: a short file of zeros is none.
const EXPANSION_FREE_BYTES: u64 = 64 << 20;
/// Raw bytes kept behind the reading position of a gzip stream, to look for the next member in after a fault.
///
/// A decoder that runs over damaged data seldom goes further than a stored block (64 KiB) before it notices.
const HISTORY_BYTES: usize = 256 << 10;

/// The compressions that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
    Bzip2,
    Xz,
    Lz4,
}

impl Compression {
    fn of_magic(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            // A skippable frame, with which files of several zstd frames may begin.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            // The level, then the mark of a block or of the end: text may begin with "BZh9" too.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            _ => None,
        }
    }
}

/// Reads `raw` through the decoder that its first bytes call for, or none, with no limit to how far it expands.
#[cfg(test)]
pub(crate) fn decompressed(raw: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    decompressed_within(raw, 0)
}

/// Reads `raw` through the decoder that its first bytes call for, or none.
///
/// A stream that gives more than `max_expansion` times the bytes it takes is an error once 64 MiB have come out;
/// 0 is no limit.
pub(crate) fn decompressed_within(
    raw: Box<dyn Read + Send>,
    max_expansion: u64,
) -> io::Result<Box<dyn Read + Send>> {
    Ok(match decoder(raw, max_expansion)? {
        (decoder, true) => Box::new(read_ahead(decoder)),
        (raw, false) => raw,
    })
}

/// The first decompressed bytes of `raw`, decoded on this thread.
pub(crate) fn decompressed_head(raw: Box<dyn Read + Send>, want: usize) -> io::Result<Vec<u8>> {
    let (decoder, _) = decoder(raw, 0)?;
    let mut head = Vec::with_capacity(want);
    decoder.take(want as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// A reader of what `raw` holds, and whether that is compressed.
fn decoder(mut raw: Box<dyn Read + Send>, max_expansion: u64) -> io::Result<(Box<dyn Read + Send>, bool)> {
    let mut head = Vec::with_capacity(MAGIC_BYTES);
    // A pipe may deliver less at once: this reads until it has all or the stream ends.
    raw.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut head)?;
    let compression = Compression::of_magic(&head);
    let raw = io::Cursor::new(head).chain(raw);
    let Some(compression) = compression else {
        return Ok((Box::new(BufReader::with_capacity(READ_BYTES, raw)), false));
    };
    let taken = Arc::new(AtomicU64::new(0));
    let raw = Metered { inner: raw, taken: Arc::clone(&taken) };
    let inner: Box<dyn Read + Send> = match compression {
        Compression::Gzip => Box::new(GzipMembers::new(Box::new(raw))),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(READ_BYTES, raw))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Compression::Bzip2 => {
            Box::new(bzip2::bufread::MultiBzDecoder::new(BufReader::with_capacity(READ_BYTES, raw)))
        }
        Compression::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED)
                    .map_err(io::Error::other)?;
            let raw = BufReader::with_capacity(READ_BYTES, raw);
            Box::new(liblzma::bufread::XzDecoder::new_stream(raw, stream))
        }
        Compression::Lz4 => Box::new(Lz4Frames::new(BufReader::with_capacity(READ_BYTES, raw))),
    };
    Ok((Box::new(Limited { inner, taken, given: 0, max_expansion }), true))
}

/// Counts the raw bytes that a decoder takes.
struct Metered<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.taken.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Ends a stream that expands beyond reason.
struct Limited {
    inner: Box<dyn Read + Send>,
    /// Raw bytes, some of which the decoder may only have buffered.
    taken: Arc<AtomicU64>,
    /// Decompressed bytes.
    given: u64,
    max_expansion: u64,
}

impl Read for Limited {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.given += n as u64;
        let limit = self.max_expansion.saturating_mul(self.taken.load(Ordering::Relaxed));
        if self.max_expansion > 0 && self.given > limit.max(EXPANSION_FREE_BYTES) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "expands to more than {} times its size (byte {}): a decompression bomb? \
                     raise --max-expansion",
                    self.max_expansion, self.given
                ),
            ));
        }
        Ok(n)
    }
}

/// Reads the members of a gzip file one after the other, and finds the next one behind a damaged one.
struct GzipMembers {
    decoder: GzDecoder<Window>,
    /// Raw offset of the member that is being read.
    member: u64,
    state: GzipState,
}

#[derive(PartialEq)]
enum GzipState {
    /// Before the first member, whose header was seen from afar.
    Start,
    /// Behind a member.
    Between,
    Inside,
    Done,
}

impl GzipMembers {
    fn new(raw: Box<dyn Read + Send>) -> Self {
        // Nothing is decoded with this first decoder: the one for the first member takes its reader.
        let mut decoder = GzDecoder::new(Window::new(Box::new(io::empty())));
        decoder.reset(Window::new(raw));
        Self { decoder, member: 0, state: GzipState::Start }
    }

    /// Begins the next member, if there is one.
    fn begin_member(&mut self) -> io::Result<()> {
        let window = self.decoder.get_mut();
        let head = window.peek(MAGIC_BYTES)?;
        let is_header = matches!(head, [0x1f, 0x8b, ..]);
        if self.state == GzipState::Between && !is_header {
            let at = window.position();
            // Zeros or anything else behind the last member is padding, as gzip itself has it.
            if !window.find_header()? {
                self.state = GzipState::Done;
                return Ok(());
            }
            let next = window.position();
            return Err(skipped(at, format!("expected a gzip member at byte {at}: read on at byte {next}")));
        }
        self.member = window.position();
        // Twice, because the decoder gives its reader away only for another one.
        let window = self.decoder.reset(Window::new(Box::new(io::empty())));
        self.decoder.reset(window);
        self.state = GzipState::Inside;
        Ok(())
    }

    /// What to report of a fault inside a member, with the reader put before the next member if there is one.
    fn recover(&mut self, error: io::Error) -> io::Error {
        let at = self.member;
        self.state = GzipState::Done;
        let window = self.decoder.get_mut();
        if window.failed {
            return error;
        }
        let message = format!("gzip member at byte {at}: {error}");
        let found = match window.peek(MAGIC_BYTES) {
            // The member has its length but not its checksum.
            Ok(head) if is_gzip_header(head) => Ok(true),
            Ok(_) => {
                window.rewind(at + 1);
                window.find_header()
            }
            Err(error) => Err(error),
        };
        match found {
            Ok(true) => {
                let next = window.position();
                self.state = GzipState::Between;
                skipped(at, format!("{message}: read on at byte {next}"))
            }
            Ok(false) => io::Error::new(error.kind(), message),
            Err(error) => error,
        }
    }
}

fn skipped(offset: u64, message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, SkippedBytes { offset, message })
}

impl Read for GzipMembers {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                GzipState::Done => return Ok(0),
                GzipState::Start | GzipState::Between => {
                    if let Err(error) = self.begin_member() {
                        if skipped_bytes(&error).is_none() {
                            self.state = GzipState::Done;
                        }
                        return Err(error);
                    }
                }
                GzipState::Inside => match self.decoder.read(buf) {
                    Ok(0) => self.state = GzipState::Between,
                    Ok(n) => return Ok(n),
                    Err(error) => return Err(self.recover(error)),
                },
            }
        }
    }
}

/// True if `head` can hardly be anything but the header of a gzip member: method, flags, level and system are ones
/// that exist. By chance that is one place in 10¹¹.
fn is_gzip_header(head: &[u8]) -> bool {
    matches!(head, [0x1f, 0x8b, 8, 0..=0x1f, _, _, _, _, 0 | 2 | 4, 0..=13 | 255, ..])
}

/// Buffered raw bytes that can be read again for a stretch.
struct Window {
    inner: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// Raw offset of `buffer`.
    offset: u64,
    /// What of `buffer` has been read.
    position: usize,
    at_end: bool,
    /// The input itself cannot be read.
    failed: bool,
}

impl Window {
    fn new(inner: Box<dyn Read + Send>) -> Self {
        Self { inner, buffer: Vec::new(), offset: 0, position: 0, at_end: false, failed: false }
    }

    fn position(&self) -> u64 {
        self.offset + self.position as u64
    }

    /// Reads on, and lets go of what lies too far back.
    fn read_more(&mut self) -> io::Result<()> {
        if self.position > HISTORY_BYTES + 2 * READ_BYTES {
            let gone = self.position - HISTORY_BYTES;
            self.buffer.drain(..gone);
            self.offset += gone as u64;
            self.position -= gone;
        }
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let outcome = loop {
            match self.inner.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.buffer.truncate(filled + *outcome.as_ref().unwrap_or(&0));
        match outcome {
            Ok(n) => self.at_end = n == 0,
            Err(error) => {
                self.failed = true;
                return Err(error);
            }
        }
        Ok(())
    }

    /// The next `want` bytes, or what is left.
    fn peek(&mut self, want: usize) -> io::Result<&[u8]> {
        while self.buffer.len() - self.position < want && !self.at_end {
            self.read_more()?;
        }
        let end = self.buffer.len().min(self.position + want);
        Ok(&self.buffer[self.position..end])
    }

    /// Goes back to `position`, or as far as the bytes are still there.
    fn rewind(&mut self, position: u64) {
        let back = position.saturating_sub(self.offset);
        self.position = self.position.min(usize::try_from(back).unwrap_or(usize::MAX));
    }

    /// Goes forward to the next header of a gzip member; false if there is none.
    fn find_header(&mut self) -> io::Result<bool> {
        loop {
            match memchr::memmem::find(&self.buffer[self.position..], &[0x1f, 0x8b, 8]) {
                Some(at) => {
                    self.position += at;
                    if is_gzip_header(self.peek(MAGIC_BYTES)?) {
                        return Ok(true);
                    }
                    self.position += 1;
                }
                None if self.at_end => {
                    self.position = self.buffer.len();
                    return Ok(false);
                }
                None => {
                    // The last two bytes may be the beginning of one.
                    self.position = self.position.max(self.buffer.len().saturating_sub(2));
                    self.read_more()?;
                }
            }
        }
    }
}

impl Read for Window {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Window {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.buffer.len() && !self.at_end {
            self.read_more()?;
        }
        Ok(&self.buffer[self.position..])
    }

    fn consume(&mut self, n: usize) {
        self.position += n;
    }
}

/// Reads lz4 frames one after the other. The decoder alone takes a cut between two blocks for the end.
struct Lz4Frames<R: Read> {
    decoder: FrameDecoder<Watched<R>>,
}

/// Knows whether its end was met, and how much was read since the last frame.
struct Watched<R> {
    inner: R,
    in_frame: u64,
    at_end: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.in_frame += n as u64;
        self.at_end |= n == 0 && !buf.is_empty();
        Ok(n)
    }
}

impl<R: Read> Lz4Frames<R> {
    fn new(inner: R) -> Self {
        Self { decoder: FrameDecoder::new(Watched { inner, in_frame: 0, at_end: false }) }
    }
}

impl<R: Read> Read for Lz4Frames<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.decoder.read(buf)?;
            let raw = self.decoder.get_mut();
            match (n, raw.at_end) {
                (0, true) if raw.in_frame > 0 => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the last lz4 frame is cut"));
                }
                // The end of a frame; another one may follow.
                (0, false) if !buf.is_empty() => raw.in_frame = 0,
                _ => return Ok(n),
            }
        }
    }
}

/// Bytes on their way from another thread; an empty chunk is the end.
pub(crate) type Chunk = io::Result<Vec<u8>>;

/// A reader that another thread fills, a few chunks ahead.
pub(crate) struct ChunkReader {
    chunks: Receiver<Chunk>,
    chunk: Vec<u8>,
    position: usize,
    at_end: bool,
}

impl ChunkReader {
    /// A reader and where its chunks are sent to. The last one sent is an empty one or an error.
    pub(crate) fn channel() -> (SyncSender<Chunk>, Self) {
        let (send, chunks) = sync_channel(CHUNKS_AHEAD);
        (send, Self { chunks, chunk: Vec::new(), position: 0, at_end: false })
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.position == self.chunk.len() {
            if self.at_end {
                return Ok(0);
            }
            match self.chunks.recv() {
                Ok(Ok(chunk)) => {
                    self.at_end = chunk.is_empty();
                    self.chunk = chunk;
                    self.position = 0;
                }
                Ok(Err(error)) => {
                    self.at_end = skipped_bytes(&error).is_none();
                    return Err(error);
                }
                Err(_) => {
                    self.at_end = true;
                    return Err(io::Error::other("the thread that decodes it has stopped"));
                }
            }
        }
        let n = buf.len().min(self.chunk.len() - self.position);
        buf[..n].copy_from_slice(&self.chunk[self.position..self.position + n]);
        self.position += n;
        Ok(n)
    }
}

/// Reads `inner` on another thread.
fn read_ahead(inner: impl Read + Send + 'static) -> ChunkReader {
    let (send, reader) = ChunkReader::channel();
    thread::spawn(move || send_chunks(inner, &send));
    reader
}

/// Sends all of `inner`; false if nobody reads any more or it could not be read to its end.
pub(crate) fn send_chunks(mut inner: impl Read, send: &SyncSender<Chunk>) -> bool {
    loop {
        let mut chunk = Vec::with_capacity(READ_BYTES);
        match inner.by_ref().take(READ_BYTES as u64).read_to_end(&mut chunk) {
            Ok(_) => {
                let at_end = chunk.is_empty();
                if send.send(Ok(chunk)).is_err() {
                    return false;
                }
                if at_end {
                    return true;
                }
            }
            Err(error) => {
                let goes_on = skipped_bytes(&error).is_some();
                // What was decoded before the fault is still good.
                let sent = chunk.is_empty() || send.send(Ok(chunk)).is_ok();
                if !(sent && send.send(Err(error)).is_ok() && goes_on) {
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// A reader that gives one byte at a time, as a slow pipe may.
    struct Drip(io::Cursor<Vec<u8>>);

    impl Read for Drip {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = buf.len().min(1);
            self.0.read(&mut buf[..n])
        }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// A frame whose window is larger than decoders accept unless told to.
    fn zstd_long(text: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(text: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(text: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn lz4(text: &[u8]) -> Vec<u8> {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    type Packer = fn(&[u8]) -> Vec<u8>;

    const PACKERS: [Packer; 5] = [gzip, zstd_long, bzip2, xz, lz4];

    fn read_all(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompressed(Box::new(Drip(io::Cursor::new(bytes))))?.read_to_end(&mut out)?;
        Ok(out)
    }

    /// What is read until the end, and every error on the way.
    fn read_on(bytes: Vec<u8>) -> (Vec<u8>, Vec<io::Error>) {
        let mut reader = decompressed(Box::new(io::Cursor::new(bytes))).unwrap();
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        while let Err(error) = reader.read_to_end(&mut out) {
            errors.push(error);
        }
        (out, errors)
    }

    /// Text that does not compress to nothing.
    fn numbers() -> Vec<u8> {
        (0..100_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    }

    #[test]
    fn every_compression_is_known_by_its_first_bytes() {
        let text = "line\n".repeat(100_000).into_bytes();
        let twice = [text.clone(), text.clone()].concat();
        assert_eq!(read_all(text.clone()).unwrap(), text);
        for pack in PACKERS {
            assert_eq!(read_all([pack(&text), pack(&text)].concat()).unwrap(), twice);
            assert_eq!(read_all(pack(b"")).unwrap(), b"");
        }
        for short in ["", "a", "ab\n", "BZh9 is how bzip2 files begin"] {
            assert_eq!(read_all(short.into()).unwrap(), short.as_bytes());
        }
    }

    #[test]
    fn a_truncated_stream_gives_what_was_decoded_and_an_error() {
        let text = numbers();
        for pack in PACKERS {
            let packed = pack(&text);
            for cut in [packed.len() / 2, packed.len() - 1] {
                let (out, errors) = read_on(packed[..cut].to_vec());
                assert_eq!(errors.len(), 1, "{errors:?}");
                assert!(text.starts_with(&out), "{} bytes", out.len());
            }
            assert!(!read_on(packed[..packed.len() - 1].to_vec()).0.is_empty());
        }
    }

    #[test]
    fn a_frame_that_ends_between_two_blocks_is_cut() {
        let text = numbers();
        let packed = lz4(&text);
        // The end mark has four bytes and stands alone.
        assert!(read_all(packed[..packed.len() - 4].to_vec()).is_err());
    }

    #[test]
    fn a_stream_that_expands_too_far_is_a_bomb() {
        let zeros = vec![0; EXPANSION_FREE_BYTES as usize + (1 << 20)];
        let packed = zstd_long(&zeros);
        let read = |max_expansion| {
            let raw = Box::new(io::Cursor::new(packed.clone()));
            io::copy(&mut decompressed_within(raw, max_expansion).unwrap(), &mut io::sink())
        };
        assert_eq!(read(0).unwrap(), zeros.len() as u64);
        assert_eq!(read(1_000_000).unwrap(), zeros.len() as u64);
        let message = read(1000).unwrap_err().to_string();
        let number = message.split(&['(', ')'][..]).nth(1).unwrap();
        assert_eq!(
            message,
            format!(
                "expands to more than 1000 times its size ({number}): a decompression bomb? \
                 raise --max-expansion"
            )
        );
        let short = gzip(&vec![0; 1 << 20]);
        let raw = Box::new(io::Cursor::new(short));
        assert!(io::copy(&mut decompressed_within(raw, 2).unwrap(), &mut io::sink()).is_ok());
    }

    #[test]
    fn a_damaged_gzip_member_is_passed_over() {
        let texts: Vec<Vec<u8>> =
            (0..3u8).map(|i| [&[b'a' + i][..], &numbers()[..40_000]].concat()).collect();
        let members: Vec<Vec<u8>> = texts.iter().map(|t| gzip(t)).collect();
        let whole = members.concat();
        let second = members[0].len();
        let third = second + members[1].len();
        let check = |name: &str, damage: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            let (out, errors) = read_on(bytes);
            assert_eq!(errors.len(), 1, "{name}: {errors:?}");
            let skipped = skipped_bytes(&errors[0]).unwrap();
            assert_eq!(skipped.offset, second as u64, "{name}: {}", skipped.message);
            assert!(skipped.message.contains("read on at byte"), "{name}: {}", skipped.message);
            assert!(out.starts_with(&texts[0]) && out.ends_with(&texts[2]), "{name}");
        };
        check("checksum", &|b| b[third - 6] ^= 1);
        check("data", &|b| b[second + 10..second + 60].fill(0xff));
        check("header", &|b| b[second + 3] = 0xff);
        check("no magic", &|b| b[second] = 0);
        check("method", &|b| b[second + 2] = 7);
        check("a hole", &|b| drop(b.drain(second + 100..second + 300)));
        let last = |name: &str, damage: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            let (out, errors) = read_on(bytes);
            assert_eq!(errors.len(), 1, "{name}: {errors:?}");
            assert!(skipped_bytes(&errors[0]).is_none(), "{name}: no member follows: {}", errors[0]);
            let start = format!("gzip member at byte {third}: ");
            assert!(errors[0].to_string().starts_with(&start), "{name}: {}", errors[0]);
            assert!(out.starts_with(&texts[..2].concat()), "{name}");
        };
        last("data", &|b| b[third + 10..third + 60].fill(0xff));
        last("cut", &|b| b.truncate(third + 1000));
        last("cut in the header", &|b| b.truncate(third + 4));
    }

    #[test]
    fn what_follows_the_last_gzip_member_is_padding() {
        for padding in [&[0; 1000][..], b"\n", b"trailing garbage, \x1f\x8b\x08 included"] {
            let bytes = [gzip(b"one\n"), gzip(b"two\n"), padding.to_vec()].concat();
            assert_eq!(read_all(bytes).unwrap(), b"one\ntwo\n");
        }
    }

    #[test]
    fn a_panicking_decoder_is_an_error() {
        struct Panics;
        impl Read for Panics {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("told to")
            }
        }
        let error = read_ahead(Panics).read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("has stopped"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn members_of_any_size_are_joined(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..5), which in 0..5usize
        ) {
            let packed = texts.iter().map(|t| PACKERS[which](t)).collect::<Vec<_>>().concat();
            prop_assert_eq!(read_all(packed).unwrap(), texts.concat());
        }

        /// Damage never panics and never ends in an endless loop.
        #[test]
        fn damaged_bytes_are_read_to_an_end(
            text in prop::collection::vec(any::<u8>(), 0..3000),
            which in 0..5usize,
            spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut packed = [PACKERS[which](&text), PACKERS[which](&text)].concat();
            for (at, byte) in spots {
                let at = at.index(packed.len());
                packed[at] = byte;
            }
            let (_, errors) = read_on(packed);
            prop_assert!(errors.iter().all(|e| !e.to_string().contains("has stopped")));
        }

        #[test]
        fn any_bytes_after_a_magic_are_read_to_an_end(
            which in 0..5usize, keep in 4..12usize, rest in prop::collection::vec(any::<u8>(), 0..500)
        ) {
            let head = PACKERS[which](b"x");
            let (_, errors) = read_on([&head[..keep.min(head.len())], &rest].concat());
            prop_assert!(errors.iter().all(|e| !e.to_string().contains("has stopped")));
        }
    }
}
