//! The files of a run that tell what happened: `log.jsonl`, TensorBoard's events, `curve.svg`.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint;
use crate::config::TrainOptions;
use crate::curve::Curve;
use crate::tensorboard::EventWriter;
use crate::train::{Best, Record};
use crate::{Error, Result};

/// The log of a run, open to be continued.
pub(crate) struct Log {
    dir: PathBuf,
    path: PathBuf,
    /// `None` in a process that writes no files: it knows what is in the log all the same.
    file: Option<File>,
    events: Option<EventWriter>,
    curve: Curve,
    split: String,
    /// What came after the last step: an evaluation, a sample.
    pub(crate) has_evaluation: bool,
    pub(crate) has_sample: bool,
    /// The best evaluation during training, and how many came after it.
    best: Option<(Best, u64)>,
}

impl Log {
    /// Opens the log to append what follows `step`. Lines of later steps, left by a process that died after its last
    /// checkpoint, are taken out, and so are a torn last line and a final evaluation, which will be made again. Without
    /// `writes` the files stay as they are, now and later.
    pub(crate) fn open(dir: &Path, step: u64, options: &TrainOptions, writes: bool) -> Result<Log> {
        let path = dir.join("log.jsonl");
        let old = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other.map_err(Error::io(&path))?,
        };
        let (mut kept, mut records) = (Vec::new(), Vec::new());
        // Bytes, as a line may be torn within a letter.
        for line in old.split(|byte| *byte == b'\n') {
            let Ok(record) = serde_json::from_slice::<Record>(line) else { continue };
            let is_final = matches!(&record, Record::Eval(eval) if eval.step >= options.schedule.steps);
            if record.step() <= step && !is_final {
                kept.extend([line, b"\n"].concat());
                records.push(record);
            }
        }
        let file = match writes {
            true => {
                checkpoint::write_file(&path, &kept)?;
                Some(File::options().append(true).open(&path).map_err(Error::io(&path))?)
            }
            false => None,
        };
        let events = match writes && options.cadence.tensorboard && step < options.schedule.steps {
            true => Some(EventWriter::create(&dir.join("tensorboard"), step + 1)?),
            false => None,
        };
        let mut log = Log {
            dir: dir.to_owned(),
            path,
            file,
            events,
            curve: Curve::default(),
            split: options.cadence.eval_split.clone(),
            has_evaluation: false,
            has_sample: false,
            best: None,
        };
        records.iter().for_each(|record| log.remember(record));
        Ok(log)
    }

    /// Adds a record to every file but the picture.
    pub(crate) fn append(&mut self, record: &Record) -> Result<()> {
        let json = |source| Error::Json { path: self.path.clone(), what: "log record", source };
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_vec(record).map_err(json)?;
            line.push(b'\n');
            file.write_all(&line).map_err(Error::io(&self.path))?;
        }
        if let Some(events) = &mut self.events {
            match record {
                Record::Step(step) => {
                    let mut values = vec![
                        ("train/loss_nats", step.loss_nats),
                        ("train/grad_norm", step.grad_norm),
                        ("train/lr", step.lr),
                        ("speed/tokens_per_s", step.tokens_per_s),
                        ("speed/teraflop_per_s", step.teraflop_per_s),
                        ("speed/data_wait_s", step.data_wait_s),
                        ("speed/peak_memory_bytes", step.peak_memory_bytes as f64),
                    ];
                    values.extend(step.mfu.map(|mfu| ("speed/mfu", mfu)));
                    let on_gpu = step.cuda_peak_bytes;
                    values.extend(on_gpu.map(|bytes| ("speed/cuda_peak_bytes", bytes as f64)));
                    let sources = step.source_targets.iter();
                    let sources: Vec<(String, f64)> =
                        sources.map(|(name, count)| (format!("sources/{name}"), *count as f64)).collect();
                    values.extend(sources.iter().map(|(name, count)| (name.as_str(), *count)));
                    events.scalars(step.step, &values)?;
                }
                Record::Eval(eval) => {
                    let tag = |name: &str| format!("eval/{}_{name}", eval.split);
                    let (nats, bits) = (tag("nats_per_token"), tag("bits_per_byte"));
                    events
                        .scalars(eval.step, &[(&nats, eval.nats_per_token), (&bits, eval.bits_per_byte)])?;
                }
                Record::Skip(_) | Record::Sample(_) => {}
            }
        }
        self.remember(record);
        Ok(())
    }

    /// Evaluations in a row that were no better than the best, and that one.
    pub(crate) fn without_gain(&self) -> Option<(&Best, u64)> {
        self.best.as_ref().map(|(best, since)| (best, *since))
    }

    /// Writes the picture.
    pub(crate) fn draw(&self) -> Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        checkpoint::write_file(&self.dir.join("curve.svg"), self.curve.svg(&name, &self.split).as_bytes())
    }

    fn remember(&mut self, record: &Record) {
        match record {
            Record::Step(step) => {
                (self.has_evaluation, self.has_sample) = (false, false);
                self.curve.train.push((step.step, step.loss_nats));
            }
            Record::Eval(eval) => {
                self.has_evaluation = true;
                self.curve.eval.push((eval.step, eval.nats_per_token));
                let is_better = self.best.as_ref().is_none_or(|(Best { nats_per_token: best, .. }, _)| {
                    eval.nats_per_token < *best || best.is_nan() && !eval.nats_per_token.is_nan()
                });
                match &mut self.best {
                    Some((_, since)) if !is_better => *since += 1,
                    best => {
                        *best = Some((Best { step: eval.step, nats_per_token: eval.nats_per_token }, 0));
                    }
                }
            }
            Record::Sample(_) => self.has_sample = true,
            Record::Skip(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::preset;

    #[test]
    fn an_evaluation_that_is_no_number_is_not_the_best() {
        let dir = std::env::temp_dir().join(format!("curate-train-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let eval = |step: u64, nats: &str| {
            format!(
                "{{\"event\":\"eval\",\"step\":{step},\"split\":\"val\",\"tokens\":9,\"nats_per_token\":{nats},\
                 \"perplexity\":{nats},\"bits_per_byte\":{nats},\"whole_split\":true}}\n"
            )
        };
        let lines = [eval(1, "null"), eval(2, "3.5"), eval(3, "null"), eval(4, "3.5")].concat();
        checkpoint::write_file(&dir.join("log.jsonl"), lines.as_bytes()).unwrap();
        let options = preset("char-tiny").unwrap().options(27, 32, 10);
        let log = Log::open(&dir, 4, &options, false).unwrap();
        assert_eq!(log.without_gain(), Some((&Best { step: 2, nats_per_token: 3.5 }, 2)));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
