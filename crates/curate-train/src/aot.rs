//! The compiled engine: a training step that TorchInductor has turned into machine code ahead of time.
//!
//! ```text
//! weights [, cos, sin], ids, targets, 1 / targets of the step ─▶ package ─▶ loss, gradients     per micro-batch
//!                                                                └─ added to one buffer for each parameter
//! ```
//! `python/export_step.py` makes the package with torch in full; calling it needs neither Python nor more of libtorch than the rest.
//! Its machine code takes for granted what it was made for, so that stands in its metadata, and everything is compared with the
//! run before the first call. A micro-batch that is short of rows is filled up with rows that have no targets.

use std::path::{Path, PathBuf};

use curate_shim::aoti::{self, Package};
use curate_shim::library::Library;
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::config::{Dtype, ModelConfig, RunConfig, TrainOptions, leaves};
use crate::data::Batch;
use crate::device::libtorch_folder;
use crate::model::{IGNORE, Model};
use crate::optim::AdamW;
use crate::slots::{self, Slot};
use crate::{Error, Result};

/// Where the metadata of a package says what it is for.
const KEY: &str = "curate";

/// The version of what it says there.
const FORMAT_VERSION: u32 = 1;

/// What a package is for, as `python/export_step.py` writes it.
#[derive(Debug, Deserialize)]
struct About {
    torch: String,
    model: ModelConfig,
    dtype: Dtype,
    /// Rows of a call.
    micro_batch: u32,
    /// Tokens of a row.
    seq_len: u32,
    /// Names and shapes, in the order in which they are passed and in which gradients come back.
    parameters: Vec<(String, Vec<i64>)>,
    /// Instruction sets of the processor it was compiled on, by the names of `/proc/cpuinfo`.
    processor: Vec<String>,
}

/// Rows of a call of a package: the only micro-batch that a run with it can have.
///
/// # Errors
/// [`Error::Package`] if the file is no package of `python/export_step.py`.
pub fn micro_batch(package: &Path) -> Result<u32> {
    Ok(About::of(package)?.micro_batch)
}

/// What is wrong with asking for this engine alone.
pub(crate) fn no_package() -> Error {
    Error::option("--engine", "aot needs the package of a compiled step: give --aot FILE.pt2")
}

/// The compiled step of one model, with its gradients.
#[derive(Debug)]
pub struct Aot {
    path: PathBuf,
    package: Package,
    about: About,
    /// One for each parameter, in the model's order.
    slots: Vec<Slot>,
    /// Cosines and sines of the rotary angles, [T, D / 2] each, if positions are rotations.
    rotation: Vec<Tensor>,
}

impl Aot {
    /// The engine of a run, with the package that its options name.
    ///
    /// # Errors
    /// [`Error::Package`] if the file is no package, or was made for another model, arithmetic, micro-batch, length of rows,
    /// libtorch or processor.
    pub fn of_run(model: &Model, options: &TrainOptions) -> Result<Aot> {
        let path = options.numerics.aot.as_ref().ok_or_else(no_package)?;
        let about = About::of(path)?;
        let refused = |problem: String| Error::Package { path: path.clone(), problem };
        about.check(model, options).map_err(refused)?;
        let _no_grad = tch::no_grad_guard();
        // The package's shared object needs it by name and has no path to it; there may be none beside a libtorch of other
        // make, and then the loader's own folders are looked through.
        let stub = libtorch_folder().map_err(refused)?.join("libtorch.so");
        let _ = Library::open_global(&stub);
        let rotation = model.rotation().map(|(cos, sin)| [cos.shallow_clone(), sin.shallow_clone()]);
        Ok(Aot {
            package: Package::open(path)?,
            path: path.clone(),
            about,
            // Weights are cast inside the package: no shadows.
            slots: Slot::all_of(model, Kind::Float)?,
            rotation: rotation.into_iter().flatten().collect(),
        })
    }

    /// Mean loss of a batch in nats; its gradients are then in [`gradients`](Self::gradients).
    pub fn loss(&mut self, batch: &Batch) -> Result<f64> {
        let _no_grad = tch::no_grad_guard();
        if batch.seq_len != self.about.seq_len as usize || !batch.starts.is_empty() {
            return Err(self.refused(format!("it has rows of {} tokens and no mask", self.about.seq_len)));
        }
        let scale = Tensor::f_from_slice(&[1.0 / batch.num_targets().max(1) as f32])?.f_squeeze()?;
        let mut loss = 0.0;
        for (number, (_, ids, targets)) in batch.micro_batches(self.about.micro_batch as usize).enumerate() {
            let results = self.call(&self.rows(ids, 0)?, &self.rows(targets, IGNORE)?, &scale)?;
            loss += results[0].f_double_value(&[])?;
            for (slot, gradient) in self.slots.iter_mut().zip(&results[1..]) {
                match number {
                    0 => slot.grad.f_copy_(gradient)?,
                    _ => drop(slot.grad.f_add_(gradient)?),
                }
            }
        }
        Ok(loss)
    }

    /// The gradients of the last batch, one for each parameter in order.
    pub fn gradients(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.grad.shallow_clone()).collect()
    }

    /// One AdamW update with the gradients of the last batch times `scale`, of the parameters that have moments.
    pub fn step(&mut self, adamw: &mut AdamW, lr: f64, scale: f64) {
        slots::update(&mut self.slots, adamw, lr, scale);
    }

    /// Ids or targets of at most a micro-batch as [B, T], filled up with `filler`. What is neither an id nor a filler is
    /// refused: the machine code would read beside its tables.
    fn rows(&self, values: &[i64], filler: i64) -> Result<Tensor> {
        let vocab_size = self.about.model.vocab_size;
        let is_known = |id: &i64| *id == filler || (0..i64::from(vocab_size)).contains(id);
        if let Some(&id) = values.iter().find(|id| !is_known(id)) {
            let id = u32::try_from(id).unwrap_or(u32::MAX);
            return Err(Error::TokenOutOfRange { split: "train".into(), id, vocab_size });
        }
        let shape = [i64::from(self.about.micro_batch), i64::from(self.about.seq_len)];
        let mut values = values.to_vec();
        values.resize((shape[0] * shape[1]) as usize, filler);
        Ok(Tensor::f_from_slice(&values)?.f_view(shape)?)
    }

    /// Calls the package: the loss, then a gradient of each parameter in its shape.
    fn call(&mut self, ids: &Tensor, targets: &Tensor, scale: &Tensor) -> Result<Vec<Tensor>> {
        let weights = self.slots.iter().map(|slot| &slot.weight);
        let inputs: Vec<&Tensor> = weights.chain(&self.rotation).chain([ids, targets, scale]).collect();
        // SAFETY: `About::check` has found the model's parameters to be those of the package in number, order and shape, and the
        // rotation follows from its shape; they are contiguous fp32 on the CPU, as the trainer makes them. `rows` gives the
        // ids and targets their shape and range.
        let results = unsafe { self.package.run(&inputs, 1 + self.slots.len()) }?;
        let is_scalar = results[0].numel() == 1;
        match is_scalar && self.slots.iter().zip(&results[1..]).all(|(s, g)| s.weight.size() == g.size()) {
            true => Ok(results),
            false => Err(self.refused("what it returns are not the gradients of this model".into())),
        }
    }

    fn refused(&self, problem: String) -> Error {
        Error::Package { path: self.path.clone(), problem }
    }
}

impl About {
    fn of(path: &Path) -> Result<About> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let refused = |problem: String| Error::Package { path: path.to_owned(), problem };
        if !path.is_file() {
            return Err(refused("there is no such file".into()));
        }
        let not_ours = |what: &str| refused(format!("not a package of python/export_step.py ({what})"));
        let text = aoti::metadata(path, KEY).map_err(|error| not_ours(&error.to_string()))?;
        let text = text.ok_or_else(|| not_ours("it does not say what it is for"))?;
        let Version { format_version } =
            serde_json::from_str(&text).map_err(|error| not_ours(&error.to_string()))?;
        if format_version != FORMAT_VERSION {
            return Err(refused(format!("of version {format_version}, this program reads {FORMAT_VERSION}")));
        }
        serde_json::from_str(&text).map_err(|error| not_ours(&error.to_string()))
    }

    /// Why a run cannot have this package.
    fn check(&self, model: &Model, options: &TrainOptions) -> Result<(), String> {
        let made_for = |what: &str, own: &str, run: &str| match own == run {
            true => Ok(()),
            false => Err(format!("it was made for {what} {own}, the run has {run}")),
        };
        made_for("libtorch", &self.torch, RunConfig::LIBTORCH)?;
        let json = |config: &ModelConfig| leaves(&serde_json::to_value(config).expect("plain data"));
        for ((name, own), (_, run)) in json(&self.model).iter().zip(&json(model.config())) {
            made_for(name, own, run)?;
        }
        let dtype = if self.dtype == Dtype::Bf16 { "bf16" } else { "fp32" };
        made_for("dtype", dtype, model.dtype_name())?;
        made_for("rows of", &self.seq_len.to_string(), &options.data.seq_len.to_string())?;
        let micro_batch = options.numerics.micro_batch.to_string();
        made_for("micro-batches of", &self.micro_batch.to_string(), &micro_batch)?;
        let parameters = model.parameters();
        made_for(
            "a number of weights of",
            &self.parameters.len().to_string(),
            &parameters.len().to_string(),
        )?;
        for ((name, shape), parameter) in self.parameters.iter().zip(parameters) {
            let run = format!("{} {:?}", parameter.name, parameter.tensor.size());
            made_for("the weight", &format!("{name} {shape:?}"), &run)?;
        }
        match missing(&self.processor, &instruction_sets()) {
            None => Ok(()),
            Some(set) => Err(format!("it was compiled for a processor with {set}, which this one lacks")),
        }
    }
}

/// The first of the instruction sets that is not there; none if those of this machine are unknown.
fn missing<'a>(needed: &'a [String], there: &[String]) -> Option<&'a String> {
    if there.is_empty() { None } else { needed.iter().find(|set| !there.contains(set)) }
}

/// What the first processor can do, where Linux tells it.
fn instruction_sets() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("flags"));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_lacks_something_is_found_out() {
        let sets = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let check = |needed: &[&str], there: &[&str], expected: Option<&str>| {
            let needed = sets(needed);
            assert_eq!(missing(&needed, &sets(there)).map(String::as_str), expected);
        };
        check(&["avx2", "fma"], &["fma", "avx2", "avx512f"], None);
        check(&["avx2", "amx_bf16"], &["fma", "avx2"], Some("amx_bf16"));
        check(&["avx2"], &[], None);
        check(&[], &["fma"], None);
    }

    #[test]
    fn what_is_no_package_is_refused() {
        let check = |path: &str, expected: &str| {
            let error = micro_batch(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{path}: {expected}")), "{error}");
        };
        check("/nowhere/step.pt2", "there is no such file");
        check("Cargo.toml", "not a package of python/export_step.py (aoti::metadata: ");
    }
}
