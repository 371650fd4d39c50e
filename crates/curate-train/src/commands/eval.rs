//! `curate-train eval`: held-out loss of a run, with its protocol.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use curate_train::checkpoint;
use curate_train::device::DeviceChoice;
use curate_train::eval::{DocumentScore, EvalOptions, Evaluation, Gap, Like, evaluate};
use curate_train::train::store_evaluation;
use curate_train::{Error, Result};
use serde::Serialize;

use crate::output::{self, Exit, thousands};
use crate::signals;

/// Paragraphs are single lines: the parser wraps them to the terminal.
const EXAMPLES: &str = "\
Examples:
  curate eval run
  curate eval run --split test --json - | jq .total.bits_per_byte
  curate eval run --checkpoint step-00000100 --window 256 --stride 64 --per-document scores.jsonl
  curate eval run --like lm-eval --gap

Protocol: each document alone; one end-of-document id before it, so that the first token is scored too; a window of \
--window tokens moves by --stride; every stored token, the closing end-of-document id included, is scored exactly \
once. Log-probabilities are fp32, sums f64.

--like transformers makes one text of all documents and follows the recipe of transformers' page on perplexity, its \
weights included; --like lm-eval is loglikelihood_rolling of lm-evaluation-harness. Both leave out end-of-document ids.

Bits per byte = nats / (ln 2 × UTF-8 bytes); the column (without ends) leaves out the nats of the end-of-document \
ids, which stand for no byte. The unigram row scores the same tokens by the token frequencies of the train split \
(one added to each count): what a model gains is the difference.";

/// Measure the held-out loss of a run
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalArgs {
    /// Run directory, as made by `curate train`
    run: PathBuf,
    /// Split to evaluate on
    #[arg(long, value_name = "NAME", default_value = "val")]
    split: String,
    /// Other shards than the run's, made with the same tokenizer
    #[arg(long, value_name = "DIR")]
    shards: Option<PathBuf>,
    /// Checkpoint, such as step-00000100 [default: the newest]
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<PathBuf>,
    /// Tokens of a window, at most the model's context [default: the context]
    #[arg(long, value_name = "T")]
    window: Option<u32>,
    /// Step from window to window, at most the window [default: half the window]
    #[arg(long, value_name = "T")]
    stride: Option<u32>,
    /// Whose protocol: curate, transformers (its perplexity recipe) or lm-eval (loglikelihood_rolling)
    #[arg(long, value_name = "TOOL", default_value = "curate", value_parser = like)]
    like: Like,
    /// The id before each document, such as a beginning-of-sequence id [default: the end-of-document id]
    #[arg(long, value_name = "ID")]
    prefix_id: Option<u32>,
    /// Ids between documents where they make one text (--like transformers)
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    join_ids: Vec<u32>,
    /// Also evaluate on as many tokens of the train split, spread over it, and tell the difference
    #[arg(long)]
    gap: bool,
    /// Draws for the 95 % interval over documents; 0 = none
    #[arg(long, value_name = "N", default_value_t = 1000)]
    resamples: u32,
    /// Evaluate the first N documents only
    #[arg(long, value_name = "N")]
    max_documents: Option<u64>,
    /// Also write the result as JSON to this file; - is stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the score of each document, one JSON object a line
    #[arg(long, value_name = "FILE")]
    per_document: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Threads of the tensor operations [default: the physical cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Print only warnings and errors
    #[arg(short, long)]
    quiet: bool,
}

fn like(text: &str) -> std::result::Result<Like, String> {
    match text {
        "curate" => Ok(Like::Curate),
        "transformers" => Ok(Like::Transformers),
        "lm-eval" => Ok(Like::LmEval),
        _ => Err("expected curate, transformers or lm-eval".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn run(args: &EvalArgs) -> Result<Exit> {
    let interrupted = signals::listen();
    let checkpoint = super::open_checkpoint(&args.run, args.checkpoint.as_deref())?;
    let shards = super::open_shards(&checkpoint, args.shards.as_ref())?;
    let model = super::load_model(&checkpoint, args.device, args.threads)?;
    let options = EvalOptions {
        split: args.split.clone(),
        window: args.window,
        stride: args.stride,
        max_documents: args.max_documents,
        max_tokens: None,
        like: args.like,
        prefix: args.prefix_id,
        join: args.join_ids.clone(),
        every: 0,
        resamples: args.resamples,
        baseline: true,
    };
    let live = !args.quiet && std::io::stderr().is_terminal();
    let mut on_progress = |done, total| {
        if live {
            output::live(&format!("evaluated {} of {} tokens", thousands(done), thousands(total)));
        }
        if interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let (mut evaluation, documents) = evaluate(&model, &shards, &options, &mut on_progress)?;
    if args.gap {
        let all = shards.split("train")?.num_tokens();
        let every = (all / evaluation.total.tokens.max(1)).max(1);
        let options = EvalOptions { split: "train".into(), every, baseline: false, resamples: 0, ..options };
        let train = evaluate(&model, &shards, &options, &mut on_progress)?.0.total;
        let nats_per_token = evaluation.total.nats_per_token - train.nats_per_token;
        let bits_per_byte = evaluation.total.bits_per_byte - train.bits_per_byte;
        evaluation.gap = Some(Gap { train, nats_per_token, bits_per_byte });
    }
    if live {
        output::live("");
    }
    let step = checkpoint.state.step;
    let stored = store_evaluation(&args.run, step, &evaluation)?;
    if !args.quiet {
        output::table(&[("run", format!("{} at step {}", args.run.display(), thousands(step)))]);
        output::evaluation(&evaluation);
        output::line(&format!("stored in {}", stored.display()));
    }
    if let Some(path) = &args.json {
        write_json(path, &evaluation)?;
    }
    if let Some(path) = &args.per_document {
        write_documents(path, &documents, &shards.manifest().domains)?;
    }
    Ok(Exit::Fine)
}

/// Writes the evaluation to a file, or to stdout for `-`.
fn write_json(path: &Path, evaluation: &Evaluation) -> Result<()> {
    let text = serde_json::to_string_pretty(evaluation);
    let text =
        text.map_err(|source| Error::Json { path: path.to_owned(), what: "evaluation", source })? + "\n";
    match path.as_os_str() == "-" {
        true => std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| Error::Io { path: path.to_owned(), error }),
        false => checkpoint::write_file(path, text.as_bytes()),
    }
}

fn write_documents(path: &Path, documents: &[DocumentScore], domains: &[String]) -> Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        score: &'a DocumentScore,
        domain_name: &'a str,
    }
    let mut lines = Vec::new();
    for score in documents {
        let domain_name = domains.get(usize::from(score.domain)).map_or("", String::as_str);
        serde_json::to_writer(&mut lines, &Line { score, domain_name }).map_err(|source| Error::Json {
            path: path.to_owned(),
            what: "document score",
            source,
        })?;
        lines.push(b'\n');
    }
    checkpoint::write_file(path, &lines)
}
