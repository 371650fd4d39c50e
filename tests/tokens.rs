//! `curate train-tokenizer`, `tokenize` and `pack`: from text to shards and back.

use std::fs;
use std::path::Path;

use curate_shards::ShardSet;

use crate::support::{Scratch, corpus, curate, line, report, shell, tree};

/// Tokenizes `input` with `tokenizer` and packs it into `dir`.
fn pack(input: &str, tokenizer: &str, dir: &Path, options: &str) {
    let dir = dir.display();
    shell(
        &format!(
            "curate tokenize --quiet --tokenizer '{tokenizer}' | curate pack --quiet -o '{dir}' {options}"
        ),
        input,
    )
    .ok();
}

/// The documents of a Megatron index, read from its description alone: 9 bytes of magic, u64 version, u8 type
/// code, u64 sequences, u64 documents + 1, then lengths (i32), byte offsets (i64), document indices (i64).
fn documents_by_hand(idx: &[u8], bin: &[u8]) -> Vec<Vec<u16>> {
    let u64_at = |at: usize| u64::from_le_bytes(idx[at..at + 8].try_into().unwrap());
    assert_eq!(&idx[..9], b"MMIDIDX\0\0");
    assert_eq!((u64_at(9), idx[17]), (1, 8), "version 1, 16-bit tokens");
    let n = u64_at(18) as usize;
    assert_eq!(u64_at(26) as usize, n + 1);
    let (lengths, offsets) = (34, 34 + 4 * n);
    let indices = offsets + 8 * n;
    assert_eq!(idx.len(), indices + 8 * (n + 1));
    (0..=n).for_each(|i| assert_eq!(u64_at(indices + 8 * i), i as u64));
    (0..n)
        .map(|i| {
            let length = i32::from_le_bytes(idx[lengths + 4 * i..][..4].try_into().unwrap()) as usize;
            let start = u64_at(offsets + 8 * i) as usize;
            bin[start..start + 2 * length].chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
        })
        .collect()
}

#[test]
fn the_index_is_megatrons() {
    let dir = Scratch::new();
    let texts = ["one", "", "drei vier\n", "五"];
    let input: String = texts.iter().map(|t| line("x", t)).collect();
    let shards = dir.path("shards");
    pack(&input, "bytes", &shards, "--seq-len 8");
    let read = |name: &str| fs::read(shards.join(name)).unwrap();
    let documents = documents_by_hand(&read("train-00000.idx"), &read("train-00000.bin"));
    let expected: Vec<Vec<u16>> =
        texts.iter().map(|t| t.bytes().map(u16::from).chain([256]).collect()).collect();
    assert_eq!(documents, expected);
    let bytes: Vec<u32> =
        read("train-00000.bytes").chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(bytes, texts.map(|t| t.len() as u32));
}

#[test]
fn held_out_documents_do_not_depend_on_order_or_company() {
    let dir = Scratch::new();
    let input = corpus(400);
    let reversed: String = input.lines().rev().map(|l| format!("{l}\n")).collect();
    let held_out = |name: &str, input: &str| {
        let shards = dir.path(name);
        pack(input, "bytes", &shards, "--seq-len 64 --split val=0.1");
        let set = ShardSet::open(&shards).unwrap();
        set.verify().unwrap();
        let val = set.split("val").unwrap();
        let mut documents: Vec<Vec<u32>> =
            (0..val.num_documents()).map(|i| val.document(i).tokens.iter().collect()).collect();
        documents.sort();
        documents
    };
    let one = held_out("one", &input);
    assert_eq!(one, held_out("two", &reversed));
    assert!((20..70).contains(&one.len()), "{} of 400 held out", one.len());
    let more = held_out("three", &(input + &line("new", "a new document")));
    assert!(one.iter().all(|d| more.contains(d)));
}

#[test]
fn a_trained_tokenizer_serves_the_whole_path() {
    let dir = Scratch::new();
    let input = corpus(200);
    let tokenizer = dir.path("tokenizer.json");
    let train = ["train-tokenizer", "--vocab-size", "400", "-o", tokenizer.to_str().unwrap(), "--threads"];
    curate(train.iter().chain(&["1"]), &input).ok();
    let first = fs::read(&tokenizer).unwrap();
    curate(train.iter().chain(&["4"]), &input).ok();
    assert_eq!(first, fs::read(&tokenizer).unwrap(), "the same for any number of threads");

    let shards = dir.path("shards");
    pack(&input, tokenizer.to_str().unwrap(), &shards, "--seq-len 32");
    let set = ShardSet::open(&shards).unwrap();
    assert_eq!(set.manifest().tokenizer.vocab_size, 400);
    let vocabulary = curate_shards::Vocabulary::open(shards.join("vocabulary.bin")).unwrap();
    let train = set.split("train").unwrap();
    let texts: Vec<String> = input
        .lines()
        .filter_map(|l| {
            serde_json::from_str::<serde_json::Value>(l).ok()?["text"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(train.num_documents(), texts.len() as u64);
    for (i, text) in texts.iter().enumerate() {
        let document = train.document(i as u64);
        let bytes: Vec<u8> = document.tokens.iter().flat_map(|id| vocabulary.bytes(id).to_vec()).collect();
        assert_eq!(bytes, text.as_bytes(), "document {i} decodes to its text");
    }
    assert_eq!(fs::read(shards.join("tokenizer.json")).unwrap(), first);
}

#[test]
fn special_tokens_in_a_text_are_text() {
    let dir = Scratch::new();
    let tokenizer = dir.path("tokenizer.json");
    curate(["train-tokenizer", "--vocab-size", "300", "-o", tokenizer.to_str().unwrap()], corpus(40)).ok();
    let count = |name: &str, options: &str| {
        let (shards, tokenizer) = (dir.path(name), tokenizer.display());
        let line = line("x", "a <|endoftext|> b");
        shell(
            &format!(
                "curate tokenize -q --tokenizer {tokenizer} {options} | curate pack -q --seq-len 8 -o {}",
                shards.display()
            ),
            line,
        )
        .ok();
        let set = ShardSet::open(&shards).unwrap();
        let eod = set.manifest().tokenizer.eod;
        let train = set.split("train").unwrap();
        train.document(0).tokens.iter().filter(|id| *id == eod).count()
    };
    assert_eq!(count("plain", ""), 1, "only the one that ends the document");
    assert_eq!(count("parsed", "--parse-special"), 2);
}

#[test]
fn a_torn_token_stream_is_an_error_and_leaves_no_shards() {
    let dir = Scratch::new();
    let stream = curate(["tokenize", "-q", "--tokenizer", "bytes"], corpus(50)).ok().stdout;
    for cut in [0, 1, stream.len() / 2, stream.len() - 1] {
        let shards = dir.path(&format!("shards-{cut}"));
        let out = curate(["pack", "-o", shards.to_str().unwrap()], &stream[..cut]).expect(2);
        assert!(out.stderr.contains("error: cannot pack -"), "{}", out.stderr);
        assert!(!shards.join("manifest.json").exists());
    }
    let out =
        curate(["pack", "-o", dir.path("x").to_str().unwrap()], "{\"text\":\"not tokens\"}\n").expect(2);
    assert!(out.stderr.contains("curate tokenize"), "{}", out.stderr);
}

#[test]
fn a_finished_set_is_not_overwritten_unasked() {
    let dir = Scratch::new();
    let shards = dir.path("shards");
    pack(&line("a", "x"), "bytes", &shards, "--seq-len 8");
    let before = tree(&shards);
    let stream = curate(["tokenize", "-q", "--tokenizer", "bytes"], line("b", "yy")).ok().stdout;
    let out = curate(["pack", "-o", shards.to_str().unwrap(), "--seq-len", "8"], &stream).expect(2);
    assert!(out.stderr.contains("hint: ") && out.stderr.contains("--force"), "{}", out.stderr);
    assert_eq!(tree(&shards), before);
    let json = dir.path("report.json");
    let args = [
        "pack",
        "--force",
        "--seq-len",
        "8",
        "-o",
        shards.to_str().unwrap(),
        "--report",
        json.to_str().unwrap(),
    ];
    curate(args, &stream).ok();
    assert_eq!(report(&json)["shards"]["splits"][0]["tokens"], 3);
}

#[test]
fn unknown_tokenizers_and_alphabets_are_explained() {
    let out = curate(["tokenize", "--tokenizer", "no/such.json"], "").expect(2);
    assert!(out.stderr.contains("no/such.json"), "{}", out.stderr);
    let dir = Scratch::new();
    let alphabet = dir.file("abc.txt", "abc");
    let json = dir.path("report.json");
    let spec = format!("char:{}", alphabet.display());
    let input = line("in", "cab") + &line("out", "cabin");
    curate(["tokenize", "--tokenizer", &spec, "--report", json.to_str().unwrap()], input).ok();
    let report = report(&json);
    assert_eq!((&report["read"], &report["kept"]), (&2.into(), &1.into()));
    assert_eq!(report["dropped"]["not_in_alphabet"], 1);
}

/// `fixtures/shards-vN` was written when format version N was current, from `fixtures/documents.jsonl`.
#[test]
fn every_released_shard_format_still_opens() {
    let fixtures = crate::support::root().join("fixtures");
    let set = ShardSet::open(&fixtures.join("shards-v1")).unwrap();
    set.verify().unwrap();
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for name in ["train", "val"] {
        let split = set.split(name).unwrap();
        assert!(split.num_documents() > 0);
        for i in 0..split.num_documents() {
            let tokens: Vec<u32> = split.document(i).tokens.iter().collect();
            let (eod, bytes) = tokens.split_last().unwrap();
            assert_eq!(*eod, 256);
            texts.push(bytes.iter().map(|id| u8::try_from(*id).unwrap()).collect());
        }
        assert!(set.view(name, 32).unwrap().num_rows() > 0);
    }
    let documents = fs::read_to_string(fixtures.join("documents.jsonl")).unwrap();
    let mut expected: Vec<Vec<u8>> = documents
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["text"].as_str().unwrap().into())
        .collect();
    texts.sort();
    expected.sort();
    assert_eq!(texts, expected);
}

/// The files of a set but for its manifest, whose lineage says which command made it.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    tree(dir).into_iter().filter(|(name, _)| name != "manifest.json").collect()
}

#[test]
fn tokenize_into_a_directory_is_tokenize_and_pack_without_a_view() {
    let dir = Scratch::new();
    let input = corpus(50);
    let (direct, piped) = (dir.path("direct"), dir.path("piped"));
    curate(["tokenize", "-q", "--tokenizer", "bytes", "-o", &format!("{}/", direct.display())], &input).ok();
    pack(&input, "bytes", &piped, "--seq-len 64 --policy best-fit");
    let tokens =
        |dir: &Path| files(dir).into_iter().filter(|(name, _)| !name.ends_with(".view")).collect::<Vec<_>>();
    assert_eq!(files(&direct), tokens(&piped));
    let out =
        curate(["tokenize", "-q", "--tokenizer", "bytes", "-o", direct.to_str().unwrap()], &input).expect(2);
    assert!(out.stderr.contains("--force"), "{}", out.stderr);
    // Views later, in the place of the tokens.
    curate(["pack", "-q", direct.to_str().unwrap(), "--seq-len", "64", "--policy", "best-fit"], "").ok();
    assert_eq!(files(&direct), files(&piped));
    ShardSet::open(&direct).unwrap().verify().unwrap();
    let out = curate(["pack", direct.to_str().unwrap(), "--seq-len", "64"], "").expect(2);
    assert!(out.stderr.contains("already packed with policy best-fit, not concat"), "{}", out.stderr);
    let out = curate(["pack", direct.to_str().unwrap(), "--split", "val=0.1"], "").expect(2);
    assert!(out.stderr.contains("keeps its tokens and its splits"), "{}", out.stderr);
    let out = curate(["pack"], "").expect(2);
    assert!(out.stderr.contains("no directory to write to"), "{}", out.stderr);
}

/// Documents of three sources.
pub(crate) fn sources(n: usize) -> String {
    let source = |i: usize| ["web", "code", "web", "books"][i % 4];
    corpus(n)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|record| record["text"].is_string())
        .enumerate()
        .map(|(i, mut record)| {
            record["source"] = source(i).into();
            record.to_string() + "\n"
        })
        .collect()
}

#[test]
fn a_mix_is_packed_shown_and_verified() {
    let dir = Scratch::new();
    let (shards, json) = (dir.path("shards"), dir.path("report.json"));
    let options = format!(
        "--seq-len 64 --policy best-fit --mix web=0.5,code=0.3:2,books=0.2:9 --mix-tokens 20000 --materialise=7 \
         --report '{}'",
        json.display()
    );
    pack(&sources(200), "bytes", &shards, &options);
    let view = &report(&json)["shards"]["views"][0];
    let drawn = view["mix"]["sources"].as_array().unwrap().iter().map(|source| {
        let of = |name: &str| source[name].as_f64().unwrap();
        of("draws") * of("targets") / of("rows")
    });
    for (drawn, share) in drawn.zip([0.5, 0.3, 0.2]) {
        assert!((drawn - 20_000.0 * share).abs() < 64.0, "{drawn}: {view:#}");
    }
    assert_eq!(view["materialised"]["order"], "training");
    let balance = |name: &str| view["balance"][name].as_u64().unwrap();
    assert_eq!(
        balance("given") + balance("repeated"),
        balance("in_rows") + balance("truncated") + balance("skipped") + balance("left_out")
    );
    let shown = curate(["inspect", shards.to_str().unwrap()], "").ok();
    for part in ["mix of 3 sources", "books", "rows copied out as seed 7 visits them"] {
        assert!(shown.stdout().contains(part), "{}", shown.stdout());
    }
    curate(["verify", "-q", shards.to_str().unwrap()], "").ok();
    for name in ["train.T64.rows", "train.T64.mix"] {
        let path = shards.join(name);
        let sound = fs::read(&path).unwrap();
        let mut damaged = sound.clone();
        let last = damaged.len() - 20;
        damaged[last] ^= 1;
        fs::write(&path, damaged).unwrap();
        let out = curate(["verify", shards.to_str().unwrap()], "").expect(1);
        assert!(out.stdout().contains(name), "{}", out.stdout());
        fs::write(&path, sound).unwrap();
    }
    let out =
        curate(["pack", "-q", shards.to_str().unwrap(), "--mix", "web=1,nws=1", "--force"], "").expect(2);
    assert!(out.stderr.contains("\"nws\"") && out.stderr.contains("curate inspect"), "{}", out.stderr);
    curate(["verify", "-q", shards.to_str().unwrap()], "").ok();
}

#[test]
fn truncated_tokens_are_said() {
    let dir = Scratch::new();
    let json = dir.path("report.json");
    for policy in ["concat", "best-fit"] {
        let options =
            format!("--force --seq-len 32 --policy {policy} --long truncate --report '{}'", json.display());
        pack(&corpus(30), "bytes", &dir.path("shards"), &options);
        let report = report(&json);
        let view = &report["shards"]["views"][0];
        let set = ShardSet::open(&dir.path("shards")).unwrap();
        let train = set.split("train").unwrap();
        let expected: u64 = (0..train.num_documents())
            .map(|i| (train.document(i).tokens.len() as u64).saturating_sub(33))
            .sum();
        assert_eq!(view["truncated"], expected);
        assert_eq!(view["balance"]["given"], train.num_tokens());
        let shown = curate(["inspect", dir.path("shards").to_str().unwrap()], "").ok();
        assert!(shown.stdout().contains("long documents truncated"), "{}", shown.stdout());
    }
}

/// Kills `pack` when so many shards are there, and says how many were.
fn kill_pack(stream: &Path, shards: &Path, after: usize, options: &[&str]) -> usize {
    let finished = || {
        let entries = fs::read_dir(shards).into_iter().flatten();
        entries
            .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "dom"))
            .count()
    };
    let mut child = std::process::Command::new(crate::support::CURATE)
        .args(["pack", "-q", stream.to_str().unwrap(), "-o", shards.to_str().unwrap()])
        .args(options)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() && finished() < after {
        std::thread::yield_now();
    }
    let _ = child.kill(); // SIGKILL
    child.wait().unwrap();
    finished()
}

#[test]
fn a_killed_pack_goes_on_and_comes_out_the_same() {
    let dir = Scratch::new();
    let stream = dir.path("tokens.arrows");
    curate(["tokenize", "-q", "--tokenizer", "bytes", "-o", stream.to_str().unwrap()], corpus(600)).ok();
    let options = ["--seq-len", "64", "--split", "val=0.1", "--shard-tokens", "20000"];
    let whole = dir.path("whole");
    let run = |shards: &Path, input: &str| {
        let mut args = vec!["pack", input, "-o", shards.to_str().unwrap()];
        args.extend(options);
        curate(args, if input == "-" { fs::read(&stream).unwrap() } else { Vec::new() }).ok()
    };
    run(&whole, stream.to_str().unwrap());
    let mut resumed = 0;
    for after in [0, 1, 2, 5, 10, 20, 30] {
        let shards = dir.path(&format!("killed-{after}"));
        let finished = kill_pack(&stream, &shards, after, &options);
        if shards.join("manifest.json").exists() {
            continue; // It was faster than the signal.
        }
        // Killed a second time on the way, then left alone; from a pipe every other time.
        kill_pack(&stream, &shards, finished + 1, &options);
        if shards.join("manifest.json").exists() {
            continue;
        }
        let out = run(&shards, if after % 2 == 0 { "-" } else { stream.to_str().unwrap() });
        resumed += usize::from(out.stderr.contains("an interrupted run finished"));
        assert_eq!(tree(&shards), tree(&whole), "killed after {after} shards");
    }
    assert!(resumed > 0, "no run was killed in time to be resumed");
}

#[test]
fn a_killed_run_goes_on_with_its_shards() {
    let dir = Scratch::new();
    let input = dir.file("in.jsonl", corpus(600));
    let pipeline = |name: &str| {
        let text = format!(
            "input = [\"{}\"]\n[[stage]]\ncommand = \"tokenize\"\ntokenizer = \"bytes\"\n[[stage]]\n\
             command = \"pack\"\noutput = \"{}\"\nseq_len = [64]\nshard_tokens = 20000\n",
            input.display(),
            dir.path(name).display()
        );
        dir.file(&format!("{name}.toml"), text)
    };
    curate(["run", pipeline("whole").to_str().unwrap()], "").ok();
    let (killed, toml) = (dir.path("killed"), pipeline("killed"));
    let mut child = std::process::Command::new(crate::support::CURATE)
        .args(["run", toml.to_str().unwrap()])
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() && !killed.join("train-00003.dom").exists() {
        std::thread::yield_now();
    }
    let _ = child.kill();
    child.wait().unwrap();
    if !killed.join("manifest.json").exists() {
        let out = curate(["run", toml.to_str().unwrap()], "").ok();
        assert!(out.stderr.contains("an interrupted run finished"), "{}", out.stderr);
    }
    assert_eq!(tree(&killed), tree(&dir.path("whole")));
}

#[test]
fn another_input_does_not_go_on_with_a_killed_run() {
    let dir = Scratch::new();
    let stream = dir.path("tokens.arrows");
    curate(["tokenize", "-q", "--tokenizer", "bytes", "-o", stream.to_str().unwrap()], corpus(300)).ok();
    let options = ["--shard-tokens", "20000"];
    let shards = dir.path("shards");
    kill_pack(&stream, &shards, 2, &options);
    if shards.join("manifest.json").exists() {
        return; // It was faster than the signal.
    }
    let other = curate(["tokenize", "-q", "--tokenizer", "bytes"], corpus(5)).ok().stdout;
    let args = |more: &[&'static str]| {
        let mut args = vec!["pack".to_owned(), "-o".to_owned(), shards.display().to_string()];
        args.extend(options.iter().chain(more).map(|&word| word.to_owned()));
        args
    };
    let out = curate(args(&[]), &other).expect(2);
    assert!(
        out.stderr.contains("not that of the interrupted run") && out.stderr.contains("--restart"),
        "{}",
        out.stderr
    );
    curate(args(&["--restart"]), &other).ok();
    ShardSet::open(&shards).unwrap().verify().unwrap();
}

/// Texts of the documents of a split, sorted.
fn texts(set: &ShardSet, split: &str) -> Vec<String> {
    let split = set.split(split).unwrap();
    let text = |i| {
        let ids: Vec<u8> = split.document(i).tokens.iter().filter_map(|id| u8::try_from(id).ok()).collect();
        String::from_utf8(ids).unwrap()
    };
    let mut texts: Vec<String> = (0..split.num_documents()).map(text).collect();
    texts.sort();
    texts
}

#[test]
fn clusters_of_near_duplicates_fall_on_one_side() {
    let dir = Scratch::new();
    let input = corpus(400);
    let marked = curate(["dedup", "-q", "--minhash", "--mark", "metadata.cluster"], &input).ok().stdout;
    let records: Vec<serde_json::Value> =
        marked.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let sound =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|r| r["text"].is_string());
    assert_eq!(records.len(), input.lines().filter(|line| sound(line)).count(), "nothing is dropped");
    let cluster = |record: &serde_json::Value| record["metadata"]["cluster"].as_str().unwrap().to_owned();
    let copies = records.iter().filter(|r| cluster(r) != r["id"]).count();
    assert!(copies > 50, "{copies} documents are copies of another");
    // Each copy is of a document that stands for itself.
    for record in &records {
        let original = records.iter().find(|r| r["id"] == cluster(record).as_str()).unwrap();
        assert_eq!(cluster(original), original["id"].as_str().unwrap());
    }
    let held_out = |name: &str, input: &[u8], options: &str, threads: usize| {
        let shards = dir.path(name);
        let line = format!(
            "curate tokenize -q --threads {threads} --tokenizer bytes --cluster-field metadata.cluster | \
             curate pack -q --seq-len 64 --split val=0.2,test=0.1 --seed 3 {options} -o '{}'",
            shards.display()
        );
        shell(&line, input).ok();
        ShardSet::open(&shards).unwrap()
    };
    let set = held_out("one", &marked, "", 1);
    let of = |split: &str| texts(&set, split);
    let (train, val, test) = (of("train"), of("val"), of("test"));
    assert!(val.len() > 20 && test.len() > 10, "{} and {} of 400", val.len(), test.len());
    let side =
        |text: &str| [&train, &val, &test].iter().position(|side| side.iter().any(|t| t == text)).unwrap();
    let text = |record: &serde_json::Value| record["text"].as_str().unwrap().to_owned();
    for record in &records {
        let original = records.iter().find(|r| r["id"] == cluster(record).as_str()).unwrap();
        assert_eq!(side(&text(record)), side(&text(original)), "{}", record["id"]);
    }
    // The same for other shards, threads, order and company.
    let reversed: Vec<u8> = records.iter().rev().flat_map(|r| format!("{r}\n").into_bytes()).collect();
    for (name, input, options, threads) in
        [("two", &marked, "--shard-tokens 9000", 2), ("three", &reversed, "", 3)]
    {
        let other = held_out(name, input, options, threads);
        for split in ["train", "val", "test"] {
            assert_eq!(texts(&other, split), of(split), "{name}, {split}");
        }
    }
    let more = [marked.clone(), line("new", "a new document of its own").into_bytes()].concat();
    let other = held_out("four", &more, "", 2);
    assert!(val.iter().all(|text| texts(&other, "val").contains(text)));
    // In one process the same sides come out: the field is set by the stage before.
    let file = dir.file("in.jsonl", &input);
    let fused = dir.path("fused");
    let pipeline = dir.file(
        "p.toml",
        format!(
            "input = [\"{}\"]\n[[stage]]\ncommand = \"dedup\"\nminhash = true\nmark = \"metadata.cluster\"\n[[stage]]\n\
             command = \"tokenize\"\ntokenizer = \"bytes\"\ncluster_field = \"metadata.cluster\"\n[[stage]]\n\
             command = \"pack\"\noutput = \"{}\"\nseq_len = [64]\nsplit = \"val=0.2,test=0.1\"\nseed = 3\n",
            file.display(),
            fused.display()
        ),
    );
    curate(["run", pipeline.to_str().unwrap()], "").ok();
    let fused = ShardSet::open(&fused).unwrap();
    for split in ["train", "val", "test"] {
        assert_eq!(texts(&fused, split), of(split), "{split}");
    }
}

#[test]
fn marked_clusters_keep_a_split_from_leaking() {
    let dir = Scratch::new();
    let input = corpus(400);
    let leaks = |name: &str, pipe: &str| {
        let json = dir.path(&format!("{name}.json"));
        let line = format!(
            "{pipe} curate pack -q --seq-len 64 --split val=0.2 --check-leak --report '{}' -o '{}'",
            json.display(),
            dir.path(name).display()
        );
        shell(&line, &input).ok();
        report(&json)["shards"]["leaks"]["splits"][0].clone()
    };
    let by_text = leaks("text", "curate tokenize -q --tokenizer bytes |");
    let by_cluster = leaks(
        "cluster",
        "curate dedup -q --minhash --threshold 0.5 --mark c | \
         curate tokenize -q --tokenizer bytes --cluster-field c |",
    );
    let share =
        |leak: &serde_json::Value| leak["shared"].as_f64().unwrap() / leak["ngrams"].as_f64().unwrap();
    assert!(share(&by_text) > 2.0 * share(&by_cluster), "{by_text:#} {by_cluster:#}");
    // The same counts from the finished set, in little memory, and nothing is changed by looking.
    let shards = dir.path("text");
    let before = tree(&shards);
    let out = curate(["pack", shards.to_str().unwrap(), "--check-leak", "--leak-memory", "10K"], "").ok();
    assert!(out.stderr.contains("13-grams") && out.stderr.contains("are in train too"), "{}", out.stderr);
    assert_eq!(tree(&shards), before);
}
