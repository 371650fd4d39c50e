//! What NeMo Curator's English heuristic filters count (`nemo_curator/stages/text/filters/heuristic/`).

use memchr::{memchr, memchr_iter, memmem};

use super::dclm::{share, strip};
use super::dolma::is_stop_word;
use super::grams::{Grams, Segments, hash, lines};
use super::{DialectScratch, Tables};
use crate::bytes::characters;
use crate::chars::is_decimal;
use crate::words::{Classes, class};

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct NemoValues {
    pub(crate) characters: usize,
    pub(crate) alphanumeric_characters: usize,
    pub(crate) digits: usize,
    pub(crate) white_space: usize,
    pub(crate) parentheses: usize,
    pub(crate) url_characters: usize,
    pub(crate) boilerplate_ratio: f64,
    pub(crate) words: usize,
    pub(crate) word_characters: usize,
    pub(crate) longest_word: usize,
    pub(crate) symbol_words: usize,
    pub(crate) alphabetic_words: usize,
    pub(crate) stop_words: usize,
    pub(crate) bullet_lines: usize,
    pub(crate) ellipsis_lines: usize,
    pub(crate) lines_without_end_mark: usize,
    pub(crate) lines: Segments,
    pub(crate) paragraphs: Segments,
    /// What the rules on 2- to 10-grams compare.
    pub(crate) grams: [f64; 9],
}

const ELLIPSES: [&str; 8] = ["...", "[...]", "…", "(...)", "[…]", "-»", "read more..", "read more"];
const BULLETS: [char; 12] = ['•', '‣', '⁃', '⁌', '⁍', '∙', '○', '●', '◘', '◦', '⦾', '⦿'];
const LATIN: &str = "lorem ipsum";

/// The short phrases that mark a paragraph as boilerplate.
const PHRASES: [&str; 9] = [
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "privacy overview",
    "use of cookies",
    "use cookies",
    "privacy & cookies policy",
    "privacy and cookies policy",
];

/// The three long ones that contain none of the short ones: how each begins, its length, its hash.
const NOTICES: [(&str, usize, u64); 3] = [
    ("necessary cookies are absolutely essential", 242, 0x5f70_dbad_0a5e_f186),
    ("any cookies that may not", 302, 0x0261_a2c6_6b60_a39f),
    ("if you continue to browse", 113, 0x59e1_0993_fc35_a10b),
];

impl NemoValues {
    /// Everything but the n-grams.
    pub(crate) fn measure_basics(&mut self, text: &str, tables: Tables<'_>, scratch: &mut DialectScratch) {
        let classes = tables.classes;
        *self = Self { grams: self.grams, ..Self::default() };
        self.count_characters(text);
        self.url_characters = url_characters(text);
        self.boilerplate_ratio = boilerplate_ratio(text, tables.phrases);
        for token in classes.tokens(text) {
            self.words += 1;
            self.word_characters += token.characters;
            self.longest_word = self.longest_word.max(token.characters);
            let word = token.text.as_bytes();
            if token.all & class::ALPHANUMERIC == 0 {
                self.symbol_words += usize::from(is_symbol(token.text, token.characters));
            }
            let is_alphabetic = token.any & class::LETTER != 0
                || (token.any & class::BEYOND_ASCII != 0 && token.text.contains(char::is_alphabetic));
            self.alphabetic_words += usize::from(is_alphabetic);
            self.stop_words += usize::from(is_stop_word(word));
        }
        let most = memchr_iter(b'\n', text.as_bytes()).count() + 1;
        for line in lines(text).map(strip).filter(|line| !line.is_empty()) {
            self.bullet_lines += usize::from(line.starts_with(BULLETS));
            self.ellipsis_lines += usize::from(ends_in_ellipsis(line));
            self.lines_without_end_mark += usize::from(!line.ends_with(['.', '?', '!', '"', '\'']));
        }
        let filled = lines(text).filter(|line| !strip(line).is_empty());
        self.lines = Segments::sum(filled, most, &mut scratch.counts);
        self.paragraphs = Segments::sum(text.split("\n\n"), most, &mut scratch.counts);
    }

    fn count_characters(&mut self, text: &str) {
        self.characters = characters(text);
        for run in text.as_bytes().chunks(255) {
            let count = |is: fn(u8) -> bool| usize::from(run.iter().map(|b| u8::from(is(*b))).sum::<u8>());
            self.alphanumeric_characters += count(|b| {
                (b | 0x20).wrapping_sub(b'a') < 26
                    || b.wrapping_sub(b'0') < 10
                    || matches!(b, b'\n' | b'?' | b'!' | b',' | b'.')
            });
            self.digits += count(|b| b.wrapping_sub(b'0') < 10);
            self.white_space += count(|b| matches!(b, b'\t' | b'\n' | b'\r' | 8 | b' '));
            self.parentheses += count(|b| matches!(b, b'{' | b'}' | b'[' | b']' | b'(' | b')'));
        }
        if self.characters < text.len() {
            for c in text.chars().filter(|c| !c.is_ascii()) {
                self.digits += usize::from(is_decimal(c));
                self.parentheses += usize::from(matches!(c, '⟨' | '⟩'));
            }
        }
    }

    pub(crate) fn measure_grams(&mut self, text: &str, classes: &Classes, scratch: &mut DialectScratch) {
        let DialectScratch { grams, places, joined, .. } = scratch;
        grams.clear();
        places.clear();
        let base = text.as_ptr() as usize;
        for token in classes.tokens(text) {
            grams.push(token.text.as_bytes(), token.characters);
            let at = token.text.as_ptr() as usize - base;
            places.push((at as u32, (at + token.text.len()) as u32));
        }
        let length = characters(text);
        for n in 2..=10 {
            grams.next();
            self.grams[n - 2] = if grams.words() < n {
                1.0
            } else if n < 5 {
                share(removable(text, grams, places, joined, n), length)
            } else {
                share(duplicated(grams, n), length)
            };
        }
    }
}

/// Characters that go if the most frequent n-gram, joined by single spaces, is taken out of the text. Of those that are
/// equally frequent, the first; the original takes any.
fn removable(text: &str, grams: &Grams, places: &[(u32, u32)], joined: &mut String, n: usize) -> usize {
    let most = grams.repeats().iter().map(|repeat| repeat.count).max();
    let first = grams.repeats().iter().find(|r| Some(r.count) == most).map_or(0, |r| r.at as usize);
    joined.clear();
    for (start, end) in &places[first..first + n] {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(&text[*start as usize..*end as usize]);
    }
    memmem::find_iter(text.as_bytes(), joined.as_bytes()).count() * characters(joined)
}

/// Characters of n-grams that stood further ahead already, with the spaces between their words, overlaps once.
fn duplicated(grams: &Grams, n: usize) -> usize {
    let mut total = 0;
    let mut end = 0;
    for repeat in grams.repeats().iter().filter(|repeat| repeat.is_later) {
        let at = repeat.at as usize;
        let overlap = usize::saturating_sub(end, at);
        total += grams.between(at + overlap, at + n) as usize + (n - overlap).min(n - 1);
        end = at + n;
    }
    total
}

/// An ellipsis, or a word of which more than half of the characters begin a run of `#`.
fn is_symbol(word: &str, characters: usize) -> bool {
    let bytes = word.as_bytes();
    if memchr(b'#', bytes).is_some() {
        let runs =
            (0..bytes.len()).filter(|i| bytes[*i] == b'#' && (*i == 0 || bytes[i - 1] != b'#')).count();
        return runs * 2 > characters;
    }
    ELLIPSES.contains(&word)
}

fn ends_in_ellipsis(line: &str) -> bool {
    match line.as_bytes() {
        [.., b'.' | b']' | b')' | b'e' | b'E'] => {
            let bytes = line.as_bytes();
            ELLIPSES.iter().any(|mark| {
                bytes.len() >= mark.len()
                    && bytes[bytes.len() - mark.len()..].eq_ignore_ascii_case(mark.as_bytes())
            })
        }
        [.., last] if !last.is_ascii() => ELLIPSES.iter().any(|mark| line.ends_with(mark)),
        _ => false,
    }
}

/// Characters in URLs, all of which are ASCII.
fn url_characters(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut total, mut done) = (0, 0);
    for at in memmem::find_iter(bytes, b"http") {
        if at < done {
            continue;
        }
        let Some(scheme) =
            ["http://", "https://"].iter().find(|scheme| bytes[at..].starts_with(scheme.as_bytes()))
        else {
            continue;
        };
        let start = at + scheme.len();
        let mut end = start;
        while let Some(length) = url_step(&bytes[end..]) {
            end += length;
        }
        if end > start {
            total += end - at;
            done = end;
        }
    }
    total
}

fn url_step(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => Some(3),
        [c, ..] if c.is_ascii_alphanumeric() || b"$-_@.&+/:=?#~!*(),".contains(c) => Some(1),
        _ => None,
    }
}

/// Finds the phrases of boilerplate in any case.
pub(crate) fn phrases() -> aho_corasick::AhoCorasick {
    let patterns = [LATIN].into_iter().chain(PHRASES).chain(NOTICES.iter().map(|(start, ..)| *start));
    aho_corasick::AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .match_kind(aho_corasick::MatchKind::LeftmostFirst)
        .build(patterns)
        .expect("a dozen short patterns")
}

/// Paragraphs with boilerplate over paragraphs; 1 if there is any `lorem ipsum`.
fn boilerplate_ratio(text: &str, phrases: &aho_corasick::AhoCorasick) -> f64 {
    let (mut found, mut paragraph_end) = (0, 0);
    for hit in phrases.find_iter(text) {
        let pattern = hit.pattern().as_usize();
        if pattern == 0 {
            return 1.0;
        }
        if hit.start() < paragraph_end {
            continue;
        }
        if let Some((_, length, expected)) = pattern.checked_sub(1 + PHRASES.len()).map(|i| NOTICES[i]) {
            let notice = text.as_bytes().get(hit.start()..hit.start() + length);
            if notice.is_none_or(|notice| hash(&notice.to_ascii_lowercase()) != expected) {
                continue;
            }
        }
        found += 1;
        let rest = &text.as_bytes()[hit.end()..];
        paragraph_end = memmem::find(rest, b"\n\n").map_or(text.len(), |at| hit.end() + at);
    }
    if found == 0 {
        return 0.0;
    }
    share(found, memmem::find_iter(text.as_bytes(), b"\n\n").count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, expected) in [
            ("", 0),
            ("http://a.b", 10),
            ("see https://a.b/c?d#e, ok", 18),
            ("http:// https://", 0),
            ("http://a%2f%zz", 11),
            ("httphttp://é", 0),
            ("http://http://x", 15),
        ] {
            assert_eq!(url_characters(text), expected, "{text:?}");
        }
    }

    #[test]
    fn symbols() {
        for (word, expected) in [
            ("#", true),
            ("##", false),
            ("#a#", true),
            ("#a", false),
            ("…", true),
            ("[…]", true),
            ("....", false),
        ] {
            assert_eq!(is_symbol(word, word.chars().count()), expected, "{word}");
        }
    }

    #[test]
    fn ellipses() {
        for (line, expected) in [
            ("a...", true),
            ("a Read More", true),
            ("Read more..", true),
            ("a[…]", true),
            ("a -»", true),
            ("a.", false),
        ] {
            assert_eq!(ends_in_ellipsis(line), expected, "{line}");
        }
    }

    #[test]
    fn boilerplate() {
        let phrases = phrases();
        for (text, expected) in [
            ("a\n\nOur Privacy Policy and terms of use\n\nc\n\nd", 0.25),
            ("Terms of Use\n\nwe USE COOKIES", 1.0),
            ("a\n\nLorem Ipsum\n\nb", 1.0),
            ("necessary cookies are absolutely essential\n\nb", 0.0),
            ("a", 0.0),
        ] {
            assert_eq!(boilerplate_ratio(text, &phrases), expected, "{text:?}");
        }
    }
}
