//! Finds personal data in a sample and writes the findings, for `benches/clean/pii.py`.
//!
//! usage: `pii_sample DOCUMENTS.jsonl FINDINGS.jsonl`; a record has `text`. A finding is the kind, its first and last
//! byte; the last line on stdout is JSON: bytes, CPU seconds of one pass that scrubs, findings by kind.

#![allow(clippy::print_stdout)]
// The findings are scratch: nobody reads them before the program has ended.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::time::Instant;

use curate_clean::{Pii, PiiOptions, PiiScratch};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [documents, findings] = arguments.as_slice() else {
        return Err("usage: pii_sample DOCUMENTS.jsonl FINDINGS.jsonl".into());
    };
    let texts: Vec<String> = BufReader::new(File::open(documents)?)
        .lines()
        .map(|line| {
            Ok(serde_json::from_str::<Value>(&line?)?["text"].as_str().unwrap_or_default().to_owned())
        })
        .collect::<Result<_, Box<dyn Error>>>()?;
    let pii = Pii::new(PiiOptions::default());
    let mut out = BufWriter::new(File::create(findings)?);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for text in &texts {
        let spans = pii.find(text);
        spans.iter().for_each(|span| *counts.entry(span.label).or_default() += 1);
        let spans: Vec<Value> =
            spans.iter().map(|s| json!([s.kind.name(), s.range.start, s.range.end])).collect();
        writeln!(out, "{}", json!(spans))?;
    }
    out.flush()?;
    let mut scratch = PiiScratch::default();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for text in &texts {
            std::hint::black_box(pii.scrub(text, &mut scratch));
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    println!(
        "{}",
        json!({"bytes": bytes, "seconds": best, "mb_per_s": bytes as f64 / 1e6 / best, "findings": counts})
    );
    Ok(())
}
