//! `curate shards`: what can be done to token shards as files.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use curate_io::write_atomically;
use curate_shards::convert::{
    Converted, ConvertedSplit, EodPlace, ExportOptions, Format, ImportOptions, export, import,
};
use curate_shards::{
    DEFAULT_SHARD_TOKENS, PackPolicy, ShardSet, Splits, TokenizerInfo, ViewOptions, WriterOptions,
};
use curate_tokenize::{LoadOptions, Tokenizer};
use serde_json::json;

use crate::cli::VoiceOptions;
use crate::failure::{Exit, Failure, Result};
use crate::summary::thousands;
use crate::ui;

/// Work on token shards as files
#[derive(Args)]
pub(crate) struct ShardsCommand {
    #[command(subcommand)]
    command: ShardsSubcommand,
}

#[derive(Subcommand)]
enum ShardsSubcommand {
    Convert(Box<ConvertCommand>),
}

/// Convert shards to and from the token files of other trainers
///
/// Formats: megatron (Megatron-LM, NeMo, GPT-NeoX), nanogpt, llmc (llm.c, modded-nanogpt), olmo (dolma, OLMo),
/// datatrove (nanotron), mds (MosaicML Streaming) and curate, which is one of the two sides. The checksums of a set are
/// verified before it is written in another format; files of others are checked as they are read. Formats that know no
/// documents are cut at the end-of-document id. One document is in memory at a time; for mds a shard of 64 MiB, for
/// megatron 4 bytes a document.
///
/// Files whose path says val, valid, validation or test become those splits, all others train.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate shards convert shards/ fineweb/ --to llmc\n  curate shards convert my-corpus_text_document shards/ --to curate --tokenizer tokenizer.json\n  curate shards convert data/train.bin shards/ --to curate --vocab-size 50257 --eod 50256"
)]
struct ConvertCommand {
    /// A shard directory, or a directory, file or Megatron prefix of token files
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// Directory to make
    #[arg(value_name = "DST")]
    target: PathBuf,

    /// Format to write
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    to: Format,

    /// Format to read [default: told by names and first bytes]
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    from: Option<Format>,

    /// Tokens after which a new file or shard is begun
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SHARD_TOKENS, value_parser = clap::value_parser!(u64).range(1..))]
    file_tokens: u64,

    /// The tokenizer of the ids: a tokenizer.json, or a built-in as in `curate tokenize`
    #[arg(long, value_name = "SPEC", conflicts_with_all = ["vocab_size", "eod"], help_heading = "Import")]
    tokenizer: Option<String>,

    /// Number of ids, where no tokenizer is at hand; sizes of texts are then unknown and written as 0
    #[arg(long, value_name = "N", requires = "eod", help_heading = "Import")]
    vocab_size: Option<u32>,

    /// The end-of-document id that goes with --vocab-size
    #[arg(long, value_name = "ID", requires = "vocab_size", help_heading = "Import")]
    eod: Option<u32>,

    /// The token that ends a document [default: the tokenizer's own]
    #[arg(long, value_name = "TOKEN", requires = "tokenizer", help_heading = "Import")]
    eod_token: Option<String>,

    /// Bytes of an id where the files do not say [default: 2 up to 65536 ids, else 4]
    #[arg(long, value_name = "N", value_parser = clap::builder::PossibleValuesParser::new(["2", "4", "8"]), help_heading = "Import")]
    token_bytes: Option<String>,

    /// Whether the id comes first or last in a document, in formats without boundaries [default: last; llmc: as the first id tells]
    #[arg(long, value_name = "PLACE", value_parser = ["first", "last"], help_heading = "Import")]
    eod_place: Option<String>,

    /// Column of an mds data set [default: tokens or input_ids]
    #[arg(long, value_name = "NAME", help_heading = "Import")]
    column: Option<String>,

    /// Domain of all documents
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, help_heading = "Import")]
    domain: String,

    /// Draw held-out splits from all documents, by a hash of their ids, instead of taking them from paths
    #[arg(long, value_name = "NAME=SHARE,…", help_heading = "Import")]
    split: Option<String>,

    /// Key of the split
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Import")]
    seed: u64,

    /// Tokens that a row predicts; a view is written for each length given
    #[arg(long, value_name = "T", value_delimiter = ',', default_values_t = [1024], value_parser = clap::value_parser!(u32).range(1..), help_heading = "Import")]
    seq_len: Vec<u32>,

    /// How documents fill rows
    #[arg(long, value_name = "POLICY", default_value = "concat", value_parser = ["concat", "best-fit"], help_heading = "Import")]
    policy: String,

    /// Replace a shard set that is there already
    #[arg(long, help_heading = "Import")]
    force: bool,

    /// Write the closing report as JSON to this file
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    report: Option<PathBuf>,

    #[command(flatten)]
    voice: VoiceOptions,
}

fn format(name: &str) -> std::result::Result<Format, String> {
    let found = Format::ALL.into_iter().find(|format| format.name() == name);
    found.ok_or_else(|| format!("one of {}", Format::ALL.map(Format::name).join(", ")))
}

pub(crate) fn execute(command: &ShardsCommand) -> Result<Exit> {
    match &command.command {
        ShardsSubcommand::Convert(command) => convert(command),
    }
}

fn convert(command: &ConvertCommand) -> Result<Exit> {
    let start = Instant::now();
    let from = command.from.map_or_else(|| Format::detect(&command.source), Ok)?;
    let converted = match (from, command.to) {
        (Format::Curate, to) => {
            let options = ExportOptions { file_tokens: command.file_tokens, ..ExportOptions::default() };
            export(&ShardSet::open(&command.source)?, &command.target, to, &options)?
        }
        (from, Format::Curate) => {
            import(&command.source, &command.target, from, &command.import_options(from)?)?.1
        }
        (from, to) => {
            return Err(Failure::new(format!("cannot convert {from} to {to} in one step")).with_hint(
                "convert to curate first: its checksums and boundaries are what is checked on the way",
            ));
        }
    };
    publish(command, from, &converted, start)?;
    Ok(Exit::Done)
}

impl ConvertCommand {
    fn import_options(&self, from: Format) -> Result<ImportOptions> {
        let writer = match (&self.tokenizer, self.vocab_size.zip(self.eod)) {
            (Some(spec), _) => {
                let options = LoadOptions { eod: self.eod_token.clone(), ..LoadOptions::default() };
                let tokenizer = Tokenizer::load(spec, &options)?;
                let info = tokenizer.info();
                WriterOptions {
                    tokenizer_json: tokenizer.to_json(),
                    vocabulary: tokenizer.vocabulary(),
                    ..WriterOptions::new(TokenizerInfo {
                        name: info.name.clone(),
                        sha256: info.sha256.clone(),
                        vocab_size: info.vocab_size,
                        eod: info.eod,
                    })
                }
            }
            (None, Some((vocab_size, eod))) => WriterOptions::new(TokenizerInfo {
                name: "unknown".to_owned(),
                sha256: String::new(),
                vocab_size,
                eod,
            }),
            (None, None) => {
                return Err(Failure::new(format!("{from} files do not say which tokenizer made them"))
                    .with_hint("give --tokenizer tokenizer.json, or --vocab-size N with --eod ID"));
            }
        };
        let policy = if self.policy == "best-fit" { PackPolicy::BestFit } else { PackPolicy::Concat };
        Ok(ImportOptions {
            token_bytes: self.token_bytes.as_deref().and_then(|bytes| bytes.parse().ok()),
            eod_place: self.eod_place.as_deref().map(|place| match place {
                "first" => EodPlace::First,
                _ => EodPlace::Last,
            }),
            column: self.column.clone(),
            domain: self.domain.clone(),
            views: self.seq_len.iter().map(|&seq_len| ViewOptions { seq_len, policy }).collect(),
            ..ImportOptions::new(WriterOptions {
                splits: self.split.as_deref().map_or_else(|| Ok(Splits::none()), Splits::parse)?,
                seed: self.seed,
                shard_tokens: self.file_tokens,
                lineage: json!({ "shards convert": { "from": from.name() } }),
                force: self.force,
                restart: true,
                ..writer
            })
        })
    }
}

fn publish(command: &ConvertCommand, from: Format, converted: &Converted, start: Instant) -> Result<()> {
    let split = |split: &ConvertedSplit| json!({ "name": split.name, "documents": split.documents, "tokens": split.tokens });
    let splits: Vec<_> = converted.splits.iter().map(split).collect();
    let report = json!({
        "command": "shards convert",
        "version": env!("CARGO_PKG_VERSION"),
        "from": from.name(),
        "to": command.to.name(),
        "splits": splits,
        "eod_added": converted.eod_added,
        "seconds": start.elapsed().as_secs_f64(),
    });
    if let Some(path) = &command.report {
        write_atomically(path, format!("{report:#}\n").as_bytes())?;
    }
    if !command.voice.quiet {
        ui::summary(&lines(&command.target, from, command.to, converted), &report);
    }
    Ok(())
}

fn lines(target: &Path, from: Format, to: Format, converted: &Converted) -> String {
    let mut text = format!("shards convert: {from} to {to} in {}", target.display());
    for split in &converted.splits {
        text += &format!(
            "\n    {:<8}{:>12} documents {:>14} tokens",
            split.name,
            thousands(split.documents),
            thousands(split.tokens)
        );
    }
    if converted.eod_added > 0 {
        text +=
            &format!("\n  {} documents had no end-of-document id and got it", thousands(converted.eod_added));
    }
    text
}
