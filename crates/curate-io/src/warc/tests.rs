#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use curate_core::{Codec, Parsed};
use proptest::prelude::*;

use super::*;
use crate::page::tests::StripTags;
use crate::records::Records;

/// All records of an archive, and its damage as (offset, message).
#[derive(Debug, Default, PartialEq)]
struct Split {
    /// Bytes, offset, ordinal.
    records: Vec<(Vec<u8>, u64, u64)>,
    damage: Vec<(u64, String)>,
    error: Option<String>,
}

fn split_stream(reader: Box<dyn Read + Send>, format: Format, options: &InputOptions) -> Split {
    let stream = Stream::new("a.warc".into(), reader);
    let mut reader: Box<dyn RecordReader> = match format {
        Format::Warc => Box::new(WarcReader::new(stream)),
        _ => Box::new(ArcReader::new(stream)),
    };
    let mut split = Split::default();
    let mut block = Block::default();
    loop {
        match reader.fill(&mut block, options) {
            Ok(true) => {}
            Ok(false) => return split,
            Err(error) => {
                split.error = Some(error.to_string());
                return split;
            }
        }
        for i in 0..block.records.len() {
            let record = block.record(i);
            split.records.push((record.bytes.to_vec(), record.offset, record.ordinal));
        }
        split.damage.extend(block.damage.iter().map(|d| (d.offset, d.message.clone())));
        block.clear();
    }
}

fn split(bytes: &[u8], format: Format, block_bytes: usize) -> Split {
    let options = InputOptions { block_bytes, ..InputOptions::default() };
    split_stream(Box::new(io::Cursor::new(bytes.to_vec())), format, &options)
}

fn warc_record(headers: &str, content: &str) -> String {
    format!("WARC/1.0\r\n{headers}Content-Length: {}\r\n\r\n{content}", content.len())
}

fn texts(split: &Split) -> Vec<&str> {
    split.records.iter().map(|(bytes, ..)| std::str::from_utf8(bytes).unwrap()).collect()
}

#[test]
fn archives_as_they_should_be_and_as_they_are() {
    let (a, b) = (warc_record("WARC-Type: x\r\n", "one"), warc_record("", "two\r\n\r\nWARC-1"));
    for between in ["\r\n\r\n", "\n\n", "", "\n", "\r\n\r\n\r\n\r\n"] {
        let archive = format!("{a}{between}{b}{between}");
        let found = split(archive.as_bytes(), Format::Warc, 1 << 20);
        assert_eq!((texts(&found), &found.damage), (vec![&*a, &*b], &vec![]), "{between:?}");
        assert_eq!(found.records[1].1, (a.len() + between.len()) as u64);
    }
    assert_eq!(split(b"", Format::Warc, 1), Split::default());
    assert_eq!(split(b"\r\n\r\n", Format::Warc, 1), Split::default());
}

#[test]
fn damage_is_named_and_passed_over() {
    let (a, b) = (warc_record("A: 1\r\n", "one"), warc_record("B: 2\r\n", "two"));
    let check = |archive: String, records: &[&str], damage: &[(usize, &str)]| {
        let found = split(archive.as_bytes(), Format::Warc, 1 << 20);
        assert_eq!(texts(&found), records, "{archive:?}");
        assert_eq!(found.damage.len(), damage.len(), "{:?}", found.damage);
        for ((offset, message), (at, part)) in found.damage.iter().zip(damage) {
            assert!(*offset == *at as u64 && message.contains(part), "{offset} {message}");
        }
    };
    let n = a.len();
    check(format!("{a}xyz\r\n\r\n{b}"), &[&a, &b], &[(n, "`WARC/`; 7 bytes up to the next record")]);
    check(format!("garbage\n{a}"), &[&a], &[(0, "`WARC/`; 8 bytes")]);
    check(format!("{a}\n\nWARC/1.0\nA: b\n\n{b}"), &[&a, &b], &[(n + 2, "Content-Length header; 15 bytes")]);
    check(format!("{a}\n\nWARC/1.0\nA: b\n\n\n{b}"), &[&a, &b], &[(n + 2, "Content-Length")]);
    check(
        format!("{a}\r\n\r\n{}", &b[..b.len() - 1]),
        &[&a],
        &[(n + 4, "expected 3 bytes of content, found 2")],
    );
    check(format!("{a}\r\n\r\n{}", &b[..20]), &[&a], &[(n + 4, "whole head of a record, found 20 bytes")]);
    check(format!("{a}\r\n\r\nrest"), &[&a], &[(n + 4, "4 bytes")]);
    // A length that is too small.
    let short = "WARC/1.0\nContent-Length: 1\n\n";
    check(format!("{short}one\n\n{b}"), &[&format!("{short}o"), &b], &[(short.len() + 1, "4 bytes")]);
}

#[test]
fn records_over_the_limit_are_read_over() {
    let (a, b) = (warc_record("", "small"), warc_record("", &"x".repeat(5000)));
    for block_bytes in [1, 100, 1 << 20] {
        let options = InputOptions { block_bytes, max_record_bytes: 200, ..InputOptions::default() };
        let archive = format!("{a}\r\n\r\n{b}\r\n\r\n{a}");
        let found = split_stream(Box::new(io::Cursor::new(archive)), Format::Warc, &options);
        assert_eq!(texts(&found), [&*a, &*a]);
        let (offset, message) = &found.damage[0];
        assert_eq!((*offset, found.damage.len()), (a.len() as u64 + 4, 1));
        assert!(message.contains("--max-record-bytes (now 200)"), "{message}");
        assert_eq!(found.records[1].2, 1);
    }
    let options = InputOptions { max_record_bytes: 1 << 20, ..InputOptions::default() };
    let head = "WARC/1.0\nContent-Length: 18446744073709551615\n\n".as_bytes();
    let endless = Box::new(head.chain(io::repeat(b'x')).take(64 << 20));
    let found = split_stream(endless, Format::Warc, &options);
    assert_eq!((found.records.len(), found.damage.len()), (0, 2), "{:?}", found.damage);
}

/// A stream that loses bytes, or fails, where its parts meet.
struct Broken {
    parts: Vec<Vec<u8>>,
    gap: bool,
    last: bool,
}

impl Read for Broken {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(part) = self.parts.first_mut() else { return Ok(0) };
        if part.is_empty() {
            self.parts.remove(0);
            if self.parts.is_empty() && !self.last {
                return Ok(0);
            }
            return Err(if self.gap {
                io::Error::other(SkippedBytes { offset: 7, message: "a gzip member is damaged".to_owned() })
            } else {
                io::Error::other("disk on fire")
            });
        }
        let n = buf.len().min(part.len());
        buf[..n].copy_from_slice(&part[..n]);
        part.drain(..n);
        Ok(n)
    }
}

#[test]
fn reading_goes_on_behind_a_gap() {
    let (a, b) = (warc_record("A: 1\r\n", "one"), warc_record("B: 2\r\n", "two"));
    let cut = |text: &str, n: usize| text.as_bytes()[..text.len() - n].to_vec();
    let ab = format!("{a}\r\n\r\n{b}");
    let check = |parts: &[Vec<u8>], records: &[&str], damage: &[&str]| {
        for block_bytes in [1, 1 << 20] {
            let options = InputOptions { block_bytes, ..InputOptions::default() };
            let broken = Broken { parts: parts.to_vec(), gap: true, last: false };
            let found = split_stream(Box::new(broken), Format::Warc, &options);
            assert_eq!((texts(&found), found.error.as_ref()), (records.to_vec(), None));
            let messages: Vec<_> = found.damage.iter().map(|(_, message)| message.as_str()).collect();
            assert_eq!(messages.len(), damage.len(), "{messages:?}");
            assert!(messages.iter().zip(damage).all(|(got, part)| got.contains(part)), "{messages:?}");
        }
    };
    check(&[cut(&ab, 1), b.clone().into_bytes()], &[&a, &b], &["found 2", "gzip member"]);
    check(&[cut(&ab, 0), b.clone().into_bytes()], &[&a, &b, &b], &["gzip member"]);
    check(
        &[cut(&a, 0), b"lost half\r\n".to_vec(), b.clone().into_bytes()],
        &[&a, &b],
        &["gzip", "11 bytes", "gzip"],
    );
    let middle = format!("half a record\r\n\r\n{b}");
    check(&[cut(&a, 0), middle.into_bytes()], &[&a, &b], &["gzip member", "17 bytes"]);
}

#[test]
fn an_error_ends_the_archive_behind_its_whole_records() {
    let a = warc_record("A: 1\r\n", "one");
    let parts = vec![format!("{a}\r\n\r\n{}", &a[..30]).into_bytes()];
    let found = split_stream(
        Box::new(Broken { parts, gap: false, last: true }),
        Format::Warc,
        &InputOptions::default(),
    );
    assert_eq!((texts(&found), found.damage.len()), (vec![&*a], 0));
    assert!(found.error.is_some());
}

const ARC_HEAD: &str = "filedesc://a.arc 0.0.0.0 20140216050221 text/plain 76\n1 0 LiveWeb Capture\n\
                        URL IP-address Archive-date Content-type Archive-length\n";

#[test]
fn arc_archives() {
    let a = "http://a.example/x y 1.2.3.4 20140216050221 text/html 5\nabcde";
    let b = "http://b.example/ 1.2.3.4 20140216050221 text/html 2\nhi";
    for between in ["", "\n", "\r\n\n"] {
        let archive = format!("{ARC_HEAD}{between}{a}{between}{b}{between}");
        let found = split(archive.as_bytes(), Format::Arc, 1 << 20);
        assert_eq!(
            (found.records.len(), texts(&found)[1..].to_vec(), &found.damage),
            (3, vec![a, b], &vec![])
        );
    }
    let bad = b.replace("html 2", "html -1");
    let found = split(format!("{a}\n{bad}\n\n{b}\n").as_bytes(), Format::Arc, 1 << 20);
    assert_eq!(texts(&found), [a, b]);
    assert!(found.damage[0].1.contains("found `-1`"), "{:?}", found.damage);
}

#[test]
fn inputs_are_known_for_archives_by_their_first_bytes() {
    let warc = warc_record("WARC-Type: x\r\n", "one");
    for (bytes, format, records) in [(warc.as_str(), Format::Warc, 1), (ARC_HEAD, Format::Arc, 1)] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes.as_bytes()).unwrap();
        let found = crate::input::resolve(&[file.path().to_owned()], None).unwrap();
        let mut inputs = crate::Inputs::new(found.files, crate::InputOptions::default());
        let mut block = Block::default();
        assert!(curate_core::Source::fill(&mut inputs, &mut block).unwrap());
        assert_eq!((block.format, block.records.len(), &block.damage), (format.tag(), records, &vec![]));
    }
}

/// What the codec makes of one record: `ID|TEXT|FIELDS`, `set aside: REASON` or `malformed: MESSAGE`.
fn parsed(bytes: &[u8], format: Format) -> String {
    let codec = Records::new("text", "id").unwrap().with_extractor(std::sync::Arc::new(StripTags));
    let record = curate_core::Record { bytes, origin: "a.warc", offset: 0, ordinal: 6, format: format.tag() };
    match codec.parse(record) {
        Ok(Parsed::Document(doc)) => {
            let mut line = Vec::new();
            codec.write(&doc, &mut line);
            let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(line["text"], doc.text());
            format!("{}|{}|{}", doc.id(), doc.text(), doc.fields())
        }
        Ok(Parsed::SetAside(reason)) => format!("set aside: {reason}"),
        Ok(Parsed::Nothing) => "nothing".to_owned(),
        Err(malformed) => format!("malformed: {}", malformed.message),
    }
}

#[test]
fn records_become_documents_or_are_set_aside() {
    let check = |headers: &str, content: &str, expected: &str| {
        assert_eq!(
            parsed(warc_record(headers, content).as_bytes(), Format::Warc),
            expected,
            "{headers}{content}"
        );
    };
    let page = "<html lang=\"en\"><title>T</title>\n<p>word";
    let response = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=latin1\r\n\r\n{page}");
    check(
        "WARC-Type: response\r\nWARC-Target-URI: <http://a.example/\"q\">\r\nWARC-Record-ID: <urn:uuid:1>\r\n\
         WARC-Date: 2020-01-02T03:04:05Z\r\n",
        &response,
        "urn:uuid:1|T\nword|,\"url\":\"http://a.example/\\\"q\\\"\",\"lang\":\"en\",\"added\":\"2020-01-02T03:04:05Z\",\
         \"metadata\":{\"title\":\"T\",\"charset\":\"windows-1252\",\"http_status\":200,\"content_type\":\"text/html\"}",
    );
    check(
        "WARC-Type: conversion\r\nContent-Type: text/plain\r\n",
        "Grüße\n",
        "a.warc:7|Grüße\n|,\"metadata\":{\"charset\":\"utf-8\",\"content_type\":\"text/plain\"}",
    );
    check(
        "WARC-Type: resource\r\nContent-Type: text/html\r\n",
        "<p>r",
        "a.warc:7|r|,\"metadata\":{\"charset\":\"utf-8\",\"content_type\":\"text/html\"}",
    );
    check(
        "WARC-Type: response\r\n",
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n<html>x",
        "a.warc:7|x|,\"metadata\":{\"charset\":\"utf-8\",\"http_status\":200,\"repaired\":\"not_chunked\"}",
    );
    for (record_type, reason) in [
        ("request", "warc_request"),
        ("Metadata", "warc_metadata"),
        ("warcinfo", "warc_warcinfo"),
        ("revisit", "warc_revisit"),
        ("continuation", "warc_other"),
    ] {
        check(&format!("WARC-Type: {record_type}\r\n"), "x", &format!("set aside: {reason}"));
    }
    check("WARC-Type: response\r\nContent-Type: text/dns\r\n", "x", "set aside: warc_dns");
    check("WARC-Type: response\r\nWARC-Target-URI: dns:a\r\n", "x", "set aside: warc_dns");
    check("WARC-Type: response\r\nWARC-Target-URI: ftp://a\r\n", "x", "set aside: warc_other");
    check(
        "WARC-Type: resource\r\nWARC-Target-URI: metadata://a\r\nContent-Type: text/plain\r\n",
        "x",
        "set aside: warc_metadata",
    );
    check("WARC-Type: resource\r\nContent-Type: image/png\r\n", "x", "set aside: media_type_not_text");
    for (head, reason) in [
        ("301 Moved", "http_redirect"),
        ("304 Not Modified", "http_status_not_2xx"),
        ("404 Not Found", "http_status_not_2xx"),
        ("200 OK\r\nContent-Type: image/png", "media_type_not_text"),
        ("200 OK\r\nContent-Type: text/html", "empty_body"),
    ] {
        check(
            "WARC-Type: response\r\n",
            &format!("HTTP/1.1 {head}\r\n\r\n \n"),
            &format!("set aside: {reason}"),
        );
    }
    check("", "x", "malformed: expected a WARC-Type header");
    check("WARC-Type: response\r\n", "no status", "malformed: expected an HTTP status line");
}

#[test]
fn arc_records_become_documents() {
    let check = |url: &str, content: &str, expected: &str| {
        let record = format!("{url} 1.2.3.4 20140216050221 text/html {}\n{content}", content.len());
        assert_eq!(parsed(record.as_bytes(), Format::Arc), expected, "{url} {content}");
    };
    check(
        "http://a.example/x y",
        "HTTP/1.0 200 OK\nContent-Type: text/html\n\n<p>a",
        "a.warc:7|a|,\"url\":\"http://a.example/x y\",\"added\":\"2014-02-16T05:02:21Z\",\
         \"metadata\":{\"charset\":\"utf-8\",\"http_status\":200,\"content_type\":\"text/html\"}",
    );
    check("filedesc://a.arc", "1 0 x", "set aside: warc_warcinfo");
    check("dns:a.example", "x", "set aside: warc_dns");
    check("http://a.example/", "\n", "set aside: empty_body");
}

/// An archive of records with any content, and where each record lies.
fn any_archive() -> impl Strategy<Value = (Vec<u8>, Vec<std::ops::Range<usize>>)> {
    let content = prop::collection::vec(any::<u8>(), 0..400);
    let line = prop::sample::select(vec!["\r\n", "\n"]);
    let between = prop::sample::select(vec!["\r\n\r\n", "\n\n", "\n", ""]);
    let version = prop::sample::select(vec!["0.17", "0.18", "1.0", "1.1"]);
    prop::collection::vec((content, line, between, version, any::<u8>()), 0..12).prop_map(|records| {
        let (mut archive, mut ranges) = (Vec::new(), Vec::new());
        for (mut content, line, between, version, kind) in records {
            let (record_type, media_type) =
                [("response", "application/http"), ("conversion", "text/plain"), ("resource", "text/html")]
                    [usize::from(kind) % 3];
            if kind % 3 == 0 {
                let encoding = ["gzip", "deflate", "br", "zstd", "identity"][usize::from(kind / 3) % 5];
                let head = format!(
                    "HTTP/1.1 200{line}Content-Type: text/html{line}Content-Encoding: {encoding}{line}{line}"
                );
                content.splice(0..0, head.into_bytes());
            }
            let start = archive.len();
            archive
                .extend_from_slice(format!("WARC/{version}{line}WARC-Type: {record_type}{line}").as_bytes());
            archive.extend_from_slice(format!("content-type:{media_type}{line}").as_bytes());
            archive.extend_from_slice(format!("CONTENT-LENGTH: {}{line}{line}", content.len()).as_bytes());
            archive.extend_from_slice(&content);
            ranges.push(start..archive.len());
            archive.extend_from_slice(between.as_bytes());
        }
        (archive, ranges)
    })
}

fn found_ranges(found: &Split) -> Vec<std::ops::Range<usize>> {
    found.records.iter().map(|(bytes, offset, _)| *offset as usize..*offset as usize + bytes.len()).collect()
}

proptest! {
    #[test]
    fn well_formed_archives_are_split_as_they_were_made((archive, ranges) in any_archive(), block_bytes in 1..3000usize) {
        let found = split(&archive, Format::Warc, block_bytes);
        prop_assert_eq!(&found.damage, &vec![]);
        prop_assert_eq!(found_ranges(&found), ranges);
        for (i, (bytes, _, ordinal)) in found.records.iter().enumerate() {
            prop_assert_eq!(i as u64, *ordinal);
            parsed(bytes, Format::Warc);
        }
    }

    /// Whatever happens to an archive, blocks of any size tell the same, and what is told lies where it says.
    #[test]
    fn damaged_archives_are_read_alike_in_any_blocks(
        (mut archive, _) in any_archive(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        block_bytes in 1..3000usize,
        arc: bool,
    ) {
        if !archive.is_empty() {
            for (at, byte) in flips {
                let at = at.index(archive.len());
                archive[at] = byte;
            }
            if let Some(cut) = cut {
                archive.truncate(cut.index(archive.len()));
            }
        }
        let format = if arc { Format::Arc } else { Format::Warc };
        let found = split(&archive, format, block_bytes);
        prop_assert_eq!(&found, &split(&archive, format, 1 << 20));
        for ((bytes, ..), range) in found.records.iter().zip(found_ranges(&found)) {
            prop_assert_eq!(bytes, &archive[range]);
            parsed(bytes, format);
        }
    }

    #[test]
    fn arc_archives_are_split_as_they_were_made(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..9), block_bytes in 1..2000usize
    ) {
        let mut archive = ARC_HEAD.as_bytes().to_vec();
        let mut ranges = Vec::new();
        ranges.push(0..archive.len());
        for content in contents {
            archive.push(b'\n');
            let start = archive.len();
            archive.extend_from_slice(format!("http://a/b c 1.2.3.4 20140216050221 t/p {}\n", content.len()).as_bytes());
            archive.extend_from_slice(&content);
            ranges.push(start..archive.len());
        }
        let found = split(&archive, Format::Arc, block_bytes);
        prop_assert_eq!((found_ranges(&found), &found.damage), (ranges, &vec![]));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), head in 0..4usize) {
        let heads: [&[u8]; 4] = [
            b"",
            b"WARC/1.0\nWARC-Type: response\nContent-Length: 9\n\nHTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\n",
            b"WARC/1.0\nWARC-Type: response\nContent-Length: 9\n\nHTTP/1.1 200 OK\nContent-Encoding: br\n",
            b"http://a 1.2.3.4 20140216050221 text/html 100\nHTTP/1.0 200\n\n",
        ];
        let bytes = [heads[head], &bytes].concat();
        for format in [Format::Warc, Format::Arc] {
            split(&bytes, format, 64);
            parsed(&bytes, format);
        }
    }
}

fn shared_archives() -> Option<PathBuf> {
    let root = std::env::var_os("CURATE_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    Some(root.join("warc")).filter(|dir| dir.is_dir())
}

fn files_under(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files_under(&path, found) } else { found.push(path) }
    }
}

/// Archives that other projects test with, if they are here.
#[test]
fn archives_of_other_projects_are_read() {
    let Some(dir) = shared_archives() else {
        println!("skipped: no archives; set CURATE_SHARED_DATA to the folder that holds warc/");
        return;
    };
    let mut files = Vec::new();
    files_under(&dir, &mut files);
    for path in files {
        let mut raw = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut raw).unwrap();
        let reader: Box<dyn Read + Send> = if raw.starts_with(&[0x1f, 0x8b]) {
            Box::new(flate2::read::MultiGzDecoder::new(io::Cursor::new(raw)))
        } else if raw.starts_with(&[4, 0x22, 0x4d, 0x18]) {
            Box::new(io::Cursor::new(lz4_frames(&raw)))
        } else {
            Box::new(io::Cursor::new(raw))
        };
        let (head, reader) = crate::input::peek(reader, 512).unwrap();
        let format = Format::of_content(&head).unwrap_or(Format::Warc);
        let found = split_stream(reader, format, &InputOptions::default());
        let mut outcomes = BTreeMap::<String, u32>::new();
        for (bytes, ..) in &found.records {
            let outcome = parsed(bytes, format);
            let is_document = !outcome.starts_with("set aside") && !outcome.starts_with("malformed");
            *outcomes.entry(if is_document { "document".to_owned() } else { outcome }).or_default() += 1;
        }
        let name = path.strip_prefix(&dir).unwrap().display();
        println!("{name}: {} records {outcomes:?}", found.records.len());
        for (offset, message) in &found.damage {
            println!("    byte {offset}: {message}");
        }
        println!("{}", found.error.map_or(String::new(), |error| format!("    ended by: {error}")));
        assert!(
            !found.records.is_empty() || !found.damage.is_empty() || name.to_string().contains("clipped"),
            "{name}"
        );
    }
}

fn lz4_frames(raw: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), raw);
    while !rest.is_empty() {
        let mut decoder = lz4_flex::frame::FrameDecoder::new(rest);
        decoder.read_to_end(&mut out).unwrap();
        let left = decoder.into_inner();
        if left.len() == rest.len() {
            break;
        }
        rest = left;
    }
    out
}
