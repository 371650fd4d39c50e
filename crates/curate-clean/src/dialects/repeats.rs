//! Gopher's repetition as curate reads it: what stands once is no repetition, and copies are counted from the second on.
//!
//! The paper (Rae et al. 2021, arXiv 2112.11446, appendix A) leaves open what a share is a share of. Here shares of
//! characters are of those of words alone, words are bare of punctuation, and code points of scripts that are written
//! without spaces are words. Blank lines are no lines.

use super::grams::{Counts, Grams, Segments, lines};
use super::{DialectScratch, Tables, dclm::share, dclm::strip, language::bare};
use crate::bytes::characters;
use crate::words::{Classes, class};

/// What the rules compare.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RepeatValues {
    pub(crate) lines: f64,
    pub(crate) line_characters: f64,
    pub(crate) paragraphs: f64,
    pub(crate) paragraph_characters: f64,
    /// Of 2 to 10 words.
    pub(crate) grams: [f64; 9],
}

impl RepeatValues {
    pub(crate) fn measure_basics(&mut self, text: &str, scratch: &mut DialectScratch) {
        let most = memchr::memchr_iter(b'\n', text.as_bytes()).count() + 1;
        (self.lines, self.line_characters) = copies(lines(text), most, &mut scratch.counts);
        (self.paragraphs, self.paragraph_characters) = copies(text.split("\n\n"), most, &mut scratch.counts);
    }

    pub(crate) fn measure_grams(&mut self, text: &str, tables: Tables<'_>, scratch: &mut DialectScratch) {
        let grams = &mut scratch.grams;
        grams.clear();
        tables.classes.each_word(tables.words, text, |token| {
            if token.any & class::UNSPACED != 0 {
                push_units(token.text, tables.classes, grams);
            } else if token.all & class::ALPHANUMERIC != 0 {
                grams.push(token.text.as_bytes(), token.characters);
            } else if token.any & class::ALPHANUMERIC != 0 {
                let word = bare(&token);
                grams.push(word.as_bytes(), characters(word));
            }
        });
        let characters = grams.characters() as usize;
        for n in 2..=10 {
            grams.next();
            let part = if n < 5 { top(grams) } else { covered(grams, n) };
            self.grams[n - 2] = share(part, characters);
        }
    }
}

/// The part of the pieces that stood further ahead, and their part of the characters.
fn copies<'t>(pieces: impl Iterator<Item = &'t str>, most: usize, counts: &mut Counts) -> (f64, f64) {
    let pieces = pieces.map(strip).filter(|piece| !piece.is_empty());
    let sums = Segments::sum(pieces, most, counts);
    (
        share(sums.all - sums.distinct, sums.all),
        share(sums.characters - sums.distinct_characters, sums.characters),
    )
}

/// Code points that are words, and the words between them.
fn push_units(token: &str, classes: &Classes, grams: &mut Grams) {
    let mut run = None;
    for (at, c) in token.char_indices().chain([(token.len(), ' ')]) {
        let class = classes.of(c);
        let is_unit = class & class::UNSPACED != 0 && class & class::CONTENT != 0;
        if class & class::ALPHANUMERIC != 0 && !is_unit {
            run.get_or_insert(at);
        } else if let Some(start) = run.take() {
            let word = &token[start..at];
            grams.push(word.as_bytes(), characters(word));
        }
        if is_unit {
            grams.push(c.encode_utf8(&mut [0; 4]).as_bytes(), 1);
        }
    }
}

/// Characters of the longest of the most frequent n-grams, times its count; 0 if none stands twice.
fn top(grams: &Grams) -> usize {
    let most = grams.repeats().iter().map(|repeat| (repeat.count, grams.length(repeat.at))).max();
    most.map_or(0, |(count, length)| count as usize * length as usize)
}

/// Characters of words in n-grams that stood further ahead, each word once.
fn covered(grams: &Grams, n: usize) -> usize {
    let (mut part, mut done) = (0, 0);
    for repeat in grams.repeats().iter().filter(|repeat| repeat.is_later) {
        let at = repeat.at as usize;
        part += grams.between(done.max(at), at + n) as usize;
        done = at + n;
    }
    part
}

#[cfg(test)]
mod tests {
    use crate::{Measurements, Measurer, Words};

    #[track_caller]
    fn check(text: &str, expected: &[(&str, f64)]) {
        let mut measurements = Measurements::default();
        Measurer::new(Words::Whitespace).measure_all(text, &mut measurements);
        for (name, value) in expected {
            let found = measurements.get(name).unwrap();
            assert!((found - value).abs() < 1e-12, "{name} of {text:?}: {found}, not {value}");
        }
    }

    #[test]
    fn once_is_no_repetition() {
        check("one two three four five", &[("repeat_top_2grams", 0.0), ("repeat_lines_ratio", 0.0)]);
        check(
            "",
            &[("repeat_top_2grams", 0.0), ("repeat_duplicate_5grams", 0.0), ("repeat_lines_ratio", 0.0)],
        );
    }

    #[test]
    fn lines_and_paragraphs() {
        check(
            "ab\n\n ab\ncde\n\n\nab",
            &[
                ("repeat_lines_ratio", 0.5),
                ("repeat_line_characters_ratio", 4.0 / 9.0),
                ("repeat_paragraphs_ratio", 1.0 / 3.0),
            ],
        );
    }

    #[test]
    fn top_grams_are_bare_of_punctuation() {
        // Words of 1 + 2 letters, twice, of 9 letters.
        check("a bb, c (a bb) dd -", &[("repeat_top_2grams", 6.0 / 9.0), ("repeat_top_3grams", 0.0)]);
        // Of two pairs as frequent, the longer.
        check("a b cc dd a b cc dd", &[("repeat_top_2grams", 8.0 / 12.0)]);
    }

    #[test]
    fn words_covered_by_copies_count_once() {
        // Six words and the same again: two overlapping copies of five words cover six.
        check(
            "a b c d e f a b c d e f",
            &[("repeat_duplicate_5grams", 0.5), ("repeat_duplicate_7grams", 0.0)],
        );
        check("a b c d e f g", &[("repeat_duplicate_5grams", 0.0)]);
    }

    #[test]
    fn code_points_are_words_where_there_are_no_spaces() {
        check("灯塔。灯塔x1塔", &[("repeat_top_2grams", 4.0 / 7.0), ("repeat_top_3grams", 0.0)]);
    }
}
