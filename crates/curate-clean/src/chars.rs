//! Sets of characters, written as ranges and turned into tables by the compiler.
//!
//! Each set is a string of hexadecimal code points and inclusive ranges, in ascending order: `"41-5A AA"`.

use unicode_normalization::char::is_combining_mark;

/// An inclusive range of code points.
type Range = (u32, u32);

macro_rules! ranges {
    ($name:ident, $what:literal, $text:expr) => {
        #[doc = $what]
        static $name: [Range; count_ranges($text)] = parse_ranges($text);
    };
}

ranges!(
    PUNCTUATION,
    "The 281 characters that datatrove 0.10.1 counts as punctuation (`utils/text.py`, `PUNCTUATION_SET`).

    The graphic characters of ASCII that are no letter or digit; the controls but TAB and LF; marks that end a
    sentence in any script; and the marks of the old CCNet table, where a full-width `１` slipped in for a quotation
    mark. Kept as it is: a recipe that pins an implementation pins its slips too.",
    "0-8 B-1F 21-2F 3A-40 5B-60 7B-9F AB B4 BB 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 \
     1367-1368 166E 1735-1736 17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E \
     1C3B-1C3C 1C7E-1C7F 2013-2014 2019 201C-201E 2026 203C-203D 2047-2049 2236 2501 25BA 2E2E 2E3C 2E53-2E54 \
     3001-3002 3008-300D 3010-3011 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 \
     ABEB FE52 FE56-FE57 FF01 FF05 FF08-FF09 FF0C FF0E FF11 FF1A-FF1B FF1F FF5E FF61 10A56-10A57 10F55-10F59 \
     10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 \
     1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 \
     11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F 1DA88"
);

ranges!(
    TERMINAL,
    "The 159 characters that end a sentence for datatrove 0.10.1 (`utils/text.py`, `TERMINAL_PUNCTUATION`).",
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 \
     17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F \
     203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 \
     AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 \
     110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 \
     115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 \
     16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F 1DA88"
);

ranges!(
    SENTENCE_MARKS,
    "The 128 characters that end a sentence for spaCy 3.8 (`Sentencizer.default_punct_chars`).",
    "21 2E 3F 589 61F 6D4 700-702 7F9 964-965 104A-104B 1362 1367-1368 166E 1735-1736 1803 1809 1944-1945 \
     1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 2E2E 2E3C 3002 A4FF A60E-A60F A6F3 \
     A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F FF61 \
     10A56-10A57 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 \
     1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11A42-11A43 11A9B-11A9C 11C41-11C42 16A6E-16A6F \
     16AF5 16B37-16B38 16B44 1BC9F 1DA88"
);

ranges!(
    UNSPACED,
    "Scripts written without spaces between words: Han, Kana, Thai, Lao, Khmer, Myanmar.",
    "E01-E3A E40-E5B E80-EFF 1000-109F 1780-17FF 19E0-19FF 2E80-2FDF 3005-3007 3021-3029 3038-303B 3041-3096 309D-309F \
     30A1-30FA 30FC-30FF 31F0-31FF 3400-4DBF 4E00-9FFF A9E0-A9FE AA60-AA7F F900-FAFF FF66-FF9D 1AFF0-1AFFE 1B000-1B16F \
     20000-3FFFF"
);

ranges!(
    LATIN,
    "Blocks of the Latin script; what is no letter in them does not matter, as only letters are asked about.",
    "41-5A 61-7A AA BA C0-D6 D8-F6 F8-2AF 1E00-1EFF 2C60-2C7F A722-A787 A78B-A7FF AB30-AB5A AB5C-AB64 FB00-FB06 \
     FF21-FF3A FF41-FF5A"
);

ranges!(
    LETTER_LIKE,
    "Alphabetic characters that are no letters: letter numbers (category Nl) and circled, squared letters (So).",
    "16EE-16F0 2160-2182 2185-2188 24B6-24E9 3007 3021-3029 3038-303A A6E6-A6EF 10140-10174 10341 1034A 103D1-103D5 \
     12400-1246E 1F130-1F149 1F150-1F169 1F170-1F189"
);

ranges!(
    RIGHT_TO_LEFT,
    "Blocks of the scripts that run from right to left, without the Arabic letter mark, which is a control.",
    "590-61B 61D-8FF FB1D-FDFF FE70-FEFE 10800-10FFF 1E800-1EFFF"
);

ranges!(
    JOINING,
    "Where joiners and zero-width spaces have work to do: the cursive and conjunct-forming scripts, and emoji.",
    "A9 AE 600-61B 61D-8FF 900-109F 1780-18AF 1900-1AAF 1B00-1BFF 1CD0-1CFF 203C 2049 2122 2139 2190-21FF 2300-23FF \
     24C2 25A0-27BF 2900-297F 2B00-2BFF 3030 303D 3297 3299 A800-A82F A840-A87F A8E0-A8FF A930-A95F A980-AADF \
     AAE0-AAFF ABC0-ABFF FB50-FDFF FE0F FE70-FEFE 10A00-10A5F 10D00-10D3F 11000-11FFF 1E900-1E95F 1F000-1FAFF \
     E0020-E007F"
);

ranges!(
    DECIMALS,
    "Decimal digits of all scripts (general category Nd, Unicode 14).",
    "30-39 660-669 6F0-6F9 7C0-7C9 966-96F 9E6-9EF A66-A6F AE6-AEF B66-B6F BE6-BEF C66-C6F CE6-CEF D66-D6F DE6-DEF \
     E50-E59 ED0-ED9 F20-F29 1040-1049 1090-1099 17E0-17E9 1810-1819 1946-194F 19D0-19D9 1A80-1A89 1A90-1A99 1B50-1B59 \
     1BB0-1BB9 1C40-1C49 1C50-1C59 A620-A629 A8D0-A8D9 A900-A909 A9D0-A9D9 A9F0-A9F9 AA50-AA59 ABF0-ABF9 FF10-FF19 \
     104A0-104A9 10D30-10D39 11066-1106F 110F0-110F9 11136-1113F 111D0-111D9 112F0-112F9 11450-11459 114D0-114D9 \
     11650-11659 116C0-116C9 11730-11739 118E0-118E9 11950-11959 11C50-11C59 11D50-11D59 11DA0-11DA9 16A60-16A69 \
     16AC0-16AC9 16B50-16B59 1D7CE-1D7FF 1E140-1E149 1E2F0-1E2F9 1E950-1E959 1FBF0-1FBF9"
);

ranges!(
    OTHER_DIGITS,
    "Digits that are no decimals: superscripts, circled ones and the like (numeric type Digit, Unicode 14).",
    "B2-B3 B9 1369-1371 19DA 2070 2074-2079 2080-2089 2460-2468 2474-247C 2488-2490 24EA 24F5-24FD 24FF 2776-277E \
     2780-2788 278A-2792 10A40-10A43 10E60-10E68 11052-1105A 1F100-1F10A"
);

/// In datatrove's set of punctuation.
pub(crate) fn is_punctuation(c: char) -> bool {
    in_ranges(c, &PUNCTUATION)
}

/// Ends a line for FineWeb's quality filter.
pub(crate) fn is_terminal(c: char) -> bool {
    in_ranges(c, &TERMINAL)
}

/// Ends a sentence for spaCy's sentencizer.
pub(crate) fn is_sentence_mark(c: char) -> bool {
    if c.is_ascii() { matches!(c, '.' | '!' | '?') } else { in_ranges(c, &SENTENCE_MARKS) }
}

/// Of a script that puts no spaces between words.
pub(crate) fn is_unspaced(c: char) -> bool {
    in_ranges(c, &UNSPACED)
}

/// A letter of the Latin script, given that it is a letter.
pub(crate) fn is_latin(c: char) -> bool {
    in_ranges(c, &LATIN)
}

/// Of a script that runs from right to left.
pub(crate) fn is_right_to_left(c: char) -> bool {
    in_ranges(c, &RIGHT_TO_LEFT)
}

/// May be followed by a joiner or a zero-width space that means something.
pub(crate) fn is_joining(c: char) -> bool {
    in_ranges(c, &JOINING)
}

/// What Python's `str.isalpha` calls a letter: general categories Lu, Ll, Lt, Lm, Lo.
///
/// The standard library's alphabetic characters are these, letter numbers, vowel signs and circled letters.
pub(crate) fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic()
        || (!c.is_ascii() && c.is_alphabetic() && !is_combining_mark(c) && !in_ranges(c, &LETTER_LIKE))
}

/// What Python's `str.isalnum` holds true of: letters, digits and everything else that has a numeric value.
pub(crate) fn is_python_alphanumeric(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphanumeric() } else { c.is_numeric() || is_letter(c) }
}

/// What Python's `str.isdecimal` holds true of, and `\d` matches.
pub(crate) fn is_decimal(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { in_ranges(c, &DECIMALS) }
}

/// What Python's `str.isdigit` holds true of: decimals, superscripts and circled digits.
pub(crate) fn is_digit(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { in_ranges(c, &DECIMALS) || in_ranges(c, &OTHER_DIGITS) }
}

/// What Python's `str.isspace` and `str.split` call white space: Unicode's, and U+001C to U+001F.
pub(crate) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Where Python's `str.splitlines` ends a line; CR LF is one end.
pub(crate) fn is_line_break(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn in_ranges(c: char, ranges: &[Range]) -> bool {
    let code = c as u32;
    let after = ranges.partition_point(|(first, _)| *first <= code);
    after > 0 && code <= ranges[after - 1].1
}

const fn count_ranges(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut spaces = 0;
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b' ' {
            spaces += 1;
        }
        i += 1;
    }
    spaces + 1
}

const fn parse_ranges<const N: usize>(text: &str) -> [Range; N] {
    let bytes = text.as_bytes();
    let mut ranges = [(0, 0); N];
    let (mut n, mut first, mut value, mut is_range, mut i) = (0, 0, 0, false, 0);
    while i <= bytes.len() {
        let byte = if i < bytes.len() { bytes[i] } else { b' ' };
        match byte {
            b'0'..=b'9' => value = value * 16 + (byte - b'0') as u32,
            b'A'..=b'F' => value = value * 16 + (byte - b'A' + 10) as u32,
            b'-' => {
                first = value;
                is_range = true;
                value = 0;
            }
            b' ' => {
                ranges[n] = if is_range { (first, value) } else { (value, value) };
                assert!(n == 0 || ranges[n - 1].1 < ranges[n].0, "ranges must ascend");
                assert!(ranges[n].0 <= ranges[n].1, "a range must not be empty");
                n += 1;
                value = 0;
                is_range = false;
            }
            _ => panic!("ranges are written with 0-9, A-F, hyphens and single spaces"),
        }
        i += 1;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = char> {
        '\0'..=char::MAX
    }

    #[test]
    fn punctuation_has_the_size_of_the_original() {
        assert_eq!(all().filter(|c| is_punctuation(*c)).count(), 281);
        assert_eq!(all().filter(|c| is_terminal(*c)).count(), 159);
        assert_eq!(all().filter(|c| is_sentence_mark(*c)).count(), 128);
        for c in "!~#…。—”„\u{7f}\u{85}\u{1c}\u{0}１".chars() {
            assert!(is_punctuation(c), "{c:?}");
        }
        for c in "a0é•‘×\t\n \u{a0}１２０".chars().filter(|c| *c != '１') {
            assert!(!is_punctuation(c), "{c:?}");
        }
    }

    #[test]
    fn letters_are_pythons() {
        for c in "aZéßжשم字あกเ٣ªʰǅ".chars() {
            assert_eq!(is_letter(c), c != '٣', "{c:?}");
        }
        // Alphabetic in Unicode, but str.isalpha() is False: letter numbers, circled letters, vowel signs.
        for c in "Ⅻⓐ〇〡ा🅰\u{345}".chars() {
            assert!(c.is_alphabetic() && !is_letter(c), "{c:?}");
        }
    }

    #[test]
    fn spaces_and_line_breaks_are_pythons() {
        let spaces: Vec<u32> = all().filter(|c| is_python_space(*c)).map(u32::from).collect();
        let expected: Vec<u32> = (0x9..=0xd)
            .chain(0x1c..=0x20)
            .chain([0x85, 0xa0, 0x1680])
            .chain(0x2000..=0x200a)
            .chain([0x2028, 0x2029, 0x202f, 0x205f, 0x3000])
            .collect();
        assert_eq!(spaces, expected);
        let breaks: Vec<u32> = all().filter(|c| is_line_break(*c)).map(u32::from).collect();
        assert_eq!(breaks, [0xa, 0xb, 0xc, 0xd, 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029]);
    }

    #[test]
    fn digits_are_pythons() {
        for (c, decimal, digit, alphanumeric) in [
            ('7', true, true, true),
            ('٣', true, true, true),
            ('²', false, true, true),
            ('①', false, true, true),
            ('½', false, false, true),
            ('Ⅻ', false, false, true),
            ('é', false, false, true),
            ('ⓐ', false, false, false),
            ('\u{301}', false, false, false),
            ('_', false, false, false),
        ] {
            assert_eq!(
                (is_decimal(c), is_digit(c), is_python_alphanumeric(c)),
                (decimal, digit, alphanumeric),
                "{c:?}"
            );
        }
    }

    #[test]
    fn scripts() {
        for (c, unspaced, latin, rtl, joining) in [
            ('a', false, true, false, false),
            ('ñ', false, true, false, false),
            ('ж', false, false, false, false),
            ('字', true, false, false, false),
            ('カ', true, false, false, false),
            ('ไ', true, false, false, true),
            ('ខ', true, false, false, true),
            ('ش', false, false, true, true),
            ('א', false, false, true, false),
            ('क', false, false, false, true),
            ('👩', false, false, false, true),
            ('\u{61c}', false, false, false, false),
            ('\u{feff}', false, false, false, false),
        ] {
            let found = (is_unspaced(c), is_latin(c), is_right_to_left(c), is_joining(c));
            assert_eq!(found, (unspaced, latin, rtl, joining), "{c:?}");
        }
    }
}
