//! Files, directories, patterns, archives, object stores and standard input as one stream of blocks.
//!
//! [`resolve`] says which inputs there are without reading them; [`Inputs`] opens one after the other. What an input
//! holds is told by its first bytes where they leave no doubt, else by its name. An input that cannot be opened or
//! read to its end is damage that the report names, and the next one is read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
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

/// How hard a copy of a stream is compressed: it is read as often as it is written, and soon gone.
const SPOOL_LEVEL: i32 = 1;
const SPOOL_BYTES: usize = 256 << 10;

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
    /// A stream that was copied into a nameless file, in Zstandard.
    Spooled(String, Arc<File>),
}

/// A file from its start, whoever else reads it.
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buf, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
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
            Place::Memory(name, _) | Place::Spooled(name, _) => name.clone(),
        }
    }

    /// True for what can be read once only: standard input, pipes, devices.
    pub fn is_stream(&self) -> bool {
        match &self.place {
            Place::Stdin => true,
            Place::File(path) => fs::metadata(path).is_ok_and(|found| !found.is_file()),
            Place::Object(_) | Place::Memory(..) | Place::Spooled(..) => false,
        }
    }

    /// Copies all that it holds into a compressed file in `dir` that has no name and goes with the last copy of the
    /// result, which is read like the original, under its name. `watch` may put itself between the two.
    ///
    /// # Errors
    /// It cannot be read to its end, or the file cannot be written.
    pub fn spooled(
        &self,
        dir: &Path,
        watch: impl FnOnce(Box<dyn Read + Send>) -> Box<dyn Read>,
    ) -> curate_core::Result<Self> {
        let name = self.name();
        let mut reader = watch(self.open()?);
        let failed = |e| IoError::file("write a temporary file in", dir, e);
        fs::create_dir_all(dir).map_err(failed)?;
        let file = tempfile::tempfile_in(dir).map_err(failed)?;
        let mut writer = zstd::Encoder::new(&file, SPOOL_LEVEL).map_err(failed)?;
        let mut chunk = vec![0; SPOOL_BYTES];
        loop {
            match reader.read(&mut chunk).map_err(|e| read_error(&name, e))? {
                0 => break,
                n => writer.write_all(&chunk[..n]).map_err(failed)?,
            }
        }
        writer.finish().map_err(failed)?;
        Ok(Self { place: Place::Spooled(name, Arc::new(file)), bytes: None, modified: None })
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
            Place::Spooled(name, file) => {
                let reader = FromStart { file: Arc::clone(file), at: 0 };
                Box::new(zstd::Decoder::new(reader).map_err(|e| read_error(name, e))?)
            }
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
        let told = format_of(member.unwrap_or_else(|| object::without_query(name)), &head);
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
#[allow(clippy::disallowed_methods)] // the tests write what they read
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
    fn a_text_over_the_limit_is_refused() {
        let stream = Stream::new("endless".into(), Box::new(io::repeat(b'x')));
        let mut open = WholeReader::new(stream, Format::Text);
        let options = InputOptions { max_record_bytes: 1 << 20, ..InputOptions::default() };
        let error = open.fill(&mut Block::default(), &options).unwrap_err();
        assert!(error.to_string().contains("longer than 1048576 bytes"), "{error}");
    }

    /// A directory of its own that goes with the test.
    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// All records as `origin: tag: text`, and all damage as it is shown.
    fn read(files: Vec<InputFile>, options: InputOptions) -> (Vec<String>, Vec<String>) {
        let mut inputs = Inputs::new(files, options);
        let mut block = Block::default();
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        while inputs.fill(&mut block).unwrap() {
            for i in 0..block.records.len() {
                let record = block.record(i);
                let text = String::from_utf8_lossy(record.bytes);
                records.push(format!("{}: {}: {text}", record.origin, record.format));
            }
            damage.extend(block.damage.iter().map(ToString::to_string));
            block.clear();
        }
        (records, damage)
    }

    /// Reads `path` in `dir` and leaves the directory out of what is shown.
    fn read_below(dir: &Path, path: &str, options: InputOptions) -> (Vec<String>, Vec<String>) {
        let resolved = resolve(&[dir.join(path)], options.format).unwrap();
        let (records, damage) = read(resolved.files, options);
        let prefix = format!("{}/", dir.display());
        let strip = |lines: Vec<String>| lines.iter().map(|l| l.replace(&prefix, "")).collect();
        (strip(records), strip(damage))
    }

    #[test]
    fn directories_take_what_can_be_told() {
        let dir = scratch();
        let dir = dir.path();
        write(dir, "in/b.jsonl", "{}\n");
        write(dir, "in/a/x", gzip(b" \n{\"text\":1}\n"));
        write(dir, "in/a/page", "<!doctype html><p>x");
        write(dir, "in/a/z.png", "\x7fpng");
        write(dir, "in/.hidden.txt", "no");
        write(dir, "in/empty", "");
        write(dir, "in/c.md", "{ text");
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.join("in"), dir.join("in/loop")).unwrap();
        let resolved = resolve(&[dir.join("in")], None).unwrap();
        assert_eq!(resolved.roots, [dir.join("in")]);
        assert_eq!(resolved.skipped, [dir.join("in/a/z.png"), dir.join("in/empty")]);
        assert!(resolved.files.iter().all(|f| f.bytes().is_some() && f.modified().is_some()));
        let (records, damage) = read_below(dir, "in", InputOptions::default());
        assert_eq!(
            records,
            [
                "in/a/page: 2: <!doctype html><p>x",
                "in/a/x: 0:  ",
                "in/a/x: 0: {\"text\":1}",
                "in/b.jsonl: 0: {}",
                "in/c.md: 1: { text"
            ]
        );
        assert_eq!(damage, [""; 0]);
        let all = resolve(&[dir.join("in")], Some(Format::Text)).unwrap();
        assert_eq!((all.files.len(), all.skipped.len()), (6, 0));
        write(dir, "none/z.png", "\x7fpng");
        let error = resolve(&[dir.join("none")], None).unwrap_err();
        assert!(error.to_string().ends_with("none holds no input files"), "{error}");
    }

    #[test]
    fn patterns_are_sorted_and_must_match() {
        let dir = scratch();
        let dir = dir.path();
        for name in ["b/2.txt", "a/1.txt", "a/.x.txt", "a/3.bin", "c/d/4.txt", "lit[1].txt"] {
            write(dir, name, name);
        }
        let names = |pattern: &str| -> Vec<String> {
            let resolved = resolve(&[dir.join(pattern)], None).unwrap();
            let prefix = format!("{}/", dir.display());
            assert!(resolved.roots.iter().all(|r| r.starts_with(dir)));
            resolved.files.iter().map(|f| f.name().replace(&prefix, "")).collect()
        };
        assert_eq!(names("*/*.txt"), ["a/1.txt", "b/2.txt"]);
        assert_eq!(names("**/*.txt"), ["a/1.txt", "b/2.txt", "c/d/4.txt", "lit[1].txt"]);
        assert_eq!(names("[ac]"), ["a/1.txt", "c/d/4.txt"]);
        assert_eq!(names("lit[1].txt"), ["lit[1].txt"], "a name is no pattern where the file is there");
        let error = resolve(&["no/such/*.txt".into()], None).unwrap_err();
        assert_eq!(error.to_string(), "no/such/*.txt matches no input file");
        assert!(error.hint().is_some());
        assert!(resolve(&["a[".into()], None).unwrap_err().to_string().contains("is not a pattern"));
        assert!(resolve(&["missing".into()], None).unwrap_err().to_string().contains("cannot read"));
        assert_eq!(resolve(&["-".into()], None).unwrap().files[0].name(), "stdin");
    }

    #[test]
    fn content_wins_over_names_where_it_is_unmistakable() {
        let check = |name: &str, head: &[u8], expected| assert_eq!(format_of(name, head), expected, "{name}");
        check("a.txt", b"WARC/1.0\r\n", Some(Format::Warc));
        check("a.jsonl", b"PAR1", Some(Format::Parquet));
        check("a.txt", b"<!doctype html>", Some(Format::Text));
        check("a.jsonl", b"<html>", Some(Format::JsonLines));
        check("a", b"<html>", Some(Format::Html));
        check("a.md", b"{}", Some(Format::Text));
        check("a", b"\xef\xbb\xbf {", Some(Format::JsonLines));
        check("a", b"plain", None);
    }

    #[test]
    fn archives_give_their_members() {
        let dir = scratch();
        let dir = dir.path();
        let inner = tar(&[("x.txt", b"x")]);
        let bytes = tar(&[
            ("./data/a.jsonl", b"{\"text\":1}\n{}\n"),
            ("data/b.txt.gz", &gzip(b"packed")),
            ("data/._b.txt", b"hidden"),
            ("data/noise.png", b"\x7fpng"),
            ("data/noise.jpg", b"\x7fjpg"),
            ("../x", b"evil"),
            ("inner.tar", &inner),
            ("unnamed", b"{\"text\":2}"),
        ]);
        write(dir, "t.tgz", gzip(&bytes));
        write(dir, "misnamed.jsonl", &bytes);
        for name in ["t.tgz", "misnamed.jsonl"] {
            let (records, damage) = read_below(dir, name, InputOptions::default());
            let at = |member: &str| format!("{name}!{member}");
            assert_eq!(
                records,
                [
                    at("data/a.jsonl: 0: {\"text\":1}"),
                    at("data/a.jsonl: 0: {}"),
                    at("data/b.txt.gz: 1: packed"),
                    at("unnamed: 0: {\"text\":2}")
                ]
            );
            assert_eq!(
                damage,
                [
                    format!("{name} (byte 5120): member name leaves the archive (../x): not read"),
                    at("inner.tar (byte 0): an archive inside an archive: not read; unpack the outer one"),
                    format!(
                        "{name} (byte 0): members of unknown kind are not read: 2 (first: data/noise.png); \
                         --format says what they are"
                    )
                ]
            );
        }
        let options = InputOptions { format: Some(Format::Text), ..InputOptions::default() };
        assert_eq!(read_below(dir, "t.tgz", options).0.len(), 5, "the format is that of the members");
    }

    #[test]
    fn a_cut_archive_is_damage_and_the_next_input_is_read() {
        let dir = scratch();
        let dir = dir.path();
        let lines: String = (0..20_000).map(|i| format!("{{\"text\":\"{}\"}}\n", i * 7919)).collect();
        let bytes = gzip(&tar(&[("a.txt", b"one"), ("b.jsonl", lines.as_bytes())]));
        write(dir, "in/1.tar.gz", &bytes[..bytes.len() / 2]);
        write(dir, "in/2.txt", "two");
        let (records, damage) = read_below(dir, "in", InputOptions::default());
        assert_eq!(records.first().unwrap(), "in/1.tar.gz!a.txt: 1: one");
        assert_eq!(records.last().unwrap(), "in/2.txt: 1: two");
        assert!(records.len() > 1000 && records[1].ends_with(": 0: {\"text\":\"0\"}"));
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert!(damage[0].contains("b.jsonl") && damage[0].contains("cannot read"), "{damage:?}");
    }

    #[test]
    fn a_file_that_goes_away_is_damage() {
        let dir = scratch();
        let dir = dir.path();
        write(dir, "a.txt", "a");
        write(dir, "b.txt", "b");
        let resolved = resolve(&[dir.to_owned()], None).unwrap();
        fs::remove_file(dir.join("a.txt")).unwrap();
        let (records, damage) = read(resolved.files.clone(), InputOptions::default());
        assert_eq!(records.len(), 1);
        assert!(damage.len() == 1 && damage[0].contains("cannot open"), "{damage:?}");
        let progress = Progress::of(&resolved.files);
        assert_eq!(progress.total_bytes(), Some(2));
        let mut part = Inputs::new(resolved.files[1..].to_vec(), InputOptions::default())
            .with_progress(Arc::clone(&progress));
        while part.fill(&mut Block::default()).unwrap() {}
        assert_eq!(progress.read_bytes(), 1);
    }

    #[test]
    fn texts_are_split_by_options() {
        let dir = scratch();
        let dir = dir.path();
        write(dir, "a.txt", "one\ntwo\n\n\nthree\n");
        write(dir, "b.jsonl", "{}\n\n{}\n");
        let split = |split| read_below(dir, "", InputOptions { split, ..InputOptions::default() }).0;
        assert_eq!(
            split(TextSplit::BlankLine),
            ["a.txt: 5: one\ntwo", "a.txt: 5: three", "b.jsonl: 0: {}", "b.jsonl: 0: ", "b.jsonl: 0: {}"]
        );
        assert_eq!(split(TextSplit::separator("^two$").unwrap())[..2], ["a.txt: 5: one", "a.txt: 5: three"]);
        assert!(TextSplit::separator("(").is_err());
    }
}
