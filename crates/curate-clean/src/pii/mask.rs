//! Replacements that look like the value, are nobody's, and are a function of the value.

use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::PiiKind;

/// Appends the mask of `value`.
///
/// An e-mail address keeps the shape of its local part and moves to `example.com`, `.net` or `.org`; addresses come from
/// the blocks for documentation (RFC 5737, RFC 3849); an IBAN gets the check digits 00 and a card a wrong one, which no
/// real number has; of a key the prefix stays, so that code that holds it still reads like code.
pub(super) fn push_mask(out: &mut String, value: &str, kind: PiiKind) {
    let mut digits = Digits::new(value, kind);
    match kind {
        PiiKind::Email => {
            let local = value.rsplit_once('@').map_or(value, |(local, _)| local);
            push_same_shape(out, local, &mut digits);
            out.push_str(["@example.com", "@example.net", "@example.org"][digits.below(3)]);
        }
        PiiKind::Ipv4 => {
            out.push_str(["192.0.2.", "198.51.100.", "203.0.113."][digits.below(3)]);
            push_number(out, 1 + digits.below(254));
        }
        PiiKind::Ipv6 => {
            let (high, low) = (digits.below(0xffff), digits.below(0xffff));
            write!(out, "2001:db8::{:x}:{:x}", high + 1, low + 1).expect("writing to a string does not fail");
        }
        PiiKind::Phone => push_same_shape(out, value, &mut digits),
        PiiKind::Iban => {
            out.extend(value.chars().take(2));
            out.push_str("00");
            push_same_shape(out, value.get(4..).unwrap_or_default(), &mut digits);
        }
        PiiKind::Card => push_card(out, value, &mut digits),
        PiiKind::Secret => {
            let prefix = super::secret::prefix_bytes(value);
            out.push_str(&value[..prefix]);
            push_same_shape(out, &value[prefix..], &mut digits);
        }
    }
}

fn push_number(out: &mut String, n: usize) {
    write!(out, "{n}").expect("writing to a string does not fail");
}

/// A letter for a letter, a digit for a digit, everything else as it is.
fn push_same_shape(out: &mut String, value: &str, digits: &mut Digits<'_>) {
    for c in value.chars() {
        out.push(match c {
            '0'..='9' => char::from(b'0' + digits.below(10) as u8),
            'A'..='Z' => char::from(b'A' + digits.below(26) as u8),
            _ if c.is_alphabetic() => char::from(b'a' + digits.below(26) as u8),
            _ => c,
        });
    }
}

/// The issuer's four digits stay; the last digit is one that fails the check.
fn push_card(out: &mut String, value: &str, digits: &mut Digits<'_>) {
    let start = out.len();
    let n_digits = value.bytes().filter(u8::is_ascii_digit).count();
    let mut nth = 0;
    for c in value.chars() {
        let is_digit = c.is_ascii_digit();
        nth += usize::from(is_digit);
        out.push(match is_digit && nth > 4 {
            true if nth == n_digits => '0',
            true => char::from(b'0' + digits.below(10) as u8),
            false => c,
        });
    }
    if super::number::luhn(out[start..].bytes().filter(u8::is_ascii_digit)) {
        out.pop();
        out.push('1');
    }
}

/// Pseudo-random numbers that are a function of a value.
struct Digits<'v> {
    value: &'v str,
    seed: u64,
    left: u64,
}

impl<'v> Digits<'v> {
    fn new(value: &'v str, kind: PiiKind) -> Self {
        Self { value, seed: kind as u64, left: 0 }
    }

    /// A number below `bound`, which is at most 2^16.
    fn below(&mut self, bound: usize) -> usize {
        if self.left < 1 << 32 {
            self.left = xxh3_64_with_seed(self.value.as_bytes(), self.seed);
            self.seed += PiiKind::ALL.len() as u64;
        }
        let n = self.left % bound as u64;
        self.left /= bound as u64;
        n as usize
    }
}
