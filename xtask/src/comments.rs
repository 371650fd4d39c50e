//! The prose of Rust source: its comments.

/// The text of all line and block comments of `source`, without their markers; a blank line parts those that
/// code stands between. Strings and character literals are skipped, so that `"//"` is no comment.
pub(crate) fn comment_text(source: &str) -> String {
    let mut text = String::new();
    let mut rest = source;
    let mut code_since_last = false;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            let line = rest.lines().next().unwrap_or(rest);
            push(&mut text, line.trim_start_matches(['/', '!']), &mut code_since_last);
            rest = &rest[line.len()..];
        } else if rest.starts_with("/*") {
            let comment = block_comment(rest);
            for line in comment.lines() {
                push(&mut text, line.trim().trim_matches(['/', '*', '!']), &mut code_since_last);
            }
            rest = &rest[comment.len()..];
        } else if let Some(literal) = literal(rest) {
            code_since_last = true;
            rest = &rest[literal..];
        } else {
            code_since_last |= !c.is_whitespace();
            rest = &rest[c.len_utf8()..];
        }
    }
    text
}

fn push(text: &mut String, line: &str, code_since_last: &mut bool) {
    if std::mem::take(code_since_last) && !text.is_empty() && !text.ends_with("\n\n") {
        text.push('\n');
    }
    text.push_str(line.strip_prefix(' ').unwrap_or(line).trim_end());
    text.push('\n');
}

/// The block comment that `rest` starts with; they nest.
fn block_comment(rest: &str) -> &str {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return &rest[..at];
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest
}

/// The length of the string or character literal that `rest` starts with.
fn literal(rest: &str) -> Option<usize> {
    if let Some(raw) = rest.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 1 + hashes + 1;
            return Some(rest[body..].find(&end).map_or(rest.len(), |i| body + i + end.len()));
        }
    }
    if rest.starts_with('"') {
        return Some(quoted(rest));
    }
    // A lifetime has no closing quote where a character has it.
    let inner = rest.strip_prefix('\'')?;
    let mut chars = inner.chars();
    match chars.next()? {
        '\\' => inner[2.min(inner.len())..].find('\'').map(|i| 1 + 2 + i + 1),
        c => inner[c.len_utf8()..].starts_with('\'').then(|| 1 + c.len_utf8() + 1),
    }
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::comment_text;

    fn check(source: &str, expected: &str) {
        assert_eq!(comment_text(source), expected, "{source}");
    }

    #[test]
    fn comments_come_out_and_code_does_not() {
        check("", "");
        check("fn a() {}", "");
        check(
            "//! Top.\n//!\n//! More.\nfn a() {}\n/// Doc.\nfn b() {} // tail\n",
            "Top.\n\nMore.\n\nDoc.\n\ntail\n",
        );
        check("/* one\n * two /* nested */\n */ x", "one\ntwo /* nested\n\n");
        check(r#"let a = "// not"; // yes"#, "yes\n");
        check("let a = r#\"// not \" // not\"#; // yes", "yes\n");
        check("let q = '\"'; let e = '\\''; fn f<'a>() {} // \u{e9}t\u{e9}", "\u{e9}t\u{e9}\n");
        check("// unfinished /* block", "unfinished /* block\n");
        check("/* never closed", "never closed\n");
    }
}
