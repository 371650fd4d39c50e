//! Writing a set: documents in, shards out, manifest last.
//!
//! Documents stream through: ids are checked, narrowed, hashed and written as they come. What grows in memory is
//! 4 bytes a document of the shard being written, for each split, until the shard is closed and its index written.
//! Making the views at the end holds what `packing.rs` says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::TokenId;
use crate::atomic::{AtomicFile, DirectoryLock, TEMPORARY_SUFFIX, remove_if_present, sync_directory};
use crate::error::{Error, Result};
use crate::format::{Width, check_seq_len, hex, is_shard_or_view_name, shard_stem, write_idx};
use crate::manifest::{
    FORMAT_VERSION, FileManifest, Manifest, ShardHashes, ShardManifest, SplitManifest, TokenizerInfo,
    ViewManifest,
};
use crate::packing::ViewOptions;
use crate::reader::{Counts, ShardSet, Split};
use crate::splits::Splits;
use crate::view::write_view;
use crate::vocabulary::{self, Vocabulary};

/// 268 million tokens a shard: half a gigabyte of u16, few files for a large corpus and a small loss when one breaks.
pub const DEFAULT_SHARD_TOKENS: u64 = 1 << 28;

const TOKENIZER_FILE: &str = "tokenizer.json";

/// One document as the packer takes it.
#[derive(Clone, Copy, Debug)]
pub struct TokenDocument<'a> {
    /// Its ids; the last is the end-of-document id.
    pub tokens: &'a [TokenId],
    /// UTF-8 bytes of its text.
    pub n_bytes: u32,
    /// Name of its domain; `""` for none.
    pub domain: &'a str,
    /// Decides the side of the split: the hash of its id, or what near-duplicates share.
    pub key: u64,
}

/// What a set is to be.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Which tokenizer made the ids.
    pub tokenizer: TokenizerInfo,
    /// Content of `tokenizer.json`, kept beside the shards as it is; empty for none.
    pub tokenizer_json: Vec<u8>,
    /// The bytes of each id, for `vocabulary.bin`; empty for none.
    pub vocabulary: Vec<Vec<u8>>,
    /// Which documents are held out.
    pub splits: Splits,
    /// Seed of the split.
    pub seed: u64,
    /// A new shard is begun when a document would take the current one past this many tokens. A longer document has a
    /// shard for itself.
    pub shard_tokens: u64,
    /// Parameters of the stages that made the documents; written to the manifest as they are.
    pub lineage: Value,
    /// Whether a complete set in the directory may be replaced. Its manifest is removed first, so that an
    /// interrupted run leaves no set that is half old and half new.
    pub force: bool,
}

impl WriterOptions {
    /// Defaults: nothing held out, seed 0, [`DEFAULT_SHARD_TOKENS`], no vocabulary, no lineage, no force.
    pub fn new(tokenizer: TokenizerInfo) -> WriterOptions {
        WriterOptions {
            tokenizer,
            tokenizer_json: Vec::new(),
            vocabulary: Vec::new(),
            splits: Splits::none(),
            seed: 0,
            shard_tokens: DEFAULT_SHARD_TOKENS,
            lineage: Value::Null,
            force: false,
        }
    }

    fn check(&self) -> Result<()> {
        let bad = |name, problem| Err(Error::BadOption { name, problem });
        let TokenizerInfo { vocab_size, eod, .. } = self.tokenizer;
        if vocab_size == 0 || vocab_size > i32::MAX.unsigned_abs() {
            return bad("vocab_size", format!("{vocab_size} is not in 1..={}", i32::MAX));
        }
        if eod >= vocab_size {
            return bad("eod", format!("id {eod} is outside the vocabulary of {vocab_size}"));
        }
        if self.vocabulary.len() as u64 > u64::from(vocab_size) {
            return bad("vocabulary", format!("holds {} ids, more than {vocab_size}", self.vocabulary.len()));
        }
        if self.shard_tokens == 0 {
            return bad("shard_tokens", "must be at least 1, is 0".to_owned());
        }
        Ok(())
    }
}

/// Writes a set of shards.
///
/// [`ShardSetWriter::create`], then [`ShardSetWriter::push`] for each document in order, then
/// [`ShardSetWriter::finish`]. Dropped before that, it leaves a directory without a manifest, which the next run in
/// the same directory cleans up. One process writes to a directory at a time.
pub struct ShardSetWriter {
    dir: PathBuf,
    lock: DirectoryLock,
    options: WriterOptions,
    width: Width,
    files: Vec<FileManifest>,
    domains: Domains,
    splits: Vec<SplitWriter>,
    /// Documents taken so far, for messages.
    pushed: u64,
    broken: bool,
    /// Ids of one document as bytes, reused.
    encoded: Vec<u8>,
}

impl std::fmt::Debug for ShardSetWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardSetWriter")
            .field("dir", &self.dir)
            .field("pushed", &self.pushed)
            .finish_non_exhaustive()
    }
}

impl ShardSetWriter {
    /// Prepares a directory, making it if need be: what an interrupted run left there is removed.
    ///
    /// # Errors
    /// [`Error::AlreadyComplete`] if a set is there and `force` is not given; [`Error::ForeignFile`] if a file of
    /// another origin has a name that is needed; [`Error::Busy`] while another process writes; [`Error::BadOption`].
    pub fn create(dir: &Path, options: WriterOptions) -> Result<ShardSetWriter> {
        let names: Vec<String> = options.splits.names().into_iter().map(str::to_owned).collect();
        ShardSetWriter::create_named(dir, options, &names)
    }

    /// As [`ShardSetWriter::create`], with splits of these names, for documents that come with their split and are
    /// given to [`ShardSetWriter::push_to`].
    pub(crate) fn create_named(
        dir: &Path,
        options: WriterOptions,
        names: &[String],
    ) -> Result<ShardSetWriter> {
        options.check()?;
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let lock = claim(dir, &options)?;
        let files = write_side_files(dir, &options)?;
        let splits = names.iter().map(|name| SplitWriter::new(name)).collect();
        let width = Width::from_vocab_size(options.tokenizer.vocab_size);
        Ok(ShardSetWriter {
            dir: dir.to_owned(),
            lock,
            options,
            width,
            files,
            domains: Domains::default(),
            splits,
            pushed: 0,
            broken: false,
            encoded: Vec::new(),
        })
    }

    /// Appends a document to its split.
    ///
    /// A document that is refused leaves the set as it was, and others may follow; after an I/O error the set cannot
    /// be finished.
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`], [`Error::MissingEod`], [`Error::DocumentTooLong`], [`Error::TooManyDomains`],
    /// [`Error::Io`].
    pub fn push(&mut self, doc: &TokenDocument<'_>) -> Result<()> {
        let side = self.options.splits.side(self.options.seed, doc.key);
        self.push_to(side, doc)
    }

    /// Appends a document to the split of this number.
    pub(crate) fn push_to(&mut self, side: usize, doc: &TokenDocument<'_>) -> Result<()> {
        if self.broken {
            return Err(Error::BrokenWriter { dir: self.dir.clone() });
        }
        let document = self.pushed;
        self.pushed += 1;
        check_document(doc, document, &self.options.tokenizer)?;
        let domain = self.domains.index(doc.domain, document)?;
        encode(doc.tokens, self.width, &mut self.encoded);
        let split = &mut self.splits[side];
        let written = split.append(&self.dir, &self.options, self.width, doc, domain, &self.encoded);
        self.broken = written.is_err();
        written
    }

    /// Closes the shards, writes a view of each kind for every split, then the manifest.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a sequence length out of range or given twice; [`Error::BrokenWriter`];
    /// [`Error::Io`].
    pub fn finish(self, views: &[ViewOptions]) -> Result<Manifest> {
        if self.broken {
            return Err(Error::BrokenWriter { dir: self.dir.clone() });
        }
        check_views(views)?;
        let ShardSetWriter { dir, lock, options, width, files, domains, splits, .. } = self;
        let finish = |split: SplitWriter| split.finish(&dir, width, &domains.names);
        let splits = splits.into_iter().map(finish).collect::<Result<_>>()?;
        let mut manifest = Manifest {
            format: Manifest::format_name(),
            format_version: FORMAT_VERSION,
            token_width: width,
            seed: options.seed,
            split_shares: options.splits.to_string(),
            shard_tokens: options.shard_tokens,
            domains: domains.names,
            splits,
            views: Vec::new(),
            files,
            lineage: options.lineage,
            tokenizer: options.tokenizer,
        };
        manifest.views = write_views(&dir, &manifest, views)?;
        publish(&dir, &manifest)?;
        lock.release()?;
        Ok(manifest)
    }
}

/// Adds views of one more sequence length to a complete set, one for each split, and rewrites the manifest.
///
/// Tokens are not touched, and readers that have the set open go on undisturbed. Asking again for a view that is
/// there does nothing. Returns the entries of this length.
///
/// # Errors
/// [`Error::ViewExists`] if the length is there with the other policy; [`Error::BadOption`]; [`Error::Busy`]; those of
/// [`ShardSet::open`].
pub fn add_view(dir: &Path, options: ViewOptions) -> Result<Vec<ViewManifest>> {
    check_seq_len(options.seq_len)?;
    // Before the lock, which writes a file, so that a directory that is no set stays as it was.
    ShardSet::open(dir)?;
    let lock = DirectoryLock::acquire(dir)?;
    let added = add_view_alone(dir, options);
    lock.release()?;
    added
}

/// The work of [`add_view`], done while nobody else writes.
fn add_view_alone(dir: &Path, options: ViewOptions) -> Result<Vec<ViewManifest>> {
    let mut manifest = ShardSet::open(dir)?.manifest().clone();
    let same_length = manifest.views.iter().filter(|view| view.seq_len == options.seq_len);
    let existing: Vec<ViewManifest> = same_length.cloned().collect();
    if let Some(other) = existing.iter().find(|view| view.policy != options.policy) {
        let (existing, requested) = (other.policy.to_string(), options.policy.to_string());
        return Err(Error::ViewExists { dir: dir.to_owned(), seq_len: options.seq_len, existing, requested });
    }
    if !existing.is_empty() {
        return Ok(existing);
    }
    let added = write_views(dir, &manifest, &[options])?;
    manifest.views.extend(added.iter().cloned());
    publish(dir, &manifest)?;
    Ok(added)
}

/// Makes everything that was written durable, then the manifest.
fn publish(dir: &Path, manifest: &Manifest) -> Result<()> {
    sync_directory(dir)?;
    manifest.write(dir)?;
    sync_directory(dir)
}

fn write_views(dir: &Path, manifest: &Manifest, views: &[ViewOptions]) -> Result<Vec<ViewManifest>> {
    let mut written = Vec::new();
    for &options in views {
        for entry in &manifest.splits {
            let split = Split::open(dir, entry, manifest)?;
            written.push(write_view(dir, &split, options)?);
        }
    }
    Ok(written)
}

fn check_views(views: &[ViewOptions]) -> Result<()> {
    for (i, view) in views.iter().enumerate() {
        check_seq_len(view.seq_len)?;
        if views[..i].iter().any(|earlier| earlier.seq_len == view.seq_len) {
            return Err(Error::BadOption {
                name: "seq_len",
                problem: format!("{} is given twice", view.seq_len),
            });
        }
    }
    Ok(())
}

/// Takes the directory for this writer and removes what may be removed.
fn claim(dir: &Path, options: &WriterOptions) -> Result<DirectoryLock> {
    let manifest = Manifest::path(dir);
    if manifest.exists() {
        if !options.force {
            return Err(Error::AlreadyComplete { dir: dir.to_owned() });
        }
        let bytes = std::fs::read(&manifest).map_err(Error::io("read", &manifest))?;
        if !Manifest::is_ours(&bytes) {
            return Err(Error::ForeignFile { path: manifest });
        }
    } else if !DirectoryLock::is_marked(dir) {
        refuse_foreign_files(dir, options)?;
        return DirectoryLock::acquire(dir);
    }
    let lock = DirectoryLock::acquire(dir)?;
    remove_if_present(&manifest)?;
    sync_directory(dir)?;
    sweep(dir, options)?;
    Ok(lock)
}

/// A directory that no writer has marked may hold anything, but nothing that this set would write over.
fn refuse_foreign_files(dir: &Path, options: &WriterOptions) -> Result<()> {
    for name in file_names(dir)? {
        let path = dir.join(&name);
        // The tokenizer that was used may well have been in the directory before.
        let same = || std::fs::read(&path).is_ok_and(|bytes| bytes == options.tokenizer_json);
        if is_shard_or_view_name(&name)
            || name == vocabulary::FILE_NAME
            || (name == TOKENIZER_FILE && !same())
        {
            return Err(Error::ForeignFile { path });
        }
    }
    Ok(())
}

/// Removes shards, views, tables and temporaries of an earlier writer.
fn sweep(dir: &Path, options: &WriterOptions) -> Result<()> {
    for name in file_names(dir)? {
        // A tokenizer that is about to be replaced may be the only copy of the one that was given.
        let stale_tokenizer = name == TOKENIZER_FILE && options.tokenizer_json.is_empty();
        let ours = is_shard_or_view_name(&name)
            || name == vocabulary::FILE_NAME
            || name.ends_with(TEMPORARY_SUFFIX)
            || stale_tokenizer;
        if ours {
            remove_if_present(&dir.join(&name))?;
        }
    }
    Ok(())
}

/// Names in the directory that are valid Unicode, as all of ours are.
fn file_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn write_side_files(dir: &Path, options: &WriterOptions) -> Result<Vec<FileManifest>> {
    let mut files = Vec::new();
    let mut list = |name: &str, digest| -> Result<()> {
        let path = dir.join(name);
        let bytes = std::fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        files.push(FileManifest { file: name.to_owned(), bytes, xxh3_128: hex(digest) });
        Ok(())
    };
    if !options.vocabulary.is_empty() {
        let path = vocabulary::vocabulary_path(dir);
        list(vocabulary::FILE_NAME, Vocabulary::write_hashed(&path, &options.vocabulary)?)?;
    }
    if !options.tokenizer_json.is_empty() {
        let path = dir.join(TOKENIZER_FILE);
        list(TOKENIZER_FILE, AtomicFile::write(&path, &options.tokenizer_json)?)?;
    }
    Ok(files)
}

fn check_document(doc: &TokenDocument<'_>, document: u64, tokenizer: &TokenizerInfo) -> Result<()> {
    let TokenizerInfo { vocab_size, eod, .. } = *tokenizer;
    let last = doc.tokens.last().copied();
    if last != Some(eod) {
        return Err(Error::MissingEod { document, eod, last });
    }
    if i32::try_from(doc.tokens.len()).is_err() {
        return Err(Error::DocumentTooLong { document, tokens: doc.tokens.len() as u64 });
    }
    // The maximum over all is one vector instruction for many ids; where the bad one is matters only then.
    if doc.tokens.iter().max().is_some_and(|&max| max >= vocab_size) {
        let bad = doc.tokens.iter().position(|&id| id >= vocab_size).expect("the maximum is one of them");
        return Err(Error::TokenOutOfRange {
            document,
            position: bad as u64,
            id: doc.tokens[bad],
            vocab_size,
        });
    }
    Ok(())
}

/// The ids as they lie in `.bin`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "ids are below the vocabulary size, which chose the width"
)]
fn encode(tokens: &[TokenId], width: Width, out: &mut Vec<u8>) {
    out.clear();
    match width {
        Width::U16 => {
            out.resize(tokens.len() * 2, 0);
            out.as_chunks_mut()
                .0
                .iter_mut()
                .zip(tokens)
                .for_each(|(to, &id)| *to = (id as u16).to_le_bytes());
        }
        // As a signed number of the same bits: ids are below 2^31.
        Width::I32 => {
            out.resize(tokens.len() * 4, 0);
            out.as_chunks_mut().0.iter_mut().zip(tokens).for_each(|(to, &id)| *to = id.to_le_bytes());
        }
    }
}

/// Names of the domains in order of first appearance.
#[derive(Default)]
struct Domains {
    names: Vec<String>,
    indices: BTreeMap<String, u16>,
    /// Index of the last document's domain: most documents have the domain of the one before.
    last: Option<u16>,
}

impl Domains {
    fn index(&mut self, name: &str, document: u64) -> Result<u16> {
        if let Some(last) = self.last.filter(|&last| self.names[usize::from(last)] == name) {
            return Ok(last);
        }
        let known = self.indices.get(name).copied();
        let domain = match known {
            Some(domain) => domain,
            None => {
                let too_many = |_| Error::TooManyDomains { document, domain: name.to_owned() };
                let domain = u16::try_from(self.names.len()).map_err(too_many)?;
                self.names.push(name.to_owned());
                self.indices.insert(name.to_owned(), domain);
                domain
            }
        };
        self.last = Some(domain);
        Ok(domain)
    }
}

/// The shards of one split: those closed and the one being written.
struct SplitWriter {
    name: String,
    closed: Vec<ShardManifest>,
    open: Option<OpenShard>,
    /// By number of the domain.
    domains: Vec<Counts>,
}

impl SplitWriter {
    fn new(name: &str) -> SplitWriter {
        SplitWriter { name: name.to_owned(), closed: Vec::new(), open: None, domains: Vec::new() }
    }

    fn append(
        &mut self,
        dir: &Path,
        options: &WriterOptions,
        width: Width,
        doc: &TokenDocument<'_>,
        domain: u16,
        encoded: &[u8],
    ) -> Result<()> {
        let tokens = doc.tokens.len() as u64;
        if let Some(full) =
            self.open.take_if(|shard| shard.tokens.saturating_add(tokens) > options.shard_tokens)
        {
            self.closed.push(full.close(dir, width)?);
        }
        let shard = match &mut self.open {
            Some(shard) => shard,
            none => none.insert(OpenShard::create(dir, shard_stem(&self.name, self.closed.len()))?),
        };
        shard.append(doc, domain, encoded)?;
        let domain = usize::from(domain);
        if self.domains.len() <= domain {
            self.domains.resize(domain + 1, Counts::default());
        }
        self.domains[domain].add(tokens, doc.n_bytes);
        Ok(())
    }

    fn finish(mut self, dir: &Path, width: Width, names: &[String]) -> Result<SplitManifest> {
        if let Some(shard) = self.open.take() {
            self.closed.push(shard.close(dir, width)?);
        }
        let sum = |count: fn(&ShardManifest) -> u64| self.closed.iter().map(count).sum();
        let present = self.domains.iter().zip(names).filter(|(counts, _)| counts.documents > 0);
        Ok(SplitManifest {
            tokens: sum(|shard| shard.tokens),
            documents: sum(|shard| shard.documents),
            bytes: sum(|shard| shard.bytes),
            domains: present.map(|(counts, name)| counts.of_domain(name)).collect(),
            name: self.name,
            shards: self.closed,
        })
    }
}

/// The shard being written; its index comes when it is closed.
struct OpenShard {
    stem: String,
    bin: AtomicFile,
    bytes: AtomicFile,
    dom: AtomicFile,
    /// Tokens of each document so far.
    lengths: Vec<i32>,
    tokens: u64,
    text_bytes: u64,
    min_token_id: TokenId,
    max_token_id: TokenId,
}

impl OpenShard {
    fn create(dir: &Path, stem: String) -> Result<OpenShard> {
        let file = |ending| AtomicFile::create(&dir.join(format!("{stem}.{ending}")));
        Ok(OpenShard {
            bin: file("bin")?,
            bytes: file("bytes")?,
            dom: file("dom")?,
            stem,
            lengths: Vec::new(),
            tokens: 0,
            text_bytes: 0,
            min_token_id: TokenId::MAX,
            max_token_id: 0,
        })
    }

    fn append(&mut self, doc: &TokenDocument<'_>, domain: u16, encoded: &[u8]) -> Result<()> {
        self.bin.write_all(encoded)?;
        self.bytes.write_all(&doc.n_bytes.to_le_bytes())?;
        self.dom.write_all(&domain.to_le_bytes())?;
        self.lengths.push(i32::try_from(doc.tokens.len()).expect("longer documents were refused"));
        self.tokens += doc.tokens.len() as u64;
        self.text_bytes += u64::from(doc.n_bytes);
        self.min_token_id = doc.tokens.iter().copied().fold(self.min_token_id, TokenId::min);
        self.max_token_id = doc.tokens.iter().copied().fold(self.max_token_id, TokenId::max);
        Ok(())
    }

    fn close(self, dir: &Path, width: Width) -> Result<ShardManifest> {
        let mut idx = AtomicFile::create(&dir.join(format!("{}.idx", self.stem)))?;
        write_idx(&mut idx, width, &self.lengths)?;
        let xxh3_128 = ShardHashes {
            bin: hex(self.bin.commit()?),
            idx: hex(idx.commit()?),
            bytes: hex(self.bytes.commit()?),
            dom: hex(self.dom.commit()?),
        };
        Ok(ShardManifest {
            file: self.stem,
            tokens: self.tokens,
            documents: self.lengths.len() as u64,
            bytes: self.text_bytes,
            min_token_id: self.min_token_id,
            max_token_id: self.max_token_id,
            xxh3_128,
        })
    }
}
