//! Prints how a splitter takes documents apart: `split_words WORDS < documents.jsonl` writes a JSON list of words a line.
#![allow(clippy::print_stdout)]

use std::io::{BufRead, Write};

use curate_clean::Words;
use serde_json::Value;

fn main() {
    let words: Words = std::env::args().nth(1).and_then(|name| name.parse().ok()).expect("words are named");
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let record: Value = serde_json::from_str(&line.expect("input is UTF-8")).expect("input is JSON");
        let text = record["text"].as_str().expect("a record has a text");
        let found: Vec<&str> = words.split(text).collect();
        serde_json::to_writer(&mut out, &found).expect("standard output takes it");
        out.write_all(b"\n").expect("standard output takes it");
    }
}
