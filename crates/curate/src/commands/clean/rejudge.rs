//! `curate clean --from-stats`: other thresholds, or another recipe, without measuring again.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use curate_clean::{CleanScratch, Cleaner, Judge, Normaliser, Recipe, statistics};
use curate_core::{Counters, Document, Gate, Mapper, Report, Sink, Stage, StageReport, Verdict, Work};
use curate_io::{Destination, DocumentSink, NumberLayout, NumberReader, append_json_string};
use serde_json::{Value, json};

use super::stats::{FORMULAS, ID, NORMALISE, STOP_WORDS, WORDS, words_for};
use crate::chain::{Kind, Link, View};
use crate::cli::{OutputOptions, StreamOptions};
use crate::failure::{Exit, Failure, Result};
use crate::summary::{Extra, Summary};
use crate::usage::usage;

/// A table of statistics, with the rules that are asked of its rows.
pub(crate) struct Rows {
    path: PathBuf,
    reader: NumberReader,
    judge: Judge,
    /// The number that each column has among [`statistics`].
    places: Vec<usize>,
    /// The values of a row; those that no rule asks for stay not-a-number.
    values: Vec<f64>,
}

impl Rows {
    /// # Errors
    /// A table that does not hold what the recipe's rules ask for, as they would have measured it.
    pub(crate) fn open(path: &Path, recipe: &Recipe) -> Result<Self> {
        let judge = Judge::new(recipe)?;
        let needs = judge.needs().to_vec();
        let reader = NumberReader::open(path, |layout| {
            layout.texts.retain(|name| name == "id");
            layout.numbers.retain(|name| needs.contains(&name.as_str()));
        })?;
        check(path, reader.layout(), recipe, &needs)?;
        let place = |name: &String| statistics().iter().position(|s| s.name == name);
        let places = reader.layout().numbers.iter().filter_map(place).collect();
        let values = vec![f64::NAN; statistics().len()];
        Ok(Self { path: path.to_owned(), reader, judge, places, values })
    }

    /// Goes to the next row; `false` if there is none.
    fn advance(&mut self) -> curate_core::Result<bool> {
        if !self.reader.advance()? {
            return Ok(false);
        }
        for (place, value) in self.places.iter().zip(self.reader.numbers()) {
            self.values[*place] = *value;
        }
        Ok(true)
    }

    fn id(&self) -> &str {
        self.reader.text(ID).unwrap_or("")
    }

    fn verdict(&self) -> Verdict {
        self.judge.judge(&self.values)
    }
}

/// Refuses a table whose numbers are not those that the recipe would have measured.
fn check(path: &Path, layout: &NumberLayout, recipe: &Recipe, needs: &[&str]) -> Result<()> {
    let (path, name) = (path.display(), recipe.name());
    let refuse =
        |message: String| Failure::new(format!("{path} cannot be judged by recipe {name}: {message}"));
    let measure = "measure anew: curate clean --recipe NAME --stats FILE";
    if layout.texts != ["id"] || !layout.facts.contains_key(FORMULAS) {
        return Err(Failure::new(format!("{path} holds no statistics of documents"))
            .with_hint("curate clean --stats FILE writes them"));
    }
    let words = layout.facts.get(WORDS).and_then(Value::as_str).unwrap_or("unknown");
    if words != recipe.words().name() {
        let message = format!("its words are {words}, the recipe's are {}", recipe.words().name());
        return Err(refuse(message).with_hint(measure));
    }
    if needs.contains(&"recipe_stop_words_distinct")
        && layout.facts.get(STOP_WORDS) != Some(&recipe.stop_words().into())
    {
        let message = "its stop words are others than the recipe's".to_owned();
        return Err(refuse(message).with_hint(measure));
    }
    if layout.facts.get(NORMALISE) != Some(&Value::Bool(recipe.normalise())) {
        let (table, recipe) = match recipe.normalise() {
            true => ("as they stood", "normalises them first"),
            false => ("after normalising", "takes them as they stand"),
        };
        return Err(
            refuse(format!("its texts were measured {table}, the recipe {recipe}")).with_hint(measure)
        );
    }
    for need in needs {
        let formula = statistics().iter().find(|s| s.name == *need).map(|s| s.formula);
        let recorded = layout.facts[FORMULAS].get(need).and_then(Value::as_str);
        if recorded.is_none() || !layout.numbers.iter().any(|column| column == need) {
            return Err(refuse(format!("it does not hold the statistic `{need}`")).with_hint(measure));
        }
        if recorded != formula {
            let message =
                format!("`{need}` was something else when it was written, by another version of curate");
            return Err(refuse(message).with_hint(measure));
        }
    }
    Ok(())
}

/// Judges the rows alone: a line with id, verdict and proof for each.
pub(crate) fn judge_rows(
    mut rows: Rows,
    recipe: Recipe,
    parameters: Value,
    stream: &StreamOptions,
    output: &OutputOptions,
) -> Result<Exit> {
    let start = Instant::now();
    let destination = output.destination(Vec::new())?;
    if matches!(destination, Destination::Directory { .. }) {
        return Err(Failure::new("verdicts are one file, not one for each input").with_hint("name a file"));
    }
    let mut sink = DocumentSink::to(destination, &[])?;
    let mut stage = StageReport { name: "clean".to_owned(), ..StageReport::default() };
    let mut line = Vec::new();
    while rows.advance()? {
        let verdict = rows.verdict();
        stage.read += 1;
        match &verdict {
            Verdict::Keep => stage.kept += 1,
            Verdict::Drop(dropped) => *stage.dropped.entry(dropped.reason.to_string()).or_default() += 1,
        }
        verdict_line(&mut line, rows.id(), &verdict);
        sink.keep(&line)?;
    }
    sink.finish()?;
    let report = Report { read: stage.read, kept: stage.kept, stages: vec![stage], ..Report::default() };
    let link =
        Link { kind: Kind::Clean(Box::new(Cleaner::new(recipe)?)), covers: 1, logs: Vec::new(), parameters };
    let parameters =
        json!({ "input": &rows.path, "stages": [{ "stage": "clean", "options": &link.parameters }] });
    let seconds = start.elapsed().as_secs_f64();
    let summary =
        Summary { command: "clean", parameters, report, extras: Vec::new(), seconds, usage: usage() };
    summary.publish(stream, &[link])
}

/// `{"id":…,"verdict":"drop","reason":…,"rule":…,"value":…,"threshold":…}`
fn verdict_line(line: &mut Vec<u8>, id: &str, verdict: &Verdict) {
    line.clear();
    line.extend_from_slice(b"{\"id\":");
    append_json_string(line, id);
    line.extend_from_slice(b",\"verdict\":\"");
    line.extend_from_slice(words_for(verdict).0.as_bytes());
    line.push(b'"');
    if let Verdict::Drop(dropped) = verdict {
        line.extend_from_slice(b",\"reason\":");
        append_json_string(line, &dropped.reason);
        for (name, value) in &dropped.proof {
            let value = match value {
                curate_core::Value::Text(text) => json!(text),
                curate_core::Value::Number(number) => json!(number),
                curate_core::Value::Count(count) => json!(count),
            };
            line.extend_from_slice(format!(",\"{name}\":{value}").as_bytes());
        }
    }
    line.extend_from_slice(b"}\n");
}

/// The stage `clean` for documents whose statistics are in a table: the same output, without measuring.
///
/// Documents and rows are read side by side, in the order in which they were measured; rows of documents that have gone
/// since are passed over.
pub(crate) struct RejudgeView {
    normaliser: Normalising,
    gate: RowGate,
}

impl RejudgeView {
    pub(crate) fn new(rows: Rows, recipe: Recipe) -> Result<Self> {
        let normaliser = Normalising(recipe.normalise().then(Normaliser::new));
        let cleaner = Cleaner::new(recipe)?;
        let gate = RowGate { rows, passed_over: 0, cleaner, scratch: CleanScratch::default() };
        Ok(Self { normaliser, gate })
    }
}

impl View for RejudgeView {
    fn name(&self) -> &'static str {
        "clean"
    }

    fn stage(&mut self) -> Stage<'_> {
        Stage::gated("clean", &self.normaliser, &mut self.gate)
    }

    fn reasons(&self) -> Vec<&str> {
        self.gate.cleaner.reasons()
    }

    fn finish(&mut self) -> Result<Vec<Extra>> {
        while self.gate.rows.advance()? {
            self.gate.passed_over += 1;
        }
        let n = self.gate.passed_over;
        let lines =
            if n > 0 { vec![format!("{n} rows of statistics without a document")] } else { Vec::new() };
        Ok(vec![Extra { name: "rows_without_document", value: n.into(), lines }])
    }
}

struct Normalising(Option<Normaliser>);

impl Mapper for Normalising {
    type Work = ();
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, (): &mut (), counters: &mut Counters) -> Work<()> {
        if let Some(normaliser) = &self.0 {
            let (text, changes) = normaliser.normalise(doc.text());
            changes.count(counters);
            if let Cow::Owned(text) = text {
                doc.set_text(text);
            }
        }
        Work::Pending(())
    }
}

struct RowGate {
    rows: Rows,
    passed_over: u64,
    cleaner: Cleaner,
    scratch: CleanScratch,
}

impl Gate for RowGate {
    type Work = ();

    fn admit(&mut self, doc: &mut Document<'_>, (): ()) -> curate_core::Result<Verdict> {
        let first = self.rows.reader.rows() + 1;
        while self.rows.advance()? {
            if self.rows.id() == doc.id() {
                return Ok(match self.rows.verdict() {
                    Verdict::Keep => self.cleaner.edit_kept(doc, &mut self.scratch, &mut Counters::default()),
                    dropped => dropped,
                });
            }
            self.passed_over += 1;
        }
        Err(curate_core::Error::other(format!(
            "document {:?} is not in {}, from row {first} on: documents must come in the order in which they were measured",
            doc.id(),
            self.rows.path.display()
        )))
    }
}
