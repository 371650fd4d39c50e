//! Times scoring without anything around it, and prints what it answers: the inner half of `benches/quality/run.py`.
//!
//! `score_bench predict MODEL [REMOVE]` reads texts as JSON strings, one a line, and prints label and probability of
//! each, then on stderr the seconds; `score_bench score MODEL LABEL` prints scores.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::time::Instant;

use curate_clean::fasttext::{Model, Newlines, PredictScratch};
use curate_clean::quality::{ScoreScratch, Scorer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, path, rest @ ..] = args.as_slice() else { return Err("MODE MODEL".into()) };
    let bytes = std::fs::read(path)?;
    let lines: Vec<String> = std::io::stdin().lines().collect::<Result<_, _>>()?;
    let texts: Vec<String> = lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let answers = match mode.as_str() {
        "predict" => {
            let newlines = if rest.is_empty() { Newlines::Space } else { Newlines::Remove };
            let model = Model::read(&bytes)?;
            let mut scratch = PredictScratch::default();
            timed(&texts, |text| model.predict(text, newlines, 1, 0.0, &mut scratch).first().copied())
                .into_iter()
                .map(|found| found.map_or(("", 0.0), |p| (model.labels()[p.label].as_str(), p.probability)))
                .map(|(label, p)| format!("{label}\t{p}\n"))
                .collect::<String>()
        }
        _ => {
            let scorer = Scorer::read(&bytes, rest.first().map(String::as_str), Newlines::Space)?;
            let mut scratch = ScoreScratch::default();
            let scores = timed(&texts, |text| scorer.score(text, &mut scratch));
            scores.iter().map(|score| format!("score\t{score}\n")).collect()
        }
    };
    print!("{answers}");
    Ok(())
}

/// What `answer` says of each text; the CPU seconds of a pass go to stderr: the mean of as many passes as take a second,
/// since the system counts in ticks.
fn timed<T>(texts: &[String], mut answer: impl FnMut(&str) -> T) -> Vec<T> {
    let mut answers = Vec::with_capacity(texts.len());
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let seconds = || match (cpu, cpu_seconds()) {
        (Some(start), Some(now)) => now - start,
        _ => start.elapsed().as_secs_f64(),
    };
    let mut passes = 0;
    while passes < 3 || seconds() < 1.0 {
        answers.clear();
        answers.extend(texts.iter().map(|text| answer(text)));
        passes += 1;
    }
    eprintln!("{}", seconds() / f64::from(passes));
    answers
}

/// Time that this thread has spent on a processor, where the system says it: a busy machine does not disturb it.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = stat.split(' ').next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}
