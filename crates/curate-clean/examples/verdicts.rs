//! Prints the verdict of each recipe on each document, and the CPU seconds that each recipe took.
//!
//! `verdicts RECIPE[,RECIPE...] [ROUNDS] < documents.jsonl > verdicts.jsonl`: records with `id` and `text` in, rows with
//! `id` and a verdict and the length of an edited text by recipe out. Seconds go to standard error as JSON, one thread,
//! the best of the rounds, without reading and parsing. A recipe that ends in `.toml` is a file.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{BufRead, Write};

use curate_clean::{CleanScratch, Cleaner, Recipe};
use curate_core::{Counters, Document, Mapper, Verdict, Work};
use serde_json::{Map, Value, json};

/// CPU time of this process so far.
fn cpu_seconds() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux counts CPU time");
    let nanoseconds = schedstat.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    nanoseconds.expect("the first number is nanoseconds") / 1e9
}

fn read(recipe: &str) -> Recipe {
    if recipe.ends_with(".toml") {
        let text = std::fs::read_to_string(recipe).expect("the recipe can be read");
        return Recipe::from_toml(&text, recipe).expect("the recipe is sound");
    }
    Recipe::builtin(recipe).expect("a built-in recipe")
}

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
        let cleaner = Cleaner::new(read(recipe)).expect("it compiles");
        let mut scratch = CleanScratch::default();
        let mut best = f64::MAX;
        for round in 0..rounds {
            let start = cpu_seconds();
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
            best = best.min(cpu_seconds() - start);
        }
        eprintln!(
            "{}",
            json!({ "recipe": recipe, "documents": documents.len(), "megabytes": bytes as f64 / 1e6, "cpu_seconds": best })
        );
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for row in rows {
        writeln!(out, "{}", Value::Object(row)).expect("output can be written");
    }
}
