//! `curate generate`: encodes the prompt, then hands over to `curate-train`, which knows ids only.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

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
    let run = |args: &[OsString]| {
        args.first().filter(|a| !starts_with(a, "-")).map(PathBuf::from).ok_or_else(|| {
            Failure::new("expected the run directory before --prompt")
                .with_hint("curate generate RUN --prompt TEXT")
        })
    };
    match become_trainer("generate", &with_ids(&command.args, "--prompt", run)?)? {}
}

/// The arguments with each `FLAG TEXT` replaced by `FLAG-ids IDS`, in the vocabulary of the directory that `place` finds.
pub(crate) fn with_ids(
    args: &[OsString],
    flag: &str,
    place: impl Fn(&[OsString]) -> Result<PathBuf>,
) -> Result<Vec<OsString>> {
    let mut args = args.to_vec();
    let with_value = format!("{flag}=");
    while let Some(at) = args.iter().position(|a| a == flag || starts_with(a, &with_value)) {
        let (text, used) = match args[at].to_str().and_then(|a| a.strip_prefix(&with_value)) {
            Some(text) => (Some(text), 1),
            None => (args.get(at + 1).and_then(|a| a.to_str()), 2),
        };
        let text = text.ok_or_else(|| Failure::new(format!("{flag} needs a text in UTF-8")))?;
        let ids = OsString::from(format!("{flag}-ids={}", ids(&place(&args)?, text)?));
        args.splice(at..at + used, [ids]);
    }
    Ok(args)
}

/// A text as token ids with commas between, in the vocabulary of a run or shard set.
pub(crate) fn ids(dir: &Path, text: &str) -> Result<String> {
    let mut ids = Vec::new();
    tokenizer_of(dir)?.encode(text, &mut EncodeScratch::default(), &mut ids)?;
    Ok(ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
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

pub(crate) fn starts_with(arg: &OsString, prefix: &str) -> bool {
    arg.as_encoded_bytes().starts_with(prefix.as_bytes())
}
