//! `python/curate_shards`: another language, the same rows in the same order.

use std::process::Command;

use curate_shards::{Row, ShardSet};

use crate::support::{Scratch, corpus, root, shell};

/// Prints the batches of two ranks, the second half after a resume, as lines of numbers.
const SCRIPT: &str = "
import sys
from curate_shards import Batches, Rows
rows = Rows(sys.argv[1], 'train', int(sys.argv[2]), numpy_only=True)
ranks = [Batches(rows, 6, seed=7, rank=r, world=2) for r in (0, 1)]
for step in range(40):
    if step == 20:
        states = [b.state_dict() for b in ranks]
        ranks = [Batches(rows, 6, seed=7, rank=r, world=2) for r in (0, 1)]
        [b.load_state_dict(s) for b, s in zip(ranks, states)]
    for batch in map(next, ranks):
        for tokens, length, starts in zip(batch['tokens'], batch['lengths'], batch['document_starts']):
            print(length, *starts, '|', *tokens)
";

/// Documents of two sources in turn.
fn two_sources() -> String {
    let lines = corpus(12);
    let records = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let named = records.enumerate().map(|(i, mut record)| {
        record["source"] = ["web", "code"][i % 2].into();
        record.to_string() + "\n"
    });
    named.collect()
}

#[test]
fn rows_come_in_the_order_of_the_trainer() {
    let numpy = Command::new("python3").args(["-c", "import numpy"]).output();
    if !numpy.is_ok_and(|out| out.status.success()) {
        println!("skipped: python3 has no numpy");
        return;
    }
    let dir = Scratch::new();
    let shards = dir.path("shards");
    let pack =
        "curate tokenize --quiet --tokenizer bytes | curate pack --quiet --seq-len 64 --shard-tokens 5000";
    for policy in [
        "concat",
        "best-fit",
        "best-fit --long truncate",
        "best-fit --materialise=row",
        "concat --materialise=7",
        "best-fit --mix web=2,code=1:3",
        "best-fit --mix web=2,code=1:3 --materialise=7",
    ] {
        shell(&format!("{pack} --force --policy {policy} -o '{}'", shards.display()), two_sources()).ok();
        let out = Command::new("python3")
            .args(["-c", SCRIPT, shards.to_str().unwrap(), "64"])
            .env("PYTHONPATH", root().join("python"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let set = ShardSet::open(&shards).unwrap();
        let (split, view) = (set.split("train").unwrap(), set.view("train", 64).unwrap());
        let plan = view.plan(7, 6).unwrap();
        let mut row = Row::new(64);
        let mut expected = String::new();
        let numbers = |n: &mut dyn Iterator<Item = String>| n.collect::<Vec<_>>().join(" ");
        for r in (0..40).flat_map(|step| plan.step(step).collect::<Vec<_>>()) {
            view.fill(split, r, &mut row);
            let starts = numbers(&mut row.document_starts.iter().map(u32::to_string));
            let tokens = numbers(&mut row.tokens.iter().map(i64::to_string));
            expected += &format!("{} {starts} | {tokens}\n", row.len);
        }
        assert!(view.num_rows() < 240, "{} rows: more than one epoch is to be compared", view.num_rows());
        assert!(String::from_utf8(out.stdout).unwrap() == expected, "{policy}: the rows differ");
    }
}
