//! `curate verify`: every checksum, every record, every end marker.

use std::fs;
use std::path::Path;

use crate::support::{Ran, Scratch, corpus, curate, line, root, shell};

fn verify(paths: &[&Path]) -> Ran {
    curate(["verify".as_ref()].into_iter().chain(paths.iter().map(|p| p.as_os_str())), "")
}

/// Damages a copy of a file: `change` edits its bytes.
fn damaged(dir: &Scratch, from: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> std::path::PathBuf {
    let mut bytes = fs::read(from).unwrap();
    change(&mut bytes);
    dir.file(name, bytes)
}

#[test]
fn sound_paths_are_counted() {
    let dir = Scratch::new();
    let documents = dir.path("a.jsonl.zst");
    curate(["read", "-q", "-o", documents.to_str().unwrap()], line("a", "one") + &line("b", "two")).ok();
    let stream = dir.path("tokens.arrows");
    let args = ["tokenize", "-q", "--tokenizer", "bytes", "-o", stream.to_str().unwrap()];
    curate(args, line("a", "one")).ok();
    let text = dir.file("folder/t.txt", "text");
    dir.file("folder/x.bin", "never read");
    let shards = root().join("fixtures/shards-v1");
    let out = verify(&[&documents, &stream, text.parent().unwrap(), &shards]).ok();
    let rows: Vec<&str> = out.stdout().lines().collect();
    assert_eq!(rows[0], format!("ok  {} (2 documents)", documents.display()));
    assert_eq!(rows[1], format!("ok  {} (1 documents, 4 tokens)", stream.display()));
    assert!(rows[2].ends_with("(1 documents; 1 files of unknown kind not read)"), "{}", rows[2]);
    assert!(rows[3].starts_with("ok  ") && rows[3].contains(" tokens)"), "{}", rows[3]);
    assert_eq!(out.stderr, "");
    let piped = shell("curate verify - < fixtures/documents.jsonl", "").ok();
    assert!(piped.stdout().starts_with("ok  - ("));
}

#[test]
fn damage_is_found_and_named() {
    let dir = Scratch::new();
    let input = corpus(200);
    let sound = dir.path("a.jsonl.gz");
    curate(
        ["clean", "-q", "--recipe", "none", "-o", sound.to_str().unwrap(), "--max-malformed", "1"],
        &input,
    )
    .ok();
    let stream = dir.path("a.arrows");
    let tokenize =
        format!("curate tokenize -q --tokenizer bytes -o {} {}", stream.display(), sound.display());
    shell(&tokenize, "").ok();
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 7);
    let bad = [
        damaged(&dir, &sound, "cut.jsonl.gz", cut),
        damaged(&dir, &sound, "flipped.jsonl.gz", |b| {
            let middle = b.len() / 2;
            b[middle] ^= 0x55;
        }),
        damaged(&dir, &stream, "cut.arrows", cut),
        damaged(&dir, &stream, "twice.arrows", |b| b.extend_from_within(..)),
        dir.file("torn.jsonl", line("a", "fine") + "{\"text\":\"torn"),
        dir.file("empty.arrows", ""),
        dir.path("not there"),
    ];
    let paths: Vec<&Path> = [&sound, &stream].into_iter().chain(&bad).map(|p| p.as_path()).collect();
    let out = verify(&paths).expect(1);
    let rows: Vec<&str> = out.stdout().lines().collect();
    assert_eq!(rows.len(), paths.len());
    assert!(rows[..2].iter().all(|row| row.starts_with("ok  ")), "{rows:#?}");
    for (row, path) in rows[2..].iter().zip(&bad) {
        assert!(row.starts_with(&format!("BAD {}: ", path.display())), "{row}");
    }
    assert!(rows[4].contains("end marker is missing") && rows[5].contains("follows the end"), "{rows:#?}");
    assert!(rows[6].contains("torn.jsonl:2 (byte "), "{}", rows[6]);
    assert!(rows[8].contains("No such file"), "{}", rows[8]);
}

#[test]
fn one_flipped_bit_of_a_shard_set_is_found() {
    let dir = Scratch::new();
    let shards = root().join("fixtures/shards-v1");
    let files: Vec<_> = fs::read_dir(&shards).unwrap().map(|e| e.unwrap().path()).collect();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    for damage in files.iter().filter(|f| fs::metadata(f).unwrap().len() > 0) {
        let copy = format!("copy of {}", name(damage));
        for file in &files {
            damaged(&dir, file, &format!("{copy}/{}", name(file)), |bytes| {
                if file == damage {
                    let last = bytes.len() - 1;
                    bytes[last / 2] ^= 1;
                }
            });
        }
        let out = verify(&[&dir.path(&copy)]).expect(1);
        assert!(out.stdout().starts_with("BAD "), "{}: {}", damage.display(), out.stdout());
    }
}

#[test]
fn json_has_a_line_for_each_path() {
    let dir = Scratch::new();
    let good = dir.file("good.jsonl", line("a", "x"));
    let bad = dir.file("bad.jsonl", "?\n?\n");
    let out = curate(["verify".as_ref(), "--json".as_ref(), good.as_os_str(), bad.as_os_str()], "").expect(1);
    let rows: Vec<serde_json::Value> =
        out.stdout().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((&rows[0]["ok"], &rows[0]["documents"]), (&true.into(), &1.into()));
    assert_eq!((&rows[1]["ok"], &rows[1]["path"]), (&false.into(), &bad.to_str().unwrap().into()));
    assert!(rows[1]["reason"].as_str().unwrap().ends_with("; 1 more faults"), "{}", rows[1]["reason"]);
}
