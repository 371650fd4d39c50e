//! Spherical k-means on a sample in memory, with the first centroids by k-means++.
//!
//! Every sum has one order whatever the number of threads: rows find their centroids in parallel, and each
//! centroid is the sum of its own rows in their order, in double precision.

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::dot::{dot_f64, dots};
use super::embeddings::{UnitRows, gather};
use super::error::{Result, SemanticError};
use super::product::{self, Panels};
use super::{Alive, BLOCK, Embeddings, Members, NO_CLUSTER};

/// Rows that go by all centroids together.
const GROUP: usize = 64;
/// Rows from which the first centroid of a cluster is drawn, times the number of clusters: drawing reads all of them for each
/// centroid, and more of them would be no better.
const DRAWN_FROM: usize = 16;

/// The centroids.
pub(super) struct Model {
    centroids: Panels,
    pub(super) sample_rows: usize,
    pub(super) iterations: usize,
}

impl Model {
    /// One cluster for all.
    pub(super) fn single(dim: usize) -> Self {
        Self { centroids: Panels::of(&vec![0.0; dim], dim), sample_rows: 0, iterations: 0 }
    }

    pub(super) fn clusters(&self) -> usize {
        self.centroids.len()
    }

    /// Writes the cluster of each row: that of the highest cosine, the first of several.
    pub(super) fn nearest(&self, rows: &UnitRows, clusters: &mut [u32]) {
        if self.clusters() == 1 {
            clusters.fill(0);
        } else {
            nearest(&self.centroids, &rows.values, clusters, None);
        }
        for (i, cluster) in clusters.iter_mut().enumerate() {
            if rows.is_zero(i) {
                *cluster = NO_CLUSTER;
            }
        }
    }
}

fn nearest(centroids: &Panels, rows: &[f32], clusters: &mut [u32], mut cosines: Option<&mut [f32]>) {
    let dim = rows.len() / clusters.len().max(1);
    let mut best = [(0.0, 0); GROUP];
    for (i, (rows, clusters)) in rows.chunks(GROUP * dim).zip(clusters.chunks_mut(GROUP)).enumerate() {
        let best = &mut best[..clusters.len()];
        product::nearest(rows, centroids, best);
        clusters.iter_mut().zip(&*best).for_each(|(cluster, (_, number))| *cluster = *number);
        if let Some(cosines) = &mut cosines {
            cosines[i * GROUP..].iter_mut().zip(best).for_each(|(cosine, (product, _))| *cosine = *product);
        }
    }
}

/// One row from each of `count` equal parts of the input, without the rows of zeros; all if there are no more.
pub(super) fn sample(embeddings: &dyn Embeddings, count: usize, seed: u64) -> Result<UnitRows> {
    let rows = embeddings.rows() as u128;
    let count = (count as u128).min(rows);
    let numbers: Vec<u32> = (0..count)
        .map(|part| {
            let (start, end) = (part * rows / count, (part + 1) * rows / count);
            (start + u128::from(random(seed, part as u64)) % (end - start)) as u32
        })
        .collect();
    let blocks: Vec<Result<UnitRows>> =
        numbers.par_chunks(BLOCK).map(|part| gather(embeddings, part)).collect();
    let mut sample = UnitRows::new(embeddings.dim());
    for block in blocks {
        let block = block?;
        for i in (0..block.len()).filter(|&i| !block.is_zero(i)) {
            sample.values.extend_from_slice(block.row(i));
        }
    }
    Ok(sample)
}

fn random(seed: u64, counter: u64) -> u64 {
    xxh3_64_with_seed(&counter.to_le_bytes(), seed)
}

/// Trains no more than `clusters` centroids.
pub(super) fn train(
    sample: &UnitRows,
    clusters: usize,
    iterations: usize,
    seed: u64,
    alive: Alive<'_>,
) -> Result<Model> {
    if sample.len() == 0 {
        return Ok(Model::single(sample.dim));
    }
    let mut centroids = first_centroids(&drawn_from(sample, clusters), clusters, seed, alive)?;
    let mut clusters = vec![NO_CLUSTER; sample.len()];
    let mut rounds = 0;
    while rounds < iterations {
        let before = clusters.clone();
        let mut cosines = vec![0.0; sample.len()];
        let panels = Panels::from(&centroids);
        clusters
            .par_chunks_mut(BLOCK)
            .zip(cosines.par_chunks_mut(BLOCK))
            .zip(sample.values.par_chunks(BLOCK * sample.dim))
            .for_each(|((clusters, cosines), rows)| {
                if alive() {
                    nearest(&panels, rows, clusters, Some(cosines));
                }
            });
        if !alive() {
            return Err(SemanticError::Stopped);
        }
        if clusters == before {
            break;
        }
        rounds += 1;
        update(&mut centroids, sample, &clusters, &cosines);
    }
    Ok(Model { centroids: Panels::from(&centroids), sample_rows: sample.len(), iterations: rounds })
}

/// A few rows for each cluster, from all of the sample.
fn drawn_from(sample: &UnitRows, clusters: usize) -> UnitRows {
    let count = sample.len().min(clusters.saturating_mul(DRAWN_FROM));
    let mut part = UnitRows::new(sample.dim);
    for i in 0..count {
        let row = (i as u128 * sample.len() as u128 / count as u128) as usize;
        part.values.extend_from_slice(sample.row(row));
    }
    part
}

/// k-means++: each centroid is a row, drawn with a chance that grows with its distance from those before it.
fn first_centroids(sample: &UnitRows, clusters: usize, seed: u64, alive: Alive<'_>) -> Result<UnitRows> {
    let mut centroids = UnitRows::new(sample.dim);
    let mut distances = vec![f32::INFINITY; sample.len()];
    // The counters below 2^63 are those of the sample.
    let mut draw = (1u64 << 63..).map(|counter| random(seed, counter));
    let mut next = (draw.next().unwrap_or(0) % sample.len() as u64) as usize;
    loop {
        let centroid = sample.row(next);
        centroids.values.extend_from_slice(centroid);
        distances[next] = 0.0;
        if centroids.len() == clusters {
            return Ok(centroids);
        }
        if !alive() {
            return Err(SemanticError::Stopped);
        }
        distances.par_chunks_mut(BLOCK).zip(sample.values.par_chunks(BLOCK * sample.dim)).for_each(
            |(distances, rows)| {
                let mut products = vec![0.0; distances.len()];
                dots(rows, centroid, &mut products);
                for (distance, product) in distances.iter_mut().zip(products) {
                    // On the sphere this is half of the squared distance. What is left by rounding is nothing.
                    let new = 1.0 - product;
                    *distance = distance.min(if new < 1e-6 { 0.0 } else { new });
                }
            },
        );
        let total: f64 = distances.iter().map(|&d| f64::from(d)).sum();
        if total == 0.0 {
            return Ok(centroids);
        }
        let mut left = (draw.next().unwrap_or(0) >> 11) as f64 / (1u64 << 53) as f64 * total;
        let mut chosen = None;
        for (i, &distance) in distances.iter().enumerate().filter(|&(_, &distance)| distance > 0.0) {
            chosen = Some(i);
            left -= f64::from(distance);
            if left < 0.0 {
                break;
            }
        }
        match chosen {
            Some(row) => next = row,
            None => return Ok(centroids),
        }
    }
}

/// Moves each centroid to the direction of the sum of its rows. One without rows, or whose rows sum to nothing,
/// starts anew at a row that is farthest from its own centroid, the first of several.
fn update(centroids: &mut UnitRows, sample: &UnitRows, clusters: &[u32], cosines: &[f32]) {
    let members = Members::new(clusters, centroids.len());
    let dim = sample.dim;
    let lists: Vec<&[u32]> = members.iter().collect();
    let moved: Vec<bool> = centroids
        .values
        .par_chunks_mut(dim)
        .zip(lists)
        .map(|(centroid, rows)| {
            let mut sum = vec![0.0f64; dim];
            for &row in rows {
                for (sum, x) in sum.iter_mut().zip(sample.row(row as usize)) {
                    *sum += f64::from(*x);
                }
            }
            let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length > 1e-9 {
                centroid.iter_mut().zip(&sum).for_each(|(c, x)| *c = (x / length) as f32);
            }
            length > 1e-9
        })
        .collect();
    let lost: Vec<usize> = (0..moved.len()).filter(|&i| !moved[i]).collect();
    if lost.is_empty() {
        return;
    }
    let mut farthest: Vec<usize> = (0..sample.len()).collect();
    farthest.sort_by(|&a, &b| cosines[a].total_cmp(&cosines[b]).then(a.cmp(&b)));
    for (cluster, row) in lost.into_iter().zip(farthest) {
        debug_assert!(dot_f64(sample.row(row), sample.row(row)) > 0.0);
        centroids.values[cluster * dim..(cluster + 1) * dim].copy_from_slice(sample.row(row));
    }
}
