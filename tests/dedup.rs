//! `curate dedup`: what goes, what stays, and the proof.

use std::fs;

use serde_json::Value;

use crate::support::{Random, Scratch, curate, line};

fn story(seed: u64, words: usize) -> String {
    let mut random = Random(seed);
    (0..words).map(|_| format!("w{}", random.below(5000))).collect::<Vec<_>>().join(" ")
}

fn ids(out: &str) -> Vec<String> {
    out.lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_first_copy_stays_and_each_removal_has_its_proof() {
    let dir = Scratch::new();
    let removed = dir.path("removed.jsonl");
    let a = story(1, 200);
    let near = a.replacen("w", "x", 1);
    let input = [
        line("a", &a),
        line("other", &story(2, 200)),
        line("same", &format!("  {} \n", a.replace(' ', "\n"))),
        line("near", &near),
        line("shouted", &a.to_uppercase()),
    ]
    .concat();
    let out =
        curate(["dedup".as_ref(), "--minhash".as_ref(), "--removed".as_ref(), removed.as_os_str()], &input)
            .ok();
    assert_eq!(ids(out.stdout()), ["a", "other"]);
    let proofs: Vec<Value> =
        fs::read_to_string(&removed).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let proof =
        |i: usize| (proofs[i]["id"].as_str(), proofs[i]["reason"].as_str(), proofs[i]["dup_of"].as_str());
    assert_eq!(proof(0), (Some("same"), Some("exact_duplicate"), Some("a")));
    assert_eq!(proof(1), (Some("near"), Some("near_duplicate"), Some("a")));
    assert_eq!(proof(2), (Some("shouted"), Some("near_duplicate"), Some("a")));
    // One word changed of 200: its one 5-gram (it is the first word) is lost on each side: 195 of 197 shared.
    let jaccard = proofs[1]["jaccard"].as_f64().unwrap();
    assert!((jaccard - 195.0 / 197.0).abs() < 1e-12, "{jaccard}");
}

#[test]
fn exact_alone_leaves_near_duplicates() {
    let a = story(1, 100);
    let input = line("a", &a) + &line("b", &a.replacen("w", "x", 1)) + &line("c", &a);
    assert_eq!(ids(curate(["dedup", "--exact"], &input).ok().stdout()), ["a", "b"]);
}

#[test]
fn nothing_is_removed_for_resembling_a_removed_document() {
    // b resembles a, c resembles b but not a: c stays.
    let words: Vec<String> = (0..100).map(|i| format!("w{i}")).collect();
    let change = |from: usize, to: usize| {
        let mut words = words.clone();
        words[from..to].iter_mut().for_each(|w| w.push('x'));
        words.join(" ")
    };
    let input = line("a", &words.join(" ")) + &line("b", &change(0, 10)) + &line("c", &change(0, 20));
    let out = curate(["dedup", "--minhash", "--threshold", "0.75"], &input).ok();
    assert_eq!(ids(out.stdout()), ["a", "c"]);
}

#[test]
fn short_and_unspaced_texts_are_not_lost() {
    let rows = [
        ("short-1", "hello there"),
        ("short-2", "good night"),
        ("short-3", "hello there"),
        ("zh-1", "今天早上我们在河边散步并且看到了很多美丽的花朵和小鸟"),
        ("zh-2", "今天早上我们在河边散步并且看到了很多美丽的花朵和小鸟"),
        ("zh-3", "昨天晚上他们在城市里吃饭然后回家睡觉没有看见任何人"),
        ("empty", ""),
    ];
    let input: String = rows.iter().map(|(id, text)| line(id, text)).collect();
    let out = curate(["dedup", "--minhash"], &input).ok();
    assert_eq!(ids(out.stdout()), ["short-1", "short-2", "zh-1", "zh-3", "empty"]);
}

#[test]
fn options_are_checked() {
    assert!(curate(["dedup"], "").expect(2).stderr.contains("--exact"));
    let out = curate(["dedup", "--minhash", "--threshold", "1.5"], "").expect(2);
    assert!(out.stderr.contains("1.5"), "{}", out.stderr);
    curate(["dedup", "--minhash", "--bands", "4"], "").expect(2);
}
