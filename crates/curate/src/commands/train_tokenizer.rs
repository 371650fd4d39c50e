//! `curate train-tokenizer`: a byte-level BPE vocabulary from documents.

use std::path::PathBuf;

use clap::Args;
use curate_io::write_atomically;
use curate_tokenize::{BpeTrainerOptions, LoadOptions, Tokenizer, WordCounter, train};
use serde::Serialize;
use serde_json::json;

use crate::chain::{Chain, Ending, Kind, Link, parameters};
use crate::cli::StreamOptions;
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Result};
use crate::summary::{Extra, thousands};

/// Train a byte-level BPE tokenizer and write it as a Hugging Face tokenizer.json
///
/// Words are counted first, so memory grows with the distinct words of the corpus, not with its size. The same
/// documents give the same file, whatever the number of threads.
#[derive(Args)]
#[command(
    after_help = "Example:\n  curate train-tokenizer --vocab-size 8192 -o tokenizer.json corpus.jsonl.zst"
)]
pub(crate) struct TrainTokenizerCommand {
    #[command(flatten)]
    options: TrainTokenizerOptions,

    #[command(flatten)]
    stream: StreamOptions,
}

#[derive(Args, Debug, Serialize)]
struct TrainTokenizerOptions {
    /// Where to write the tokenizer
    #[arg(short, long, value_name = "FILE")]
    #[serde(skip)]
    output: PathBuf,

    /// Size of the vocabulary: 256 bytes, the end-of-document token, and merges
    #[arg(long, value_name = "V", default_value_t = 8192)]
    vocab_size: u32,

    /// Pairs that occur less often are not merged
    #[arg(long, value_name = "N", default_value_t = 2)]
    min_frequency: u64,
}

pub(crate) fn execute(command: &TrainTokenizerCommand) -> Result<Exit> {
    let trainer = BpeTrainerOptions {
        vocab_size: command.options.vocab_size,
        min_frequency: command.options.min_frequency,
    };
    let link = Link {
        kind: Kind::CountWords(Box::default()),
        covers: 1,
        logs: Vec::new(),
        parameters: parameters(&command.options),
    };
    let chain = Chain {
        command: "train-tokenizer",
        links: vec![link],
        ending: Ending::Gate,
        stream: &command.stream,
        read: ReadOptions::default(),
        canonical: false,
    };
    chain.run(|links| {
        let Some(Link { kind: Kind::CountWords(counter), .. }) = links.last_mut() else {
            return Ok(Vec::new());
        };
        let words = counter.distinct_words();
        let json = train(std::mem::take::<WordCounter>(counter), &trainer)?;
        let output = &command.options.output;
        write_atomically(output, &json)?;
        let vocab_size = Tokenizer::from_json("trained", &json, &LoadOptions::default())?.info().vocab_size;
        let line = format!(
            "{} distinct words, vocabulary of {} in {}",
            thousands(words),
            thousands(u64::from(vocab_size)),
            output.display()
        );
        let value = json!({ "distinct_words": words, "vocab_size": vocab_size });
        Ok(vec![Extra { name: "tokenizer", value, lines: vec![line] }])
    })
}
