//! Running a chain of stages over documents: what every document command and `curate run` share.

use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use curate_clean::Cleaner;
use curate_core::{Codec, RunOptions, Stage};
use curate_dedup::{DedupGate, DedupMapper};
use curate_io::{DocumentSink, DropLog, DropLogStyle, InputOptions, Inputs, Output, Records, resolve};
use curate_tokenize::{CountMapper, EncodeMapper, Tokenizer, WordCounter};
use serde_json::Value;

use crate::cli::StreamOptions;
use crate::commands::tokenize::TokenEnd;
use crate::failure::{Exit, Result};
use crate::summary::{Extra, Summary};
use crate::ui::{self, ProgressLine};
use crate::usage::usage;

/// A stage that is ready to run, with the logs of what it drops.
pub(crate) struct Link {
    pub(crate) kind: Kind,
    pub(crate) logs: Vec<(PathBuf, DropLogStyle)>,
    /// The options that made it, for the report.
    pub(crate) parameters: Value,
}

/// The stages there are.
pub(crate) enum Kind {
    Clean(Box<Cleaner>),
    Dedup(DedupMapper, Box<DedupGate>),
    Tokenize(Box<Tokenizer>, Box<TokenEnd>),
    CountWords(Box<WordCounter>),
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Clean(_) => "clean",
            Self::Dedup(..) => "dedup",
            Self::Tokenize(..) => "tokenize",
            Self::CountWords(_) => "count_words",
        }
    }

    fn stage(&mut self) -> Stage<'_> {
        let name = self.name();
        match self {
            Self::Clean(cleaner) => Stage::filter(name, &**cleaner),
            Self::Dedup(mapper, gate) => Stage::gated(name, &*mapper, &mut **gate),
            Self::Tokenize(tokenizer, end) => Stage::gated(name, EncodeMapper::new(tokenizer), &mut **end),
            Self::CountWords(counter) => Stage::filter(name, CountMapper::new(counter)),
        }
    }
}

/// Where a chain's documents go.
pub(crate) enum Ending {
    /// To stdout (`None`) or a file, as JSON Lines.
    Documents(Option<PathBuf>),
    /// Into the gate of the last stage.
    Gate,
}

/// A chain about to run.
pub(crate) struct Chain<'c> {
    /// What it is called in the report.
    pub(crate) command: &'c str,
    pub(crate) links: Vec<Link>,
    pub(crate) ending: Ending,
    pub(crate) stream: &'c StreamOptions,
    /// Write records anew with the fields of the document schema.
    pub(crate) canonical: bool,
}

impl Chain<'_> {
    /// Runs the chain; `finish` turns the last gate into files before the report is made and may add to it.
    pub(crate) fn run(mut self, finish: impl FnOnce(&mut Vec<Link>) -> Result<Vec<Extra>>) -> Result<Exit> {
        let start = Instant::now();
        let stream = self.stream;
        let mut inputs = self.inputs()?;
        let codec = self.codec()?;
        let mut sink = self.sink()?;
        let options = RunOptions {
            on_error: stream.on_error.into(),
            ..RunOptions::new(stream.threads.map_or_else(default_threads, usize::from))
        };
        let line =
            ProgressLine::start(stream.voice.progress, stream.voice.quiet, self.command, inputs.progress());
        let stages = self.links.iter_mut().map(|link| link.kind.stage()).collect();
        let report = curate_core::run(&mut inputs, &codec as &dyn Codec, stages, &mut sink, &options)?;
        sink.finish()?;
        let extras = finish(&mut self.links)?;
        drop(line);
        let parameters = self.links.iter().map(|l| (l.kind.name(), &l.parameters));
        let summary = Summary {
            command: self.command,
            parameters: summary_parameters(stream, parameters),
            report,
            extras,
            seconds: start.elapsed().as_secs_f64(),
            usage: usage(),
        };
        summary.publish(stream, &self.links)
    }

    fn inputs(&self) -> Result<Inputs> {
        let stream = self.stream;
        let format = stream.format.map(Into::into);
        let resolved = resolve(&stream.inputs, format)?;
        if let (Some(first), false) = (resolved.skipped.first(), stream.voice.quiet) {
            ui::warn(&format!(
                "{} files of unknown kind are not read (first: {}); --format text reads any file",
                resolved.skipped.len(),
                first.display()
            ));
        }
        let options = InputOptions {
            format,
            block_bytes: stream.block_size,
            max_record_bytes: stream.max_record_bytes,
            ..InputOptions::default()
        };
        Ok(Inputs::new(resolved.files, options))
    }

    fn codec(&self) -> Result<Records> {
        let codec = Records::new(&self.stream.text_field, &self.stream.id_field)?;
        Ok(if self.canonical { codec.canonical() } else { codec })
    }

    fn sink(&self) -> Result<DocumentSink> {
        let mut sink = DocumentSink::new(match &self.ending {
            Ending::Documents(path) => Some(Output::create(path.as_deref())?),
            Ending::Gate => None,
        });
        for (i, link) in self.links.iter().enumerate() {
            for (path, style) in &link.logs {
                sink.add_log(i, DropLog::create(path, *style, link.kind.name())?);
            }
        }
        Ok(sink)
    }
}

/// What was asked for: the input options, and each stage's own.
fn summary_parameters<'l>(
    stream: &StreamOptions,
    links: impl Iterator<Item = (&'static str, &'l Value)>,
) -> Value {
    let stages: Vec<Value> =
        links.map(|(name, p)| serde_json::json!({ "stage": name, "options": p })).collect();
    serde_json::json!({ "input": stream, "stages": stages })
}

/// As many workers as the process may use cores.
pub(crate) fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Options as they appear in reports.
pub(crate) fn parameters(options: &impl serde::Serialize) -> Value {
    serde_json::to_value(options).expect("options are plain data")
}
