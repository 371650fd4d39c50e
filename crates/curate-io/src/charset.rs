//! Bytes of a page or text to characters: which encoding they are in, and decoding them.
//!
//! The first of these that names an encoding wins: a byte order mark; the label sent with the bytes; a `<meta>` tag or
//! an XML declaration at their beginning; UTF-8, if that is what they are; a guess by statistics. Labels are those of
//! the WHATWG Encoding Standard; a label that it does not know counts as none.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252, X_USER_DEFINED};

/// How far into a page its declarations are looked for. The standard says 1024 bytes, pages do not care.
const DECLARATION_BYTES: usize = 4096;
/// Bytes that a guess is made from.
const GUESS_BYTES: usize = 256 << 10;

/// Text, and the name of the encoding it was in.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded<'a> {
    pub(crate) text: Cow<'a, str>,
    /// The standard's name in lower case: `utf-8`, `windows-1252`.
    pub(crate) charset: String,
}

/// What is known of the bytes besides themselves.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Hints<'a> {
    /// The label that was sent with them.
    pub(crate) label: Option<&'a str>,
    /// Where they are from: its top-level domain helps to guess.
    pub(crate) url: Option<&'a str>,
    /// Whether they may declare their encoding themselves.
    pub(crate) is_markup: bool,
}

/// Decodes `bytes` without their byte order mark; what cannot be decoded becomes U+FFFD.
pub(crate) fn decode<'a>(bytes: &'a [u8], hints: Hints<'_>) -> Decoded<'a> {
    let (encoding, bytes) = match Encoding::for_bom(bytes) {
        Some((encoding, len)) => (encoding, &bytes[len..]),
        None => (encoding_of(bytes, hints), bytes),
    };
    let (text, _) = encoding.decode_without_bom_handling(bytes);
    Decoded { text, charset: encoding.name().to_ascii_lowercase() }
}

fn encoding_of(bytes: &[u8], hints: Hints<'_>) -> &'static Encoding {
    let sent = hints.label.and_then(|label| known(label.as_bytes())).filter(|encoding| fits(encoding, bytes));
    let declared = || declared(&bytes[..bytes.len().min(DECLARATION_BYTES)]);
    sent.or_else(|| hints.is_markup.then(declared).flatten()).unwrap_or_else(|| guess(bytes, hints.url))
}

/// The encoding that `label` stands for, except those that decode nothing.
fn known(label: &[u8]) -> Option<&'static Encoding> {
    Encoding::for_label(label).filter(|encoding| *encoding != REPLACEMENT)
}

/// A label of UTF-16 is wrong for bytes without a zero among the first: markup in UTF-16 is half zeros.
fn fits(encoding: &'static Encoding, bytes: &[u8]) -> bool {
    let is_wide = encoding == UTF_16LE || encoding == UTF_16BE;
    !is_wide || bytes[..bytes.len().min(64)].contains(&0)
}

fn guess(bytes: &[u8], url: Option<&str>) -> &'static Encoding {
    // ISO-2022-JP looks like ASCII, but for its escapes.
    let escape = 0x1b;
    if std::str::from_utf8(bytes).is_ok() && !(bytes.is_ascii() && memchr::memchr(escape, bytes).is_some()) {
        return UTF_8;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(&bytes[..bytes.len().min(GUESS_BYTES)], bytes.len() <= GUESS_BYTES);
    let domain = url.and_then(top_level_domain);
    detector.guess(domain.as_deref().map(str::as_bytes), Utf8Detection::Allow)
}

/// The last label of the host in `url`, in lower case; `None` where it is no domain of ASCII letters.
fn top_level_domain(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.split(':').next()?;
    let label = host.trim_end_matches('.').rsplit('.').next()?.to_ascii_lowercase();
    let is_domain = label.starts_with(|c: char| c.is_ascii_lowercase())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_domain.then_some(label)
}

/// The encoding that markup declares in its first bytes.
fn declared(start: &[u8]) -> Option<&'static Encoding> {
    let encoding = in_meta(start).or_else(|| in_xml_declaration(start))?;
    // A declaration that can be read as ASCII is not in UTF-16, whatever it says.
    Some(match encoding {
        e if e == UTF_16LE || e == UTF_16BE => UTF_8,
        e if e == X_USER_DEFINED => WINDOWS_1252,
        e => e,
    })
}

fn in_xml_declaration(start: &[u8]) -> Option<&'static Encoding> {
    let start = start.trim_ascii_start().strip_prefix(b"<?xml")?;
    let end = memchr::memchr(b'>', start)?;
    let at = memchr::memmem::find(&start[..end], b"encoding")?;
    let value = start[at + b"encoding".len()..end].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let (quote, value) = value.split_first()?;
    let end = memchr::memchr(*quote, value)?;
    matches!(quote, b'"' | b'\'').then(|| known(&value[..end])).flatten()
}

/// The prescan of the HTML standard: the first `<meta>` that names a known encoding, outside of comments.
fn in_meta(start: &[u8]) -> Option<&'static Encoding> {
    let mut at = 0;
    while let Some(open) = memchr::memchr(b'<', &start[at..]) {
        at += open + 1;
        let rest = &start[at..];
        if rest.starts_with(b"!--") {
            // `<!-->` is a whole comment.
            at += 1 + memchr::memmem::find(&rest[1..], b"-->")?;
        } else if matches!(rest, [b'/', b'a'..=b'z' | b'A'..=b'Z', ..] | [b'a'..=b'z' | b'A'..=b'Z', ..]) {
            let name =
                rest.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'>')).unwrap_or(rest.len());
            let mut attributes = Attributes { rest: &rest[name..] };
            let is_meta = rest[..name].trim_ascii_end().eq_ignore_ascii_case(b"meta");
            if is_meta && let Some(encoding) = in_attributes(&mut attributes) {
                return Some(encoding);
            }
            attributes.by_ref().for_each(drop);
            at = start.len() - attributes.rest.len();
        }
    }
    None
}

fn in_attributes(attributes: &mut Attributes<'_>) -> Option<&'static Encoding> {
    let (mut charset, mut content, mut is_pragma) = (None, None, false);
    for (name, value) in attributes {
        if name.eq_ignore_ascii_case(b"charset") {
            charset = charset.or_else(|| known(value));
        } else if name.eq_ignore_ascii_case(b"content") {
            content = content.or_else(|| in_content(value));
        } else if name.eq_ignore_ascii_case(b"http-equiv") {
            is_pragma = value.trim_ascii().eq_ignore_ascii_case(b"content-type");
        }
    }
    charset.or_else(|| content.filter(|_| is_pragma))
}

/// The encoding in `text/html; charset=…`.
fn in_content(value: &[u8]) -> Option<&'static Encoding> {
    let lower = value.to_ascii_lowercase();
    let mut rest = &lower[..];
    while let Some(at) = memchr::memmem::find(rest, b"charset") {
        rest = rest[at + b"charset".len()..].trim_ascii_start();
        if let Some(label) = rest.strip_prefix(b"=") {
            let label = label.trim_ascii_start();
            let label = match label.first() {
                Some(quote @ (b'"' | b'\'')) => label[1..].split(|b| b == quote).next()?,
                _ => label.split(|b| b.is_ascii_whitespace() || matches!(b, b';' | b',')).next()?,
            };
            return known(label);
        }
    }
    None
}

/// The attributes of a tag, from behind its name to behind its `>`.
struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Takes bytes as long as `wanted` holds.
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let n = self.rest.iter().position(|b| !wanted(*b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        taken
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.take(|b| b.is_ascii_whitespace() || b == b'/');
        match self.rest.first()? {
            b'>' => {
                // What follows belongs to the page; an empty rest of the tag ends the iteration.
                return None;
            }
            b'=' => self.rest = &self.rest[1..],
            _ => {}
        }
        let name = self.take(|b| !b.is_ascii_whitespace() && !matches!(b, b'/' | b'>' | b'='));
        self.take(|b| b.is_ascii_whitespace());
        let Some(value) = self.rest.strip_prefix(b"=") else { return Some((name, b"")) };
        self.rest = value;
        self.take(|b| b.is_ascii_whitespace());
        let Some(quote) = self.rest.first().copied().filter(|b| matches!(b, b'"' | b'\'')) else {
            return Some((name, self.take(|b| !b.is_ascii_whitespace() && b != b'>')));
        };
        self.rest = &self.rest[1..];
        let value = self.take(|b| b != quote);
        self.rest = self.rest.get(1..).unwrap_or_default();
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(bytes: &[u8], label: Option<&str>, url: Option<&str>) -> (String, String) {
        let decoded = decode(bytes, Hints { label, url, is_markup: true });
        (decoded.text.into_owned(), decoded.charset)
    }

    #[test]
    fn declarations_in_their_order() {
        let check = |bytes: &[u8], label: Option<&str>, charset: &str| {
            let (_, got) = page(bytes, label, None);
            assert_eq!(got, charset, "{} {label:?}", String::from_utf8_lossy(bytes));
        };
        check(b"\xef\xbb\xbf<meta charset=koi8-r>", Some("latin1"), "utf-8");
        check(b"\xff\xfea\0", None, "utf-16le");
        check(b"<meta charset=koi8-r>\xe4", Some("ISO-8859-1"), "windows-1252");
        check(b"<meta charset=koi8-r>", Some("no such thing"), "koi8-r");
        check(b"<meta charset=koi8-r>", Some("utf-16"), "koi8-r");
        check(b"<\0h\0>\0", Some("utf-16"), "utf-16le");
        check(b"<META  Charset = 'Shift_JIS' />", None, "shift_jis");
        check(b"<meta http-equiv=\"Content-Type\" content=\"text/html; charset=gb2312\">", None, "gbk");
        check(b"<meta content='text/html;charset = \"euc-jp\"' http-equiv=content-type>", None, "euc-jp");
        check(b"<meta content='text/html;charset=euc-jp'>x", None, "utf-8");
        check(b"<!-- <meta charset=koi8-r> --><meta charset=big5>", None, "big5");
        check(b"<!--><meta charset=koi8-r>", None, "koi8-r");
        check(b"<a title='<meta charset=koi8-r>'><meta charset=big5>", None, "big5");
        check(
            b"<html lang=ru><head><meta name=x><meta charset=\"bogus\"><meta charset=koi8-r>",
            None,
            "koi8-r",
        );
        check(b"<meta charset=utf-16>", None, "utf-8");
        check(b"<meta charset=iso-2022-kr>", None, "utf-8");
        check(b"<?xml version='1.0' encoding='windows-1251'?><html>", None, "windows-1251");
        check(b"<?xml encoding='windows-1251'?><meta charset=koi8-u>", None, "koi8-u");
        check(b"<?xml encoding='windows-1251", None, "utf-8");
        check("<p>Grüße".as_bytes(), None, "utf-8");
        check(b"", None, "utf-8");
        for cut in [
            "<",
            "<m",
            "<meta",
            "<meta c",
            "<meta charset",
            "<meta charset=",
            "<meta charset='",
            "<!",
            "<!--",
            "<a b='",
        ] {
            check(cut.as_bytes(), None, "utf-8");
        }
        let late = [&b" ".repeat(3000)[..], b"<meta charset=koi8-r>"].concat();
        check(&late, None, "koi8-r");
        let too_late = [&b" ".repeat(5000)[..], b"<meta charset=koi8-r>"].concat();
        check(&too_late, None, "utf-8");
    }

    #[test]
    fn guesses_read_what_nobody_declared() {
        let russian =
            "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.";
        let (bytes, ..) = encoding_rs::KOI8_R.encode(russian);
        assert_eq!(page(&bytes, None, Some("http://example.ru:80/x")).0, russian);
        let japanese = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。";
        for encoding in [encoding_rs::EUC_JP, encoding_rs::SHIFT_JIS, encoding_rs::ISO_2022_JP] {
            let (bytes, ..) = encoding.encode(japanese);
            assert_eq!(page(&bytes, None, Some("http://example.jp/")).0, japanese);
        }
        let (bytes, ..) =
            WINDOWS_1252.encode("Die Größe der Straße überraschte die Bürger — „schön“, sagten sie.");
        assert_eq!(page(&bytes, None, None).1, "windows-1252");
    }

    #[test]
    fn top_level_domains() {
        let check = |url: &str, domain: Option<&str>| {
            assert_eq!(top_level_domain(url).as_deref(), domain, "{url}");
        };
        check("http://User@WWW.Example.RU:80/a.b", Some("ru"));
        check("https://example.jp.", Some("jp"));
        check("http://10.0.0.1/", None);
        check("http://[::1]/", None);
        check("http://пример.рф/", None);
        check("http://localhost?x", Some("localhost"));
        check("no url", None);
        check("http:///", None);
    }

    proptest! {
        #[test]
        fn any_bytes_decode(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            label in prop::option::of("[a-z0-9-]{0,12}"),
            url in prop::option::of(any::<String>()),
            tld in "\\PC{0,6}",
        ) {
            let url = url.or_else(|| Some(format!("http://a.{tld}/")));
            page(&bytes, label.as_deref(), url.as_deref());
        }

        #[test]
        fn any_beginning_of_tags_is_scanned(markup in "[<>!/=a'\" \\-metachrspuf8]{0,80}") {
            in_meta(markup.as_bytes());
            in_xml_declaration(format!("<?xml {markup}").as_bytes());
        }
    }
}
