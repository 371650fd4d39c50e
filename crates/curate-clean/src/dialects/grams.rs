//! Repeated n-grams, lines and paragraphs, found by 64-bit hashes.
//!
//! A repeated n-gram begins and ends with a repeated (n-1)-gram. So each pass looks only at the places that the pass
//! before left over: after the 2-grams that is a small part of ordinary text, and the passes up to 10 cost next to
//! nothing. With at most 100,000 words two different n-grams share a hash in one of a billion texts.

use crate::bytes::characters;

/// How often each key was added. Cleared in constant time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    slots: Vec<Slot>,
    generation: u32,
    shift: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    generation: u32,
    count: u32,
}

impl Counts {
    /// Forgets all keys; up to `keys` different ones may follow.
    pub(crate) fn clear(&mut self, keys: usize) {
        let bits = (keys * 2).next_power_of_two().max(64).trailing_zeros();
        if self.slots.len() < 1 << bits || self.generation == u32::MAX {
            self.slots.clear();
            self.slots.resize(1 << bits, Slot::default());
            self.generation = 0;
        }
        self.generation += 1;
        self.shift = 64 - bits;
    }

    /// Adds a key; returns its slot and how often it was added before.
    #[inline]
    pub(crate) fn add(&mut self, key: u64) -> (usize, u32) {
        let mask = (1_usize << (64 - self.shift)) - 1;
        let mut at = (key.wrapping_mul(MULTIPLIER) >> self.shift) as usize;
        loop {
            let slot = &mut self.slots[at];
            if slot.generation != self.generation {
                *slot = Slot { key, generation: self.generation, count: 1 };
                return (at, 0);
            }
            if slot.key == key {
                slot.count += 1;
                return (at, slot.count - 1);
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn count(&self, slot: usize) -> u32 {
        self.slots[slot].count
    }
}

/// An odd number without a pattern in its bits.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash of bytes, for this process only.
#[inline]
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut state = (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let mut rest = bytes;
    while let Some((eight, tail)) = rest.split_first_chunk::<8>() {
        state = fold(state ^ u64::from_le_bytes(*eight));
        rest = tail;
    }
    let last = match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        _ => match *rest {
            [a, .., c] => u64::from(a) | u64::from(rest[1]) << 8 | u64::from(c) << 16,
            [a] => u64::from(a),
            [] => return state,
        },
    };
    fold(state ^ last)
}

#[inline]
fn fold(value: u64) -> u64 {
    let product = u128::from(value ^ 0x2d35_8dcc_aa6c_78a5) * u128::from(MULTIPLIER);
    product as u64 ^ (product >> 64) as u64
}

/// The words of a text and, pass by pass, its repeated n-grams.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grams {
    hashes: Vec<u64>,
    /// Code points of the words before each; one more than there are words.
    ends: Vec<u32>,
    n: usize,
    repeats: Vec<Repeat>,
    counts: Counts,
}

/// Where an n-gram stands that stands elsewhere too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeat {
    pub(crate) key: u64,
    /// Number of its first word.
    pub(crate) at: u32,
    /// How often the n-gram stands in the text.
    pub(crate) count: u32,
    /// It stands further ahead too.
    pub(crate) is_later: bool,
}

impl Grams {
    pub(crate) fn clear(&mut self) {
        self.hashes.clear();
        self.ends.clear();
        self.ends.push(0);
        self.n = 1;
        self.repeats.clear();
    }

    /// Adds a word of so many code points.
    #[inline]
    pub(crate) fn push(&mut self, word: &[u8], characters: usize) {
        self.hashes.push(hash(word));
        let end = self.ends[self.ends.len() - 1];
        self.ends.push(end + characters as u32);
    }

    pub(crate) fn words(&self) -> usize {
        self.hashes.len()
    }

    /// The number of n-grams of the size that the last pass looked at.
    pub(crate) fn len(&self) -> usize {
        (self.words() + 1).saturating_sub(self.n)
    }

    /// Code points of all words.
    pub(crate) fn characters(&self) -> u32 {
        self.ends[self.words()]
    }

    /// Code points of the words from `from` up to `to`.
    #[inline]
    pub(crate) fn between(&self, from: usize, to: usize) -> u32 {
        self.ends[to] - self.ends[from]
    }

    /// Code points of the n-gram at a word.
    #[inline]
    pub(crate) fn length(&self, at: u32) -> u32 {
        self.between(at as usize, at as usize + self.n)
    }

    /// Looks for n-grams of one word more; the first call looks for 2-grams. Returns those that repeat, in order.
    pub(crate) fn next(&mut self) -> &[Repeat] {
        self.n += 1;
        if self.n == 2 {
            self.first_pass();
        } else {
            self.later_pass();
        }
        &self.repeats
    }

    pub(crate) fn repeats(&self) -> &[Repeat] {
        &self.repeats
    }

    fn first_pass(&mut self) {
        let n = self.len();
        self.counts.clear(n);
        // `count` holds the slot until all are counted.
        self.repeats.extend(self.hashes.windows(2).enumerate().map(|(at, pair)| {
            let key = extended(pair[0], pair[1]);
            let (slot, before) = self.counts.add(key);
            Repeat { key, at: at as u32, count: slot as u32, is_later: before > 0 }
        }));
        self.keep_repeated();
    }

    fn later_pass(&mut self) {
        self.counts.clear(self.repeats.len());
        let mut kept = 0;
        for i in 1..self.repeats.len() {
            let (repeat, next) = (self.repeats[i - 1], self.repeats[i]);
            if next.at == repeat.at + 1 {
                let key = extended(repeat.key, self.hashes[repeat.at as usize + self.n - 1]);
                let (slot, before) = self.counts.add(key);
                self.repeats[kept] = Repeat { key, at: repeat.at, count: slot as u32, is_later: before > 0 };
                kept += 1;
            }
        }
        self.repeats.truncate(kept);
        self.keep_repeated();
    }

    fn keep_repeated(&mut self) {
        let counts = &self.counts;
        self.repeats.retain_mut(|repeat| {
            repeat.count = counts.count(repeat.count as usize);
            repeat.count > 1
        });
    }
}

#[inline]
fn extended(key: u64, word: u64) -> u64 {
    (key.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER)
}

/// Sums over the lines or paragraphs of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Segments {
    pub(crate) all: usize,
    pub(crate) characters: usize,
    /// Those that stand more than once, every copy counted.
    pub(crate) copied: usize,
    pub(crate) copied_characters: usize,
    /// Each different one once.
    pub(crate) distinct: usize,
    pub(crate) distinct_characters: usize,
}

impl Segments {
    /// Sums over `segments`, of which there are at most `most`.
    pub(crate) fn sum<'t>(segments: impl Iterator<Item = &'t str>, most: usize, counts: &mut Counts) -> Self {
        let mut sums = Self::default();
        counts.clear(most);
        for segment in segments {
            sums.add(segment, counts);
        }
        sums
    }

    #[inline]
    fn add(&mut self, segment: &str, counts: &mut Counts) {
        let characters = characters(segment);
        self.all += 1;
        self.characters += characters;
        match counts.add(hash(segment.as_bytes())).1 {
            0 => {
                self.distinct += 1;
                self.distinct_characters += characters;
            }
            1 => {
                self.copied += 2;
                self.copied_characters += 2 * characters;
            }
            _ => {
                self.copied += 1;
                self.copied_characters += characters;
            }
        }
    }
}

/// The lines between line feeds, as `text.split('\n')`, several times as fast.
pub(crate) fn lines(text: &str) -> Lines<'_> {
    Lines { rest: Some(text) }
}

/// See [`lines`].
#[derive(Debug, Clone)]
pub(crate) struct Lines<'t> {
    rest: Option<&'t str>,
}

impl<'t> Iterator for Lines<'t> {
    type Item = &'t str;

    #[inline]
    fn next(&mut self) -> Option<&'t str> {
        let rest = self.rest?;
        match memchr::memchr(b'\n', rest.as_bytes()) {
            Some(at) => {
                self.rest = Some(&rest[at + 1..]);
                Some(&rest[..at])
            }
            None => self.rest.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Every repeated n-gram as (at, count, is later), the plain way.
    fn plain(words: &[&str], n: usize) -> Vec<(u32, u32, bool)> {
        let mut places: BTreeMap<&[&str], Vec<u32>> = BTreeMap::new();
        for (at, gram) in words.windows(n).enumerate() {
            places.entry(gram).or_default().push(at as u32);
        }
        let mut repeats: Vec<_> = places
            .values()
            .filter(|places| places.len() > 1)
            .flat_map(|places| places.iter().map(|at| (*at, places.len() as u32, *at != places[0])))
            .collect();
        repeats.sort_unstable();
        repeats
    }

    proptest! {
        #[test]
        fn passes_find_what_a_map_finds(text in "([abc] ){0,60}") {
            let words: Vec<&str> = text.split_whitespace().collect();
            let mut grams = Grams::default();
            // The second round finds the tables as the first left them.
            for _ in 0..2 {
                grams.clear();
                for word in &words {
                    grams.push(word.as_bytes(), word.len());
                }
                for n in 2..=10 {
                    let found: Vec<_> = grams.next().iter().map(|r| (r.at, r.count, r.is_later)).collect();
                    prop_assert_eq!(found, plain(&words, n));
                    prop_assert_eq!(grams.len(), words.windows(n).count());
                }
            }
        }

        #[test]
        fn different_bytes_have_different_hashes(a in "[ab\0]{0,20}", b in "[ab\0]{0,20}") {
            prop_assert_eq!(a == b, hash(a.as_bytes()) == hash(b.as_bytes()));
        }

        #[test]
        fn lines_are_pieces_between_line_feeds(text in "[a\n]{0,8}") {
            prop_assert!(lines(&text).eq(text.split('\n')));
        }
    }

    #[test]
    fn copies_count_from_the_first_one() {
        let mut counts = Counts::default();
        let sums = Segments::sum(["aé", "b", "aé", "", "aé"].into_iter(), 5, &mut counts);
        let expected = Segments {
            all: 5,
            characters: 7,
            copied: 3,
            copied_characters: 6,
            distinct: 3,
            distinct_characters: 3,
        };
        assert_eq!(sums, expected);
    }
}
