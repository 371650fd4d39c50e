//! Shard sets to and from the token files of other trainers.
//!
//! The idea: every format is a list of documents under another roof. Export walks the documents of a split and hands
//! each to a writer of the format; import walks the files of the format and hands each document to
//! [`ShardSetWriter`]. One document at a time is in memory (an MDS shard, of 64 MiB by default, for that format, and
//! 4 bytes a document for Megatron's index). Formats that know no documents are cut at the end-of-document id.
//!
//! | format | files of one split | boundaries |
//! |---|---|---|
//! | `megatron` | `SPLIT.bin`, `SPLIT.idx` | in the index |
//! | `nanogpt` | `SPLIT.bin` | at the id, which ends a document |
//! | `llmc` | `SPLIT_000001.bin`, … | at the id, which begins a document |
//! | `olmo` | `SPLIT/part-0-00000.npy`, `.csv.gz`, … | in the table, else at the id |
//! | `datatrove` | `SPLIT/00000_SPLIT.ds`, `.ds.index`, `.ds.metadata`, … | in the index, else at the id |
//! | `mds` | `SPLIT/index.json`, `SPLIT/shard.00000.mds`, … | a sample is a document |
//!
//! Byte layouts are drawn in the file of each format. Files that come from elsewhere are checked as they are read: a
//! message names the file, the byte and what was expected there.

mod datatrove;
mod llmc;
mod mds;
mod megatron;
mod nanogpt;
mod numbers;
mod olmo;
mod stream;

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

pub use stream::EodPlace;

use crate::TokenId;
use crate::atomic::{DirectoryLock, publish_directory, remove_directory_if_present};
use crate::error::{Error, Result};
use crate::manifest::{Manifest, TokenizerInfo};
use crate::map::Map;
use crate::packing::ViewOptions;
use crate::reader::{ShardSet, Split};
use crate::writer::{ShardSetWriter, TokenDocument, WriterOptions};

/// A format of token files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A shard set of this crate.
    Curate,
    /// Megatron-LM, NeMo and GPT-NeoX: `.bin` and `.idx`.
    Megatron,
    /// nanoGPT: 16-bit ids and nothing else.
    NanoGpt,
    /// llm.c, build-nanogpt and modded-nanogpt: ids after a header of 1024 bytes.
    LlmC,
    /// dolma and OLMo: ids in `.npy` files that have no NumPy header.
    Olmo,
    /// datatrove and nanotron: `.ds` with `.ds.index` and `.ds.metadata`.
    Datatrove,
    /// MosaicML Streaming, Composer and llm-foundry: a column of tokens in MDS shards.
    Mds,
}

impl Format {
    /// All formats, ours first.
    pub const ALL: [Format; 7] = [
        Format::Curate,
        Format::Megatron,
        Format::NanoGpt,
        Format::LlmC,
        Format::Olmo,
        Format::Datatrove,
        Format::Mds,
    ];

    /// The name that options and messages use.
    pub fn name(self) -> &'static str {
        match self {
            Format::Curate => "curate",
            Format::Megatron => "megatron",
            Format::NanoGpt => "nanogpt",
            Format::LlmC => "llmc",
            Format::Olmo => "olmo",
            Format::Datatrove => "datatrove",
            Format::Mds => "mds",
        }
    }

    /// The format of a file or directory, from the names there and, for `.bin` files, from their first bytes.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] if nothing there has a name that a format knows.
    pub fn detect(source: &Path) -> Result<Format> {
        if Manifest::path(source).exists() {
            return Ok(Format::Curate);
        }
        let files = files_of(source)?;
        let any = |ending: &str| files.iter().any(|file| ends_in(file, ending));
        let bins: Vec<_> = files.iter().filter(|file| ends_in(file, "bin")).collect();
        let format = if files.iter().any(|file| file.file_name().is_some_and(|name| name == mds::INDEX)) {
            Format::Mds
        } else if any("ds") {
            Format::Datatrove
        } else if any("npy") {
            Format::Olmo
        } else if any("idx") {
            Format::Megatron
        } else if let [first, ..] = bins[..] {
            if llmc::is_llmc(Map::open_whole(first.clone())?.bytes()) {
                Format::LlmC
            } else {
                Format::NanoGpt
            }
        } else {
            return Err(Error::UnknownFormat { path: source.to_owned() });
        };
        Ok(format)
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What was converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Each split, in the order of the set.
    pub splits: Vec<ConvertedSplit>,
    /// Documents that did not end in the end-of-document id and had it appended.
    pub eod_added: u64,
}

/// Counts of one split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedSplit {
    /// Name of the split.
    pub name: String,
    /// Documents.
    pub documents: u64,
    /// Tokens, end-of-document ids included.
    pub tokens: u64,
}

/// How a set is written for others.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// A new file is begun when a document would take the current one past this many tokens, in formats that have
    /// more than one.
    pub file_tokens: u64,
    /// The same in bytes for MDS, whose offsets are 32-bit; at most 4 GiB. Also the memory that an export takes.
    pub mds_shard_bytes: u64,
}

impl Default for ExportOptions {
    fn default() -> ExportOptions {
        ExportOptions { file_tokens: crate::DEFAULT_SHARD_TOKENS, mds_shard_bytes: 1 << 26 }
    }
}

/// Writes the documents of a set in another format, after every checksum of the set was verified.
///
/// `target` must not exist or be empty: the files are written beside it and the directory is renamed when all are
/// there. Splits without a document are left out.
///
/// # Errors
/// [`Error::ForeignFile`] if something is in the way; [`Error::CannotExport`] if the format cannot say what the set
/// holds; those of [`ShardSet::verify`]; [`Error::Io`].
pub fn export(set: &ShardSet, target: &Path, format: Format, options: &ExportOptions) -> Result<Converted> {
    if options.file_tokens == 0 {
        return Err(Error::BadOption { name: "file_tokens", problem: "must be at least 1, is 0".to_owned() });
    }
    set.verify()?;
    let room = Room::create(target)?;
    let mut splits = Vec::new();
    for split in set.splits().iter().filter(|split| split.num_documents() > 0) {
        let source = Source { set, split, dir: &room.temporary, options };
        match format {
            Format::Curate => return Err(cannot(format, "the set is in this format already")),
            Format::Megatron => megatron::export(&source)?,
            Format::NanoGpt => nanogpt::export(&source)?,
            Format::LlmC => llmc::export(&source)?,
            Format::Olmo => olmo::export(&source)?,
            Format::Datatrove => datatrove::export(&source)?,
            Format::Mds => mds::export(&source)?,
        }
        splits.push(ConvertedSplit {
            name: split.name().to_owned(),
            documents: split.num_documents(),
            tokens: split.num_tokens(),
        });
    }
    room.publish()?;
    Ok(Converted { splits, eod_added: 0 })
}

/// What an export reads and where it writes.
struct Source<'a> {
    set: &'a ShardSet,
    split: &'a Split,
    dir: &'a Path,
    options: &'a ExportOptions,
}

impl Source<'_> {
    /// Bytes of an id: 2 or 4, as in the set.
    fn token_bytes(&self) -> u64 {
        self.set.manifest().token_width.bytes()
    }

    fn tokenizer(&self) -> &TokenizerInfo {
        &self.set.manifest().tokenizer
    }

    /// Largest id of the split.
    fn max_token_id(&self) -> TokenId {
        let splits = self.set.manifest().splits.iter().filter(|split| split.name == self.split.name());
        splits.flat_map(|split| &split.shards).map(|shard| shard.max_token_id).max().unwrap_or(0)
    }

    /// Number of documents from `first` on that go into one file, and their tokens: at least one document, and no
    /// more than `file_tokens` unless that one is longer.
    fn file_from(&self, first: u64) -> Result<(u64, u64)> {
        let mut end = first;
        let mut tokens = 0u64;
        while end < self.split.num_documents() {
            let length = self.split.try_document(end)?.tokens.len() as u64;
            if end > first && tokens + length > self.options.file_tokens {
                break;
            }
            tokens += length;
            end += 1;
        }
        Ok((end, tokens))
    }

    /// The ids of a document.
    fn read(&self, document: u64, out: &mut Vec<TokenId>) -> Result<()> {
        out.clear();
        out.extend(self.split.try_document(document)?.tokens.iter());
        Ok(())
    }

    /// A directory for the files of this split alone.
    fn split_dir(&self) -> Result<PathBuf> {
        let dir = self.dir.join(self.split.name());
        std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        Ok(dir)
    }
}

/// The directory that becomes `target`.
struct Room {
    temporary: PathBuf,
    target: PathBuf,
    lock: DirectoryLock,
}

impl Room {
    fn create(target: &Path) -> Result<Room> {
        if std::fs::symlink_metadata(target).is_ok() && !is_empty_directory(target) {
            return Err(Error::ForeignFile { path: target.to_owned() });
        }
        let Some(name) = target.file_name() else {
            return Err(Error::ForeignFile { path: target.to_owned() });
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(crate::atomic::TEMPORARY_SUFFIX);
        let temporary = target.with_file_name(hidden);
        if DirectoryLock::is_marked(&temporary) {
            // Of a run that was killed, or of one that is at work: the lock tells.
            drop(DirectoryLock::acquire(&temporary)?);
            remove_directory_if_present(&temporary)?;
        }
        std::fs::create_dir_all(&temporary).map_err(Error::io("create", &temporary))?;
        let lock = DirectoryLock::acquire(&temporary)?;
        Ok(Room { temporary, target: target.to_owned(), lock })
    }

    fn publish(self) -> Result<()> {
        self.lock.release()?;
        publish_directory(&self.temporary, &self.target)
    }
}

fn is_empty_directory(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn cannot(format: Format, problem: impl Into<String>) -> Error {
    Error::CannotExport { format: format.name(), problem: problem.into() }
}

/// How files of others become a set.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Tokenizer, vocabulary and layout of the set. Held-out shares given here are drawn from all documents by a
    /// hash of their ids; without them, files whose path says `val`, `valid`, `validation` or `test` are those splits
    /// and all others `train`.
    pub writer: WriterOptions,
    /// Bytes of an id (2, 4 or 8) where the files do not say; 2 for vocabularies of up to 65 536 ids, else 4.
    pub token_bytes: Option<u8>,
    /// Which end of a document the end-of-document id marks, in formats without boundaries; found out if not given.
    pub eod_place: Option<EodPlace>,
    /// The MDS column that holds the ids; `tokens` or `input_ids` if not given.
    pub column: Option<String>,
    /// Domain of all documents; `""` for none.
    pub domain: String,
    /// Views of the set.
    pub views: Vec<ViewOptions>,
}

impl ImportOptions {
    /// Nothing but what the writer is told: found-out layout, no domain, no views.
    pub fn new(writer: WriterOptions) -> ImportOptions {
        ImportOptions {
            writer,
            token_bytes: None,
            eod_place: None,
            column: None,
            domain: String::new(),
            views: Vec::new(),
        }
    }

    /// The type of ids where files do not say.
    fn number(&self) -> Result<numbers::Number> {
        match self.token_bytes {
            None if self.writer.tokenizer.vocab_size <= 1 << 16 => Ok(numbers::Number::U16),
            None => Ok(numbers::Number::U32),
            Some(2) => Ok(numbers::Number::U16),
            Some(4) => Ok(numbers::Number::U32),
            Some(8) => Ok(numbers::Number::I64),
            Some(other) => {
                Err(Error::BadOption { name: "token_bytes", problem: format!("{other} is not 2, 4 or 8") })
            }
        }
    }
}

/// Reads token files of another format into a new set at `target`.
///
/// The size of a text is the bytes of its ids by the vocabulary, without the end-of-document id; 0 without a vocabulary.
///
/// # Errors
/// [`Error::BadToken`], [`Error::Damaged`] and the like for files that are not what they should be; those of
/// [`ShardSetWriter`].
pub fn import(
    source: &Path,
    target: &Path,
    format: Format,
    options: &ImportOptions,
) -> Result<(Manifest, Converted)> {
    let files = files_of(source)?;
    let ending = match format {
        Format::Curate => return Err(Error::UnknownFormat { path: source.to_owned() }),
        Format::Megatron => "idx",
        Format::NanoGpt | Format::LlmC => "bin",
        Format::Olmo => "npy",
        Format::Datatrove => "ds",
        Format::Mds => "json",
    };
    let wanted = |file: &&PathBuf| {
        if format == Format::Mds {
            file.file_name().is_some_and(|name| name == mds::INDEX)
        } else {
            ends_in(file, ending)
        }
    };
    let mut by_split = [const { Vec::new() }; 3];
    for file in files.iter().filter(wanted) {
        by_split[split_of(source, file)].push(file.clone());
    }
    if by_split.iter().all(Vec::is_empty) {
        return Err(Error::NothingToImport { path: source.to_owned(), format: format.name() });
    }
    let drawn = options.writer.splits.names().len() > 1;
    let named =
        || SPLITS.iter().zip(&by_split).filter(|(name, files)| **name == "train" || !files.is_empty());
    let names: Vec<&str> =
        if drawn { options.writer.splits.names() } else { named().map(|(name, _)| *name).collect() };
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let writer = ShardSetWriter::create_named(target, options.writer.clone(), &names)?;
    let mut importer = Importer { writer, options, side: 0, drawn, eod_added: 0 };
    for (name, files) in SPLITS.iter().zip(&by_split) {
        importer.side = names.iter().position(|other| other == name).unwrap_or(0);
        match format {
            Format::Curate => {}
            Format::Megatron => megatron::import(files, &mut importer)?,
            Format::NanoGpt => nanogpt::import(files, &mut importer)?,
            Format::LlmC => llmc::import(files, &mut importer)?,
            Format::Olmo => olmo::import(files, &mut importer)?,
            Format::Datatrove => datatrove::import(files, &mut importer)?,
            Format::Mds => mds::import(files, &mut importer)?,
        }
    }
    let eod_added = importer.eod_added;
    let manifest = importer.writer.finish(&options.views)?;
    let splits = manifest.splits.iter().map(|split| ConvertedSplit {
        name: split.name.clone(),
        documents: split.documents,
        tokens: split.tokens,
    });
    let converted = Converted { splits: splits.collect(), eod_added };
    Ok((manifest, converted))
}

/// Takes the documents of an import.
struct Importer<'a> {
    writer: ShardSetWriter,
    options: &'a ImportOptions,
    /// The split whose files are being read.
    side: usize,
    /// Whether splits are drawn by document rather than given by file.
    drawn: bool,
    eod_added: u64,
}

impl Importer<'_> {
    fn tokenizer(&self) -> &TokenizerInfo {
        &self.options.writer.tokenizer
    }

    /// Takes a document and appends the end-of-document id if it is missing.
    fn document(&mut self, tokens: &mut Vec<TokenId>) -> Result<()> {
        if tokens.last() != Some(&self.tokenizer().eod) {
            tokens.push(self.tokenizer().eod);
            self.eod_added += 1;
        }
        let vocabulary = &self.options.writer.vocabulary;
        let bytes = |id: &TokenId| vocabulary.get(*id as usize).map_or(0, Vec::len);
        let text = tokens.split_last().map_or(&[][..], |(_, text)| text);
        let n_bytes = if vocabulary.is_empty() { 0 } else { text.iter().map(bytes).sum() };
        let key = if self.drawn { key(tokens) } else { 0 };
        let n_bytes = u32::try_from(n_bytes).unwrap_or(u32::MAX);
        let document = TokenDocument { tokens, n_bytes, domain: &self.options.domain, key };
        if self.drawn { self.writer.push(&document) } else { self.writer.push_to(self.side, &document) }
    }
}

/// What decides the side of the split of a document whose text is not at hand.
fn key(tokens: &[TokenId]) -> u64 {
    let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
    xxh3_64(&bytes)
}

/// The splits that paths can name.
const SPLITS: [&str; 3] = ["train", "val", "test"];

/// The split that the path of a file inside `source` names: the last word of it that is a split's name.
fn split_of(source: &Path, file: &Path) -> usize {
    let inside = file.strip_prefix(source).ok().filter(|rest| !rest.as_os_str().is_empty());
    let path = inside.or(file.file_name().map(Path::new)).unwrap_or(file).to_string_lossy();
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).rev();
    let side = words.filter_map(|word| match word {
        "train" => Some(0),
        "val" | "valid" | "validation" => Some(1),
        "test" => Some(2),
        _ => None,
    });
    side.into_iter().next().unwrap_or(0)
}

/// The files at `source`: itself, those in it and in its directories, sorted; for a Megatron prefix its index.
fn files_of(source: &Path) -> Result<Vec<PathBuf>> {
    if source.is_file() {
        return Ok(vec![source.to_owned()]);
    }
    if !source.is_dir() {
        let mut index = source.as_os_str().to_owned();
        index.push(".idx");
        let index = PathBuf::from(index);
        if index.is_file() {
            return Ok(vec![index]);
        }
    }
    let mut files = Vec::new();
    for path in entries(source)? {
        if path.is_dir() {
            files.extend(entries(&path)?.into_iter().filter(|inner| inner.is_file()));
        } else {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        paths.push(entry.map_err(Error::io("list", dir))?.path());
    }
    paths.sort_unstable();
    Ok(paths)
}

fn ends_in(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending)
}

/// The path with more letters at its end.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_splits() {
        let check = |path: &str, expected| {
            assert_eq!(split_of(Path::new("train-data/x"), Path::new(path)), expected, "{path}");
        };
        check("train-data/x/a.bin", 0);
        check("train-data/x/val.bin", 1);
        check("train-data/x/fineweb_val_000000.bin", 1);
        check("train-data/x/validation/part-0.npy", 1);
        check("train-data/x/test/train.ds", 0);
        check("train-data/x/testing.ds", 0);
        assert_eq!(split_of(Path::new("a/test.bin"), Path::new("a/test.bin")), 2);
    }
}
