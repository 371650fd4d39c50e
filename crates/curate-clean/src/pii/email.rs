//! E-mail addresses around an `@`.

use std::ops::Range;

/// RFC 5321, §4.5.3.1: longest local part and longest domain.
const MAX_LOCAL_BYTES: usize = 64;
const MAX_DOMAIN_BYTES: usize = 255;

/// Top-level and second-level names that RFC 2606 and RFC 6761 keep for examples; nobody has an address there.
const RESERVED_TOP: [&str; 4] = ["example", "invalid", "test", "localhost"];
const RESERVED_SECOND: [&str; 3] = ["com", "net", "org"];

/// Endings of file names that stand behind `@2x`.
const PICTURES: [&str; 6] = ["png", "jpg", "jpeg", "gif", "webp", "svg"];

/// The address whose `@` is at byte `at`, if it is one; nothing before `floor` belongs to it.
pub(super) fn around(text: &str, at: usize, floor: usize) -> Option<Range<usize>> {
    let local = local_before(text, at, floor)?;
    let domain = domain_behind(text, at + 1)?;
    let name = &text[at + 1..domain];
    (!is_reserved(name) && !is_picture(name)).then_some(local..domain)
}

/// Where the local part that ends at `at` begins.
fn local_before(text: &str, at: usize, floor: usize) -> Option<usize> {
    let mut start = at;
    let mut equals = None;
    let mut next = '@';
    for (i, c) in text[floor..at].char_indices().rev() {
        let i = floor + i;
        if at - i > MAX_LOCAL_BYTES || !is_local(c) || (c == '.' && matches!(next, '.' | '@')) {
            break;
        }
        if c == '=' {
            // `to=joe@…` is a field of a query; `bounce+joe=his.org@…` is a return path and one address.
            if !text[i..at].contains('.') {
                break;
            }
            equals = Some(i);
        }
        if is_letter(c) || c.is_ascii_digit() || c == '_' {
            start = i;
        }
        next = c;
    }
    if let Some(equals) = equals
        && start >= equals
    {
        start = equals + 1;
    }
    let last = text[..at].chars().next_back()?;
    (start < at && (is_letter(last) || last.is_ascii_digit() || "_+-'~".contains(last))).then_some(start)
}

/// Where the domain that begins at `start` ends: at least two labels, the last of letters.
fn domain_behind(text: &str, start: usize) -> Option<usize> {
    if text[start..].starts_with('[') {
        return literal_behind(text, start);
    }
    let mut best = None;
    let mut label_start = start;
    loop {
        let rest = &text[label_start..];
        let run = rest.find(|c: char| !is_letter(c) && !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
        let label = rest[..run].trim_end_matches('-');
        if label.is_empty() || label.starts_with('-') || label_start + label.len() - start > MAX_DOMAIN_BYTES
        {
            return best;
        }
        if label_start > start && is_top_level(label) {
            best = Some(label_start + label.len());
        }
        if label.len() < run || !rest[run..].starts_with('.') {
            return best;
        }
        label_start += run + 1;
    }
}

/// `joe@[192.0.2.7]`.
fn literal_behind(text: &str, start: usize) -> Option<usize> {
    let close = text.as_bytes()[start..].iter().take(48).position(|b| *b == b']')?;
    let inner = &text[start + 1..start + close];
    let inner = inner.strip_prefix("IPv6:").unwrap_or(inner);
    inner.parse::<std::net::IpAddr>().is_ok().then_some(start + close + 1)
}

fn is_top_level(label: &str) -> bool {
    let is_word = label.chars().all(is_letter) && (2..=24).contains(&label.chars().count());
    is_word || (label.len() > 4 && label.as_bytes()[..4].eq_ignore_ascii_case(b"xn--"))
}

/// Letters of addresses: Latin ones. Han and the like are not, because no space parts an address from such text.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || (matches!(c, '\u{c0}'..='\u{24f}') && c != '×' && c != '÷')
}

fn is_local(c: char) -> bool {
    is_letter(c) || c.is_ascii_digit() || "._%+-'=~!#$^".contains(c)
}

fn is_reserved(domain: &str) -> bool {
    let mut labels = domain.rsplit('.');
    let (top, second) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
    RESERVED_TOP.iter().any(|name| top.eq_ignore_ascii_case(name))
        || (second.eq_ignore_ascii_case("example")
            && RESERVED_SECOND.iter().any(|name| top.eq_ignore_ascii_case(name)))
}

/// `icon@2x.png`.
fn is_picture(domain: &str) -> bool {
    domain.split_once('.').is_some_and(|(scale, ending)| {
        let digits = scale.trim_end_matches('x');
        digits.len() + 1 == scale.len()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && PICTURES.contains(&ending.to_ascii_lowercase().as_str())
    })
}
