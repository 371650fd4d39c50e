//! What people and programs meet around every command: messages as JSON, signals, completions, manual pages.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::support::{CURATE, Ran, Scratch, corpus, curate, line, shell};

/// The messages on stderr, of which every line must be a JSON object with a level.
fn messages(ran: &Ran) -> Vec<Value> {
    let parse =
        |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")) };
    let messages: Vec<Value> = ran.stderr.lines().map(parse).collect();
    assert!(messages.iter().all(|m| m["level"].is_string()), "{}", ran.stderr);
    messages
}

#[test]
fn every_message_can_be_json() {
    let clean =
        curate(["clean", "--log", "json", "--progress", "always", "--max-malformed", "0"], corpus(1500))
            .expect(1);
    let said = messages(&clean);
    assert_eq!((&said[0]["level"], &said[0]["event"]), (&"info".into(), &"summary".into()));
    assert_eq!((&said[0]["command"], &said[0]["report"]["read"]), (&"clean".into(), &1515.into()));
    assert!(
        said[1..].iter().all(|m| m["level"] == "warning" && m["message"].is_string()),
        "{}",
        clean.stderr
    );
    assert!(said.len() > 1, "more malformed records than allowed is a warning");

    let missing = curate(["read", "--log", "json", "no/such/file"], "").expect(2);
    let said = messages(&missing);
    assert_eq!(said.len(), 1);
    assert_eq!(
        (&said[0]["level"], &said[0]["message"]),
        (&"error".into(), &"cannot read no/such/file".into())
    );
    assert_eq!(said[0]["causes"][0], "No such file or directory (os error 2)");
    assert!(said[0]["hint"].as_str().unwrap().contains("check the path"));
    assert_eq!(said[0]["exit_code"], 2);

    let dir = Scratch::new();
    let pipe = format!(
        "curate tokenize -q --tokenizer bytes | curate pack --log json -o {}",
        dir.path("shards").display()
    );
    let packed = messages(&shell(&pipe, line("a", "x")).ok());
    assert_eq!((packed.len(), &packed[0]["report"]["shards"]["splits"][0]["tokens"]), (1, &2.into()));
    assert_eq!(curate(["read", "--log", "json", "-q"], line("a", "x")).ok().stderr, "");
}

/// Whether a process has its handler for a signal, which ends it silently before; where that cannot be seen, yes.
fn catches(process: u32, signal: i32) -> bool {
    if cfg!(not(target_os = "linux")) {
        return true;
    }
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    u64::from_str_radix(caught, 16).unwrap() & (1 << (signal - 1)) != 0
}

/// Starts `curate ARGS`, writes `begin` to its stdin and keeps that open, sends it a signal, and returns how it ended.
///
/// What it says shows that it ended by itself: one that is ended after its time of grace says nothing.
fn interrupt(args: &[&str], begin: &str, signal: i32) -> (Option<i32>, String) {
    let mut child = Command::new(CURATE)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(begin.as_bytes()).unwrap();
    while !catches(child.id(), signal) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before the signal");
        sleep(Duration::from_millis(1));
    }
    // Long enough for it to wait for more; too short only tests less.
    sleep(Duration::from_millis(200));
    let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    (output.status.signal(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_signal_ends_even_a_command_that_waits_for_input() {
    let begin = line("a", "still waiting for more");
    let dir = Scratch::new();
    let shards = dir.path("shards");
    for (signal, name) in [(2, "SIGINT"), (15, "SIGTERM")] {
        let (ended_by, stderr) = interrupt(&["stats"], &begin, signal);
        assert_eq!((ended_by, stderr), (Some(signal), format!("error: interrupted by {name}\n")));
        let (ended_by, stderr) = interrupt(&["pack", "-o", shards.to_str().unwrap()], "", signal);
        assert_eq!(ended_by, Some(signal), "{stderr}");
        assert!(stderr.contains(&format!("caused by: interrupted by {name}\n")), "{stderr}");
    }
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let out = curate(["completions", shell], "").ok();
        for command in ["read", "train-tokenizer", "pack", "stats", "inspect", "verify", "completions", "man"]
        {
            assert!(out.stdout().contains(command), "{command} is not in the completions of {shell}");
        }
        assert!(out.stdout().contains("max-malformed"), "{shell}");
    }
    let checked = shell("curate completions bash | bash -n", "");
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let main = curate(["man"], "").ok();
    assert!(main.stdout().contains(".TH curate 1") && main.stdout().contains("curate\\-read(1)"));
    let dir = Scratch::new();
    curate(["man", "-o", dir.path("man").to_str().unwrap()], "").ok();
    let help = curate(["--help"], "").ok();
    let commands = help.stdout().split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter_map(|l| l.strip_prefix("  ")?.split(' ').next());
    let names: Vec<&str> = names.filter(|n| !n.is_empty() && *n != "help").collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        let page = fs::read_to_string(dir.path("man").join(format!("curate-{name}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
    }
}
