//! `curate dedup --semantic` and `curate embed`: documents whose embeddings are nearly the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{CURATE, Scratch, corpus, curate, report, root, shell};

/// What numpy and pyarrow wrote, and what numpy says of it: see python/goldens/semantic.py.
fn golden(name: &str) -> String {
    root().join("crates/curate-dedup/goldens").join(name).display().to_string()
}

const DIM: usize = 16;

fn golden_rows() -> Vec<Vec<f32>> {
    let bytes = fs::read(golden("semantic.npy")).unwrap();
    let values: Vec<f32> =
        bytes[128..].chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    values.chunks_exact(DIM).map(<[f32]>::to_vec).collect()
}

fn answers(threshold: &str) -> Vec<(usize, usize, f64)> {
    let all: BTreeMap<String, Vec<(usize, usize, f64)>> =
        serde_json::from_str(&fs::read_to_string(golden("semantic.json")).unwrap()).unwrap();
    all[threshold].clone()
}

/// A document for each row, which holds it; every tenth text is the same.
fn documents() -> String {
    let document = |(i, row): (usize, Vec<f32>)| {
        let text = format!("text number {}", if i % 10 == 3 { 3 } else { i });
        json!({ "id": format!("d{i}"), "text": text, "source": format!("s{}", i % 3), "meta": { "vector": row } })
            .to_string()
            + "\n"
    };
    golden_rows().into_iter().enumerate().map(document).collect()
}

fn npy(rows: &[&[f32]]) -> Vec<u8> {
    let dim = rows.first().map_or(1, |row| row.len());
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {dim}), }}\n", rows.len());
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(rows.iter().flat_map(|row| row.iter()).flat_map(|x| x.to_le_bytes()));
    bytes
}

fn parsed(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(id: &Value) -> usize {
    id.as_str().unwrap().trim_start_matches('d').parse().unwrap()
}

/// The three ways in.
fn sources() -> [Vec<String>; 3] {
    [
        vec![format!("--embeddings={}", golden("semantic.npy"))],
        vec![format!("--embeddings={}", golden("semantic.parquet"))],
        vec!["--embedding-field=meta.vector".to_owned()],
    ]
}

#[test]
fn what_numpy_removes_goes_with_its_proof() {
    let dir = Scratch::new();
    let (input, removed) = (documents(), dir.path("removed.jsonl"));
    for threshold in ["0.7", "0.9", "0.97"] {
        let expected = answers(threshold);
        let gone: BTreeSet<usize> = expected.iter().map(|(row, _, _)| *row).collect();
        for source in sources() {
            let args = [
                "dedup".to_owned(),
                "--semantic".to_owned(),
                "--semantic-clusters=1".to_owned(),
                format!("--semantic-threshold={threshold}"),
                format!("--removed={}", removed.display()),
            ];
            let out = curate(args.iter().chain(&source), &input).ok();
            let kept: String = input
                .lines()
                .enumerate()
                .filter(|(i, _)| !gone.contains(i))
                .map(|(_, line)| format!("{line}\n"))
                .collect();
            assert!(out.stdout() == kept, "{source:?}: in input order, byte for byte");
            let proofs = parsed(&fs::read_to_string(&removed).unwrap());
            assert_eq!(proofs.len(), expected.len());
            for (proof, (row, dup_of, cosine)) in proofs.iter().zip(&expected) {
                assert_eq!(proof["id"], format!("d{row}"));
                assert_eq!(proof["dup_of"], format!("d{dup_of}"));
                assert_eq!(
                    (&proof["reason"], &proof["rule"]),
                    (&json!("semantic_duplicate"), &json!("semantic"))
                );
                assert!((proof["cosine"].as_f64().unwrap() - cosine).abs() < 1e-6, "{proof}");
            }
        }
    }
}

#[test]
fn threads_memory_sources_and_the_way_in_do_not_matter() {
    let dir = Scratch::new();
    let input = documents();
    let path = dir.file("in.jsonl", &input);
    let chains: [&[&str]; 4] = [
        &["--semantic", "--semantic-threshold=0.8"],
        &["--exact", "--semantic", "--semantic-clusters=7", "--seed=9"],
        &["--key=source", "--keep=longest", "--semantic"],
        &["--exact", "--minhash", "--lines", "--keep=max:id", "--semantic", "--semantic-threshold=0.6"],
    ];
    for chain in chains {
        let mut first = None;
        for source in sources() {
            for more in [&["--threads=1"][..], &["--threads=4", "--block-size=2K", "--memory=100M"]] {
                for from_file in [false, true] {
                    let (removed, temporary) = (dir.path("removed.jsonl"), dir.path("deep/temporary"));
                    let places = [
                        "--removed".to_owned(),
                        removed.display().to_string(),
                        "--temp-dir".to_owned(),
                        temporary.display().to_string(),
                    ];
                    let args = ["dedup", "-q"].iter().chain(chain).chain(more).map(|arg| (*arg).to_owned());
                    let args = args.chain(source.clone()).chain(places);
                    let args = args.chain(from_file.then(|| path.display().to_string()));
                    let out = curate(args, if from_file { "" } else { &input }).ok().stdout;
                    assert_eq!(fs::read_dir(&temporary).map_or(0, Iterator::count), 0, "temporary files go");
                    let proofs = fs::read_to_string(&removed).unwrap();
                    let found = (out, proofs);
                    assert!(*first.get_or_insert(found.clone()) == found, "{chain:?} {source:?} {more:?}");
                }
            }
        }
        let (_, proofs) = first.unwrap();
        let reasons: BTreeSet<String> =
            parsed(&proofs).iter().map(|proof| proof["reason"].as_str().unwrap().to_owned()).collect();
        assert_eq!(reasons.contains("exact_duplicate"), chain.contains(&"--exact"), "{chain:?} {reasons:?}");
        if !chain.contains(&"--key=source") {
            assert!(reasons.contains("semantic_duplicate"), "{chain:?} {reasons:?}");
        }
    }
}

#[test]
fn rows_stay_with_their_documents_whatever_goes_before() {
    // Document 1 goes as a copy; 3 has the direction of 2, but it is that of the row of 1 that 4 has.
    let dir = Scratch::new();
    let rows: [&[f32]; 5] =
        [&[1.0, 0.0, 0.0], &[0.0, 0.0, 1.0], &[0.0, 1.0, 0.0], &[0.0, 5.0, 0.01], &[0.0, 0.0, 2.0]];
    let array = dir.file("rows.npy", npy(&rows));
    let texts = ["first", "first", "third", "a third with more to it", "fifth"];
    let line = |(i, text)| json!({ "id": format!("d{i}"), "text": text }).to_string() + "\n";
    let input: String = texts.iter().enumerate().map(line).collect();
    let check = |more: &[&str], expected: &[(&str, &str, &str)]| {
        let (removed, array) = (dir.path("removed.jsonl"), format!("--embeddings={}", array.display()));
        let json = dir.path("report.json");
        let args = ["dedup", "--semantic", &array, "--removed", removed.to_str().unwrap()];
        let out = curate(args.iter().chain(&["--report", json.to_str().unwrap()]).chain(more), &input).ok();
        let proofs = parsed(&fs::read_to_string(&removed).unwrap());
        let found: Vec<_> =
            proofs.iter().map(|p| ["id", "reason", "dup_of"].map(|name| p[name].as_str().unwrap())).collect();
        let expected: Vec<_> = expected.iter().map(|(a, b, c)| [*a, *b, *c]).collect();
        assert_eq!(found, expected, "{more:?}");
        assert_eq!(out.stdout().lines().count(), 5 - expected.len());
        report(&json)
    };
    let semantic = "semantic_duplicate";
    let told = check(&["--exact"], &[("d1", "exact_duplicate", "d0"), ("d3", semantic, "d2")]);
    assert_eq!(told["dropped"], json!({ "exact_duplicate": 1, "semantic_duplicate": 1 }));
    let stages: Vec<&Value> = told["stages"].as_array().unwrap().iter().map(|stage| &stage["name"]).collect();
    assert_eq!(stages, ["dedup", "dedup_semantic"]);
    let said = &told["dedup_semantic"];
    assert_eq!((&said["documents"], &said["kept"], &said["removed"]), (&json!(4), &json!(3), &json!(1)));
    assert_eq!((&said["search"]["dim"], &said["search"]["options"]["threshold"]), (&json!(3), &json!(0.95)));
    assert_eq!(said["cosine_histogram"], json!([{ "from": 0.99, "count": 1 }]));
    assert_eq!(said["biggest_clusters"][0], json!({ "representative": "d2", "size": 2, "members": ["d3"] }));
    check(&["--semantic-clusters=1"], &[("d3", semantic, "d2"), ("d4", semantic, "d1")]);
    // The longest comes first, and stands for what was before it.
    check(&["--semantic-clusters=1", "--keep=longest"], &[("d2", semantic, "d3"), ("d4", semantic, "d1")]);
}

#[test]
fn what_cannot_be_done_is_said() {
    let dir = Scratch::new();
    let input = "{\"id\":\"a\",\"text\":\"x\",\"v\":[1,2]}\n{\"id\":\"b\",\"text\":\"y\",\"v\":[2,1]}\n";
    let check = |args: &[&str], input: &str, parts: &[&str]| {
        let out = curate(["dedup"].iter().chain(args), input).expect(2);
        for part in parts {
            assert!(out.stderr.contains(part), "{args:?}: {part:?} is not in {}", out.stderr);
        }
        assert_eq!(out.stdout(), "", "{args:?}");
    };
    let file = |name: &str, rows: &[&[f32]]| format!("--embeddings={}", dir.file(name, npy(rows)).display());
    check(&["--semantic"], input, &["--semantic needs embeddings", "hint: name a file with --embeddings"]);
    check(&["--exact", "--embedding-field=v"], input, &["--semantic"]);
    let two = file("two.npy", &[&[1.0, 2.0], &[2.0, 1.0]]);
    check(&["--semantic", &two, "--embedding-field=v"], input, &["hint: give one of"]);
    let index = format!("--index={}", dir.path("seen").display());
    check(
        &["--exact", "--semantic", &two, &index],
        input,
        &["an index cannot be used with --semantic", "leave out"],
    );
    for threshold in ["0", "1.5", "nan"] {
        let threshold = format!("--semantic-threshold={threshold}");
        check(&["--semantic", &two, &threshold], input, &["a cosine threshold of", "at most 1"]);
    }
    check(&["--semantic", &two, "--semantic-clusters=0"], input, &["0 clusters: expected 1 or more"]);
    let embed_this = "hint: the rows stand for the documents in input order";
    let one = file("one.npy", &[&[1.0, 2.0]]);
    check(&["--semantic", &one], input, &["one.npy has 1 rows, but there are more documents", embed_this]);
    check(&["--exact", "--semantic", &one], input, &["one.npy has 1 rows"]);
    let three = file("three.npy", &[&[1.0], &[2.0], &[3.0]]);
    check(&["--semantic", &three], input, &["three.npy has 3 rows, but there are 2 documents", embed_this]);
    let nan = file("nan.npy", &[&[1.0, 2.0], &[f32::NAN, 1.0]]);
    check(
        &["--semantic", &nan],
        input,
        &["the embedding of document b in", "nan.npy cannot be used", "infinite, or none"],
    );
    let cut = dir.file("cut.npy", b"\x93NUMPY");
    check(
        &["--semantic", &format!("--embeddings={}", cut.display())],
        input,
        &["cut.npy is no array", "numpy.save"],
    );
    check(&["--semantic", "--embeddings=absent.npy"], input, &["cannot open absent.npy"]);
    let table = format!("--embeddings={}", golden("semantic.parquet"));
    check(
        &["--semantic", &table],
        input,
        &["semantic.parquet has no row for document a", "hint: ids are those"],
    );
    check(
        &["--semantic", &table, "--embedding-field=id"],
        input,
        &["column id is", "expected lists of floats"],
    );
    check(
        &["--semantic", &table, "--embedding-field=x"],
        input,
        &["no column x; its columns are id, embedding"],
    );
    let field = &["--semantic", "--embedding-field=v"][..];
    let with = |value: &str| input.replace("[2,1]", value);
    let b = "the embedding of document b in the document cannot be used: ";
    check(field, &with("[2,1,0]"), &[b, "it has 3 numbers, the first one 2", "hint: make the embeddings"]);
    check(field, &with("[]"), &[b, "it has no numbers"]);
    check(field, &with("[1e39,1]"), &[b, "number 1 of it is infinite, or none"]);
    check(field, &with("\"2,1\""), &[b, "v is no list of numbers"]);
    check(field, &with("null"), &[b, "there is no field v"]);
    check(&["--semantic", "--embedding-field=a..b"], input, &["is not a field path"]);
    assert_eq!(curate(["dedup", "--semantic", "--embedding-field=v"], "").ok().stdout(), "");
    assert_eq!(curate(["dedup", "--semantic", &file("none.npy", &[])], "").ok().stdout(), "");
}

#[test]
fn records_that_cannot_be_read_have_no_row() {
    let dir = Scratch::new();
    let array = dir.file("rows.npy", npy(&[&[1.0, 0.0], &[0.0, 1.0], &[0.0, 3.0]]));
    let input = "{\"id\":\"a\",\"text\":\"x\"}\nnot a record\n\n{\"id\":\"b\",\"text\":\"y\"}\n{\"id\":\"c\",\"text\":\"z\"}\n";
    let args = ["dedup", "--semantic", "--max-malformed=1", "--embeddings", array.to_str().unwrap()];
    let out = curate(args, input).ok();
    assert_eq!(out.stdout(), "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\",\"text\":\"y\"}\n");
}

#[test]
fn a_pipeline_compares_what_reaches_the_stage() {
    let dir = Scratch::new();
    let input = dir.file("in.jsonl", documents());
    let pipeline = |run_dir: &str| {
        let text = format!(
            "input = [\"{}\"]\noutput = \"{}\"\n{run_dir}\n[[stage]]\ncommand = \"dedup\"\nexact = true\nsemantic = true\n\
             embeddings = \"{}\"\nsemantic-clusters = 1\n",
            input.display(),
            dir.path("out.jsonl").display(),
            golden("semantic.npy")
        );
        dir.file("p.toml", text)
    };
    curate(["run".to_owned(), pipeline("").display().to_string()], "").ok();
    let array = format!("--embeddings={}", golden("semantic.npy"));
    let args = ["dedup", "--exact", "--semantic", &array, "--semantic-clusters=1", input.to_str().unwrap()];
    let alone = curate(args, "").ok();
    let ids = |text: &str| -> Vec<usize> { parsed(text).iter().map(|row| number(&row["id"])).collect() };
    assert_eq!(ids(&fs::read_to_string(dir.path("out.jsonl")).unwrap()), ids(alone.stdout()));
    let resumable = pipeline(&format!("run-dir = \"{}\"", dir.path("run").display()));
    let out = curate(["run".to_owned(), resumable.display().to_string()], "").expect(2);
    assert!(out.stderr.contains("--semantic cannot be used in a run that can be resumed"), "{}", out.stderr);
    assert!(out.stderr.contains("hint: leave out run-dir"), "{}", out.stderr);
}

/// `curate` beside a trainer that is a script, and a run directory for it.
fn with_trainer(dir: &Scratch, script: &str) -> PathBuf {
    let alone = dir.path("curate");
    if !alone.exists() {
        fs::hard_link(CURATE, &alone).unwrap();
    }
    let trainer = dir.file("curate-train", format!("#!/bin/sh\n{script}\n"));
    shell(&format!("chmod +x {}", trainer.display()), "").ok();
    let tokenizer = dir.path("tokenizer.json");
    if !tokenizer.exists() {
        curate(["train-tokenizer", "-q", "--vocab-size=300", "-o", tokenizer.to_str().unwrap()], corpus(50))
            .ok();
        fs::create_dir_all(dir.path("run")).unwrap();
        fs::copy(&tokenizer, dir.path("run/tokenizer.json")).unwrap();
    }
    alone
}

fn u32s(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|x| u32::from_le_bytes(x.try_into().unwrap())).collect()
}

#[test]
fn the_trainer_is_sent_the_ids_of_each_document() {
    let dir = Scratch::new();
    let embed = |script: &str| {
        let alone = with_trainer(&dir, script);
        let line = format!(
            "cd {0} && CURATE_LIBTORCH=/nowhere {1} embed run -o rows.npy --batch 5 --threads 2 --device cpu",
            dir.path("").display(),
            alone.display()
        );
        shell(&line, "{\"text\":\"ab\"}\n{\"text\":\"\"}\n{\"text\":\"the river\"}\n")
    };
    embed("echo \"$@\" > args; cat > sent").ok();
    let args = fs::read_to_string(dir.path("args")).unwrap();
    assert_eq!(args.trim(), "embed run --output rows.npy --batch 5 --device cpu --threads 2");
    let sent = fs::read(dir.path("sent")).unwrap();
    let words = u32s(sent.strip_prefix(b"curate ids 1\n").unwrap());
    // ab may be one token or two, the empty text is none.
    let first = words[0] as usize;
    assert!((1..=2).contains(&first) && words[first + 1] == 0, "{words:?}");
    assert_eq!(words[words.len() - 3..], [u32::MAX, 3, 0]);
    let third = words[first + 2] as usize;
    assert_eq!(words.len(), first + 3 + third + 3, "no ids of ends");
    let out = embed("echo 'error: no such run' >&2; exit 2").expect(2);
    assert!(
        out.stderr.contains("no such run") && out.stderr.contains("see its message above"),
        "{}",
        out.stderr
    );
    let out = curate(["embed", "/nowhere", "-o", "x.npy"], "").expect(2);
    assert!(
        out.stderr.contains("tokenizer.json") && out.stderr.contains("name a run directory"),
        "{}",
        out.stderr
    );
}

#[test]
fn our_own_model_finds_copies() {
    if !Path::new(CURATE).with_file_name("curate-train").exists() {
        println!("skipped: curate-train is not built");
        return;
    }
    let dir = Scratch::new();
    let texts = corpus(300);
    let some: Vec<&str> = texts.lines().filter(|line| line.starts_with('{')).take(40).collect();
    let copies: String = some.iter().chain(&some[..10]).map(|line| format!("{line}\n")).collect();
    let input = dir.file("in.jsonl", copies);
    let line = format!(
        "cd {} && curate clean -q --max-malformed 1 | curate tokenize -q --tokenizer bytes | \
         curate pack -q --seq-len 64 -o shards && \
         curate train shards --preset gpt2-tiny --layers 2 --channels 64 --heads 2 --steps 3 --device cpu -o run && \
         curate embed run {input} -o rows.npy --device cpu && curate embed -q run {input} -o again.npy --device cpu && \
         cmp rows.npy again.npy && \
         curate dedup --semantic --semantic-threshold 0.999999 --embeddings rows.npy --removed removed.jsonl {input}",
        dir.path("").display(),
        input = input.display()
    );
    let out = shell(&line, texts).ok();
    assert!(out.stdout().lines().count() <= 40);
    let proofs = parsed(&fs::read_to_string(dir.path("removed.jsonl")).unwrap());
    assert!(proofs.len() >= 10 && proofs.iter().all(|proof| proof["cosine"].as_f64().unwrap() >= 0.999999));
}
