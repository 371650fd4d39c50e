//! Checkpoints written while training goes on.
//!
//! ```text
//! training thread:  step ─ copy weights and moments ─ step ─ step ─ …          the stall is the copy
//! writer thread:                  └▶ write, hash, sync, rename, remove old ones
//! ```
//! The copy costs 12 bytes a parameter of the host's memory, kept from the first checkpoint on. One checkpoint at most is
//! being written: the next waits for it. What the writer fails at is an error of the training loop, at its next step at
//! the latest. A process that is killed meanwhile leaves the checkpoint before, as always.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use tch::{Device, Kind, Tensor};

use crate::checkpoint::{self, Part, State};
use crate::model::Model;
use crate::muon::Muon;
use crate::optim::AdamW;
use crate::{Error, Result};

/// Writes the checkpoints of one run on a thread of its own.
#[derive(Debug)]
pub struct Saver {
    run: PathBuf,
    keep_last: usize,
    /// Copies of the tensors: none before the first checkpoint, and with the writer while it works.
    copies: Vec<Part>,
    writer: Option<JoinHandle<(Vec<Part>, Result<()>)>>,
}

impl Saver {
    /// A saver that has saved nothing yet and will keep the newest `keep_last` checkpoints.
    pub fn new(run: &Path, keep_last: usize) -> Saver {
        Saver { run: run.to_owned(), keep_last, copies: Vec::new(), writer: None }
    }

    /// Copies the tensors and begins to write them. Waits only for the checkpoint before, if that is still being written.
    ///
    /// # Errors
    /// What the checkpoint before failed with, or what the copy does.
    pub fn start(
        &mut self,
        state: State,
        model: &Model,
        optimizer: &AdamW,
        muon: Option<&Muon>,
    ) -> Result<()> {
        self.finish()?;
        copy(&mut self.copies, checkpoint::parts(model, Some((optimizer, muon))))?;
        let (run, keep_last, copies) = (self.run.clone(), self.keep_last, std::mem::take(&mut self.copies));
        let step = state.step;
        let write = move || {
            let written = checkpoint::write(&run, state, &copies);
            let done = written.and_then(|_| checkpoint::keep_newest(&run, keep_last, step));
            (copies, done)
        };
        let thread = std::thread::Builder::new().name("saver".into()).spawn(write);
        let thread = thread.map_err(|error| Error::Io { path: "the thread that saves".into(), error })?;
        self.writer = Some(thread);
        Ok(())
    }

    /// What a write failed with that has ended meanwhile. Does not wait.
    pub fn check(&mut self) -> Result<()> {
        match &self.writer {
            Some(writer) if writer.is_finished() => self.finish(),
            _ => Ok(()),
        }
    }

    /// Waits until the checkpoint is complete.
    pub fn finish(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let (copies, done) = writer.join().map_err(|_| Error::SaverStopped)?;
        self.copies = copies;
        done
    }
}

impl Drop for Saver {
    /// Lets the write come to its end: training that failed later does not cost what was saved before.
    fn drop(&mut self) {
        // Here only if the loop has an error to report already.
        let _ = self.finish();
    }
}

/// Copies tensors to the host, into the memory of earlier copies if there are some.
fn copy(copies: &mut Vec<Part>, parts: Vec<Part>) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    if copies.is_empty() {
        let blank = |(name, tensor): &(String, Tensor)| {
            Ok((name.clone(), Tensor::f_empty(tensor.size(), (Kind::Float, Device::Cpu))?))
        };
        let blank = |(file, tensors): &Part| Ok((*file, tensors.iter().map(blank).collect::<Result<_>>()?));
        *copies = parts.iter().map(blank).collect::<Result<_>>()?;
    }
    let targets = copies.iter_mut().flat_map(|(_, tensors)| tensors);
    for ((_, target), (_, source)) in targets.zip(parts.iter().flat_map(|(_, tensors)| tensors)) {
        target.f_copy_(&source.f_detach()?)?;
    }
    Ok(())
}
