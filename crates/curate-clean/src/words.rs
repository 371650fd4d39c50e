//! What a word is, and what kinds of characters are in one.
//!
//! Filters that share their thresholds disagree on every twentieth document because they split words differently, so
//! a recipe names its splitter. Lines are read off the white space whatever it is.

mod spacy;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::chars::{is_latin, is_letter, is_line_break, is_punctuation, is_python_space, is_unspaced};
use crate::dialects::uax29;

/// How a text is split into words.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Words {
    /// Maximal runs of characters that are not white space, as Python's `str.split()` returns them: white space is
    /// Unicode's (with the no-break space) and U+001C to U+001F.
    #[default]
    Whitespace,
    /// The words between the boundaries of Unicode's annex 29 that begin with a letter or a digit.
    Uax29,
    /// The tokens of spaCy's blank English pipeline.
    #[serde(rename = "spacy-en")]
    SpacyEn,
}

impl Words {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Whitespace, Self::Uax29, Self::SpacyEn];

    /// The name used in recipes and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whitespace => "whitespace",
            Self::Uax29 => "uax29",
            Self::SpacyEn => "spacy-en",
        }
    }

    /// The words of `text`, in order.
    pub fn split(self, text: &str) -> impl Iterator<Item = &str> {
        let (whitespace, other) = match self {
            Self::Whitespace => (text, Vec::new()),
            Self::Uax29 => ("", uax29_words(text)),
            Self::SpacyEn => {
                let mut words = Vec::new();
                spacy::words(text, |word| words.push(word));
                ("", words)
            }
        };
        whitespace.split(is_python_space).filter(|word| !word.is_empty()).chain(other)
    }
}

fn uax29_words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    uax29::words(text, |word, _| {
        words.push(std::str::from_utf8(word).expect("words end between characters"));
    });
    words
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Words {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|words| words.name() == name).ok_or(())
    }
}

/// Bits that say what a character is; `any` and `all` of a token's are what its statistics are made of.
pub(crate) mod class {
    pub(crate) const SPACE: u16 = 1;
    pub(crate) const LINE_BREAK: u16 = 1 << 1;
    /// Not in datatrove's set of punctuation.
    pub(crate) const CONTENT: u16 = 1 << 2;
    pub(crate) const LETTER: u16 = 1 << 3;
    pub(crate) const ALPHANUMERIC: u16 = 1 << 4;
    pub(crate) const LATIN_LETTER: u16 = 1 << 5;
    /// Of a script without spaces between words.
    pub(crate) const UNSPACED: u16 = 1 << 6;
    pub(crate) const BEYOND_ASCII: u16 = 1 << 7;
    pub(crate) const FULL_STOP: u16 = 1 << 8;
}

/// The classes of all characters, in 128 KiB.
#[derive(Debug)]
pub(crate) struct Classes {
    /// By byte; those that begin a longer character have `BEYOND_ASCII` and nothing else.
    bytes: [u16; 256],
    /// By code point of the basic multilingual plane.
    plane: Box<[u16]>,
}

impl Classes {
    pub(crate) fn new() -> Self {
        let mut bytes = [class::BEYOND_ASCII; 256];
        for (class, c) in bytes.iter_mut().zip('\0'..='\u{7f}') {
            *class = class_of(c);
        }
        let plane = (0..=0xffff).map(|code| char::from_u32(code).map_or(0, class_of)).collect();
        Self { bytes, plane }
    }

    pub(crate) fn of(&self, c: char) -> u16 {
        match self.plane.get(c as usize) {
            Some(class) => *class,
            None => class_of(c),
        }
    }

    /// Calls `each` with every word of `text`. Line ends before a word are only known of whitespace words.
    #[inline]
    pub(crate) fn each_word<'t>(&self, words: Words, text: &'t str, mut each: impl FnMut(Token<'t>)) {
        match words {
            Words::Whitespace => self.tokens(text).for_each(each),
            Words::Uax29 => uax29_words(text).into_iter().for_each(|word| each(self.token(word))),
            Words::SpacyEn => spacy::words(text, |word| each(self.token(word))),
        }
    }

    fn token<'t>(&self, text: &'t str) -> Token<'t> {
        let (mut characters, mut any, mut all) = (0, 0, u16::MAX);
        for c in text.chars() {
            let class = self.of(c);
            any |= class;
            all &= class;
            characters += 1;
        }
        Token { text, characters, any, all, line_breaks_before: 0 }
    }

    /// The whitespace words of `text`.
    pub(crate) fn tokens<'t>(&self, text: &'t str) -> Tokens<'t, '_> {
        Tokens { classes: self, text, at: 0, beyond_ascii: BeyondAscii::default(), trailing_line_breaks: 0 }
    }
}

fn class_of(c: char) -> u16 {
    let letter = is_letter(c);
    [
        (is_python_space(c), class::SPACE),
        (is_line_break(c), class::LINE_BREAK),
        (!is_punctuation(c), class::CONTENT),
        (letter, class::LETTER),
        (c.is_alphanumeric(), class::ALPHANUMERIC),
        (letter && is_latin(c), class::LATIN_LETTER),
        (is_unspaced(c), class::UNSPACED),
        (!c.is_ascii(), class::BEYOND_ASCII),
        (c == '.', class::FULL_STOP),
    ]
    .into_iter()
    .map(|(holds, class)| if holds { class } else { 0 })
    .sum()
}

/// A word, with what one look at its characters tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Token<'t> {
    pub(crate) text: &'t str,
    /// Code points.
    pub(crate) characters: usize,
    /// Classes that some character has.
    pub(crate) any: u16,
    /// Classes that every character has.
    pub(crate) all: u16,
    /// Line ends between this word and the one before it.
    pub(crate) line_breaks_before: usize,
}

/// Counts of characters outside ASCII, which only the splitter looks at one by one.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct BeyondAscii {
    pub(crate) letters: usize,
    pub(crate) latin_letters: usize,
    pub(crate) unspaced_letters: usize,
    /// U+2026.
    pub(crate) ellipses: usize,
}

/// The whitespace words of a text. What remains to be known at the end is in its fields.
#[derive(Debug)]
pub(crate) struct Tokens<'t, 'c> {
    classes: &'c Classes,
    text: &'t str,
    at: usize,
    /// Counts up to where the iterator is.
    pub(crate) beyond_ascii: BeyondAscii,
    /// Line ends behind the last word, once the iterator has returned `None`.
    pub(crate) trailing_line_breaks: usize,
}

impl<'t> Iterator for Tokens<'t, '_> {
    type Item = Token<'t>;

    fn next(&mut self) -> Option<Token<'t>> {
        let line_breaks_before = self.skip_spaces();
        if self.at == self.text.len() {
            self.trailing_line_breaks = line_breaks_before;
            return None;
        }
        let start = self.at;
        let bytes = self.text.as_bytes();
        let (mut at, mut any, mut all, mut continuation_bytes) = (start, 0, u16::MAX, 0);
        while let Some(byte) = bytes.get(at) {
            let mut class = self.classes.bytes[usize::from(*byte)];
            let mut len = 1;
            if class & (class::SPACE | class::BEYOND_ASCII) != 0 {
                if class & class::SPACE != 0 {
                    break;
                }
                (class, len) = self.character(at);
                if class & class::SPACE != 0 {
                    break;
                }
                continuation_bytes += len - 1;
            }
            any |= class;
            all &= class;
            at += len;
        }
        self.at = at;
        let text = &self.text[start..self.at];
        Some(Token { text, characters: text.len() - continuation_bytes, any, all, line_breaks_before })
    }
}

impl Tokens<'_, '_> {
    /// Moves to the next word or the end; returns the number of line ends passed. CR LF is one.
    fn skip_spaces(&mut self) -> usize {
        let bytes = self.text.as_bytes();
        let (mut at, mut line_breaks) = (self.at, 0);
        while let Some(byte) = bytes.get(at) {
            let mut class = self.classes.bytes[usize::from(*byte)];
            let mut len = 1;
            if class & class::BEYOND_ASCII != 0 {
                let c = char_at(self.text, at);
                (class, len) = (self.classes.of(c), c.len_utf8());
            }
            if class & class::SPACE == 0 {
                break;
            }
            let ends_cr_lf = *byte == b'\n' && at > 0 && bytes[at - 1] == b'\r';
            line_breaks += usize::from(class & class::LINE_BREAK != 0 && !ends_cr_lf);
            at += len;
        }
        self.at = at;
        line_breaks
    }

    /// Class and length of the character at byte `at`, which is not ASCII; counts it.
    fn character(&mut self, at: usize) -> (u16, usize) {
        let c = char_at(self.text, at);
        let class = self.classes.of(c);
        let counts = &mut self.beyond_ascii;
        let is_letter = class & class::LETTER != 0;
        counts.letters += usize::from(is_letter);
        counts.latin_letters += usize::from(class & class::LATIN_LETTER != 0);
        counts.unspaced_letters += usize::from(is_letter && class & class::UNSPACED != 0);
        counts.ellipses += usize::from(c == '…');
        (class, c.len_utf8())
    }
}

fn char_at(text: &str, at: usize) -> char {
    text[at..].chars().next().expect("the caller has just seen a byte there")
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static CLASSES: LazyLock<Classes> = LazyLock::new(Classes::new);

    fn check(text: &str, expected: &[&str]) {
        let words: Vec<&str> = Words::Whitespace.split(text).collect();
        assert_eq!(words, expected, "{text:?}");
    }

    #[test]
    fn splits_as_python_does() {
        check("", &[]);
        check(" \n ", &[]);
        check("one", &["one"]);
        check("  a b\tc\nd ", &["a", "b", "c", "d"]);
        check(
            "no\u{a0}break\u{1c}file\u{1d}group\u{1e}record\u{1f}unit",
            &["no", "break", "file", "group", "record", "unit"],
        );
        check("a\u{85}b\u{2028}c\u{3000}d\u{2009}e\u{c}f", &["a", "b", "c", "d", "e", "f"]);
        check("zero\u{200b}width, \u{feff}mark", &["zero\u{200b}width,", "\u{feff}mark"]);
        check("汉字 ไทย", &["汉字", "ไทย"]);
    }

    #[test]
    fn names_round_trip() {
        for words in Words::ALL {
            assert_eq!(words.name().parse(), Ok(words));
        }
        assert_eq!("spacy".parse::<Words>(), Err(()));
    }

    #[test]
    fn tokens_know_their_lines() {
        let classes = &*CLASSES;
        let breaks = |text: &str| -> (Vec<usize>, usize) {
            let mut tokens = classes.tokens(text);
            let before = tokens.by_ref().map(|t| t.line_breaks_before).collect();
            (before, tokens.trailing_line_breaks)
        };
        assert_eq!(breaks(""), (vec![], 0));
        assert_eq!(breaks("\n\r\n\r"), (vec![], 3));
        assert_eq!(breaks("a b\nc\r\n\r\nd \u{2028}"), (vec![0, 0, 1, 2], 1));
        assert_eq!(breaks("\u{85}a\u{1f}b\u{1e}c\n\r"), (vec![1, 0, 1], 2));
    }

    #[test]
    fn tokens_know_their_characters() {
        let classes = &*CLASSES;
        let mut tokens = classes.tokens("né… 汉字1");
        let first = tokens.next().unwrap();
        assert_eq!((first.text, first.characters), ("né…", 3));
        assert_eq!(
            first.any & (class::LETTER | class::UNSPACED | class::BEYOND_ASCII),
            class::LETTER | class::BEYOND_ASCII
        );
        assert_eq!(first.all & class::CONTENT, 0);
        let second = tokens.next().unwrap();
        assert_eq!((second.characters, second.all & class::ALPHANUMERIC), (3, class::ALPHANUMERIC));
        assert_eq!(second.any & class::UNSPACED, class::UNSPACED);
        assert_eq!(second.all & class::UNSPACED, 0);
        assert_eq!(tokens.next(), None);
        let expected = BeyondAscii { letters: 3, latin_letters: 1, unspaced_letters: 2, ellipses: 1 };
        assert_eq!(tokens.beyond_ascii, expected);
    }

    proptest! {
        #[test]
        fn tokens_are_the_words(text in "[a-z.é汉😀 \u{a0}\u{85}\u{1c}\n\r\u{3000}]{0,40}") {
            let classes = &*CLASSES;
            let tokens: Vec<&str> = classes.tokens(&text).map(|t| t.text).collect();
            prop_assert_eq!(tokens, Words::Whitespace.split(&text).collect::<Vec<_>>());
            for token in classes.tokens(&text) {
                prop_assert_eq!(token.characters, token.text.chars().count());
                prop_assert_eq!(token.any, token.text.chars().map(class_of).fold(0, |a, b| a | b));
                prop_assert_eq!(token.all, token.text.chars().map(class_of).fold(u16::MAX, |a, b| a & b));
            }
        }
    }
}
