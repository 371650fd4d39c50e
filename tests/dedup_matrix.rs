//! One answer of `curate dedup` for every way to run it: threads, memory, block sizes.

use std::fs;

use serde_json::Value;

use crate::support::{Random, Scratch, curate, line, prose, report};

/// Documents of which two in five repeat an earlier one, exactly or nearly; enough to fill the smallest table several times.
fn repetitive(documents: usize) -> String {
    let mut random = Random(3);
    let mut texts: Vec<String> = Vec::new();
    let mut lines = String::new();
    for i in 0..documents {
        let text = match i % 5 {
            3 => texts[random.below(texts.len())].clone(),
            4 => texts[random.below(texts.len())].replacen(' ', " or ", 1),
            _ => prose(40, &mut random),
        };
        lines += &line(&format!("{i}"), &text);
        texts.push(text);
    }
    lines
}

/// What must not differ: the documents, the proofs, and what the report says of the answer. And the bytes on disk, which may.
fn answer(dir: &Scratch, input: &str, args: &[&str]) -> (Vec<u8>, Vec<u8>, Value, u64) {
    let (removed, json) = (dir.path("removed.jsonl"), dir.path("report.json"));
    let places = ["--removed", removed.to_str().unwrap(), "--report", json.to_str().unwrap(), "-q"];
    let out = curate(["dedup"].iter().chain(args).chain(&places), input).ok().stdout;
    let mut summary = report(&json)["dedup"].take();
    let facts = summary.as_object_mut().unwrap();
    facts.remove("memory").unwrap();
    let disk = facts.remove("disk_bytes").unwrap().as_u64().unwrap();
    (out, fs::read(&removed).unwrap(), summary, disk)
}

#[test]
fn one_answer_for_any_threads_memory_and_blocks() {
    let dir = Scratch::new();
    let input = repetitive(12_000);
    let path = dir.file("in.jsonl", &input);
    let path = path.to_str().unwrap();
    let (out, proofs, summary, disk) = answer(&dir, "", &["--minhash", path, "--threads=1", "--memory=64G"]);
    assert_eq!(disk, 0);
    assert!(proofs.iter().filter(|b| **b == b'\n').count() > 4000);
    for threads in ["--threads=1", "--threads=2", "--threads=4", "--threads=8"] {
        for memory in ["--memory=16M", "--memory=256M", "--memory=1G", "--memory=64G"] {
            for block in ["--block-size=5K", "--block-size=256K", "--block-size=4M"] {
                let found = answer(&dir, "", &["--minhash", path, threads, memory, block]);
                let same = found.0 == out && found.1 == proofs && found.2 == summary;
                assert!(same, "{threads} {memory} {block}");
                assert_eq!(found.3 > 0, memory == "--memory=16M", "{memory} and {} bytes on disk", found.3);
            }
        }
    }
}

#[test]
fn one_answer_of_two_passes_too() {
    let dir = Scratch::new();
    let input = repetitive(9000);
    for kind in [["--minhash", "--keep=longest"], ["--minhash", "--cluster=components"]] {
        let with = |more: &[&str]| {
            let (out, proofs, summary, disk) = answer(&dir, &input, &[&kind, more].concat());
            ((out, proofs, summary), disk)
        };
        let (expected, _) = with(&["--threads=1", "--memory=64G"]);
        for threads in ["--threads=2", "--threads=8"] {
            for memory in ["--memory=16M", "--memory=256M"] {
                for block in ["--block-size=5K", "--block-size=4M"] {
                    let (found, disk) = with(&[threads, memory, block]);
                    assert!(found == expected, "{kind:?} {threads} {memory} {block}");
                    assert!(disk > 0 || memory != "--memory=16M");
                }
            }
        }
    }
}
