//! `curate stats`: what is in this corpus?

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Instant;

use clap::Args;
use curate_core::{Counters, Document, Gate, Mapper, Verdict, Work};
use serde::Serialize;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use crate::cli::StreamOptions;
use crate::failure::{Exit, Result};
use crate::scan::Scan;
use crate::sketches::{Distinct, Frequent, Lengths};
use crate::summary::{Extra, Summary, bytes, thousands};
use crate::terminal::{shortened, text_columns};
use crate::ui;
use crate::usage::usage;

/// Count documents, words and lines by source; show lengths, vocabulary and the most frequent lines
///
/// One pass, in memory that does not grow with the input (some 15 MB, and 30 kB a source up to a thousand). Counts
/// are exact; the rest are estimates, each with its expected error beside it: distinct words by HyperLogLog, frequent lines by a Count-Min sketch, quantiles of
/// lengths by a logarithmic histogram. The report is the data of this command: it goes to stdout.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate stats corpus/\n  curate clean raw.jsonl | curate stats --json --top 100 > stats.json"
)]
pub(crate) struct StatsCommand {
    #[command(flatten)]
    stream: StreamOptions,

    /// Most frequent lines to show
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(..=10_000))]
    top: u16,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(command: &StatsCommand) -> Result<Exit> {
    let start = Instant::now();
    let stream = &command.stream;
    let mut collector = Collector::new(usize::from(command.top));
    let report = Scan::of("stats", stream)?.run(Measure, &mut collector)?;
    let facts = collector.facts();
    let value = serde_json::to_value(&facts).expect("facts are plain data");
    ui::print(&if command.json { format!("{value:#}\n") } else { facts.tables() })?;
    let summary = Summary {
        command: "stats",
        parameters: json!({ "input": stream, "top": command.top }),
        report,
        extras: vec![Extra { name: "stats", value, lines: Vec::new() }],
        seconds: start.elapsed().as_secs_f64(),
        usage: usage(),
    };
    summary.publish(stream, &[])
}

/// Counts what one document holds, on any thread.
struct Measure;

/// What the collector needs to know of a document. Memory: 32 bytes a line, 8 a word that the worker has not just seen.
struct Measured {
    characters: u64,
    words: u64,
    lines: u64,
    /// Hashes of words.
    vocabulary: Vec<u64>,
    marks: Vec<LineMark>,
}

/// A line that is not blank: where it first lies in its document, without the white space around it, and how often.
struct LineMark {
    hash: u64,
    start: usize,
    end: usize,
    times: u32,
}

/// Joins the marks of equal lines: sketches are slow, and code has many a `}`.
fn join_equal_lines(marks: &mut Vec<LineMark>) {
    marks.sort_unstable_by_key(|mark| (mark.hash, mark.start));
    marks.dedup_by(|again, mark| {
        let is_equal = again.hash == mark.hash && mark.times < u32::MAX;
        mark.times += u32::from(is_equal);
        is_equal
    });
}

/// Words of one source that a worker has handed on lately: seeing them again changes nothing.
struct Recent(Vec<u64>);

impl Recent {
    const SLOTS: usize = 1 << 15;

    /// True if the word, as its hash and its source's, was not there.
    fn is_new(&mut self, key: u64) -> bool {
        std::mem::replace(&mut self.0[key as usize % Self::SLOTS], key) != key
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self(vec![0; Self::SLOTS])
    }
}

impl Mapper for Measure {
    type Work = Measured;
    type Scratch = Recent;

    fn map(&self, doc: &mut Document<'_>, recent: &mut Recent, _: &mut Counters) -> Work<Measured> {
        let text = doc.text();
        let source = xxh3_64(doc.source().as_bytes());
        let mut measured = Measured {
            characters: text.chars().count() as u64,
            words: 0,
            lines: 0,
            vocabulary: Vec::new(),
            marks: Vec::new(),
        };
        for word in text.split_whitespace() {
            measured.words += 1;
            let hash = xxh3_64(word.as_bytes());
            if recent.is_new(hash ^ source) {
                measured.vocabulary.push(hash);
            }
        }
        for line in text.lines() {
            measured.lines += 1;
            let line = line.trim();
            if !line.is_empty() {
                let start = line.as_ptr().addr() - text.as_ptr().addr();
                let hash = xxh3_64(line.as_bytes());
                measured.marks.push(LineMark { hash, start, end: start + line.len(), times: 1 });
            }
        }
        join_equal_lines(&mut measured.marks);
        Work::Pending(measured)
    }
}

/// Sums up documents in input order. Memory: some 30 KiB a source, and at most `MAX_SOURCES` of them.
struct Collector {
    sources: Vec<SourceSums>,
    index: HashMap<String, usize>,
    lines: Frequent,
    top: usize,
}

struct SourceSums {
    name: String,
    sums: Sums,
}

/// The sums of one source or of all.
struct Sums {
    documents: u64,
    bytes: u64,
    words: u64,
    lines: u64,
    characters: u64,
    lengths: Lengths,
    vocabulary: Distinct,
}

impl Sums {
    fn new() -> Self {
        Self {
            documents: 0,
            bytes: 0,
            words: 0,
            lines: 0,
            characters: 0,
            lengths: Lengths::new(),
            vocabulary: Distinct::new(),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.words += other.words;
        self.lines += other.lines;
        self.characters += other.characters;
        self.lengths.merge(&other.lengths);
        self.vocabulary.merge(&other.vocabulary);
    }
}

impl Collector {
    /// Sources with sums of their own; the documents of later ones are summed up together.
    const MAX_SOURCES: usize = 1000;
    const OTHER_SOURCES: &'static str = "(other sources)";
    /// Characters kept of a frequent line.
    const LINE_CHARS: usize = 200;

    fn new(top: usize) -> Self {
        Self { sources: Vec::new(), index: HashMap::new(), lines: Frequent::new(top), top }
    }

    fn source(&mut self, name: &str) -> &mut Sums {
        let name = match self.index.contains_key(name) || self.sources.len() < Self::MAX_SOURCES {
            true => name,
            false => Self::OTHER_SOURCES,
        };
        let at = match self.index.get(name) {
            Some(at) => *at,
            None => {
                self.index.insert(name.to_owned(), self.sources.len());
                self.sources.push(SourceSums { name: name.to_owned(), sums: Sums::new() });
                self.sources.len() - 1
            }
        };
        &mut self.sources[at].sums
    }

    fn facts(&self) -> Facts {
        let mut all = Sums::new();
        self.sources.iter().for_each(|source| all.merge(&source.sums));
        let mut sources: Vec<SourceFacts> =
            self.sources.iter().map(|s| SourceFacts::new(&s.name, &s.sums)).collect();
        sources.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.source.cmp(&b.source)));
        let line = |(line, count): (&str, u64)| FrequentLine { count, line: line.to_owned() };
        Facts {
            sources,
            all: SourceFacts::new("", &all),
            lines_not_blank: self.lines.items(),
            frequent_lines: self.lines.top(self.top).into_iter().map(line).collect(),
            errors: Errors {
                distinct_words_standard_error: Distinct::STANDARD_ERROR,
                quantile_relative_error: Lengths::QUANTILE_ERROR,
                line_count_excess: self.lines.excess(),
                line_count_certainty: Frequent::CERTAINTY,
            },
        }
    }
}

impl Gate for Collector {
    type Work = Measured;

    fn admit(&mut self, doc: &mut Document<'_>, measured: Measured) -> curate_core::Result<Verdict> {
        let sums = self.source(doc.source());
        sums.documents += 1;
        sums.bytes += doc.text().len() as u64;
        sums.characters += measured.characters;
        sums.words += measured.words;
        sums.lines += measured.lines;
        sums.lengths.insert(measured.characters);
        measured.vocabulary.iter().for_each(|hash| sums.vocabulary.insert(*hash));
        for mark in &measured.marks {
            let line = || doc.text()[mark.start..mark.end].chars().take(Self::LINE_CHARS).collect();
            self.lines.insert(mark.hash, mark.times, line);
        }
        Ok(Verdict::Keep)
    }
}

/// The answer, as `--json` gives it.
#[derive(Serialize)]
struct Facts {
    /// By bytes of text, largest first.
    sources: Vec<SourceFacts>,
    all: SourceFacts,
    lines_not_blank: u64,
    frequent_lines: Vec<FrequentLine>,
    errors: Errors,
}

#[derive(Serialize)]
struct SourceFacts {
    /// Empty for documents that name none.
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    documents: u64,
    bytes: u64,
    characters: u64,
    words: u64,
    lines: u64,
    distinct_words: u64,
    characters_per_document: LengthFacts,
}

#[derive(Serialize)]
struct LengthFacts {
    min: u64,
    median: u64,
    mean: f64,
    p95: u64,
    max: u64,
    histogram: Vec<Octave>,
}

/// Documents of `from` to `to` characters.
#[derive(Serialize)]
struct Octave {
    from: u64,
    to: u64,
    documents: u64,
}

#[derive(Serialize)]
struct FrequentLine {
    count: u64,
    line: String,
}

/// The expected error of every estimate.
#[derive(Serialize)]
struct Errors {
    distinct_words_standard_error: f64,
    quantile_relative_error: f64,
    /// A count of a line is never too low, and with `line_count_certainty` not more than this too high.
    line_count_excess: u64,
    line_count_certainty: f64,
}

impl SourceFacts {
    fn new(name: &str, sums: &Sums) -> Self {
        let lengths = &sums.lengths;
        let (min, max) = lengths.extremes().unwrap_or_default();
        let octave = |(from, to, documents)| Octave { from, to, documents };
        Self {
            source: name.to_owned(),
            documents: sums.documents,
            bytes: sums.bytes,
            characters: sums.characters,
            words: sums.words,
            lines: sums.lines,
            distinct_words: sums.vocabulary.count(),
            characters_per_document: LengthFacts {
                min,
                median: lengths.quantile(0.5),
                mean: lengths.mean(),
                p95: lengths.quantile(0.95),
                max,
                histogram: lengths.octaves().into_iter().map(octave).collect(),
            },
        }
    }

    fn label(&self) -> String {
        if self.source.is_empty() { "(no source)".to_owned() } else { shortened(&self.source, NAME_COLUMNS) }
    }
}

const NAME_COLUMNS: usize = 24;
/// Sources in a table; `--json` has all of them.
const TABLE_SOURCES: usize = 30;
const BAR_COLUMNS: u64 = 40;

impl Facts {
    fn tables(&self) -> String {
        let mut out = String::new();
        self.amounts(&mut out);
        self.lengths(&mut out);
        self.histogram(&mut out);
        self.lines(&mut out);
        self.errors(&mut out);
        out
    }

    /// The sources to list, each with its label, then all together.
    fn rows(&self) -> Vec<(String, &SourceFacts)> {
        let several = self.sources.len() > 1;
        let listed = self.sources.iter().take(if several { TABLE_SOURCES } else { 0 });
        let mut rows: Vec<_> = listed.map(|facts| (facts.label(), facts)).collect();
        rows.push(("all".to_owned(), &self.all));
        rows
    }

    fn amounts(&self, out: &mut String) {
        let head = ["documents", "text", "characters", "words", "lines", "distinct words"];
        row(out, "source", &head.map(str::to_owned));
        for (label, facts) in self.rows() {
            let cells = [
                thousands(facts.documents),
                bytes(facts.bytes),
                thousands(facts.characters),
                thousands(facts.words),
                thousands(facts.lines),
                format!("~{}", thousands(facts.distinct_words)),
            ];
            row(out, &label, &cells);
        }
        let hidden = self.sources.len().saturating_sub(TABLE_SOURCES);
        if hidden > 0 {
            line(out, &format!("({hidden} smaller sources are not listed; --json has them)"));
        }
    }

    fn lengths(&self, out: &mut String) {
        out.push('\n');
        let head = ["shortest", "median", "mean", "95 % below", "longest"];
        row(out, "characters a document", &head.map(str::to_owned));
        for (label, facts) in self.rows() {
            let lengths = &facts.characters_per_document;
            let cells = [
                thousands(lengths.min),
                format!("~{}", thousands(lengths.median)),
                thousands(lengths.mean.round() as u64),
                format!("~{}", thousands(lengths.p95)),
                thousands(lengths.max),
            ];
            row(out, &label, &cells);
        }
    }

    fn histogram(&self, out: &mut String) {
        let octaves = &self.all.characters_per_document.histogram;
        let most = octaves.iter().map(|o| o.documents).max().unwrap_or(0).max(1);
        out.push('\n');
        for octave in octaves {
            let label = match octave.from == octave.to {
                true => thousands(octave.from),
                false => format!("{} to {}", thousands(octave.from), thousands(octave.to)),
            };
            let bar = "#".repeat((octave.documents * BAR_COLUMNS).div_ceil(most) as usize);
            line(out, &format!("{label:>24} {:>14}  {bar}", thousands(octave.documents)));
        }
    }

    fn lines(&self, out: &mut String) {
        out.push('\n');
        let total = thousands(self.lines_not_blank);
        if self.frequent_lines.is_empty() {
            return line(out, &format!("no line is repeated among {total} that are not blank"));
        }
        line(out, &format!("most frequent of {total} lines that are not blank"));
        for frequent in &self.frequent_lines {
            let share = 100.0 * frequent.count as f64 / self.lines_not_blank as f64;
            let count = thousands(frequent.count);
            line(out, &format!("{count:>14} {share:>6.2} %  {}", shortened(&frequent.line, 76)));
        }
    }

    fn errors(&self, out: &mut String) {
        let errors = &self.errors;
        out.push('\n');
        line(
            out,
            &format!(
                "estimates (~): distinct words by HyperLogLog of {} registers, standard error {:.1} %;",
                thousands(Distinct::REGISTERS.into()),
                100.0 * errors.distinct_words_standard_error
            ),
        );
        line(
            out,
            &format!("  median and 95 % within {:.1} %; {}", 100.0 * errors.quantile_relative_error, {
                match errors.line_count_excess {
                    0 => "counts of lines are exact".to_owned(),
                    excess => format!(
                        "counts of lines by Count-Min, never too low, too high by at most {} ({:.1} % certain)",
                        thousands(excess),
                        100.0 * errors.line_count_certainty
                    ),
                }
            }),
        );
    }
}

/// A row of a table: a name, then numbers.
fn row(out: &mut String, name: &str, cells: &[String]) {
    let mut text = name.to_owned() + &" ".repeat(NAME_COLUMNS.saturating_sub(text_columns(name)));
    for cell in cells {
        write!(text, " {cell:>15}").expect("writing to a String cannot fail");
    }
    line(out, &text);
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}
