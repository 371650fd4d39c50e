//! The command line: every command with its flags, help and examples.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Parser, Subcommand, ValueEnum};
use curate_core::OnError;
use curate_io::{Destination, Format, OutputFormat};
use serde::Serialize;

use crate::commands::{
    clean, completions, decontaminate, dedup, embed, generate, import, inspect, pack, read, run, score,
    shards, stats, tokenize, train_classifier, train_tokenizer, trainer, verify,
};
use crate::failure::{Failure, Result};
use crate::ui::{LogFormat, ProgressWhen};

/// Turn raw text into training shards and train a causal language model on them
///
/// Stages read JSON Lines on stdin and write JSON Lines on stdout, so they chain in a pipe:
///
///   curate read corpus/ | curate clean | curate dedup --minhash
///     | curate tokenize --tokenizer gpt2.json | curate pack --seq-len 1024 -o shards/
///   curate train shards/ && curate eval run/
///
/// The output never depends on the number of threads.
/// Exit codes: 0 done, 1 something is wrong with the data (too many records malformed, or removed), 2 could not run.
#[derive(Parser)]
#[command(version, verbatim_doc_comment, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Read(read::ReadCommand),
    Clean(Box<clean::CleanCommand>),
    Score(score::ScoreCommand),
    TrainClassifier(train_classifier::TrainClassifierCommand),
    Dedup(Box<dedup::DedupCommand>),
    Decontaminate(decontaminate::DecontaminateCommand),
    TrainTokenizer(train_tokenizer::TrainTokenizerCommand),
    Tokenize(tokenize::TokenizeCommand),
    Pack(pack::PackCommand),
    Shards(shards::ShardsCommand),
    Run(run::RunCommand),
    Train(trainer::TrainCommand),
    Eval(trainer::EvalCommand),
    Generate(generate::GenerateCommand),
    Export(trainer::ExportCommand),
    Import(import::ImportCommand),
    Scaling(trainer::ScalingCommand),
    Embed(embed::EmbedCommand),
    Stats(stats::StatsCommand),
    Inspect(inspect::InspectCommand),
    Verify(verify::VerifyCommand),
    Completions(completions::CompletionsCommand),
    Man(completions::ManCommand),
}

/// Where documents come from, and how the run is reported.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct StreamOptions {
    /// Files, directories, globs, archives or URLs, in any mix; `-` or nothing is stdin
    #[arg(value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,

    /// Read the inputs as this format, whatever their names say
    #[arg(long, value_name = "FORMAT", help_heading = "Input")]
    pub(crate) format: Option<FormatName>,

    /// Field that holds the text; a dotted path reaches into objects
    #[arg(long, value_name = "PATH", default_value = "text", help_heading = "Input")]
    pub(crate) text_field: String,

    /// Field that holds the id; a record without it is called FILE:LINE
    #[arg(long, value_name = "PATH", default_value = "id", help_heading = "Input")]
    pub(crate) id_field: String,

    /// What to do with a record that cannot be read
    #[arg(long, value_name = "POLICY", default_value = "skip", help_heading = "Input")]
    pub(crate) on_error: OnErrorName,

    /// Exit with 1 if a larger share than this of the records is malformed
    #[arg(long, value_name = "RATIO", default_value_t = 0.01, value_parser = ratio, help_heading = "Input")]
    pub(crate) max_malformed: f64,

    /// The longest record accepted
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = byte_size, help_heading = "Input")]
    pub(crate) max_record_bytes: usize,

    /// Give up an input that expands to more than this many times its size; 0 for no limit
    #[arg(long, value_name = "RATIO", default_value_t = 1000, help_heading = "Input")]
    pub(crate) max_expansion: u64,

    /// Worker threads [default: all cores]; the output does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Run")]
    #[serde(skip)]
    pub(crate) threads: Option<u16>,

    /// Bytes that a worker takes at once; memory is about (4 × threads + 2) blocks of twice this
    #[arg(long, value_name = "BYTES", default_value = "256K", value_parser = byte_size, help_heading = "Run")]
    #[serde(skip)]
    pub(crate) block_size: usize,

    /// Write the closing report as JSON to this file
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    #[serde(skip)]
    pub(crate) report: Option<PathBuf>,

    #[command(flatten)]
    #[serde(skip)]
    pub(crate) voice: VoiceOptions,
}

/// How much a command says on stderr.
#[derive(Args, Debug, Clone)]
pub(crate) struct VoiceOptions {
    /// Say nothing but errors
    #[arg(short, long, help_heading = "Run")]
    pub(crate) quiet: bool,

    /// When to draw a progress line on stderr; auto: on a terminal
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = "Run")]
    pub(crate) progress: ProgressWhen,

    /// How messages on stderr are written
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Run")]
    pub(crate) log: LogFormat,
}

/// The `--log` of whichever command was given; text for one that has no such option.
pub(crate) fn log_format(matches: &ArgMatches) -> LogFormat {
    let command =
        matches.subcommand().map(|(_, matches)| matches.subcommand().map_or(matches, |(_, inner)| inner));
    command.and_then(|m| m.try_get_one("log").ok().flatten()).copied().unwrap_or(LogFormat::Text)
}

/// Where documents go.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct OutputOptions {
    /// Write to this file instead of stdout; the name chooses .jsonl, .jsonl.gz, .jsonl.zst or .parquet. A directory
    /// (one that exists, or a name ending in /) gets a file for each input, under the input's own name
    #[arg(short, long, value_name = "PATH", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,

    /// Format of the files in an output directory [default: jsonl.zst]
    #[arg(long, value_name = "FORMAT", requires = "output", help_heading = "Output")]
    pub(crate) to: Option<OutputFormatName>,

    /// Begin a new file (NAME-00000, NAME-00001, …) once this much JSON has been written
    #[arg(long, value_name = "BYTES", value_parser = byte_size, requires = "output", help_heading = "Output")]
    pub(crate) shard_size: Option<usize>,
}

impl OutputOptions {
    /// `roots` are the directories whose structure a directory output keeps.
    pub(crate) fn destination(&self, roots: Vec<PathBuf>) -> Result<Destination> {
        let shard_bytes = self.shard_size.map(|n| n as u64);
        let Some(path) = self.output.clone().filter(|path| path.as_os_str() != "-") else {
            return Ok(Destination::Stream(None));
        };
        let is_directory = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        Ok(match (is_directory, shard_bytes) {
            (true, shard_bytes) => {
                let to = self.to.unwrap_or(OutputFormatName::JsonlZst).into();
                Destination::Directory { dir: path, roots, to, shard_bytes }
            }
            (false, _) if self.to.is_some() => {
                return Err(Failure::new(format!("--to needs a directory, and {} is none", path.display()))
                    .with_hint(
                        "end the name in / for a new directory; a file's own name chooses its format",
                    ));
            }
            (false, Some(shard_bytes)) => Destination::Sharded { path, shard_bytes },
            (false, None) => Destination::Stream(Some(path)),
        })
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OutputFormatName {
    /// JSON Lines
    Jsonl,
    /// JSON Lines in gzip
    #[value(name = "jsonl.gz")]
    JsonlGz,
    /// JSON Lines in Zstandard
    #[value(name = "jsonl.zst")]
    JsonlZst,
    /// Parquet, as Hugging Face datasets reads it
    Parquet,
    /// Dolma: all documents under documents/, what dropped them under attributes/
    Dolma,
}

impl From<OutputFormatName> for OutputFormat {
    fn from(name: OutputFormatName) -> Self {
        match name {
            OutputFormatName::Jsonl => Self::Jsonl,
            OutputFormatName::JsonlGz => Self::JsonlGz,
            OutputFormatName::JsonlZst => Self::JsonlZst,
            OutputFormatName::Parquet => Self::Parquet,
            OutputFormatName::Dolma => Self::Dolma,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FormatName {
    /// One JSON object a line
    Jsonl,
    /// Plain text or Markdown
    Text,
    /// A web page a file
    Html,
    /// Web archives: WARC, WET
    Warc,
    /// Web archives before WARC
    Arc,
    /// Parquet
    Parquet,
    /// Arrow IPC, file or stream
    Arrow,
    /// Comma-separated rows under a header
    Csv,
    /// Tab-separated rows under a header
    Tsv,
    /// An archive of any of these
    Tar,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Jsonl => Self::JsonLines,
            FormatName::Text => Self::Text,
            FormatName::Html => Self::Html,
            FormatName::Warc => Self::Warc,
            FormatName::Arc => Self::Arc,
            FormatName::Parquet => Self::Parquet,
            FormatName::Arrow => Self::Arrow,
            FormatName::Csv => Self::Csv,
            FormatName::Tsv => Self::Tsv,
            FormatName::Tar => Self::Tar,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnErrorName {
    /// Stop at the first one
    Fail,
    /// Count it, report where it is, and go on
    Skip,
    /// Count it and write it through as it stands
    Pass,
}

impl From<OnErrorName> for OnError {
    fn from(name: OnErrorName) -> Self {
        match name {
            OnErrorName::Fail => Self::Fail,
            OnErrorName::Skip => Self::Skip,
            OnErrorName::Pass => Self::Pass,
        }
    }
}

/// Parses a size such as `4096`, `256K`, `64M` or `2G`; the units are powers of 1024.
pub(crate) fn byte_size(text: &str) -> std::result::Result<usize, String> {
    let wrong = || format!("expected bytes such as 4096, 256K, 64M or 2G, found {text:?}");
    let (digits, unit) = match text.char_indices().last() {
        Some((i, 'K' | 'k')) => (&text[..i], 1 << 10),
        Some((i, 'M' | 'm')) => (&text[..i], 1 << 20),
        Some((i, 'G' | 'g')) => (&text[..i], 1 << 30),
        _ => (text, 1),
    };
    let count: usize = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(unit).filter(|n| *n > 0).ok_or_else(wrong)
}

/// Parses a share of the whole, 0 to 1.
pub(crate) fn ratio(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("expected a number from 0 to 1, found {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn byte_sizes() {
        let check =
            |text: &str, expected: Option<usize>| assert_eq!(byte_size(text).ok(), expected, "{text}");
        check("1", Some(1));
        check("256K", Some(262_144));
        check("2g", Some(2 << 30));
        for bad in ["", "K", "0", "1.5M", "-1", "1T", "99999999999G", "é"] {
            check(bad, None);
        }
    }
}
