//! Words between the boundaries of Unicode's annex 29, as DCLM takes them.
//!
//! Between ASCII spaces nothing else is needed to find the boundaries, so a piece of ASCII goes through a small state
//! machine and any other piece through the crate that has the whole rules. DCLM keeps the words whose first character
//! is alphanumeric in Python's sense.

use unicode_segmentation::UnicodeSegmentation;

use crate::chars::is_python_alphanumeric;

mod class {
    pub(super) const LETTER: u8 = 1;
    pub(super) const DIGIT: u8 = 2;
    /// The low line, which joins both.
    pub(super) const JOINER: u8 = 4;
    /// Stays between letters: `.`, `'`, `:`.
    pub(super) const IN_LETTERS: u8 = 8;
    /// Stays between digits: `.`, `'`, `,`, `;`.
    pub(super) const IN_DIGITS: u8 = 16;
    pub(super) const WORD: u8 = LETTER | DIGIT | JOINER;
}

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        classes[byte] = match b {
            b'a'..=b'z' | b'A'..=b'Z' => class::LETTER,
            b'0'..=b'9' => class::DIGIT,
            b'_' => class::JOINER,
            b'.' | b'\'' => class::IN_LETTERS | class::IN_DIGITS,
            b':' => class::IN_LETTERS,
            b',' | b';' => class::IN_DIGITS,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Calls `each` with every word that begins with a letter or a digit, and its length in code points.
#[inline]
pub(crate) fn words<'t>(text: &'t str, mut each: impl FnMut(&'t [u8], usize)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] <= b' ' {
            at += 1;
            continue;
        }
        let start = at;
        let mut any = 0;
        while at < bytes.len() && bytes[at] > b' ' {
            any |= bytes[at];
            at += 1;
        }
        if any < 0x80 {
            ascii_words(&bytes[start..at], &mut each);
        } else {
            // A mark that stands first belongs to the space before it.
            other_words(&text[start.saturating_sub(1)..at], &mut each);
        }
    }
}

#[inline]
fn ascii_words<'t>(piece: &'t [u8], each: &mut impl FnMut(&'t [u8], usize)) {
    let class = |at: usize| piece.get(at).map_or(0, |byte| CLASSES[usize::from(*byte)]);
    let mut at = 0;
    while at < piece.len() {
        let start = at;
        let mut last = class(at);
        at += 1;
        if last & class::WORD == 0 {
            continue;
        }
        loop {
            let next = class(at);
            if next & class::WORD != 0 {
                last = next;
                at += 1;
                continue;
            }
            let joins = (next & class::IN_LETTERS != 0 && last & class(at + 1) & class::LETTER != 0)
                || (next & class::IN_DIGITS != 0 && last & class(at + 1) & class::DIGIT != 0);
            if !joins {
                break;
            }
            last = class(at + 1);
            at += 2;
        }
        if piece[start] != b'_' {
            each(&piece[start..at], at - start);
        }
    }
}

#[inline(never)]
fn other_words<'t>(piece: &'t str, each: &mut impl FnMut(&'t [u8], usize)) {
    for word in piece.split_word_bounds() {
        if word.starts_with(is_python_alphanumeric) {
            each(word.as_bytes(), word.chars().count());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        words(text, |word, characters| {
            let word = std::str::from_utf8(word).unwrap();
            assert_eq!(word.chars().count(), characters);
            found.push(word.to_owned());
        });
        found
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(found(text), expected, "{text:?}");
    }

    #[test]
    fn words_of_all_kinds() {
        check("a:b 3.14 can't e-mail", &["a:b", "3.14", "can't", "e", "mail"]);
        check("_x x_y x_ U.S.A. 1,000;2 3.x x.3", &["x_y", "x_", "U.S.A", "1,000;2", "3", "x", "x", "3"]);
        check("don’t l'été naïve.", &["don’t", "l'été", "naïve"]);
        check("中文 カタカナ_x", &["中", "文", "カタカナ_x"]);
        check("a \u{301}b c\u{301}d", &["a", "b", "c\u{301}d"]);
        check("", &[]);
        check("a\nb\r\nc\td", &["a", "b", "c", "d"]);
    }

    proptest! {
        #[test]
        fn pieces_split_as_the_whole_text(text in "[a1_.:',;\" \n\r\u{301}\u{200d}é’中カ\u{a0}\u{2003}א٣😀-]{0,24}") {
            let whole: Vec<&str> =
                text.split_word_bounds().filter(|word| word.starts_with(is_python_alphanumeric)).collect();
            prop_assert_eq!(found(&text), whole);
        }
    }
}
