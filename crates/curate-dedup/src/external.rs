//! Sorting more records than fit into memory: full buffers are sorted and written, and the files are merged as they
//! are read.
//!
//! A record is `N` numbers; records are ordered by the first, then by the second, and so on. Equal records stay as
//! many as they were.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::spill::SpillDir;

/// Files that are merged at once. When there are as many, they become one: every reader needs a buffer.
const MAX_RUNS: usize = 128;
/// Bytes of a reader's buffer, about.
const READ_BYTES: usize = 1 << 15;
/// The least that a buffer holds, in records.
const MIN_RECORDS: usize = 1 << 10;

/// Takes records in any order.
#[derive(Debug)]
pub(crate) struct Sorter<const N: usize> {
    name: &'static str,
    buffer: Vec<[u64; N]>,
    max_records: usize,
    runs: Vec<RunFile>,
    /// Files written so far, which names the next.
    written: u64,
}

#[derive(Debug)]
struct RunFile {
    path: PathBuf,
    file: File,
    records: u64,
}

impl<const N: usize> Sorter<N> {
    /// `bytes` are for the buffer; `name` begins the names of its files.
    pub(crate) fn new(name: &'static str, bytes: usize) -> Self {
        let max_records = (bytes / size_of::<[u64; N]>()).max(MIN_RECORDS);
        Self { name, buffer: Vec::new(), max_records, runs: Vec::new(), written: 0 }
    }

    pub(crate) fn push(&mut self, record: [u64; N], dir: &mut SpillDir) -> Result<()> {
        if self.buffer.len() == self.max_records {
            self.write_out(dir)?;
        }
        if self.buffer.len() == self.buffer.capacity() {
            // A vector that doubles by itself could come to hold nearly twice what it may.
            let more = self.buffer.len().clamp(MIN_RECORDS, self.max_records - self.buffer.len());
            self.buffer.reserve_exact(more);
        }
        self.buffer.push(record);
        Ok(())
    }

    /// Nothing more comes: the records in order.
    pub(crate) fn finish(mut self, dir: &mut SpillDir) -> Result<Sorted<N>> {
        if !self.runs.is_empty() {
            self.write_out(dir)?;
            self.buffer = Vec::new();
        }
        self.buffer.sort_unstable();
        Ok(Sorted { buffer: self.buffer, runs: self.runs })
    }

    fn write_out(&mut self, dir: &mut SpillDir) -> Result<()> {
        self.buffer.sort_unstable();
        let run = write_run(&self.name(), dir, self.buffer.iter().map(|record| Ok(*record)))?;
        self.written += 1;
        self.buffer.clear();
        self.runs.push(run);
        if self.runs.len() == MAX_RUNS {
            let sorted = Sorted::<N> { buffer: Vec::new(), runs: std::mem::take(&mut self.runs) };
            let mut cursor = sorted.start()?;
            let merged = std::iter::from_fn(|| cursor.next(&sorted).transpose());
            self.runs.push(write_run(&self.name(), dir, merged)?);
            self.written += 1;
            sorted.remove()?;
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("{}-{:06}.sorted", self.name, self.written)
    }

    /// Bytes in memory.
    pub(crate) fn memory(&self) -> u64 {
        (self.buffer.capacity() * size_of::<[u64; N]>()) as u64
    }

    /// Bytes on disk.
    pub(crate) fn disk(&self) -> u64 {
        disk::<N>(&self.runs)
    }
}

fn disk<const N: usize>(runs: &[RunFile]) -> u64 {
    runs.iter().map(|run| run.records * size_of::<[u64; N]>() as u64).sum()
}

fn write_run<const N: usize>(
    name: &str,
    dir: &mut SpillDir,
    records: impl Iterator<Item = Result<[u64; N]>>,
) -> Result<RunFile> {
    let (path, file) = dir.create(name)?;
    let failed = |e| Error::io("write", &path, e);
    let mut writer = BufWriter::with_capacity(1 << 18, file);
    let mut count = 0;
    for record in records {
        record?.iter().try_for_each(|number| writer.write_all(&number.to_le_bytes())).map_err(failed)?;
        count += 1;
    }
    let file = writer.into_inner().map_err(|e| failed(e.into_error()))?;
    Ok(RunFile { path, file, records: count })
}

/// Records in order: in memory if all have fitted, else in files.
#[derive(Debug)]
pub(crate) struct Sorted<const N: usize> {
    buffer: Vec<[u64; N]>,
    runs: Vec<RunFile>,
}

impl<const N: usize> Sorted<N> {
    /// A place before the first record.
    pub(crate) fn start(&self) -> Result<Cursor<N>> {
        let mut readers: Vec<Reader<N>> = self.runs.iter().map(|_| Reader::default()).collect();
        let mut heads = BinaryHeap::new();
        for (i, (reader, run)) in readers.iter_mut().zip(&self.runs).enumerate() {
            heads.extend(reader.next(run)?.map(|record| Reverse((record, i))));
        }
        Ok(Cursor { readers, heads, at: 0 })
    }

    /// Bytes in memory, those of a cursor included.
    pub(crate) fn memory(&self) -> u64 {
        (self.buffer.capacity() * size_of::<[u64; N]>() + self.runs.len() * READ_BYTES) as u64
    }

    /// Bytes on disk.
    pub(crate) fn disk(&self) -> u64 {
        disk::<N>(&self.runs)
    }

    /// Takes the files away.
    pub(crate) fn remove(self) -> Result<()> {
        self.runs.into_iter().try_for_each(|run| {
            std::fs::remove_file(&run.path).map_err(|e| Error::io("remove", &run.path, e))
        })
    }
}

/// A place in sorted records. There may be several in the same ones.
#[derive(Debug)]
pub(crate) struct Cursor<const N: usize> {
    readers: Vec<Reader<N>>,
    heads: BinaryHeap<Reverse<([u64; N], usize)>>,
    /// In the buffer, where there are no files.
    at: usize,
}

impl<const N: usize> Cursor<N> {
    /// The next record of `sorted`, which made this cursor.
    pub(crate) fn next(&mut self, sorted: &Sorted<N>) -> Result<Option<[u64; N]>> {
        if sorted.runs.is_empty() {
            let record = sorted.buffer.get(self.at).copied();
            self.at += 1;
            return Ok(record);
        }
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let Reverse((record, i)) = *head;
        match self.readers[i].next(&sorted.runs[i])? {
            Some(next) => *head = Reverse((next, i)),
            None => drop(PeekMut::pop(head)),
        }
        Ok(Some(record))
    }
}

#[derive(Debug, Default)]
struct Reader<const N: usize> {
    /// Records that were read into the buffer so far, and how many of these were given out.
    read: u64,
    bytes: Vec<u8>,
    given: usize,
}

impl<const N: usize> Reader<N> {
    fn next(&mut self, run: &RunFile) -> Result<Option<[u64; N]>> {
        const RECORD: usize = 8;
        let width = N * RECORD;
        if self.given == self.bytes.len() {
            let count = (run.records - self.read).min((READ_BYTES / width) as u64);
            if count == 0 {
                return Ok(None);
            }
            self.bytes.resize(count as usize * width, 0);
            run.file
                .read_exact_at(&mut self.bytes, self.read * width as u64)
                .map_err(|e| Error::io("read", &run.path, e))?;
            self.read += count;
            self.given = 0;
        }
        let (words, _) = self.bytes[self.given..self.given + width].as_chunks::<RECORD>();
        self.given += width;
        Ok(Some(std::array::from_fn(|i| u64::from_le_bytes(words[i]))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::finish;

    fn check(records: &[[u64; 2]], bytes: usize) -> u64 {
        let parent = tempfile::tempdir().unwrap();
        let mut dir = SpillDir::temporary_below(parent.path().to_owned());
        let mut sorter = Sorter::new("test", bytes);
        for &record in records {
            sorter.push(record, &mut dir).unwrap();
            assert!(sorter.memory() <= (bytes.max(MIN_RECORDS * 16)) as u64);
        }
        let sorted = sorter.finish(&mut dir).unwrap();
        let mut expected = records.to_vec();
        expected.sort_unstable();
        // Twice: a cursor starts where it likes.
        for _ in 0..2 {
            let mut cursor = sorted.start().unwrap();
            let mut found = Vec::new();
            while let Some(record) = cursor.next(&sorted).unwrap() {
                found.push(record);
            }
            assert!(found == expected);
            assert_eq!(cursor.next(&sorted).unwrap(), None);
        }
        sorted.disk()
    }

    #[test]
    fn records_come_in_order_from_wherever_they_are() {
        for n in [0, 1, 1023, 1024, 1025, 5000] {
            let hashes: Vec<[u64; 2]> = (0..n).map(|i| [finish(i), i]).collect();
            assert_eq!(check(&hashes, 1 << 20), 0);
            assert_eq!(check(&hashes, 0) > 0, n > 1024, "{n}");
            let repeats: Vec<[u64; 2]> = (0..n).map(|i| [i % 3, i % 7]).collect();
            check(&repeats, 0);
        }
    }

    #[test]
    fn many_files_become_one() {
        let n = (MAX_RUNS * MIN_RECORDS * 2 + 77) as u64;
        let records: Vec<[u64; 2]> = (0..n).map(|i| [finish(i) % 1000, i]).collect();
        assert_eq!(check(&records, 0), n * 16);
    }
}
