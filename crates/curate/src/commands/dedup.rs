//! `curate dedup`: have we seen this before?

mod said;
mod semantic;
pub(crate) mod substring;
pub(crate) mod two_pass;

use std::path::PathBuf;
use std::time::Instant;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use curate_core::Document;
use curate_dedup::{
    BloomGate, BloomOptions, BloomSummary, Cluster, DecidedSummary, DedupOptions, Deduplicator, KeyGate,
    KeyMapper, KeySummary, Manifest, MinHashOptions, Order, Place, Profile, Representative, Storage, Unit,
    UnitGate, UnitMapper, UnitOptions, UnitSummary, comparable_url, gather_contents, gather_keys,
    merge_index, verify_index,
};
use curate_io::{DropLogStyle, FieldPath, field_of};
use serde::Serialize;
use serde_json::json;

use self::said::extra;
use self::semantic::SemanticFlags;
use self::substring::SubstringFlags;
use self::two_pass::{Asked, Keep, Settling, must_see_all};
use crate::chain::{Chain, Ending, Kind, Link, OfDocument, find_inputs, parameters};
use crate::cli::{OutputOptions, StreamOptions, byte_size};
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Failure, Result};
use crate::summary::{Extra, bytes, thousands};
use crate::ui;
use crate::usage;

/// Drop documents that repeat an earlier one, exactly or nearly, each with its proof
///
/// The first copy stays. With --minhash a document goes only if its exact Jaccard similarity with a kept, earlier
/// document reaches --threshold: candidates are found by MinHash bands, and every one is verified. Nothing is
/// removed for resembling a document that was itself removed.
///
/// What is remembered of kept documents fills --memory first, then files: about 8 bytes a distinct word 5-gram and 450
/// bytes a document. The output does not depend on it. With --index it stays: a second run does not keep what the
/// first one kept, and names the older document.
///
/// --keep and --cluster components must see everything first: they read the inputs twice (standard input is copied to
/// --temp-dir) and need about the size of the texts there. The output stays in input order.
///
/// --semantic compares embeddings (SemDeDup): k-means on directions, and within a cluster a document goes if its cosine
/// with a kept, earlier one reaches --semantic-threshold. It comes after all other stages and reads the inputs twice too.
///
/// --substring and --substring-bytes look inside documents: a passage of that many words, or bytes, that stands earlier in the
/// input is cut, wherever it begins. Copies are found exactly, as with a suffix array, after all other stages. They read the
/// inputs twice too; --temp-dir takes the texts (12 bytes a word) and 16 bytes for each word or byte that may be repeated.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  curate dedup --exact < clean.jsonl > unique.jsonl\n  curate dedup --minhash --threshold 0.8 --removed removed.jsonl clean.jsonl.zst -o unique.jsonl.zst\n  curate dedup --minhash --index seen/ dump-2.jsonl.zst -o new.jsonl.zst\n  curate dedup --minhash --keep max:metadata.quality corpus/ -o unique/\n  curate dedup --exact --semantic --embeddings emb.npy corpus.jsonl -o unique.jsonl\n  curate dedup --exact --substring=50 --substring-spans spans.jsonl clean.jsonl -o cut.jsonl"
)]
pub(crate) struct DedupCommand {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    stage: DedupStage,

    #[command(flatten)]
    stream: StreamOptions,

    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Subcommand)]
enum Action {
    /// Look after an index
    #[command(subcommand)]
    Index(IndexAction),
}

#[derive(Subcommand)]
enum IndexAction {
    /// What an index holds, as JSON
    Stat { dir: PathBuf },
    /// Check every byte of an index against its manifest
    Verify { dir: PathBuf },
    /// Make one sorted file of all keys, for faster look-ups
    Merge { dir: PathBuf },
}

/// The options of the stage itself.
#[derive(Args, Debug, Clone, Serialize)]
#[group(skip)]
#[command(group(ArgGroup::new("what").args(["exact", "minhash", "key", "lines", "paragraphs", "bloom", "semantic", "substring", "substring_bytes"]).multiple(true).required(true)))]
pub(crate) struct DedupStage {
    /// Drop texts that are equal up to white space
    #[arg(long)]
    exact: bool,

    /// Drop near-duplicates (and exact ones first)
    #[arg(long)]
    minhash: bool,

    /// Drop documents that have this field in common with an earlier one; `url` compares addresses, not spellings
    #[arg(long, value_name = "FIELD")]
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,

    /// Cut lines that an earlier document has
    #[arg(long)]
    lines: bool,

    /// Cut paragraphs that an earlier document has
    #[arg(long)]
    paragraphs: bool,

    /// Compare lines and paragraphs with those of the same host (of `url` or `metadata.url`) only
    #[arg(long)]
    per_host: bool,

    /// Compare lines and paragraphs without regard to case
    #[arg(long)]
    ignore_case: bool,

    /// Leave lines and paragraphs of fewer characters alone
    #[arg(long, value_name = "N", default_value_t = 20)]
    min_chars: usize,

    /// Drop a document of which more than this share was cut
    #[arg(long, value_name = "RATIO", default_value_t = 0.8)]
    max_repeated: f64,

    /// Drop equal texts by a Bloom filter for so many documents: little memory, and some that are no copies go too
    #[arg(long, value_name = "DOCUMENTS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    bloom: Option<u64>,

    /// The share of new documents that a full Bloom filter takes for copies
    #[arg(long, value_name = "RATE", default_value_t = 1e-4)]
    bloom_rate: f64,

    #[command(flatten)]
    #[serde(flatten)]
    semantic: SemanticFlags,

    #[command(flatten)]
    #[serde(flatten)]
    substrings: SubstringFlags,

    /// Jaccard similarity of word n-grams from which two documents are near-duplicates
    #[arg(long, value_name = "J", default_value_t = 0.8)]
    threshold: f64,

    /// Bands of the signature [default: from the threshold; 32 at 0.8, 42 at 0.7]
    #[arg(long, value_name = "N", requires = "rows")]
    bands: Option<u32>,

    /// Rows of each band [default: from the threshold; 7 at 0.8, 6 at 0.7]
    #[arg(long, value_name = "N", requires = "bands")]
    rows: Option<u32>,

    /// Words in a shingle
    #[arg(long, value_name = "N", default_value_t = 5)]
    ngram: usize,

    /// What a word is
    #[arg(long, value_name = "PROFILE", default_value = "curate-1")]
    profile: ProfileName,

    /// Which of several copies stays: first, longest (in bytes), max:FIELD or min:FIELD; documents without a number there
    /// come last [default: first]
    #[arg(long, value_name = "WHICH", value_parser = Keep::parse)]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<Keep>,

    /// What near-duplicates are held against
    #[arg(long, value_name = "HOW", default_value = "star", requires_if("components", "minhash"))]
    cluster: ClusterName,

    /// Seed of the permutations, and of k-means
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Memory for what is remembered of kept documents; what does not fit goes to files
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = byte_size)]
    #[serde(skip)]
    memory: usize,

    /// Where those files go while the command runs [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR", conflicts_with = "index")]
    #[serde(skip)]
    pub(crate) temp_dir: Option<PathBuf>,

    /// Remember what is kept in this directory, and do not keep what it remembers
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<PathBuf>,

    /// Drop nothing: write into this field of every document the id of the document it would have been dropped for, or its
    /// own (`curate tokenize --cluster-field` keeps such clusters on one side of a split)
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["key", "lines", "paragraphs", "bloom", "semantic", "substring", "substring_bytes", "removed", "rejects"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<String>,

    /// What is asked of a candidate
    #[arg(long, value_name = "HOW", default_value = "jaccard")]
    verify: Verify,

    /// Write a line with the proof of each removal here: {"id","reason","dup_of","jaccard" or "cosine",…}
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    removed: Option<PathBuf>,

    /// Write the removed documents themselves here
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    rejects: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
enum ProfileName {
    /// Lower-cased runs of letters, digits and _; one unit a character in scripts without spaces
    #[value(name = "curate-1")]
    #[serde(rename = "curate-1")]
    Curate1,
    /// White-space words as they stand
    #[serde(rename = "raw")]
    Raw,
    /// datatrove's text simplification and signatures, bit for bit; texts of fewer than N words match nothing
    #[serde(rename = "datatrove")]
    Datatrove,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum ClusterName {
    /// A kept document: nothing goes for resembling what has gone
    Star,
    /// All that shares a band, through others too, as most tools do: the similarity is told and decides nothing. With
    /// --profile datatrove and without --keep what datatrove keeps stays
    Components,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verify {
    /// The exact Jaccard similarity with the kept document
    Jaccard,
    /// Nothing: to share a band is enough, as in tools that do not verify
    None,
}

impl DedupStage {
    /// Whether embeddings are compared.
    pub(crate) fn is_semantic(&self) -> bool {
        self.semantic.is_wanted()
    }

    /// Whether repeated substrings are looked for.
    pub(crate) fn cuts_substrings(&self) -> bool {
        self.substrings.is_wanted()
    }

    /// The links of the stage, the cheap ones first: what they drop need not be looked at again. One that must see everything
    /// first, and has not been settled, is the last.
    pub(crate) fn prepare(&self, settled: &mut Asked<'_>) -> Result<Vec<Link>> {
        if self.bloom.is_some() && self.keeps_the_best() {
            return Err(Failure::new("a Bloom filter keeps the first copy")
                .with_hint("leave out --keep, or use --exact instead of --bloom"));
        }
        if let Some(field) = &self.mark {
            FieldPath::parse(field)?;
        }
        self.semantic.check(self.index.is_some())?;
        self.substrings.check(self.index.is_some())?;
        let mut kinds = Vec::new();
        let units = [(self.paragraphs, Unit::Paragraph), (self.lines, Unit::Line)];
        let units: Vec<Unit> =
            units.into_iter().filter(|(wanted, _)| *wanted).map(|(_, unit)| unit).collect();
        let contents = self.exact || self.minhash;
        let components = self.cluster == ClusterName::Components;
        // Whole copies are called copies, and not documents whose lines are all repeated. Components know no copies.
        let exact_first = self.minhash && (!units.is_empty() || self.exact && components);
        let count = usize::from(self.key.is_some())
            + usize::from(self.bloom.is_some())
            + units.len()
            + usize::from(contents)
            + usize::from(exact_first)
            + usize::from(self.semantic.is_wanted())
            + usize::from(self.substrings.is_wanted());
        let parts = count - usize::from(self.bloom.is_some());
        let memory = (self.memory / parts.max(1)) as u64;
        let temporary = Storage {
            memory,
            place: Place::TemporaryIn(self.temp_dir.clone().unwrap_or_else(std::env::temp_dir)),
        };
        let storage = match &self.index {
            Some(path) => Storage { memory, place: Place::Index(path.clone()) },
            None => temporary.clone(),
        };
        if let Some(key) = &self.key {
            kinds.push(self.keys(key, &temporary, settled)?);
        }
        if let Some(documents) = self.bloom {
            let options = BloomOptions { documents, false_positive_rate: self.bloom_rate };
            kinds.push(Kind::Bloom(Box::new(BloomGate::new(options)?)));
        }
        if exact_first && !ends_unsettled(&kinds) {
            kinds.push(self.contents(None, &temporary, settled)?);
        }
        let exact_now = contents && !self.minhash;
        if exact_now && !ends_unsettled(&kinds) {
            kinds.push(self.contents(None, &storage, settled)?);
        }
        if !ends_unsettled(&kinds) {
            for unit in units {
                kinds.push(self.units(unit, &temporary)?);
            }
        }
        if self.minhash && !ends_unsettled(&kinds) {
            kinds.push(self.contents(Some(self.minhash_options()), &storage, settled)?);
        }
        if self.semantic.is_wanted() && !ends_unsettled(&kinds) {
            match settled.next() {
                Some(decisions) => kinds.push(Kind::Decided(semantic::NAME, Box::new(decisions.gate()?))),
                None => self.semantic.gather(&mut kinds, self.seed, self.order()?, &temporary)?,
            }
        }
        if self.substrings.is_wanted() && !ends_unsettled(&kinds) {
            kinds.push(self.substrings.kind(self.profile(), &temporary, settled)?);
        }
        let removed = self.removed.iter().map(|path| (path.clone(), DropLogStyle::Proofs));
        let rejects = self.rejects.iter().map(|path| (path.clone(), DropLogStyle::Documents));
        let mut logs: Vec<_> = removed.chain(rejects).collect();
        let links = kinds.into_iter().enumerate().map(|(i, kind)| Link {
            kind,
            logs: std::mem::take(&mut logs),
            // There is one more while documents are being numbered, which writes no logs.
            covers: count.saturating_sub(i),
            parameters: if i + 1 == count { parameters(self) } else { serde_json::Value::Null },
        });
        Ok(links.collect())
    }

    fn keeps_the_best(&self) -> bool {
        !matches!(self.keep, None | Some(Keep::First))
    }

    fn order(&self) -> Result<Order> {
        self.keep.as_ref().map_or(Ok(Order::Input), Keep::order)
    }

    fn keys(&self, field: &str, storage: &Storage, settled: &mut Asked<'_>) -> Result<Kind> {
        const NAME: &str = "dedup_key";
        let key = key_of(field)?;
        if !self.keeps_the_best() {
            return Ok(Kind::Key(KeyMapper::new(key), Box::new(KeyGate::new(field, storage)?)));
        }
        if let Some(decisions) = settled.next() {
            return Ok(Kind::Decided(NAME, Box::new(decisions.gate()?)));
        }
        let (mapper, gate) = gather_keys(field, key, self.order()?, storage)?;
        Ok(Kind::Gather(NAME, mapper, Box::new(gate)))
    }

    fn units(&self, unit: Unit, storage: &Storage) -> Result<Kind> {
        let name = if unit == Unit::Line { "dedup_lines" } else { "dedup_paragraphs" };
        let options = UnitOptions {
            unit,
            per_host: self.per_host,
            ignore_case: self.ignore_case,
            min_chars: self.min_chars,
            max_repeated: self.max_repeated,
        };
        let mapper = UnitMapper::new(options, host_of()?)?;
        Ok(Kind::Units(name, mapper, Box::new(UnitGate::new(options, storage)?)))
    }

    /// What is equal, or nearly the same: in one pass where the first copy stays, in two where something else does.
    fn contents(
        &self,
        minhash: Option<MinHashOptions>,
        storage: &Storage,
        settled: &mut Asked<'_>,
    ) -> Result<Kind> {
        const NAME: &str = "dedup";
        let cluster = match (&minhash, self.cluster) {
            (None, _) | (_, ClusterName::Star) => Cluster::Star,
            (Some(_), ClusterName::Components) => Cluster::Components(match (self.profile, &self.keep) {
                (ProfileName::Datatrove, None) => Representative::UnionBySize,
                _ => Representative::First,
            }),
        };
        let options = DedupOptions { exact: true, minhash };
        if cluster == Cluster::Star && !self.keeps_the_best() {
            let (mapper, mut gate) = Deduplicator::new(options)?.split(storage)?;
            gate.set_mark(self.mark.clone());
            return Ok(Kind::Dedup(mapper, Box::new(gate)));
        }
        if let Some(decisions) = settled.next() {
            let mut gate = decisions.gate()?;
            gate.set_mark(self.mark.clone());
            return Ok(Kind::Decided(NAME, Box::new(gate)));
        }
        let (mapper, gate) = gather_contents(options, cluster, self.order()?, storage)?;
        Ok(Kind::Gather(NAME, mapper, Box::new(gate)))
    }

    fn profile(&self) -> Profile {
        match self.profile {
            ProfileName::Curate1 => Profile::Curate1,
            ProfileName::Raw => Profile::Raw,
            ProfileName::Datatrove => Profile::Datatrove,
        }
    }

    fn minhash_options(&self) -> MinHashOptions {
        MinHashOptions {
            threshold: self.threshold,
            bands: self.bands,
            rows: self.rows,
            ngram: self.ngram,
            profile: self.profile(),
            seed: self.seed,
            verify: self.verify == Verify::Jaccard,
            ..MinHashOptions::default()
        }
    }
}

fn ends_unsettled(kinds: &[Kind]) -> bool {
    kinds.last().is_some_and(must_see_all)
}

/// Asks for a field; for `url`, in the form in which two are compared.
fn key_of(field: &str) -> Result<OfDocument<Option<String>>> {
    let path = FieldPath::parse(field)?;
    Ok(match field {
        "url" => {
            let url = url_of()?;
            Box::new(move |doc| url(doc).map(|url| comparable_url(&url).into_owned()))
        }
        "id" => Box::new(|doc| Some(doc.id().to_owned())),
        _ => Box::new(move |doc| field_of(doc, &path)),
    })
}

/// The address of a document, where there is one.
pub(crate) fn url_of() -> Result<OfDocument<Option<String>>> {
    let paths = [FieldPath::parse("url")?, FieldPath::parse("metadata.url")?];
    Ok(Box::new(move |doc: &Document<'_>| paths.iter().find_map(|path| field_of(doc, path))))
}

/// The site of a document; empty without an address.
fn host_of() -> Result<OfDocument<String>> {
    let url = url_of()?;
    Ok(Box::new(move |doc| {
        let url = url(doc).unwrap_or_default();
        let comparable = comparable_url(&url);
        let rest = comparable.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?', ':']).next().unwrap_or_default().to_owned()
    }))
}

pub(crate) fn execute(command: &DedupCommand) -> Result<Exit> {
    if let Some(Action::Index(action)) = &command.action {
        return look_after(action);
    }
    let start = Instant::now();
    usage::share_one_arena();
    let (stage, stream, read) = (&command.stage, &command.stream, ReadOptions::default());
    let mut resolved = find_inputs(stream)?;
    let settling = Settling { command: "dedup", stream, read: &read, canonical: false };
    let temp_dir = stage.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    let (links, ending) = settling.settle(&mut resolved, temp_dir, |mut settled| {
        Ok((stage.prepare(&mut settled)?, Ending::Documents(command.output.clone())))
    })?;
    let chain = Chain { command: "dedup", links, ending, stream, read, canonical: false };
    chain.run_over(start, resolved, |links| finish(links))
}

fn look_after(action: &IndexAction) -> Result<Exit> {
    match action {
        IndexAction::Stat { dir } => {
            print_manifest(Manifest::read(dir)?)?;
        }
        IndexAction::Verify { dir } => {
            let (manifest, faults) = verify_index(dir)?;
            for fault in &faults {
                ui::warn(&fault.to_string());
            }
            if !faults.is_empty() {
                return Ok(Exit::BadData);
            }
            ui::say(&format!("{}: sound, {} documents", dir.display(), thousands(manifest.documents.into())));
        }
        IndexAction::Merge { dir } => {
            let manifest = merge_index(dir)?;
            ui::say(&format!(
                "{}: {} documents, one file of keys",
                dir.display(),
                thousands(manifest.documents.into())
            ));
        }
    }
    Ok(Exit::Done)
}

/// The manifest without what only a program needs, and what it comes to.
fn print_manifest(manifest: Manifest) -> Result<()> {
    let bytes = manifest.bytes();
    let total: u64 = bytes.values().sum();
    let shown = json!({
        "format": manifest.format,
        "parameters": manifest.parameters,
        "documents": manifest.documents,
        "bytes": bytes,
        "bytes_per_document": (manifest.documents > 0).then(|| total / u64::from(manifest.documents)),
        "runs": manifest.runs.len(),
        "full_buckets": manifest.hidden.len(),
    });
    ui::print(&format!("{shown:#}\n"))
}

/// Ends what deduplication has begun, now that the outputs are complete: what stages have to say, and the indexes.
pub(crate) fn finish(links: &mut [Link]) -> Result<Vec<Extra>> {
    let mut extras = Vec::new();
    for link in links {
        match &mut link.kind {
            Kind::Dedup(_, gate) => {
                extras.push(extra(&gate.summary()?));
                gate.commit()?;
            }
            Kind::Key(_, gate) => extras.push(key_extra(&gate.summary())),
            Kind::Units(name, _, gate) => extras.push(unit_extra(name, &gate.summary())),
            Kind::Bloom(gate) => extras.push(bloom_extra(&gate.summary())),
            Kind::Substrings(gate, _) => {
                gate.finish_log()?;
                extras.push(substring::extra(gate.summary()));
            }
            Kind::Decided(_, gate) => {
                let mut said = match gate.decisions().summary() {
                    DecidedSummary::Contents(summary) => extra(summary),
                    DecidedSummary::Key(summary) => key_extra(summary),
                    DecidedSummary::Semantic(summary) => semantic::extra(summary),
                };
                if let Some(without @ 1..) = gate.decisions().without_number() {
                    said.lines.push(format!(
                        "dedup: {} documents without a number in the field of --keep came last",
                        thousands(without)
                    ));
                }
                extras.push(said);
            }
            Kind::Clean(_)
            | Kind::Number(_)
            | Kind::Gather(..)
            | Kind::FindRepeats(..)
            | Kind::Guard(_)
            | Kind::Score(_)
            | Kind::Decontaminate(..)
            | Kind::Tokenize(..)
            | Kind::CountWords(_)
            | Kind::View(_) => {}
        }
    }
    Ok(extras)
}

fn key_extra(summary: &KeySummary) -> Extra {
    let without = summary.without_key;
    let lines =
        (without > 0).then(|| format!("dedup: {} documents without the key were kept", thousands(without)));
    Extra { name: "dedup_key", value: parameters(summary), lines: lines.into_iter().collect() }
}

fn unit_extra(name: &'static str, summary: &UnitSummary) -> Extra {
    let what = if name == "dedup_lines" { "lines" } else { "paragraphs" };
    let lines = vec![format!(
        "dedup: {} {what} ({} characters) cut from {} documents; {} of memory, {} on disk",
        thousands(summary.cut),
        thousands(summary.cut_chars),
        thousands(summary.edited),
        bytes(summary.memory_bytes),
        bytes(summary.disk_bytes)
    )];
    Extra { name, value: parameters(summary), lines }
}

fn bloom_extra(summary: &BloomSummary) -> Extra {
    let lines = vec![format!(
        "dedup: Bloom filter of {}, {:.1} % full: {:.1} of its {} removals are expected to be wrong; of {} removals in the sample {} were",
        bytes(summary.bytes),
        100.0 * summary.fill,
        summary.expected_false_positives,
        thousands(summary.removed),
        thousands(summary.sampled_removals),
        thousands(summary.sampled_false_positives)
    )];
    Extra { name: "dedup_bloom", value: parameters(summary), lines }
}
