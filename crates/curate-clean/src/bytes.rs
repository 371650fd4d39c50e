//! What can be counted byte by byte, in one pass at the width of the processor's vectors.
//!
//! One loop over blocks of 64 bytes is compiled three times: for AVX-512, for AVX2 and for what every processor of the
//! target has. The first that this processor knows is taken; all give the same counts.

/// How often bytes of some kinds stand in a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ByteCounts {
    /// Code points: bytes that do not go on with one.
    pub(crate) characters: usize,
    /// A to Z and a to z.
    pub(crate) letters: usize,
    pub(crate) digits: usize,
    pub(crate) hashes: usize,
}

impl ByteCounts {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let [characters, letters, digits, hashes] = count::<AllKinds, 4>(bytes);
        Self { characters, letters, digits, hashes }
    }
}

/// Code points of a text.
pub(crate) fn characters(text: &str) -> usize {
    // Asking for the processor costs more than a short text does.
    let [characters] = match text.len() {
        ..BLOCK => portable::<Characters, 1>(text.as_bytes()),
        _ => count::<Characters, 1>(text.as_bytes()),
    };
    characters
}

/// Bytes of a block: a vector of AVX-512, two of AVX2.
const BLOCK: usize = 64;
/// Blocks after which the count of a lane may be full.
const FULL: usize = 255;

/// Kinds of bytes; a type rather than a list of functions, so that each loop has them in its body.
trait Kinds<const N: usize> {
    fn are(byte: u8) -> [bool; N];
}

struct Characters;

impl Kinds<1> for Characters {
    #[inline(always)]
    fn are(byte: u8) -> [bool; 1] {
        [byte & 0xc0 != 0x80]
    }
}

/// In the order of [`ByteCounts`].
struct AllKinds;

impl Kinds<4> for AllKinds {
    #[inline(always)]
    fn are(byte: u8) -> [bool; 4] {
        [
            byte & 0xc0 != 0x80,
            (byte | 0x20).wrapping_sub(b'a') < 26,
            byte.wrapping_sub(b'0') < 10,
            byte == b'#',
        ]
    }
}

fn count<K: Kinds<N>, const N: usize>(bytes: &[u8]) -> [usize; N] {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512bw") {
            // SAFETY: this processor has AVX-512BW, which is all that the function asks for.
            return unsafe { avx512::<K, N>(bytes) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has AVX2, which is all that the function asks for.
            return unsafe { avx2::<K, N>(bytes) };
        }
    }
    portable::<K, N>(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw")]
fn avx512<K: Kinds<N>, const N: usize>(bytes: &[u8]) -> [usize; N] {
    portable::<K, N>(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<K: Kinds<N>, const N: usize>(bytes: &[u8]) -> [usize; N] {
    portable::<K, N>(bytes)
}

#[inline(always)]
fn portable<K: Kinds<N>, const N: usize>(bytes: &[u8]) -> [usize; N] {
    let mut sums = [0; N];
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for blocks in blocks.chunks(FULL) {
        let mut lanes = [[0_u8; BLOCK]; N];
        for block in blocks {
            for (i, byte) in block.iter().enumerate() {
                let are = K::are(*byte);
                for (lanes, is) in lanes.iter_mut().zip(are) {
                    lanes[i] += u8::from(is);
                }
            }
        }
        for (sum, lanes) in sums.iter_mut().zip(lanes) {
            *sum += lanes.iter().map(|n| usize::from(*n)).sum::<usize>();
        }
    }
    for byte in rest {
        for (sum, is) in sums.iter_mut().zip(K::are(*byte)) {
            *sum += usize::from(is);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(bytes: &[u8]) -> [usize; 4] {
        let mut sums = [0; 4];
        for byte in bytes {
            sums[0] += usize::from(!(0x80..0xc0).contains(byte));
            sums[1] += usize::from(byte.is_ascii_alphabetic());
            sums[2] += usize::from(byte.is_ascii_digit());
            sums[3] += usize::from(*byte == b'#');
        }
        sums
    }

    #[track_caller]
    fn check(bytes: &[u8]) {
        let expected = plain(bytes);
        assert_eq!(portable::<AllKinds, 4>(bytes), expected);
        assert_eq!(count::<AllKinds, 4>(bytes), expected);
        assert_eq!(count::<Characters, 1>(bytes), [expected[0]]);
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: detected above.
                assert_eq!(unsafe { avx2::<AllKinds, 4>(bytes) }, expected);
            }
            if std::arch::is_x86_feature_detected!("avx512bw") {
                // SAFETY: detected above.
                assert_eq!(unsafe { avx512::<AllKinds, 4>(bytes) }, expected);
            }
        }
    }

    #[test]
    fn every_byte_and_full_lanes() {
        check(&(0..=255).collect::<Vec<u8>>());
        check(&[b'a'; BLOCK * FULL * 2 + 65]);
        check(&[b'#'; BLOCK * FULL]);
        check(b"");
    }

    proptest! {
        #[test]
        fn every_processor_counts_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            check(&bytes);
        }

        #[test]
        fn characters_are_code_points(text in "[a-z汉é😀]{0,200}") {
            prop_assert_eq!(characters(&text), text.chars().count());
        }
    }
}
