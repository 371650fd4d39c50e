//! `curate inspect`: what do these documents look like?

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use clap::Args;
use curate_core::{Codec, Counters, Document, Error, Gate, Mapper, Report, Verdict, Work};
use curate_io::{Output, Records};
use curate_shards::{DocumentRef, LongDocuments, Manifest, ShardSet, Split};
use serde_json::{Map, Value, json};

use crate::cli::StreamOptions;
use crate::commands::pack::lines_of_view;
use crate::failure::{Exit, Failure, Result};
use crate::scan::Scan;
use crate::summary::{bytes, thousands};
use crate::terminal::{self, printable, shortened, text_columns, wrap};
use crate::ui::{self, ProgressWhen};

/// Show documents, or what a shard set holds, for people to read
///
/// Of documents in any input format: their id, source, url and size, and how they begin. Of a shard directory: its
/// splits, views and sources, and with --document one of its documents, decoded. Control characters are shown, not
/// obeyed.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate inspect corpus/ -n 3\n  curate inspect clean.jsonl.zst --id doc-17 --fields\n  curate inspect shards/ --split val --document 0"
)]
pub(crate) struct InspectCommand {
    #[command(flatten)]
    stream: StreamOptions,

    /// Documents to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    number: u64,

    /// Documents to pass over before the first one shown
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,

    /// Show only documents of this id
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    /// Lines to show of a text, 0 for all of it [default: 10; all with --id and --document]
    #[arg(long, value_name = "N")]
    lines: Option<u64>,

    /// Show the other fields of a record too
    #[arg(long)]
    fields: bool,

    /// Print the records as they are stored; of a shard set, its manifest or the document as JSON
    #[arg(long)]
    json: bool,

    /// Of a shard set: show this document, counted from 0
    #[arg(long, value_name = "K")]
    document: Option<u64>,

    /// Of a shard set: the split that --document counts in
    #[arg(long, value_name = "NAME", default_value = "train")]
    split: String,
}

pub(crate) fn execute(command: &InspectCommand) -> Result<Exit> {
    if let [dir] = command.stream.inputs.as_slice()
        && dir.is_dir()
        && Manifest::path(dir).is_file()
    {
        return inspect_shards(dir, command);
    }
    if command.document.is_some() {
        return Err(Failure::new("--document needs a shard directory")
            .with_hint("of other inputs --skip K -n 1 shows document K, --id ID the one of that id"));
    }
    inspect_documents(command)
}

// Documents of any input.

fn inspect_documents(command: &InspectCommand) -> Result<Exit> {
    let mut scan = Scan::of("inspect", &command.stream)?;
    if scan.voice.progress == ProgressWhen::Auto {
        // It would stand between the documents.
        scan.voice.progress = ProgressWhen::Never;
    }
    let mut viewer = Viewer {
        command,
        codec: scan.codec.clone(),
        output: Output::create(None)?,
        passed: 0,
        shown: 0,
        style: Style::new(command.lines.unwrap_or(if command.id.is_some() { 0 } else { 10 })),
    };
    let ran = scan.run(Select { id: command.id.as_deref() }, &mut viewer);
    let is_enough = viewer.shown == command.number;
    let nothing_shown = viewer.shown == 0;
    viewer.output.finish()?;
    match ran {
        // The viewer ended the run itself.
        Err(failure) if failure.is_closed_pipe() && is_enough => Ok(Exit::Done),
        Err(failure) => Err(failure),
        Ok(report) => {
            let exit = faults(&report);
            match &command.id {
                Some(id) if nothing_shown => Err(Failure::new(format!("no document has the id {id:?}"))
                    .with_hint("documents without an id of their own are called FILE:LINE")),
                _ => Ok(exit),
            }
        }
    }
}

/// Says what could not be read; a damaged input is bad data.
fn faults(report: &Report) -> Exit {
    if let Some(first) = report.malformed_samples.first() {
        ui::warn(&format!("{} records could not be read; the first: {first}", thousands(report.malformed)));
    }
    for damaged in &report.damaged {
        ui::warn(&damaged.message);
    }
    if report.damaged.is_empty() { Exit::Done } else { Exit::BadData }
}

/// Picks the documents of an id, or all.
struct Select<'c> {
    id: Option<&'c str>,
}

impl Mapper for Select<'_> {
    type Work = ();
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, (): &mut (), _: &mut Counters) -> Work<()> {
        match self.id {
            Some(id) if id != doc.id() => Work::keep(),
            _ => Work::Pending(()),
        }
    }
}

/// Writes documents as they come, and ends the run when it has shown enough of them.
struct Viewer<'c> {
    command: &'c InspectCommand,
    codec: Records,
    output: Output,
    /// Documents that --skip passed over.
    passed: u64,
    shown: u64,
    style: Style,
}

impl Gate for Viewer<'_> {
    type Work = ();

    fn admit(&mut self, doc: &mut Document<'_>, (): ()) -> curate_core::Result<Verdict> {
        if self.passed < self.command.skip {
            self.passed += 1;
            return Ok(Verdict::Keep);
        }
        let mut record = Vec::new();
        if self.command.json {
            self.codec.write(doc, &mut record);
        } else {
            record = self.show(doc).into_bytes();
        }
        self.output.write_all(&record).map_err(|e| Error::io("cannot write stdout", e))?;
        self.shown += 1;
        // There is no gentler way to end a run early than the one that a closed pipe takes.
        if self.shown == self.command.number { Err(Error::ClosedPipe) } else { Ok(Verdict::Keep) }
    }
}

impl Viewer<'_> {
    fn show(&self, doc: &Document<'_>) -> String {
        let text = doc.text();
        let mut fields = other_fields(doc);
        let mut facts = Vec::new();
        if !doc.source().is_empty() {
            facts.push(format!("source {}", doc.source()));
        }
        if let Some(Value::String(url)) = fields.get("url") {
            facts.push(url.clone());
        }
        facts.push(format!("{} characters", thousands(text.chars().count() as u64)));
        facts.push(format!("{} words", thousands(text.split_whitespace().count() as u64)));
        facts.push(format!("{} lines", thousands(text.lines().count() as u64)));
        let mut out = String::new();
        self.style.rule(&mut out, &format!("{} · {}", self.passed + self.shown + 1, doc.id()));
        self.style.paragraph(&mut out, &facts.join(" · "));
        if self.command.fields {
            fields.shift_remove("url");
            for (name, value) in &fields {
                self.style.paragraph(&mut out, &format!("{name}: {value}"));
            }
        }
        out.push('\n');
        self.style.text(&mut out, text);
        out
    }
}

/// The fields of a record beyond id, source and text, as far as they can be read.
fn other_fields(doc: &Document<'_>) -> Map<String, Value> {
    let parsed = match doc.fields().strip_prefix(',') {
        Some(members) => serde_json::from_str(&format!("{{{members}}}")),
        None => serde_json::from_slice(doc.raw()),
    };
    let Ok(Value::Object(mut fields)) = parsed else { return Map::new() };
    // Whatever the field of the text is called, it holds the text.
    fields.retain(|name, value| !(matches!(name.as_str(), "id" | "source") || value == doc.text()));
    fields
}

/// How documents are laid out on the screen.
struct Style {
    width: usize,
    /// Rows shown of a text; 0 for all.
    rows: u64,
}

impl Style {
    fn new(rows: u64) -> Self {
        Self { width: terminal::width(), rows }
    }

    /// A line across the screen with a title in it.
    fn rule(&self, out: &mut String, title: &str) {
        let title = shortened(title, self.width.saturating_sub(8));
        let rest = self.width.saturating_sub(text_columns(&title) + 5);
        writeln!(out, "─── {title} {}", "─".repeat(rest)).expect(INFALLIBLE);
    }

    /// A line, wrapped.
    fn paragraph(&self, out: &mut String, line: &str) {
        for row in wrap(line, self.width) {
            writeln!(out, "{}", printable(row)).expect(INFALLIBLE);
        }
    }

    /// The first rows of a text and how much of it follows, then a blank line.
    fn text(&self, out: &mut String, text: &str) {
        let limit =
            if self.rows == 0 { usize::MAX } else { usize::try_from(self.rows).unwrap_or(usize::MAX) };
        let mut end = 0;
        for row in text.lines().flat_map(|line| wrap(line, self.width)).take(limit) {
            end = row.as_ptr().addr() - text.as_ptr().addr() + row.len();
            writeln!(out, "{}", printable(row)).expect(INFALLIBLE);
        }
        let rest = text[end..].trim_end().chars().count() as u64;
        if rest > 0 {
            writeln!(out, "… {} more characters", thousands(rest)).expect(INFALLIBLE);
        }
        out.push('\n');
    }
}

const INFALLIBLE: &str = "writing to a String cannot fail";

// Shard sets.

fn inspect_shards(dir: &Path, command: &InspectCommand) -> Result<Exit> {
    let set = ShardSet::open(dir)?;
    let shown = match command.document {
        Some(k) => show_document(&set, k, command)?,
        None if command.json => {
            let manifest = serde_json::to_value(set.manifest()).expect("a manifest is plain data");
            format!("{manifest:#}\n")
        }
        None => show_set(&set),
    };
    ui::print(&shown)?;
    Ok(Exit::Done)
}

fn show_set(set: &ShardSet) -> String {
    let manifest = set.manifest();
    let tokenizer = &manifest.tokenizer;
    let width = 8 * manifest.token_width.bytes();
    let mut lines = vec![
        format!("shards in {}", set.dir().display()),
        format!(
            "tokenizer {} of {} ids, {width} bits each; documents end in {}",
            printable(&tokenizer.name),
            thousands(tokenizer.vocab_size.into()),
            tokenizer.eod
        ),
        format!("fingerprint {}", set.fingerprint()),
        String::new(),
        format!("{:<24}{:>14} {:>16} {:>12} {:>8}", "split", "documents", "tokens", "text", "shards"),
    ];
    for split in &manifest.splits {
        lines.push(count_row(&split.name, split.documents, split.tokens, split.bytes));
        let last = lines.last_mut().expect("just pushed");
        *last += &format!(" {:>8}", split.shards.len());
        if split.domains.len() > 1 {
            let rows = split.domains.iter().map(|d| {
                let name = if d.domain.is_empty() { "(no source)" } else { &d.domain };
                count_row(&format!("  {name}"), d.documents, d.tokens, d.bytes)
            });
            lines.extend(rows);
        }
    }
    lines.push(String::new());
    for view in &manifest.views {
        let documents = manifest.splits.iter().find(|split| split.name == view.split);
        let said = lines_of_view(view, documents.map_or(0, |split| split.documents));
        let policy = match view.long {
            LongDocuments::Split => view.policy.name().to_owned(),
            LongDocuments::Truncate => format!("{}, long documents truncated", view.policy.name()),
        };
        lines.push(format!("view {} ({policy})", view.split));
        lines.extend(said.into_iter().map(|line| format!("  {line}")));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn count_row(name: &str, documents: u64, tokens: u64, n_bytes: u64) -> String {
    let name = shortened(name, 23);
    let gap = " ".repeat(24 - text_columns(&name));
    format!("{name}{gap}{:>14} {:>16} {:>12}", thousands(documents), thousands(tokens), bytes(n_bytes))
}

fn show_document(set: &ShardSet, k: u64, command: &InspectCommand) -> Result<String> {
    let split = set.split(&command.split)?;
    let doc = split.try_document(k)?;
    let ids: Vec<u32> = doc.tokens.iter().collect();
    let text = decode(set, &ids)?;
    let domain = set.manifest().domains.get(usize::from(doc.domain)).map_or("", String::as_str);
    if command.json {
        let value = json!({
            "split": split.name(), "document": k, "source": domain, "n_bytes": doc.n_bytes,
            "tokens": ids, "text": text,
        });
        return Ok(format!("{value}\n"));
    }
    Ok(shown_document(split, k, domain, &doc, text.as_deref(), &ids, command.lines.unwrap_or(0)))
}

fn shown_document(
    split: &Split,
    k: u64,
    domain: &str,
    doc: &DocumentRef<'_>,
    text: Option<&str>,
    ids: &[u32],
    lines: u64,
) -> String {
    let style = Style::new(lines);
    let mut out = String::new();
    style.rule(&mut out, &format!("{} {k} of {}", split.name(), thousands(split.num_documents())));
    let mut facts = Vec::new();
    if !domain.is_empty() {
        facts.push(format!("source {domain}"));
    }
    facts.push(format!("{} tokens", thousands(ids.len() as u64)));
    facts.push(format!("{} bytes of text", thousands(doc.n_bytes.into())));
    style.paragraph(&mut out, &facts.join(" · "));
    out.push('\n');
    match text {
        Some(text) => style.text(&mut out, text),
        None => {
            style.paragraph(&mut out, "(the set has no vocabulary: ids)");
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            style.text(&mut out, &ids.join(" "));
        }
    }
    out
}

/// The text of a document without its end-of-document id; `None` for a set without a vocabulary.
fn decode(set: &ShardSet, ids: &[u32]) -> Result<Option<String>> {
    let Some(vocabulary) = set.vocabulary()? else { return Ok(None) };
    let mut text = Vec::new();
    vocabulary.decode(ids.strip_suffix(&[set.manifest().tokenizer.eod]).unwrap_or(ids), &mut text);
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}
