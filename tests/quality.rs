//! `train-classifier` and `score`: models that repeat themselves, scores in records, thresholds by percentile.

use std::path::PathBuf;

use crate::support::{Random, Scratch, curate, line, report, root, tree};

/// Documents about gardens, which one wants, or shops.
fn pile(wanted: bool, n: usize, seed: u64) -> String {
    let garden = ["apple", "tree", "soil", "rain", "seed", "leaf", "root", "bloom", "the", "and", "of"];
    let shop = ["buy", "cart", "click", "offer", "login", "price", "cookie", "deal", "the", "and", "of"];
    let words = if wanted { garden } else { shop };
    let mut random = Random(seed);
    let text = |random: &mut Random| -> String {
        (0..12).map(|_| words[random.below(words.len())]).collect::<Vec<_>>().join(" ")
    };
    (0..n).map(|i| line(&format!("{wanted}{i}"), &text(&mut random))).collect()
}

/// A trained model, and the piles that it was trained on.
fn train(scratch: &Scratch, name: &str, more: &[&str]) -> PathBuf {
    let (pos, neg) =
        (scratch.file("pos.jsonl", pile(true, 80, 1)), scratch.file("neg.jsonl", pile(false, 80, 2)));
    let model = scratch.path(name);
    let mut args = vec!["train-classifier", "--pos", pos.to_str().unwrap(), "--neg", neg.to_str().unwrap()];
    let (report, model_name) = (scratch.path("report.json"), model.to_str().unwrap().to_owned());
    let report = report.to_str().unwrap().to_owned();
    args.extend(["--held-out", "0.25", "--bits", "14", "--report", &report, "-o", &model_name]);
    args.extend(more);
    curate(args, "").ok();
    model
}

#[test]
fn a_model_repeats_itself_and_says_what_it_is_worth() {
    let scratch = Scratch::new();
    let model = train(&scratch, "a.cqm", &["--threads", "1"]);
    let again = train(&scratch, "b.cqm", &["--threads", "4", "--block-size", "1K"]);
    assert!(std::fs::read(&model).unwrap() == std::fs::read(again).unwrap(), "threads do not matter");
    let report = report(&scratch.path("report.json"));
    assert_eq!(report["read"], 160);
    let calibration = &report["calibration"];
    assert!(calibration["auc"].as_f64().unwrap() > 0.99, "{calibration}");
    assert_eq!(calibration["deciles"].as_array().unwrap().len(), 10);
    assert_eq!(calibration["negative_percentiles"].as_array().unwrap().len(), 101);
}

#[test]
fn scores_stand_in_records_and_the_rest_stays() {
    let scratch = Scratch::new();
    let model = train(&scratch, "m.cqm", &[]);
    let input = "{\"n\": 1.50, \"text\":\"apple tree soil\" , \"quality_score\":null}\n{\"text\":\"buy cart click\"}\n";
    let ran = curate(["score", "--model", model.to_str().unwrap()], input).ok();
    let lines: Vec<&str> = ran.stdout().lines().collect();
    let score = |line: &str| -> f64 {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["quality_score"].as_f64().unwrap()
    };
    assert!(score(lines[0]) > 0.7 && score(lines[1]) < 0.3, "{lines:?}");
    assert!(
        lines[0].starts_with("{\"n\": 1.50, \"text\":\"apple tree soil\" , \"quality_score\":0."),
        "{}",
        lines[0]
    );
    let kept = curate(["score", "--model", model.to_str().unwrap(), "--drop-below", "0.5"], input).ok();
    assert_eq!(kept.stdout().lines().collect::<Vec<_>>(), lines[..1]);
    let nested = curate(["score", "--model", model.to_str().unwrap(), "--field", "metadata.q"], input).ok();
    assert!(
        nested
            .stdout()
            .lines()
            .nth(1)
            .unwrap()
            .starts_with("{\"text\":\"buy cart click\",\"metadata\":{\"q\":0.")
    );
}

#[test]
fn the_top_of_the_pool_is_kept_whatever_the_threads() {
    let scratch = Scratch::new();
    let model = train(&scratch, "m.cqm", &[]);
    let model = model.to_str().unwrap();
    let input = pile(false, 400, 9) + &pile(true, 20, 10);
    let rejects = scratch.path("rejects.jsonl");
    let run = |threads: &str| {
        let args =
            ["score", "--model", model, "--keep-top", "10%", "--threads", threads, "--block-size", "2K"];
        let more = ["--rejects", rejects.to_str().unwrap()];
        let ran = curate(args.into_iter().chain(more), &input).ok();
        (ran.stdout, std::fs::read(&rejects).unwrap())
    };
    let (kept, dropped) = run("1");
    assert!((kept.clone(), dropped.clone()) == run("4"));
    let kept = kept.iter().filter(|b| **b == b'\n').count();
    assert!((20..140).contains(&kept), "all that is wanted, and about a tenth of the pool: {kept}");
    let dropped = String::from_utf8(dropped).unwrap();
    assert!(dropped.contains("low_quality_score") && dropped.contains("\"threshold\""), "{dropped}");
}

#[test]
fn a_fasttext_file_is_trained_and_read_like_any_other() {
    let scratch = Scratch::new();
    let small =
        ["--to", "fasttext", "--dim", "4", "--buckets", "200", "--learning-rate", "0.5", "--epochs", "20"];
    let model = train(&scratch, "m.bin", &small);
    assert!(std::fs::read(&model).unwrap() == std::fs::read(train(&scratch, "n.bin", &small)).unwrap());
    let ran = curate(["score", "--model", model.to_str().unwrap(), "--keep-top", "5"], pile(true, 9, 4)).ok();
    assert_eq!(ran.stdout().lines().count(), 9);
    std::fs::remove_file(scratch.path("m.bin.calibration.json")).unwrap();
    let ran = curate(["score", "--model", model.to_str().unwrap(), "--keep-top", "5"], "").expect(2);
    assert!(
        ran.stderr.contains("has no calibration") && ran.stderr.contains("--drop-below"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_stage_of_a_pipeline_is_the_same_as_in_a_pipe_and_resumes() {
    let scratch = Scratch::new();
    let model = train(&scratch, "m.cqm", &[]);
    let input = scratch.file("in.jsonl", pile(true, 50, 5) + &pile(false, 50, 6));
    let out = scratch.path("fused.jsonl");
    let pipeline = |run_dir: &str, out: &PathBuf| {
        format!(
            "input = {input:?}\noutput = {out:?}\n{run_dir}\n[[stage]]\ncommand = \"clean\"\nrecipe = \"none\"\n\
             [[stage]]\ncommand = \"score\"\nmodel = {model:?}\ndrop-below = 0.5\n[[stage]]\ncommand = \"dedup\"\nexact = true\n"
        )
    };
    let file = scratch.file("p.toml", pipeline("", &out));
    curate(["run", file.to_str().unwrap()], "").ok();
    let resumable = scratch.path("resumed.jsonl");
    let run_dir = format!("run-dir = {:?}\nunit-size = \"2K\"", scratch.path("state"));
    let file = scratch.file("r.toml", pipeline(&run_dir, &resumable));
    curate(["run", file.to_str().unwrap()], "").ok();
    let cleaned = curate(["clean", "--recipe", "none", input.to_str().unwrap()], "").ok();
    let model = model.to_str().unwrap();
    let scored = curate(["score", "--model", model, "--drop-below", "0.5"], cleaned.stdout).ok();
    let piped = curate(["dedup", "--exact"], scored.stdout).ok();
    assert_eq!(String::from_utf8(std::fs::read(out).unwrap()).unwrap(), piped.stdout());
    assert_eq!(String::from_utf8(std::fs::read(resumable).unwrap()).unwrap(), piped.stdout());
    assert!(!tree(&scratch.path("state")).is_empty());
}

#[test]
fn what_cannot_be_done_is_said_with_a_remedy() {
    let scratch = Scratch::new();
    let model = train(&scratch, "m.cqm", &[]);
    let model = model.to_str().unwrap();
    let junk = scratch.file("junk.bin", "no model at all");
    let fasttext = root().join("fixtures/fasttext/softmax.bin");
    let mut cut = std::fs::read(model).unwrap();
    cut.truncate(cut.len() - 10);
    let cut = scratch.file("cut.cqm", cut);
    let check = |args: &[&str], parts: [&str; 2]| {
        let ran = curate(args, "").expect(2);
        assert!(parts.iter().all(|part| ran.stderr.contains(part)), "{args:?}: {}", ran.stderr);
    };
    check(&["score", "--model", "nowhere.bin"], ["cannot read the model nowhere.bin", "No such file"]);
    check(&["score", "--model", junk.to_str().unwrap()], ["neither a quality model", "train-classifier"]);
    check(&["score", "--model", cut.to_str().unwrap()], ["bad checksum", "hint"]);
    check(&["score", "--model", fasttext.to_str().unwrap()], ["5 labels", "--label"]);
    check(&["score", "--model", model, "--field", "text"], ["would replace", "quality_score"]);
    check(&["score", "--model", model, "--keep-top", "200%"], ["percentage", "200%"]);
    check(&["score", "--model", model, "--drop-below", "2"], ["score from 0 to 1", "2"]);
    let empty = scratch.file("empty.jsonl", "");
    let (empty, pos) = (empty.to_str().unwrap(), scratch.path("pos.jsonl"));
    let out = scratch.path("x.cqm");
    let train =
        ["train-classifier", "--pos", pos.to_str().unwrap(), "--neg", empty, "-o", out.to_str().unwrap()];
    check(&train, ["found 80 and 0", "--neg"]);
    assert!(!out.exists());
}
