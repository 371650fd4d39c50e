//! Is a page too large to parse? Answered from its bytes, so the answer is the same on every machine.
//!
//! HTML can make a parser do far more than its size says: a format element that is never closed (`<font>`) is
//! opened again in every later block, so n of them and n blocks make n² nodes, and each start tag looks through
//! all open elements. Both are estimated here from counts of start and end tags, from above.

use memchr::memchr;

/// Elements deeper than this are no page that people read; browsers stop at 512.
const MAX_DEPTH: usize = 5_000;
/// Nodes that reopened format elements may add, as a multiple of the tag limit.
const MAX_REOPENED: usize = 5;

/// Elements that the parser reopens (`a` and `nobr` close themselves, so they cannot pile up).
const FORMATTING: &[&[u8]] =
    &[b"b", b"big", b"code", b"em", b"font", b"i", b"s", b"small", b"strike", b"strong", b"tt", b"u"];
/// Other elements that pile up when they are not closed; each counted for itself, so that a stray end tag of one
/// cannot hide the depth of another.
const NESTING: &[&[u8]] = &[
    b"article",
    b"blockquote",
    b"center",
    b"details",
    b"dir",
    b"div",
    b"dl",
    b"fieldset",
    b"figure",
    b"form",
    b"main",
    b"menu",
    b"nav",
    b"object",
    b"ol",
    b"section",
    b"span",
    b"table",
    b"template",
    b"ul",
];
/// Elements that have no end tag, or whose end is implied by the next start.
const FLAT: &[&[u8]] = &[
    b"area",
    b"base",
    b"body",
    b"br",
    b"button",
    b"col",
    b"colgroup",
    b"dd",
    b"dt",
    b"embed",
    b"frame",
    b"head",
    b"hr",
    b"html",
    b"img",
    b"input",
    b"li",
    b"link",
    b"meta",
    b"nobr",
    b"optgroup",
    b"option",
    b"p",
    b"param",
    b"path",
    b"source",
    b"tbody",
    b"td",
    b"tfoot",
    b"th",
    b"thead",
    b"tr",
    b"track",
    b"use",
    b"wbr",
    b"a",
];

/// Whether a page has more than `max_tags` tags, nests deeper than people do, or would grow in the parser.
pub(crate) fn is_too_large(html: &str, max_tags: usize) -> bool {
    let bytes = html.as_bytes();
    if bytes.len() >= u32::MAX as usize / 2 {
        return true; // Positions in the tree are 32-bit.
    }
    let mut tags = Tags::default();
    let mut at = 0;
    while let Some(found) = memchr(b'<', &bytes[at..]) {
        at += found + 1;
        let (is_end, from) = if bytes.get(at) == Some(&b'/') { (true, at + 1) } else { (false, at) };
        let name = tag_name(&bytes[from..]);
        if name.is_empty() {
            continue;
        }
        at = from + name.len();
        tags.count += 1;
        tags.see(name, is_end, &bytes[at..]);
        if tags.count > max_tags
            || tags.depth() > MAX_DEPTH
            || tags.reopened > max_tags.saturating_mul(MAX_REOPENED)
        {
            return true;
        }
        if !is_end && (is(name, b"script") || is(name, b"style")) {
            at = end_of_raw_text(bytes, at, name);
        }
    }
    false
}

#[derive(Default)]
struct Tags {
    count: usize,
    open_formatting: [usize; FORMATTING.len()],
    formatting: usize,
    open_nesting: [usize; NESTING.len()],
    nesting: usize,
    open_other: usize,
    reopened: usize,
}

impl Tags {
    /// Counts a tag; `rest` is what follows its name.
    fn see(&mut self, name: &[u8], is_end: bool, rest: &[u8]) {
        if FLAT.iter().any(|flat| is(name, flat)) {
            self.reopened = self.reopened.saturating_add(self.formatting);
            return;
        }
        if let Some(at) = NESTING.iter().position(|other| is(name, other)) {
            step(&mut self.open_nesting[at], &mut self.nesting, is_end);
            self.reopened = self.reopened.saturating_add(self.formatting);
        } else if let Some(at) = FORMATTING.iter().position(|other| is(name, other)) {
            step(&mut self.open_formatting[at], &mut self.formatting, is_end);
        } else if is_end || !closes_itself(rest) {
            let mut unused = usize::MAX / 2;
            step(&mut self.open_other, &mut unused, is_end);
        }
    }

    fn depth(&self) -> usize {
        self.nesting + self.formatting + self.open_other
    }
}

fn step(open: &mut usize, total: &mut usize, is_end: bool) {
    if !is_end {
        *open += 1;
        *total += 1;
    } else if *open > 0 {
        *open -= 1;
        *total -= 1;
    }
}

/// Whether the tag ends with `/>`, as the shapes of drawings do.
fn closes_itself(rest: &[u8]) -> bool {
    memchr(b'>', rest).is_some_and(|end| rest[..end].ends_with(b"/"))
}

fn is(name: &[u8], lower: &[u8]) -> bool {
    name.eq_ignore_ascii_case(lower)
}

/// The name at the start of the bytes; empty where `<` starts no tag.
fn tag_name(bytes: &[u8]) -> &[u8] {
    if !bytes.first().is_some_and(u8::is_ascii_alphabetic) {
        return &[];
    }
    let end = bytes.iter().position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/' | b'<'));
    &bytes[..end.unwrap_or(bytes.len())]
}

/// Where the end tag of a script or style begins; its text is not markup.
fn end_of_raw_text(bytes: &[u8], mut at: usize, name: &[u8]) -> usize {
    while let Some(found) = memchr(b'<', &bytes[at..]) {
        at += found;
        let rest = &bytes[at + 1..];
        if rest.first() == Some(&b'/') && rest.get(1..=name.len()).is_some_and(|other| is(other, name)) {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(html: &str, max_tags: usize, expected: bool) {
        let start: String = html.chars().take(60).collect();
        assert_eq!(is_too_large(html, max_tags), expected, "{start}… of {} bytes", html.len());
    }

    #[test]
    fn tags_are_counted_and_scripts_are_not() {
        check("", 0, false);
        check("<p>", 0, true);
        check(&"<p>x</p>".repeat(100), 200, false);
        check(&"<p>x</p>".repeat(100), 199, true);
        check(&"1 < 2 <3 </ ".repeat(20_000), 100, false);
        let script = format!("<script>{}</script><p>", "<p>".repeat(20_000));
        check(&script, 10, false);
        check(&script.replace("</script>", ""), 10, false);
    }

    #[test]
    fn what_grows_in_the_parser_is_too_large() {
        check(&"<div>".repeat(100_000), 200_000, true);
        check(&"<div></p></span>".repeat(6_000), 200_000, true);
        check(&"<table><tr>".repeat(90_000), 200_000, true);
        check(&"<x-y>".repeat(6_000), 200_000, true);
        let fonts: String = (0..2_000).map(|n| format!("<font size={n}>")).collect();
        check(&(fonts + &"<p>x".repeat(10_000)), 200_000, true);
        check(&"<svg><circle r=1/></svg>".repeat(10_000), 200_000, false);
        check(&"<div><p>x<span>y</span></div>".repeat(10_000), 200_000, false);
        check(&"<ul><li>a<li>b</ul><p><font>x</font>".repeat(20_000), 200_000, false);
    }
}
