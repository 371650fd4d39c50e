//! `curate decontaminate`: does this text hold what the model will be tested on?

use std::collections::HashSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use curate_clean::decontaminate::{Decontaminator, Index, IndexBuilder, Item, Leaks, THRESHOLD};
use curate_core::{Block, Codec as _, Document, Dropped, Gate, Parsed, Record, Source as _, Value, Verdict};
use curate_io::{DropLogStyle, Inputs, Output, Records, append_json_string, resolve};
use serde::Serialize;
use serde_json::json;

use crate::chain::{Chain, Ending, Kind, Link, parameters};
use crate::cli::{OutputOptions, StreamOptions, byte_size, ratio};
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Failure, Result};
use crate::summary::{Extra, bytes, thousands};

/// Find documents that hold items of evaluation sets, or text of a held-out split, and drop them
///
/// Words are compared without case, accents and punctuation. Eight words in a row that an item and a document share, or
/// three rare ones, are extended over edits of up to five words; what is shared is weighed by how rare its words
/// are, and from a score of 0.5 the document is contaminated. An item of more than 512 words is a document, and
/// fifty of its words decide.
///
/// Memory: some 50 bytes a word of the items (25 of long ones), twice that while the index is built; nothing grows with the documents.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate decontaminate --against mmlu.jsonl --against gsm8k/ clean.jsonl.zst -o train.jsonl.zst\n  curate decontaminate --against evals/ --action report --leaks leaks.jsonl clean.jsonl > /dev/null\n  curate decontaminate --against held-out.jsonl --item-fields text train.jsonl > honest.jsonl"
)]
pub(crate) struct DecontaminateCommand {
    #[command(flatten)]
    stage: DecontaminateStage,

    #[command(flatten)]
    stream: StreamOptions,

    #[command(flatten)]
    output: OutputOptions,
}

/// The options of the stage itself.
#[derive(Args, Debug, Clone, Serialize)]
#[group(skip)]
pub(crate) struct DecontaminateStage {
    /// Evaluation items or held-out documents: a file or directory of any format that curate reads; can be given more than
    /// once. Each file is a set of its own in the report
    #[arg(long, value_name = "PATH", required = true)]
    against: Vec<PathBuf>,

    /// Fields of an item: the question, and after it what answers it [default: found by name: question, prompt, problem, text, …;
    /// answer, answers, target, choices, …]
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    item_fields: Vec<String>,

    /// What happens to a contaminated document
    #[arg(long, value_name = "ACTION", default_value = "drop")]
    action: Action,

    /// What --action mask puts in the place of a shared span
    #[arg(long, value_name = "TEXT", default_value = "[removed]")]
    mask: String,

    /// Score from which a document is contaminated: lower finds shorter and more edited overlaps, and more chance ones
    #[arg(long, value_name = "SCORE", default_value_t = THRESHOLD, value_parser = score)]
    threshold: f32,

    /// End with exit code 1, and without the output file, if more than this share of the documents was dropped or masked; a
    /// handful of up to ten is always allowed
    #[arg(long, value_name = "RATIO", default_value_t = 0.01, value_parser = ratio)]
    max_removed: f64,

    /// The most memory that the index of the items may take
    #[arg(long, value_name = "BYTES", default_value = "2G", value_parser = byte_size)]
    #[serde(skip)]
    memory: usize,

    /// Write a line for each item found in a document here: {"id","set","item","score","coverage","spans","text",…}; spans are
    /// in characters of the document's text
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    leaks: Option<PathBuf>,

    /// Write the dropped documents here
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    rejects: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Let it pass, and count it
    Report,
    /// Replace what it shares, leave the rest as it is
    Mask,
    /// Drop it
    Drop,
}

fn score(text: &str) -> std::result::Result<f32, String> {
    match text.parse::<f32>() {
        Ok(score) if score > 0.0 && score <= 1.0 => Ok(score),
        _ => Err(format!("expected a number above 0, up to 1, found {text:?}")),
    }
}

impl DecontaminateStage {
    pub(crate) fn prepare(&self) -> Result<Link> {
        let index = Arc::new(self.load()?);
        if index.is_empty() {
            return Err(Failure::new("--against holds no item with a word in it"));
        }
        let mask = (self.action == Action::Mask).then(|| self.mask.clone());
        let gate = LeakGate {
            index: Arc::clone(&index),
            action: self.action,
            max_removed: self.max_removed,
            leaks: self.leaks.as_deref().map(|path| Output::create(Some(path))).transpose()?,
            line: Vec::new(),
            documents: 0,
            found: vec![Found::default(); index.sets().len()],
        };
        let decontaminator = Decontaminator { index, threshold: self.threshold, mask };
        Ok(Link {
            kind: Kind::Decontaminate(Box::new(decontaminator), Box::new(gate)),
            logs: self.rejects.iter().map(|path| (path.clone(), DropLogStyle::Documents)).collect(),
            covers: 1,
            parameters: parameters(self),
        })
    }

    /// Reads all items.
    fn load(&self) -> Result<Index> {
        let resolved = resolve(&self.against, None)?;
        if resolved.files.is_empty() {
            return Err(Failure::new("--against names no file that holds items"));
        }
        let mut inputs = Inputs::new(resolved.files, ReadOptions::default().items()?);
        let fields = ItemFields::new(&self.item_fields);
        let codec = Records::new("text", "id")?;
        let mut builder = IndexBuilder::new(self.memory as u64);
        let mut block = Block::default();
        loop {
            block.clear();
            if !inputs.fill(&mut block)? {
                break;
            }
            if let Some(fault) = block.damage.first() {
                return Err(Failure::new(fault.to_string()).context("cannot read the items of --against"));
            }
            builder.begin_set(set_name(&block.origin));
            for i in 0..block.records.len() {
                let record = block.record(i);
                add_item(&mut builder, &fields, &codec, record)?;
            }
        }
        Ok(builder.build())
    }

    /// All that the stage's verdicts depend on besides the options: which items there are, by name, size and time.
    pub(crate) fn fingerprint(&self) -> Result<serde_json::Value> {
        let files = resolve(&self.against, None)?.files;
        let file = |f: &curate_io::InputFile| {
            let modified = f.modified().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
            json!([f.name(), f.bytes(), modified.map(|t| t.as_nanos().to_string())])
        };
        Ok(json!({ "options": self, "against": files.iter().map(file).collect::<Vec<_>>() }))
    }
}

/// A set is called by its file, without the directory.
fn set_name(origin: &str) -> &str {
    origin.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(origin)
}

/// Adds what a record holds; a blank line holds nothing.
fn add_item(
    builder: &mut IndexBuilder,
    fields: &ItemFields,
    codec: &Records,
    record: Record<'_>,
) -> Result<()> {
    let place = || format!("{}:{}", record.origin, record.ordinal + 1);
    let line = record.bytes.trim_ascii();
    if line.is_empty() {
        return Ok(());
    }
    let Some(value) = line.starts_with(b"{").then(|| serde_json::from_slice::<serde_json::Value>(line))
    else {
        // Not JSON: a text is an item as it is.
        return match codec.parse(record) {
            Ok(Parsed::Document(doc)) => {
                let item = Item { id: doc.id(), question: doc.text(), answer: "" };
                builder.add(item).map_err(index_failure)
            }
            Ok(_) => Ok(()),
            Err(malformed) => {
                Err(Failure::new(malformed.to_string()).context("cannot read the items of --against"))
            }
        };
    };
    let value = value.map_err(|e| Failure::new(e.to_string()).context(format!("{}: not JSON", place())))?;
    let Some(question) = fields.question(&value) else {
        let failure = Failure::new("no field holds a question").context(place());
        return Err(failure.with_hint("name it, and the answer's, with --item-fields QUESTION,ANSWER"));
    };
    let id = match fields.id(&value) {
        Some(id) => id,
        None => format!("{}:{}", set_name(record.origin), record.ordinal + 1),
    };
    let item = Item { id: &id, question: &question, answer: &fields.answer(&value) };
    builder.add(item).map_err(index_failure)
}

fn index_failure(error: curate_clean::decontaminate::IndexError) -> Failure {
    let hint = error.hint();
    let failure = Failure::new(error.to_string());
    hint.into_iter().fold(failure, Failure::with_hint)
}

/// Where an item keeps its question and its answer.
struct ItemFields {
    question: Vec<String>,
    /// `None`: by name.
    answer: Option<Vec<String>>,
}

const QUESTIONS: [&str; 14] = [
    "question",
    "question_stem",
    "prompt",
    "problem",
    "query",
    "instruction",
    "goal",
    "ctx",
    "sentence",
    "premise",
    "input",
    "text",
    "content",
    "body",
];
const ANSWERS: [&str; 9] = [
    "answer",
    "answers",
    "target",
    "targets",
    "solution",
    "canonical_solution",
    "completion",
    "output",
    "label",
];
const CHOICES: [&str; 4] = ["choices", "options", "endings", "mc1_targets"];

impl ItemFields {
    fn new(given: &[String]) -> Self {
        match given.split_first() {
            None => Self { question: QUESTIONS.map(str::to_owned).to_vec(), answer: None },
            Some((question, answers)) => {
                Self { question: vec![question.clone()], answer: Some(answers.to_vec()) }
            }
        }
    }

    /// The first field that holds text; a question may be an object with a `stem`.
    fn question(&self, item: &serde_json::Value) -> Option<String> {
        let found = self.question.iter().filter_map(|name| field(item, name));
        found
            .filter_map(|value| value.as_str().or_else(|| value.get("stem")?.as_str()))
            .next()
            .map(str::to_owned)
    }

    /// The text of the answer: the choice that it names, where it is a number or a letter; empty if there is none.
    fn answer(&self, item: &serde_json::Value) -> String {
        if let Some(names) = &self.answer {
            let texts: Vec<String> =
                names.iter().filter_map(|name| field(item, name)).filter_map(text_of).collect();
            return texts.join(" ");
        }
        let choices =
            CHOICES.iter().find_map(|name| item.get(name)).or_else(|| item.get("question")?.get("choices"));
        let key = item.get("answerKey").or_else(|| item.get("answer_idx"));
        let key = key.or_else(|| ANSWERS.iter().find_map(|name| item.get(name)));
        let Some(key) = key else { return String::new() };
        choices.and_then(|choices| chosen(choices, key)).or_else(|| text_of(key)).unwrap_or_default()
    }

    fn id(&self, item: &serde_json::Value) -> Option<String> {
        let id = ["id", "task_id", "question_id", "idx"].iter().find_map(|name| item.get(name))?;
        id.as_str().map(str::to_owned).or_else(|| id.is_number().then(|| id.to_string()))
    }
}

/// The value at a dotted path.
fn field<'v>(item: &'v serde_json::Value, path: &str) -> Option<&'v serde_json::Value> {
    path.split('.').try_fold(item, |value, name| value.get(name)).filter(|value| !value.is_null())
}

/// The text of an answer as it may be written: a string, a number, the first of a list, `{"text": …}`.
fn text_of(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Array(values) => values.first().and_then(text_of),
        serde_json::Value::Object(_) => value.get("text").and_then(text_of),
        _ => None,
    }
}

/// The choice that a number (from 0) or a letter names.
fn chosen(choices: &serde_json::Value, key: &serde_json::Value) -> Option<String> {
    let texts = choices.get("text").unwrap_or(choices).as_array()?;
    let labels = choices.get("label").and_then(|labels| labels.as_array());
    let place = match (key.as_str(), labels) {
        (None, _) => usize::try_from(key.as_u64()?).ok()?,
        (Some(letter), Some(labels)) => labels.iter().position(|label| label.as_str() == Some(letter))?,
        (Some(letter), None) => match letter.trim().as_bytes() {
            [letter @ b'A'..=b'Z'] => usize::from(letter - b'A'),
            [digit @ b'0'..=b'9'] => usize::from(digit - b'0'),
            _ => return None,
        },
    };
    texts.get(place).and_then(text_of)
}

/// Counts what was found, in input order, and writes the leaks.
pub(crate) struct LeakGate {
    index: Arc<Index>,
    action: Action,
    max_removed: f64,
    leaks: Option<Output>,
    line: Vec<u8>,
    /// Contaminated ones.
    documents: u64,
    found: Vec<Found>,
}

/// What was found of one set.
#[derive(Debug, Clone, Default)]
struct Found {
    /// Numbers of the items.
    items: HashSet<usize>,
    documents: u64,
}

impl Gate for LeakGate {
    type Work = Leaks;

    fn admit(&mut self, doc: &mut Document<'_>, leaks: Leaks) -> curate_core::Result<Verdict> {
        self.documents += 1;
        let mut last_set = None;
        for leak in &leaks.leaks {
            // Leaks come by item, and the items of a set are together.
            let set = self.index.set_of(leak.item);
            self.found[set].items.insert(leak.item);
            if last_set != Some(set) {
                self.found[set].documents += 1;
                last_set = Some(set);
            }
        }
        self.write(doc.id(), &leaks)?;
        if self.action != Action::Drop {
            return Ok(Verdict::Keep);
        }
        let best = leaks.best();
        let leak = &leaks.leaks[best];
        let (start, end) = leaks.char_spans[best][0];
        Ok(Verdict::Drop(Dropped {
            reason: "contaminated".into(),
            proof: vec![
                ("set", Value::Text(self.index.sets()[self.index.set_of(leak.item)].name.clone())),
                ("item", Value::Text(self.index.id_of(leak.item).to_owned())),
                ("score", Value::Number(rounded(leak.score))),
                ("start", Value::Count(start as u64)),
                ("end", Value::Count(end as u64)),
                ("matched", Value::Text(leaks.texts[best].clone())),
            ],
        }))
    }
}

/// Four decimals are more than a score means.
fn rounded(score: f32) -> f64 {
    (f64::from(score) * 1e4).round() / 1e4
}

impl LeakGate {
    fn write(&mut self, id: &str, leaks: &Leaks) -> curate_core::Result<()> {
        let Some(output) = &mut self.leaks else { return Ok(()) };
        for ((leak, spans), text) in leaks.leaks.iter().zip(&leaks.char_spans).zip(&leaks.texts) {
            let line = &mut self.line;
            line.clear();
            line.extend_from_slice(b"{\"id\":");
            append_json_string(line, id);
            line.extend_from_slice(b",\"set\":");
            append_json_string(line, &self.index.sets()[self.index.set_of(leak.item)].name);
            line.extend_from_slice(b",\"item\":");
            append_json_string(line, self.index.id_of(leak.item));
            let rest = format!(
                ",\"score\":{},\"coverage\":{},\"answer\":{},\"words\":{},\"longest\":{},\"edits\":{},\"spans\":{},\"text\":",
                rounded(leak.score),
                rounded(leak.coverage),
                leak.answer,
                leak.words,
                leak.longest,
                leak.edits,
                json!(spans),
            );
            line.extend_from_slice(rest.as_bytes());
            append_json_string(line, text);
            line.extend_from_slice(b"}\n");
            let name = output.name().to_owned();
            output.write_all(line).map_err(|e| curate_core::Error::io(format!("cannot write {name}"), e))?;
        }
        Ok(())
    }
}

pub(crate) fn execute(command: &DecontaminateCommand) -> Result<Exit> {
    let chain = Chain {
        command: "decontaminate",
        links: vec![command.stage.prepare()?],
        ending: Ending::Documents(command.output.clone()),
        stream: &command.stream,
        read: ReadOptions::default(),
        canonical: false,
    };
    chain.run(|links| Ok(links.iter().filter_map(extra).collect()))
}

/// Documents that may be taken out of however small a corpus.
const ALWAYS_ALLOWED: u64 = 10;

/// Completes the lists of leaks, and ends the run before its outputs appear if a stage took out too much.
pub(crate) fn check_removed(links: &mut [Link], report: &curate_core::Report) -> Result<()> {
    for (i, link) in links.iter_mut().enumerate() {
        let Kind::Decontaminate(_, gate) = &mut link.kind else { continue };
        if let Some(output) = gate.leaks.take() {
            output.finish()?;
        }
        let read = report.stages.get(i).map_or(0, |stage| stage.read);
        let removed = gate.documents;
        let allowed = (gate.max_removed * read as f64).max(ALWAYS_ALLOWED as f64);
        if gate.action == Action::Report || removed as f64 <= allowed {
            continue;
        }
        let failure = Failure::new(format!(
            "{} of {} documents share text with the items of --against, more than --max-removed {} allows: the output is not complete",
            thousands(removed),
            thousands(read),
            gate.max_removed
        ));
        let hint =
            "look at what was found with --action report --leaks FILE; if it is right, raise --max-removed";
        return Err(Failure { exit: Exit::BadData, ..failure.with_hint(hint) });
    }
    Ok(())
}

#[derive(Serialize)]
struct SetFacts<'g> {
    set: &'g str,
    items: u64,
    /// Without a word in them.
    empty_items: u64,
    items_found: usize,
    documents: u64,
}

/// What a decontaminate stage has to say after a run.
pub(crate) fn extra(link: &Link) -> Option<Extra> {
    let Kind::Decontaminate(_, gate) = &link.kind else { return None };
    let index = &gate.index;
    let sets: Vec<SetFacts<'_>> = index
        .sets()
        .iter()
        .zip(&gate.found)
        .map(|(set, found)| SetFacts {
            set: &set.name,
            items: set.items,
            empty_items: set.empty,
            items_found: found.items.len(),
            documents: found.documents,
        })
        .collect();
    let mut lines = vec![format!(
        "decontaminate: {} of {} items looked for, {} seeds in {}; {} documents are contaminated",
        thousands(index.len() as u64),
        thousands(index.sets().iter().map(|set| set.items).sum()),
        thousands(index.seeds() as u64),
        bytes(index.bytes() as u64),
        thousands(gate.documents),
    )];
    lines.extend(sets.iter().map(|set| {
        format!(
            "  {:<32}{:>10} of {:>10} items found, in {:>10} documents",
            set.set,
            thousands(set.items_found as u64),
            thousands(set.items),
            thousands(set.documents)
        )
    }));
    let value = json!({
        "items": index.len(), "seeds": index.seeds(), "index_bytes": index.bytes(), "documents": gate.documents, "sets": sets,
    });
    Some(Extra { name: "decontaminate", value, lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_found_by_name() {
        let check = |item: serde_json::Value, question: Option<&str>, answer: &str| {
            let fields = ItemFields::new(&[]);
            assert_eq!(
                (fields.question(&item).as_deref(), &*fields.answer(&item)),
                (question, answer),
                "{item}"
            );
        };
        check(json!({"question": "q", "answer": "a"}), Some("q"), "a");
        check(json!({"question": "q", "choices": ["x", "y"], "answer": 1}), Some("q"), "y");
        check(json!({"question": "q", "options": ["x", "y"], "answer": "B"}), Some("q"), "y");
        check(
            json!({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}),
            Some("q"),
            "y",
        );
        check(
            json!({"question": {"stem": "q", "choices": [{"text": "x", "label": "A"}]}, "answerKey": "A"}),
            Some("q"),
            "x",
        );
        check(json!({"question": "q", "answers": {"text": ["x", "y"]}}), Some("q"), "x");
        check(json!({"prompt": "q", "canonical_solution": "s"}), Some("q"), "s");
        check(json!({"id": 3, "text": "t"}), Some("t"), "");
        check(json!({"question": "q", "choices": ["x"], "answer": 4}), Some("q"), "4");
        check(json!({"name": "n"}), None, "");
    }

    #[test]
    fn fields_can_be_named() {
        let fields = ItemFields::new(&["a.b".to_owned(), "c".to_owned(), "d".to_owned()]);
        let item = json!({"question": "no", "a": {"b": "q"}, "c": "x", "d": 7});
        assert_eq!((fields.question(&item).as_deref(), &*fields.answer(&item)), (Some("q"), "x 7"));
    }
}
