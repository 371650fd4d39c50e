//! Chores of this repository that need nothing but cargo: `cargo xtask corpus`, `cargo xtask demo`.

// A chore talks to the developer who started it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod corpus;
mod comments;
mod demo;
mod metadata;

use std::process::ExitCode;

/// Whatever goes wrong in a chore ends it; the message is for a developer.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage:
  cargo xtask corpus FILE.jsonl   gather the prose of the locked dependencies as documents
  cargo xtask demo                run the whole path on that corpus with the release binaries";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["corpus", path] => corpus::write(path.as_ref()),
        ["demo"] => demo::run(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
