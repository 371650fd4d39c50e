//! Extracts every page of a sample and writes `{"id": …, "text": …}` lines, for `benches/extract/run.py`.
//!
//! usage: `extract_sample ENGINE SAMPLE.jsonl PREDICTIONS.jsonl`; a record has `id` and `metadata.html`. The last
//! line on stdout is JSON: pages, CPU seconds of all threads spent in extraction, and texts by engine.

#![allow(clippy::print_stdout)]
// The predictions are scratch: nobody reads them before the program has ended.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};

use curate_clean::{ExtractOptions, PageExtractor, PageText};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, sample, predictions] = arguments.as_slice() else {
        return Err("usage: extract_sample ENGINE SAMPLE.jsonl PREDICTIONS.jsonl".into());
    };
    let pages: Vec<Value> = BufReader::new(File::open(sample)?)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let html = |page: &Value| page["metadata"]["html"].as_str().unwrap_or_default().to_owned();
    let extractor =
        PageExtractor::new(ExtractOptions { engine: engine.parse()?, ..ExtractOptions::default() });
    // Tables that are built once are not part of a page's cost.
    extractor.extract(&pages.first().map(html).unwrap_or_default(), None);

    let mut out = BufWriter::new(File::create(predictions)?);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut cpu_seconds = 0.0;
    for page in &pages {
        let html = html(page);
        let start = cpu_time()?;
        let result = extractor.extract(&html, page["metadata"]["url"].as_str());
        let spent = cpu_time()? - start;
        cpu_seconds += spent;
        let (text, by) = match result {
            PageText::Text(found) => (found.text, found.engine),
            PageText::SetAside(reason) => (String::new(), reason),
        };
        *counts.entry(by).or_default() += 1;
        writeln!(out, "{}", json!({"id": page["id"], "text": text, "by": by, "cpu_seconds": spent}))?;
    }
    out.flush()?;
    println!("{}", json!({"engine": engine, "pages": pages.len(), "cpu_seconds": cpu_seconds, "by": counts}));
    Ok(())
}

/// Seconds that the threads of this process have run, as Linux counts them in nanoseconds.
fn cpu_time() -> Result<f64, Box<dyn Error>> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let times = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += times.split_whitespace().next().unwrap_or("0").parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}
