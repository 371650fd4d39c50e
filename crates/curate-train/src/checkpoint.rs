//! A checkpoint: all that a run needs to go on, in one directory that is whole or absent.
//!
//! ```text
//! RUN/step-00000200/
//!   model.safetensors       the parameters by name, fp32
//!   optimizer.safetensors   NAME.first and NAME.second: the moments of each parameter, or NAME.momentum (Muon), fp32
//!   state.json              step, samples, options, identity of the data, versions; size and xxh3-128 of the others
//! ```
//! The directory is written as `.step-00000200.new`, every file and the directory are synced, then it is renamed: a
//! process that is killed at any moment leaves no half checkpoint under the final name. The newest is found by
//! looking, not by a pointer that could go stale. Tensors are written straight from their memory and read through a
//! memory map, one at a time, so neither needs a second copy of the model (a GPU's tensors pass through the host one
//! by one). Only a checkpoint that is written while training goes on has one: see [`crate::saver`].

#![allow(clippy::disallowed_methods)] // this is the module that makes files appear atomically

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use curate_shards::{ShardSet, TokenizerInfo};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::config::RunConfig;
use crate::guard::Guard;
use crate::model::Model;
use crate::muon::Muon;
use crate::optim::AdamW;
use crate::{Error, Result};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// What a checkpoint holds besides tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Updates made.
    pub step: u64,
    /// Rows consumed since the start: with the seed, the position in the data.
    pub samples: u64,
    /// Targets trained on since the start.
    pub targets: u64,
    /// The same by source, where a run has counted them from its beginning; see [`crate::sources`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_targets: BTreeMap<String, u64>,
    /// Seconds of training so far.
    pub seconds: f64,
    /// What the guard has seen.
    #[serde(default)]
    pub guard: Guard,
    /// The run.
    pub run: RunConfig,
    /// The tensor files.
    pub files: BTreeMap<String, FileSum>,
}

/// Size and hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// Its size.
    pub bytes: u64,
    /// Its xxh3-128, 32 hex digits.
    pub xxh3_128: String,
}

/// A complete checkpoint on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its directory.
    pub path: PathBuf,
    /// Its state.
    pub state: State,
}

/// One tensor file of a checkpoint: its name, and its tensors by name in the order in which they are written.
pub(crate) type Part = (&'static str, Vec<(String, Tensor)>);

/// What a checkpoint holds of a model and, if there are some, of its optimisers: handles, not copies.
pub(crate) fn parts(model: &Model, optimizers: Option<(&AdamW, Option<&Muon>)>) -> Vec<Part> {
    let weights = model.parameters().iter().map(|p| (p.name.clone(), p.tensor.shallow_clone()));
    let mut parts = vec![(MODEL, weights.collect())];
    if let Some((adamw, muon)) = optimizers {
        let tensors = optimizer_tensors(model, adamw, muon).into_iter();
        parts.push((OPTIMIZER, tensors.map(|(name, tensor)| (name, tensor.shallow_clone())).collect()));
    }
    parts
}

/// Writes a checkpoint into the run directory and returns its path. An older one of the same step is replaced.
pub fn save(
    run: &Path,
    state: State,
    model: &Model,
    optimizer: &AdamW,
    muon: Option<&Muon>,
) -> Result<PathBuf> {
    write(run, state, &parts(model, Some((optimizer, muon))))
}

/// The state of the optimisers by name: of each parameter the moments or, where it is Muon's, the momentum.
fn optimizer_tensors<'a>(
    model: &Model,
    optimizer: &'a AdamW,
    muon: Option<&'a Muon>,
) -> Vec<(String, &'a Tensor)> {
    let parameters = model.parameters();
    let pairs = parameters.iter().zip(optimizer.moments()).filter(|(_, m)| !m.are_empty());
    let moments = pairs.flat_map(|(p, m)| {
        [(format!("{}.first", p.name), &m.first), (format!("{}.second", p.name), &m.second)]
    });
    let momenta = muon.into_iter().flat_map(Muon::momenta);
    let momenta = momenta.map(|(place, momentum)| (format!("{}.momentum", parameters[place].name), momentum));
    moments.chain(momenta).collect()
}

/// Writes a checkpoint that has weights and no optimiser state, as an imported model has none, and returns its path.
pub(crate) fn save_weights(run: &Path, state: State, model: &Model) -> Result<PathBuf> {
    write(run, state, &parts(model, None))
}

/// Writes a checkpoint of these tensors and returns its path.
pub(crate) fn write(run: &Path, mut state: State, parts: &[Part]) -> Result<PathBuf> {
    let name = format!("step-{:08}", state.step);
    let (aside, path) = (run.join(format!(".{name}.new")), run.join(&name));
    remove(&aside)?;
    std::fs::create_dir_all(&aside).map_err(Error::io(&aside))?;
    let write_part = |(file, tensors): &Part| {
        let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor)).collect::<Vec<_>>();
        Ok(((*file).to_owned(), write_tensors(&aside.join(file), &tensors)?))
    };
    state.files = parts.iter().map(write_part).collect::<Result<_>>()?;
    write_json(&aside.join(STATE), &state)?;
    sync_dir(&aside)?;
    retire(&path)?;
    std::fs::rename(&aside, &path).map_err(Error::io(&path))?;
    sync_dir(run)?;
    Ok(path)
}

/// Refuses shards that were made with another tokenizer than a run's.
pub fn check_tokenizer(shards: &ShardSet, expected: &TokenizerInfo) -> Result<()> {
    let found = &shards.manifest().tokenizer;
    // The name is for people: the same file under another name makes the same ids.
    if (&found.sha256, found.vocab_size, found.eod) == (&expected.sha256, expected.vocab_size, expected.eod) {
        return Ok(());
    }
    let problem = format!(
        "its tokenizer is {} ({}), not {} ({})",
        found.name, found.sha256, expected.name, expected.sha256
    );
    Err(Error::OtherShards { shards: shards.dir().to_owned(), problem })
}

/// The complete-looking checkpoints of a run with their steps, oldest first. What they hold is not yet checked.
pub fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(run) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        other => other.map_err(Error::io(run))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io(run))?.path();
        let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
        if let Some(step) = step.filter(|_| path.join(STATE).is_file()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Opens a checkpoint and checks its files against their recorded sizes and hashes.
pub fn open(path: &Path) -> Result<Checkpoint> {
    let state: State = read_json(&path.join(STATE), "checkpoint state")?;
    let (found, known) = (state.run.format_version, RunConfig::FORMAT_VERSION);
    if found != known {
        let problem = format!("format version {found}, this program reads version {known}");
        return Err(Error::Damaged { path: path.join(STATE), problem });
    }
    for (name, sum) in &state.files {
        check_file(&path.join(name), sum)?;
    }
    Ok(Checkpoint { path: path.to_owned(), state })
}

/// A run's newest checkpoint that can be read; `on_damaged` hears of newer ones that cannot.
pub fn latest(run: &Path, mut on_damaged: impl FnMut(&Error)) -> Result<Option<Checkpoint>> {
    let mut problem = None;
    for (_, path) in list(run)?.into_iter().rev() {
        match open(&path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(error) => {
                on_damaged(&error);
                problem = problem.or(Some(error));
            }
        }
    }
    // If there are checkpoints but none is whole, the newest one's problem is the answer.
    problem.map_or(Ok(None), Err)
}

/// Removes all but the newest `keep` checkpoints of a run that stands at `step`, and what an interrupted process left behind.
/// No other thread may be writing in the run directory.
pub fn tidy(run: &Path, keep: usize, step: u64) -> Result<()> {
    keep_newest(run, keep, step)?;
    for entry in std::fs::read_dir(run).map_err(Error::io(run))? {
        let path = entry.map_err(Error::io(run))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(".step-") && (name.ends_with(".new") || name.ends_with(".old")) {
            remove(&path)?;
        } else if name.starts_with('.') && name.ends_with(".new") {
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Removes all but the newest `keep` checkpoints of a run that stands at `step`. Those of later steps do not count and are left:
/// the run went on from an earlier one because they could not be read.
pub(crate) fn keep_newest(run: &Path, keep: usize, step: u64) -> Result<()> {
    let mut checkpoints = list(run)?;
    checkpoints.retain(|(of, _)| *of <= step);
    for (_, path) in &checkpoints[..checkpoints.len().saturating_sub(keep.max(1))] {
        retire(path)?;
    }
    Ok(())
}

impl Checkpoint {
    /// Reads the parameters into a model of the same shape.
    pub fn load_model(&self, model: &Model) -> Result<()> {
        let wanted = model.parameters().iter().map(|p| (p.name.clone(), &p.tensor)).collect::<Vec<_>>();
        read_tensors(&self.path.join(MODEL), &wanted)
    }

    /// Reads the optimisers' state and the number of updates.
    pub fn load_optimizer(&self, model: &Model, optimizer: &mut AdamW, muon: Option<&Muon>) -> Result<()> {
        let wanted = optimizer_tensors(model, optimizer, muon);
        read_tensors(&self.path.join(OPTIMIZER), &wanted)?;
        optimizer.set_updates(self.state.step - self.state.guard.skipped.min(self.state.step));
        Ok(())
    }
}

/// Writes tensors as safetensors, in order: 8 bytes with the header's length, the header as JSON, the values.
pub(crate) fn write_tensors(path: &Path, tensors: &[(String, &Tensor)]) -> Result<FileSum> {
    let mut end = 0;
    let info = |(name, tensor): &(String, &Tensor)| {
        let start = end;
        end += tensor.numel() * 4;
        let shape = tensor.size().iter().map(|n| *n as usize).collect();
        (name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) })
    };
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let infos = tensors.iter().map(info).collect();
    let damaged = |error: safetensors::SafeTensorError| Error::Damaged {
        path: path.into(),
        problem: error.to_string(),
    };
    let header = Metadata::new(Some(metadata.into_iter().collect()), infos).map_err(damaged)?;
    let json = |source| Error::Json { path: path.into(), what: "safetensors header", source };
    let mut header = serde_json::to_vec(&header).map_err(json)?;
    header.resize(header.len().next_multiple_of(8), b' '); // the values begin aligned

    let file = File::create(path).map_err(Error::io(path))?;
    let mut out = HashingWriter { out: BufWriter::with_capacity(1 << 20, file), hash: Xxh3::new(), bytes: 0 };
    out.write(&(header.len() as u64).to_le_bytes()).map_err(Error::io(path))?;
    out.write(&header).map_err(Error::io(path))?;
    for (_, tensor) in tensors {
        with_bytes(tensor, |bytes| out.write(bytes).map_err(Error::io(path)))??;
    }
    out.finish().map_err(Error::io(path))
}

struct HashingWriter {
    out: BufWriter<File>,
    hash: Xxh3,
    bytes: u64,
}

impl HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn finish(self) -> std::io::Result<FileSum> {
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(FileSum { bytes: self.bytes, xxh3_128: hex(self.hash.digest128()) })
    }
}

/// Calls `f` with the values of an fp32 tensor as bytes, copied to the host only if they lie elsewhere.
fn with_bytes<R>(tensor: &Tensor, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
    let host = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let length = host.numel() * 4;
    if length == 0 {
        return Ok(f(&[])); // an empty tensor's address may be null
    }
    // SAFETY: `host` is a contiguous fp32 tensor in host memory that lives until the end of this function, so its
    // address is valid for 4 bytes an element, and nothing writes to it meanwhile: all tensor work is on this thread.
    Ok(f(unsafe { std::slice::from_raw_parts(host.data_ptr().cast::<u8>(), length) }))
}

/// Copies the values of a file into tensors; both must have the same names, shapes and dtypes.
fn read_tensors(path: &Path, wanted: &[(String, &Tensor)]) -> Result<()> {
    let damaged = |problem: String| Error::Damaged { path: path.to_owned(), problem };
    let file = File::open(path).map_err(Error::io(path))?;
    // SAFETY: the map is only read, and only within this function; checkpoints are replaced by renaming, never
    // written in place, so the file does not change under the map.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
    let stored = SafeTensors::deserialize(&map).map_err(|error| damaged(error.to_string()))?;
    if stored.len() != wanted.len() {
        return Err(damaged(format!("{} tensors, expected {}", stored.len(), wanted.len())));
    }
    let _no_grad = tch::no_grad_guard();
    for (name, tensor) in wanted {
        let found = stored.tensor(name).map_err(|_| damaged(format!("tensor {name} is missing")))?;
        let shape: Vec<i64> = found.shape().iter().map(|n| *n as i64).collect();
        if found.dtype() != Dtype::F32 || shape != tensor.size() {
            let (dtype, expected) = (found.dtype(), tensor.size());
            return Err(damaged(format!("tensor {name} is {dtype:?} {shape:?}, expected F32 {expected:?}")));
        }
        let values = Tensor::f_from_data_size(found.data(), &shape, Kind::Float)?;
        (*tensor).shallow_clone().f_copy_(&values)?;
    }
    Ok(())
}

fn check_file(path: &Path, sum: &FileSum) -> Result<()> {
    let damaged = |problem: String| Error::Damaged { path: path.to_owned(), problem };
    let file = File::open(path).map_err(Error::io(path))?;
    let bytes = file.metadata().map_err(Error::io(path))?.len();
    if bytes != sum.bytes {
        return Err(damaged(format!("{bytes} bytes, expected {}", sum.bytes)));
    }
    // SAFETY: as in `read_tensors`: only read, only here, and never changed in place.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
    let found = hex(xxh3_128(&map));
    if found != sum.xxh3_128 {
        return Err(damaged(format!("bad checksum (got {found}, expected {})", sum.xxh3_128)));
    }
    Ok(())
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}

/// Reads a JSON file.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, what: &'static str) -> Result<T> {
    let text = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), what, source })
}

/// Writes a JSON file beside its final name, syncs it and renames it.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let json = |source| Error::Json { path: path.to_owned(), what: "JSON value", source };
    let mut text = serde_json::to_vec_pretty(value).map_err(json)?;
    text.push(b'\n');
    write_file(path, &text)
}

/// Writes a file beside its final name, syncs it and renames it.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside = path.with_file_name(format!(".{name}.new"));
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(Error::io(path))
}

/// Gives a complete file its name.
pub(crate) fn rename(aside: &Path, path: &Path) -> Result<()> {
    std::fs::rename(aside, path).map_err(Error::io(path))
}

/// Takes a checkpoint out of sight in one step, then removes it.
fn retire(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside = path.with_file_name(format!(".{name}.old"));
    remove(&aside)?;
    std::fs::rename(path, &aside).map_err(Error::io(path))?;
    remove(&aside)
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(dir)(error)),
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io(dir))
}
