//! `curate inspect`: documents and shard sets, readable and harmless.

use std::fs;

use crate::support::{Scratch, corpus, curate, line, root, shell};

fn records() -> String {
    let long = "word ".repeat(400);
    [
        r#"{"id":"a","source":"books","url":"http://a.example/","text":"first line\nsecond line","year":1999}"#,
        &format!(r#"{{"id":"b","text":"{long}"}}"#),
        r#"{"id":"c","text":"\u001b[31mred\u001b[0m \u202e!"}"#,
    ]
    .map(|record| record.to_owned() + "\n")
    .concat()
}

#[test]
fn documents_are_shown_with_their_facts() {
    let out = curate(["inspect", "-n", "1"], records()).ok();
    let expected = format!(
        "─── 1 · a {}\nsource books · http://a.example/ · 22 characters · 4 words · 2 lines\n\nfirst line\nsecond line\n\n",
        "─".repeat(90)
    );
    assert_eq!(out.stdout(), expected);
    let out = curate(["inspect", "-n", "1", "--fields"], records()).ok();
    assert!(out.stdout().contains("\nyear: 1999\n\nfirst line\n"), "{}", out.stdout());
}

#[test]
fn long_texts_are_wrapped_and_cut() {
    let out = curate(["inspect", "--skip", "1", "-n", "1", "--lines", "3"], records()).ok();
    let rows: Vec<&str> = out.stdout().lines().collect();
    assert_eq!(rows[0].split_whitespace().nth(1), Some("2"), "{}", rows[0]);
    let row = "word ".repeat(20);
    assert_eq!(rows[3..7], [row.trim(), row.trim(), row.trim(), "… 1,700 more characters"]);
    assert!(rows.iter().all(|row| row.chars().count() <= 100));
    let all = curate(["inspect", "--id", "b"], records()).ok();
    assert_eq!(all.stdout().split("\n\n").nth(1).unwrap().matches("word").count(), 400);
    assert!(!all.stdout().contains('…'));
}

#[test]
fn control_characters_are_shown_and_not_obeyed() {
    let out = curate(["inspect", "--id", "c"], records()).ok();
    assert!(out.stdout().contains("␛[31mred␛[0m \u{fffd}!\n"), "{}", out.stdout());
}

#[test]
fn json_is_the_stored_record() {
    let out = curate(["inspect", "--json", "--skip", "1", "-n", "2"], records()).ok();
    assert_eq!(out.stdout().lines().collect::<Vec<_>>(), records().lines().skip(1).collect::<Vec<_>>());
}

#[test]
fn any_input_can_be_looked_at() {
    let dir = Scratch::new();
    let text = dir.file("a.txt", "plain\ttext");
    let out = curate(["inspect".as_ref(), text.as_os_str()], "").ok();
    assert!(out.stdout().contains("a.txt") && out.stdout().contains("\nplain text\n"), "{}", out.stdout());
}

#[test]
fn what_is_not_there_is_said() {
    let missing = curate(["inspect", "--id", "nobody"], records()).expect(2);
    assert!(missing.stderr.contains("no document has the id \"nobody\""), "{}", missing.stderr);
    let bad = curate(["inspect"], line("a", "fine") + "not json\n").ok();
    assert!(bad.stderr.contains("1 records could not be read; the first: stdin:2"), "{}", bad.stderr);
    let no_set = curate(["inspect", "--document", "0"], records()).expect(2);
    assert!(no_set.stderr.contains("needs a shard directory"), "{}", no_set.stderr);
}

#[test]
fn it_ends_early_and_quietly() {
    let dir = Scratch::new();
    let big = dir.file("big.jsonl", corpus(20_000));
    let out = shell(&format!("curate inspect -n 20000 {} | head -c 100 | wc -c", big.display()), "").ok();
    assert_eq!((out.stdout().trim(), out.stderr.as_str()), ("100", ""));
    let first = curate(["inspect", "-n", "1", big.to_str().unwrap()], "").ok();
    assert_eq!((first.stdout().matches("───── ").count(), first.stderr.as_str()), (0, ""));
    assert!(first.stdout().starts_with("─── 1 · doc-0 "));
}

#[test]
fn a_shard_set_shows_what_it_holds() {
    let shards = root().join("fixtures/shards-v1");
    let with = |options: &[&str]| {
        let path = shards.to_str().unwrap();
        curate(["inspect", path].iter().chain(options), "").ok().stdout().to_owned()
    };
    let shown = with(&[]);
    for expected in ["\ntrain ", "\nval ", "view train (concat)", "T=32 ", "fingerprint "] {
        assert!(shown.contains(expected), "{expected:?} is not in\n{shown}");
    }
    let manifest: serde_json::Value = serde_json::from_str(&with(&["--json"])).unwrap();
    let n = manifest["splits"][1]["documents"].as_u64().unwrap();
    assert!(n > 0);
    let documents = fs::read_to_string(root().join("fixtures/documents.jsonl")).unwrap();
    let texts: Vec<String> = documents
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["text"].as_str().unwrap().to_owned())
        .collect();
    for k in 0..n {
        let args = ["--split", "val", "--document", &k.to_string(), "--json"];
        let doc: serde_json::Value = serde_json::from_str(&with(&args)).unwrap();
        let text = doc["text"].as_str().unwrap();
        assert!(texts.iter().any(|t| t == text), "{text:?}");
        assert_eq!(
            doc["tokens"].as_array().unwrap().len(),
            text.len() + 1,
            "bytes and the end of the document"
        );
    }
    let first = with(&["--split", "val", "--document", "0"]);
    assert!(first.starts_with("─── val 0 of "), "{first}");
    let beyond = curate(["inspect", shards.to_str().unwrap(), "--document", "100000"], "").expect(2);
    assert!(beyond.stderr.contains("100000"), "{}", beyond.stderr);
}
