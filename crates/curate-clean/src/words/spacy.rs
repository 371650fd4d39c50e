//! The words of spaCy's blank English pipeline (version 3.8).
//!
//! What stands between white space loses prefixes and suffixes one by one, unless it is a word with a way of its own or
//! a URL; what is left is split at infixes. Last, words that came apart so are put together again (`:)`). Which
//! characters are affixes and which words are special was read off spaCy (© ExplosionAI GmbH, MIT licence) by
//! `python/spacy_tables.py`.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::chars::is_python_space;

const DATA: &str = include_str!("spacy_en.txt");

mod class {
    pub(super) const ALPHA: u16 = 1;
    pub(super) const BEFORE_FULL_STOP: u16 = 1 << 1;
    pub(super) const BEHIND_FULL_STOP: u16 = 1 << 2;
    pub(super) const LOWER: u16 = 1 << 3;
    pub(super) const UPPER: u16 = 1 << 4;
    pub(super) const ICON: u16 = 1 << 5;
    pub(super) const PREFIX: u16 = 1 << 6;
    pub(super) const SUFFIX: u16 = 1 << 7;
    pub(super) const LOSES_FULL_STOP: u16 = 1 << 8;
}

/// By the order of the bits in `class`.
const CLASSES: [&str; 9] = [
    "alpha",
    "before-full-stop",
    "behind-full-stop",
    "lower",
    "upper",
    "icon",
    "prefix",
    "suffix",
    "loses-full-stop",
];

/// A word with a way of its own to be split.
#[derive(Debug)]
struct Special {
    /// Bytes of its parts.
    parts: Vec<u8>,
    /// Bytes of the tokens that the rules for affixes make of it; empty if they leave it alone.
    pieces: Vec<u8>,
}

#[derive(Debug)]
struct Tables {
    plane: Box<[u16]>,
    /// First, last and class of code points beyond the basic plane.
    beyond: Vec<(u32, u32, u16)>,
    units: Vec<&'static str>,
    specials: HashMap<&'static str, Special>,
    longest_special: usize,
}

static TABLES: LazyLock<Tables> = LazyLock::new(Tables::new);

impl Tables {
    fn new() -> Self {
        let mut tables = Self {
            plane: vec![0; 0x1_0000].into(),
            beyond: Vec::new(),
            units: Vec::new(),
            specials: HashMap::new(),
            longest_special: 0,
        };
        for line in DATA.lines().filter(|line| !line.starts_with("# ")) {
            let mut fields = line.split('\t');
            let (kind, value) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
            if kind == "word" {
                let mut lengths = || -> Vec<u8> {
                    let field = fields.next().unwrap_or("");
                    field
                        .split_ascii_whitespace()
                        .map(|n| n.parse().expect("written by the script"))
                        .collect()
                };
                let (parts, pieces) = (lengths(), lengths());
                tables.specials.insert(value, Special { parts, pieces });
                tables.longest_special = tables.longest_special.max(value.len());
            } else if kind == "units" {
                tables.units = value.split(' ').collect();
            } else if let Some(bit) = CLASSES.iter().position(|name| *name == kind) {
                tables.add_class(value, 1 << bit);
            }
        }
        tables
    }

    fn add_class(&mut self, ranges: &str, class: u16) {
        let code = |hex| u32::from_str_radix(hex, 16).expect("written by the script");
        for range in ranges.split_ascii_whitespace() {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (code(first), code(last));
            for code in first..=last.min(0xffff) {
                self.plane[code as usize] |= class;
            }
            if last > 0xffff {
                self.beyond.push((first, last, class));
            }
        }
    }

    fn class(&self, c: char) -> u16 {
        let code = u32::from(c);
        match self.plane.get(code as usize) {
            Some(class) => *class,
            None => {
                let ranges = self.beyond.iter().filter(|(first, last, _)| (*first..=*last).contains(&code));
                ranges.fold(0, |classes, (_, _, class)| classes | class)
            }
        }
    }

    fn is(&self, c: Option<char>, class: u16) -> bool {
        c.is_some_and(|c| self.class(c) & class != 0)
    }

    fn special(&self, word: &str) -> Option<&Special> {
        if word.len() > self.longest_special { None } else { self.specials.get(word) }
    }

    fn prefix_len(&self, word: &str) -> usize {
        let dots = word.len() - word.trim_start_matches('.').len();
        if dots > 1 {
            return dots;
        }
        let mut chars = word.chars();
        match chars.next() {
            Some('+') if is_digit(chars.next()) => 0,
            // Of the dollars of three countries.
            Some('U') if word.starts_with("US$") => 3,
            Some('A' | 'C') if word[1..].starts_with('$') => 2,
            Some(c) if self.class(c) & class::PREFIX != 0 => c.len_utf8(),
            _ => 0,
        }
    }

    /// The longest suffix.
    fn suffix_len(&self, word: &str) -> usize {
        let dots = word.len() - word.trim_end_matches('.').len();
        if dots > 1 {
            return dots;
        }
        let mut chars = word.chars();
        let Some(last) = chars.next_back() else { return 0 };
        let (before, mut first) = (chars.clone().next_back(), chars.clone());
        let mut len = 0;
        if self.class(last) & class::SUFFIX != 0 {
            len = last.len_utf8();
        }
        match last {
            '.' => {
                let before_that = {
                    first.next_back();
                    first.next_back()
                };
                let comes_off = self.is(before, class::LOSES_FULL_STOP)
                    || (self.is(before, class::UPPER) && self.is(before_that, class::UPPER))
                    || (before_that == Some('°')
                        && matches!(before, Some('F' | 'f' | 'C' | 'c' | 'K' | 'k')));
                return usize::from(comes_off);
            }
            '+' if is_digit(before) => len = 1,
            's' | 'S' if matches!(before, Some('\'' | '’')) => len = 1 + before.map_or(0, char::len_utf8),
            '…' if before == Some('…') => len = "……".len(),
            _ => {}
        }
        for unit in &self.units {
            if unit.len() > len
                && word.strip_suffix(unit).is_some_and(|rest| rest.ends_with(|c: char| c.is_ascii_digit()))
            {
                len = unit.len();
            }
        }
        len
    }

    /// The bytes of the infix at the start of `rest`, behind `before`; 0 if there is none.
    fn infix_len(&self, before: Option<char>, rest: &str) -> usize {
        let dots = rest.len() - rest.trim_start_matches('.').len();
        if dots > 1 {
            return dots;
        }
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { return 0 };
        let next = chars.next();
        let is_behind_word = self.is(before, class::ALPHA) || is_digit(before);
        let holds = match c {
            '…' => true,
            '+' | '*' | '^' | '-' if is_digit(before) && (is_digit(next) || next == Some('-')) => true,
            '.' => self.is(before, class::BEFORE_FULL_STOP) && self.is(next, class::BEHIND_FULL_STOP),
            ',' => self.is(before, class::ALPHA) && self.is(next, class::ALPHA),
            '-' | '–' | '—' | '~' if is_behind_word => {
                let most = match c {
                    '-' => 3,
                    '—' => 2,
                    _ => 1,
                };
                let run = rest.chars().take_while(|other| *other == c).count();
                if run <= most && self.is(rest.chars().nth(run), class::ALPHA) {
                    return run * c.len_utf8();
                }
                false
            }
            ':' | '<' | '>' | '=' | '/' => is_behind_word && self.is(next, class::ALPHA),
            _ => false,
        };
        if holds || self.class(c) & class::ICON != 0 { c.len_utf8() } else { 0 }
    }

    /// The ends of the words of `chunk`, which has no white space.
    fn split(&self, chunk: &str, ends: &mut Ends) {
        ends.all.clear();
        if let Some(special) = self.special(chunk) {
            ends.push_lengths(0, &special.parts);
            return;
        }
        if chunk.bytes().all(|b| b.is_ascii_alphabetic()) {
            ends.all.push(chunk.len());
            return;
        }
        let (start, end) = self.split_affixes(chunk, ends);
        self.split_core(chunk, start, end, ends);
        ends.all.extend(ends.suffixes.iter().rev());
        if chunk.len() > 1 {
            self.join(chunk, ends);
        }
    }

    /// Takes off the affixes: notes the ends of prefixes and of suffixes, the last suffix first.
    fn split_affixes(&self, chunk: &str, ends: &mut Ends) -> (usize, usize) {
        ends.suffixes.clear();
        let (mut start, mut end) = (0, chunk.len());
        while start < end && self.special(&chunk[start..end]).is_none() {
            let prefix = self.prefix_len(&chunk[start..end]);
            if prefix > 0 {
                ends.all.push(start + prefix);
                if start + prefix < end && self.special(&chunk[start + prefix..end]).is_some() {
                    start += prefix;
                    break;
                }
            }
            let suffix = self.suffix_len(&chunk[start + prefix..end]);
            if suffix > 0 {
                if start < end - suffix && self.special(&chunk[start..end - suffix]).is_some() {
                    if prefix > 0 {
                        ends.all.pop();
                    }
                    ends.suffixes.push(end);
                    end -= suffix;
                    break;
                }
                ends.suffixes.push(end);
                end -= suffix;
            }
            start += prefix;
            if prefix + suffix == 0 {
                break;
            }
        }
        (start, end)
    }

    fn split_core(&self, chunk: &str, start: usize, end: usize, ends: &mut Ends) {
        let core = &chunk[start..end];
        if core.is_empty() {
            return;
        }
        if let Some(special) = self.special(core) {
            ends.push_lengths(start, &special.parts);
            return;
        }
        if !self.is_url(core) {
            let (mut at, mut behind, mut before) = (0, 0, None);
            while let Some(c) = core[at..].chars().next() {
                let infix = self.infix_len(before, &core[at..]);
                if infix == 0 {
                    at += c.len_utf8();
                    before = Some(c);
                    continue;
                }
                if at > 0 {
                    if at > behind {
                        ends.all.push(start + at);
                    }
                    behind = at + infix;
                    ends.all.push(start + behind);
                }
                at += infix;
                before = core[..at].chars().next_back();
            }
            if behind == core.len() {
                return;
            }
        }
        ends.all.push(end);
    }

    /// Splits runs of tokens that are special words together as those are split, the longest first.
    fn join(&self, chunk: &str, ends: &mut Ends) {
        let n = ends.all.len();
        let start_of = |ends: &Ends, i: usize| if i == 0 { 0 } else { ends.all[i - 1] };
        let mut matches: Vec<(usize, usize)> = Vec::new();
        for i in 0..n {
            let start = start_of(ends, i);
            for j in i..n {
                if ends.all[j] - start > self.longest_special {
                    break;
                }
                let Some(special) = self.special(&chunk[start..ends.all[j]]) else { continue };
                let mut at = start;
                let is_same = special.pieces.len() == j + 1 - i
                    && special.pieces.iter().zip(&ends.all[i..=j]).all(|(len, end)| {
                        at += usize::from(*len);
                        at == *end
                    });
                if is_same {
                    matches.push((i, j));
                }
            }
        }
        if matches.is_empty() {
            return;
        }
        matches.sort_by_key(|(i, j)| (std::cmp::Reverse(j - i), *i));
        let mut is_seen = vec![false; n];
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        for (i, j) in matches {
            if !is_seen[i] && !is_seen[j] {
                chosen.push((i, j));
            }
            is_seen[i..=j].fill(true);
        }
        chosen.sort_unstable();
        let old = std::mem::take(&mut ends.all);
        let mut i = 0;
        let mut chosen = chosen.into_iter().peekable();
        while i < n {
            match chosen.next_if(|(first, _)| *first == i) {
                Some((first, last)) => {
                    let start = if first == 0 { 0 } else { old[first - 1] };
                    if let Some(special) = self.special(&chunk[start..old[last]]) {
                        ends.push_lengths(start, &special.parts);
                    }
                    i = last + 1;
                }
                None => {
                    ends.all.push(old[i]);
                    i += 1;
                }
            }
        }
    }

    fn is_url(&self, word: &str) -> bool {
        if !word.contains('.') {
            return false;
        }
        let scheme = word.find("://").filter(|at| {
            let scheme = &word[..*at];
            scheme.chars().nth(1).is_some()
                && scheme.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '+' | '-' | '.'))
        });
        let starts = [Some(0), scheme.map(|at| at + 3)];
        starts.into_iter().flatten().any(|start| {
            self.is_address(&word[start..])
                || memchr::memchr_iter(b'@', word.as_bytes())
                    .any(|at| at > start && self.is_address(&word[at + 1..]))
        })
    }

    /// A host with what may stand behind it.
    fn is_address(&self, address: &str) -> bool {
        let end = address.find([':', '/', '?', '#']).unwrap_or(address.len());
        let (host, rest) = address.split_at(end);
        if let Some(rest) = rest.strip_prefix(':') {
            let behind = rest.trim_start_matches(char::is_numeric);
            let digits = rest[..rest.len() - behind.len()].chars().count();
            if !(2..=5).contains(&digits) || !(behind.is_empty() || behind.starts_with(['/', '?', '#'])) {
                return false;
            }
        }
        self.is_host(host) || is_public_ip(host)
    }

    fn is_host(&self, host: &str) -> bool {
        let Some((labels, domain)) = host.rsplit_once('.') else { return false };
        let is_domain = (2..=63).contains(&domain.chars().count())
            && domain.chars().all(|c| self.class(c) & class::LOWER != 0);
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '\u{a1}'..='\u{ffff}');
        is_domain
            && labels.split('.').all(|label| {
                label.starts_with(is_word)
                    && label.ends_with(is_word)
                    && label.chars().count() <= 64
                    && label.chars().all(|c| is_word(c) || matches!(c, '_' | '-'))
            })
    }
}

/// Four numbers that are no address of a private network.
fn is_public_ip(host: &str) -> bool {
    let mut numbers = [0_u16; 4];
    let mut n = 0;
    for part in host.split('.') {
        let is_number = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let is_outer = n == 0 || n == 3;
        let is_padded = part.starts_with('0') && (is_outer || part.len() == 3);
        let (true, false, Some(number)) = (is_number, is_padded, numbers.get_mut(n)) else { return false };
        *number = part.parse().unwrap_or(u16::MAX);
        n += 1;
    }
    let [a, b, c, d] = numbers;
    let is_private = matches!((a, b), (10 | 127, _) | (169, 254) | (192, 168) | (172, 16..=31));
    n == 4 && a <= 223 && b <= 255 && c <= 255 && d <= 254 && !is_private
}

fn is_digit(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_ascii_digit())
}

/// Where the words of a chunk end.
#[derive(Debug, Default)]
struct Ends {
    all: Vec<usize>,
    suffixes: Vec<usize>,
}

impl Ends {
    fn push_lengths(&mut self, start: usize, lengths: &[u8]) {
        let mut at = start;
        for len in lengths {
            at += usize::from(*len);
            self.all.push(at);
        }
    }
}

/// Calls `each` with every word.
pub(super) fn words<'t>(text: &'t str, mut each: impl FnMut(&'t str)) {
    let tables = &*TABLES;
    let mut ends = Ends::default();
    for chunk in text.split(is_python_space).filter(|chunk| !chunk.is_empty()) {
        tables.split(chunk, &mut ends);
        let mut start = 0;
        for end in &ends.all {
            each(&chunk[start..*end]);
            start = *end;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        words(text, |word| found.push(word));
        found
    }

    #[test]
    fn splits_as_spacy_does() {
        let mut wrong = Vec::new();
        for line in include_str!("spacy_en_golden.txt").lines() {
            let (sentence, expected) = line.rsplit_once('\t').unwrap();
            let words = found(sentence).join(" ");
            if words != expected {
                wrong.push(format!("{words}\n{expected}\n"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    proptest! {
        #[test]
        fn loses_nothing_but_white_space(text in "[a-cA-C0-9.,:;()'’/…@+$°é汉😀kms \n-]{0,40}") {
            let bare: String = text.chars().filter(|c| !is_python_space(*c)).collect();
            let words = found(&text);
            prop_assert_eq!(words.concat(), bare);
            prop_assert!(words.iter().all(|word| !word.is_empty()));
        }
    }
}
