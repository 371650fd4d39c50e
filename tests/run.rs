//! `curate run`: pipeline files.

use crate::support::{Scratch, corpus, curate, root, shell, tree};

#[test]
fn fused_and_piped_give_the_same_bytes() {
    let dir = Scratch::new();
    let input = dir.file("in.jsonl", corpus(500));
    let (fused, piped) = (dir.path("fused"), dir.path("piped"));
    let set = |key: &str, value: &std::path::Path| format!("--set={key}={}", value.display());
    for threads in ["1", "4"] {
        let args = [
            "run".to_owned(),
            "pipelines/demo.toml".to_owned(),
            set("input", &input),
            set("report", &dir.path("report.json")),
            set("clean.rejects", &dir.path("rejects.jsonl")),
            set("dedup.removed", &dir.path("removed.jsonl")),
            "--set=tokenize.tokenizer=bytes".to_owned(),
            set("pack.output", &fused),
            "--set=pack.force=true".to_owned(),
            format!("--set=threads={threads}"),
        ];
        curate(args, "").ok();
        let report = crate::support::report(&dir.path("report.json"));
        assert_eq!(report["stages"][1]["read"], report["stages"][0]["kept"]);
        assert!(report["dropped"]["near_duplicate"].as_u64() > Some(10), "{report}");
        if threads == "1" {
            let line = format!("pipelines/demo.sh {} bytes {}", input.display(), piped.display());
            shell(&line, "").ok();
        }
        let (fused, piped) = (tree(&fused), tree(&piped));
        assert!(fused.len() >= 10);
        assert_eq!(
            fused.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            piped.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
        for ((name, a), (_, b)) in fused.iter().zip(&piped) {
            assert!(a == b, "{name} differs between the fused run and the pipe ({threads} threads)");
        }
    }
}

#[test]
fn documents_can_be_the_end() {
    let dir = Scratch::new();
    let pipeline = dir.file(
        "docs.toml",
        "[[stage]]\ncommand = \"clean\"\n[[stage]]\ncommand = \"dedup\"\nminhash = true\n[[stage]]\ncommand = \"clean\"\nrecipe = \"none\"\n",
    );
    let input = corpus(300);
    let fused = curate(["run".as_ref(), pipeline.as_os_str()], &input).ok();
    let piped =
        shell("curate clean -q | curate dedup -q --minhash | curate clean -q --recipe none", &input).ok();
    assert!(fused.stdout.len() > 10_000);
    assert!(fused.stdout == piped.stdout);
}

#[test]
fn every_shipped_pipeline_is_valid() {
    for entry in std::fs::read_dir(root().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let out = curate(["run".as_ref(), path.as_os_str(), "--dry-run".as_ref()], "").ok();
            assert!(out.stdout().contains("\ncurate read "), "{}", out.stdout());
        }
    }
}

#[test]
fn a_wrong_pipeline_stops_before_it_starts() {
    let dir = Scratch::new();
    let output = dir.path("out.jsonl");
    let text = format!(
        "output = {:?}\n[[stage]]\ncommand = \"clean\"\n[[stage]]\ncommand = \"dedup\"\nminhash = true\ntreshold = 0.7\n",
        output
    );
    let pipeline = dir.file("wrong.toml", text);
    let out = curate(["run".as_ref(), pipeline.as_os_str()], corpus(5)).expect(2);
    let expected = format!(
        "error: {}:7\ncaused by: stage 2 (dedup)\ncaused by: unknown option `treshold`\nhint: did you mean `threshold`?\n",
        pipeline.display()
    );
    assert_eq!(out.stderr, expected);
    assert!(!output.exists());
}
