//! `curate score`: how much is a text like those one wants?

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use curate_clean::fasttext::Newlines;
use curate_clean::quality::{Calibration, ScoreStage, Scorer};
use curate_io::{DropLogStyle, FieldPath};
use serde::Serialize;

use crate::chain::{Chain, Ending, Kind, Link, parameters};
use crate::cli::{OutputOptions, StreamOptions};
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Failure, Result};

/// Score texts by a quality model, and drop those that score low
///
/// The score, 0 to 1, is written into a field of each record; everything else in the record stays byte for byte.
/// Models come from `curate train-classifier` or are fastText's (.bin, .ftz).
///
/// --keep-top takes its threshold from the model, not from the documents at hand: it is the score that this share of
/// the held-out negatives reached in training, the pool that one filters. For a fastText file the same is read from
/// MODEL.calibration.json beside it.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate score --model quality.cqm < clean.jsonl > scored.jsonl\n  curate score --model quality.cqm --keep-top 10% clean.jsonl.zst -o best.jsonl.zst\n  curate score --model dclm.bin --label hq --drop-below 0.018112 < clean.jsonl > best.jsonl"
)]
pub(crate) struct ScoreCommand {
    #[command(flatten)]
    stage: ScoreOptions,

    #[command(flatten)]
    stream: StreamOptions,

    #[command(flatten)]
    output: OutputOptions,
}

/// The options of the stage itself.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct ScoreOptions {
    /// The model: a file of train-classifier, or fastText's .bin or .ftz
    #[arg(long, value_name = "FILE")]
    model: PathBuf,

    /// Field that the score is written to; a dotted path reaches into objects
    #[arg(long, value_name = "PATH", default_value = "quality_score")]
    field: String,

    /// Label of a fastText model whose probability is the score [default: hq, pos, positive, good or 1, of two labels]
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,

    /// What line ends are to a fastText model
    #[arg(long, value_name = "WHAT", default_value = "space")]
    newlines: NewlinesName,

    /// Drop documents that score less than this
    #[arg(long, value_name = "SCORE", value_parser = unit)]
    drop_below: Option<f32>,

    /// Drop documents that score less than the best so many per cent of the model's held-out negatives
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "drop_below")]
    keep_top: Option<f64>,

    /// Write dropped documents here, each with its score and the threshold
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    rejects: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum NewlinesName {
    /// They separate words, as in DCLM
    Space,
    /// They vanish, as in datatrove
    Remove,
}

fn unit(text: &str) -> std::result::Result<f32, String> {
    let score = text.parse::<f32>().ok().filter(|score| (0.0..=1.0).contains(score));
    score.ok_or_else(|| format!("expected a score from 0 to 1, found {text:?}"))
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    let share = number.filter(|percent| (0.0..=100.0).contains(percent));
    share.ok_or_else(|| format!("expected a percentage from 0 to 100 such as 10%, found {text:?}"))
}

impl ScoreOptions {
    pub(crate) fn prepare(&self) -> Result<Link> {
        FieldPath::parse(&self.field)?;
        if ["text", "id"].contains(&self.field.as_str()) {
            return Err(Failure::new(format!("--field {} would replace the document's own", self.field))
                .with_hint("choose another name, such as quality_score or metadata.quality_score"));
        }
        let bytes = read_model(&self.model)?;
        let newlines = match self.newlines {
            NewlinesName::Space => Newlines::Space,
            NewlinesName::Remove => Newlines::Remove,
        };
        let in_file = |failure: Failure| failure.context(format!("cannot use {}", self.model.display()));
        let scorer =
            Scorer::read(&bytes, self.label.as_deref(), newlines).map_err(|e| in_file(Failure::from(e)))?;
        let drop_below = match self.keep_top {
            Some(percent) => Some(self.threshold_of_top(&scorer, percent)?),
            None => self.drop_below,
        };
        let mut parameters = parameters(self);
        parameters["threshold"] = serde_json::json!(drop_below);
        Ok(Link {
            kind: Kind::Score(Box::new(ScoreStage { scorer, field: self.field.clone(), drop_below })),
            logs: self.rejects.iter().map(|path| (path.clone(), DropLogStyle::Documents)).collect(),
            covers: 1,
            parameters,
        })
    }

    /// All that the stage's verdicts depend on: the options, and what stands in the model's files.
    pub(crate) fn fingerprint(&self) -> Result<serde_json::Value> {
        let key = |bytes: &[u8]| format!("{:032x}", xxhash_rust::xxh3::xxh3_128(bytes));
        let calibration = fs::read(calibration_path(&self.model)).unwrap_or_default();
        let files = [key(&read_model(&self.model)?), key(&calibration)];
        Ok(serde_json::json!({ "options": self, "files": files, "rejects": self.rejects.is_some() }))
    }

    fn threshold_of_top(&self, scorer: &Scorer, percent: f64) -> Result<f32> {
        let beside = match scorer.calibration() {
            Some(_) => None,
            None => read_calibration(&calibration_path(&self.model))?,
        };
        let calibration = scorer.calibration().or(beside.as_ref());
        calibration.and_then(|calibration| calibration.threshold_of_top(percent)).ok_or_else(|| {
            let message = format!("--keep-top: {} has no calibration", self.model.display());
            Failure::new(message).with_hint(
                "train with --held-out above 0, or give the threshold itself with --drop-below SCORE",
            )
        })
    }
}

fn read_model(path: &Path) -> Result<Vec<u8>> {
    fs::read(path)
        .map_err(|e| Failure::new(e.to_string()).context(format!("cannot read the model {}", path.display())))
}

/// Where the calibration of a fastText model is kept, whose own format has no place for it.
pub(crate) fn calibration_path(model: &Path) -> PathBuf {
    let mut name = model.as_os_str().to_owned();
    name.push(".calibration.json");
    name.into()
}

fn read_calibration(path: &Path) -> Result<Option<Calibration>> {
    let Ok(bytes) = fs::read(path) else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| Failure::new(e.to_string()).context(format!("{} is no calibration", path.display())))
}

pub(crate) fn execute(command: &ScoreCommand) -> Result<Exit> {
    let chain = Chain {
        command: "score",
        links: vec![command.stage.prepare()?],
        ending: Ending::Documents(command.output.clone()),
        stream: &command.stream,
        read: ReadOptions::default(),
        canonical: false,
    };
    chain.run(|_| Ok(Vec::new()))
}
