//! The training loop, and everything it keeps between steps.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use curate_shards::ShardSet;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::checkpoint::{self, Checkpoint, State};
use crate::config::RunConfig;
use crate::data::{Batch, Loader};
use crate::distributed::Group;
use crate::engine;
use crate::eval::{EvalOptions, Evaluation, evaluate};
use crate::model::Model;
use crate::optim::{self, AdamW};
use crate::saver::Saver;
use crate::{Error, Result};

/// One line of `log.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Record {
    /// An update.
    Step(StepRecord),
    /// An evaluation.
    Eval(EvalRecord),
}

/// One update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its number, from 1.
    pub step: u64,
    /// Mean loss of its targets in nats, before the update.
    pub loss_nats: f64,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
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
    /// matrix products (PaLM's formula). Not a share of a peak, which is not known here.
    #[serde(default)]
    pub teraflop_per_s: f64,
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
    pub nats_per_token: f64,
    /// Its exponential.
    pub perplexity: f64,
    /// Bits per byte of text.
    pub bits_per_byte: f64,
    /// Whether the whole split was scored.
    pub whole_split: bool,
}

/// Hears what happens during training; prints it, or keeps it for a test.
pub trait Monitor {
    /// After every update.
    fn step(&mut self, record: &StepRecord);
    /// After every evaluation.
    fn evaluated(&mut self, record: &EvalRecord);
    /// During an evaluation: tokens done, tokens in all.
    fn evaluating(&mut self, done: u64, total: u64);
}

/// How a call of [`Trainer::train`] ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// All steps are done; the final evaluation, if the split has documents.
    Finished(Option<Box<Evaluation>>),
    /// The step that was asked for is done.
    Stopped,
    /// The user interrupted; the state was saved.
    Interrupted,
}

/// A run in memory.
#[derive(Debug)]
pub struct Trainer {
    run: RunConfig,
    dir: PathBuf,
    shards: Arc<ShardSet>,
    model: Model,
    optimizer: AdamW,
    step: u64,
    samples: u64,
    targets: u64,
    seconds: f64,
    /// No step begins after this moment.
    stop_at: Option<Instant>,
    /// The processes of the run; the first one writes its files.
    group: Group,
    /// Held while the run is in memory: a second process in the same directory is refused.
    _lock: Option<File>,
}

impl Trainer {
    /// Starts a run: initial weights from the seed, files of the run directory written.
    pub fn create(dir: &Path, run: RunConfig, shards: Arc<ShardSet>, device: Device) -> Result<Trainer> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let lock = lock(dir)?;
        for name in ["vocabulary.bin", "tokenizer.json"] {
            let source = shards.dir().join(name);
            if source.exists() {
                let content = std::fs::read(&source).map_err(Error::io(&source))?;
                checkpoint::write_file(&dir.join(name), &content)?;
            }
        }
        checkpoint::write_json(&dir.join("config.json"), &run)?;
        let options = &run.options;
        let model = Model::new(&options.model, options.numerics.dtype, device, options.data.seed)?;
        Trainer::new(dir, run, shards, model, Some(lock))
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
        let mut trainer = Trainer::new(dir, run, shards, model, None)?;
        trainer.load(from)?;
        Ok(trainer)
    }

    /// Goes on from a checkpoint. `run` may differ from the checkpoint's where
    /// [`TrainOptions::check_resume`](crate::config::TrainOptions::check_resume) allows it.
    pub fn resume(
        dir: &Path,
        run: RunConfig,
        shards: Arc<ShardSet>,
        device: Device,
        from: &Checkpoint,
    ) -> Result<Trainer> {
        let lock = lock(dir)?;
        checkpoint::write_json(&dir.join("config.json"), &run)?;
        let model = Model::blank(&run.options.model, run.options.numerics.dtype, device)?;
        let mut trainer = Trainer::new(dir, run, shards, model, Some(lock))?;
        trainer.load(Some(from))?;
        Ok(trainer)
    }

    /// Takes the state of a checkpoint.
    fn load(&mut self, from: Option<&Checkpoint>) -> Result<()> {
        let Some(from) = from else { return Ok(()) };
        from.load_model(&self.model)?;
        from.load_optimizer(&self.model, &mut self.optimizer)?;
        let State { step, samples, targets, seconds, .. } = from.state;
        (self.step, self.samples, self.targets, self.seconds) = (step, samples, targets, seconds);
        Ok(())
    }

    /// Joins the other processes of the run: all get the weights and moments of the first.
    pub fn join(&mut self, group: Group) -> Result<()> {
        group.share(&self.model, &self.optimizer, self.step)?;
        self.group = group;
        Ok(())
    }

    fn new(
        dir: &Path,
        run: RunConfig,
        shards: Arc<ShardSet>,
        model: Model,
        lock: Option<File>,
    ) -> Result<Trainer> {
        run.options.check()?;
        let optimizer = AdamW::new(run.options.optimizer.clone(), model.parameters())?;
        Ok(Trainer {
            run,
            dir: dir.to_owned(),
            shards,
            model,
            optimizer,
            step: 0,
            samples: 0,
            targets: 0,
            seconds: 0.0,
            stop_at: None,
            group: Group::default(),
            _lock: lock,
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

    /// Updates made.
    pub fn step(&self) -> u64 {
        self.step
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
        if leads {
            checkpoint::tidy(&self.dir, cadence.keep_last as usize)?;
        }
        let mut log = if leads { Log::open(&self.dir, self.step)? } else { Log::none() };
        log.has_evaluation = self.group.any(log.has_evaluation)?;
        let place = (self.group.rank(), self.group.world_size());
        let mut loader = Loader::start_share(&self.shards, &options.data, place, self.step, end)?;
        let mut saver = Saver::new(&self.dir, cadence.keep_last as usize);
        let mut save_wait_s = 0.0;
        let flop_per_step =
            options.model.flop_per_token(options.data.seq_len) * options.tokens_per_step() as f64;
        let mut engine = engine::of_run(&options, &self.model)?;
        let mut saved = self.step > 0; // a resumed state is on disk

        let out_of_time = |stop_at: Option<Instant>| stop_at.is_some_and(|at| Instant::now() >= at);
        while self.step < end
            && !self.group.any(interrupted.load(Ordering::Relaxed) || out_of_time(self.stop_at))?
        {
            saver.check()?;
            // Before the step rather than after the last one, so that a resumed run catches up on an evaluation that
            // it was killed in. Its checkpoint is already saved.
            if is_due(cadence.eval_every, self.step) && !log.has_evaluation {
                if let Some(evaluation) = self.evaluate(Some(cadence.eval_tokens), monitor, interrupted)? {
                    self.report(&evaluation, false, &mut log, monitor)?;
                }
                if self.group.any(interrupted.load(Ordering::Relaxed))? {
                    break;
                }
            }

            let started = Instant::now();
            let lr = schedule.lr(self.step);
            let batch = loader.next_batch()?;
            let data_wait_s = started.elapsed().as_secs_f64();

            let loss_nats = engine.loss(&self.model, &batch, options.numerics.micro_batch)?;
            let (loss_nats, targets) =
                self.group.average(loss_nats, batch.num_targets(), &engine.gradients())?;
            let grad_norm = engine.grad_norm()?;
            self.check_finite("the loss", loss_nats)?;
            self.check_finite("the norm of the gradient", grad_norm)?;
            let scale = optim::clip_scale(grad_norm, options.optimizer.clip);
            engine.step(&self.model, &mut self.optimizer, lr, scale)?;

            self.step += 1;
            self.samples += u64::from(options.data.batch_size);
            self.targets += targets;
            loader.give_back(batch);
            let seconds = started.elapsed().as_secs_f64();
            self.seconds += seconds;
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
                teraflop_per_s: flop_per_step * 1e-12 / seconds,
            };
            log.append(&Record::Step(record.clone()))?;
            monitor.step(&record);

            saved = is_due(cadence.save_every, self.step) || is_due(cadence.eval_every, self.step);
            if saved && leads {
                let started = Instant::now();
                saver.start(self.state(), &self.model, &self.optimizer)?;
                save_wait_s = started.elapsed().as_secs_f64();
            }
        }

        saver.finish()?;
        if !saved && leads {
            self.save()?;
        }
        if self.group.any(interrupted.load(Ordering::Relaxed))? {
            return Ok(Ending::Interrupted);
        }
        if self.step < schedule.steps {
            return Ok(Ending::Stopped);
        }
        let evaluation = self.evaluate(None, monitor, interrupted)?;
        if self.group.any(interrupted.load(Ordering::Relaxed))? {
            return Ok(Ending::Interrupted);
        }
        if let Some(evaluation) = &evaluation {
            self.report(evaluation, true, &mut log, monitor)?;
        }
        Ok(Ending::Finished(evaluation.map(Box::new)))
    }

    fn check_finite(&self, quantity: &'static str, value: f64) -> Result<()> {
        match value.is_finite() {
            true => Ok(()),
            false => Err(Error::NotFinite { quantity, value, step: self.step + 1 }),
        }
    }

    /// What a checkpoint of the present state says besides tensors.
    fn state(&self) -> State {
        State {
            step: self.step,
            samples: self.samples,
            targets: self.targets,
            seconds: self.seconds,
            run: self.run.clone(),
            files: Default::default(),
        }
    }

    /// Writes a checkpoint of the present state, removes old ones, and returns when that is done.
    pub fn save(&self) -> Result<PathBuf> {
        let path = checkpoint::save(&self.dir, self.state(), &self.model, &self.optimizer)?;
        checkpoint::tidy(&self.dir, self.run.options.cadence.keep_last as usize)?;
        Ok(path)
    }

    /// Evaluates on the held-out split: all of it, or up to `max_tokens`; `None` if there is nothing to evaluate on,
    /// or if the user interrupts.
    fn evaluate(
        &self,
        max_tokens: Option<u64>,
        monitor: &mut dyn Monitor,
        interrupted: &AtomicBool,
    ) -> Result<Option<Evaluation>> {
        let split = &self.run.options.cadence.eval_split;
        let documents = self.shards.split(split).map_or(0, |split| split.num_documents());
        if documents == 0 {
            return Ok(None);
        }
        let whole = max_tokens.is_none();
        let options = EvalOptions { split: split.clone(), max_tokens, baseline: whole, ..Default::default() };
        let mut on_progress = |done, total| {
            monitor.evaluating(done, total);
            if interrupted.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        match evaluate(&self.model, &self.shards, &options, &mut on_progress) {
            Err(Error::Interrupted) => Ok(None),
            other => Ok(Some(other?.0)),
        }
    }

    /// Logs an evaluation; the one of the whole split is also stored in full.
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
        if whole && self.group.leads() {
            store_evaluation(&self.dir, self.step, evaluation)?;
        }
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
    let inverse = 1.0 / batch.num_targets().max(1) as f64;
    let parameters: Vec<&Tensor> = model.parameters().iter().map(|parameter| &parameter.tensor).collect();
    let mut sum: Option<(Tensor, Vec<Tensor>)> = None;
    for (rows, inputs, targets) in batch.micro_batches(micro_batch as usize) {
        let shape = [rows as i64, batch.seq_len as i64];
        let tensor = |ids: &[i64]| {
            Ok::<_, Error>(Tensor::f_from_slice(ids)?.f_reshape(shape)?.f_to_device(model.device())?)
        };
        let loss = model.loss_sum(&tensor(inputs)?, &tensor(targets)?)?.f_mul_scalar(inverse)?;
        let gradients = Tensor::f_run_backward(&[&loss], &parameters, false, false)?;
        let loss = loss.f_detach()?;
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

/// `log.jsonl` of a run.
struct Log {
    path: PathBuf,
    /// `None` in a process that writes no files.
    file: Option<File>,
    /// Whether the last record is an evaluation.
    has_evaluation: bool,
}

impl Log {
    /// A log that keeps nothing.
    fn none() -> Log {
        Log { path: PathBuf::new(), file: None, has_evaluation: false }
    }

    /// Opens the log to append what follows `step`. Lines of later steps, left by a process that died after its last
    /// checkpoint, are taken out, and so are a torn last line and a final evaluation, which will be made again.
    fn open(dir: &Path, step: u64) -> Result<Log> {
        let path = dir.join("log.jsonl");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let (mut kept, mut has_evaluation) = (String::new(), false);
        for line in old.lines() {
            has_evaluation = match serde_json::from_str(line) {
                Ok(Record::Step(record)) if record.step <= step => false,
                Ok(Record::Eval(record)) if record.step <= step && !record.whole_split => true,
                _ => continue,
            };
            kept.extend([line, "\n"]);
        }
        checkpoint::write_file(&path, kept.as_bytes())?;
        let file = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Log { path, file: Some(file), has_evaluation })
    }

    fn append(&mut self, record: &Record) -> Result<()> {
        let json = |source| Error::Json { path: self.path.clone(), what: "log record", source };
        self.has_evaluation = matches!(record, Record::Eval(_));
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(record).map_err(json)?;
        line.push(b'\n');
        file.write_all(&line).map_err(Error::io(&self.path))
    }
}
