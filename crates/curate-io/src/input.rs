//! Files, directories, patterns, archives, object stores and standard input as one stream of blocks.
//!
//! [`resolve`] says which inputs there are without reading them; [`Inputs`] opens one after the other. What an input
//! holds is told by its first bytes where they leave no doubt, else by its name. An input that cannot be opened or
//! read to its end is damage that the report names, and the next one is read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use std::vec;

use curate_core::{Block, Malformed, Source};

use crate::archive::{Archive, Entry};
use crate::decompress::{decompressed_head, decompressed_within};
use crate::error::{IoError, Result};
use crate::format::{Format, HEAD_BYTES};
use crate::object::{self, Object};
use crate::reader::{LineReader, RecordReader, Stream, TextReader, TextSplit, WholeReader, read_error};
use crate::tables::{TableReader, seekable};
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
        Self {
            format: None,
            block_bytes: 256 << 10,
            max_record_bytes: 1 << 30,
            split: TextSplit::Whole,
            max_expansion: 1000,
        }
    }
}

/// One input, named as the user named it.
#[derive(Debug, Clone)]
pub struct InputFile {
    place: Place,
    bytes: Option<u64>,
    modified: Option<SystemTime>,
}

#[derive(Debug, Clone)]
enum Place {
    Stdin,
    File(PathBuf),
    Object(Object),
    Memory(String, Arc<[u8]>),
}

impl InputFile {
    /// An input that lies in memory.
    pub fn in_memory(name: &str, bytes: Arc<[u8]>) -> Self {
        let size = Some(bytes.len() as u64);
        Self { place: Place::Memory(name.to_owned(), bytes), bytes: size, modified: None }
    }

    fn stdin() -> Self {
        Self { place: Place::Stdin, bytes: None, modified: None }
    }

    fn file(path: PathBuf, metadata: Option<&fs::Metadata>) -> Self {
        // A pipe has no size worth the name.
        let file = metadata.filter(|m| m.is_file());
        Self {
            place: Place::File(path),
            bytes: file.map(fs::Metadata::len),
            modified: file.and_then(|m| m.modified().ok()),
        }
    }

    fn object(object: Object) -> Self {
        Self { bytes: object.bytes(), modified: object.modified(), place: Place::Object(object) }
    }

    /// What the input is called in messages and made-up ids: its path or address, or `stdin`.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Stdin => "stdin".to_owned(),
            Place::File(path) => path.display().to_string(),
            Place::Object(object) => object.url().to_owned(),
            Place::Memory(name, _) => name.clone(),
        }
    }

    /// Its size as it is stored; `None` for a stream.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// When it was last changed, as far as anyone knows.
    pub fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// The file that it is, if it is one.
    fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::File(path) => Some(path),
            _ => None,
        }
    }

    fn open(&self) -> curate_core::Result<Box<dyn Read + Send>> {
        Ok(match &self.place {
            Place::Stdin => Box::new(io::stdin()),
            Place::File(path) => Box::new(File::open(path).map_err(|e| IoError::file("open", path, e))?),
            Place::Object(object) => object.open(),
            Place::Memory(_, bytes) => Box::new(io::Cursor::new(Arc::clone(bytes))),
        })
    }
}

/// What paths stand for: see [`resolve`].
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// The inputs, in the order in which they are read.
    pub files: Vec<InputFile>,
    /// The directories and prefixes that were searched: where the names of outputs may begin.
    pub roots: Vec<PathBuf>,
    /// Files in them whose name and content tell no format: they are not read.
    pub skipped: Vec<PathBuf>,
}

/// How far the inputs have been read; shared with whoever draws the progress.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// For inputs that are about to be read, by one [`Inputs`] or by several.
    pub fn of(files: &[InputFile]) -> Arc<Self> {
        let total = files.iter().map(InputFile::bytes).sum::<Option<u64>>().unwrap_or(0);
        Arc::new(Self { read: AtomicU64::new(0), total: AtomicU64::new(total) })
    }

    /// For `total` bytes of a spool, which count as they are decompressed.
    pub(crate) fn of_bytes(total: u64) -> Arc<Self> {
        Arc::new(Self { read: AtomicU64::new(0), total: AtomicU64::new(total) })
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes read so far, as they lie on disk.
    pub fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes of all inputs as they lie on disk; `None` where one of them is a stream.
    pub fn total_bytes(&self) -> Option<u64> {
        Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0)
    }
}

/// The inputs that `paths` stand for, in the order in which they are read: arguments as given, the files of a
/// directory or pattern by path. `-`, or no path at all, is standard input.
///
/// Directories are read with everything in them but hidden files. A path that is no file may be a pattern (`*`, `**`,
/// `?`, `[a-z]`) or an address: `s3://`, `gs://`, `az://`, `https://`, `http://`, which names a prefix if it ends in a
/// slash. In directories, patterns and prefixes only files of a known kind are taken; `format` says that all are.
///
/// # Errors
/// A path that cannot be read, and a directory, pattern or prefix without a single file to read.
pub fn resolve(paths: &[PathBuf], format: Option<Format>) -> Result<Resolved> {
    let mut search = Search { format, found: Resolved::default(), objects: object::Client::default() };
    if paths.is_empty() {
        search.found.files.push(InputFile::stdin());
    }
    for path in paths {
        search.add(path)?;
    }
    Ok(search.found)
}

/// The inputs found so far.
struct Search {
    format: Option<Format>,
    found: Resolved,
    objects: object::Client,
}

impl Search {
    fn add(&mut self, path: &Path) -> Result<()> {
        let before = self.found.files.len();
        if path.as_os_str() == "-" {
            self.found.files.push(InputFile::stdin());
            return Ok(());
        }
        if let Some(url) = path.to_str().filter(|p| object::is_url(p)) {
            return self.add_url(url);
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                self.found.roots.push(path.to_owned());
                self.add_directory(path, &mut Vec::new())?;
                if self.found.files.len() == before {
                    return Err(IoError::EmptyDirectory { path: path.to_owned() });
                }
            }
            Ok(metadata) => self.found.files.push(InputFile::file(path.to_owned(), Some(&metadata))),
            Err(error) => match path.to_str().filter(|p| p.contains(['*', '?', '['])) {
                Some(pattern) if error.kind() == io::ErrorKind::NotFound => self.add_pattern(pattern)?,
                _ => return Err(IoError::file("read", path, error)),
            },
        }
        Ok(())
    }

    fn add_pattern(&mut self, pattern: &str) -> Result<()> {
        let paths = glob::glob_with(pattern, pattern_options())
            .map_err(|e| IoError::Pattern { pattern: pattern.to_owned(), message: e.to_string() })?;
        let mut paths: Vec<PathBuf> = paths
            .map(|path| path.map_err(|e| IoError::file("list", e.path().to_owned(), e.into())))
            .collect::<Result<_>>()?;
        paths.sort();
        let before = self.found.files.len();
        self.found.roots.push(fixed_part(pattern).into());
        for path in paths {
            if path.is_dir() {
                // `dir/**` names directories too, whose files it names as well.
                if !pattern.contains("**") {
                    self.add_directory(&path, &mut Vec::new())?;
                }
            } else {
                self.add_found(path);
            }
        }
        if self.found.files.len() == before {
            return Err(IoError::NoMatch { pattern: pattern.to_owned() });
        }
        Ok(())
    }

    fn add_url(&mut self, url: &str) -> Result<()> {
        let found = self.objects.find(url)?;
        if let Some(root) = found.root {
            self.found.roots.push(root.into());
            let known = |object: &Object| self.format.is_some() || Format::of_name(object.url()).is_some();
            let (files, skipped): (Vec<_>, Vec<_>) = found.objects.into_iter().partition(known);
            self.found.skipped.extend(skipped.iter().map(|o| PathBuf::from(o.url())));
            if files.is_empty() {
                return Err(IoError::NoMatch { pattern: url.to_owned() });
            }
            self.found.files.extend(files.into_iter().map(InputFile::object));
        } else {
            self.found.files.extend(found.objects.into_iter().map(InputFile::object));
        }
        Ok(())
    }

    /// Adds everything below `dir`; `above` are the directories on the way to it, so that a link back ends.
    fn add_directory(&mut self, dir: &Path, above: &mut Vec<PathBuf>) -> Result<()> {
        let read = |e| IoError::file("list", dir, e);
        let real = dir.canonicalize().map_err(read)?;
        if above.contains(&real) {
            return Ok(());
        }
        let mut entries: Vec<PathBuf> = fs::read_dir(dir)
            .map_err(read)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<io::Result<_>>()
            .map_err(read)?;
        entries.sort();
        above.push(real);
        for path in entries {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            if path.is_dir() {
                self.add_directory(&path, above)?;
            } else {
                self.add_found(path);
            }
        }
        above.pop();
        Ok(())
    }

    /// Adds a file that nobody named, if it can be told what it is.
    fn add_found(&mut self, path: PathBuf) {
        let metadata = fs::metadata(&path).ok();
        let known = self.format.is_some()
            || Format::of_name(&path.to_string_lossy()).is_some()
            || metadata.as_ref().is_some_and(fs::Metadata::is_file) && tells_format(&path);
        // A pipe or a socket would be waited for; a link to nothing is noted when it is read.
        if known && metadata.as_ref().is_none_or(fs::Metadata::is_file) {
            self.found.files.push(InputFile::file(path, metadata.as_ref()));
        } else {
            self.found.skipped.push(path);
        }
    }
}

/// `*` stays within one name and matches no hidden file, as in a shell.
pub(crate) fn pattern_options() -> glob::MatchOptions {
    glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    }
}

/// The directory that a pattern searches, with its slash.
pub(crate) fn fixed_part(pattern: &str) -> &str {
    let fixed = pattern.split(['*', '?', '[']).next().unwrap_or_default();
    &fixed[..fixed.rfind('/').map_or(0, |slash| slash + 1)]
}

/// True if the content of a file says what it is.
fn tells_format(path: &Path) -> bool {
    let head = File::open(path).and_then(|file| decompressed_head(Box::new(file), HEAD_BYTES));
    head.is_ok_and(|head| Format::of_content(&head).is_some() || begins_object(&head))
}

/// True for what can be JSON Lines.
fn begins_object(head: &[u8]) -> bool {
    head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start().starts_with(b"{")
}

/// The format of an input called `name` that begins with `head`; `None` if neither tells.
///
/// A page in a file that is called something else may be an example of one: there the name wins.
fn format_of(name: &str, head: &[u8]) -> Option<Format> {
    let named = Format::of_name(name);
    match Format::of_content(head) {
        Some(Format::Html) if named.is_some() => named,
        Some(format) => Some(format),
        None => named.or_else(|| begins_object(head).then_some(Format::JsonLines)),
    }
}

/// All inputs of a run, read one after the other.
pub struct Inputs {
    files: vec::IntoIter<InputFile>,
    open: Option<(Arc<str>, Box<dyn RecordReader>)>,
    /// The archive whose member is open.
    archive: Option<OpenArchive>,
    options: InputOptions,
    progress: Arc<Progress>,
}

struct OpenArchive {
    name: Arc<str>,
    archive: Archive,
    /// Members of unknown kind, and the first of them.
    skipped: u64,
    first_skipped: String,
}

/// What an input turned out to be.
enum Opened {
    Records(Box<dyn RecordReader>),
    Archive(Archive),
    /// A member of an archive of which nothing tells what it is.
    Unknown,
}

impl Inputs {
    /// Reads `files`, some or all of what [`resolve`] found.
    pub fn new(files: Vec<InputFile>, options: InputOptions) -> Self {
        let progress = Progress::of(&files);
        Self { files: files.into_iter(), open: None, archive: None, options, progress }
    }

    /// Counts what is read in `progress`, which other inputs may share.
    pub fn with_progress(mut self, progress: Arc<Progress>) -> Self {
        self.progress = progress;
        self
    }

    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

impl Source for Inputs {
    fn fill(&mut self, block: &mut Block) -> curate_core::Result<bool> {
        loop {
            if let Some((name, reader)) = &mut self.open {
                block.origin = Arc::clone(name);
                block.offset = 0;
                match reader.fill(block, &self.options) {
                    Ok(true) => return Ok(true),
                    Ok(false) => self.open = None,
                    Err(error) => {
                        let (name, _) = self.open.take().expect("it has just failed");
                        let offset = block.offset + block.data.len() as u64;
                        block.data.clear();
                        block.records.clear();
                        return Ok(damaged(block, name, offset, message(&error)));
                    }
                }
            } else if let Some(archive) = &mut self.archive {
                match archive.archive.next_entry() {
                    Some(Entry::Member { name: member, reader }) => {
                        let name: Arc<str> = format!("{}!{member}", archive.name).into();
                        if is_hidden(&member) {
                            continue;
                        }
                        match self.open_stream(Box::new(reader), &name, Some(&member), None) {
                            Ok(Opened::Records(reader)) => self.open = Some((name, reader)),
                            Ok(Opened::Archive(_)) => {
                                let message = "an archive inside an archive: not read; unpack the outer one";
                                return Ok(damaged(block, name, 0, message.to_owned()));
                            }
                            Ok(Opened::Unknown) => self.note_unknown(member),
                            Err(error) => return Ok(damaged(block, name, 0, message(&error))),
                        }
                    }
                    Some(Entry::Refused { offset, message }) => {
                        let name = Arc::clone(&archive.name);
                        return Ok(damaged(block, name, offset, message));
                    }
                    Some(Entry::Failed { offset, error }) => {
                        let name = Arc::clone(&archive.name);
                        let error = read_error(&name, error);
                        return Ok(damaged(block, name, offset, message(&error)));
                    }
                    None => {
                        let archive = self.archive.take().expect("it has just ended");
                        if archive.skipped > 0 {
                            let message = format!(
                                "members of unknown kind are not read: {} (first: {}); --format says what they are",
                                archive.skipped, archive.first_skipped
                            );
                            return Ok(damaged(block, archive.name, 0, message));
                        }
                    }
                }
            } else {
                let Some(file) = self.files.next() else { return Ok(false) };
                let name: Arc<str> = file.name().into();
                match self.open(&file, &name) {
                    Ok(Opened::Records(reader)) => self.open = Some((name, reader)),
                    Ok(Opened::Archive(archive)) => {
                        let first_skipped = String::new();
                        self.archive = Some(OpenArchive { name, archive, skipped: 0, first_skipped });
                    }
                    Ok(Opened::Unknown) => {}
                    Err(error) => return Ok(damaged(block, name, 0, message(&error))),
                }
            }
        }
    }
}

fn is_hidden(member: &str) -> bool {
    member.split('/').any(|part| part.starts_with('.') && part.len() > 1)
}

/// Notes in a block without records that something of the input `origin` cannot be read.
fn damaged(block: &mut Block, origin: Arc<str>, offset: u64, message: String) -> bool {
    block.damage.push(Malformed { file: origin.to_string(), line: 0, offset, message });
    block.origin = origin;
    true
}

/// An error with its causes.
fn message(error: &curate_core::Error) -> String {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}

impl Inputs {
    fn note_unknown(&mut self, member: String) {
        if let Some(archive) = &mut self.archive {
            if archive.skipped == 0 {
                archive.first_skipped = member;
            }
            archive.skipped += 1;
        }
    }

    fn open(&self, file: &InputFile, name: &Arc<str>) -> curate_core::Result<Opened> {
        let counted = Counted { inner: file.open()?, progress: Arc::clone(&self.progress) };
        self.open_stream(Box::new(counted), name, None, file.path())
    }

    /// Opens what `raw` holds; `member` is its name in an archive, `local` its file if it has one.
    fn open_stream(
        &self,
        raw: Box<dyn Read + Send>,
        name: &Arc<str>,
        member: Option<&str>,
        local: Option<&Path>,
    ) -> curate_core::Result<Opened> {
        let reader = decompressed_within(raw, self.options.max_expansion).map_err(|e| read_error(name, e))?;
        let (head, reader) = peek(reader, HEAD_BYTES).map_err(|e| read_error(name, e))?;
        let told = format_of(member.unwrap_or(name), &head);
        let format = match (self.options.format, told) {
            // An archive is never meant to be read as anything else: the format is that of its members.
            (_, Some(Format::Tar)) => return Ok(Opened::Archive(Archive::new(reader))),
            (Some(format), _) | (None, Some(format)) => format,
            (None, None) if member.is_some() => return Ok(Opened::Unknown),
            // A name that tells nothing is read as JSON Lines: a wrong guess is reported line by line.
            (None, None) => Format::JsonLines,
        };
        let name = Arc::clone(name);
        if format == Format::Parquet {
            let file = seekable(local, b"PAR1", reader).map_err(|e| read_error(&name, e))?;
            return Ok(Opened::Records(Box::new(TableReader::parquet(name, file))));
        }
        let separator = self.options.split.expression().filter(|_| format == Format::Text);
        let stream = |reader| Stream::new(Arc::clone(&name), reader);
        Ok(Opened::Records(match format {
            Format::JsonLines => Box::new(LineReader::new(stream(reader))),
            Format::Warc => Box::new(WarcReader::new(stream(reader))),
            Format::Arc => Box::new(ArcReader::new(stream(reader))),
            Format::Arrow => Box::new(TableReader::arrow(name, reader)),
            Format::Csv => Box::new(TableReader::separated(name, reader, b',')),
            Format::Tsv => Box::new(TableReader::separated(name, reader, b'\t')),
            _ => match separator {
                Some(separator) => Box::new(TextReader::new(stream(reader), separator)),
                None => Box::new(WholeReader::new(stream(reader), format)),
            },
        }))
    }
}

/// The first `want` bytes of a stream, or all of a shorter one, and the stream with them put back. An error among
/// them comes when the stream is read again up to it.
pub(crate) fn peek(
    mut reader: Box<dyn Read + Send>,
    want: usize,
) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut head = Vec::with_capacity(want);
    let failed = reader.by_ref().take(want as u64).read_to_end(&mut head).err();
    let whole = io::Cursor::new(head.clone()).chain(Fails(failed)).chain(reader);
    Ok((head, Box::new(whole)))
}

/// An error, once.
struct Fails(Option<io::Error>);

impl Read for Fails {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
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
