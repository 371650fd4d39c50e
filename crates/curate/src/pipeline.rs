//! Pipeline files: TOML whose settings become the arguments of the commands that they name.
//!
//! Everything here keeps the line that it came from, so that any complaint can name it.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::failure::{Failure, Result};

/// Where a setting was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Line of the file, from 1.
    Line(usize),
    /// A `--set` of the command line.
    CommandLine,
}

/// One `name = value`.
#[derive(Debug, Clone)]
struct Setting {
    name: String,
    value: Value,
    place: Place,
}

/// A table of settings: the top of the file, or one stage.
#[derive(Debug)]
pub(crate) struct Section {
    /// The stage's command; empty for the top of the file.
    pub(crate) command: String,
    pub(crate) place: Place,
    settings: Vec<Setting>,
}

/// A pipeline file, parsed but not understood.
#[derive(Debug)]
pub(crate) struct PipelineFile {
    name: String,
    pub(crate) top: Section,
    pub(crate) stages: Vec<Section>,
}

impl PipelineFile {
    /// Parses the text of the file called `name`.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self> {
        let not_toml = |e: toml::de::Error| {
            Failure::new(e.to_string().trim_end()).context(format!("{name} is not TOML"))
        };
        let spans = DeTable::parse(text).map_err(not_toml)?.into_inner();
        let mut table: Table = text.parse().map_err(not_toml)?;
        let line = |offset: usize| Place::Line(1 + text[..offset].matches('\n').count());
        let at = |place, message: String| Failure::new(message).context(place_name(name, place));
        let stages_value = table.remove("stage");
        let top = Section {
            command: String::new(),
            place: Place::Line(1),
            settings: settings(&spans, &table, &line),
        };
        let mut stages = Vec::new();
        let stage_spans = spans.iter().find(|(key, _)| *key.get_ref() == "stage").map(|(_, value)| value);
        if let (Some(Value::Array(tables)), Some(span)) = (stages_value, stage_spans)
            && let DeValue::Array(stage_spans) = span.get_ref()
        {
            for (i, (table, span)) in tables.iter().zip(stage_spans.iter()).enumerate() {
                let place = line(span.span().start);
                let (Value::Table(table), DeValue::Table(inner)) = (table, span.get_ref()) else {
                    return Err(at(place, format!("stage {}: expected a table", i + 1)));
                };
                let Some(Value::String(command)) = table.get("command") else {
                    return Err(at(place, format!("stage {}: no command = \"…\" in it", i + 1)));
                };
                let mut settings = settings(inner, table, &line);
                settings.retain(|s| s.name != "command");
                stages.push(Section { command: command.clone(), place, settings });
            }
        }
        if stages.is_empty() {
            let failure = Failure::new("no [[stage]] in it").context(name);
            return Err(failure.with_hint("a stage is [[stage]] with command = \"clean\""));
        }
        Ok(Self { name: name.to_owned(), top, stages })
    }

    /// Applies `--set STAGE.OPTION=VALUE` or `--set OPTION=VALUE`.
    pub(crate) fn set(&mut self, setting: &str) -> Result<()> {
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
            self.top.set(key, value);
            return Ok(());
        };
        let known: Vec<String> = self.stages.iter().map(|s| s.command.clone()).collect();
        let mut named = self.stages.iter_mut().filter(|section| section.command == stage);
        match (named.next(), named.next()) {
            (Some(section), None) => {
                section.set(option, value);
                Ok(())
            }
            (None, _) => {
                let message = format!("--set {setting}: the pipeline has no stage {stage}");
                Err(Failure::new(message).with_hint(format!("its stages are {}", known.join(", "))))
            }
            (Some(_), Some(_)) => {
                Err(wrong(format!("--set {setting}: the pipeline has several stages {stage}")))
            }
        }
    }

    /// Parses the top of the file as the options `T`.
    pub(crate) fn top_options<T: Args>(&self, arguments: &[String]) -> Result<T> {
        self.options(&self.top, "the top of the file", arguments)
    }

    /// Parses stage number `index` as the options `T`.
    pub(crate) fn stage_options<T: Args>(&self, index: usize) -> Result<T> {
        let section = &self.stages[index];
        self.options(section, &self.stage_name(index), &section.arguments()?)
    }

    fn stage_name(&self, index: usize) -> String {
        format!("stage {} ({})", index + 1, self.stages[index].command)
    }

    /// A complaint about a stage.
    pub(crate) fn complain(&self, index: usize, message: &str) -> Failure {
        let place = place_name(&self.name, self.stages[index].place);
        Failure::new(message).context(self.stage_name(index)).context(place)
    }

    fn options<T: Args>(&self, section: &Section, what: &str, arguments: &[String]) -> Result<T> {
        match Options::<T>::try_parse_from(arguments) {
            Ok(Options { options }) => Ok(options),
            Err(error) => {
                let place = section.place_of(&error);
                Err(explain::<T>(&error).context(what).context(place_name(&self.name, place)))
            }
        }
    }
}

fn place_name(file: &str, place: Place) -> String {
    match place {
        Place::Line(line) => format!("{file}:{line}"),
        Place::CommandLine => format!("{file} with --set"),
    }
}

/// The scalar and list settings of a table, in the order of the file.
fn settings(spans: &DeTable<'_>, table: &Table, line: &impl Fn(usize) -> Place) -> Vec<Setting> {
    let mut found: Vec<(usize, Setting)> = spans
        .iter()
        .filter_map(|(key, _)| {
            let value = table.get(key.get_ref().as_ref())?.clone();
            let start = key.span().start;
            Some((start, Setting { name: key.get_ref().to_string(), value, place: line(start) }))
        })
        .collect();
    found.sort_by_key(|(start, _)| *start);
    found.into_iter().map(|(_, setting)| setting).collect()
}

impl Section {
    /// The settings as arguments: `name = value` is `--name=value`, `true` the bare flag.
    pub(crate) fn arguments(&self) -> Result<Vec<String>> {
        let mut arguments = Vec::new();
        for Setting { name, value, .. } in &self.settings {
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

    /// Takes the setting `name` out, as positional arguments.
    pub(crate) fn take_positional(&mut self, name: &str) -> Result<Vec<String>> {
        let Some(i) = self.settings.iter().position(|s| s.name == name) else { return Ok(Vec::new()) };
        match self.settings.remove(i).value {
            Value::Array(values) => values.iter().map(|v| scalar(name, v)).collect(),
            value => Ok(vec![scalar(name, &value)?]),
        }
    }

    fn set(&mut self, name: &str, value: Value) {
        let same = |s: &Setting| s.name.replace('_', "-") == name.replace('_', "-");
        self.settings.retain(|s| !same(s));
        self.settings.push(Setting { name: name.to_owned(), value, place: Place::CommandLine });
    }

    /// The place of the setting that a parse error is about; the section's own if it names none.
    fn place_of(&self, error: &clap::Error) -> Place {
        let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
            return self.place;
        };
        let name = argument.trim_start_matches('-');
        let name = name.split([' ', '=', '<', '[']).next().unwrap_or(name);
        let same = |s: &&Setting| s.name.replace('_', "-") == name;
        self.settings.iter().find(same).map_or(self.place, |s| s.place)
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

/// Options of `T` without a program name before them.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Options<T: Args> {
    #[command(flatten)]
    options: T,
}

/// A parse error in the words of a pipeline file.
fn explain<T: Args>(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
    {
        let name = argument.trim_start_matches('-');
        let failure = Failure::new(format!("unknown option `{name}`"));
        return match nearest::<T>(name) {
            Some(known) => failure.with_hint(format!("did you mean `{known}`?")),
            None => failure,
        };
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or(&text);
    Failure::new(first.trim_start_matches("error: ").trim())
}

/// The option of `T` whose name is most like `name`, if any is at all like it.
fn nearest<T: Args>(name: &str) -> Option<String> {
    let command = T::augment_args(clap::Command::new("stage"));
    let likeness = |known: &str| strsim::jaro_winkler(known, name);
    command
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        .filter(|known| likeness(known) > 0.75)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .map(str::to_owned)
}
