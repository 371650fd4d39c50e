//! Batches: rows of a packing view, read ahead on a thread of their own.
//!
//! The thread hands over plain buffers and knows nothing of tensors. Which rows form step `s` is a function of
//! (seed, s) alone, so a resumed run asks for its next step and gets the same rows as an uninterrupted one.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use curate_shards::{BatchPlan, Row, Run, ShardSet, Split, View};

use crate::config::{DataOptions, DocMask};
use crate::model::IGNORE;
use crate::{Error, Result};

/// Batches that wait at most; one is being trained on, the others hide the time to read.
const READ_AHEAD: usize = 2;

/// The rows of one step.
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
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts reading.
    pub fn start(shards: &Arc<ShardSet>, options: &DataOptions, first: u64, end: u64) -> Result<Loader> {
        let view = shards.view(&options.split, options.seq_len)?;
        let plan = BatchPlan::new(options.seed, view.num_rows(), options.batch_size)?;
        let (sender, receiver) = sync_channel(READ_AHEAD);
        let (shards, split, mask) = (Arc::clone(shards), options.split.clone(), options.doc_mask);
        let read = move || {
            for step in first..end {
                let batch = shards
                    .split(&split)
                    .map_err(Error::from)
                    .and_then(|split| read_batch(&view, split, &plan, step, mask));
                let failed = batch.is_err();
                // A closed channel means that the training ended early: nothing is lost.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("loader".into()).spawn(read);
        let thread = thread.map_err(|error| Error::Io { path: "the loader thread".into(), error })?;
        Ok(Loader { batches: Some(receiver), thread: Some(thread) })
    }

    /// The next batch.
    pub fn next_batch(&mut self) -> Result<Batch> {
        self.batches.as_ref().and_then(|batches| batches.recv().ok()).ok_or(Error::LoaderStopped)?
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

/// The rows of one step.
fn read_batch(view: &View, split: &Split, plan: &BatchPlan, step: u64, mask: DocMask) -> Result<Batch> {
    let seq_len = view.seq_len() as usize;
    let rows = plan.rows_per_step() as usize;
    let mut batch = Batch { rows, seq_len, ..Batch::default() };
    batch.inputs.reserve_exact(rows * seq_len);
    batch.targets.reserve_exact(rows * seq_len);
    let mut row = Row::new(view.seq_len());
    for number in plan.step(step) {
        view.try_fill(split, number, &mut row)?;
        batch.inputs.extend_from_slice(&row.tokens[..seq_len]);
        let start = batch.targets.len();
        batch.targets.extend_from_slice(&row.tokens[1..]);
        let targets = &mut batch.targets[start..];
        targets[row.len.saturating_sub(1)..].fill(IGNORE);
        let mut starts = vec![0];
        let (mut document_ended, runs) = (false, view.runs(number)?.zip(&row.document_starts));
        for (i, (run, &at)) in runs.enumerate() {
            if i > 0 {
                // A run that goes on with a document, but behind another one, repeats a token that was a target before;
                // here nothing foretells it. A new document's first token is the target of the end of the one before,
                // which thereby belongs to the new document as well, as the id that evaluation puts before each.
                let is_foretold = run.offset == 0 && mask != DocMask::Loss;
                let shares_the_end = is_foretold && document_ended;
                if !is_foretold || (mask == DocMask::Attention && !document_ended) {
                    targets[at as usize - 1] = IGNORE;
                }
                starts.push(if shares_the_end { at - 1 } else { at });
            }
            document_ended = mask == DocMask::Attention && reaches_the_end(split, run)?;
        }
        if mask == DocMask::Attention {
            starts.dedup(); // of a document only its end may be in the row
            starts.retain(|&start| (start as usize) < seq_len);
            batch.starts.push(starts);
        }
        batch.row_numbers.push(number);
    }
    Ok(batch)
}

fn reaches_the_end(split: &Split, run: Run) -> Result<bool> {
    let length = split.try_document(run.document)?.tokens.len() as u64;
    Ok(u64::from(run.offset) + u64::from(run.length) == length)
}
