//! Bytes that grow without end in memory that does not: the newest are held, the rest lies in files.

#![allow(clippy::disallowed_methods)] // temporary files, and those of an index, which its manifest makes count

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};

/// The directory for what does not fit into memory. A temporary one is made when it is first needed and goes with
/// its owner; the directory of an index stays.
#[derive(Debug)]
pub(crate) struct SpillDir {
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Not needed yet: where a temporary directory would go.
    Unmade(PathBuf),
    Temporary(TempDir),
    Kept(PathBuf),
}

impl SpillDir {
    pub(crate) fn temporary_below(parent: PathBuf) -> Self {
        Self { place: Place::Unmade(parent) }
    }

    pub(crate) fn kept(path: PathBuf) -> Self {
        Self { place: Place::Kept(path) }
    }

    fn path(&mut self) -> Result<&Path> {
        if let Place::Unmade(parent) = &self.place {
            let made = fs::create_dir_all(parent)
                .and_then(|()| tempfile::Builder::new().prefix("curate-dedup-").tempdir_in(parent));
            let made = made.map_err(|e| Error::io("create a temporary directory in", parent, e))?;
            self.place = Place::Temporary(made);
        }
        Ok(match &self.place {
            Place::Temporary(dir) => dir.path(),
            Place::Kept(path) | Place::Unmade(path) => path,
        })
    }

    /// A new file for reading and writing, with its path.
    pub(crate) fn create(&mut self, name: &str) -> Result<(PathBuf, File)> {
        let path = self.path()?.join(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(|e| Error::io("create", &path, e))?;
        Ok((path, file))
    }
}

/// Bytes that are only ever appended to. The last `budget` bytes or so are in memory.
pub(crate) struct AppendStore {
    name: &'static str,
    /// What follows `written`; all chunks but the last are full.
    chunks: VecDeque<Vec<u8>>,
    /// Bytes that are in the file.
    written: u64,
    len: u64,
    budget: usize,
    file: Option<(PathBuf, File)>,
    /// Of what was appended since the store was made, reopened or asked for it.
    checksum: Xxh3,
}

const CHUNK: usize = 1 << 18;

impl std::fmt::Debug for AppendStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, written, len, budget, .. } = self;
        let mut shown = f.debug_struct("AppendStore");
        shown.field("name", name).field("written", written).field("len", len).field("budget", budget).finish()
    }
}

impl AppendStore {
    /// `name` is that of its file. At least one chunk of 256 KiB is held, whatever the budget.
    pub(crate) fn new(name: &'static str, budget: usize) -> Self {
        Self { name, chunks: VecDeque::new(), written: 0, len: 0, budget, file: None, checksum: Xxh3::new() }
    }

    /// A store that goes on where the first `len` bytes of a file end.
    pub(crate) fn reopened(name: &'static str, budget: usize, path: PathBuf, file: File, len: u64) -> Self {
        Self { written: len, len, file: Some((path, file)), ..Self::new(name, budget) }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// xxh3-64 of what was appended since the last call, or since the store was made or reopened.
    pub(crate) fn take_checksum(&mut self) -> u64 {
        std::mem::take(&mut self.checksum).digest()
    }

    /// Bytes in memory.
    pub(crate) fn memory(&self) -> u64 {
        self.chunks.iter().map(Vec::capacity).sum::<usize>() as u64
    }

    /// Bytes on disk.
    pub(crate) fn disk(&self) -> u64 {
        self.written
    }

    /// Appends `bytes` and returns where they start.
    pub(crate) fn append(&mut self, mut bytes: &[u8], dir: &mut SpillDir) -> Result<u64> {
        let at = self.len;
        self.checksum.update(bytes);
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
                if self.chunks.len() * CHUNK >= self.budget.max(CHUNK) {
                    self.write_first(dir)?;
                }
                self.chunks.push_back(Vec::with_capacity(CHUNK));
            }
            let chunk = self.chunks.back_mut().expect("just made if there was none");
            let (fits, rest) = bytes.split_at(bytes.len().min(CHUNK - chunk.len()));
            chunk.extend_from_slice(fits);
            bytes = rest;
        }
        Ok(at)
    }

    /// Reads `out.len()` bytes from `at`, which must have been appended.
    pub(crate) fn read(&self, mut at: u64, mut out: &mut [u8]) -> Result<()> {
        if at < self.written {
            let (path, file) = self.file.as_ref().expect("what is written has a file");
            let from_file = out.len().min((self.written - at) as usize);
            let (head, tail) = out.split_at_mut(from_file);
            file.read_exact_at(head, at).map_err(|e| Error::io("read", path, e))?;
            at += from_file as u64;
            out = tail;
        }
        while !out.is_empty() {
            let offset = (at - self.written) as usize;
            let part = &self.chunks[offset / CHUNK][offset % CHUNK..];
            let (head, tail) = out.split_at_mut(out.len().min(part.len()));
            head.copy_from_slice(&part[..head.len()]);
            at += head.len() as u64;
            out = tail;
        }
        Ok(())
    }

    /// Writes everything that is still only in memory, and makes it durable.
    pub(crate) fn sync(&mut self, dir: &mut SpillDir) -> Result<()> {
        while !self.chunks.is_empty() {
            self.write_first(dir)?;
        }
        if self.file.is_none() {
            self.file = Some(dir.create(self.name)?);
        }
        let (path, file) = self.file.as_ref().expect("just made if there was none");
        file.sync_all().map_err(|e| Error::io("write", path, e))
    }

    fn write_first(&mut self, dir: &mut SpillDir) -> Result<()> {
        let Some(chunk) = self.chunks.pop_front() else { return Ok(()) };
        if self.file.is_none() {
            self.file = Some(dir.create(self.name)?);
        }
        let (path, file) = self.file.as_ref().expect("just made if there was none");
        file.write_all_at(&chunk, self.written).map_err(|e| Error::io("write", path, e))?;
        self.written += chunk.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_read_from_wherever_it_is() {
        let parent = tempfile::tempdir().unwrap();
        for budget in [0, CHUNK, 3 * CHUNK, usize::MAX] {
            let mut dir = SpillDir::temporary_below(parent.path().join("deep"));
            let mut store = AppendStore::new("bytes", budget);
            let pieces: Vec<Vec<u8>> =
                (0..200u32).map(|i| (0..i * 97).map(|j| (i * 31 + j) as u8).collect()).collect();
            let places: Vec<u64> =
                pieces.iter().map(|piece| store.append(piece, &mut dir).unwrap()).collect();
            for (piece, at) in pieces.iter().zip(places) {
                let mut read = vec![0; piece.len()];
                store.read(at, &mut read).unwrap();
                assert!(read == *piece, "at {at} with a budget of {budget}");
            }
            assert!(store.memory() <= budget.saturating_add(2 * CHUNK) as u64);
            assert_eq!(store.disk() > 0, budget < usize::MAX);
        }
        assert_eq!(fs::read_dir(parent.path().join("deep")).unwrap().count(), 0, "temporary directories go");
    }
}
