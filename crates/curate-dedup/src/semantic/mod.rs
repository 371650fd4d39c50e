//! Semantic deduplication: documents whose embeddings point in nearly the same direction.
//!
//! SemDeDup (Abbas et al. 2023, arXiv 2303.09540): spherical k-means puts the embeddings into clusters, and only
//! embeddings of one cluster are compared. Within a cluster the rule is that of the whole crate: in input order, a
//! row is removed if its cosine with an earlier row that was **kept** is at least the threshold, and the removal names
//! the kept row of the highest cosine, the earliest of several. (The paper takes connected pairs and keeps the row
//! farthest from the centroid; here every removal can be proven by one kept row.)
//!
//! # What it can miss
//!
//! A pair that k-means puts into different clusters is never compared, which happens to pairs near a border. Nothing is
//! removed wrongly for that: clusters only propose. One cluster compares everything, and is exact.
//!
//! # The cosine
//!
//! Rows are scaled to length 1 in single precision. A product in single precision, with a margin for its rounding,
//! proposes; the product of the same scaled rows in double precision decides and is reported. Equal rows have cosine
//! 1 exactly. Rows of zeros have no direction: they are kept, stand for nothing, and are counted. All sums have one fixed
//! order, so the answer is the same on every machine and for any number of threads.
//!
//! # Memory
//!
//! Rows are read in blocks and not kept. In memory are the sample that k-means is trained on (65 536 rows, or 16 for each
//! cluster if that is more), the centroids, 8 bytes a row, 16 bytes a removal, two blocks of 1024 rows for each thread, and up
//! to 288 MiB of the kept rows of one cluster; kept rows beyond these are read again for each block of a cluster. Time grows with rows × clusters for the assignment and with the square of the
//! largest cluster.

mod embeddings;
mod npy;
mod product;
mod dot;
mod kmeans;
mod star;
mod source;
mod error;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

pub use embeddings::{EmbeddingSlice, Embeddings};
pub use error::SemanticError;
pub use npy::NpyFile;
pub use source::{DocumentCounter, EmbeddingSource, EmbeddingTable, VectorOf};

pub(crate) use source::{Chosen, Cosines, Found, Rows, Wanted};

use crate::summary::{ClusterSample, ClusterSizes, SourceSummary};
use embeddings::unit_rows;
use error::Result;

/// Rows read and worked on together. Part of no answer.
const BLOCK: usize = 1024;
/// The most rows: they are numbered in 32 bits.
const MAX_ROWS: usize = u32::MAX as usize - 1;

/// What counts as the same meaning, and how candidates are found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SemanticOptions {
    /// Clusters of k-means; without it the square root of the number of rows. 1 compares every pair.
    pub clusters: Option<usize>,
    /// The most rounds of k-means; it ends earlier when no row of the sample changes its cluster.
    pub iterations: usize,
    /// The cosine from which on a row is a duplicate, in (0, 1].
    pub threshold: f64,
    /// Seed of the sample and of the first centroids.
    pub seed: u64,
    /// The most rows that k-means is trained on; they are held in memory. Without it 65 536, or 16 for each cluster if
    /// that is more.
    pub sample: Option<usize>,
}

impl Default for SemanticOptions {
    fn default() -> Self {
        Self { clusters: None, iterations: 10, threshold: 0.95, seed: 1, sample: None }
    }
}

impl SemanticOptions {
    pub fn validate(&self) -> Result<()> {
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            return Err(SemanticError::Threshold { got: self.threshold });
        }
        if self.clusters == Some(0) {
            return Err(SemanticError::NoClusters);
        }
        match (self.sample, self.clusters.unwrap_or(1)) {
            (Some(got), clusters) if got < clusters => Err(SemanticError::Sample { got, clusters }),
            _ => Ok(()),
        }
    }

    /// Clusters for so many rows, and rows to train them on.
    fn sizes(&self, rows: usize) -> (usize, usize) {
        const SAMPLE: usize = 65_536;
        let clusters = self.clusters.unwrap_or_else(|| (rows as f64).sqrt().round() as usize).max(1);
        let sample = self.sample.unwrap_or_else(|| SAMPLE.max(clusters.saturating_mul(16)));
        (clusters.min(sample).min(rows.max(1)), sample)
    }
}

/// A row that goes, with its proof: the kept row that stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Removal {
    pub row: u32,
    pub dup_of: u32,
    pub cosine: f64,
}

/// The removals by row, and the counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SemanticResult {
    pub removed: Vec<Removal>,
    pub summary: SemanticSummary,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SemanticSummary {
    pub options: SemanticOptions,
    pub rows: u64,
    pub dim: u64,
    pub kept: u64,
    pub removed: u64,
    /// Rows of zeros, all kept.
    pub zero_rows: u64,
    /// Clusters that k-means ended with: no more than there are different rows in the sample.
    pub kmeans_clusters: u64,
    pub largest_kmeans_cluster: u64,
    /// Rows that k-means was trained on.
    pub sample_rows: u64,
    /// Rounds of k-means that ran.
    pub iterations: u64,
}

/// What semantic deduplication of documents found; `documents = kept + removed`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SemanticReport {
    pub documents: u64,
    pub kept: u64,
    pub removed: u64,
    pub search: SemanticSummary,
    /// Kept documents that stand for at least one removed one.
    pub clusters: u64,
    /// How many of them have how many documents; empty bins are left out.
    pub cluster_sizes: Vec<ClusterSizes>,
    /// The biggest of them, biggest first, then by input order.
    pub biggest_clusters: Vec<ClusterSample>,
    /// Cosines of the removed documents with those that stand for them; empty bins are left out.
    pub cosine_histogram: Vec<CosineBin>,
    /// By source, for what has one.
    pub sources: BTreeMap<String, SourceSummary>,
    /// Bytes of memory for what was gathered; k-means needs its sample beside them.
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

/// Documents with a cosine from `from` to less than `from + 0.01`; the bin from 0.99 includes 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CosineBin {
    pub from: f64,
    pub count: u64,
}

/// Asked now and then, from any thread; the work ends with [`SemanticError::Stopped`] once it says `false`.
pub(crate) type Alive<'a> = &'a (dyn Fn() -> bool + Sync);

/// Finds the rows that an earlier row of the same cluster makes superfluous. The answer does not depend on `threads`.
///
/// # Errors
/// Options out of range; rows that cannot be read, or hold what is no finite number; [`SemanticError::Stopped`] if `alive`
/// has said `false`.
pub fn semantic_dedup(
    embeddings: &dyn Embeddings,
    options: &SemanticOptions,
    threads: usize,
    alive: &(dyn Fn() -> bool + Sync),
) -> Result<SemanticResult> {
    options.validate()?;
    if embeddings.dim() == 0 {
        return Err(SemanticError::NoDimensions);
    }
    if embeddings.rows() > MAX_ROWS {
        return Err(SemanticError::TooManyRows { rows: embeddings.rows() as u64, limit: MAX_ROWS as u64 });
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|source| SemanticError::Threads { source })?;
    pool.install(|| dedup(embeddings, options, alive))
}

fn dedup(embeddings: &dyn Embeddings, options: &SemanticOptions, alive: Alive<'_>) -> Result<SemanticResult> {
    let rows = embeddings.rows();
    let (wanted, sample) = options.sizes(rows);
    let model = if wanted == 1 {
        kmeans::Model::single(embeddings.dim())
    } else {
        let sample = kmeans::sample(embeddings, sample, options.seed)?;
        kmeans::train(&sample, wanted, options.iterations, options.seed, alive)?
    };
    let assignment = assign(embeddings, &model, alive)?;
    let clusters = Members::new(&assignment, model.clusters());
    let removed = star::removals(embeddings, &clusters, options.threshold, alive)?;
    let summary = SemanticSummary {
        options: options.clone(),
        rows: rows as u64,
        dim: embeddings.dim() as u64,
        kept: (rows - removed.len()) as u64,
        removed: removed.len() as u64,
        zero_rows: assignment.iter().filter(|&&cluster| cluster == NO_CLUSTER).count() as u64,
        kmeans_clusters: model.clusters() as u64,
        largest_kmeans_cluster: clusters.iter().map(<[u32]>::len).max().unwrap_or(0) as u64,
        sample_rows: model.sample_rows as u64,
        iterations: model.iterations as u64,
    };
    Ok(SemanticResult { removed, summary })
}

/// The cluster of a row of zeros.
const NO_CLUSTER: u32 = u32::MAX;

/// The cluster of each row.
fn assign(embeddings: &dyn Embeddings, model: &kmeans::Model, alive: Alive<'_>) -> Result<Vec<u32>> {
    let mut assignment = vec![0; embeddings.rows()];
    let results: Vec<Result<()>> = assignment
        .par_chunks_mut(BLOCK)
        .enumerate()
        .map(|(block, clusters)| {
            if !alive() {
                return Err(SemanticError::Stopped);
            }
            let first = block * BLOCK;
            let units = unit_rows(embeddings, first, clusters.len())?;
            model.nearest(&units, clusters);
            Ok(())
        })
        .collect();
    // In the order of the rows, so that the first bad row is named whichever thread was faster.
    results.into_iter().collect::<Result<()>>()?;
    Ok(assignment)
}

/// The rows of each cluster, in input order.
struct Members {
    rows: Vec<u32>,
    /// Where each cluster starts in `rows`, and the end.
    starts: Vec<usize>,
}

impl Members {
    fn new(assignment: &[u32], clusters: usize) -> Self {
        let mut starts = vec![0; clusters + 1];
        for &cluster in assignment.iter().filter(|&&cluster| cluster != NO_CLUSTER) {
            starts[cluster as usize + 1] += 1;
        }
        for i in 0..clusters {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; starts[clusters]];
        for (row, &cluster) in assignment.iter().enumerate().filter(|&(_, &cluster)| cluster != NO_CLUSTER) {
            rows[next[cluster as usize]] = row as u32;
            next[cluster as usize] += 1;
        }
        Self { rows, starts }
    }

    fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.starts.windows(2).map(|ends| &self.rows[ends[0]..ends[1]])
    }
}
