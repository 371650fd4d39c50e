//! What datatrove's filters count (version 0.10.1): Gopher repetition, C4 and FineWeb quality.
//!
//! Lengths are code points, a line or n-gram is a duplicate from its second copy on, and shares are of the whole text
//! with its white space. One thing is not copied: datatrove joins the words of long n-grams without a space between
//! them, so to it `1 11` and `11 1` are the same; here they are not.

use memchr::memchr_iter;

use super::dclm::{share, strip};
use super::grams::{Counts, Grams, hash, lines};
use super::{DialectScratch, Tables};
use crate::bytes::characters;
use crate::chars::{is_python_space, is_terminal};

/// Counts of one text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct DatatroveValues {
    pub(crate) characters: usize,
    pub(crate) paragraphs: Duplicates,
    pub(crate) lines: Duplicates,
    /// What the rules on 2- to 10-grams compare.
    pub(crate) grams: [f64; 9],
    pub(crate) fineweb: FinewebValues,
}

/// Pieces of a text, and those of them that stand further ahead too.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Duplicates {
    pub(crate) all: usize,
    pub(crate) copies: usize,
    pub(crate) copied_characters: usize,
}

/// What FineWeb's quality filter counts, on lines that are not blank.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct FinewebValues {
    pub(crate) lines: Duplicates,
    pub(crate) ended_lines: usize,
    pub(crate) short_lines: usize,
    pub(crate) line_feeds: usize,
    pub(crate) characters: usize,
    pub(crate) words: usize,
}

/// Longest line that FineWeb calls short, in code points.
const SHORT_LINE: usize = 30;

impl Duplicates {
    fn clear(counts: &mut Counts, most: usize) -> Self {
        counts.clear(most);
        Self::default()
    }

    fn add(&mut self, piece: &str, counts: &mut Counts) {
        self.all += 1;
        if counts.add(hash(piece.as_bytes())).1 > 0 {
            self.copies += 1;
            self.copied_characters += characters(piece);
        }
    }
}

impl DatatroveValues {
    /// Lines and paragraphs.
    pub(crate) fn measure_basics(&mut self, text: &str, scratch: &mut DialectScratch) {
        let counts = &mut scratch.counts;
        self.characters = characters(text);
        let most = memchr_iter(b'\n', text.as_bytes()).count() + 1;
        self.lines = Duplicates::clear(counts, most);
        // Between runs of line feeds; one at either end leaves an empty piece.
        for (i, line) in lines(text).enumerate() {
            let is_last = i + 1 == most;
            if !line.is_empty() || i == 0 || is_last {
                self.lines.add(line, counts);
            }
        }
        self.paragraphs = Duplicates::clear(counts, most);
        let mut rest = Some(strip(text));
        while let Some(text) = rest {
            let (paragraph, after) = match memchr::memmem::find(text.as_bytes(), b"\n\n") {
                Some(at) => (&text[..at], Some(text[at..].trim_start_matches('\n'))),
                None => (text, None),
            };
            self.paragraphs.add(paragraph, counts);
            rest = after;
        }
    }

    pub(crate) fn measure_grams(&mut self, text: &str, tables: Tables<'_>, scratch: &mut DialectScratch) {
        self.characters = characters(text);
        let grams = &mut scratch.grams;
        grams.clear();
        tables.classes.each_word(tables.words, text, |token| {
            grams.push(token.text.as_bytes(), token.characters);
        });
        for n in 2..=10 {
            grams.next();
            let part = if n < 5 { top(grams, n) } else { skip_scan(grams, n, &mut scratch.counts) };
            self.grams[n - 2] = share(part, self.characters);
        }
    }

    /// What FineWeb's own rules compare.
    pub(crate) fn measure_fineweb(&mut self, text: &str, tables: Tables<'_>, scratch: &mut DialectScratch) {
        let counts = &mut scratch.counts;
        let mut words = 0;
        tables.classes.each_word(tables.words, text, |_| words += 1);
        let line_feeds = memchr_iter(b'\n', text.as_bytes()).count();
        let mut values = FinewebValues {
            lines: Duplicates::clear(counts, line_feeds + 1),
            line_feeds,
            characters: characters(text) - line_feeds,
            words,
            ..FinewebValues::default()
        };
        for line in lines(text).filter(|line| !line.chars().all(is_python_space)) {
            values.ended_lines += usize::from(line.ends_with(is_terminal));
            values.short_lines += usize::from(is_short(line));
            values.lines.add(line, counts);
        }
        self.fineweb = values;
    }
}

fn is_short(line: &str) -> bool {
    // A code point has at most four bytes.
    line.len() <= SHORT_LINE || (line.len() <= 4 * SHORT_LINE && characters(line) <= SHORT_LINE)
}

/// Characters of the first of the most frequent n-grams, with spaces between its words, times its count.
fn top(grams: &Grams, n: usize) -> usize {
    let most = grams.repeats().iter().map(|repeat| repeat.count).max().unwrap_or(0);
    let (count, at) = match grams.repeats().iter().find(|repeat| repeat.count == most) {
        Some(first) => (most, first.at),
        None if grams.len() > 0 => (1, 0),
        None => return 0,
    };
    count as usize * (grams.length(at) as usize + n - 1)
}

/// Characters of n-grams that were seen before, going on behind each.
///
/// What is passed over is not remembered, so a later copy of it is new. N-grams that stand once change nothing.
fn skip_scan(grams: &Grams, n: usize, seen: &mut Counts) -> usize {
    seen.clear(grams.repeats().len());
    let (mut part, mut next) = (0, 0);
    for repeat in grams.repeats() {
        let at = repeat.at as usize;
        if at >= next && seen.add(repeat.key).1 > 0 {
            part += grams.length(repeat.at) as usize;
            next = at + n;
        }
    }
    part
}
