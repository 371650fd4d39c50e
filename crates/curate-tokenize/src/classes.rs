//! What kind of character is it? The Unicode properties that the patterns ask for, one byte a code point.
//!
//! The tables are those of `regex-syntax`, as they are in the `tokenizers` crate: where a text is cut depends on
//! the version of Unicode, and so do the ids.

use regex_syntax::hir::{Class, HirKind};
use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, is_nfc_quick};

/// Version of Unicode that decides what is a letter, a number, a mark or white space.
///
/// Letters that were added later are no letters here, nor in the `tokenizers` crate, in tiktoken or fastokens;
/// `tokenizers` 1.0.0-rc.3 and gigatoken 0.10 have newer tables and cut differently around them.
pub const UNICODE_VERSION: &str = "16.0.0";

/// `\p{L}`
pub(crate) const LETTER: u8 = 1;
/// `\p{N}`
pub(crate) const NUMBER: u8 = 2;
/// `\s`
pub(crate) const WHITE: u8 = 4;
/// `[\p{Lu}\p{Lt}]`
pub(crate) const UPPER: u8 = 8;
/// `\p{Ll}`
pub(crate) const LOWER: u8 = 16;
/// `\p{M}`
pub(crate) const MARK: u8 = 32;
/// `[\p{P}\p{S}]`
pub(crate) const SYMBOL: u8 = 64;
/// Text without these is in NFC for sure; text with them may be. Only in tables made [`Classes::with_nfc`].
pub(crate) const UNSTABLE: u8 = 128;

const CODE_POINTS: usize = 0x11_0000;
/// Code points share a page of this many classes with others; most pages are equal to some other.
const PAGE: usize = 128;

/// Code point → classes, in some 60 KB.
#[derive(Debug, Clone)]
pub(crate) struct Classes {
    pages: Vec<u16>,
    classes: Vec<u8>,
}

impl Classes {
    pub(crate) fn new() -> Self {
        Self::compress(&flat())
    }

    /// Knows also which characters NFC may change.
    pub(crate) fn with_nfc() -> Self {
        let mut flat = flat();
        for (code_point, class) in (0u32..).zip(&mut flat) {
            let unstable = |c| {
                is_nfc_quick(std::iter::once(c)) != IsNormalized::Yes || canonical_combining_class(c) != 0
            };
            if char::from_u32(code_point).is_some_and(unstable) {
                *class |= UNSTABLE;
            }
        }
        Self::compress(&flat)
    }

    fn compress(flat: &[u8]) -> Self {
        let mut distinct: Vec<&[u8]> = flat.chunks(PAGE).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let number = |page: &[u8]| distinct.binary_search(&page).expect("every page is in the list") as u16;
        Self { pages: flat.chunks(PAGE).map(number).collect(), classes: distinct.concat() }
    }

    /// The classes of a code point; none above U+10FFFF.
    #[inline(always)]
    pub(crate) fn of(&self, code_point: u32) -> u8 {
        let page = self.pages.get(code_point as usize / PAGE).copied().unwrap_or_default();
        self.classes[usize::from(page) * PAGE + code_point as usize % PAGE]
    }
}

fn flat() -> Vec<u8> {
    let mut flat = vec![0; CODE_POINTS];
    let properties = [
        (r"\p{L}", LETTER),
        (r"\p{N}", NUMBER),
        (r"\s", WHITE),
        (r"[\p{Lu}\p{Lt}]", UPPER),
        (r"\p{Ll}", LOWER),
        (r"\p{M}", MARK),
        (r"[\p{P}\p{S}]", SYMBOL),
    ];
    for (pattern, class) in properties {
        let hir = regex_syntax::parse(pattern).expect("the patterns above are valid");
        let HirKind::Class(Class::Unicode(ranges)) = hir.kind() else { unreachable!("each is one class") };
        for range in ranges.iter() {
            flat[range.start() as usize..=range.end() as usize].iter_mut().for_each(|c| *c |= class);
        }
    }
    flat
}

/// The character at `at` of a text in UTF-8 and its length in bytes.
///
/// `at` must be where a character begins.
#[inline(always)]
pub(crate) fn decode(text: &[u8], at: usize) -> (u32, usize) {
    let lead = u32::from(text[at]);
    let tail = |n: usize| u32::from(text[at + n] & 0x3F);
    match lead {
        0..0x80 => (lead, 1),
        0x80..0xE0 => ((lead & 0x1F) << 6 | tail(1), 2),
        0xE0..0xF0 => ((lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3),
        _ => ((lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_the_classes_of_their_properties() {
        let classes = Classes::with_nfc();
        let check = |c: char, expected: u8| assert_eq!(classes.of(u32::from(c)), expected, "{c:?}");
        check('a', LETTER | LOWER);
        check('A', LETTER | UPPER);
        check('ǅ', LETTER | UPPER);
        check('中', LETTER);
        check('½', NUMBER);
        check('\u{301}', MARK | UNSTABLE);
        check('\u{85}', WHITE);
        check('\u{2003}', WHITE);
        check('\u{2000}', WHITE | UNSTABLE);
        check('!', SYMBOL);
        check('\0', 0);
        check('\u{10FFFF}', 0);
    }

    #[test]
    fn the_tables_are_of_the_version_named() {
        // U+1C89 came with Unicode 16, U+0C5C with 17.
        let classes = Classes::new();
        assert_eq!((classes.of(0x1C89) & LETTER, classes.of(0x0C5C)), (LETTER, 0));
        assert_eq!(UNICODE_VERSION, "16.0.0");
    }

    #[test]
    fn every_character_is_decoded() {
        for code_point in 0..CODE_POINTS as u32 {
            let Some(c) = char::from_u32(code_point) else { continue };
            let text = format!("x{c}");
            assert_eq!(decode(text.as_bytes(), 1), (code_point, c.len_utf8()));
        }
    }
}
