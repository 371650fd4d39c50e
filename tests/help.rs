//! The complete help is one snapshot, so that a change of the command line is seen in review.

use std::fs;

use crate::support::{curate, root};

const COMMANDS: [&str; 20] = [
    "read",
    "clean",
    "clean diff",
    "clean site-lines",
    "score",
    "train-classifier",
    "dedup",
    "decontaminate",
    "train-tokenizer",
    "tokenize",
    "pack",
    "shards",
    "shards convert",
    "run",
    "embed",
    "stats",
    "inspect",
    "verify",
    "completions",
    "man",
];

/// Set `CURATE_UPDATE_SNAPSHOTS=1` to write the snapshot anew.
#[test]
fn the_help_is_the_snapshot() {
    let mut all = curate(["--help"], "").ok().stdout().to_owned();
    for command in COMMANDS {
        all += &format!(
            "\n==== curate {command} --help\n\n{}",
            curate(command.split(' ').chain(["--help"]), "").ok().stdout()
        );
    }
    let path = root().join("tests/help.txt");
    if std::env::var_os("CURATE_UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &all).unwrap();
    }
    let snapshot = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        all == snapshot,
        "the help has changed: run with CURATE_UPDATE_SNAPSHOTS=1 and look at the difference"
    );
}
