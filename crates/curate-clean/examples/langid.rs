//! Tells the language of every line of a JSON Lines file with a `text` field; prints `code script score microseconds`.
//!
//! Time is CPU work of one thread, the smallest of `rounds` passes over each text.

#![allow(clippy::print_stdout, reason = "an example's output is its result")]

use std::io::{BufRead, stdin};
use std::time::Instant;

use curate_clean::{LanguageId, LanguageScratch};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let texts: Vec<String> = stdin()
        .lock()
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(&line?)?;
            Ok(record["text"].as_str().unwrap_or_default().to_owned())
        })
        .collect::<Result<_, Box<dyn std::error::Error>>>()?;
    let rounds: usize = std::env::args().nth(1).map_or(Ok(1), |rounds| rounds.parse())?;
    let model = LanguageId::embedded();
    let mut scratch = LanguageScratch::default();
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        for text in &texts {
            std::hint::black_box(model.identify(text, &mut scratch));
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    for text in &texts {
        let found = model.identify(text, &mut scratch);
        let (second, second_score) = found.runner_up.unwrap_or((found.language, 0.0));
        println!(
            "{} {} {} {second} {second_score} {} {}",
            found.language,
            found.script.as_str(),
            found.score,
            found.other_share,
            text.len(),
        );
    }
    println!("# {:.3} microseconds a document", best * 1e6 / texts.len().max(1) as f64);
    Ok(())
}
