//! `curate`: turns raw text into training shards and trains a causal language model on them.

mod chain;
mod cli;
mod commands;
mod failure;
mod summary;
mod ui;
mod usage;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::execute(cli::Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => ui::report_failure(&failure).into(),
    }
}
