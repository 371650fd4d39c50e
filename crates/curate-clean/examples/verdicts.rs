//! Prints the verdict of each recipe on each document, and the CPU seconds that each recipe took.
//!
//! `verdicts RECIPE[,RECIPE...] [ROUNDS] < documents.jsonl > verdicts.jsonl`: records with `id` and `text` in, rows with
//! `id` and a verdict and the length of an edited text by recipe out. Seconds go to standard error as JSON, one thread,
//! the best of the rounds, without reading and parsing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{BufRead, Write};
use std::time::Instant;

use curate_clean::{CleanScratch, Cleaner, Recipe};
use curate_core::{Counters, Document, Mapper, Verdict, Work};
use serde_json::{Map, Value, json};

fn main() {
    let mut args = std::env::args().skip(1);
    let recipes = args.next().expect("recipes are named");
    let rounds: usize = args.next().map_or(1, |n| n.parse().expect("rounds are a number"));
    let documents: Vec<(Value, String)> = std::io::stdin()
        .lock()
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let mut record: Value =
                serde_json::from_str(&line.expect("input is UTF-8")).expect("input is JSON");
            let id = record.get("id").cloned().unwrap_or_else(|| i.to_string().into());
            let Value::String(text) = record["text"].take() else { panic!("line {}: no text", i + 1) };
            (id, text)
        })
        .collect();
    let bytes: usize = documents.iter().map(|(_, text)| text.len()).sum();
    let mut rows: Vec<Map<String, Value>> =
        documents.iter().map(|(id, _)| Map::from_iter([("id".to_owned(), id.clone())])).collect();
    for recipe in recipes.split(',') {
        let cleaner = Cleaner::new(Recipe::builtin(recipe).expect("a built-in recipe")).expect("it compiles");
        let mut scratch = CleanScratch::default();
        let mut best = f64::MAX;
        for round in 0..rounds {
            let start = Instant::now();
            for ((_, text), row) in documents.iter().zip(&mut rows) {
                let mut doc = Document::new(b"", "id", "", text.as_str());
                let verdict = match cleaner.map(&mut doc, &mut scratch, &mut Counters::default()) {
                    Work::Decided(Verdict::Keep) => "keep".to_owned(),
                    Work::Decided(Verdict::Drop(dropped)) => dropped.reason.to_string(),
                    Work::Pending(never) => match never {},
                };
                if round == 0 {
                    if verdict == "keep" && doc.is_edited() {
                        row.insert(format!("{recipe}_characters"), doc.text().chars().count().into());
                    }
                    row.insert(recipe.to_owned(), verdict.into());
                }
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        eprintln!(
            "{}",
            json!({ "recipe": recipe, "documents": documents.len(), "megabytes": bytes as f64 / 1e6, "seconds": best })
        );
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for row in rows {
        writeln!(out, "{}", Value::Object(row)).expect("output can be written");
    }
}
