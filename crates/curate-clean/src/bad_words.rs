//! Lists of words that a document must not have, as C4 and datatrove's `C4BadWordsFilter` use them.
//!
//! A phrase counts where it is flanked by characters that are not part of words, whatever its case. A flank at which the
//! phrase itself is in a script without spaces (Han, Kana, Thai, …) is not asked for, since there it would never be
//! met; datatrove decides this by the language of the document, here it is a matter of the phrase.

use aho_corasick::{AhoCorasick, MatchKind};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// When a phrase is reason enough.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct BadWordsOptions {
    /// Share of the documents with such phrases that are kept all the same, 0..=1; which ones, hash and seed decide.
    pub keep_fraction: f64,
    pub seed: u64,
    /// Drop only if the phrases cover a larger share of the characters that are not white space, 0..=1.
    pub max_ratio: Option<f64>,
}

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadWordsError {
    #[error("the list has no phrase")]
    Empty,
    #[error("the list is too large to search for: {0}")]
    TooLarge(#[from] aho_corasick::BuildError),
    #[error("{name} must be between 0 and 1, not {value}")]
    Share { name: &'static str, value: f64 },
}

/// What was found in a document.
#[derive(Debug, Clone, PartialEq)]
pub struct BadWord<'w> {
    /// The phrase that ends first in the document, as the list has it but in lower case.
    pub phrase: &'w str,
    /// Share of the characters that are not white space which lie in phrases of the list; 0 unless `max_ratio` is set.
    pub ratio: f64,
    /// False if the document is one of those kept all the same.
    pub is_dropped: bool,
}

/// A list, ready to search for; shared by threads.
#[derive(Debug)]
pub struct BadWords {
    automaton: AhoCorasick,
    phrases: Vec<String>,
    options: BadWordsOptions,
}

impl BadWords {
    /// The reason of the drop.
    pub const REASON: &'static str = "bad_words";

    /// From a list with one phrase a line; blank lines do not count.
    pub fn new(list: &str, options: BadWordsOptions) -> Result<Self, BadWordsError> {
        for (name, value) in
            [("keep_fraction", options.keep_fraction), ("max_ratio", options.max_ratio.unwrap_or(0.0))]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(BadWordsError::Share { name, value });
            }
        }
        let mut phrases: Vec<String> =
            list.lines().map(|line| line.trim().to_lowercase()).filter(|phrase| !phrase.is_empty()).collect();
        phrases.sort_unstable();
        phrases.dedup();
        if phrases.is_empty() {
            return Err(BadWordsError::Empty);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .build(&phrases)?;
        Ok(Self { automaton, phrases, options })
    }

    /// The first phrase of the list in `text`, if there is any. `lowered` is a buffer for text beyond ASCII.
    pub fn check(&self, text: &str, lowered: &mut String) -> Option<BadWord<'_>> {
        let searched = if text.is_ascii() {
            text
        } else {
            lowered.clear();
            // Not by character: the lower case of a final sigma depends on its neighbours.
            lowered.push_str(&text.to_lowercase());
            lowered.as_str()
        };
        let mut hits = self
            .automaton
            .find_overlapping_iter(searched)
            .filter(|hit| is_flanked(searched, hit.start(), hit.end()));
        let first = hits.next()?;
        let mut ratio = 0.0;
        if let Some(max_ratio) = self.options.max_ratio {
            let mut ranges: Vec<_> = std::iter::once(first).chain(hits).map(|hit| hit.range()).collect();
            ranges.sort_unstable_by_key(|range| (range.start, range.end));
            ratio = covered(searched, &ranges);
            if ratio <= max_ratio {
                return None;
            }
        }
        let phrase = &self.phrases[first.pattern().as_usize()];
        Some(BadWord { phrase, ratio, is_dropped: !self.is_spared(text) })
    }

    fn is_spared(&self, text: &str) -> bool {
        let uniform =
            (xxh3_64_with_seed(text.as_bytes(), self.options.seed) >> 11) as f64 / (1_u64 << 53) as f64;
        uniform < self.options.keep_fraction
    }
}

/// Share of the characters that are not white space within the ranges, which are in order but may overlap.
fn covered(text: &str, ranges: &[std::ops::Range<usize>]) -> f64 {
    let count = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
    let (mut inside, mut end) = (0, 0);
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        if range.end > end {
            inside += count(&text[range.start.max(end)..range.end]);
            end = range.end;
        }
    }
    inside as f64 / count(text).max(1) as f64
}

fn is_flanked(text: &str, start: usize, end: usize) -> bool {
    let (before, inside, behind) = (&text[..start], &text[start..end], &text[end..]);
    let is_free = |inner: Option<char>, outer: Option<char>| {
        outer.is_none_or(|c| !is_word(c)) || inner.is_some_and(is_unspaced)
    };
    is_free(inside.chars().next(), before.chars().next_back())
        && is_free(inside.chars().next_back(), behind.chars().next())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Thai, Lao, Myanmar, Khmer, Kana, Han.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIST: &str = "Darn\nblue moon\n\n糟糕\nΣΟΦΟΣ\nc++\n";

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let words = BadWords::new(LIST, BadWordsOptions::default()).expect("the list is fine");
        let found = words.check(text, &mut String::new());
        assert_eq!(found.as_ref().map(|word| word.phrase), expected, "{text:?}");
        assert!(found.is_none_or(|word| word.is_dropped));
    }

    #[test]
    fn flanked_in_any_case() {
        check("well, DARN.", Some("darn"));
        check("darn", Some("darn"));
        check("é darn", Some("darn"));
        check("Once in a Blue Moon\n", Some("blue moon"));
        check("这糟糕了", Some("糟糕"));
        check("ένας ΣΟΦΟΣ", Some("σοφος"));
        check("I know C++!", Some("c++"));
        for text in ["", "darned", "darn_it", "darn2", "édarné", "blue  moon"] {
            check(text, None);
        }
    }

    #[test]
    fn ratio_and_fraction() {
        let at_most =
            |max_ratio| BadWordsOptions { max_ratio: Some(max_ratio), ..BadWordsOptions::default() };
        let text = "darn it all, darn!";
        let ratio = |max| {
            let words = BadWords::new(LIST, at_most(max)).expect("the list is fine");
            words.check(text, &mut String::new()).map(|word| word.ratio)
        };
        assert_eq!(ratio(0.5), Some(8.0 / 15.0));
        assert_eq!(ratio(0.6), None);
        let options = BadWordsOptions { keep_fraction: 0.3, seed: 7, max_ratio: None };
        let words = BadWords::new(LIST, options).expect("the list is fine");
        let spared = (0..2000)
            .filter(|i| {
                !words.check(&format!("darn {i}"), &mut String::new()).expect("it is there").is_dropped
            })
            .count();
        assert!((500..700).contains(&spared), "{spared} of 2000");
        assert!(BadWords::new(" \n", BadWordsOptions::default()).is_err());
        assert!(BadWords::new("a", BadWordsOptions { keep_fraction: 2.0, ..Default::default() }).is_err());
    }

    proptest! {
        #[test]
        fn finds_what_a_plain_search_finds(text in "[darn_ D.é糟糕ΣΟΦ]{0,24}|\\PC{0,12}") {
            let words = BadWords::new(LIST, BadWordsOptions::default()).expect("the list is fine");
            let lower = text.to_lowercase();
            let expected = words.phrases.iter().any(|phrase| {
                (0..lower.len()).any(|at| lower.is_char_boundary(at) && lower[at..].starts_with(phrase.as_str())
                    && is_flanked(&lower, at, at + phrase.len()))
            });
            prop_assert_eq!(words.check(&text, &mut String::new()).is_some(), expected);
        }
    }
}
