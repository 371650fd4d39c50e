//! Repeated substrings on the command line: `--substring` and what belongs to it.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, ValueEnum};
use curate_core::{Document, Dropped};
use curate_dedup::{
    Copies, Profile, RepeatFinder, RepeatMapper, SpanAction, SpanLog, Storage, SubstringGate,
    SubstringOptions, SubstringSummary, SubstringUnit,
};
use curate_io::{DropLog, DropLogStyle, FieldPath};
use serde::{Serialize, Serializer};

use crate::chain::{Kind, parameters};
use crate::commands::dedup::two_pass::Asked;
use crate::failure::{Failure, Result};
use crate::summary::{Extra, bytes, thousands};

/// What the stage is called in reports.
pub(crate) const NAME: &str = "dedup_substring";

/// The field that `--substring-action mark` writes to.
const MARKED: &str = "metadata.repeated_substrings";

#[derive(Args, Debug, Clone, Serialize)]
#[group(skip)]
#[command(group(ArgGroup::new("substrings").args(["substring", "substring_bytes"])))]
pub(crate) struct SubstringFlags {
    /// Cut what an earlier text says word for word, in N or more words in a row [default N: 50]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "50", value_parser = length)]
    #[serde(skip_serializing_if = "Option::is_none")]
    substring: Option<usize>,

    /// Cut what an earlier text says byte for byte, in N or more bytes in a row [default N: 200]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "200", value_parser = length)]
    #[serde(skip_serializing_if = "Option::is_none")]
    substring_bytes: Option<usize>,

    /// Which copies of a repeated substring stay
    #[arg(long, value_name = "WHICH", default_value = "first")]
    substring_keep: CopiesName,

    /// What becomes of a repeated substring: remove it, mark it (in metadata.repeated_substrings) or mark:FIELD
    #[arg(long, value_name = "HOW", default_value = "remove", value_parser = Fate::parse)]
    substring_action: Fate,

    /// Drop a document of which fewer characters are left, white space apart
    #[arg(long, value_name = "N", default_value_t = 1)]
    substring_min_chars: usize,

    /// Write a line for each repeated substring here: {"id","reason","start","end","dup_of","offset","text"}; places are bytes
    #[arg(long, value_name = "FILE", requires = "substrings")]
    #[serde(skip)]
    substring_spans: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum CopiesName {
    /// The first one in the input
    First,
    /// None: all go
    None,
}

#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Remove,
    Mark(String),
}

impl Fate {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            None if text == "remove" => Ok(Self::Remove),
            None if text == "mark" => Ok(Self::Mark(MARKED.to_owned())),
            Some(("mark", field)) => match FieldPath::parse(field) {
                Ok(_) => Ok(Self::Mark(field.to_owned())),
                Err(error) => Err(error.to_string()),
            },
            _ => Err("expected remove, mark or mark:FIELD".to_owned()),
        }
    }
}

impl Serialize for Fate {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Remove => serializer.serialize_str("remove"),
            Self::Mark(field) => serializer.collect_str(&format_args!("mark:{field}")),
        }
    }
}

/// A length. What follows a flag whose value may be left out can be an input by mistake.
fn length(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(length @ 2..=65_536) => Ok(length),
        Ok(_) => Err("expected 2 to 65536".to_owned()),
        Err(_) => Err("expected a number: give inputs before this option, or a number with it".to_owned()),
    }
}

impl SubstringFlags {
    pub(super) fn is_wanted(&self) -> bool {
        self.substring.is_some() || self.substring_bytes.is_some()
    }

    /// # Errors
    /// An index: it knows what was kept, and not what was said.
    pub(super) fn check(&self, indexed: bool) -> Result<()> {
        match self.is_wanted() && indexed {
            true => Err(Failure::new(
                "an index cannot be used with --substring or --substring-bytes: it does not remember texts",
            )
            .with_hint("run `curate dedup --index` first, and `curate dedup --substring` over what it kept")),
            false => Ok(()),
        }
    }

    /// The stage of the first pass, or that of the second once the repeats are known.
    pub(super) fn kind(&self, profile: Profile, storage: &Storage, settled: &mut Asked<'_>) -> Result<Kind> {
        if let Some(repeats) = settled.repeats() {
            let gate = SubstringGate::new(repeats);
            return Ok(Kind::Substrings(Box::new(gate), self.substring_spans.clone()));
        }
        let options = self.options(profile);
        let mapper = RepeatMapper::new(&options)?;
        Ok(Kind::FindRepeats(mapper, Box::new(RepeatFinder::new(options, storage)?)))
    }

    fn options(&self, profile: Profile) -> SubstringOptions {
        let (unit, length) = match (self.substring, self.substring_bytes) {
            (Some(length), _) => (SubstringUnit::Words(profile), length),
            (None, length) => {
                (SubstringUnit::Bytes, length.expect("asked for only if one of both is wanted"))
            }
        };
        SubstringOptions {
            unit,
            length,
            copies: match self.substring_keep {
                CopiesName::First => Copies::First,
                CopiesName::None => Copies::None,
            },
            action: match &self.substring_action {
                Fate::Remove => SpanAction::Remove,
                Fate::Mark(field) => SpanAction::Mark(field.clone()),
            },
            min_chars: self.substring_min_chars,
        }
    }
}

/// The file of `--substring-spans`.
struct Spans(DropLog);

impl SpanLog for Spans {
    fn write(&mut self, doc: &Document<'_>, proof: &Dropped) -> curate_core::Result<()> {
        self.0.write(doc, proof)
    }

    fn finish(self: Box<Self>) -> curate_core::Result<()> {
        self.0.finish()
    }
}

/// Opens the file that the spans of a last pass go to.
pub(crate) fn open_spans(path: &Path) -> Result<Box<dyn SpanLog>> {
    Ok(Box::new(Spans(DropLog::create(path, DropLogStyle::Proofs, NAME)?)))
}

/// What the stage has to say after a run.
pub(super) fn extra(summary: &SubstringSummary) -> Extra {
    let SubstringSummary { spans, span_bytes, edited, dropped, collisions, .. } = summary;
    let done = if summary.marked { "marked in" } else { "cut from" };
    let mut lines = vec![
        format!(
            "dedup: {} repeated substrings ({}) {done} {} documents, {} more dropped as too little was left",
            thousands(*spans),
            bytes(*span_bytes),
            thousands(*edited),
            thousands(*dropped)
        ),
        format!(
            "dedup: substrings found in {} of memory and {} on disk",
            bytes(summary.memory_bytes),
            bytes(summary.disk_bytes)
        ),
    ];
    if *collisions > 0 {
        lines.push(format!("dedup: {collisions} hash functions took different substrings for equal ones; the next one did not"));
    }
    Extra { name: NAME, value: parameters(summary), lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_a_substring_is_parsed_and_written_back() {
        for (text, written) in [
            ("remove", "remove"),
            ("mark", "mark:metadata.repeated_substrings"),
            ("mark:metadata.x", "mark:metadata.x"),
        ] {
            assert_eq!(serde_json::to_value(Fate::parse(text).unwrap()).unwrap(), written);
        }
        for text in ["", "cut", "mark:", "mark:a..b", "remove:x", "Mark"] {
            assert!(Fate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_are_numbers_in_range() {
        assert_eq!(length("2"), Ok(2));
        assert_eq!(length("65536"), Ok(65_536));
        for text in ["1", "0", "65537"] {
            assert_eq!(length(text), Err("expected 2 to 65536".to_owned()));
        }
        assert!(length("in.jsonl").unwrap_err().contains("give inputs before"));
    }

    #[test]
    fn what_is_said_for_people() {
        let summary = SubstringSummary {
            documents: 5000,
            edited: 1200,
            dropped: 3,
            spans: 1500,
            span_bytes: 2_500_000,
            memory_bytes: 2048,
            disk_bytes: 0,
            ..SubstringSummary::default()
        };
        let said = extra(&summary).lines;
        assert_eq!(
            said,
            [
                "dedup: 1,500 repeated substrings (2.5 MB) cut from 1,200 documents, 3 more dropped as too little was left",
                "dedup: substrings found in 2.0 kB of memory and 0 B on disk",
            ]
        );
        let marked = SubstringSummary { marked: true, collisions: 1, ..summary };
        let said = extra(&marked).lines;
        assert!(said[0].contains("marked in 1,200 documents"), "{said:?}");
        assert_eq!(said.len(), 3);
    }
}
