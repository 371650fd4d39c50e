//! `curate-train export`: a run's model in the form of another program.

use std::path::PathBuf;

use clap::ValueEnum;
use curate_train::device::DeviceChoice;
use curate_train::hf;
use curate_train::{Error, Result};

use crate::output::{self, Exit};

/// Paragraphs are single lines: the parser wraps them to the terminal.
const EXAMPLES: &str = "\
Examples:
  curate export run -o model
  curate export run --checkpoint step-00000100 -o model --to hf

hf: a folder for transformers (config.json, model.safetensors in fp32, tokenizer.json), as gpt2 for LayerNorm + learned \
positions + GELU, as llama for RMSNorm + RoPE + SwiGLU, as qwen3 for llama with --qk-norm. It gives the same logits.";

/// Write a run's model in the form of another program
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportArgs {
    /// Run directory, as made by `curate train`
    run: PathBuf,
    /// Folder to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Form
    #[arg(long, value_enum, default_value_t = Form::Hf)]
    to: Form,
    /// Checkpoint, such as step-00000100 [default: the newest]
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// Hugging Face transformers
    Hf,
}

/// Runs the command.
pub(crate) fn run(args: &ExportArgs) -> Result<Exit> {
    let Form::Hf = args.to;
    let checkpoint = super::open_checkpoint(&args.run, args.checkpoint.as_deref())?;
    let model = super::load_model(&checkpoint, DeviceChoice::Cpu, None)?;
    let path = args.run.join("tokenizer.json");
    let tokenizer = match std::fs::read(&path) {
        Ok(json) => Some(json),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::Io { path, error }),
    };
    let info = &checkpoint.state.run.tokenizer;
    let readable = hf::export(&model, info, tokenizer.as_deref(), &args.output)?;
    if !readable {
        let name = &info.name;
        output::warn(&format!(
            "transformers cannot read the tokenizer {name:?}: the folder is for token ids only"
        ));
    }
    output::line(&format!(
        "{} at step {} is in {}",
        args.run.display(),
        checkpoint.state.step,
        args.output.display()
    ));
    Ok(Exit::Fine)
}
