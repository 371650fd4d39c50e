//! `curate`: turns raw text into training shards and trains a causal language model on them.

mod cli;
mod commands;
mod chain;
mod pipeline;
mod resume;
mod summary;
mod failure;
mod usage;
mod ui;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::execute(cli::Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => ui::report_failure(&failure).into(),
    }
}
