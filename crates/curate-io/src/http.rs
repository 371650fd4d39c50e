//! HTTP responses as archives keep them: a head that servers wrote as they pleased, and a body as it was sent.
//!
//! Nothing here trusts the head: a body that is said to be chunked or compressed and is not is taken as it stands,
//! as browsers and archive tools do.

use std::borrow::Cow;
use std::io::{self, Read};

use crate::warc::{Headers, headers_end};

/// A decoded body is never larger than this.
const BODY_MAX: usize = 64 << 20;
/// Below this a body may expand as it likes.
const BODY_FREE: usize = 1 << 20;
/// Decoded bytes a stored byte from which a body counts as a decompression bomb.
const EXPANSION_MAX: usize = 1000;
/// More encodings on top of each other than any server applies.
const ENCODINGS_MAX: usize = 8;
/// Interim responses (1xx) before the one that counts.
const INTERIM_MAX: usize = 8;

/// A response, its body not yet decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Response<'a> {
    /// `None` for a page sent without a head, as HTTP/0.9 did.
    pub(crate) status: Option<u16>,
    pub(crate) headers: Headers<'a>,
    pub(crate) body: &'a [u8],
}

impl<'a> Response<'a> {
    /// Reads a stored response; `None` if there is no status line and what there is does not look like a page.
    pub(crate) fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        for _ in 0..INTERIM_MAX {
            let Some(status) = status(bytes) else { break };
            let end = headers_end(bytes).unwrap_or(bytes.len());
            let (head, body) = bytes.split_at(end);
            if !((100..200).contains(&status) && self::status(body).is_some()) {
                return Some(Self { status: Some(status), headers: Headers::new(head), body });
            }
            bytes = body;
        }
        looks_like_html(bytes).then_some(Self { status: None, headers: Headers::new(b""), body: bytes })
    }

    pub(crate) fn media_type(&self) -> MediaType {
        MediaType::parse(&self.headers.get("content-type").unwrap_or_default())
    }

    /// The body without its transfer and content encodings.
    pub(crate) fn decoded_body(&self) -> Result<Body<'a>, &'static str> {
        let mut body = Body { bytes: Cow::Borrowed(self.body), repaired: Vec::new() };
        // Content encodings are applied before those of the transfer, so they are undone after them.
        let mut encodings = tokens(self.headers, "content-encoding");
        encodings.extend(tokens(self.headers, "transfer-encoding"));
        let limit = self.body.len().saturating_mul(EXPANSION_MAX).clamp(BODY_FREE, BODY_MAX);
        for encoding in encodings.iter().rev().take(ENCODINGS_MAX) {
            body.undo(encoding, limit)?;
        }
        if body.bytes.starts_with(&GZIP_MAGIC) {
            body.undo("gzip", limit)?;
        }
        Ok(body)
    }
}

/// The status code, if `bytes` begins with a status line.
fn status(bytes: &[u8]) -> Option<u16> {
    let line = &bytes[..bytes.len().min(256)];
    let line = line.split(|b| *b == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let protocol = words.next()?;
    let is_http = protocol.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"HTTP"));
    let code = words.next().filter(|code| is_http && code.len() == 3)?;
    std::str::from_utf8(code).ok()?.parse().ok().filter(|code| (100..1000).contains(code))
}

fn tokens(headers: Headers<'_>, name: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for value in headers.all(name) {
        let words = value.split(',').map(|token| token.trim().to_ascii_lowercase());
        tokens.extend(words.filter(|token| !token.is_empty()));
    }
    tokens
}

/// A media type and the charset that comes with it.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct MediaType {
    /// Lower case, without parameters; empty if there is none.
    pub(crate) essence: String,
    pub(crate) charset: Option<String>,
}

/// What a media type makes of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Html,
    Plain,
    Other,
}

impl MediaType {
    pub(crate) fn parse(value: &str) -> Self {
        let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
        // Some servers repeat the header, and some archives join the two by a comma.
        let essence = essence.split(',').next().unwrap_or_default().trim().to_ascii_lowercase();
        let charset = parameters.split([';', ',']).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            let value = value.trim().trim_matches(['"', '\'']).trim();
            (name.trim().eq_ignore_ascii_case("charset") && !value.is_empty()).then(|| value.to_owned())
        });
        Self { essence, charset }
    }

    /// Whether a body of this type can turn out to be HTML or plain text.
    pub(crate) fn may_be_text(&self) -> bool {
        self.kind(b"<html>") != Kind::Other
    }

    /// What `body` is: by its type, and by its look where the type says nothing or says plain text of a page.
    pub(crate) fn kind(&self, body: &[u8]) -> Kind {
        match self.essence.as_str() {
            "text/html" | "application/xhtml+xml" | "application/vnd.wap.xhtml+xml" => Kind::Html,
            "text/plain" if starts_document(body) => Kind::Html,
            "text/plain" => Kind::Plain,
            ""
            | "application/octet-stream"
            | "application/unknown"
            | "unknown/unknown"
            | "no-type"
            | "*/*"
                if looks_like_html(body) =>
            {
                Kind::Html
            }
            _ => Kind::Other,
        }
    }
}

fn starts_document(body: &[u8]) -> bool {
    starts_with_any(body, &["<!doctype html", "<html"])
}

/// Whether a browser that must guess would take `body` for HTML, by its first tag.
pub(crate) fn looks_like_html(body: &[u8]) -> bool {
    const TAGS: [&str; 18] = [
        "<!doctype html",
        "<html",
        "<head",
        "<body",
        "<title",
        "<meta",
        "<script",
        "<style",
        "<iframe",
        "<table",
        "<div",
        "<font",
        "<br",
        "<h1",
        "<a",
        "<b",
        "<p",
        "<!--",
    ];
    starts_with_any(body, &TAGS)
}

fn starts_with_any(body: &[u8], tags: &[&str]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    tags.iter().any(|tag| {
        body.split_at_checked(tag.len()).is_some_and(|(start, rest)| {
            let ends = rest.first().is_some_and(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'));
            start.eq_ignore_ascii_case(tag.as_bytes()) && (ends || *tag == "<!--")
        })
    })
}

/// A body, and what had to be overlooked to read it.
#[derive(Debug, PartialEq)]
pub(crate) struct Body<'a> {
    pub(crate) bytes: Cow<'a, [u8]>,
    /// `not_chunked`, `not_compressed` (though said to be), `chunks_cut`, `compression_cut`.
    pub(crate) repaired: Vec<&'static str>,
}

const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

impl Body<'_> {
    fn undo(&mut self, encoding: &str, limit: usize) -> Result<(), &'static str> {
        let input = self.bytes.as_ref();
        if input.is_empty() {
            return Ok(());
        }
        let attempt = match encoding {
            "chunked" => return self.undo_chunks(),
            "gzip" | "x-gzip" if input.starts_with(&GZIP_MAGIC) => gunzip(input, limit),
            "zstd" if input.starts_with(&ZSTD_MAGIC) => match zstd::Decoder::with_buffer(input) {
                Ok(decoder) => read_limited(decoder, limit),
                Err(_) => Attempt::failed(),
            },
            "deflate" => inflate(input, limit),
            "br" => read_limited(brotli::Decompressor::new(input, 4096), limit),
            "gzip" | "x-gzip" | "zstd" => Attempt::failed(),
            _ => return Ok(()), // `identity`, and words that name no encoding, such as `utf-8`.
        };
        // Without a magic number, plain text can look like the beginning of a compressed stream.
        let has_magic = input.starts_with(&GZIP_MAGIC) || input.starts_with(&ZSTD_MAGIC);
        match attempt.end {
            End::TooLarge => return Err("body_expands_too_far"),
            End::Clean => self.bytes = Cow::Owned(attempt.bytes),
            End::Fault if !has_magic && (attempt.bytes.is_empty() || is_textual(input)) => {
                self.repaired.push("not_compressed");
            }
            End::Fault if attempt.bytes.is_empty() => return Err("undecodable_body"),
            End::Fault => {
                self.bytes = Cow::Owned(attempt.bytes);
                self.repaired.push("compression_cut");
            }
        }
        Ok(())
    }

    fn undo_chunks(&mut self) -> Result<(), &'static str> {
        match join_chunks(&self.bytes) {
            Some((bytes, is_whole)) => {
                self.bytes = Cow::Owned(bytes);
                if !is_whole {
                    self.repaired.push("chunks_cut");
                }
            }
            None => self.repaired.push("not_chunked"),
        }
        Ok(())
    }
}

/// Joins the chunks of a body: also says whether the last one was seen. `None` if the framing is wrong anywhere
/// but at a cut end: then no part of it can be believed.
fn join_chunks(mut body: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut joined = Vec::with_capacity(body.len());
    loop {
        let Some(end) = memchr::memchr(b'\n', &body[..body.len().min(4096)]) else {
            let is_cut = body.len() < 4096 && !joined.is_empty() && body.iter().all(|b| is_size_byte(*b));
            return is_cut.then_some((joined, false));
        };
        let size = body[..end].split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        if size.is_empty() || size.len() > 16 || !size.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        body = &body[end + 1..];
        if size == 0 {
            return Some((joined, true));
        }
        let Some((chunk, rest)) = usize::try_from(size).ok().and_then(|size| body.split_at_checked(size))
        else {
            // A first chunk far longer than the body is a line of text that happens to be a number.
            let believable = !joined.is_empty() || size < 1 << 24;
            joined.extend_from_slice(body);
            return believable.then_some((joined, false));
        };
        joined.extend_from_slice(chunk);
        body = match rest {
            [] | [b'\r'] => return Some((joined, false)),
            [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => rest,
            _ => return None,
        };
    }
}

fn is_size_byte(b: u8) -> bool {
    b.is_ascii_hexdigit() || b == b'\r'
}

/// What a decoder gave before it ended.
struct Attempt {
    bytes: Vec<u8>,
    end: End,
}

enum End {
    Clean,
    Fault,
    TooLarge,
}

impl Attempt {
    fn failed() -> Self {
        Self { bytes: Vec::new(), end: End::Fault }
    }
}

fn read_limited(decoder: impl Read, limit: usize) -> Attempt {
    let mut bytes = Vec::new();
    let outcome: io::Result<usize> = decoder.take(limit as u64 + 1).read_to_end(&mut bytes);
    let end = match outcome {
        _ if bytes.len() > limit => End::TooLarge,
        Ok(_) => End::Clean,
        Err(_) => End::Fault,
    };
    Attempt { bytes, end }
}

/// Members of gzip one after the other; whatever follows them is no fault.
fn gunzip(input: &[u8], limit: usize) -> Attempt {
    let mut bytes = Vec::new();
    let mut rest = input;
    while rest.starts_with(&GZIP_MAGIC) {
        let mut decoder = flate2::bufread::GzDecoder::new(rest);
        let room = (limit - bytes.len()) as u64 + 1;
        let outcome = decoder.by_ref().take(room).read_to_end(&mut bytes);
        if bytes.len() > limit {
            return Attempt { bytes, end: End::TooLarge };
        }
        if outcome.is_err() {
            return Attempt { bytes, end: End::Fault };
        }
        rest = decoder.into_inner();
    }
    Attempt { bytes, end: End::Clean }
}

/// `deflate` means zlib by the standard, and the bare stream by what many servers sent.
fn inflate(input: &[u8], limit: usize) -> Attempt {
    let is_zlib = input.len() > 2
        && input[0] & 0x0f == 8
        && u16::from_be_bytes([input[0], input[1]]).is_multiple_of(31);
    if is_zlib {
        let attempt = read_limited(flate2::bufread::ZlibDecoder::new(input), limit);
        if !attempt.bytes.is_empty() {
            return attempt;
        }
    }
    read_limited(flate2::bufread::DeflateDecoder::new(input), limit)
}

/// Whether the beginning of `bytes` is text rather than something packed.
pub(crate) fn is_textual(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(1024)];
    !start.iter().any(|b| matches!(b, 0..=8 | 14..=26 | 28..=31))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn brotli(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        brotli::CompressorWriter::new(&mut out, 4096, 5, 20).write_all(text).unwrap();
        out
    }

    fn response(head: &str, body: &[u8]) -> Vec<u8> {
        [format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes(), body].concat()
    }

    fn decoded(head: &str, body: &[u8]) -> Result<(Vec<u8>, Vec<&'static str>), &'static str> {
        let stored = response(head, body);
        let body = Response::parse(&stored).unwrap().decoded_body()?;
        Ok((body.bytes.into_owned(), body.repaired))
    }

    #[test]
    fn status_lines_as_servers_write_them() {
        let check = |bytes: &str, status: Option<u16>, body: &str| {
            let response = Response::parse(bytes.as_bytes()).unwrap();
            assert_eq!((response.status, response.body), (status, body.as_bytes()), "{bytes:?}");
        };
        check("HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", Some(200), "body");
        check("HTTP/1.0 404\nA: b\n\nbody", Some(404), "body");
        check("http/2  301  \r\n\r\n", Some(301), "");
        check("HTTP/1.1 200 OK\r\nA: b", Some(200), "");
        check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nb", Some(200), "b");
        check("<html><p>old", None, "<html><p>old");
        for none in ["", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 2000 x\n\n", "hello"] {
            assert!(Response::parse(none.as_bytes()).is_none(), "{none:?}");
        }
    }

    #[test]
    fn encodings_are_undone() {
        let text = b"<html>some text, some text, some text</html>".repeat(30);
        let check = |head: &str, body: &[u8], repaired: &[&str]| {
            assert_eq!(decoded(head, body), Ok((text.clone(), repaired.to_vec())), "{head}");
        };
        check("A: b", &text, &[]);
        check("Content-Encoding: gzip", &gzip(&text), &[]);
        check("Content-Encoding: X-GZIP", &[gzip(&text[..99]), gzip(&text[99..])].concat(), &[]);
        check("Content-Encoding: gzip", &[gzip(&text), b"trailing".to_vec()].concat(), &[]);
        check("Content-Encoding: gzip, gzip", &gzip(&gzip(&text)), &[]);
        check("Content-Encoding: gzip\r\nContent-Encoding: gzip", &gzip(&gzip(&text)), &[]);
        check("Content-Encoding: deflate", &zlib(&text), &[]);
        check("Content-Encoding: deflate", &deflate(&text), &[]);
        check("Content-Encoding: br", &brotli(&text), &[]);
        check("Content-Encoding: zstd", &zstd::encode_all(&text[..], 3).unwrap(), &[]);
        check("A: gzip that nobody declared", &gzip(&text), &[]);
        check("Content-Encoding: utf-8", &text, &[]);
        for encoding in ["gzip", "deflate", "br", "zstd"] {
            check(&format!("Content-Encoding: {encoding}"), &text, &["not_compressed"]);
        }
        let chunked = |body: &[u8]| {
            let (a, b) = body.split_at(body.len() / 3);
            [
                format!("{:X};x=y\r\n", a.len()).as_bytes(),
                a,
                b"\r\n",
                format!("{:x}\r\n", b.len()).as_bytes(),
                b,
            ]
            .concat()
        };
        let whole = [&chunked(&text)[..], b"\r\n0\r\nTrailer: x\r\n\r\n"].concat();
        check("Transfer-Encoding: chunked", &whole, &[]);
        check("Transfer-Encoding: chunked", &chunked(&text), &["chunks_cut"]);
        check("Transfer-Encoding: chunked", &text, &["not_chunked"]);
        let both = [&chunked(&gzip(&text))[..], b"\r\n0\r\n\r\n"].concat();
        check("Transfer-Encoding: chunked\r\nContent-Encoding: gzip", &both, &[]);
        check("Transfer-Encoding: gzip, chunked", &both, &[]);
        check(
            "Transfer-Encoding: chunked\r\nContent-Encoding: gzip",
            &text,
            &["not_chunked", "not_compressed"],
        );
    }

    #[test]
    fn a_cut_body_keeps_what_was_decoded() {
        let text: Vec<u8> =
            (0..20_000u32).flat_map(|i| format!("{} ", i.wrapping_mul(2_654_435_761)).into_bytes()).collect();
        for (encoding, packed) in [
            ("gzip", gzip(&text)),
            ("deflate", zlib(&text)),
            ("br", brotli(&text)),
            ("zstd", zstd::encode_all(&text[..], 3).unwrap()),
        ] {
            let (got, repaired) =
                decoded(&format!("Content-Encoding: {encoding}"), &packed[..packed.len() * 9 / 10]).unwrap();
            assert!(text.starts_with(&got) && got.len() > text.len() / 2, "{encoding}: {}", got.len());
            assert_eq!(repaired, ["compression_cut"], "{encoding}");
        }
        let mut broken = gzip(&text);
        broken.truncate(12);
        assert_eq!(decoded("Content-Encoding: gzip", &broken), Err("undecodable_body"));
    }

    #[test]
    fn bombs_are_refused() {
        let bomb = gzip(&vec![b'a'; BODY_MAX + 1]);
        assert_eq!(decoded("Content-Encoding: gzip", &bomb), Err("body_expands_too_far"));
        let dense = zstd::encode_all(&vec![0; 8 << 20][..], 19).unwrap();
        assert!(dense.len() < 8000);
        assert_eq!(decoded("Content-Encoding: zstd", &dense), Err("body_expands_too_far"));
        let small = zstd::encode_all(&vec![b'a'; BODY_FREE][..], 19).unwrap();
        assert_eq!(decoded("Content-Encoding: zstd", &small).unwrap().0.len(), BODY_FREE);
    }

    #[test]
    fn wrong_chunks_are_no_chunks() {
        let check = |body: &str, expected: Option<(&str, bool)>| {
            let joined = join_chunks(body.as_bytes());
            let joined = joined.as_ref().map(|(b, whole)| (std::str::from_utf8(b).unwrap(), *whole));
            assert_eq!(joined, expected, "{body:?}");
        };
        check("3\r\nabc\r\n0\r\n\r\n", Some(("abc", true)));
        check("3\nabc\n0\n\n", Some(("abc", true)));
        check("3  \r\nabc\r\n0", Some(("abc", false)));
        check("3\r\nabc\r\n5\r\nde", Some(("abcde", false)));
        check("3\r\nabc", Some(("abc", false)));
        check("3\r\nabcd\r\n0\r\n", None);
        check("3\r\nabc\r\nxyz\r\n", None);
        check("ffffffffffffffff\r\nabc", None);
        check("+3\r\nabc\r\n0\r\n\r\n", None);
        check("hello", None);
        check("", None);
    }

    #[test]
    fn media_types_are_read_and_guessed() {
        let check = |value: &str, essence: &str, charset: Option<&str>| {
            let expected = MediaType { essence: essence.to_owned(), charset: charset.map(str::to_owned) };
            assert_eq!(MediaType::parse(value), expected, "{value}");
        };
        check("Text/HTML; Charset=\"ISO-8859-1\"", "text/html", Some("ISO-8859-1"));
        check("text/html;charset=utf-8;x=y", "text/html", Some("utf-8"));
        check("text/html, text/html; charset='a'", "text/html", Some("a"));
        check("text/html; charset=", "text/html", None);
        check("", "", None);
        let kind = |value: &str, body: &str, kind: Kind| {
            assert_eq!(MediaType::parse(value).kind(body.as_bytes()), kind, "{value} {body}");
        };
        kind("application/xhtml+xml", "", Kind::Html);
        kind("text/plain", "a < b", Kind::Plain);
        kind("text/plain", " <!DOCTYPE html>", Kind::Html);
        kind("", "<p>x", Kind::Html);
        kind("", "<pre", Kind::Other);
        kind("application/octet-stream", "\u{feff}\n<HTML lang=x>", Kind::Html);
        kind("image/png", "<html>", Kind::Other);
        kind("application/pdf", "%PDF", Kind::Other);
    }
}
