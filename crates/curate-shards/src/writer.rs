//! Writing a set: documents in, shards out, manifest last.
//!
//! Documents stream through: ids are checked, narrowed, hashed and written as they come. What grows in memory is
//! 4 bytes a document of the shard being written, for each split, until the shard is closed and its index written.
//! Making the views at the end holds what `packing.rs` says.
//!
//! A run that was interrupted is taken up again: shards that it finished are not written a second time, only checked
//! against the documents as they come, see `journal.rs`. The set comes out byte for byte as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use serde_json::Value;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::TokenId;
use crate::atomic::{AtomicFile, DirectoryLock, TEMPORARY_SUFFIX, remove_if_present, sync_directory};
use crate::error::{Error, Result};
use crate::format::{Width, check_seq_len, hex, is_shard_or_view_name, shard_stem, write_idx};
use crate::journal::{self, Finished, Journal};
use crate::manifest::{
    FORMAT_VERSION, FileManifest, Manifest, ShardHashes, ShardManifest, SplitManifest, TokenizerInfo,
    ViewManifest,
};
use crate::map::Map;
use crate::packing::ViewOptions;
use crate::reader::{Counts, ShardSet, Split};
use crate::splits::{Splits, TRAIN};
use crate::view::{ViewRequest, write_view};
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
    /// Whether shards that an interrupted run finished are written again rather than kept.
    pub restart: bool,
}

/// What an interrupted run had finished.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Resume {
    /// Shards.
    pub shards: u64,
    /// Their tokens.
    pub tokens: u64,
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
            restart: false,
        }
    }

    /// All that decides which document lies where, as a text that is equal for equal options.
    fn fingerprint(&self, names: &[String]) -> String {
        let TokenizerInfo { sha256, vocab_size, eod, .. } = &self.tokenizer;
        let shares = self.splits.to_string();
        serde_json::json!([sha256, vocab_size, eod, names, shares, self.seed, self.shard_tokens]).to_string()
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
/// [`ShardSetWriter::finish`]. Dropped before that, it leaves a directory without a manifest, where the next run with the
/// same options and documents goes on after the last finished shard. One process writes to a directory at a time.
pub struct ShardSetWriter {
    dir: PathBuf,
    lock: DirectoryLock,
    journal: Journal,
    options: WriterOptions,
    width: Width,
    files: Vec<FileManifest>,
    domains: Domains,
    splits: Vec<SplitWriter>,
    resume: Resume,
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
    /// Prepares a directory, making it if need be: what an interrupted run left there is removed, but for the shards that
    /// it finished with the same options.
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
        let mut journal = Journal::new(dir, &options.fingerprint(names));
        let (lock, finished) = claim(dir, &options, &journal, names)?;
        if !finished.is_empty() {
            journal.begin(&finished)?;
        }
        let resume = Resume {
            shards: finished.len() as u64,
            tokens: finished.iter().map(|finished| finished.shard.tokens).sum(),
        };
        let files = write_side_files(dir, &options)?;
        let mut splits: Vec<SplitWriter> =
            names.iter().enumerate().map(|(number, name)| SplitWriter::new(number, name)).collect();
        for Finished { split, shard } in finished {
            splits[split].finished.push_back(shard);
        }
        let width = Width::from_vocab_size(options.tokenizer.vocab_size);
        Ok(ShardSetWriter {
            dir: dir.to_owned(),
            lock,
            journal,
            options,
            width,
            files,
            domains: Domains::default(),
            splits,
            resume,
            pushed: 0,
            broken: false,
            encoded: Vec::new(),
        })
    }

    /// What an interrupted run had finished, and this one will check rather than write.
    pub fn resume(&self) -> Resume {
        self.resume
    }

    /// Appends a document to its split.
    ///
    /// A document that is refused leaves the set as it was, and others may follow; after an I/O error the set cannot
    /// be finished.
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`], [`Error::MissingEod`], [`Error::DocumentTooLong`], [`Error::TooManyDomains`],
    /// [`Error::Io`]; [`Error::OtherInput`] or [`Error::BadChecksum`] at the end of a shard that an interrupted run had
    /// finished.
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
        let target = Target { dir: &self.dir, width: self.width, journal: &mut self.journal };
        let split = &mut self.splits[side];
        let written = split.append(target, self.options.shard_tokens, doc, domain, &self.encoded);
        self.broken = written.is_err();
        written
    }

    /// Closes the shards, writes a view of each kind for every split, then the manifest.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a sequence length out of range or given twice; [`Error::BrokenWriter`];
    /// [`Error::Io`].
    pub fn finish(self, views: &[ViewOptions]) -> Result<Manifest> {
        let views: Vec<ViewRequest> = views.iter().map(|&options| options.into()).collect();
        self.finish_with(&views)
    }

    /// As [`ShardSetWriter::finish`], for views that are more than a length and a policy.
    ///
    /// # Errors
    /// The same, and [`Error::BadMix`]; the shards are then finished, and another run with the same documents checks them
    /// and makes its own views.
    pub fn finish_with(self, views: &[ViewRequest]) -> Result<Manifest> {
        if self.broken {
            return Err(Error::BrokenWriter { dir: self.dir.clone() });
        }
        check_views(views)?;
        let ShardSetWriter { dir, lock, mut journal, options, width, files, domains, splits, .. } = self;
        let mut finish = |split: SplitWriter| {
            split.finish(Target { dir: &dir, width, journal: &mut journal }, &domains.names)
        };
        let splits = splits.into_iter().map(&mut finish).collect::<Result<_>>()?;
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
        journal.remove()?;
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
    add_views(dir, &[options.into()], false)
}

/// As [`add_view`], for several lengths, and for views that are more than a length and a policy. With `replace` a view
/// that is there with other rows gives way. Rows are copied out for a view that is there as well.
///
/// # Errors
/// The same, and [`Error::BadMix`]. The set is then as it was, but for files that its manifest does not name.
pub fn add_views(dir: &Path, requests: &[ViewRequest], replace: bool) -> Result<Vec<ViewManifest>> {
    check_views(requests)?;
    // Before the lock, which writes a file, so that a directory that is no set stays as it was.
    ShardSet::open(dir)?;
    let lock = DirectoryLock::acquire(dir)?;
    let added = add_views_alone(dir, requests, replace);
    lock.release()?;
    added
}

/// The work of [`add_views`], done while nobody else writes.
fn add_views_alone(dir: &Path, requests: &[ViewRequest], replace: bool) -> Result<Vec<ViewManifest>> {
    let mut manifest = ShardSet::open(dir)?.manifest().clone();
    let mut entries = Vec::new();
    let mut changed = false;
    for request in requests {
        let seq_len = request.options.seq_len;
        let existing: Vec<ViewManifest> =
            manifest.views.iter().filter(|view| view.seq_len == seq_len).cloned().collect();
        let conflict = existing.iter().find_map(|view| request.conflict(view));
        if let (Some((existing, requested)), false) = (&conflict, replace) {
            let (existing, requested) = (existing.clone(), requested.clone());
            return Err(Error::ViewExists { dir: dir.to_owned(), seq_len, existing, requested });
        }
        let has_copies = |view: &ViewManifest| match view.split == TRAIN {
            true => request
                .materialise
                .is_none_or(|order| view.materialised.as_ref().is_some_and(|rows| rows.order == order)),
            false => true,
        };
        if !existing.is_empty() && conflict.is_none() && existing.iter().all(has_copies) {
            entries.extend(existing);
            continue;
        }
        // While they are replaced there is no manifest that names files which are not theirs any more.
        if !existing.is_empty() {
            manifest.views.retain(|view| view.seq_len != seq_len);
            publish(dir, &manifest)?;
            remove_view_files(dir, &existing)?;
        }
        let added = write_views(dir, &manifest, std::slice::from_ref(request))?;
        manifest.views.extend(added.iter().cloned());
        entries.extend(added);
        changed = true;
    }
    if changed {
        publish(dir, &manifest)?;
    }
    Ok(entries)
}

fn remove_view_files(dir: &Path, views: &[ViewManifest]) -> Result<()> {
    for view in views {
        let mix = view.mix.as_ref().map(|mix| &mix.file);
        let rows = view.materialised.as_ref().map(|rows| &rows.file);
        for name in [Some(&view.file), mix, rows].into_iter().flatten() {
            remove_if_present(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Makes everything that was written durable, then the manifest.
fn publish(dir: &Path, manifest: &Manifest) -> Result<()> {
    sync_directory(dir)?;
    manifest.write(dir)?;
    sync_directory(dir)
}

fn write_views(dir: &Path, manifest: &Manifest, views: &[ViewRequest]) -> Result<Vec<ViewManifest>> {
    let mut written = Vec::new();
    for request in views {
        for entry in &manifest.splits {
            let split = Split::open(dir, entry, manifest)?;
            written.push(write_view(dir, &split, request, manifest)?);
        }
    }
    Ok(written)
}

fn check_views(views: &[ViewRequest]) -> Result<()> {
    for (i, ViewRequest { options: view, .. }) in views.iter().enumerate() {
        check_seq_len(view.seq_len)?;
        if views[..i].iter().any(|earlier| earlier.options.seq_len == view.seq_len) {
            return Err(Error::BadOption {
                name: "seq_len",
                problem: format!("{} is given twice", view.seq_len),
            });
        }
    }
    Ok(())
}

/// Takes the directory for this writer and removes what may be removed; the shards that stay, in the order in which they
/// were finished.
fn claim(
    dir: &Path,
    options: &WriterOptions,
    journal: &Journal,
    names: &[String],
) -> Result<(DirectoryLock, Vec<Finished>)> {
    let manifest = Manifest::path(dir);
    let was_complete = manifest.exists();
    if was_complete {
        if !options.force {
            return Err(Error::AlreadyComplete { dir: dir.to_owned() });
        }
        let bytes = std::fs::read(&manifest).map_err(Error::io("read", &manifest))?;
        if !Manifest::is_ours(&bytes) {
            return Err(Error::ForeignFile { path: manifest });
        }
    } else if !DirectoryLock::is_marked(dir) {
        refuse_foreign_files(dir, options)?;
        return Ok((DirectoryLock::acquire(dir)?, Vec::new()));
    }
    let lock = DirectoryLock::acquire(dir)?;
    let finished = match was_complete || options.restart {
        true => Vec::new(),
        false => sound(journal.read()?, dir, names),
    };
    remove_if_present(&manifest)?;
    sync_directory(dir)?;
    sweep(dir, options, &finished)?;
    Ok((lock, finished))
}

/// The shards up to the first that is not the next of its split, or lacks a file.
fn sound(finished: Vec<Finished>, dir: &Path, names: &[String]) -> Vec<Finished> {
    let mut next = vec![0; names.len()];
    let is_sound = |Finished { split, shard }: &Finished| {
        let Some(name) = names.get(*split) else { return false };
        let is_next = shard.file == shard_stem(name, next[*split]);
        next[*split] += 1;
        is_next && SHARD_ENDINGS.iter().all(|ending| dir.join(format!("{}.{ending}", shard.file)).is_file())
    };
    let mut is_sound = is_sound;
    finished.into_iter().take_while(|shard| is_sound(shard)).collect()
}

/// The files of a shard.
const SHARD_ENDINGS: [&str; 4] = ["bin", "idx", "bytes", "dom"];

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

/// Removes shards, views, tables and temporaries of an earlier writer, but for the shards that are finished.
fn sweep(dir: &Path, options: &WriterOptions, finished: &[Finished]) -> Result<()> {
    let stays: BTreeSet<String> = finished
        .iter()
        .flat_map(|Finished { shard, .. }| SHARD_ENDINGS.map(|ending| format!("{}.{ending}", shard.file)))
        .collect();
    for name in file_names(dir)? {
        if stays.contains(&name) || (name == journal::FILE_NAME && !stays.is_empty()) {
            continue;
        }
        // A tokenizer that is about to be replaced may be the only copy of the one that was given.
        let stale_tokenizer = name == TOKENIZER_FILE && options.tokenizer_json.is_empty();
        let ours = is_shard_or_view_name(&name)
            || name == vocabulary::FILE_NAME
            || name == journal::FILE_NAME
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
    // Folded, the maximum over all is one vector instruction for many ids; where the bad one is matters only then.
    if doc.tokens.iter().copied().fold(0, TokenId::max) >= vocab_size {
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

/// Where shards go.
struct Target<'w> {
    dir: &'w Path,
    width: Width,
    journal: &'w mut Journal,
}

/// The shards of one split: those closed and the one being written.
struct SplitWriter {
    number: usize,
    name: String,
    closed: Vec<ShardManifest>,
    /// Shards that an interrupted run finished and that documents have not come to yet.
    finished: VecDeque<ShardManifest>,
    open: Option<OpenShard>,
    /// By number of the domain.
    domains: Vec<Counts>,
}

impl SplitWriter {
    fn new(number: usize, name: &str) -> SplitWriter {
        SplitWriter {
            number,
            name: name.to_owned(),
            closed: Vec::new(),
            finished: VecDeque::new(),
            open: None,
            domains: Vec::new(),
        }
    }

    fn append(
        &mut self,
        target: Target<'_>,
        shard_tokens: u64,
        doc: &TokenDocument<'_>,
        domain: u16,
        encoded: &[u8],
    ) -> Result<()> {
        let tokens = doc.tokens.len() as u64;
        let dir = target.dir;
        if let Some(full) = self.open.take_if(|shard| shard.tokens.saturating_add(tokens) > shard_tokens) {
            self.close(full, target)?;
        }
        let shard = match &mut self.open {
            Some(shard) => shard,
            none => {
                let stem = shard_stem(&self.name, self.closed.len());
                none.insert(OpenShard::create(dir, stem, !self.finished.is_empty())?)
            }
        };
        shard.append(doc, domain, encoded)?;
        let domain = usize::from(domain);
        if self.domains.len() <= domain {
            self.domains.resize(domain + 1, Counts::default());
        }
        self.domains[domain].add(tokens, doc.n_bytes);
        Ok(())
    }

    /// Completes a shard, or checks that it is the one that was completed before.
    fn close(&mut self, shard: OpenShard, target: Target<'_>) -> Result<()> {
        let entry = shard.close(target.dir, target.width)?;
        match self.finished.pop_front() {
            Some(finished) => check_finished(target.dir, &finished, &entry)?,
            None => target.journal.add(&Finished { split: self.number, shard: entry.clone() })?,
        }
        self.closed.push(entry);
        Ok(())
    }

    fn finish(mut self, target: Target<'_>, names: &[String]) -> Result<SplitManifest> {
        let dir = target.dir;
        if let Some(shard) = self.open.take() {
            self.close(shard, target)?;
        }
        if let Some(left) = self.finished.front() {
            return Err(Error::OtherInput { dir: dir.to_owned(), shard: left.file.clone() });
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

/// Fails unless the documents that came make the shard that an interrupted run finished, and its files still hold them.
fn check_finished(dir: &Path, finished: &ShardManifest, entry: &ShardManifest) -> Result<()> {
    if finished != entry {
        return Err(Error::OtherInput { dir: dir.to_owned(), shard: finished.file.clone() });
    }
    let ShardHashes { bin, idx, bytes, dom } = &finished.xxh3_128;
    for (ending, expected) in SHARD_ENDINGS.into_iter().zip([bin, idx, bytes, dom]) {
        let file = Map::open_whole(dir.join(format!("{}.{ending}", finished.file)))?;
        let got = hex(xxh3_128(file.bytes()));
        if got != *expected {
            return Err(Error::BadChecksum { path: file.path().to_owned(), expected: expected.clone(), got });
        }
    }
    Ok(())
}

/// A file of a shard: written, or only hashed because it is there.
enum ShardFile {
    New(Box<AtomicFile>),
    Finished(Box<Xxh3>),
}

impl ShardFile {
    fn create(path: &Path, is_finished: bool) -> Result<ShardFile> {
        match is_finished {
            true => Ok(ShardFile::Finished(Box::new(Xxh3::new()))),
            false => AtomicFile::create(path).map(|file| ShardFile::New(Box::new(file))),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            ShardFile::New(file) => file.write_all(bytes),
            ShardFile::Finished(hasher) => {
                hasher.update(bytes);
                Ok(())
            }
        }
    }

    /// Completes the file; its xxh3-128 in hex.
    fn commit(self) -> Result<String> {
        match self {
            ShardFile::New(file) => file.commit().map(hex),
            ShardFile::Finished(hasher) => Ok(hex(hasher.digest128())),
        }
    }
}

/// The shard being written; its index comes when it is closed.
struct OpenShard {
    stem: String,
    is_finished: bool,
    bin: ShardFile,
    bytes: ShardFile,
    dom: ShardFile,
    /// Tokens of each document so far.
    lengths: Vec<i32>,
    tokens: u64,
    text_bytes: u64,
    min_token_id: TokenId,
    max_token_id: TokenId,
}

impl OpenShard {
    fn create(dir: &Path, stem: String, is_finished: bool) -> Result<OpenShard> {
        let file = |ending| ShardFile::create(&dir.join(format!("{stem}.{ending}")), is_finished);
        Ok(OpenShard {
            bin: file("bin")?,
            bytes: file("bytes")?,
            dom: file("dom")?,
            stem,
            is_finished,
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
        let range = (self.min_token_id, self.max_token_id);
        (self.min_token_id, self.max_token_id) =
            doc.tokens.iter().fold(range, |(min, max), &id| (min.min(id), max.max(id)));
        Ok(())
    }

    fn close(self, dir: &Path, width: Width) -> Result<ShardManifest> {
        let mut idx = ShardFile::create(&dir.join(format!("{}.idx", self.stem)), self.is_finished)?;
        write_idx(|bytes| idx.write_all(bytes), width, &self.lengths)?;
        let xxh3_128 = ShardHashes {
            bin: self.bin.commit()?,
            idx: idx.commit()?,
            bytes: self.bytes.commit()?,
            dom: self.dom.commit()?,
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
