//! Phone numbers, bank accounts and payment cards: digits with a shape and, but for phones, a checksum.

use std::ops::Range;

use super::{PiiKind, PiiSpan};

/// Letters and digits of an IBAN by country (the registry of SWIFT).
const IBAN_LENGTHS: [(&[u8; 2], usize); 78] = [
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 23),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NL", 18),
    (b"NO", 15),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
];

/// Words that make digits near them a phone number, in lower case.
const PHONE_WORDS: [&str; 24] = [
    "tel",
    "phone",
    "fax",
    "mobile",
    "cell",
    "call",
    "sms",
    "whatsapp",
    "hotline",
    "telefon",
    "handy",
    "mobil",
    "téléphone",
    "teléfono",
    "telefone",
    "celular",
    "telefono",
    "тел",
    "телефон",
    "电话",
    "電話",
    "手机",
    "전화",
    "हेल्पलाइन",
];

/// How far before a number such a word may stand.
const NEAR_BYTES: usize = 32;

/// Adds the findings of the kinds that are on; they may overlap.
pub(super) fn collect(text: &str, is_on: impl Fn(PiiKind) -> bool, spans: &mut Vec<PiiSpan>) {
    let bytes = text.as_bytes();
    let [phone, iban, card] = [PiiKind::Phone, PiiKind::Iban, PiiKind::Card].map(is_on);
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(u8::is_ascii_digit) {
        at += next;
        let found = None
            .or_else(|| {
                iban.then(|| iban_at(bytes, at)).flatten().map(|range| (range, PiiKind::Iban, "iban"))
            })
            .or_else(|| {
                card.then(|| card_at(bytes, at))
                    .flatten()
                    .map(|(range, issuer)| (range, PiiKind::Card, issuer))
            })
            .or_else(|| {
                phone.then(|| phone_at(text, at)).flatten().map(|range| (range, PiiKind::Phone, "phone"))
            });
        match found {
            Some((range, kind, label)) => {
                at = range.end;
                spans.push(PiiSpan { range, kind, label });
            }
            None => at += bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count(),
        }
    }
}

/// True if the byte at the place is part of a word or number.
fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// The byte before `at`.
fn before(bytes: &[u8], at: usize) -> Option<&u8> {
    at.checked_sub(1).map(|i| &bytes[i])
}

/// An IBAN whose check digits begin at `at`, in one piece or in groups of four.
fn iban_at(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let start = at.checked_sub(2)?;
    let country: &[u8; 2] = bytes[start..at].try_into().ok()?;
    let length = IBAN_LENGTHS.iter().find(|(code, _)| *code == country)?.1;
    if is_word(before(bytes, start)) {
        return None;
    }
    let mut account = [0; 34];
    let (mut n, mut end) = (0, start);
    while n < length {
        match bytes.get(end)? {
            b if b.is_ascii_digit() || b.is_ascii_uppercase() => {
                account[n] = *b;
                n += 1;
            }
            b' ' if n > 0 && n % 4 == 0 => {}
            _ => return None,
        }
        end += 1;
    }
    (!is_word(bytes.get(end)) && mod_97(&account[..length]) == 1).then_some(start..end)
}

/// ISO 13616: the first four characters moved to the end, letters as 10 to 35, the number modulo 97.
fn mod_97(account: &[u8]) -> u32 {
    account[4..].iter().chain(&account[..4]).fold(0, |rest, b| match b {
        b'0'..=b'9' => (rest * 10 + u32::from(b - b'0')) % 97,
        _ => (rest * 100 + u32::from(b - b'A') + 10) % 97,
    })
}

/// A card whose number begins at `at`, in one piece or in groups parted by single spaces or hyphens.
fn card_at(bytes: &[u8], at: usize) -> Option<(Range<usize>, &'static str)> {
    let previous = before(bytes, at);
    if is_word(previous) || previous.is_some_and(|b| matches!(b, b'.' | b'-' | b'+' | b'#')) {
        return None;
    }
    let mut number = [0; 19];
    let (mut n, mut end) = (0, at);
    let separator = bytes[at..].iter().take(7).find(|b| matches!(b, b' ' | b'-')).copied();
    for (i, b) in bytes.iter().enumerate().skip(at) {
        if b.is_ascii_digit() {
            *number.get_mut(n)? = *b;
            n += 1;
            end = i + 1;
        } else if Some(*b) != separator || i > end {
            break;
        }
    }
    let next = bytes.get(end);
    let goes_on = next.is_some_and(|b| matches!(b, b'.' | b'-'))
        && bytes.get(end + 1).is_some_and(u8::is_ascii_alphanumeric);
    let number = &number[..n];
    if is_word(next) || goes_on || number.windows(2).all(|pair| pair[0] == pair[1]) {
        return None;
    }
    let issuer = issuer(number)?;
    luhn(number.iter().copied()).then_some((at..end, issuer))
}

/// Who issues cards of such numbers and lengths.
fn issuer(number: &[u8]) -> Option<&'static str> {
    if !(13..=19).contains(&number.len()) {
        return None;
    }
    let four = number[..4].iter().fold(0, |n, b| n * 10 + u32::from(b - b'0'));
    Some(match (four, number.len()) {
        (4000..=4999, 13 | 16 | 19) => "visa",
        (5100..=5599 | 2221..=2720, 16) => "mastercard",
        (3400..=3499 | 3700..=3799, 15) => "american_express",
        (6011 | 6440..=6599, 16..=19) => "discover",
        (3528..=3589, 16..=19) => "jcb",
        (3000..=3059 | 3600..=3699 | 3800..=3999, 14) => "diners_club",
        (6200..=6299, 16..=19) => "unionpay",
        _ => return None,
    })
}

/// ISO/IEC 7812: from the right every second digit doubled, the digits of all summed, divisible by ten.
pub(super) fn luhn(digits: impl DoubleEndedIterator<Item = u8>) -> bool {
    let sum: u32 = digits
        .rev()
        .enumerate()
        .map(|(i, b)| match (u32::from(b - b'0'), i % 2) {
            (d, 0) => d,
            (d, _) => 2 * d / 10 + 2 * d % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// A phone number whose first digit is at `at`.
fn phone_at(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let start = match before(bytes, at) {
        Some(b'+' | b'(') => at - 1,
        _ => at,
    };
    let start = if start < at && bytes[start] == b'(' && before(bytes, start) == Some(&b'+') {
        start - 1
    } else {
        start
    };
    let previous = before(bytes, start);
    if is_word(previous)
        || previous.is_some_and(|b| matches!(b, b'.' | b'-' | b'+' | b'/' | b'=' | b'$' | b'#'))
    {
        return None;
    }
    let Shape { digits, n_digits, groups, end } = shape_at(bytes, at);
    let next = bytes.get(end);
    if is_word(next) || (next == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit)) {
        return None;
    }
    let is_international = bytes[start] == b'+' && digits[0] != b'0' && (8..=15).contains(&n_digits);
    let is_known = is_international
        || (is_north_american(&digits[..n_digits], &groups)
            && (bytes[start] == b'(' || names_phone(text, start)))
        || ((7..=12).contains(&n_digits)
            && groups.iter().filter(|n| **n > 0).count() > 1
            && names_phone(text, start))
        || (digits[0] == b'0' && (9..=12).contains(&n_digits) && names_phone(text, start));
    is_known.then_some(start..end)
}

/// The digits of what could be a phone number, and the lengths of the first groups that separators make.
struct Shape {
    digits: [u8; 16],
    n_digits: usize,
    groups: [u8; 6],
    end: usize,
}

fn shape_at(bytes: &[u8], at: usize) -> Shape {
    let mut shape = Shape { digits: [0; 16], n_digits: 0, groups: [0; 6], end: at };
    let mut group = 0;
    let mut separators = 0;
    for (i, b) in bytes.iter().enumerate().skip(at) {
        match b {
            b'0'..=b'9' => {
                if separators > 0 {
                    group += 1;
                }
                if shape.n_digits == 16 || group == shape.groups.len() {
                    break;
                }
                separators = 0;
                shape.digits[shape.n_digits] = *b;
                shape.n_digits += 1;
                shape.groups[group] += 1;
                shape.end = i + 1;
            }
            b' ' | b'-' | b'.' | b'(' | b')' | b'/' if separators < 2 => separators += 1,
            _ => break,
        }
    }
    shape
}

/// `(212) 555-0123` or `212-555-0123`; area and exchange begin with 2 to 9.
fn is_north_american(digits: &[u8], groups: &[u8; 6]) -> bool {
    digits.len() == 10 && groups[..4] == [3, 3, 4, 0] && digits[0] >= b'2' && digits[3] >= b'2'
}

/// True if a word for telephone stands shortly before.
fn names_phone(text: &str, start: usize) -> bool {
    let from = text.ceil_char_boundary(start.saturating_sub(NEAR_BYTES));
    let near = text[from..start].to_lowercase();
    near.split(|c: char| !c.is_alphanumeric()).any(|word| PHONE_WORDS.contains(&word))
        || PHONE_WORDS.iter().any(|word| !word.is_ascii() && near.contains(word))
        || near.contains('☎')
        || near.contains('📞')
}
