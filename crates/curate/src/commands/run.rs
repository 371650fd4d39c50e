//! `curate run`: the stages of a pipeline file, fused in one process.
//!
//! A stage of the file has the options of the command of its name, and is parsed by that command's own definition:
//! what the file can say is exactly what the shell can say.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser};
use toml::{Table, Value};

use crate::chain::{Chain, Ending, Kind, Link};
use crate::cli::StreamOptions;
use crate::commands::clean::CleanOptions;
use crate::commands::dedup::{self, DedupStage};
use crate::commands::pack::PackOptions;
use crate::commands::tokenize::{TokenEnd, TokenizeOptions};
use crate::failure::{Exit, Failure, Result};

/// Run the stages of a pipeline file in one process
///
/// The result is byte for byte that of the same stages in a shell pipe, without encoding and parsing the documents
/// between them. The whole file is checked before anything starts.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate run pipelines/demo.toml\n  curate run pipelines/demo.toml --set dedup.threshold=0.7 --set input=corpus/ --dry-run"
)]
pub(crate) struct RunCommand {
    /// The pipeline file
    #[arg(value_name = "FILE.toml")]
    pipeline: PathBuf,

    /// Change an option: `STAGE.OPTION=VALUE`, or `OPTION=VALUE` at the top of the file
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Print the equivalent shell pipe and stop
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn execute(command: &RunCommand) -> Result<Exit> {
    let name = command.pipeline.display().to_string();
    let text = std::fs::read_to_string(&command.pipeline)
        .map_err(|e| Failure::new(e.to_string()).context(format!("cannot read {name}")))?;
    let pipeline = Pipeline::parse(&text, &command.set).map_err(|failure| failure.context(name))?;
    if command.dry_run {
        let shown = writeln!(io::stdout(), "{}", pipeline.shell());
        return shown
            .map(|()| Exit::Done)
            .map_err(|e| curate_core::Error::io("cannot write stdout", e).into());
    }
    pipeline.run()
}

/// A pipeline file, checked.
struct Pipeline {
    stream: StreamOptions,
    output: Option<PathBuf>,
    stages: Vec<StageOptions>,
    /// Each stage as a command line, for people.
    commands: Vec<Vec<String>>,
}

enum StageOptions {
    Clean(CleanOptions),
    Dedup(DedupStage),
    Tokenize(TokenizeOptions, Option<PathBuf>),
    Pack(PackOptions),
}

/// Options of `T` without a program name before them.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Options<T: Args> {
    #[command(flatten)]
    options: T,
}

/// What stands at the top of a pipeline file.
#[derive(Args)]
struct TopOptions {
    #[command(flatten)]
    stream: StreamOptions,

    #[arg(long)]
    output: Option<PathBuf>,
}

#[derive(Args)]
struct TokenizeStage {
    #[command(flatten)]
    options: TokenizeOptions,

    #[arg(long)]
    output: Option<PathBuf>,
}

impl Pipeline {
    fn parse(text: &str, settings: &[String]) -> Result<Self> {
        let mut top: Table =
            text.parse().map_err(|e: toml::de::Error| Failure::new(e.to_string().trim_end()))?;
        let mut stages = take_stages(&mut top)?;
        for setting in settings {
            apply(setting, &mut top, &mut stages)?;
        }
        let mut inputs = to_arguments_of("input", top.remove("input"))?;
        inputs.extend(to_arguments(&top)?);
        let TopOptions { stream, output } = parse_options(&inputs)?;
        let mut parsed = Vec::new();
        let mut commands: Vec<Vec<String>> = Vec::new();
        for (i, (command, table)) in stages.iter().enumerate() {
            let arguments = to_arguments(table)?;
            let stage = parse_stage(command, &arguments)
                .map_err(|failure| failure.context(format!("stage {} ({command})", i + 1)))?;
            parsed.push(stage);
            commands.push(std::iter::once(command.clone()).chain(arguments).collect());
        }
        if let Some(first) = commands.first_mut() {
            first.extend(inputs);
        }
        let pipeline = Self { stream, output, stages: parsed, commands };
        pipeline.check_order()?;
        Ok(pipeline)
    }

    /// Tokens come after documents, and shards after tokens.
    fn check_order(&self) -> Result<()> {
        let wrong = |message: &str| Err(Failure::new(message));
        for (i, stage) in self.stages.iter().enumerate() {
            let next = self.stages.get(i + 1);
            match (stage, next) {
                (StageOptions::Tokenize(..), None | Some(StageOptions::Pack(_))) => {}
                (StageOptions::Tokenize(..), Some(_)) => return wrong("only pack can follow tokenize"),
                (StageOptions::Pack(_), Some(_)) => return wrong("pack must be the last stage"),
                (StageOptions::Pack(_), None) if i == 0 => {
                    return wrong("pack needs a tokenize stage before it");
                }
                (_, Some(StageOptions::Pack(_))) => return wrong("pack needs a tokenize stage before it"),
                _ => {}
            }
        }
        Ok(())
    }

    fn shell(&self) -> String {
        let quote = |word: &String| match word
            .contains(|c: char| !(c.is_ascii_alphanumeric() || "-_=./,:".contains(c)))
        {
            true => format!("'{}'", word.replace('\'', r"'\''")),
            false => word.clone(),
        };
        let commands: Vec<String> = self
            .commands
            .iter()
            .map(|words| format!("curate {}", words.iter().map(quote).collect::<Vec<_>>().join(" ")))
            .collect();
        commands.join(" |\n  ")
    }

    fn run(self) -> Result<Exit> {
        let mut links = Vec::new();
        let mut ending = Ending::Documents(self.output.clone());
        let mut packing = None;
        let mut stages = self.stages.iter().peekable();
        while let Some(stage) = stages.next() {
            links.push(match stage {
                StageOptions::Clean(options) => options.prepare()?,
                StageOptions::Dedup(options) => options.prepare()?,
                StageOptions::Tokenize(options, output) => {
                    ending = Ending::Gate;
                    let tokenizer = options.load()?;
                    let end = match stages.peek() {
                        Some(StageOptions::Pack(pack)) => TokenEnd::shards(pack.writer(&tokenizer)?),
                        _ => TokenEnd::stream(output.clone(), &tokenizer)?,
                    };
                    options.prepare(tokenizer, end)
                }
                StageOptions::Pack(options) => {
                    packing = Some(options);
                    continue;
                }
            });
        }
        let chain = Chain { command: "run", links, ending, stream: &self.stream, canonical: false };
        chain.run(|links| {
            let mut extras: Vec<_> = links.iter().filter_map(dedup::extra).collect();
            if let Some(Link { kind: Kind::Tokenize(_, end), .. }) = links.last_mut() {
                extras.push(end.extra());
                match (end.take_shards(), packing) {
                    (Some(writer), Some(pack)) => extras.push(pack.finish(writer)?),
                    _ => end.finish_stream()?,
                }
            }
            Ok(extras)
        })
    }
}

/// The `[[stage]]` tables, each with its command.
fn take_stages(top: &mut Table) -> Result<Vec<(String, Table)>> {
    let Some(Value::Array(stages)) = top.remove("stage") else {
        return Err(
            Failure::new("no [[stage]] in it").with_hint("a stage is [[stage]] with command = \"clean\"")
        );
    };
    let mut found = Vec::new();
    for (i, stage) in stages.into_iter().enumerate() {
        let Value::Table(mut table) = stage else {
            return Err(Failure::new(format!("stage {}: expected a table", i + 1)));
        };
        match table.remove("command") {
            Some(Value::String(command)) => found.push((command, table)),
            _ => return Err(Failure::new(format!("stage {}: no command = \"…\" in it", i + 1))),
        }
    }
    Ok(found)
}

/// Applies `--set KEY=VALUE`.
fn apply(setting: &str, top: &mut Table, stages: &mut [(String, Table)]) -> Result<()> {
    let wrong = |message: String| {
        Failure::new(message).with_hint("--set STAGE.OPTION=VALUE, such as dedup.threshold=0.7")
    };
    let (key, text) =
        setting.split_once('=').ok_or_else(|| wrong(format!("--set {setting}: no `=` in it")))?;
    let value = format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    let Some((stage, option)) = key.split_once('.') else {
        top.insert(key.to_owned(), value);
        return Ok(());
    };
    let mut named = stages.iter_mut().filter(|(command, _)| command == stage);
    match (named.next(), named.next()) {
        (Some((_, table)), None) => {
            table.retain(|name, _| name.replace('_', "-") != option.replace('_', "-"));
            table.insert(option.to_owned(), value);
            Ok(())
        }
        (None, _) => Err(wrong(format!("--set {setting}: the pipeline has no stage {stage}"))),
        (Some(_), Some(_)) => Err(wrong(format!("--set {setting}: the pipeline has several stages {stage}"))),
    }
}

fn parse_stage(command: &str, arguments: &[String]) -> Result<StageOptions> {
    Ok(match command {
        "clean" => StageOptions::Clean(parse_options(arguments)?),
        "dedup" => StageOptions::Dedup(parse_options(arguments)?),
        "tokenize" => {
            let TokenizeStage { options, output } = parse_options(arguments)?;
            StageOptions::Tokenize(options, output)
        }
        "pack" => StageOptions::Pack(parse_options(arguments)?),
        _ => {
            return Err(
                Failure::new("unknown command").with_hint("stages are clean, dedup, tokenize and pack")
            );
        }
    })
}

fn parse_options<T: Args>(arguments: &[String]) -> Result<T> {
    Options::<T>::try_parse_from(arguments).map(|parsed| parsed.options).map_err(|error| explain(&error))
}

/// A parse error in the words of a file: options have no dashes there.
fn explain(error: &clap::Error) -> Failure {
    let bare = |value: Option<&ContextValue>| match value {
        Some(ContextValue::String(flag)) => {
            Some(flag.split(['=', ' ']).next()?.trim_start_matches('-').to_owned())
        }
        _ => None,
    };
    if error.kind() == ErrorKind::UnknownArgument {
        let option = bare(error.get(ContextKind::InvalidArg)).unwrap_or_default();
        let failure = Failure::new(format!("unknown option `{option}`"));
        return match bare(error.get(ContextKind::SuggestedArg)) {
            Some(near) => failure.with_hint(format!("did you mean `{near}`?")),
            None => failure,
        };
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or(&text);
    Failure::new(first.trim_start_matches("error: ").trim())
}

/// A table as arguments: `name = value` is `--name=value`, `true` the bare flag.
fn to_arguments(table: &Table) -> Result<Vec<String>> {
    let mut arguments = Vec::new();
    for (name, value) in table {
        let flag = format!("--{}", name.replace('_', "-"));
        match value {
            Value::Boolean(true) => arguments.push(flag),
            Value::Boolean(false) => {}
            Value::Array(values) => {
                for value in values {
                    arguments.push(format!("{flag}={}", scalar(name, value)?));
                }
            }
            value => arguments.push(format!("{flag}={}", scalar(name, value)?)),
        }
    }
    Ok(arguments)
}

/// A value, or each of several, as positional arguments.
fn to_arguments_of(name: &str, value: Option<Value>) -> Result<Vec<String>> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(|v| scalar(name, v)).collect(),
        Some(value) => Ok(vec![scalar(name, &value)?]),
    }
}

fn scalar(name: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(n) => Ok(n.to_string()),
        Value::Float(x) => Ok(x.to_string()),
        _ => Err(Failure::new(format!("{name}: expected a string or a number, found {}", value.type_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        input = ["a.jsonl", "b/"]
        threads = 3
        [[stage]]
        command = "clean"
        set = ["min_words=20"]
        [[stage]]
        command = "dedup"
        minhash = true
        [[stage]]
        command = "tokenize"
        tokenizer = "bytes"
        [[stage]]
        command = "pack"
        seq_len = [128, 256]
        split = "val=0.1"
        output = "out dir"
    "#;

    fn fault(text: &str, settings: &[&str]) -> (String, Option<String>) {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        let failure = Pipeline::parse(text, &settings).err().expect("a fault");
        let mut message = failure.error.to_string();
        let mut cause = failure.error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        (message, failure.hint)
    }

    #[test]
    fn a_pipeline_is_its_shell_pipe() {
        let settings = ["dedup.threshold=0.7".to_owned(), "pack.seq-len=64".to_owned()];
        let pipeline = Pipeline::parse(GOOD, &settings).map_err(|f| f.error.to_string()).unwrap();
        assert_eq!(
            pipeline.shell(),
            "curate clean --set=min_words=20 a.jsonl b/ --threads=3 |\n  \
             curate dedup --minhash --threshold=0.7 |\n  \
             curate tokenize --tokenizer=bytes |\n  \
             curate pack '--output=out dir' --seq-len=64 --split=val=0.1"
        );
    }

    #[test]
    fn faults_are_named_before_anything_starts() {
        let (message, hint) = fault(&GOOD.replace("minhash", "minhsh"), &[]);
        assert_eq!(message, "stage 2 (dedup): unknown option `minhsh`");
        assert_eq!(hint.as_deref(), Some("did you mean `minhash`?"));
        let check = |text: &str, part: &str| {
            let (message, _) = fault(text, &[]);
            assert!(message.contains(part), "{message}");
        };
        check("", "no [[stage]]");
        check("x = ", "TOML");
        check("[[stage]]\nrecipe = \"x\"", "stage 1: no command");
        check("[[stage]]\ncommand = \"wash\"", "stage 1 (wash): unknown command");
        check("[[stage]]\ncommand = \"pack\"\noutput = \"x\"", "pack needs a tokenize stage");
        check(&GOOD.replace("val=0.1\"\n", "val=0.1\"\nseed = -1\n"), "seed");
        check(&GOOD.replace("threads = 3", "threads = [[1]]"), "threads: expected a string or a number");
        check(&GOOD.replace("threads = 3", "thread = 3"), "unknown option `thread`");
        assert!(fault(GOOD, &["wash.x=1"]).0.contains("no stage wash"));
        assert!(fault(GOOD, &["nothing"]).0.contains("no `=`"));
    }
}
