//! The stage as a whole: the answer is the one of the definition, whatever the corpus.

use std::collections::BTreeSet;

use curate_core::{Counters, Document, Gate, Mapper, Stage, Value, Verdict, Work};
use proptest::prelude::*;

use crate::*;

/// Why a document was removed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Removal {
    pub(crate) reason: String,
    /// The position of the kept document.
    pub(crate) dup_of: usize,
    pub(crate) jaccard: f64,
}

/// Runs the stage over texts; their ids are their positions. `None` = kept.
fn dedup(options: DedupOptions, texts: &[impl AsRef<str>]) -> (Vec<Option<Removal>>, DedupSummary) {
    dedup_in(options, &in_memory(), texts)
}

fn in_memory() -> Storage {
    Storage { memory: 64 << 20, place: Place::TemporaryIn(std::env::temp_dir()) }
}

pub(crate) fn dedup_in(
    options: DedupOptions,
    storage: &Storage,
    texts: &[impl AsRef<str>],
) -> (Vec<Option<Removal>>, DedupSummary) {
    let (mapper, mut gate) = Deduplicator::new(options).unwrap().split_in(storage).unwrap();
    let (mut scratch, mut counters) = (SketchBuffers::default(), Counters::default());
    let mut answer: Vec<Option<Removal>> = Vec::new();
    for (position, text) in texts.iter().enumerate() {
        let source = if position % 2 == 0 { "even" } else { "odd" };
        let mut doc = Document::new(b"", position.to_string(), source, text.as_ref());
        let Work::Pending(work) = mapper.map(&mut doc, &mut scratch, &mut counters) else {
            panic!("the mapper decides nothing");
        };
        let removal = match gate.admit(&mut doc, work).unwrap() {
            Verdict::Keep => None,
            Verdict::Drop(dropped) => {
                let fact = |name| dropped.proof.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
                let Some(Value::Text(dup_of)) = fact("dup_of") else { panic!("{dropped:?}") };
                let Some(&Value::Number(jaccard)) = fact("jaccard") else { panic!("{dropped:?}") };
                let rule = match &*dropped.reason {
                    "exact_duplicate" => "exact",
                    "near_duplicate" => "minhash",
                    other => panic!("{other}"),
                };
                assert_eq!(fact("rule"), Some(&Value::Text(rule.to_owned())));
                assert_eq!(fact("bands_shared").is_some(), rule == "minhash");
                let dup_of = dup_of.parse().unwrap();
                assert_eq!(answer[dup_of], None, "{position} is said to be a copy of a removed document");
                Some(Removal { reason: dropped.reason.to_string(), dup_of, jaccard })
            }
        };
        answer.push(removal);
    }
    let summary = gate.summary().unwrap();
    let kept = answer.iter().filter(|removal| removal.is_none()).count() as u64;
    assert_eq!((summary.documents, summary.kept), (texts.len() as u64, kept));
    assert_eq!(summary.kept + summary.exact_duplicates + summary.near_duplicates, summary.documents);
    assert_eq!(summary.sources.values().map(|s| s.documents).sum::<u64>(), summary.documents);
    assert_eq!(summary.sources.values().map(|s| s.removed).sum::<u64>(), summary.documents - kept);
    (answer, summary)
}

fn minhash(threshold: f64) -> DedupOptions {
    let minhash = MinHashOptions { threshold, ..MinHashOptions::default() };
    DedupOptions { exact: false, minhash: Some(minhash) }
}

const EXACT: DedupOptions = DedupOptions { exact: true, minhash: None };

/// The positions that stand for each document; its own for a kept one.
fn representatives(options: DedupOptions, texts: &[impl AsRef<str>]) -> Vec<usize> {
    let (answer, _) = dedup(options, texts);
    answer.iter().enumerate().map(|(own, removal)| removal.as_ref().map_or(own, |r| r.dup_of)).collect()
}

fn check(options: DedupOptions, texts: &[impl AsRef<str>], expected: &[usize]) {
    assert_eq!(representatives(options, texts), expected);
}

/// `count` words that no other `kind` has.
pub(crate) fn words(kind: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{kind}{i}")).collect()
}

#[test]
fn the_gate_can_be_lent() {
    let (mapper, mut gate) = Deduplicator::new(minhash(0.8)).unwrap().split(&in_memory()).unwrap();
    assert_eq!(Stage::gated("dedup", mapper, &mut gate).name(), "dedup");
    assert_eq!(gate.summary().unwrap().documents, 0);
}

#[test]
fn nine_rows_that_other_tools_get_wrong() {
    let rows = [
        "Closed today",
        "closed TODAY!",
        "See you tomorrow",
        "See  you\ntomorrow",
        "昨天晚上我们一起看了电影",
        "昨天晚上我们一起看了电影",
        "昨天晚上我们一起看了电视",
        "The ferry leaves the old harbour at six in the morning, and comes back before noon on most days.",
        "the ferry leaves the old harbour at six in the morning and comes back before noon - on most days",
    ];
    check(minhash(0.8), &rows, &[0, 0, 2, 2, 4, 4, 6, 7, 7]);
    check(minhash(0.7), &rows, &[0, 0, 2, 2, 4, 4, 4, 7, 7]);
    check(EXACT, &rows, &[0, 1, 2, 2, 4, 4, 6, 7, 8]);
    let (answer, _) = dedup(minhash(0.7), &rows);
    let chinese = answer[6].clone().unwrap();
    assert_eq!((chinese.reason.as_str(), chinese.jaccard), ("near_duplicate", 7.0 / 9.0));
}

#[test]
fn short_documents_go_only_if_they_are_equal() {
    let texts = [
        "", "yes", "no", "Yes.", "yes no", "no yes", "!", "?", "! ", " ", "👍", "👍🏽", "👍", "5", "5.0", "５",
    ];
    check(minhash(0.1), &texts, &[0, 1, 2, 1, 4, 5, 6, 7, 6, 0, 10, 11, 10, 13, 14, 15]);
}

#[test]
fn a_chain_is_not_a_cluster() {
    let a = words("a", 100);
    let b = [&a[..92], &words("b", 8)].concat();
    let c = [&words("c", 8), &b[8..]].concat();
    let [a, b, c] = [a, b, c].map(|words| words.join(" "));
    // A and B share 88 of 104 shingles, so do B and C; A and C share 80 of 112.
    check(minhash(0.8), &[&a, &b, &c], &[0, 0, 2]);
    check(minhash(0.8), &[&b, &a, &c], &[0, 0, 0]);
    check(minhash(0.8), &[&a, &c, &b], &[0, 1, 0]);
    check(minhash(0.7), &[&a, &b, &c], &[0, 0, 0]);
    // A copy of a removed document is judged as the document was.
    check(minhash(0.8), &[&a, &b, &b, &c, &b], &[0, 0, 0, 3, 0]);
}

#[test]
fn the_most_similar_kept_document_is_named() {
    let base = words("w", 200);
    let tail = |n: usize, kind: &str| [&base[..200 - n], &words(kind, n)].concat().join(" ");
    let head = |n: usize, kind: &str| [&words(kind, n), &base[n..]].concat().join(" ");
    let texts = [tail(30, "x"), tail(20, "y"), head(20, "z"), base.join(" "), head(1, "v")];
    let (answer, summary) = dedup(minhash(0.8), &texts);
    let removed = |dup_of, jaccard| {
        let reason = "near_duplicate".to_owned();
        Some(Removal { reason, dup_of, jaccard })
    };
    // Of 196 shingles the base shares 166 with the first text, 176 with the second and as many with the third.
    assert_eq!(answer[..4], [None, None, None, removed(1, 176.0 / 216.0)]);
    // The last one is like the third where it is unlike the base, so it shares 176 with the third and 175 with the
    // second.
    assert_eq!(answer[4], removed(2, 176.0 / 216.0));
    let minhash = summary.minhash.unwrap();
    assert_eq!(minhash.jaccard_histogram, [JaccardBin { from: 0.8, count: 2 }]);
    assert_eq!(minhash.verified, Some(4), "{minhash:?}");
}

#[test]
fn copies_in_other_dress_are_found() {
    let mut texts = Vec::new();
    for n in 0..150 {
        let text = words(&format!("Wort{n}é"), 5 + n);
        texts.push(text.join(" "));
    }
    let originals = texts.len();
    for n in 0..originals {
        texts.push(texts[n].to_uppercase());
        texts.push(texts[n].replace(' ', ",\n\t— "));
    }
    let expected: Vec<usize> = (0..originals).chain((0..originals).flat_map(|n| [n, n])).collect();
    check(minhash(0.8), &texts, &expected);
}

#[test]
fn near_copies_above_the_threshold_are_found() {
    // Similarity (n - 4 - k) / (n - 4 + k) where the last k of n words are changed: 0.80 to 0.82.
    let (mut texts, mut pairs) = (Vec::new(), 0);
    for n in 0..300 {
        let words = words(&format!("w{n}x"), 184 + n % 5);
        let other = [&words[..words.len() - 18], &self::words(&format!("v{n}x"), 18)].concat();
        texts.extend([words.join(" "), other.join(" ")]);
        pairs += 1;
    }
    let (answer, summary) = dedup(minhash(0.8), &texts);
    let found = answer.iter().flatten().count();
    assert!(found * 1000 >= pairs * 995, "{found} of {pairs}");
    assert!(answer.iter().flatten().all(|removal| (0.8..0.83).contains(&removal.jaccard)));
    assert_eq!(summary.sources["even"].removed, 0);
    assert_eq!(summary.sources["odd"].removed_ratio(), found as f64 / pairs as f64);
}

#[test]
fn a_huge_exact_cluster_is_no_trouble() {
    let mut texts = vec!["the same old story, told again and again and again"; 100_000];
    texts.push("another story");
    for options in [EXACT, minhash(0.8)] {
        let (answer, summary) = dedup(options, &texts);
        assert_eq!(answer.iter().flatten().count(), 99_999);
        assert_eq!((summary.clusters, summary.biggest_clusters[0].size), (1, 100_000));
        assert_eq!(summary.biggest_clusters[0].members, ["1", "2", "3", "4", "5"]);
        assert!(summary.memory.total < 2 << 20, "{:?}", summary.memory);
    }
}

#[test]
fn a_document_of_five_megabytes() {
    let text = words("word", 500_000).join(" ");
    assert!(text.len() > 5_000_000);
    let copy = text.replace("word77 ", "WORT ");
    let blank = " ".repeat(5_000_000);
    let monotonous = "na ".repeat(1_700_000);
    check(minhash(0.8), &[text, copy, blank, monotonous], &[0, 0, 2, 3]);
}

#[test]
fn comparisons_skipped_are_counted() {
    let texts: Vec<String> =
        (0..60).map(|i| format!("common {}", words(&format!("x{i}y"), 3).join(" "))).collect();
    let run = |max_candidates_per_band| {
        let minhash = MinHashOptions {
            threshold: 1.0,
            bands: Some(16),
            rows: Some(1),
            ngram: 1,
            max_candidates_per_band,
            ..MinHashOptions::default()
        };
        let (_, summary) = dedup(DedupOptions { exact: true, minhash: Some(minhash) }, &texts);
        summary.minhash.unwrap()
    };
    let (all, few) = (run(1000), run(2));
    assert_eq!((all.verified, all.candidate_precision), (Some(0), Some(0.0)));
    assert_eq!(all.skipped_comparisons, 0);
    assert!(few.candidates < all.candidates, "{few:?}");
    // An entry that is hidden in one band may show in another, so what is hidden is more than what is not compared.
    assert!(few.skipped_comparisons >= all.candidates - few.candidates, "{few:?}");
}

#[test]
fn the_summary_as_json() {
    let (_, summary) = dedup(minhash(0.8), &["a b c d e f", "A b c d e f", "a b c d e f", "g"]);
    let mut json = serde_json::to_value(&summary).unwrap();
    let memory = json.as_object_mut().unwrap().remove("memory").unwrap();
    let parts = ["keys", "records", "ids", "shingle_sets", "clusters"];
    let sum: u64 = parts.iter().map(|part| memory[part].as_u64().unwrap()).sum();
    assert_eq!(memory["total"], sum);
    let probability = match_probability(0.8, 32, 7);
    assert_eq!(
        json,
        serde_json::json!({
            "documents": 4, "kept": 2, "exact_duplicates": 1, "near_duplicates": 1,
            "minhash": {
                "options": {
                    "threshold": 0.8, "bands": 32, "rows": 7, "ngram": 5, "profile": "curate-1", "seed": 1,
                    "max_candidates_per_band": 1000, "verify": true,
                },
                "match_probability_at_threshold": probability,
                "candidates": 1, "verified": 1, "candidate_precision": 1.0, "skipped_comparisons": 0,
                "jaccard_histogram": [{ "from": 0.95, "count": 1 }],
            },
            "clusters": 1,
            "cluster_sizes": [{ "from": 3, "to": 4, "clusters": 1 }],
            "biggest_clusters": [{ "representative": "0", "size": 3, "members": ["1", "2"] }],
            "sources": { "even": { "documents": 2, "removed": 1 }, "odd": { "documents": 2, "removed": 1 } },
            "disk_bytes": 0,
        })
    );
}

#[test]
fn the_answer_does_not_depend_on_memory() {
    // Copies, near copies, and a template whose buckets fill up; enough entries for a dozen runs of the smallest table.
    let mut texts = Vec::new();
    for n in 0..700 {
        let own = words(&format!("w{}x", n % 500), 40 + n % 23);
        let mut text = own.join(" ");
        if n % 3 == 0 {
            text.push_str(" and more");
        }
        texts.push(text);
        texts.push(format!("{} {n}", words("template", 60).join(" ")));
    }
    let options = |limit| {
        let minhash = MinHashOptions { max_candidates_per_band: limit, ..MinHashOptions::default() };
        DedupOptions { exact: true, minhash: Some(MinHashOptions { threshold: 0.97, ..minhash }) }
    };
    for limit in [3, 1000] {
        let (expected, whole) = dedup(options(limit), &texts);
        assert_eq!(whole.disk_bytes, 0);
        for memory in [0, 1 << 20] {
            let place = Place::TemporaryIn(std::env::temp_dir());
            let (answer, summary) = dedup_in(options(limit), &Storage { memory, place }, &texts);
            assert!(answer == expected, "with {memory} bytes and {limit} candidates");
            assert!(memory > 0 || summary.disk_bytes > 100_000, "{summary:?}");
            let part = |s: &DedupSummary| (s.minhash.clone(), s.biggest_clusters.clone(), s.clusters);
            assert_eq!(part(&summary), part(&whole));
        }
    }
}

#[test]
fn an_index_and_then_more_is_all_at_once() {
    let texts: Vec<String> =
        (0..900).map(|n| words(&format!("w{}x", n * 7 % 400), 30 + n % 3).join(" ")).collect();
    let (expected, _) = dedup(minhash(0.8), &texts);
    for memory in [0, 64 << 20] {
        let parent = tempfile::tempdir().unwrap();
        let storage = Storage { memory, place: Place::Index(parent.path().join("index")) };
        let mut answer = Vec::new();
        for part in [0..300, 300..300, 300..310, 310..900] {
            // What is not committed is as if it had not been.
            for commit in [false, true] {
                let (mapper, mut gate) = Deduplicator::new(minhash(0.8)).unwrap().split_in(&storage).unwrap();
                let (mut scratch, mut counters) = (SketchBuffers::default(), Counters::default());
                let mut found = Vec::new();
                for position in part.clone() {
                    let mut doc = Document::new(b"", position.to_string(), "", texts[position].as_str());
                    let Work::Pending(work) = mapper.map(&mut doc, &mut scratch, &mut counters) else {
                        panic!("the mapper decides nothing");
                    };
                    found.push(match gate.admit(&mut doc, work).unwrap() {
                        Verdict::Keep => None,
                        Verdict::Drop(dropped) => Some(dropped.proof[0].1.clone()),
                    });
                }
                if commit {
                    answer.extend(found);
                    gate.commit().unwrap();
                    assert!(Deduplicator::new(minhash(0.8)).unwrap().split_in(&storage).is_err(), "in use");
                }
            }
        }
        let named: Vec<Option<Value>> =
            expected.iter().map(|r| r.as_ref().map(|r| Value::Text(r.dup_of.to_string()))).collect();
        assert!(answer == named, "with {memory} bytes");
        let path = parent.path().join("index");
        let (manifest, faults) = verify_index(&path).unwrap();
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(manifest.documents as usize, named.iter().filter(|n| n.is_none()).count());
        let merged = merge_index(&path).unwrap();
        assert_eq!(merged.runs.len(), 1);
        assert!(verify_index(&path).unwrap().1.is_empty());
        let other = Deduplicator::new(minhash(0.7)).unwrap().split_in(&storage).map(|_| ()).unwrap_err();
        assert!(other.to_string().ends_with("was made with bands 32, not 42"), "{other}");
    }
}

/// The definition, pair by pair, on owned words.
pub(crate) fn brute_force(threshold: f64, ngram: usize, texts: &[String]) -> Vec<Option<Removal>> {
    let split: Vec<Vec<&str>> = texts.iter().map(|text| text.split_whitespace().collect()).collect();
    let sets: Vec<BTreeSet<&[&str]>> = split
        .iter()
        .map(|words| if words.len() < ngram { [&words[..]].into() } else { words.windows(ngram).collect() })
        .collect();
    let mut answer: Vec<Option<Removal>> = Vec::new();
    for i in 0..texts.len() {
        let removed = |reason: &str, dup_of, jaccard| Removal { reason: reason.to_owned(), dup_of, jaccard };
        let kept = (0..i).filter(|&j| answer[j].is_none());
        let mut removal = None;
        for j in kept {
            let jaccard =
                sets[i].intersection(&sets[j]).count() as f64 / sets[i].union(&sets[j]).count() as f64;
            if split[i] == split[j] {
                removal = Some(removed("exact_duplicate", j, 1.0));
                break;
            }
            if jaccard >= threshold && removal.as_ref().is_none_or(|best| jaccard > best.jaccard) {
                removal = Some(removed("near_duplicate", j, jaccard));
            }
        }
        answer.push(removal);
    }
    answer
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn the_answer_is_that_of_the_definition(
        texts in prop::collection::vec("[abc]{0,2}( {1,2}[abc]){0,9}", 0..40),
        threshold in prop::sample::select(vec![0.3, 0.5, 0.6, 0.75, 0.8, 1.0]),
        ngram in 1usize..4,
    ) {
        // A thousand bands of one row leave out a pair of Jaccard 0.3 once in 10^158 times.
        let minhash = MinHashOptions {
            threshold, ngram, bands: Some(1024), rows: Some(1), profile: Profile::Raw, ..MinHashOptions::default()
        };
        let (answer, summary) = dedup(DedupOptions { exact: true, minhash: Some(minhash) }, &texts);
        prop_assert_eq!(answer, brute_force(threshold, ngram, &texts));
        prop_assert_eq!(summary.minhash.unwrap().skipped_comparisons, 0);
    }

    #[test]
    fn exact_removal_is_that_of_the_definition(texts in prop::collection::vec("[ab]{0,1}( {1,2}[ab]){0,3}", 0..40)) {
        let (answer, _) = dedup(EXACT, &texts);
        // No similarity is above 1, so only equal texts go.
        prop_assert_eq!(answer, brute_force(1.1, 1, &texts));
    }
}
