//! Web pages: what a record of one holds, and the interface to whoever finds its main text.

use std::borrow::Cow;

use curate_core::{Document, Parsed, Record};

use crate::charset::{self, Hints};
use crate::json::append_json_string;

/// A page, decoded.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    pub html: &'a str,
    pub url: Option<&'a str>,
}

/// What an [`Extractor`] made of a page.
#[derive(Debug, Clone, PartialEq)]
pub enum Extraction {
    Text(MainText),
    /// The page has no text to give, for a reason that is counted: `no_main_text`, `page_too_large`.
    SetAside(&'static str),
}

/// The main text of a page and what the page says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MainText {
    pub text: String,
    pub title: Option<String>,
    /// Date of publication as `YYYY-MM-DD`, if the page names one.
    pub date: Option<String>,
    /// Language tag that the page declares.
    pub lang: Option<String>,
}

/// Finds the main text of pages; any thread may call it.
///
/// What it returns must depend on the page alone.
pub trait Extractor: Send + Sync {
    fn extract(&self, page: Page<'_>) -> Extraction;
}

/// What is known of a text from the web besides its words: the fields of its document beyond `id` and `text`.
#[derive(Debug, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) url: Option<&'a str>,
    pub(crate) added: Option<String>,
    pub(crate) http_status: Option<u16>,
    pub(crate) content_type: Option<&'a str>,
    /// What had to be overlooked to read the body.
    pub(crate) repaired: Vec<&'static str>,
}

/// Where a record holds its page or text, and what it is.
pub(crate) struct Body<'a, 'x> {
    pub(crate) bytes: Cow<'a, [u8]>,
    pub(crate) is_html: bool,
    /// The charset sent with it.
    pub(crate) label: Option<&'x str>,
}

/// Reads a page that is a file of its own; its id is the file's name.
pub(crate) fn parse_file<'a>(record: Record<'a>, extractor: Option<&dyn Extractor>) -> Parsed<'a> {
    let body = Body { bytes: Cow::Borrowed(record.bytes), is_html: true, label: None };
    parse_body(record, record.origin, body, Facts::default(), extractor)
}

/// Decodes a body, finds its main text if it is HTML, and makes a document of it.
pub(crate) fn parse_body<'a>(
    record: Record<'a>,
    id: impl Into<Cow<'a, str>>,
    body: Body<'a, '_>,
    facts: Facts<'_>,
    extractor: Option<&dyn Extractor>,
) -> Parsed<'a> {
    if body.bytes.trim_ascii().is_empty() {
        return Parsed::SetAside("empty_body");
    }
    let extractor = match (body.is_html, extractor) {
        (true, None) => return Parsed::SetAside("html_without_extractor"),
        (true, extractor) => extractor,
        (false, _) => None,
    };
    let hints = Hints { label: body.label, url: facts.url, is_markup: body.is_html };
    let (text, charset) = decode_body(body.bytes, hints);
    let Some(text) = text else { return Parsed::SetAside("undecodable_body") };
    let Some(extractor) = extractor else {
        let fields = fields(&facts, &MainText::default(), &charset);
        return Parsed::Document(Document::new(record.bytes, id, "", text).with_fields(fields));
    };
    match extractor.extract(Page { html: &text, url: facts.url }) {
        Extraction::SetAside(reason) => Parsed::SetAside(reason),
        Extraction::Text(mut main) => {
            let text = std::mem::take(&mut main.text);
            let fields = fields(&facts, &main, &charset);
            Parsed::Document(Document::new(record.bytes, id, "", text).with_fields(fields))
        }
    }
}

/// The characters of a body, if that is what it holds, and its charset; a UTF-8 body is borrowed, not copied.
fn decode_body<'a>(bytes: Cow<'a, [u8]>, hints: Hints<'_>) -> (Option<Cow<'a, str>>, String) {
    let (text, charset) = match &bytes {
        Cow::Borrowed(bytes) => {
            let decoded = charset::decode(bytes, hints);
            (decoded.text, decoded.charset)
        }
        Cow::Owned(bytes) => {
            let decoded = charset::decode(bytes, hints);
            (Cow::Owned(decoded.text.into_owned()), decoded.charset)
        }
    };
    // Text has no other control characters; a picture or an archive under a wrong name is full of them.
    let start = &text.as_bytes()[..text.len().min(1024)];
    let controls = start.iter().filter(|b| matches!(b, 0..=8 | 14..=26 | 28..=31)).count();
    ((controls * 50 <= start.len()).then_some(text), charset)
}

/// The fields of a document as members of a JSON object, a comma before each; only what is known.
fn fields(facts: &Facts<'_>, main: &MainText, charset: &str) -> String {
    let mut out = Vec::with_capacity(256);
    let member = |out: &mut Vec<u8>, name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            append_json_string(out, name);
            out.push(b':');
            append_json_string(out, value);
        }
    };
    member(&mut out, "url", facts.url);
    member(&mut out, "lang", main.lang.as_deref());
    member(&mut out, "added", facts.added.as_deref());
    member(&mut out, "created", main.date.as_deref());
    out.extend_from_slice(b",\"metadata\":{");
    member(&mut out, "title", main.title.as_deref());
    member(&mut out, "charset", Some(charset));
    if let Some(status) = facts.http_status {
        out.extend_from_slice(format!(",\"http_status\":{status}").as_bytes());
    }
    member(&mut out, "content_type", facts.content_type);
    member(&mut out, "repaired", Some(facts.repaired.join(" ").as_str()));
    out.push(b'}');
    String::from_utf8(out).expect("made of strings and digits")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Takes everything between tags for the text.
    pub(crate) struct StripTags;

    impl Extractor for StripTags {
        fn extract(&self, page: Page<'_>) -> Extraction {
            let mut text = String::new();
            let mut in_tag = false;
            for c in page.html.chars() {
                match c {
                    '<' => in_tag = true,
                    '>' => in_tag = false,
                    c if !in_tag => text.push(c),
                    _ => {}
                }
            }
            let text = text.trim().to_owned();
            if text.is_empty() {
                return Extraction::SetAside("no_main_text");
            }
            let after = |mark: &str| Some(page.html.split_once(mark)?.1.split(['"', '<']).next()?.to_owned());
            Extraction::Text(MainText { text, title: after("<title>"), date: None, lang: after("lang=\"") })
        }
    }

    fn parse(bytes: &[u8]) -> Parsed<'_> {
        let record = Record { bytes, origin: "a.html", offset: 0, ordinal: 0, format: 2 };
        parse_file(record, Some(&StripTags))
    }

    #[test]
    fn page_files_become_documents() {
        let check = |bytes: &[u8], text: &str, fields: &str| match parse(bytes) {
            Parsed::Document(doc) => {
                assert_eq!((doc.id(), doc.text(), doc.fields()), ("a.html", text, fields));
            }
            other => panic!("{other:?}"),
        };
        check(
            "<html lang=\"de\"><title>Grüße</title>".as_bytes(),
            "Grüße",
            r#","lang":"de","metadata":{"title":"Grüße","charset":"utf-8"}"#,
        );
        check(b"\xef\xbb\xbf<p>a", "a", r#","metadata":{"charset":"utf-8"}"#);
        check(b"<meta charset=windows-1251>\xcf\xf0\xe8", "При", r#","metadata":{"charset":"windows-1251"}"#);
    }

    #[test]
    fn pages_without_text_are_set_aside() {
        let check = |bytes: &[u8], reason: &str| {
            assert!(matches!(parse(bytes), Parsed::SetAside(r) if r == reason), "{bytes:?}");
        };
        check(b"", "empty_body");
        check(b" \n", "empty_body");
        check(b"<p></p>", "no_main_text");
        check(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01", "undecodable_body");
        let record = Record { bytes: b"<p>a", origin: "a.html", offset: 0, ordinal: 0, format: 2 };
        assert!(matches!(parse_file(record, None), Parsed::SetAside("html_without_extractor")));
    }
}
