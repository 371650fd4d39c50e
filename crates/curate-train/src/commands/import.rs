//! `curate-train import`: a model of another program as a run directory.

use std::path::PathBuf;

use curate_shards::{TokenId, TokenizerInfo, Vocabulary};
use curate_train::checkpoint::write_file;
use curate_train::gguf::Gguf;
use curate_train::{Result, hf};

use crate::output::{self, Exit, thousands};

/// Paragraphs are single lines: the parser wraps them to the terminal.
const EXAMPLES: &str = "\
Examples:
  curate import model/ -o run
  curate import SmolLM2-135M-Instruct.Q4_1.gguf -o smollm2 --context 2048
  curate tokenize --tokenizer smollm2/tokenizer.json texts/ | curate pack --seq-len 2048 -o shards
  curate eval smollm2 --shards shards --split train

MODEL is a folder for transformers (gpt2, llama or qwen3; config.json, safetensors in fp32, fp16 or bf16, in one file or \
several, tokenizer.json), or a GGUF file of a llama model in F32, F16, Q4_0, Q4_1 or Q8_0. Settings that would change the \
logits and are not known here are refused. The run can be evaluated, sampled from, embedded with and exported; weights \
become fp32.";

/// Take over a model of another program as a run directory
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImportArgs {
    /// Folder of a transformers model, or a GGUF file
    model: PathBuf,
    /// Run directory to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Let a model with rotary positions see at most this many tokens [default: its own context]
    #[arg(long, value_name = "T")]
    context: Option<u32>,
    /// Name, SHA-256, size and end-of-document id of the tokenizer, as `curate import` finds them
    #[arg(long, value_name = "JSON", hide = true)]
    tokenizer: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &ImportArgs) -> Result<Exit> {
    let origin = args.model.display().to_string();
    let model = if args.model.is_dir() {
        let (model, json) = hf::read(&args.model, args.context)?;
        let told = args.tokenizer.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let eod = json["eos_token_id"].as_u64().and_then(|id| TokenId::try_from(id).ok()).unwrap_or(0);
        let vocab_size = model.config().vocab_size;
        let unknown = || TokenizerInfo { name: "unknown".into(), sha256: String::new(), vocab_size, eod };
        hf::write_run(&args.output, &model, told.unwrap_or_else(unknown), &origin)?;
        model
    } else {
        let file = Gguf::open(&args.model)?;
        let (model, tokenizer) = (file.model(args.context)?, file.tokenizer()?);
        hf::write_run(&args.output, &model, tokenizer.info, &origin)?;
        write_file(&args.output.join("tokenizer.json"), &tokenizer.json)?;
        Vocabulary::write(args.output.join("vocabulary.bin"), &tokenizer.vocabulary)?;
        model
    };
    let (parameters, context) = (thousands(model.config().num_parameters()), model.config().context);
    output::line(&format!(
        "{origin}: {parameters} parameters, context {context}, in {}",
        args.output.display()
    ));
    Ok(Exit::Fine)
}
