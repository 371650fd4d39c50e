//! Batches: rows of a packing view, read ahead on a thread of their own.
//!
//! The thread hands over plain buffers and knows nothing of tensors. Which rows form step `s` is a function of
//! (seed, s) alone, so a resumed run asks for its next step and gets the same rows as an uninterrupted one.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use curate_shards::{BatchPlan, Row, ShardSet, Split, View};

use crate::config::DataOptions;
use crate::model::IGNORE;
use crate::{Error, Result};

/// Batches that wait at most; one is being trained on, the others hide the time to read.
const READ_AHEAD: usize = 2;

/// The rows of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Rows `B`.
    pub rows: usize,
    /// Tokens of a row `T`.
    pub seq_len: usize,
    /// Token ids: [B, T].
    pub inputs: Vec<i64>,
    /// The token after each, or [`IGNORE`]: [B, T].
    pub targets: Vec<i64>,
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
        let plan = view.plan(options.seed, options.batch_size)?;
        let (sender, receiver) = sync_channel(READ_AHEAD);
        let (shards, split) = (Arc::clone(shards), options.split.clone());
        let read = move || {
            for step in first..end {
                let batch = shards
                    .split(&split)
                    .map_err(Error::from)
                    .and_then(|split| read_batch(&view, split, &plan, step));
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
fn read_batch(view: &View, split: &Split, plan: &BatchPlan, step: u64) -> Result<Batch> {
    let seq_len = view.seq_len() as usize;
    let rows = plan.rows_per_step() as usize;
    let mut batch = Batch { rows, seq_len, inputs: Vec::with_capacity(rows * seq_len), targets: Vec::new() };
    batch.targets.reserve_exact(rows * seq_len);
    let mut row = Row::new(view.seq_len());
    for number in plan.step(step) {
        view.try_fill(split, number, &mut row)?;
        batch.inputs.extend_from_slice(&row.tokens[..seq_len]);
        let start = batch.targets.len();
        batch.targets.extend_from_slice(&row.tokens[1..]);
        let targets = &mut batch.targets[start..];
        targets[row.len.saturating_sub(1)..].fill(IGNORE);
        // A run that goes on with a document, but behind another one, repeats a token that was a target before;
        // here nothing foretells it. A new document's first token is the target of the end of the one before.
        for (run, &at) in view.runs(number)?.zip(&row.document_starts).skip(1) {
            if run.offset > 0 {
                targets[at as usize - 1] = IGNORE;
            }
        }
    }
    Ok(batch)
}
