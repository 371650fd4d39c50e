//! Files, directories and standard input as one stream of blocks.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec;

use curate_core::{Block, Malformed, Source};

use crate::decompress::decompressed;
use crate::error::{IoError, Result};
use crate::format::{Format, HEAD_BYTES};
use crate::reader::{LineReader, RecordReader, Stream, TextSplit, WholeReader, read_error};
use crate::warc::{ArcReader, WarcReader};

#[derive(Debug, Clone)]
pub struct InputOptions {
    /// Overrides what the names say.
    pub format: Option<Format>,
    /// Bytes after which a block is cut at the next record end.
    pub block_bytes: usize,
    /// The longest record that is accepted, in bytes.
    pub max_record_bytes: usize,
    /// How a plain text becomes documents.
    pub split: TextSplit,
    /// Decompressed bytes a compressed byte from which an input counts as a decompression bomb; 0 for no limit.
    pub max_expansion: u64,
}

impl Default for InputOptions {
    fn default() -> Self {
        Self { format: None, block_bytes: 256 << 10, max_record_bytes: 1 << 30, split: TextSplit::Whole, max_expansion: 1000 }
    }
}

/// One input, named as the user named it.
#[derive(Debug, Clone, PartialEq)]
struct InputFile {
    /// `None` is standard input.
    path: Option<PathBuf>,
    format: Format,
}

impl InputFile {
    fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "stdin".to_owned(), |p| p.display().to_string())
    }
}

/// How far the inputs have been read; shared with whoever draws the progress.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Bytes read so far, as they lie on disk.
    pub fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes of all inputs as they lie on disk; `None` where one of them is a stream.
    pub fn total_bytes(&self) -> Option<u64> {
        Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0)
    }
}

/// The files that `paths` stand for, in the order in which they are read: arguments as given, the files of a
/// directory by path. Hidden files are left out.
///
/// The second list holds files in directories whose names tell no format: they are not read.
///
/// # Errors
/// A path that cannot be read, and a directory without a single file to read.
pub fn resolve(paths: &[PathBuf], format: Option<Format>) -> Result<(Inputs, Vec<PathBuf>)> {
    let mut files = Vec::new();
    let mut skipped = Vec::new();
    if paths.is_empty() {
        files.push(InputFile { path: None, format: format.unwrap_or(Format::JsonLines) });
    }
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(InputFile { path: None, format: format.unwrap_or(Format::JsonLines) });
        } else if fs::metadata(path).map_err(|e| IoError::file("read", path, e))?.is_dir() {
            let before = files.len();
            add_directory(path, format, &mut files, &mut skipped)?;
            if files.len() == before {
                return Err(IoError::EmptyDirectory { path: path.clone() });
            }
        } else {
            // A name that tells nothing is read as JSON Lines: a wrong guess is reported line by line.
            let format = format.or_else(|| Format::of_name(&path.to_string_lossy())).unwrap_or(Format::JsonLines);
            files.push(InputFile { path: Some(path.clone()), format });
        }
    }
    Ok((Inputs::new(files), skipped))
}

fn add_directory(
    dir: &Path,
    format: Option<Format>,
    files: &mut Vec<InputFile>,
    skipped: &mut Vec<PathBuf>,
) -> Result<()> {
    let read = |e| IoError::file("list", dir, e);
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .map_err(read)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<_>>()
        .map_err(read)?;
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if path.is_dir() {
            add_directory(&path, format, files, skipped)?;
        } else if let Some(format) = format.or_else(|| Format::of_name(&path.to_string_lossy())) {
            files.push(InputFile { path: Some(path), format });
        } else {
            skipped.push(path);
        }
    }
    Ok(())
}

/// All inputs of a run, read one after the other.
pub struct Inputs {
    files: vec::IntoIter<InputFile>,
    open: Option<(Arc<str>, Box<dyn RecordReader>)>,
    options: InputOptions,
    progress: Arc<Progress>,
}

impl Inputs {
    fn new(files: Vec<InputFile>) -> Self {
        let progress = Progress::default();
        let sizes = files.iter().map(|f| Some(fs::metadata(f.path.as_ref()?).ok()?.len()));
        progress.total.store(sizes.sum::<Option<u64>>().unwrap_or(0), Ordering::Relaxed);
        Self {
            files: files.into_iter(),
            open: None,
            options: InputOptions::default(),
            progress: Arc::new(progress),
        }
    }

    pub fn with_options(mut self, options: InputOptions) -> Self {
        self.options = options;
        self
    }

    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

impl Source for Inputs {
    fn fill(&mut self, block: &mut Block) -> curate_core::Result<bool> {
        loop {
            if self.open.is_none() {
                let Some(file) = self.files.next() else { return Ok(false) };
                let name: Arc<str> = file.name().into();
                match self.open(&file, &name) {
                    Ok(reader) => self.open = Some((name, reader)),
                    Err(error) => return Ok(damaged(block, name, 0, &error)),
                }
            }
            let (name, reader) = self.open.as_mut().expect("opened just above");
            block.origin = Arc::clone(name);
            match reader.fill(block, &self.options) {
                Ok(true) => return Ok(true),
                Ok(false) => self.open = None,
                Err(error) => {
                    let (name, _) = self.open.take().expect("it has just failed");
                    let offset = block.offset + block.data.len() as u64;
                    block.clear();
                    return Ok(damaged(block, name, offset, &error));
                }
            }
        }
    }
}

/// Notes in an empty block that the input `origin` cannot be read on.
fn damaged(block: &mut Block, origin: Arc<str>, offset: u64, error: &curate_core::Error) -> bool {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    block.damage.push(Malformed { file: origin.to_string(), line: 0, offset, message });
    block.origin = origin;
    true
}

impl Inputs {
    fn open(&self, file: &InputFile, name: &Arc<str>) -> curate_core::Result<Box<dyn RecordReader>> {
        let raw: Box<dyn Read + Send> = match &file.path {
            None => Box::new(io::stdin()),
            Some(path) => Box::new(File::open(path).map_err(|e| IoError::file("open", path, e))?),
        };
        let counted = Counted { inner: raw, progress: Arc::clone(&self.progress) };
        let reader = decompressed(Box::new(counted)).map_err(|e| read_error(name, e))?;
        let (head, reader) = peek(reader, HEAD_BYTES).map_err(|e| read_error(name, e))?;
        let format = self.options.format.or_else(|| Format::of_content(&head)).unwrap_or(file.format);
        let stream = Stream::new(Arc::clone(name), reader);
        Ok(match format {
            Format::JsonLines => Box::new(LineReader::new(stream)),
            Format::Warc => Box::new(WarcReader::new(stream)),
            Format::Arc => Box::new(ArcReader::new(stream)),
            _ => Box::new(WholeReader::new(stream, format)),
        })
    }
}

/// The first `want` bytes of a stream, or all of a shorter one, and the stream with them put back.
pub(crate) fn peek(
    mut reader: Box<dyn Read + Send>,
    want: usize,
) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut head = Vec::with_capacity(want);
    reader.by_ref().take(want as u64).read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(reader);
    Ok((head, Box::new(whole)))
}

/// Counts what is read of the raw input.
struct Counted {
    inner: Box<dyn Read + Send>,
    progress: Arc<Progress>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.progress.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::byte_order_mark;

    /// All records of `bytes`, each with its offset and ordinal, read in blocks of `block_bytes`.
    fn records(bytes: &[u8], format: Format, block_bytes: usize) -> Vec<(Vec<u8>, u64, u64)> {
        let stream = Stream::new("test".into(), Box::new(io::Cursor::new(bytes.to_vec())));
        let mut open: Box<dyn RecordReader> = match format {
            Format::JsonLines => Box::new(LineReader::new(stream)),
            format => Box::new(WholeReader::new(stream, format)),
        };
        let options = InputOptions { block_bytes, ..InputOptions::default() };
        let mut block = Block::default();
        let mut found = Vec::new();
        while open.fill(&mut block, &options).unwrap() {
            for i in 0..block.records.len() {
                let record = block.record(i);
                found.push((record.bytes.to_vec(), record.offset, record.ordinal));
            }
            block.clear();
        }
        found
    }

    #[test]
    fn lines_are_the_same_for_any_block_size() {
        let cases: [&[u8]; 8] =
            [b"", b"\n", b"a", b"a\n", b"a\nbb\n\nccc", b"\xef\xbb\xbfa\nb\n", b"a\r\nb\r\n", b"\n\n\n"];
        let long: Vec<u8> =
            (0..30_000u32).flat_map(|i| format!("{}\n", "x".repeat(i as usize % 97)).into_bytes()).collect();
        for bytes in cases.into_iter().chain([long.as_slice()]) {
            let skip = byte_order_mark(bytes);
            let mut expected = Vec::new();
            let mut offset = skip as u64;
            for (i, line) in bytes[skip..].split(|b| *b == b'\n').enumerate() {
                expected.push((line.to_vec(), offset, i as u64));
                offset += line.len() as u64 + 1;
            }
            if expected.last().is_some_and(|(line, ..)| line.is_empty()) {
                expected.pop();
            }
            for block_bytes in [1, 1000, 1 << 20] {
                assert_eq!(records(bytes, Format::JsonLines, block_bytes), expected);
            }
        }
    }

    #[test]
    fn a_text_file_is_one_record() {
        assert_eq!(records(b"a\nb\n", Format::Text, 1), [(b"a\nb\n".to_vec(), 0, 0)]);
        assert_eq!(records(b"", Format::Text, 1), [(Vec::new(), 0, 0)]);
        assert_eq!(records(b"\xef\xbb\xbfx", Format::Text, 9), [(b"x".to_vec(), 3, 0)]);
    }

    #[test]
    fn a_record_over_the_limit_is_refused() {
        let mut open = LineReader::new(Stream::new("endless".into(), Box::new(io::repeat(b'x'))));
        let options = InputOptions { max_record_bytes: 1 << 20, ..InputOptions::default() };
        let error = open.fill(&mut Block::default(), &options).unwrap_err();
        assert!(error.to_string().contains("longer than 1048576 bytes"), "{error}");
    }
}
