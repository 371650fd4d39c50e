//! Just enough of JSON to find, read and replace fields of a record without touching the rest of it.

use std::borrow::Cow;
use std::ops::Range;

use curate_core::{EncodedText, Text};
use sonic_rs::{LazyValue, to_object_iter};

use crate::error::{IoError, Result};
use crate::members::{Member, members};

/// The path of a field: names joined by dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    pub fn parse(path: &str) -> Result<Self> {
        let names: Vec<String> = path.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return Err(IoError::FieldPath { path: path.to_owned() });
        }
        Ok(Self(names))
    }
}

impl std::fmt::Display for FieldPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// What is wrong with a record, and at which of its bytes.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) offset: usize,
    pub(crate) message: String,
}

impl Fault {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into() }
    }
}

/// A value of a record.
#[derive(Debug, Clone)]
pub(crate) struct Found<'a> {
    /// Its bytes in the record.
    pub(crate) range: Range<usize>,
    /// For a string whose escapes have been checked already: as it is spelled between its quotes, and the UTF-8 bytes
    /// of the text that it stands for.
    checked: Option<(&'a str, usize)>,
}

impl<'a> Found<'a> {
    fn member(member: &Member<'a>) -> Self {
        let spelled = member.spelled;
        Self {
            range: member.start..member.start + spelled.len(),
            checked: member.text_len.map(|len| (&spelled[1..spelled.len() - 1], len)),
        }
    }

    fn range(range: Range<usize>) -> Self {
        Self { range, checked: None }
    }
}

/// Finds the values at `paths` in the object `record`. Of a repeated name the last counts.
///
/// The whole record is checked to be one JSON object in UTF-8 with nothing after it.
pub(crate) fn find<'a, const N: usize>(
    record: &'a [u8],
    paths: [&FieldPath; N],
) -> std::result::Result<[Option<Found<'a>>; N], Fault> {
    let mut found = [const { None }; N];
    let scanned = members(record, |name, member| {
        for (path, found) in paths.iter().zip(&mut found) {
            if is_spelled(name, &path.0[0]) {
                *found = Some(Found::member(&member));
            }
        }
    });
    if scanned.is_none() {
        found = find_or_explain(record, paths)?;
    }
    for (path, found) in paths.iter().zip(&mut found) {
        for name in &path.0[1..] {
            let Some(Found { range: outer, .. }) = found.take() else { break };
            if record[outer.start] != b'{' {
                break;
            }
            walk(&record[outer.clone()], outer.start, |n, range| {
                if n == name {
                    *found = Some(Found::range(range));
                }
            })?;
        }
    }
    Ok(found)
}

/// True if `spelled`, the inside of a JSON string, stands for `name`.
fn is_spelled(spelled: &str, name: &str) -> bool {
    spelled == name || spelled.contains('\\') && unescape(spelled).is_some_and(|spelled| spelled == name)
}

/// The values at the first names of `paths` in a record that the fast pass has refused: the fault, if it has one.
fn find_or_explain<'a, const N: usize>(
    record: &'a [u8],
    paths: [&FieldPath; N],
) -> std::result::Result<[Option<Found<'a>>; N], Fault> {
    check_depth(record)?;
    let mut found = [const { None }; N];
    let last_value = walk(record, 0, |name, range| {
        for (path, found) in paths.iter().zip(&mut found) {
            if path.0[0] == name {
                *found = Some(Found::range(range.clone()));
            }
        }
    })?;
    check_end(record, last_value)?;
    Ok(found)
}

/// The members of the object `record` but those at `paths` and those of the document schema, each after a comma. An
/// object that loses its last member goes too.
pub(crate) fn other_fields(record: &[u8], paths: &[&FieldPath]) -> std::result::Result<String, Fault> {
    let schema = ["id", "text", "source"].map(|name| FieldPath(vec![name.to_owned()]));
    let taken: Vec<&[String]> = paths.iter().copied().chain(&schema).map(|path| path.0.as_slice()).collect();
    let mut out = Vec::new();
    members_without(record, 0..record.len(), &taken, &mut out)?;
    Ok(String::from_utf8(out).expect("the walk has found every member to be UTF-8"))
}

/// Appends the members of the object at `range` that are not at the paths `taken`, each after a comma.
fn members_without(
    record: &[u8],
    range: Range<usize>,
    taken: &[&[String]],
    out: &mut Vec<u8>,
) -> std::result::Result<(), Fault> {
    let mut members = Vec::new();
    walk(&record[range.clone()], range.start, |name, value| members.push((name.to_owned(), value)))?;
    for (name, value) in members {
        let tails: Vec<&[String]> =
            taken.iter().filter(|path| path[0] == name).map(|path| &path[1..]).collect();
        if tails.iter().any(|tail| tail.is_empty()) {
            continue;
        }
        let start = out.len();
        out.push(b',');
        append_json_string(out, &name);
        out.push(b':');
        if tails.is_empty() || record[value.start] != b'{' {
            out.extend_from_slice(&record[value]);
            continue;
        }
        let inner = out.len();
        members_without(record, value, &tails, out)?;
        match out.get_mut(inner) {
            Some(comma) => {
                *comma = b'{';
                out.push(b'}');
            }
            None => out.truncate(start),
        }
    }
    Ok(())
}

/// Sets the field at the dotted `path` of the JSON object that `out` holds from `start` on. Of a repeated name the last
/// counts, as in reading; a value on the way that is no object becomes one.
pub(crate) fn set_field(out: &mut Vec<u8>, start: usize, path: &str, json: &str) {
    let mut object = start..out.len();
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let mut found = None;
        // The object was parsed once already, or we wrote it.
        let _ = walk(&out[object.clone()], object.start, |n, range| {
            if n == name {
                found = Some(range);
            }
        });
        match found {
            Some(value) if names.peek().is_some() && out[value.start] == b'{' => object = value,
            Some(value) => {
                let new = nested(&mut names, json);
                out.splice(value, new);
                return;
            }
            None => {
                let inside = &out[object.clone()];
                let Some(end) = inside.iter().rposition(|b| *b == b'}') else { return };
                let is_empty =
                    inside[..end].trim_ascii().ends_with(b"{") && inside[..end].trim_ascii().len() == 1;
                let mut member = if is_empty { Vec::new() } else { vec![b','] };
                append_json_string(&mut member, name);
                member.push(b':');
                member.extend_from_slice(&nested(&mut names, json));
                let at = object.start + end;
                out.splice(at..at, member);
                return;
            }
        }
    }
}

/// `json` within an object for each of `names`.
fn nested<'n>(names: &mut impl Iterator<Item = &'n str>, json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut depth = 0;
    for name in names {
        out.push(b'{');
        append_json_string(&mut out, name);
        out.push(b':');
        depth += 1;
    }
    out.extend_from_slice(json.as_bytes());
    out.resize(out.len() + depth, b'}');
    out
}

/// Objects and arrays within each other that a record may have; the walk over them uses the stack.
pub(crate) const MAX_DEPTH: usize = 500;

/// Refuses a record that is nested too deeply. Few records have so many brackets that they need be followed.
fn check_depth(record: &[u8]) -> std::result::Result<(), Fault> {
    if memchr::memchr2_iter(b'[', b'{', record).nth(MAX_DEPTH).is_none() {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (i, byte) in record.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Fault::new(i, format!("nested more than {MAX_DEPTH} levels deep")));
        }
    }
    Ok(())
}

/// Calls `visit` with each field of the object `bytes`, which starts at `base` of the record; returns the end of
/// the last value.
fn walk(
    bytes: &[u8],
    base: usize,
    mut visit: impl FnMut(&str, Range<usize>),
) -> std::result::Result<usize, Fault> {
    let mut end = base;
    for field in to_object_iter(bytes) {
        let (name, value) = field.map_err(|error| describe(&error, base))?;
        let range = range_in(bytes, base, &value);
        end = range.end;
        visit(&name, range);
    }
    Ok(end)
}

fn range_in(bytes: &[u8], base: usize, value: &LazyValue<'_>) -> Range<usize> {
    let raw = value.as_raw_str();
    let start = raw.as_ptr() as usize - bytes.as_ptr() as usize;
    base + start..base + start + raw.len()
}

fn describe(error: &sonic_rs::Error, base: usize) -> Fault {
    // The library prints a picture of the place after the first line, and counts lines that we know already.
    let text = error.to_string();
    let first = text.lines().next().unwrap_or("not JSON");
    let message = first.split(" at line").next().unwrap_or(first);
    Fault::new(base + error.offset(), format!("expected one JSON object: {message}"))
}

fn check_end(record: &[u8], last_value: usize) -> std::result::Result<(), Fault> {
    let rest = &record[last_value..];
    let at = |i: usize| last_value + i;
    let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    if last_value == 0 {
        return Ok(()); // An empty object: it has no text, which is what the caller reports.
    }
    match rest.iter().position(|b| !space(b)) {
        Some(i) if rest[i] == b'}' => match rest[i + 1..].iter().position(|b| !space(b)) {
            None => Ok(()),
            Some(j) => Err(Fault::new(at(i + 1 + j), "expected the record to end after its object")),
        },
        Some(i) => Err(Fault::new(at(i), "expected `}`")),
        None => Err(Fault::new(record.len(), "expected `}`, found the end of the record")),
    }
}

/// Reads a string; borrows where nothing is escaped, and leaves the rest for when it is asked for.
pub(crate) fn text<'a>(
    record: &'a [u8],
    found: &Found<'a>,
    path: &FieldPath,
) -> std::result::Result<Text<'a>, Fault> {
    match found.checked {
        Some((spelled, len)) if len == spelled.len() => Ok(spelled.into()),
        Some((spelled, len)) => Ok(EncodedText::new(spelled, len, decode).into()),
        None => string(record, found.range.clone(), path).map(Text::from),
    }
}

fn decode(spelled: &str) -> String {
    unescape(spelled).expect("the escapes were checked when the record was read")
}

/// Reads the string at `range`; borrows where nothing is escaped.
fn string<'a>(
    record: &'a [u8],
    range: Range<usize>,
    path: &FieldPath,
) -> std::result::Result<Cow<'a, str>, Fault> {
    let raw = &record[range.clone()];
    if raw.first() != Some(&b'"') {
        return Err(Fault::new(range.start, format!("expected a string in `{path}`, found {}", kind(raw))));
    }
    let inner = std::str::from_utf8(&raw[1..raw.len() - 1])
        .map_err(|e| Fault::new(range.start + 1 + e.valid_up_to(), format!("invalid UTF-8 in `{path}`")))?;
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    if let Some(text) = unescape(inner) {
        return Ok(Cow::Owned(text));
    }
    // The library says what is wrong, and where.
    sonic_rs::from_slice::<String>(raw).map(Cow::Owned).map_err(|error| {
        Fault::new(range.start + error.offset(), format!("bad string in `{path}`: {}", reason(&error)))
    })
}

/// The text that the inside of a JSON string stands for; `None` if an escape is not sound. `inner` holds no control
/// characters and no bare quotes: the walk over the record has refused those.
///
/// Texts have an escape (a quote, a line end) every fifty bytes or so: the runs between them are found and copied by
/// vector code, and an escape costs a table look-up.
fn unescape(inner: &str) -> Option<String> {
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        text.push_str(&rest[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        match UNESCAPED[escape as usize] {
            0 if escape == b'u' => {
                let (c, used) = code_point(&rest.as_bytes()[at + 2..])?;
                text.push(c);
                rest = &rest[at + 2 + used..];
            }
            0 => return None,
            byte => {
                text.push(char::from(byte));
                rest = &rest[at + 2..];
            }
        }
    }
    text.push_str(rest);
    Some(text)
}

/// What `\` and the byte stand for; 0 for a byte that cannot follow.
pub(crate) const UNESCAPED: [u8; 256] = {
    let mut table = [0; 256];
    let pairs = b"\"\"\\\\//b\x08f\x0cn\nr\rt\t";
    let mut i = 0;
    while i < pairs.len() {
        table[pairs[i] as usize] = pairs[i + 1];
        i += 2;
    }
    table
};

/// The character of `\uXXXX`, whose digits `rest` begins with, or of a surrogate pair; and the bytes that it takes.
pub(crate) fn code_point(rest: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(rest.get(at..at + 4)?).ok()?;
        // `from_str_radix` takes a sign too.
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let first = unit(0)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, 4));
    }
    let second = unit(6).filter(|second| rest[4..6] == *b"\\u" && (0xdc00..0xe000).contains(second))?;
    Some((char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?, 10))
}

fn reason(error: &sonic_rs::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().split(" at line").next().unwrap_or_default().to_owned()
}

/// The value at `range` as an identifier: a string's content, or anything else as it is written.
pub(crate) fn identifier<'a>(
    record: &'a [u8],
    found: &Found<'a>,
    path: &FieldPath,
) -> std::result::Result<Cow<'a, str>, Fault> {
    let raw = &record[found.range.clone()];
    match (found.checked, raw.first()) {
        (Some((spelled, len)), _) if len == spelled.len() => Ok(Cow::Borrowed(spelled)),
        (_, Some(b'"')) => string(record, found.range.clone(), path),
        _ => Ok(String::from_utf8_lossy(raw)),
    }
}

fn kind(raw: &[u8]) -> &'static str {
    match raw.first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Appends `text` as a JSON string; everything but quotes, backslashes and control characters stays as it is.
pub fn append_json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a str always encodes into memory");
}

/// The opening of an object with the fields of the document schema: `{"id":…,"text":…[,"source":…]`.
pub fn document_fields(out: &mut Vec<u8>, id: &str, text: &str, source: &str) {
    out.extend_from_slice(b"{\"id\":");
    append_json_string(out, id);
    out.extend_from_slice(b",\"text\":");
    append_json_string(out, text);
    if !source.is_empty() {
        out.extend_from_slice(b",\"source\":");
        append_json_string(out, source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    mod properties {
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn unescaping_is_that_of_serde_json(
                inner in r#"([ -~é漢😀]|\\["\\/bfnrtux]|\\u[0-9a-fD][0-9a-f8-D]{3}|\\uD83D\\uDE00){0,80}"#,
            ) {
                let oracle = serde_json::from_str::<String>(&format!("\"{inner}\"")).ok();
                // A quote inside ends the string before us: such a string never reaches this function.
                prop_assume!(oracle.is_some() || !inner.replace("\\\\", "").replace("\\\"", "").contains('"'));
                prop_assert_eq!(super::unescape(&inner), oracle);
            }
        }
    }

    fn text_of(record: &str, path: &str) -> std::result::Result<Option<String>, (usize, String)> {
        let path = FieldPath::parse(path).unwrap();
        let fault = |f: Fault| (f.offset, f.message);
        let [found] = find(record.as_bytes(), [&path]).map_err(fault)?;
        let Some(found) = found else { return Ok(None) };
        text(record.as_bytes(), &found, &path).map(|text| Some(text.as_str().to_owned())).map_err(fault)
    }

    fn check(record: &str, path: &str, expected: Option<&str>) {
        assert_eq!(text_of(record, path), Ok(expected.map(str::to_owned)), "{record}");
    }

    fn check_fault(record: &str, offset: usize, part: &str) {
        let (got, message) = text_of(record, "text").expect_err(record);
        assert!(message.contains(part), "{record}: {message}");
        assert_eq!(got, offset, "{record}: {message}");
    }

    #[test]
    fn finds_fields_and_paths() {
        check(r#"{"text":"a"}"#, "text", Some("a"));
        check(r#" { "id" : 1 , "text" : "a\nb\u00e9" , "x":[{}] } "#, "text", Some("a\nbé"));
        check(r#"{"text":"first","text":"last"}"#, "text", Some("last"));
        check(r#"{"meta":{"text":"deep","n":{"text":1}}}"#, "meta.text", Some("deep"));
        check(r#"{"meta":"flat"}"#, "meta.text", None);
        check(r#"{}"#, "text", None);
        check(r#"{"a\u0062":"escaped name"}"#, "ab", Some("escaped name"));
        check("{\"text\":\"\u{7f}\u{2028}é\"}\r", "text", Some("\u{7f}\u{2028}é"));
    }

    #[test]
    fn faults_say_where_and_what() {
        check_fault(r#"{"text":1}"#, 8, "expected a string in `text`, found a number");
        check_fault(r#"{"text":null}"#, 8, "found null");
        check_fault(r#"{"text":"a"} x"#, 13, "end after its object");
        check_fault(r#"{"text":"a"}{"text":"b"}"#, 12, "end after its object");
        check_fault("{\"text\":\"a\tb\"}", 10, "Control character");
        for broken in
            [r#"{"text":"a""#, r#"{"text":"a"#, r#"["text"]"#, "x", r#"{"text":"a",}"#, r#"{"text" "a"}"#]
        {
            assert!(text_of(broken, "text").is_err(), "{broken}");
        }
        assert!(text_of(r#"{"text":"\ud800"}"#, "text").is_err(), "a lone surrogate is not text");
    }

    #[test]
    fn bad_paths_are_refused() {
        for path in ["", ".", "a.", ".a", "a..b"] {
            assert!(FieldPath::parse(path).is_err(), "{path:?}");
        }
    }
}
