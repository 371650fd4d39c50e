//! `curate stats`: exact counts, and estimates within the error that they state.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::{Random, Scratch, corpus, curate, report, shell};

/// Documents of two sources with a line that most of them share, made-up words and CJK; the same every time.
fn sourced(n: usize) -> String {
    let mut random = Random(7);
    let mut lines = String::new();
    for i in 0..n {
        let words: Vec<String> =
            (0..random.below(300)).map(|_| format!("w{}", random.below(20_000))).collect();
        let mut text = words.join(if i % 3 == 0 { "\n" } else { " " });
        if random.below(4) > 0 {
            text += "\n\n  Share this page \r\n文字 と 文字\n";
        }
        let source = ["books", "web"][random.below(2)];
        lines += &serde_json::json!({ "id": i, "source": source, "text": text }).to_string();
        lines += "\n";
    }
    lines
}

fn texts(input: &str) -> Vec<(String, String)> {
    let parse = |line| serde_json::from_str::<Value>(line).unwrap();
    input
        .lines()
        .map(parse)
        .map(|v| (v["source"].as_str().unwrap().to_owned(), v["text"].as_str().unwrap().to_owned()))
        .collect()
}

fn stats(input: &str, options: &[&str]) -> Value {
    let args = ["stats", "--json", "-q"].iter().chain(options);
    serde_json::from_str(curate(args, input).ok().stdout()).unwrap()
}

/// Asserts that an estimate is within a share of the exact number.
#[track_caller]
fn within(estimate: &Value, exact: u64, share: f64) {
    let estimate = estimate.as_f64().unwrap();
    assert!((estimate - exact as f64).abs() <= share * exact as f64 + 0.5, "{estimate} for {exact}");
}

#[test]
fn counts_are_exact_and_estimates_within_their_error() {
    let input = sourced(1500);
    let stats = stats(&input, &["--top", "5"]);
    let documents = texts(&input);
    let of = |source: Option<&str>| -> Vec<&str> {
        let wanted = documents.iter().filter(|(s, _)| source.is_none_or(|source| source == s));
        wanted.map(|(_, text)| text.as_str()).collect()
    };
    let error = |name: &str| stats["errors"][name].as_f64().unwrap();
    let check = |facts: &Value, texts: &[&str]| {
        let sum = |count: &dyn Fn(&str) -> usize| texts.iter().map(|t| count(t) as u64).sum::<u64>();
        assert_eq!(facts["documents"], texts.len());
        assert_eq!(facts["bytes"], sum(&|t| t.len()));
        assert_eq!(facts["characters"], sum(&|t| t.chars().count()));
        assert_eq!(facts["words"], sum(&|t| t.split_whitespace().count()));
        assert_eq!(facts["lines"], sum(&|t| t.lines().count()));
        let words: BTreeSet<&str> = texts.iter().flat_map(|t| t.split_whitespace()).collect();
        within(&facts["distinct_words"], words.len() as u64, 3.0 * error("distinct_words_standard_error"));
        let mut lengths: Vec<u64> = texts.iter().map(|t| t.chars().count() as u64).collect();
        lengths.sort_unstable();
        let n = lengths.len();
        let given = &facts["characters_per_document"];
        assert_eq!((given["min"].as_u64(), given["max"].as_u64()), (Some(lengths[0]), Some(lengths[n - 1])));
        within(&given["mean"], lengths.iter().sum::<u64>() / n as u64, 1.0 / n as f64);
        let quantile = |q: f64| lengths[(q * n as f64).ceil() as usize - 1];
        within(&given["median"], quantile(0.5), error("quantile_relative_error"));
        within(&given["p95"], quantile(0.95), error("quantile_relative_error"));
        for octave in given["histogram"].as_array().unwrap() {
            let range = octave["from"].as_u64().unwrap()..=octave["to"].as_u64().unwrap();
            assert_eq!(octave["documents"], lengths.iter().filter(|l| range.contains(l)).count());
        }
    };
    check(&stats["all"], &of(None));
    let sources = stats["sources"].as_array().unwrap();
    assert_eq!(sources.len(), 2);
    for facts in sources {
        check(facts, &of(facts["source"].as_str()));
    }

    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in of(None).into_iter().flat_map(str::lines).map(str::trim).filter(|l| !l.is_empty()) {
        *counts.entry(line).or_default() += 1;
    }
    assert_eq!(stats["lines_not_blank"], counts.values().sum::<u64>());
    let excess = stats["errors"]["line_count_excess"].as_u64().unwrap();
    assert!(counts.len() > 1000 && excess > 0, "more distinct lines than candidates: {}", counts.len());
    let given = stats["frequent_lines"].as_array().unwrap();
    assert_eq!(given.len(), 5);
    let most: BTreeSet<&str> = given[..2].iter().map(|l| l["line"].as_str().unwrap()).collect();
    assert_eq!(most, BTreeSet::from(["Share this page", "文字 と 文字"]));
    for line in given {
        let exact = counts[line["line"].as_str().unwrap()];
        assert!((exact..=exact + excess).contains(&line["count"].as_u64().unwrap()), "{line} for {exact}");
    }
}

#[test]
fn every_run_and_any_number_of_threads_gives_the_same() {
    let input = sourced(800) + &corpus(300);
    let one = stats(&input, &["--max-malformed", "1", "--threads", "1"]);
    for options in [["--threads", "1"], ["--threads", "4"], ["--block-size", "1K"]] {
        assert_eq!(one, stats(&input, &[&["--max-malformed", "1"], &options[..]].concat()), "{options:?}");
    }
}

#[test]
fn the_tables_say_what_the_json_says() {
    let input = sourced(300);
    let dir = Scratch::new();
    let json = dir.path("report.json");
    let out = curate(["stats", "--report", json.to_str().unwrap()], &input).ok();
    let report = report(&json);
    assert_eq!(report["stats"], stats(&input, &[]));
    let table = out.stdout();
    for expected in ["books", "web", "all", "Share this page", "standard error 0.8 %", "within 3.1 %"] {
        assert!(table.contains(expected), "{expected:?} is not in\n{table}");
    }
    assert!(!table.contains("(no source)"));
    assert!(out.stderr.starts_with("stats: 300 documents"), "{}", out.stderr);
}

#[test]
fn empty_input_and_hostile_sources_are_fine() {
    let nothing = stats("", &[]);
    assert_eq!((&nothing["all"]["documents"], &nothing["all"]["distinct_words"]), (&0.into(), &0.into()));
    assert!(curate(["stats"], "").ok().stdout().contains("no line is repeated among 0"));
    // One source a document: the table and the memory stay small.
    let many: String =
        (0..1500).map(|i| format!("{{\"text\":\"a b\",\"source\":\"\\u001b[3{i}m\"}}\n")).collect();
    let all = stats(&many, &[]);
    assert_eq!(all["sources"].as_array().unwrap().len(), 1001);
    assert_eq!(all["sources"][0]["source"], "(other sources)");
    assert_eq!((&all["sources"][0]["documents"], &all["all"]["documents"]), (&500.into(), &1500.into()));
    let table = curate(["stats"], &many).ok();
    assert!(!table.stdout().contains('\u{1b}') && table.stdout().lines().count() < 90);
}

#[test]
fn malformed_records_count_as_everywhere() {
    let out = curate(["stats"], "{\"text\":\"a\"}\nnot json\n").expect(1);
    assert!(out.stderr.contains("1 of 2 records are malformed"), "{}", out.stderr);
    let out = shell("curate stats | head -c 1", sourced(10)).ok();
    assert_eq!(out.stdout.len(), 1);
}
