//! The fused engine on a GPU.
//!
//! ```text
//! source ─ NVRTC ─▶ cubin (cached on disk) ─▶ driver ─▶ kernels ┐
//! engine: launches, matrix products, attention, in order ───────┼─▶ Backend: the GPU …
//!                                                               └─▶ … or, in tests, a CPU with the kernels emulated
//! ```
//! The kernels are CUDA C++ inside the program and are compiled for the GPU at hand when it is first used; matrix products and
//! attention are torch's. [`engine`] puts them in order and is the same code on both backends, so that tests without a GPU hold
//! every kernel, every launch and every gradient against an fp64 model.
//!
//! **State:** compiled for sm_80 to sm_120, emulated on a CPU, never run on a GPU. That is why a run may use it only after
//! [`check`] has compared it with the reference engine on its own device: `--engine fused` fails if that fails, `--engine auto`
//! takes the reference engine then.

mod backend;
mod cache;
mod check;
mod driver;
mod engine;
mod gpu;
mod launch;
mod nvrtc;
mod source;

#[cfg(test)]
mod emulator;
#[cfg(test)]
mod tests;

use tch::{Device, Kind, Tensor};

use crate::config::{CudaGraphs, Dtype, ModelConfig, TrainOptions};
use crate::data::Batch;
use crate::engine::Engine;
use crate::model::Model;
use crate::optim::AdamW;
use crate::{Error, Result};
use engine::{Fused, Graphs};
use gpu::Gpu;

pub use curate_shim::cuda::Memory;

/// Work of a micro-batch below which launching its kernels takes about as long as running them: then a graph pays.
const GRAPH_BELOW_FLOP: f64 = 2e12;

/// How the engine runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether blocks keep only their input and are run again for the backward pass.
    pub recompute: bool,
    /// Whether the micro-step is recorded once and replayed.
    pub graphs: CudaGraphs,
    /// Whether torch's own kernels must give the same bits every time; ours always do.
    pub deterministic: bool,
    /// Tokens of a micro-batch and of one of its rows, by which `graphs` is decided if it is [`CudaGraphs::Auto`].
    pub tokens: u64,
    /// See above.
    pub seq_len: u32,
}

impl Options {
    /// Those of a run.
    pub fn of_run(options: &TrainOptions) -> Options {
        let (numerics, seq_len) = (&options.numerics, options.data.seq_len);
        Options {
            recompute: numerics.recompute,
            graphs: numerics.cuda_graphs,
            deterministic: numerics.deterministic,
            tokens: u64::from(numerics.micro_batch) * u64::from(seq_len),
            seq_len,
        }
    }

    fn graphs(&self, config: &ModelConfig) -> Graphs {
        let flop = config.flop_per_token(self.seq_len) * self.tokens as f64;
        match self.graphs {
            CudaGraphs::On => Graphs::Always,
            CudaGraphs::Auto if flop < GRAPH_BELOW_FLOP => Graphs::Always,
            CudaGraphs::Auto | CudaGraphs::Off => Graphs::Never,
        }
    }
}

/// Forward and backward pass of one model on a GPU, with its gradients.
#[derive(Debug)]
pub struct FusedCuda(Fused<Gpu>);

impl FusedCuda {
    /// The engine of a model, after it has been checked on the model's device.
    pub fn new(model: &Model, options: Options) -> Result<FusedCuda> {
        let dtype = if model.dtype_name() == "bf16" { Dtype::Bf16 } else { Dtype::Fp32 };
        check_device(model.config(), dtype, model.device(), options)?;
        open(model, options).map(FusedCuda)
    }

    /// Takes over the weights of these parameters, given by their places, after another optimiser has changed them.
    pub fn refresh(&mut self, parameters: &[usize]) -> Result<()> {
        self.0.refresh(parameters)
    }
}

/// Compares the engine with the reference on a device, on a small model with the switches and widths of `config`: losses,
/// gradients, their norm and an update, by graph too if the run would use one.
pub fn check_device(config: &ModelConfig, dtype: Dtype, device: Device, options: Options) -> Result<()> {
    engine::check(config)?;
    if options.deterministic {
        set_deterministic()?;
    }
    let graphs = options.graphs(config);
    check::compare(config, dtype, device, |model| {
        let gpu = Gpu::open(model.config(), kind_of(dtype), device, options)?;
        Fused::new(model, gpu, options.recompute, graphs)
    })
    .map_err(|problem| match problem {
        check::Failure::Differs(problem) => trouble(format!("self-check: {problem}")),
        check::Failure::Error(error) => error,
    })
}

/// Makes torch choose kernels on GPUs that give the same bits every time, or fail; for the rest of the process.
pub fn set_deterministic() -> Result<()> {
    const VARIABLE: &str = "CUBLAS_WORKSPACE_CONFIG";
    if !std::env::var(VARIABLE).is_ok_and(|value| [":4096:8", ":16:8"].contains(&value.as_str())) {
        // Read by cuBLAS when it starts, and required by torch; a process cannot set it safely once it has threads.
        let problem = format!("matrix products need {VARIABLE}=:4096:8 in the environment");
        return Err(Error::Option { flag: "--deterministic", problem });
    }
    Ok(curate_shim::cuda::Cuda::get()?.set_deterministic(true)?)
}

fn open(model: &Model, options: Options) -> Result<Fused<Gpu>> {
    let kind = if model.dtype_name() == "bf16" { Kind::BFloat16 } else { Kind::Float };
    let gpu = Gpu::open(model.config(), kind, model.device(), options)?;
    Fused::new(model, gpu, options.recompute, options.graphs(model.config()))
}

fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Fp32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
    }
}

/// What torch's allocator holds on a CUDA device; `None` on others, and where the program was built without CUDA's headers.
pub fn memory(device: Device) -> Option<Memory> {
    let Device::Cuda(index) = device else { return None };
    curate_shim::cuda::Cuda::get().ok()?.memory(i32::try_from(index).ok()?).ok()
}

fn trouble(problem: String) -> Error {
    Error::FusedCuda { problem }
}

impl Engine for FusedCuda {
    fn loss(&mut self, _: &Model, batch: &Batch, micro_batch: u32) -> Result<f64> {
        self.0.loss_of_documents(batch, micro_batch, &batch.starts)
    }

    fn gradients(&self) -> Vec<Tensor> {
        self.0.gradients()
    }

    fn grad_norm(&self) -> Result<f64> {
        Ok(self.0.grad_norm())
    }

    fn step(&mut self, _: &Model, adamw: &mut AdamW, lr: f64, scale: f64) -> Result<()> {
        self.0.step(adamw, lr, scale)
    }

    fn refresh(&mut self, parameters: &[usize]) -> Result<()> {
        self.0.refresh(parameters)
    }

    fn masks_documents(&self) -> bool {
        true
    }
}
