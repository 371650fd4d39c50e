//! The `gopher` recipe gives the verdicts and reasons of the filter that it pins.

use curate_clean::{CleanScratch, Cleaner, Recipe};
use curate_core::{Counters, Document, Mapper, Verdict, Work};
use toml::{Table, Value};

/// Where our reason is another than the original's: a text without a word is `empty` before any rule is asked.
const EMPTY_THERE: &str = "too_few_words";

fn cases() -> Vec<(String, String, String)> {
    let file: Table = include_str!("gopher.toml").parse().unwrap();
    let string = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    let text = |case: &Value| case["text"].as_array().unwrap().iter().map(piece).collect();
    file["case"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (string(c, "name"), text(c), string(c, "verdict")))
        .collect()
}

fn piece(piece: &Value) -> String {
    piece[0].as_str().unwrap().repeat(piece[1].as_integer().unwrap().try_into().unwrap())
}

#[test]
fn verdicts_and_reasons_are_those_of_the_original() {
    let cases = cases();
    assert!(cases.len() >= 40, "{} cases", cases.len());
    let cleaner = Cleaner::new(Recipe::builtin("gopher-quality").unwrap()).unwrap();
    let mut scratch = CleanScratch::default();
    let mut failures = Vec::new();
    for (name, text, expected) in cases {
        let mut doc = Document::new(b"", "id", "", text.as_str());
        let found = match cleaner.map(&mut doc, &mut scratch, &mut Counters::default()) {
            Work::Decided(Verdict::Keep) => "keep".to_owned(),
            Work::Decided(Verdict::Drop(dropped)) => dropped.reason.to_string(),
            Work::Pending(never) => match never {},
        };
        let expected = match text.split_whitespace().next() {
            None if expected == EMPTY_THERE => curate_clean::EMPTY.to_owned(),
            _ => expected,
        };
        if found != expected {
            failures.push(format!("{name}: {found}, not {expected}"));
        }
        assert!(!doc.is_edited(), "{name}: the recipe does not normalise");
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn cases_cover_every_reason() {
    let cleaner = Cleaner::new(Recipe::builtin("gopher-quality").unwrap()).unwrap();
    let cases = cases();
    for reason in cleaner.reasons().into_iter().filter(|reason| *reason != curate_clean::EMPTY) {
        assert!(cases.iter().any(|(_, _, verdict)| verdict == reason), "no case is dropped as {reason}");
    }
}
