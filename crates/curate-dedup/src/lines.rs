//! Lines and paragraphs that other documents had before.
//!
//! The first document to have a line (or a paragraph) keeps it, and keeps all of its own copies of it; from later documents it is
//! cut. A document of which too much is cut is dropped, and then it has had nothing first.
//!
//! A unit is compared without regard to white space and, if asked, case, as a 64-bit key: among a billion different units
//! one pair in forty runs meets by accident. What is remembered is 12 bytes a unit, in the memory that [`Storage`] names and then in
//! files.

use std::ops::Range;

use curate_core::{Counters, Document, Dropped, Gate, Mapper, Value, Verdict, Work};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::kept::{Kept, KeptBudget};
use crate::options::{Place, Storage};
use crate::spill::SpillDir;
use crate::table::{DocNumber, KeyTable};

/// What is compared, and what happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct UnitOptions {
    pub unit: Unit,
    /// Compare only with documents of the same host.
    pub per_host: bool,
    pub ignore_case: bool,
    /// A unit of fewer characters, white space apart, is left alone.
    pub min_chars: usize,
    /// A document of which more than this share (of characters, white space apart) was cut is dropped.
    pub max_repeated: f64,
}

impl Default for UnitOptions {
    fn default() -> Self {
        Self { unit: Unit::Line, per_host: false, ignore_case: false, min_chars: 20, max_repeated: 0.8 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Line,
    /// Lines up to an empty one.
    Paragraph,
}

impl UnitOptions {
    pub fn validate(&self) -> Result<()> {
        match (0.0..=1.0).contains(&self.max_repeated) {
            true => Ok(()),
            false => Err(Error::MaxRepeated { got: self.max_repeated }),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UnitSummary {
    pub documents: u64,
    /// Documents of which something was cut, and which were kept.
    pub edited: u64,
    pub dropped: u64,
    /// Different units that are remembered.
    pub units: u64,
    /// Units that were cut, and their characters, white space apart; without those of dropped documents.
    pub cut: u64,
    pub cut_chars: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

/// Finds the units of a document. `host` says which site a document is from.
pub struct UnitMapper<H> {
    options: UnitOptions,
    host: H,
}

/// A unit of a document.
#[derive(Debug)]
pub struct UnitOfText {
    range: Range<usize>,
    chars: usize,
    /// `None` for one that is too short.
    key: Option<u64>,
}

impl<H: Fn(&Document<'_>) -> String + Sync> UnitMapper<H> {
    /// # Errors
    /// Options out of their range.
    pub fn new(options: UnitOptions, host: H) -> Result<Self> {
        options.validate()?;
        Ok(Self { options, host })
    }

    fn units(&self, text: &str, host: &str) -> Vec<UnitOfText> {
        let mut units = Vec::new();
        let mut start = 0;
        let mut end = 0;
        let mut blank = true;
        for line in text.split_inclusive('\n') {
            let is_blank = line.trim().is_empty();
            // A paragraph takes the empty lines behind it.
            let begins = match self.options.unit {
                Unit::Line => true,
                Unit::Paragraph => blank && !is_blank,
            };
            if begins && end > start {
                units.push(self.unit(text, start..end, host));
                start = end;
            }
            blank = is_blank;
            end += line.len();
        }
        if end > start {
            units.push(self.unit(text, start..end, host));
        }
        units
    }

    fn unit(&self, text: &str, range: Range<usize>, host: &str) -> UnitOfText {
        let mut hasher = Xxh3::new();
        if self.options.per_host {
            hasher.update(host.as_bytes());
            hasher.update(&[0xff]);
        }
        let mut chars = 0;
        for (i, word) in text[range.clone()].split_whitespace().enumerate() {
            if i > 0 {
                hasher.update(b" ");
            }
            chars += word.chars().count();
            match self.options.ignore_case {
                true => hasher.update(word.to_lowercase().as_bytes()),
                false => hasher.update(word.as_bytes()),
            }
        }
        let key = (chars > 0 && chars >= self.options.min_chars).then(|| hasher.digest());
        UnitOfText { range, chars, key }
    }
}

impl<H: Fn(&Document<'_>) -> String + Sync> Mapper for UnitMapper<H> {
    type Work = Vec<UnitOfText>;
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, _: &mut (), _: &mut Counters) -> Work<Self::Work> {
        let host = if self.options.per_host { (self.host)(doc) } else { String::new() };
        Work::Pending(self.units(doc.text(), &host))
    }
}

/// Cuts what earlier documents had.
#[derive(Debug)]
pub struct UnitGate {
    options: UnitOptions,
    table: KeyTable,
    kept: Kept,
    dir: SpillDir,
    summary: UnitSummary,
    /// Buffers.
    found: Vec<DocNumber>,
    repeated: Vec<bool>,
}

impl UnitGate {
    /// # Errors
    /// Options out of their range, or too little memory. An index is for whole documents: it is not used here.
    pub fn new(options: UnitOptions, storage: &Storage) -> Result<Self> {
        options.validate()?;
        storage.validate()?;
        let Place::TemporaryIn(parent) = &storage.place else { return Err(Error::IndexOfUnits) };
        let memory = usize::try_from(storage.memory).unwrap_or(usize::MAX);
        Ok(Self {
            options,
            table: KeyTable::new(memory / 2, memory / 4, u32::MAX),
            kept: Kept::new(KeptBudget { records: memory / 32, ids: memory / 32, sets: 0 }),
            dir: SpillDir::temporary_below(parent.clone()),
            summary: UnitSummary::default(),
            found: Vec::new(),
            repeated: Vec::new(),
        })
    }

    pub fn summary(&self) -> UnitSummary {
        let stores = self.kept.stores();
        UnitSummary {
            memory_bytes: self.table.memory() + stores.iter().map(|store| store.memory()).sum::<u64>(),
            disk_bytes: self.table.disk() + stores.iter().map(|store| store.disk()).sum::<u64>(),
            ..self.summary.clone()
        }
    }

    fn decide(&mut self, doc: &mut Document<'_>, units: &[UnitOfText]) -> Result<Verdict> {
        self.summary.documents += 1;
        self.repeated.clear();
        let (mut all, mut cut_chars, mut cut, mut first_holder) = (0, 0, 0, None);
        for unit in units {
            all += unit.chars;
            let mut holder = None;
            if let Some(key) = unit.key {
                self.found.clear();
                self.table.lookup(key, &mut self.found)?;
                holder = self.found.first().copied();
            }
            if holder.is_some() {
                cut_chars += unit.chars;
                cut += 1;
                first_holder = first_holder.or(holder);
            }
            self.repeated.push(holder.is_some());
        }
        let share = if all == 0 { 0.0 } else { cut_chars as f64 / all as f64 };
        if let Some(holder) = first_holder.filter(|_| share > self.options.max_repeated || cut_chars == all) {
            self.summary.dropped += 1;
            let (reason, rule) = match self.options.unit {
                Unit::Line => ("repeated_lines", "lines"),
                Unit::Paragraph => ("repeated_paragraphs", "paragraphs"),
            };
            let proof = vec![
                ("rule", Value::Text(rule.to_owned())),
                ("value", Value::Number(share)),
                ("threshold", Value::Number(self.options.max_repeated)),
                ("dup_of", Value::Text(self.kept.id(holder)?)),
            ];
            return Ok(Verdict::Drop(Dropped { reason: reason.into(), proof }));
        }
        let number = self.kept.push(0, doc.id(), &[], &mut self.dir)?;
        for (unit, _) in units.iter().zip(&self.repeated).filter(|(_, repeated)| !**repeated) {
            let Some(key) = unit.key else { continue };
            self.found.clear();
            self.table.lookup(key, &mut self.found)?;
            if self.found.is_empty() {
                self.table.insert(key, number, 0, &mut self.dir)?;
                self.summary.units += 1;
            }
        }
        if cut > 0 {
            self.summary.edited += 1;
            self.summary.cut += cut;
            self.summary.cut_chars += cut_chars as u64;
            let stay = units.iter().zip(&self.repeated).filter(|(_, repeated)| !**repeated);
            let mut text: String = stay.map(|(unit, _)| &doc.text()[unit.range.clone()]).collect();
            if !doc.text().ends_with('\n') {
                text.truncate(text.trim_end_matches('\n').len());
            }
            doc.set_text(text);
        }
        Ok(Verdict::Keep)
    }
}

impl Gate for UnitGate {
    type Work = Vec<UnitOfText>;

    fn admit(&mut self, doc: &mut Document<'_>, units: Self::Work) -> curate_core::Result<Verdict> {
        self.decide(doc, &units).map_err(curate_core::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn storage(memory: u64) -> Storage {
        Storage { memory, place: Place::TemporaryIn(std::env::temp_dir()) }
    }

    /// The host of a test document is its source.
    fn run(options: UnitOptions, docs: &[(&str, &str)]) -> (Vec<Option<String>>, UnitSummary) {
        let mapper = UnitMapper::new(options, |doc: &Document<'_>| doc.source().to_owned()).unwrap();
        let mut gate = UnitGate::new(options, &storage(16 << 20)).unwrap();
        let answer = docs.iter().enumerate().map(|(i, (host, text))| {
            let mut doc = Document::new(b"", i.to_string(), *host, *text);
            let Work::Pending(units) = mapper.map(&mut doc, &mut (), &mut Counters::default()) else {
                panic!("the mapper decides nothing");
            };
            let verdict = gate.admit(&mut doc, units).unwrap();
            (verdict == Verdict::Keep).then(|| doc.text().to_owned())
        });
        let answer = answer.collect();
        (answer, gate.summary())
    }

    fn check(options: UnitOptions, docs: &[(&str, &str)], expected: &[Option<&str>]) {
        let (answer, summary) = run(options, docs);
        assert_eq!(answer.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        assert_eq!(summary.documents, docs.len() as u64);
        assert_eq!(summary.dropped, expected.iter().filter(|text| text.is_none()).count() as u64);
    }

    const LINES: UnitOptions = UnitOptions {
        unit: Unit::Line,
        per_host: false,
        ignore_case: false,
        min_chars: 3,
        max_repeated: 0.8,
    };

    #[test]
    fn the_first_copy_of_a_line_stays() {
        check(
            LINES,
            &[
                ("", "menu home\nfirst text\nmenu home\n"),
                ("", "  menu\thome \nsecond text\nno\nno"),
                ("", "menu home\nfirst text"),
                ("", "third text\nMenu Home\n\nsecond text\nno"),
            ],
            &[
                Some("menu home\nfirst text\nmenu home\n"),
                Some("second text\nno\nno"),
                None,
                Some("third text\nMenu Home\n\nno"),
            ],
        );
        let folded = UnitOptions { ignore_case: true, ..LINES };
        check(
            folded,
            &[("", "Menu home\na b c"), ("", "menu HOME\nd e f")],
            &[Some("Menu home\na b c"), Some("d e f")],
        );
    }

    #[test]
    fn hosts_are_apart_if_asked() {
        let docs = [("a", "menu\ntext one"), ("b", "menu\ntext two"), ("a", "menu\ntext three")];
        check(LINES, &docs, &[Some("menu\ntext one"), Some("text two"), Some("text three")]);
        let per_host = UnitOptions { per_host: true, ..LINES };
        check(per_host, &docs, &[Some("menu\ntext one"), Some("menu\ntext two"), Some("text three")]);
    }

    #[test]
    fn paragraphs_are_taken_whole() {
        let options = UnitOptions { unit: Unit::Paragraph, ..LINES };
        check(
            options,
            &[
                ("", "one\ntwo\n\n\nthree four\n"),
                ("", "\n\nfive\n \none\ntwo\n\nsix\nseven"),
                ("", "one\n\ntwo"),
                ("", "three four\n"),
            ],
            &[Some("one\ntwo\n\n\nthree four\n"), Some("\n\nfive\n \nsix\nseven"), Some("one\n\ntwo"), None],
        );
    }

    #[test]
    fn what_is_dropped_had_nothing_first() {
        let half = UnitOptions { max_repeated: 0.5, ..LINES };
        let docs = [("", "aaaaaaaaaa\nbbb"), ("", "aaaaaaaaaa\nccc"), ("", "ccc\nddd")];
        check(half, &docs, &[Some(docs[0].1), None, Some("ccc\nddd")]);
        let (_, summary) = run(half, &docs);
        assert_eq!((summary.units, summary.cut, summary.edited), (4, 0, 0));
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_the_definition(
            texts in prop::collection::vec("([abc]{1,4}\n){0,6}[abc]{0,3}", 0..25),
            max_repeated in prop::sample::select(vec![0.3, 0.8, 1.0]),
        ) {
            let options = UnitOptions { max_repeated, min_chars: 2, ..LINES };
            let docs: Vec<(&str, &str)> = texts.iter().map(|text| ("", text.as_str())).collect();
            let (answer, _) = run(options, &docs);
            let mut first: HashMap<&str, usize> = HashMap::new();
            for (i, text) in texts.iter().enumerate() {
                let is_cut = |line: &str| line.trim().len() >= 2 && first.contains_key(line.trim());
                let stay: String = text.split_inclusive('\n').filter(|line| !is_cut(line)).collect();
                let (all, left) = (text.replace('\n', "").len(), stay.replace('\n', "").len());
                let cut = all - left;
                let is_dropped = cut > 0 && (cut == all || cut as f64 / all as f64 > max_repeated);
                prop_assert_eq!(answer[i].is_none(), is_dropped, "{} {:?}", i, text);
                if let Some(text_now) = &answer[i] {
                    let expected = if text.ends_with('\n') || cut == 0 { &stay[..] } else { stay.trim_end_matches('\n') };
                    prop_assert_eq!(text_now, expected);
                    for line in text.lines().filter(|line| line.len() >= 2) {
                        first.entry(line).or_insert(i);
                    }
                }
            }
        }
    }
}
