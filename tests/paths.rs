//! Whole paths, from raw text to held-out perplexity. They need the trainer, which is built where libtorch is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{CURATE, Scratch, corpus, report, shell};
use crate::tokens::sources;

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

/// The log of a run, line by line.
fn log(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_mix_is_trained_on_and_its_sources_are_counted() {
    if !trainer_is_built() {
        return;
    }
    let dir = Scratch::new();
    let (shards, one, two) = (dir.path("shards"), dir.path("one"), dir.path("two"));
    let [set, one_run, two_runs] = [&shards, &one, &two].map(|path| path.display());
    let flags = "--preset char-tiny --batch-size 8 --micro-batch 4 --steps 25 --device cpu --threads 1";
    let line = format!(
        "curate tokenize -q --tokenizer bytes | curate pack -q --seq-len 64 --policy best-fit --split val=0.1 \
         --mix web=0.5,code=0.3:2,books=0.2:9 --mix-tokens 20000 --materialise=1 -o {set} && \
         curate train {set} {flags} -o {one_run} && curate train {set} {flags} --nproc 2 -q -o {two_runs}"
    );
    let said = shell(&line, sources(200)).ok().stderr;
    let counts = |run: &Path| {
        let steps = log(run).into_iter().filter(|record| record["event"] == "step");
        let count = |step: serde_json::Value| (step["source_targets"].clone(), step["targets"].clone());
        steps.map(count).collect::<Vec<_>>()
    };
    let counted = counts(&one);
    assert_eq!(counted.len(), 25);
    assert_eq!(counted, counts(&two));
    for (sources, targets) in &counted {
        let sources = sources.as_object().unwrap();
        let sum: u64 = sources.values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(Some(sum), targets.as_u64());
    }
    // Sources take turns, so that their shares hold long before the end of a cycle.
    let (last, all) = counted.last().unwrap();
    for (name, share) in [("web", 0.5), ("code", 0.3), ("books", 0.2)] {
        let got = last[name].as_f64().unwrap() / all.as_f64().unwrap();
        assert!((got - share).abs() < 0.02, "{name}: {got} of {share}\n{last}");
    }
    let summary = said.lines().find(|line| line.starts_with("targets by source: web ")).unwrap_or_default();
    assert!(summary.contains(", code ") && summary.ends_with(" %)"), "{said}");
}

/// `torchrun` of torch: beside the Python that `CURATE_TORCH_PYTHON` names, else on the path.
fn torchrun() -> Option<PathBuf> {
    let beside =
        std::env::var_os("CURATE_TORCH_PYTHON").map(|python| Path::new(&python).with_file_name("torchrun"));
    let torchrun = beside.unwrap_or_else(|| "torchrun".into());
    // cargo's folders have another libtorch than Python's.
    let mut command = Command::new(&torchrun);
    let found =
        command.env_remove("LD_LIBRARY_PATH").arg("--help").output().is_ok_and(|out| out.status.success());
    if !found {
        println!(
            "skipped: {} cannot be run (CURATE_TORCH_PYTHON names a Python with torch)",
            torchrun.display()
        );
    }
    found.then_some(torchrun)
}

/// `LAUNCHER curate train` with two processes must leave the files that `--nproc 2` leaves.
fn starts_the_ranks_of_a_run(launcher: &str) {
    let dir = Scratch::new();
    let (shards, ours, theirs) = (dir.path("shards"), dir.path("ours"), dir.path("theirs"));
    let [set, our_run, their_run] = [&shards, &ours, &theirs].map(|path| path.display());
    let flags = format!(
        "train {set} --preset char-tiny --batch-size 8 --micro-batch 4 --steps 8 --eval-every 4 --device cpu --threads 1 -q"
    );
    let line = format!(
        "curate tokenize -q --tokenizer bytes | curate pack -q --seq-len 64 --split val=0.1 -o {set} && \
         curate {flags} -o {our_run} --nproc 2 && {launcher} curate {flags} -o {their_run}"
    );
    shell(&line, sources(80)).ok();
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let [a, b] = [&ours, &theirs].map(|run| std::fs::read(run.join("step-00000008").join(file)).unwrap());
        assert!(a == b, "{file} differs");
    }
}

#[test]
fn torchrun_starts_the_ranks() {
    if !trainer_is_built() {
        return;
    }
    let Some(torchrun) = torchrun() else { return };
    starts_the_ranks_of_a_run(&format!(
        "env -u LD_LIBRARY_PATH {} --standalone --nproc-per-node 2 --no-python",
        torchrun.display()
    ));
}

#[test]
fn srun_starts_the_ranks() {
    if !trainer_is_built() {
        return;
    }
    let has_controller = Command::new("scontrol").arg("ping").output().is_ok_and(|out| out.status.success());
    if !has_controller {
        println!("skipped: no Slurm controller answers `scontrol ping`");
        return;
    }
    starts_the_ranks_of_a_run("srun --quiet --nodes 1 --ntasks 2 --overcommit --kill-on-bad-exit");
}
