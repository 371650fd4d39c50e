//! Does a document hold what a model will be tested on?
//!
//! Words are compared without case, accents and punctuation. A *seed* that an item and a document share (eight words in
//! a row, or three that are rare among the items) is extended to both sides over edits of up to five words; what
//! is shared is weighed by how rare its words are. Seeds alone decide nothing.
//!
//! # The score
//!
//! Let `I` be the weight in nats of the question's words that are shared in one place, less [`GAP_NATS`] for each edit
//! stepped over, and `C` their share of the weight of the whole question. The score is `I √C / (2 K)`, at most 1, with
//! `K` = [`FULL_NATS`]; from 0.5 on a document is contaminated. A whole question so needs `K` nats (some four rare
//! words among common ones), half of one 1.4 `K`.
//!
//! - A question shared over fewer than eight words in all counts in full only with its answer near it
//!   ([`ANSWER_REACH`] words); without it `I` must be [`SHORT_FACTOR`] times as large.
//! - An answer of twenty words or more (a worked solution) is scored like a question, and the better of the two counts.
//! - An item of more than 512 words is a document: its score is the number of words shared in one place over 100, so
//!   fifty words decide. This is how a held-out split is kept out of training text.
//!
//! The idea of n-gram seeds is GPT-3's (Brown et al. 2020, appendix C); rare-word weights and scored extension follow
//! the practice of later tools, with numbers of our own.

mod words;
mod weight;
mod seeds;
mod align;
mod index;
mod stage;

use std::ops::Range;

use self::align::Alignment;
use self::index::{DOCUMENT_WORDS, LONG_GRAM, SHORT_GRAM};
use self::seeds::GRAM_FACTOR;
use self::weight::STEPS;
use self::words::{Word, split};

pub use index::{EvaluationSet, Index, IndexBuilder, IndexError, Item};
pub use stage::{Decontaminator, Leaks};

/// Nats that a whole question must share.
pub const FULL_NATS: f32 = 11.0;
/// Nats that an edit costs.
pub const GAP_NATS: f32 = 2.0;
/// How much more a short overlap without its answer must weigh.
pub const SHORT_FACTOR: f32 = 1.5;
/// Words between a short question and its answer.
pub const ANSWER_REACH: usize = 60;
/// Score from which a document is contaminated, by default.
pub const THRESHOLD: f32 = 0.5;

/// Fewer words of a question prove nothing without its answer.
const FEWEST_WORDS: usize = 5;
/// Share of a question's weight from which it counts as whole.
const WHOLE: f32 = 0.75;
/// Words from which an overlap needs no answer beside it.
const SHORT_QUESTION: usize = 8;
/// Words from which an answer alone betrays an item.
const LONG_ANSWER: usize = 20;
/// Words shared in one place that score 1 for a document.
const DOCUMENT_FULL: f32 = 100.0;

/// Words whose seeds are looked for together: a bit each.
const TOGETHER: usize = 64;

/// What a document shares with an item.
#[derive(Debug, Clone, PartialEq)]
pub struct Leak {
    /// Number of the item in the index.
    pub item: usize,
    /// 0 to 1.
    pub score: f32,
    /// Share of the question's weight that is there, 0 to 1.
    pub coverage: f32,
    /// Weight of what is shared, in nats.
    pub nats: f32,
    /// The most words in a row that agree.
    pub longest: usize,
    /// Words of the item that are there.
    pub words: usize,
    /// Edits stepped over.
    pub edits: usize,
    /// Whether the answer stands near the question.
    pub answer: bool,
    /// The bytes of the document that hold it, in order, apart from each other.
    pub spans: Vec<Range<usize>>,
}

/// Buffers of a search.
#[derive(Debug, Default)]
pub struct Scratch {
    words: Vec<Word>,
    /// The newest alignments: item, first and last word of the document.
    tried: Vec<(usize, Range<usize>)>,
}

impl Index {
    /// What `text` shares with items, where the score reaches `threshold`: one leak an item, by item.
    pub fn find(&self, text: &str, threshold: f32, scratch: &mut Scratch) -> Vec<Leak> {
        let mut leaks = Vec::new();
        let Scratch { words, tried } = scratch;
        split(text, words);
        tried.clear();
        let mut long = 0_u64;
        for first in (0..words.len()).step_by(TOGETHER) {
            let n = TOGETHER.min(words.len() - first);
            let (mut keys, mut passed) = ([[0_u64; 2]; TOGETHER], 0_u64);
            // The filters are asked for many words at once and without a branch, so that their cache misses overlap.
            for (k, keys) in keys.iter_mut().enumerate().take(n) {
                let end = first + k + 1;
                let newest = u64::from(words[end - 1].short());
                long = long.wrapping_mul(GRAM_FACTOR).wrapping_add(newest);
                let mut short = newest;
                if end >= SHORT_GRAM {
                    short = seeds::gram(words[end - SHORT_GRAM..end].iter().map(|w| u64::from(w.short())));
                }
                *keys = [seeds::key(long), seeds::key(short)];
                let is_seed = self.long.may_hold(keys[0]) | self.short.may_hold(keys[1]);
                passed |= u64::from(is_seed) << k;
                if let Some(start) = end.checked_sub(LONG_GRAM) {
                    let oldest = u64::from(words[start].short());
                    long = long.wrapping_sub(oldest.wrapping_mul(OLDEST_FACTOR));
                }
            }
            while passed != 0 {
                let k = passed.trailing_zeros() as usize;
                passed &= passed - 1;
                let end = first + k + 1;
                for (seeds, n, key) in
                    [(&self.long, LONG_GRAM, keys[k][0]), (&self.short, SHORT_GRAM, keys[k][1])]
                {
                    let Some(start) = end.checked_sub(n) else { continue };
                    for position in seeds.find(key) {
                        self.judge(position, words, start, threshold, tried, &mut leaks);
                    }
                }
            }
        }
        join(leaks)
    }

    /// Extends the seed at word `start` of the document and keeps it if it scores enough.
    #[cold]
    fn judge(
        &self,
        position: u32,
        words: &[Word],
        start: usize,
        threshold: f32,
        tried: &mut Vec<(usize, Range<usize>)>,
        leaks: &mut Vec<Leak>,
    ) {
        /// Alignments remembered, so that a text full of seeds stays linear.
        const REMEMBERED: usize = 16;
        let (item, at) = self.item_at(position);
        if tried.iter().rev().take(REMEMBERED).any(|(i, range)| *i == item && range.contains(&start)) {
            return;
        }
        let Some(found) = Alignment::extend(self.words_of(item), at, words, start) else { return };
        tried.push((item, found.start..found.end));
        let leak = self.score(item, found, words, threshold);
        if leak.score >= threshold {
            leaks.push(leak);
        }
    }

    fn score(&self, item: usize, found: Alignment, words: &[Word], threshold: f32) -> Leak {
        let (entry, item_words) = (self.entry(item), self.words_of(item));
        let nats = |weight: u64| weight as f32 / STEPS;
        let matched = found.question.words + found.answer.words;
        let share = |part: u64, whole: u64| part as f32 / whole.max(1) as f32;
        let coverage = share(found.question.weight, entry.question_weight);
        let (mut end, mut with_answer) = (found.end, false);
        let score = if item_words.words.len() > DOCUMENT_WORDS {
            matched as f32 / DOCUMENT_FULL
        } else {
            let cost = found.gaps as f32 * GAP_NATS;
            let penalty = |coverage: f32| if found.gaps > 0 { coverage } else { coverage.sqrt() };
            let grade = |weight: u64, coverage: f32| {
                (nats(weight) - cost).max(0.0) * penalty(coverage) / (2.0 * FULL_NATS)
            };
            let answer = &item_words.words[item_words.question..];
            let mut score = grade(found.question.weight, coverage);
            let could_matter = coverage > WHOLE || score >= threshold;
            let answer_end = could_matter.then(|| answer_near(answer, words, found)).flatten();
            end = answer_end.unwrap_or(end).max(end);
            with_answer = answer_end.is_some();
            let whole_with_answer = with_answer && coverage > WHOLE;
            if found.question.words < FEWEST_WORDS && !whole_with_answer {
                score = 0.0;
            } else if found.question.words < SHORT_QUESTION && !whole_with_answer {
                score /= SHORT_FACTOR;
            }
            if whole_with_answer {
                // A question of common words, whole and with its answer beside it.
                score += nats(entry.answer_weight).min(FULL_NATS / 2.0) / (2.0 * FULL_NATS);
            }
            if answer.len() >= LONG_ANSWER {
                score =
                    score.max(grade(found.answer.weight, share(found.answer.weight, entry.answer_weight)));
            }
            score
        };
        let span = words[found.start].start as usize..words[end - 1].end as usize;
        Leak {
            item,
            score: score.min(1.0),
            coverage,
            nats: nats(found.question.weight + found.answer.weight),
            longest: found.longest,
            words: matched,
            edits: found.gaps,
            answer: with_answer,
            spans: vec![span],
        }
    }
}

/// `GRAM_FACTOR` to the power of what the oldest word of a long n-gram has been multiplied by.
const OLDEST_FACTOR: u64 = {
    let mut factor = 1_u64;
    let mut i = 1;
    while i < LONG_GRAM {
        factor = factor.wrapping_mul(GRAM_FACTOR);
        i += 1;
    }
    factor
};

/// Where the answer ends in the document, if it (its first eight words, of a long one) stands within reach of the
/// question.
fn answer_near(answer: &[u32], words: &[Word], found: Alignment) -> Option<usize> {
    let beginning = &answer[..answer.len().min(LONG_GRAM)];
    if beginning.is_empty() {
        return None;
    }
    if found.answer.words >= beginning.len() {
        return Some(found.end);
    }
    let from = found.start.saturating_sub(ANSWER_REACH / 2);
    let to = (found.end + ANSWER_REACH).min(words.len());
    let is_answer = |at: &usize| {
        let there = words[*at..*at + beginning.len()].iter().map(|w| w.short());
        there.eq(beginning.iter().copied())
    };
    let after = (found.end..(to + 1).saturating_sub(beginning.len())).find(is_answer);
    if let Some(at) = after {
        return Some(at + beginning.len());
    }
    (from..(found.start + 1).saturating_sub(beginning.len())).rev().find(is_answer).map(|_| found.end)
}

/// One leak an item: its best score, and all its spans.
fn join(mut leaks: Vec<Leak>) -> Vec<Leak> {
    leaks.sort_by(|a, b| a.item.cmp(&b.item).then(a.spans[0].start.cmp(&b.spans[0].start)));
    let mut joined: Vec<Leak> = Vec::with_capacity(leaks.len());
    for leak in leaks {
        match joined.last_mut().filter(|last| last.item == leak.item) {
            None => joined.push(leak),
            Some(last) => {
                let mut spans = std::mem::take(&mut last.spans);
                spans.extend_from_slice(&leak.spans);
                if leak.score > last.score {
                    *last = leak;
                }
                last.spans = merge(spans);
            }
        }
    }
    joined
}

/// Ranges in order, those that overlap or touch made one.
pub(crate) fn merge(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests;
