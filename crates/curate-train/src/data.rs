//! Batches: rows of a packing view, read ahead on a thread of their own.
//!
//! The thread hands over plain buffers and knows nothing of tensors. Which rows form step `s` is a function of
//! (seed, s) alone, so a resumed run asks for its next step and gets the same rows as an uninterrupted one. Batches come
//! back when they were trained on: in the long run nothing is allocated.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;

use curate_shards::{BatchPlan, Row, Run, ShardSet, Split, View};

use crate::config::{DataOptions, DocMask};
use crate::model::IGNORE;
use crate::sources::Sources;
use crate::{Error, Result};

/// Tokens that wait at most, at 16 bytes each: 32 MB.
const TOKENS_AHEAD: u64 = 1 << 21;

/// Batches that are read before they are needed. Two hide the time to read; small ones are many, because on a busy machine
/// the thread that reads may have to wait for its turn longer than a step takes.
fn batches_ahead(tokens: u64) -> usize {
    let batches = (TOKENS_AHEAD / tokens.max(1)).clamp(2, 64);
    usize::try_from(batches).expect("at most 64")
}

/// The rows of one step, or of one process's share of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Rows `B`.
    pub rows: usize,
    /// Tokens of a row `T`.
    pub seq_len: usize,
    /// Token ids: [B, T].
    pub inputs: Vec<i64>,
    /// The token after each, or [`IGNORE`]: [B, T].
    pub targets: Vec<i64>,
    /// The rows' numbers in their view, where they come from one.
    pub row_numbers: Vec<u64>,
    /// First input of each document that sees itself alone, for every row, ascending from 0; no rows at all if inputs
    /// see all before them in their row.
    pub starts: Vec<Vec<u32>>,
    /// How many of the targets that count are of each source, in the order of [`Sources::names`].
    pub source_targets: Vec<u64>,
}

impl Batch {
    /// Number of targets that count.
    pub fn num_targets(&self) -> u64 {
        self.targets.iter().filter(|target| **target != IGNORE).count() as u64
    }

    /// Cuts the batch into pieces of at most `rows` rows: (rows, inputs, targets) each.
    pub fn micro_batches(&self, rows: usize) -> impl Iterator<Item = (usize, &[i64], &[i64])> {
        let size = rows.max(1) * self.seq_len;
        let pieces = self.inputs.chunks(size).zip(self.targets.chunks(size));
        pieces.map(|(inputs, targets)| (inputs.len() / self.seq_len, inputs, targets))
    }

    /// The part of [`starts`](Self::starts) that belongs to these rows.
    pub fn starts_of(&self, first_row: usize, rows: usize) -> &[Vec<u32>] {
        if self.starts.is_empty() { &[] } else { &self.starts[first_row..first_row + rows] }
    }
}

/// Reads the batches of steps `first..end` in order.
#[derive(Debug)]
pub struct Loader {
    batches: Option<Receiver<Result<Batch>>>,
    used: Option<Sender<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts reading whole steps.
    pub fn start(shards: &Arc<ShardSet>, options: &DataOptions, first: u64, end: u64) -> Result<Loader> {
        Loader::start_share(shards, options, (0, 1), first, end)
    }

    /// Starts reading the share of process `rank` of `world_size` in each step: the rows at [`share`] of the global step,
    /// in its order. Together the processes read the rows of [`start`](Self::start), whatever their number.
    ///
    /// # Errors
    /// [`Error::Option`] if there are fewer rows than processes; what is wrong with the shards.
    pub fn start_share(
        shards: &Arc<ShardSet>,
        options: &DataOptions,
        (rank, world_size): (u32, u32),
        first: u64,
        end: u64,
    ) -> Result<Loader> {
        let view = shards.view(&options.split, options.seq_len)?;
        let plan = view.plan(options.seed, options.batch_size)?;
        let rows = share(options.batch_size, rank, world_size);
        if options.batch_size < world_size {
            let problem = format!("{} rows cannot be shared by {world_size} processes", options.batch_size);
            return Err(Error::option("--batch-size", problem));
        }
        let ahead = batches_ahead(rows.len() as u64 * u64::from(options.seq_len));
        let (sender, receiver) = sync_channel(ahead);
        let (used_sender, used) = channel();
        let (shards, split, mask) = (Arc::clone(shards), options.split.clone(), options.doc_mask);
        let sources = Sources::of(&shards, &view, &split);
        let read = move || {
            let mut reader = match shards.split(&split) {
                Ok(split) => Reader::new(&view, split, &plan, (rows, ahead), mask, sources),
                Err(error) => return drop(sender.send(Err(error.into()))),
            };
            for step in first..end {
                let batch = reader.read(step, used.try_recv().unwrap_or_default());
                let failed = batch.is_err();
                // A closed channel means that the training ended early: nothing is lost.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("loader".into()).spawn(read);
        let thread = thread.map_err(|error| Error::Io { path: "the loader thread".into(), error })?;
        Ok(Loader { batches: Some(receiver), used: Some(used_sender), thread: Some(thread) })
    }

    /// The next batch.
    pub fn next_batch(&mut self) -> Result<Batch> {
        self.batches.as_ref().and_then(|batches| batches.recv().ok()).ok_or(Error::LoaderStopped)?
    }

    /// Gives a batch back that was trained on: its memory serves a later one.
    pub fn give_back(&mut self, batch: Batch) {
        if let Some(used) = &self.used {
            let _ = used.send(batch); // the thread may have read its last batch already
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.batches = None; // wakes the thread if it waits to send
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been seen as LoaderStopped.
            let _ = thread.join();
        }
    }
}

/// Which rows of a step of `rows` are those of process `rank` of `world_size`: parts that follow one another and differ
/// by one row at most.
pub fn share(rows: u32, rank: u32, world_size: u32) -> Range<u32> {
    let start = |rank: u32| {
        let start = u64::from(rows) * u64::from(rank) / u64::from(world_size.max(1));
        u32::try_from(start).expect("at most all rows, a u32")
    };
    start(rank)..start(rank + 1)
}

/// Makes batches on the loader's thread.
struct Reader<'a> {
    view: &'a View,
    split: &'a Split,
    plan: &'a BatchPlan,
    /// The own rows of each step.
    rows: Range<u32>,
    mask: DocMask,
    sources: Sources,
    /// Steps between asking the disk for rows and reading them.
    ahead: u64,
    numbers: Vec<u64>,
    row: Row,
    disk: Disk,
}

impl<'a> Reader<'a> {
    fn new(
        view: &'a View,
        split: &'a Split,
        plan: &'a BatchPlan,
        (rows, ahead): (Range<u32>, usize),
        mask: DocMask,
        sources: Sources,
    ) -> Reader<'a> {
        split.expect_random_reads();
        let (row, disk) = (Row::new(view.seq_len()), Disk::default());
        Reader { view, split, plan, rows, mask, sources, ahead: ahead as u64, numbers: Vec::new(), row, disk }
    }

    /// The numbers of the own rows of a step.
    fn numbers_of(&self, step: u64) -> impl Iterator<Item = u64> + use<'a> {
        let (start, count) = (self.rows.start as usize, self.rows.len());
        self.plan.step(step).skip(start).take(count)
    }

    /// The own rows of one step, in the memory of `batch`.
    fn read(&mut self, step: u64, mut batch: Batch) -> Result<Batch> {
        if self.disk.is_read() {
            let mut ahead = self.numbers_of(step + self.ahead);
            ahead.try_for_each(|number| self.view.will_need(self.split, number))?;
        }
        let (seq_len, mask) = (self.view.seq_len() as usize, self.mask);
        (batch.rows, batch.seq_len) = (self.rows.len(), seq_len);
        batch.inputs.clear();
        batch.targets.clear();
        batch.row_numbers.clear();
        batch.starts.clear();
        batch.source_targets.clear();
        batch.source_targets.resize(self.sources.names().len(), 0);
        batch.inputs.reserve_exact(self.rows.len() * seq_len);
        batch.targets.reserve_exact(self.rows.len() * seq_len);
        self.numbers.clear();
        self.numbers.extend(self.numbers_of(step));
        self.view.fill_each(self.split, &self.numbers, &mut self.row, |number, row| {
            batch.inputs.extend_from_slice(&row.tokens[..seq_len]);
            let start = batch.targets.len();
            batch.targets.extend_from_slice(&row.tokens[1..]);
            let targets = &mut batch.targets[start..];
            targets[row.len.saturating_sub(1)..].fill(IGNORE);
            let mut starts = vec![0];
            let (mut document_ended, runs) = (false, self.view.runs(number)?.zip(&row.document_starts));
            for (i, (run, &at)) in runs.enumerate() {
                if i > 0 {
                    // A run that goes on with a document, but behind another one, repeats a token that was a target
                    // before; here nothing foretells it. A new document's first token is the target of the end of the one
                    // before, which thereby belongs to the new document as well, as the id that evaluation puts before each.
                    let is_foretold = run.offset == 0 && mask != DocMask::Loss;
                    let shares_the_end = is_foretold && document_ended;
                    if !is_foretold || (mask == DocMask::Attention && !document_ended) {
                        targets[at as usize - 1] = IGNORE;
                    }
                    starts.push(if shares_the_end { at - 1 } else { at });
                }
                document_ended = mask == DocMask::Attention && reaches_the_end(self.split, run)?;
            }
            let place = (self.view, self.split);
            self.sources.count(place, number, row, targets, &mut batch.source_targets)?;
            if mask == DocMask::Attention {
                starts.dedup(); // of a document only its end may be in the row
                starts.retain(|&start| (start as usize) < seq_len);
                batch.starts.push(starts);
            }
            batch.row_numbers.push(number);
            Ok::<_, Error>(())
        })?;
        Ok(batch)
    }
}

fn reaches_the_end(split: &Split, run: Run) -> Result<bool> {
    let length = split.try_document(run.document)?.tokens.len() as u64;
    Ok(u64::from(run.offset) + u64::from(run.length) == length)
}

/// Whether the rows come from a disk, seen by what this thread waited for.
#[derive(Default)]
struct Disk {
    /// Reads that the thread waited for so far.
    waits: i64,
    /// Steps for which rows are still asked for in advance.
    steps: u32,
}

impl Disk {
    /// Call once a step. Once the thread has waited for the disk, the next 64 steps count as read from it: asking in
    /// advance ends the waits, not their cause. Asking for what is in memory costs as much as reading it, so a loader
    /// that never waits never asks.
    fn is_read(&mut self) -> bool {
        let waits = major_faults();
        if waits > self.waits {
            (self.waits, self.steps) = (waits, 64);
        }
        self.steps = self.steps.saturating_sub(1);
        self.steps > 0
    }
}

/// Page faults of this thread that had to wait for a disk; 0 where the system does not tell them by thread.
fn major_faults() -> i64 {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: all zeroes is a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is writable for an rusage.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        usage.ru_majflt
    }
    #[cfg(not(target_os = "linux"))]
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_one_another_and_are_of_one_size() {
        for (rows, world_size) in [(8, 2), (7, 3), (5, 5), (1, 1), (u32::MAX, 7)] {
            let shares: Vec<Range<u32>> = (0..world_size).map(|rank| share(rows, rank, world_size)).collect();
            assert_eq!((shares[0].start, shares[shares.len() - 1].end), (0, rows));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            let sizes = || shares.iter().map(|share| share.end - share.start);
            assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1, "{shares:?}");
        }
    }
}
