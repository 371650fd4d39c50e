//! The fused engine: forward and backward pass written out for the CPU, without autograd.
//!
//! ```text
//! per micro-batch:  embed ─▶ blocks, saving what the backward pass needs ─▶ norm
//!                   ─▶ pieces of rows: logits ─▶ loss and gradient in place ─▶ gradients of head and hidden state
//!                   ─▶ blocks in reverse, gradients added to one buffer for each parameter
//! ```
//! The gradient buffers are made once. Weight gradients are added by the matrix product itself, logits exist only for a
//! piece of the rows, and what lies between the products are single passes ([`crate::kernels`]): a residual addition
//! with its bias and the normalisation after it, an activation with its bias, the cross-entropy, AdamW.
//! With bf16 the matrix products run in bf16 on shadow weights that the optimiser writes, and so does what they take and
//! give; attention's arithmetic ([`crate::attention`]), the residual stream, the normalisations and all sums of gradients
//! stay fp32.

use curate_shim::linear;
use half::bf16;
use tch::{Device, Kind, Tensor};

use crate::attention::{self, Attended};
use crate::config::{self, Dtype, ModelConfig, NumericOptions};
use crate::data::Batch;
use crate::engine::EngineKind;
use crate::kernels::{
    self, Element, Norm, NormGradients, elements, elements_mut, floats, floats_mut, in_parallel,
};
use crate::model::{IGNORE, Model};
use crate::optim::AdamW;
use crate::slots::{self, BlockNames, Names, Pair, Slot};
use crate::{Error, Result};

/// Bytes of logits that exist at once, unless said otherwise. A piece of the head's backward pass goes over all gradients
/// of the head, so that small pieces cost time.
const LOGITS_BYTES: usize = 1 << 27;

/// Rows that a thread works on at once. Sums over rows are those of such parts, added in their order, so that they do
/// not depend on the number of threads.
const PART: usize = 64;

/// Whose matrix products are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// oneDNN's.
    OneDnn,
    /// Those that libtorch chooses: in fp32, MKL's.
    Libtorch,
}

impl Products {
    /// What a run takes on this machine, if it uses the fused engine on the CPU.
    pub fn of_run(numerics: &NumericOptions) -> Option<Products> {
        let kind = if numerics.dtype == Dtype::Bf16 { Kind::BFloat16 } else { Kind::Float };
        let applies = numerics.engine == EngineKind::Fused && numerics.device == "cpu";
        applies.then(|| Products::of_this_machine(kind))
    }

    /// A fixed rule, so that a run can be repeated: oneDNN where it has AVX-512, but on Intel's processors MKL in fp32.
    ///
    /// MKL takes slower kernels on processors of others: see `benches/train`. bf16 is oneDNN's in libtorch too.
    pub fn of_this_machine(kind: Kind) -> Products {
        match linear::is_supported() && (kind == Kind::BFloat16 || !is_intel()) {
            true => Products::OneDnn,
            false => Products::Libtorch,
        }
    }
}

/// Whether the processor says it is Intel's.
fn is_intel() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let id = std::arch::x86_64::__cpuid(0);
        [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Forward and backward pass of one model, with its gradients.
#[derive(Debug)]
pub struct Fused {
    config: ModelConfig,
    kind: Kind,
    products: Products,
    /// One for each parameter, in the model's order.
    slots: Vec<Slot>,
    names: Names,
    /// Cosines and sines: [T, D / 2] each.
    rotation: Option<(Tensor, Tensor)>,
    /// The bias of layers that have none: as long as the widest.
    zeros: Vec<f32>,
    recompute: bool,
    logits_bytes: usize,
    /// Whether the gradient buffers hold nothing of the present step.
    fresh: bool,
    /// Where the documents of the present micro-batch begin, if each sees itself alone ([`Batch::starts`]).
    starts: Vec<Vec<u32>>,
}

/// The residual stream, with what is still to be added to it.
#[derive(Debug)]
struct Stream {
    /// [N, C] in fp32.
    x: Tensor,
    addend: Option<Addend>,
}

/// The output of a linear layer whose bias is not added yet.
#[derive(Debug)]
struct Addend {
    y: Tensor,
    bias: Option<usize>,
}

/// What the backward pass of a normalisation needs.
#[derive(Debug)]
struct NormSaved {
    /// What was normalised.
    input: Tensor,
    stats: Vec<[f32; 2]>,
}

/// What the backward pass of a block needs.
#[derive(Debug)]
struct Saved {
    norm1: NormSaved,
    h1: Tensor,
    q_norm: Option<(NormSaved, NormSaved)>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attended: Tensor,
    log_sum_exp: Tensor,
    y: Tensor,
    norm2: NormSaved,
    h2: Tensor,
    /// Without its bias.
    up: Tensor,
    active: Tensor,
}

/// A micro-batch's shape.
#[derive(Clone, Copy, Debug)]
struct Size {
    batch: i64,
    time: i64,
}

impl Fused {
    /// The engine of a model on the CPU. With `recompute`, blocks keep only their input and are run again for the
    /// backward pass: a third more work, memory for one block instead of all.
    pub fn new(model: &Model, recompute: bool) -> Result<Fused> {
        if model.device() != Device::Cpu {
            let problem = "the fused engine has no CUDA kernels yet; use reference there".to_owned();
            return Err(Error::Option { flag: "--engine", problem });
        }
        let kind = if model.dtype_name() == "bf16" { Kind::BFloat16 } else { Kind::Float };
        Ok(Fused {
            config: model.config().clone(),
            kind,
            products: Products::of_this_machine(kind),
            slots: Slot::all_of(model, kind)?,
            names: Names::of(model),
            rotation: model.rotation().map(|(cos, sin)| (cos.shallow_clone(), sin.shallow_clone())),
            zeros: vec![0.0; 2 * model.config().mlp_hidden as usize],
            recompute,
            logits_bytes: LOGITS_BYTES,
            fresh: true,
            starts: Vec::new(),
        })
    }

    /// The same engine with at most `bytes` of logits at once, but a row of them at least.
    pub fn with_logits_bytes(self, bytes: usize) -> Fused {
        Fused { logits_bytes: bytes, ..self }
    }

    /// Whose matrix products are used here.
    pub fn products(&self) -> Products {
        self.products
    }

    /// Mean loss of a batch in nats; its gradients are then in [`gradients`](Self::gradients).
    ///
    /// As with the reference, the cut into micro-batches changes only rounding.
    pub fn loss(&mut self, batch: &Batch, micro_batch: u32) -> Result<f64> {
        let _no_grad = tch::no_grad_guard();
        self.fresh = true;
        let inverse = 1.0 / batch.num_targets().max(1) as f64;
        let (mut nats, mut first_row) = (0.0, 0);
        for (rows, inputs, targets) in batch.micro_batches(micro_batch as usize) {
            self.starts = batch.starts_of(first_row, rows).to_vec();
            first_row += rows;
            let size = Size { batch: rows as i64, time: batch.seq_len as i64 };
            nats += match self.kind {
                Kind::BFloat16 => self.micro_batch::<bf16>(size, inputs, targets, inverse)?,
                _ => self.micro_batch::<f32>(size, inputs, targets, inverse)?,
            };
            self.fresh = false;
        }
        Ok(nats * inverse)
    }

    /// The gradients of the last batch, one for each parameter in order.
    pub fn gradients(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.grad.shallow_clone()).collect()
    }

    /// Takes over the weights of these parameters after something else has changed them.
    pub fn refresh(&mut self, parameters: &[usize]) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        for &parameter in parameters {
            let Slot { weight, shadow, .. } = &mut self.slots[parameter];
            if let Some(shadow) = shadow {
                shadow.f_copy_(weight)?;
            }
        }
        Ok(())
    }

    /// One AdamW update with the gradients of the last batch times `scale`, of the parameters that have moments.
    pub fn step(&mut self, adamw: &mut AdamW, lr: f64, scale: f64) -> Result<()> {
        slots::update(&mut self.slots, adamw, lr, scale);
        Ok(())
    }

    /// Adds the loss of a micro-batch times `scale` to the gradients, and returns the sum of its losses in nats.
    fn micro_batch<E: Element>(
        &mut self,
        size: Size,
        inputs: &[i64],
        targets: &[i64],
        scale: f64,
    ) -> Result<f64> {
        let blocks = self.names.blocks.clone();
        let mut stream = Stream { x: self.embed(size, inputs)?, addend: None };
        let (mut saved, mut block_inputs) = (Vec::new(), Vec::new());
        for block in &blocks {
            let (next, kept) = self.block_forward::<E>(block, size, stream)?;
            match self.recompute {
                true => block_inputs.push(kept.norm1.input),
                false => saved.push(kept),
            }
            stream = next;
        }
        let (hidden, last) = self.norm_forward::<E>(self.names.norm, self.is_centred(), stream)?;
        let (nats, dhidden) = self.head::<E>(&hidden, targets, scale)?;
        drop(hidden);
        let mut dx = last.input.f_zeros_like()?;
        let before = blocks.last().map(|block| block.down);
        let mut dy = self.norm_backward::<E>(self.names.norm, before, &dhidden, &last, &mut dx)?;
        drop((last, dhidden));
        for (i, block) in blocks.iter().enumerate().rev() {
            let kept = match block_inputs.pop() {
                Some(x) => self.block_forward::<E>(block, size, Stream { x, addend: None })?.1,
                None => saved.pop().expect("one for each block"),
            };
            let before = i.checked_sub(1).map(|i| blocks[i].down);
            dy = self.block_backward::<E>(block, before, size, kept, dy, &mut dx)?;
        }
        self.embed_backward(size, inputs, &dx)?;
        Ok(nats)
    }

    fn embed(&self, size: Size, inputs: &[i64]) -> Result<Tensor> {
        let mut out = Tensor::f_empty(
            [size.batch * size.time, self.config.channels.into()],
            (Kind::Float, Device::Cpu),
        )?;
        let c = self.config.channels as usize;
        let embedding = floats(&self.slots[self.names.embedding].weight);
        let position = self.names.position.map(|slot| floats(&self.slots[slot].weight));
        let places = self.places(size);
        for (i, (row, &token)) in floats_mut(&mut out).chunks_exact_mut(c).zip(inputs).enumerate() {
            let token = self.row_of(token)?;
            row.copy_from_slice(&embedding[token * c..][..c]);
            if let Some(position) = position {
                let at = places[i] * c;
                row.iter_mut().zip(&position[at..][..c]).for_each(|(x, p)| *x += p);
            }
        }
        Ok(out)
    }

    /// The position of each token of a micro-batch.
    fn places(&self, size: Size) -> Vec<usize> {
        let time = size.time as usize;
        let mut places: Vec<usize> = (0..size.batch as usize * time).map(|i| i % time).collect();
        for (row, starts) in places.chunks_exact_mut(time).zip(&self.starts) {
            for &start in starts {
                row[start as usize..].iter_mut().enumerate().for_each(|(place, at)| *at = place);
            }
        }
        places
    }

    /// A token id as a row of the embedding.
    fn row_of(&self, token: i64) -> Result<usize> {
        let row = usize::try_from(token).ok().filter(|row| *row < self.config.vocab_size as usize);
        row.ok_or_else(|| Error::TokenOutOfRange {
            split: "train".into(),
            id: u32::try_from(token).unwrap_or(u32::MAX),
            vocab_size: self.config.vocab_size,
        })
    }

    fn embed_backward(&mut self, size: Size, inputs: &[i64], dx: &Tensor) -> Result<()> {
        let c = self.config.channels as usize;
        let (names, fresh) = (&self.names, self.fresh);
        let rows = floats(dx);
        let slot = &mut self.slots[names.embedding].grad;
        if fresh && names.head != names.embedding {
            let _ = slot.f_zero_()?;
        }
        let grad = floats_mut(slot);
        for (row, &token) in rows.chunks_exact(c).zip(inputs) {
            grad[token as usize * c..][..c].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        if let Some(position) = names.position {
            let places = self.places(size);
            let slot = &mut self.slots[position].grad;
            if fresh {
                let _ = slot.f_zero_()?;
            }
            let grad = floats_mut(slot);
            for (row, &place) in rows.chunks_exact(c).zip(&places) {
                grad[place * c..][..c].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        }
        Ok(())
    }

    /// `x` · weightᵀ, without the bias: [N, I] → [N, O].
    fn linear(&self, pair: Pair, x: &Tensor) -> Result<Tensor> {
        let weight = self.slots[pair.weight].value();
        match self.products {
            Products::Libtorch => Ok(x.f_linear(weight, None::<Tensor>)?),
            Products::OneDnn => {
                let mut y = empty(&[x.size()[0], weight.size()[0]], x.kind())?;
                linear::forward(x, weight, &mut y)?;
                Ok(y)
            }
        }
    }

    /// Adds the gradient of the weight and returns that of the input.
    fn linear_backward<E: Element>(&mut self, pair: Pair, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let mut dx = empty(&x.size(), E::KIND)?;
        self.linear_backward_to::<E>(pair, x, dy, &mut dx, self.fresh)?;
        Ok(dx)
    }

    /// Adds the gradient of the weight, or replaces it, and writes that of the input.
    fn linear_backward_to<E: Element>(
        &mut self,
        pair: Pair,
        x: &Tensor,
        dy: &Tensor,
        dx: &mut Tensor,
        replace: bool,
    ) -> Result<()> {
        let slot = &mut self.slots[pair.weight];
        let is_low = E::KIND != Kind::Float;
        let mut low = if is_low { Some(empty(&slot.grad.size(), E::KIND)?) } else { None };
        let (out, accumulate) = (low.as_mut().unwrap_or(&mut slot.grad), !is_low && !replace);
        match self.products {
            Products::OneDnn => linear::weight_gradient(dy, x, out, accumulate)?,
            Products::Libtorch if accumulate => drop(out.f_addmm_(&dy.f_tr()?, x)?),
            Products::Libtorch => drop(dy.f_tr()?.f_mm_out(out, x)?),
        }
        if let Some(low) = low {
            let pieces = floats_mut(&mut slot.grad)
                .chunks_mut(slots::PIECE)
                .zip(elements::<E>(&low).chunks(slots::PIECE));
            in_parallel(pieces.collect(), low.numel(), |(sums, new)| kernels::accumulate(sums, new, replace));
        }
        match self.products {
            Products::OneDnn => linear::input_gradient(dy, slot.value(), dx)?,
            Products::Libtorch => drop(dy.f_mm_out(dx, slot.value())?),
        }
        Ok(())
    }

    /// Whether the model's normalisation is LayerNorm, not RMSNorm.
    fn is_centred(&self) -> bool {
        self.config.norm == config::Norm::LayerNorm
    }

    /// The bias of a layer, or zeros: `length` of them.
    fn bias(&self, pair: Pair, length: usize) -> &[f32] {
        pair.bias.map_or(&self.zeros[..length], |bias| floats(&self.slots[bias].weight))
    }

    fn norm(&self, pair: Pair, centred: bool) -> Norm<'_> {
        Norm {
            weight: floats(&self.slots[pair.weight].weight),
            bias: pair.bias.map(|bias| floats(&self.slots[bias].weight)),
            centred,
            eps: self.config.norm_eps as f32,
        }
    }

    /// Adds what is to be added to the stream and normalises it: [N, C] in fp32 → [N, C].
    fn norm_forward<E: Element>(
        &self,
        pair: Pair,
        centred: bool,
        stream: Stream,
    ) -> Result<(Tensor, NormSaved)> {
        let norm = self.norm(pair, centred);
        let (c, elements_in) = (norm.weight.len(), stream.x.numel());
        let mut out = empty(&stream.x.size(), E::KIND)?;
        let mut stats = vec![[0.0; 2]; elements_in / c];
        let parts = floats(&stream.x).chunks(PART * c);
        let outs = elements_mut::<E>(&mut out).chunks_mut(PART * c).zip(stats.chunks_mut(PART));
        let Some(Addend { y, bias }) = stream.addend else {
            in_parallel(parts.zip(outs).collect(), elements_in, |(x, (out, stats))| {
                kernels::norm_rows(x, norm, out, stats);
            });
            return Ok((out, NormSaved { input: stream.x, stats }));
        };
        let bias = bias.map(|bias| floats(&self.slots[bias].weight));
        let mut sum = stream.x.f_empty_like()?;
        let sums = floats_mut(&mut sum).chunks_mut(PART * c);
        let parts = parts.zip(elements::<E>(&y).chunks(PART * c)).zip(sums).zip(outs);
        in_parallel(parts.collect(), elements_in, |(((x, y), sum), (out, stats))| {
            kernels::add_norm_rows(x, y, bias, sum, norm, out, stats);
        });
        Ok((out, NormSaved { input: sum, stats }))
    }

    /// Adds the gradient of the stream to `dx`, and returns that of the output of the layer that was added `before`.
    fn norm_backward<E: Element>(
        &mut self,
        pair: Pair,
        before: Option<Pair>,
        dy: &Tensor,
        saved: &NormSaved,
        dx: &mut Tensor,
    ) -> Result<Tensor> {
        let centred = self.is_centred();
        if before.is_none() || E::KIND == Kind::Float {
            self.norm_any_backward::<E>(pair, centred, before, dy, saved, dx, None)?;
            return Ok(dx.shallow_clone());
        }
        let mut addend = empty(&dx.size(), E::KIND)?;
        self.norm_any_backward::<E>(pair, centred, before, dy, saved, dx, Some(&mut addend))?;
        Ok(addend)
    }

    #[allow(clippy::too_many_arguments)] // the one place where all cases meet
    fn norm_any_backward<E: Element>(
        &mut self,
        pair: Pair,
        centred: bool,
        before: Option<Pair>,
        dy: &Tensor,
        saved: &NormSaved,
        dx: &mut Tensor,
        addend: Option<&mut Tensor>,
    ) -> Result<()> {
        let addend_bias = before.and_then(|before| before.bias);
        let norm = self.norm(pair, centred);
        let c = norm.weight.len();
        let count = saved.stats.len().div_ceil(PART);
        // For each part its sums: of the weight, the bias and the addend's bias.
        let mut sums = vec![0.0; count * 3 * c];
        let mut addends = addend.map(|addend| elements_mut::<E>(addend).chunks_mut(PART * c));
        let gradients =
            floats_mut(dx).chunks_mut(PART * c).zip(sums.chunks_exact_mut(3 * c)).map(|(dx, sums)| {
                let (weight, rest) = sums.split_at_mut(c);
                let (bias, last) = rest.split_at_mut(c);
                let bias = pair.bias.is_some().then_some(bias);
                let addend_bias = addend_bias.is_some().then_some(last);
                let addend = addends.as_mut().and_then(Iterator::next);
                NormGradients { dx, addend, weight, bias, addend_bias }
            });
        let parts = elements::<E>(dy).chunks(PART * c).zip(floats(&saved.input).chunks(PART * c));
        let work = parts.zip(saved.stats.chunks(PART)).zip(gradients).collect();
        in_parallel(work, saved.input.numel(), |(((dy, x), stats), gradients)| {
            kernels::norm_rows_backward(dy, x, norm, stats, gradients);
        });
        for (i, slot) in [Some(pair.weight), pair.bias, addend_bias].into_iter().enumerate() {
            self.add_sums(slot, sums.chunks_exact(3 * c).map(|sums| &sums[i * c..][..c]))?;
        }
        Ok(())
    }

    /// Adds sums to the gradient of a vector, if there is one.
    fn add_sums<'a>(&mut self, slot: Option<usize>, sums: impl Iterator<Item = &'a [f32]>) -> Result<()> {
        let Some(slot) = slot else { return Ok(()) };
        let grad = &mut self.slots[slot].grad;
        if self.fresh {
            let _ = grad.f_zero_()?;
        }
        let grad = floats_mut(grad);
        sums.for_each(|sums| grad.iter_mut().zip(sums).for_each(|(grad, sum)| *grad += sum));
        Ok(())
    }

    /// The activation of the MLP, of [N, F] or for SwiGLU [N, 2 F]: [N, F].
    fn activate<E: Element>(&self, pair: Pair, up: &Tensor) -> Result<Tensor> {
        let (rows, width) = up.size2()?;
        let (mlp, f) = (self.config.mlp, self.config.mlp_hidden as usize);
        let mut out = empty(&[rows, f as i64], E::KIND)?;
        let bias = self.bias(pair, width as usize);
        let parts = elements::<E>(up).chunks(PART * bias.len());
        let parts = parts.zip(elements_mut::<E>(&mut out).chunks_mut(PART * f));
        in_parallel(parts.collect(), up.numel(), |(up, out)| kernels::activate_rows(mlp, up, bias, out));
        Ok(out)
    }

    /// The gradient of what is activated; that of its bias is added.
    fn activate_backward<E: Element>(&mut self, pair: Pair, up: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let (rows, width) = (up.size()[0] as usize, up.size()[1] as usize);
        let (mlp, f) = (self.config.mlp, self.config.mlp_hidden as usize);
        let mut dup = empty(&up.size(), E::KIND)?;
        let mut sums = vec![0.0; rows.div_ceil(PART) * width];
        let bias = self.bias(pair, width);
        let parts = elements::<E>(up).chunks(PART * width).zip(elements::<E>(dy).chunks(PART * f));
        let outs = elements_mut::<E>(&mut dup).chunks_mut(PART * width).zip(sums.chunks_exact_mut(width));
        in_parallel(parts.zip(outs).collect(), up.numel(), |((up, dy), (dup, sums))| {
            kernels::activate_rows_backward(mlp, up, bias, dy, dup, sums);
        });
        self.add_sums(pair.bias, sums.chunks_exact(width))?;
        Ok(dup)
    }

    fn block_forward<E: Element>(
        &self,
        block: &BlockNames,
        size: Size,
        stream: Stream,
    ) -> Result<(Stream, Saved)> {
        let centred = self.is_centred();
        let (h1, norm1) = self.norm_forward::<E>(block.norm1, centred, stream)?;
        let mut qkv = self.linear(block.qkv, &h1)?;
        if let Some(bias) = block.qkv.bias {
            let bias = floats(&self.slots[bias].weight);
            let elements_in = qkv.numel();
            let parts = elements_mut::<E>(&mut qkv).chunks_mut(PART * bias.len());
            in_parallel(parts.collect(), elements_in, |rows| kernels::add_bias(rows, bias));
        }
        let (q, k, v, q_norm) = self.heads(block, size, &qkv)?;
        drop(qkv);
        let (attended, log_sum_exp) =
            attention::forward::<E>(&q, &self.spread(&k)?, &self.spread(&v)?, &self.starts)?; // [B, H, T, D]
        let y = attended.f_transpose(1, 2)?.f_reshape([size.batch * size.time, -1])?;
        let addend = Some(Addend { y: self.linear(block.out, &y)?, bias: block.out.bias });
        let stream = Stream { x: norm1.input.shallow_clone(), addend };
        let (h2, norm2) = self.norm_forward::<E>(block.norm2, centred, stream)?;
        let up = self.linear(block.up, &h2)?;
        let active = self.activate::<E>(block.up, &up)?;
        let addend = Some(Addend { y: self.linear(block.down, &active)?, bias: block.down.bias });
        let stream = Stream { x: norm2.input.shallow_clone(), addend };
        let saved = Saved { norm1, h1, q_norm, q, k, v, attended, log_sum_exp, y, norm2, h2, up, active };
        Ok((stream, saved))
    }

    /// `dx` is the gradient of the stream after the block and becomes that of the one before it; `dy` is the gradient of
    /// the block's last layer, and that of the layer `before` the block is returned.
    fn block_backward<E: Element>(
        &mut self,
        block: &BlockNames,
        before: Option<Pair>,
        size: Size,
        saved: Saved,
        dy: Tensor,
        dx: &mut Tensor,
    ) -> Result<Tensor> {
        let Saved { norm1, h1, q_norm, q, k, v, attended, log_sum_exp, y, norm2, h2, up, active } = saved;
        let dactive = self.linear_backward::<E>(block.down, &active, &dy)?;
        drop((active, dy));
        let dup = self.activate_backward::<E>(block.up, &up, &dactive)?;
        drop((dactive, up));
        let dh2 = self.linear_backward::<E>(block.up, &h2, &dup)?;
        drop((dup, h2));
        let dy = self.norm_backward::<E>(block.norm2, Some(block.out), &dh2, &norm2, dx)?;
        drop((dh2, norm2));

        let d_y = self.linear_backward::<E>(block.out, &y, &dy)?;
        drop((y, dy));
        let (heads, d) = (i64::from(self.config.heads), i64::from(self.config.head_size()));
        let d_attended = d_y.f_view([size.batch, size.time, heads, d])?.f_transpose(1, 2)?;
        let [dq, dk, dv] = attention::backward::<E>(
            &d_attended,
            &Attended {
                q: &q,
                k: &self.spread(&k)?,
                v: &self.spread(&v)?,
                out: &attended,
                log_sum_exp: &log_sum_exp,
                starts: &self.starts,
            },
        )?;
        drop((q, k, v, attended, d_attended, d_y));
        let dqkv = self.heads_backward(block, size, q_norm, [dq, self.gather(&dk)?, self.gather(&dv)?])?;
        if let Some(bias) = block.qkv.bias {
            let width = self.slots[bias].weight.numel();
            let mut sums = vec![0.0; (dqkv.numel() / width).div_ceil(PART) * width];
            let parts = elements::<E>(&dqkv).chunks(PART * width).zip(sums.chunks_exact_mut(width));
            in_parallel(parts.collect(), dqkv.numel(), |(rows, sums)| kernels::add_rows(rows, sums));
            self.add_sums(Some(bias), sums.chunks_exact(width))?;
        }
        let dh1 = self.linear_backward::<E>(block.qkv, &h1, &dqkv)?;
        self.norm_backward::<E>(block.norm1, before, &dh1, &norm1, dx)
    }

    /// Cuts [N, (H + 2 K) D] into queries, keys and values [B, H or K, T, D], normalised and rotated.
    #[allow(clippy::type_complexity)]
    fn heads(
        &self,
        block: &BlockNames,
        size: Size,
        qkv: &Tensor,
    ) -> Result<(Tensor, Tensor, Tensor, Option<(NormSaved, NormSaved)>)> {
        let [h, k, d] = [self.config.heads, self.config.kv_heads, self.config.head_size()].map(i64::from);
        let parts = qkv.f_view([size.batch, size.time, h + 2 * k, d])?.f_split_with_sizes([h, k, k], 2)?;
        let (mut q, mut key) = (parts[0].shallow_clone(), parts[1].shallow_clone());
        let mut saved = None;
        if let Some([q_pair, k_pair]) = block.qk_norm {
            let normed = |part: &Tensor, pair| {
                let x = part.f_to_kind(Kind::Float)?.f_contiguous()?;
                self.norm_forward::<f32>(pair, false, Stream { x, addend: None })
            };
            let (q_out, q_saved) = normed(&q, q_pair)?;
            let (k_out, k_saved) = normed(&key, k_pair)?;
            (q, key, saved) = (q_out, k_out, Some((q_saved, k_saved)));
        }
        let finish =
            |part: &Tensor| Ok::<_, Error>(self.rotated(part, 1.0)?.f_to_kind(self.kind)?.f_transpose(1, 2)?);
        Ok((finish(&q)?, finish(&key)?, parts[2].f_transpose(1, 2)?, saved))
    }

    fn heads_backward(
        &mut self,
        block: &BlockNames,
        size: Size,
        saved: Option<(NormSaved, NormSaved)>,
        [dq, dk, dv]: [Tensor; 3],
    ) -> Result<Tensor> {
        let [h, k, d] = [self.config.heads, self.config.kv_heads, self.config.head_size()].map(i64::from);
        let mut dq = self.rotated(&dq.f_transpose(1, 2)?, -1.0)?;
        let mut dk = self.rotated(&dk.f_transpose(1, 2)?, -1.0)?;
        if let (Some([q_pair, k_pair]), Some((q_saved, k_saved))) = (block.qk_norm, saved) {
            for (pair, saved, gradient) in [(q_pair, q_saved, &mut dq), (k_pair, k_saved, &mut dk)] {
                let mut dx = saved.input.f_zeros_like()?;
                let dy = gradient.f_to_kind(Kind::Float)?.f_contiguous()?;
                self.norm_any_backward::<f32>(pair, false, None, &dy, &saved, &mut dx, None)?;
                *gradient = dx;
            }
        }
        let out = Tensor::f_empty([size.batch, size.time, h + 2 * k, d], (self.kind, Device::Cpu))?;
        for (start, part) in [(0, dq), (h, dk), (h + k, dv.f_transpose(1, 2)?)] {
            out.f_narrow(2, start, part.size()[2])?.f_copy_(&part)?;
        }
        Ok(out.f_view([size.batch * size.time, -1])?)
    }

    /// Rotates by the angles, or back with a `sign` of -1: [B, T, H, D] → the same.
    fn rotated(&self, x: &Tensor, sign: f64) -> Result<Tensor> {
        let Some((cos, sin)) = &self.rotation else { return Ok(x.shallow_clone()) };
        let time = x.size()[1];
        let angles = |table: &Tensor| table.f_narrow(0, 0, time)?.f_unsqueeze(1); // [T, 1, D / 2]
        let (cos, sin) = (angles(cos)?, angles(sin)?.f_mul_scalar(sign)?);
        let halves = x.f_chunk(2, -1)?;
        let (a, b) = (&halves[0], &halves[1]);
        let first = a.f_mul(&cos)?.f_sub(&b.f_mul(&sin)?)?;
        let second = b.f_mul(&cos)?.f_add(&a.f_mul(&sin)?)?;
        Ok(Tensor::f_cat(&[first, second], -1)?)
    }

    /// Repeats key or value heads for the queries that share them: [B, K, T, D] → [B, H, T, D].
    fn spread(&self, x: &Tensor) -> Result<Tensor> {
        match i64::from(self.config.heads / self.config.kv_heads) {
            1 => Ok(x.shallow_clone()),
            group => Ok(x.f_repeat_interleave_self_int(group, 1, None)?),
        }
    }

    /// The backward of [`spread`](Self::spread): sums over the queries that share a head.
    fn gather(&self, x: &Tensor) -> Result<Tensor> {
        let group = i64::from(self.config.heads / self.config.kv_heads);
        if group == 1 {
            return Ok(x.shallow_clone());
        }
        let (b, h, t, d) = x.size4()?;
        Ok(x.f_reshape([b, h / group, group, t, d])?.f_sum_dim_intlist(2, false, Kind::Float)?)
    }

    /// Logits, loss and their gradients, a piece of the rows at a time: the sum of the losses in nats and the gradient
    /// of `hidden`.
    fn head<E: Element>(&mut self, hidden: &Tensor, targets: &[i64], scale: f64) -> Result<(f64, Tensor)> {
        let (vocab, padded) = (self.config.vocab_size as usize, self.config.padded_vocab() as usize);
        let head = Pair { weight: self.names.head, bias: None };
        let rows = hidden.size()[0];
        let piece = ((self.logits_bytes / (padded * size_of::<E>())) as i64).clamp(1, rows.max(1));
        let dhidden = hidden.f_empty_like()?;
        let mut nats = 0.0;
        for start in (0..rows).step_by(piece as usize) {
            let count = piece.min(rows - start);
            let hidden = hidden.f_narrow(0, start, count)?;
            let mut logits = self.linear(head, &hidden)?;
            let elements_in = logits.numel();
            let mut losses = vec![0.0; count as usize];
            let targets = &targets[start as usize..][..count as usize];
            let parts = elements_mut::<E>(&mut logits).chunks_mut(PART / 4 * padded);
            let work = parts.zip(targets.chunks(PART / 4)).zip(losses.chunks_mut(PART / 4)).collect();
            in_parallel(work, elements_in, |((rows, targets), losses)| {
                let mut powers = vec![0.0; padded];
                for ((row, &target), loss) in rows.chunks_exact_mut(padded).zip(targets).zip(losses) {
                    let target = (target != IGNORE).then_some(target as usize);
                    *loss = kernels::cross_entropy_row(row, vocab, target, scale as f32, &mut powers);
                }
            });
            nats += losses.iter().sum::<f64>();
            let mut part = dhidden.f_narrow(0, start, count)?;
            let replace = self.fresh && start == 0;
            self.linear_backward_to::<E>(head, &hidden, &logits, &mut part, replace)?;
        }
        Ok((nats, dhidden))
    }
}

fn empty(size: &[i64], kind: Kind) -> Result<Tensor> {
    Ok(Tensor::f_empty(size, (kind, Device::Cpu))?)
}
