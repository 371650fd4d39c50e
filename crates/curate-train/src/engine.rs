//! Engines: how the gradients of a batch are computed and applied.
//!
//! [`Reference`] is slow, obvious and runs anywhere; [`Fused`] is the same mathematics written out for speed. Tests hold
//! both against an fp64 model, tensor by tensor. [`Aot`] calls machine code that TorchInductor has made of the step, and is
//! held against [`Reference`].

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::aot::{self, Aot};
use crate::config::TrainOptions;
use crate::cuda::{self, FusedCuda};
use crate::data::Batch;
use crate::fused::Fused;
use crate::model::Model;
use crate::optim::{self, AdamW};
use crate::train::loss_and_gradients_by;
use crate::{Error, Result};

/// Which engine a run uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Autograd.
    #[default]
    Reference,
    /// The backward pass written out, for a CPU or a GPU.
    Fused,
    /// A package of the compiled step, for a CPU.
    Aot,
}

impl EngineKind {
    /// The fastest engine for a device that is sure to work there: on a GPU the fused one must first be checked
    /// ([`cuda::check_device`]).
    pub fn fastest(device: Device) -> EngineKind {
        if device == Device::Cpu { EngineKind::Fused } else { EngineKind::Reference }
    }
}

/// Computes gradients and applies them. The trainer calls the three functions in their order, once a step.
pub trait Engine: std::fmt::Debug {
    /// Mean loss of the batch in nats, computed in pieces of `micro_batch` rows; the gradients stay with the engine.
    fn loss(&mut self, model: &Model, batch: &Batch, micro_batch: u32) -> Result<f64>;

    /// The gradients of the last batch, one for each parameter in order.
    fn gradients(&self) -> Vec<Tensor>;

    /// Global norm of these gradients, on the host.
    fn grad_norm(&self) -> Result<f64> {
        optim::global_norm(&self.gradients())
    }

    /// Updates the weights with these gradients times `scale`, but for those whose moments are empty.
    fn step(&mut self, model: &Model, adamw: &mut AdamW, lr: f64, scale: f64) -> Result<()>;

    /// Takes over the weights of these parameters, given by their places, after another optimiser has changed them.
    fn refresh(&mut self, parameters: &[usize]) -> Result<()> {
        let _ = parameters;
        Err(Error::option("--optimizer", "this engine has AdamW only; use --engine reference"))
    }

    /// Whether the engine heeds [`Batch::starts`].
    fn masks_documents(&self) -> bool {
        false
    }
}

/// Makes the engine of a run for its model, whose weights are in place.
pub fn of_run(options: &TrainOptions, model: &Model) -> Result<Box<dyn Engine>> {
    let numerics = &options.numerics;
    if numerics.deterministic && model.device().is_cuda() {
        cuda::set_deterministic()?;
    }
    match numerics.engine {
        EngineKind::Fused if model.device().is_cuda() => {
            Ok(Box::new(FusedCuda::new(model, cuda::Options::of_run(options))?))
        }
        EngineKind::Aot => Ok(Box::new(Aot::of_run(model, options)?)),
        kind => new(kind, model, numerics.recompute),
    }
}

/// Makes an engine for a model whose weights are in place.
///
/// # Errors
/// [`Error::Option`] for [`EngineKind::Aot`], which needs the options of a run.
pub fn new(kind: EngineKind, model: &Model, recompute: bool) -> Result<Box<dyn Engine>> {
    Ok(match kind {
        EngineKind::Reference => Box::new(Reference { gradients: Vec::new(), recompute }),
        EngineKind::Fused => Box::new(Fused::new(model, recompute)?),
        EngineKind::Aot => return Err(aot::no_package()),
    })
}

/// Autograd, one operation at a time.
#[derive(Debug, Default)]
pub struct Reference {
    gradients: Vec<Tensor>,
    recompute: bool,
}

impl Engine for Reference {
    fn loss(&mut self, model: &Model, batch: &Batch, micro_batch: u32) -> Result<f64> {
        self.gradients.clear();
        let (loss, gradients) = loss_and_gradients_by(model, batch, micro_batch, self.recompute)?;
        self.gradients = gradients;
        Ok(loss.f_double_value(&[])?) // waits for the device
    }

    fn gradients(&self) -> Vec<Tensor> {
        self.gradients.iter().map(Tensor::shallow_clone).collect()
    }

    fn step(&mut self, model: &Model, adamw: &mut AdamW, lr: f64, scale: f64) -> Result<()> {
        optim::scale(&mut self.gradients, scale)?;
        adamw.step(model.parameters(), &self.gradients, lr)
    }

    fn refresh(&mut self, _: &[usize]) -> Result<()> {
        Ok(()) // the model's weights are the only ones
    }

    fn masks_documents(&self) -> bool {
        true
    }
}

impl Engine for Fused {
    fn loss(&mut self, _: &Model, batch: &Batch, micro_batch: u32) -> Result<f64> {
        Fused::loss(self, batch, micro_batch)
    }

    fn gradients(&self) -> Vec<Tensor> {
        Fused::gradients(self)
    }

    fn step(&mut self, _: &Model, adamw: &mut AdamW, lr: f64, scale: f64) -> Result<()> {
        Fused::step(self, adamw, lr, scale)
    }

    fn refresh(&mut self, parameters: &[usize]) -> Result<()> {
        Fused::refresh(self, parameters)
    }

    fn masks_documents(&self) -> bool {
        true
    }
}

impl Engine for Aot {
    fn loss(&mut self, _: &Model, batch: &Batch, _: u32) -> Result<f64> {
        Aot::loss(self, batch)
    }

    fn gradients(&self) -> Vec<Tensor> {
        Aot::gradients(self)
    }

    fn step(&mut self, _: &Model, adamw: &mut AdamW, lr: f64, scale: f64) -> Result<()> {
        Aot::step(self, adamw, lr, scale);
        Ok(())
    }

    fn refresh(&mut self, _: &[usize]) -> Result<()> {
        Ok(()) // the package is given the model's weights at every call
    }
}
