//! The training loop of byte-pair encoding: merge the most frequent pair, again and again.
//!
//! After Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016), over
//! the bytes of words. Each step takes the pair of adjacent tokens with the highest count over all words; of
//! equal counts the pair with the lowest ids (left, then right). Occurrences are merged from left to right, so
//! `aaa` becomes `aa` `a`. These are the rules of Hugging Face's trainer, which the tests compare with; unlike
//! there, counts are 64-bit and nothing depends on hash order or threads.
//!
//! All words lie in one array of positions linked to their neighbours, and each pair knows the positions it was
//! seen at. So a step costs as much as it has occurrences, however long the words are. Memory: some 40 bytes
//! for each byte of the distinct words.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use foldhash::fast::FixedState;

use crate::TokenId;

/// Two adjacent tokens.
type Pair = (TokenId, TokenId);

/// What training found: the pairs to merge, in order, and the bytes of all tokens.
#[derive(Debug, PartialEq)]
pub(crate) struct Merges {
    pub(crate) pairs: Vec<Pair>,
    /// By id; ids of bytes and of whatever comes before them included.
    pub(crate) tokens: Vec<Vec<u8>>,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    /// Number of ids to reach.
    pub(crate) vocab_size: usize,
    /// Pairs seen less often are not merged.
    pub(crate) min_frequency: u64,
}

/// Learns merges from words and their counts. `tokens` holds the ids taken already, among them all 256 bytes.
///
/// The words must be distinct, not empty, and hold at most `u32::MAX` bytes together.
pub(crate) fn learn(words: &[(Box<[u8]>, u64)], tokens: Vec<Vec<u8>>, stop: Stop) -> Merges {
    let mut learner = Learner::new(words, tokens);
    while learner.tokens.len() < stop.vocab_size
        && let Some(pair) = learner.most_frequent(stop.min_frequency.max(1))
    {
        learner.merge(pair);
    }
    Merges { pairs: learner.merged, tokens: learner.tokens }
}

/// No position: the end of a word on either side.
const NONE: u32 = u32::MAX;
/// The id of a position that was merged into the one before it.
const GONE: TokenId = TokenId::MAX;

struct Learner {
    tokens: Vec<Vec<u8>>,
    /// Two pairs may spell the same token, as `ab`+`c` and `a`+`bc` do.
    by_bytes: HashMap<Vec<u8>, TokenId, FixedState>,
    /// Position → token, and the positions beside it in the same word.
    ids: Vec<TokenId>,
    previous: Vec<u32>,
    next: Vec<u32>,
    /// Position → index of its word in `counts`.
    word: Vec<u32>,
    counts: Vec<u64>,
    pairs: HashMap<Pair, Occurrences, FixedState>,
    /// Counts may be out of date, but never too low: a pair that grows is pushed again.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
    merged: Vec<Pair>,
    /// The pairs that the running merge made.
    grown: Vec<Pair>,
}

/// Where a pair is: its count over all words, and positions of its left half, some of which may be out of date.
#[derive(Default)]
struct Occurrences {
    count: u64,
    positions: Vec<u32>,
}

impl Learner {
    fn new(words: &[(Box<[u8]>, u64)], tokens: Vec<Vec<u8>>) -> Self {
        let id = |index: usize| TokenId::try_from(index).expect("vocabularies are smaller than 2^32");
        let position =
            |index: usize| u32::try_from(index).expect("the caller has checked the length of all words");
        let by_bytes: HashMap<_, _, _> =
            tokens.iter().enumerate().rev().map(|(index, bytes)| (bytes.clone(), id(index))).collect();
        let length: usize = words.iter().map(|(word, _)| word.len()).sum();
        let mut learner = Self {
            tokens,
            by_bytes,
            ids: Vec::with_capacity(length),
            previous: Vec::with_capacity(length),
            next: Vec::with_capacity(length),
            word: Vec::with_capacity(length),
            counts: Vec::with_capacity(words.len()),
            pairs: HashMap::default(),
            queue: BinaryHeap::new(),
            merged: Vec::new(),
            grown: Vec::new(),
        };
        for (word, count) in words {
            let start = learner.ids.len();
            let end = start + word.len();
            for (at, byte) in (start..end).zip(word) {
                learner.ids.push(learner.by_bytes[&[*byte][..]]);
                learner.previous.push(if at == start { NONE } else { position(at - 1) });
                learner.next.push(if at + 1 == end { NONE } else { position(at + 1) });
                learner.word.push(position(learner.counts.len()));
            }
            learner.counts.push(*count);
            for at in start..end.saturating_sub(1) {
                learner.add((learner.ids[at], learner.ids[at + 1]), position(at));
            }
        }
        learner.queue_grown();
        learner
    }

    /// The pair to merge next, if one is seen at least `min_count` times.
    fn most_frequent(&mut self, min_count: u64) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.pairs.get(&pair).map_or(0, |occurrences| occurrences.count);
            if now == count {
                return (count >= min_count).then_some(pair);
            }
            if now >= min_count {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    /// Merges `pair` everywhere and notes it as the next merge.
    fn merge(&mut self, pair: Pair) {
        let bytes = [self.tokens[pair.0 as usize].as_slice(), &self.tokens[pair.1 as usize]].concat();
        let new = match self.by_bytes.get(&bytes) {
            Some(&id) => id,
            None => {
                let id = TokenId::try_from(self.tokens.len()).expect("vocabularies are smaller than 2^32");
                self.by_bytes.insert(bytes.clone(), id);
                self.tokens.push(bytes);
                id
            }
        };
        self.merged.push(pair);
        let mut positions = self.pairs.remove(&pair).unwrap_or_default().positions;
        positions.sort_unstable(); // Left to right, which matters where occurrences overlap.
        for at in positions {
            self.merge_at(at, pair, new);
        }
        self.queue_grown();
    }

    fn merge_at(&mut self, at: u32, pair: Pair, new: TokenId) {
        let left = at as usize;
        let right = self.next[left];
        let is_there = self.ids[left] == pair.0 && right != NONE && self.ids[right as usize] == pair.1;
        if !is_there {
            return;
        }
        let (before, after) = (self.previous[left], self.next[right as usize]);
        if before != NONE {
            let neighbour = self.ids[before as usize];
            self.remove((neighbour, pair.0), at);
            self.add((neighbour, new), before);
        }
        if after != NONE {
            let neighbour = self.ids[after as usize];
            self.remove((pair.1, neighbour), at);
            self.add((new, neighbour), at);
            self.previous[after as usize] = at;
        }
        self.ids[left] = new;
        self.ids[right as usize] = GONE;
        self.next[left] = after;
    }

    fn add(&mut self, pair: Pair, at: u32) {
        let occurrences = self.pairs.entry(pair).or_default();
        occurrences.count += self.counts[self.word[at as usize] as usize];
        occurrences.positions.push(at);
        self.grown.push(pair);
    }

    /// Takes one occurrence of `pair` in the word of `at` off its count. The pair being merged is gone already.
    fn remove(&mut self, pair: Pair, at: u32) {
        if let Some(occurrences) = self.pairs.get_mut(&pair) {
            occurrences.count -= self.counts[self.word[at as usize] as usize];
        }
    }

    fn queue_grown(&mut self) {
        let mut grown = std::mem::take(&mut self.grown);
        grown.sort_unstable();
        grown.dedup();
        for &pair in &grown {
            self.queue.push((self.pairs[&pair].count, Reverse(pair)));
        }
        grown.clear();
        self.grown = grown;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::models::bpe::{BPE, BpeTrainer};
    use tokenizers::tokenizer::Trainer;

    use super::*;

    fn learn_from(words: &[(&str, u64)], vocab_size: usize, min_frequency: u64) -> Merges {
        let words: Vec<_> = words.iter().map(|&(word, count)| (word.as_bytes().into(), count)).collect();
        let tokens = (0..=255).map(|byte| vec![byte]).collect();
        learn(&words, tokens, Stop { vocab_size, min_frequency })
    }

    /// The merges as text: `a+b`.
    fn shown(merges: &Merges) -> Vec<String> {
        let text = |id: TokenId| String::from_utf8_lossy(&merges.tokens[id as usize]);
        merges.pairs.iter().map(|&(left, right)| format!("{}+{}", text(left), text(right))).collect()
    }

    #[test]
    fn merges_by_count_then_by_id() {
        let check = |words: &[(&str, u64)], merges: usize, expected: &[&str]| {
            let found = learn_from(words, 256 + merges, 1);
            assert_eq!(shown(&found), expected);
            assert_eq!(found.tokens.len(), 256 + expected.len());
        };
        // The example of Sennrich et al., without the end-of-word mark: es and st are seen 9 times, e < s.
        let words = [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)];
        check(&words, 5, &["e+s", "es+t", "l+o", "lo+w", "e+w"]);
        check(&[("ab", 1), ("cd", 1)], 9, &["a+b", "c+d"]);
        check(&[("aaaa", 1)], 9, &["a+a", "aa+aa"]);
        check(&[("aaa", 2), ("aa", 1)], 9, &["a+a", "aa+a"]);
        check(&[("a", 5)], 9, &[]);
        check(&[], 9, &[]);
        check(&[("ab", 1)], 0, &[]);
    }

    #[test]
    fn rare_pairs_are_left_alone() {
        assert_eq!(shown(&learn_from(&[("ab", 2), ("cd", 1)], 300, 2)), ["a+b"]);
        assert_eq!(shown(&learn_from(&[("ab", 2), ("cd", 1)], 300, 0)), ["a+b", "c+d"]);
        assert_eq!(shown(&learn_from(&[("ab", 2), ("cd", 1)], 300, 3)).len(), 0);
    }

    #[test]
    fn counts_do_not_overflow_32_bits() {
        let many = u64::from(u32::MAX) * 1000;
        assert_eq!(shown(&learn_from(&[("ab", many), ("cd", many + 1), ("abcd", 1)], 257, 1)), ["c+d"]);
    }

    #[test]
    fn a_word_of_a_million_letters_takes_no_time() {
        let (run, turns) = ("a".repeat(1_000_000), "abc".repeat(300_000));
        let merges = learn_from(&[(&run, 1), (&turns, 1)], 256 + 30, 2);
        assert!(merges.tokens.iter().any(|token| token.len() > 1000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn merges_are_those_of_the_crate(
            words in proptest::collection::btree_map("[ab]{1,9}|[a-e]{1,6}", 1u64..6, 1..24),
            extra in 1usize..40,
            min_frequency in 0u64..4,
        ) {
            let mut trainer = BpeTrainer::builder()
                .show_progress(false)
                .vocab_size(5 + extra)
                .min_frequency(min_frequency)
                .initial_alphabet("abcde".chars().collect())
                .build();
            let repeated = words.iter().flat_map(|(word, count)| vec![word.clone(); *count as usize]);
            trainer.feed(repeated, |word| Ok(vec![word.to_owned()])).unwrap();
            let mut bpe = BPE::default();
            trainer.train(&mut bpe).unwrap();
            let theirs: Vec<String> = serde_json::to_value(&bpe).unwrap()["merges"]
                .as_array()
                .unwrap()
                .iter()
                .map(|pair| format!("{}+{}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
                .collect();
            let words: Vec<(&str, u64)> = words.iter().map(|(word, count)| (word.as_str(), *count)).collect();
            prop_assert_eq!(shown(&learn_from(&words, 256 + extra, min_frequency)), theirs);
        }
    }
}
