//! The GPU as the engine sees it: our kernels through the driver, matrix products and attention through torch.
//!
//! This is the one part that no test without a GPU reaches. It computes nothing itself, and what it asks of the device is compared
//! with the reference engine on that device before a run may use it ([`super::check`]).

use curate_shim::cuda::{Attended, Attention, Cuda, Graph};
use tch::{Device, Kind, Tensor};

use super::backend::{Backend, Documents, gather, spread};
use super::driver::{Driver, Module, architecture};
use super::launch::Launch;
use super::nvrtc::Nvrtc;
use super::{Options, cache, trouble};
use crate::config::ModelConfig;
use crate::{Result, device};

/// A CUDA device with the kernels for one element type loaded.
#[derive(Debug)]
pub(crate) struct Gpu {
    index: i32,
    driver: Driver,
    module: Module,
    shim: &'static Cuda,
    attention: Attention,
    /// Whether torch adds a product of bf16 matrices to an fp32 matrix in place; otherwise it is made aside and added.
    adds_products: bool,
}

impl Gpu {
    /// Opens driver, compiler and shim, and compiles the kernels or takes them from the cache.
    pub(crate) fn open(config: &ModelConfig, kind: Kind, device: Device, options: Options) -> Result<Gpu> {
        let Device::Cuda(index) = device else {
            return Err(trouble(format!("{} is not a CUDA device", device::name(device))));
        };
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let shim = Cuda::get()?;
        shim.use_device(index)?;
        let driver = Driver::open().map_err(trouble)?;
        drop(Tensor::f_zeros([1], (Kind::Float, device))?); // torch makes its context
        let capability = driver.capability().map_err(trouble)?;
        let nvrtc = Nvrtc::open().map_err(trouble)?;
        let architecture = architecture(capability, &nvrtc.architectures()).map_err(trouble)?;
        let cubin = cache::cubin(&nvrtc, kind, &architecture).map_err(trouble)?;
        let module = driver.load(&cubin, kind).map_err(trouble)?;
        let mut gpu =
            Gpu { index, driver, module, shim, attention: Attention::Efficient, adds_products: false };
        gpu.attention = gpu.choose_attention(config, kind, device, options)?;
        gpu.adds_products = kind == Kind::BFloat16 && gpu.can_add_products(device);
        Ok(gpu)
    }

    /// The first of torch's attention kernels, fastest first, that takes heads of this shape.
    fn choose_attention(
        &self,
        c: &ModelConfig,
        kind: Kind,
        device: Device,
        options: Options,
    ) -> Result<Attention> {
        let [h, k, d] = [c.heads, c.kv_heads, c.head_size()].map(i64::from);
        let tensor = |heads| Tensor::f_ones([1, 64, heads, d], (kind, device))?.f_transpose(1, 2);
        let (q, key) = (tensor(h)?, tensor(k)?);
        let works = |kernel: Attention| -> Result<()> {
            let key = if kernel == Attention::Flash { key.shallow_clone() } else { spread(&key, h)? };
            let (out, attended) = self.shim.attention(kernel, &q, &key, &key, None)?;
            let _gradients = self.shim.attention_backward(&attended, &out, &q, &key, &key)?;
            Ok(())
        };
        let asked = std::env::var("CURATE_ATTENTION").ok();
        let mut problems = Vec::new();
        for (name, kernel) in
            [("cudnn", Attention::CuDnn), ("flash", Attention::Flash), ("efficient", Attention::Efficient)]
        {
            let fits = match kernel {
                // Its backward pass adds atomically; grouped heads would have to be repeated.
                Attention::CuDnn => kind == Kind::BFloat16 && !options.deterministic && h == k,
                Attention::Flash => kind == Kind::BFloat16,
                Attention::Efficient => true,
            };
            if !fits || asked.as_ref().is_some_and(|asked| asked != name) {
                continue;
            }
            match works(kernel) {
                Ok(()) => return Ok(kernel),
                Err(problem) => problems.push(format!("{name}: {problem}")),
            }
        }
        Err(trouble(format!("torch has no attention kernel for these heads ({})", problems.join("; "))))
    }

    /// Whether [`product`](Backend::product) may add in place: an operator that not every torch has for these types.
    fn can_add_products(&self, device: Device) -> bool {
        let attempt = || {
            let a = Tensor::f_ones([16, 16], (Kind::BFloat16, device))?;
            let sum = Tensor::f_ones([16, 16], (Kind::Float, device))?;
            drop(sum.f_addmm_dtype_out(&sum, &a, &a, Kind::Float)?);
            sum.f_eq(17.0)?.f_all()?.f_int64_value(&[])
        };
        attempt().is_ok_and(|all| all == 1)
    }

    /// Keys and values as the attention kernel takes them.
    fn keys(&self, q: &Tensor, x: &Tensor) -> Result<Tensor> {
        match self.attention {
            Attention::Flash => Ok(x.shallow_clone()), // shares heads itself
            _ => spread(x, q.size()[1]),
        }
    }
}

impl Backend for Gpu {
    type Attended = Saved;
    type Recording = Graph;

    fn run(&self, launch: &Launch<'_>) -> Result<()> {
        if launch.blocks() == 0 {
            return Ok(());
        }
        let stream = self.shim.stream(self.index)?;
        self.driver.launch(&self.module, launch, stream).map_err(trouble)
    }

    fn product(&self, grad: &Tensor, a: &Tensor, b: &Tensor, add: bool) -> Result<()> {
        match (a.kind(), add) {
            (Kind::Float, false) => drop(a.f_mm_out(grad, b)?),
            (Kind::Float, true) => drop(grad.f_addmm_out(grad, a, b)?),
            (_, false) => drop(a.f_mm_dtype_out(grad, b, Kind::Float)?),
            (_, true) if self.adds_products => drop(grad.f_addmm_dtype_out(grad, a, b, Kind::Float)?),
            (_, true) => drop(grad.shallow_clone().f_add_(&a.f_mm_dtype(b, Kind::Float)?)?),
        }
        Ok(())
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        documents: Option<&Documents>,
    ) -> Result<(Tensor, Saved)> {
        let Some(documents) = documents else {
            let (out, attended) =
                self.shim.attention(self.attention, q, &self.keys(q, k)?, &self.keys(q, v)?, None)?;
            return Ok((out, Saved { attended, documents: false }));
        };
        let batch = q.size()[0];
        let [q, k, v] = [q, k, v].map(packed);
        let starts = Some((&documents.starts, documents.longest));
        let (out, attended) = self.shim.attention(Attention::Flash, &q?, &k?, &v?, starts)?;
        Ok((unpacked(&out, batch)?, Saved { attended, documents: true }))
    }

    fn attention_backward(
        &self,
        dout: &Tensor,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        saved: &Saved,
    ) -> Result<[Tensor; 3]> {
        if saved.documents {
            let [dout, q2, k2, v2] = [dout, q, k, v].map(packed);
            let gradients = self.shim.attention_backward(&saved.attended, &dout?, &q2?, &k2?, &v2?)?;
            let [dq, dk, dv] = gradients.map(|gradient| unpacked(&gradient, q.size()[0]));
            return Ok([dq?, dk?, dv?]);
        }
        let (keys, values) = (self.keys(q, k)?, self.keys(q, v)?);
        let [dq, dk, dv] = self.shim.attention_backward(&saved.attended, dout, q, &keys, &values)?;
        let kv_heads = k.size()[1];
        Ok([dq, gather(&dk, kv_heads)?, gather(&dv, kv_heads)?])
    }

    fn staging(&self, length: i64) -> Result<Tensor> {
        let memory = Tensor::f_zeros([length], (Kind::Int, Device::Cpu))?;
        Ok(memory.f_pin_memory(Device::Cuda(self.index as usize))?)
    }

    fn send(&self, to: &Tensor, from: &Tensor) -> Result<()> {
        Ok(self.shim.copy(to, from)?)
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Graph>> {
        self.shim.record(self.index, work).map(Some)
    }

    fn replay(&self, recording: &Graph) -> Result<()> {
        Ok(self.shim.replay(recording)?)
    }
}

/// Attention's result for the backward pass.
#[derive(Debug)]
pub(crate) struct Saved {
    attended: Attended,
    documents: bool,
}

/// [B, H, T, D] → [B T, H, D].
fn packed(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_transpose(1, 2)?.f_flatten(0, 1)?)
}

/// [B T, H, D] → [B, H, T, D].
fn unpacked(x: &Tensor, batch: i64) -> Result<Tensor> {
    let (rows, heads, size) = x.size3()?;
    Ok(x.f_reshape([batch, rows / batch, heads, size])?.f_transpose(1, 2)?)
}
