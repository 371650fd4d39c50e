//! `curate pack`: a token stream into memory-mapped shards.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use curate_io::write_atomically;
use curate_shards::{
    Manifest, PackPolicy, ShardSetWriter, Splits, TokenDocument, TokenizerInfo, ViewOptions, WriterOptions,
};
use curate_tokenize::{StreamHeader, TokenStreamReader, Tokenizer, UNICODE_VERSION};
use serde::Serialize;
use serde_json::json;

use crate::chain::parameters;
use crate::cli::VoiceOptions;
use crate::failure::{Exit, Failure, Result};
use crate::signals::{self, WatchedRead};
use crate::summary::{Extra, bytes, thousands};
use crate::ui;
use crate::usage::usage;

/// Write token shards that a trainer maps into memory
///
/// Reads the token stream of `curate tokenize`. Shards are in Megatron's .bin/.idx layout, with the source bytes of
/// each document beside them; a packing view for each --seq-len says which runs of which documents make a row.
/// Held-out splits are drawn by document from a keyed hash of the normalised text: copies of one text stay on one
/// side, whatever the order, the number of threads or the other files.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate tokenize --tokenizer bytes corpus/ | curate pack --seq-len 256 --split val=0.05 -o shards/\n  curate pack tokens.arrows --seq-len 1024,2048 --policy best-fit -o shards/"
)]
pub(crate) struct PackCommand {
    /// Token streams; `-` or nothing is stdin
    #[arg(value_name = "STREAM")]
    inputs: Vec<PathBuf>,

    #[command(flatten)]
    stage: PackOptions,

    /// Write the closing report as JSON to this file
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    report: Option<PathBuf>,

    #[command(flatten)]
    voice: VoiceOptions,
}

/// The options of the stage itself.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct PackOptions {
    /// Directory of the shards
    #[arg(short, long, value_name = "DIR")]
    #[serde(skip)]
    output: PathBuf,

    /// Tokens that a row predicts; a view is written for each length given
    #[arg(long, value_name = "T", value_delimiter = ',', default_values_t = [1024], value_parser = clap::value_parser!(u32).range(1..))]
    seq_len: Vec<u32>,

    /// How documents fill rows
    #[arg(long, value_name = "POLICY", default_value = "concat")]
    policy: PolicyName,

    /// Held-out splits and their shares of the documents, such as val=0.01,test=0.01
    #[arg(long, value_name = "NAME=SHARE,…")]
    split: Option<String>,

    /// Key of the split
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Tokens after which a new shard is begun
    #[arg(long, value_name = "N", default_value_t = curate_shards::DEFAULT_SHARD_TOKENS)]
    shard_tokens: u64,

    /// Replace a shard set that is there already
    #[arg(long)]
    #[serde(skip)]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum PolicyName {
    /// Documents end to end, cut wherever a row ends; only the last row is padded
    Concat,
    /// Pieces placed where they fit best: few documents are cut, rows may end in padding
    BestFit,
}

impl PackOptions {
    /// A writer for documents of `tokenizer`; with `replace`, of a set that may be there already.
    pub(crate) fn writer(&self, tokenizer: &Tokenizer, replace: bool) -> Result<ShardSetWriter> {
        let info = tokenizer.info();
        let options = WriterOptions {
            tokenizer_json: tokenizer.to_json(),
            vocabulary: tokenizer.vocabulary(),
            splits: self.split.as_deref().map_or_else(|| Ok(Splits::none()), Splits::parse)?,
            seed: self.seed,
            shard_tokens: self.shard_tokens,
            lineage: json!({ "pack": self, "tokenize": { "unicode": UNICODE_VERSION } }),
            force: self.force || replace,
            ..WriterOptions::new(TokenizerInfo {
                name: info.name.clone(),
                sha256: info.sha256.clone(),
                vocab_size: info.vocab_size,
                eod: info.eod,
            })
        };
        Ok(ShardSetWriter::create(&self.output, options)?)
    }

    /// Closes the shards, writes the views and the manifest.
    pub(crate) fn finish(&self, writer: ShardSetWriter) -> Result<Extra> {
        let policy = match self.policy {
            PolicyName::Concat => PackPolicy::Concat,
            PolicyName::BestFit => PackPolicy::BestFit,
        };
        let views: Vec<ViewOptions> =
            self.seq_len.iter().map(|&seq_len| ViewOptions { seq_len, policy }).collect();
        let manifest = writer.finish(&views)?;
        Ok(Extra {
            name: "shards",
            value: self.shards_json(&manifest),
            lines: lines(&manifest, &self.output),
        })
    }

    fn shards_json(&self, manifest: &Manifest) -> serde_json::Value {
        json!({ "directory": self.output, "splits": manifest.splits, "views": manifest.views })
    }
}

/// The table of splits and views.
fn lines(manifest: &Manifest, dir: &Path) -> Vec<String> {
    let mut lines = vec![format!("shards in {}", dir.display())];
    for split in &manifest.splits {
        lines.push(format!(
            "  {:<8}{:>12} documents {:>14} tokens {:>12} of text",
            split.name,
            thousands(split.documents),
            thousands(split.tokens),
            bytes(split.bytes)
        ));
        for view in manifest.views.iter().filter(|v| v.split == split.name) {
            lines.push(format!(
                "    T={:<6}{:>12} rows, {} padding tokens, {} documents cut",
                view.seq_len,
                thousands(view.rows),
                thousands(view.padding),
                thousands(view.documents_cut)
            ));
        }
    }
    lines
}

pub(crate) fn execute(command: &PackCommand) -> Result<Exit> {
    let start = Instant::now();
    let mut packing: Option<(StreamHeader, ShardSetWriter)> = None;
    let stdin = [PathBuf::from("-")];
    let inputs = if command.inputs.is_empty() { &stdin[..] } else { &command.inputs[..] };
    for path in inputs {
        pack_stream(path, &command.stage, &mut packing)
            .map_err(|failure| failure.context(format!("cannot pack {}", path.display())))?;
    }
    let (_, writer) = packing.expect("each of the streams, of which there is one at least, sets it");
    let extra = command.stage.finish(writer)?;
    publish(command, &extra, start)?;
    Ok(Exit::Done)
}

fn pack_stream(
    path: &Path,
    options: &PackOptions,
    packing: &mut Option<(StreamHeader, ShardSetWriter)>,
) -> Result<()> {
    let mut reader = TokenStreamReader::new(open(path)?)?;
    if packing.is_none() {
        let header = reader.header().clone();
        let writer = options.writer(&header.tokenizer()?, false)?;
        *packing = Some((header, writer));
    }
    let (first, writer) = packing.as_mut().expect("set just above");
    let (ours, theirs) = (&first.tokenizer, &reader.header().tokenizer);
    if ours.sha256 != theirs.sha256 || ours.eod != theirs.eod {
        return Err(Failure::new(format!(
            "its tokenizer is {} ({}), the first stream's is {} ({})",
            theirs.name, theirs.sha256, ours.name, ours.sha256
        ))
        .with_hint("one shard set holds the tokens of one tokenizer: pack the streams apart"));
    }
    while let Some(batch) = reader.next_batch()? {
        signals::check()?;
        for doc in batch.iter() {
            writer.push(&TokenDocument {
                tokens: doc.tokens,
                n_bytes: doc.n_bytes,
                domain: doc.source,
                key: doc.key,
            })?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(WatchedRead::new(io::stdin())));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(io::BufReader::with_capacity(1 << 20, file))),
        Err(error) => {
            Err(Failure::new(error.to_string()).with_hint("check the path; `-` reads standard input"))
        }
    }
}

fn publish(command: &PackCommand, extra: &Extra, start: Instant) -> Result<()> {
    let used = usage();
    let seconds = start.elapsed().as_secs_f64();
    let report = json!({
        "command": "pack",
        "version": env!("CARGO_PKG_VERSION"),
        "parameters": parameters(&command.stage),
        "shards": extra.value,
        "seconds": seconds,
        "cpu_seconds": used.cpu_seconds,
        "peak_rss_bytes": used.peak_rss_bytes,
    });
    if let Some(path) = &command.report {
        write_atomically(path, format!("{report:#}\n").as_bytes())?;
    }
    if !command.voice.quiet {
        let memory = bytes(used.peak_rss_bytes);
        let closing = format!("  {seconds:.1} s, {:.1} CPU-s, {memory} peak memory", used.cpu_seconds);
        ui::summary(&format!("pack: {}\n{closing}", extra.lines.join("\n  ")), &report);
    }
    Ok(())
}
