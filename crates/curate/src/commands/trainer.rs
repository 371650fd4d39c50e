//! `curate train` and `curate eval`: hand over to `curate-train`, the only binary that needs libtorch. `curate embed` runs it too.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::commands::generate::{ids, starts_with, with_ids};
use crate::failure::{Exit, Failure, Result};

/// The libtorch that curate-train is built for.
const TORCH_VERSION: &str = "2.11.0";
const TRAINER: &str = "curate-train";

/// Train a causal language model on shards (`curate train --help` for its options)
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct TrainCommand {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Score a trained model on a held-out split: perplexity and bits per byte
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct EvalCommand {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Write a trained model for transformers (`curate export --help` for its options)
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ExportCommand {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

pub(crate) fn export(command: &ExportCommand) -> Result<Exit> {
    match become_trainer("export", &command.args)? {}
}

/// Fit scaling laws to runs, and plan runs by them (`curate scaling --help` for its options)
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ScalingCommand {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

pub(crate) fn scaling(command: &ScalingCommand) -> Result<Exit> {
    match become_trainer("scaling", &command.args)? {}
}

pub(crate) fn train(command: &TrainCommand) -> Result<Exit> {
    let mut args = with_ids(&command.args, "--sample-prompt", vocabulary_of)?;
    args.extend(sample_of_settings(&args)?);
    match become_trainer("train", &args)? {}
}

/// The shard set or the run among the arguments of `train`: the first directory that has a tokenizer.
fn vocabulary_of(args: &[OsString]) -> Result<PathBuf> {
    let has_tokenizer = |dir: &&OsString| Path::new(dir).join("tokenizer.json").is_file();
    let found = args.iter().find(has_tokenizer).map(PathBuf::from);
    let settings = || settings_of(args).and_then(|settings| Some(settings.get("shards")?.as_str()?.into()));
    found.or_else(settings).ok_or_else(|| {
        Failure::new(
            "--sample-prompt needs the tokenizer of the shards, and no argument is a directory that has one",
        )
        .with_hint("curate train SHARDS --sample-prompt TEXT")
    })
}

/// `--sample-prompt-ids` for the `sample-prompt` of a settings file, if nothing on the command line is about it.
fn sample_of_settings(args: &[OsString]) -> Result<Option<OsString>> {
    if args.iter().any(|arg| starts_with(arg, "--sample-prompt-ids")) {
        return Ok(None);
    }
    let settings = settings_of(args);
    let Some(text) = settings.as_ref().and_then(|s| s.get("sample-prompt")?.as_str()) else {
        return Ok(None);
    };
    let ids = ids(&vocabulary_of(args)?, text)?;
    Ok(Some(OsString::from(format!("--sample-prompt-ids={ids}"))))
}

/// The settings file of `train`, if there is one that can be read; `curate-train` complains of one that cannot.
fn settings_of(args: &[OsString]) -> Option<toml::Table> {
    let at = args.iter().position(|arg| arg == "--config" || starts_with(arg, "--config="))?;
    let path = match args[at].to_str().and_then(|arg| arg.strip_prefix("--config=")) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(args.get(at + 1)?),
    };
    fs::read_to_string(path).ok()?.parse().ok()
}

pub(crate) fn eval(command: &EvalCommand) -> Result<Exit> {
    match become_trainer("eval", &command.args)? {}
}

/// Replaces this process with `curate-train COMMAND ARGS`; returns only if that fails.
pub(crate) fn become_trainer(command: &str, args: &[OsString]) -> Result<Infallible> {
    let mut process = trainer(command)?;
    let error = process.args(args).exec();
    let program = Path::new(process.get_program());
    Err(Failure::new(error.to_string()).context(format!("cannot run {}", program.display())))
}

/// `curate-train COMMAND`, to be run with the libtorch that it needs.
pub(crate) fn trainer(command: &str) -> Result<Command> {
    let build = "python3 tools/bootstrap.py && cargo build --release --workspace";
    let trainer = find_trainer().ok_or_else(|| {
        Failure::new(format!(
            "`curate {command}` needs {TRAINER}, which is neither beside curate nor on PATH"
        ))
        .with_hint(format!("in the curate repository run: {build}"))
    })?;
    let mut process = Command::new(&trainer);
    process.arg(command);
    if env::var_os("OMP_WAIT_POLICY").is_none() {
        // Idle threads that spin cost others (and, on a busy machine, the run itself) most of their time. libgomp
        // reads this when it is loaded, so the trainer cannot set it for itself.
        process.env("OMP_WAIT_POLICY", "passive");
    }
    if let Some(lib) = find_libtorch(&trainer) {
        let mut path = lib.into_os_string();
        if let Some(own) = env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(own);
        }
        process.env("LD_LIBRARY_PATH", path);
    } else if !starts(&trainer) {
        return Err(Failure::new(format!("{} cannot find libtorch {TORCH_VERSION}", trainer.display()))
            .with_hint(format!(
                "in the curate repository run: {build}; or set CURATE_LIBTORCH to a folder torch/lib"
            )));
    }
    Ok(process)
}

/// The trainer beside our own executable, else the one on PATH.
fn find_trainer() -> Option<PathBuf> {
    let beside = env::current_exe().ok()?.with_file_name(TRAINER);
    if beside.is_file() {
        return Some(beside);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(TRAINER)).find(|p| p.is_file())
}

/// Where libtorch lies, if it can be told: what `CURATE_LIBTORCH` says, a `.libtorch` above the trainer, or the
/// one that Python has. Without an answer the trainer's own RUNPATH decides.
fn find_libtorch(trainer: &Path) -> Option<PathBuf> {
    if let Some(path) = env::var_os("CURATE_LIBTORCH") {
        return Some(PathBuf::from(path));
    }
    let above = trainer.ancestors().skip(1).map(|dir| dir.join(".libtorch/torch/lib"));
    if let Some(lib) = above.into_iter().find(|lib| is_our_libtorch(lib)) {
        return fs::canonicalize(lib).ok();
    }
    let lib = python_torch()?.join("lib");
    is_our_libtorch(&lib).then_some(lib)
}

/// True if the trainer's own RUNPATH leads it to libtorch. Costs a quarter of a second, and is asked only where no
/// libtorch was found.
fn starts(trainer: &Path) -> bool {
    let ran = Command::new(trainer).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

/// True if the folder holds libtorch of the version that the trainer was built for, as far as can be told.
fn is_our_libtorch(lib: &Path) -> bool {
    let version = fs::read_to_string(lib.join("../version.py"));
    lib.join("libtorch_cpu.so").exists() && version.map_or(true, |text| text.contains(TORCH_VERSION))
}

/// The folder of Python's torch package; it is looked up, not imported.
fn python_torch() -> Option<PathBuf> {
    let script = "import importlib.util as u; s = u.find_spec('torch'); \
                  print(s.submodule_search_locations[0] if s else '')";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(path.trim())).filter(|p| !p.as_os_str().is_empty())
}
