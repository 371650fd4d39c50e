//! `curate clean --stats`: every statistic of every document, in a table of its own.

use std::path::Path;

use curate_clean::{CleanScratch, Cleaner, Recipe, statistics, values};
use curate_core::{Counters, Document, Gate, Mapper, Stage, Verdict, Work};
use curate_io::{NumberLayout, NumberWriter};
use serde_json::{Map, Value, json};

use crate::chain::View;
use crate::failure::Result;
use crate::summary::Extra;

/// The columns of texts, by number.
pub(crate) const ID: usize = 0;
const TEXTS: [&str; 4] = ["id", "source", "verdict", "reason"];
/// The facts of a table of statistics.
pub(crate) const RECIPE: &str = "recipe";
pub(crate) const WORDS: &str = "words";
/// What `recipe_stop_words_distinct` counted.
pub(crate) const STOP_WORDS: &str = "stop_words";
pub(crate) const NORMALISE: &str = "normalise";
/// What each statistic was when the table was written: its formula, by name.
pub(crate) const FORMULAS: &str = "formulas";

/// The stage `clean`, with a table beside it. A row is kept from its measuring to its turn: 8 bytes a statistic.
pub(crate) struct StatsView {
    mapper: MeasuringCleaner,
    gate: StatsGate,
}

impl StatsView {
    pub(crate) fn create(cleaner: Cleaner, path: &Path) -> Result<Self> {
        let writer = NumberWriter::create(path, layout(cleaner.recipe()))?;
        Ok(Self { mapper: MeasuringCleaner(cleaner), gate: StatsGate { writer: Some(writer) } })
    }
}

fn layout(recipe: &Recipe) -> NumberLayout {
    let formulas: Map<String, Value> =
        statistics().iter().map(|s| (s.name.to_owned(), Value::from(s.formula))).collect();
    let facts = json!({
        "made_by": concat!("curate ", env!("CARGO_PKG_VERSION")),
        RECIPE: recipe,
        WORDS: recipe.words().name(),
        STOP_WORDS: recipe.stop_words(),
        NORMALISE: recipe.normalise(),
        FORMULAS: formulas,
    });
    let Value::Object(facts) = facts else { unreachable!("made an object above") };
    NumberLayout {
        texts: TEXTS.map(str::to_owned).to_vec(),
        numbers: statistics().iter().map(|s| s.name.to_owned()).collect(),
        facts,
    }
}

impl View for StatsView {
    fn name(&self) -> &'static str {
        "clean"
    }

    fn stage(&mut self) -> Stage<'_> {
        Stage::gated("clean", &self.mapper, &mut self.gate)
    }

    fn reasons(&self) -> Vec<&str> {
        self.mapper.0.reasons()
    }

    fn finish(&mut self) -> Result<Vec<Extra>> {
        self.gate.writer.take().map_or(Ok(()), NumberWriter::finish)?;
        Ok(Vec::new())
    }
}

/// Cleans a document, and hands on what was measured beside the verdict.
struct MeasuringCleaner(Cleaner);

/// A document's row.
struct Measured {
    values: Vec<f64>,
    verdict: Verdict,
}

impl Mapper for MeasuringCleaner {
    type Work = Measured;
    type Scratch = CleanScratch;

    fn map(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut CleanScratch,
        counters: &mut Counters,
    ) -> Work<Measured> {
        // Before the cleaner, whose edits are not to be measured.
        let values = values(&self.0.measure_all(doc.text())).collect();
        match self.0.map(doc, scratch, counters) {
            Work::Decided(verdict) => Work::Pending(Measured { values, verdict }),
            Work::Pending(never) => match never {},
        }
    }
}

struct StatsGate {
    /// `None` once the table is complete.
    writer: Option<NumberWriter>,
}

impl Gate for StatsGate {
    type Work = Measured;

    fn admit(&mut self, doc: &mut Document<'_>, work: Measured) -> curate_core::Result<Verdict> {
        let (verdict, reason) = words_for(&work.verdict);
        if let Some(writer) = &mut self.writer {
            writer.write(&[Some(doc.id()), Some(doc.source()), Some(verdict), reason], &work.values)?;
        }
        Ok(work.verdict)
    }
}

/// A verdict as tables and lines spell it: `keep`, or `drop` and the reason.
pub(crate) fn words_for(verdict: &Verdict) -> (&'static str, Option<&str>) {
    match verdict {
        Verdict::Keep => ("keep", None),
        Verdict::Drop(dropped) => ("drop", Some(&dropped.reason)),
    }
}
