//! Takes URLs and IPv4 addresses out of a text, as DCLM's `url_removal_modifier` does.
//!
//! Two searches, one after the other. The first is for a host that ends in a top-level domain, with what may follow it;
//! it only happens at all if the *text begins* with the letters of some top-level domain, as `The` does with `th`: the
//! original asks `match` where it means `search`. The second is for four numbers with dots between.

use memchr::memchr;

use crate::chars::{is_python_alphanumeric, is_python_space};

/// Where DCLM's list of top-level domains (IANA's root zone, native scripts) is cut: none is longer, in characters.
const LONGEST_DOMAIN: usize = 18;

/// Most characters of a host before its last dot.
const LONGEST_HOST: usize = 256;

/// Most white-space characters that go with what they stand before.
const MOST_SPACES: usize = 10;

/// Removes URLs. Holds the top-level domains; can be shared by threads.
#[derive(Debug, Clone)]
pub(crate) struct UrlEditor {
    /// In the order of their bytes.
    domains: Vec<&'static str>,
}

impl UrlEditor {
    pub(crate) fn new() -> Self {
        Self { domains: include_str!("../../data/top-level-domains.txt").lines().collect() }
    }

    /// Writes `text` without URLs into `out`, whose contents go, if it has any; returns whether it had.
    pub(crate) fn remove(&self, text: &str, scratch: &mut String, out: &mut String) -> bool {
        let has_urls = self.begins_with_domain(text) && cut(text, scratch, |at| self.next_url(text, at));
        let rest = if has_urls { &**scratch } else { text };
        if cut(rest, out, |at| next_address(rest, at)) {
            return true;
        }
        if has_urls {
            std::mem::swap(scratch, out);
        }
        has_urls
    }

    fn begins_with_domain(&self, text: &str) -> bool {
        let mut start = String::with_capacity(4 * LONGEST_DOMAIN);
        text.chars().take(LONGEST_DOMAIN).any(|c| {
            start.push(folded(c));
            self.is_domain(&start)
        })
    }

    fn is_domain(&self, name: &str) -> bool {
        self.domains.binary_search(&name).is_ok()
    }

    /// The end of the top-level domain that begins at `at` and ends at an edge of a word.
    fn domain_end(&self, text: &str, at: usize) -> Option<usize> {
        let rest = &text[at..];
        if !rest.starts_with(|c: char| c.is_ascii_lowercase() || !c.is_ascii()) {
            return None;
        }
        for (i, c) in rest.char_indices().take(LONGEST_DOMAIN) {
            if c.is_ascii() && !c.is_ascii_lowercase() {
                return None;
            }
            let end = i + c.len_utf8();
            let is_edge = is_word(c) != rest[end..].starts_with(is_word);
            if is_edge && self.is_domain(&rest[..end]) {
                return Some(at + end);
            }
        }
        None
    }

    /// The next URL from `from` on, with white space before it.
    fn next_url(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let bytes = text.as_bytes();
        let mut search = from;
        loop {
            let dot = search + memchr(b'.', &bytes[search..])?;
            search = dot + 1;
            if dot == from || !is_host(bytes[dot - 1]) || self.domain_end(text, dot + 1).is_none() {
                continue;
            }
            let run = dot - bytes[from..dot].iter().rev().take_while(|b| is_host(**b)).count();
            let start = run.max(dot.saturating_sub(LONGEST_HOST));
            let window = bytes[dot..].iter().take(start + LONGEST_HOST + 1 - dot);
            let reach = dot + window.take_while(|b| is_host(**b)).count();
            let last =
                (dot..reach).rev().find(|at| bytes[*at] == b'.' && self.domain_end(text, at + 1).is_some());
            let end = last.and_then(|at| self.domain_end(text, at + 1)).expect("the first dot is one");
            let start = match start == run {
                true => with_spaces(text, from, from + with_scheme(&text[from..run])),
                false => start,
            };
            return Some((start, path_end(bytes, end)));
        }
    }
}

/// Writes `text` without the ranges that `next` finds into `out`; returns whether there were any.
fn cut(text: &str, out: &mut String, next: impl Fn(usize) -> Option<(usize, usize)>) -> bool {
    let mut done = 0;
    while let Some((start, end)) = next(done) {
        if done == 0 {
            out.clear();
        }
        out.push_str(&text[done..start]);
        done = end;
    }
    if done > 0 {
        out.push_str(&text[done..]);
    }
    done > 0
}

/// The next IPv4 address from `from` on, with its scheme and white space before it.
fn next_address(text: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut search = from;
    loop {
        let dot = search + memchr(b'.', &bytes[search..])?;
        search = dot + 1;
        let digits = bytes[from..dot].iter().rev().take_while(|b| b.is_ascii_digit()).count();
        let first = dot - digits;
        if digits == 0 || text[..first].ends_with(is_word) || number_end(bytes, first) != Some(dot) {
            continue;
        }
        let end = |at: usize| number_end(bytes, at).filter(|end| bytes.get(*end) == Some(&b'.'));
        let Some(last) = end(dot + 1).and_then(|second| end(second + 1)) else { continue };
        if !bytes.get(last + 1).is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let mut start = with_scheme(&text[from..first]) + from;
        if start < first && text[..start].ends_with(is_word) {
            start = first;
        }
        return Some((with_spaces(text, from, start), path_end(bytes, last + 1)));
    }
}

/// The end of the digits at `at`, if they are one, two, or three of which the first is at most 2.
fn number_end(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = bytes[at..].iter().take(4).take_while(|b| b.is_ascii_digit()).count();
    (matches!(digits, 1 | 2) || (digits == 3 && bytes[at] <= b'2')).then_some(at + digits)
}

/// Where the scheme at the end of `text` begins; its end if there is none.
fn with_scheme(text: &str) -> usize {
    let scheme = ["https://", "http://", "ftp://"].iter().find(|scheme| text.ends_with(**scheme));
    text.len() - scheme.map_or(0, |scheme| scheme.len())
}

fn with_spaces(text: &str, from: usize, start: usize) -> usize {
    let spaces = text[from..start].chars().rev().take(MOST_SPACES).take_while(|c| is_python_space(*c));
    start - spaces.map(char::len_utf8).sum::<usize>()
}

fn path_end(bytes: &[u8], at: usize) -> usize {
    let is_path = |b: &u8| b.is_ascii_alphanumeric() || b"-()@:%_+.~#?&/=".contains(b);
    at + bytes[at..].iter().take_while(|b| is_path(b)).count()
}

fn is_host(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-@:%._+~#=".contains(&b)
}

/// What `\w` matches.
fn is_word(c: char) -> bool {
    c == '_' || is_python_alphanumeric(c)
}

/// A character as a search without regard to case sees it.
pub(super) fn folded(c: char) -> char {
    match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        'İ' | 'ı' => 'i',
        _ => c.to_lowercase().next().unwrap_or(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let (mut scratch, mut out) = ("left over".to_owned(), "left over".to_owned());
        let changed = UrlEditor::new().remove(text, &mut scratch, &mut out);
        assert_eq!(if changed { &out } else { text }, expected, "{text:?}");
        assert_eq!(changed, text != expected);
    }

    #[test]
    fn domains_are_in_order() {
        let domains = UrlEditor::new().domains;
        assert!(domains.is_sorted() && domains.len() > 1_500);
        assert_eq!(domains.iter().map(|d| d.chars().count()).max(), Some(LONGEST_DOMAIN));
    }

    #[test]
    fn hosts_go_if_the_text_begins_like_one() {
        check("The example.com page", "The page");
        check("Xyq example.com page", "Xyq example.com page");
        check("the https://example.org/a/b?c#d, ok", "the, ok");
        check("the  \n http://example.org", "the");
        check("the a@b.dev", "the");
        check("the END.The end.the e", "the END.The end.the e");
        check("the example.comm example.com_ x.com-", "the example.comm example.com_");
        check("the seehttp://a.com b", "the see b");
        check("the x.测试 y", "the y");
        check("the a.com.b.zz c", "the c");
        check("the .com", "the .com");
        check("the (example.com) a", "the ( a");
        check("", "");
    }

    #[test]
    fn white_space_goes_up_to_ten() {
        check(&format!("the{}a.com", " ".repeat(12)), "the  ");
        check(&format!("Xyq{}1.2.3.4", "\u{a0}".repeat(11)), "Xyq\u{a0}");
    }

    #[test]
    fn hosts_have_at_most_256_characters() {
        let long = "a".repeat(300);
        check(&format!("the {long}.com b"), &format!("the {} b", "a".repeat(44)));
        check(&format!("the http://{long}.com b"), &format!("the http://{} b", "a".repeat(44)));
        check(&format!("the {}com b", "a.".repeat(200)), &format!("the {}a b", "a.".repeat(71)));
    }

    #[test]
    fn addresses_go_anywhere() {
        check("Xyq 192.168.1.254 page", "Xyq page");
        check("Xyq http://10.0.0.1/x?y page", "Xyq page");
        check("Xyq xhttp://1.2.3.4 y", "Xyq xhttp:// y");
        check("Xyq v1.2.3.4 y", "Xyq v1.2.3.4 y");
        check("Xyq 300.1.2.3 1.2.3", "Xyq 300.1.2.3 1.2.3");
        check("Xyq 300.1.2.3.4 y", "Xyq 300. y");
        check("Xyq 1.2.3.4567 y", "Xyq y");
        check("Xyq 999.999.999.999", "Xyq 999.999.999.999");
        check("1.2.3.4", "");
    }
}
