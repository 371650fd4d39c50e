//! The line edits of RefinedWeb as DCLM made them again (`baselines/mappers/modifiers.py`).
//!
//! Each goes over all lines and, all but one, takes white space off both ends of the text that remains. Nothing is
//! copied until the first line changes.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};
use memchr::memmem;

use super::dclm::strip;
use super::editor::EditorScratch;
use super::grams::lines;
use super::urls::folded;
use crate::chars::{is_decimal, is_digit, is_python_alphanumeric, is_python_space};

/// An edit of the lines of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEdit {
    /// At most two line feeds in a row.
    SqueezeLineFeeds,
    /// Drops lines of which more than half of the characters are upper-case.
    DropUppercase,
    /// Drops lines of digits alone.
    DropDigits,
    /// Drops lines such as `3 likes`.
    DropCounters,
    /// Drops lines of fewer than two words, but empty ones.
    DropShort,
    /// Takes `items in cart` out of lines of at most ten words.
    CutItemsInCart,
    /// Takes `Read more...` (any three characters) off the end of lines of at most ten words.
    CutReadMore,
    /// Takes `Sign-in` off the start of lines of at most ten words.
    CutSignIn,
}

/// What is to become of a line.
enum Line<'l> {
    Keep,
    Drop,
    /// It becomes these two pieces, one after the other.
    Become(&'l str, &'l str),
}

/// Buffers that edits need.
#[derive(Debug, Default, Clone)]
pub(crate) struct EditScratch {
    lines: String,
}

const COUNTED: [&str; 12] = [
    "likes",
    "shares",
    "comments",
    "retweets",
    "reposts",
    "quotes",
    "bookmarks",
    "upvotes",
    "downvotes",
    "downloads",
    "views",
    "followers",
];

impl LineEdit {
    /// Those of RefinedWeb, in order.
    pub(crate) const REFINEDWEB: [Self; 7] = [
        Self::DropUppercase,
        Self::DropDigits,
        Self::DropCounters,
        Self::DropShort,
        Self::CutItemsInCart,
        Self::CutReadMore,
        Self::CutSignIn,
    ];

    /// True if one of RefinedWeb's edits changes something about `text`; false is quick to find out.
    pub(crate) fn any_applies(text: &str, cart: &AhoCorasick) -> bool {
        let applies = |line: &str| {
            !line.is_empty()
                && (is_uppercase(line)
                    || is_digits(line)
                    || is_counter(line)
                    || !has_words(line, 2)
                    || without_read_more(line).is_some()
                    || without_sign_in(line).is_some())
        };
        strip(text).len() != text.len() || lines(text).any(applies) || cart.is_match(text)
    }

    /// Writes the edited text into `out`, whose contents go, if it differs; returns whether it does. `cart` is [`cart`]'s.
    pub(crate) fn apply(
        self,
        text: &str,
        cart: &AhoCorasick,
        scratch: &mut EditScratch,
        out: &mut String,
    ) -> bool {
        match self {
            Self::SqueezeLineFeeds => squeeze(text, out),
            Self::DropUppercase => edit(text, true, out, |line| keep_if(!is_uppercase(line))),
            Self::DropDigits => edit(text, true, out, |line| keep_if(!is_digits(line))),
            Self::DropCounters => edit(text, true, out, |line| keep_if(!is_counter(line))),
            Self::DropShort => edit(text, false, out, |line| keep_if(line.is_empty() || has_words(line, 2))),
            Self::CutItemsInCart => cut_items_in_cart(text, cart, scratch, out),
            Self::CutReadMore => edit(text, true, out, |line| cut(line, without_read_more)),
            Self::CutSignIn => edit(text, true, out, |line| cut(line, without_sign_in)),
        }
    }
}

fn keep_if(keep: bool) -> Line<'static> {
    if keep { Line::Keep } else { Line::Drop }
}

/// Puts every line to `decide`.
fn edit<'t>(text: &'t str, strips: bool, out: &mut String, decide: impl Fn(&'t str) -> Line<'t>) -> bool {
    let base = text.as_ptr() as usize;
    let mut changed = false;
    let mut is_first = true;
    for line in lines(text) {
        let at = line.as_ptr() as usize - base;
        let pieces = match decide(line) {
            Line::Keep if !changed => continue,
            Line::Keep => Some((line, "")),
            Line::Drop => None,
            Line::Become(left, right) => Some((left, right)),
        };
        if !changed {
            changed = true;
            out.clear();
            if at > 0 {
                out.push_str(&text[..at - 1]);
                is_first = false;
            }
        }
        if let Some((left, right)) = pieces {
            if !is_first {
                out.push('\n');
            }
            out.push_str(left);
            out.push_str(right);
            is_first = false;
        }
    }
    strip_ends(text, strips, changed, out)
}

/// Curate's edit of lines: RefinedWeb's but [`LineEdit::DropShort`], and lines of which `is_boilerplate` holds go.
///
/// Lines of one word are headings, speakers, braces and, in scripts without spaces, whole sentences. What no line is
/// taken from stays as it is, white space at its ends too.
pub(crate) fn web_lines(
    text: &str,
    cart: &AhoCorasick,
    is_boilerplate: impl Fn(&str) -> bool,
    scratch: &mut EditorScratch,
    out: &mut String,
) -> bool {
    let has_cart = cart.is_match(text)
        && LineEdit::CutItemsInCart.apply(text, cart, &mut scratch.lines, &mut scratch.spare);
    if !has_cart {
        return edit(text, false, out, |line| web_line(line, &is_boilerplate));
    }
    if !edit(&scratch.spare, false, out, |line| web_line(line, &is_boilerplate)) {
        std::mem::swap(&mut scratch.spare, out);
    }
    true
}

fn web_line<'l>(line: &'l str, is_boilerplate: &impl Fn(&str) -> bool) -> Line<'l> {
    if line.is_empty() {
        return Line::Keep;
    }
    if is_uppercase(line) || is_digits(line) || is_counter(line) || is_boilerplate(line) {
        return Line::Drop;
    }
    match cut(line, without_read_more) {
        Line::Keep => cut(line, without_sign_in),
        other => other,
    }
}

/// Takes white space off both ends of what an edit left.
fn strip_ends(text: &str, strips: bool, changed: bool, out: &mut String) -> bool {
    if !strips {
        return changed;
    }
    if !changed {
        let stripped = strip(text);
        if stripped.len() == text.len() {
            return false;
        }
        out.clear();
        out.push_str(stripped);
        return true;
    }
    let stripped = strip(out);
    let start = stripped.as_ptr() as usize - out.as_ptr() as usize;
    let end = start + stripped.len();
    out.truncate(end);
    out.drain(..start);
    true
}

fn squeeze(text: &str, out: &mut String) -> bool {
    let bytes = text.as_bytes();
    let mut done = 0;
    while let Some(found) = memmem::find(&bytes[done..], b"\n\n\n") {
        if done == 0 {
            out.clear();
        }
        let at = done + found + 2;
        out.push_str(&text[done..at]);
        done = at + bytes[at..].iter().take_while(|b| **b == b'\n').count();
    }
    if done > 0 {
        out.push_str(&text[done..]);
    }
    done > 0
}

fn is_uppercase(line: &str) -> bool {
    let upper = line.bytes().filter(u8::is_ascii_uppercase).count();
    if line.is_ascii() {
        return 2 * upper > line.len();
    }
    let (mut all, mut upper) = (0, upper);
    for c in line.chars() {
        all += 1;
        upper += usize::from(!c.is_ascii() && c.is_uppercase());
    }
    2 * upper > all
}

/// Digits make up more than 0.999999 of it: a million of them outweigh one other character.
fn is_digits(line: &str) -> bool {
    if line.len() < 1_000_000 {
        return !line.is_empty() && line.chars().all(is_digit);
    }
    let digits = line.chars().filter(|c| is_digit(*c)).count();
    digits as f64 / line.chars().count() as f64 > 0.999_999
}

/// Matches `^\W*\d[\d,.]*[kmb]?\s+(likes|...)\W*$` in any case.
fn is_counter(line: &str) -> bool {
    let is_word = |c: char| c == '_' || is_python_alphanumeric(c);
    let line = line.trim_end_matches(|c| !is_word(c));
    if !line.ends_with(['s', 'S']) {
        return false;
    }
    let Some(rest) = COUNTED.iter().find_map(|word| without_end(line, word)) else { return false };
    let number = rest.trim_end_matches(is_python_space);
    if number.len() == rest.len() {
        return false;
    }
    let number = number.strip_suffix(['k', 'm', 'b', 'K', 'M', 'B', '\u{212a}']).unwrap_or(number);
    let before = number.trim_end_matches(|c| matches!(c, ',' | '.') || is_decimal(c));
    number[before.len()..].contains(is_decimal) && !before.contains(is_word)
}

/// `text` without `word`, which is lower-case, at its end.
fn without_end<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let mut rest = text.char_indices().rev();
    let mut start = text.len();
    for expected in word.chars().rev() {
        let (at, c) = rest.next()?;
        // Lower case alone, so `ſ` stays what it is.
        if c.to_lowercase().next() != Some(expected) {
            return None;
        }
        start = at;
    }
    Some(&text[..start])
}

fn has_words(line: &str, words: usize) -> bool {
    let mut left = words;
    let mut was_space = true;
    for c in line.chars() {
        let is_space =
            if c.is_ascii() { matches!(c, '\t'..='\r' | '\u{1c}'..=' ') } else { is_python_space(c) };
        if was_space && !is_space {
            left -= 1;
            if left == 0 {
                return true;
            }
        }
        was_space = is_space;
    }
    false
}

/// Lines of at most ten words lose what `without` finds, and go if white space is all that is left.
fn cut<'l>(line: &'l str, without: impl Fn(&'l str) -> Option<(&'l str, &'l str)>) -> Line<'l> {
    if line.is_empty() {
        return Line::Keep;
    }
    let found = without(line);
    let is_blank = match found {
        Some((left, right)) => strip(left).is_empty() && strip(right).is_empty(),
        None => strip(line).is_empty(),
    };
    match found {
        None if !is_blank => Line::Keep,
        _ if has_words(line, 11) => Line::Keep,
        _ if is_blank => Line::Drop,
        Some((left, right)) => Line::Become(left, right),
        None => Line::Keep,
    }
}

/// Byte length of `phrase`, which is lower-case, at the start of `text` in any case.
fn phrase_at(text: &str, phrase: &str) -> Option<usize> {
    let mut rest = text.char_indices();
    for expected in phrase.chars() {
        if folded(rest.next()?.1) != expected {
            return None;
        }
    }
    Some(rest.offset())
}

fn without_read_more(line: &str) -> Option<(&str, &str)> {
    const PHRASE: &str = "read more";
    let at = line.char_indices().rev().nth(PHRASE.len() + 2)?.0;
    phrase_at(&line[at..], PHRASE)?;
    Some((without_space_at_end(&line[..at]), ""))
}

fn without_sign_in(line: &str) -> Option<(&str, &str)> {
    let end = phrase_at(line, "sign-in")?;
    let rest = &line[end..];
    Some(("", rest.strip_prefix(is_python_space).unwrap_or(rest)))
}

fn without_space_at_end(text: &str) -> &str {
    text.strip_suffix(is_python_space).unwrap_or(text)
}

/// The end of `items in cart`, in any case: its letters have no other forms than those of ASCII.
pub(crate) fn cart() -> AhoCorasick {
    AhoCorasickBuilder::new().ascii_case_insensitive(true).build(["n cart"]).expect("a short pattern")
}

fn cut_items_in_cart(text: &str, cart: &AhoCorasick, scratch: &mut EditScratch, out: &mut String) -> bool {
    const PHRASE: &str = "items in cart";
    let has_phrase = cart.is_match(text);
    let is_blank = |line: &str| !line.is_empty() && strip(line).is_empty();
    if !has_phrase && !lines(text).any(is_blank) {
        return strip_ends(text, true, false, out);
    }
    let left = &mut scratch.lines;
    left.clear();
    let mut is_first = true;
    for line in lines(text) {
        let start = left.len() + usize::from(!is_first);
        if line.is_empty() || has_words(line, 11) {
            push_line(left, &mut is_first, line);
            continue;
        }
        let mut rest = line;
        if !is_first {
            left.push('\n');
        }
        while let Some((at, end)) = find(rest, PHRASE) {
            left.push_str(without_space_at_end(&rest[..at]));
            rest = &rest[end..];
        }
        left.push_str(rest);
        if strip(&left[start..]).is_empty() {
            left.truncate(start.saturating_sub(usize::from(!is_first)));
        } else {
            is_first = false;
        }
    }
    let stripped = strip(left);
    if stripped == text {
        return false;
    }
    out.clear();
    out.push_str(stripped);
    true
}

fn push_line(lines: &mut String, is_first: &mut bool, line: &str) {
    if !*is_first {
        lines.push('\n');
    }
    lines.push_str(line);
    *is_first = false;
}

/// Where `phrase` first stands in `text`, in any case.
fn find(text: &str, phrase: &str) -> Option<(usize, usize)> {
    text.char_indices().find_map(|(at, _)| Some((at, at + phrase_at(&text[at..], phrase)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(edit: LineEdit, text: &str, expected: &str) {
        let mut out = "left over".to_owned();
        let changed = edit.apply(text, &cart(), &mut EditScratch::default(), &mut out);
        assert_eq!(if changed { &out } else { text }, expected, "{edit:?}: {text:?}");
    }

    #[test]
    fn lines_of_the_web() {
        let check = |text: &str, expected: &str| {
            let (mut out, mut scratch) = ("left over".to_owned(), EditorScratch::default());
            let changed = web_lines(text, &cart(), |line| line.contains("cookies"), &mut scratch, &mut out);
            assert_eq!(if changed { &out } else { text }, expected, "{text:?}");
        };
        check("Intro\n\nA line stays. \n汉字\n", "Intro\n\nA line stays. \n汉字\n");
        check("SIGN UP NOW\na b\n12\n3 likes\nwe use cookies\n", "a b\n");
        check("a b Read more...\nSign-in here", "a b\nhere");
        check("a 2 items in cart b\n7", "a 2 b");
        check("2 items in cart\nLine", "Line");
        check("ONLY CAPITALS", "");
        check("", "");
    }

    #[test]
    fn line_feeds() {
        let edit = LineEdit::SqueezeLineFeeds;
        check(edit, "\n\n\n\na\n\nb\n\n\nc\n\n\n\n\n", "\n\na\n\nb\n\nc\n\n");
        check(edit, "a\n \n\nb", "a\n \n\nb");
    }

    #[test]
    fn upper_case_and_digits() {
        check(LineEdit::DropUppercase, "a b\nABc\nAb\n\nÉÉe\nc ", "a b\nAb\n\nc");
        check(LineEdit::DropDigits, "12\n1 2\n\n٣²\na", "1 2\n\na");
        check(LineEdit::DropDigits, "12", "");
    }

    #[test]
    fn counters() {
        for line in [
            "3 likes",
            "(1,024 Views)",
            "•7\u{a0}shares!",
            "5k likes",
            ",1.2M\t followers",
            "٣ likes",
            "3 bookmar\u{212a}s",
        ] {
            check(LineEdit::DropCounters, &format!("a b\n{line}\nc"), "a b\nc");
        }
        for line in [
            "no likes",
            "3likes",
            "x 3 likes",
            "5kk likes",
            "² likes",
            "3 likes more",
            "5 k likes",
            "_1 likes",
        ] {
            let text = format!("a b\n{line}\nc");
            check(LineEdit::DropCounters, &text, &text);
        }
    }

    #[test]
    fn short_lines_go_and_nothing_is_stripped() {
        check(LineEdit::DropShort, " a b \none\n\n  \n\u{a0}\nc d ", " a b \n\nc d ");
    }

    #[test]
    fn phrases() {
        check(
            LineEdit::CutItemsInCart,
            "3 items in cart\nITEMS IN CART items in cart\nthe ıtems in cart",
            "3\nthe",
        );
        check(LineEdit::CutItemsInCart, "a b\n   \nc", "a b\nc");
        let long = "a b c d e f g h items in cart";
        check(LineEdit::CutItemsInCart, long, long);
        check(
            LineEdit::CutReadMore,
            "go on Read more...\nread moreabc\nread more..\na",
            "go on\nread more..\na",
        );
        check(LineEdit::CutSignIn, "Sign-in now\nſign-in\nplease sign-in", "now\nplease sign-in");
        check(LineEdit::CutSignIn, " a b \n", "a b");
    }
}
