//! Running a chain of stages over documents: what every document command and `curate run` share.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use curate_clean::Cleaner;
use curate_clean::decontaminate::Decontaminator;
use curate_clean::quality::ScoreStage;
use curate_core::{Document, Report, RunOptions, Sink, Source, Stage};
use curate_dedup::{
    BloomGate, BloomMapper, DecidedGate, DecidedMapper, DedupGate, DedupMapper, DocumentCounter, GatherGate,
    GatherMapper, KeyGate, KeyMapper, RepeatFinder, RepeatMapper, SubstringGate, SubstringMapper, UnitGate,
    UnitMapper,
};
use curate_io::{DocumentSink, DropLog, DropLogStyle, Inputs, Progress, Records, Resolved, resolve};
use curate_tokenize::{CountMapper, WordCounter};
use serde_json::Value;

use crate::cli::{OutputOptions, StreamOptions};
use crate::commands::clean::guards::Guard;
use crate::commands::decontaminate::{self, LeakGate};
use crate::commands::dedup::{substring, two_pass};
use crate::commands::read::ReadOptions;
use crate::commands::tokenize::{Encoder, TokenEnd};
use crate::failure::{Exit, Result};
use crate::signals::Watched;
use crate::summary::{Extra, Summary};
use crate::ui::{self, ProgressLine};
use crate::usage::usage;

/// A stage that is ready to run, with the logs of what it drops.
pub(crate) struct Link {
    pub(crate) kind: Kind,
    pub(crate) logs: Vec<(PathBuf, DropLogStyle)>,
    /// How many links, from this one on, write to its logs.
    pub(crate) covers: usize,
    /// The options that made it, for the report.
    pub(crate) parameters: Value,
}

/// The stages there are.
pub(crate) enum Kind {
    Clean(Box<Cleaner>),
    /// What stands around the rules of `clean`.
    Guard(Box<Guard>),
    Score(Box<ScoreStage>),
    Dedup(DedupMapper, Box<DedupGate>),
    /// Deduplication by a key, by lines or paragraphs, and by a Bloom filter; each with its name.
    Key(KeyMapper<OfDocument<Option<String>>>, Box<KeyGate>),
    Units(&'static str, UnitMapper<OfDocument<String>>, Box<UnitGate>),
    Bloom(Box<BloomGate>),
    /// Numbers the documents of a first pass.
    Number(DocumentCounter),
    /// The two passes of a deduplication that must see everything first.
    Gather(&'static str, GatherMapper, Box<GatherGate>),
    Decided(&'static str, Box<DecidedGate>),
    /// The two passes over repeated substrings; the last one may have a file for the proofs.
    FindRepeats(RepeatMapper, Box<RepeatFinder>),
    Substrings(Box<SubstringGate>, Option<PathBuf>),
    Decontaminate(Box<Decontaminator>, Box<LeakGate>),
    Tokenize(Box<Encoder>, Box<TokenEnd>),
    CountWords(Box<WordCounter>),
    /// One that only its command knows.
    View(Box<dyn View>),
}

/// A stage that a command makes for itself.
pub(crate) trait View {
    /// What it is called in the report.
    fn name(&self) -> &'static str;

    fn stage(&mut self) -> Stage<'_>;

    /// The reasons for which it may drop a document.
    fn reasons(&self) -> Vec<&str>;

    /// Completes what it writes beside the documents, after the last one.
    fn finish(&mut self) -> Result<Vec<Extra>>;
}

/// Something that a document is asked for.
pub(crate) type OfDocument<T> = Box<dyn Fn(&Document<'_>) -> T + Sync + Send>;

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Clean(_) => "clean",
            Self::Guard(guard) => guard.name(),
            Self::Score(_) => "score",
            Self::Dedup(..) => "dedup",
            Self::Key(..) => "dedup_key",
            Self::Units(name, ..) | Self::Gather(name, ..) | Self::Decided(name, _) => name,
            Self::Bloom(..) => "dedup_bloom",
            Self::FindRepeats(..) | Self::Substrings(..) => substring::NAME,
            Self::Number(_) => "dedup_number",
            Self::Decontaminate(..) => "decontaminate",
            Self::Tokenize(..) => "tokenize",
            Self::CountWords(_) => "count_words",
            Self::View(view) => view.name(),
        }
    }

    /// Whether it looks at each document alone, so that a run can be resumed behind it.
    pub(crate) fn is_stateless(&self) -> bool {
        matches!(self, Self::Clean(_) | Self::Guard(_) | Self::Score(_))
    }

    pub(crate) fn is_guard(&self) -> bool {
        matches!(self, Self::Guard(_))
    }

    /// The reasons for which `clean` may drop a document; none for other stages.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        match self {
            Self::Clean(cleaner) => cleaner.reasons(),
            Self::View(view) => view.reasons(),
            _ => Vec::new(),
        }
    }

    fn stage(&mut self) -> Stage<'_> {
        let name = self.name();
        match self {
            Self::Clean(cleaner) => Stage::filter(name, &**cleaner),
            Self::Guard(guard) => guard.stage(),
            Self::Score(stage) => Stage::filter(name, &**stage),
            Self::Dedup(mapper, gate) => Stage::gated(name, &*mapper, &mut **gate),
            Self::Key(mapper, gate) => Stage::gated(name, &*mapper, &mut **gate),
            Self::Units(_, mapper, gate) => Stage::gated(name, &*mapper, &mut **gate),
            Self::Bloom(gate) => Stage::gated(name, BloomMapper, &mut **gate),
            Self::Number(counter) => Stage::gated(name, counter.clone(), counter),
            Self::Gather(_, mapper, gate) => Stage::gated(name, &*mapper, &mut **gate),
            Self::Decided(_, gate) => Stage::gated(name, DecidedMapper, &mut **gate),
            Self::FindRepeats(mapper, finder) => Stage::gated(name, &*mapper, &mut **finder),
            Self::Substrings(gate, _) => Stage::gated(name, SubstringMapper, &mut **gate),
            Self::Decontaminate(mapper, gate) => Stage::gated(name, &**mapper, &mut **gate),
            Self::Tokenize(encoder, end) => Stage::gated(name, encoder.mapper(), &mut **end),
            Self::CountWords(counter) => Stage::filter(name, CountMapper::new(counter)),
            Self::View(view) => view.stage(),
        }
    }
}

/// Where a chain's documents go.
pub(crate) enum Ending {
    /// To stdout, a file or a directory.
    Documents(OutputOptions),
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
    /// How inputs that are not records yet become documents.
    pub(crate) read: ReadOptions,
    /// Write records anew with the fields of the document schema.
    pub(crate) canonical: bool,
}

impl Chain<'_> {
    /// Runs the chain; `finish` turns the last gate into files before the report is made and may add to it.
    pub(crate) fn run(self, finish: impl FnOnce(&mut Vec<Link>) -> Result<Vec<Extra>>) -> Result<Exit> {
        let start = Instant::now();
        let resolved = find_inputs(self.stream)?;
        self.run_over(start, resolved, finish)
    }

    /// The same for inputs that have been found, by a command that began at `start`.
    pub(crate) fn run_over(
        mut self,
        start: Instant,
        resolved: Resolved,
        finish: impl FnOnce(&mut Vec<Link>) -> Result<Vec<Extra>>,
    ) -> Result<Exit> {
        let inputs = Inputs::new(resolved.files, self.read.input_options(self.stream)?);
        let mut sink = document_sink(&self.ending, resolved.roots, &mut self.links)?;
        let codec = self.read.codec(self.stream, self.canonical)?;
        let progress = inputs.progress();
        let pass = Pass { command: self.command, stream: self.stream, progress };
        let report = pass.run(inputs, &codec, &mut self.links, &mut sink)?;
        decontaminate::check_removed(&mut self.links, &report)?;
        two_pass::check(&self.links)?;
        sink.finish()?;
        let extras = finish(&mut self.links)?;
        let summary = Summary {
            command: self.command,
            parameters: summary_parameters(self.stream, &self.links),
            report,
            extras,
            seconds: start.elapsed().as_secs_f64(),
            usage: usage(),
        };
        summary.publish(self.stream, &self.links)
    }
}

/// The files that the inputs stand for; what is left out is said.
pub(crate) fn find_inputs(stream: &StreamOptions) -> Result<Resolved> {
    let resolved = resolve(&stream.inputs, stream.format.map(Into::into))?;
    if let (Some(first), false) = (resolved.skipped.first(), stream.voice.quiet) {
        ui::warn(&format!(
            "{} files of unknown kind are not read (first: {}); --format text reads any file",
            resolved.skipped.len(),
            first.display()
        ));
    }
    Ok(resolved)
}

/// The sink at the end of a chain; opens the logs of its links. `roots` are the directories that inputs came from.
pub(crate) fn document_sink(
    ending: &Ending,
    roots: Vec<PathBuf>,
    links: &mut [Link],
) -> Result<DocumentSink> {
    let names: Vec<String> = links.iter().map(|link| link.kind.name().to_owned()).collect();
    let mut sink = match ending {
        Ending::Documents(output) => DocumentSink::to(output.destination(roots)?, &names)?,
        Ending::Gate => DocumentSink::nowhere(),
    };
    for (i, link) in links.iter_mut().enumerate() {
        for (path, style) in &link.logs {
            sink.add_log(i..i + link.covers, DropLog::create(path, *style, link.kind.name())?);
        }
        if let Kind::Substrings(gate, Some(path)) = &mut link.kind {
            gate.set_log(substring::open_spans(path)?);
        }
    }
    Ok(sink)
}

/// One pass of documents through stages, with progress, signals and a clock.
pub(crate) struct Pass<'c> {
    pub(crate) command: &'c str,
    pub(crate) stream: &'c StreamOptions,
    pub(crate) progress: Arc<Progress>,
}

impl Pass<'_> {
    pub(crate) fn run(
        &self,
        source: impl Source + Send + 'static,
        codec: &Records,
        links: &mut [Link],
        sink: &mut dyn Sink,
    ) -> Result<Report> {
        let options = RunOptions {
            on_error: self.stream.on_error.into(),
            clock: Some(monotonic),
            ..RunOptions::new(self.stream.threads.map_or_else(default_threads, usize::from))
        };
        let voice = &self.stream.voice;
        let _line =
            ProgressLine::start(voice.progress, voice.quiet, self.command, Arc::clone(&self.progress));
        let stages = links.iter_mut().map(|link| link.kind.stage()).collect();
        let mut source = Watched::new(source);
        Ok(curate_core::run(&mut source, codec, stages, sink, &options)?)
    }
}

/// Time since the first call.
fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// What was asked for: the input options, and each stage's own.
pub(crate) fn summary_parameters(stream: &StreamOptions, links: &[Link]) -> Value {
    let stage = |link: &Link| serde_json::json!({ "stage": link.kind.name(), "options": &link.parameters });
    let stages: Vec<Value> = links.iter().map(stage).collect();
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
