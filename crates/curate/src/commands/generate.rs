//! `curate generate`: encodes the prompt, then hands over to `curate-train`, which knows ids only.

use std::ffi::OsString;
use std::path::Path;

use clap::Args;
use curate_tokenize::{EncodeScratch, LoadOptions, Tokenizer};

use crate::commands::trainer::become_trainer;
use crate::failure::{Exit, Failure, Result};

/// Sample text from a trained model (`curate generate RUN --prompt TEXT`; --help for its options)
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct GenerateCommand {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

pub(crate) fn execute(command: &GenerateCommand) -> Result<Exit> {
    match become_trainer("generate", &with_prompt_ids(&command.args)?)? {}
}

/// The arguments with each `--prompt TEXT` replaced by `--prompt-ids` in the run's own vocabulary.
fn with_prompt_ids(args: &[OsString]) -> Result<Vec<OsString>> {
    let mut args = args.to_vec();
    while let Some(changed) = with_first_prompt_ids(&args)? {
        args = changed;
    }
    Ok(args)
}

/// The arguments with the first `--prompt` replaced; `None` if there is none.
fn with_first_prompt_ids(args: &[OsString]) -> Result<Option<Vec<OsString>>> {
    let Some(at) = args.iter().position(|a| a == "--prompt" || starts_with(a, "--prompt=")) else {
        return Ok(None);
    };
    let run = args.first().filter(|a| !starts_with(a, "-")).ok_or_else(|| {
        Failure::new("expected the run directory before --prompt")
            .with_hint("curate generate RUN --prompt TEXT")
    })?;
    let (text, used) = match args[at].to_str().and_then(|a| a.strip_prefix("--prompt=")) {
        Some(text) => (Some(text), 1),
        None => (args.get(at + 1).and_then(|a| a.to_str()), 2),
    };
    let text = text.ok_or_else(|| Failure::new("--prompt needs a text in UTF-8"))?;
    let ids = encode(Path::new(run), text)?;
    let mut changed = args.to_vec();
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    changed.splice(at..at + used, [OsString::from(format!("--prompt-ids={}", ids.join(",")))]);
    Ok(Some(changed))
}

fn encode(run: &Path, text: &str) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    tokenizer_of(run)?.encode(text, &mut EncodeScratch::default(), &mut ids)?;
    Ok(ids)
}

/// The tokenizer that a run was trained with.
pub(crate) fn tokenizer_of(run: &Path) -> Result<Tokenizer> {
    let path = run.join("tokenizer.json");
    let json = std::fs::read(&path).map_err(|e| {
        Failure::new(e.to_string())
            .context(format!("cannot read {}", path.display()))
            .with_hint("name a run directory that `curate train` made")
    })?;
    Ok(Tokenizer::from_json("run", &json, &LoadOptions::default())?)
}

fn starts_with(arg: &OsString, prefix: &str) -> bool {
    arg.as_encoded_bytes().starts_with(prefix.as_bytes())
}
