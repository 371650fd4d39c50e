//! One integration binary that drives the real `curate`, one module per command and one per promise.
//!
//! What belongs where: a command's own behaviour in the module of its name; what holds for all commands (threads,
//! pipes, exit codes, closed pipes) in `promises`; whole paths from text to perplexity in `paths`.

#![allow(clippy::print_stdout)] // messages of skipped tests
#![allow(clippy::disallowed_methods)] // inputs are made, not published

mod support;

mod read;
mod clean;
mod quality;
mod dedup;
mod dedup_two_pass;
mod dedup_semantic;
mod dedup_substring;
mod dedup_matrix;
mod decontaminate;
mod tokens;
mod python_reader;
mod run;
mod pipelines;
mod stats;
mod inspect;
mod verify;
mod people;
mod promises;
mod faults;
mod fuzz;
mod help;
mod paths;
