//! From a record of an archive to a document, or to the reason why it is none.

use std::borrow::Cow;

use curate_core::{Parsed, Record};

use super::header::{ArcLine, Head, Headers, arc_head, warc_head};
use crate::http::{Kind, MediaType, Response};
use crate::json::Fault;
use crate::page::{Body, Extractor, Facts, parse_body};
use crate::records::made_up_id;

type Outcome<'a> = Result<Parsed<'a>, Fault>;

/// Reads a WARC record: responses of web servers, extracted texts (WET) and resources that are pages or texts give
/// documents; every other record is set aside under the name of its type.
pub(crate) fn parse_warc<'a>(record: Record<'a>, extractor: Option<&dyn Extractor>) -> Outcome<'a> {
    let Head::Record { header, .. } = warc_head(record.bytes) else {
        return Err(Fault { offset: 0, message: "expected a WARC record with a Content-Length".to_owned() });
    };
    let (head, content) = record.bytes.split_at(header);
    let headers = Headers::new(head);
    let Some(record_type) = headers.get("warc-type") else {
        return Err(Fault { offset: 0, message: "expected a WARC-Type header".to_owned() });
    };
    let url = headers.get("warc-target-uri");
    let url = url.as_deref().map(|url| url.trim_start_matches('<').trim_end_matches('>'));
    let media_type = MediaType::parse(&headers.get("content-type").unwrap_or_default());
    let scheme =
        url.and_then(|url| url.split_once(':')).map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    let holding = Holding {
        record,
        id: headers.get("warc-record-id"),
        url,
        added: headers.get("warc-date"),
        extractor,
    };
    let is_dns = scheme == "dns" || media_type.essence == "text/dns";
    let reason = match record_type.to_ascii_lowercase().as_str() {
        "response" | "resource" | "conversion" if is_dns => "warc_dns",
        "response" if matches!(scheme.as_str(), "" | "http" | "https") => {
            return holding.response(content, header);
        }
        "resource" | "conversion" if scheme == "metadata" => "warc_metadata", // A crawler's notes on itself.
        "resource" | "conversion" => return Ok(holding.resource(content, &media_type)),
        "request" => "warc_request",
        "metadata" => "warc_metadata",
        "warcinfo" => "warc_warcinfo",
        "revisit" => "warc_revisit",
        _ => "warc_other",
    };
    Ok(Parsed::SetAside(reason))
}

/// Reads an ARC record; it is a response, or something else that its URL tells.
pub(crate) fn parse_arc<'a>(record: Record<'a>, extractor: Option<&dyn Extractor>) -> Outcome<'a> {
    let no_line = || Fault { offset: 0, message: "expected a record line".to_owned() };
    let Head::Record { header, .. } = arc_head(record.bytes) else { return Err(no_line()) };
    let (line, content) = record.bytes.split_at(header);
    let line = ArcLine::parse(line.trim_ascii_end()).ok_or_else(no_line)?;
    let url = String::from_utf8_lossy(line.url);
    let date = std::str::from_utf8(line.date).ok().and_then(date_of_digits).map(Cow::Owned);
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    let holding = Holding { record, id: None, url: Some(&url), added: date, extractor };
    match scheme.as_str() {
        "filedesc" => Ok(Parsed::SetAside("warc_warcinfo")),
        "dns" => Ok(Parsed::SetAside("warc_dns")),
        "http" | "https" if content.trim_ascii().is_empty() => Ok(Parsed::SetAside("empty_body")),
        "http" | "https" => holding.response(content, header),
        _ => Ok(Parsed::SetAside("warc_other")),
    }
}

/// What a record says of what it holds.
struct Holding<'a, 'x> {
    record: Record<'a>,
    id: Option<Cow<'a, str>>,
    url: Option<&'x str>,
    added: Option<Cow<'x, str>>,
    extractor: Option<&'x dyn Extractor>,
}

impl<'a> Holding<'a, '_> {
    /// The body of an HTTP response that succeeded; it stands `offset` bytes into the record.
    fn response(self, content: &'a [u8], offset: usize) -> Outcome<'a> {
        let Some(response) = Response::parse(content) else {
            return Err(Fault { offset, message: "expected an HTTP status line".to_owned() });
        };
        match response.status {
            None | Some(200..=299) => {}
            Some(300..=303 | 305..=399) => return Ok(Parsed::SetAside("http_redirect")),
            Some(_) => return Ok(Parsed::SetAside("http_status_not_2xx")),
        }
        let media_type = response.media_type();
        // Pictures and archives, which are most of a crawl's bytes, need not be decoded to be left alone.
        if !media_type.may_be_text() {
            return Ok(Parsed::SetAside("media_type_not_text"));
        }
        match response.decoded_body() {
            Ok(body) => Ok(self.document(body.bytes, &media_type, response.status, body.repaired)),
            Err(reason) => Ok(Parsed::SetAside(reason)),
        }
    }

    /// A page or text stored as it is.
    fn resource(self, content: &'a [u8], media_type: &MediaType) -> Parsed<'a> {
        self.document(Cow::Borrowed(content), media_type, None, Vec::new())
    }

    fn document(
        self,
        bytes: Cow<'a, [u8]>,
        media_type: &MediaType,
        http_status: Option<u16>,
        repaired: Vec<&'static str>,
    ) -> Parsed<'a> {
        if bytes.trim_ascii().is_empty() {
            return Parsed::SetAside("empty_body");
        }
        let is_html = match media_type.kind(&bytes) {
            Kind::Html => true,
            Kind::Plain => false,
            Kind::Other => return Parsed::SetAside("media_type_not_text"),
        };
        let facts = Facts {
            url: self.url,
            added: self.added.filter(|date| is_date(date)).map(Cow::into_owned),
            http_status,
            content_type: Some(media_type.essence.as_str()),
            repaired,
        };
        let body = Body { bytes, is_html, label: media_type.charset.as_deref() };
        parse_body(self.record, identity(self.record, self.id), body, facts, self.extractor)
    }
}

/// The record's own id without its angle brackets, or where the record stands.
fn identity<'a>(record: Record<'a>, id: Option<Cow<'a, str>>) -> Cow<'a, str> {
    let bare = |id: &str| id.trim_start_matches('<').trim_end_matches('>').to_owned();
    let id = id.map(|id| bare(&id)).filter(|id| !id.is_empty());
    Cow::Owned(id.unwrap_or_else(|| made_up_id(record)))
}

/// Whether `date` is a date of ISO 8601 as WARC writes it, of any precision.
fn is_date(date: &str) -> bool {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let body = date.split(['Z', '+', '.']).next().unwrap_or_default().as_bytes();
    let matches = |(b, shape): (&u8, &u8)| if *shape == b'd' { b.is_ascii_digit() } else { b == shape };
    let body = &body[..body.len().min(SHAPE.len())];
    let tail = &date.as_bytes()[body.len()..];
    let zone = |b: &u8| b.is_ascii_digit() || matches!(b, b'Z' | b'+' | b'-' | b':' | b'.');
    matches!(body.len(), 4 | 7 | 10 | 16 | 19)
        && body.iter().zip(SHAPE).all(matches)
        && tail.len() <= 16
        && tail.iter().all(zone)
}

/// `YYYYMMDDhhmmss` as ISO 8601; shorter ones are dates without a time.
fn date_of_digits(digits: &str) -> Option<String> {
    let part = |range: std::ops::Range<usize>, least: u32, most: u32| {
        let text = digits.get(range)?;
        text.parse::<u32>().ok().filter(|n| (least..=most).contains(n)).map(|_| text)
    };
    let date = format!("{}-{}-{}", part(0..4, 1990, 2999)?, part(4..6, 1, 12)?, part(6..8, 1, 31)?);
    match (part(8..10, 0, 23), part(10..12, 0, 59), part(12..14, 0, 60)) {
        (Some(hour), Some(minute), Some(second)) => Some(format!("{date}T{hour}:{minute}:{second}Z")),
        _ => Some(date),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (digits, expected) in [
            ("20080430204825", Some("2008-04-30T20:48:25Z")),
            ("201404010000000000", Some("2014-04-01T00:00:00Z")),
            ("20080430", Some("2008-04-30")),
            ("20081430204825", None),
            ("1", None),
        ] {
            assert_eq!(date_of_digits(digits).as_deref(), expected, "{digits}");
        }
        for date in [
            "2020-01-02T03:04:05Z",
            "2020-01-02T03:04:05.678901Z",
            "2020",
            "2020-01-02T03:04:05+01:00",
            "2020-01-02",
        ] {
            assert!(is_date(date), "{date}");
        }
        for date in [
            "",
            "2008-10-294T05:21:46-0700",
            "Wed, 30 Apr 2008",
            "2020-01-02T03:04:05Z and more text",
            "20é0",
            "2020-01-02T03:04:0é",
        ] {
            assert!(!is_date(date), "{date}");
        }
    }
}
