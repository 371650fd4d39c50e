//! Sorted files of entries: where the keys go that do not fit into memory.
//!
//! An entry is a 64-bit key and a 32-bit document number, 12 bytes, little-endian; a run has them in ascending order
//! of key and document and is never changed. Keys are hashes, so they say by themselves where they belong: of every
//! 256th entry the key is held in memory, and a look-up reads the 3 KiB between two of them.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::spill::SpillDir;
use crate::table::DocNumber;

pub(crate) const ENTRY: usize = 12;
/// Entries between two fences.
const GROUP: usize = 256;

pub(crate) type Entry = (u64, DocNumber);

/// A sorted file of entries.
#[derive(Debug)]
pub(crate) struct Run {
    path: PathBuf,
    file: File,
    entries: u64,
    /// The key of every 256th entry.
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
        for entry in entries {
            let (key, doc) = entry?;
            if count.is_multiple_of(GROUP as u64) {
                fences.push(key);
            }
            let mut bytes = [0; ENTRY];
            bytes[..8].copy_from_slice(&key.to_le_bytes());
            bytes[8..].copy_from_slice(&doc.to_le_bytes());
            checksum.update(&bytes);
            writer.write_all(&bytes).map_err(failed)?;
            count += 1;
        }
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
        let mut run = Self { path, file, entries, fences: Vec::new(), checksum };
        let (mut fences, mut found, mut hasher) = (Vec::new(), 0u64, Xxh3::new());
        let mut before = (0, 0);
        for entry in run.iter()? {
            let (key, doc) = entry?;
            if found.is_multiple_of(GROUP as u64) {
                fences.push(key);
            }
            hasher.update(&key.to_le_bytes());
            hasher.update(&doc.to_le_bytes());
            if (key, doc) < before {
                return Err(Error::damaged(&run.path, "entries are out of order"));
            }
            before = (key, doc);
            found += 1;
            seen(key);
        }
        if hasher.digest() != checksum {
            return Err(Error::damaged(&run.path, "its checksum differs from that in the manifest"));
        }
        run.fences = fences;
        Ok(run)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries
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
        // Entries of the key may begin in the group before the first fence that is not below it.
        let mut group = self.fences.partition_point(|&fence| fence < key).saturating_sub(1);
        let mut buffer = [0; GROUP * ENTRY];
        while self.fences.get(group).is_some_and(|&fence| fence <= key) {
            let first = (group * GROUP) as u64;
            let count = (self.entries - first).min(GROUP as u64) as usize;
            let bytes = &mut buffer[..count * ENTRY];
            self.file
                .read_exact_at(bytes, first * ENTRY as u64)
                .map_err(|e| Error::io("read", &self.path, e))?;
            let (entries, _) = bytes.as_chunks::<ENTRY>();
            let start = entries.partition_point(|entry| decode(entry).0 < key);
            let same = entries[start..].iter().map(decode).take_while(|entry| entry.0 == key);
            found.extend(same.map(|(_, doc)| doc));
            group += 1;
        }
        Ok(())
    }

    /// All entries in order.
    pub(crate) fn iter(&self) -> Result<impl Iterator<Item = Result<Entry>> + '_> {
        let failed = |e| Error::io("read", &self.path, e);
        let mut file = self.file.try_clone().map_err(failed)?;
        file.rewind().map_err(failed)?;
        // A clone shares its position with the file; look-ups name theirs, and one pass runs at a time.
        let mut reader = BufReader::with_capacity(1 << 17, file);
        Ok((0..self.entries).map(move |_| {
            let mut entry = [0; ENTRY];
            reader.read_exact(&mut entry).map_err(failed)?;
            Ok(decode(&entry))
        }))
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

fn decode(entry: &[u8; ENTRY]) -> Entry {
    let (key, doc) = entry.split_at(8);
    (
        u64::from_le_bytes(key.try_into().expect("8 of 12 bytes")),
        u32::from_le_bytes(doc.try_into().expect("4 of 12 bytes")),
    )
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
        assert!(Run::open(run.path.clone(), run.len(), run.checksum ^ 1, |_| {}).is_err());
        assert!(Run::open(run.path.clone(), run.len() + 1, run.checksum, |_| {}).is_err());
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
