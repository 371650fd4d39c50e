use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::*;

/// A run of ten steps, made by the program.
fn trained(dir: &TestDir) -> String {
    small_shards(&dir.join("shards"));
    let (shards, run) = (dir.join("shards"), text(&dir.join("run")).to_owned());
    let flags =
        ["--preset", "char-tiny", "--steps", "10", "--threads", "1", "--log-every", "5", "--eval-every", "4"];
    let (stdout, stderr) = succeed(&[&["train", text(&shards), "-o", &run], &flags[..]].concat());
    assert!(stdout.is_empty());
    for expected in [
        "model      char-tiny: 4 layers",
        "first loss near ln 27 = 3.296 nats",
        "step     5/10  loss ",
        "unigram ",
    ] {
        assert!(stderr.contains(expected), "no {expected:?} in\n{stderr}");
    }
    assert!(!stderr.contains('\r'), "a live line although stderr is no terminal");
    run
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_run_leaves_its_files() {
    let dir = TestDir::new();
    let run = trained(&dir);
    let mut names: Vec<String> =
        fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected = [
        "config.json",
        "curve.svg",
        "eval-val.json",
        "log.jsonl",
        "settings.toml",
        "speed.json",
        "step-00000008",
        "step-00000010",
        "tensorboard",
        "tokenizer.json",
        "vocabulary.bin",
    ];
    assert_eq!(names, expected);
    assert_eq!(json(&format!("{run}/config.json"))["options"]["schedule"]["steps"], 10);
    let log = fs::read_to_string(format!("{run}/log.jsonl")).unwrap();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.iter().filter(|event| event["event"] == "step").count(), 10);
    assert_eq!(events.iter().filter(|event| event["event"] == "eval").count(), 3);
    assert_eq!(events.last().unwrap()["whole_split"], true);
}

#[test]
fn evaluating_again_gives_the_same_numbers() {
    let dir = TestDir::new();
    let run = trained(&dir);
    let stored = json(&format!("{run}/eval-val.json"));
    assert_eq!(stored["step"], 10);
    assert_eq!(
        stored["protocol"]["scored"],
        "every stored token once, the closing end-of-document id included"
    );
    let scores = text(&dir.join("scores.jsonl")).to_owned();
    let (stdout, stderr) =
        succeed(&["eval", &run, "--threads", "1", "--json", "-", "--per-document", &scores]);
    let again: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(again["total"], stored["total"]);
    assert!(stderr.contains("prefix one end-of-document id (26)"), "{stderr}");
    let lines = fs::read_to_string(&scores).unwrap();
    let sum: f64 = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["nats"].as_f64().unwrap())
        .sum();
    assert!((sum - again["total"]["nats"].as_f64().unwrap()).abs() < 1e-9);
    // Another checkpoint, another split, another window.
    let (stdout, _) = succeed(&[
        "eval",
        &run,
        "--checkpoint",
        "step-00000008",
        "--split",
        "train",
        "--window",
        "8",
        "--json",
        "-",
    ]);
    let other: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!((&other["protocol"]["window"], &other["protocol"]["stride"]), (&8.into(), &4.into()));
}

#[test]
fn generating_prints_text_and_repeats_it() {
    let dir = TestDir::new();
    let run = trained(&dir);
    let generate = |more: &[&str]| {
        let flags =
            ["generate", &run, "--threads", "1", "--max-tokens", "20", "--prompt-ids", "7,4,11,11,14"];
        String::from_utf8(succeed(&[&flags[..], more].concat()).0).unwrap()
    };
    let text = generate(&["--seed", "5"]);
    assert!(text.starts_with("hello") && text.ends_with('\n') && text.len() <= 26, "{text:?}");
    assert_eq!(text, generate(&["--seed", "5"]));
    assert_eq!(text[5..], generate(&["--seed", "5", "--no-prompt"]));
    let two = generate(&["--seed", "5", "--num-samples", "2"]);
    assert!(two.starts_with(&text) && two[text.len()..].starts_with("---\nhello"), "{two:?}");
    let stderr = fail(2, &["generate", &run, "--prompt-ids", "27"]);
    assert_eq!(stderr, "error: --prompt-ids: id 27 is outside the vocabulary of 27\n");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let dir = TestDir::new();
    let run = trained(&dir);
    let mut child = Command::new(env!("CARGO_BIN_EXE_curate-train"))
        .args(["generate", &run, "--max-tokens", "50", "--num-samples", "500", "--threads", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap(); // and closes it
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn mistakes_are_explained() {
    let dir = TestDir::new();
    let run = trained(&dir);
    let shards = text(&dir.join("shards")).to_owned();
    let nowhere = text(&dir.join("nowhere")).to_owned();

    let stderr = fail(2, &["train", &shards, "-o", &run]);
    let expected =
        format!("error: {run} already holds a run with a checkpoint at step 10\nhint: add --resume");
    assert!(stderr.starts_with(&expected), "{stderr}");

    let stderr = fail(2, &["train", "-o", &run, "--resume", "--steps", "11"]);
    assert!(
        stderr.starts_with("error: cannot resume with another --steps: the run has 10, asked for 11\n"),
        "{stderr}"
    );
    let stderr = fail(2, &["train", "-o", &run, "--resume", "--preset", "gpt2-tiny"]);
    assert!(
        stderr.starts_with("error: cannot resume with another --preset: the run has char-tiny"),
        "{stderr}"
    );

    let other = text(&dir.join("other")).to_owned();
    write_shards(&dir.join("other"), &documents(20, 9), "", &[concat(32)]);
    let stderr = fail(2, &["train", &other, "-o", &run, "--resume"]);
    assert!(stderr.contains("is not the shard set of this run: its training rows differ"), "{stderr}");
    assert!(stderr.contains("--force-data"), "{stderr}");
    let (_, stderr) = succeed(&["train", &other, "-o", &run, "--resume", "--force-data", "--quiet"]);
    assert!(stderr.starts_with("warning: ") && stderr.contains("the training rows differ"), "{stderr}");
    let recorded = json(&format!("{run}/config.json"));
    assert_eq!(recorded["shards"], fs::canonicalize(&other).unwrap().to_str().unwrap());

    let stderr = fail(2, &["train", "-o", &nowhere, "--resume"]);
    assert!(stderr.contains("has no complete checkpoint") && stderr.contains("hint: "), "{stderr}");
    let stderr = fail(2, &["train", &nowhere, "-o", &other]);
    assert!(stderr.starts_with("error: ") && stderr.contains("nowhere"), "{stderr}");
    let stderr = fail(2, &["train", &shards, "-o", &nowhere, "--seq-len", "64"]);
    assert!(stderr.contains("64") && stderr.contains("hint: "), "{stderr}");
    let stderr = fail(2, &["train", &shards, "-o", &nowhere, "--heads", "3"]);
    assert!(stderr.contains("128 channels cannot be cut into 3 equal heads"), "{stderr}");
    let stderr = fail(2, &["train", &shards, "-o", &nowhere, "--norm", "batchnorm"]);
    assert!(stderr.contains("layernorm"), "{stderr}");
    let stderr = fail(2, &["eval", &run, "--split", "test"]);
    assert!(stderr.contains("test") && stderr.contains("val"), "{stderr}");
    let stderr = fail(2, &["eval", &nowhere]);
    assert!(stderr.contains("has no complete checkpoint"), "{stderr}");
    assert!(!dir.join("nowhere").exists(), "a refused run left its directory");
}

/// The files of a folder and of those in it, by name, with their content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

#[test]
fn a_refused_start_leaves_everything_as_it_was() {
    let dir = TestDir::new();
    let (shards, run) = (small_shards(&dir.join("shards")), dir.join("run"));
    let flags = "--preset char-tiny --layers 2 --batch-size 2 --steps 10 --stop-after 4 --save-every 2";
    let (shards, run) = (text(shards.dir()).to_owned(), text(&run).to_owned());
    let flags = flags.split(' ').collect::<Vec<_>>();
    succeed(&[&["train", &shards, "-o", &run, "--quiet", "--threads", "1"], &flags[..]].concat());
    let other = text(&dir.join("other")).to_owned();
    write_shards(&dir.join("other"), &documents(20, 9), "val=0.5", &[concat(32)]);
    let manifest = dir.join("other").join("manifest.json");
    fs::write(&manifest, fs::read_to_string(&manifest).unwrap().replace("letters", "symbols")).unwrap();

    let before = files(&dir.join("run"));
    let nowhere = text(&dir.join("nowhere")).to_owned();
    let empty = text(&dir.join("empty")).to_owned();
    fs::create_dir(&empty).unwrap();
    let check = |flags: &[&str], expected: &str| {
        for new in [&nowhere, &empty] {
            let stderr = fail(2, &[&["train", &shards, "-o", new, "--quiet"], flags].concat());
            assert!(stderr.contains(expected), "{flags:?}: {stderr}");
        }
        assert!(!dir.join("nowhere").exists(), "{flags:?}: {:?}", files(&dir.join("nowhere")).keys());
        assert!(files(&dir.join("empty")).is_empty(), "{flags:?}: {:?}", files(&dir.join("empty")).keys());
        let flags: Vec<&str> = flags.iter().copied().filter(|flag| !flag.contains("batch")).collect();
        let stderr = fail(2, &[&["train", "-o", &run, "--resume", "--quiet"], &flags[..]].concat());
        assert!(stderr.contains(expected), "{flags:?}: {stderr}");
        assert!(before == files(&dir.join("run")), "{flags:?} changed the run");
    };
    check(&["--nproc", "3", "--batch-size=2"], "--batch-size: 2 rows cannot be shared by 3 processes");
    check(&["--eval-shards", &other], "manifest.json: bad checksum");
    check(&["--max-time=-1"], "--max-time: ");
    check(&["--max-time", "NaN"], "--max-time: ");
    // Longer than the clock can tell.
    succeed(&["train", "-o", &run, "--resume", "--quiet", "--max-time", "2.5e17"]);
}

#[test]
#[allow(clippy::print_stdout)]
fn cuda_is_refused_clearly_where_there_is_none() {
    if curate_train::device::open(curate_train::device::DeviceChoice::Cuda(0)).is_ok() {
        println!("skipped: there is a GPU");
        return;
    }
    let dir = TestDir::new();
    small_shards(&dir.join("shards"));
    let (shards, run) = (dir.join("shards"), dir.join("run"));
    let stderr = fail(2, &["train", text(&shards), "-o", text(&run), "--device", "cuda"]);
    assert!(stderr.starts_with("error: device cuda:0 cannot be used: "), "{stderr}");
    assert!(stderr.contains("hint: use --device cpu"), "{stderr}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_before_the_update() {
    let dir = TestDir::new();
    small_shards(&dir.join("shards"));
    let (shards, run) = (dir.join("shards"), dir.join("run"));
    // With this rate and no clipping the weights overflow within a few updates.
    let wild = ["--preset", "char-tiny", "--lr", "10", "--warmup", "0", "--schedule", "constant"];
    let more = ["--clip", "0", "--steps", "400", "--weight-decay", "10", "--save-every", "1", "--quiet"];
    let output = curate_train(&[&["train", text(&shards), "-o", text(&run)], &wild[..], &more[..]].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the model was not updated"), "{stderr}");
    let state = newest(&run).state;
    assert!(stderr.contains(&format!("at step {};", state.step + 1)), "{stderr}, checkpoint {}", state.step);
}

#[test]
fn ctrl_c_saves_and_exits_with_130() {
    let dir = TestDir::new();
    small_shards(&dir.join("shards"));
    let (shards, run) = (dir.join("shards"), dir.join("run"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_curate-train"))
        .args([
            "train",
            text(&shards),
            "-o",
            text(&run),
            "--preset",
            "char-tiny",
            "--steps",
            "100000",
            "--save-every",
            "2",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while curate_train::checkpoint::list(&run).unwrap().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // SAFETY: the process is a child of this one that has not been waited for, so its id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert_eq!(newest(&run).state.step, logged(&run).len() as u64, "the last finished step is saved");
    assert!(stderr.contains("go on with: curate train -o "), "{stderr}");
}

#[test]
fn help_and_version_work() {
    assert_eq!(
        succeed(&["--version"]).0,
        format!("curate-train {}\n", env!("CARGO_PKG_VERSION")).into_bytes()
    );
    for command in ["train", "eval", "generate"] {
        let help = String::from_utf8(succeed(&[command, "--help"]).0).unwrap();
        assert!(help.contains("Examples:") && help.contains("--device"), "{help}");
    }
}

#[test]
fn several_prompts_stop_where_they_are_told() {
    let dir = TestDir::new();
    let run = trained(&dir);
    let flags = ["generate", &run, "--threads", "1", "--max-tokens", "12", "--seed", "3"];
    let prompts = ["--prompt-ids", "0,1", "--prompt-ids", "2,3", "--num-samples", "2", "--batch-size", "3"];
    let all = String::from_utf8(succeed(&[&flags[..], &prompts[..]].concat()).0).unwrap();
    let texts: Vec<&str> = all.strip_suffix('\n').unwrap().split("\n---\n").collect();
    assert_eq!(texts.len(), 4, "{all:?}");
    assert!(texts[..2].iter().all(|t| t.starts_with("ab")) && texts[2..].iter().all(|t| t.starts_with("cd")));
    // One at a time they are the same texts.
    let one = String::from_utf8(succeed(&[&flags[..], &prompts[..6]].concat()).0).unwrap();
    assert_eq!(one, all);
    let stop = texts[0].chars().nth(4).expect("the text goes on").to_string();
    let stopped = succeed(&[&flags[..], &["--prompt-ids", "0,1", "--stop", &stop]].concat()).0;
    let stopped = String::from_utf8(stopped).unwrap();
    let expected = texts[0][2..].find(&stop).map_or(texts[0], |at| &texts[0][..2 + at]);
    assert_eq!(stopped.strip_suffix('\n').unwrap(), expected);
    let stderr = fail(2, &["generate", &run, "--min-p", "2"]);
    assert_eq!(stderr, "error: --min-p: must lie between 0 and 1, is 2\n");
}

#[test]
fn the_gap_to_the_training_split_is_told() {
    let dir = TestDir::new();
    let run = trained(&dir);
    let (stdout, stderr) = succeed(&["eval", &run, "--threads", "1", "--gap", "--json", "-"]);
    let found: Value = serde_json::from_slice(&stdout).unwrap();
    let number = |path: &str| found.pointer(path).and_then(Value::as_f64).unwrap();
    let gap = number("/total/nats_per_token") - number("/gap/train/nats_per_token");
    assert!((number("/gap/nats_per_token") - gap).abs() < 1e-12);
    let (held, train) = (number("/total/tokens"), number("/gap/train/tokens"));
    assert!(train > 0.5 * held && train < 2.0 * held, "{train} tokens of train beside {held}");
    let [low, high] = [number("/interval/nats_per_token/0"), number("/interval/nats_per_token/1")];
    assert!(low < number("/total/nats_per_token") && number("/total/nats_per_token") < high);
    assert!(number("/total/words") >= number("/total/documents") - 1.0);
    assert!(stderr.contains("word perplexity") && stderr.contains("95 %"), "{stderr}");
    let (stdout, _) = succeed(&["eval", &run, "--like", "lm-eval", "--threads", "1", "--json", "-"]);
    let like: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(like["total"]["tokens"], held - number("/total/documents"));
}

#[test]
fn scaling_reads_runs_and_plans() {
    let dir = TestDir::new();
    let run = trained(&dir);
    let runs = dir.join("runs.jsonl");
    let line = |n: f64, d: f64| {
        let loss = 1.8172 + 482.01 * n.powf(-0.3478) + 2085.43 * d.powf(-0.3658);
        format!("{{\"params\": {n}, \"tokens\": {d}, \"loss\": {loss}}}\n")
    };
    let lines: String = (0..5)
        .flat_map(|i| (0..5).map(move |j| (i, j)))
        .map(|(i, j)| line(1e7 * 3f64.powi(i), 3e8 * 4f64.powi(j)))
        .collect();
    fs::write(&runs, lines).unwrap();
    let json_file = dir.join("fit.json");
    succeed(&["scaling", "fit", text(&runs), "--resamples", "5", "--json", text(&json_file)]);
    let law = &json(text(&json_file))["law"];
    assert!((law["e"].as_f64().unwrap() - 1.8172).abs() < 0.02, "{law}");
    let (_, stderr) = succeed(&["scaling", "plan", "--flops", "5.76e23", "--constants", text(&json_file)]);
    assert!(stderr.contains("25 runs in"), "{stderr}");
    let (_, stderr) = succeed(&["scaling", "plan", "--flops", "5.76e23"]);
    assert!(
        ["besiroglu", "hoffmann-tex", "kaplan", "18.4"].iter().all(|word| stderr.contains(word)),
        "{stderr}"
    );
    let stderr = fail(2, &["scaling", "fit", &run]);
    assert!(stderr.contains("1 runs cannot determine the constants"), "{stderr}");
    let stderr = fail(2, &["scaling", "plan", "--flops", "0"]);
    assert!(stderr.contains("--flops: must be at least 1e6"), "{stderr}");
}
