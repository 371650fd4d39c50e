//! What dolma's tagger `gopher_v1` counts (`python/dolma/taggers/gopher.py`, version 1.2.1).
//!
//! Its ratios are written with five decimals, and the mixer compares what was written: 0.100004 is not above 0.1.

use memchr::{memchr, memchr_iter, memmem};

use super::DialectScratch;
use super::dclm::share;
use super::grams::{Grams, Segments, lines};
use crate::words::{Classes, class};

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct DolmaValues {
    pub(crate) words: usize,
    pub(crate) median_word_length: f64,
    pub(crate) symbol_ratio: f64,
    pub(crate) alphabetic_ratio: f64,
    pub(crate) stop_words: usize,
    pub(crate) bullet_ratio: f64,
    pub(crate) ellipsis_ratio: f64,
    pub(crate) duplicate_lines: f64,
    pub(crate) duplicate_line_characters: f64,
    /// What the rules on 2- to 10-grams compare.
    pub(crate) grams: [f64; 9],
}

impl DolmaValues {
    /// Everything but the n-grams.
    pub(crate) fn measure_basics(&mut self, text: &str, classes: &Classes, scratch: &mut DialectScratch) {
        *self = Self { grams: self.grams, ..Self::default() };
        let (mut characters, mut symbols, mut alphabetic) = (0, 0, 0);
        scratch.lengths.clear();
        for token in classes.tokens(text) {
            self.words += 1;
            characters += token.characters;
            scratch.lengths.push(token.characters as u32);
            alphabetic += usize::from(token.any & class::LETTER != 0);
            let is_plain = token.all & class::ALPHANUMERIC != 0;
            symbols += usize::from(!is_plain && has_symbol(token.text.as_bytes()));
            self.stop_words += usize::from(is_stop_word(token.text.as_bytes()));
        }
        self.median_word_length = rounded(median(&mut scratch.lengths));
        self.symbol_ratio = rounded(share(symbols, self.words));
        self.alphabetic_ratio = rounded(share(alphabetic, self.words));
        let most = memchr_iter(b'\n', text.as_bytes()).count() + 1;
        let (mut bullets, mut ellipses) = (0, 0);
        for line in lines(text) {
            bullets += usize::from(line.starts_with(['*', '-']));
            ellipses += usize::from(line.ends_with('…'));
        }
        let lines = Segments::sum(lines(text), most, &mut scratch.counts);
        self.bullet_ratio = rounded(share(bullets, lines.all));
        self.ellipsis_ratio = rounded(share(ellipses, lines.all));
        self.duplicate_lines = rounded(share(lines.copied, lines.all));
        self.duplicate_line_characters = rounded(share(lines.copied_characters, characters));
    }

    pub(crate) fn measure_grams(&mut self, text: &str, classes: &Classes, scratch: &mut DialectScratch) {
        let grams = &mut scratch.grams;
        grams.clear();
        for token in classes.tokens(text) {
            grams.push(token.text.as_bytes(), token.characters);
        }
        for n in 2..=10 {
            grams.next();
            self.grams[n - 2] = rounded(if n < 5 { top(grams) } else { repeated(grams, n) });
        }
    }
}

/// The first of the most frequent n-grams, even if it stands there once.
fn top(grams: &Grams) -> f64 {
    let most = grams.repeats().iter().map(|repeat| repeat.count).max().unwrap_or(0);
    let length = match grams.repeats().iter().find(|repeat| repeat.count == most) {
        Some(first) => most * grams.length(first.at),
        None if grams.len() > 0 => grams.length(0),
        None => 0,
    };
    share(length as usize, grams.characters() as usize)
}

/// Characters in repeated n-grams over characters in all n-grams, where those that overlap count for each.
fn repeated(grams: &Grams, n: usize) -> f64 {
    let repeated: u64 = grams.repeats().iter().map(|repeat| u64::from(grams.length(repeat.at))).sum();
    if repeated == 0 {
        return 0.0;
    }
    let all: u64 = (0..grams.len()).map(|at| u64::from(grams.between(at, at + n))).sum();
    share(repeated as usize, all as usize)
}

/// As Python's `round(value, 5)`.
fn rounded(value: f64) -> f64 {
    (value * 1e5).round_ties_even() / 1e5
}

fn median(lengths: &mut [u32]) -> f64 {
    if lengths.is_empty() {
        return 0.0;
    }
    let middle = lengths.len() / 2;
    let is_odd = lengths.len() % 2 == 1;
    let (below, upper, _) = lengths.select_nth_unstable(middle);
    let upper = f64::from(*upper);
    match below.iter().max() {
        Some(lower) if !is_odd => (f64::from(*lower) + upper) / 2.0,
        _ => upper,
    }
}

fn has_symbol(word: &[u8]) -> bool {
    memchr(b'#', word).is_some() || (!word.is_ascii() && memmem::find(word, "…".as_bytes()).is_some())
}

/// The stop words of the Gopher paper, as they stand.
pub(crate) fn is_stop_word(word: &[u8]) -> bool {
    matches!(word, b"the" | b"be" | b"to" | b"of" | b"and" | b"that" | b"have" | b"with")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (lengths, expected) in
            [(&[][..], 0.0), (&[7], 7.0), (&[1, 4], 2.5), (&[9, 1, 4], 4.0), (&[2, 9, 1, 3], 2.5)]
        {
            assert_eq!(median(&mut lengths.to_vec()), expected, "{lengths:?}");
        }
    }

    #[test]
    fn five_decimals() {
        for (value, expected) in [(0.100_004, 0.1), (0.015_625, 0.015_62), (1.0 / 3.0, 0.333_33)] {
            assert_eq!(rounded(value), expected);
        }
    }
}
