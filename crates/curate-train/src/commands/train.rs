//! `curate-train train`: shards → checkpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use curate_shards::{ShardSet, View};
use curate_train::aot;
use curate_train::checkpoint::{self, Checkpoint};
use curate_train::config::{
    CudaGraphs, DocMask, Dtype, Mlp, Norm, PRESETS, Position, RunConfig, TrainOptions, default_micro_batch,
    default_mlp_hidden, preset,
};
use curate_train::cuda;
use curate_train::device::{self, DeviceChoice};
use curate_train::distributed::{Group, Place};
use curate_train::engine::EngineKind;
use curate_train::fused::Products;
use curate_train::metrics::FORMULA;
use curate_train::muon::OptimizerKind;
use curate_train::schedule::Shape;
use curate_train::train::{Ending, RunDir, Trainer};
use curate_train::{Error, Result};

use super::launch;
use crate::output::{self, Console, Exit, thousands};
use crate::signals;

/// Paragraphs are single lines: the parser wraps them to the terminal.
const EXAMPLES: &str = "\
Examples:
  curate train shards --preset gpt2-tiny --steps 200 -o run
  curate train shards -o run --steps 200 --stop-after 100    (stops half-way …)
  curate train -o run --resume                               (… and goes on, bit for bit)
  curate train shards -o run --nproc 2                       (two processes, the same run)
  curate train shards --preset llama-tiny --layers 6 --lr 1e-3 --eval-every 100 -o run
  curate train shards --optimizer muon --sample-every 500 --sample-prompt 'The old man' -o run
  curate train --config run/settings.toml --seed 2 -o other  (the same run with another seed)
  curate train shards --stop-after 0 -o run                  (writes run/config.json, for …)
  python3 python/export_step.py run/config.json -o step.pt2  (… a step compiled by torch 2.11.0, and)
  curate train -o run --resume --aot step.pt2                (training with it)

The run directory holds step-*/ (checkpoints), log.jsonl (every step), curve.svg, tensorboard/, settings.toml, \
config.json, speed.json (tokens/s after 5 steps of warm-up) and eval-val.json. Memory is about 16 bytes a parameter \
(28 with checkpoints on the way, which are written while it trains), and the activations of one micro-batch; \
--micro-batch bounds the latter and changes only rounding.

With several processes (--nproc N, torchrun, srun) each takes its part of every step; all need the shards and the run \
directory under the same path, and the first one prints and writes. Under Slurm, srun -K ends all when one fails.

Ctrl-C finishes the step, saves a checkpoint and exits with 130.";

/// Train a causal language model on token shards
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TrainArgs {
    /// Directory of token shards, as made by `curate tokenize` and `curate pack`
    #[arg(required_unless_present_any = ["resume", "shards_setting"])]
    shards: Option<PathBuf>,
    /// The same as SHARDS, for a settings file
    #[arg(long = "shards", value_name = "SHARDS", hide = true)]
    shards_setting: Option<PathBuf>,
    /// Settings from a TOML file: the names of these flags, as in a run's settings.toml; flags win
    #[arg(long, value_name = "FILE.toml")]
    #[allow(dead_code)] // taken up by `settings_file` before the arguments are parsed
    config: Option<PathBuf>,
    /// Run directory, made if absent
    #[arg(short, long, value_name = "RUN", default_value = "run")]
    output: PathBuf,
    /// Go on from the newest checkpoint; options that are left out keep their recorded values
    #[arg(long)]
    resume: bool,
    /// Resume although the rows of the shards have changed: training goes on at the same sample number of the new order
    #[arg(long, requires = "resume")]
    force_data: bool,
    /// Stop with a checkpoint when update N of the run is done; the schedule is not shortened
    #[arg(long, value_name = "N")]
    stop_after: Option<u64>,
    /// Stop with a checkpoint at the end of the step in which so many minutes of this call have passed
    #[arg(long, value_name = "MINUTES")]
    max_time: Option<f64>,
    /// Print only warnings and errors
    #[arg(short, long)]
    quiet: bool,

    /// Starting point for the model and its recipe [default: gpt2-tiny]
    #[arg(long, value_name = "NAME", help_heading = "Model", value_parser = clap::builder::PossibleValuesParser::new(PRESETS))]
    preset: Option<String>,
    /// Blocks
    #[arg(long, value_name = "L", help_heading = "Model")]
    layers: Option<u32>,
    /// Query heads; must divide the channels
    #[arg(long, value_name = "H", help_heading = "Model")]
    heads: Option<u32>,
    /// Key and value heads; must divide the heads [default: as many as heads, or the preset's]
    #[arg(long, value_name = "K", help_heading = "Model")]
    kv_heads: Option<u32>,
    /// Width of the residual stream
    #[arg(long, value_name = "C", help_heading = "Model")]
    channels: Option<u32>,
    /// Width of the feed-forward layer [default: 4 C; 8/3 C with swiglu]
    #[arg(long, value_name = "N", help_heading = "Model")]
    mlp_hidden: Option<u32>,
    /// Normalisation: layernorm or rmsnorm
    #[arg(long, value_name = "NAME", help_heading = "Model", value_parser = word::<Norm>)]
    norm: Option<Norm>,
    /// Position: learned or rope
    #[arg(long, value_name = "NAME", help_heading = "Model", value_parser = word::<Position>)]
    position: Option<Position>,
    /// Base of the rotary wavelengths
    #[arg(long, value_name = "THETA", help_heading = "Model")]
    rope_theta: Option<f64>,
    /// Feed-forward layer: gelu, swiglu or relu2
    #[arg(long, value_name = "NAME", help_heading = "Model", value_parser = word::<Mlp>)]
    mlp: Option<Mlp>,
    /// Normalise query and key heads
    #[arg(long, value_name = "true|false", help_heading = "Model")]
    qk_norm: Option<bool>,
    /// Use the embedding as output matrix
    #[arg(long, value_name = "true|false", help_heading = "Model")]
    tied: Option<bool>,
    /// Give linear layers a bias
    #[arg(long, value_name = "true|false", help_heading = "Model")]
    bias: Option<bool>,

    /// Tokens of a row; names a packing view of the shards [default: their shortest view]
    #[arg(long, value_name = "T", help_heading = "Data")]
    seq_len: Option<u32>,
    /// Rows of a step [default: the preset's tokens / T]
    #[arg(long, value_name = "ROWS", help_heading = "Data", conflicts_with = "batch_tokens")]
    batch_size: Option<u32>,
    /// Tokens of a step, rounded down to whole rows
    #[arg(long, value_name = "N", help_heading = "Data")]
    batch_tokens: Option<u64>,
    /// Rows of one forward and backward pass; a step adds up as many as it needs [default: what fits 256 MB of logits
    /// on a CPU, 2 GB on a GPU]
    #[arg(long, value_name = "ROWS", help_heading = "Data")]
    micro_batch: Option<u32>,
    /// What documents of one row see of each other: none (no mask: all that is before them), loss (that, but nothing is
    /// foretold across a boundary) or attention (each sees itself alone, after the end-of-document id before it, as in
    /// evaluation) [default: none]
    #[arg(long, value_name = "NAME", help_heading = "Data", value_parser = word::<DocMask>)]
    doc_mask: Option<DocMask>,
    /// Seed of the initial weights and of the row order [default: 1]
    #[arg(long, value_name = "N", help_heading = "Data")]
    seed: Option<u64>,

    /// Updates of the whole run [default: the preset's]
    #[arg(long, value_name = "N", help_heading = "Optimiser")]
    steps: Option<u64>,
    /// Peak learning rate [default: the preset's]
    #[arg(long, value_name = "RATE", help_heading = "Optimiser")]
    lr: Option<f64>,
    /// Learning rate at the end, as a share of the peak [default: 0.1]
    #[arg(long, value_name = "RATIO", help_heading = "Optimiser")]
    min_lr_ratio: Option<f64>,
    /// Updates of linear warm-up [default: the preset's, at most a tenth of the steps]
    #[arg(long, value_name = "N", help_heading = "Optimiser")]
    warmup: Option<u64>,
    /// What follows the warm-up: cosine, linear, wsd (stable, then 1 - sqrt over the last part)
    /// or constant [default: cosine]
    #[arg(long, value_name = "NAME", help_heading = "Optimiser", value_parser = word::<Shape>)]
    schedule: Option<Shape>,
    /// Share of the steps in which wsd decays [default: 0.2]
    #[arg(long, value_name = "RATIO", help_heading = "Optimiser")]
    decay_share: Option<f64>,
    /// What updates the matrices of the blocks: adamw or muon, whose learning rate has the same scale; all else is AdamW's
    /// [default: adamw]
    #[arg(long, value_name = "NAME", help_heading = "Optimiser", value_parser = word::<OptimizerKind>)]
    optimizer: Option<OptimizerKind>,
    /// Decay of Muon's mean gradient [default: 0.95]
    #[arg(long, value_name = "RATE", help_heading = "Optimiser")]
    momentum: Option<f64>,
    /// Weight decay of matrices [default: 0.1]
    #[arg(long, value_name = "RATE", help_heading = "Optimiser")]
    weight_decay: Option<f64>,
    /// Decay of AdamW's first moment [default: 0.9]
    #[arg(long, value_name = "RATE", help_heading = "Optimiser")]
    beta1: Option<f64>,
    /// Decay of AdamW's second moment [default: 0.95]
    #[arg(long, value_name = "RATE", help_heading = "Optimiser")]
    beta2: Option<f64>,
    /// Largest global norm of the gradient; 0 = no limit [default: 1]
    #[arg(long, value_name = "NORM", help_heading = "Optimiser")]
    clip: Option<f64>,
    /// Skip an update whose loss or gradient norm is X standard deviations above the mean of the last 128 steps, or no
    /// number, and name the documents; 0 = never, and what is no number ends the run [default: 0]
    #[arg(long, value_name = "X", help_heading = "Optimiser")]
    spike_sigma: Option<f64>,

    /// Arithmetic of the model: fp32 or bf16; weights, moments and loss stay fp32 [default: fp32]
    #[arg(long, value_name = "NAME", help_heading = "Machine", value_parser = word::<Dtype>)]
    dtype: Option<Dtype>,
    /// How gradients are computed: auto, reference (autograd), fused (a backward pass of our own) or aot (see --aot). On a
    /// GPU fused is first compared with reference: if they differ, it ends with an error, and auto takes reference
    /// [default: auto, which is fused if it works]
    #[arg(long, value_name = "NAME", help_heading = "Machine", value_parser = engine_choice)]
    engine: Option<EngineChoice>,
    /// Take gradients from a training step that python/export_step.py has compiled for this model, arithmetic, micro-batch
    /// and length of rows, on a processor like this one. It stands for --engine aot; another --engine leaves the package
    /// alone. CPU only, and without --doc-mask attention
    #[arg(long, value_name = "FILE.pt2", help_heading = "Machine")]
    aot: Option<PathBuf>,
    /// Run each block again for its backward pass instead of keeping its activations: less memory, a third more work
    /// [default: false]
    #[arg(long, value_name = "true|false", help_heading = "Machine")]
    recompute: Option<bool>,
    /// Whether the fused engine on a GPU replays recorded work: on, off or auto, for work so small that launching it takes
    /// as long as doing it [default: auto]
    #[arg(long, value_name = "WHEN", help_heading = "Machine", value_parser = word::<CudaGraphs>)]
    cuda_graphs: Option<CudaGraphs>,
    /// Same bits every time on a GPU, too, with slower kernels where that needs them [default: false]
    #[arg(long, value_name = "true|false", help_heading = "Machine")]
    deterministic: Option<bool>,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU if one can be used [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Machine")]
    device: Option<DeviceChoice>,
    /// Threads of the tensor operations in each process [default: its share of the physical cores]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    threads: Option<u32>,
    /// Train with N processes on this machine, each with a share of every step and, with cuda, a GPU of its own
    /// [default: 1, or what torchrun or srun started]
    #[arg(long, value_name = "N", help_heading = "Machine", value_parser = clap::value_parser!(u32).range(1..=4096))]
    nproc: Option<u32>,
    /// Peak of the device in 10^12 operations a second, for the share that is used (MFU); 0 = that of a GPU whose name
    /// is known, else none is told [default: 0]
    #[arg(long, value_name = "X", help_heading = "Machine")]
    peak_tflops: Option<f64>,

    /// Evaluate every N steps besides the end; 0 = never [default: 0]
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    eval_every: Option<u64>,
    /// Stop an evaluation before the end after N tokens; 0 = take the whole split, as the one at the end does [default: 0]
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    eval_tokens: Option<u64>,
    /// Split to evaluate on, if it is there [default: val]
    #[arg(long, value_name = "NAME", help_heading = "Evaluation and checkpoints")]
    eval_split: Option<String>,
    /// End the run after N evaluations in a row without a new best one; 0 = never [default: 0]
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    patience: Option<u64>,
    /// Generate a text every N steps; 0 = never [default: 0]
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    sample_every: Option<u64>,
    /// Text that it goes on from (`curate train` encodes it) [default: the beginning of a document]
    #[arg(long, value_name = "TEXT", help_heading = "Evaluation and checkpoints")]
    sample_prompt: Option<String>,
    /// The same as token ids, separated by commas
    #[arg(long, value_name = "IDS", help_heading = "Evaluation and checkpoints", value_delimiter = ',')]
    sample_prompt_ids: Option<Vec<u32>>,
    /// Tokens of it at most [default: 64]
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    sample_tokens: Option<u32>,
    /// Shards that it is in, made with the same tokenizer [default: the run's own]
    #[arg(long, value_name = "DIR", help_heading = "Evaluation and checkpoints")]
    eval_shards: Option<PathBuf>,
    /// Save a checkpoint every N steps besides the end and before evaluations; 0 = never [default: 0]
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    save_every: Option<u64>,
    /// Checkpoints to keep [default: 2, with --patience N one more than N, so that the best is among them]
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    keep_last: Option<u32>,
    /// Print a line every N steps; log.jsonl has them all [default: 10]
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    log_every: Option<u64>,
    /// Write event files for TensorBoard [default: true]
    #[arg(long, value_name = "true|false", help_heading = "Evaluation and checkpoints")]
    tensorboard: Option<bool>,
}

/// An engine as asked for.
#[derive(Clone, Copy, Debug)]
enum EngineChoice {
    Auto,
    This(EngineKind),
}

fn engine_choice(text: &str) -> std::result::Result<EngineChoice, String> {
    if text == "auto" { Ok(EngineChoice::Auto) } else { word(text).map(EngineChoice::This) }
}

impl TrainArgs {
    /// The engine that was asked for, in so many words or by its package.
    fn engine(&self) -> Option<EngineChoice> {
        self.engine.or(self.aot.is_some().then_some(EngineChoice::This(EngineKind::Aot)))
    }

    /// The micro-batch that was asked for: the package's, if nothing else is said.
    fn micro_batch(&self) -> Result<Option<u32>> {
        match (self.micro_batch, &self.aot, self.engine()) {
            (None, Some(package), Some(EngineChoice::This(EngineKind::Aot))) => {
                aot::micro_batch(package).map(Some)
            }
            (asked, ..) => Ok(asked),
        }
    }
}

/// Parses a word as the setting that is written so in `config.json`.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> std::result::Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| {
        let message = error.to_string();
        message.replace("unknown variant", "unknown name").replace('`', "")
    })
}

/// Runs the command.
pub(crate) fn run(args: &TrainArgs) -> Result<Exit> {
    let interrupted = signals::listen();
    if args.sample_prompt.is_some() && args.sample_prompt_ids.is_none() {
        let problem =
            "curate-train knows ids only: use `curate train`, or give --sample-prompt-ids".to_owned();
        return Err(Error::Option { flag: "--sample-prompt", problem });
    }
    let max_time = args.max_time.map(|minutes| Duration::try_from_secs_f64(60.0 * minutes));
    let max_time = max_time
        .transpose()
        .map_err(|error| Error::Option { flag: "--max-time", problem: error.to_string() })?;
    let place = Place::from_environment(|name| std::env::var(name).ok())?;
    if let (Some(nproc @ 2..), None) = (args.nproc, &place) {
        return launch::run(nproc, interrupted);
    }
    let leads = place.as_ref().is_none_or(|place| place.rank == 0);
    let quiet = args.quiet || !leads;
    let run_dir = leads.then(|| RunDir::claim(&args.output)).transpose()?;
    let from = checkpoint_to_resume(args)?;
    let recorded = from.as_ref().map(|checkpoint| &checkpoint.state.run);
    let dir = args
        .shards
        .as_ref()
        .or(args.shards_setting.as_ref())
        .or(recorded.map(|run| &run.shards))
        .expect("the parser asks for shards or --resume");
    let shards = Arc::new(ShardSet::open(dir)?);
    let (run, view) = match recorded {
        None => new_run(args, &shards, place.as_ref())?,
        Some(recorded) => resumed_run(args, recorded, &shards, place.as_ref())?,
    };
    let options = run.options.clone();
    device::set_threads(options.numerics.threads);
    let choice = options.numerics.device.parse();
    let choice = choice.map_err(|problem| Error::Option { flag: "--device", problem })?;
    let device = device::open(own_device(choice, place.as_ref()))?;
    let described = (!quiet).then(|| settings(&args.output, &run, &view, from.as_ref()));
    let shard_set = Arc::clone(&shards);
    let mut trainer = match (run_dir, &from) {
        (None, from) => Trainer::follow(&args.output, run, shard_set, device, from.as_ref())?,
        (Some(dir), None) => Trainer::create(dir, run, shard_set, device)?,
        (Some(dir), Some(checkpoint)) => Trainer::resume(dir, run, shard_set, device, checkpoint)?,
    };
    if let Some(mut rows) = described {
        let peak = trainer.peak().map(|peak| format!("; peak {} TFLOP/s ({})", peak.tflops, peak.source));
        rows.push(("speed", format!("in model FLOPs of {FORMULA}{}", peak.unwrap_or_default())));
        output::table(&rows);
    }
    // Not before: the others must have seen the run directory as it was.
    if let Some(place) = &place {
        trainer.join(signals::waiting(|| Group::join(place, device))?)?;
    }
    let mut console = Console::new(quiet, options.cadence.log_every, options.schedule.steps);
    // So far off that the clock cannot tell it is never.
    trainer.stop_at(max_time.and_then(|time| Instant::now().checked_add(time)));
    let ending = trainer.train(args.stop_after, &mut console, interrupted)?;
    Ok(report(args, quiet, &options, &trainer, &ending))
}

/// The GPU of a rank: the asked one is that of the machine's first.
fn own_device(choice: DeviceChoice, place: Option<&Place>) -> DeviceChoice {
    match (choice, place) {
        (DeviceChoice::Cuda(first), Some(place)) => DeviceChoice::Cuda(first + place.local_rank as usize),
        _ => choice,
    }
}

/// The cores of the machine, shared between its ranks; what OpenMP was told is meant for each of them.
fn default_threads(place: Option<&Place>) -> u32 {
    let threads = u32::try_from(tch::get_num_threads()).unwrap_or(1);
    if std::env::var_os("OMP_NUM_THREADS").is_some() {
        return threads;
    }
    let ranks = place.and_then(|place| place.local_world_size).unwrap_or(1);
    let own = place.and_then(|place| place.own_cores).unwrap_or(u32::MAX);
    (threads / ranks.max(1)).min(own).max(1)
}

/// Prints how the run ended.
fn report(args: &TrainArgs, quiet: bool, options: &TrainOptions, trainer: &Trainer, ending: &Ending) -> Exit {
    let run = args.output.display();
    if !quiet {
        match ending {
            Ending::Finished(Some(evaluation)) => output::evaluation(evaluation),
            Ending::Finished(None) => {
                let split = &options.cadence.eval_split;
                output::line(&format!("no evaluation: the shards have no documents in a split {split:?}"));
            }
            Ending::OutOfPatience(best) => output::line(&format!(
                "stopped at step {}: {} evaluations without one better than {:.4} nats/token at step {}; its weights: \
                 curate eval {run} --checkpoint step-{:08}",
                trainer.step(),
                options.cadence.patience,
                best.nats_per_token,
                best.step,
                best.step,
            )),
            Ending::Stopped | Ending::Interrupted => {
                let (step, steps) = (trainer.step(), options.schedule.steps);
                output::line(&format!(
                    "stopped at step {step} of {steps}; go on with: curate train -o {run} --resume"
                ));
            }
        }
        if !trainer.source_targets().is_empty() {
            output::sources(trainer.source_targets());
        }
        if let Some(speed) = trainer.speed() {
            output::speed(&speed);
        }
        output::line(&format!("run directory: {run}"));
    }
    if *ending == Ending::Interrupted { Exit::Interrupted } else { Exit::Fine }
}

/// The checkpoint to go on from; refuses to start a second run in a directory that has one.
fn checkpoint_to_resume(args: &TrainArgs) -> Result<Option<Checkpoint>> {
    let run = &args.output;
    if args.resume {
        return super::open_checkpoint(run, None).map(Some);
    }
    match checkpoint::list(run)?.last() {
        Some((step, _)) => Err(Error::RunExists { run: run.clone(), step: *step }),
        None => Ok(None),
    }
}

/// Options of a new run: the preset's, then what the user says.
fn new_run(args: &TrainArgs, shards: &ShardSet, place: Option<&Place>) -> Result<(RunConfig, View)> {
    let preset = preset(args.preset.as_deref().unwrap_or("gpt2-tiny"))?;
    let views = shards.views("train");
    let seq_len = args.seq_len.or(views.first().copied()).unwrap_or(1024);
    let view = shards.view("train", seq_len)?;
    if view.num_rows() == 0 {
        let shards = shards.dir().to_owned();
        return Err(Error::NothingThere {
            shards,
            split: "train".into(),
            what: "rows of at least two tokens",
        });
    }
    let mut options = preset.options(shards.manifest().tokenizer.vocab_size, seq_len, view.num_rows());
    options.numerics.threads = default_threads(place);
    options.numerics.nproc = place.map_or(1, |place| place.world_size);
    let device = device::open(args.device.unwrap_or(DeviceChoice::Auto))?;
    options.numerics.device = device::name(device);
    options.numerics.engine = EngineKind::fastest(device);
    apply(args, &mut options);
    let steps = options.schedule.steps;
    options.schedule.warmup = args.warmup.unwrap_or(preset.warmup.min(steps / 10));
    options.numerics.micro_batch = args.micro_batch()?.unwrap_or_else(|| default_micro_batch(&options));
    options.numerics.micro_batch = options.numerics.micro_batch.min(options.data.batch_size);
    options.check()?;
    if !matches!(args.engine(), Some(EngineChoice::This(_))) {
        options.numerics.engine = fastest_that_works(&options, device);
    }
    let products = Products::of_run(&options.numerics);
    let run = RunConfig {
        format_version: RunConfig::FORMAT_VERSION,
        options,
        shards: absolute(shards.dir()),
        rows_checksum: view.checksum().to_owned(),
        tokenizer: shards.manifest().tokenizer.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        libtorch: RunConfig::LIBTORCH.to_owned(),
        products,
    };
    Ok((run, view))
}

/// The fused engine; on a GPU only if it computes there what the reference does.
fn fastest_that_works(options: &TrainOptions, device: tch::Device) -> EngineKind {
    if !device.is_cuda() {
        return EngineKind::fastest(device);
    }
    let asked = cuda::Options::of_run(options);
    match cuda::check_device(&options.model, options.numerics.dtype, device, asked) {
        Ok(()) => EngineKind::Fused,
        Err(error) => {
            output::warn(&format!("{error}; training goes on with the reference engine"));
            EngineKind::Reference
        }
    }
}

/// Options of a resumed run: the recorded ones; what the user says may change how it runs, not what comes out.
fn resumed_run(
    args: &TrainArgs,
    recorded: &RunConfig,
    shards: &ShardSet,
    place: Option<&Place>,
) -> Result<(RunConfig, View)> {
    let mut options = recorded.options.clone();
    options.numerics.nproc = place.map_or(1, |place| place.world_size);
    apply(args, &mut options);
    if let Some(preset) = &args.preset {
        options.preset.clone_from(preset);
    }
    set(&mut options.schedule.warmup, args.warmup);
    set(&mut options.numerics.micro_batch, args.micro_batch()?);
    if let Some(choice) = args.device {
        let device = device::open(choice)?;
        options.numerics.device = device::name(device);
        if device != tch::Device::Cpu && !matches!(args.engine(), Some(EngineChoice::This(_))) {
            options.numerics.engine = fastest_that_works(&options, device);
        }
    }
    recorded.options.check_resume(&options)?;
    options.check()?;
    let view = shards.view(&options.data.split, options.data.seq_len)?;
    let other =
        |problem: &str| Error::OtherShards { shards: shards.dir().to_owned(), problem: problem.to_owned() };
    if shards.manifest().tokenizer != recorded.tokenizer {
        return Err(other("it was made with another tokenizer"));
    }
    let is_other = view.checksum() != recorded.rows_checksum;
    if is_other && !args.force_data {
        return Err(other("its training rows differ"));
    }
    if is_other {
        let step = "from here on the run is not what its seed and first shards would give again";
        output::warn(&format!("{}: the training rows differ; {step}", shards.dir().display()));
    }
    let changes = recorded.options.rounding_changes(&options);
    if !changes.is_empty() {
        let flags = changes.join(", ");
        output::warn(&format!(
            "{flags} changed: the result will differ from an uninterrupted run's by rounding"
        ));
    }
    let products = Products::of_run(&options.numerics);
    if changes.is_empty() && products != recorded.products {
        output::warn(
            "this processor's matrix products are others than those the run began with: the result will differ from an \
             uninterrupted run's by rounding",
        );
    }
    let program = env!("CARGO_PKG_VERSION").to_owned();
    let rows_checksum = view.checksum().to_owned();
    let run = RunConfig {
        products,
        options,
        shards: absolute(shards.dir()),
        rows_checksum,
        program,
        ..recorded.clone()
    };
    Ok((run, view))
}

/// The path as it is found from any directory.
fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Puts the given flags into the options.
fn apply(args: &TrainArgs, options: &mut TrainOptions) {
    let model = &mut options.model;
    let before = model.clone();
    set(&mut model.layers, args.layers);
    set(&mut model.heads, args.heads);
    if before.kv_heads == before.heads {
        model.kv_heads = model.heads; // plain attention stays plain
    }
    set(&mut model.kv_heads, args.kv_heads);
    set(&mut model.channels, args.channels);
    set(&mut model.mlp, args.mlp);
    if (model.channels, model.mlp) != (before.channels, before.mlp) {
        model.mlp_hidden = default_mlp_hidden(model.mlp, model.channels);
    }
    set(&mut model.mlp_hidden, args.mlp_hidden);
    set(&mut model.norm, args.norm);
    set(&mut model.position, args.position);
    set(&mut model.rope_theta, args.rope_theta);
    set(&mut model.qk_norm, args.qk_norm);
    set(&mut model.tied, args.tied);
    set(&mut model.bias, args.bias);

    let data = &mut options.data;
    set(&mut data.seq_len, args.seq_len);
    set(&mut data.batch_size, args.batch_size);
    if let Some(tokens) = args.batch_tokens {
        data.batch_size = u32::try_from((tokens / u64::from(data.seq_len.max(1))).max(1)).unwrap_or(u32::MAX);
    }
    set(&mut data.seed, args.seed);
    set(&mut data.doc_mask, args.doc_mask);

    let schedule = &mut options.schedule;
    set(&mut schedule.steps, args.steps);
    set(&mut schedule.lr, args.lr);
    set(&mut schedule.min_lr_ratio, args.min_lr_ratio);
    set(&mut schedule.schedule, args.schedule);
    set(&mut schedule.decay_share, args.decay_share);

    let optimizer = &mut options.optimizer;
    set(&mut optimizer.weight_decay, args.weight_decay);
    set(&mut optimizer.beta1, args.beta1);
    set(&mut optimizer.beta2, args.beta2);
    set(&mut optimizer.clip, args.clip);
    set(&mut options.muon.optimizer, args.optimizer);
    set(&mut options.muon.momentum, args.momentum);
    set(&mut options.guard.spike_sigma, args.spike_sigma);

    set(&mut options.numerics.dtype, args.dtype);
    set(&mut options.numerics.threads, args.threads);
    set(&mut options.numerics.recompute, args.recompute);
    set(&mut options.numerics.cuda_graphs, args.cuda_graphs);
    set(&mut options.numerics.deterministic, args.deterministic);
    if let Some(package) = &args.aot {
        options.numerics.aot = Some(absolute(package));
    }
    if let Some(choice) = args.engine() {
        options.numerics.engine = match choice {
            EngineChoice::This(engine) => engine,
            EngineChoice::Auto if options.numerics.device == "cpu" => EngineKind::Fused,
            EngineChoice::Auto => EngineKind::Reference,
        };
    }
    if options.numerics.engine != EngineKind::Aot {
        options.numerics.aot = None;
    }

    let cadence = &mut options.cadence;
    set(&mut cadence.eval_every, args.eval_every);
    set(&mut cadence.eval_tokens, args.eval_tokens);
    set(&mut cadence.eval_split, args.eval_split.clone());
    if let Some(dir) = &args.eval_shards {
        cadence.eval_shards = Some(absolute(dir));
    }
    set(&mut cadence.save_every, args.save_every);
    set(&mut cadence.patience, args.patience);
    if args.patience.is_some() {
        let with_the_best = u32::try_from(cadence.patience.saturating_add(1)).unwrap_or(u32::MAX);
        cadence.keep_last = cadence.keep_last.max(with_the_best);
    }
    set(&mut cadence.keep_last, args.keep_last);
    set(&mut cadence.sample_every, args.sample_every);
    set(&mut cadence.sample_prompt_ids, args.sample_prompt_ids.clone());
    set(&mut cadence.sample_tokens, args.sample_tokens);
    set(&mut cadence.tensorboard, args.tensorboard);
    set(&mut cadence.peak_tflops, args.peak_tflops);
    set(&mut cadence.log_every, args.log_every);
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// The settings with their arithmetic.
fn settings(
    dir: &Path,
    run: &RunConfig,
    view: &View,
    from: Option<&Checkpoint>,
) -> Vec<(&'static str, String)> {
    let TrainOptions { preset, model, data, schedule, optimizer, numerics, muon, guard, .. } = &run.options;
    let tokens = run.options.tokens_per_step();
    let (rows, batch) = (view.num_rows(), u64::from(data.batch_size));
    let epochs = (schedule.steps * batch) as f64 / rows as f64;
    let start = from.map_or("new".to_owned(), |from| format!("resumed at step {}", from.state.step));
    let heads = match model.kv_heads == model.heads {
        true => format!("{} heads", model.heads),
        false => format!("{} heads on {} key-value heads", model.heads, model.kv_heads),
    };
    let real = view.manifest().targets as f64 / (rows * u64::from(data.seq_len)) as f64;
    let mask = match data.doc_mask {
        DocMask::None => "",
        DocMask::Loss => "; no document foretells the next",
        DocMask::Attention => "; each document sees itself alone",
    };
    let muon = match muon.optimizer {
        OptimizerKind::AdamW => String::new(),
        OptimizerKind::Muon => format!("; Muon with momentum {} for the blocks' matrices", muon.momentum),
    };
    let guard = match guard.spike_sigma {
        0.0 => String::new(),
        sigma => format!("; updates {sigma} standard deviations off are skipped"),
    };
    vec![
        ("run", format!("{} ({start})", dir.display())),
        (
            "data",
            format!(
                "{}: {} rows of {} tokens ({}, {:.1} % real){mask}",
                run.shards.display(),
                thousands(rows),
                data.seq_len,
                view.policy(),
                100.0 * real
            ),
        ),
        (
            "model",
            format!(
                "{preset}: {} layers, {heads}, {} channels, vocabulary {} = {} parameters",
                model.layers,
                model.channels,
                thousands(model.vocab_size.into()),
                thousands(model.num_parameters())
            ),
        ),
        (
            "step",
            format!(
                "{batch} rows × {} = {} tokens, in micro-batches of {} rows",
                data.seq_len,
                thousands(tokens),
                numerics.micro_batch
            ),
        ),
        (
            "length",
            format!(
                "{} steps × {} = {} tokens = {epochs:.2} epochs",
                thousands(schedule.steps),
                thousands(tokens),
                thousands(schedule.steps * tokens)
            ),
        ),
        (
            "optimiser",
            format!(
                "AdamW β {}, {}, decay {}, clip {}; lr {:e} after {} steps, {:?} to {:e}",
                optimizer.beta1,
                optimizer.beta2,
                optimizer.weight_decay,
                optimizer.clip,
                schedule.lr,
                schedule.warmup,
                schedule.schedule,
                schedule.lr * schedule.min_lr_ratio
            )
            .to_lowercase()
            .replace("adamw", "AdamW")
                + &muon
                + &guard,
        ),
        (
            "machine",
            format!(
                "{}{}, {} threads, {:?} engine, {:?}, seed {}",
                if numerics.nproc > 1 {
                    format!("{} processes, each ", numerics.nproc)
                } else {
                    String::new()
                },
                numerics.device,
                numerics.threads,
                numerics.engine,
                numerics.dtype,
                data.seed
            )
            .to_lowercase(),
        ),
        (
            "expected",
            format!(
                "first loss near ln {} = {:.3} nats",
                thousands(model.vocab_size.into()),
                f64::from(model.vocab_size).ln()
            ),
        ),
    ]
}
