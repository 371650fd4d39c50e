//! The pipelines that are shipped: each runs, as a file and as the shell pipe beside it, with the same bytes; and a run
//! with a run directory survives being killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    CURATE, Random, Scratch, corpus, crawl, curate, line, prose, report, root, shell, tree,
};

/// A corpus without malformed rows.
fn sound_corpus(n: usize) -> String {
    corpus(n).lines().filter(|l| !l.contains("broken")).map(|l| format!("{l}\n")).collect()
}

/// `curate run pipelines/NAME.toml` with settings.
fn run(name: &str, settings: &[(&str, &Path)]) -> crate::support::Ran {
    let mut args = vec!["run".to_owned(), format!("pipelines/{name}.toml")];
    args.extend(settings.iter().map(|(key, value)| format!("--set={key}={}", value.display())));
    curate(args, "")
}

#[track_caller]
fn assert_same_files(a: &Path, b: &Path) {
    let (a, b) = (tree(a), tree(b));
    assert!(!a.is_empty());
    assert_eq!(a.iter().map(|f| &f.0).collect::<Vec<_>>(), b.iter().map(|f| &f.0).collect::<Vec<_>>());
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert!(a == b, "{name} differs");
    }
}

/// Settings that keep every file of the crawl pipeline in `dir`.
fn crawl_settings<'s>(input: &'s Path, files: &'s [(&'static str, PathBuf)]) -> Vec<(&'s str, &'s Path)> {
    let mut settings = vec![("input", input)];
    settings.extend(files.iter().map(|(key, path)| (*key, path.as_path())));
    settings
}

fn crawl_files(dir: &Path) -> Vec<(&'static str, PathBuf)> {
    [
        ("run-dir", "run"),
        ("report", "report.json"),
        ("clean.rejects", "out/rejects.jsonl"),
        ("dedup.removed", "out/removed.jsonl"),
        ("pack.output", "out/shards"),
        ("unit-size", "1"),
    ]
    .map(|(key, name)| (key, if key == "unit-size" { PathBuf::from("1") } else { dir.join(name) }))
    .to_vec()
}

/// Web archives of a few pages each, one of them cut.
fn write_crawl(dir: &Scratch, files: usize) -> PathBuf {
    for i in 0..files {
        let archive = crawl(i * 10, 10);
        dir.file(&format!("crawl/{i:02}.warc.gz"), archive);
    }
    dir.path("crawl")
}

#[test]
fn fineweb_like_is_its_pipe() {
    let dir = Scratch::new();
    let input = write_crawl(&dir, 6);
    let files = crawl_files(&dir.path("a"));
    run("fineweb-like", &crawl_settings(&input, &files)).ok();
    let json = report(&dir.path("a/report.json"));
    assert_eq!(json["read"], 120);
    assert_eq!(json["set_aside"]["warc_request"], 60);
    assert!(json["stages"][0]["kept"].as_u64() > Some(40), "{json:#}");
    assert!(json["dropped"]["near_duplicate"].as_u64() > Some(5), "{json:#}");
    let stages = json["stages"].as_array().unwrap();
    let dedup = stages.iter().find(|stage| stage["name"] == "dedup").unwrap();
    assert!(dedup["samples"]["near_duplicate"].as_array().is_some_and(|s| s.len() == 3));
    let piped = dir.path("piped");
    shell(&format!("pipelines/fineweb-like.sh {} {}", piped.display(), input.display()), "").ok();
    assert_same_files(&dir.path("a/out/shards"), &piped);
    // Without a run directory the same stages run in one pass, with the same bytes.
    let text = fs::read_to_string(root().join("pipelines/fineweb-like.toml")).unwrap();
    let fused = dir.file("fused.toml", text.replace("run-dir =", "# run-dir ="));
    let files = crawl_files(&dir.path("b"));
    let mut args = vec!["run".to_owned(), fused.display().to_string()];
    let settings = crawl_settings(&input, &files);
    args.extend(
        settings
            .iter()
            .filter(|(key, _)| !["run-dir", "unit-size"].contains(key))
            .map(|(key, value)| format!("--set={key}={}", value.display())),
    );
    curate(args, "").ok();
    assert_same_files(&dir.path("a/out"), &dir.path("b/out"));
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let dir = Scratch::new();
    let input = write_crawl(&dir, 12);
    let whole = crawl_files(&dir.path("whole"));
    run("fineweb-like", &crawl_settings(&input, &whole)).ok();
    let files = crawl_files(&dir.path("killed"));
    let manifest = dir.path("killed/run/manifest.jsonl");
    let mut args =
        vec!["run".to_owned(), "pipelines/fineweb-like.toml".to_owned(), "--set=threads=1".to_owned()];
    let settings = crawl_settings(&input, &files);
    args.extend(settings.iter().map(|(key, value)| format!("--set={key}={}", value.display())));
    let mut random = Random(3);
    let mut kills = 0;
    for round in 0..6 {
        let mut child =
            Command::new(CURATE).args(&args).current_dir(root()).stderr(Stdio::null()).spawn().unwrap();
        // Kill when another unit or two is finished, and then at no particular moment.
        let start = Instant::now();
        let units = || fs::read_to_string(&manifest).map_or(0, |text| text.lines().count());
        while units() < 2 * round + 1 && start.elapsed() < Duration::from_secs(60) {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(random.below(20_000) as u64));
        kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills >= 3, "only {kills} of the runs were still at work when killed");
    run("fineweb-like", &settings).ok();
    assert_same_files(&dir.path("whole/out"), &dir.path("killed/out"));
    let counts = |name: &str| {
        let mut json = report(&dir.path(name));
        for volatile in [
            "seconds",
            "documents_per_second",
            "cpu_seconds",
            "peak_rss_bytes",
            "parse_seconds",
            "parameters",
            "shards",
        ] {
            json.as_object_mut().unwrap().remove(volatile);
        }
        for stage in json["stages"].as_array_mut().unwrap() {
            stage.as_object_mut().unwrap().remove("busy_seconds");
        }
        json
    };
    assert_eq!(counts("whole/report.json"), counts("killed/report.json"));
    let again = run("fineweb-like", &settings).ok();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
}

#[test]
fn a_run_directory_knows_what_has_changed() {
    let dir = Scratch::new();
    dir.file("dumps/a.jsonl", sound_corpus(200));
    let path = dir.path("");
    let settings = [
        ("input", path.join("dumps")),
        ("run-dir", path.join("run")),
        ("output", path.join("corpus.jsonl")),
        ("report", path.join("report.json")),
        ("dedup.removed", path.join("removed.jsonl")),
        ("unit-size", PathBuf::from("1")),
    ];
    let settings: Vec<(&str, &Path)> = settings.iter().map(|(key, path)| (*key, path.as_path())).collect();
    run("incremental-dump", &settings).ok();
    let units = || fs::read_to_string(dir.path("run/manifest.jsonl")).unwrap().lines().count();
    assert_eq!(units(), 1);
    // A second dump: the first is not read again, its documents win, and the result is that of reading both.
    dir.file("dumps/b.jsonl", sound_corpus(300));
    run("incremental-dump", &settings).ok();
    assert_eq!(units(), 2);
    let piped = dir.path("piped.jsonl");
    let line = format!("pipelines/incremental-dump.sh {} {}", piped.display(), dir.path("dumps").display());
    shell(&line, "").ok();
    assert!(fs::read(&piped).unwrap() == fs::read(dir.path("corpus.jsonl")).unwrap());
    // A changed file is read again; so is everything when the options change.
    dir.file("dumps/a.jsonl", sound_corpus(201));
    run("incremental-dump", &settings).ok();
    assert_eq!(units(), 3);
    let mut stricter = settings.clone();
    stricter.push(("clean.recipe", Path::new("gopher")));
    run("incremental-dump", &stricter).ok();
    assert_eq!(units(), 5);
    let streamed = run("incremental-dump", &[("input", Path::new("-")), settings[1], settings[2]]).expect(2);
    assert!(streamed.stderr.contains("cannot read stdin a second time"), "{}", streamed.stderr);
}

#[test]
fn books_and_code_are_their_pipes() {
    let dir = Scratch::new();
    let mut random = Random(5);
    for i in 0..8 {
        let text = prose(3000, &mut Random(100 + i as u64));
        dir.file(&format!("books/{i}.txt"), &text);
        dir.file(
            &format!("code/src/{i}.rs"),
            format!("fn f{}() {{\n\t// {} \n}}\n", random.below(99), &text[..300].replace('\n', " ")),
        );
    }
    dir.file("code/logo.png", [0x89, b'P', 0xff, 0xfe]);
    for (name, input) in [("books", "books"), ("code", "code")] {
        let (input, shards) = (dir.path(input), dir.path(&format!("{name}-shards")));
        let (json, removed) = (dir.path("report.json"), dir.path("removed.jsonl"));
        let settings = [
            ("input", input.as_path()),
            ("pack.output", &shards),
            ("report", &json),
            ("dedup.removed", &removed),
        ];
        run(name, &settings).ok();
        assert!(report(&json)["kept"].as_u64() >= Some(5), "{:#}", report(&json));
        let piped = dir.path(&format!("{name}-piped"));
        shell(&format!("pipelines/{name}.sh {} {}", piped.display(), input.display()), "").ok();
        assert_same_files(&shards, &piped);
    }
}

#[test]
fn multilingual_keeps_the_files_of_its_input() {
    let dir = Scratch::new();
    let german = "Der Fluss fließt an der alten Mühle vorbei, und am Abend hört man die Vögel singen. Wer früh aufsteht, \
        sieht den Nebel über den Wiesen und die Fischer mit ihren Booten. Im Sommer kommen Kinder aus dem Dorf zum Baden, \
        während der Müller sein Rad repariert. Später sitzen alle auf der Bank vor dem Haus, erzählen von vergangenen \
        Jahren und trinken kalten Apfelsaft.";
    dir.file("in/de/a.jsonl.gz", crate::support::gzip(line("de", german).as_bytes()));
    dir.file("in/en.jsonl", sound_corpus(60));
    let (input, output, json) = (dir.path("in"), dir.path("out/"), dir.path("report.json"));
    run("multilingual", &[("input", &input), ("output", &output), ("report", &json)]).ok();
    let files: Vec<String> = tree(&output).into_iter().map(|f| f.0).collect();
    assert_eq!(files, ["de/a.parquet", "en.parquet"]);
    let back = curate(["read".as_ref(), "-q".as_ref(), output.as_os_str()], "").ok();
    assert!(back.stdout().starts_with("{\"id\":\"de\""), "{}", back.stdout());
    let piped = dir.path("piped.parquet");
    shell(&format!("pipelines/multilingual.sh {} {}", piped.display(), input.display()), "").ok();
    let from_pipe = curate(["read".as_ref(), "-q".as_ref(), piped.as_os_str()], "").ok();
    assert!(back.stdout == from_pipe.stdout && back.stdout().lines().count() > 20);
}

#[test]
fn the_whole_plan_can_be_seen_first() {
    let dir = Scratch::new();
    dir.file("in/a.jsonl", corpus(20));
    let input = dir.path("in");
    let out = curate(
        [
            "run".to_owned(),
            "pipelines/incremental-dump.toml".to_owned(),
            "--dry-run".to_owned(),
            format!("--set=input={}", input.display()),
        ],
        "",
    )
    .ok();
    let bytes = fs::metadata(dir.path("in/a.jsonl")).unwrap().len() as f64 / 1000.0;
    let expected = format!(
        "# 1 inputs, {bytes:.1} kB\n# resumable in incremental-dump/run\n# 3 stages in one process; as a pipe:\n\
         curate read --report=incremental-dump/report.json {} |\n  curate clean --recipe=curate-v1 |\n  \
         curate dedup --minhash --threshold=0.8 --removed=incremental-dump/removed.jsonl.zst \
         --output=incremental-dump/corpus.jsonl.zst\n",
        input.display()
    );
    assert_eq!(out.stdout(), expected);
}
