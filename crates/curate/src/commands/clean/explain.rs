//! `curate clean --explain`: what each rule says of a document, and where in its text.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use curate_clean::{Cleaner, EMPTY, Normaliser, RuleOutcome, spans, statistics};
use curate_core::{Counters, Document, Gate, Mapper, Verdict, Work};
use serde::Serialize;

use crate::cli::StreamOptions;
use crate::failure::{Exit, Failure, Result};
use crate::scan::Scan;
use crate::summary::thousands;
use crate::terminal::shortened;
use crate::ui;

/// Places shown of a rule; how many there are is said.
const PLACES: usize = 3;
/// Columns of a place's text.
const PLACE_COLUMNS: usize = 72;
/// Places written as JSON.
const JSON_PLACES: usize = 100;

/// What to explain and how.
pub(crate) struct Request<'r> {
    /// Only the document of this id.
    pub(crate) id: Option<&'r str>,
    pub(crate) json: bool,
}

pub(crate) fn run(cleaner: Cleaner, request: &Request<'_>, stream: &StreamOptions) -> Result<Exit> {
    let normaliser = cleaner.recipe().normalise().then(Normaliser::new);
    let explainer = Explainer { cleaner, normaliser, id: request.id, json: request.json };
    let mut printer = Printer { explained: 0, json: request.json };
    let report = Scan::of("clean", stream)?.run(explainer, &mut printer)?;
    match (request.id, printer.explained) {
        (Some(id), 0) => Err(Failure::new(format!("no document has the id {id:?}"))
            .with_hint("ids are those of --id-field; a record without one is called FILE:LINE")),
        _ if report.read == report.malformed && report.read > 0 => Ok(Exit::BadData),
        _ => Ok(Exit::Done),
    }
}

struct Explainer<'r> {
    cleaner: Cleaner,
    normaliser: Option<Normaliser>,
    id: Option<&'r str>,
    json: bool,
}

impl Mapper for Explainer<'_> {
    type Work = String;
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, (): &mut (), _: &mut Counters) -> Work<String> {
        if self.id.is_some_and(|id| id != doc.id()) {
            return Work::keep();
        }
        let explanation = self.explain(doc.id(), doc.text());
        Work::Pending(match self.json {
            true => serde_json::to_string(&explanation).expect("an explanation is plain data") + "\n",
            false => explanation.table(),
        })
    }
}

struct Printer {
    explained: u64,
    json: bool,
}

impl Gate for Printer {
    type Work = String;

    fn admit(&mut self, _: &mut Document<'_>, explanation: String) -> curate_core::Result<Verdict> {
        if self.explained > 0 && !self.json {
            ui::print("\n").map_err(closed)?;
        }
        self.explained += 1;
        ui::print(&explanation).map_err(closed)?;
        Ok(Verdict::Keep)
    }
}

fn closed(failure: Failure) -> curate_core::Error {
    match failure.is_closed_pipe() {
        true => curate_core::Error::ClosedPipe,
        false => curate_core::Error::Other(failure.error),
    }
}

/// What a recipe makes of a document.
#[derive(Serialize)]
struct Explanation<'e> {
    id: &'e str,
    recipe: &'e str,
    words: &'e str,
    /// True if the rules saw a text that normalising has changed; spans are places in that.
    normalised: bool,
    /// What the recipe's rules do to the text, each before it is asked. Statistics and spans are those before all edits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    edits: Vec<&'static str>,
    verdict: &'static str,
    reason: Option<String>,
    rules: Vec<ExplainedRule>,
}

#[derive(Serialize)]
struct ExplainedRule {
    reason: String,
    expression: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    value: Option<f64>,
    threshold: Option<f64>,
    /// False if the rule's `when` does not hold.
    asked: bool,
    fired: bool,
    /// The statistics that it is about.
    statistics: Vec<Statistic>,
}

#[derive(Serialize)]
struct Statistic {
    name: &'static str,
    value: f64,
    /// How many places in the text it comes from; absent for one that has none, such as a mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    places: Option<usize>,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spans: Vec<Place>,
}

/// A place, in code points from the start of the text.
#[derive(Serialize)]
struct Place {
    start: usize,
    end: usize,
    text: String,
}

impl Explainer<'_> {
    fn explain<'e>(&'e self, id: &'e str, text: &str) -> Explanation<'e> {
        let seen = match &self.normaliser {
            Some(normaliser) => normaliser.normalise(text).0,
            None => Cow::Borrowed(text),
        };
        let measurements = self.cleaner.measure_all(text);
        let value = |name: &str| measurements.get(name).unwrap_or(f64::NAN);
        let rules: Vec<ExplainedRule> = self
            .cleaner
            .explain(text)
            .into_iter()
            .map(|outcome| ExplainedRule::new(outcome, &seen, value))
            .collect();
        let reason = match measurements.is_blank() {
            true => Some(EMPTY.to_owned()),
            false => rules.iter().find(|rule| rule.fired).map(|rule| rule.reason.clone()),
        };
        let recipe = self.cleaner.recipe();
        Explanation {
            id,
            recipe: recipe.name(),
            words: recipe.words().name(),
            normalised: *seen != *text,
            edits: recipe.edits().map(|(edit, _)| edit.name()).collect(),
            verdict: if reason.is_some() { "drop" } else { "keep" },
            reason,
            rules,
        }
    }
}

impl ExplainedRule {
    fn new(outcome: RuleOutcome, text: &str, value: impl Fn(&str) -> f64) -> Self {
        let statistics =
            statistics_in(&outcome.expression).map(|name| Statistic::new(name, value(name), text)).collect();
        Self {
            reason: outcome.reason,
            expression: outcome.expression,
            when: outcome.when,
            value: outcome.value,
            threshold: outcome.threshold,
            asked: outcome.applies,
            fired: outcome.fired,
            statistics,
        }
    }
}

/// The statistics that an expression names.
fn statistics_in(expression: &str) -> impl Iterator<Item = &'static str> {
    let names: Vec<&str> = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    statistics().iter().map(|statistic| statistic.name).filter(move |name| names.contains(name))
}

impl Statistic {
    fn new(name: &'static str, value: f64, text: &str) -> Self {
        let found = spans(name, text);
        let mut counter = CodePoints::default();
        let shown = found.iter().flatten().take(JSON_PLACES);
        let spans = shown.map(|range| counter.place(text, range)).collect();
        Self { name, value, places: found.as_ref().map(Vec::len), spans }
    }
}

/// Counts code points up to places that come nearly in order.
#[derive(Default)]
struct CodePoints {
    bytes: usize,
    points: usize,
}

impl CodePoints {
    fn at(&mut self, text: &str, byte: usize) -> usize {
        if byte < self.bytes {
            *self = Self::default();
        }
        self.points += text[self.bytes..byte].chars().count();
        self.bytes = byte;
        self.points
    }

    fn place(&mut self, text: &str, range: &Range<usize>) -> Place {
        let shown: String = text[range.clone()].chars().take(200).collect();
        Place { start: self.at(text, range.start), end: self.at(text, range.end), text: shown }
    }
}

impl Explanation<'_> {
    fn table(&self) -> String {
        let mut out = String::new();
        let mut line =
            |text: String| writeln!(out, "{}", text.trim_end()).expect("writing to a String cannot fail");
        let verdict = match &self.reason {
            Some(reason) => format!("dropped as {reason}"),
            None => "kept".to_owned(),
        };
        let normalised = if self.normalised { "; its text was normalised first" } else { "" };
        line(format!(
            "{}: {verdict} by recipe {}{normalised}",
            shortened(self.id, PLACE_COLUMNS),
            self.recipe
        ));
        line(format!("  {:<44}{:>14}{:>14}  {:<12}rule", "reason", "value", "threshold", ""));
        if self.reason.as_deref() == Some(EMPTY) {
            line(format!("  {EMPTY:<44}{:>14}{:>14}  {:<12}no word in the text", "", "", "drops"));
        }
        if !self.edits.is_empty() {
            line(format!("  (its rules edit the text: {}; places are those before)", self.edits.join(", ")));
        }
        let first = if self.reason.as_deref() == Some(EMPTY) {
            None
        } else {
            self.rules.iter().position(|r| r.fired)
        };
        for (i, rule) in self.rules.iter().enumerate() {
            let says = match (rule.asked, rule.fired) {
                (false, _) => "not asked",
                (true, false) => "",
                (true, true) if Some(i) == first => "drops",
                (true, true) => "would drop",
            };
            let condition = match &rule.when {
                Some(when) => format!("{} when {when}", rule.expression),
                None => rule.expression.clone(),
            };
            let (value, threshold) = (number(rule.value), number(rule.threshold));
            line(format!("  {:<44}{value:>14}{threshold:>14}  {says:<12}{condition}", rule.reason));
            if rule.fired {
                rule.statistics.iter().flat_map(Statistic::lines).for_each(&mut line);
            }
        }
        out
    }
}

impl Statistic {
    /// The first places, a line each.
    fn lines(&self) -> Vec<String> {
        let shown = self.spans.iter().take(PLACES);
        let mut lines: Vec<String> = shown
            .map(|place| {
                format!("      {}..{}  {}", place.start, place.end, shortened(&place.text, PLACE_COLUMNS))
            })
            .collect();
        let more = self.places.unwrap_or(0).saturating_sub(PLACES);
        if more > 0 {
            lines.push(format!("      and {} more for {}", thousands(more as u64), self.name));
        }
        lines
    }
}

/// A number with as many digits as it needs, and no more than six behind the point.
fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let text = format!("{value:.6}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "" | "-0" => "0".to_owned(),
        short => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, -0.0, 12.0, 0.25, 1.0 / 3.0, 100_000.0, -1e-9].map(|value| number(Some(value)));
        assert_eq!(shown.each_ref().map(String::as_str), ["0", "0", "12", "0.25", "0.333333", "100000", "0"]);
        assert_eq!(number(None), "-");
    }

    #[test]
    fn expressions_name_their_statistics() {
        let names: Vec<&str> = statistics_in("words * 2 > hash_ratio + max_words and not nothing").collect();
        assert_eq!(names, ["words", "hash_ratio"]);
    }
}
