//! `curate dedup`: have we seen this before?

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use curate_dedup::{DedupOptions, Deduplicator, MinHashOptions, Profile};
use curate_io::DropLogStyle;
use serde::Serialize;

use crate::chain::{Chain, Ending, Kind, Link, parameters};
use crate::cli::{OutputOptions, StreamOptions};
use crate::commands::read::ReadOptions;
use crate::failure::{Exit, Result};
use crate::summary::{Extra, thousands};

/// Drop documents that repeat an earlier one, exactly or nearly, each with its proof
///
/// The first copy stays. With --minhash a document goes only if its exact Jaccard similarity with a kept, earlier
/// document reaches --threshold: candidates are found by MinHash bands, and every one is verified. Nothing is
/// removed for resembling a document that was itself removed.
///
/// Memory grows with the kept documents: about 8 bytes a distinct word 5-gram and a few hundred bytes a document.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  curate dedup --exact < clean.jsonl > unique.jsonl\n  curate dedup --minhash --threshold 0.8 --removed removed.jsonl clean.jsonl.zst -o unique.jsonl.zst"
)]
pub(crate) struct DedupCommand {
    #[command(flatten)]
    stage: DedupStage,

    #[command(flatten)]
    stream: StreamOptions,

    #[command(flatten)]
    output: OutputOptions,
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

impl DedupStage {
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
            ..MinHashOptions::default()
        });
        let (mapper, gate) = Deduplicator::new(DedupOptions { exact: true, minhash })?.split();
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
    let chain = Chain {
        command: "dedup",
        links: vec![command.stage.prepare()?],
        ending: Ending::Documents(command.output.clone()),
        stream: &command.stream,
        read: ReadOptions::default(),
        canonical: false,
    };
    chain.run(|links| Ok(links.iter().filter_map(extra).collect()))
}

/// What a dedup stage has to say after a run.
pub(crate) fn extra(link: &Link) -> Option<Extra> {
    let Kind::Dedup(_, gate) = &link.kind else { return None };
    let summary = gate.summary();
    let mut lines = Vec::new();
    if let Some(minhash) = &summary.minhash {
        lines.push(format!(
            "dedup: {} candidate pairs compared, {} reach the threshold",
            thousands(minhash.candidates),
            thousands(minhash.verified)
        ));
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
    Some(Extra { name: "dedup", value: parameters(&summary), lines })
}
