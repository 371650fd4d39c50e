//! Decompression, chosen by the first bytes of the stream and done on a thread of its own.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use flate2::bufread::MultiGzDecoder;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Frames made with `zstd --long=31` need a window of 2 GiB; smaller ones take only what they declare.
const ZSTD_WINDOW_LOG_MAX: u32 = 31;
const READ_BYTES: usize = 256 << 10;
/// Chunks that the decompressing thread may be ahead of the reader.
const CHUNKS_AHEAD: usize = 4;

/// Reads `raw` through the decoder that its first bytes call for: gzip (any number of members), zstd (any number
/// of frames, long windows too) or none.
pub(crate) fn decompressed(raw: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut raw = BufReader::with_capacity(READ_BYTES, raw);
    let magic = peek(&mut raw)?;
    if magic.starts_with(&GZIP_MAGIC) {
        Ok(Box::new(ReadAhead::new(MultiGzDecoder::new(raw))))
    } else if magic.starts_with(&ZSTD_MAGIC) {
        let mut decoder = zstd::Decoder::with_buffer(raw)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        Ok(Box::new(ReadAhead::new(decoder)))
    } else {
        Ok(Box::new(raw))
    }
}

/// The first bytes of the stream, left in it. A pipe may deliver less than four at once, hence the loop.
fn peek(raw: &mut BufReader<Box<dyn Read + Send>>) -> io::Result<Vec<u8>> {
    let first = raw.fill_buf()?;
    if first.is_empty() || first.len() >= ZSTD_MAGIC.len() {
        return Ok(first.iter().copied().take(ZSTD_MAGIC.len()).collect());
    }
    let mut head = [0; ZSTD_MAGIC.len()];
    let mut filled = 0;
    while filled < head.len() {
        match raw.read(&mut head[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    let rest = std::mem::replace(raw, BufReader::new(Box::new(io::empty())));
    let joined = io::Cursor::new(head[..filled].to_vec()).chain(rest);
    *raw = BufReader::with_capacity(READ_BYTES, Box::new(joined));
    Ok(head[..filled].to_vec())
}

/// A reader that another thread fills, a few chunks ahead.
struct ReadAhead {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    position: usize,
}

impl ReadAhead {
    fn new(mut inner: impl Read + Send + 'static) -> Self {
        let (send, chunks) = sync_channel(CHUNKS_AHEAD);
        thread::spawn(move || {
            loop {
                let mut chunk = Vec::with_capacity(READ_BYTES);
                let outcome = inner.by_ref().take(READ_BYTES as u64).read_to_end(&mut chunk);
                if outcome.is_err() && !chunk.is_empty() {
                    // What was decoded before the fault is still good.
                    let _ = send.send(Ok(std::mem::take(&mut chunk)));
                }
                let outcome = outcome.map(|_| chunk);
                let done = !matches!(&outcome, Ok(chunk) if !chunk.is_empty());
                // A closed channel means that nobody reads any more.
                if send.send(outcome).is_err() || done {
                    return;
                }
            }
        });
        Self { chunks, chunk: Vec::new(), position: 0 }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.position == self.chunk.len() {
            // After the last chunk (empty) or an error the thread is gone: that reads as the end.
            let Ok(chunk) = self.chunks.recv() else { return Ok(0) };
            self.chunk = chunk?;
            self.position = 0;
        }
        let n = buf.len().min(self.chunk.len() - self.position);
        buf[..n].copy_from_slice(&self.chunk[self.position..self.position + n]);
        self.position += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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

    fn read_all(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompressed(Box::new(Drip(io::Cursor::new(bytes))))?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_compression_is_known_by_its_first_bytes() {
        let text = "line\n".repeat(100_000).into_bytes();
        let twice = [text.clone(), text.clone()].concat();
        assert_eq!(read_all(text.clone()).unwrap(), text);
        assert_eq!(read_all([gzip(&text), gzip(&text)].concat()).unwrap(), twice);
        assert_eq!(read_all([zstd_long(&text), zstd_long(&text)].concat()).unwrap(), twice);
        for short in ["", "a", "ab\n"] {
            assert_eq!(read_all(short.into()).unwrap(), short.as_bytes());
        }
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        let text: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        for packed in [gzip(&text), zstd_long(&text)] {
            assert!(read_all(packed[..packed.len() / 2].to_vec()).is_err());
            assert!(read_all(packed[..packed.len() - 1].to_vec()).is_err());
        }
    }
}
