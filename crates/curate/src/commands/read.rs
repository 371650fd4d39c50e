//! `curate read`: any supported input as JSON Lines of the document schema.

use std::path::PathBuf;

use clap::Args;

use crate::chain::{Chain, Ending};
use crate::cli::StreamOptions;
use crate::failure::{Exit, Result};

/// Read files and directories as documents, one JSON object a line
///
/// Every document gets an `id` (its own, or FILE:LINE, or the file's path) and its text under `text`; records that
/// have both leave byte for byte.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate read books/*.txt > books.jsonl\n  curate read dump/ --text-field body -o dump.jsonl.zst"
)]
pub(crate) struct ReadCommand {
    #[command(flatten)]
    stream: StreamOptions,

    /// Write to this file instead of stdout; .gz and .zst compress
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn execute(command: &ReadCommand) -> Result<Exit> {
    let chain = Chain {
        command: "read",
        links: Vec::new(),
        ending: Ending::Documents(command.output.clone()),
        stream: &command.stream,
        canonical: true,
    };
    chain.run(|_| Ok(Vec::new()))
}
