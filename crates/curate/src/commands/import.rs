//! `curate import`: the trainer reads the weights, this side knows the tokenizer.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use curate_shards::Vocabulary;
use curate_tokenize::{LoadOptions, Tokenizer};
use serde_json::json;

use crate::commands::trainer::trainer;
use crate::failure::{Exit, Failure, Result};

/// Take over a transformers or GGUF model as a run directory (`curate import --help` for its options)
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ImportCommand {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

pub(crate) fn execute(command: &ImportCommand) -> Result<Exit> {
    let tokenizer = tokenizer_beside(command.args.first().map_or(Path::new(""), Path::new))?;
    let mut process = trainer("import")?;
    process.args(&command.args);
    if let Some(tokenizer) = &tokenizer {
        let info = tokenizer.info();
        let (name, sha256) = (&info.name, &info.sha256);
        let info = json!({ "name": name, "sha256": sha256, "vocab_size": info.vocab_size, "eod": info.eod });
        process.arg(format!("--tokenizer={info}"));
    }
    let program = Path::new(process.get_program()).display().to_string();
    let ended = process.status();
    let ended = ended.map_err(|e| Failure::new(e.to_string()).context(format!("cannot run {program}")))?;
    if !ended.success() {
        return Ok(if ended.code() == Some(1) { Exit::BadData } else { Exit::CouldNotRun });
    }
    if let (Some(tokenizer), Some(run)) = (tokenizer, output_of(&command.args)) {
        Vocabulary::write(run.join("vocabulary.bin"), &tokenizer.vocabulary())?;
        let path = run.join("tokenizer.json");
        curate_io::write_atomically(&path, &tokenizer.to_json())
            .map_err(|e| Failure::new(e.to_string()).context(format!("cannot write {}", path.display())))?;
    }
    Ok(Exit::Done)
}

/// The tokenizer in a model's folder, if it has one.
fn tokenizer_beside(model: &Path) -> Result<Option<Tokenizer>> {
    let paths = ["tokenizer.json", "curate-tokenizer.json"].map(|name| model.join(name));
    let Some(path) = paths.into_iter().find(|path| path.is_file()) else { return Ok(None) };
    let spec = path.to_string_lossy();
    Ok(Some(Tokenizer::load(&spec, &LoadOptions::default())?))
}

/// What stands after `-o`.
fn output_of(args: &[OsString]) -> Option<PathBuf> {
    let at = args.iter().position(|a| a == "-o" || a == "--output");
    let joined = || {
        args.iter().find_map(|a| {
            let text = a.to_str()?;
            text.strip_prefix("--output=").or_else(|| text.strip_prefix("-o")).map(PathBuf::from)
        })
    };
    at.and_then(|at| args.get(at + 1)).map(PathBuf::from).or_else(joined)
}
