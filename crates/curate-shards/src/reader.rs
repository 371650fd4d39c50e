//! Reading a set: mapped files, documents borrowed from them.
//!
//! Opening maps every file and checks magic, version, size and counts against the manifest; that takes constant time
//! a shard, whatever its size. What lies inside is checked where it is used, so that a damaged file gives an error
//! or, in [`ShardSet::verify`], a failed checksum, but never a read outside the file.

use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use crate::TokenId;
use crate::error::{Error, Result, expect_field};
use crate::format::{
    IDX_HEADER_BYTES, IDX_MAGIC, IDX_VERSION, Width, hex, idx_bytes, index, u16_at, u32_at, u64_at,
};
use crate::manifest::{DomainCount, Manifest, ShardManifest, SplitManifest};
use crate::map::{Map, as_i32, as_u16};
use crate::view::{Group, View};
use crate::vocabulary::{self, Vocabulary};

/// A complete set of token shards, opened for reading.
///
/// It may be shared between threads; all reading is from memory maps, which nothing may change in place meanwhile
/// (this crate replaces files by renaming, which is harmless).
#[derive(Debug)]
pub struct ShardSet {
    dir: PathBuf,
    manifest: Manifest,
    fingerprint: u128,
    splits: Vec<Split>,
}

impl ShardSet {
    /// Opens a set and checks magic, version, size and counts of all its shards before serving anything.
    ///
    /// # Errors
    /// [`Error::NotAShardSet`] without a manifest, [`Error::Incomplete`] where a run did not finish; otherwise what
    /// is wrong with which file. A format version other than [`crate::FORMAT_VERSION`] is refused by number.
    pub fn open(dir: &Path) -> Result<ShardSet> {
        let (manifest, fingerprint) = Manifest::read(dir)?;
        let split = |entry| Split::open(dir, entry, &manifest);
        let splits = manifest.splits.iter().map(split).collect::<Result<_>>()?;
        let set = ShardSet { dir: dir.to_owned(), manifest, fingerprint, splits };
        for entry in &set.manifest.views {
            set.view(&entry.split, entry.seq_len)?;
        }
        for entry in &set.manifest.files {
            Map::open(dir.join(&entry.file), entry.bytes)?;
        }
        Ok(set)
    }

    /// What the set says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The directory it was opened from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All splits, `train` first.
    pub fn splits(&self) -> &[Split] {
        &self.splits
    }

    /// The split of this name.
    ///
    /// # Errors
    /// [`Error::UnknownSplit`], which lists the splits there are.
    pub fn split(&self, name: &str) -> Result<&Split> {
        self.splits.iter().find(|split| split.name == name).ok_or_else(|| Error::UnknownSplit {
            dir: self.dir.clone(),
            name: name.to_owned(),
            available: self.splits.iter().map(|split| split.name.clone()).collect(),
        })
    }

    /// The rows of a split for a sequence length.
    ///
    /// # Errors
    /// [`Error::UnknownSplit`]; [`Error::UnknownView`], which lists the lengths there are; or what is wrong with the
    /// file.
    pub fn view(&self, split: &str, seq_len: u32) -> Result<View> {
        let split = self.split(split)?;
        let entry =
            self.manifest.views.iter().find(|view| view.split == split.name && view.seq_len == seq_len);
        let entry = entry.ok_or_else(|| Error::UnknownView {
            dir: self.dir.clone(),
            split: split.name.clone(),
            seq_len,
            available: self.views(&split.name),
        })?;
        View::open(&self.dir, entry, split, &self.manifest)
    }

    /// The sequence lengths a split was packed for, ascending; none for a split that does not exist.
    pub fn views(&self, split: &str) -> Vec<u32> {
        let views = self.manifest.views.iter().filter(|view| view.split == split);
        let mut lengths: Vec<u32> = views.map(|view| view.seq_len).collect();
        lengths.sort_unstable();
        lengths
    }

    /// The id → bytes table of the set, or `None` if it was written without.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        let listed = self.manifest.files.iter().any(|file| file.file == vocabulary::FILE_NAME);
        listed.then(|| Vocabulary::open(vocabulary::vocabulary_path(&self.dir))).transpose()
    }

    /// xxh3-128 of `manifest.json` in hex: it covers the checksum of every file, hence everything. It changes when a
    /// view is added; [`View::checksum`] does not.
    pub fn fingerprint(&self) -> String {
        hex(self.fingerprint)
    }

    /// Hashes every file again and checks every document and every row. Reads everything once, single-threaded.
    ///
    /// # Errors
    /// The first thing found wrong, with the file it is in.
    pub fn verify(&self) -> Result<()> {
        for entry in &self.manifest.files {
            let file = Map::open(self.dir.join(&entry.file), entry.bytes)?;
            check_hash(&file, &entry.xxh3_128)?;
        }
        self.vocabulary()?;
        for (split, entry) in self.splits.iter().zip(&self.manifest.splits) {
            split.verify(entry, &self.manifest)?;
        }
        for entry in &self.manifest.views {
            let split = self.split(&entry.split)?;
            View::open(&self.dir, entry, split, &self.manifest)?.verify(split, &self.manifest.domains)?;
            entry.balance(split.num_tokens())?;
        }
        Ok(())
    }
}

/// The documents of one split, over all its shards.
#[derive(Debug)]
pub struct Split {
    name: String,
    num_documents: u64,
    num_tokens: u64,
    num_bytes: u64,
    hash: u128,
    shards: Vec<Shard>,
    /// Where the counts come from, to name in messages.
    manifest_path: PathBuf,
}

/// One document, borrowed from the maps.
#[derive(Clone, Copy, Debug)]
pub struct DocumentRef<'a> {
    /// Its ids; the last is the end-of-document id.
    pub tokens: Tokens<'a>,
    /// UTF-8 bytes of its text.
    pub n_bytes: u32,
    /// Index into [`Manifest::domains`].
    pub domain: u16,
}

impl Split {
    pub(crate) fn open(dir: &Path, entry: &SplitManifest, manifest: &Manifest) -> Result<Split> {
        let mut shards = Vec::with_capacity(entry.shards.len());
        let mut first_document = 0;
        for shard in &entry.shards {
            shards.push(Shard::open(dir, shard, manifest.token_width, first_document)?);
            first_document += shard.documents;
        }
        Ok(Split {
            name: entry.name.clone(),
            num_documents: entry.documents,
            num_tokens: entry.tokens,
            num_bytes: entry.bytes,
            hash: entry.hash(),
            shards,
            manifest_path: Manifest::path(dir),
        })
    }

    /// Name of the split.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of documents.
    pub fn num_documents(&self) -> u64 {
        self.num_documents
    }

    /// Number of tokens, end-of-document ids included.
    pub fn num_tokens(&self) -> u64 {
        self.num_tokens
    }

    /// UTF-8 bytes of all texts: the denominator of bits per byte.
    pub fn num_bytes(&self) -> u64 {
        self.num_bytes
    }

    /// Identity of the split in hex: changes with any token, document boundary or text size, not with other splits and
    /// not with domains, whose numbers depend on other splits.
    pub fn split_hash(&self) -> String {
        hex(self.hash)
    }

    pub(crate) fn hash(&self) -> u128 {
        self.hash
    }

    /// The `i`-th document.
    ///
    /// # Panics
    /// With the message of [`Split::try_document`] when that fails.
    pub fn document(&self, i: u64) -> DocumentRef<'_> {
        self.try_document(i).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Split::document`], for callers that report errors.
    ///
    /// # Errors
    /// [`Error::DocumentOutOfRange`]; [`Error::Damaged`] if the index points outside its shard.
    pub fn try_document(&self, i: u64) -> Result<DocumentRef<'_>> {
        let (shard, i) = self.locate(i)?;
        shard.document(i)
    }

    /// The domain of the `i`-th document, an index into [`Manifest::domains`]; its tokens are not looked at.
    ///
    /// # Errors
    /// [`Error::DocumentOutOfRange`]; [`Error::Damaged`] if the domain is missing.
    pub fn domain(&self, i: u64) -> Result<u16> {
        let (shard, i) = self.locate(i)?;
        shard.domain(i)
    }

    /// Tells the system that documents of this split will be read in no order, as in training: it then reads from disk
    /// what is asked for and nothing around it, which for rows of a few kilobytes is many times less.
    pub fn expect_random_reads(&self) {
        self.shards.iter().for_each(|shard| shard.bin.expect_random_reads());
    }

    /// Asks the system to read `length` tokens from `start` of a document into memory, without waiting for it.
    pub(crate) fn will_need(&self, document: u64, start: u32, length: u32) -> Result<()> {
        let (shard, i) = self.locate(document)?;
        let (offset, _) = shard.range(i)?;
        let width = shard.width.bytes();
        shard.bin.will_need(offset.saturating_add(u64::from(start) * width), u64::from(length) * width);
        Ok(())
    }

    /// Asks the processor for the place of a document in the index.
    pub(crate) fn prefetch_index(&self, document: u64) {
        if let Ok((shard, i)) = self.locate(document) {
            shard.index.prefetch(IDX_HEADER_BYTES + 4 * i, 4);
            shard.index.prefetch(IDX_HEADER_BYTES + 4 * shard.documents + 8 * i, 8);
        }
    }

    /// Asks the processor for `length` tokens from `start` of a document.
    pub(crate) fn prefetch_tokens(&self, document: u64, start: u32, length: u32) {
        if let Ok((shard, i)) = self.locate(document)
            && let Ok((offset, _)) = shard.range(i)
        {
            let width = shard.width.bytes();
            shard.bin.prefetch(offset.saturating_add(u64::from(start) * width), u64::from(length) * width);
        }
    }

    /// The tokens of a document alone: half the cache misses of the whole when rows are read in shuffled order.
    pub(crate) fn tokens(&self, i: u64) -> Result<Tokens<'_>> {
        let (shard, i) = self.locate(i)?;
        shard.tokens(i)
    }

    /// The shard that holds a document, and its number there.
    fn locate(&self, i: u64) -> Result<(&Shard, u64)> {
        let after = self.shards.partition_point(|shard| shard.first_document <= i);
        let found = self.shards[..after].last().filter(|_| i < self.num_documents);
        let shard = found.ok_or_else(|| self.out_of_range(i))?;
        Ok((shard, i - shard.first_document))
    }

    #[cold]
    fn out_of_range(&self, document: u64) -> Error {
        Error::DocumentOutOfRange { split: self.name.clone(), document, num_documents: self.num_documents }
    }

    /// Lengths of all documents in tokens: 4 bytes of memory a document.
    pub(crate) fn lengths(&self) -> Result<Vec<u32>> {
        let mut lengths = Vec::with_capacity(index(self.num_documents));
        for shard in &self.shards {
            for i in 0..shard.documents {
                lengths.push(shard.range(i)?.1);
            }
        }
        Ok(lengths)
    }

    /// The tokens of each shard, documents back to back.
    pub(crate) fn shard_tokens(&self) -> impl Iterator<Item = Result<Tokens<'_>>> {
        self.shards.iter().map(|shard| {
            let tokens = Tokens::cut(shard.bin.bytes(), shard.width);
            tokens.ok_or_else(|| Error::damaged(shard.bin.path(), "misaligned"))
        })
    }

    /// Hands over, for every document in order, the number of its shard, where in the tokens of the shard it begins, and
    /// its length. Both are checked to lie within the shard.
    pub(crate) fn for_each_range(&self, mut take: impl FnMut(usize, u64, u32)) -> Result<()> {
        for (number, shard) in self.shards.iter().enumerate() {
            for i in 0..shard.documents {
                let length = shard.tokens(i)?.len();
                let (offset, _) = shard.range(i)?;
                let length = u32::try_from(length).expect("lengths are 32-bit in the index");
                take(number, offset / shard.width.bytes(), length);
            }
        }
        Ok(())
    }

    /// The documents of each of `num_groups` groups, given the group of each domain, and the tokens of domains without
    /// one: 12 bytes of memory a document.
    pub(crate) fn grouped(
        &self,
        num_groups: usize,
        group_of_domain: &[Option<usize>],
    ) -> Result<(Vec<Group>, u64)> {
        let mut groups: Vec<(Vec<u64>, Vec<u32>)> = vec![(Vec::new(), Vec::new()); num_groups];
        let mut left_out = 0;
        for shard in &self.shards {
            for i in 0..shard.documents {
                let (_, length) = shard.range(i)?;
                let domain = u16_at(shard.domains.bytes(), 0, i).map(usize::from);
                let group = domain.and_then(|domain| group_of_domain.get(domain));
                let group = group.ok_or_else(|| shard.damaged(i, "its domain has no name"))?;
                match group {
                    Some(group) => {
                        let (documents, lengths) = &mut groups[*group];
                        documents.push(shard.first_document + i);
                        lengths.push(length);
                    }
                    None => left_out += u64::from(length),
                }
            }
        }
        let group = |(documents, lengths)| Group { documents: Some(documents), lengths };
        Ok((groups.into_iter().map(group).collect(), left_out))
    }

    fn verify(&self, entry: &SplitManifest, manifest: &Manifest) -> Result<()> {
        let mut counts = vec![Counts::default(); manifest.domains.len()];
        for (shard, entry) in self.shards.iter().zip(&entry.shards) {
            shard.verify(entry, manifest, &mut counts)?;
        }
        let found = manifest.domains.iter().zip(counts).filter(|(_, counts)| counts.documents > 0);
        let found: Vec<DomainCount> = found.map(|(name, counts)| counts.of_domain(name)).collect();
        if found != entry.domains {
            let problem =
                format!("the counts of domains in split {:?} are not those of its documents", self.name);
            return Err(Error::damaged(&self.manifest_path, problem));
        }
        Ok(())
    }
}

/// Documents, tokens and bytes of one domain while they are counted.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) documents: u64,
    tokens: u64,
    bytes: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, tokens: u64, n_bytes: u32) {
        self.documents += 1;
        self.tokens += tokens;
        self.bytes += u64::from(n_bytes);
    }

    pub(crate) fn of_domain(self, name: &str) -> DomainCount {
        let Counts { documents, tokens, bytes } = self;
        DomainCount { domain: name.to_owned(), documents, tokens, bytes }
    }
}

/// The four files of a shard.
#[derive(Debug)]
struct Shard {
    /// Number within the split of the first document here.
    first_document: u64,
    documents: u64,
    width: Width,
    bin: Map,
    index: Map,
    bytes: Map,
    domains: Map,
}

impl Shard {
    fn open(dir: &Path, entry: &ShardManifest, width: Width, first_document: u64) -> Result<Shard> {
        let path = |ending| dir.join(format!("{}.{ending}", entry.file));
        // Any count that would overflow here is past what a file can hold.
        if entry.documents > u64::MAX >> 8 || entry.tokens > u64::MAX >> 8 {
            return Err(Error::damaged(
                &Manifest::path(dir),
                format!("{} has an impossible size", entry.file),
            ));
        }
        let shard = Shard {
            first_document,
            documents: entry.documents,
            width,
            bin: Map::open(path("bin"), entry.tokens * width.bytes())?,
            index: Map::open(path("idx"), idx_bytes(entry.documents))?,
            bytes: Map::open(path("bytes"), 4 * entry.documents)?,
            domains: Map::open(path("dom"), 2 * entry.documents)?,
        };
        shard.check_index_header()?;
        Ok(shard)
    }

    fn check_index_header(&self) -> Result<()> {
        let (path, bytes) = (self.index.path(), self.index.bytes());
        let magic = &bytes[..IDX_MAGIC.len()];
        if magic != IDX_MAGIC {
            return Err(Error::WrongMagic {
                path: path.to_owned(),
                kind: "Megatron index",
                expected: String::from_utf8_lossy(&IDX_MAGIC).into_owned(),
                got: String::from_utf8_lossy(magic).into_owned(),
            });
        }
        let long = |at| u64_at(bytes, at, 0).expect("the file is larger than its header");
        if long(9) != IDX_VERSION {
            return Err(Error::UnsupportedVersion {
                path: path.to_owned(),
                found: long(9),
                supported: IDX_VERSION,
            });
        }
        expect_field(path, "token type", self.width.megatron_code(), bytes[17])?;
        expect_field(path, "number of sequences", self.documents, long(18))?;
        expect_field(path, "number of document boundaries", self.documents + 1, long(26))
    }

    /// Offset in bytes and length in tokens of a document of this shard, as the index gives them.
    fn range(&self, i: u64) -> Result<(u64, u32)> {
        let bytes = self.index.bytes();
        let length = u32_at(bytes, IDX_HEADER_BYTES, i).and_then(|length| i32::try_from(length).ok());
        let offset = u64_at(bytes, IDX_HEADER_BYTES + 4 * self.documents, i);
        match (length, offset) {
            (Some(length @ 1..), Some(offset)) => Ok((offset, length.unsigned_abs())),
            _ => Err(self.damaged(i, "its length is not positive")),
        }
    }

    fn tokens(&self, i: u64) -> Result<Tokens<'_>> {
        let (offset, length) = self.range(i)?;
        let end = offset.saturating_add(u64::from(length) * self.width.bytes());
        let bytes = self.bin.bytes().get(index(offset)..index(end));
        let tokens = bytes.and_then(|bytes| Tokens::cut(bytes, self.width));
        tokens.ok_or_else(|| self.damaged(i, &format!("bytes {offset}..{end} are not in the .bin file")))
    }

    fn document(&self, i: u64) -> Result<DocumentRef<'_>> {
        let tokens = self.tokens(i)?;
        let n_bytes = u32_at(self.bytes.bytes(), 0, i);
        let n_bytes = n_bytes.ok_or_else(|| self.damaged(i, "its text size is missing"))?;
        Ok(DocumentRef { tokens, n_bytes, domain: self.domain(i)? })
    }

    fn domain(&self, i: u64) -> Result<u16> {
        u16_at(self.domains.bytes(), 0, i).ok_or_else(|| self.damaged(i, "its domain is missing"))
    }

    #[cold]
    fn damaged(&self, i: u64, problem: &str) -> Error {
        Error::damaged(self.index.path(), format!("document {i} of the shard: {problem}"))
    }

    /// Hashes the files, then checks that they say the same; adds to the counts of each domain.
    fn verify(&self, entry: &ShardManifest, manifest: &Manifest, counts: &mut [Counts]) -> Result<()> {
        check_hash(&self.bin, &entry.xxh3_128.bin)?;
        check_hash(&self.index, &entry.xxh3_128.idx)?;
        check_hash(&self.bytes, &entry.xxh3_128.bytes)?;
        check_hash(&self.domains, &entry.xxh3_128.dom)?;
        let (mut tokens, mut text_bytes) = (0, 0);
        for i in 0..self.documents {
            let (offset, length) = self.range(i)?;
            let document = self.document(i)?;
            let boundary = u64_at(self.index.bytes(), IDX_HEADER_BYTES + 12 * self.documents, i);
            if offset != tokens * self.width.bytes() || boundary != Some(i) {
                return Err(self.damaged(i, "the index is not in order"));
            }
            if document.tokens.last() != Some(manifest.tokenizer.eod) {
                return Err(self.damaged(i, "does not end in the end-of-document id"));
            }
            let Some(counts) = counts.get_mut(usize::from(document.domain)) else {
                return Err(self.damaged(i, &format!("its domain is {}, which has no name", document.domain)));
            };
            counts.add(u64::from(length), document.n_bytes);
            tokens += u64::from(length);
            text_bytes += u64::from(document.n_bytes);
        }
        expect_field(self.index.path(), "number of tokens", entry.tokens, tokens)?;
        expect_field(self.bytes.path(), "bytes of text", entry.bytes, text_bytes)?;
        self.verify_ids(entry, manifest.tokenizer.vocab_size)
    }

    fn verify_ids(&self, entry: &ShardManifest, vocab_size: u32) -> Result<()> {
        let path = self.bin.path();
        let all =
            Tokens::cut(self.bin.bytes(), self.width).ok_or_else(|| Error::damaged(path, "misaligned"))?;
        let (min, max) = all.min_max().unwrap_or((0, 0));
        expect_field(path, "smallest id", entry.min_token_id, min)?;
        expect_field(path, "largest id", entry.max_token_id, max)?;
        if max >= vocab_size {
            return Err(Error::damaged(path, format!("id {max} is outside the vocabulary of {vocab_size}")));
        }
        Ok(())
    }
}

/// Token ids as they lie on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens<'a> {
    /// Of a vocabulary below 65 500 ids.
    U16(&'a [u16]),
    /// Of a larger one; never negative in a file that verifies.
    I32(&'a [i32]),
}

impl<'a> Tokens<'a> {
    pub(crate) fn cut(bytes: &'a [u8], width: Width) -> Option<Tokens<'a>> {
        match width {
            Width::U16 => as_u16(bytes).map(Tokens::U16),
            Width::I32 => as_i32(bytes).map(Tokens::I32),
        }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        match self {
            Tokens::U16(ids) => ids.len(),
            Tokens::I32(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `i`-th id.
    ///
    /// # Panics
    /// If `i` is past the end, as a slice does.
    pub fn get(&self, i: usize) -> TokenId {
        match self {
            Tokens::U16(ids) => TokenId::from(ids[i]),
            Tokens::I32(ids) => ids[i].cast_unsigned(),
        }
    }

    /// The last id.
    pub fn last(&self) -> Option<TokenId> {
        self.len().checked_sub(1).map(|i| self.get(i))
    }

    /// All ids in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = TokenId> + 'a {
        (0..self.len()).map(move |i| self.get(i))
    }

    /// Copies a range of ids into a buffer of the same length.
    ///
    /// # Panics
    /// If the range is not within the tokens, or the buffer has another length.
    pub fn copy_to_i64(&self, range: Range<usize>, out: &mut [i64]) {
        assert_eq!(range.len(), out.len(), "the buffer has one place for each token");
        match self {
            Tokens::U16(ids) => out.iter_mut().zip(&ids[range]).for_each(|(out, &id)| *out = i64::from(id)),
            Tokens::I32(ids) => out.iter_mut().zip(&ids[range]).for_each(|(out, &id)| *out = i64::from(id)),
        }
    }

    fn min_max(&self) -> Option<(TokenId, TokenId)> {
        match self {
            Tokens::U16(ids) => Some(((*ids.iter().min()?).into(), (*ids.iter().max()?).into())),
            Tokens::I32(ids) => {
                let unsigned = || ids.iter().map(|id| id.cast_unsigned());
                Some((unsigned().min()?, unsigned().max()?))
            }
        }
    }
}

fn check_hash(file: &Map, expected: &str) -> Result<()> {
    let got = hex(xxh3_128(file.bytes()));
    if got != expected {
        return Err(Error::BadChecksum { path: file.path().to_owned(), expected: expected.to_owned(), got });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // tests make files as they need them
mod tests {
    use super::*;
    use crate::packing::{PackPolicy, ViewOptions};
    use crate::testing::{TestDir, write_set};
    use crate::view::Row;

    #[test]
    fn sets_may_be_shared_between_threads() {
        fn check<T: Send + Sync>() {}
        check::<ShardSet>();
        check::<View>();
    }

    /// Verifies a set in which one file was changed and every checksum made good, as a faulty writer might leave it.
    fn check(name: &str, change: fn(&mut Vec<u8>), reseal: fn(&mut Manifest, String), expected: &str) {
        let dir = TestDir::new();
        let mut manifest = write_set(dir.path(), &[]);
        let path = dir.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        reseal(&mut manifest, hex(xxh3_128(&bytes)));
        manifest.write(dir.path()).unwrap();
        let error = ShardSet::open(dir.path()).unwrap().verify().unwrap_err();
        assert_eq!(error.to_string().replace(&format!("{}/", dir.path().display()), ""), expected);
    }

    #[test]
    fn verify_finds_what_checksums_do_not() {
        let bin: fn(&mut Manifest, String) = |m, hash| m.splits[0].shards[0].xxh3_128.bin = hash;
        let idx: fn(&mut Manifest, String) = |m, hash| m.splits[0].shards[0].xxh3_128.idx = hash;
        let bytes: fn(&mut Manifest, String) = |m, hash| m.splits[0].shards[0].xxh3_128.bytes = hash;
        let dom: fn(&mut Manifest, String) = |m, hash| m.splits[0].shards[0].xxh3_128.dom = hash;
        let name = "train-00000.bin";
        let no_eod = "train-00000.idx: document 0 of the shard: does not end in the end-of-document id";
        check(name, |b| b[4] = 1, bin, no_eod);
        check(name, |b| b[0] = 9, bin, "train-00000.bin: largest id is 9, expected 6");
        let large: fn(&mut Manifest, String) = |m, hash| {
            m.splits[0].shards[0].xxh3_128.bin = hash;
            m.splits[0].shards[0].max_token_id = 11;
        };
        check(name, |b| b[0] = 11, large, "train-00000.bin: id 11 is outside the vocabulary of 10");
        let name = "train-00000.idx";
        let disorder = "train-00000.idx: document 1 of the shard: the index is not in order";
        check(name, |b| b[34 + 12 + 8] += 2, idx, disorder);
        check(name, |b| b[34 + 12 + 24 + 8] = 7, idx, disorder);
        check(
            name,
            |b| b[34] = 0,
            idx,
            "train-00000.idx: document 0 of the shard: its length is not positive",
        );
        check(
            "train-00000.bytes",
            |b| b[0] = 5,
            bytes,
            "train-00000.bytes: bytes of text is 13, expected 12",
        );
        let no_name = "train-00000.idx: document 2 of the shard: its domain is 2, which has no name";
        check("train-00000.dom", |b| b[4] = 2, dom, no_name);
        let counts = "manifest.json: the counts of domains in split \"train\" are not those of its documents";
        check("train-00000.dom", |b| b[4] = 1, dom, counts);
    }

    /// Files with holes: three documents of 2^31 - 1 tokens take 13 GB of addresses and a few blocks of disk.
    #[test]
    #[cfg(target_os = "linux")]
    fn offsets_go_past_thirty_two_bits() {
        use std::os::unix::fs::FileExt;

        const LENGTH: u64 = i32::MAX as u64;
        let dir = TestDir::new();
        let mut manifest = write_set(dir.path(), &[]);
        let bin = std::fs::File::create(dir.path().join("train-00000.bin")).unwrap();
        bin.set_len(3 * LENGTH * 2).unwrap();
        bin.write_all_at(&[7, 0, 8, 0], (3 * LENGTH - 2) * 2).unwrap();
        let mut idx = crate::atomic::AtomicFile::create(&dir.path().join("train-00000.idx")).unwrap();
        crate::format::write_idx(|bytes| idx.write_all(bytes), Width::U16, &[i32::MAX; 3]).unwrap();
        idx.commit().unwrap();
        manifest.splits[0].tokens = 3 * LENGTH;
        manifest.splits[0].shards[0].tokens = 3 * LENGTH;
        let split = Split::open(dir.path(), &manifest.splits[0], &manifest).unwrap();
        let last = split.document(2).tokens;
        assert_eq!((last.len() as u64, last.last(), last.get(last.len() - 2)), (LENGTH, Some(8), 7));

        let options = ViewOptions { seq_len: 1 << 20, policy: PackPolicy::Concat };
        let entry = crate::view::write_view(dir.path(), &split, &options.into(), &manifest).unwrap();
        let view = View::open(dir.path(), &entry, &split, &manifest).unwrap();
        // 3 × (2^31 - 1) - 1 targets are 4 short of 6144 rows of 2^20.
        assert_eq!((view.num_rows(), entry.padding), (6144, 4));
        let mut row = Row::new(view.seq_len());
        view.fill(&split, 6143, &mut row);
        assert_eq!((row.len, &row.tokens[row.len - 2..row.len]), ((1 << 20) - 3, &[7, 8][..]));
    }

    /// 2.7 × 10^11 tokens in files with holes: opening them and reading a step of shuffled rows touches a few pages, and
    /// takes the same few whatever lies between.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_set_of_any_size_is_open_at_once() {
        use crate::format::{idx_bytes, view_name};
        use crate::{BatchPlan, ViewManifest};
        use std::os::unix::fs::FileExt;

        const DOCUMENTS: u64 = 1 << 28;
        const LENGTH: u64 = 1025;
        let dir = TestDir::new();
        let options = ViewOptions { seq_len: 1024, policy: PackPolicy::BestFit };
        let mut manifest = write_set(dir.path(), &[options]);
        let file = |name: &str, bytes: u64| {
            let file = std::fs::OpenOptions::new().write(true).open(dir.path().join(name)).unwrap();
            file.set_len(bytes).unwrap();
            file
        };
        let bin = file("train-00000.bin", DOCUMENTS * LENGTH * 2);
        let idx = file("train-00000.idx", idx_bytes(DOCUMENTS));
        file("train-00000.bytes", 4 * DOCUMENTS);
        file("train-00000.dom", 2 * DOCUMENTS);
        let view = file(&view_name("train", 1024), 64 + 8 * (DOCUMENTS + 1) + 16 * DOCUMENTS + 16);
        idx.write_all_at(&DOCUMENTS.to_le_bytes(), 18).unwrap();
        idx.write_all_at(&(DOCUMENTS + 1).to_le_bytes(), 26).unwrap();
        for at in [24, 32, 40] {
            view.write_all_at(&DOCUMENTS.to_le_bytes(), at).unwrap(); // rows, runs, documents
        }
        let plan = BatchPlan::new(7, DOCUMENTS, 4).unwrap();
        let rows: Vec<u64> = plan.step(12_345_678).collect();
        let mark = |row: u64| u16::try_from(row % 60_000).expect("below 2^16");
        for &row in &rows {
            // One document a row, that of its number; its first token tells which.
            idx.write_all_at(&1025u32.to_le_bytes(), 34 + 4 * row).unwrap();
            idx.write_all_at(&(row * LENGTH * 2).to_le_bytes(), 34 + 4 * DOCUMENTS + 8 * row).unwrap();
            bin.write_all_at(&mark(row).to_le_bytes(), row * LENGTH * 2).unwrap();
            view.write_all_at(&[row.to_le_bytes(), (row + 1).to_le_bytes()].concat(), 64 + 8 * row).unwrap();
            let run = [&row.to_le_bytes()[..], &[0; 4], &1025u32.to_le_bytes()].concat();
            view.write_all_at(&run, 64 + 8 * (DOCUMENTS + 1) + 16 * row).unwrap();
        }
        let split = &mut manifest.splits[0];
        (split.documents, split.tokens) = (DOCUMENTS, DOCUMENTS * LENGTH);
        (split.shards[0].documents, split.shards[0].tokens) = (DOCUMENTS, DOCUMENTS * LENGTH);
        // The hash stands for the whole of the split, hence not for what the view was made of.
        let hash = manifest.splits[0].hash();
        view.write_all_at(&hash.to_le_bytes(), 48).unwrap();
        let entry = &manifest.views[0];
        manifest.views[0] =
            ViewManifest { rows: DOCUMENTS, runs: DOCUMENTS, tokens: DOCUMENTS * LENGTH, ..entry.clone() };
        manifest.write(dir.path()).unwrap();

        let before = page_faults();
        let set = ShardSet::open(dir.path()).unwrap();
        let (split, view) = (set.split("train").unwrap(), set.view("train", 1024).unwrap());
        split.expect_random_reads();
        let plan = BatchPlan::new(7, view.num_rows(), 4).unwrap();
        let (mut row, mut seen) = (Row::new(1024), Vec::new());
        let numbers: Vec<u64> = plan.step(12_345_678).collect();
        view.fill_each(split, &numbers, &mut row, |number, row| {
            seen.push((number, row.tokens[0], row.len));
            Ok::<_, Error>(())
        })
        .unwrap();
        let touched = page_faults() - before;
        let expected: Vec<_> = rows.iter().map(|&row| (row, i64::from(mark(row)), 1025)).collect();
        assert_eq!(seen, expected);
        assert!(touched < 400, "{touched} pages were touched");
    }

    /// Pages that this thread has touched for the first time.
    #[cfg(target_os = "linux")]
    fn page_faults() -> i64 {
        // SAFETY: all zeroes is a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is writable for an rusage.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        usage.ru_minflt + usage.ru_majflt
    }

    #[test]
    fn rows_in_any_order_are_those_that_are_filled_alone() {
        use crate::{ShardSetWriter, TokenDocument, TokenizerInfo, WriterOptions};
        for (vocab_size, policy) in [(300, PackPolicy::Concat), (70_000, PackPolicy::BestFit)] {
            let dir = TestDir::new();
            let tokenizer = TokenizerInfo { name: "toy".into(), sha256: String::new(), vocab_size, eod: 0 };
            // Small shards, so that rows cross from one to the next.
            let options = WriterOptions { shard_tokens: 500, ..WriterOptions::new(tokenizer) };
            let mut writer = ShardSetWriter::create(dir.path(), options).unwrap();
            for i in 0..200u32 {
                let mut tokens: Vec<u32> = (0..i * 7 % 90).map(|k| (i * 1000 + k) % vocab_size).collect();
                tokens.push(0);
                writer
                    .push(&TokenDocument { tokens: &tokens, n_bytes: 4, domain: "d", key: i.into() })
                    .unwrap();
            }
            writer.finish(&[ViewOptions { seq_len: 32, policy }]).unwrap();
            let set = ShardSet::open(dir.path()).unwrap();
            let (split, view) = (set.split("train").unwrap(), set.view("train", 32).unwrap());
            let order: Vec<u64> = (0..view.num_rows()).map(|i| i * 7919 % view.num_rows()).collect();
            for count in [0, 1, 2, 5, order.len()] {
                let (mut row, mut alone, mut seen) = (Row::new(32), Row::new(32), Vec::new());
                view.fill_each(split, &order[..count], &mut row, |number, row| {
                    view.fill(split, number, &mut alone);
                    assert_eq!(row, &alone, "row {number}");
                    seen.push(number);
                    Ok::<_, Error>(())
                })
                .unwrap();
                assert_eq!(seen, order[..count]);
            }
            for row in &order {
                view.will_need(split, *row).unwrap();
            }
            // A row that is not there is an error after those before it.
            let mut filled = 0;
            let (rows, mut row) = ([order[0], view.num_rows(), order[1]], Row::new(32));
            let error = view.fill_each(split, &rows, &mut row, |_, _| {
                filled += 1;
                Ok::<_, Error>(())
            });
            assert!(matches!(error, Err(Error::RowOutOfRange { .. })), "{error:?}");
            assert_eq!(filled, 1);
            assert!(matches!(view.will_need(split, view.num_rows()), Err(Error::RowOutOfRange { .. })));
        }
    }
}
