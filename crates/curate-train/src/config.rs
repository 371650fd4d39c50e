//! Every setting of a run, in one value that is printed at the start and saved in every checkpoint.

use std::path::PathBuf;

use curate_shards::TokenizerInfo;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::aot::no_package;
use crate::engine::EngineKind;
use crate::fused::Products;
use crate::guard::GuardOptions;
use crate::muon::{MuonOptions, OptimizerKind};
use crate::optim::AdamWOptions;
use crate::schedule::{DECAY_SHARE, Schedule, Shape};
use crate::{Error, Result};

/// Normalisation before each block and at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Mean and variance, with weight and bias (Ba, Kiros, Hinton 2016).
    LayerNorm,
    /// Root mean square, with a weight (Zhang, Sennrich 2019).
    RmsNorm,
}

/// How a token's place enters the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// One learned vector per place, added to the embedding (GPT-2).
    Learned,
    /// Queries and keys are rotated by angles that grow with the place (Su et al. 2021).
    Rope,
}

/// The feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mlp {
    /// GELU in its tanh form (GPT-2).
    Gelu,
    /// `silu(gate) × up`, three matrices (Shazeer 2020; Llama).
    SwiGlu,
    /// `relu(x)²` (So et al. 2021, Primer).
    Relu2,
}

/// Arithmetic of the forward and backward pass; weights, moments and the loss are always fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    Fp32,
    /// bfloat16, cast from the fp32 weights where they are used.
    Bf16,
}

/// Whether the fused engine on a GPU records a micro-step once and replays it, which saves the time to launch its kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CudaGraphs {
    /// Where the micro-step is so small that launching takes as long as computing.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What a token may see, and must foretell, of the other documents in its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DocMask {
    /// A row is one text: a token sees all before it, and the first token of a document is a target of the end of the
    /// document before.
    #[default]
    None,
    /// A token sees all before it, but foretells nothing across a boundary.
    ///
    /// Nothing then teaches the model how documents begin, which an evaluation scores.
    Loss,
    /// A document sees itself alone, as in evaluation: after the end-of-document id that precedes it in the row, if
    /// there is one, and with positions counted from there.
    Attention,
}

/// Shape of the decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Vocabulary size `V`; ids run from 0 to `V` - 1.
    pub vocab_size: u32,
    /// Longest context `T` in tokens.
    pub context: u32,
    /// Blocks `L`.
    pub layers: u32,
    /// Query heads `H`.
    pub heads: u32,
    /// Key and value heads; fewer than `heads` is grouped-query attention.
    pub kv_heads: u32,
    /// Width of the residual stream `C`.
    pub channels: u32,
    /// Width of the feed-forward layer.
    pub mlp_hidden: u32,
    /// Normalisation.
    pub norm: Norm,
    /// Position.
    pub position: Position,
    /// Base of the rotation's wavelengths (used with [`Position::Rope`]).
    pub rope_theta: f64,
    /// Feed-forward layer.
    pub mlp: Mlp,
    /// Whether each query and key head is normalised (RMS, with a weight) before the rotation.
    pub qk_norm: bool,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    /// Whether linear layers have a bias.
    pub bias: bool,
    /// What the normalisations add to the variance.
    #[serde(default = "default_norm_eps")]
    pub norm_eps: f64,
}

/// GPT-2's, and that of every run from before it could be chosen.
fn default_norm_eps() -> f64 {
    1e-5
}

impl ModelConfig {
    /// Rows of the embedding: vocabularies from 1024 on are padded to a multiple of 128, which matrix units like.
    /// The padding is never scored and never sampled.
    pub fn padded_vocab(&self) -> u32 {
        if self.vocab_size < 1024 { self.vocab_size } else { self.vocab_size.next_multiple_of(128) }
    }

    /// Width `D` of one head.
    pub fn head_size(&self) -> u32 {
        self.channels / self.heads
    }

    /// Number of trainable numbers, the vocabulary's padding left out.
    pub fn num_parameters(&self) -> u64 {
        let [v, t, l, c] = [self.vocab_size, self.context, self.layers, self.channels].map(u64::from);
        let [d, hidden, heads, kv_heads] =
            [self.head_size(), self.mlp_hidden, self.heads, self.kv_heads].map(u64::from);
        let bias = u64::from(self.bias);
        let norm = if self.norm == Norm::LayerNorm { 2 * c } else { c };
        let linear = |inputs: u64, outputs: u64| outputs * (inputs + bias);
        let up = if self.mlp == Mlp::SwiGlu { 2 * hidden } else { hidden };
        let qk_norm = if self.qk_norm { 2 * d } else { 0 };
        let attention = linear(c, (heads + 2 * kv_heads) * d) + linear(heads * d, c) + qk_norm;
        let block = 2 * norm + attention + linear(c, up) + linear(hidden, c);
        let position = if self.position == Position::Learned { t * c } else { 0 };
        let head = if self.tied { 0 } else { v * c };
        v * c + position + l * block + norm + head
    }

    /// Floating-point operations of training on one token in rows of `seq_len`: 6 N + 12 L C T (Chowdhery et al. 2022,
    /// PaLM, appendix B). N leaves out embeddings that are only looked up; a causal mask's savings are not counted.
    pub fn flop_per_token(&self, seq_len: u32) -> f64 {
        let [v, c, l] = [self.vocab_size, self.channels, self.layers].map(f64::from);
        let position = if self.position == Position::Learned { f64::from(self.context) * c } else { 0.0 };
        let looked_up = position + if self.tied { 0.0 } else { v * c };
        6.0 * (self.num_parameters() as f64 - looked_up) + 12.0 * l * c * f64::from(seq_len)
    }

    /// Checks that such a model can be built.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("--layers", self.layers),
            ("--heads", self.heads),
            ("--kv-heads", self.kv_heads),
            ("--channels", self.channels),
            ("--mlp-hidden", self.mlp_hidden),
            ("--seq-len", self.context),
        ];
        if let Some((flag, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::option(flag, "must be at least 1"));
        }
        let (channels, heads, kv_heads) = (self.channels, self.heads, self.kv_heads);
        if !channels.is_multiple_of(heads) {
            return Err(Error::option(
                "--heads",
                format!("{channels} channels cannot be cut into {heads} equal heads"),
            ));
        }
        if !heads.is_multiple_of(kv_heads) {
            let problem = format!("{heads} heads cannot share {kv_heads} key-value heads equally");
            return Err(Error::option("--kv-heads", problem));
        }
        if self.position == Position::Rope && !self.head_size().is_multiple_of(2) {
            let problem = format!("rotary positions need an even head size, {channels} / {heads} is odd");
            return Err(Error::option("--heads", problem));
        }
        if self.position == Position::Rope && !(self.rope_theta > 1.0 && self.rope_theta.is_finite()) {
            return Err(Error::option("--rope-theta", format!("must be above 1, is {}", self.rope_theta)));
        }
        Ok(())
    }
}

/// Which rows make up a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataOptions {
    /// Split that is trained on.
    pub split: String,
    /// Tokens of a row `T`: names the packing view.
    pub seq_len: u32,
    /// Rows of a step.
    pub batch_size: u32,
    /// Seed of the row order and of the initial weights.
    pub seed: u64,
    /// What documents of one row see of each other.
    #[serde(default)]
    pub doc_mask: DocMask,
}

/// What changes rounding and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumericOptions {
    /// Arithmetic of the forward and backward pass.
    pub dtype: Dtype,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Threads of the tensor operations, in each process.
    pub threads: u32,
    /// Processes that share every step.
    #[serde(default = "one")]
    pub nproc: u32,
    /// Rows of one forward and backward pass; a step adds up as many as it needs.
    pub micro_batch: u32,
    /// How gradients are computed.
    #[serde(default)]
    pub engine: EngineKind,
    /// The package that [`EngineKind::Aot`] calls.
    #[serde(default)]
    pub aot: Option<PathBuf>,
    /// Whether each block is run again for its backward pass instead of keeping its activations.
    #[serde(default)]
    pub recompute: bool,
    /// Whether the fused engine replays a recorded micro-step on a GPU.
    #[serde(default)]
    pub cuda_graphs: CudaGraphs,
    /// Whether a GPU must give the same bits every time, at the price of slower kernels.
    #[serde(default)]
    pub deterministic: bool,
}

fn one() -> u32 {
    1
}

/// When things happen besides training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cadence {
    /// Steps between evaluations; 0 = only at the end.
    pub eval_every: u64,
    /// Tokens at most of an evaluation before the end; 0 = the whole split, which the last one takes always.
    pub eval_tokens: u64,
    /// Split that is evaluated.
    pub eval_split: String,
    /// The shard set that it is in, if not the run's own.
    #[serde(default)]
    pub eval_shards: Option<PathBuf>,
    /// Steps between checkpoints; 0 = only at the end and before evaluations.
    pub save_every: u64,
    /// Checkpoints that are kept.
    pub keep_last: u32,
    /// Steps between lines on the terminal; the log file has every step.
    pub log_every: u64,
    /// Evaluations in a row without a new best one after which the run ends; 0 = never.
    #[serde(default)]
    pub patience: u64,
    /// Steps between samples; 0 = none.
    #[serde(default)]
    pub sample_every: u64,
    /// Token ids that a sample goes on from; without any the model begins a document.
    #[serde(default)]
    pub sample_prompt_ids: Vec<u32>,
    /// Tokens of a sample at most.
    #[serde(default = "default_sample_tokens")]
    pub sample_tokens: u32,
    /// Whether event files for TensorBoard are written.
    #[serde(default)]
    pub tensorboard: bool,
    /// The device's peak in 10^12 operations a second, for the share of it that is used; 0 = known by its name, or not.
    #[serde(default)]
    pub peak_tflops: f64,
}

fn default_sample_tokens() -> u32 {
    64
}

/// All options of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// Name of the preset that the rest started from.
    pub preset: String,
    /// The decoder.
    pub model: ModelConfig,
    /// The data.
    pub data: DataOptions,
    /// The learning rate.
    pub schedule: Schedule,
    /// AdamW, and what holds for all parameters.
    pub optimizer: AdamWOptions,
    /// What updates the hidden matrices.
    #[serde(default)]
    pub muon: MuonOptions,
    /// When an update is not made.
    #[serde(default)]
    pub guard: GuardOptions,
    /// Rounding.
    pub numerics: NumericOptions,
    /// Besides training.
    pub cadence: Cadence,
}

impl TrainOptions {
    /// Tokens of a step, padding included.
    pub fn tokens_per_step(&self) -> u64 {
        u64::from(self.data.batch_size) * u64::from(self.data.seq_len)
    }

    /// Checks the values that the types do not.
    pub fn check(&self) -> Result<()> {
        self.model.check()?;
        let at_least_one = [
            ("--steps", self.schedule.steps),
            ("--batch-size", self.data.batch_size.into()),
            ("--micro-batch", self.numerics.micro_batch.into()),
            ("--threads", self.numerics.threads.into()),
            ("--keep-last", self.cadence.keep_last.into()),
            ("--log-every", self.cadence.log_every),
        ];
        if let Some((flag, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(Error::option(flag, "must be at least 1"));
        }
        let within = |flag, value: f64, low: f64, high: f64| match value >= low && value <= high {
            true => Ok(()),
            false => Err(Error::option(flag, format!("must lie between {low} and {high}, is {value}"))),
        };
        within("--lr", self.schedule.lr, 0.0, 10.0)?;
        within("--min-lr-ratio", self.schedule.min_lr_ratio, 0.0, 1.0)?;
        within("--decay-share", self.schedule.decay_share, 0.0, 1.0)?;
        within("--momentum", self.muon.momentum, 0.0, 0.999_999)?;
        within("--spike-sigma", self.guard.spike_sigma, 0.0, 1e6)?;
        within("--peak-tflops", self.cadence.peak_tflops, 0.0, 1e6)?;
        within("--beta1", self.optimizer.beta1, 0.0, 0.999_999)?;
        within("--beta2", self.optimizer.beta2, 0.0, 0.999_999)?;
        within("--weight-decay", self.optimizer.weight_decay, 0.0, 10.0)?;
        within("--clip", self.optimizer.clip, 0.0, f64::MAX)?;
        if self.numerics.engine == EngineKind::Aot {
            self.check_aot()?;
        }
        let (patience, cadence) = (self.cadence.patience, &self.cadence);
        if patience > 0 && cadence.eval_every == 0 {
            return Err(Error::option("--patience", "counts evaluations: give --eval-every too"));
        }
        let outside = cadence.sample_prompt_ids.iter().find(|id| **id >= self.model.vocab_size);
        match outside {
            None => Ok(()),
            Some(id) => {
                let problem = format!("id {id} is outside the vocabulary of {}", self.model.vocab_size);
                Err(Error::option("--sample-prompt-ids", problem))
            }
        }
    }

    /// What a compiled step cannot do.
    fn check_aot(&self) -> Result<()> {
        let NumericOptions { aot, device, recompute, .. } = &self.numerics;
        if aot.is_none() {
            return Err(no_package());
        }
        if device != "cpu" {
            let problem =
                format!("aot runs on the CPU, not on {device}: give --device cpu, or --engine auto");
            return Err(Error::option("--engine", problem));
        }
        match recompute {
            true => {
                Err(Error::option("--recompute", "a compiled step has settled what it keeps: leave it out"))
            }
            false => Ok(()),
        }
    }

    /// Whether a run with these options may go on with `asked`: what shapes the result must be the same.
    ///
    /// Rounding and cadence may change; [`rounding_changes`](Self::rounding_changes) tells which of them cost the
    /// bitwise continuation.
    pub fn check_resume(&self, asked: &TrainOptions) -> Result<()> {
        let changed =
            self.changes(asked).into_iter().find(|(flag, ..)| !RESUME_MAY_CHANGE.contains(&flag.as_str()));
        match changed {
            Some((flag, recorded, asked)) => Err(Error::ResumeMismatch { flag, recorded, asked }),
            None => Ok(()),
        }
    }

    /// The flags by which `asked` would round differently from this run.
    pub fn rounding_changes(&self, asked: &TrainOptions) -> Vec<String> {
        let changes = self.changes(asked).into_iter().map(|(flag, ..)| flag);
        changes.filter(|flag| ROUNDING.contains(&flag.as_str())).collect()
    }

    /// (flag, own value, other value) of every option that differs, in the order of the struct.
    fn changes(&self, other: &TrainOptions) -> Vec<(String, String, String)> {
        let value = |options| serde_json::to_value(options).expect("options are plain data");
        let (own, other) = (leaves(&value(self)), leaves(&value(other)));
        let pairs = own.into_iter().zip(other);
        pairs.filter(|(a, b)| a != b).map(|((name, a), (_, b))| (flag(&name), a, b)).collect()
    }
}

/// Options that a resumed run may change. Of these only `--spike-sigma` decides what comes out: a run that met a spike
/// may go on with a guard.
const RESUME_MAY_CHANGE: [&str; 23] = [
    "--spike-sigma",
    "--device",
    "--threads",
    "--nproc",
    "--micro-batch",
    "--engine",
    "--aot",
    "--recompute",
    "--cuda-graphs",
    "--deterministic",
    "--eval-every",
    "--eval-tokens",
    "--eval-split",
    "--eval-shards",
    "--save-every",
    "--keep-last",
    "--log-every",
    "--patience",
    "--sample-every",
    "--sample-prompt-ids",
    "--sample-tokens",
    "--tensorboard",
    "--peak-tflops",
];

/// Those of them that change rounding.
const ROUNDING: [&str; 7] =
    ["--device", "--threads", "--nproc", "--micro-batch", "--engine", "--aot", "--deterministic"];

/// Names and values of the options, groups opened.
pub(crate) fn leaves(value: &Value) -> Vec<(String, String)> {
    let Value::Object(groups) = value else { return Vec::new() };
    let leaf = |name: &String, value: &Value| match value {
        Value::String(text) => (name.clone(), text.clone()),
        other => (name.clone(), other.to_string()),
    };
    let open = |(name, value): (&String, &Value)| match value {
        Value::Object(_) => leaves(value),
        other => vec![leaf(name, other)],
    };
    groups.iter().flat_map(open).collect()
}

fn flag(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}

/// What a run directory is about: `config.json`, and the greater part of a checkpoint's `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Version of this file's form.
    pub format_version: u32,
    /// All options.
    pub options: TrainOptions,
    /// The shard set, as it was named, made absolute.
    pub shards: PathBuf,
    /// Checksum of the rows that are trained on; it stands for every token of every row.
    pub rows_checksum: String,
    /// The tokenizer of the shard set.
    pub tokenizer: TokenizerInfo,
    /// Version of this program.
    pub program: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Whose matrix products the fused engine takes on this processor; on others they round differently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<Products>,
}

impl RunConfig {
    /// The version that this program writes and reads.
    pub const FORMAT_VERSION: u32 = 1;

    /// libtorch's version: tch works with this one only, and refuses others when it is built.
    pub const LIBTORCH: &str = "2.11.0";
}

/// Names of the presets, smallest first.
pub const PRESETS: [&str; 12] = [
    "char-tiny",
    "gpt2-tiny",
    "llama-tiny",
    "gpt2-small-demo",
    "llama-15m",
    "gpt2-124m",
    "modern-124m",
    "llama-135m",
    "gpt2-350m",
    "gpt2-774m",
    "gpt2-1558m",
    "llama-1b",
];

/// A named starting point: a model's shape and a recipe that is known to train it.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// The shape; `vocab_size` and `context` come from the data.
    pub model: ModelConfig,
    /// Peak learning rate.
    pub lr: f64,
    /// Tokens of a step, to be rounded to whole rows.
    pub batch_tokens: u64,
    /// Updates of the run.
    pub steps: u64,
    /// Updates of warm-up, at most a tenth of the run.
    pub warmup: u64,
    /// What the learning rate does then.
    pub schedule: Shape,
    /// Share of the steps in which it falls, where it does not all the time.
    pub decay_share: f64,
    /// Where it ends, as a share of the peak.
    pub min_lr_ratio: f64,
    /// What updates the hidden matrices.
    pub optimizer: OptimizerKind,
}

/// Looks a preset up by name.
pub fn preset(name: &str) -> Result<Preset> {
    let (gpt2, llama, modern) = (gpt2 as Family, llama as Family, modern as Family);
    // Learning rates and batch sizes from gpt2-124m on are those of the GPT-3 paper (table 2.1) as llm.c uses them;
    // the small ones were tried on a CPU.
    let (family, [layers, heads, kv_heads, channels], lr, batch_tokens, steps, warmup) = match name {
        "char-tiny" => (gpt2, [4, 4, 4, 32], 5e-3, 4096, 300, 20),
        "gpt2-tiny" => (gpt2, [4, 4, 4, 128], 2e-3, 8192, 1000, 50),
        "llama-tiny" => (llama, [4, 4, 2, 128], 2e-3, 8192, 1000, 50),
        "gpt2-small-demo" => (gpt2, [6, 6, 6, 384], 1e-3, 16_384, 5000, 100),
        "llama-15m" => (llama, [6, 6, 6, 288], 1e-3, 65_536, 10_000, 500),
        "gpt2-124m" => (gpt2, [12, 12, 12, 768], 6e-4, 524_288, 19_560, 700),
        "modern-124m" => (modern, [12, 6, 6, 768], 3.6e-3, 524_288, 5100, 0),
        "llama-135m" => (llama, [30, 9, 3, 576], 6e-4, 524_288, 19_560, 700),
        "gpt2-350m" => (gpt2, [24, 16, 16, 1024], 3e-4, 524_288, 60_000, 700),
        "gpt2-774m" => (gpt2, [36, 20, 20, 1280], 2.5e-4, 524_288, 60_000, 700),
        "gpt2-1558m" => (gpt2, [48, 25, 25, 1600], 2e-4, 1_048_576, 32_000, 700),
        "llama-1b" => (llama, [16, 32, 8, 2048], 3e-4, 1_048_576, 32_000, 2000),
        _ => {
            let problem = format!("there is no preset {name:?}; there are {}", PRESETS.join(", "));
            return Err(Error::option("--preset", problem));
        }
    };
    let name = PRESETS.into_iter().find(|known| *known == name).expect("every matched name is listed");
    let mut model = family(layers, heads, kv_heads, channels);
    match name {
        // As published: stories15M of llama2.c, SmolLM2-135M, Llama 3.2 1B.
        "llama-15m" => model.mlp_hidden = 768,
        "llama-135m" => (model.mlp_hidden, model.rope_theta) = (1536, 1e5),
        "llama-1b" => (model.mlp_hidden, model.rope_theta) = (8192, 5e5),
        _ => {}
    }
    let recipe = Preset {
        name,
        model,
        lr,
        batch_tokens,
        steps,
        warmup,
        schedule: Shape::Cosine,
        decay_share: DECAY_SHARE,
        min_lr_ratio: 0.1,
        optimizer: OptimizerKind::AdamW,
    };
    // The recipe that modded-nanogpt had in October 2024 (its record 7), in 5100 steps of 512 Ki tokens with the last 1450
    // falling. Its rate of 0.02 for a square matrix of width 768 is 0.0036 in the scale of `muon.rs`, the rate that it
    // gave AdamW.
    Ok(match name {
        "modern-124m" => Preset {
            schedule: Shape::Wsd,
            decay_share: 1450.0 / 5100.0,
            min_lr_ratio: 0.0,
            optimizer: OptimizerKind::Muon,
            ..recipe
        },
        _ => recipe,
    })
}

type Family = fn(u32, u32, u32, u32) -> ModelConfig;

fn gpt2(layers: u32, heads: u32, kv_heads: u32, channels: u32) -> ModelConfig {
    ModelConfig {
        vocab_size: 0,
        context: 0,
        layers,
        heads,
        kv_heads,
        channels,
        mlp_hidden: default_mlp_hidden(Mlp::Gelu, channels),
        norm: Norm::LayerNorm,
        position: Position::Learned,
        rope_theta: 10_000.0,
        mlp: Mlp::Gelu,
        qk_norm: false,
        tied: true,
        bias: true,
        norm_eps: default_norm_eps(),
    }
}

fn llama(layers: u32, heads: u32, kv_heads: u32, channels: u32) -> ModelConfig {
    ModelConfig {
        mlp_hidden: default_mlp_hidden(Mlp::SwiGlu, channels),
        norm: Norm::RmsNorm,
        position: Position::Rope,
        mlp: Mlp::SwiGlu,
        bias: false,
        ..gpt2(layers, heads, kv_heads, channels)
    }
}

/// What came after GPT-2: rotations, normalised queries and keys, squared ReLU, no bias.
fn modern(layers: u32, heads: u32, kv_heads: u32, channels: u32) -> ModelConfig {
    ModelConfig {
        norm: Norm::RmsNorm,
        position: Position::Rope,
        mlp: Mlp::Relu2,
        qk_norm: true,
        bias: false,
        ..gpt2(layers, heads, kv_heads, channels)
    }
}

/// Four times the channels; 8/3 for SwiGLU, whose third matrix makes that the same number of parameters, rounded up
/// to a multiple of 32.
pub fn default_mlp_hidden(mlp: Mlp, channels: u32) -> u32 {
    match mlp {
        Mlp::SwiGlu => (8 * channels).div_ceil(3).next_multiple_of(32),
        Mlp::Gelu | Mlp::Relu2 => 4 * channels,
    }
}

impl Preset {
    /// The preset's options for data of this vocabulary, rows of `seq_len` tokens and `num_rows` rows.
    ///
    /// A step never takes a row twice, so small data makes small steps.
    pub fn options(&self, vocab_size: u32, seq_len: u32, num_rows: u64) -> TrainOptions {
        let rows = (self.batch_tokens / u64::from(seq_len.max(1))).clamp(1, num_rows.max(1));
        let model = ModelConfig { vocab_size, context: seq_len, ..self.model.clone() };
        TrainOptions {
            preset: self.name.to_owned(),
            model,
            data: DataOptions {
                split: "train".to_owned(),
                seq_len,
                batch_size: u32::try_from(rows).unwrap_or(u32::MAX),
                seed: 1,
                doc_mask: DocMask::None,
            },
            schedule: Schedule {
                steps: self.steps,
                schedule: self.schedule,
                lr: self.lr,
                min_lr_ratio: self.min_lr_ratio,
                warmup: self.warmup,
                decay_share: self.decay_share,
            },
            optimizer: AdamWOptions::default(),
            muon: MuonOptions { optimizer: self.optimizer, ..Default::default() },
            guard: GuardOptions::default(),
            numerics: NumericOptions {
                dtype: Dtype::Fp32,
                device: "cpu".to_owned(),
                threads: 1,
                nproc: 1,
                micro_batch: 0,
                engine: EngineKind::Reference,
                aot: None,
                recompute: false,
                cuda_graphs: CudaGraphs::Auto,
                deterministic: false,
            },
            cadence: Cadence {
                eval_every: 0,
                eval_tokens: 0,
                eval_split: "val".to_owned(),
                eval_shards: None,
                save_every: 0,
                keep_last: 2,
                log_every: 10,
                patience: 0,
                sample_every: 0,
                sample_prompt_ids: Vec::new(),
                sample_tokens: default_sample_tokens(),
                tensorboard: true,
                peak_tflops: 0.0,
            },
        }
    }
}

/// Rows of a micro-batch whose fp32 logits, the largest tensor of small models, fit 256 MB on a CPU and 2 GB on a GPU.
pub fn default_micro_batch(options: &TrainOptions) -> u32 {
    let logits: u64 = if options.numerics.device == "cpu" { 1 << 26 } else { 1 << 29 };
    let per_row = u64::from(options.data.seq_len) * u64::from(options.model.padded_vocab());
    let rows = (logits / per_row.max(1)).clamp(1, options.data.batch_size.into());
    u32::try_from(rows).expect("at most batch_size, a u32")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> TrainOptions {
        let mut options = preset("gpt2-tiny").unwrap().options(257, 256, 1000);
        options.numerics.micro_batch = default_micro_batch(&options);
        options
    }

    #[test]
    fn char_tiny_has_55840_parameters() {
        let model = preset("char-tiny").unwrap().options(27, 128, 2).model;
        assert_eq!(model.num_parameters(), 55_840);
        assert_eq!(model.padded_vocab(), 27);
    }

    #[test]
    fn published_sizes() {
        let check = |name: &str, vocab, context, expected| {
            let model = preset(name).unwrap().options(vocab, context, 1 << 40).model;
            assert_eq!(model.num_parameters(), expected, "{name}");
        };
        check("gpt2-124m", 50_257, 1024, 124_439_808);
        // 12 × (4 × 768² + 8 × 768² + 2 × 768 + 2 × 128) + 768 + 50,257 × 768.
        check("modern-124m", 50_257, 1024, 123_554_304);
        check("gpt2-350m", 50_257, 1024, 354_823_168);
        check("gpt2-774m", 50_257, 1024, 774_030_080);
        check("gpt2-1558m", 50_257, 1024, 1_557_611_200);
        check("llama-135m", 49_152, 2048, 134_515_008);
        check("llama-15m", 32_000, 256, 15_191_712);
        check("llama-1b", 128_256, 2048, 1_235_814_400);
    }

    #[test]
    fn flop_of_gpt2_124m() {
        let model = preset("gpt2-124m").unwrap().options(50_257, 1024, 1 << 40).model;
        // 6 × (124,439,808 - 1024 × 768) + 12 × 12 × 768 × 1024.
        assert_eq!(model.flop_per_token(1024), 741_920_256.0 + 113_246_208.0);
    }

    #[test]
    fn every_preset_makes_valid_options() {
        for name in PRESETS {
            let mut options = preset(name).unwrap().options(50_257, 256, 1 << 30);
            options.numerics.micro_batch = default_micro_batch(&options);
            options.check().unwrap();
            assert_eq!(options.tokens_per_step(), preset(name).unwrap().batch_tokens, "{name}");
        }
        let message = preset("gpt5").unwrap_err().to_string();
        assert!(
            message.starts_with("--preset: there is no preset \"gpt5\"; there are char-tiny, gpt2-tiny"),
            "{message}"
        );
    }

    #[test]
    fn small_data_makes_small_steps() {
        assert_eq!(preset("gpt2-tiny").unwrap().options(257, 256, 3).data.batch_size, 3);
    }

    #[test]
    fn vocabularies_are_padded_from_1024_on() {
        let padded = |vocab_size| ModelConfig { vocab_size, ..options().model }.padded_vocab();
        assert_eq!([1023, 1024, 1025, 50_257].map(padded), [1023, 1024, 1152, 50_304]);
    }

    #[test]
    fn impossible_models_are_refused_with_their_numbers() {
        let check = |change: fn(&mut TrainOptions), expected: &str| {
            let mut options = options();
            change(&mut options);
            assert_eq!(options.check().unwrap_err().to_string(), expected);
        };
        check(|o| o.model.heads = 3, "--heads: 128 channels cannot be cut into 3 equal heads");
        check(|o| o.model.kv_heads = 3, "--kv-heads: 4 heads cannot share 3 key-value heads equally");
        check(|o| o.model.layers = 0, "--layers: must be at least 1");
        check(|o| o.schedule.lr = f64::NAN, "--lr: must lie between 0 and 10, is NaN");
        check(|o| o.schedule.min_lr_ratio = 1.5, "--min-lr-ratio: must lie between 0 and 1, is 1.5");
        check(
            |o| (o.model.position, o.model.heads, o.model.kv_heads) = (Position::Rope, 128, 128),
            "--heads: rotary positions need an even head size, 128 / 128 is odd",
        );
    }

    #[test]
    fn resuming_refuses_what_shapes_the_result_and_names_it() {
        let check =
            |change: fn(&mut TrainOptions), expected: Option<(&str, &str, &str)>, rounding: &[&str]| {
                let (recorded, mut asked) = (options(), options());
                change(&mut asked);
                let found = match recorded.check_resume(&asked) {
                    Ok(()) => None,
                    Err(Error::ResumeMismatch { flag, recorded, asked }) => Some((flag, recorded, asked)),
                    Err(other) => panic!("{other}"),
                };
                assert_eq!(found, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
                assert_eq!(recorded.rounding_changes(&asked), rounding);
            };
        check(|_| (), None, &[]);
        check(|o| o.cadence.save_every = 7, None, &[]);
        check(|o| o.numerics.threads = 7, None, &["--threads"]);
        check(|o| o.schedule.steps = 7, Some(("--steps", "1000", "7")), &[]);
        check(|o| o.model.layers = 7, Some(("--layers", "4", "7")), &[]);
        check(|o| o.data.seed = 7, Some(("--seed", "1", "7")), &[]);
        check(|o| o.numerics.dtype = Dtype::Bf16, Some(("--dtype", "fp32", "bf16")), &[]);
        check(|o| o.optimizer.weight_decay = 0.0, Some(("--weight-decay", "0.1", "0.0")), &[]);
    }

    #[test]
    fn options_survive_json_exactly() {
        let mut options = options();
        options.schedule.lr = 0.1 + 0.2;
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<TrainOptions>(&text).unwrap(), options);
    }
}
