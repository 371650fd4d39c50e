//! The demo: the whole path, from the prose of the dependency crates to held-out perplexity.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::metadata::root;
use crate::{Result, corpus};

/// Where everything of the demo lies, below the root of the repository.
const DIR: &str = "demo";
const VOCABULARY: &str = "4096";
/// About two minutes on two cores; small steps, because their number is what a run this short lacks.
const TRAINING: &str = "--preset gpt2-tiny --position rope --batch-tokens 2048 --log-every 100 --steps";
const STEPS: &str = "900";
const PROMPT: &str = "Returns the number of";

/// Runs the demo with the release binaries and prints what came of it.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    std::env::set_current_dir(root())?;
    clear()?;
    heading("gathering the documentation of the locked dependency crates");
    corpus::write(Path::new("demo/corpus.jsonl"))?;
    heading("training a tokenizer");
    curate("train-tokenizer demo/corpus.jsonl -o demo/tokenizer.json --vocab-size", &[VOCABULARY])?;
    heading("pipelines/demo.toml: clean, dedup, tokenize, pack");
    curate("run pipelines/demo.toml", &[])?;
    heading("the same as a shell pipe, pipelines/demo.sh");
    shell_pipe()?;
    heading("training a small GPT, about two minutes on a CPU");
    curate(&format!("train demo/shards -o demo/run {TRAINING}"), &[STEPS])?;
    heading(&format!("a sample, after the prompt {PROMPT:?}"));
    curate("generate demo/run --max-tokens 120 --temperature 0.8 --top-k 40 --seed 1 --prompt", &[PROMPT])?;
    println!("\n");
    print_summary()?;
    println!("\nall of it took {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Removes what an earlier demo left; the directory holds nothing else.
fn clear() -> Result<()> {
    match fs::remove_dir_all(DIR) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// Runs `curate` with the words of `line`, then `more` as they stand.
fn curate(line: &str, more: &[&str]) -> Result<()> {
    check(Command::new(program()).args(line.split(' ')).args(more))
}

fn check(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// Runs the pipe and compares its shards with those of the fused run.
fn shell_pipe() -> Result<()> {
    check(Command::new("pipelines/demo.sh").env("CURATE", program()))?;
    let mut files: Vec<_> =
        fs::read_dir("demo/shards")?.map(|e| Ok(e?.file_name())).collect::<Result<_>>()?;
    files.sort();
    for file in &files {
        if fs::read(Path::new("demo/shards").join(file))?
            != fs::read(Path::new("demo/shards-from-pipe").join(file))?
        {
            return Err(format!("{} differs between the fused run and the pipe", file.display()).into());
        }
    }
    println!("all {} files of the shard sets are byte for byte the same", files.len());
    fs::remove_dir_all("demo/shards-from-pipe")?;
    Ok(())
}

fn json(path: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path).map_err(|e| format!("{path}: {e}"))?)?)
}

/// The funnel, the losses, and where everything lies.
fn print_summary() -> Result<()> {
    let report = json("demo/report.json")?;
    println!("== what came of it\n");
    println!("{:<28}{:>12}{:>14}", "", "documents", "text");
    row("read", &report["read"], &report["text_bytes_in"]);
    for stage in report["stages"].as_array().ok_or("no stages in demo/report.json")? {
        let name = stage["name"].as_str().unwrap_or_default();
        if name == "tokenize" {
            continue;
        }
        for (reason, n) in stage["dropped"].as_object().into_iter().flatten() {
            println!("  - {:<24}{:>12}", reason, thousands(n));
        }
        row(&format!("after {name}"), &stage["kept"], &stage["text_bytes_out"]);
    }
    let tokens = &report["tokens"];
    let per_token = number(&tokens["text_bytes"]) / number(&tokens["tokens"]);
    println!("{:<28}{:>12} of {per_token:.2} bytes", "tokens", thousands(&tokens["tokens"]));

    let losses = log_losses()?;
    let evaluation = json("demo/run/eval-val.json")?;
    let (held_out, unigram) = (&evaluation["total"], &evaluation["unigram"]);
    println!("\n{:<28}{:>12}", "", "nats/token");
    println!("{:<28}{:>12.3}", "training loss, first step", losses.0);
    println!("{:<28}{:>12.3}", "training loss, last steps", losses.1);
    println!("{:<28}{:>12.3}", "held-out loss", number(&held_out["nats_per_token"]));
    println!("{:<28}{:>12.3}", "held-out loss of unigrams", number(&unigram["nats_per_token"]));
    println!("{:<28}{:>12.1}", "held-out perplexity", number(&held_out["perplexity"]));
    println!("{:<28}{:>12.3}", "held-out bits per byte", number(&held_out["bits_per_byte"]));

    println!("\nwhere it lies");
    for (path, what) in [
        ("corpus.jsonl", "the documents"),
        ("rejects.jsonl", "what clean dropped, each with rule, value and threshold"),
        ("removed.jsonl", "what dedup removed, each with the kept document and the similarity"),
        ("report.json", "the counts"),
        ("shards/", "the tokens: .bin/.idx, views, manifest.json"),
        ("run/", "checkpoints, log.jsonl, eval-val.json"),
    ] {
        println!("  {:<24}{what}", format!("{DIR}/{path}"));
    }
    Ok(())
}

fn row(name: &str, documents: &Value, bytes: &Value) {
    println!("{name:<28}{:>12}{:>11.1} MB", thousands(documents), number(bytes) / 1e6);
}

/// The training loss of the first step, and its mean over the last tenth.
fn log_losses() -> Result<(f64, f64)> {
    let log = fs::read_to_string("demo/run/log.jsonl")?;
    let losses: Vec<f64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["loss_nats"].as_f64())
        .collect();
    let last = &losses[losses.len() - (losses.len() / 10).max(1)..];
    Ok((
        *losses.first().ok_or("no losses in demo/run/log.jsonl")?,
        last.iter().sum::<f64>() / last.len() as f64,
    ))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn thousands(value: &Value) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The release build of `curate`, wherever cargo was told to build.
fn program() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join("release/curate")
}
