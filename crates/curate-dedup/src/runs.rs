//! Sorted files of entries: where the keys go that do not fit into memory.
//!
//! An entry is a key of up to 64 bits and a 32-bit document number. A run has them in ascending order of key and document, and
//! is never changed. It consists of blocks of 1,024 bytes, little-endian:
//!
//! ```text
//! first key (8) | entries (2) | bits of a difference (1) | bits of a document (1) | entries, bit by bit from the low end | zeros
//! ```
//!
//! An entry of a block is the difference of its key from the one before (the first: 0) and the document, in as many bits as the
//! largest of the block needs. Keys are hashes, so differences are alike: a million documents of 33 keys of 48 bits take 5.8
//! bytes an entry instead of 12. The first key of every block is held in memory, and a look-up reads one block.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::spill::SpillDir;
use crate::table::DocNumber;

/// Bytes of a block, and of what stands before its entries.
const BLOCK: usize = 1024;
const HEADER: usize = 12;
/// Bytes behind a block in memory, so that eight can be read from every byte of it.
const BEYOND: usize = 8;

pub(crate) type Entry = (u64, DocNumber);

/// A sorted file of entries.
#[derive(Debug)]
pub(crate) struct Run {
    path: PathBuf,
    file: File,
    entries: u64,
    /// The first key of every block.
    fences: Vec<u64>,
    /// xxh3-64 of the file.
    checksum: u64,
}

impl Run {
    /// Writes entries, which come in order, to a file called `name`.
    pub(crate) fn write(
        dir: &mut SpillDir,
        name: &str,
        entries: impl Iterator<Item = Result<Entry>>,
    ) -> Result<Self> {
        let (path, file) = dir.create(name)?;
        let failed = |e| Error::io("write", &path, e);
        let mut writer = BufWriter::with_capacity(1 << 18, file);
        let (mut count, mut fences, mut checksum) = (0u64, Vec::new(), Xxh3::new());
        let mut pending = Pending::default();
        let mut put = |pending: &mut Pending, fences: &mut Vec<u64>| {
            if let Some(first) = pending.entries.first() {
                fences.push(first.0);
                let block = pending.take();
                checksum.update(&block);
                writer.write_all(&block).map_err(failed)?;
            }
            Ok::<(), Error>(())
        };
        for entry in entries {
            let entry = entry?;
            if !pending.push(entry) {
                put(&mut pending, &mut fences)?;
                pending.push(entry);
            }
            count += 1;
        }
        put(&mut pending, &mut fences)?;
        let file = writer.into_inner().map_err(|e| failed(e.into_error()))?;
        Ok(Self { file, entries: count, fences, checksum: checksum.digest(), path })
    }

    /// Opens a run of an index and calls `seen` with every key; what it holds must be what the index says.
    pub(crate) fn open(
        path: PathBuf,
        entries: u64,
        checksum: u64,
        mut seen: impl FnMut(u64),
    ) -> Result<Self> {
        let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
        let damaged = |what: &str| Error::damaged(&path, what);
        let mut reader = BufReader::with_capacity(1 << 17, &file);
        let (mut fences, mut found, mut hasher) = (Vec::new(), 0u64, Xxh3::new());
        let (mut before, mut block, mut decoded) = ((0, 0), [0; BLOCK + BEYOND], Vec::new());
        while found < entries {
            reader.read_exact(&mut block[..BLOCK]).map_err(|e| Error::io("read", &path, e))?;
            hasher.update(&block[..BLOCK]);
            decoded.clear();
            Block::parse(&block)
                .and_then(|block| block.decode(&mut decoded))
                .ok_or_else(|| damaged("it has a block that is none"))?;
            fences.push(decoded[0].0);
            found += decoded.len() as u64;
            for &entry in &decoded {
                if entry < before {
                    return Err(damaged("entries are out of order"));
                }
                before = entry;
                seen(entry.0);
            }
        }
        let ends = reader.read(&mut block).map_err(|e| Error::io("read", &path, e))? == 0;
        if hasher.digest() != checksum || found != entries || !ends {
            return Err(damaged("its checksum differs from that in the manifest"));
        }
        Ok(Self { path, file, entries, fences, checksum })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries
    }

    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        (self.fences.len() * BLOCK) as u64
    }

    pub(crate) fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Bytes in memory.
    pub(crate) fn memory(&self) -> u64 {
        (self.fences.capacity() * size_of::<u64>()) as u64
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io("write", &self.path, e))
    }

    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| Error::io("remove", &self.path, e))
    }

    /// Appends the documents under `key`.
    pub(crate) fn lookup(&self, key: u64, found: &mut Vec<DocNumber>) -> Result<()> {
        // Entries of the key may begin in the block before the first fence that is not below it.
        let mut at = self.fences.partition_point(|&fence| fence < key).saturating_sub(1);
        let mut bytes = [0; BLOCK + BEYOND];
        while self.fences.get(at).is_some_and(|&fence| fence <= key) {
            self.file
                .read_exact_at(&mut bytes[..BLOCK], (at * BLOCK) as u64)
                .map_err(|e| Error::io("read", &self.path, e))?;
            let block = Block::parse(&bytes).ok_or_else(|| self.changed())?;
            block.lookup(key, found).ok_or_else(|| self.changed())?;
            at += 1;
        }
        Ok(())
    }

    fn changed(&self) -> Error {
        Error::damaged(&self.path, "it has a block that is none")
    }

    /// All entries in order.
    pub(crate) fn iter(&self) -> Result<impl Iterator<Item = Result<Entry>> + '_> {
        let failed = |e| Error::io("read", &self.path, e);
        let mut file = self.file.try_clone().map_err(failed)?;
        file.rewind().map_err(failed)?;
        // A clone shares its position with the file; look-ups name theirs, and one pass runs at a time.
        let mut reader = BufReader::with_capacity(1 << 17, file);
        let (mut bytes, mut entries, mut next) = ([0; BLOCK + BEYOND], Vec::new(), 0);
        Ok((0..self.entries).map(move |_| {
            if next == entries.len() {
                reader.read_exact(&mut bytes[..BLOCK]).map_err(failed)?;
                (next, _) = (0, entries.clear());
                Block::parse(&bytes)
                    .and_then(|block| block.decode(&mut entries))
                    .ok_or_else(|| self.changed())?;
            }
            next += 1;
            entries.get(next - 1).copied().ok_or_else(|| self.changed())
        }))
    }
}

/// Entries that are to become a block.
#[derive(Default)]
struct Pending {
    entries: Vec<Entry>,
    key_bits: u32,
    doc_bits: u32,
}

impl Pending {
    /// False if the block has no room for the entry.
    fn push(&mut self, (key, doc): Entry) -> bool {
        let difference = self.entries.last().map_or(0, |before| key - before.0);
        let key_bits = self.key_bits.max(u64::BITS - difference.leading_zeros());
        let doc_bits = self.doc_bits.max(u32::BITS - doc.leading_zeros());
        let fits = (self.entries.len() + 1) * (key_bits + doc_bits) as usize <= (BLOCK - HEADER) * 8
            && self.entries.len() < usize::from(u16::MAX);
        if fits {
            (self.key_bits, self.doc_bits) = (key_bits, doc_bits);
            self.entries.push((key, doc));
        }
        fits
    }

    /// The block, which is not empty; nothing is pending after it.
    fn take(&mut self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let first = self.entries[0].0;
        block[..8].copy_from_slice(&first.to_le_bytes());
        block[8..10].copy_from_slice(&(self.entries.len() as u16).to_le_bytes());
        block[10..HEADER].copy_from_slice(&[self.key_bits as u8, self.doc_bits as u8]);
        let (mut bits, mut held, mut at, mut before) = (0u128, 0, HEADER, first);
        for (key, doc) in self.entries.drain(..) {
            bits |= u128::from(key - before) << held | u128::from(doc) << (held + self.key_bits);
            held += self.key_bits + self.doc_bits;
            before = key;
            while held >= 8 {
                block[at] = bits as u8;
                (bits, held, at) = (bits >> 8, held - 8, at + 1);
            }
        }
        if held > 0 {
            block[at] = bits as u8;
        }
        *self = Self { entries: std::mem::take(&mut self.entries), ..Self::default() };
        block
    }
}

/// A block whose header has been checked.
struct Block<'b> {
    bytes: &'b [u8; BLOCK + BEYOND],
    first: u64,
    entries: usize,
    key_bits: usize,
    doc_bits: usize,
}

impl<'b> Block<'b> {
    /// `None` if the header cannot be one.
    fn parse(bytes: &'b [u8; BLOCK + BEYOND]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        let &[low, high, key_bits, doc_bits, ..] = rest else { return None };
        let entries = usize::from(u16::from_le_bytes([low, high]));
        let (key_bits, doc_bits) = (usize::from(key_bits), usize::from(doc_bits));
        let is_sound = entries > 0
            && key_bits <= 64
            && doc_bits <= 32
            && entries * (key_bits + doc_bits) <= (BLOCK - HEADER) * 8;
        is_sound.then_some(Self { bytes, first: u64::from_le_bytes(*first), entries, key_bits, doc_bits })
    }

    /// The `count` bits, at most 32, from a bit on.
    #[inline(always)]
    fn bits(&self, at: usize, count: usize) -> u64 {
        let eight = self.bytes[at / 8..]
            .first_chunk::<8>()
            .expect("a header was checked, and there are bytes beyond");
        u64::from_le_bytes(*eight) >> (at % 8) & ((1 << count) - 1)
    }

    /// Calls `entry` with all entries until it says to stop; `None` if keys do not fit into 64 bits.
    #[inline(always)]
    fn each(&self, mut entry: impl FnMut(Entry) -> bool) -> Option<()> {
        let (low, high) = (self.key_bits.min(32), self.key_bits.saturating_sub(32));
        let (mut at, mut key) = (HEADER * 8, self.first);
        for _ in 0..self.entries {
            let mut difference = self.bits(at, low);
            if high > 0 {
                difference |= self.bits(at + 32, high) << 32;
            }
            key = key.checked_add(difference)?;
            let doc = self.bits(at + self.key_bits, self.doc_bits) as DocNumber;
            if !entry((key, doc)) {
                break;
            }
            at += self.key_bits + self.doc_bits;
        }
        Some(())
    }

    fn decode(&self, entries: &mut Vec<Entry>) -> Option<()> {
        entries.reserve(self.entries);
        self.each(|entry| {
            entries.push(entry);
            true
        })
    }

    fn lookup(&self, wanted: u64, found: &mut Vec<DocNumber>) -> Option<()> {
        self.each(|(key, doc)| {
            if key == wanted {
                found.push(doc);
            }
            key <= wanted
        })
    }
}

/// The entries of several runs in order.
pub(crate) fn merged<'r>(runs: &'r [Run]) -> Result<impl Iterator<Item = Result<Entry>> + 'r> {
    let mut sources = runs.iter().map(Run::iter).collect::<Result<Vec<_>>>()?;
    let mut heads = sources.iter_mut().map(|source| source.next().transpose()).collect::<Result<Vec<_>>>()?;
    Ok(std::iter::from_fn(move || {
        let heads_there = heads.iter().enumerate().filter_map(|(i, head)| Some(((*head)?, i)));
        let (entry, least) = heads_there.min()?;
        match sources[least].next().transpose() {
            Ok(next) => heads[least] = next,
            Err(error) => {
                heads.fill(None);
                return Some(Err(error));
            }
        }
        Some(Ok(entry))
    }))
}

/// Says of a key that it is in none of the runs, or that it may be in one: a Bloom filter whose four bits of a key lie in one block
/// of 32 bytes, so that asking costs one access to memory (Putze, Sanders and Singler 2007).
///
/// At 24 bits a key it errs once in 2,000 times, at 10 bits once in 80, at 5 once in 11: a budget that is too small makes it
/// useless, never wrong.
#[derive(Debug)]
pub(crate) struct Filter {
    blocks: Vec<[u32; 8]>,
}

impl Filter {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { blocks: vec![[0; 8]; (bytes / 32).max(1)] }
    }

    pub(crate) fn memory(&self) -> u64 {
        (self.blocks.capacity() * 32) as u64
    }

    pub(crate) fn insert(&mut self, key: u64) {
        let (block, bits) = self.place(key);
        for (word, bit) in bits {
            self.blocks[block][word] |= bit;
        }
    }

    pub(crate) fn may_hold(&self, key: u64) -> bool {
        let (block, bits) = self.place(key);
        let block = &self.blocks[block];
        bits.iter().all(|&(word, bit)| block[word] & bit != 0)
    }

    /// The block of a key and its four bits there, as words and masks.
    fn place(&self, key: u64) -> (usize, [(usize, u32); 4]) {
        // The table takes the low bits of the key as they are; here they are mixed once more.
        let high = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let low = (high ^ high >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let block = ((high >> 32) * self.blocks.len() as u64) >> 32;
        let bit = |i: u32| {
            let eight = low >> (32 + 8 * i) & 0xff;
            ((eight >> 5) as usize, 1u32 << (eight & 31))
        };
        (block as usize, [bit(0), bit(1), bit(2), bit(3)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::words::finish;

    #[test]
    fn a_run_finds_what_was_written() {
        let parent = tempfile::tempdir().unwrap();
        let mut dir = SpillDir::kept(parent.path().to_owned());
        // Buckets of one, a few, and more than a group; keys at both ends.
        let mut entries: Vec<Entry> = (0..3000u32).map(|doc| (finish(u64::from(doc / 3)), doc)).collect();
        entries.extend((0..700).map(|doc| (77 << 50, doc)));
        entries.extend([(0, 5), (u64::MAX, 6), (u64::MAX, 7)]);
        entries.sort_unstable();
        let run = Run::write(&mut dir, "a", entries.iter().map(|&entry| Ok(entry))).unwrap();
        for key in entries.iter().map(|entry| entry.0).chain([1, 3, u64::MAX - 1]) {
            let mut found = Vec::new();
            run.lookup(key, &mut found).unwrap();
            let expected: Vec<u32> =
                entries.iter().filter(|entry| entry.0 == key).map(|entry| entry.1).collect();
            assert_eq!(found, expected, "{key}");
        }
        let reopened = Run::open(run.path.clone(), run.len(), run.checksum, |_| {}).unwrap();
        assert_eq!(reopened.fences, run.fences);
        assert_eq!(reopened.bytes(), fs::metadata(&run.path).unwrap().len());
        assert!(Run::open(run.path.clone(), run.len(), run.checksum ^ 1, |_| {}).is_err());
        assert!(Run::open(run.path.clone(), run.len() + 1, run.checksum, |_| {}).is_err());
    }

    #[test]
    fn entries_take_the_bits_that_their_block_needs() {
        let parent = tempfile::tempdir().unwrap();
        let mut dir = SpillDir::kept(parent.path().to_owned());
        let mut entries: Vec<Entry> =
            (0..200_000u32).map(|i| (finish(u64::from(i)) >> 16, i % 6_000)).collect();
        entries.sort_unstable();
        let run = Run::write(&mut dir, "a", entries.iter().map(|&entry| Ok(entry))).unwrap();
        // A difference has 48 - log2(200,000) = 30.4 bits on average and up to 3 more, a document 13.
        let bits = run.bytes() as f64 * 8.0 / entries.len() as f64;
        assert!((45.0..47.5).contains(&bits), "{bits}");
        assert_eq!(run.iter().unwrap().collect::<Result<Vec<_>>>().unwrap(), entries);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(
            entries in prop::collection::vec((0u32..64, any::<u64>(), 0u32..32, any::<u32>()), 0..400)
        ) {
            let parent = tempfile::tempdir().unwrap();
            let mut dir = SpillDir::kept(parent.path().to_owned());
            let mut entries: Vec<Entry> =
                entries.iter().map(|&(shift, key, less, doc)| (key >> shift, doc >> less)).collect();
            entries.sort_unstable();
            let run = Run::write(&mut dir, "a", entries.iter().map(|&entry| Ok(entry))).unwrap();
            prop_assert_eq!(&run.iter().unwrap().collect::<Result<Vec<_>>>().unwrap(), &entries);
            let reopened = Run::open(run.path.clone(), run.len(), run.checksum, |_| {}).unwrap();
            for &(key, doc) in &entries {
                let mut found = Vec::new();
                reopened.lookup(key, &mut found).unwrap();
                prop_assert!(found.contains(&doc));
            }
        }

        #[test]
        #[allow(clippy::disallowed_methods)] // makes damage
        fn bytes_that_are_no_run_are_refused(mut bytes in prop::collection::vec(any::<u8>(), BLOCK), bits in 0u8..70) {
            // Headers that may do, before anything.
            bytes[8..HEADER].copy_from_slice(&[bits.wrapping_mul(3), bits / 60, bits, bits / 2]);
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("a");
            fs::write(&path, &bytes).unwrap();
            let opened = Run::open(path, 150, 0, |_| {});
            prop_assert!(opened.is_err());
        }
    }

    #[test]
    fn merging_keeps_the_order() {
        let parent = tempfile::tempdir().unwrap();
        let mut dir = SpillDir::kept(parent.path().to_owned());
        let mut all = Vec::new();
        let mut runs = Vec::new();
        for (name, docs) in [("a", 0..100u32), ("b", 100..101), ("c", 101..101), ("d", 101..400)] {
            let mut entries: Vec<Entry> = docs.map(|doc| (finish(u64::from(doc % 37)), doc)).collect();
            entries.sort_unstable();
            all.extend(entries.clone());
            runs.push(Run::write(&mut dir, name, entries.into_iter().map(Ok)).unwrap());
        }
        all.sort_unstable();
        assert_eq!(merged(&runs).unwrap().collect::<Result<Vec<_>>>().unwrap(), all);
    }

    #[test]
    fn the_filter_never_hides_and_seldom_errs() {
        let mut filter = Filter::new(10 * 20_000 / 8);
        let key = |i: u64| finish(i);
        (0..20_000).for_each(|i| filter.insert(key(i)));
        assert!((0..20_000).all(|i| filter.may_hold(key(i))));
        let wrong = (20_000..120_000).filter(|&i| filter.may_hold(key(i))).count();
        assert!((500..2500).contains(&wrong), "{wrong} of 100,000");
    }
}
