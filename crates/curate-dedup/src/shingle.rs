//! From text to the set of its shingles: runs of `ngram` units, each as a 64-bit hash, sorted and without repeats.
//!
//! # The shingle hash
//!
//! Fixed for ever. A run of units with hashes `u_1 … u_n` becomes `u_1 P^(n-1) + … + u_(n-1) P + u_n` modulo 2^64,
//! rolled along the text at two multiplications a unit, and then a bijection that mixes all bits into all others.
//! The unit hashes are well mixed already, so two different runs collide with a chance near 2^-64; the worst
//! structure, runs that only swap two units, costs a few bits (`P` = 3 modulo 8 makes `P^k - 1` divisible by no
//! high power of two: 2^4 at a distance of 4 units). Comparing two documents of 10^5 shingles meets 10^10 pairs of
//! hashes: the chance that even one of them is false is below 10^-8, and it would move a Jaccard similarity by
//! 10^-5. So what this crate calls exact Jaccard is exact for any practical purpose.
//!
//! # Short and empty texts
//!
//! A text with fewer than `ngram` units is one shingle of all of them (`SHORT` times their number plus one is added
//! before the last bijection), so that short copies are found and short texts that differ in anything stay apart. A
//! text without a single unit of `curate-1`, such as a row of symbols, is taken by its `raw` words, since having no
//! words in common with another is no likeness. A text of white space only has one shingle of its own.
//!
//! # White space never matters
//!
//! Texts with equal [`content_key`](curate_core::content_key) have equal shingles under every profile: the key
//! changes only with the sequence of white-space-separated words; no white space character belongs to a unit, and
//! how many of them separate two units makes no difference. Hence the exact stage never contradicts the MinHash
//! stage.

use crate::datatrove::{DatatroveText, hash_windows};
use crate::sort::{SortBuffers, sort_unique};
use crate::words::{Profile, finish, units};

/// Turns texts into shingle sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shingler {
    profile: Profile,
    ngram: usize,
    /// `P^ngram`: the weight of the unit that leaves the window.
    leaving: u64,
}

/// Buffers of [`Shingler::shingles`], to be reused from text to text.
#[derive(Debug, Default)]
pub struct ShingleBuffers {
    word: Vec<u8>,
    units: Vec<u64>,
    shingles: Vec<u64>,
    simplified: DatatroveText,
    sort: SortBuffers,
}

impl Shingler {
    /// Shingles of `ngram` units of `profile`.
    ///
    /// # Panics
    ///
    /// If `ngram` is 0.
    pub fn new(profile: Profile, ngram: usize) -> Self {
        assert!(ngram > 0, "a shingle has at least one unit");
        let leaving = (0..ngram).fold(1, |power: u64, _| power.wrapping_mul(P));
        Self { profile, ngram, leaving }
    }

    /// The shingles of `text`, ascending and each once; empty only for a text that is too short for the
    /// [`datatrove`](Profile::Datatrove) profile.
    pub fn shingles<'b>(&self, text: &str, buffers: &'b mut ShingleBuffers) -> &'b [u64] {
        self.unsorted(text, buffers);
        sort_unique(&mut buffers.shingles, &mut buffers.sort);
        &buffers.shingles
    }

    /// The shingles of `text` in the order in which they stand, with repeats.
    pub(crate) fn unsorted<'b>(&self, text: &str, buffers: &'b mut ShingleBuffers) -> &'b [u64] {
        let ShingleBuffers { word, units: found, shingles, simplified, sort: _ } = buffers;
        found.clear();
        shingles.clear();
        if self.profile == Profile::Datatrove {
            hash_windows(self.ngram, text, simplified, shingles);
            return shingles;
        }
        units(self.profile, text, word, found);
        if found.is_empty() && self.profile != Profile::Raw {
            units(Profile::Raw, text, word, found);
        }
        self.windows(found, shingles);
        shingles
    }

    /// Appends the hash of each window of `ngram` units, or of all units where they are fewer.
    fn windows(&self, units: &[u64], shingles: &mut Vec<u64>) {
        let Some(rest) = units.len().checked_sub(self.ngram) else {
            shingles.push(finish(polynomial(units).wrapping_add(SHORT.wrapping_mul(units.len() as u64 + 1))));
            return;
        };
        let (first, entering) = units.split_at(self.ngram);
        let mut window = polynomial(first);
        shingles.push(finish(window));
        shingles.extend(entering.iter().zip(&units[..rest]).map(|(&enters, &leaves)| {
            window =
                window.wrapping_mul(P).wrapping_add(enters).wrapping_sub(leaves.wrapping_mul(self.leaving));
            finish(window)
        }));
    }
}

const P: u64 = 0xA24B_AED4_963E_E40B;
const SHORT: u64 = 0x9FB2_1C65_1E98_DF25;

fn polynomial(units: &[u64]) -> u64 {
    units.iter().fold(0, |sum, &unit| sum.wrapping_mul(P).wrapping_add(unit))
}

#[cfg(test)]
mod tests {
    use curate_core::content_key;
    use probabilistic_collections::similarity::{ShingleIterator, get_jaccard_similarity};
    use proptest::prelude::*;

    use super::*;
    use crate::similar::similar;

    fn set(profile: Profile, ngram: usize, text: &str) -> Vec<u64> {
        Shingler::new(profile, ngram).shingles(text, &mut ShingleBuffers::default()).to_vec()
    }

    fn curate_1(text: &str) -> Vec<u64> {
        set(Profile::Curate1, 5, text)
    }

    #[test]
    fn the_multiplier_is_odd_and_loses_few_bits() {
        assert_eq!(P % 8, 3);
    }

    #[test]
    fn shingle_hashes_are_fixed() {
        // Computed from the module documentation by another program.
        assert_eq!(curate_1(""), [0x8D44_82AB_6DD6_C67E]);
        assert_eq!(curate_1("one two three"), [0x83A9_DCF2_699B_1567]);
        assert_eq!(curate_1("one two three four five six"), [0x76D7_9065_F252_7D4A, 0xC92B_10A2_F934_E443]);
        assert_eq!(set(Profile::Raw, 2, "One two, three"), [0x3E5B_07C7_8096_BD74, 0xFD00_0B2A_66AE_74FA]);
    }

    #[test]
    fn as_many_as_there_are_windows() {
        for (text, expected) in
            [("", 1), ("a", 1), ("a b c d", 1), ("a b c d e", 1), ("a b c d e f", 2), ("a a a a a a a a", 1)]
        {
            assert_eq!(curate_1(text).len(), expected, "{text:?}");
        }
    }

    #[test]
    fn copies_have_the_same_shingles() {
        let text = "The quick brown fox jumps over the lazy dog, twice: once today.";
        for copy in [
            "the QUICK brown fox jumps over the lazy dog twice once today",
            "«The quick — brown fox jumps» over the lazy dog; twice. Once… today!",
            "The quick\nbrown   fox\tjumps over the lazy dog, twice: once today.",
        ] {
            assert_eq!(curate_1(copy), curate_1(text), "{copy:?}");
        }
        assert_eq!(curate_1("ΟΔΟΣ ΣΟΦΙΑΣ"), curate_1("οδος σοφιας"));
    }

    #[test]
    fn short_texts_that_differ_stay_apart() {
        let texts = [
            "",
            "a",
            "b",
            "a b",
            "b a",
            "ab",
            "a a",
            "a a a a a",
            "a a a a",
            "!!!",
            "...",
            "! !",
            "😀",
            "😀 😀",
            "漢",
            "漢字",
        ];
        for (i, a) in texts.iter().enumerate() {
            for b in &texts[..i] {
                assert_eq!(similar(&curate_1(a), &curate_1(b)), 0.0, "{a:?} {b:?}");
            }
        }
        assert_eq!(curate_1(""), curate_1(" \n\u{3000}"));
    }

    #[test]
    fn chinese_sentences_have_shingles_of_code_points() {
        let a = curate_1("我们今天下午要去图书馆还书");
        assert_eq!(a.len(), 13 - 4);
    }

    #[test]
    fn the_worst_swaps_do_not_collide() {
        // Every order of five different words is another shingle, at every n that holds them.
        let words = ["alpha", "beta", "gamma", "delta", "epsilon"];
        let mut seen = std::collections::BTreeSet::new();
        let mut orders = 0;
        for code in 0..5usize.pow(5) {
            let order: Vec<usize> = (0..5).map(|i| code / 5usize.pow(i) % 5).collect();
            let text: Vec<&str> = order.iter().map(|&i| words[i]).collect();
            seen.extend(curate_1(&text.join(" ")));
            orders += 1;
        }
        assert_eq!(seen.len(), orders);
    }

    proptest! {
        #[test]
        fn jaccard_is_that_of_the_windows(
            a in prop::collection::vec("[ab]{1,2}", 5..60),
            b in prop::collection::vec("[ab]{1,2}", 5..60),
            ngram in 1usize..6,
        ) {
            let windows = |words: &[String]| -> Vec<Vec<String>> {
                // The crate's iterator joins nothing; owned windows make them comparable.
                ShingleIterator::new(ngram, words.iter().map(String::as_str).collect())
                    .map(|w: Vec<&str>| w.into_iter().map(str::to_owned).collect())
                    .collect()
            };
            let expected = get_jaccard_similarity(windows(&a).into_iter(), windows(&b).into_iter());
            let got = similar(
                &set(Profile::Raw, ngram, &a.join(" ")),
                &set(Profile::Raw, ngram, &b.join(" ")),
            );
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn equal_content_keys_have_equal_shingles(
            words in prop::collection::vec("\\PC{1,5}", 0..12),
            gaps in prop::collection::vec("[ \t\n\u{85}\u{A0}\u{2009}\u{3000}]{1,3}", 13),
        ) {
            let spread: String = words.iter().zip(&gaps).flat_map(|(w, g)| [w.as_str(), g]).collect();
            let plain = words.join(" ");
            prop_assert_eq!(content_key(&plain), content_key(&spread));
            for profile in Profile::ALL {
                prop_assert_eq!(set(profile, 3, &plain), set(profile, 3, &spread));
            }
        }
    }
}
