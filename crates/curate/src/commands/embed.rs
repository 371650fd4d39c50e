//! `curate embed`: encodes documents and sends their ids to `curate-train`, which knows ids only.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};

use clap::Args;
use curate_core::{Counters, Document, Error, Gate, Mapper, Stage, Verdict, Work};
use curate_tokenize::{EncodeScratch, Tokenizer};
use serde_json::json;

use crate::chain::{Chain, Ending, Kind, Link, View};
use crate::cli::StreamOptions;
use crate::commands::generate::tokenizer_of;
use crate::commands::read::ReadOptions;
use crate::commands::trainer::trainer;
use crate::failure::{Exit, Failure, Result};
use crate::summary::Extra;

/// Turn documents into vectors: the mean hidden state of a trained model, for `curate dedup --semantic`
///
/// Each document is encoded with the run's tokenizer and cut into windows of the model's context; its vector is the mean of
/// the final hidden state over all of its tokens. The output is a NumPy array of single precision with a row for each
/// document, in input order. A text without tokens, or one that the tokenizer cannot encode, has a row of zeros.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate embed run corpus.jsonl -o corpus.npy\n  curate dedup --semantic --embeddings corpus.npy corpus.jsonl -o unique.jsonl"
)]
pub(crate) struct EmbedCommand {
    /// Run directory, as made by `curate train`
    #[arg(value_name = "RUN")]
    run: PathBuf,

    #[command(flatten)]
    stream: StreamOptions,

    /// Write the array to this file (.npy)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Windows that the model sees at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,

    /// Checkpoint, such as step-00000100 [default: the newest]
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<PathBuf>,

    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
}

pub(crate) fn execute(command: &EmbedCommand) -> Result<Exit> {
    let tokenizer = tokenizer_of(&command.run)?;
    let view = EmbedView { mapper: IdMapper { tokenizer }, gate: IdGate::start(command)? };
    let parameters = json!({ "run": command.run, "batch": command.batch, "checkpoint": command.checkpoint });
    let chain = Chain {
        command: "embed",
        links: vec![Link { kind: Kind::View(Box::new(view)), logs: Vec::new(), covers: 1, parameters }],
        ending: Ending::Gate,
        stream: &command.stream,
        read: ReadOptions::default(),
        canonical: false,
    };
    chain.run(|links| match links.first_mut() {
        Some(Link { kind: Kind::View(view), .. }) => view.finish(),
        _ => unreachable!("made above"),
    })
}

struct EmbedView {
    mapper: IdMapper,
    gate: IdGate,
}

impl View for EmbedView {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn stage(&mut self) -> Stage<'_> {
        Stage::gated("embed", &self.mapper, &mut self.gate)
    }

    fn reasons(&self) -> Vec<&str> {
        Vec::new()
    }

    fn finish(&mut self) -> Result<Vec<Extra>> {
        self.gate.finish()
    }
}

/// Encodes texts, without an end-of-document id.
struct IdMapper {
    tokenizer: Tokenizer,
}

impl Mapper for IdMapper {
    type Work = Vec<u32>;
    type Scratch = EncodeScratch;

    fn map(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut EncodeScratch,
        counters: &mut Counters,
    ) -> Work<Vec<u32>> {
        let mut ids = Vec::new();
        if self.tokenizer.encode(doc.text(), scratch, &mut ids).is_err() {
            // Every document has its row.
            counters.add("not_encodable", 1);
            ids.clear();
        }
        Work::Pending(ids)
    }
}

/// Sends ids to the trainer. What the stream looks like is drawn in curate-train's `embed.rs`.
struct IdGate {
    child: Child,
    stdin: Option<BufWriter<ChildStdin>>,
    documents: u64,
    tokens: u64,
}

impl IdGate {
    fn start(command: &EmbedCommand) -> Result<Self> {
        let mut process = trainer("embed")?;
        process.arg(&command.run).arg("--output").arg(&command.output);
        process.arg("--batch").arg(command.batch.to_string()).arg("--device").arg(&command.device);
        if let Some(checkpoint) = &command.checkpoint {
            process.arg("--checkpoint").arg(checkpoint);
        }
        if let Some(threads) = command.stream.threads {
            process.arg("--threads").arg(threads.to_string());
        }
        if command.stream.voice.quiet {
            process.arg("--quiet");
        }
        let mut child = process.stdin(Stdio::piped()).spawn().map_err(|e| {
            Failure::new(e.to_string()).context(format!("cannot run {}", process.get_program().display()))
        })?;
        let stdin = child.stdin.take().expect("it was asked for");
        let mut stdin = BufWriter::with_capacity(256 << 10, stdin);
        // Into the buffer: if nobody reads it, that is seen later.
        let _ = stdin.write_all(b"curate ids 1\n");
        Ok(Self { child, stdin: Some(stdin), documents: 0, tokens: 0 })
    }

    fn send(&mut self, bytes: impl IntoIterator<Item = u32>) -> std::io::Result<()> {
        let stdin = self.stdin.as_mut().expect("open until the end");
        bytes.into_iter().try_for_each(|number| stdin.write_all(&number.to_le_bytes()))
    }

    /// Says that this was all, and waits for the array.
    fn finish(&mut self) -> Result<Vec<Extra>> {
        let Self { documents, tokens, .. } = *self;
        let count = [documents as u32, (documents >> 32) as u32];
        let sent = self.send([u32::MAX].into_iter().chain(count));
        let mut stdin = self.stdin.take().expect("open until now");
        let sent = sent.and_then(|()| stdin.flush());
        drop(stdin);
        let status = self.child.wait().map_err(|e| Error::io("cannot wait for the trainer", e))?;
        if !status.success() || sent.is_err() {
            return Err(ended(&status.to_string()).into());
        }
        let value = json!({ "documents": documents, "tokens": tokens });
        Ok(vec![Extra { name: "embedded", value, lines: Vec::new() }])
    }
}

/// The trainer has said itself why.
fn ended(how: &str) -> Error {
    Error::other(format!("the trainer ended before its time ({how}): see its message above"))
}

impl Gate for IdGate {
    type Work = Vec<u32>;

    fn admit(&mut self, doc: &mut Document<'_>, ids: Vec<u32>) -> curate_core::Result<Verdict> {
        let count = u32::try_from(ids.len()).ok().filter(|count| *count < u32::MAX);
        let count =
            count.ok_or_else(|| Error::other(format!("document {} has too many tokens", doc.id())))?;
        self.documents += 1;
        self.tokens += u64::from(count);
        self.send(std::iter::once(count).chain(ids)).map_err(|error| ended(&error.to_string()))?;
        Ok(Verdict::Keep)
    }
}

impl Drop for IdGate {
    fn drop(&mut self) {
        // Without the mark of the end the trainer knows that this was not all, and leaves no array.
        drop(self.stdin.take());
        // Nobody is left to hear of a failure.
        let _ = self.child.wait();
    }
}
