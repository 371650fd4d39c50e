//! Normalises texts as they come and texts that were prepared elsewhere, for `benches/clean/ftfy.py`.
//!
//! usage: `normalise_sample TEXTS.jsonl NORMAL.jsonl`; a line is a JSON string. The last line on stdout is JSON: bytes,
//! seconds of the fastest of three passes, texts by kind of change.

#![allow(clippy::print_stdout)]
// The output is scratch: nobody reads it before the program has ended.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::time::Instant;

use curate_clean::Normaliser;
use curate_core::Counters;
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [texts, normal] = arguments.as_slice() else {
        return Err("usage: normalise_sample TEXTS.jsonl NORMAL.jsonl".into());
    };
    let texts: Vec<String> = BufReader::new(File::open(texts)?)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let normaliser = Normaliser::new();
    let mut out = BufWriter::new(File::create(normal)?);
    let mut counters = Counters::default();
    for text in &texts {
        let (normal, changes) = normaliser.normalise(text);
        changes.count(&mut counters);
        writeln!(out, "{}", json!(normal))?;
    }
    out.flush()?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        texts.iter().for_each(|text| drop(std::hint::black_box(normaliser.normalise(text))));
        best = best.min(start.elapsed().as_secs_f64());
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    println!("{}", json!({"bytes": bytes, "seconds": best, "counters": format!("{counters:?}")}));
    Ok(())
}
