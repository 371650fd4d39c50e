//! Corpora that deduplicators get wrong, or drown in: what must go, what must stay, and how much work that may take.
//!
//! Each trap is made by rule, with its answer. Work is counted in pairs compared, not in seconds.

use crate::options::{Place, Storage};
use crate::tests::{dedup_in, words};
use crate::words::finish;
use crate::{DedupOptions, DedupSummary, MinHashOptions};

/// Documents that belong together, and their answer.
struct Trap {
    name: &'static str,
    texts: Vec<String>,
    /// For each text the one of this trap that stands for it; `None`: it stays.
    expected: Vec<Option<usize>>,
    /// Pairs that may be compared. Each near-duplicate takes one; templates and chains take more, since their documents share
    /// bands without being copies.
    max_candidates: u64,
}

impl Trap {
    fn new(name: &'static str, max_candidates: u64) -> Self {
        Self { name, texts: Vec::new(), expected: Vec::new(), max_candidates }
    }

    fn stays(&mut self, text: impl Into<String>) -> usize {
        self.texts.push(text.into());
        self.expected.push(None);
        self.texts.len() - 1
    }

    fn goes(&mut self, text: impl Into<String>, stands: usize) {
        self.texts.push(text.into());
        self.expected.push(Some(stands));
    }
}

/// `count` words of a vocabulary with Zipf's frequencies, which other seeds share.
fn prose(seed: u64, count: usize) -> Vec<String> {
    const VOCABULARY: f64 = 20_000.0;
    (0..count as u64)
        .map(|i| {
            let uniform = finish(seed << 32 | i) as f64 / u64::MAX as f64;
            // The inverse of a distribution function that grows with the logarithm of the rank.
            format!("v{}", VOCABULARY.powf(uniform) as u64)
        })
        .collect()
}

/// A text with every `every`-th word replaced by one that nothing else has.
fn changed(text: &[String], every: usize, kind: &str) -> Vec<String> {
    text.iter()
        .enumerate()
        .map(|(i, word)| if i % every == every / 2 { format!("{kind}{i}") } else { word.clone() })
        .collect()
}

/// Licences that differ in year and holder are copies; pages of one template with other contents are not, nor are calls of
/// one function.
fn templates() -> Trap {
    let mut trap = Trap::new("templates", 15_000);
    let licence = prose(1, 300);
    let mut first = None;
    for n in 0..200 {
        let text = format!("copyright {} holder{n} {}", 1970 + n % 60, licence.join(" "));
        match first {
            None => first = Some(trap.stays(text)),
            Some(first) => trap.goes(text, first),
        }
    }
    let (head, foot) = (prose(2, 60).join(" "), prose(3, 40).join(" "));
    for n in 0..300 {
        trap.stays(format!("{head} {} {foot}", words(&format!("api{n}x"), 60).join(" ")));
    }
    let system = prose(4, 40).join(" ");
    for n in 0..300 {
        let question = words(&format!("ask{n}x"), 12).join(" ");
        trap.stays(format!(
            "{system} user {question} call {{\"name\": \"get_weather\", \"arguments\": {{\"city\": \"c{n}\"}}}}"
        ));
    }
    trap
}

/// Long texts in the same words: every character n-gram of the one is in the other, and hardly a word 5-gram.
fn books() -> Trap {
    let mut trap = Trap::new("books", 8);
    let mut shelf: Vec<Vec<String>> = Vec::new();
    for n in 0..25 {
        let book = prose(100 + n, 12_000);
        trap.stays(book.join(" "));
        shelf.push(book);
    }
    for (n, book) in shelf.iter().enumerate().take(5) {
        // A revised edition: one word of 100, hence five 5-grams of 100, 95 of 105 in common.
        trap.goes(changed(book, 100, "rev").join(" "), n);
        // The first half alone: half of the 5-grams.
        trap.stays(book[..6000].join(" "));
    }
    trap
}

/// Texts without spaces between words, and right-to-left ones.
fn scripts() -> Trap {
    let mut trap = Trap::new("scripts", 470);
    let made = |first: u32, kinds: u64, seed: u64, len: u64| -> String {
        let letter = |i| char::from_u32(first + (finish(seed << 32 | i) % kinds) as u32).unwrap();
        (0..len).map(letter).collect()
    };
    // Han, Hiragana, Thai.
    for (first, kinds) in [(0x4E00, 3000), (0x3042, 60), (0x0E01, 46)] {
        for n in 0..60 {
            let text = made(first, kinds, n, 120);
            let own = trap.stays(text.clone());
            trap.goes(format!("「{text}」。"), own);
            // One letter in the middle: five of 116 5-grams on either side.
            let mut letters: Vec<char> = text.chars().collect();
            letters[60] = char::from_u32(first + 46 + n as u32 % 10).unwrap();
            trap.goes(letters.into_iter().collect::<String>(), own);
        }
        let mirrored: String = made(first, kinds, 0, 120).chars().rev().collect();
        trap.stays(mirrored);
    }
    // Arabic, in words of four letters.
    for n in 0..100 {
        let words: Vec<String> = (0..40).map(|i| made(0x0628, 35, 1000 + n * 100 + i, 4)).collect();
        let own = trap.stays(words.join(" "));
        trap.goes(words.join("، "), own);
    }
    trap
}

/// Rows of fewer words than a shingle has.
fn short_rows() -> Trap {
    let mut trap = Trap::new("short rows", 510);
    let empty = trap.stays("");
    for n in 0..2000u64 {
        let text = words(&format!("s{n}x"), 1 + n as usize % 4).join(" ");
        let own = trap.stays(text.clone());
        if n % 4 == 0 {
            trap.goes(format!("{} ", text.to_uppercase()), own);
            trap.goes("\n", empty);
        }
    }
    for row in ["ok", "OK then", "then ok", "昨天", "天昨", "١٢", "👍"] {
        trap.stays(row);
    }
    trap
}

/// Each link resembles its neighbours and nothing else: every second one goes, for the one before it.
fn chains() -> Trap {
    let mut trap = Trap::new("chains", 900);
    for chain in 0..10 {
        // A window of 100 words that moves on by 8: neighbours share 88 of 104 shingles, the next but one 80 of 112.
        let tape = words(&format!("chain{chain}x"), 100 + 8 * 60);
        let mut before = None;
        for link in 0..60 {
            let text = tape[8 * link..8 * link + 100].join(" ");
            before = match before {
                None => Some(trap.stays(text)),
                Some(before) => {
                    trap.goes(text, before);
                    None
                }
            };
        }
    }
    trap
}

/// Copies in other dress, and what looks like a copy to those who do not read: the same words in another order.
fn dress() -> Trap {
    let mut trap = Trap::new("dress", 210);
    for n in 0..100 {
        let words = prose(5000 + n, 120);
        let own = trap.stays(words.join(" "));
        trap.goes(words.join("\n"), own);
        trap.goes(words.join(", ").to_uppercase(), own);
        trap.goes(format!("«{}»!", words.join(" — ")), own);
        let mut sorted = words.clone();
        sorted.sort();
        trap.stays(sorted.join(" "));
    }
    trap
}

/// `size` variants of one text, each a word away from the first: only the first is kept, so each is compared once.
fn one_cluster(size: usize) -> Trap {
    let mut trap = Trap::new("one cluster", size as u64 - 1);
    let base = prose(6, 150);
    let first = trap.stays(base.join(" "));
    for n in 1..size {
        let mut text = base.clone();
        text[n % 150] = format!("variant{n}");
        trap.goes(text.join(" "), first);
    }
    trap
}

/// One document that is larger than all others together, with copies.
fn huge() -> Trap {
    let mut trap = Trap::new("huge", 3);
    let text = words("huge", 400_000);
    let own = trap.stays(text.join(" "));
    trap.goes(changed(&text, 1000, "other").join(" "), own);
    trap.stays(text[..200_000].join(" "));
    trap.stays("na ".repeat(1_000_000));
    trap.stays("x".repeat(3_000_000));
    trap.stays("木".repeat(1_000_000));
    trap
}

fn storage(memory: u64) -> Storage {
    Storage { memory, place: Place::TemporaryIn(std::env::temp_dir()) }
}

fn options(max_candidates_per_band: u32) -> DedupOptions {
    DedupOptions {
        exact: true,
        minhash: Some(MinHashOptions { max_candidates_per_band, ..MinHashOptions::default() }),
    }
}

/// Runs over traps, one after the other in one corpus, and checks every document of each.
fn check(traps: &[Trap], memory: u64) -> DedupSummary {
    let texts: Vec<&str> = traps.iter().flat_map(|trap| &trap.texts).map(String::as_str).collect();
    let (answer, summary) = dedup_in(options(1000), &storage(memory), &texts);
    let mut start = 0;
    for trap in traps {
        for (i, expected) in trap.expected.iter().enumerate() {
            let found = answer[start + i].as_ref().map(|removal| removal.dup_of);
            assert_eq!(found, expected.map(|stands| start + stands), "{}: text {i}", trap.name);
        }
        start += trap.texts.len();
    }
    let minhash = summary.minhash.as_ref().unwrap();
    let allowed: u64 = traps.iter().map(|trap| trap.max_candidates).sum();
    assert!(minhash.candidates <= allowed, "{} pairs compared, {allowed} allowed", minhash.candidates);
    assert_eq!(minhash.skipped_comparisons, 0);
    let removed: usize = traps.iter().map(|trap| trap.expected.iter().flatten().count()).sum();
    assert_eq!(summary.exact_duplicates + summary.near_duplicates, removed as u64);
    summary
}

#[test]
fn each_trap_alone() {
    for make in [templates, books, scripts, short_rows, chains, dress, huge] {
        check(&[make()], 64 << 20);
    }
}

#[test]
fn all_traps_in_one_corpus() {
    let traps =
        || [templates(), books(), scripts(), short_rows(), chains(), dress(), huge(), one_cluster(3000)];
    let whole = check(&traps(), 256 << 20);
    let little = check(&traps(), 1 << 20);
    assert!(little.disk_bytes > 1 << 20, "{little:?}");
    assert_eq!(little.minhash, whole.minhash);
}

#[test]
fn one_cluster_of_a_hundred_thousand() {
    let size = 100_000;
    let summary = check(&[one_cluster(size)], 64 << 20);
    let minhash = summary.minhash.unwrap();
    assert_eq!((minhash.candidates, minhash.verified), (size as u64 - 1, Some(size as u64 - 1)));
    assert_eq!(summary.biggest_clusters[0].size, size as u64);
    // One document is remembered, whatever the size.
    assert!(summary.memory.total < 4 << 20, "{:?}", summary.memory);
}

/// `count` pages of one template, each with contents of its own: none is a copy, and all of them share buckets.
fn crowd(count: usize, max_candidates_per_band: u32) -> DedupSummary {
    let template = prose(7, 60).join(" ");
    let texts: Vec<String> =
        (0..count).map(|n| format!("{template} {}", words(&format!("own{n}x"), 40).join(" "))).collect();
    let (answer, summary) = dedup_in(options(max_candidates_per_band), &storage(256 << 20), &texts);
    assert!(answer.iter().all(Option::is_none), "no page is another one");
    let minhash = summary.minhash.as_ref().unwrap();
    assert_eq!(minhash.verified, Some(0));
    assert!(minhash.skipped_comparisons > 0, "buckets must be full for this to be a test: {minhash:?}");
    // A document looks at so many in each bucket that is full, and is in few of these: the work grows with the documents.
    let per_document = minhash.candidates / count as u64;
    assert!(per_document <= u64::from(max_candidates_per_band), "{minhash:?}");
    summary
}

#[test]
fn crowded_buckets_are_cut_short_and_counted() {
    let (few, more) = (crowd(4000, 30), crowd(8000, 30));
    let pairs = |summary: &DedupSummary| summary.minhash.as_ref().unwrap().candidates;
    // Twice the documents, twice the pairs, and not four times.
    assert!(pairs(&more) < pairs(&few) * 5 / 2, "{} {}", pairs(&few), pairs(&more));
}

/// The same at full size with the default limit.
#[test]
#[allow(clippy::print_stdout)] // the figures are what one runs it for
#[ignore = "tens of millions of comparisons: run it by name, in a release build"]
fn a_crowd_of_a_hundred_thousand() {
    let summary = crowd(100_000, MinHashOptions::default().max_candidates_per_band);
    let minhash = summary.minhash.unwrap();
    println!("{} pairs compared, {} skipped", minhash.candidates, minhash.skipped_comparisons);
}
