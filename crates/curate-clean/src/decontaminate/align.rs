//! From a seed to what is really shared: extension to both sides that steps over edits.
//!
//! While words agree the alignment goes on. Where they do not, it looks for the nearest place (at most [`MAX_GAP`]
//! words on in either text) where two words in a row agree, or a single rare one: words were replaced, left out or
//! put in. Where there is none, it ends.

use super::weight::STEPS;
use super::words::Word;

/// Words that an edit may replace, insert or delete at once.
const MAX_GAP: usize = 5;
/// A single word of this weight is enough to go on after an edit.
const RARE: u8 = (4.0 * STEPS) as u8;

/// An item's words with their weights, and how many of them are the question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ItemWords<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) weights: &'a [u8],
    pub(crate) question: usize,
}

/// What an item and a document share in one place. Weights are in sixteenths of a nat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// Words of the document that it spans.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Words of the item that it spans.
    pub(crate) item_start: usize,
    pub(crate) item_end: usize,
    pub(crate) question: Matched,
    pub(crate) answer: Matched,
    /// The most words in a row that agree.
    pub(crate) longest: usize,
    /// Edits stepped over.
    pub(crate) gaps: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Matched {
    pub(crate) words: usize,
    pub(crate) weight: u64,
}

impl Alignment {
    /// Extends the seed where word `at` of the item agrees with word `doc_at` of the document; `None` if they do not.
    pub(crate) fn extend(item: ItemWords<'_>, at: usize, doc: &[Word], doc_at: usize) -> Option<Self> {
        if item.words[at] != doc[doc_at].short() {
            return None;
        }
        let mut found = Self { start: doc_at, end: doc_at, item_start: at, item_end: at, ..Self::default() };
        let ahead = Direction { item_left: item.words.len() - at, doc_left: doc.len() - doc_at };
        let first_ahead = found.walk(
            item,
            doc,
            ahead,
            |k| at + k,
            |k| doc_at + k,
            |found, i, j| (found.item_end, found.end) = (i + 1, j + 1),
        );
        let behind = Direction { item_left: at, doc_left: doc_at };
        let first_behind = found.walk(
            item,
            doc,
            behind,
            |k| at - 1 - k,
            |k| doc_at - 1 - k,
            |found, i, j| (found.item_start, found.start) = (i, j),
        );
        found.longest = found.longest.max(first_ahead + first_behind);
        Some(found)
    }

    /// Goes one way from the seed; returns how many words agree before the first edit.
    fn walk(
        &mut self,
        item: ItemWords<'_>,
        doc: &[Word],
        Direction { item_left, doc_left }: Direction,
        item_at: impl Fn(usize) -> usize,
        doc_at: impl Fn(usize) -> usize,
        reach: impl Fn(&mut Self, usize, usize),
    ) -> usize {
        let agree = |i: usize, j: usize| {
            i < item_left && j < doc_left && item.words[item_at(i)] == doc[doc_at(j)].short()
        };
        let goes_on =
            |i: usize, j: usize| agree(i, j) && (agree(i + 1, j + 1) || item.weights[item_at(i)] >= RARE);
        let (mut i, mut j, mut run) = (0, 0, 0);
        let mut first = None;
        while i < item_left && j < doc_left {
            if agree(i, j) {
                self.take(item, item_at(i));
                reach(self, item_at(i), doc_at(j));
                (i, j, run) = (i + 1, j + 1, run + 1);
                continue;
            }
            self.longest = self.longest.max(run);
            first = first.or(Some(run));
            let Some((skip, doc_skip)) =
                GAPS.into_iter().find(|(skip, doc_skip)| goes_on(i + skip, j + doc_skip))
            else {
                return first.expect("set above");
            };
            self.gaps += 1;
            (i, j, run) = (i + skip, j + doc_skip, 0);
        }
        self.longest = self.longest.max(run);
        first.unwrap_or(run)
    }

    fn take(&mut self, item: ItemWords<'_>, at: usize) {
        let part = if at < item.question { &mut self.question } else { &mut self.answer };
        part.words += 1;
        part.weight += u64::from(item.weights[at]);
    }
}

struct Direction {
    item_left: usize,
    doc_left: usize,
}

/// Words to step over in the item and in the document, smallest edits first: replaced, then left out or put in, and what
/// is both.
const GAPS: [(usize, usize); (MAX_GAP + 1) * (MAX_GAP + 1) - 1] = {
    let mut gaps = [(0, 0); (MAX_GAP + 1) * (MAX_GAP + 1) - 1];
    let (mut next, mut size) = (0, 1);
    while size <= MAX_GAP {
        gaps[next] = (size, size);
        next += 1;
        let mut less = size;
        while less > 0 {
            less -= 1;
            (gaps[next], gaps[next + 1]) = ((size, less), (less, size));
            next += 2;
        }
        size += 1;
    }
    gaps
};

#[cfg(test)]
mod tests {
    use super::super::words::split;
    use super::*;

    /// Item words matched, longest run, edits, and the span of the document, from the seed that `seed` begins.
    fn check(item: &str, doc: &str, seed: &str, expected: (usize, usize, usize, &str)) {
        let (mut item_words, mut doc_words) = (Vec::new(), Vec::new());
        split(item, &mut item_words);
        split(doc, &mut doc_words);
        let words: Vec<u32> = item_words.iter().map(|w| w.short()).collect();
        let weights = vec![16; words.len()];
        let place = |text: &str, words: &[Word]| {
            let byte = text.find(seed).unwrap() as u32;
            words.iter().position(|w| w.start == byte).unwrap()
        };
        let item_parts = ItemWords { words: &words, weights: &weights, question: words.len() };
        let found =
            Alignment::extend(item_parts, place(item, &item_words), &doc_words, place(doc, &doc_words))
                .unwrap();
        let span = &doc[doc_words[found.start].start as usize..doc_words[found.end - 1].end as usize];
        assert_eq!((found.question.words, found.longest, found.gaps, span), expected, "{item} / {doc}");
    }

    #[test]
    fn edits_are_stepped_over() {
        let item = "a robe takes two bolts of blue fiber and half that much white fiber";
        check(item, &format!("So {item}. Then"), "takes", (14, 14, 0, item));
        let replaced = "a robe takes two bolts of green fiber and half that much white fiber";
        check(item, replaced, "two", (13, 7, 1, replaced));
        let deleted = "a robe takes bolts of blue fiber and half much white fiber";
        check(item, deleted, "blue", (12, 6, 2, deleted));
        let inserted = "a robe takes two very long bolts of blue fiber and half that much white fiber";
        check(item, inserted, "of", (14, 10, 1, inserted));
        check(
            item,
            "we say a robe takes two bolts or more of it",
            "robe",
            (5, 5, 0, "a robe takes two bolts"),
        );
        check(item, "fiber", "fiber", (1, 1, 0, "fiber"));
    }

    #[test]
    fn the_ends_of_both_texts_end_it() {
        check("one two three", "one two three", "two", (3, 3, 0, "one two three"));
        check("one two three four", "two three", "two", (2, 2, 0, "two three"));
        check("two three", "one two three four", "three", (2, 2, 0, "two three"));
    }

    #[test]
    fn words_that_differ_are_no_seed() {
        let mut doc = Vec::new();
        split("b", &mut doc);
        let item = ItemWords { words: &[1], weights: &[16], question: 1 };
        assert_eq!(Alignment::extend(item, 0, &doc, 0), None);
    }
}
