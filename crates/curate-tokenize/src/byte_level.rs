//! Byte-level BPE: how bytes are spelt as characters.
//!
//! The vocabulary of a byte-level tokenizer is written in an alphabet of 256 visible characters, one a byte
//! (published with GPT-2).

/// The character that spells each byte.
///
/// Bytes that are visible in Latin-1 stand for themselves, the others for U+0100, U+0101, … in order.
const fn spellings() -> [char; 256] {
    let mut spelling = ['\0'; 256];
    let mut next = 0x100;
    let mut byte = 0;
    while byte < 256 {
        let code_point = match byte {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => byte as u32,
            _ => {
                next += 1;
                next - 1
            }
        };
        spelling[byte] = match char::from_u32(code_point) {
            Some(character) => character,
            None => panic!("code points below U+0200 are characters"),
        };
        byte += 1;
    }
    spelling
}

const SPELLING: [char; 256] = spellings();

/// The character that spells `byte`.
pub(crate) fn spell(byte: u8) -> char {
    SPELLING[usize::from(byte)]
}

/// The byte that `character` spells, if it is one of the 256.
pub(crate) fn unspell(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        // In order from U+0100: 0 to 0x20, 0x7F to 0xA0, 0xAD.
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    #[test]
    fn spelling_is_the_published_one() {
        let theirs = ByteLevel::alphabet();
        assert!((0..=255).all(|byte| theirs.contains(&spell(byte))), "the same 256 characters");
        for byte in 0..=255 {
            assert_eq!(unspell(spell(byte)), Some(byte));
            let text = char::from(byte).to_string();
            let mut pieces = PreTokenizedString::from(text.as_str());
            ByteLevel::new(false, false, false).pre_tokenize(&mut pieces).unwrap();
            let spelt: String = text.bytes().map(spell).collect();
            assert_eq!(pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte)[0].0, spelt);
        }
        assert_eq!((spell(b' '), spell(b'\n'), spell(b'a')), ('Ġ', 'Ċ', 'a'));
        for character in ['\0', ' ', '\u{7F}', '\u{AD}', '\u{144}', '中'] {
            assert_eq!(unspell(character), None);
        }
    }
}
