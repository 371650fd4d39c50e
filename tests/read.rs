//! `curate read`: every input there is, as JSON Lines.

use std::fs;
use std::io::Write;

use crate::support::{Scratch, curate, gzip, line, page, report, shell, tree, warc_record};

/// A zstd frame with a window of 128 MiB, which decoders refuse unless told otherwise.
fn zstd_long(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn records_leave_byte_for_byte() {
    let input = "{\"id\" : \"a\", \"text\":\"\\u00e9\\n\", \"n\": 1.50}\r\n\n  {\"text\":\"b\",\"id\":7,\"x\":{\"y\":[ ]}} \n";
    let out = curate(["read"], input).ok();
    assert_eq!(out.stdout(), input.replacen("\n\n", "\n", 1), "only the blank line is gone");
}

#[test]
fn all_kinds_of_inputs_in_one_run() {
    let dir = Scratch::new();
    dir.file("in/a.jsonl", line("a", "one"));
    dir.file(
        "in/b/c.jsonl.gz",
        [gzip(line("c1", "two").as_bytes()), gzip(line("c2", "three").as_bytes())].concat(),
    );
    dir.file("in/b/d.jsonl.zst", zstd_long(line("d", "four").as_bytes()));
    dir.file("in/e.md", "# five\n");
    dir.file("in/f.txt", "six");
    dir.file("in/g.bin", "never read");
    dir.file("in/.hidden.txt", "never read");
    let loose = dir.file("unnamed", line("h", "seven"));
    let input = dir.path("in");
    let out =
        curate(["read".as_ref(), input.as_os_str(), "-".as_ref(), loose.as_os_str()], line("stdin", "eight"))
            .ok();
    let texts: Vec<String> = out
        .stdout()
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["one", "two", "three", "four", "# five\n", "six", "eight", "seven"]);
    assert!(out.stderr.contains("1 files of unknown kind are not read"), "{}", out.stderr);
}

#[test]
fn documents_without_an_id_are_named_after_their_place() {
    let dir = Scratch::new();
    let path = dir.file("x.jsonl", "{\"text\":\"a\"}\n\n{\"text\":\"b\",\"source\":\"s\"}\n");
    let out = curate(["read".as_ref(), path.as_os_str()], "").ok();
    let name = path.display();
    let expected = format!(
        "{{\"id\":\"{name}:1\",\"text\":\"a\"}}\n{{\"id\":\"{name}:3\",\"text\":\"b\",\"source\":\"s\"}}\n"
    );
    assert_eq!(out.stdout(), expected);
}

#[test]
fn nested_text_fields_become_the_schema() {
    let out = curate(
        ["read", "--text-field", "doc.body", "--id-field", "doc.key"],
        "{\"doc\":{\"key\":\"k\",\"body\":\"t\"}}\n",
    )
    .ok();
    assert_eq!(out.stdout(), "{\"id\":\"k\",\"text\":\"t\"}\n");
}

#[test]
fn malformed_rows_are_counted_with_file_line_and_offset() {
    let dir = Scratch::new();
    let good = line("a", "fine");
    let path =
        dir.file("bad.jsonl", format!("{good}{good}not json\n{good}{{\"id\":\"x\"}}\n{{\"text\":\"cut"));
    let json = dir.path("report.json");
    let args = |rest: &[&str]| {
        let mut args: Vec<String> =
            vec!["read".into(), path.display().to_string(), "--report".into(), json.display().to_string()];
        args.extend(rest.iter().map(|s| (*s).to_owned()));
        args
    };
    let out = curate(args(&["--max-malformed", "0.6"]), "").ok();
    assert_eq!(out.stdout(), good.repeat(3));
    let report = report(&json);
    assert_eq!((&report["read"], &report["kept"], &report["malformed"]), (&6.into(), &3.into(), &3.into()));
    let at = |i: usize| {
        (report["malformed_samples"][i]["line"].as_u64(), report["malformed_samples"][i]["offset"].as_u64())
    };
    let row = good.len() as u64;
    assert_eq!(at(0), (Some(3), Some(2 * row)));
    assert_eq!(at(1), (Some(5), Some(3 * row + 9)));
    assert_eq!(at(2).0, Some(6));
    assert!(out.stderr.contains(&format!("{}:3 (byte", path.display())), "{}", out.stderr);

    let too_many = curate(args(&[]), "").expect(1);
    assert!(too_many.stderr.contains("3 of 6 records are malformed"), "{}", too_many.stderr);
    let strict = curate(args(&["--on-error", "fail"]), "").expect(1);
    assert!(
        strict.stderr.contains("error: malformed record") && strict.stderr.contains("hint: "),
        "{}",
        strict.stderr
    );
    let pass = curate(args(&["--on-error", "pass", "--max-malformed", "1"]), "").ok();
    assert!(pass.stdout().contains("not json\n") && pass.stdout().ends_with("{\"text\":\"cut\n"));
}

#[test]
fn outputs_are_compressed_by_name_and_appear_when_complete() {
    let dir = Scratch::new();
    let input = line("a", "x").repeat(1000);
    for name in ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst"] {
        let path = dir.path(name);
        curate(["read".as_ref(), "-o".as_ref(), path.as_os_str()], &input).ok();
        let back = curate(["read".as_ref(), path.as_os_str()], "").ok();
        assert_eq!(back.stdout(), input);
    }
    assert!(fs::metadata(dir.path("out.jsonl.zst")).unwrap().len() < 1000);
    let failed = dir.path("never.jsonl");
    curate(
        ["read".as_ref(), "-o".as_ref(), failed.as_os_str(), "--on-error".as_ref(), "fail".as_ref()],
        "oops\n",
    )
    .expect(1);
    assert!(!failed.exists());
    assert_eq!(fs::read_dir(dir.path("")).unwrap().count(), 3, "no temporary is left");
}

#[test]
fn a_text_can_be_many_documents() {
    let dir = Scratch::new();
    let path = dir.file("poems.txt", "one\nline\n\n\ntwo\n \n\nthree");
    let name = path.display().to_string();
    let expected = |texts: &[&str]| -> String {
        texts.iter().enumerate().map(|(i, text)| line(&format!("{name}:{}", i + 1), text)).collect()
    };
    let out = curate(["read", &name, "--split-on", "blank-line"], "").ok();
    assert_eq!(out.stdout(), expected(&["one\nline", "two", "three"]));
    dir.file("poems.txt", "one\nline\n%%\ntwo\n");
    let out = curate(["read", &name, "--split-on", "^%%$"], "").ok();
    assert_eq!(out.stdout(), expected(&["one\nline", "two"]));
    let out = curate(["read", &name, "--split-on", "("], "").expect(2);
    assert!(out.stderr.starts_with("error: --split-on ( is no regular expression"), "{}", out.stderr);
}

#[test]
fn pages_keep_what_they_say_of_themselves() {
    let dir = Scratch::new();
    let text = "The river flows past the old mill, and in the evening one hears the birds sing. ".repeat(6);
    let html = page("Of rivers", &text).replace(
        "<title>",
        "<meta property=\"article:published_time\" content=\"2021-03-04T05:06:07Z\"><title>",
    );
    let body = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{html}");
    let archive = warc_record("response", 7, "http://example.org/river", body.as_bytes());
    let path = dir.file("a.warc", archive);
    for engine in ["text", "readability", "trafilatura", "union"] {
        let out = curate(["read", "-q", "--extract", engine, path.to_str().unwrap()], "").ok();
        let doc: serde_json::Value = serde_json::from_str(out.stdout()).unwrap();
        assert_eq!(doc["id"], "urn:uuid:00000007-0000-4000-8000-000000000000");
        assert_eq!(doc["url"], "http://example.org/river");
        assert_eq!(
            (&doc["added"], &doc["created"]),
            (&"2024-02-03T04:05:06Z".into(), &"2021-03-04".into()),
            "{doc:#}"
        );
        assert_eq!(doc["metadata"]["title"], "Of rivers");
        assert_eq!(doc["metadata"]["http_status"], 200);
        let found = doc["text"].as_str().unwrap();
        assert!(
            found.contains("one hears the birds sing") && !found.contains("Imprint"),
            "{engine}: {found}"
        );
    }
    let plain = dir.file("b.html", html);
    let out = curate(["read", "-q", plain.to_str().unwrap()], "").ok();
    assert!(out.stdout().contains("one hears the birds sing"), "{}", out.stdout());
}

#[test]
fn outputs_take_the_shape_that_is_asked_for() {
    let dir = Scratch::new();
    dir.file(
        "in/a/x.jsonl",
        (0..40).map(|i| line(&format!("x{i}"), &"word ".repeat(50))).collect::<String>(),
    );
    dir.file("in/y.jsonl.gz", gzip(line("y", "short and poor").as_bytes()));
    let input = dir.path("in").display().to_string();
    let names = |dir: &std::path::Path| tree(dir).into_iter().map(|f| f.0).collect::<Vec<_>>();
    let all = curate(["read", "-q", &input], "").ok();
    for (to, expected) in [
        ("jsonl", ["a/x.jsonl", "y.jsonl"]),
        ("jsonl.gz", ["a/x.jsonl.gz", "y.jsonl.gz"]),
        ("parquet", ["a/x.parquet", "y.parquet"]),
    ] {
        let out = dir.path(&format!("out-{to}/"));
        curate(["read", "-q", &input, "--to", to, "-o", out.to_str().unwrap()], "").ok();
        assert_eq!(names(&out), expected);
        let back = curate(["read", "-q", out.to_str().unwrap()], "").ok();
        assert_eq!(back.stdout(), all.stdout(), "{to}");
    }
    let parts = dir.path("parts/p.jsonl");
    curate(["read", "-q", &input, "--shard-size", "4K", "-o", parts.to_str().unwrap()], "").ok();
    assert_eq!(names(&dir.path("parts")), ["p-00000.jsonl", "p-00001.jsonl", "p-00002.jsonl"]);
    let dolma = dir.path("dolma/");
    curate(["clean", "-q", &input, "--to", "dolma", "-o", dolma.to_str().unwrap()], "").ok();
    assert_eq!(
        names(&dolma),
        [
            "attributes/curate/a/x.jsonl.gz",
            "attributes/curate/y.jsonl.gz",
            "documents/a/x.jsonl.gz",
            "documents/y.jsonl.gz"
        ]
    );
    let attributes = dir.path("dolma/attributes/curate/y.jsonl.gz");
    let rows = shell(&format!("gzip -dc {}", attributes.display()), "").ok();
    assert_eq!(
        rows.stdout(),
        "{\"id\":\"y\",\"attributes\":{\"curate__clean__too_few_words\":[[0,14,1.0]]}}\n"
    );
    let file = dir.path("one.jsonl");
    let out = curate(["read", &input, "--to", "parquet", "-o", file.to_str().unwrap()], "").expect(2);
    assert!(out.stderr.contains("hint: end the name in / for a new directory"), "{}", out.stderr);
}
