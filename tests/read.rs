//! `curate read`: every input there is, as JSON Lines.

use std::fs;
use std::io::Write;

use crate::support::{Scratch, curate, gzip, line, report};

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
