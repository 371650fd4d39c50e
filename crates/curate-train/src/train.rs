//! The training loop, and everything it keeps between steps.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use curate_shards::{ShardSet, TokenId, View, Vocabulary};
use serde::{Deserialize, Deserializer, Serialize};
use tch::{Device, Tensor};

use crate::checkpoint::{self, Checkpoint, State};
use crate::config::{DocMask, RunConfig};
use crate::data::{Batch, Loader};
use crate::distributed::Group;
use crate::engine::{self, Engine};
use crate::eval::{EvalOptions, Evaluation, evaluate};
use crate::generate::{Generator, Sampling};
use crate::guard::{self, Cause, Guard, Suspect};
use crate::log::Log;
use crate::metrics::{Meter, Peak, Speed, cuda_memory, peak_memory_bytes};
use crate::model::{MicroBatch, Model};
use crate::muon::{Muon, OptimizerKind, is_hidden_matrix};
use crate::optim::{self, AdamW};
use crate::rng::Rng;
use crate::saver::Saver;
use crate::sources::Sources;
use crate::{Error, Result, recompute, settings};

/// One line of `log.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Record {
    /// An update.
    Step(StepRecord),
    /// An evaluation.
    Eval(EvalRecord),
    /// An update that was not made, before the step that it belongs to.
    Skip(SkipRecord),
    /// A generated text.
    Sample(SampleRecord),
}

impl Record {
    /// Its step.
    pub fn step(&self) -> u64 {
        match self {
            Record::Step(record) => record.step,
            Record::Eval(record) => record.step,
            Record::Skip(record) => record.step,
            Record::Sample(record) => record.step,
        }
    }
}

/// One update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its number, from 1.
    pub step: u64,
    /// Mean loss of its targets in nats, before the update.
    #[serde(deserialize_with = "number")]
    pub loss_nats: f64,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    #[serde(deserialize_with = "number")]
    pub grad_norm: f64,
    /// Targets trained on since the start of the run.
    pub targets: u64,
    /// Rows × T of this update per second.
    pub tokens_per_s: f64,
    /// Seconds of training since the start of the run.
    pub seconds: f64,
    /// Seconds of this update that were spent waiting for its batch.
    #[serde(default)]
    pub data_wait_s: f64,
    /// Seconds between this update and the one before it that were spent on a checkpoint: copying it, and waiting for the
    /// one before to be written.
    #[serde(default)]
    pub save_wait_s: f64,
    /// Arithmetic done per second in units of 10^12: (6 N + 12 L C T) × tokens, with N the parameters that take part in
    /// matrix products (PaLM's formula).
    #[serde(default)]
    pub teraflop_per_s: f64,
    /// Its share of the device's peak, where that is known ([`crate::metrics`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Largest memory of the process on the host so far.
    #[serde(default)]
    pub peak_memory_bytes: u64,
    /// On CUDA: what tensors hold of the GPU after this update, of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda_allocated_bytes: Option<u64>,
    /// On CUDA: the most they have held at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda_peak_bytes: Option<u64>,
    /// `targets` by source, if there are several and the run has counted them from its beginning ([`crate::sources`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_targets: BTreeMap<String, u64>,
}

/// An update that was not made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkipRecord {
    /// The step, which counts all the same.
    pub step: u64,
    /// Why.
    #[serde(flatten)]
    pub cause: Cause,
    /// Documents of the batch, those that the model foretells worst first; the first of them only.
    pub documents: Vec<Suspect>,
    /// How many there are in all.
    pub documents_in_batch: u64,
}

/// A generated text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// Updates made.
    pub step: u64,
    /// Prompt and what the model added; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// The best evaluation during training.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Updates made.
    pub step: u64,
    /// Its loss.
    pub nats_per_token: f64,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Updates made.
    pub step: u64,
    /// Name of the split.
    pub split: String,
    /// Scored tokens.
    pub tokens: u64,
    /// Mean loss in nats.
    #[serde(deserialize_with = "number")]
    pub nats_per_token: f64,
    /// Its exponential.
    #[serde(deserialize_with = "number")]
    pub perplexity: f64,
    /// Bits per byte of text.
    #[serde(deserialize_with = "number")]
    pub bits_per_byte: f64,
    /// Whether the whole split was scored.
    pub whole_split: bool,
}

/// JSON has no word for what is no finite number: it is written as null, and read as NaN.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Hears what happens during training; prints it, or keeps it for a test.
pub trait Monitor {
    /// After every update.
    fn step(&mut self, record: &StepRecord);
    /// After every evaluation.
    fn evaluated(&mut self, record: &EvalRecord);
    /// During an evaluation: tokens done, tokens in all.
    fn evaluating(&mut self, done: u64, total: u64);
    /// After an update that was not made.
    fn skipped(&mut self, _: &SkipRecord) {}
    /// After every sample.
    fn sampled(&mut self, _: &SampleRecord) {}
}

/// How a call of [`Trainer::train`] ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// All steps are done; the final evaluation, if the split has documents.
    Finished(Option<Box<Evaluation>>),
    /// The step that was asked for is done.
    Stopped,
    /// The held-out loss has not become better for as many evaluations as `patience` allows.
    OutOfPatience(Best),
    /// The user interrupted; the state was saved.
    Interrupted,
}

/// A run directory that no other process writes in as long as this value lives, whether it is there yet or not.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// `None` if it is not there.
    lock: Option<File>,
}

impl RunDir {
    /// Locks the directory if it is there. To be called before its checkpoints are looked through: one that another process is
    /// about to save would be passed over.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process has locked it.
    pub fn claim(path: &Path) -> Result<RunDir> {
        let lock = path.is_dir().then(|| lock(path)).transpose()?;
        Ok(RunDir { path: path.to_owned(), lock })
    }
}

/// A run in memory.
#[derive(Debug)]
pub struct Trainer {
    run: RunConfig,
    dir: PathBuf,
    shards: Arc<ShardSet>,
    /// What is evaluated on.
    eval_shards: Arc<ShardSet>,
    model: Model,
    optimizer: AdamW,
    muon: Option<Muon>,
    guard: Guard,
    view: View,
    meter: Meter,
    peak: Option<Peak>,
    step: u64,
    samples: u64,
    targets: u64,
    sources: Sources,
    source_targets: BTreeMap<String, u64>,
    seconds: f64,
    /// No step begins after this moment.
    stop_at: Option<Instant>,
    /// The processes of the run; the first one writes its files.
    group: Group,
    /// What the run directory does not say yet.
    unwritten: Option<Unwritten>,
    /// Held while the run is in memory, by the process that writes: a second one in the same directory is refused.
    lock: Option<File>,
}

/// What [`Trainer::train`] writes into the run directory before its first step, and not before it is sure that it can begin.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unwritten {
    /// The files of a new run.
    Run,
    /// The options with which a run goes on.
    Options,
}

impl Trainer {
    /// Starts a run: initial weights from the seed. Its directory and files are made when it [trains](Self::train).
    pub fn create(dir: RunDir, run: RunConfig, shards: Arc<ShardSet>, device: Device) -> Result<Trainer> {
        let options = &run.options;
        let model = Model::new(&options.model, options.numerics.dtype, device, options.data.seed)?;
        let trainer = Trainer::new(&dir.path, run, shards, model)?;
        Ok(Trainer { unwritten: Some(Unwritten::Run), lock: dir.lock, ..trainer })
    }

    /// Takes part in a run whose files another process writes: starts it, or goes on from its checkpoint.
    pub fn follow(
        dir: &Path,
        run: RunConfig,
        shards: Arc<ShardSet>,
        device: Device,
        from: Option<&Checkpoint>,
    ) -> Result<Trainer> {
        let options = &run.options;
        let (model, dtype) = (&options.model, options.numerics.dtype);
        let model = match from {
            Some(_) => Model::blank(model, dtype, device)?,
            None => Model::new(model, dtype, device, options.data.seed)?,
        };
        let mut trainer = Trainer::new(dir, run, shards, model)?;
        trainer.load(from)?;
        Ok(trainer)
    }

    /// Goes on from a checkpoint. `run` may differ from the checkpoint's where
    /// [`TrainOptions::check_resume`](crate::config::TrainOptions::check_resume) allows it.
    pub fn resume(
        dir: RunDir,
        run: RunConfig,
        shards: Arc<ShardSet>,
        device: Device,
        from: &Checkpoint,
    ) -> Result<Trainer> {
        let model = Model::blank(&run.options.model, run.options.numerics.dtype, device)?;
        let trainer = Trainer::new(&dir.path, run, shards, model)?;
        let mut trainer = Trainer { unwritten: Some(Unwritten::Options), lock: dir.lock, ..trainer };
        trainer.load(Some(from))?;
        Ok(trainer)
    }

    /// Takes the state of a checkpoint.
    fn load(&mut self, from: Option<&Checkpoint>) -> Result<()> {
        let Some(from) = from else { return Ok(()) };
        from.load_model(&self.model)?;
        from.load_optimizer(&self.model, &mut self.optimizer, self.muon.as_ref())?;
        let State { step, samples, targets, seconds, .. } = from.state;
        (self.step, self.samples, self.targets, self.seconds) = (step, samples, targets, seconds);
        self.guard = from.state.guard.clone();
        // A checkpoint of an earlier version did not count them: half a count would say something else than its name.
        let counted = &from.state.source_targets;
        if self.sources.names().is_empty() || (counted.is_empty() && self.targets > 0) {
            self.sources = Sources::default();
            self.source_targets.clear();
        } else if self.targets > 0 {
            self.source_targets.clone_from(counted);
        }
        Ok(())
    }

    /// Joins the other processes of the run: all get the weights and moments of the first.
    pub fn join(&mut self, group: Group) -> Result<()> {
        group.share(&self.model, &self.optimizer, self.muon.as_ref(), self.step)?;
        self.group = group;
        Ok(())
    }

    fn new(dir: &Path, run: RunConfig, shards: Arc<ShardSet>, model: Model) -> Result<Trainer> {
        run.options.check()?;
        let options = &run.options;
        let (adamw, uses_muon) = (options.optimizer.clone(), options.muon.optimizer == OptimizerKind::Muon);
        let muon = uses_muon.then(|| Muon::new(&options.muon, adamw.weight_decay, &model)).transpose()?;
        let optimizer = AdamW::of(adamw, model.parameters(), |p| !(uses_muon && is_hidden_matrix(p)))?;
        let eval_shards = match &options.cadence.eval_shards {
            None => Arc::clone(&shards),
            Some(dir) => {
                let other = ShardSet::open(dir)?;
                checkpoint::check_tokenizer(&other, &run.tokenizer)?;
                Arc::new(other)
            }
        };
        let view = shards.view(&options.data.split, options.data.seq_len)?;
        let sources = Sources::of(&shards, &view, &options.data.split);
        let source_targets = sources.names().iter().map(|name| (name.clone(), 0)).collect();
        let peak = Peak::of(options.cadence.peak_tflops, model.device(), options.numerics.dtype);
        Ok(Trainer {
            run,
            dir: dir.to_owned(),
            shards,
            eval_shards,
            model,
            optimizer,
            muon,
            guard: Guard::default(),
            view,
            meter: Meter::default(),
            peak,
            step: 0,
            samples: 0,
            targets: 0,
            sources,
            source_targets,
            seconds: 0.0,
            stop_at: None,
            group: Group::default(),
            unwritten: None,
            lock: None,
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Lets no step begin after `moment`: [`train`](Self::train) then ends as if it were asked to stop there.
    pub fn stop_at(&mut self, moment: Option<Instant>) {
        self.stop_at = moment;
    }

    /// Targets trained on by source, if there are several.
    pub fn source_targets(&self) -> &BTreeMap<String, u64> {
        &self.source_targets
    }

    /// Updates made.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The device's peak, if it is known.
    pub fn peak(&self) -> Option<&Peak> {
        self.peak.as_ref()
    }

    /// How fast the steps of this call were, if there were enough of them.
    pub fn speed(&self) -> Option<Speed> {
        let options = &self.run.options;
        let flop_per_token = options.model.flop_per_token(options.data.seq_len);
        let speed = self.meter.speed(options.tokens_per_step() as f64, flop_per_token, self.peak.clone())?;
        Some(Speed { cuda_peak_bytes: cuda_memory(self.model.device()).map(|memory| memory.peak), ..speed })
    }

    /// Trains to the end of the schedule, or until update `stop_after` is done, or until `interrupted` is set.
    pub fn train(
        &mut self,
        stop_after: Option<u64>,
        monitor: &mut dyn Monitor,
        interrupted: &AtomicBool,
    ) -> Result<Ending> {
        let options = self.run.options.clone();
        let (schedule, cadence) = (&options.schedule, &options.cadence);
        let end = stop_after.unwrap_or(u64::MAX).min(schedule.steps);
        let leads = self.group.leads();
        let place = (self.group.rank(), self.group.world_size());
        let mut loader = Loader::start_share(&self.shards, &options.data, place, self.step, end)?;
        let mut engine = engine::of_run(&options, &self.model)?;
        if options.data.doc_mask == DocMask::Attention && !engine.masks_documents() {
            return Err(Error::option("--doc-mask", "this engine has no mask; use --engine reference"));
        }
        self.group.barrier()?; // a process that cannot begin has ended instead: nothing is written then
        if leads {
            self.write_unwritten()?;
            checkpoint::tidy(&self.dir, cadence.keep_last as usize, self.step)?;
        }
        let mut log = Log::open(&self.dir, self.step, &options, leads)?;
        let mut saver = Saver::new(&self.dir, cadence.keep_last as usize);
        let mut save_wait_s = 0.0;
        let flop_per_step =
            options.model.flop_per_token(options.data.seq_len) * options.tokens_per_step() as f64;
        let mut saved = self.step > 0; // a resumed state is on disk

        let out_of_time = |stop_at: Option<Instant>| stop_at.is_some_and(|at| Instant::now() >= at);
        while self.step < end
            && !self.group.any(interrupted.load(Ordering::Relaxed) || out_of_time(self.stop_at))?
        {
            saver.check()?;
            // Before the step rather than after the last one, so that a resumed run catches up on an evaluation that
            // it was killed in. Its checkpoint is already saved.
            if is_due(cadence.eval_every, self.step) && !log.has_evaluation {
                let max_tokens = Some(cadence.eval_tokens).filter(|tokens| *tokens > 0);
                if let Some(evaluation) = self.evaluate(max_tokens, false, monitor, interrupted)? {
                    self.report(&evaluation, max_tokens.is_none(), &mut log, monitor)?;
                }
                if self.group.any(interrupted.load(Ordering::Relaxed))? {
                    break;
                }
                log.draw()?;
            }
            if is_due(cadence.sample_every, self.step) && !log.has_sample && leads {
                self.sample(&mut log, monitor)?;
            }
            if let Some((best, since)) = log.without_gain()
                && cadence.patience > 0
                && since >= cadence.patience
            {
                let best = best.clone();
                saver.finish()?;
                self.finish(&log)?;
                return Ok(Ending::OutOfPatience(best));
            }

            let started = Instant::now();
            let lr = schedule.lr(self.step);
            let batch = loader.next_batch()?;
            let data_wait_s = started.elapsed().as_secs_f64();

            let loss_nats = engine.loss(&self.model, &batch, options.numerics.micro_batch)?;
            let (loss_nats, targets) =
                self.group.average(loss_nats, batch.num_targets(), &engine.gradients())?;
            // An engine knows the norm of what it computed, not of what the processes have averaged.
            let grad_norm = match self.group.world_size() {
                1 => engine.grad_norm()?,
                _ => optim::global_norm(&engine.gradients())?,
            };
            match self.guard.judge(&options.guard, loss_nats, grad_norm) {
                Some(cause) => self.skip(cause, &mut log, monitor)?,
                None => self.update(engine.as_mut(), lr, grad_norm)?,
            }

            self.step += 1;
            self.samples += u64::from(options.data.batch_size);
            self.targets += targets;
            self.count_sources(&batch)?;
            loader.give_back(batch);
            let seconds = started.elapsed().as_secs_f64();
            self.seconds += seconds;
            self.meter.add(seconds, data_wait_s);
            let teraflop_per_s = flop_per_step * 1e-12 / seconds;
            let on_gpu = cuda_memory(self.model.device());
            let record = StepRecord {
                step: self.step,
                loss_nats,
                lr,
                grad_norm,
                targets: self.targets,
                tokens_per_s: options.tokens_per_step() as f64 / seconds,
                seconds: self.seconds,
                data_wait_s,
                save_wait_s: std::mem::take(&mut save_wait_s),
                teraflop_per_s,
                mfu: self.peak.as_ref().map(|peak| teraflop_per_s / peak.tflops),
                peak_memory_bytes: peak_memory_bytes(),
                cuda_allocated_bytes: on_gpu.map(|memory| memory.current),
                cuda_peak_bytes: on_gpu.map(|memory| memory.peak),
                source_targets: self.source_targets.clone(),
            };
            log.append(&Record::Step(record.clone()))?;
            monitor.step(&record);

            saved = is_due(cadence.save_every, self.step) || is_due(cadence.eval_every, self.step);
            if saved && leads {
                let started = Instant::now();
                saver.start(self.state(), &self.model, &self.optimizer, self.muon.as_ref())?;
                save_wait_s = started.elapsed().as_secs_f64();
            }
        }

        saver.finish()?;
        if !saved && leads {
            self.save()?;
        }
        self.finish(&log)?;
        if self.group.any(interrupted.load(Ordering::Relaxed))? {
            return Ok(Ending::Interrupted);
        }
        if self.step < schedule.steps {
            return Ok(Ending::Stopped);
        }
        let evaluation = self.evaluate(None, true, monitor, interrupted)?;
        if self.group.any(interrupted.load(Ordering::Relaxed))? {
            return Ok(Ending::Interrupted);
        }
        if let Some(evaluation) = &evaluation {
            self.report(evaluation, true, &mut log, monitor)?;
            if leads {
                store_evaluation(&self.dir, self.step, evaluation)?;
            }
            log.draw()?;
        }
        Ok(Ending::Finished(evaluation.map(Box::new)))
    }

    /// Makes the directory of a new run and writes what says which run it is, once.
    fn write_unwritten(&mut self) -> Result<()> {
        let Some(unwritten) = self.unwritten.take() else { return Ok(()) };
        let dir = &self.dir;
        if self.lock.is_none() {
            std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
            self.lock = Some(lock(dir)?);
        }
        if unwritten == Unwritten::Run {
            // Another process may have had the directory since it was found to be free.
            if let Some((step, _)) = checkpoint::list(dir)?.last() {
                return Err(Error::RunExists { run: dir.clone(), step: *step });
            }
            for name in ["vocabulary.bin", "tokenizer.json"] {
                let source = self.shards.dir().join(name);
                if source.exists() {
                    let content = std::fs::read(&source).map_err(Error::io(&source))?;
                    checkpoint::write_file(&dir.join(name), &content)?;
                }
            }
            checkpoint::write_file(&dir.join("settings.toml"), settings::to_toml(&self.run).as_bytes())?;
        }
        checkpoint::write_json(&dir.join("config.json"), &self.run)
    }

    /// Adds the targets of a batch, which is this process's share of a step, to those of their sources.
    fn count_sources(&mut self, batch: &Batch) -> Result<()> {
        let names = self.sources.names();
        if names.is_empty() {
            return Ok(());
        }
        for (name, targets) in names.iter().zip(self.group.sum_counts(&batch.source_targets)?) {
            *self.source_targets.entry(name.clone()).or_default() += targets;
        }
        Ok(())
    }

    /// Clips the engine's gradients, whose norm is `grad_norm`, and applies them.
    fn update(&mut self, engine: &mut dyn Engine, lr: f64, grad_norm: f64) -> Result<()> {
        let scale = optim::clip_scale(grad_norm, self.run.options.optimizer.clip);
        if let Some(muon) = &mut self.muon {
            muon.step(self.model.parameters(), &engine.gradients(), lr, scale)?;
            engine.refresh(&muon.places())?;
        }
        engine.step(&self.model, &mut self.optimizer, lr, scale)
    }

    /// Tells why the update of this step is not made, and which documents are in it; ends the run where the guard may not
    /// skip, or skipping helps no more. The first process does so for all: it reads the rows of the others again.
    fn skip(&mut self, cause: Cause, log: &mut Log, monitor: &mut dyn Monitor) -> Result<()> {
        let options = &self.run.options;
        let (split, micro_batch) = (&options.data.split, options.numerics.micro_batch);
        let (mut documents, mut documents_in_batch) = (Vec::new(), 0);
        if self.group.leads() {
            let batch = Loader::start(&self.shards, &options.data, self.step, self.step + 1)?.next_batch()?;
            (documents, documents_in_batch) =
                guard::suspects(&self.model, &self.shards, &self.view, split, &batch, micro_batch)?;
        }
        let step = self.step + 1;
        let record = SkipRecord { step, cause, documents, documents_in_batch };
        log.append(&Record::Skip(record.clone()))?;
        monitor.skipped(&record);
        if options.guard.spike_sigma == 0.0 {
            return Err(Error::NotFinite { quantity: record.cause.quantity, step });
        }
        if self.guard.gives_up() {
            let cause = record.cause.to_string();
            return Err(Error::Spikes { step, in_a_row: guard::MOST_IN_A_ROW, cause });
        }
        Ok(())
    }

    /// Generates a text and logs it.
    fn sample(&self, log: &mut Log, monitor: &mut dyn Monitor) -> Result<()> {
        let (cadence, eod) = (&self.run.options.cadence, self.run.tokenizer.eod);
        let vocabulary = Vocabulary::open(self.dir.join("vocabulary.bin"))?;
        let prompt: &[TokenId] = &cadence.sample_prompt_ids;
        let rng = Rng::new(self.run.options.data.seed, &format!("sample at step {}", self.step));
        let mut generator = Generator::new(&self.model, eod, prompt, Sampling::default(), rng)?;
        let mut bytes = Vec::new();
        vocabulary.decode(prompt, &mut bytes);
        for _ in 0..cadence.sample_tokens {
            let id = generator.next_token()?;
            if id == eod {
                break;
            }
            bytes.extend_from_slice(vocabulary.bytes(id));
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let record = SampleRecord { step: self.step, text };
        log.append(&Record::Sample(record.clone()))?;
        monitor.sampled(&record);
        Ok(())
    }

    /// Writes what is told of a call when its last step is done.
    fn finish(&self, log: &Log) -> Result<()> {
        log.draw()?;
        match self.speed() {
            Some(speed) if self.group.leads() => checkpoint::write_json(&self.dir.join("speed.json"), &speed),
            _ => Ok(()),
        }
    }

    /// What a checkpoint of the present state says besides tensors.
    fn state(&self) -> State {
        State {
            step: self.step,
            samples: self.samples,
            targets: self.targets,
            source_targets: self.source_targets.clone(),
            seconds: self.seconds,
            guard: self.guard.clone(),
            run: self.run.clone(),
            files: Default::default(),
        }
    }

    /// Writes a checkpoint of the present state, removes old ones, and returns when that is done.
    pub fn save(&self) -> Result<PathBuf> {
        let path =
            checkpoint::save(&self.dir, self.state(), &self.model, &self.optimizer, self.muon.as_ref())?;
        checkpoint::tidy(&self.dir, self.run.options.cadence.keep_last as usize, self.step)?;
        Ok(path)
    }

    /// Evaluates on the held-out split: all of it, or up to `max_tokens`; `None` if there is nothing to evaluate on,
    /// or if the user interrupts.
    fn evaluate(
        &self,
        max_tokens: Option<u64>,
        baseline: bool,
        monitor: &mut dyn Monitor,
        interrupted: &AtomicBool,
    ) -> Result<Option<Evaluation>> {
        let split = &self.run.options.cadence.eval_split;
        let documents = self.eval_shards.split(split).map_or(0, |split| split.num_documents());
        if documents == 0 {
            return Ok(None);
        }
        // Another set's `train` says nothing about what this model was trained on.
        let baseline = baseline && self.run.options.cadence.eval_shards.is_none();
        let options = EvalOptions { split: split.clone(), max_tokens, baseline, ..Default::default() };
        let mut on_progress = |done, total| {
            monitor.evaluating(done, total);
            if interrupted.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        match evaluate(&self.model, &self.eval_shards, &options, &mut on_progress) {
            Err(Error::Interrupted) => Ok(None),
            other => Ok(Some(other?.0)),
        }
    }

    /// Logs an evaluation.
    fn report(
        &self,
        evaluation: &Evaluation,
        whole: bool,
        log: &mut Log,
        monitor: &mut dyn Monitor,
    ) -> Result<()> {
        let record = EvalRecord {
            step: self.step,
            split: evaluation.protocol.split.clone(),
            tokens: evaluation.total.tokens,
            nats_per_token: evaluation.total.nats_per_token,
            perplexity: evaluation.total.perplexity,
            bits_per_byte: evaluation.total.bits_per_byte,
            whole_split: whole,
        };
        log.append(&Record::Eval(record.clone()))?;
        monitor.evaluated(&record);
        Ok(())
    }
}

/// Writes `eval-SPLIT.json` of a run and returns its path.
pub fn store_evaluation(run: &Path, step: u64, evaluation: &Evaluation) -> Result<PathBuf> {
    #[derive(Serialize)]
    struct Stored<'a> {
        step: u64,
        #[serde(flatten)]
        evaluation: &'a Evaluation,
    }
    let path = run.join(format!("eval-{}.json", evaluation.protocol.split));
    checkpoint::write_json(&path, &Stored { step, evaluation })?;
    Ok(path)
}

/// Mean loss of a batch in nats, and its gradient for each parameter in order.
///
/// The batch is cut into micro-batches, whose losses are sums divided by the targets of the *whole* batch: padding
/// and unequal pieces weigh nothing, and the cut changes only rounding.
pub fn loss_and_gradients(model: &Model, batch: &Batch, micro_batch: u32) -> Result<(Tensor, Vec<Tensor>)> {
    loss_and_gradients_by(model, batch, micro_batch, false)
}

/// As [`loss_and_gradients`], with `recompute` in the memory of one block's activations.
pub fn loss_and_gradients_by(
    model: &Model,
    batch: &Batch,
    micro_batch: u32,
    recompute: bool,
) -> Result<(Tensor, Vec<Tensor>)> {
    let inverse = 1.0 / batch.num_targets().max(1) as f64;
    let parameters: Vec<&Tensor> = model.parameters().iter().map(|parameter| &parameter.tensor).collect();
    let mut sum: Option<(Tensor, Vec<Tensor>)> = None;
    for piece in MicroBatch::all_of(batch, micro_batch, model.device()) {
        let MicroBatch { inputs, targets, segments } = piece?;
        let (loss, gradients) = match recompute {
            true => recompute::loss_and_gradients(model, &inputs, &targets, segments.as_ref(), inverse)?,
            false => {
                let loss = model.loss_sum_in(&inputs, &targets, segments.as_ref())?.f_mul_scalar(inverse)?;
                let gradients = Tensor::f_run_backward(&[&loss], &parameters, false, false)?;
                (loss.f_detach()?, gradients)
            }
        };
        match &mut sum {
            None => sum = Some((loss, gradients)),
            Some((loss_sum, gradient_sums)) => {
                let _ = loss_sum.f_add_(&loss)?;
                for (gradient_sum, gradient) in gradient_sums.iter_mut().zip(&gradients) {
                    let _ = gradient_sum.f_add_(gradient)?;
                }
            }
        }
    }
    Ok(sum.expect("a batch has at least one row"))
}

fn is_due(every: u64, step: u64) -> bool {
    every > 0 && step > 0 && step.is_multiple_of(every)
}

/// Locks a run directory until the file is dropped.
fn lock(dir: &Path) -> Result<File> {
    let file = File::open(dir).map_err(Error::io(dir))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { run: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(Error::io(dir)(error)),
    }
}
