//! Whole paths, from raw text to held-out perplexity. They need the trainer, which is built where libtorch is.

use std::path::Path;

use crate::support::{CURATE, Scratch, corpus, report, shell};

/// True if `curate-train` was built beside `curate`; else says why the test is skipped.
fn trainer_is_built() -> bool {
    let built = Path::new(CURATE).with_file_name("curate-train").exists();
    if !built {
        println!(
            "skipped: curate-train is not built (python3 tools/bootstrap.py && cargo build --workspace)"
        );
    }
    built
}

#[test]
fn without_the_trainer_the_one_command_is_named() {
    let dir = Scratch::new();
    let alone = dir.path("curate");
    std::fs::copy(CURATE, &alone).unwrap();
    let line = format!("PATH=/nowhere {} train shards", alone.display());
    let out = shell(&line, "").expect(2);
    assert!(
        out.stderr.contains("python3 tools/bootstrap.py && cargo build --release --workspace"),
        "{}",
        out.stderr
    );
}

#[test]
fn a_pipe_ends_in_held_out_perplexity() {
    if !trainer_is_built() {
        return;
    }
    let dir = Scratch::new();
    let (shards, run) = (dir.path("shards"), dir.path("run"));
    let line = format!(
        "curate clean -q --max-malformed 1 | curate dedup -q --minhash | curate tokenize -q --tokenizer bytes | \
         curate pack -q --seq-len 64 --split val=0.1 -o {shards} && \
         curate train {shards} --preset gpt2-tiny --layers 2 --channels 64 --heads 2 --steps 30 --device cpu -o {run} && \
         curate eval {run} --split val && curate generate {run} --prompt 'the river' --max-tokens 20 --seed 1",
        shards = shards.display(),
        run = run.display()
    );
    let out = shell(&line, corpus(500)).ok();
    assert!(!out.stdout.is_empty(), "generate printed nothing");
    let eval = report(&run.join("eval-val.json"));
    let perplexity = eval["total"]["perplexity"].as_f64().unwrap();
    assert!(perplexity > 1.0 && perplexity < 150.0, "better than the 257 of a guess: {eval}");
}

#[test]
fn the_handbooks_example_learns_its_text_by_heart() {
    if !trainer_is_built() {
        return;
    }
    let dir = Scratch::new();
    let out = shell(&format!("pipelines/handbook-char.sh {}", dir.path("").display()), "").ok();
    let eval = report(&dir.path("run/eval-train.json"));
    assert!(eval["total"]["perplexity"].as_f64().unwrap() <= 5.0, "{eval}");
    assert!(out.stdout().contains("brown fox"), "{}", out.stdout());
    let log = std::fs::read_to_string(dir.path("run/log.jsonl")).unwrap();
    let sample = log.lines().find(|line| line.contains("\"event\":\"sample\"")).unwrap();
    assert!(sample.contains("\"text\":\"the quick"), "{sample}");
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    let loss = first["loss_nats"].as_f64().unwrap();
    assert!((loss - 27f64.ln()).abs() < 0.05, "the first loss is near ln 27: {loss}");
}
