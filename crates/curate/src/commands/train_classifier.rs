//! `curate train-classifier`: a quality model from documents one wants and documents one has.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use curate_clean::fasttext::{self, FastTextOptions, Newlines};
use curate_clean::quality::{
    Calibration, QualityError, ScoreScratch, Scorer, TrainOptions, Trainer, hash_features, is_held_out,
};
use curate_core::{Counters, Document, Gate, Mapper, Report, Verdict, Work};
use curate_io::write_atomically;
use serde::Serialize;
use serde_json::json;

use crate::chain::parameters;
use crate::cli::StreamOptions;
use crate::commands::score::calibration_path;
use crate::failure::{Exit, Failure, Result};
use crate::scan::Scan;
use crate::summary::{Extra, Summary, thousands};
use crate::usage::usage;

/// Train a quality model to tell wanted documents from the pool that is to be filtered
///
/// --pos is what one wants more of, --neg a sample of the pool. A part of both is held out of training; on it the
/// command measures how well the model tells them apart (AUC), how often a score is right (a table by deciles), and
/// which score how many per cent of the pool reach, so that `curate score --keep-top 10%` means something.
///
/// The default model is linear over hashed words and pairs of words: it scores far faster than fastText, and the same
/// documents and seed give the same file for any number of threads. --to fasttext writes a .bin that fastText reads;
/// its calibration is written beside it.
///
/// Memory: about 8 bytes a word of all documents and 32 MB of weights; for fastText the texts themselves as well.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate train-classifier --pos textbooks.jsonl.zst --neg crawl-sample.jsonl.zst -o quality.cqm\n  curate train-classifier --pos good/ --neg pool/ --to fasttext -o quality.bin"
)]
pub(crate) struct TrainClassifierCommand {
    #[command(flatten)]
    options: ClassifierOptions,

    #[command(flatten)]
    stream: StreamOptions,
}

#[derive(Args, Debug, Serialize)]
struct ClassifierOptions {
    /// Documents one wants: files, directories, globs; everything up to the next option
    #[arg(long, value_name = "INPUT", num_args = 1.., required = true)]
    pos: Vec<PathBuf>,

    /// Documents of the pool that is to be filtered
    #[arg(long, value_name = "INPUT", num_args = 1.., required = true)]
    neg: Vec<PathBuf>,

    /// Where to write the model
    #[arg(short, long, value_name = "FILE")]
    #[serde(skip)]
    output: PathBuf,

    /// What kind of model
    #[arg(long, value_name = "KIND", default_value = "linear")]
    to: ModelKind,

    /// Share of the documents that is held out for the calibration
    #[arg(long, value_name = "RATIO", default_value_t = 0.1, value_parser = share)]
    held_out: f64,

    /// Times that training goes over the documents [default: 10 for linear, 5 for fasttext]
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,

    /// Seed of the order of documents, of what is held out, and of fastText's first weights
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// linear: 2^BITS weights
    #[arg(long, value_name = "BITS", default_value_t = 22)]
    bits: u32,

    /// fasttext: length of the vectors
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    dim: u16,

    /// fasttext: rows that word n-grams share; the file has 4 × dim × (words + buckets) bytes
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..1 << 31))]
    buckets: u32,

    /// fasttext: words in an n-gram, at most
    #[arg(long, value_name = "N", default_value_t = 2)]
    word_ngrams: u8,

    /// fasttext: words that occur less often have no row of their own
    #[arg(long, value_name = "N", default_value_t = 2)]
    min_count: u64,

    /// Step length [default: 5 for linear, 0.1 for fasttext]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f32>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum ModelKind {
    /// Hashed words and pairs of words, one weight each
    Linear,
    /// A supervised fastText .bin with the labels __label__pos and __label__neg
    Fasttext,
}

fn share(text: &str) -> std::result::Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| format!("expected a number from 0 to less than 1, found {text:?}"))
}

/// What training makes: the model's bytes and what is known of its scores.
struct Trained {
    bytes: Vec<u8>,
    calibration: Calibration,
}

pub(crate) fn execute(command: &TrainClassifierCommand) -> Result<Exit> {
    let start = Instant::now();
    let (options, stream) = (&command.options, &command.stream);
    if !stream.inputs.is_empty() {
        return Err(Failure::new("train-classifier takes its documents from --pos and --neg")
            .with_hint("say --pos or --neg before each list of inputs"));
    }
    let (trained, report) = match options.to {
        ModelKind::Linear => options.train_linear(stream)?,
        ModelKind::Fasttext => options.train_fasttext(stream)?,
    };
    write_atomically(&options.output, &trained.bytes)?;
    if options.to == ModelKind::Fasttext {
        let json = serde_json::to_string_pretty(&trained.calibration).expect("plain data");
        write_atomically(&calibration_path(&options.output), format!("{json}\n").as_bytes())?;
    }
    let summary = Summary {
        command: "train-classifier",
        parameters: json!({ "input": stream, "options": parameters(options) }),
        report,
        extras: vec![extra(&trained.calibration)],
        seconds: start.elapsed().as_secs_f64(),
        usage: usage(),
    };
    summary.publish(stream, &[])
}

impl ClassifierOptions {
    fn train_linear(&self, stream: &StreamOptions) -> Result<(Trained, Report)> {
        let defaults = TrainOptions::default();
        let mut trainer = Trainer::new(TrainOptions {
            bits: self.bits,
            epochs: self.epochs.unwrap_or(defaults.epochs),
            learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
            held_out: self.held_out,
            seed: self.seed,
            ..defaults
        })?;
        let hasher = Hasher(trainer.options().clone());
        let mut add = |is_positive: bool, inputs: &[PathBuf]| {
            let mut gate = Collect::new(|features: Vec<u32>| trainer.add(&features, is_positive));
            Scan::of("train-classifier", &of_inputs(stream, inputs))?.run(&hasher, &mut gate)
        };
        let mut report = add(true, &self.pos)?;
        report.append(add(false, &self.neg)?);
        let model = trainer.finish()?;
        let calibration = model.about().calibration.clone();
        Ok((Trained { bytes: model.to_bytes(), calibration }, report))
    }

    fn train_fasttext(&self, stream: &StreamOptions) -> Result<(Trained, Report)> {
        let mut texts: [Vec<String>; 2] = Default::default();
        let [negatives, positives] = &mut texts;
        let scan = |texts: &mut Vec<String>, inputs: &[PathBuf]| {
            let mut gate = Collect::new(|text| texts.push(text));
            Scan::of("train-classifier", &of_inputs(stream, inputs))?.run(&Copier, &mut gate)
        };
        let mut report = scan(positives, &self.pos)?;
        report.append(scan(negatives, &self.neg)?);
        let count = |texts: &[String]| texts.len() as u64;
        if positives.is_empty() || negatives.is_empty() {
            let (positives, negatives) = (count(positives), count(negatives));
            return Err(QualityError::OneKind { positives, negatives }.into());
        }
        let all = texts.iter().enumerate().flat_map(|(kind, texts)| {
            texts.iter().zip(0u64..).map(move |(text, ordinal)| (kind, ordinal, text.as_str()))
        });
        let (held_out, training): (Vec<_>, Vec<_>) =
            all.partition(|(kind, ordinal, _)| is_held_out(*ordinal, *kind == 1, self.seed, self.held_out));
        let training: Vec<(usize, &str)> = training.into_iter().map(|(kind, _, text)| (kind, text)).collect();
        let defaults = FastTextOptions::default();
        let options = FastTextOptions {
            dim: usize::from(self.dim),
            lr: self.learning_rate.unwrap_or(defaults.lr),
            epochs: self.epochs.map_or(defaults.epochs, |n| n as usize),
            word_ngrams: usize::from(self.word_ngrams),
            buckets: self.buckets as usize,
            min_count: self.min_count,
            seed: self.seed,
        };
        let bytes = fasttext::train(&training, &["neg", "pos"], &options).map_err(QualityError::from)?;
        let scorer = Scorer::read(&bytes, Some("pos"), Newlines::Space)?;
        let mut scratch = ScoreScratch::default();
        let scores: Vec<(f32, bool)> =
            held_out.iter().map(|(kind, _, text)| (scorer.score(text, &mut scratch), *kind == 1)).collect();
        Ok((Trained { bytes, calibration: Calibration::measure(&scores) }, report))
    }
}

fn of_inputs(stream: &StreamOptions, inputs: &[PathBuf]) -> StreamOptions {
    StreamOptions { inputs: inputs.to_vec(), ..stream.clone() }
}

/// Hashes texts on any thread.
struct Hasher(TrainOptions);

impl Mapper for Hasher {
    type Work = Vec<u32>;
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, (): &mut (), _: &mut Counters) -> Work<Vec<u32>> {
        let mut features = Vec::new();
        hash_features(doc.text(), &self.0, &mut features);
        Work::Pending(features)
    }
}

/// Hands texts over.
struct Copier;

impl Mapper for Copier {
    type Work = String;
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, (): &mut (), _: &mut Counters) -> Work<String> {
        Work::Pending(doc.text().to_owned())
    }
}

/// Takes what a mapper makes, in input order.
struct Collect<W, F: FnMut(W)>(F, PhantomData<fn(W)>);

impl<W, F: FnMut(W)> Collect<W, F> {
    fn new(take: F) -> Self {
        Self(take, PhantomData)
    }
}

impl<W: 'static, F: FnMut(W) + Send> Gate for Collect<W, F> {
    type Work = W;

    fn admit(&mut self, _: &mut Document<'_>, work: W) -> curate_core::Result<Verdict> {
        (self.0)(work);
        Ok(Verdict::Keep)
    }
}

/// What the model is worth, for people and programs.
fn extra(calibration: &Calibration) -> Extra {
    let held_out = calibration.positives + calibration.negatives;
    let mut lines = Vec::new();
    match calibration.auc {
        Some(auc) => lines.push(format!("AUC {auc:.4} on {} held-out documents", thousands(held_out))),
        None => lines.push("nothing to calibrate on: one kind of document has no held-out part".to_owned()),
    }
    if !calibration.deciles.is_empty() {
        lines.push("decile  mean score  share positive".to_owned());
    }
    for (i, decile) in calibration.deciles.iter().enumerate() {
        lines.push(format!("{:>6}  {:>10.4}  {:>14.4}", i + 1, decile.mean_score, decile.positive));
    }
    let top = |percent| calibration.threshold_of_top(percent).map(|score| format!("{percent} %: {score:.4}"));
    let tops: Vec<String> = [1.0, 5.0, 10.0, 20.0, 50.0].into_iter().filter_map(top).collect();
    if !tops.is_empty() {
        lines.push(format!("scores that the best of the pool reach: {}", tops.join(", ")));
    }
    Extra { name: "calibration", value: parameters(calibration), lines }
}
