//! From text to words that survive editing: case folded, accents and punctuation off, digits kept.
//!
//! A word is a maximal run of letters and digits after canonical decomposition without its combining marks; in scripts
//! written without spaces each character is a word. Everything else separates, so that `Q(sqrt(2))` and `q sqrt 2`
//! are the same words. A word is kept as a 64-bit hash and its place in the text.

use unicode_normalization::char::{decompose_canonical, is_combining_mark};

use crate::chars::is_unspaced;

/// A word of a text: its hash, and the bytes that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) hash: u64,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Word {
    /// What items are compared by: two of 100,000 different words are equal with a chance of one in a million.
    pub(crate) fn short(self) -> u32 {
        self.hash as u32
    }
}

const BEYOND_ASCII: u8 = 0xff;

/// By byte: 0 for a separator, the folded byte for an ASCII letter or digit, or [`BEYOND_ASCII`].
const FOLD: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = match b {
            b'A'..=b'Z' => b + 32,
            b'a'..=b'z' | b'0'..=b'9' => b,
            0x80.. => BEYOND_ASCII,
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// The hash of the bytes pushed, eight at a time.
#[derive(Clone, Copy)]
struct WordHash {
    state: u64,
    chunk: u64,
    len: u32,
}

impl WordHash {
    const START: Self = Self { state: 0x243f_6a88_85a3_08d3, chunk: 0, len: 0 };

    #[inline(always)]
    fn push(&mut self, byte: u8) {
        self.chunk = self.chunk << 8 | u64::from(byte);
        self.len += 1;
        if self.len.is_multiple_of(8) {
            self.state = mix(self.state ^ self.chunk);
            self.chunk = 0;
        }
    }

    #[inline(always)]
    fn finish(self) -> u64 {
        mix(self.state ^ self.chunk ^ u64::from(self.len) << 56)
    }
}

/// A bijection that spreads every bit over the upper and the lower half.
#[inline(always)]
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^ x >> 29
}

/// The words of `text`, in order, into `words` (cleared first). Of a text beyond 4 GiB the first 4 GiB are looked at.
pub(crate) fn split(text: &str, words: &mut Vec<Word>) {
    words.clear();
    let limit = text.floor_char_boundary(u32::MAX as usize);
    let bytes = &text.as_bytes()[..limit];
    let mut at = 0;
    while at < bytes.len() {
        if FOLD[usize::from(bytes[at])] == 0 {
            at += 1;
            continue;
        }
        let start = at;
        let mut hash = WordHash::START;
        let mut folded = 0;
        while at < bytes.len() {
            folded = FOLD[usize::from(bytes[at])];
            if folded == 0 || folded == BEYOND_ASCII {
                break;
            }
            hash.push(folded);
            at += 1;
        }
        if folded == BEYOND_ASCII {
            at = split_unicode(&text[..limit], start, words);
        } else {
            words.push(Word { hash: hash.finish(), start: start as u32, end: at as u32 });
        }
    }
}

/// The words of the run of letters that begins at `start`, character by character; returns where it ends.
fn split_unicode(text: &str, start: usize, words: &mut Vec<Word>) -> usize {
    let mut hash = WordHash::START;
    let mut word_start = start;
    let mut word_end = start;
    let mut end = start;
    let flush = |hash: &mut WordHash, from: usize, to: usize, words: &mut Vec<Word>| {
        if hash.len > 0 {
            words.push(Word { hash: hash.finish(), start: from as u32, end: to as u32 });
        }
        *hash = WordHash::START;
    };
    for (offset, c) in text[start..].char_indices() {
        let at = start + offset;
        end = at + c.len_utf8();
        let alone = is_unspaced(c) && c.is_alphanumeric();
        if alone {
            flush(&mut hash, word_start, word_end, words);
        }
        if hash.len == 0 {
            word_start = at;
        }
        let mut belongs = false;
        decompose_canonical(c, |part| {
            if is_combining_mark(part) {
                belongs = true;
            } else if part.is_alphanumeric() {
                belongs = true;
                for lower in part.to_lowercase().filter(|l| !is_combining_mark(*l)) {
                    lower.encode_utf8(&mut [0; 4]).bytes().for_each(|b| hash.push(b));
                }
            }
        });
        if !belongs {
            break;
        }
        word_end = end;
        if alone {
            flush(&mut hash, word_start, word_end, words);
        }
    }
    flush(&mut hash, word_start, word_end, words);
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<Word> {
        let mut found = Vec::new();
        split(text, &mut found);
        found
    }

    fn places(text: &str) -> Vec<&str> {
        words(text).iter().map(|w| &text[w.start as usize..w.end as usize]).collect()
    }

    #[test]
    fn words_stand_where_they_stood() {
        let check = |text: &str, expected: &[&str]| assert_eq!(places(text), expected, "{text}");
        check("", &[]);
        check(" ,;\n", &[]);
        check("Janet’s ducks, 16 eggs!", &["Janet", "s", "ducks", "16", "eggs"]);
        check("Q(sqrt(2))", &["Q", "sqrt", "2"]);
        check("naïve Øre", &["naïve", "Øre"]);
        check("x\u{301}y z", &["x\u{301}y", "z"]);
        check("漢字 kana かな", &["漢", "字", "kana", "か", "な"]);
        check("a漢b", &["a", "漢", "b"]);
        check("“quoted”", &["quoted"]);
    }

    #[test]
    fn folding_hides_case_accents_and_punctuation() {
        let same = |a: &str, b: &str| {
            let hashes = |t: &str| words(t).iter().map(|w| w.hash).collect::<Vec<_>>();
            assert_eq!(hashes(a), hashes(b), "{a} / {b}");
        };
        same("The CAFÉ, at noon.", "the cafe at noon");
        same("caf\u{e9}", "cafe\u{301}");
        same("ÉCOLE über", "ecole uber");
        same("ΑΘΗΝΑ", "αθηνα");
        let differ = |a: &str, b: &str| assert_ne!(words(a)[0].hash, words(b)[0].hash, "{a} / {b}");
        differ("16", "17");
        differ("abcdefgh", "abcdefghh");
        differ("ab", "ba");
    }

    proptest! {
        #[test]
        fn fast_and_slow_agree_and_places_are_whole_characters(text in "[a-cA-C0-9é漢'. \u{301}]{0,40}") {
            let found = words(&text);
            for pair in found.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
            for word in &found {
                let part = &text[word.start as usize..word.end as usize];
                // A word alone is hashed as it is in its text, and by the slow path as by the fast one.
                let mut slow = Vec::new();
                split_unicode(part, 0, &mut slow);
                prop_assert_eq!(slow.len(), 1);
                prop_assert_eq!(slow[0].hash, word.hash);
            }
        }
    }
}
