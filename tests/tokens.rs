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
