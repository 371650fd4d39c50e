//! What DCLM's reproduction of RefinedWeb counts (`baselines/mappers/filters/content_filters.py`).

use memchr::{memchr_iter, memmem};

use super::DialectScratch;
use super::grams::{Grams, Segments, lines};
use super::uax29;
use crate::chars::{is_python_alphanumeric, is_python_space};
use crate::words::{Classes, class};

/// Counts of one text, as the filters compare them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct DclmValues {
    /// fastText's tokens that begin with a letter or a digit.
    pub(crate) tokens: usize,
    pub(crate) words: usize,
    pub(crate) word_characters: usize,
    pub(crate) symbols: usize,
    pub(crate) words_without_letter: usize,
    pub(crate) stop_words: usize,
    pub(crate) bullet_lines: usize,
    pub(crate) ellipsis_lines: usize,
    pub(crate) lines: Segments,
    pub(crate) paragraphs: Segments,
    /// What the rules on 2- to 10-grams compare.
    pub(crate) grams: [f64; 9],
}

const BULLETS: [&str; 4] = ["●", "•", "*", "-"];

impl DclmValues {
    /// Everything but the n-grams.
    pub(crate) fn measure_basics(&mut self, text: &str, classes: &Classes, scratch: &mut DialectScratch) {
        *self = Self { grams: self.grams, ..Self::default() };
        self.tokens = tokens(text);
        self.symbols = symbols(text);
        for token in classes.tokens(text) {
            self.words += 1;
            self.word_characters += token.characters;
            self.words_without_letter += usize::from(token.any & class::LETTER == 0);
            self.stop_words += usize::from(is_stop_word(token.text.as_bytes()));
        }
        let most = memchr_iter(b'\n', text.as_bytes()).count() + 1;
        let stripped = lines(text).map(strip).filter(|line| !line.is_empty());
        for line in stripped.clone() {
            self.bullet_lines += usize::from(BULLETS.iter().any(|bullet| line.starts_with(bullet)));
            self.ellipsis_lines +=
                usize::from(line.ends_with("...") || line.ends_with(". . .") || line.ends_with('…'));
        }
        self.lines = Segments::sum(stripped, most, &mut scratch.counts);
        let paragraphs = text.split("\n\n").map(strip).filter(|paragraph| !paragraph.is_empty());
        self.paragraphs = Segments::sum(paragraphs, most, &mut scratch.counts);
    }

    /// The shares of characters in repeated n-grams, of the words between Unicode's boundaries.
    pub(crate) fn measure_grams(&mut self, text: &str, scratch: &mut DialectScratch) {
        let grams = &mut scratch.grams;
        grams.clear();
        uax29::words(text, |word, characters| grams.push(word, characters));
        for n in 2..=10 {
            grams.next();
            let part = if n < 5 { top(grams) } else { covered(grams, n) };
            self.grams[n - 2] = share(part as usize, grams.characters() as usize);
        }
    }

    pub(crate) fn share_of_copied_lines(&self) -> f64 {
        share(self.lines.copied, self.lines.all)
    }

    pub(crate) fn share_of_copied_paragraphs(&self) -> f64 {
        share(self.paragraphs.copied, self.paragraphs.all)
    }

    pub(crate) fn share_of_copied_line_characters(&self) -> f64 {
        share(self.lines.copied_characters, self.lines.characters)
    }

    pub(crate) fn share_of_copied_paragraph_characters(&self) -> f64 {
        share(self.paragraphs.copied_characters, self.paragraphs.characters)
    }
}

/// The longest of the most frequent n-grams, times its count; nothing if none repeats.
fn top(grams: &Grams) -> u32 {
    let most = grams.repeats().iter().map(|repeat| repeat.count).max().unwrap_or(0);
    let longest = grams.repeats().iter().filter(|r| r.count == most).map(|r| grams.length(r.at)).max();
    most * longest.unwrap_or(0)
}

/// Characters of all words that are in some repeated n-gram.
fn covered(grams: &Grams, n: usize) -> u32 {
    let (mut characters, mut end) = (0, 0);
    for repeat in grams.repeats() {
        let at = repeat.at as usize;
        characters += grams.between(at.max(end), at + n);
        end = at + n;
    }
    characters
}

pub(crate) fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Python's `str.strip()`.
#[inline]
pub(crate) fn strip(text: &str) -> &str {
    let is_plain = |byte: Option<&u8>| byte.is_some_and(|b| (b'!'..=b'~').contains(b));
    let bytes = text.as_bytes();
    if is_plain(bytes.first()) && is_plain(bytes.last()) {
        return text;
    }
    text.trim_matches(is_python_space)
}

fn symbols(text: &str) -> usize {
    let bytes = text.as_bytes();
    let dots =
        if memmem::find(bytes, b"..").is_some() { memmem::find_iter(bytes, b"...").count() } else { 0 };
    let spaced = memmem::find_iter(bytes, b". . .").count();
    let beyond_ascii = if text.is_ascii() { 0 } else { memmem::find_iter(bytes, "…".as_bytes()).count() };
    memchr_iter(b'#', bytes).count() + dots + spaced + beyond_ascii
}

/// The stop words of the Gopher paper, in any case.
fn is_stop_word(word: &[u8]) -> bool {
    let is = |stop_word: &str| word.eq_ignore_ascii_case(stop_word.as_bytes());
    match word.len() {
        2 => is("of") || is("to") || is("be"),
        3 => is("the") || is("and"),
        4 => is("that") || is("with") || is("have"),
        _ => false,
    }
}

/// fastText's `tokenize`, of which the tokens count that begin with a letter or a digit.
pub(crate) fn tokens(text: &str) -> usize {
    let is_space = |b: u8| (b == b' ') | (b.wrapping_sub(b'\t') < 5) | (b == 0);
    let is_start = |b: u8| ((b | 0x20).wrapping_sub(b'a') < 26) | (b.wrapping_sub(b'0') < 10);
    let bytes = text.as_bytes();
    let Some(first) = bytes.first() else { return 0 };
    // In runs short enough for the counts of a run to fit the lanes of a vector of bytes.
    let pairs = bytes.chunks(255).zip(bytes[1..].chunks(255));
    let inside = pairs.map(|(before, at)| {
        let starts = before.iter().zip(at).map(|(b, a)| u8::from(is_space(*b) & is_start(*a)));
        usize::from(starts.sum::<u8>())
    });
    let tokens = inside.sum::<usize>() + usize::from(is_start(*first));
    if text.is_ascii() {
        return tokens;
    }
    let begins =
        |at: usize| (at == 0 || is_space(bytes[at - 1])) && text[at..].starts_with(is_python_alphanumeric);
    tokens + (0..bytes.len()).filter(|at| bytes[*at] >= 0xc2 && begins(*at)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_begin_after_spaces(text in "[a0_é中½· \u{a0}\n\0\u{b}-]{0,600}") {
            let pieces = text.split([' ', '\t', '\n', '\u{b}', '\u{c}', '\r', '\0']);
            let expected = pieces.filter(|piece| piece.starts_with(is_python_alphanumeric)).count();
            prop_assert_eq!(tokens(&text), expected);
        }
    }

    #[test]
    fn symbols_of_all_kinds() {
        for (text, expected) in
            [("", 0), ("# ##", 3), ("....", 1), ("......", 2), (". . . .", 1), ("a…b. . .", 2), (". ..", 0)]
        {
            assert_eq!(symbols(text), expected, "{text}");
        }
    }
}
