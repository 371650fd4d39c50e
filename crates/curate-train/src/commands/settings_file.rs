//! `--config FILE.toml`: settings that become arguments, each with the line it stands on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use curate_train::{Error, Result};
use toml::Value;
use toml::de::DeTable;

use crate::Cli;

/// The arguments of the program with those of the settings file of `train` put in, where the command line says nothing.
///
/// # Errors
/// [`Error::Settings`] with the line for what is no TOML, a name that is no flag, or a value that the flag does not take.
pub(crate) fn expand(args: Vec<OsString>) -> Result<Vec<OsString>> {
    let is_train = args.get(1).is_some_and(|command| command == "train");
    let Some(path) = is_train.then(|| config_of(&args[2..])).flatten() else { return Ok(args) };
    let text = std::fs::read_to_string(&path).map_err(|error| Error::Io { path: path.clone(), error })?;
    let mut expanded = args[..2].to_vec();
    for setting in parse(&path, &text)? {
        if !is_given(&args[2..], &setting.name) {
            expanded.extend(setting.arguments.into_iter().map(OsString::from));
        }
    }
    expanded.extend_from_slice(&args[2..]);
    Ok(expanded)
}

/// The value of `--config`.
fn config_of(args: &[OsString]) -> Option<PathBuf> {
    let at = args.iter().position(|arg| arg == "--config" || starts_with(arg, "--config="))?;
    match args[at].to_str().and_then(|arg| arg.strip_prefix("--config=")) {
        Some(path) => Some(path.into()),
        None => args.get(at + 1).map(PathBuf::from),
    }
}

/// Whether the command line decides what the setting would.
fn is_given(args: &[OsString], name: &str) -> bool {
    let names: &[&str] = match name {
        "batch-size" | "batch-tokens" => &["--batch-size", "--batch-tokens"],
        "sample-prompt" | "sample-prompt-ids" => &["--sample-prompt", "--sample-prompt-ids"],
        "output" => &["--output", "-o"],
        "quiet" => &["--quiet", "-q"],
        _ => &[],
    };
    let own = format!("--{name}");
    let mut names = names.iter().copied().chain([own.as_str()]);
    names.any(|name| args.iter().any(|arg| arg == name || starts_with(arg, &format!("{name}="))))
}

fn starts_with(arg: &OsString, prefix: &str) -> bool {
    arg.as_encoded_bytes().starts_with(prefix.as_bytes())
}

/// One setting of the file.
struct Setting {
    name: String,
    arguments: Vec<String>,
}

fn parse(path: &Path, text: &str) -> Result<Vec<Setting>> {
    let line = |offset: usize| 1 + text[..offset.min(text.len())].matches('\n').count();
    let wrong = |line, problem: String| Error::Settings { path: path.to_owned(), line, problem };
    let not_toml = |error: toml::de::Error| {
        wrong(line(error.span().map_or(0, |span| span.start)), error.message().to_owned())
    };
    let spans = DeTable::parse(text).map_err(not_toml)?.into_inner();
    let table: toml::Table = text.parse().map_err(not_toml)?;
    let mut keys: Vec<(usize, &str)> =
        spans.iter().map(|(key, _)| (key.span().start, key.get_ref().as_ref())).collect();
    keys.sort_unstable();
    let train = Cli::command().find_subcommand("train").cloned().expect("it is one of ours");
    let setting = |(start, key): (usize, &str)| {
        let name = key.replace('_', "-");
        let value = &table[key];
        let problem = |problem: String| wrong(line(start), problem);
        let arguments = arguments(&train, &name, value).map_err(problem)?;
        check(&arguments).map_err(problem)?;
        Ok(Setting { name, arguments })
    };
    keys.into_iter().map(setting).collect()
}

/// `name = value` as arguments: a flag without a value is there if it is true.
fn arguments(train: &Command, name: &str, value: &Value) -> Result<Vec<String>, String> {
    let flag = train.get_arguments().find(|arg| arg.get_long() == Some(name) && name != "config");
    let Some(flag) = flag else {
        return Err(format!(
            "there is no setting {name:?}; they have the names of the flags of `curate train`"
        ));
    };
    let text = match value {
        Value::Boolean(on) if !flag.get_action().takes_values() => {
            return Ok(if *on { vec![format!("--{name}")] } else { Vec::new() });
        }
        Value::Array(values) if values.is_empty() => return Ok(Vec::new()),
        Value::Array(values) => values.iter().map(scalar).collect::<Option<Vec<_>>>().map(|v| v.join(",")),
        value => scalar(value),
    };
    let text = text.ok_or_else(|| format!("{name}: expected a number, a text, true or false, or a list"))?;
    Ok(vec![format!("--{name}={text}")])
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Parses one setting alone, so that its line can be named.
fn check(arguments: &[String]) -> Result<(), String> {
    let shards = if arguments.iter().any(|a| a.starts_with("--shards=")) { None } else { Some("--shards=x") };
    let line = ["curate", "train"].into_iter().chain(shards).chain(arguments.iter().map(String::as_str));
    match Cli::command().try_get_matches_from(line) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            Err(text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned())
        }
    }
}
