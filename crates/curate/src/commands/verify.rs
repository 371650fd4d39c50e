//! `curate verify`: is this file or shard set what was written?

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use curate_core::{Counters, Document, Mapper, Never, NoGate, OnError, Report, Work};
use curate_io::{InputOptions, Inputs, Records, resolve};
use curate_shards::ShardSet;
use curate_tokenize::TokenStreamReader;
use serde_json::json;

use crate::cli::{FormatName, VoiceOptions};
use crate::failure::{Exit, Failure, Result};
use crate::scan::Scan;
use crate::signals;
use crate::summary::thousands;
use crate::terminal::printable;
use crate::ui;

/// Check shards, token streams and documents to their last byte
///
/// A shard set: every checksum, document and row. A token stream: every batch, up to its end marker. Anything else is
/// read as documents: decompressed to its end, every record parsed. Prints a line for each path and ends with 1 if one
/// of them is bad.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate verify shards/ clean.jsonl.zst tokens.arrows\n  curate verify --json dump/*.jsonl.gz | jq -r 'select(.ok | not).path'"
)]
pub(crate) struct VerifyCommand {
    /// Shard directories, token streams, files or directories of documents; `-` is stdin
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Print one JSON object a path instead of text
    #[arg(long)]
    json: bool,

    /// Read documents as this format, whatever the names say
    #[arg(long, value_name = "FORMAT", help_heading = "Input")]
    format: Option<FormatName>,

    /// Field that every record must have its text in
    #[arg(long, value_name = "PATH", default_value = "text", help_heading = "Input")]
    text_field: String,

    /// Field that holds the id
    #[arg(long, value_name = "PATH", default_value = "id", help_heading = "Input")]
    id_field: String,

    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Run")]
    threads: Option<u16>,

    #[command(flatten)]
    voice: VoiceOptions,
}

/// What a sound path holds.
#[derive(Debug, Default, PartialEq)]
struct Sound {
    documents: u64,
    /// `None` for documents that are not tokenized.
    tokens: Option<u64>,
    /// Files in a directory that were not read because their names tell no format.
    files_not_read: usize,
}

pub(crate) fn execute(command: &VerifyCommand) -> Result<Exit> {
    let mut exit = Exit::Done;
    for path in &command.paths {
        let outcome = match verify(path, command) {
            // That says nothing about the path.
            Err(failure) if failure.signal().is_some() => return Err(failure),
            outcome => outcome.map_err(|failure| reason(&failure)),
        };
        if outcome.is_err() {
            exit = Exit::BadData;
        }
        ui::print(&if command.json { json_line(path, &outcome) } else { text_line(path, &outcome) })?;
    }
    Ok(exit)
}

fn reason(failure: &Failure) -> String {
    let mut reason = failure.error.to_string();
    for cause in ui::causes(failure) {
        reason = format!("{reason}: {cause}");
    }
    reason
}

fn text_line(path: &Path, outcome: &std::result::Result<Sound, String>) -> String {
    let path = path.display();
    match outcome {
        Err(reason) => format!("BAD {path}: {}\n", printable(reason)),
        Ok(sound) => {
            let mut facts = format!("{} documents", thousands(sound.documents));
            if let Some(tokens) = sound.tokens {
                facts += &format!(", {} tokens", thousands(tokens));
            }
            if sound.files_not_read > 0 {
                facts += &format!("; {} files of unknown kind not read", sound.files_not_read);
            }
            format!("ok  {path} ({facts})\n")
        }
    }
}

fn json_line(path: &Path, outcome: &std::result::Result<Sound, String>) -> String {
    let value = match outcome {
        Err(reason) => json!({ "path": path, "ok": false, "reason": reason }),
        Ok(Sound { documents, tokens, files_not_read }) => json!({
            "path": path, "ok": true, "documents": documents, "tokens": tokens, "files_not_read": files_not_read,
        }),
    };
    format!("{value}\n")
}

fn verify(path: &Path, command: &VerifyCommand) -> Result<Sound> {
    if path.is_dir() {
        return match ShardSet::open(path) {
            Ok(set) => verify_shards(&set),
            Err(curate_shards::Error::NotAShardSet { .. }) => verify_documents(path, command),
            Err(error) => Err(error.into()),
        };
    }
    // Only a file can be looked into and then be read again from its beginning.
    if path.is_file() && command.format.is_none() && begins_as_a_stream(path)? {
        match verify_stream(path) {
            // Another Arrow stream: of documents, perhaps.
            Err(failure) if is_other_stream(&failure) => {}
            outcome => return outcome,
        }
    }
    verify_documents(path, command)
}

fn verify_shards(set: &ShardSet) -> Result<Sound> {
    set.verify()?;
    Ok(Sound {
        documents: set.splits().iter().map(curate_shards::Split::num_documents).sum(),
        tokens: Some(set.splits().iter().map(curate_shards::Split::num_tokens).sum()),
        files_not_read: 0,
    })
}

fn open(path: &Path) -> Result<File> {
    File::open(path)
        .map_err(|e| Failure::new(e.to_string()).context(format!("cannot open {}", path.display())))
}

/// True for Arrow streams, which begin with the mark that an end of the stream is not, and for an empty file that is
/// named like one.
fn begins_as_a_stream(path: &Path) -> Result<bool> {
    let mut head = Vec::with_capacity(4);
    let read = open(path)?.take(4).read_to_end(&mut head);
    read.map_err(|e| Failure::new(e.to_string()).context(format!("cannot read {}", path.display())))?;
    let named = path.extension().is_some_and(|ending| ending == "arrows");
    Ok(head == [0xff; 4] || named && head.len() < 4)
}

fn is_other_stream(failure: &Failure) -> bool {
    matches!(failure.error.downcast_ref(), Some(curate_tokenize::Error::NotAStream { .. }))
}

fn verify_stream(path: &Path) -> Result<Sound> {
    let mut reader = TokenStreamReader::new(BufReader::with_capacity(1 << 20, open(path)?))?;
    let vocab_size = reader.header().tokenizer.vocab_size;
    let eod = reader.header().tokenizer.eod;
    let (mut documents, mut tokens) = (0, 0);
    while let Some(batch) = reader.next_batch()? {
        signals::check()?;
        for doc in batch.iter() {
            if doc.tokens.last() != Some(&eod) {
                return Err(Failure::new(format!("document {documents} does not end in the id {eod}")));
            }
            if let Some(id) = doc.tokens.iter().find(|id| **id >= vocab_size) {
                let problem =
                    format!("document {documents} has the id {id}, the vocabulary {vocab_size} ids");
                return Err(Failure::new(problem));
            }
            documents += 1;
            tokens += doc.tokens.len() as u64;
        }
    }
    Ok(Sound { documents, tokens: Some(tokens), files_not_read: 0 })
}

/// Parsing is all there is to do.
struct ParseOnly;

impl Mapper for ParseOnly {
    type Work = Never;
    type Scratch = ();

    fn map(&self, _: &mut Document<'_>, (): &mut (), _: &mut Counters) -> Work<Never> {
        Work::keep()
    }
}

fn verify_documents(path: &Path, command: &VerifyCommand) -> Result<Sound> {
    let format = command.format.map(Into::into);
    let found = resolve(&[path.to_owned()], format)?;
    let scan = Scan {
        label: "verify",
        inputs: Inputs::new(found.files, InputOptions { format, ..InputOptions::default() }),
        codec: Records::new(&command.text_field, &command.id_field)?,
        threads: command.threads,
        on_error: OnError::Skip,
        voice: command.voice.clone(),
    };
    let report = scan.run(ParseOnly, &mut NoGate)?;
    match fault(&report) {
        Some(fault) => Err(Failure::new(fault)),
        None => Ok(Sound { documents: report.kept, tokens: None, files_not_read: found.skipped.len() }),
    }
}

/// The first fault of the documents, and how many more there are.
fn fault(report: &Report) -> Option<String> {
    let damaged = report.damaged.first().map(|d| format!("{} (after byte {})", d.message, d.offset));
    let malformed = report.malformed_samples.first().map(ToString::to_string);
    let first = damaged.or(malformed)?;
    let more = report.damaged.len() as u64 + report.malformed - 1;
    Some(if more > 0 { format!("{first}; {} more faults", thousands(more)) } else { first })
}
