//! Sorting more entries than fit into memory.

#![allow(clippy::disallowed_methods)] // temporary files

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::spill::SpillDir;

const ENTRY: usize = 16;
/// Runs that are merged at once, and bytes read ahead of each.
const FAN_IN: usize = 64;
const READ_AHEAD: usize = 64 << 10;

/// Takes 128-bit entries in any order; they come back in ascending order.
#[derive(Debug)]
pub(super) struct Sorter {
    name: &'static str,
    buffer: Vec<u128>,
    /// Entries that the buffer may hold.
    room: usize,
    runs: Vec<SortedFile>,
    made: usize,
    len: u64,
}

impl Sorter {
    /// A sorter that holds `memory` bytes; `name` is that of its files.
    pub(super) fn new(name: &'static str, memory: usize) -> Self {
        Self { name, buffer: Vec::new(), room: (memory / ENTRY).max(1), runs: Vec::new(), made: 0, len: 0 }
    }

    pub(super) fn push(&mut self, entry: u128, dir: &mut SpillDir) -> Result<()> {
        if self.buffer.len() == self.room {
            self.spill(dir)?;
        }
        self.buffer.push(entry);
        self.len += 1;
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn memory(&self) -> u64 {
        (self.buffer.capacity() * ENTRY) as u64
    }

    pub(super) fn disk(&self) -> u64 {
        self.runs.iter().map(|run| run.entries * ENTRY as u64).sum()
    }

    /// Sorts what is left, so that [`iter`](Self::iter) can be called as often as needed.
    pub(super) fn finish(&mut self, dir: &mut SpillDir) -> Result<()> {
        self.buffer.sort_unstable();
        while self.runs.len() > FAN_IN {
            let first: Vec<SortedFile> = self.runs.drain(..FAN_IN).collect();
            let merged = merge(first.iter().map(SortedFile::iter).collect::<Result<_>>()?)?;
            let run = self.write(merged, dir)?;
            self.runs.push(run);
            first.into_iter().try_for_each(SortedFile::remove)?;
        }
        Ok(())
    }

    /// All entries in order, after [`finish`](Self::finish).
    pub(super) fn iter(&self) -> Result<impl Iterator<Item = Result<u128>> + '_> {
        let mut sources = self.runs.iter().map(SortedFile::iter).collect::<Result<Vec<_>>>()?;
        sources.push(Box::new(self.buffer.iter().map(|&entry| Ok(entry))));
        merge(sources)
    }

    fn spill(&mut self, dir: &mut SpillDir) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.sort_unstable();
        let run = self.write(buffer.iter().map(|&entry| Ok(entry)), dir)?;
        self.runs.push(run);
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    fn write(
        &mut self,
        entries: impl Iterator<Item = Result<u128>>,
        dir: &mut SpillDir,
    ) -> Result<SortedFile> {
        let (path, file) = dir.create(&format!("{}-{}", self.name, self.made))?;
        self.made += 1;
        let failed = |e| Error::io("write", &path, e);
        let mut writer = BufWriter::with_capacity(1 << 18, file);
        let mut count = 0;
        for entry in entries {
            writer.write_all(&entry?.to_le_bytes()).map_err(failed)?;
            count += 1;
        }
        let file = writer.into_inner().map_err(|e| failed(e.into_error()))?;
        Ok(SortedFile { path, file, entries: count })
    }

    /// Takes the files away.
    pub(super) fn remove(self) -> Result<()> {
        self.runs.into_iter().try_for_each(SortedFile::remove)
    }
}

#[derive(Debug)]
struct SortedFile {
    path: PathBuf,
    file: File,
    entries: u64,
}

type Entries<'r> = Box<dyn Iterator<Item = Result<u128>> + 'r>;

impl SortedFile {
    /// A clone shares its position with the file, so one pass runs at a time.
    fn iter(&self) -> Result<Entries<'_>> {
        let failed = |e| Error::io("read", &self.path, e);
        let mut file = self.file.try_clone().map_err(failed)?;
        file.rewind().map_err(failed)?;
        let mut reader = BufReader::with_capacity(READ_AHEAD, file);
        Ok(Box::new((0..self.entries).map(move |_| {
            let mut entry = [0; ENTRY];
            reader.read_exact(&mut entry).map_err(failed)?;
            Ok(u128::from_le_bytes(entry))
        })))
    }

    fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| Error::io("remove", &self.path, e))
    }
}

fn merge(mut sources: Vec<Entries<'_>>) -> Result<impl Iterator<Item = Result<u128>> + '_> {
    let mut heads = BinaryHeap::new();
    for (i, source) in sources.iter_mut().enumerate() {
        heads.extend(source.next().transpose()?.map(|entry| Reverse((entry, i))));
    }
    Ok(std::iter::from_fn(move || {
        let mut head = heads.peek_mut()?;
        let Reverse((entry, i)) = *head;
        match sources[i].next() {
            Some(Ok(next)) => *head = Reverse((next, i)),
            Some(Err(error)) => return Some(Err(error)),
            None => drop(std::collections::binary_heap::PeekMut::pop(head)),
        }
        Some(Ok(entry))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::finish;

    #[test]
    fn entries_come_back_in_order_whatever_fits() {
        for memory in [ENTRY, 16 * ENTRY, 1 << 20] {
            let mut dir = SpillDir::temporary_below(std::env::temp_dir());
            let mut sorter = Sorter::new("entries", memory);
            let mut expected: Vec<u128> = (0..500).map(|i| u128::from(finish(i % 400)) << 33).collect();
            for &entry in &expected {
                sorter.push(entry, &mut dir).unwrap();
            }
            sorter.finish(&mut dir).unwrap();
            expected.sort_unstable();
            for _ in 0..2 {
                let found: Vec<u128> = sorter.iter().unwrap().map(Result::unwrap).collect();
                assert!(found == expected, "in {memory} bytes");
            }
            assert_eq!(sorter.disk() > 0, memory < 1 << 20);
            sorter.remove().unwrap();
        }
    }
}
