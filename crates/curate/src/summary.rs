//! The closing report of a command: a table for people, the same as JSON for programs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use curate_clean::EMPTY;
use curate_core::{Report, StageReport};
use curate_io::write_atomically;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::chain::Link;
use crate::cli::StreamOptions;
use crate::failure::{Exit, Result};
use crate::ui;
use crate::usage::Usage;

/// Something that a stage has to say beyond the common counts.
pub(crate) struct Extra {
    /// Its name in the JSON report.
    pub(crate) name: &'static str,
    pub(crate) value: Value,
    /// Lines for the table.
    pub(crate) lines: Vec<String>,
}

pub(crate) struct Summary<'s> {
    pub(crate) command: &'s str,
    pub(crate) parameters: Value,
    pub(crate) report: Report,
    pub(crate) extras: Vec<Extra>,
    pub(crate) seconds: f64,
    pub(crate) usage: Usage,
}

/// The report as it is written with `--report`.
#[derive(Serialize)]
struct JsonReport<'s> {
    command: &'s str,
    version: &'static str,
    parameters: &'s Value,
    read: u64,
    kept: u64,
    dropped: BTreeMap<&'s str, u64>,
    malformed: u64,
    malformed_samples: &'s [curate_core::Malformed],
    /// Sound records that are no documents, by what they are.
    set_aside: &'s BTreeMap<Cow<'static, str>, u64>,
    /// Inputs that could not be read to their end.
    damaged: &'s [curate_core::Malformed],
    bytes_in: u64,
    bytes_out: u64,
    text_bytes_in: u64,
    text_bytes_out: u64,
    parse_seconds: f64,
    stages: &'s [StageReport],
    /// Rules of `clean` that dropped none of a thousand documents or more: perhaps they ask for the wrong thing.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    never_fired: &'s [String],
    #[serde(flatten)]
    extras: Map<String, Value>,
    seconds: f64,
    documents_per_second: f64,
    cpu_seconds: f64,
    peak_rss_bytes: u64,
}

impl Summary<'_> {
    /// Prints the table, writes the JSON report, and says how the command ended.
    pub(crate) fn publish(&self, stream: &StreamOptions, links: &[Link]) -> Result<Exit> {
        let never_fired = self.never_fired(links);
        let json = serde_json::to_value(self.json(&never_fired)).expect("a report is plain data");
        if let Some(path) = &stream.report {
            write_atomically(path, format!("{json:#}\n").as_bytes())?;
        }
        if !stream.voice.quiet {
            ui::summary(self.table().trim_end(), &json);
            if !never_fired.is_empty() {
                ui::warn(&format!("rules that never fired: {}", never_fired.join(", ")));
            }
        }
        if !self.report.damaged.is_empty() {
            ui::warn(&format!(
                "{} faults in the inputs: what they hold after them, or is unreadable, is missing from the output",
                self.report.damaged.len()
            ));
            return Ok(Exit::BadData);
        }
        let allowed = stream.max_malformed * self.report.read as f64;
        if self.report.malformed as f64 > allowed {
            ui::warn(&format!(
                "{} of {} records are malformed, more than --max-malformed {} allows",
                self.report.malformed, self.report.read, stream.max_malformed
            ));
            return Ok(Exit::BadData);
        }
        Ok(Exit::Done)
    }

    fn json<'s>(&'s self, never_fired: &'s [String]) -> JsonReport<'s> {
        let report = &self.report;
        let mut dropped = BTreeMap::new();
        for (reason, n) in report.stages.iter().flat_map(|s| &s.dropped) {
            *dropped.entry(reason.as_str()).or_default() += n;
        }
        JsonReport {
            command: self.command,
            version: env!("CARGO_PKG_VERSION"),
            parameters: &self.parameters,
            read: report.read,
            kept: report.kept,
            dropped,
            malformed: report.malformed,
            malformed_samples: &report.malformed_samples,
            set_aside: &report.set_aside,
            damaged: &report.damaged,
            bytes_in: report.bytes_in,
            bytes_out: report.bytes_out,
            text_bytes_in: report.text_bytes_in,
            text_bytes_out: report.text_bytes_out,
            parse_seconds: report.parse_seconds,
            stages: &report.stages,
            never_fired,
            extras: self.extras.iter().map(|e| (e.name.to_owned(), e.value.clone())).collect(),
            seconds: self.seconds,
            documents_per_second: self.documents_per_second(),
            cpu_seconds: self.usage.cpu_seconds,
            peak_rss_bytes: self.usage.peak_rss_bytes,
        }
    }

    /// Documents read a second, by the clock.
    fn documents_per_second(&self) -> f64 {
        self.report.read as f64 / self.seconds.max(1e-9)
    }

    fn table(&self) -> String {
        let report = &self.report;
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
        line(format!(
            "{}: {} documents, {} of text in; {} ({}), {} out",
            self.command,
            thousands(report.read),
            bytes(report.text_bytes_in),
            thousands(report.kept),
            percent(report.kept, report.read),
            bytes(report.text_bytes_out),
        ));
        for (what, n) in &report.set_aside {
            line(format!("    {what:<24}{:>12} {:>7} set aside", thousands(*n), percent(*n, report.read)));
        }
        for stage in &report.stages {
            if report.stages.len() > 1 {
                line(format!(
                    "  {:<26}{:>12} in {:>12} out {:>12} of text out {:>8.1} s {:>10}/s",
                    stage.name,
                    thousands(stage.read),
                    thousands(stage.kept),
                    bytes(stage.text_bytes_out),
                    stage.busy_seconds,
                    bytes((stage.text_bytes_in as f64 / stage.busy_seconds.max(1e-9)) as u64),
                ));
            }
            for (reason, n) in by_count(&stage.dropped) {
                line(format!("    {reason:<24}{:>12} {:>7} dropped", thousands(n), percent(n, stage.read)));
            }
            for (name, n) in &stage.counters {
                line(format!("    {name:<24}{:>12}", thousands(*n)));
            }
        }
        if report.malformed > 0 {
            line(format!(
                "    {:<24}{:>12} {:>7}",
                "malformed",
                thousands(report.malformed),
                percent(report.malformed, report.read)
            ));
            for sample in report.malformed_samples.iter().take(3) {
                line(format!("      {sample}"));
            }
        }
        for fault in report.damaged.iter().take(5) {
            line(format!("    damaged: {fault}"));
        }
        for text in self.extras.iter().flat_map(|e| &e.lines) {
            line(format!("  {text}"));
        }
        line(format!(
            "  {:.1} s, {} documents/s, {:.1} CPU-s, {} peak memory",
            self.seconds,
            thousands(self.documents_per_second() as u64),
            self.usage.cpu_seconds,
            bytes(self.usage.peak_rss_bytes)
        ));
        out
    }

    /// Rules that dropped nothing, of a corpus large enough to wonder about it.
    fn never_fired(&self, links: &[Link]) -> Vec<String> {
        const ENOUGH_DOCUMENTS: u64 = 1000;
        let stages =
            links.iter().zip(&self.report.stages).filter(|(_, stage)| stage.read >= ENOUGH_DOCUMENTS);
        let silent = |(link, stage): (&Link, &StageReport)| {
            // A text without a word is dropped by no rule.
            let reasons = link.kind.reasons().into_iter().filter(|reason| *reason != EMPTY);
            reasons.filter(|r| !stage.dropped.contains_key(*r)).map(str::to_owned).collect::<Vec<_>>()
        };
        stages.flat_map(silent).collect()
    }
}

/// Reasons, most frequent first; equal ones by name.
fn by_count(reasons: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut rows: Vec<(&str, u64)> = reasons.iter().map(|(reason, n)| (reason.as_str(), *n)).collect();
    rows.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    rows
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A size in the largest decimal unit that leaves at least one whole.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [(&str, f64); 4] = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match UNITS.iter().find(|(_, size)| n as f64 >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", n as f64 / size),
        None => format!("{n} B"),
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1000, 1_234_567].map(thousands).each_ref().map(String::as_str)
        );
        assert_eq!(
            ["0 B", "999 B", "1.0 kB", "39.1 MB", "1.2 TB"],
            [0, 999, 1000, 39_100_000, 1_200_000_000_000].map(bytes).each_ref().map(String::as_str)
        );
        assert_eq!((percent(1, 3).as_str(), percent(0, 0).as_str()), ("33.3 %", "-"));
    }
}
