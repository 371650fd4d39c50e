//! Ctrl-C and SIGTERM: the first one ends the run at the next block, a second one ends the process at once.
//!
//! A run that is asked to end fails with [`Interrupted`]; unfinished files remove themselves on the way out, and
//! `main` lets the process end by the signal itself, so that a shell sees what it expects (status 130 or 143).

use std::io::{self, Read};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use curate_core::{Block, Error, Source};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// The first signal that came; 0 before.
static REQUESTED: AtomicI32 = AtomicI32::new(0);

/// How long a run may take to end by itself. One that is stuck in a write to a pipe that nobody reads would not.
const GRACE: Duration = Duration::from_secs(3);

/// How often a wait for input looks whether a signal has come.
const POLL: Duration = Duration::from_millis(50);

/// Begins to listen. Where that fails the signals keep their default, which ends the process at once.
pub(crate) fn install() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    thread::spawn(move || {
        for signal in signals.forever() {
            if REQUESTED.swap(signal, Ordering::Relaxed) != 0 {
                end_by(signal);
            }
            thread::spawn(move || {
                thread::sleep(GRACE);
                end_by(signal);
            });
        }
    });
}

/// The signal that asked the process to end, if one has come.
pub(crate) fn requested() -> Option<i32> {
    Some(REQUESTED.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// Fails with [`Interrupted`] once a signal has come.
pub(crate) fn check() -> curate_core::Result<()> {
    match requested() {
        Some(signal) => Err(Error::other(Interrupted { signal })),
        None => Ok(()),
    }
}

/// Ends the process the way the signal ends one that does not handle it.
pub(crate) fn end_by(signal: i32) {
    // It fails for signals that it does not know, and these two it knows.
    let _ = emulate_default_handler(signal);
}

/// The error of a run that a signal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupted {
    pub(crate) signal: i32,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.signal {
            SIGINT => "SIGINT",
            SIGTERM => "SIGTERM",
            _ => "a signal",
        };
        write!(f, "interrupted by {name}")
    }
}

impl std::error::Error for Interrupted {}

/// A source that fails with [`Interrupted`] once a signal has come, even while it waits for a slow pipe.
///
/// The inner source lives on a thread of its own, because a blocked read cannot be called back; that thread is
/// left behind when the run ends.
pub(crate) struct Watched {
    ask: Sender<Block>,
    filled: Receiver<(Block, curate_core::Result<bool>)>,
}

impl Watched {
    pub(crate) fn new(mut source: impl Source + Send + 'static) -> Self {
        let (ask, asked) = channel::<Block>();
        let (give, filled) = channel();
        thread::spawn(move || {
            for mut block in asked {
                let outcome = source.fill(&mut block);
                if give.send((block, outcome)).is_err() {
                    return;
                }
            }
        });
        Self { ask, filled }
    }
}

impl Source for Watched {
    fn fill(&mut self, block: &mut Block) -> curate_core::Result<bool> {
        check()?;
        // A thread that is gone has panicked: the receiver below says so.
        let _ = self.ask.send(std::mem::take(block));
        loop {
            match self.filled.recv_timeout(POLL) {
                Ok((filled, outcome)) => {
                    *block = filled;
                    // The end may be that of a stage before us which the same signal has ended: no whole input.
                    return outcome.and_then(|more| check().map(|()| more));
                }
                Err(RecvTimeoutError::Timeout) => check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Panicked { message: "the thread that reads the input".to_owned() });
                }
            }
        }
    }
}

/// The same for plain bytes.
pub(crate) struct WatchedRead {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: io::Cursor<Vec<u8>>,
}

impl WatchedRead {
    const CHUNK_BYTES: u64 = 1 << 20;
    const CHUNKS_AHEAD: usize = 2;

    pub(crate) fn new(mut inner: impl Read + Send + 'static) -> Self {
        let (give, chunks) = sync_channel(Self::CHUNKS_AHEAD);
        thread::spawn(move || {
            loop {
                let mut chunk = Vec::new();
                let read = inner.by_ref().take(Self::CHUNK_BYTES).read_to_end(&mut chunk);
                let is_last = !matches!(read, Ok(1..));
                if give.send(read.map(|_| chunk)).is_err() || is_last {
                    return;
                }
            }
        });
        Self { chunks, chunk: io::Cursor::default() }
    }

    /// The next bytes; none at the end.
    fn next(&self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(signal) = requested() {
                return Err(io::Error::other(Interrupted { signal }));
            }
            match self.chunks.recv_timeout(POLL) {
                Ok(chunk) => return chunk,
                Err(RecvTimeoutError::Timeout) => {}
                // The thread ends after the last chunk.
                Err(RecvTimeoutError::Disconnected) => return Ok(Vec::new()),
            }
        }
    }
}

impl Read for WatchedRead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.chunk.position() == self.chunk.get_ref().len() as u64 {
            self.chunk = io::Cursor::new(self.next()?);
        }
        self.chunk.read(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives blocks with its number as the offset, `left` times.
    struct Numbers {
        left: u64,
    }

    impl Source for Numbers {
        fn fill(&mut self, block: &mut Block) -> curate_core::Result<bool> {
            assert!(self.left != 13, "an unlucky number");
            block.offset = self.left;
            self.left = self.left.saturating_sub(1);
            Ok(block.offset > 0)
        }
    }

    #[test]
    fn a_watched_source_gives_what_the_inner_one_gives() {
        let mut watched = Watched::new(Numbers { left: 3 });
        let mut block = Block::default();
        let mut offsets = Vec::new();
        while watched.fill(&mut block).unwrap() {
            offsets.push(block.offset);
        }
        assert_eq!(offsets, [3, 2, 1]);
    }

    #[test]
    fn a_source_that_panics_fails_instead_of_hanging() {
        let error = Watched::new(Numbers { left: 13 }).fill(&mut Block::default()).unwrap_err();
        assert!(matches!(error, Error::Panicked { .. }), "{error}");
    }

    #[test]
    fn watched_bytes_are_the_inner_ones() {
        for n in [0, 1, 1 << 20, (5 << 20) + 7] {
            let bytes: Vec<u8> = (0..n).map(|i: u32| (i % 251) as u8).collect();
            let mut read = Vec::new();
            WatchedRead::new(io::Cursor::new(bytes.clone())).read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{n} bytes");
        }
    }

    #[test]
    fn interruptions_are_named() {
        let name = |signal| Interrupted { signal }.to_string();
        assert!(name(SIGINT).starts_with("interrupted by SIGINT"));
        assert!(name(SIGTERM).starts_with("interrupted by SIGTERM"));
        assert_eq!(requested(), None);
        assert!(check().is_ok());
    }
}
