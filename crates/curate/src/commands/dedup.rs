//! `curate dedup`: have we seen this before?

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use curate_dedup::{
    DedupOptions, DedupSummary, Deduplicator, Manifest, MinHashOptions, Place, Profile, Storage, merge_index,
    verify_index,
};
use curate_io::DropLogStyle;
use serde::Serialize;
use serde_json::json;

use crate::chain::{Chain, Ending, Kind, Link, parameters};
use crate::cli::{OutputOptions, StreamOptions, byte_size};
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Result};
use crate::summary::{Extra, bytes, thousands};
use crate::ui;

/// Drop documents that repeat an earlier one, exactly or nearly, each with its proof
///
/// The first copy stays. With --minhash a document goes only if its exact Jaccard similarity with a kept, earlier
/// document reaches --threshold: candidates are found by MinHash bands, and every one is verified. Nothing is
/// removed for resembling a document that was itself removed.
///
/// What is remembered of kept documents fills --memory first, then files: about 8 bytes a distinct word 5-gram and 450
/// bytes a document. The output does not depend on it. With --index it stays: a second run does not keep what the
/// first one kept, and names the older document.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  curate dedup --exact < clean.jsonl > unique.jsonl\n  curate dedup --minhash --threshold 0.8 --removed removed.jsonl clean.jsonl.zst -o unique.jsonl.zst\n  curate dedup --minhash --index seen/ dump-2.jsonl.zst -o new.jsonl.zst"
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
pub(crate) struct DedupStage {
    /// Drop texts that are equal up to white space
    #[arg(long, required_unless_present = "minhash")]
    exact: bool,

    /// Drop near-duplicates (and exact ones first)
    #[arg(long)]
    minhash: bool,

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

    /// Seed of the permutations
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Memory for what is remembered of kept documents; what does not fit goes to files
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = byte_size)]
    #[serde(skip)]
    memory: usize,

    /// Where those files go while the command runs [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR", conflicts_with = "index")]
    #[serde(skip)]
    temp_dir: Option<PathBuf>,

    /// Remember what is kept in this directory, and do not keep what it remembers
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<PathBuf>,

    /// What is asked of a candidate
    #[arg(long, value_name = "HOW", default_value = "jaccard")]
    verify: Verify,

    /// Write a line with the proof of each removal here: {"id","reason","dup_of","jaccard",…}
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
    fn storage(&self) -> Storage {
        let temporary = || Place::TemporaryIn(self.temp_dir.clone().unwrap_or_else(std::env::temp_dir));
        let place = self.index.clone().map_or_else(temporary, Place::Index);
        Storage { memory: self.memory as u64, place }
    }

    pub(crate) fn prepare(&self) -> Result<Link> {
        let minhash = self.minhash.then(|| MinHashOptions {
            threshold: self.threshold,
            bands: self.bands,
            rows: self.rows,
            ngram: self.ngram,
            profile: match self.profile {
                ProfileName::Curate1 => Profile::Curate1,
                ProfileName::Raw => Profile::Raw,
            },
            seed: self.seed,
            verify: self.verify == Verify::Jaccard,
            ..MinHashOptions::default()
        });
        let (mapper, gate) =
            Deduplicator::new(DedupOptions { exact: true, minhash })?.split(&self.storage())?;
        let removed = self.removed.iter().map(|path| (path.clone(), DropLogStyle::Proofs));
        let rejects = self.rejects.iter().map(|path| (path.clone(), DropLogStyle::Documents));
        Ok(Link {
            kind: Kind::Dedup(mapper, Box::new(gate)),
            logs: removed.chain(rejects).collect(),
            parameters: parameters(self),
        })
    }
}

pub(crate) fn execute(command: &DedupCommand) -> Result<Exit> {
    if let Some(Action::Index(action)) = &command.action {
        return look_after(action);
    }
    let chain = Chain {
        command: "dedup",
        links: vec![command.stage.prepare()?],
        ending: Ending::Documents(command.output.clone()),
        stream: &command.stream,
        read: ReadOptions::default(),
        canonical: false,
    };
    chain.run(|links| finish(links))
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
        if let Kind::Dedup(_, gate) = &mut link.kind {
            extras.push(extra(&gate.summary()?));
            gate.commit()?;
        }
    }
    Ok(extras)
}

/// What a dedup stage has to say after a run.
fn extra(summary: &DedupSummary) -> Extra {
    let mut lines = Vec::new();
    if let Some(minhash) = &summary.minhash {
        let verified = minhash.verified.map_or("none verified".to_owned(), |verified| {
            format!("{} reach the threshold", thousands(verified))
        });
        lines.push(format!("dedup: {} candidate pairs, {verified}", thousands(minhash.candidates)));
        if minhash.skipped_comparisons > 0 {
            let n = thousands(minhash.skipped_comparisons);
            lines.push(format!("dedup: {n} comparisons skipped in crowded buckets"));
        }
    }
    if let Some(cluster) = summary.biggest_clusters.first() {
        let (size, kept) = (thousands(cluster.size), &cluster.representative);
        lines.push(format!(
            "dedup: {} clusters, the biggest of {size} documents, kept {kept}",
            thousands(summary.clusters)
        ));
    }
    for (source, counts) in &summary.sources {
        if counts.removed_ratio() > 0.5 && counts.documents >= MANY {
            lines.push(format!(
                "dedup: warning: {:.0} % of the {} documents of {source} were removed",
                100.0 * counts.removed_ratio(),
                thousands(counts.documents)
            ));
        }
    }
    let (memory, disk) = (bytes(summary.memory.total), bytes(summary.disk_bytes));
    lines.push(match summary.indexed {
        Some(indexed) => {
            format!("dedup: {memory} of memory, {disk} on disk; {} documents were known", thousands(indexed))
        }
        None => format!("dedup: {memory} of memory, {disk} on disk"),
    });
    Extra { name: "dedup", value: parameters(summary), lines }
}

/// A source of fewer documents is not warned about.
const MANY: u64 = 100;
