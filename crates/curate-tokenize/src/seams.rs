//! Where a word can be cut without changing its tokens.
//!
//! Merging joins neighbouring tokens. Between two characters where no merge of the tokenizer has a left half that ends
//! with the first and a right half that begins with the second, nothing is ever joined: the tokens of the word are those of
//! its two pieces. Runs of a script without spaces fall into short pieces that are met again, though the runs are not.

/// The places of a tokenizer where characters may be joined; between all others words can be cut.
#[derive(Debug)]
pub(crate) struct Seams {
    /// A bit for each last byte of a character and first byte of the next that are joined as parts of characters.
    bytes: Vec<u64>,
    /// A bit for each hash of two characters that are joined whole, some sixteen times as many as there are pairs.
    pairs: Vec<u64>,
    shift: u32,
}

/// A character: its bytes, the first lowest.
type Packed = u32;

impl Seams {
    /// `merges` are the two halves of each merge.
    pub(crate) fn new<'w>(merges: impl Iterator<Item = (&'w [u8], &'w [u8])>) -> Self {
        let mut bytes = vec![0u64; 1 << 10];
        let mut pairs = Vec::new();
        for (left, right) in merges {
            let (Some(&end), Some(&begin)) = (left.last(), right.first()) else { continue };
            if is_continuation(begin) {
                continue; // Joined within a character.
            }
            match (last_character(left), first_character(right)) {
                (Some(left), Some(right)) => pairs.push([left, right]),
                _ => {
                    let bit = usize::from(end) << 8 | usize::from(begin);
                    bytes[bit / 64] |= 1 << (bit % 64);
                }
            }
        }
        let bits = (pairs.len() * 16).next_power_of_two().ilog2().max(6);
        let mut seams = Self { bytes, pairs: vec![0; 1 << (bits - 6)], shift: u64::BITS - bits };
        for [left, right] in pairs {
            let bit = seams.bit(left, right);
            seams.pairs[bit / 64] |= 1 << (bit % 64);
        }
        seams
    }

    /// The end of the first piece of `word`, which is text and not empty.
    pub(crate) fn piece(&self, word: &[u8]) -> usize {
        let mut at = character_len(word[0]);
        let mut before = first_character(word).unwrap_or(0);
        while let Some(here) = word.get(at..).and_then(first_character) {
            let are_ascii = before < 0x80 && here < 0x80; // Nearly all of these are joined by some merge.
            if !are_ascii && !self.joins(before, word[at - 1], here) {
                return at;
            }
            at += character_len(word[at]);
            before = here;
        }
        word.len()
    }

    fn bit(&self, left: Packed, right: Packed) -> usize {
        let key = u64::from(left) << 32 | u64::from(right);
        (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    /// Whether anything may be joined between two characters, of which `end` is the last byte of the first.
    fn joins(&self, left: Packed, end: u8, right: Packed) -> bool {
        let bit = usize::from(end) << 8 | (right & 0xFF) as usize;
        if self.bytes[bit / 64] >> (bit % 64) & 1 != 0 {
            return true;
        }
        let bit = self.bit(left, right);
        self.pairs[bit / 64] >> (bit % 64) & 1 != 0
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// Bytes of the character that begins with this byte.
fn character_len(lead: u8) -> usize {
    match lead {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    }
}

/// The character that `bytes` begin with; `None` if it is cut short.
#[inline(always)]
fn first_character(bytes: &[u8]) -> Option<Packed> {
    let character = bytes.get(..character_len(*bytes.first()?))?;
    Some(character.iter().rev().fold(0, |packed, &byte| packed << 8 | Packed::from(byte)))
}

/// The character that `bytes` end with; `None` if they hold only the end of one.
fn last_character(bytes: &[u8]) -> Option<Packed> {
    let begin = bytes.iter().rposition(|&byte| !is_continuation(byte))?;
    first_character(&bytes[begin..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces<'w>(seams: &Seams, mut word: &'w str) -> Vec<&'w str> {
        let mut pieces = Vec::new();
        while !word.is_empty() {
            let (piece, rest) = word.split_at(seams.piece(word.as_bytes()));
            pieces.push(piece);
            word = rest;
        }
        pieces
    }

    #[test]
    fn words_are_cut_where_nothing_is_joined() {
        let merges: [(&[u8], &[u8]); 4] = [
            (b"\xE4\xB8", b"\xAD"), // 中, of its bytes
            ("中".as_bytes(), "文".as_bytes()),
            ("x中".as_bytes(), "国z".as_bytes()),
            ("语".as_bytes(), b"\xC3"), // and the first byte of é and others
        ];
        let seams = Seams::new(merges.into_iter());
        let check = |word: &str, expected: &[&str]| assert_eq!(pieces(&seams, word), expected);
        check("中文中国中", &["中文", "中国", "中"]);
        check("文中", &["文", "中"]);
        check("语é语中", &["语é", "语", "中"]);
        check("ab中c𝄞d", &["ab", "中", "c", "𝄞", "d"]);
        check("letters only", &["letters only"]);
    }

    #[test]
    fn without_merges_each_character_is_alone() {
        let seams = Seams::new(std::iter::empty());
        assert_eq!(pieces(&seams, "éàb"), ["é", "à", "b"]);
    }
}
