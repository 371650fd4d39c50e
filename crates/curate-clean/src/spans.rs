//! Where in a text a statistic comes from: the lines that are duplicates, the n-gram that is repeated, the longest word.
//!
//! Places are for reading, not for counting: they follow the idea of a statistic, and dialects of it that count a little
//! differently (empty lines, the first copy of a line) are shown the same places.

use std::collections::HashMap;
use std::ops::Range;

use crate::Words;
use crate::chars::is_letter;

/// Phrases of policies and of placeholders, by which published filters drop lines or documents.
const POLICIES: [&str; 6] =
    ["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"];
const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];
const BULLETS: [char; 8] = ['•', '‣', '▪', '●', '◦', '*', '-', '–'];
const SHORT_LINE: usize = 30;

/// The byte ranges of `text` that a statistic is about, in order; `None` for one that has no place, such as a mean.
///
/// Memory: a table of the text's lines, paragraphs or n-grams.
pub fn spans(statistic: &str, text: &str) -> Option<Vec<Range<usize>>> {
    let has = |part: &str| statistic.contains(part);
    let repeats = has("dup") || has("repeated") || has("repetition");
    Some(match () {
        () if has("gram") => match (has("top"), gram_length(statistic)?) {
            (true, n) => top_gram(text, n),
            (false, n) => repeated_grams(text, n),
        },
        () if repeats && has("paragraph") => duplicates(paragraphs(text)),
        () if repeats && has("line") => duplicates(lines(text)),
        () if has("bullet") => lines_where(text, |line| line.trim_start().starts_with(BULLETS)),
        () if has("ellipsis_line") || has("lines_ending_with_ellipsis") => {
            lines_where(text, |line| line.trim_end().ends_with("...") || line.trim_end().ends_with('…'))
        }
        () if has("ellips") => found(text, &["...", "…"]),
        () if has("hash") || has("symbol") => found(text, &["#"]),
        () if has("short_line") => {
            lines_where(text, |line| !line.trim().is_empty() && line.trim().chars().count() <= SHORT_LINE)
        }
        () if has("longest_word") || has("max_word_length") => longest_word(text).into_iter().collect(),
        () if has("stop_word") => words_where(text, |word| {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            STOP_WORDS.iter().any(|stop| bare.eq_ignore_ascii_case(stop))
        }),
        () if has("alphabetic_word") || has("alpha_word") => {
            words_where(text, |word| !word.chars().any(is_letter))
        }
        () if has("lorem") => found_in_any_case(text, &["lorem ipsum"]),
        () if has("javascript") => found_in_any_case(text, &["javascript"]),
        () if has("policy") || has("policies") || has("cookie") => found_in_any_case(text, &POLICIES),
        () if has("curly") || has("brace") => found(text, &["{", "}"]),
        () if has("parenthes") => found(text, &["(", ")"]),
        () if has("url") => words_where(text, |word| word.contains("://") || word.contains("www.")),
        _ => return None,
    })
}

/// The 3 of `top_3_gram_ratio`, `top_3gram` or `duplicate_3_grams`.
fn gram_length(statistic: &str) -> Option<usize> {
    let digits: String =
        statistic.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|n| (1..=100).contains(n))
}

fn range_of(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

/// Lines without the white space around them; blank ones are left out.
fn lines(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).map(|line| (range_of(text, line), line))
}

/// What blank lines separate.
fn paragraphs(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    text.split("\n\n").map(str::trim).filter(|part| !part.is_empty()).map(|part| (range_of(text, part), part))
}

/// The second and later copies of what occurs more than once.
fn duplicates<'t>(parts: impl Iterator<Item = (Range<usize>, &'t str)>) -> Vec<Range<usize>> {
    let mut seen = std::collections::HashSet::new();
    parts.filter(|(_, part)| !seen.insert(*part)).map(|(range, _)| range).collect()
}

fn lines_where(text: &str, holds: impl Fn(&str) -> bool) -> Vec<Range<usize>> {
    lines(text).filter(|(_, line)| holds(line)).map(|(range, _)| range).collect()
}

fn words_where(text: &str, holds: impl Fn(&str) -> bool) -> Vec<Range<usize>> {
    Words::Whitespace.split(text).filter(|word| holds(word)).map(|word| range_of(text, word)).collect()
}

/// The first of the longest words.
fn longest_word(text: &str) -> Option<Range<usize>> {
    let lengths = Words::Whitespace.split(text).map(|word| (word.chars().count(), word));
    lengths
        .reduce(|best, word| if word.0 > best.0 { word } else { best })
        .map(|(_, word)| range_of(text, word))
}

/// Where any of the patterns stands, in order.
fn found(text: &str, patterns: &[&str]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = patterns
        .iter()
        .flat_map(|pattern| text.match_indices(pattern).map(|(start, found)| start..start + found.len()))
        .collect();
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// As [`found`], for patterns of ASCII letters in any case.
fn found_in_any_case(text: &str, patterns: &[&str]) -> Vec<Range<usize>> {
    // Lower-casing ASCII alone moves nothing.
    found(&text.to_ascii_lowercase(), patterns)
}

/// Every run of `n` words, from its first word's start to its last word's end, with its words as they stand.
fn grams(text: &str, n: usize) -> Vec<(Range<usize>, Vec<&str>)> {
    let words: Vec<&str> = Words::Whitespace.split(text).collect();
    let span = |words: &[&str]| range_of(text, words[0]).start..range_of(text, words[words.len() - 1]).end;
    words.windows(n).map(|words| (span(words), words.to_vec())).collect()
}

/// Every place of the n-gram that occurs most often; of several the first. None occurs once only.
fn top_gram(text: &str, n: usize) -> Vec<Range<usize>> {
    let grams = grams(text, n);
    let mut counts: HashMap<&[&str], usize> = HashMap::new();
    grams.iter().for_each(|(_, words)| *counts.entry(words).or_default() += 1);
    let top = grams
        .iter()
        .map(|(_, words)| words)
        .reduce(|best, words| if counts[words.as_slice()] > counts[best.as_slice()] { words } else { best });
    let Some(top) = top.filter(|top| counts[top.as_slice()] > 1) else { return Vec::new() };
    grams.iter().filter(|(_, words)| words == top).map(|(range, _)| range.clone()).collect()
}

/// The stretches that n-grams which have occurred before take, joined where they overlap.
fn repeated_grams(text: &str, n: usize) -> Vec<Range<usize>> {
    let grams = grams(text, n);
    let mut seen = std::collections::HashSet::new();
    let mut joined: Vec<Range<usize>> = Vec::new();
    for (range, _) in grams.iter().filter(|(_, words)| !seen.insert(words.as_slice())) {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = range.end,
            _ => joined.push(range.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The places, separated by ` | `.
    #[track_caller]
    fn check(statistic: &str, text: &str, expected: &str) {
        let places = spans(statistic, text).expect("a statistic with a place");
        let shown: Vec<&str> = places.into_iter().map(|range| &text[range]).collect();
        assert_eq!(shown.join(" | "), expected, "{statistic}");
    }

    #[test]
    fn statistics_have_places() {
        check("duplicate_lines_ratio", "one\n two\ntwo\n\nother\none", "two | one");
        check("dup_paragraph_char_ratio", "a b\n\nc\n\na b", "a b");
        check("bullet_lines_ratio", "- a\nb - c\n  • d\n* e", "- a | • d | * e");
        check("ellipsis_lines_ratio", "go on...\nno\nyes…", "go on... | yes…");
        check("ellipsis_ratio", "a… b... c", "… | ...");
        check("hash_ratio", "#a # b", "# | #");
        check("short_lines_ratio", "short\na line of rather more than thirty letters\nx", "short | x");
        check("longest_word", "a lighthouse in the dark", "lighthouse");
        check("longest_word", "", "");
        check("stop_words_distinct", "The cat, and THE dog that", "The | and | THE | that");
        check("alphabetic_words_ratio", "a 12 b -- 3c", "12 | --");
        check("top_2_gram_ratio", "a b c a b d a b", "a b | a b | a b");
        check("top_3gram_ratio", "a b c d", "");
        check("duplicate_2_gram_ratio", "a b c x a b c", "a b c");
        check("lorem_ipsum", "Lorem Ipsum dolor", "Lorem Ipsum");
        check("curly_brackets", "if (x) { y }", "{ | }");
        check("policy_lines", "We use Cookies here", "use Cookies");
        check("urls_ratio", "see https://a.b/c and www.x.org", "https://a.b/c | www.x.org");
        assert_eq!(spans("mean_word_length", "a"), None);
        assert_eq!(spans("bytes", "a"), None);
    }

    proptest! {
        #[test]
        fn places_lie_in_the_text(text in ".{0,200}|([ab#\n•…. ]){0,200}", which in 0..12_usize) {
            let names = ["dup_lines", "dup_paragraphs", "bullet_lines", "ellipsis_lines", "ellipses", "hashes",
                "short_lines", "longest_word", "top_2_gram", "dup_5_gram", "lorem_ipsum", "stop_words"];
            let mut end = 0;
            for range in spans(names[which], &text).unwrap() {
                prop_assert!(text.get(range.clone()).is_some_and(|part| !part.is_empty()));
                prop_assert!(range.start >= end || names[which] == "top_2_gram");
                end = range.end;
            }
        }
    }
}
