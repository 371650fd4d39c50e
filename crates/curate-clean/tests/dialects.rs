//! Recipes give the verdicts and reasons of the implementations that they pin, on the documents of `fixtures/goldens`.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use curate_clean::{CleanScratch, Cleaner, Recipe};
use curate_core::{Counters, Document, Mapper, Verdict, Work};
use serde_json::Value;

fn rows(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/goldens").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    text.split('\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The verdict on a text, and the text if it was edited.
fn judge(cleaner: &Cleaner, text: &str, scratch: &mut CleanScratch) -> (String, Option<String>) {
    let mut doc = Document::new(b"", "id", "", text);
    match cleaner.map(&mut doc, scratch, &mut Counters::default()) {
        Work::Decided(Verdict::Keep) => ("keep".to_owned(), doc.is_edited().then(|| doc.text().to_owned())),
        Work::Decided(Verdict::Drop(dropped)) => (dropped.reason.to_string(), None),
        Work::Pending(never) => match never {},
    }
}

/// `expected` picks the verdict and the edited text from a row of the golden file.
#[track_caller]
fn check(recipe: &str, file: &str, expected: impl Fn(&Value) -> (&Value, &Value)) {
    let (documents, goldens) = (rows("documents.jsonl"), rows(file));
    assert_eq!(documents.len(), goldens.len());
    let cleaner = Cleaner::new(Recipe::builtin(recipe).unwrap()).unwrap();
    let mut scratch = CleanScratch::default();
    let mut failures = Vec::new();
    for (document, golden) in documents.iter().zip(&goldens) {
        assert_eq!(document["id"], golden["id"]);
        let (verdict, text) = judge(&cleaner, document["text"].as_str().unwrap(), &mut scratch);
        let (expected_verdict, expected_text) = expected(golden);
        if *expected_verdict != *verdict {
            failures.push(format!("{}: {verdict}, not {expected_verdict}", document["id"]));
        } else if expected_text.as_str() != text.as_deref() {
            failures.push(format!("{}: left {text:?}, not {expected_text}", document["id"]));
        }
    }
    assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), documents.len());
    let reasons = cleaner.reasons().into_iter().filter(|reason| *reason != "too_many_words");
    let unseen: Vec<_> =
        reasons.filter(|reason| !goldens.iter().any(|golden| *expected(golden).0 == **reason)).collect();
    println!("{recipe}: no golden document is dropped as {unseen:?}");
}

#[test]
fn fineweb2_by_language() {
    for language in ["fra_Latn", "cmn_Hani", "rus_Cyrl", "hin_Deva"] {
        let recipe = format!("fineweb2:{language}");
        check(&recipe, "fineweb2.jsonl", |golden| (&golden[language], &Value::Null));
    }
}

#[test]
fn dolma_as_meant() {
    check("dolma-v1.5", "dolma.jsonl", |golden| (&golden["verdict"], &Value::Null));
}

#[test]
fn dolma_as_run() {
    check("dolma-v1.5-asrun", "dolma.jsonl", |golden| (&golden["asrun"], &Value::Null));
}

#[test]
fn nemo_with_ties_by_place() {
    check("nemo-en", "nemo.jsonl", |golden| (&golden["ties"], &Value::Null));
}

#[test]
fn dclm() {
    check("dclm", "dclm.jsonl", |golden| (&golden["verdict"], &golden["text"]));
}

#[test]
fn refinedweb_edits() {
    check("refinedweb", "dclm.jsonl", |golden| (&golden["edits"]["verdict"], &golden["edits"]["text"]));
}

/// Verdict, and length of the edited text, of the recipe in datatrove's golden file.
#[track_caller]
fn check_datatrove(recipe: &str) {
    let cleaner = Cleaner::new(Recipe::builtin(recipe).unwrap()).unwrap();
    let mut scratch = CleanScratch::default();
    let mut failures = Vec::new();
    for (document, golden) in rows("documents.jsonl").iter().zip(rows("datatrove.jsonl")) {
        assert_eq!(document["id"], golden["id"]);
        let (verdict, text) = judge(&cleaner, document["text"].as_str().unwrap(), &mut scratch);
        let found = (verdict.as_str(), text.map(|text| text.chars().count() as u64));
        let golden = &golden[recipe];
        let expected = (golden["verdict"].as_str().unwrap(), golden["characters"].as_u64());
        if found != expected {
            failures.push(format!("{}: {found:?}, not {expected:?}", document["id"]));
        }
    }
    assert!(failures.is_empty(), "{}: {failures:#?}", failures.len());
}

#[test]
fn datatrove_gopher() {
    check_datatrove("gopher");
}

#[test]
fn datatrove_c4() {
    check_datatrove("c4");
}

#[test]
fn datatrove_fineweb() {
    check_datatrove("fineweb");
}

/// The statistics that dolma's rules compare, in the order of the golden values.
const DOLMA: [&str; 20] = [
    "dolma_words",
    "dolma_words",
    "dolma_median_word_length",
    "dolma_median_word_length",
    "dolma_symbol_ratio",
    "dolma_alphabetic_words_ratio",
    "dolma_stop_words",
    "dolma_bullet_lines_ratio",
    "dolma_ellipsis_lines_ratio",
    "dolma_duplicate_lines_ratio",
    "dolma_duplicate_line_characters_ratio",
    "dolma_top_2grams",
    "dolma_top_3grams",
    "dolma_top_4grams",
    "dolma_duplicate_5grams",
    "dolma_duplicate_6grams",
    "dolma_duplicate_7grams",
    "dolma_duplicate_8grams",
    "dolma_duplicate_9grams",
    "dolma_duplicate_10grams",
];

#[test]
fn dolma_values_to_the_last_decimal() {
    let cleaner = Cleaner::new(Recipe::builtin("dolma-v1.5").unwrap()).unwrap();
    for (document, golden) in rows("documents.jsonl").iter().zip(rows("dolma.jsonl")) {
        let Some(values) = golden["values"].as_array() else { continue };
        let measurements = cleaner.measure(document["text"].as_str().unwrap());
        for (name, expected) in DOLMA.iter().zip(values) {
            assert_eq!(measurements.get(name), expected.as_f64(), "{name} of {}", document["id"]);
        }
    }
}

#[test]
fn explaining_and_deciding_agree() {
    let mut scratch = CleanScratch::default();
    for recipe in ["dclm", "refinedweb", "dolma-v1.5", "nemo-en", "gopher", "c4", "fineweb"] {
        let cleaner = Cleaner::new(Recipe::builtin(recipe).unwrap()).unwrap();
        for document in rows("documents.jsonl") {
            let text = document["text"].as_str().unwrap();
            let (verdict, _) = judge(&cleaner, text, &mut scratch);
            let explained = cleaner.explain(text).into_iter().find(|outcome| outcome.fired);
            let explained = explained.map_or("keep".to_owned(), |outcome| outcome.reason);
            assert!(
                verdict == explained || verdict == "empty",
                "{recipe}, {}: {verdict}, {explained}",
                document["id"]
            );
        }
    }
}

#[test]
fn edits_are_counted_by_document() {
    let cleaner = Cleaner::new(Recipe::builtin("refinedweb").unwrap()).unwrap();
    let mut scratch = CleanScratch::default();
    let mut counters = Counters::default();
    for text in [
        "The http://example.com of a page\n\n\n\nhas more\nHOME\nthan one line of text and so on for a while until it is long enough",
        "The page stays",
    ] {
        let mut doc = Document::new(b"", "id", "", text);
        cleaner.map(&mut doc, &mut scratch, &mut counters);
    }
    let mut expected = Counters::default();
    for name in ["urls_removed", "line_feeds_squeezed", "lines_edited"] {
        expected.add(name, 1);
    }
    assert_eq!(counters, expected);
}
