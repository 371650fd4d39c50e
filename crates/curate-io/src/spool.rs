//! Documents between the two halves of a resumable run: written once, read back in order.
//!
//! A spool file is JSON Lines in one zstd stream. Which input its documents came from is kept beside it, as runs:
//! the name of an input and how many bytes of documents it gave. The reader hands those names on with the blocks, so
//! that what comes after cannot tell a spooled document from one that was just read.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use curate_core::{Block, Document, Dropped, Error, Malformed, Sink, Source};
use serde::{Deserialize, Serialize};

use crate::decompress::decompressed_within;
use crate::error::IoError;
use crate::format::Format;
use crate::input::Progress;
use crate::output::Output;
use crate::reader::read_error;
use crate::sink::{DocumentSink, DropLog};

/// What one input gave to a spool file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub origin: String,
    /// Bytes of its documents, line ends included; 0 if none were kept.
    pub bytes: u64,
}

/// Writes one spool file, and beside it the logs of what was dropped on the way.
pub struct SpoolWriter {
    output: Output,
    runs: Vec<Run>,
    logs: DocumentSink,
}

impl SpoolWriter {
    /// A spool file at `path`, whose name should end in `.jsonl.zst`.
    pub fn create(path: &Path) -> crate::Result<Self> {
        Ok(Self { output: Output::create(Some(path))?, runs: Vec::new(), logs: DocumentSink::nowhere() })
    }

    /// Also writes what the stages of these numbers drop to `log`.
    pub fn add_log(&mut self, stages: std::ops::Range<usize>, log: DropLog) {
        self.logs.add_log(stages, log);
    }

    /// Completes the file and its logs.
    pub fn finish(self) -> curate_core::Result<Vec<Run>> {
        self.logs.finish()?;
        self.output.finish()?;
        Ok(self.runs)
    }
}

impl Sink for SpoolWriter {
    fn begin_block(&mut self, origin: &Arc<str>) -> curate_core::Result<()> {
        if self.runs.last().is_none_or(|run| run.origin != **origin) {
            self.runs.push(Run { origin: origin.to_string(), bytes: 0 });
        }
        Ok(())
    }

    fn keep(&mut self, encoded: &[u8]) -> curate_core::Result<()> {
        let run = self.runs.last_mut().expect("a block was begun before its documents");
        run.bytes += encoded.len() as u64;
        self.output
            .write_all(encoded)
            .map_err(|e| Error::io(format!("cannot write {}", self.output.name()), e))
    }

    fn dropped(&mut self, stage: usize, doc: &Document<'_>, dropped: &Dropped) -> curate_core::Result<()> {
        self.logs.dropped(stage, doc, dropped)
    }

    fn malformed(&mut self, raw: &[u8], malformed: &Malformed) -> curate_core::Result<()> {
        self.logs.malformed(raw, malformed)
    }
}

/// Reads spool files one after the other.
///
/// Unlike an input, a spool file was written by us: a fault in one ends the run.
pub struct SpoolReader {
    files: std::vec::IntoIter<(PathBuf, Vec<Run>)>,
    open: Option<OpenSpool>,
    block_bytes: usize,
    progress: Arc<Progress>,
}

struct OpenSpool {
    name: String,
    reader: Box<dyn Read + Send>,
    runs: std::vec::IntoIter<Run>,
    origin: Arc<str>,
    /// Bytes of the current run that have not been read.
    left: u64,
    records: u64,
    carry: Vec<u8>,
}

impl SpoolReader {
    /// Reads each file with its runs, in blocks of about `block_bytes`.
    pub fn new(files: Vec<(PathBuf, Vec<Run>)>, block_bytes: usize) -> Self {
        let total = files.iter().flat_map(|(_, runs)| runs).map(|run| run.bytes).sum();
        Self { files: files.into_iter(), open: None, block_bytes, progress: Progress::of_bytes(total) }
    }

    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

impl Source for SpoolReader {
    fn fill(&mut self, block: &mut Block) -> curate_core::Result<bool> {
        loop {
            if self.open.is_none() {
                let Some((path, runs)) = self.files.next() else { return Ok(false) };
                self.open = Some(OpenSpool::new(&path, runs)?);
            }
            if self.open.as_mut().expect("opened just above").fill(block, self.block_bytes)? {
                self.progress.add(block.data.len() as u64);
                return Ok(true);
            }
            self.open = None;
        }
    }
}

impl OpenSpool {
    fn new(path: &Path, runs: Vec<Run>) -> curate_core::Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| Error::from(IoError::file("open", path, e)))?;
        let reader = decompressed_within(Box::new(file), 0).map_err(|e| read_error(&name, e))?;
        let origin = Arc::from("");
        Ok(Self { name, reader, runs: runs.into_iter(), origin, left: 0, records: 0, carry: Vec::new() })
    }

    fn fill(&mut self, block: &mut Block, block_bytes: usize) -> curate_core::Result<bool> {
        if self.left == 0 && self.carry.is_empty() {
            let Some(run) = self.runs.next() else { return Ok(false) };
            self.origin = run.origin.into();
            self.left = run.bytes;
            self.records = 0;
        }
        block.origin = Arc::clone(&self.origin);
        block.first_record = self.records;
        block.format = Format::JsonLines.tag();
        block.data.append(&mut self.carry);
        let mut complete = 0;
        while complete == 0 && self.left > 0 {
            let want = self.left.min(block_bytes.max(64 << 10) as u64);
            let searched = block.data.len();
            let got = self.reader.by_ref().take(want).read_to_end(&mut block.data);
            let got = got.map_err(|e| read_error(&self.name, e))? as u64;
            if got < want {
                return Err(IoError::SpoolTooShort { path: self.name.clone().into() }.into());
            }
            self.left -= got;
            complete = memchr::memrchr(b'\n', &block.data[searched..]).map_or(0, |i| searched + i + 1);
        }
        self.carry.extend_from_slice(&block.data[complete..]);
        block.data.truncate(complete);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &block.data) {
            block.records.push((start, end));
            start = end + 1;
        }
        self.records += block.records.len() as u64;
        Ok(true)
    }
}

/// Appends the decompressed content of the file at `path` to `output`.
pub fn copy_decompressed(path: &Path, output: &mut Output) -> curate_core::Result<()> {
    let failed = |e| Error::from(IoError::file("read", path, e));
    let mut reader = decompressed_within(Box::new(File::open(path).map_err(failed)?), 0).map_err(failed)?;
    let mut chunk = vec![0; 256 << 10];
    loop {
        match reader.read(&mut chunk).map_err(failed)? {
            0 => return Ok(()),
            n => output
                .write_all(&chunk[..n])
                .map_err(|e| Error::io(format!("cannot write {}", output.name()), e))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back_in_order_with_their_origins() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        let mut expected: Vec<(String, Vec<u8>)> = Vec::new();
        for unit in 0..3 {
            let path = dir.path().join(format!("{unit}.jsonl.zst"));
            let mut spool = SpoolWriter::create(&path).unwrap();
            for input in 0..4 {
                let origin: Arc<str> = format!("in-{unit}-{input}").into();
                spool.begin_block(&origin).unwrap();
                for i in 0..input * 40 {
                    let line = format!("{{\"id\":{i},\"text\":\"{}\"}}", "x".repeat(i * 97 % 5000));
                    spool.keep(format!("{line}\n").as_bytes()).unwrap();
                    expected.push((origin.to_string(), line.into_bytes()));
                }
            }
            files.push((path, spool.finish().unwrap()));
        }
        for block_bytes in [1, 100_000, 1 << 20] {
            let mut reader = SpoolReader::new(files.clone(), block_bytes);
            let mut block = Block::default();
            let mut found = Vec::new();
            while reader.fill(&mut block).unwrap() {
                for i in 0..block.records.len() {
                    found.push((block.origin.to_string(), block.record(i).bytes.to_vec()));
                }
                block.clear();
            }
            assert!(found == expected, "block of {block_bytes}");
        }
        files[1].1[3].bytes += 1;
        let mut reader = SpoolReader::new(files, 1 << 20);
        let mut block = Block::default();
        let error = loop {
            block.clear();
            match reader.fill(&mut block) {
                Ok(true) => {}
                Ok(false) => panic!("a short spool file was not noticed"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("1.jsonl.zst"), "{error}");
    }
}
