//! The key under which two texts count as the same.

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The 128-bit key of a text up to white space: xxh3-128 of its words joined by single spaces.
///
/// Exact deduplication compares it, and held-out splits are drawn from it, so that two copies of one text always
/// fall on the same side. 128 bits: among 10^10 texts an accidental collision has a chance of about 10^-19.
pub fn content_key(text: &str) -> u128 {
    let mut words = Words { buffer: [0; BUFFER + BLOCK], len: 0, hasher: None, after_space: true };
    let mut rest = text.as_bytes();
    while let Some(block) = rest.first_chunk::<BLOCK>() {
        let taken = if words.take_block(block, rest) { BLOCK } else { words.take_bytes(rest) };
        rest = &rest[taken..];
    }
    while !rest.is_empty() {
        let taken = words.take_bytes(rest);
        rest = &rest[taken..];
    }
    words.key()
}

/// Bytes that are looked at together.
const BLOCK: usize = 64;
/// Bytes that are hashed together; most documents fit.
const BUFFER: usize = 4096;

/// The words so far, joined by single spaces, perhaps with one more space at the end.
struct Words {
    /// With room for what is copied beyond the end of a run.
    buffer: [u8; BUFFER + BLOCK],
    len: usize,
    /// Has seen what does not fit into the buffer.
    hasher: Option<Xxh3>,
    /// Nothing was taken so far, or a space last: another one would be too many.
    after_space: bool,
}

impl Words {
    /// Takes the block that `text` begins with if all its white space is ASCII. False, with nothing taken, otherwise.
    /// No branch until the block is known, so that the loop becomes vector instructions.
    #[inline(always)]
    fn take_block(&mut self, block: &[u8; BLOCK], text: &[u8]) -> bool {
        let mut spaced = [0; BLOCK];
        let mut spaces = [0; BLOCK + 1];
        let mut leads = [0; BLOCK];
        let mut any_leads = 0;
        spaces[0] = u8::from(self.after_space);
        for (i, &byte) in block.iter().enumerate() {
            let space = is_ascii_space(byte);
            spaced[i] = if space { b' ' } else { byte };
            spaces[i + 1] = u8::from(space);
            leads[i] = u8::from(leads_to_space(byte));
            any_leads |= leads[i];
        }
        let mut doubled = [0; BLOCK];
        let mut any_doubled = 0;
        for i in 0..BLOCK {
            doubled[i] = spaces[i] & spaces[i + 1];
            any_doubled |= doubled[i];
        }
        if any_leads != 0 && has_long_space(text, bits(&leads)) {
            return false;
        }
        self.make_room();
        if any_doubled == 0 {
            self.buffer[self.len..self.len + BLOCK].copy_from_slice(&spaced);
            self.len += BLOCK;
        } else {
            self.take_runs(&spaced, !bits(&doubled));
        }
        self.after_space = spaces[BLOCK] != 0;
        true
    }

    /// Takes the bytes of a block that have a bit in `kept`, run by run.
    fn take_runs(&mut self, block: &[u8; BLOCK], mut kept: u64) {
        let mut padded = [0; 2 * BLOCK];
        padded[..BLOCK].copy_from_slice(block);
        while kept != 0 {
            let start = kept.trailing_zeros() as usize;
            let run = (kept >> start).trailing_ones() as usize;
            self.buffer[self.len..self.len + BLOCK].copy_from_slice(&padded[start..start + BLOCK]);
            self.len += run;
            kept &= u64::MAX.checked_shl((start + run) as u32).unwrap_or(0);
        }
    }

    /// Takes a block, or the end of the text, byte by byte. Returns how many bytes it has taken, which is a few more
    /// where a white space character reaches beyond the block.
    fn take_bytes(&mut self, text: &[u8]) -> usize {
        self.make_room();
        let mut at = 0;
        while at < BLOCK.min(text.len()) {
            let byte = text[at];
            let long = if leads_to_space(byte) { long_space_len(&text[at..]) } else { 0 };
            let space = is_ascii_space(byte) | (long > 0);
            self.buffer[self.len] = if space { b' ' } else { byte };
            self.len += usize::from(!(space & self.after_space));
            self.after_space = space;
            at += long.max(1);
        }
        at
    }

    /// Hashes what is in the buffer if another block does not fit, but for the last byte, which may be a space too
    /// many.
    #[inline(always)]
    fn make_room(&mut self) {
        if self.len + BLOCK > BUFFER {
            let last = self.len - 1;
            self.hasher.get_or_insert_with(Xxh3::new).update(&self.buffer[..last]);
            self.buffer[0] = self.buffer[last];
            self.len = 1;
        }
    }

    fn key(self) -> u128 {
        let words = &self.buffer[..self.len - usize::from(self.after_space && self.len > 0)];
        match self.hasher {
            None => xxh3_128(words),
            Some(mut hasher) => {
                hasher.update(words);
                hasher.digest128()
            }
        }
    }
}

#[inline(always)]
fn is_ascii_space(byte: u8) -> bool {
    (byte == b' ') | (byte.wrapping_sub(b'\t') <= b'\r' - b'\t')
}

/// Whether white space beyond ASCII may start with this byte.
#[inline(always)]
fn leads_to_space(byte: u8) -> bool {
    (byte == 0xC2) | (byte.wrapping_sub(0xE1) <= 2)
}

/// Whether a white space character beyond ASCII begins at one of the `places` in the first block of `text`.
fn has_long_space(text: &[u8], mut places: u64) -> bool {
    while places != 0 {
        if long_space_len(&text[places.trailing_zeros() as usize..]) > 0 {
            return true;
        }
        places &= places - 1;
    }
    false
}

/// A bit for each byte, which is 0 or 1.
fn bits(bytes: &[u8; BLOCK]) -> u64 {
    let (eights, _) = bytes.as_chunks::<8>();
    // The product moves the lowest bits of all eight bytes into the highest byte.
    let gather = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    eights.iter().rev().fold(0, |mask, eight| mask << 8 | gather(eight))
}

/// Bytes of the white space character beyond ASCII that stands here, or 0.
fn long_space_len(text: &[u8]) -> usize {
    match text {
        // U+0085, U+00A0.
        [0xC2, 0x85 | 0xA0, ..] => 2,
        // U+1680; U+2000 to U+200A, U+2028, U+2029, U+202F; U+205F; U+3000.
        [0xE1, 0x9A, 0x80, ..]
        | [0xE2, 0x80, 0x80..=0x8A | 0xA8 | 0xA9 | 0xAF, ..]
        | [0xE2, 0x81, 0x9F, ..]
        | [0xE3, 0x80, 0x80, ..] => 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition.
    fn plain(text: &str) -> u128 {
        xxh3_128(text.split_whitespace().collect::<Vec<_>>().join(" ").as_bytes())
    }

    #[test]
    fn white_space_does_not_count() {
        assert_eq!(content_key("a b"), content_key("  a\n\n b\t"));
        assert_eq!(content_key(""), content_key(" \n"));
        assert_ne!(content_key("a b"), content_key("ab"));
        assert_ne!(content_key("a b"), content_key("A b"));
    }

    #[test]
    fn every_character_counts_as_the_definition_says() {
        for c in '\0'..=char::MAX {
            let text = format!("a{c}b{c}");
            assert_eq!(content_key(&text), plain(&text), "{c:?}");
        }
    }

    #[test]
    fn white_space_at_every_place_of_a_block_and_of_the_buffer() {
        let letters = "abcdefghijklmnopqrstuvwxyz0123456789".repeat(140);
        for space in [" ", "  ", "\n\n", "\t", "\u{A0}", "\u{3000}", " \u{2003} ", "’", "漢"] {
            for start in [0, 1, 62, 3970, 4030, 4094, 4968] {
                for at in start..start + 70 {
                    let text = format!("{}{space}{}", &letters[..at], &letters[at..]);
                    for text in [&text[..], &text[..at + space.len()], &text[..at]] {
                        assert_eq!(content_key(text), plain(text), "{space:?} at {at} of {}", text.len());
                    }
                }
            }
        }
    }

    #[test]
    fn texts_of_many_words() {
        let mut state = 1u64;
        for round in 0..400 {
            let mut text = String::new();
            for _ in 0..round * 5 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let pieces =
                    ["word", " ", " ", "a", "\n", "\n\n", "é", "—", "\u{2028}", "longer-word", ", ", "  "];
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            assert_eq!(content_key(&text), plain(&text), "{text:?}");
        }
    }
}
