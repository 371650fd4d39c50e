//! The fused engine: forward and backward pass written out for the CPU, without autograd.
//!
//! ```text
//! per micro-batch:  embed ─▶ blocks, saving what the backward pass needs ─▶ norm
//!                   ─▶ pieces of rows: logits ─▶ loss and gradient in place ─▶ gradients of head and hidden state
//!                   ─▶ blocks in reverse, gradients added to one buffer for each parameter
//! ```
//! The gradient buffers are made once. Weight gradients are added by the matrix product itself, logits exist only for a
//! piece of the rows, and the normalisation, the cross-entropy and AdamW are single passes ([`crate::kernels`]).
//! With bf16 the matrix products and attention run in bf16 on shadow weights that the optimiser writes; the residual
//! stream, the normalisations and all sums of gradients stay fp32.

use tch::{Kind, Tensor};

use crate::attention::{self, Attended};
use crate::config::{Mlp, ModelConfig, Norm};
use crate::data::Batch;
use crate::kernels::{
    self, cross_entropy_row, floats, floats_mut, halves_mut, in_parallel, norm_rows, norm_rows_backward,
};
use crate::model::{IGNORE, Model};
use crate::optim::{AdamW, Moments};
use crate::{Error, Result};

/// Logits at most that exist at once: 64 MB of them.
const LOGITS: i64 = 1 << 24;

/// Forward and backward pass of one model, with its gradients.
#[derive(Debug)]
pub struct Fused {
    config: ModelConfig,
    kind: Kind,
    /// One for each parameter, in the model's order.
    slots: Vec<Slot>,
    names: Names,
    /// Cosines and sines: [T, D / 2] each.
    rotation: Option<(Tensor, Tensor)>,
    recompute: bool,
    /// Whether the gradient buffers hold nothing of the present step.
    fresh: bool,
    /// Where the documents of the present micro-batch begin, if each sees itself alone ([`Batch::starts`]).
    starts: Vec<Vec<u32>>,
}

/// A parameter and what belongs to it.
#[derive(Debug)]
struct Slot {
    /// The fp32 weight: another handle on the model's tensor, cut from autograd.
    weight: Tensor,
    /// The weight as bf16, if that is what is computed with.
    shadow: Option<Tensor>,
    grad: Tensor,
    decays: bool,
}

impl Slot {
    /// The weight in the kind that is computed with.
    fn value(&self) -> &Tensor {
        self.shadow.as_ref().unwrap_or(&self.weight)
    }
}

/// Where the parameters of each part are in the list.
#[derive(Debug)]
struct Names {
    embedding: usize,
    position: Option<usize>,
    blocks: Vec<BlockNames>,
    norm: Pair,
    head: usize,
}

#[derive(Clone, Copy, Debug)]
struct BlockNames {
    norm1: Pair,
    qkv: Pair,
    qk_norm: Option<[Pair; 2]>,
    out: Pair,
    norm2: Pair,
    up: Pair,
    down: Pair,
}

/// A weight and its bias.
#[derive(Clone, Copy, Debug)]
struct Pair {
    weight: usize,
    bias: Option<usize>,
}

/// What the backward pass of a normalisation needs besides its input.
#[derive(Debug)]
struct NormSaved {
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
        if model.device() != tch::Device::Cpu {
            let problem = "the fused engine has no CUDA kernels yet; use reference there".to_owned();
            return Err(Error::Option { flag: "--engine", problem });
        }
        let kind = if model.dtype_name() == "bf16" { Kind::BFloat16 } else { Kind::Float };
        let slot = |p: &crate::model::Parameter| {
            let weight = p.tensor.f_detach()?;
            let shadow = match kind {
                Kind::BFloat16 => Some(weight.f_to_kind(kind)?),
                _ => None,
            };
            Ok(Slot { grad: weight.f_zeros_like()?, weight, shadow, decays: p.decays })
        };
        Ok(Fused {
            config: model.config().clone(),
            kind,
            slots: model.parameters().iter().map(slot).collect::<Result<_>>()?,
            names: Names::of(model),
            rotation: model.rotation().map(|(cos, sin)| (cos.shallow_clone(), sin.shallow_clone())),
            recompute,
            fresh: true,
            starts: Vec::new(),
        })
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
            nats += self.micro_batch(size, inputs, targets, inverse)?;
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
        let _no_grad = tch::no_grad_guard();
        let (numbers, moments) = adamw.begin_update(lr, scale);
        /// Elements of a piece of work: its four arrays stay in the cache of a core.
        const PIECE: usize = 1 << 16;
        struct Work<'a> {
            w: &'a mut [f32],
            g: &'a [f32],
            m: &'a mut [f32],
            v: &'a mut [f32],
            shadow: Option<&'a mut [u16]>,
            decays: bool,
        }
        let mut work = Vec::new();
        let mut elements = 0;
        for (slot, Moments { first, second }) in self.slots.iter_mut().zip(moments) {
            if first.numel() == 0 {
                continue; // another optimiser's
            }
            let Slot { weight, shadow, grad, decays } = slot;
            elements += weight.numel();
            let mut halves = shadow.as_mut().map(|shadow| halves_mut(shadow).chunks_mut(PIECE));
            let pieces = floats_mut(weight).chunks_mut(PIECE).zip(floats(grad).chunks(PIECE));
            let moments = floats_mut(first).chunks_mut(PIECE).zip(floats_mut(second).chunks_mut(PIECE));
            for ((w, g), (m, v)) in pieces.zip(moments) {
                let shadow = halves.as_mut().and_then(Iterator::next);
                work.push(Work { w, g, m, v, shadow, decays: *decays });
            }
        }
        in_parallel(work, elements, |piece| {
            let Work { w, g, m, v, shadow, decays } = piece;
            kernels::adamw(w, g, m, v, shadow, numbers(decays));
        });
        Ok(())
    }

    /// Adds the loss of a micro-batch times `scale` to the gradients, and returns the sum of its losses in nats.
    fn micro_batch(&mut self, size: Size, inputs: &[i64], targets: &[i64], scale: f64) -> Result<f64> {
        let blocks = self.names.blocks.clone();
        let mut x = self.embed(size, inputs)?; // [N, C]
        let (mut saved, mut block_inputs) = (Vec::new(), Vec::new());
        for block in &blocks {
            let (next, kept) = self.block_forward(block, size, &x)?;
            match self.recompute {
                true => block_inputs.push(x),
                false => saved.push(kept),
            }
            x = next;
        }
        let (hidden, last) = self.norm_forward(self.names.norm, &x)?;
        let (nats, dhidden) = self.head(&hidden, targets, scale)?;
        drop(hidden);
        let mut dx = x.f_zeros_like()?;
        self.norm_backward(self.names.norm, &dhidden, &last, &mut dx)?;
        drop((x, last, dhidden));
        for block in blocks.iter().rev() {
            let kept = match block_inputs.pop() {
                Some(input) => self.block_forward(block, size, &input)?.1,
                None => saved.pop().expect("one for each block"),
            };
            self.block_backward(block, size, kept, &mut dx)?;
        }
        self.embed_backward(size, inputs, &dx)?;
        Ok(nats)
    }

    fn embed(&self, size: Size, inputs: &[i64]) -> Result<Tensor> {
        let mut out = Tensor::f_empty(
            [size.batch * size.time, self.config.channels.into()],
            (Kind::Float, tch::Device::Cpu),
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

    /// `x` · weightᵀ + bias: [N, I] → [N, O].
    fn linear(&self, pair: Pair, x: &Tensor) -> Result<Tensor> {
        let bias = pair.bias.map(|bias| self.slots[bias].value());
        Ok(x.f_linear(self.slots[pair.weight].value(), bias)?)
    }

    /// Adds the gradients of weight and bias and returns that of the input.
    fn linear_backward(&mut self, pair: Pair, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        if let Some(bias) = pair.bias {
            let sum = dy.f_sum_dim_intlist(0, false, Kind::Float)?;
            add(&mut self.slots[bias].grad, &sum, self.fresh)?;
        }
        add_product(&mut self.slots[pair.weight].grad, &dy.f_tr()?, x, self.fresh)?;
        Ok(dy.f_mm(self.slots[pair.weight].value())?)
    }

    fn norm_forward(&self, pair: Pair, x: &Tensor) -> Result<(Tensor, NormSaved)> {
        let centred = self.config.norm == Norm::LayerNorm;
        let (out, saved) = self.norm_any(pair, x, centred)?;
        Ok((out.f_to_kind(self.kind)?, saved))
    }

    /// `x` [N, C] in fp32 → [N, C] in fp32.
    fn norm_any(&self, pair: Pair, x: &Tensor, centred: bool) -> Result<(Tensor, NormSaved)> {
        let mut out = x.f_empty_like()?;
        let weight = floats(&self.slots[pair.weight].weight);
        let bias = pair.bias.map(|bias| floats(&self.slots[bias].weight));
        let mut stats = vec![[0.0; 2]; x.numel() / weight.len()];
        norm_rows(
            floats(x),
            weight,
            bias,
            centred,
            self.config.norm_eps as f32,
            floats_mut(&mut out),
            &mut stats,
        );
        Ok((out, NormSaved { input: x.shallow_clone(), stats }))
    }

    fn norm_backward(&mut self, pair: Pair, dy: &Tensor, saved: &NormSaved, dx: &mut Tensor) -> Result<()> {
        let centred = self.config.norm == Norm::LayerNorm;
        self.norm_any_backward(pair, dy, saved, dx, centred)
    }

    /// Adds the gradient of the input to `dx`.
    fn norm_any_backward(
        &mut self,
        pair: Pair,
        dy: &Tensor,
        saved: &NormSaved,
        dx: &mut Tensor,
        centred: bool,
    ) -> Result<()> {
        let dy = dy.f_to_kind(Kind::Float)?.f_contiguous()?;
        for slot in [Some(pair.weight), pair.bias].into_iter().flatten().filter(|_| self.fresh) {
            let _ = self.slots[slot].grad.f_zero_()?;
        }
        // The bias is taken out of the list and put back: two gradients are written at once.
        let mut dbias = pair.bias.map(|bias| self.slots[bias].grad.shallow_clone());
        let Slot { weight, grad, .. } = &mut self.slots[pair.weight];
        norm_rows_backward(
            floats(&dy),
            floats(&saved.input),
            floats(weight),
            centred,
            &saved.stats,
            floats_mut(dx),
            floats_mut(grad),
            dbias.as_mut().map(floats_mut),
        );
        Ok(())
    }

    fn block_forward(&self, block: &BlockNames, size: Size, x: &Tensor) -> Result<(Tensor, Saved)> {
        let (h1, norm1) = self.norm_forward(block.norm1, x)?;
        let qkv = self.linear(block.qkv, &h1)?;
        let (q, k, v, q_norm) = self.heads(block, size, &qkv)?;
        drop(qkv);
        let (attended, log_sum_exp) =
            attention::forward(&q, &self.spread(&k)?, &self.spread(&v)?, &self.starts)?; // [B, H, T, D]
        let y = attended.f_transpose(1, 2)?.f_reshape([size.batch * size.time, -1])?;
        let x = self.linear(block.out, &y)?.f_add(x)?; // fp32, as x is
        let (h2, norm2) = self.norm_forward(block.norm2, &x)?;
        let up = self.linear(block.up, &h2)?;
        let active = activate(self.config.mlp, &up)?;
        let x = self.linear(block.down, &active)?.f_add(&x)?;
        let saved = Saved { norm1, h1, q_norm, q, k, v, attended, log_sum_exp, y, norm2, h2, up, active };
        Ok((x, saved))
    }

    /// `dx` is the gradient of the block's output, and becomes that of its input.
    fn block_backward(
        &mut self,
        block: &BlockNames,
        size: Size,
        saved: Saved,
        dx: &mut Tensor,
    ) -> Result<()> {
        let Saved { norm1, h1, q_norm, q, k, v, attended, log_sum_exp, y, norm2, h2, up, active } = saved;
        let dy = dx.f_to_kind(self.kind)?;
        let dactive = self.linear_backward(block.down, &active, &dy)?;
        drop(active);
        let dup = activate_backward(self.config.mlp, &up, &dactive)?;
        drop((dactive, up));
        let dh2 = self.linear_backward(block.up, &h2, &dup)?;
        drop((dup, h2));
        self.norm_backward(block.norm2, &dh2, &norm2, dx)?;
        drop((dh2, norm2));

        let dy = dx.f_to_kind(self.kind)?;
        let d_y = self.linear_backward(block.out, &y, &dy)?;
        drop(y);
        let (heads, d) = (i64::from(self.config.heads), i64::from(self.config.head_size()));
        let d_attended = d_y.f_view([size.batch, size.time, heads, d])?.f_transpose(1, 2)?;
        let [dq, dk, dv] = attention::backward(
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
        let dh1 = self.linear_backward(block.qkv, &h1, &dqkv)?;
        self.norm_backward(block.norm1, &dh1, &norm1, dx)
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
                self.norm_any(pair, &part.f_to_kind(Kind::Float)?.f_contiguous()?, false)
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
                self.norm_any_backward(pair, gradient, &saved, &mut dx, false)?;
                *gradient = dx;
            }
        }
        let out = Tensor::f_empty([size.batch, size.time, h + 2 * k, d], (self.kind, tch::Device::Cpu))?;
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
    fn head(&mut self, hidden: &Tensor, targets: &[i64], scale: f64) -> Result<(f64, Tensor)> {
        let (vocab, padded) = (self.config.vocab_size as usize, i64::from(self.config.padded_vocab()));
        let rows = hidden.size()[0];
        let piece = (LOGITS / padded).clamp(1, rows.max(1));
        let (mut nats, mut gradients) = (0.0, Vec::new());
        for start in (0..rows).step_by(piece as usize) {
            let count = piece.min(rows - start);
            let hidden = hidden.f_narrow(0, start, count)?;
            let slot = &mut self.slots[self.names.head];
            let mut logits = hidden.f_linear(slot.value(), None::<Tensor>)?.f_to_kind(Kind::Float)?;
            let mut losses = vec![0.0; count as usize];
            let targets = &targets[start as usize..];
            let elements = logits.numel();
            let row_of = |row| (row != IGNORE).then_some(row as usize);
            let work: Vec<_> = floats_mut(&mut logits)
                .chunks_exact_mut(padded as usize)
                .zip(targets)
                .zip(&mut losses)
                .collect();
            in_parallel(work, elements, |((row, &target), loss)| {
                *loss = cross_entropy_row(row, vocab, row_of(target), scale as f32);
            });
            nats += losses.iter().sum::<f64>();
            let dlogits = logits.f_to_kind(self.kind)?;
            add_product(&mut slot.grad, &dlogits.f_tr()?, &hidden, self.fresh && start == 0)?;
            gradients.push(dlogits.f_mm(slot.value())?);
        }
        Ok((nats, Tensor::f_cat(&gradients, 0)?))
    }
}

impl Names {
    fn of(model: &Model) -> Names {
        let find = |name: &str| model.parameters().iter().position(|p| p.name == name);
        let one = |name: &str| find(name).expect("every model has it");
        let pair =
            |name: &str| Pair { weight: one(&format!("{name}.weight")), bias: find(&format!("{name}.bias")) };
        let block = |layer: u32| {
            let part = |part: &str| pair(&format!("layers.{layer}.{part}"));
            BlockNames {
                norm1: part("norm1"),
                qkv: part("attention.qkv"),
                qk_norm: model.config().qk_norm.then(|| [part("attention.q_norm"), part("attention.k_norm")]),
                out: part("attention.out"),
                norm2: part("norm2"),
                up: part("mlp.up"),
                down: part("mlp.down"),
            }
        };
        Names {
            embedding: one("embedding.weight"),
            position: find("position.weight"),
            blocks: (0..model.config().layers).map(block).collect(),
            norm: pair("norm"),
            head: find("head.weight").unwrap_or_else(|| one("embedding.weight")),
        }
    }
}

/// Adds to a gradient, or replaces what an earlier step left in it.
fn add(grad: &mut Tensor, new: &Tensor, fresh: bool) -> Result<()> {
    if fresh {
        grad.f_copy_(new)?;
    } else {
        let _ = grad.f_add_(new)?;
    }
    Ok(())
}

/// Adds `a` · `b` to a gradient, or replaces it.
fn add_product(grad: &mut Tensor, a: &Tensor, b: &Tensor, fresh: bool) -> Result<()> {
    match (a.kind(), fresh) {
        (Kind::Float, true) => drop(a.f_mm_out(grad, b)?),
        (Kind::Float, false) => drop(grad.f_addmm_(a, b)?),
        _ => add(grad, &a.f_mm(b)?, fresh)?,
    }
    Ok(())
}

fn activate(mlp: Mlp, up: &Tensor) -> Result<Tensor> {
    Ok(match mlp {
        Mlp::Gelu => up.f_gelu("tanh")?,
        Mlp::Relu2 => up.f_relu()?.f_square()?,
        Mlp::SwiGlu => {
            let halves = up.f_chunk(2, -1)?;
            halves[0].f_silu()?.f_mul(&halves[1])?
        }
    })
}

fn activate_backward(mlp: Mlp, up: &Tensor, dy: &Tensor) -> Result<Tensor> {
    Ok(match mlp {
        Mlp::Gelu => up.f_gelu_backward(dy, "tanh")?,
        Mlp::Relu2 => up.f_relu()?.f_mul(dy)?.f_mul_scalar(2.0)?,
        Mlp::SwiGlu => {
            let halves = up.f_chunk(2, -1)?;
            let (gate, value) = (&halves[0], &halves[1]);
            let dgate = gate.f_silu_backward(&dy.f_mul(value)?)?;
            Tensor::f_cat(&[dgate, gate.f_silu()?.f_mul(dy)?], -1)?
        }
    })
}
