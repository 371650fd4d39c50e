//! Files, directories and standard input as one stream of blocks.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec;

use curate_core::{Block, Error, Source};

use crate::decompress::decompressed;
use crate::error::{IoError, Result};

/// How the records of an input are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    JsonLines,
    /// The whole input is the text of one document.
    Text,
}

impl Format {
    /// The tag that blocks of this format carry.
    pub(crate) fn tag(self) -> u32 {
        match self {
            Self::JsonLines => 0,
            Self::Text => 1,
        }
    }

    /// The format that a file's name promises, whatever its compression.
    fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            "txt" | "text" | "md" | "markdown" | "rst" => Some(Self::Text),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct InputOptions {
    /// Overrides what the names say.
    pub format: Option<Format>,
    /// Bytes after which a block is cut at the next record end.
    pub block_bytes: usize,
    /// The longest record that is accepted, in bytes.
    pub max_record_bytes: usize,
}

impl Default for InputOptions {
    fn default() -> Self {
        Self { format: None, block_bytes: 256 << 10, max_record_bytes: 1 << 30 }
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
            let format = format.or_else(|| Format::of_name(path)).unwrap_or(Format::JsonLines);
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
        } else if let Some(format) = format.or_else(|| Format::of_name(&path)) {
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
    open: Option<Open>,
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
                self.open = Some(Open::new(&file, &self.progress)?);
            }
            let open = self.open.as_mut().expect("opened just above");
            if open.fill(block, &self.options)? {
                return Ok(true);
            }
            self.open = None;
        }
    }
}

/// The input that is being read.
struct Open {
    reader: Box<dyn Read + Send>,
    name: Arc<str>,
    format: Format,
    /// The beginning of a record whose end was not in the last block.
    carry: Vec<u8>,
    /// Offset of `carry` in the decompressed input.
    offset: u64,
    /// Records handed out so far.
    records: u64,
    at_end: bool,
    /// A read error, held back until the records before it are handed out.
    failed: Option<Error>,
}

impl Open {
    fn new(file: &InputFile, progress: &Arc<Progress>) -> Result<Self> {
        let name = file.name();
        let raw: Box<dyn Read + Send> = match &file.path {
            None => Box::new(io::stdin()),
            Some(path) => Box::new(File::open(path).map_err(|e| IoError::file("open", path, e))?),
        };
        let counted = Counted { inner: raw, progress: Arc::clone(progress) };
        let reader = decompressed(Box::new(counted)).map_err(|e| IoError::file("read", &name, e))?;
        Ok(Self {
            reader,
            name: name.into(),
            format: file.format,
            carry: Vec::new(),
            offset: 0,
            records: 0,
            at_end: false,
            failed: None,
        })
    }

    /// Fills `block` with the next records; `false` when the input has ended.
    fn fill(&mut self, block: &mut Block, options: &InputOptions) -> curate_core::Result<bool> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        block.origin = Arc::clone(&self.name);
        block.offset = self.offset;
        block.first_record = self.records;
        block.format = self.format.tag();
        block.data.append(&mut self.carry);
        match self.format {
            Format::JsonLines => self.fill_lines(block, options)?,
            Format::Text => self.fill_whole(block, options)?,
        }
        self.offset += block.data.len() as u64;
        self.records += block.records.len() as u64;
        Ok(!block.records.is_empty())
    }

    fn fill_lines(&mut self, block: &mut Block, options: &InputOptions) -> curate_core::Result<()> {
        let mut searched = 0;
        let complete = loop {
            let want = options.block_bytes.saturating_sub(block.data.len()).max(64 << 10);
            self.read_more(&mut block.data, want);
            if self.at_end {
                // After an error the last line may be torn: it is not handed out.
                break if self.failed.is_some() { line_end(&block.data, 0) } else { block.data.len() };
            }
            let end = line_end(&block.data, searched);
            if end > 0 && block.data.len() >= options.block_bytes {
                break end;
            }
            if end == 0 && block.data.len() > options.max_record_bytes {
                return Err(self.too_long(options).into());
            }
            searched = if end == 0 { block.data.len() } else { 0 };
        };
        self.carry.extend_from_slice(&block.data[complete..]);
        block.data.truncate(complete);
        split_lines(block, self.offset == 0);
        match self.failed.take() {
            Some(error) if block.records.is_empty() => Err(error),
            held_back => {
                self.failed = held_back;
                Ok(())
            }
        }
    }

    fn fill_whole(&mut self, block: &mut Block, options: &InputOptions) -> curate_core::Result<()> {
        if self.at_end {
            return Ok(());
        }
        while !self.at_end {
            self.read_more(&mut block.data, options.block_bytes);
            if block.data.len() > options.max_record_bytes {
                return Err(self.too_long(options).into());
            }
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        block.records.push((byte_order_mark(&block.data), block.data.len()));
        Ok(())
    }

    /// Appends up to `want` bytes; notes the end of the input, and an error as its end.
    fn read_more(&mut self, data: &mut Vec<u8>, want: usize) {
        match self.reader.by_ref().take(want as u64).read_to_end(data) {
            Ok(n) => self.at_end = n < want,
            Err(source) => {
                self.at_end = true;
                self.failed = Some(IoError::file("read", &*self.name, source).into());
            }
        }
    }

    fn too_long(&self, options: &InputOptions) -> IoError {
        IoError::RecordTooLong {
            name: self.name.to_string(),
            offset: self.offset,
            limit: options.max_record_bytes,
        }
    }
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
fn byte_order_mark(data: &[u8]) -> usize {
    if data.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }
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

    /// All records of `bytes`, each with its offset and ordinal, read in blocks of `block_bytes`.
    fn records(bytes: &[u8], format: Format, block_bytes: usize) -> Vec<(Vec<u8>, u64, u64)> {
        let mut open = Open {
            reader: Box::new(io::Cursor::new(bytes.to_vec())),
            name: "test".into(),
            format,
            carry: Vec::new(),
            offset: 0,
            records: 0,
            at_end: false,
            failed: None,
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
    fn names_tell_formats() {
        let check = |name: &str, format| assert_eq!(Format::of_name(Path::new(name)), format, "{name}");
        check("a.jsonl", Some(Format::JsonLines));
        check("dir/A.JSONL.GZ", Some(Format::JsonLines));
        check("b.txt.zst", Some(Format::Text));
        check("README.md", Some(Format::Text));
        check("noext", None);
        check("c.bin", None);
    }

    #[test]
    fn a_record_over_the_limit_is_refused() {
        let mut open = Open {
            reader: Box::new(io::repeat(b'x')),
            name: "endless".into(),
            format: Format::JsonLines,
            carry: Vec::new(),
            offset: 0,
            records: 0,
            at_end: false,
            failed: None,
        };
        let options = InputOptions { max_record_bytes: 1 << 20, ..InputOptions::default() };
        let error = open.fill(&mut Block::default(), &options).unwrap_err();
        assert!(error.to_string().contains("longer than 1048576 bytes"), "{error}");
    }
}
