//! The line edits of C4 as datatrove 0.10.1 has them (`pipeline/filters/c4_filters.py`, `C4QualityFilter`).

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};

use super::dclm::strip;
use super::sentences::sentences;
use crate::chars::{is_decimal, is_line_break, is_python_space};

/// What the edit saw, for the rules behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct C4Values {
    /// A line that was left holds `lorem ipsum`; the edit went no further.
    pub(crate) has_lorem_ipsum: bool,
    /// A line that was left holds `{`; the edit went no further.
    pub(crate) has_curly_bracket: bool,
    /// Sentences of the lines that stay, each line for itself.
    pub(crate) sentences: usize,
}

const PHRASES: [&str; 8] = [
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
];

/// Phrases from here on are about policies.
const FIRST_POLICY: usize = 2;
const MIN_WORDS: usize = 3;
const MAX_WORD_LENGTH: usize = 1000;

/// Finds the phrases that the edit looks for.
pub(crate) fn phrases() -> AhoCorasick {
    AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .build(PHRASES)
        .expect("eight short phrases make a small automaton")
}

/// True for a line about cookies, privacy or terms of use.
pub(crate) fn is_about_policies(line: &str, phrases: &AhoCorasick) -> bool {
    phrases.find_overlapping_iter(line).any(|found| found.pattern().as_usize() >= FIRST_POLICY)
}

/// Writes the lines that stay into `out`, whose contents go; returns whether they differ from `text`.
pub(crate) fn edit(
    text: &str,
    needs_end_mark: bool,
    phrases: &AhoCorasick,
    spare: &mut String,
    out: &mut String,
) -> (bool, C4Values) {
    out.clear();
    let mut values = C4Values::default();
    let has_phrases = phrases.is_match(text);
    let has_citations = memchr::memchr(b'[', text.as_bytes()).is_some();
    let mut is_first = true;
    for line in split_lines(text) {
        let line = strip(line);
        let Some(words) = words(line) else { continue };
        let line = if has_citations { without_citations(line, spare) } else { line };
        if (needs_end_mark && !has_end_mark(line)) || words < MIN_WORDS {
            continue;
        }
        let has = |i: usize| has_phrases && phrases.find_overlapping_iter_any(line, i);
        if has(0) {
            values.has_lorem_ipsum = true;
            return (false, values);
        }
        if has(1) {
            continue;
        }
        if memchr::memchr(b'{', line.as_bytes()).is_some() {
            values.has_curly_bracket = true;
            return (false, values);
        }
        if (FIRST_POLICY..PHRASES.len()).any(has) {
            continue;
        }
        values.sentences += sentences(line);
        if !is_first {
            out.push('\n');
        }
        is_first = false;
        out.push_str(line);
    }
    let end = out.trim_end_matches(is_python_space).len();
    out.truncate(end);
    let start = out.len() - out.trim_start_matches(is_python_space).len();
    out.drain(..start);
    (out != text, values)
}

trait FindAny {
    fn find_overlapping_iter_any(&self, line: &str, pattern: usize) -> bool;
}

impl FindAny for AhoCorasick {
    /// True if the pattern of that number stands in the line.
    fn find_overlapping_iter_any(&self, line: &str, pattern: usize) -> bool {
        self.find_overlapping_iter(line).any(|found| found.pattern().as_usize() == pattern)
    }
}

/// Python's `str.splitlines()`.
fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(is_line_break);
        let Some(at) = end else { return Some(std::mem::take(&mut rest)) };
        let line = &rest[..at];
        let after = &rest[at..];
        let len = if after.starts_with("\r\n") { 2 } else { after.chars().next().map_or(0, char::len_utf8) };
        rest = &after[len..];
        Some(line)
    })
}

/// The number of words, or nothing if one is too long.
fn words(line: &str) -> Option<usize> {
    let mut words = 0;
    for word in line.split(is_python_space).filter(|word| !word.is_empty()) {
        if word.len() > MAX_WORD_LENGTH && word.chars().count() > MAX_WORD_LENGTH {
            return None;
        }
        words += 1;
    }
    Some(words)
}

fn has_end_mark(line: &str) -> bool {
    line.ends_with(['.', '?', '!', '"', '\'']) && !line.ends_with("...")
}

/// Takes out `[edit]`, `[citation needed]` and numbers in brackets, of no digits too.
fn without_citations<'l>(line: &'l str, spare: &'l mut String) -> &'l str {
    let mut from = 0;
    let mut is_changed = false;
    for at in memchr::memchr_iter(b'[', line.as_bytes()) {
        if at < from {
            continue;
        }
        let rest = &line[at + 1..];
        let tail = ["edit]", "citation needed]"].into_iter().find_map(|mark| rest.strip_prefix(mark));
        let Some(tail) = tail.or_else(|| rest.trim_start_matches(is_decimal).strip_prefix(']')) else {
            continue;
        };
        if !is_changed {
            spare.clear();
            is_changed = true;
        }
        spare.push_str(&line[from..at]);
        from = line.len() - tail.len();
    }
    if !is_changed {
        return line;
    }
    spare.push_str(&line[from..]);
    spare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, needs_end_mark: bool, expected: &str, values: C4Values) {
        let (mut spare, mut out) = (String::new(), String::new());
        let (changed, found) = edit(text, needs_end_mark, &phrases(), &mut spare, &mut out);
        assert_eq!((found, changed), (values, !expected.is_empty() && text != expected), "{text:?}");
        if changed {
            assert_eq!(out, expected, "{text:?}");
        }
    }

    fn sentences(sentences: usize) -> C4Values {
        C4Values { sentences, ..C4Values::default() }
    }

    #[test]
    fn lines_stay_or_go() {
        check(
            " One two three. Four \r\n\r\nfive six\u{2028}a b c",
            false,
            "One two three. Four\na b c",
            sentences(3),
        );
        check("One two three. Four\nfive six seven.", true, "five six seven.", sentences(1));
        check("one two three...\na b c.", true, "a b c.", sentences(1));
        check("Enable JavaScript to go on\nWe use cookies for all\na b c", false, "a b c", sentences(1));
        check(
            "as was said[12] by one[edit] or two[citation needed].[]",
            true,
            "as was said by one or two.",
            sentences(1),
        );
        check(&format!("a b {}\na b c", "x".repeat(1001)), false, "a b c", sentences(1));
    }

    #[test]
    fn two_things_end_it() {
        let lorem = C4Values { has_lorem_ipsum: true, ..C4Values::default() };
        check("Lorem Ipsum dolor { sit", false, "", lorem);
        let bracket = C4Values { has_curly_bracket: true, ..C4Values::default() };
        check("if (a) { b\nlorem ipsum dolor", false, "", bracket);
        // What no line that stays holds is not seen.
        check("if (a) { b\na b c.", true, "a b c.", sentences(1));
        check("{ b\na b c", false, "a b c", sentences(1));
    }
}
