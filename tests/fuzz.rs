//! The fuzz targets' checks as property tests: sound inputs with bytes changed, cut and doubled, for every format.

#[path = "../fuzz/fuzz_targets/common.rs"]
mod common;

use curate_io::Format;
use proptest::prelude::*;

use crate::support::{corpus, crawl, gzip, line, page, warc_record};

fn arc() -> Vec<u8> {
    let html = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{}",
        page("Old", "An old page. It has words.")
    );
    let version = "1 0 Example\nURL IP-address Archive-date Content-type Archive-length\n\n";
    format!(
        "filedesc://a.arc 0.0.0.0 20080430204825 text/plain {}\n{version}\
         http://example.org/a b 1.2.3.4 20080430204826 text/html {}\n{html}\n",
        version.len(),
        html.len()
    )
    .into_bytes()
}

fn tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["a.jsonl", "b/c.txt"] {
        let mut header = tar::Header::new_gnu();
        let text = line("a", "in an archive");
        header.set_size(text.len() as u64);
        header.set_cksum();
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A sound input of each format that can be made by hand; the tables are made by `curate` in other tests.
fn seeds() -> Vec<(Option<Format>, Vec<u8>)> {
    let warc: Vec<u8> = (0..3)
        .flat_map(|i| warc_record("response", i, "http://a.example/", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
        .collect();
    let csv = b"id,text\n1,\"a \"\"b\"\"\nc\"\n2,d\n".to_vec();
    vec![
        (Some(Format::JsonLines), corpus(5).into_bytes()),
        (Some(Format::Text), b"one\n\ntwo\n".to_vec()),
        (Some(Format::Html), page("T", "Some words.").into_bytes()),
        (Some(Format::Warc), warc),
        (None, crawl(0, 2)),
        (Some(Format::Arc), arc()),
        (Some(Format::Csv), csv.clone()),
        (Some(Format::Tsv), csv),
        (None, tar()),
        (None, gzip(&tar())),
        (None, zstd::encode_all(corpus(5).as_bytes(), 3).unwrap()),
        (Some(Format::Parquet), b"PAR1\x15\x04\x15\x10PAR1".to_vec()),
        (Some(Format::Arrow), b"ARROW1\0\0\xff\xff\xff\xff\x10\0\0\0".to_vec()),
    ]
}

/// One change of a few bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Cut(usize),
    Double(usize, usize),
    Remove(usize, usize),
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let at = |i: usize, bytes: &Vec<u8>| i % bytes.len().max(1);
    if bytes.is_empty() {
        return;
    }
    match *change {
        Change::Set(i, b) => {
            let i = at(i, bytes);
            bytes[i] = b;
        }
        Change::Cut(i) => bytes.truncate(at(i, bytes)),
        Change::Double(i, n) => {
            let i = at(i, bytes);
            let part = bytes[i..(i + n).min(bytes.len())].to_vec();
            bytes.splice(i..i, part);
        }
        Change::Remove(i, n) => {
            let i = at(i, bytes);
            bytes.drain(i..(i + n).min(bytes.len()));
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(i, b)| Change::Set(i, b)),
        1 => any::<usize>().prop_map(Change::Cut),
        1 => (any::<usize>(), 1..200usize).prop_map(|(i, n)| Change::Double(i, n)),
        1 => (any::<usize>(), 1..200usize).prop_map(|(i, n)| Change::Remove(i, n)),
    ]
}

#[test]
fn sound_inputs_are_read() {
    for (format, bytes) in seeds() {
        common::read(format, &bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_inputs_never_panic_and_every_record_is_counted(
        seed in 0..13usize,
        changes in prop::collection::vec(change(), 0..6),
    ) {
        let (format, mut bytes) = seeds().swap_remove(seed);
        changes.iter().for_each(|c| apply(&mut bytes, c));
        common::read(format, &bytes);
    }
}
