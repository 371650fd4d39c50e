//! `curate dedup --semantic`: documents whose embeddings point in nearly the same direction.

use std::path::{Path, PathBuf};

use clap::Args;
use curate_core::Document;
use curate_dedup::{
    CosineBin, DocumentCounter, EmbeddingSource, EmbeddingTable, NpyFile, Order, SemanticOptions,
    SemanticReport, Storage, gather_semantic,
};
use curate_io::{FieldPath, VectorReader, field_of};
use serde::Serialize;

use super::said;
use crate::chain::{Kind, parameters};
use crate::failure::{Failure, Result};
use crate::signals;
use crate::summary::{Extra, bytes, thousands};

/// What the stage is called.
pub(super) const NAME: &str = "dedup_semantic";

/// Where embeddings are, and how near is the same.
#[derive(Args, Debug, Clone, Serialize)]
#[group(skip)]
pub(super) struct SemanticFlags {
    /// Drop documents whose embedding is nearly that of an earlier one, after all other stages
    #[arg(long, help_heading = "Semantic")]
    semantic: bool,

    /// Embeddings: a .npy array with a row for each document of the input, in its order, as `curate embed` writes it; or a
    /// .parquet file with columns `id` and a list of floats
    #[arg(long, value_name = "FILE", requires = "semantic", help_heading = "Semantic")]
    #[serde(skip_serializing_if = "Option::is_none")]
    embeddings: Option<PathBuf>,

    /// Field of the documents that holds the embedding, a list of numbers; with a .parquet file, its column
    #[arg(long, value_name = "NAME", requires = "semantic", help_heading = "Semantic")]
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_field: Option<String>,

    /// Cosine from which two documents mean the same
    #[arg(
        long,
        value_name = "COSINE",
        default_value_t = SemanticOptions::default().threshold,
        help_heading = "Semantic"
    )]
    semantic_threshold: f64,

    /// Clusters of k-means, between which nothing is compared; 1 compares all pairs [default: the square root of the number of
    /// documents]
    #[arg(long, value_name = "N", help_heading = "Semantic")]
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic_clusters: Option<usize>,
}

impl SemanticFlags {
    pub(super) fn is_wanted(&self) -> bool {
        self.semantic
    }

    /// Complains of what does not go together.
    pub(super) fn check(&self, has_index: bool) -> Result<()> {
        if !self.semantic {
            return Ok(());
        }
        if has_index {
            return Err(Failure::new(
                "an index cannot be used with --semantic, which must see everything first",
            )
            .with_hint("leave out --index, or give the output to a `curate dedup --semantic` of its own"));
        }
        match (&self.embeddings, &self.embedding_field) {
            (None, None) => Err(Failure::new("--semantic needs embeddings").with_hint(
                "name a file with --embeddings (`curate embed RUN INPUT -o FILE.npy` makes one), or a field with \
                 --embedding-field",
            )),
            (Some(path), Some(_)) if !is_parquet(path) => {
                Err(Failure::new("--embedding-field names a column of a .parquet file, or a field of the documents")
                    .with_hint("give one of --embeddings and --embedding-field"))
            }
            _ => Ok(()),
        }
    }

    /// Adds the links of the first pass: one that numbers the documents before the others, if that matters, and the last.
    pub(super) fn gather(
        &self,
        kinds: &mut Vec<Kind>,
        seed: u64,
        order: Order,
        storage: &Storage,
    ) -> Result<()> {
        let options = SemanticOptions {
            clusters: self.semantic_clusters,
            threshold: self.semantic_threshold,
            seed,
            ..SemanticOptions::default()
        };
        // Before the embeddings are looked at, which may take a while.
        options.validate().map_err(curate_dedup::Error::from)?;
        let source = match (&self.embeddings, &self.embedding_field) {
            (Some(path), column) if is_parquet(path) => {
                EmbeddingSource::ById(Box::new(table(path, column.as_deref(), storage)?))
            }
            (Some(path), _) => {
                let counter = DocumentCounter::default();
                kinds.insert(0, Kind::Number(counter.clone()));
                let rows = NpyFile::open(path).map_err(curate_dedup::Error::from)?;
                EmbeddingSource::InOrder { name: path.display().to_string(), rows: Box::new(rows), counter }
            }
            (None, field) => {
                let field = field.as_deref().unwrap_or_default();
                let path = FieldPath::parse(field)?;
                EmbeddingSource::InDocuments(Box::new(move |doc| vector_of(doc, &path)))
            }
        };
        let (mapper, gate) = gather_semantic(options, source, order, storage)?;
        kinds.push(Kind::Gather(NAME, mapper, Box::new(gate)));
        Ok(())
    }
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// Reads a table of embeddings.
fn table(path: &Path, column: Option<&str>, storage: &Storage) -> Result<EmbeddingTable> {
    let mut reader = VectorReader::open(path, "id", column)?;
    let mut table = EmbeddingTable::new(path.display().to_string(), storage)?;
    let mut vector = Vec::new();
    while let Some(batch) = reader.advance()? {
        signals::check()?;
        for row in 0..batch.len() {
            let id = batch.row(row, &mut vector)?;
            table.push(id, &vector)?;
        }
    }
    Ok(table.finish()?)
}

/// The numbers in a field of a document, or what is there instead.
fn vector_of(doc: &Document<'_>, path: &FieldPath) -> std::result::Result<Vec<f32>, String> {
    let value = field_of(doc, path).ok_or_else(|| format!("there is no field {path}"))?;
    // As doubles first: whether a number beyond f32 is an error or infinite would else depend on how serde_json was built.
    serde_json::from_str::<Vec<f64>>(&value)
        .map(|numbers| numbers.into_iter().map(|number| number as f32).collect())
        .map_err(|error| format!("{path} is no list of numbers ({error})"))
}

/// What the stage has to say after a run.
pub(super) fn extra(report: &SemanticReport) -> Extra {
    let search = &report.search;
    let mut lines = vec![format!(
        "dedup: {} embeddings of {} numbers in {} clusters of k-means, the largest of {}",
        thousands(search.rows),
        search.dim,
        thousands(search.kmeans_clusters),
        thousands(search.largest_kmeans_cluster)
    )];
    if search.zero_rows > 0 {
        let zeros = thousands(search.zero_rows);
        lines.push(format!("dedup: {zeros} embeddings of zeros, which resemble nothing, were kept"));
    }
    if !report.cosine_histogram.is_empty() {
        let bin = |bin: &CosineBin| format!("{:.2}+: {}", bin.from, thousands(bin.count));
        let bins: Vec<String> = report.cosine_histogram.iter().map(bin).collect();
        lines.push(format!("dedup: cosines with what stayed {}", bins.join(", ")));
    }
    lines.extend(said::clusters(report.clusters, &report.cluster_sizes, &report.biggest_clusters));
    let (warnings, mostly_removed) = said::mostly_removed(&report.sources);
    lines.extend(warnings);
    lines.push(format!(
        "dedup: {} of memory, {} on disk",
        bytes(report.memory_bytes),
        bytes(report.disk_bytes)
    ));
    let mut value = parameters(report);
    value["sources_mostly_removed"] = mostly_removed.into();
    Extra { name: NAME, value, lines }
}
