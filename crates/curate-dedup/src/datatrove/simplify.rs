//! datatrove's `simplify_text`, and its words.
//!
//! Nearly every character stands for itself, a few bytes or a space, wherever it is: one table gives the bytes of each
//! character of the Basic Multilingual Plane after lower-casing, punctuation and decomposition. Numbers are found
//! on the way. What depends on neighbours (the lower case of a capital sigma; marks that are not of category Mn
//! but that normalisation reorders) sends the whole text through [`plain`], which takes the steps one by one.

use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

use super::tables::{DECIMAL_DIGITS, NONSPACING_MARKS};

/// A text as words that single spaces separate.
#[derive(Debug, Default)]
pub(crate) struct Simplified {
    /// Longer than what is used of it.
    bytes: Vec<u8>,
    used: usize,
    /// Where each word starts, and one place behind the space that would follow the last.
    starts: Vec<usize>,
}

/// A character gives at most this many bytes for each of its own: a Hangul syllable its three letters.
const GROWTH: usize = 3;

impl Simplified {
    /// Replaces the content by the words of `text`.
    pub(crate) fn read(&mut self, text: &str) {
        if !self.read_characters(text) {
            self.read_words(plain(text).split_whitespace());
        }
        self.starts.push(self.used + 1);
    }

    /// The words from each word on, `ngram` of them, joined by single spaces.
    pub(crate) fn windows(&self, ngram: usize) -> impl Iterator<Item = &[u8]> {
        self.starts.windows(ngram + 1).map(move |window| &self.bytes[window[0]..window[ngram] - 1])
    }

    fn read_words<'t>(&mut self, words: impl Iterator<Item = &'t str>) {
        self.bytes.clear();
        self.starts.clear();
        for word in words {
            self.starts.push(self.bytes.len());
            self.bytes.extend_from_slice(word.as_bytes());
            self.bytes.push(b' ');
        }
        self.used = self.bytes.len().saturating_sub(1);
    }

    /// False, with nothing to rely on, if a character depends on its neighbours.
    fn read_characters(&mut self, text: &str) -> bool {
        let Self { bytes, used, starts } = self;
        let needed = GROWTH * text.len() + 8;
        if bytes.len() < needed {
            bytes.resize(needed, 0);
        }
        // A word and what separates it from the next are at least two bytes.
        if starts.len() < text.len() / 2 + 2 {
            starts.resize(text.len() / 2 + 2, 0);
        }
        let text = text.as_bytes();
        let (mut at, mut to, mut words) = (0, 0, 0);
        // Whether the last byte written ended a word, or nothing was written yet.
        let mut between = true;
        while at < text.len() {
            let plain = ASCII[usize::from(text[at])];
            if plain < SPECIAL {
                // No branch on where words end, which nobody can predict.
                let space = plain == SPACE;
                bytes[to] = plain;
                starts[words] = to;
                words += usize::from(between & !space);
                to += usize::from(!(between & space));
                between = space;
                at += 1;
                continue;
            }
            let number = number_len(&text[at..]);
            let written;
            if number > 0 {
                bytes[to] = b'0';
                written = 1;
                at += number;
            } else {
                let (c, len) = decode(&text[at..]);
                at += len;
                match Image::of(c) {
                    Image::Bytes(image) => {
                        bytes[to..to + image.len()].copy_from_slice(image);
                        written = image.len();
                    }
                    Image::Rare(c) => {
                        let mut end = to;
                        for c in rare_image(c) {
                            end += c.encode_utf8(&mut bytes[end..]).len();
                        }
                        written = end - to;
                    }
                    Image::Space => {
                        bytes[to] = b' ';
                        to += usize::from(!between);
                        between = true;
                        continue;
                    }
                    Image::Neighbours => return false,
                }
            }
            if between && written > 0 {
                starts[words] = to;
                words += 1;
                between = false;
            }
            to += written;
        }
        // A space at the end separates nothing.
        *used = to - usize::from(between && to > 0);
        starts.truncate(words);
        true
    }
}

/// In [`ASCII`]: becomes a space.
const SPACE: u8 = b' ';
/// In [`ASCII`]: digits, and bytes of longer characters.
const SPECIAL: u8 = 0x80;

/// What becomes of each byte that stands alone.
const ASCII: [u8; 256] = {
    let mut table = [SPECIAL; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        table[byte as usize] = match byte {
            b'0'..=b'9' => SPECIAL,
            _ if is_ascii_separator(byte) => SPACE,
            _ => byte.to_ascii_lowercase(),
        };
        byte += 1;
    }
    table
};

const fn is_ascii_separator(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7F || is_punctuation(byte as char)
}

/// datatrove's punctuation, without the controls.
const fn is_punctuation(c: char) -> bool {
    matches!(
        c,
        '!' | '/'
            | '—'
            | '”'
            | ':'
            | '％'
            | '１'
            | '〈'
            | '&'
            | '('
            | '、'
            | '━'
            | '\\'
            | '【'
            | '#'
            | '%'
            | '「'
            | '」'
            | '，'
            | '】'
            | '；'
            | '+'
            | '^'
            | ']'
            | '~'
            | '“'
            | '《'
            | '„'
            | '\''
            | ';'
            | '’'
            | '{'
            | '|'
            | '∶'
            | '´'
            | '['
            | '='
            | '-'
            | '`'
            | '*'
            | '．'
            | '（'
            | '–'
            | '？'
            | '！'
            | '：'
            | '$'
            | '～'
            | '«'
            | '〉'
            | ','
            | '>'
            | '<'
            | '@'
            | '》'
            | ')'
            | '?'
            | '）'
            | '。'
            | '…'
            | '_'
            | '.'
            | '"'
            | '}'
            | '►'
            | '»'
    )
}

/// Spaces and controls to Python, and punctuation: what separates words.
fn separates(c: char) -> bool {
    is_punctuation(c) || c.is_whitespace() || c.is_control()
}

/// What becomes of a character.
enum Image {
    Bytes(&'static [u8]),
    Space,
    /// Beyond the table.
    Rare(char),
    Neighbours,
}

impl Image {
    #[inline]
    fn of(c: char) -> Self {
        let Some(&(start, kind)) = IMAGES.places.get(c as usize) else {
            return match depends_on_neighbours(c) {
                true => Self::Neighbours,
                false => Self::Rare(c),
            };
        };
        match kind {
            IMAGE_SPACE => Self::Space,
            IMAGE_NEIGHBOURS => Self::Neighbours,
            len => Self::Bytes(&IMAGES.bytes[start as usize..start as usize + usize::from(len)]),
        }
    }
}

/// The images of the Basic Multilingual Plane: some 700 KB, made when first used.
struct Images {
    bytes: Vec<u8>,
    /// Where in `bytes` a character's image starts; its length, or one of the two kinds below.
    places: Box<[(u32, u8)]>,
}

const IMAGE_SPACE: u8 = 255;
const IMAGE_NEIGHBOURS: u8 = 254;

static IMAGES: LazyLock<Images> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    let place = |code| {
        let start = bytes.len() as u32;
        // No text contains a surrogate.
        let Some(c) = char::from_u32(code) else { return (start, 0) };
        if depends_on_neighbours(c) {
            return (start, IMAGE_NEIGHBOURS);
        }
        if separates(c) {
            return (start, IMAGE_SPACE);
        }
        for c in rare_image(c) {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        (start, (bytes.len() - start as usize) as u8)
    };
    let places = (0..0x1_0000).map(place).collect();
    Images { bytes, places }
});

/// Lower case, decomposed, without marks of category Mn. Of characters that do not separate words.
fn rare_image(c: char) -> impl Iterator<Item = char> {
    c.to_lowercase().nfd().filter(|&c| !is_in(&NONSPACING_MARKS, c))
}

/// True of the capital sigma, and of what has a mark that stays and may change places with another.
fn depends_on_neighbours(c: char) -> bool {
    let moves = |c| canonical_combining_class(c) != 0 && !is_in(&NONSPACING_MARKS, c);
    c == 'Σ' || c.to_lowercase().nfd().any(moves)
}

fn is_in(ranges: &[(u32, u32)], c: char) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= c as u32);
    after > 0 && c as u32 <= ranges[after - 1].1
}

/// Bytes of the number that starts here, or 0.
fn number_len(text: &[u8]) -> usize {
    let whole = digits_len(text);
    if whole == 0 {
        return 0;
    }
    let separator = separator_len(&text[whole..]);
    let decimals = if separator > 0 { digits_len(&text[whole + separator..]) } else { 0 };
    if decimals > 0 { whole + separator + decimals } else { whole }
}

/// Bytes of the decimal digits, in any script, that stand here.
fn digits_len(text: &[u8]) -> usize {
    let mut len = 0;
    while let Some(&byte) = text.get(len) {
        if byte.is_ascii_digit() {
            len += 1;
            continue;
        }
        // The first digits beyond ASCII are the Arabic-Indic ones, from D9 A0 on.
        if byte < 0xD9 {
            break;
        }
        let (c, more) = decode(&text[len..]);
        if !is_in(&DECIMAL_DIGITS, c) {
            break;
        }
        len += more;
    }
    len
}

/// Bytes of the decimal separator that stands here, or 0.
fn separator_len(text: &[u8]) -> usize {
    match text {
        [b'.' | b',', ..] => 1,
        // U+060C, U+066B; U+2396 to U+2398.
        [0xD8, 0x8C, ..] | [0xD9, 0xAB, ..] => 2,
        [0xE2, 0x8E, 0x96..=0x98, ..] => 3,
        _ => 0,
    }
}

/// The character at the start of UTF-8 that is known to be valid, and its bytes.
#[inline]
fn decode(text: &[u8]) -> (char, usize) {
    let bits = |i: usize| u32::from(text[i] & 0x3F);
    let first = u32::from(text[0]);
    let (code, len) = match text[0] {
        0..0x80 => (first, 1),
        0x80..0xE0 => ((first & 0x1F) << 6 | bits(1), 2),
        0xE0..0xF0 => ((first & 0x0F) << 12 | bits(1) << 6 | bits(2), 3),
        _ => ((first & 0x07) << 18 | bits(1) << 12 | bits(2) << 6 | bits(3), 4),
    };
    (char::from_u32(code).expect("the text is a str and this is the start of a character"), len)
}

/// The steps of `simplify_text` in their order, but for the white space, which the caller splits on.
fn plain(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut numbered = String::with_capacity(lower.len());
    let mut rest = lower.as_str();
    while let Some(c) = rest.chars().next() {
        let number = number_len(rest.as_bytes());
        numbered.push(if number > 0 { '0' } else { c });
        rest = &rest[if number > 0 { number } else { c.len_utf8() }..];
    }
    let spaced = numbered.chars().map(|c| if separates(c) { ' ' } else { c });
    spaced.nfd().filter(|&c| !is_in(&NONSPACING_MARKS, c)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn simplified(text: &str) -> String {
        let mut simplified = Simplified { bytes: vec![b'?'; 40], used: 7, starts: vec![1, 2] };
        simplified.read(text);
        let words: Vec<&[u8]> = simplified.windows(1).collect();
        let joined = String::from_utf8(words.join(&b' ')).unwrap();
        assert_eq!(joined.as_bytes(), &simplified.bytes[..simplified.used], "{text:?}");
        joined
    }

    #[test]
    fn texts_as_datatrove_writes_them() {
        for (text, expected) in [
            ("", ""),
            (" \n", ""),
            ("Hello, World!", "hello world"),
            ("  don't  ", "don t"),
            ("1,234,567.89", "0 0"),
            ("v1.2.3 x10", "v0 0 x0"),
            ("3. 4 .5", "0 0 0"),
            ("Café naïve", "cafe naive"),
            ("٣٫١٤ ४२", "0 0"),
            ("5،x ،", "0،x ،"),
            ("ΟΔΟΣ ΣΑΣ", "οδος σας"),
            ("İstanbul", "istanbul"),
            ("한글", "한글"),
            ("a\u{300}\u{301} \u{300} b", "a b"),
            ("1\u{300}2", "00"),
            ("«x»\u{a0}…\u{3000}y—z\u{7f}\u{9f}w", "x y z w"),
            ("１２ ２３", "0 0"),
            ("😀 \u{1D15E}", "😀 \u{1D157}\u{1D165}"),
            ("\u{1FEF}", "`"),
        ] {
            let expected: String = expected.nfd().collect();
            assert_eq!(simplified(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_character_alone_and_between_words() {
        for c in '\0'..=char::MAX {
            for text in [c.to_string(), format!("a{c}b")] {
                let expected: Vec<String> = plain(&text).split_whitespace().map(str::to_owned).collect();
                assert_eq!(simplified(&text), expected.join(" "), "{text:?}");
            }
            let grown: usize = rare_image(c).map(char::len_utf8).sum();
            assert!(grown <= GROWTH * c.len_utf8(), "{c:?}");
        }
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_the_steps(
            text in "([a-cX-Z0-3.,' \n\u{C0}-\u{17F}\u{300}-\u{304}\u{3A3}\u{3C3}\u{660}-\u{66B}\u{60C}]|\\PC|[\u{AC00}\u{302E}\u{302F}\u{1D15E}\u{A0}—]){0,60}"
        ) {
            let plain = plain(&text);
            let expected: Vec<&str> = plain.split_whitespace().collect();
            prop_assert_eq!(simplified(&text), expected.join(" "));
        }
    }
}
