//! Header lines of WARC and HTTP, the record line of ARC, and how long the record is that they begin.

use std::borrow::Cow;

/// The longest block of headers that is looked at.
const HEADERS_MAX: usize = 1 << 20;
/// The longest record line of an ARC file.
const ARC_LINE_MAX: usize = 64 << 10;

/// A block of `Name: value` lines, ended by CRLF or LF, looked through on demand.
///
/// Names are compared without regard to case; a line that begins with a space or a tab continues the one before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    pub(crate) fn new(lines: &'a [u8]) -> Self {
        Self(lines)
    }

    /// The value of the first header called `name` that has one; bytes that are not UTF-8 are replaced.
    pub(crate) fn get(self, name: &str) -> Option<Cow<'a, str>> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// The values of all headers called `name`.
    pub(crate) fn all(self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        let mut lines = lines(self.0).peekable();
        std::iter::from_fn(move || {
            loop {
                let Some(value) = value_of(lines.next()?, name) else { continue };
                let mut value = String::from_utf8_lossy(value);
                while let Some(more) = lines.next_if(|line| line.starts_with(b" ") || line.starts_with(b"\t"))
                {
                    let joined = format!("{value} {}", String::from_utf8_lossy(more.trim_ascii()));
                    value = Cow::Owned(joined.trim().to_owned());
                }
                return Some(value);
            }
        })
    }
}

/// The lines of `bytes` without their ends.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The value in `line` if it is a header called `name`.
fn value_of<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name.as_bytes()) {
        return None;
    }
    rest.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii)
}

/// The length of the headers that `bytes` begins with, with the blank line after them; `None` without one.
pub(crate) fn headers_end(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        if matches!(&bytes[start..end], b"" | b"\r") {
            return Some(end + 1);
        }
        start = end + 1;
    }
    None
}

/// What stands where a record is expected.
#[derive(Debug, PartialEq)]
pub(crate) enum Head {
    /// More bytes are needed to tell.
    Incomplete,
    /// A record of `header` bytes, the blank line among them, and `content` bytes after them.
    Record { header: usize, content: u64 },
    /// No record, or one whose length cannot be told; the message says what was expected.
    Alien(String),
}

/// Reads the head of a WARC record of any version.
pub(crate) fn warc_head(bytes: &[u8]) -> Head {
    if bytes.len() < 6 && b"WARC/".starts_with(&bytes[..bytes.len().min(5)]) {
        return Head::Incomplete;
    }
    if !is_warc_version(bytes) {
        return Head::Alien("expected a record that starts with `WARC/`".to_owned());
    }
    let mut content = None;
    let mut at = 0;
    while let Some(len) = memchr::memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..at + len];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        at += len + 1;
        if at > HEADERS_MAX {
            break;
        }
        if let Some(value) = value_of(line, "content-length")
            && content.is_none()
        {
            let Some(length) = number(value) else {
                let found = excerpt(value);
                return Head::Alien(format!("expected a number in Content-Length, found `{found}`"));
            };
            content = Some(length);
        }
        if line.is_empty() {
            match (content, goes_on(&bytes[at..])) {
                (Some(content), _) => return Head::Record { header: at, content },
                (None, Some(true)) => {}
                (None, Some(false)) => return Head::Alien("expected a Content-Length header".to_owned()),
                (None, None) => return Head::Incomplete,
            }
        }
    }
    if bytes.len() > HEADERS_MAX {
        return Head::Alien(format!("expected the headers of a record to end within {HEADERS_MAX} bytes"));
    }
    Head::Incomplete
}

pub(crate) fn is_warc_version(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"WARC/").and_then(|rest| rest.first()).is_some_and(u8::is_ascii_digit)
}

/// Whether more headers follow a blank line among them, as in some records of ClueWeb; `None` if that is open.
fn goes_on(rest: &[u8]) -> Option<bool> {
    let names: [&[u8]; 2] = [b"WARC-", b"Content-"];
    let fits = |name: &[u8]| {
        let n = rest.len().min(name.len());
        rest[..n].eq_ignore_ascii_case(&name[..n]).then_some(n == name.len())
    };
    match names.into_iter().find_map(fits) {
        Some(true) => Some(true),
        Some(false) => None,
        None => Some(false),
    }
}

/// What the record line of an ARC file says, version 1 or 2.
#[derive(Debug, PartialEq)]
pub(crate) struct ArcLine<'a> {
    pub(crate) url: &'a [u8],
    /// Digits: year, month, day, hour, minute, second.
    pub(crate) date: &'a [u8],
    pub(crate) media_type: &'a [u8],
    length: &'a [u8],
}

impl<'a> ArcLine<'a> {
    /// Reads `URL IP date type … length`. The URL may hold spaces, so the address and the date are looked for from
    /// the right.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (before_length, length) = split_last(line)?;
        let mut rest = before_length;
        let mut after_date = line.len();
        loop {
            let (before, token) = split_last(rest)?;
            if is_date(token)
                && let Some((url, address)) = split_last(before)
                && is_address(address)
            {
                let between = before_length.get(after_date..).unwrap_or_default();
                let media_type = between.split(|b| *b == b' ').next().unwrap_or_default();
                return url.contains(&b':').then_some(Self { url, date: token, media_type, length });
            }
            after_date = before.len() + 1;
            rest = before;
        }
    }
}

/// `line` before and after its last space.
fn split_last(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memrchr(b' ', line)?;
    Some((&line[..at], &line[at + 1..]))
}

fn is_date(token: &[u8]) -> bool {
    (8..=20).contains(&token.len()) && token.iter().all(u8::is_ascii_digit)
}

fn is_address(token: &[u8]) -> bool {
    token.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b'.' | b':'))
        && token.iter().any(|b| matches!(b, b'.' | b':'))
}

/// Reads the head of an ARC record: its line.
pub(crate) fn arc_head(bytes: &[u8]) -> Head {
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(ARC_LINE_MAX)]) else {
        return if bytes.len() < ARC_LINE_MAX {
            Head::Incomplete
        } else {
            Head::Alien(format!("expected a record line of less than {ARC_LINE_MAX} bytes"))
        };
    };
    let Some(line) = ArcLine::parse(&bytes[..end]) else {
        return Head::Alien("expected a record line `URL IP-address date type length`".to_owned());
    };
    match number(line.length) {
        Some(content) => Head::Record { header: end + 1, content },
        None => Head::Alien(format!(
            "expected a length at the end of a record line, found `{}`",
            excerpt(line.length)
        )),
    }
}

/// Looks for a record behind a line end: where it starts, or how many bytes need not be looked at again.
pub(crate) fn find_warc(bytes: &[u8]) -> Result<usize, usize> {
    let mark = b"\nWARC/";
    for at in memchr::memmem::find_iter(bytes, mark) {
        if is_warc_version(&bytes[at + 1..]) {
            return Ok(at + 1);
        }
    }
    Err(bytes.len().saturating_sub(mark.len()))
}

/// Like [`find_warc`], for record lines of ARC files.
pub(crate) fn find_arc(bytes: &[u8]) -> Result<usize, usize> {
    let mut last = None;
    for at in memchr::memchr_iter(b'\n', bytes) {
        if let Some(before) = last
            && at - before <= ARC_LINE_MAX
            && ArcLine::parse(&bytes[before + 1..at]).is_some()
        {
            return Ok(before + 1);
        }
        last = Some(at);
    }
    match last {
        Some(at) if bytes.len() - at <= ARC_LINE_MAX => Err(at),
        _ => Err(bytes.len()),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The beginning of `value`, fit for a message.
fn excerpt(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(40)]).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_by_name() {
        let headers = Headers::new(
            b"HTTP/1.1 200 OK\r\nA: 1\nContent-Type : text/html;\r\n\t charset=x \r\na: 2\r\nEmpty:\r\nempty: e\nno colon\n",
        );
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(headers.get(name).as_deref(), expected, "{name}");
        };
        check("a", Some("1"));
        check("CONTENT-TYPE", Some("text/html; charset=x"));
        check("content", None);
        check("empty", Some("e"));
        check("no colon", None);
        assert_eq!(headers.all("A").collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn headers_end_at_a_blank_line() {
        for (bytes, end) in
            [("a\r\n\r\nb", Some(5)), ("a\n\nb", Some(3)), ("\nb", Some(1)), ("a\r\n", None), ("", None)]
        {
            assert_eq!(headers_end(bytes.as_bytes()), end, "{bytes:?}");
        }
    }

    #[test]
    fn heads_of_warc_records() {
        let check = |bytes: &str, header: usize, content: u64| {
            assert_eq!(warc_head(bytes.as_bytes()), Head::Record { header, content }, "{bytes:?}");
        };
        check("WARC/1.0\r\nContent-Length: 7\r\n\r\nrest", 31, 7);
        check("WARC/0.17\ncontent-length:0\ncontent-length:9\n\n", 45, 0);
        check("WARC/0.18\nWARC-Type: response\n\nContent-Length: 3\n\nabc", 50, 3);
        let alien = |bytes: &str, part: &str| match warc_head(bytes.as_bytes()) {
            Head::Alien(message) => assert!(message.contains(part), "{bytes:?}: {message}"),
            other => panic!("{bytes:?}: {other:?}"),
        };
        alien("WARB/", "starts with `WARC/`");
        alien("WARC/x", "starts with `WARC/`");
        alien("x", "starts with `WARC/`");
        alien("WARC/1.0\n\nxyz", "Content-Length header");
        alien("WARC/1.0\nContent-Length: -1\n\n", "found `-1`");
        alien("WARC/1.0\nContent-Length: 99999999999999999999999\n\n", "a number");
        alien(&format!("WARC/1.0\n{}", "A: b\n".repeat(300_000)), "end within");
        for open in ["", "W", "WARC/", "WARC/1.0", "WARC/1.0\nContent-Length: 3\n", "WARC/1.0\n\nCont"] {
            assert_eq!(warc_head(open.as_bytes()), Head::Incomplete, "{open:?}");
        }
    }

    #[test]
    fn lines_of_arc_records() {
        let check = |line: &str, url: &str, media_type: &str, length: &str| {
            let parsed = ArcLine::parse(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
            let text = |bytes| std::str::from_utf8(bytes).unwrap();
            assert_eq!(
                (text(parsed.url), text(parsed.media_type), text(parsed.length)),
                (url, media_type, length)
            );
            assert_eq!(parsed.date, b"20080430204825");
        };
        check("http://a.b/ 1.2.3.4 20080430204825 text/html 12", "http://a.b/", "text/html", "12");
        check(
            "http://a.b/c d e 1.2.3.4 20080430204825 text/html 12\r",
            "http://a.b/c d e",
            "text/html",
            "12",
        );
        check("dns:a ::1 20080430204825 text/dns 5", "dns:a", "text/dns", "5");
        check(
            "http://a/ 1.2.3.4 20080430204825 text/html 200 CHECK - 20080430 file.arc 7",
            "http://a/",
            "text/html",
            "7",
        );
        check("http://a/ 1.2.3.4 20080430204825 abc", "http://a/", "", "abc");
        for line in
            ["", "a b c d e", "http://a/ 1.2.3.4 text/html 5", "nothing 1.2.3.4 20080430204825 text/html 5"]
        {
            assert_eq!(ArcLine::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn the_next_record_is_found_behind_a_line_end() {
        assert_eq!(find_warc(b"WARC/1.0 x\nWARC/no\nWARC/1.1"), Ok(19));
        assert_eq!(find_warc(b"abc\nWARC/"), Err(3));
        assert_eq!(find_warc(b"ab"), Err(0));
        assert_eq!(find_arc(b"x y\nhttp://a/ 1.2.3.4 20080430204825 t 5\n"), Ok(4));
        assert_eq!(find_arc(b"x y\nhttp://a/ 1.2.3.4 20080430204825 t 5"), Err(3));
        assert_eq!(find_arc(&[b'x'; 100]), Err(100));
    }
}
