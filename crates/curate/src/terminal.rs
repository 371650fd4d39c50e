//! Text from anywhere, shown in a terminal: made harmless, measured and wrapped.

use std::io::{IsTerminal, stdout};
use std::iter;
use std::mem::MaybeUninit;

/// Columns where stdout is no terminal.
const DEFAULT_WIDTH: usize = 100;

/// Columns of the terminal behind stdout.
pub(crate) fn width() -> usize {
    if !stdout().is_terminal() {
        return DEFAULT_WIDTH;
    }
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: TIOCGWINSZ writes a whole winsize through a valid pointer, and all-zero is a valid winsize besides.
    let size = unsafe {
        libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr());
        size.assume_init()
    };
    match usize::from(size.ws_col) {
        0 => DEFAULT_WIDTH,
        columns => columns.max(20),
    }
}

/// The text with every character that a terminal would act upon replaced by one that shows it: control characters
/// by their pictures, those that reorder text by a question mark. The number of characters stays.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            '\0'..='\u{1f}' => char::from_u32(0x2400 + c as u32).expect("the pictures of U+0000 to U+001F"),
            '\u{7f}' => '\u{2421}',
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Columns that a character takes: two for those of East Asian scripts and for emoji, one for all others.
fn columns(c: char) -> usize {
    match c {
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// Columns that a text takes.
pub(crate) fn text_columns(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// The beginning of a text that fits into `width` columns, made printable; `…` says that more follows.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let Some(first) = wrap_anywhere(text, width) else { return String::new() };
    if first.len() == text.len() {
        return printable(text);
    }
    let cut = wrap_anywhere(text, width.saturating_sub(1)).unwrap_or("");
    printable(cut) + "…"
}

/// The longest beginning that fits, at least one character long.
fn wrap_anywhere(text: &str, width: usize) -> Option<&str> {
    let mut used = 0;
    let over = text.char_indices().find(|(i, c)| {
        used += columns(*c);
        used > width && *i > 0
    });
    Some(&text[..over.map_or(text.len(), |(i, _)| i)]).filter(|part| !part.is_empty())
}

/// Rows of at most `width` columns that a line is shown as: broken after spaces where there are any. A blank line
/// is one empty row.
pub(crate) fn wrap(line: &str, width: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    iter::from_fn(move || {
        let text = rest?;
        let fits = wrap_anywhere(text, width).unwrap_or("");
        if fits.len() == text.len() {
            rest = None;
            return Some(text.trim_end());
        }
        // A space that would begin the next row ends this one instead.
        let end = match text[fits.len()..].starts_with(' ') {
            true => fits.len() + 1,
            false => fits.rfind(' ').map_or(fits.len(), |space| space + 1),
        };
        rest = Some(&text[end..]);
        Some(text[..end].trim_end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wrap_at_spaces_and_else_anywhere() {
        let check = |line: &str, width: usize, expected: &[&str]| {
            assert_eq!(wrap(line, width).collect::<Vec<_>>(), expected, "{line:?} at {width}");
        };
        check("", 10, &[""]);
        check("one two three", 13, &["one two three"]);
        check("one two three", 9, &["one two", "three"]);
        check("one two three", 7, &["one two", "three"]);
        check("abcdefghij", 4, &["abcd", "efgh", "ij"]);
        check("一二三四", 4, &["一二", "三四"]);
        check("一二", 1, &["一", "二"]);
        check("  indented text", 11, &["  indented", "text"]);
    }

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_act_upon() {
        assert_eq!(
            printable("a\u{1b}[31m\tb\u{7f}\u{9b}\u{202e}é"),
            "a\u{241b}[31m b\u{2421}\u{fffd}\u{fffd}é"
        );
    }

    #[test]
    fn long_texts_are_shortened_by_columns() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("longer", 5), "long…");
        assert_eq!(shortened("一二三", 5), "一二…");
        assert_eq!(shortened("", 5), "");
        assert_eq!(text_columns("一a"), 3);
    }
}
