//! From a text to hashed features: its words and its pairs of neighbouring words.
//!
//! Words are runs of anything but ASCII white space and control characters, with A–Z lowered. A word's hash is 64-bit
//! FNV-1a over its bytes (a byte at a time, since that is where the word's end is found too: no second look at it),
//! a pair's is the first hash rotated by 23 bits, plus the second, times an odd constant. The upper bits of a
//! multiplication choose the weight. All of this is part of the file format: see [`super::model`].

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
/// 2^64 divided by the golden ratio: spreads the lower bits of FNV over the upper ones.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a byte adds to a word: itself, lowered if it is A–Z; 0 ends the word.
const LOWERED: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 33;
    while byte < 256 {
        table[byte] = (byte as u8).to_ascii_lowercase();
        byte += 1;
    }
    table[127] = 0;
    table
};

/// Calls `visit` with the weight number (below 2^`bits`) of each word and pair of `text`; returns how many.
#[inline(always)]
pub(super) fn each_feature(text: &str, bits: u32, mut visit: impl FnMut(u32)) -> u64 {
    let shift = 64 - bits;
    let mut previous = None;
    let mut count = 0;
    let mut hash = FNV_START;
    let mut end_word = |hash: u64| {
        visit((hash.wrapping_mul(SPREAD) >> shift) as u32);
        count += 1;
        if let Some(previous) = previous.replace(hash) {
            let pair = u64::rotate_left(previous, 23).wrapping_add(hash).wrapping_mul(FNV_PRIME);
            visit((pair.wrapping_mul(SPREAD) >> shift) as u32);
            count += 1;
        }
    };
    for byte in text.bytes() {
        match LOWERED[usize::from(byte)] {
            0 if hash == FNV_START => {}
            0 => end_word(std::mem::replace(&mut hash, FNV_START)),
            byte => hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME),
        }
    }
    if hash != FNV_START {
        end_word(hash);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(text: &str) -> Vec<u32> {
        let mut found = Vec::new();
        let count = each_feature(text, 22, |feature| found.push(feature));
        assert_eq!(count, found.len() as u64);
        found
    }

    #[test]
    fn words_and_pairs() {
        for (text, expected) in
            [("", 0), (" \n\t", 0), ("one", 1), ("one two", 3), (" a\nb\tc ", 5), ("é\u{a0}è", 1)]
        {
            assert_eq!(features(text).len(), expected, "{text:?}");
        }
        assert_eq!(features("The  CAT"), features("the cat\n"));
        assert_ne!(features("the cat")[2], features("cat the")[2], "pairs have a direction");
        assert!(features("a b c d").iter().all(|feature| *feature < 1 << 22));
    }
}
