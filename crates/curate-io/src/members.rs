//! One pass over a record that checks its JSON and says where the members of its object are.
//!
//! A corpus is mostly strings, and the pass is made for them: sixty-four bytes are classed at once, and a string is
//! left only at a quote, a backslash or a control character. What is refused here is looked at again by the library,
//! which says what is wrong; what is accepted is what the library would have accepted.

use crate::json::{MAX_DEPTH, UNESCAPED, code_point};

/// A value of the record's object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member<'a> {
    /// Where it starts in the record.
    pub(crate) start: usize,
    /// As it stands there.
    pub(crate) spelled: &'a str,
    /// UTF-8 bytes of the text that a string stands for; `None` for any other value.
    pub(crate) text_len: Option<usize>,
}

/// Calls `visit` with the name, as it is spelled between its quotes, and the value of each member of the object that
/// `record` is. `None` if `record` is no JSON object in UTF-8 with nothing but white space around it.
///
/// An escape of half a surrogate pair is refused, wherever it is.
pub(crate) fn members<'a>(record: &'a [u8], mut visit: impl FnMut(&'a str, Member<'a>)) -> Option<()> {
    let spelled = simdutf8::basic::from_utf8(record).ok()?;
    let mut scan = Scan { bytes: record, at: 0 };
    scan.skip_space();
    scan.expect(b'{')?;
    scan.skip_space();
    if !scan.accept(b'}') {
        loop {
            scan.expect(b'"')?;
            let start = scan.at;
            scan.string()?;
            let name = &spelled[start..scan.at - 1];
            scan.colon()?;
            let start = scan.at;
            let text_len = scan.value()?;
            visit(name, Member { start, spelled: &spelled[start..scan.at], text_len });
            scan.skip_space();
            if !scan.accept(b',') {
                scan.expect(b'}')?;
                break;
            }
            scan.skip_space();
        }
    }
    scan.skip_space();
    (scan.at == record.len()).then_some(())
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.accept(byte).then_some(())
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn colon(&mut self) -> Option<()> {
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Some(())
    }

    /// Any value; the length of its text if it is a string.
    fn value(&mut self) -> Option<Option<usize>> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string().map(Some)
            }
            b'{' | b'[' => self.container().map(|()| None),
            _ => self.scalar().map(|()| None),
        }
    }

    /// The rest of a string after its opening quote; returns the bytes of the text that it stands for.
    fn string(&mut self) -> Option<usize> {
        let start = self.at;
        let mut saved = 0;
        loop {
            let rest = &self.bytes[self.at..];
            let mut specials = match rest.first_chunk() {
                Some(chunk) => specials(chunk),
                None if rest.is_empty() => return None,
                None => specials_at_the_end(rest),
            };
            let chunk = self.at;
            self.at = self.bytes.len().min(chunk + CHUNK);
            while specials != 0 {
                let at = chunk + specials.trailing_zeros() as usize;
                match self.bytes[at] {
                    b'"' => {
                        self.at = at + 1;
                        return Some(at - start - saved);
                    }
                    b'\\' => {
                        let (spelled, len) = escape(&self.bytes[at + 1..])?;
                        let spelled = spelled + 1;
                        saved += spelled - len;
                        let next = at + spelled - chunk;
                        if next >= CHUNK {
                            self.at = chunk + next;
                            break;
                        }
                        specials &= u64::MAX << next;
                    }
                    _ => return None,
                }
            }
        }
    }

    /// An object or an array, with all that is in it.
    fn container(&mut self) -> Option<()> {
        let mut open = Open::default();
        open.push(self.peek()? == b'{')?;
        self.at += 1;
        'values: loop {
            // Before a value (or a name), or before the bracket that closes an empty container.
            self.skip_space();
            if !self.accept(open.closing()) {
                loop {
                    if open.is_object() {
                        self.expect(b'"')?;
                        self.string()?;
                        self.colon()?;
                    }
                    match self.peek()? {
                        bracket @ (b'{' | b'[') => {
                            open.push(bracket == b'{')?;
                            self.at += 1;
                            continue 'values;
                        }
                        b'"' => {
                            self.at += 1;
                            self.string()?;
                        }
                        _ => self.scalar()?,
                    }
                    self.skip_space();
                    if !self.accept(b',') {
                        self.expect(open.closing())?;
                        break;
                    }
                    self.skip_space();
                }
            }
            // A container has been closed; so may be those around it.
            loop {
                if !open.pop() {
                    return Some(());
                }
                self.skip_space();
                if self.accept(b',') {
                    break;
                }
                self.expect(open.closing())?;
            }
            self.skip_space();
            if self.peek() == Some(open.closing()) {
                return None; // a comma with nothing after it
            }
        }
    }

    /// A number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Option<()> {
        let rest = &self.bytes[self.at..];
        for literal in [b"true".as_slice(), b"false", b"null"] {
            if rest.starts_with(literal) {
                self.at += literal.len();
                return Some(());
            }
        }
        self.accept(b'-');
        if !self.accept(b'0') {
            self.digits()?;
        }
        if self.accept(b'.') {
            self.digits()?;
        }
        if self.accept(b'e') || self.accept(b'E') {
            let _sign = self.accept(b'+') || self.accept(b'-');
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// The containers that are open, the outermost first: a bit for each, set for an object.
#[derive(Default)]
struct Open {
    kinds: [u64; MAX_DEPTH.div_ceil(64)],
    depth: usize,
}

impl Open {
    /// `None` if that is too deep.
    fn push(&mut self, is_object: bool) -> Option<()> {
        // The record's own object counts too.
        if self.depth + 1 == MAX_DEPTH {
            return None;
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        self.kinds[word] = self.kinds[word] & !(1 << bit) | u64::from(is_object) << bit;
        self.depth += 1;
        Some(())
    }

    /// False if that was the outermost.
    fn pop(&mut self) -> bool {
        self.depth -= 1;
        self.depth > 0
    }

    fn is_object(&self) -> bool {
        let top = self.depth - 1;
        self.kinds[top / 64] >> (top % 64) & 1 == 1
    }

    fn closing(&self) -> u8 {
        if self.is_object() { b'}' } else { b']' }
    }
}

/// What the bytes after a backslash stand for: how many they are, and the UTF-8 bytes of their character.
fn escape(rest: &[u8]) -> Option<(usize, usize)> {
    match *rest.first()? {
        b'u' => code_point(&rest[1..]).map(|(c, digits)| (1 + digits, c.len_utf8())),
        byte => (UNESCAPED[byte as usize] != 0).then_some((1, 1)),
    }
}

const CHUNK: usize = 64;

/// A bit for each quote, backslash and control character.
#[cfg(target_arch = "x86_64")]
fn specials(chunk: &[u8; CHUNK]) -> u64 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };
    let (quarters, _) = chunk.as_chunks::<16>();
    let mut mask = 0;
    for (i, quarter) in quarters.iter().enumerate() {
        let (halves, _) = quarter.as_chunks::<8>();
        // SAFETY: SSE2 is part of x86-64.
        let bits = unsafe {
            let bytes = _mm_set_epi64x(i64::from_le_bytes(halves[1]), i64::from_le_bytes(halves[0]));
            let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let backslashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            let controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
            _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quotes, backslashes), controls))
        };
        mask |= u64::from(bits as u16) << (16 * i);
    }
    mask
}

#[cfg(not(target_arch = "x86_64"))]
fn specials(chunk: &[u8; CHUNK]) -> u64 {
    specials_at_the_end(chunk)
}

fn specials_at_the_end(bytes: &[u8]) -> u64 {
    bytes.iter().enumerate().fold(0, |mask, (i, byte)| mask | u64::from(is_special(*byte)) << i)
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..0x20)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scanned(record: &[u8]) -> Option<Vec<(String, String, Option<usize>)>> {
        let mut found = Vec::new();
        members(record, |name, m| {
            assert!(record[m.start..].starts_with(m.spelled.as_bytes()));
            found.push((name.to_owned(), m.spelled.to_owned(), m.text_len));
        })
        .map(|()| found)
    }

    fn check(record: &str, expected: &[(&str, &str, Option<usize>)]) {
        let expected = expected.iter().map(|(n, v, len)| ((*n).to_owned(), (*v).to_owned(), *len)).collect();
        assert_eq!(scanned(record.as_bytes()), Some(expected), "{record}");
    }

    #[test]
    fn members_are_found_where_they_are() {
        check("{}", &[]);
        check(" { } \r\n", &[]);
        check(r#"{"a":1}"#, &[("a", "1", None)]);
        check(
            r#"{"text" : "a\nb\u00e9\ud83d\ude00" ,"n":[1,{"x":[]},"y"] ,"z":{"a":{}, "b":-0.5e+3}}"#,
            &[
                ("text", r#""a\nb\u00e9\ud83d\ude00""#, Some(9)),
                ("n", r#"[1,{"x":[]},"y"]"#, None),
                ("z", r#"{"a":{}, "b":-0.5e+3}"#, None),
            ],
        );
        // An escape across the end of a chunk, and one that ends a chunk.
        for len in 50..70 {
            let text = format!("{}\\\"{}", "a".repeat(len), "b".repeat(70));
            check(&format!("{{\"t\":\"{text}\"}}"), &[("t", &format!("\"{text}\""), Some(len + 71))]);
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(scanned(deep(MAX_DEPTH - 1).as_bytes()).is_some());
        assert!(scanned(deep(MAX_DEPTH).as_bytes()).is_none());
        for record in [
            "",
            " ",
            "[]",
            "{",
            "{}}",
            "{} x",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[[1],]}"#,
            r#"{"a":{"b":1,}}"#,
            r#"{"a":[}"#,
            r#"{"a":[1 2]}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":+1}"#,
            r#"{"a":1e}"#,
            r#"{"a":tru}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12"}"#,
            r#"{"a":"\ud800"}"#,
            "{\"a\":\"\t\"}",
            r#"{"a":"b"#,
            r#"{"a":"b\"#,
            r#"{'a':1}"#,
            r#"{"a":-}"#,
            r#"{"a":nullx}"#,
        ] {
            assert_eq!(scanned(record.as_bytes()), None, "{record}");
        }
        assert_eq!(scanned(b"{\"a\":\"\xff\"}"), None);
    }

    proptest! {
        #[test]
        fn the_classes_of_bytes_are_those_of_each_byte(chunk in prop::array::uniform32(any::<u8>())) {
            let mut twice = [0; CHUNK];
            twice[..32].copy_from_slice(&chunk);
            twice[32..].copy_from_slice(&chunk);
            prop_assert_eq!(specials(&twice), specials_at_the_end(&twice));
        }

        #[test]
        fn accepts_what_serde_json_accepts(
            record in r#"( |\{|\}|\[|\]|:|,|"[a-z]{0,2}"|"([ -~é]|\\["nx]|\\u[0-9a-fA-F]{4}){0,5}"|-?[0-9]{1,3}(\.[0-9])?(e[0-9])?|true|null){0,14}"#,
            wrapped in any::<bool>(),
        ) {
            let record = if wrapped { format!("{{\"a\":{record}}}") } else { record };
            let value: Option<serde_json::Value> = serde_json::from_str(&record).ok();
            let is_object = value.as_ref().is_some_and(serde_json::Value::is_object);
            prop_assert_eq!(scanned(record.as_bytes()).is_some(), is_object, "{}", record);
        }

        #[test]
        fn lengths_are_those_of_the_texts(text in any::<String>(), more in "[\\x00-\\x7f]{0,90}") {
            let text = text + &more;
            let record = serde_json::json!({ "text": text }).to_string();
            prop_assert_eq!(scanned(record.as_bytes()).unwrap()[0].2, Some(text.len()));
        }
    }
}
