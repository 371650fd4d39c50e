//! `curate`: turns raw text into training shards and trains a causal language model on them.

mod cli;
mod commands;
mod chain;
mod pipeline;
mod resume;
mod scan;
mod sketches;
mod summary;
mod failure;
mod signals;
mod usage;
mod terminal;
mod ui;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

fn main() -> ExitCode {
    let matches = cli::Cli::command().get_matches();
    ui::set_log(cli::log_format(&matches));
    let cli = cli::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    signals::install();
    silence_caught_panics();
    let (exit, signal) = match commands::execute(cli) {
        Ok(exit) => (exit, None),
        // Whatever failed after a signal failed because of it: the other stages of a pipe get it too.
        Err(failure) => (ui::report_failure(&failure), signals::requested()),
    };
    if let Some(signal) = signal {
        signals::end_by(signal);
    }
    exit.into()
}

/// Panics of HTML parsers are caught and counted where they happen; nobody needs to read of them besides.
fn silence_caught_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(curate_clean::EXTRACT_THREAD) {
            report(panic);
        }
    }));
}
