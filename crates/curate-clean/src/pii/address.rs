//! IPv4 and IPv6 addresses, told from section numbers and versions by what stands around them.

use std::net::Ipv6Addr;
use std::ops::Range;

/// Words before a dotted number that make it something else, in lower case.
const NUMBERED: &str = " section sections sect sec chapter chapters chap ch table tables figure figures fig appendix \
    clause paragraph para article item rule part step listing equation eq page version versions ver v release \
    releases rel rev revision build update patch upgrade firmware oid abschnitt kapitel tabelle abbildung versión \
    sección capítulo tabla figura chapitre tableau versione sezione capitolo раздел глава таблица рисунок версия \
    版本 节 章 表 图 バージョン ";

/// Words near a dotted number that make it an address.
const NETWORK: &str = " ip ips ipv4 address addresses addr host hosts server dns ping gateway subnet netmask router \
    nameserver inet proxy peer network client resolver traceroute ssh telnet curl listen bind listening connect \
    connected connection remote адрес сервер adresse dirección indirizzo 地址 アドレス ";

/// How far a network word may be, in bytes.
const NEAR_BEFORE: usize = 48;
const NEAR_BEHIND: usize = 24;

/// What the scan of one text remembers: where the last dotted number ended that was no address.
#[derive(Debug, Default)]
pub(super) struct Context {
    rejected_end: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Addresses {
    with_private: bool,
}

impl Addresses {
    pub(super) fn new(with_private: bool) -> Self {
        Self { with_private }
    }

    /// The dotted number around the first dot at `at`, and whether it is an address; `None` if there is none.
    pub(super) fn ipv4_around(
        &self,
        text: &str,
        at: usize,
        context: &mut Context,
    ) -> Option<(Range<usize>, bool)> {
        let bytes = text.as_bytes();
        let digits = bytes[..at].iter().rev().take(4).take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 || !bytes.get(at + 1)?.is_ascii_digit() {
            return None;
        }
        let start = at - digits;
        let mut end = at;
        while end < bytes.len() && (bytes[end].is_ascii_digit() || is_inner_dot(bytes, end)) {
            end += 1;
        }
        let range = start..end;
        let Some(octets) = octets(&text[range.clone()]) else { return Some((range, false)) };
        let is_found = stands_alone(bytes, &range)
            && (self.with_private || is_public(octets))
            && !continues_rejected(text, start, context)
            && reads_like_address(text, &range, octets);
        context.rejected_end = (!is_found).then_some(end);
        Some((range, is_found))
    }

    /// The run of hexadecimal groups around the colon at `at`, and whether it is an address.
    pub(super) fn ipv6_around(&self, text: &str, at: usize) -> Option<(Range<usize>, bool)> {
        let bytes = text.as_bytes();
        let is_part = |b: &&u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
        let start = at - bytes[..at].iter().rev().take(46).take_while(|b| b.is_ascii_hexdigit()).count();
        let end = at + bytes[at..].iter().take(46).take_while(is_part).count();
        let run = text[start..end].trim_end_matches('.');
        let run = if run.ends_with("::") { run } else { run.trim_end_matches(':') };
        if run.bytes().filter(|b| *b == b':').count() < 2 {
            return None;
        }
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'.' | b'-');
        let end = start + run.len();
        if start.checked_sub(1).is_some_and(|i| is_word(&bytes[i]) || bytes[i] >= 0x80)
            || bytes.get(end).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        {
            return None;
        }
        let address: Ipv6Addr = run.parse().ok()?;
        let segments = address.segments();
        let is_global = segments[0] & 0xe000 == 0x2000
            && !(segments[0] == 0x2001 && (segments[1] == 0xdb8 || segments[1] < 0x200))
            && segments[0] != 0x3fff;
        let is_mapped = address.to_ipv4_mapped().is_some_and(|mapped| is_public(mapped.octets()));
        // `2006::` is the end of a sentence before a literal block, and `a::b` a name in many languages.
        let has_body = run.split(':').filter(|group| !group.is_empty()).count() >= 3;
        Some((start..end, is_mapped || (has_body && (is_global || self.with_private))))
    }
}

fn is_inner_dot(bytes: &[u8], at: usize) -> bool {
    bytes[at] == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
}

fn octets(number: &str) -> Option<[u8; 4]> {
    let mut octets = [0; 4];
    let mut groups = number.split('.');
    for octet in &mut octets {
        let group = groups.next()?;
        if group.len() > 1 && group.starts_with('0') {
            return None;
        }
        *octet = group.parse().ok()?;
    }
    groups.next().is_none().then_some(octets)
}

/// Neither part of a word, a file name, a product token (`Chrome/1.2.3.4`), nor of a longer number.
fn stands_alone(bytes: &[u8], range: &Range<usize>) -> bool {
    let before = |n: usize| range.start.checked_sub(n).map(|i| bytes[i]);
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
    let free_before = match before(1) {
        Some(b'.') => false,
        Some(b'-' | b'/') => before(2).is_none_or(|b| !b.is_ascii_alphabetic() && b != b'_'),
        // Text of scripts without spaces may touch an address; a letter or digit of ASCII may not.
        Some(b) => !b.is_ascii_alphanumeric() && b != b'_',
        None => true,
    };
    let rest = &bytes[range.end..];
    let free_behind = match rest {
        [b'.', next, ..] if is_name(*next) => rest.starts_with(b".in-addr"),
        [b'-', next, ..] => !next.is_ascii_alphabetic(),
        [b, ..] => !b.is_ascii_alphanumeric() && *b != b'_',
        [] => true,
    };
    free_before && free_behind
}

/// Not private, loopback, link-local, shared, reserved, multicast or for documentation (the IANA registries).
fn is_public([a, b, c, _]: [u8; 4]) -> bool {
    !(matches!(a, 0 | 10 | 127 | 224..)
        || matches!((a, b), (100, 64..=127) | (169, 254) | (172, 16..=31) | (192, 168) | (198, 18..=19))
        || matches!((a, b, c), (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113)))
}

/// `4.1.2.5` in `Sections 4.1.2.4, 4.1.2.5 and 4.1.2.6`.
fn continues_rejected(text: &str, start: usize, context: &Context) -> bool {
    context.rejected_end.is_some_and(|end| {
        start - end <= 8
            && matches!(
                text[end..start].trim(),
                "," | ";" | "and" | "or" | "to" | "-" | "–" | ", and" | ", or" | "&"
            )
    })
}

fn reads_like_address(text: &str, range: &Range<usize>, octets: [u8; 4]) -> bool {
    // The window is bounded: a line may be as long as the text.
    let from = text.ceil_char_boundary(range.start.saturating_sub(NEAR_BEFORE));
    let line_start = text[from..range.start].rfind('\n').map(|at| from + at + 1);
    let before = &text[line_start.unwrap_or(from)..range.start];
    let is_whole_line = line_start.is_some() || from == 0;
    if is_numbered(before) {
        return false;
    }
    let behind = &text[range.end..text.floor_char_boundary(text.len().min(range.end + NEAR_BEHIND))];
    let behind = behind.split('\n').next().unwrap_or_default();
    if before.ends_with("//") || before.ends_with('@') || has_port_or_prefix(behind) {
        return true;
    }
    if is_heading(before, is_whole_line, behind) {
        return false;
    }
    if words(before).chain(words(behind)).any(is_network) {
        return true;
    }
    // Versions and sections count in small numbers; few addresses are made of them.
    octets.iter().any(|n| *n >= 100) || octets.iter().filter(|n| **n >= 20).count() >= 2
}

/// True if one of the last three words announces a number of another kind; `Table 3` has had its number.
fn is_numbered(before: &str) -> bool {
    let sentence = before.rfind(". ").map_or(0, |at| at + 2);
    let before = if before.len() - sentence > 2 { &before[sentence..] } else { before };
    if before.trim_end().ends_with(['§', '#']) {
        return true;
    }
    let last = before.rsplit(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).take(3);
    last.take_while(|word| !is_network(word) && !word.starts_with(|c: char| c.is_ascii_digit()))
        .any(|word| is_in(NUMBERED, word))
}

/// A number at the start of a line with a title behind it: `4.1.2.40 Naming`.
fn is_heading(before: &str, is_whole: bool, behind: &str) -> bool {
    is_whole
        && before.trim_matches(|c: char| c.is_whitespace() || "#*-•|=>".contains(c)).is_empty()
        && behind.strip_prefix(['.', ')']).unwrap_or(behind).trim_start().starts_with(char::is_uppercase)
}

/// `:8080` or `/24` behind an address.
fn has_port_or_prefix(behind: &str) -> bool {
    let Some(rest) = behind.strip_prefix([':', '/']) else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    match behind.starts_with(':') {
        true => (2..=5).contains(&digits),
        false => rest[..digits].parse().is_ok_and(|bits: u8| bits <= 32),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// `host`, but also `ParseIP`, `ip_addr` and `ipv4DNS`, as code names things.
fn is_network(word: &str) -> bool {
    is_in(NETWORK, word)
        || word.ends_with("IP")
        || ["addr", "Addr", "ipv4", "IPv4", "DNS"].iter().any(|part| word.contains(part))
}

/// True if the word, in lower case, is in the list that spaces part.
fn is_in(list: &str, word: &str) -> bool {
    let word = word.to_lowercase();
    list.split_ascii_whitespace().any(|entry| entry == word)
}
