//! One decoder with switches: GPT-2, Llama and their mixtures.
//!
//! ```text
//! x = embedding[tokens] (+ position)                                            [B, T, C]
//! L times:  x = x + attention(norm(x));   x = x + mlp(norm(x))
//! logits = norm(x) · headᵀ                                                       [B, T, V]
//! ```
//! Parameters are an ordered list of our own, each with a unique name, and loading checks name, shape and dtype
//! exactly: tch's `VarStore` would broadcast a smaller tensor into place and take over the file's dtype.
//! Weights are fp32; with bf16 they are cast where they are used, and the loss is computed in fp32.

use tch::{Device, Kind, Reduction, Tensor};

use crate::config::{Dtype, Mlp, ModelConfig, Norm, Position};
use crate::data::Batch;
use crate::kernels::floats_mut;
use crate::rng::Rng;
use crate::{Error, Result};

/// Standard deviation of initial weights (GPT-2).
const INIT_STD: f64 = 0.02;

/// Targets with this value are not scored.
pub const IGNORE: i64 = -100;

/// A trainable tensor.
#[derive(Debug)]
pub struct Parameter {
    /// Unique name, such as `layers.0.attention.qkv.weight`.
    pub name: String,
    /// Its fp32 values, which require a gradient.
    pub tensor: Tensor,
    /// Whether weight decay applies: to matrices, not to vectors.
    pub decays: bool,
}

/// A decoder-only transformer.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    device: Device,
    kind: Kind,
    parameters: Vec<Parameter>,
    embedding: Tensor,
    position: Option<Tensor>,
    rotation: Option<Rotation>,
    blocks: Vec<Block>,
    norm: NormLayer,
    head: Option<Tensor>,
}

#[derive(Debug)]
struct Block {
    norm1: NormLayer,
    attention: Attention,
    norm2: NormLayer,
    mlp: MlpLayer,
}

#[derive(Debug)]
struct Attention {
    /// Queries, keys and values in one matrix: [(H + 2 K) D, C].
    qkv: Linear,
    out: Linear,
    /// Weights of the normalisation of query and key heads: [D] each.
    qk_norm: Option<(Tensor, Tensor)>,
}

#[derive(Debug)]
struct MlpLayer {
    /// For SwiGLU gate and up projection in one matrix: [2 F, C].
    up: Linear,
    down: Linear,
}

#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

#[derive(Debug)]
struct NormLayer {
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f64,
}

/// Cosines and sines of the rotary angles: [T, D / 2] each.
#[derive(Debug)]
struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

/// Keys and values of the tokens that a generating model has seen.
#[derive(Debug)]
pub struct KvCache {
    /// One pair for each layer: [B, K, T, D] each.
    layers: Vec<(Tensor, Tensor)>,
    len: i64,
    /// Tokens of each text, where texts of a batch have their own lengths.
    rows: Option<Vec<i64>>,
}

/// Rows that hold several documents, of which each sees itself alone.
#[derive(Debug)]
pub struct Segments {
    /// Place of each token in its document: [B, T].
    places: Tensor,
    /// Which tokens each token sees: [B, 1, T, T].
    mask: Tensor,
}

impl Segments {
    /// Documents that begin at `starts` of each row, ascending from 0, in rows of `seq_len` tokens.
    pub fn new(starts: &[Vec<u32>], seq_len: usize, device: Device) -> Result<Segments> {
        let mut firsts = Vec::with_capacity(starts.len() * seq_len);
        for starts in starts {
            let row = firsts.len();
            firsts.resize(row + seq_len, 0i64);
            for &start in starts {
                firsts[row + start as usize..].fill(i64::from(start));
            }
        }
        let firsts = Tensor::f_from_slice(&firsts)?.f_view([starts.len() as i64, -1])?;
        let all = Tensor::f_arange(seq_len as i64, (Kind::Int64, Device::Cpu))?;
        let same = firsts.f_unsqueeze(2)?.f_eq_tensor(&firsts.f_unsqueeze(1)?)?; // [B, T, T]
        let causal = all.f_unsqueeze(0)?.f_le_tensor(&all.f_unsqueeze(1)?)?; // [T, T]
        Ok(Segments {
            places: all.f_sub(&firsts)?.f_to_device(device)?,
            mask: same.f_logical_and(&causal)?.f_unsqueeze(1)?.f_to_device(device)?,
        })
    }
}

/// Some rows of a batch on a device.
#[derive(Debug)]
pub(crate) struct MicroBatch {
    /// [B, T] of int64.
    pub(crate) inputs: Tensor,
    /// [B, T] of int64.
    pub(crate) targets: Tensor,
    /// If documents see themselves alone.
    pub(crate) segments: Option<Segments>,
}

impl MicroBatch {
    /// The pieces of a batch of at most `rows` rows in order, each made when it is asked for.
    pub(crate) fn all_of(
        batch: &Batch,
        rows: u32,
        device: Device,
    ) -> impl Iterator<Item = Result<MicroBatch>> {
        let mut first_row = 0;
        batch.micro_batches(rows as usize).map(move |(rows, inputs, targets)| {
            let tensor = |ids: &[i64]| {
                Ok::<_, Error>(Tensor::f_from_slice(ids)?.f_view([rows as i64, -1])?.f_to_device(device)?)
            };
            let starts = batch.starts_of(first_row, rows);
            first_row += rows;
            let segments = match starts.is_empty() {
                true => None,
                false => Some(Segments::new(starts, batch.seq_len, device)?),
            };
            Ok(MicroBatch { inputs: tensor(inputs)?, targets: tensor(targets)?, segments })
        })
    }
}

/// What the blocks of one forward pass share.
pub(crate) struct BlockContext {
    rotation: Option<Rotation>,
    mask: Option<Tensor>,
}

impl KvCache {
    /// Tokens seen.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no token was seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets the texts that are told.
    pub(crate) fn clear_rows(&mut self, which: &[bool]) {
        let rows = self.rows.iter_mut().flatten().zip(which);
        rows.filter(|(_, clear)| **clear).for_each(|(length, _)| *length = 0);
    }

    /// Forgets all tokens; the memory is kept.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

impl Model {
    /// A model with initial weights drawn from `seed`: the same on every device.
    pub fn new(config: &ModelConfig, dtype: Dtype, device: Device, seed: u64) -> Result<Model> {
        Model::build(config, dtype, device, Some(seed))
    }

    /// A model whose weights are to be read from a checkpoint; until then its matrices are zero.
    pub fn blank(config: &ModelConfig, dtype: Dtype, device: Device) -> Result<Model> {
        Model::build(config, dtype, device, None)
    }

    fn build(config: &ModelConfig, dtype: Dtype, device: Device, seed: Option<u64>) -> Result<Model> {
        config.check()?;
        let mut init = Initializer { seed, device, parameters: Vec::new() };
        let c = i64::from(config.channels);
        let embedding = init.embedding("embedding.weight", config)?;
        let position = match config.position {
            Position::Learned => {
                Some(init.normal("position.weight", &[i64::from(config.context), c], INIT_STD)?)
            }
            Position::Rope => None,
        };
        let blocks =
            (0..config.layers).map(|layer| Block::new(&mut init, config, layer)).collect::<Result<_>>()?;
        let norm = init.norm("norm", config)?;
        let head = if config.tied { None } else { Some(init.embedding("head.weight", config)?) };
        let rotation = match config.position {
            Position::Learned => None,
            Position::Rope => Some(Rotation::new(config, device)?),
        };
        let kind = match dtype {
            Dtype::Fp32 => Kind::Float,
            Dtype::Bf16 => Kind::BFloat16,
        };
        let parameters = init.parameters;
        Ok(Model {
            config: config.clone(),
            device,
            kind,
            parameters,
            embedding,
            position,
            rotation,
            blocks,
            norm,
            head,
        })
    }

    /// The same model for another thread: it has the same weights in the same memory. Neither may be trained while both live.
    pub fn share(&self) -> Result<Model> {
        let dtype = if self.kind == Kind::BFloat16 { Dtype::Bf16 } else { Dtype::Fp32 };
        let other = Model::blank(&self.config, dtype, self.device)?;
        for (own, shared) in other.parameters.iter().zip(&self.parameters) {
            // What uses a parameter has the same tensor under another handle, and so sees the change.
            own.tensor.shallow_clone().f_set_data(&shared.tensor)?;
        }
        Ok(other)
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Name of the arithmetic: `fp32` or `bf16`.
    pub fn dtype_name(&self) -> &'static str {
        if self.kind == Kind::BFloat16 { "bf16" } else { "fp32" }
    }

    /// Where the model lies.
    pub fn device(&self) -> Device {
        self.device
    }

    /// All parameters in a fixed order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Cosines and sines of the rotary angles, [T, D / 2] each, if positions are rotations.
    pub(crate) fn rotation(&self) -> Option<(&Tensor, &Tensor)> {
        self.rotation.as_ref().map(|rotation| (&rotation.cos, &rotation.sin))
    }

    /// The same model in fp64 throughout, which tests hold other arithmetic against.
    #[doc(hidden)]
    pub fn into_oracle(mut self) -> Result<Model> {
        for parameter in &self.parameters {
            let double = parameter.tensor.f_detach()?.f_to_kind(Kind::Double)?;
            parameter.tensor.shallow_clone().f_set_data(&double)?;
        }
        if let Some(rotation) = &mut self.rotation {
            (rotation.cos, rotation.sin) =
                (rotation.cos.f_to_kind(Kind::Double)?, rotation.sin.f_to_kind(Kind::Double)?);
        }
        self.kind = Kind::Double;
        Ok(self)
    }

    /// Logits of the next token at every place.
    ///
    /// **Shapes**: `tokens` [B, T] of 64-bit ids, T at most the context → [B, T, V] in fp32.
    pub fn logits(&self, tokens: &Tensor) -> Result<Tensor> {
        self.head(&self.hidden(tokens, None)?)
    }

    /// The hidden state after all blocks and the last norm, which the output matrix turns into logits.
    ///
    /// **Shapes**: `tokens` [B, T] of 64-bit ids, T at most the context → [B, T, C] in fp32.
    pub fn final_hidden(&self, tokens: &Tensor) -> Result<Tensor> {
        Ok(self.hidden(tokens, None)?.f_to_kind(Kind::Float)?)
    }

    /// Sum of the cross-entropies of the targets in nats; targets of [`IGNORE`] are left out.
    ///
    /// **Shapes**: `tokens` and `targets` [B, T] → a scalar in fp32.
    pub fn loss_sum(&self, tokens: &Tensor, targets: &Tensor) -> Result<Tensor> {
        self.loss_sum_in(tokens, targets, None)
    }

    /// As [`loss_sum`](Self::loss_sum), of rows that may hold documents apart.
    pub fn loss_sum_in(
        &self,
        tokens: &Tensor,
        targets: &Tensor,
        segments: Option<&Segments>,
    ) -> Result<Tensor> {
        cross_entropy(&self.head(&self.hidden_in(tokens, segments)?)?, targets, Reduction::Sum)
    }

    /// The sum of the losses from the residual stream after all blocks: [B, T, C] → a scalar in fp32.
    pub(crate) fn loss_sum_of(&self, x: &Tensor, targets: &Tensor) -> Result<Tensor> {
        cross_entropy(&self.head(&self.normed(&self.norm, x)?)?, targets, Reduction::Sum)
    }

    /// Cross-entropy of every target in nats, 0 where it is [`IGNORE`].
    ///
    /// **Shapes**: `tokens` and `targets` [B, T] → [B × T] in fp32.
    pub fn token_losses(&self, tokens: &Tensor, targets: &Tensor) -> Result<Tensor> {
        self.token_losses_in(tokens, targets, None)
    }

    /// As [`token_losses`](Self::token_losses), of rows that may hold documents apart.
    pub fn token_losses_in(
        &self,
        tokens: &Tensor,
        targets: &Tensor,
        segments: Option<&Segments>,
    ) -> Result<Tensor> {
        let hidden = self.hidden_in(tokens, segments)?;
        cross_entropy(&self.head(&hidden)?, targets, Reduction::None)
    }

    /// An empty cache for `batch` texts of at most the model's context.
    pub fn new_cache(&self, batch: i64) -> Result<KvCache> {
        let c = &self.config;
        let shape = [batch, c.kv_heads.into(), c.context.into(), c.head_size().into()];
        let empty = || Tensor::f_zeros(shape, (self.kind, self.device));
        let layers = (0..c.layers).map(|_| Ok((empty()?, empty()?))).collect::<Result<_>>()?;
        Ok(KvCache { layers, len: 0, rows: None })
    }

    /// An empty cache for `batch` texts, each with a length of its own; see [`Model::read_row`].
    pub fn new_rows(&self, batch: usize) -> Result<KvCache> {
        Ok(KvCache { rows: Some(vec![0; batch]), ..self.new_cache(batch as i64)? })
    }

    /// Logits after the last of `tokens`, which become all that the cache holds of one text.
    ///
    /// **Shapes**: `tokens` [1, T] → [V] in fp32.
    pub fn read_row(&self, tokens: &Tensor, cache: &mut KvCache, row: usize) -> Result<Tensor> {
        let part = |store: &Tensor| store.f_narrow(0, row as i64, 1);
        let layers = cache.layers.iter().map(|(k, v)| Ok((part(k)?, part(v)?))).collect::<Result<_>>()?;
        // Views of the same memory: what is written there is in the cache.
        let mut view = KvCache { layers, len: 0, rows: None };
        let logits = self.next_logits(tokens, &mut view)?.f_squeeze_dim(0)?;
        let rows = cache.rows.as_mut().expect("made by new_rows");
        rows[row] = view.len;
        Ok(logits)
    }

    /// Logits after one more token of each text, which is added to the cache; texts without a token are left as they are.
    ///
    /// **Shapes**: one id or none for each of B texts → [B, V] in fp32.
    pub fn next_logits_of_rows(&self, ids: &[Option<i64>], cache: &mut KvCache) -> Result<Tensor> {
        let tokens: Vec<i64> = ids.iter().map(|id| id.unwrap_or(0)).collect();
        let tokens = Tensor::f_from_slice(&tokens)?.f_unsqueeze(1)?.f_to_device(self.device)?;
        let hidden = self.hidden(&tokens, Some(cache))?;
        let rows = cache.rows.as_mut().expect("made by new_rows");
        rows.iter_mut().zip(ids).filter(|(_, id)| id.is_some()).for_each(|(row, _)| *row += 1);
        Ok(self.head(&hidden)?.f_squeeze_dim(1)?)
    }

    /// Logits after the last of `tokens`, which follow those in the cache and are added to it.
    ///
    /// Either the cache is empty, or `tokens` is one token a text: [B, 1]. Both together must fit the context.
    ///
    /// **Shapes**: `tokens` [B, T] → [B, V] in fp32.
    pub fn next_logits(&self, tokens: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let (_, time) = tokens.size2()?;
        debug_assert!(cache.is_empty() || time == 1, "a longer piece would need a mask of its own");
        let hidden = self.hidden(tokens, Some(cache))?.f_narrow(1, time - 1, 1)?;
        cache.len += time;
        Ok(self.head(&hidden)?.f_squeeze_dim(1)?)
    }

    /// The first residual stream: [B, T] → [B, T, C].
    pub(crate) fn embed(&self, tokens: &Tensor, segments: Option<&Segments>) -> Result<Tensor> {
        let (_, time) = tokens.size2()?;
        let mut x = Tensor::f_embedding(&self.embedding, tokens, -1, false, false)?; // [B, T, C]
        if let Some(position) = &self.position {
            x = x.f_add(&match segments {
                Some(segments) => Tensor::f_embedding(position, &segments.places, -1, false, false)?,
                None => position.f_narrow(0, 0, time)?,
            })?;
        }
        Ok(x.f_to_kind(self.kind)?)
    }

    /// What the blocks need besides their input, for rows of these tokens.
    pub(crate) fn block_context(&self, tokens: &Tensor, segments: Option<&Segments>) -> Result<BlockContext> {
        let (_, time) = tokens.size2()?;
        let rotation = match (&self.rotation, segments) {
            (None, _) => None,
            (Some(rotation), None) => Some(rotation.narrow(0, time, self.kind)?),
            (Some(rotation), Some(segments)) => Some(rotation.of_places(&segments.places, self.kind)?),
        };
        Ok(BlockContext { rotation, mask: segments.map(|segments| segments.mask.shallow_clone()) })
    }

    /// One block: [B, T, C] → the same.
    pub(crate) fn block(&self, layer: usize, x: &Tensor, context: &BlockContext) -> Result<Tensor> {
        let block = &self.blocks[layer];
        let h = self.normed(&block.norm1, x)?;
        let BlockContext { rotation, mask } = context;
        let x =
            x.f_add(&block.attention.forward(&h, &self.config, rotation.as_ref(), mask.as_ref(), None)?)?;
        let h = self.normed(&block.norm2, &x)?;
        Ok(x.f_add(&block.mlp.forward(&h, self.config.mlp)?)?)
    }

    /// Name of the output matrix.
    pub(crate) fn head_name(&self) -> &'static str {
        if self.head.is_some() { "head.weight" } else { "embedding.weight" }
    }

    fn hidden(&self, tokens: &Tensor, cache: Option<&mut KvCache>) -> Result<Tensor> {
        match cache {
            None => self.hidden_in(tokens, None),
            Some(cache) => self.hidden_after(tokens, cache),
        }
    }

    /// The residual stream after all blocks and the last norm: [B, T, C].
    fn hidden_in(&self, tokens: &Tensor, segments: Option<&Segments>) -> Result<Tensor> {
        let context = self.block_context(tokens, segments)?;
        let mut x = self.embed(tokens, segments)?;
        for layer in 0..self.blocks.len() {
            x = self.block(layer, &x, &context)?;
        }
        self.normed(&self.norm, &x)
    }

    /// The same for tokens that follow those in a cache.
    fn hidden_after(&self, tokens: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let (_, time) = tokens.size2()?;
        let start = cache.len;
        let rows = cache.rows.as_ref().map(|rows| Rows::new(rows, self)).transpose()?;
        let mut x = Tensor::f_embedding(&self.embedding, tokens, -1, false, false)?; // [B, T, C]
        if let Some(position) = &self.position {
            x = x.f_add(&match &rows {
                Some(rows) => position.f_index_select(0, &rows.places)?.f_unsqueeze(1)?,
                None => position.f_narrow(0, start, time)?,
            })?;
        }
        x = x.f_to_kind(self.kind)?;
        let rotation = match &self.rotation {
            Some(rotation) => Some(match &rows {
                Some(rows) => rotation.select(&rows.places, self.kind)?,
                None => rotation.narrow(start, time, self.kind)?,
            }),
            None => None,
        };
        for (layer, block) in self.blocks.iter().enumerate() {
            let past = Past { start, pair: &mut cache.layers[layer], rows: rows.as_ref() };
            let attended = block.attention.forward(
                &self.normed(&block.norm1, &x)?,
                &self.config,
                rotation.as_ref(),
                None,
                Some(past),
            )?;
            x = x.f_add(&attended)?;
            x = x.f_add(&block.mlp.forward(&self.normed(&block.norm2, &x)?, self.config.mlp)?)?;
        }
        self.normed(&self.norm, &x)
    }

    fn normed(&self, norm: &NormLayer, x: &Tensor) -> Result<Tensor> {
        norm.forward(x, self.config.norm)
    }

    /// [B, T, C] → [B, T, V] in fp32, the rows that pad the vocabulary left out.
    fn head(&self, hidden: &Tensor) -> Result<Tensor> {
        let weight = self.head.as_ref().unwrap_or(&self.embedding).f_to_kind(self.kind)?;
        let logits = hidden.f_linear(&weight, None::<Tensor>)?;
        let kind = if self.kind == Kind::Double { Kind::Double } else { Kind::Float };
        Ok(logits.f_narrow(-1, 0, self.config.vocab_size.into())?.f_to_kind(kind)?)
    }
}

/// `logits` [B, T, V], `targets` [B, T].
fn cross_entropy(logits: &Tensor, targets: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let vocab = logits.size()[2];
    let (logits, targets) = (logits.f_reshape([-1, vocab])?, targets.f_reshape([-1])?);
    Ok(logits.f_cross_entropy_loss(&targets, None::<Tensor>, reduction, IGNORE, 0.0)?)
}

impl Block {
    fn new(init: &mut Initializer, config: &ModelConfig, layer: u32) -> Result<Block> {
        let name = |part: &str| format!("layers.{layer}.{part}");
        let [c, hidden, d] = [config.channels, config.mlp_hidden, config.head_size()].map(i64::from);
        let (heads, kv_heads) = (i64::from(config.heads), i64::from(config.kv_heads));
        // The 2 L projections that add to the residual stream are smaller, so that its variance does not grow with
        // the depth (GPT-2 paper, section 2.3).
        let residual_std = INIT_STD / f64::from(2 * config.layers).sqrt();
        let up = if config.mlp == Mlp::SwiGlu { 2 * hidden } else { hidden };
        Ok(Block {
            norm1: init.norm(&name("norm1"), config)?,
            attention: Attention {
                qkv: init.linear(
                    &name("attention.qkv"),
                    config,
                    [(heads + 2 * kv_heads) * d, c],
                    INIT_STD,
                )?,
                qk_norm: match config.qk_norm {
                    true => Some((
                        init.ones(&name("attention.q_norm.weight"), d)?,
                        init.ones(&name("attention.k_norm.weight"), d)?,
                    )),
                    false => None,
                },
                out: init.linear(&name("attention.out"), config, [c, heads * d], residual_std)?,
            },
            norm2: init.norm(&name("norm2"), config)?,
            mlp: MlpLayer {
                up: init.linear(&name("mlp.up"), config, [up, c], INIT_STD)?,
                down: init.linear(&name("mlp.down"), config, [c, hidden], residual_std)?,
            },
        })
    }
}

/// The part of the cache that one layer's attention sees.
struct Past<'a> {
    start: i64,
    pair: &'a mut (Tensor, Tensor),
    rows: Option<&'a Rows>,
}

/// One new token for each of several texts of unequal length.
struct Rows {
    lengths: Vec<i64>,
    /// The same on the device: [B].
    places: Tensor,
    /// Which places of the cache each text has, its new token included: [B, 1, 1, T].
    mask: Tensor,
}

impl Rows {
    fn new(lengths: &[i64], model: &Model) -> Result<Rows> {
        let places = Tensor::f_from_slice(lengths)?.f_to_device(model.device)?;
        let longest = 1 + lengths.iter().copied().max().unwrap_or(0);
        let all = Tensor::f_arange(longest, (Kind::Int64, model.device))?;
        let mask = all.f_unsqueeze(0)?.f_le_tensor(&places.f_unsqueeze(1)?)?;
        Ok(Rows { lengths: lengths.to_vec(), places, mask: mask.f_unsqueeze(1)?.f_unsqueeze(1)? })
    }
}

impl Past<'_> {
    /// Adds the new keys and values and returns all of them.
    fn extend(self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        if let Some(rows) = self.rows {
            let add = |store: &Tensor, new: &Tensor| -> Result<Tensor> {
                for (row, &at) in (0..).zip(&rows.lengths) {
                    store.f_narrow(0, row, 1)?.f_narrow(2, at, 1)?.f_copy_(&new.f_narrow(0, row, 1)?)?;
                }
                Ok(store.f_narrow(2, 0, rows.mask.size()[3])?)
            };
            return Ok((add(&self.pair.0, k)?, add(&self.pair.1, v)?));
        }
        let time = k.size()[2];
        let add = |store: &Tensor, new: &Tensor| -> Result<Tensor> {
            store.f_narrow(2, self.start, time)?.f_copy_(new)?;
            Ok(store.f_narrow(2, 0, self.start + time)?)
        };
        Ok((add(&self.pair.0, k)?, add(&self.pair.1, v)?))
    }
}

impl Attention {
    fn forward(
        &self,
        x: &Tensor,
        config: &ModelConfig,
        rotation: Option<&Rotation>,
        mask: Option<&Tensor>,
        past: Option<Past<'_>>,
    ) -> Result<Tensor> {
        let (batch, time, _) = x.size3()?;
        let (heads, kv_heads, d) =
            (i64::from(config.heads), i64::from(config.kv_heads), i64::from(config.head_size()));
        let parts = self.qkv.forward(x)?.f_split_with_sizes([heads * d, kv_heads * d, kv_heads * d], -1)?;
        let by_head = |part: &Tensor, heads| {
            Ok::<_, crate::Error>(part.f_view([batch, time, heads, d])?.f_transpose(1, 2)?)
        };
        let mut q = by_head(&parts[0], heads)?; // [B, H, T, D]
        let mut k = by_head(&parts[1], kv_heads)?; // [B, K, T, D]
        let mut v = by_head(&parts[2], kv_heads)?;
        if let Some((q_weight, k_weight)) = &self.qk_norm {
            q = rms_norm(&q, q_weight, config.norm_eps)?;
            k = rms_norm(&k, k_weight, config.norm_eps)?;
        }
        if let Some(rotation) = rotation {
            q = rotation.apply(&q)?;
            k = rotation.apply(&k)?;
        }
        // With a cache a single new token may see everything; otherwise queries and keys begin together.
        let mut causal = mask.is_none();
        let mut mask = mask.map(Tensor::shallow_clone);
        if let Some(past) = past {
            mask = past.rows.map(|rows| rows.mask.shallow_clone());
            causal = past.start == 0 && mask.is_none();
            (k, v) = past.extend(&k, &v)?;
        }
        let grouped = kv_heads < heads;
        let y =
            Tensor::f_scaled_dot_product_attention(&q, &k, &v, mask.as_ref(), 0.0, causal, None, grouped)?;
        self.out.forward(&y.f_transpose(1, 2)?.f_reshape([batch, time, heads * d])?)
    }
}

impl MlpLayer {
    fn forward(&self, x: &Tensor, kind: Mlp) -> Result<Tensor> {
        let up = self.up.forward(x)?;
        let active = match kind {
            Mlp::Gelu => up.f_gelu("tanh")?,
            Mlp::Relu2 => up.f_relu()?.f_square()?,
            Mlp::SwiGlu => {
                let halves = up.f_chunk(2, -1)?;
                halves[0].f_silu()?.f_mul(&halves[1])?
            }
        };
        self.down.forward(&active)
    }
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| bias.f_to_kind(x.kind())).transpose()?;
        Ok(x.f_linear(&self.weight.f_to_kind(x.kind())?, bias)?)
    }
}

impl NormLayer {
    fn forward(&self, x: &Tensor, norm: Norm) -> Result<Tensor> {
        match norm {
            Norm::RmsNorm => rms_norm(x, &self.weight, self.eps),
            Norm::LayerNorm => {
                let bias = self.bias.as_ref().map(|bias| bias.f_to_kind(x.kind())).transpose()?;
                let weight = self.weight.f_to_kind(x.kind())?;
                Ok(x.f_layer_norm(self.weight.size(), Some(&weight), bias.as_ref(), self.eps, true)?)
            }
        }
    }
}

fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    Ok(x.f_rms_norm(weight.size(), Some(weight.f_to_kind(x.kind())?), eps)?)
}

impl Rotation {
    fn new(config: &ModelConfig, device: Device) -> Result<Rotation> {
        let half = config.head_size() / 2;
        let frequency = |i: u32| config.rope_theta.powf(-f64::from(i) / f64::from(half));
        let angles = (0..config.context).flat_map(|t| (0..half).map(move |i| f64::from(t) * frequency(i)));
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        let shape = [i64::from(config.context), i64::from(half)];
        let table = |values: &[f32]| Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to_device(device);
        Ok(Rotation { cos: table(&cos)?, sin: table(&sin)? })
    }

    /// The angles of `time` places from `start` on.
    fn narrow(&self, start: i64, time: i64, kind: Kind) -> Result<Rotation> {
        let part = |table: &Tensor| table.f_narrow(0, start, time)?.f_to_kind(kind);
        Ok(Rotation { cos: part(&self.cos)?, sin: part(&self.sin)? })
    }

    /// The angles of one place for each text: [B, 1, 1, D / 2].
    fn select(&self, places: &Tensor, kind: Kind) -> Result<Rotation> {
        let part =
            |table: &Tensor| table.f_index_select(0, places)?.f_unsqueeze(1)?.f_unsqueeze(1)?.f_to_kind(kind);
        Ok(Rotation { cos: part(&self.cos)?, sin: part(&self.sin)? })
    }

    /// The angles of each token of several rows, given their places [B, T]: [B, 1, T, D / 2].
    fn of_places(&self, places: &Tensor, kind: Kind) -> Result<Rotation> {
        let part = |table: &Tensor| {
            let angles = Tensor::f_embedding(table, places, -1, false, false)?; // [B, T, D / 2]
            Ok::<_, crate::Error>(angles.f_unsqueeze(1)?.f_to_kind(kind)?)
        };
        Ok(Rotation { cos: part(&self.cos)?, sin: part(&self.sin)? })
    }

    /// Rotates the pairs (i, i + D / 2) of each head, as in transformers: [B, H, T, D] → [B, H, T, D].
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let halves = x.f_chunk(2, -1)?;
        let (a, b) = (&halves[0], &halves[1]);
        let first = a.f_mul(&self.cos)?.f_sub(&b.f_mul(&self.sin)?)?;
        let second = b.f_mul(&self.cos)?.f_add(&a.f_mul(&self.sin)?)?;
        Ok(Tensor::f_cat(&[first, second], -1)?)
    }
}

/// Makes the parameters, in order, each from a random stream of its own name.
struct Initializer {
    /// `None`: no random numbers, as the weights will be read.
    seed: Option<u64>,
    device: Device,
    parameters: Vec<Parameter>,
}

impl Initializer {
    fn normal(&mut self, name: &str, shape: &[i64], std: f64) -> Result<Tensor> {
        self.random(name, shape, shape[0], std)
    }

    /// A [V, C] matrix whose padding rows are zero.
    fn embedding(&mut self, name: &str, config: &ModelConfig) -> Result<Tensor> {
        let shape = [config.padded_vocab(), config.channels].map(i64::from);
        self.random(name, &shape, config.vocab_size.into(), INIT_STD)
    }

    /// A matrix of which the first `rows` rows are random and the others zero.
    fn random(&mut self, name: &str, shape: &[i64], rows: i64, std: f64) -> Result<Tensor> {
        let mut tensor = Tensor::f_empty(shape, (Kind::Float, Device::Cpu))?;
        let values = floats_mut(&mut tensor);
        let (values, padding) = values.split_at_mut(rows as usize * values.len() / shape[0] as usize);
        match self.seed {
            Some(seed) => Rng::new(seed, name).fill_normal(values, std),
            None => values.fill(0.0),
        }
        padding.fill(0.0);
        self.add(name, &tensor)
    }

    fn constant(&mut self, name: &str, size: i64, value: f32) -> Result<Tensor> {
        self.add(name, &Tensor::f_full([size], f64::from(value), (Kind::Float, Device::Cpu))?)
    }

    fn ones(&mut self, name: &str, size: i64) -> Result<Tensor> {
        self.constant(name, size, 1.0)
    }

    fn linear(&mut self, name: &str, config: &ModelConfig, shape: [i64; 2], std: f64) -> Result<Linear> {
        let weight = self.normal(&format!("{name}.weight"), &shape, std)?;
        let bias = match config.bias {
            true => Some(self.constant(&format!("{name}.bias"), shape[0], 0.0)?),
            false => None,
        };
        Ok(Linear { weight, bias })
    }

    fn norm(&mut self, name: &str, config: &ModelConfig) -> Result<NormLayer> {
        let c = i64::from(config.channels);
        let weight = self.ones(&format!("{name}.weight"), c)?;
        let bias = match config.norm {
            Norm::LayerNorm => Some(self.constant(&format!("{name}.bias"), c, 0.0)?),
            Norm::RmsNorm => None,
        };
        Ok(NormLayer { weight, bias, eps: config.norm_eps })
    }

    fn add(&mut self, name: &str, values: &Tensor) -> Result<Tensor> {
        // tch's VarStore would call the second one `NAME__1` and load the first one's values into neither or both.
        assert!(self.parameters.iter().all(|p| p.name != name), "two parameters are called {name}");
        let tensor = values.f_to_device(self.device)?.f_set_requires_grad(true)?;
        let decays = tensor.dim() >= 2;
        // A shallow clone is another handle on the same tensor, not a copy of its values.
        self.parameters.push(Parameter { name: name.to_owned(), tensor: tensor.shallow_clone(), decays });
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "two parameters are called w")]
    fn a_name_is_given_once() {
        let mut init = Initializer { seed: None, device: Device::Cpu, parameters: Vec::new() };
        let _first = init.ones("w", 3).unwrap();
        let _second = init.ones("w", 3);
    }
}
