//! `curate clean --annotate`: statistics and rules as dolma attributes; every document passes.
//!
//! `DIR` gets `attributes/RECIPE/NAME.jsonl.gz` for each input, in the order of its documents, so that it mirrors a
//! `documents/` that the input is; a file gets the rows of all inputs. A row is
//! `{"id":…,"attributes":{"curate__STATISTIC":[[0,LENGTH,VALUE]],…,"curate__clean__REASON":[[0,LENGTH,1.0]]}}`: the
//! statistics, and every rule that fires, over the whole text of LENGTH code points. That is what dolma's mixer reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use curate_clean::{Cleaner, EMPTY, statistics, values};
use curate_core::{
    Codec, Counters, Document, Dropped, Malformed, Mapper, Never, Report, Sink, Stage, Value as Fact,
    Verdict, Work,
};
use curate_io::{Destination, DocumentSink, Inputs, OutputFormat, Records, append_json_string};

use crate::chain::{Ending, Kind, Link, Pass, View, document_sink, find_inputs, summary_parameters};
use crate::cli::{OutputOptions, StreamOptions};
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Result};
use crate::summary::{Extra, Summary};
use crate::usage::usage;

/// Where the runner is told that a document is done with. The runner hands documents one by one only to the sink of
/// dropped ones, so that a pass which drops nothing "drops" each with its row as the proof.
const ANNOTATED: &str = "annotated";

pub(crate) fn run(
    cleaner: Cleaner,
    path: &Path,
    parameters: serde_json::Value,
    stream: &StreamOptions,
    output: &OutputOptions,
) -> Result<Exit> {
    let start = std::time::Instant::now();
    let resolved = find_inputs(stream)?;
    let read = ReadOptions::default();
    let inputs = Inputs::new(resolved.files, read.input_options(stream)?);
    let codec = read.codec(stream, false)?;
    let attributes = attribute_destination(path, cleaner.recipe().name(), resolved.roots.clone());
    let documents = document_sink(&Ending::Documents(output.clone()), resolved.roots, &mut [])?;
    let mut sink = AnnotateSink {
        documents,
        attributes: DocumentSink::to(attributes, &[])?,
        codec: codec.clone(),
        line: Vec::new(),
        bytes_out: 0,
    };
    let mut links = vec![Link {
        kind: Kind::View(Box::new(AnnotateView(cleaner))),
        covers: 1,
        logs: Vec::new(),
        parameters,
    }];
    let progress = inputs.progress();
    let report = Pass { command: "clean", stream, progress }.run(inputs, &codec, &mut links, &mut sink)?;
    let bytes_out = sink.bytes_out;
    sink.documents.finish()?;
    sink.attributes.finish()?;
    let summary = Summary {
        command: "clean",
        parameters: summary_parameters(stream, &links),
        report: all_passed(report, bytes_out),
        extras: Vec::new(),
        seconds: start.elapsed().as_secs_f64(),
        usage: usage(),
    };
    // No rule is judged by what it dropped: nothing was.
    summary.publish(stream, &[])
}

/// A name that ends in `/`, or a directory, gets a file for each input.
fn attribute_destination(path: &Path, recipe: &str, roots: Vec<PathBuf>) -> Destination {
    if !path.is_dir() && !path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Destination::Stream(Some(path.to_owned()));
    }
    let dir = path.join("attributes").join(recipe);
    Destination::Directory { dir, roots, to: OutputFormat::JsonlGz, shard_bytes: None }
}

/// What the runner counted as dropped has passed.
fn all_passed(mut report: Report, bytes_out: u64) -> Report {
    for stage in &mut report.stages {
        stage.kept = stage.read;
        stage.text_bytes_out = stage.text_bytes_in;
        stage.dropped.clear();
        stage.samples.clear();
        report.kept = stage.kept;
    }
    report.text_bytes_out = report.text_bytes_in;
    report.bytes_out = bytes_out;
    report
}

struct AnnotateView(Cleaner);

impl View for AnnotateView {
    fn name(&self) -> &'static str {
        "clean"
    }

    fn stage(&mut self) -> Stage<'_> {
        Stage::filter("clean", &*self)
    }

    fn reasons(&self) -> Vec<&str> {
        self.0.reasons()
    }

    fn finish(&mut self) -> Result<Vec<Extra>> {
        Ok(Vec::new())
    }
}

impl Mapper for AnnotateView {
    type Work = Never;
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, (): &mut (), counters: &mut Counters) -> Work<Never> {
        let row = attribute_row(&self.0, doc.id(), doc.text(), counters);
        let proof = vec![("row", Fact::Text(row))];
        Work::Decided(Verdict::Drop(Dropped { reason: ANNOTATED.into(), proof }))
    }
}

fn attribute_row(cleaner: &Cleaner, id: &str, text: &str, counters: &mut Counters) -> String {
    let length = text.chars().count();
    let mut row = Vec::with_capacity(4096);
    row.extend_from_slice(b"{\"id\":");
    append_json_string(&mut row, id);
    row.extend_from_slice(b",\"attributes\":{");
    let mut add = |name: &str, value: f64| {
        let comma = if row.ends_with(b"{") { "" } else { "," };
        // JSON has no infinities; a span must have a number.
        let value = if value.is_finite() { value } else { 0.0 };
        row.extend_from_slice(format!("{comma}\"curate__{name}\":[[0,{length},{value:?}]]").as_bytes());
    };
    let measurements = cleaner.measure_all(text);
    statistics().iter().zip(values(&measurements)).for_each(|(statistic, value)| add(statistic.name, value));
    let mut fired: Vec<String> = Vec::new();
    if measurements.is_blank() {
        fired.push(EMPTY.to_owned());
    }
    fired.extend(cleaner.explain(text).into_iter().filter(|rule| rule.fired).map(|rule| rule.reason));
    let mut seen: Vec<&str> = Vec::new();
    for reason in &fired {
        if !seen.contains(&reason.as_str()) {
            seen.push(reason);
            add(&format!("clean__{reason}"), 1.0);
        }
    }
    counters.add("would_be_dropped", u64::from(!fired.is_empty()));
    row.extend_from_slice(b"}}\n");
    String::from_utf8(row).expect("made of strings")
}

/// Writes each document as it came, and its row.
struct AnnotateSink {
    documents: DocumentSink,
    attributes: DocumentSink,
    codec: Records,
    line: Vec<u8>,
    bytes_out: u64,
}

impl Sink for AnnotateSink {
    fn wants_documents(&self) -> bool {
        // They come as dropped ones; only malformed records that pass come as kept ones.
        true
    }

    fn begin_block(&mut self, origin: &Arc<str>) -> curate_core::Result<()> {
        self.documents.begin_block(origin)?;
        self.attributes.begin_block(origin)
    }

    fn keep(&mut self, encoded: &[u8]) -> curate_core::Result<()> {
        self.bytes_out += encoded.len() as u64;
        self.documents.keep(encoded)
    }

    fn dropped(&mut self, _: usize, doc: &Document<'_>, dropped: &Dropped) -> curate_core::Result<()> {
        self.line.clear();
        self.codec.write(doc, &mut self.line);
        self.bytes_out += self.line.len() as u64;
        self.documents.keep(&self.line)?;
        for (_, fact) in &dropped.proof {
            if let Fact::Text(row) = fact {
                self.attributes.keep(row.as_bytes())?;
            }
        }
        Ok(())
    }

    fn malformed(&mut self, raw: &[u8], malformed: &Malformed) -> curate_core::Result<()> {
        self.documents.malformed(raw, malformed)
    }
}
