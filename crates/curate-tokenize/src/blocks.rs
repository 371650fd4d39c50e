//! 64 bytes at a time: which of them are letters, digits, spaces …, as bits of a word.
//!
//! Three implementations give the same bits: AVX-512, AVX2, and one for any machine. Bytes are classed by vector
//! comparisons; characters beyond ASCII are looked up one by one. Then the bits are pressed together, so that
//! bit `n` speaks of the `n`-th *character* of the block and neighbours are one shift away.

use crate::classes::{self, Classes};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 64;

/// Which machine instructions to use; all give the same ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Instructions {
    /// The widest that this processor has.
    #[default]
    Best,
    /// AVX2 and BMI2, or the portable ones where they are missing.
    Avx2,
    /// Any processor.
    Portable,
}

/// A block by characters: bit `n` of a mask is its `n`-th character.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Masks {
    /// Number of characters that begin in the block.
    pub(crate) len: u32,
    pub(crate) letter: u64,
    pub(crate) number: u64,
    pub(crate) white: u64,
    pub(crate) upper: u64,
    pub(crate) lower: u64,
    pub(crate) mark: u64,
    pub(crate) symbol: u64,
    /// Chinese characters and kana as the pattern of DeepSeek lists them.
    pub(crate) cjk: u64,
    /// U+0020 alone.
    pub(crate) space: u64,
    /// `\r` and `\n`.
    pub(crate) newline: u64,
    pub(crate) apostrophe: u64,
    pub(crate) slash: u64,
    /// `[A-Za-z]`
    pub(crate) ascii_letter: u64,
    /// Marks of ASCII punctuation and symbols.
    pub(crate) ascii_symbol: u64,
    /// By bytes: where characters begin.
    pub(crate) leads: u64,
    /// All classes of the characters beyond ASCII.
    pub(crate) seen: u8,
}

/// A block of bytes, classed as ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ascii {
    upper: u64,
    lower: u64,
    number: u64,
    white: u64,
    space: u64,
    newline: u64,
    apostrophe: u64,
    slash: u64,
    /// From `!` to `~`.
    visible: u64,
    /// Not ASCII.
    high: u64,
    /// Not the first byte of a character.
    continuation: u64,
}

/// The operations that differ between machines.
pub(crate) trait Machine {
    fn class(block: &[u8; BLOCK]) -> Ascii;
    /// Presses together the bits of `value` that `mask` selects.
    fn press(value: u64, mask: u64) -> u64;
    /// Spreads the low bits of `value` over the places that `mask` selects.
    fn spread(value: u64, mask: u64) -> u64;
}

/// Reads the block of `text` that begins at `start`.
#[inline(always)]
pub(crate) fn read<M: Machine>(classes: &Classes, text: &[u8], start: usize) -> Masks {
    match text[start..].first_chunk::<BLOCK>() {
        Some(block) => masks::<M>(classes, text, start, &M::class(block), !0),
        None => {
            let rest = &text[start..];
            let mut block = [0; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            masks::<M>(classes, text, start, &M::class(&block), (1 << rest.len()) - 1)
        }
    }
}

/// `valid` has a bit for each byte of the block that is part of the text.
#[inline(always)]
fn masks<M: Machine>(classes: &Classes, text: &[u8], start: usize, ascii: &Ascii, valid: u64) -> Masks {
    let ascii_letter = ascii.upper | ascii.lower;
    let ascii_symbol = ascii.visible & !ascii_letter & !ascii.number;
    let mut masks = Masks {
        len: BLOCK as u32,
        letter: ascii_letter,
        number: ascii.number,
        white: ascii.white,
        upper: ascii.upper,
        lower: ascii.lower,
        mark: 0,
        symbol: ascii_symbol,
        cjk: 0,
        space: ascii.space,
        newline: ascii.newline,
        apostrophe: ascii.apostrophe,
        slash: ascii.slash,
        ascii_letter,
        ascii_symbol,
        leads: valid & !ascii.continuation,
        seen: 0,
    };
    if masks.leads == !0 && ascii.high == 0 {
        return masks;
    }
    let mut rest = ascii.high & masks.leads;
    while rest != 0 {
        let at = rest.trailing_zeros();
        rest &= rest - 1;
        let (code_point, _) = classes::decode(text, start + at as usize);
        let class = classes.of(code_point);
        let bit = |of: u8| u64::from(class & of != 0) << at;
        masks.letter |= bit(classes::LETTER);
        masks.number |= bit(classes::NUMBER);
        masks.white |= bit(classes::WHITE);
        masks.upper |= bit(classes::UPPER);
        masks.lower |= bit(classes::LOWER);
        masks.mark |= bit(classes::MARK);
        masks.symbol |= bit(classes::SYMBOL);
        masks.cjk |= u64::from(is_cjk(code_point)) << at;
        masks.seen |= class;
    }
    let leads = masks.leads;
    let press = |mask: &mut u64| *mask = M::press(*mask, leads);
    masks.len = leads.count_ones();
    press(&mut masks.letter);
    press(&mut masks.number);
    press(&mut masks.white);
    press(&mut masks.upper);
    press(&mut masks.lower);
    press(&mut masks.mark);
    press(&mut masks.symbol);
    press(&mut masks.cjk);
    press(&mut masks.space);
    press(&mut masks.newline);
    press(&mut masks.apostrophe);
    press(&mut masks.slash);
    press(&mut masks.ascii_letter);
    press(&mut masks.ascii_symbol);
    masks
}

/// `[一-龥぀-ゟ゠-ヿ]`
#[inline(always)]
pub(crate) fn is_cjk(code_point: u32) -> bool {
    matches!(code_point, 0x4E00..=0x9FA5 | 0x3040..=0x30FF)
}

/// Any machine.
pub(crate) struct Portable;

impl Machine for Portable {
    fn class(block: &[u8; BLOCK]) -> Ascii {
        // Eight bytes a step: the mask of each class gathers in the low bits of a byte.
        let mask = |test: fn(u8) -> bool| {
            let byte_mask = |bytes: &[u8]| (0..8).fold(0u8, |mask, n| mask | u8::from(test(bytes[n])) << n);
            let bytes = block.chunks_exact(8).zip(0..);
            bytes.fold(0u64, |mask, (bytes, n)| mask | u64::from(byte_mask(bytes)) << (8 * n))
        };
        Ascii {
            upper: mask(|byte| byte.is_ascii_uppercase()),
            lower: mask(|byte| byte.is_ascii_lowercase()),
            number: mask(|byte| byte.is_ascii_digit()),
            white: mask(|byte| matches!(byte, b'\t'..=b'\r' | b' ')),
            space: mask(|byte| byte == b' '),
            newline: mask(|byte| matches!(byte, b'\r' | b'\n')),
            apostrophe: mask(|byte| byte == b'\''),
            slash: mask(|byte| byte == b'/'),
            visible: mask(|byte| matches!(byte, b'!'..=b'~')),
            high: mask(|byte| byte >= 0x80),
            continuation: mask(|byte| byte & 0xC0 == 0x80),
        }
    }

    fn press(value: u64, mut mask: u64) -> u64 {
        if mask & mask.wrapping_add(1) == 0 {
            return value & mask; // A run from bit 0: ASCII up to the end of the text.
        }
        let (mut pressed, mut at) = (0, 0);
        while mask != 0 {
            pressed |= (value >> mask.trailing_zeros() & 1) << at;
            at += 1;
            mask &= mask - 1;
        }
        pressed
    }

    fn spread(mut value: u64, mut mask: u64) -> u64 {
        let mut spread = 0;
        while value != 0 && mask != 0 {
            spread |= (value & 1) << mask.trailing_zeros();
            value >>= 1;
            mask &= mask - 1;
        }
        spread
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512, has_avx2, has_avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Ascii, BLOCK, Machine};

    /// AVX-512 with byte comparisons. Its methods must be called where [`has_avx512`] is true.
    pub(crate) struct Avx512;
    /// AVX2. Its methods must be called where [`has_avx2`] is true.
    pub(crate) struct Avx2;

    pub(crate) fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && has_avx2()
    }

    pub(crate) fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("lzcnt")
    }

    impl Machine for Avx512 {
        #[inline(always)]
        fn class(block: &[u8; BLOCK]) -> Ascii {
            // SAFETY: `Splitter::scan` chooses this machine only where the processor has AVX-512 F and BW; the
            // load reads the 64 bytes of the array.
            unsafe {
                let bytes = _mm512_loadu_si512(block.as_ptr().cast());
                let is = |byte: u8| _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(byte as i8));
                let range = |first: u8, last: u8| {
                    let offset = _mm512_sub_epi8(bytes, _mm512_set1_epi8(first as i8));
                    _mm512_cmple_epu8_mask(offset, _mm512_set1_epi8((last - first) as i8))
                };
                Ascii {
                    upper: range(b'A', b'Z'),
                    lower: range(b'a', b'z'),
                    number: range(b'0', b'9'),
                    white: range(b'\t', b'\r') | is(b' '),
                    space: is(b' '),
                    newline: is(b'\r') | is(b'\n'),
                    apostrophe: is(b'\''),
                    slash: is(b'/'),
                    visible: range(b'!', b'~'),
                    high: _mm512_movepi8_mask(bytes),
                    continuation: range(0x80, 0xBF),
                }
            }
        }

        #[inline(always)]
        fn press(value: u64, mask: u64) -> u64 {
            Avx2::press(value, mask)
        }

        #[inline(always)]
        fn spread(value: u64, mask: u64) -> u64 {
            Avx2::spread(value, mask)
        }
    }

    /// The two halves of a block.
    type Halves = [__m256i; 2];

    #[inline]
    #[target_feature(enable = "avx2")]
    fn mask(halves: Halves) -> u64 {
        let [low, high] = halves.map(|half| u64::from(_mm256_movemask_epi8(half) as u32));
        low | high << 32
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn is([low, high]: Halves, byte: u8) -> u64 {
        let wanted = _mm256_set1_epi8(byte as i8);
        mask([_mm256_cmpeq_epi8(low, wanted), _mm256_cmpeq_epi8(high, wanted)])
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn range([low, high]: Halves, first: u8, last: u8) -> u64 {
        let (first, width) = (_mm256_set1_epi8(first as i8), _mm256_set1_epi8((last - first) as i8));
        let (low, high) = (_mm256_sub_epi8(low, first), _mm256_sub_epi8(high, first));
        let within_low = _mm256_cmpeq_epi8(_mm256_min_epu8(low, width), low);
        mask([within_low, _mm256_cmpeq_epi8(_mm256_min_epu8(high, width), high)])
    }

    impl Machine for Avx2 {
        #[inline(always)]
        fn class(block: &[u8; BLOCK]) -> Ascii {
            // SAFETY: `Splitter::scan` chooses this machine only where the processor has AVX2; the loads read the
            // two halves of the array.
            unsafe {
                let low = _mm256_loadu_si256(block.as_ptr().cast());
                let bytes = [low, _mm256_loadu_si256(block.as_ptr().add(BLOCK / 2).cast())];
                Ascii {
                    upper: range(bytes, b'A', b'Z'),
                    lower: range(bytes, b'a', b'z'),
                    number: range(bytes, b'0', b'9'),
                    white: range(bytes, b'\t', b'\r') | is(bytes, b' '),
                    space: is(bytes, b' '),
                    newline: is(bytes, b'\r') | is(bytes, b'\n'),
                    apostrophe: is(bytes, b'\''),
                    slash: is(bytes, b'/'),
                    visible: range(bytes, b'!', b'~'),
                    high: mask(bytes),
                    continuation: range(bytes, 0x80, 0xBF),
                }
            }
        }

        #[inline(always)]
        fn press(value: u64, mask: u64) -> u64 {
            // SAFETY: `Splitter::scan` chooses this machine only where the processor has BMI2.
            unsafe { _pext_u64(value, mask) }
        }

        #[inline(always)]
        fn spread(value: u64, mask: u64) -> u64 {
            // SAFETY: as above.
            unsafe { _pdep_u64(value, mask) }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_are_pressed_and_spread() {
        assert_eq!(Portable::press(0b1011_0010, 0b1101_0110), 0b10101);
        assert_eq!(Portable::spread(0b10101, 0b1101_0110), 0b1001_0010);
        assert_eq!((Portable::press(!0, !0), Portable::spread(!0, !0)), (!0, !0));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn all_machines_class_all_bytes_alike() {
        for first in 0..4u8 {
            let block: [u8; BLOCK] = std::array::from_fn(|n| first * 64 + n as u8);
            let expected = Portable::class(&block);
            assert!(!has_avx2() || Avx2::class(&block) == expected);
            assert!(!has_avx512() || Avx512::class(&block) == expected);
        }
    }

    proptest! {
        #[test]
        #[cfg(target_arch = "x86_64")]
        fn all_machines_give_the_same_masks(text in r"(?s:.{0,40}[ -~]{0,40}[а-яあ-ん一-龥]{0,30})", start in 0usize..80) {
            let classes = Classes::new();
            let start = (0..=start.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap();
            let text = text.as_bytes();
            let expected = read::<Portable>(&classes, text, start);
            prop_assert!(!has_avx2() || read::<Avx2>(&classes, text, start) == expected);
            prop_assert!(!has_avx512() || read::<Avx512>(&classes, text, start) == expected);
        }

        #[test]
        #[cfg(target_arch = "x86_64")]
        fn all_machines_press_alike(value: u64, mask: u64) {
            prop_assert_eq!(Portable::spread(Portable::press(value, mask), mask), value & mask);
            if has_avx2() {
                prop_assert_eq!(Avx2::press(value, mask), Portable::press(value, mask));
                prop_assert_eq!(Avx2::spread(value, mask), Portable::spread(value, mask));
            }
        }
    }
}
