//! One file for each subcommand: flags, options, one call into the library, a report.

pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod import;
mod launch;
pub(crate) mod scaling;
pub(crate) mod settings_file;
pub(crate) mod train;

use std::path::{Path, PathBuf};

use curate_shards::ShardSet;
use curate_train::checkpoint::{self, Checkpoint};
use curate_train::device::{self, DeviceChoice};
use curate_train::model::Model;
use curate_train::{Error, Result};
use tch::Device;

use crate::output;

/// The checkpoint of a run that was asked for, by name or path, or else the newest that can be read.
fn open_checkpoint(run: &Path, wanted: Option<&Path>) -> Result<Checkpoint> {
    if let Some(wanted) = wanted {
        let inside = run.join(wanted);
        return checkpoint::open(if inside.is_dir() { &inside } else { wanted });
    }
    let latest = checkpoint::latest(run, |error| output::warn(&format!("{error}; trying the one before")))?;
    latest.ok_or_else(|| Error::NoCheckpoint { run: run.to_owned() })
}

/// A checkpoint's model, on the device and with the number of threads that were asked for.
fn load_model(checkpoint: &Checkpoint, device: DeviceChoice, threads: Option<u32>) -> Result<Model> {
    if let Some(threads) = threads {
        device::set_threads(threads);
    }
    let device: Device = device::open(device)?;
    let options = &checkpoint.state.run.options;
    let model = Model::blank(&options.model, options.numerics.dtype, device)?;
    checkpoint.load_model(&model)?;
    Ok(model)
}

/// The shards to evaluate on: those of the run, or others made with the same tokenizer.
fn open_shards(checkpoint: &Checkpoint, wanted: Option<&PathBuf>) -> Result<ShardSet> {
    let run = &checkpoint.state.run;
    let dir = wanted.unwrap_or(&run.shards);
    if dir.as_os_str().is_empty() {
        let problem =
            "an imported model has no shards of its own: name a set that was made with its tokenizer";
        return Err(Error::Option { flag: "--shards", problem: problem.into() });
    }
    let shards = ShardSet::open(dir)?;
    checkpoint::check_tokenizer(&shards, &run.tokenizer)?;
    Ok(shards)
}
