//! The engine: one micro-batch forward and backward on buffers that are made once, generic over the device.
//!
//! ```text
//! x fp32 ─ norm ─▶ h ─ qkv ─▶ heads ─ attention ─▶ y ─ out ─▶ branch
//! x + branch ─ norm ─▶ h2 ─ up ─▶ activation ─ down ─▶ branch   (added by the next norm)
//! … ─ norm ─▶ pieces of rows: logits ─▶ loss and gradient in place ─▶ gradients of head and hidden state ─▶ back
//! ```
//! The residual stream, its gradient, statistics and all gradients of parameters are fp32; what enters a matrix product is in the
//! model's arithmetic, the weights as shadows that the optimiser writes. A residual stream in bf16 would save about 4 % of a
//! step's memory traffic and was not chosen: autocast, which people compare with, keeps it in fp32 too.
//! Every sum has a fixed order ([`super::source`]); what torch's own kernels do is `--deterministic`'s to decide.

use tch::{Device, Kind, Tensor};

use super::backend::{Backend, Documents};
use super::launch::Launch;
use super::source::{MOST_HEAD_SIZE, PIECE, SUM_WARPS, pack};
use crate::config::{Mlp, ModelConfig, Norm};
use crate::data::Batch;
use crate::model::{IGNORE, Model};
use crate::optim::{AdamW, Moments};
use crate::slots::{BlockNames, Names, Pair, Slot};
use crate::{Error, Result};

/// Logits at most that exist at once: 1 GB of bf16.
const LOGITS: i64 = 1 << 29;

/// Threads of a block where nothing else decides.
const BLOCK: u32 = 256;

/// Blocks at most of a kernel that strides over its work: several for each multiprocessor of any GPU.
const MOST_BLOCKS: i64 = 8192;

/// Blocks of the norm's backward pass, each of which sums the weight's gradient over its rows.
const NORM_BLOCKS: i64 = 512;

/// Partial sums of each column of a bias gradient.
const COLUMN_PARTS: i64 = 64;

/// Blocks of 8 warps of the heads' backward pass.
const HEAD_BLOCKS: i64 = 256;

/// Channels at most: eight groups of four a thread.
const MOST_CHANNELS: u32 = 8192;

/// When the micro-step is recorded as a graph and replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Graphs {
    Never,
    Always,
}

/// Forward and backward pass of one model on a device, with its gradients.
#[derive(Debug)]
pub(crate) struct Fused<B: Backend> {
    backend: B,
    config: ModelConfig,
    kind: Kind,
    device: Device,
    slots: Vec<Slot>,
    names: Names,
    /// Cosines and sines: [T, D / 2] each.
    rotation: Option<(Tensor, Tensor)>,
    recompute: bool,
    graphs: Graphs,
    /// Buffers of the shapes seen so far, the largest first.
    shapes: Vec<Shaped<B>>,
    /// Host memory of the micro-batches of a step.
    staging: Vec<Tensor>,
    parts: Parts,
    tables: Tables,
    /// 1 / targets of the batch: [1].
    scale: Tensor,
    /// Sum of the losses, norm of the gradient: [2] in fp64.
    results: Tensor,
    grad_norm: f64,
}

/// A micro-batch's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    batch: i64,
    time: i64,
}

impl Size {
    fn rows(self) -> i64 {
        self.batch * self.time
    }
}

/// Partial sums between two passes of a reduction.
#[derive(Debug)]
struct Parts {
    /// Weight and bias of a norm: [NORM_BLOCKS, C] each.
    norm: [Tensor; 2],
    /// [COLUMN_PARTS, the widest linear layer].
    columns: Tensor,
    /// [8 HEAD_BLOCKS, D].
    heads: Tensor,
    /// One for each piece of the gradients, in fp64.
    squares: Tensor,
}

/// Addresses for the kernels that go over all parameters.
#[derive(Debug)]
struct Tables {
    /// What `table` holds, on the host.
    addresses: Vec<i64>,
    /// [parameters, 7].
    table: Tensor,
    /// [pieces, 2]: parameter, first element.
    pieces: Tensor,
}

/// Buffers for one shape of micro-batch, and the recorded micro-step: of the first micro-batch of a step, which replaces the
/// gradients, and of the others, which add to them.
#[derive(Debug)]
struct Shaped<B: Backend> {
    buffers: Buffers,
    ran: [bool; 2],
    recordings: [Option<B::Recording>; 2],
}

/// All activations, N rows each.
#[derive(Debug)]
struct Buffers {
    size: Size,
    inputs: Inputs,
    /// The residual stream before each block: [N, C] fp32.
    block_inputs: Vec<Tensor>,
    /// One for each block, or one for all if they are run again.
    blocks: Vec<BlockBuffers>,
    /// What is next added to the residual stream: [N, C].
    branch: Tensor,
    /// The residual stream after all blocks: [N, C] fp32.
    last: Tensor,
    last_stats: Tensor,
    hidden: Tensor,
    /// Gradient of the residual stream, in fp32 and as elements.
    dx: Tensor,
    dx_elements: Tensor,
    /// Gradients of a norm's result, of the matrix of queries, keys and values, of attention, of the activation.
    dh: Tensor,
    dqkv: Tensor,
    dy: Tensor,
    dactive: Tensor,
    /// [piece of the rows, padded V].
    logits: Tensor,
    losses: Tensor,
}

/// Token ids and what the embedding's backward pass needs, as sections of one array of 32-bit integers.
#[derive(Debug)]
struct Inputs {
    all: Tensor,
    tokens: Tensor,
    /// -1 where there is none.
    targets: Tensor,
    /// Position of each token in its row, or in its document if that sees itself alone.
    places: Tensor,
    by_token: Groups,
    by_place: Groups,
}

/// Rows sorted by a key.
#[derive(Debug)]
struct Groups {
    /// All rows, those of a key together and ascending.
    rows: Tensor,
    /// The keys that occur.
    keys: Tensor,
    /// Where the rows of each key start, and the end of the last.
    starts: Tensor,
    /// How many keys occur.
    count: Tensor,
}

/// What the backward pass of a block needs of attention: its result [N, H D], where torch has put it, and what only the device
/// knows.
#[derive(Debug)]
struct Saved<A> {
    y: Tensor,
    attended: A,
}

/// What the backward pass of a block needs besides attention's own.
#[derive(Debug)]
struct BlockBuffers {
    stats1: Tensor,
    h1: Tensor,
    qkv: Tensor,
    /// Queries and keys after QK-norm and rotation, if the model normalises them: [N, (H + K) D], and 1 / rms of each head.
    qk: Option<(Tensor, Tensor)>,
    x2: Tensor,
    stats2: Tensor,
    h2: Tensor,
    up: Tensor,
    active: Tensor,
}

impl<B: Backend> Fused<B> {
    /// The engine of a model. With `recompute`, blocks keep only their input and are run again for the backward pass.
    pub(crate) fn new(model: &Model, backend: B, recompute: bool, graphs: Graphs) -> Result<Fused<B>> {
        let _no_grad = tch::no_grad_guard();
        check(model.config())?;
        let config = model.config().clone();
        let device = model.device();
        let kind = if model.dtype_name() == "bf16" { Kind::BFloat16 } else { Kind::Float };
        let slots = Slot::all_of(model, kind)?;
        let names = Names::of(model);
        let tables = Tables::new(&slots, device)?;
        let parts = Parts::new(&config, &slots, tables.pieces.size()[0], device)?;
        Ok(Fused {
            backend,
            kind,
            device,
            slots,
            names,
            rotation: model.rotation().map(|(cos, sin)| (cos.shallow_clone(), sin.shallow_clone())),
            recompute,
            graphs,
            shapes: Vec::new(),
            staging: Vec::new(),
            parts,
            tables,
            scale: Tensor::f_zeros([1], (Kind::Float, device))?,
            results: Tensor::f_zeros([2], (Kind::Double, device))?,
            grad_norm: 0.0,
            config,
        })
    }

    /// Mean loss of a batch in nats; its gradients are then in [`gradients`](Self::gradients), their norm in
    /// [`grad_norm`](Self::grad_norm). Waits for the device once, at the end.
    pub(crate) fn loss(&mut self, batch: &Batch, micro_batch: u32) -> Result<f64> {
        self.loss_of_documents(batch, micro_batch, &[])
    }

    /// As [`loss`](Self::loss); `starts` has the first input of each document in every row, if documents see themselves alone.
    pub(crate) fn loss_of_documents(
        &mut self,
        batch: &Batch,
        micro_batch: u32,
        starts: &[Vec<u32>],
    ) -> Result<f64> {
        let _no_grad = tch::no_grad_guard();
        let inverse = 1.0 / batch.num_targets().max(1) as f64;
        let _ = self.scale.f_fill_(inverse)?;
        for (number, (rows, inputs, targets)) in batch.micro_batches(micro_batch as usize).enumerate() {
            let size = Size { batch: rows as i64, time: batch.seq_len as i64 };
            let first = number * micro_batch as usize;
            let starts = if starts.is_empty() { &[] } else { &starts[first..first + rows] };
            let shape = self.shape(size)?;
            self.send(
                number,
                shape,
                &integers(inputs, targets, batch.seq_len, starts, self.config.vocab_size)?,
            )?;
            match Documents::of(starts, size.time, self.device)? {
                // Their number differs from batch to batch, which a recording cannot.
                Some(documents) => self.run(&self.shapes[shape].buffers, number == 0, Some(&documents))?,
                None => self.micro_step(shape, number == 0)?,
            }
        }
        let pieces = self.tables.pieces.size()[0];
        let (squares, norm) = (&self.parts.squares, self.results.f_narrow(0, 1, 1)?);
        let launch = Launch::new("square_sums", [pieces, 1], BLOCK);
        self.backend.run(&launch.tensor(squares).tensor(&self.tables.table).tensor(&self.tables.pieces))?;
        self.backend
            .run(&Launch::new("root_of_sum", [1, 1], 1024).tensor(&norm).tensor(squares).int(pieces))?;
        let results = Vec::<f64>::try_from(self.results.f_to_device(Device::Cpu)?)?; // waits for the device
        self.grad_norm = results[1];
        Ok(results[0] * inverse)
    }

    /// The gradients of the last batch, one for each parameter in order.
    pub(crate) fn gradients(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.grad.shallow_clone()).collect()
    }

    /// Global norm of the gradients of the last batch.
    pub(crate) fn grad_norm(&self) -> f64 {
        self.grad_norm
    }

    /// One AdamW update with the gradients of the last batch times `scale`, of the parameters whose moments are not empty.
    pub(crate) fn step(&mut self, adamw: &mut AdamW, lr: f64, scale: f64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let (numbers, moments) = adamw.begin_update(lr, scale);
        self.tables.set_moments(&self.slots, moments)?;
        let n = numbers(true);
        let launch = Launch::new("adamw", [self.tables.pieces.size()[0], 1], BLOCK);
        let launch = launch.tensor(&self.tables.table).tensor(&self.tables.pieces).float(n.scale);
        let launch = launch.float(n.beta1).float(n.beta2).float(n.eps).float(n.rate);
        self.backend.run(&launch.float(n.inverse_root_bias2).float(n.decay))
    }

    /// Takes over the weights of these parameters, given by their places, after something else has changed them.
    pub(crate) fn refresh(&self, parameters: &[usize]) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        for slot in parameters.iter().map(|&place| &self.slots[place]) {
            if let Some(shadow) = &slot.shadow {
                shadow.shallow_clone().f_copy_(&slot.weight)?;
            }
        }
        Ok(())
    }

    /// The index of the buffers for a shape, which are made if they are not there.
    fn shape(&mut self, size: Size) -> Result<usize> {
        if let Some(found) = self.shapes.iter().position(|shaped| shaped.buffers.size == size) {
            return Ok(found);
        }
        let whole = self.shapes.first().map(|shaped| &shaped.buffers);
        let buffers = match whole {
            // The last micro-batch of a step may be smaller: it uses the same memory.
            Some(whole) if size.time == whole.size.time && size.batch <= whole.size.batch => {
                whole.cut(size, self.device)?
            }
            _ => {
                self.shapes.clear();
                Buffers::new(&self.config, self.kind, self.device, size, self.recompute)?
            }
        };
        self.shapes.push(Shaped { buffers, ran: [false; 2], recordings: [None, None] });
        Ok(self.shapes.len() - 1)
    }

    /// Sends the integers of a micro-batch to the device.
    fn send(&mut self, number: usize, shape: usize, values: &[i32]) -> Result<()> {
        let to = &self.shapes[shape].buffers.inputs.all;
        while self.staging.len() <= number {
            self.staging.push(Tensor::f_zeros([0], (Kind::Int, Device::Cpu))?);
        }
        let staging = &mut self.staging[number];
        if staging.size() != to.size() {
            *staging = self.backend.staging(to.size()[0])?;
        }
        staging.f_copy_(&Tensor::f_from_slice(values)?)?;
        self.backend.send(to, staging)
    }

    /// Runs the micro-batch that was sent, from a recording where there is one.
    fn micro_step(&mut self, shape: usize, fresh: bool) -> Result<()> {
        let shaped = &self.shapes[shape];
        if let Some(recording) = &shaped.recordings[usize::from(fresh)] {
            return self.backend.replay(recording);
        }
        // The first run is never recorded: libraries set themselves up in it.
        let record = self.graphs == Graphs::Always && shaped.ran[usize::from(fresh)];
        if !record {
            self.shapes[shape].ran[usize::from(fresh)] = true;
            return self.run(&self.shapes[shape].buffers, fresh, None);
        }
        match self.backend.record(&mut || self.run(&shaped.buffers, fresh, None))? {
            Some(recording) => {
                self.backend.replay(&recording)?;
                self.shapes[shape].recordings[usize::from(fresh)] = Some(recording);
                Ok(())
            }
            None => self.run(&self.shapes[shape].buffers, fresh, None),
        }
    }

    /// Forward and backward pass: gradients are replaced if `fresh`, else added to.
    fn run(&self, buffers: &Buffers, fresh: bool, documents: Option<&Documents>) -> Result<()> {
        let layers = self.names.blocks.len();
        self.embed(buffers)?;
        let mut attended: Vec<Option<Saved<B::Attended>>> = Vec::new();
        let mut stream = (&buffers.block_inputs[0], None);
        for layer in 0..layers {
            let saved = self.block_forward(buffers, layer, stream, documents)?;
            self.linear(self.names.blocks[layer].down, &buffers.block(layer).active, &buffers.branch)?;
            attended.push((!self.recompute).then_some(saved));
            stream = (&buffers.block(layer).x2, Some(&buffers.branch));
        }
        let (out, stats) = (&buffers.hidden, &buffers.last_stats);
        self.norm(self.names.norm, stream, &buffers.last, out, stats)?;
        self.head(buffers, fresh)?;
        let gradient = NormGradient { dy: &buffers.dh, x: &buffers.last, stats, add: false };
        self.norm_backward(self.names.norm, buffers, &gradient, fresh)?;
        for layer in (0..layers).rev() {
            let saved = match attended.pop().flatten() {
                Some(saved) => saved,
                None => {
                    self.block_forward(buffers, layer, (&buffers.block_inputs[layer], None), documents)?
                }
            };
            self.block_backward(buffers, layer, &saved, fresh)?;
        }
        self.embed_backward(buffers, fresh)
    }

    fn embed(&self, buffers: &Buffers) -> Result<()> {
        let position = self.names.position.map(|slot| &self.slots[slot].weight);
        let launch = Launch::new("embedding_forward", [buffers.size.rows(), 1], self.norm_block().1);
        let launch = launch.tensor(&buffers.block_inputs[0]).tensor(&buffers.inputs.tokens);
        let launch = launch.tensor(&buffers.inputs.places).tensor(&self.slots[self.names.embedding].weight);
        self.backend.run(&launch.optional(position).int(self.channels()))
    }

    fn embed_backward(&self, buffers: &Buffers, fresh: bool) -> Result<()> {
        let inputs = &buffers.inputs;
        let grad = &self.slots[self.names.embedding].grad;
        // With a tied head, its product has already put a gradient there.
        self.add_rows(grad, &inputs.by_token, buffers, fresh && self.names.head != self.names.embedding)?;
        match self.names.position {
            Some(position) => self.add_rows(&self.slots[position].grad, &inputs.by_place, buffers, fresh),
            None => Ok(()),
        }
    }

    /// Adds the gradient of the residual stream to the rows of `grad` that it was looked up from.
    fn add_rows(&self, grad: &Tensor, groups: &Groups, buffers: &Buffers, fresh: bool) -> Result<()> {
        if fresh {
            let _ = grad.shallow_clone().f_zero_()?;
        }
        let c = self.channels();
        let grid = [buffers.size.rows().min(MOST_BLOCKS), blocks(c, 128)];
        let launch = Launch::new("embedding_backward", grid, 32 * SUM_WARPS).tensor(grad).tensor(&buffers.dx);
        let launch = launch.tensor(&groups.keys).tensor(&groups.starts).tensor(&groups.rows);
        self.backend.run(&launch.tensor(&groups.count).int(c))
    }

    /// All of a block but its last matrix product, whose result the next norm adds.
    fn block_forward(
        &self,
        buffers: &Buffers,
        layer: usize,
        stream: (&Tensor, Option<&Tensor>),
        documents: Option<&Documents>,
    ) -> Result<Saved<B::Attended>> {
        let (names, kept, size) = (&self.names.blocks[layer], buffers.block(layer), buffers.size);
        let x = &buffers.block_inputs[layer];
        self.norm(names.norm1, stream, x, &kept.h1, &kept.stats1)?;
        self.linear(names.qkv, &kept.h1, &kept.qkv)?;
        self.heads(names, kept, buffers)?;
        let [q, k, v] = self.attention_inputs(kept, size)?;
        let (out, attended) = self.backend.attention(&q, &k, &v, documents)?;
        let y = out.f_transpose(1, 2)?.f_reshape([size.rows(), -1])?; // a view: attention writes [B, T, H, D]
        self.linear(names.out, &y, &buffers.branch)?;
        self.norm(names.norm2, (x, Some(&buffers.branch)), &kept.x2, &kept.h2, &kept.stats2)?;
        self.linear(names.up, &kept.h2, &kept.up)?;
        self.activate("forward", &kept.active, &kept.up)?;
        Ok(Saved { y, attended })
    }

    /// `dx` is the gradient of the block's output, and becomes that of its input.
    fn block_backward(
        &self,
        buffers: &Buffers,
        layer: usize,
        saved: &Saved<B::Attended>,
        fresh: bool,
    ) -> Result<()> {
        let (names, kept, size) = (&self.names.blocks[layer], buffers.block(layer), buffers.size);
        let Buffers { dx_elements, dh, dy, dqkv, dactive, .. } = buffers;
        self.linear_backward(names.down, &kept.active, dx_elements, dactive, fresh)?;
        self.activate("backward", &kept.up, dactive)?; // `up` is its gradient from here on
        self.linear_backward(names.up, &kept.h2, &kept.up, dh, fresh)?;
        let gradient = NormGradient { dy: dh, x: &kept.x2, stats: &kept.stats2, add: true };
        self.norm_backward(names.norm2, buffers, &gradient, fresh)?;

        self.linear_backward(names.out, &saved.y, dx_elements, dy, fresh)?;
        let by_head = dy.f_view([size.batch, size.time, -1, self.head_size()])?.f_transpose(1, 2)?;
        let [q, k, v] = self.attention_inputs(kept, size)?;
        let gradients = self.backend.attention_backward(&by_head, &q, &k, &v, &saved.attended)?;
        for (part, gradient) in self.head_views(dqkv, size)?.iter_mut().zip(&gradients) {
            part.f_copy_(gradient)?;
        }
        self.heads_backward(names, kept, buffers, fresh)?;
        self.linear_backward(names.qkv, &kept.h1, dqkv, dh, fresh)?;
        let x = &buffers.block_inputs[layer];
        let gradient = NormGradient { dy: dh, x, stats: &kept.stats1, add: true };
        self.norm_backward(names.norm1, buffers, &gradient, fresh)
    }

    /// x_out = x + branch; out = norm(x_out). Without a branch `x_out` is not written: it is `x` already.
    fn norm(
        &self,
        pair: Pair,
        (x, branch): (&Tensor, Option<&Tensor>),
        x_out: &Tensor,
        out: &Tensor,
        stats: &Tensor,
    ) -> Result<()> {
        let (quads, block) = self.norm_block();
        let launch = Launch::new(format!("norm_forward_{quads}"), [x.size()[0], 1], block);
        let launch = launch.tensor(x).optional(branch).optional(branch.and(Some(x_out)));
        let launch = launch.tensor(&self.slots[pair.weight].weight).optional(self.bias(pair));
        let launch = launch.tensor(out).tensor(stats).int(self.channels()).flag(self.centred());
        self.backend.run(&launch.float(self.config.norm_eps as f32))
    }

    fn norm_backward(&self, pair: Pair, buffers: &Buffers, g: &NormGradient<'_>, fresh: bool) -> Result<()> {
        let (quads, block) = self.norm_block();
        let (rows, c) = (buffers.size.rows(), self.channels());
        let parts = rows.min(NORM_BLOCKS);
        let [dweight, dbias] = &self.parts.norm;
        let launch = Launch::new(format!("norm_backward_{quads}"), [parts, 1], block);
        let launch = launch.tensor(&buffers.dx).tensor(&buffers.dx_elements).tensor(g.dy).tensor(g.x);
        let launch = launch.tensor(&self.slots[pair.weight].weight).tensor(g.stats).tensor(dweight);
        let launch = launch.optional(pair.bias.map(|_| dbias)).int(rows).int(c).flag(self.centred());
        self.backend.run(&launch.flag(g.add))?;
        self.add_columns(&self.slots[pair.weight].grad, dweight, parts, fresh)?;
        match pair.bias {
            Some(bias) => self.add_columns(&self.slots[bias].grad, dbias, parts, fresh),
            None => Ok(()),
        }
    }

    /// Second pass of a sum over rows: the first `rows` rows of `parts` are added to `out`, or replace it.
    fn add_columns(&self, out: &Tensor, parts: &Tensor, rows: i64, fresh: bool) -> Result<()> {
        let columns = out.size()[0];
        let launch = Launch::new("column_sums_add", [blocks(columns, 32), 1], 1024);
        self.backend.run(&launch.tensor(out).tensor(parts).int(rows).int(columns).flag(fresh))
    }

    /// out = x · weightᵀ + bias: [N, I] → [N, O].
    fn linear(&self, pair: Pair, x: &Tensor, out: &Tensor) -> Result<()> {
        let weight = self.slots[pair.weight].value().f_tr()?;
        match pair.bias {
            Some(bias) => drop(self.slots[bias].value().f_addmm_out(out, x, &weight)?),
            None => drop(x.f_mm_out(out, &weight)?),
        }
        Ok(())
    }

    /// The gradients of weight and bias, and of the input: `dx`.
    fn linear_backward(&self, pair: Pair, x: &Tensor, dy: &Tensor, dx: &Tensor, fresh: bool) -> Result<()> {
        if let Some(bias) = pair.bias {
            let (rows, columns) = dy.size2()?;
            let parts = blocks(rows, SUM_WARPS.into()).min(COLUMN_PARTS);
            let width = 32 * pack(self.kind);
            let launch = Launch::new("column_sums", [blocks(columns, width), parts], 32 * SUM_WARPS);
            let launch = launch.tensor(&self.parts.columns).tensor(dy);
            self.backend.run(&launch.int(rows).int(columns))?;
            self.add_columns(&self.slots[bias].grad, &self.parts.columns, parts, fresh)?;
        }
        let slot = &self.slots[pair.weight];
        self.backend.product(&slot.grad, &dy.f_tr()?, x, !fresh)?;
        drop(dy.f_mm_out(dx, slot.value())?);
        Ok(())
    }

    fn activate(&self, pass: &str, first: &Tensor, second: &Tensor) -> Result<()> {
        let name = match self.config.mlp {
            Mlp::Gelu => "gelu",
            Mlp::Relu2 => "relu2",
            Mlp::SwiGlu => "swiglu",
        };
        let hidden = i64::from(self.config.mlp_hidden);
        let packs = first.size()[0] * hidden / pack(self.kind);
        let grid = blocks(packs, BLOCK.into()).min(MOST_BLOCKS);
        let launch = Launch::new(format!("{name}_{pass}"), [grid, 1], BLOCK);
        let launch = launch.tensor(first).tensor(second).long(packs);
        self.backend.run(&if self.config.mlp == Mlp::SwiGlu { launch.int(hidden) } else { launch })
    }

    /// Normalises and rotates queries and keys, if the model does.
    fn heads(&self, names: &BlockNames, kept: &BlockBuffers, buffers: &Buffers) -> Result<()> {
        if names.qk_norm.is_none() && self.rotation.is_none() {
            return Ok(());
        }
        let [h, k, d] = self.head_counts();
        let (out, stride) = match &kept.qk {
            Some((qk, _)) => (qk, (h + k) * d),
            None => (&kept.qkv, (h + 2 * k) * d),
        };
        let weights = names.qk_norm.map(|pairs| pairs.map(|pair| &self.slots[pair.weight].weight));
        let (cosines, sines) = self.angles();
        let rows = buffers.size.rows();
        let grid = blocks(rows * (h + k), 8).min(MOST_BLOCKS);
        let launch = Launch::new("heads_forward", [grid, 1], BLOCK).tensor(out).tensor(&kept.qkv);
        let launch = launch.optional(weights.map(|[q, _]| q)).optional(weights.map(|[_, k]| k));
        let launch = launch.optional(kept.qk.as_ref().map(|(_, inverse)| inverse));
        let launch = launch.optional(cosines).optional(sines).tensor(&buffers.inputs.places).int(rows);
        let launch = launch.int(h).int(h + k).int(d).int((h + 2 * k) * d).int(stride);
        self.backend.run(&launch.float(self.config.norm_eps as f32))
    }

    /// Turns the gradients of normalised and rotated queries and keys into those before, in place.
    fn heads_backward(
        &self,
        names: &BlockNames,
        kept: &BlockBuffers,
        buffers: &Buffers,
        fresh: bool,
    ) -> Result<()> {
        if names.qk_norm.is_none() && self.rotation.is_none() {
            return Ok(());
        }
        let [h, k, d] = self.head_counts();
        let (cosines, sines) = self.angles();
        for (which, (first, count)) in [(0, h), (h, k)].into_iter().enumerate() {
            let slot = names.qk_norm.map(|pairs| &self.slots[pairs[which].weight]);
            let rows = buffers.size.rows();
            let grid = blocks(rows * count, 8).min(HEAD_BLOCKS);
            let launch = Launch::new("heads_backward", [grid, 1], BLOCK);
            let launch = launch.tensor(&buffers.dqkv).tensor(&kept.qkv);
            let launch = launch.optional(slot.map(|slot| &slot.weight));
            let launch = launch.optional(kept.qk.as_ref().map(|(_, inverse)| inverse));
            let launch = launch.tensor(&self.parts.heads).optional(cosines).optional(sines);
            let launch =
                launch.tensor(&buffers.inputs.places).int(rows).int(first).int(count).int(h + k).int(d);
            self.backend.run(&launch.int((h + 2 * k) * d))?;
            if let Some(slot) = slot {
                self.add_columns(&slot.grad, &self.parts.heads, 8 * grid, fresh)?;
            }
        }
        Ok(())
    }

    /// Logits, loss and their gradients, a piece of the rows at a time; the gradient of the hidden state is then in `dh`.
    fn head(&self, buffers: &Buffers, fresh: bool) -> Result<()> {
        let slot = &self.slots[self.names.head];
        let (rows, total) = (buffers.size.rows(), self.results.f_narrow(0, 0, 1)?);
        let (piece, stride) = buffers.logits.size2()?;
        let weight = slot.value().f_tr()?;
        for start in (0..rows).step_by(piece as usize) {
            let count = piece.min(rows - start);
            let part = |of: &Tensor| of.f_narrow(0, start, count);
            let (hidden, targets) = (part(&buffers.hidden)?, part(&buffers.inputs.targets)?);
            let logits = buffers.logits.f_narrow(0, 0, count)?;
            drop(hidden.f_mm_out(&logits, &weight)?);
            let launch =
                Launch::new("cross_entropy", [count, 1], 512).tensor(&logits).tensor(&buffers.losses);
            let launch = launch.tensor(&targets).tensor(&self.scale);
            self.backend.run(&launch.int(self.config.vocab_size.into()).int(stride))?;
            let first = fresh && start == 0;
            let launch = Launch::new("sum_losses", [1, 1], 1024).tensor(&total).tensor(&buffers.losses);
            self.backend.run(&launch.int(count).flag(first))?;
            self.backend.product(&slot.grad, &logits.f_tr()?, &hidden, !first)?;
            drop(logits.f_mm_out(&part(&buffers.dh)?, slot.value())?);
        }
        Ok(())
    }

    /// Queries, keys and values as attention takes them: [B, H or K, T, D] views.
    fn attention_inputs(&self, kept: &BlockBuffers, size: Size) -> Result<[Tensor; 3]> {
        let [q, k, v] = self.head_views(&kept.qkv, size)?;
        let Some((qk, _)) = &kept.qk else { return Ok([q, k, v]) };
        let [h, heads, d] = self.head_counts();
        let by_head = qk.f_view([size.batch, size.time, h + heads, d])?.f_transpose(1, 2)?;
        Ok([by_head.f_narrow(1, 0, h)?, by_head.f_narrow(1, h, heads)?, v])
    }

    /// The three parts of [N, (H + 2 K) D] as [B, H or K, T, D] views.
    fn head_views(&self, qkv: &Tensor, size: Size) -> Result<[Tensor; 3]> {
        let [h, k, d] = self.head_counts();
        let by_head = qkv.f_view([size.batch, size.time, h + 2 * k, d])?.f_transpose(1, 2)?;
        Ok([by_head.f_narrow(1, 0, h)?, by_head.f_narrow(1, h, k)?, by_head.f_narrow(1, h + k, k)?])
    }

    fn head_counts(&self) -> [i64; 3] {
        [self.config.heads, self.config.kv_heads, self.config.head_size()].map(i64::from)
    }

    fn head_size(&self) -> i64 {
        self.config.head_size().into()
    }

    fn channels(&self) -> i64 {
        self.config.channels.into()
    }

    fn centred(&self) -> bool {
        self.config.norm == Norm::LayerNorm
    }

    fn bias(&self, pair: Pair) -> Option<&Tensor> {
        pair.bias.map(|bias| &self.slots[bias].weight)
    }

    fn angles(&self) -> (Option<&Tensor>, Option<&Tensor>) {
        (self.rotation.as_ref().map(|(cos, _)| cos), self.rotation.as_ref().map(|(_, sin)| sin))
    }

    /// Groups of four columns that a thread of a norm kernel has, and the threads of a block.
    fn norm_block(&self) -> (u32, u32) {
        norm_block(self.config.channels)
    }
}

/// What the backward pass of a norm starts from.
struct NormGradient<'a> {
    dy: &'a Tensor,
    x: &'a Tensor,
    stats: &'a Tensor,
    /// Whether the residual stream goes past the norm, too.
    add: bool,
}

/// See [`Fused::norm_block`].
pub(crate) fn norm_block(channels: u32) -> (u32, u32) {
    let quads = channels / 4;
    let block = quads.next_multiple_of(32).min(BLOCK);
    (quads.div_ceil(block).next_power_of_two(), block)
}

/// Blocks of `size` that cover `count`.
fn blocks(count: i64, size: i64) -> i64 {
    (count + size - 1) / size
}

/// Whether the kernels can take such a model.
pub(crate) fn check(config: &ModelConfig) -> Result<()> {
    let [channels, hidden, head] = [config.channels, config.mlp_hidden, config.head_size()];
    let refuse = |flag, problem: String| {
        Err(Error::Option { flag, problem: format!("the fused CUDA engine {problem}") })
    };
    if !channels.is_multiple_of(8) || channels > MOST_CHANNELS {
        return refuse("--channels", format!("needs a multiple of 8 up to {MOST_CHANNELS}, not {channels}"));
    }
    if !hidden.is_multiple_of(8) {
        return refuse("--mlp-hidden", format!("needs a multiple of 8, not {hidden}"));
    }
    if !head.is_multiple_of(8) || head > MOST_HEAD_SIZE {
        let problem = format!("needs heads of a multiple of 8 channels up to {MOST_HEAD_SIZE}, not {head}");
        return refuse("--heads", problem);
    }
    Ok(())
}

/// The sections of [`Inputs`] for a micro-batch; `starts` as in a batch with document masks, else empty.
fn integers(
    inputs: &[i64],
    targets: &[i64],
    time: usize,
    starts: &[Vec<u32>],
    vocab_size: u32,
) -> Result<Vec<i32>> {
    let (n, vocab) = (inputs.len(), i64::from(vocab_size));
    let known = |id: &i64| (0..vocab).contains(id);
    let wrong = inputs.iter().find(|id| !known(id));
    if let Some(&id) = wrong.or_else(|| targets.iter().find(|id| **id != IGNORE && !known(id))) {
        let id = u32::try_from(id).unwrap_or(u32::MAX);
        return Err(Error::TokenOutOfRange { split: "train".into(), id, vocab_size });
    }
    let mut all = Vec::with_capacity(Inputs::length(n as i64) as usize);
    all.extend(inputs.iter().map(|&id| id as i32));
    all.extend(targets.iter().map(|&id| if id == IGNORE { -1 } else { id as i32 }));
    all.extend((0..n).map(|row| (row % time) as i32));
    for (row, starts) in all[2 * n..].chunks_exact_mut(time).zip(starts) {
        for &start in starts {
            (0..).zip(&mut row[start as usize..]).for_each(|(place, at)| *at = place);
        }
    }
    let places = all[2 * n..].to_vec();
    let tokens = all[..n].to_vec();
    add_groups(&tokens, vocab_size as usize, &mut all);
    add_groups(&places, time, &mut all);
    Ok(all)
}

/// Sorts rows by their key, below `keys`, and adds the sections of [`Groups`]. The sort is by counting: two passes.
fn add_groups(key_of: &[i32], keys: usize, all: &mut Vec<i32>) {
    let n = key_of.len();
    let at = all.len();
    all.resize(at + Groups::length(n as i64) as usize, 0);
    let (rows, rest) = all[at..].split_at_mut(n);
    let (occurring, starts) = rest.split_at_mut(n);
    let mut next = vec![0i32; keys + 1];
    for &key in key_of {
        next[key as usize + 1] += 1;
    }
    let mut count = 0;
    for key in 0..keys {
        if next[key + 1] > 0 {
            occurring[count] = key as i32;
            starts[count] = next[key];
            count += 1;
        }
        next[key + 1] += next[key];
    }
    starts[count] = n as i32;
    starts[n + 1] = count as i32;
    for (row, &key) in (0..).zip(key_of) {
        let place = &mut next[key as usize];
        rows[*place as usize] = row;
        *place += 1;
    }
}

impl Groups {
    /// Integers for `n` rows: rows, keys, starts and one more, count.
    fn length(n: i64) -> i64 {
        3 * n + 2
    }

    fn of(section: &Tensor, n: i64) -> Result<Groups> {
        let part = |start: i64, length: i64| section.f_narrow(0, start, length);
        Ok(Groups {
            rows: part(0, n)?,
            keys: part(n, n)?,
            starts: part(2 * n, n + 1)?,
            count: part(3 * n + 1, 1)?,
        })
    }
}

impl Inputs {
    /// Integers for `n` rows: tokens, targets, places, two groups.
    fn length(n: i64) -> i64 {
        3 * n + 2 * Groups::length(n)
    }

    fn new(n: i64, device: Device) -> Result<Inputs> {
        let all = Tensor::f_zeros([Inputs::length(n)], (Kind::Int, device))?;
        let part = |start: i64, length: i64| all.f_narrow(0, start, length);
        let length = Groups::length(n);
        Ok(Inputs {
            tokens: part(0, n)?,
            targets: part(n, n)?,
            places: part(2 * n, n)?,
            by_token: Groups::of(&part(3 * n, length)?, n)?,
            by_place: Groups::of(&part(3 * n + length, length)?, n)?,
            all,
        })
    }
}

impl Buffers {
    fn new(config: &ModelConfig, kind: Kind, device: Device, size: Size, recompute: bool) -> Result<Buffers> {
        let n = size.rows();
        let [c, hidden, h, k, d] =
            [config.channels, config.mlp_hidden, config.heads, config.kv_heads, config.head_size()]
                .map(i64::from);
        let width = if config.mlp == Mlp::SwiGlu { 2 * hidden } else { hidden };
        let elements = |columns: i64| Tensor::f_zeros([n, columns], (kind, device));
        let floats = |columns: i64| Tensor::f_zeros([n, columns], (Kind::Float, device));
        let block = |_| {
            let qk = || Ok::<_, Error>((elements((h + k) * d)?, floats(h + k)?));
            Ok::<_, Error>(BlockBuffers {
                stats1: floats(2)?,
                h1: elements(c)?,
                qkv: elements((h + 2 * k) * d)?,
                qk: config.qk_norm.then(qk).transpose()?,
                x2: floats(c)?,
                stats2: floats(2)?,
                h2: elements(c)?,
                up: elements(width)?,
                active: elements(hidden)?,
            })
        };
        let kept = if recompute { 1 } else { config.layers };
        let stride = i64::from(config.padded_vocab());
        let piece = (LOGITS / stride).clamp(1, n);
        Ok(Buffers {
            size,
            inputs: Inputs::new(n, device)?,
            block_inputs: (0..config.layers).map(|_| Ok(floats(c)?)).collect::<Result<_>>()?,
            blocks: (0..kept).map(block).collect::<Result<_>>()?,
            branch: elements(c)?,
            last: floats(c)?,
            last_stats: floats(2)?,
            hidden: elements(c)?,
            dx: floats(c)?,
            dx_elements: elements(c)?,
            dh: elements(c)?,
            dqkv: elements((h + 2 * k) * d)?,
            dy: elements(h * d)?,
            dactive: elements(hidden)?,
            logits: Tensor::f_zeros([piece, stride], (kind, device))?,
            losses: Tensor::f_zeros([piece], (Kind::Float, device))?,
        })
    }

    /// The first rows of these buffers.
    fn cut(&self, size: Size, device: Device) -> Result<Buffers> {
        let rows = |tensor: &Tensor| tensor.f_narrow(0, 0, size.rows());
        let block = |b: &BlockBuffers| {
            let qk = b.qk.as_ref().map(|(qk, inverse)| Ok::<_, Error>((rows(qk)?, rows(inverse)?)));
            Ok(BlockBuffers {
                stats1: rows(&b.stats1)?,
                h1: rows(&b.h1)?,
                qkv: rows(&b.qkv)?,
                qk: qk.transpose()?,
                x2: rows(&b.x2)?,
                stats2: rows(&b.stats2)?,
                h2: rows(&b.h2)?,
                up: rows(&b.up)?,
                active: rows(&b.active)?,
            })
        };
        Ok(Buffers {
            size,
            inputs: Inputs::new(size.rows(), device)?,
            block_inputs: self.block_inputs.iter().map(|x| Ok(rows(x)?)).collect::<Result<_>>()?,
            blocks: self.blocks.iter().map(block).collect::<Result<_>>()?,
            branch: rows(&self.branch)?,
            last: rows(&self.last)?,
            last_stats: rows(&self.last_stats)?,
            hidden: rows(&self.hidden)?,
            dx: rows(&self.dx)?,
            dx_elements: rows(&self.dx_elements)?,
            dh: rows(&self.dh)?,
            dqkv: rows(&self.dqkv)?,
            dy: rows(&self.dy)?,
            dactive: rows(&self.dactive)?,
            logits: self.logits.shallow_clone(),
            losses: self.losses.shallow_clone(),
        })
    }

    /// The buffers of a block.
    fn block(&self, layer: usize) -> &BlockBuffers {
        &self.blocks[layer.min(self.blocks.len() - 1)]
    }
}

impl Parts {
    fn new(config: &ModelConfig, slots: &[Slot], pieces: i64, device: Device) -> Result<Parts> {
        let floats = |rows: i64, columns: i64| Tensor::f_zeros([rows, columns], (Kind::Float, device));
        let c = i64::from(config.channels);
        let widest = slots.iter().filter(|slot| slot.weight.dim() == 1).map(|slot| slot.weight.size()[0]);
        Ok(Parts {
            norm: [floats(NORM_BLOCKS, c)?, floats(NORM_BLOCKS, c)?],
            columns: floats(COLUMN_PARTS, widest.max().unwrap_or(1))?,
            heads: floats(8 * HEAD_BLOCKS, config.head_size().into())?,
            squares: Tensor::f_zeros([pieces], (Kind::Double, device))?,
        })
    }
}

impl Tables {
    fn new(slots: &[Slot], device: Device) -> Result<Tables> {
        let mut pieces = Vec::new();
        for (number, slot) in (0i64..).zip(slots) {
            let starts = (0..slot.weight.numel()).step_by(PIECE);
            pieces.extend(starts.flat_map(|start| [number, start as i64]));
        }
        let addresses = addresses(slots, None);
        let table = |values: &[i64]| Ok::<_, Error>(Tensor::f_from_slice(values)?.f_to_device(device)?);
        Ok(Tables { table: table(&addresses)?, pieces: table(&pieces)?.f_view([-1, 2])?, addresses })
    }

    /// Puts the addresses of the moments in place, if they are not there.
    fn set_moments(&mut self, slots: &[Slot], moments: &[Moments]) -> Result<()> {
        let addresses = addresses(slots, Some(moments));
        if addresses != self.addresses {
            self.table.f_copy_(&Tensor::f_from_slice(&addresses)?)?;
            self.addresses = addresses;
        }
        Ok(())
    }
}

/// The table of `optimizer.cu`: seven numbers for each parameter.
fn addresses(slots: &[Slot], moments: Option<&[Moments]>) -> Vec<i64> {
    let address = |tensor: &Tensor| if tensor.numel() == 0 { 0 } else { tensor.data_ptr() as i64 };
    let row = |(number, slot): (usize, &Slot)| {
        let moment = moments.map(|moments| &moments[number]);
        [
            address(&slot.weight),
            address(&slot.grad),
            moment.map_or(0, |moment| address(&moment.first)),
            moment.map_or(0, |moment| address(&moment.second)),
            slot.shadow.as_ref().map_or(0, address),
            slot.weight.numel() as i64,
            slot.decays.into(),
        ]
    };
    slots.iter().enumerate().flat_map(row).collect()
}
