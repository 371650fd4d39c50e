//! What holds for every command: the same bytes for any number of threads, quiet ends, honest exit codes.

use std::fs;

use crate::support::{Scratch, corpus, curate, line, root, shell};

#[test]
fn threads_and_blocks_do_not_change_the_output() {
    let input = corpus(600);
    let commands: [&[&str]; 6] = [
        &["read"],
        &["clean"],
        &["clean", "--recipe", "gopher"],
        &["dedup", "--exact"],
        &["dedup", "--minhash", "--threshold", "0.7"],
        &["tokenize", "--tokenizer", "bytes"],
    ];
    for command in commands {
        let with = |threads: &str, block: &str| {
            let common = ["-q", "--max-malformed", "1", "--threads", threads, "--block-size", block];
            curate(command.iter().chain(&common), &input).ok().stdout
        };
        let reference = with("1", "256K");
        assert!(reference.len() > 10_000, "{command:?}");
        for (threads, block) in [("1", "1K"), ("2", "4K"), ("2", "256K"), ("4", "1K"), ("4", "64K")] {
            assert!(
                with(threads, block) == reference,
                "{command:?} --threads {threads} --block-size {block}"
            );
        }
    }
}

#[test]
fn rejects_and_proofs_do_not_depend_on_threads() {
    let dir = Scratch::new();
    let input = corpus(600);
    let log = |command: &[&str], flag: &str, threads: &str| {
        let path = dir.path("log.jsonl");
        let tail = [flag, path.to_str().unwrap(), "--threads", threads, "--block-size", "2K", "-q"];
        curate(command.iter().chain(&tail), &input).ok();
        fs::read_to_string(&path).unwrap()
    };
    for (command, flag) in [(&["clean"][..], "--rejects"), (&["dedup", "--minhash"], "--removed")] {
        let one = log(command, flag, "1");
        assert!(one.lines().count() > 50);
        assert_eq!(one, log(command, flag, "4"));
    }
}

#[test]
fn a_closed_output_ends_quietly() {
    let dir = Scratch::new();
    let input = dir
        .file("big.jsonl", (0..50_000).map(|i| line("a", &format!("{i} ").repeat(100))).collect::<String>());
    let path = input.display();
    for command in ["read", "clean --recipe none", "dedup --exact", "tokenize --tokenizer bytes"] {
        let out = shell(&format!("curate {command} {path} | head -c 10 | wc -c"), "").ok();
        assert_eq!((out.stdout().trim(), out.stderr.as_str()), ("10", ""), "{command}");
    }
}

#[test]
fn missing_inputs_are_named_with_a_hint() {
    let out = curate(["clean", "no/such/file.jsonl"], "").expect(2);
    assert_eq!(
        out.stderr,
        "error: cannot read no/such/file.jsonl\ncaused by: No such file or directory (os error 2)\n\
         hint: check the path; `-` reads standard input\n"
    );
    let dir = Scratch::new();
    let empty = dir.file("empty/x.bin", "");
    let out = curate(["read".as_ref(), empty.parent().unwrap().as_os_str()], "").expect(2);
    assert!(out.stderr.contains("holds no input files"), "{}", out.stderr);
    let out = shell(&format!("curate dedup --exact --removed {}", empty.parent().unwrap().display()), "");
    assert!(out.expect(2).stderr.contains("is a directory"));
}

#[test]
fn empty_input_is_fine_everywhere() {
    for command in [&["read"][..], &["clean"], &["dedup", "--minhash"]] {
        assert_eq!(curate(command, "").ok().stdout, b"");
    }
    let dir = Scratch::new();
    let shards = dir.path("shards");
    shell(&format!("curate tokenize -q --tokenizer bytes | curate pack -q -o {}", shards.display()), "").ok();
    assert_eq!(curate_shards::ShardSet::open(&shards).unwrap().split("train").unwrap().num_documents(), 0);
}

#[test]
fn one_giant_record_goes_through() {
    let input = line("giant", &"a giant word and the rest of it ".repeat(200_000));
    let out = curate(["dedup", "--minhash", "-q", "--block-size", "4K"], &input).ok();
    assert!(out.stdout == input.as_bytes());
}

#[test]
fn invalid_utf8_and_nul_are_handled() {
    let mut input = line("a", "fine").into_bytes();
    input.extend_from_slice(
        b"{\"id\":\"b\",\"text\":\"bad \xff\"}\n{\"id\":\"c\",\"text\":\"nul \\u0000 escaped\"}\n\0\n",
    );
    let out = curate(["read", "--max-malformed", "1"], input).ok();
    assert_eq!(out.stdout().lines().count(), 2);
    assert!(out.stderr.contains("malformed"), "{}", out.stderr);
}

#[test]
fn the_readme_says_what_the_help_says() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let help = curate(["--help"], "").ok();
    let commands = help.stdout().split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for command in commands.lines().filter_map(|l| l.strip_prefix("  ")?.split(' ').next()) {
        if !command.is_empty() && command != "help" {
            assert!(readme.contains(&format!("`{command}`")), "README.md does not list `{command}`");
        }
    }
}
