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
