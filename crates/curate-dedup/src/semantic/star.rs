//! Keep-first within each cluster.

use rayon::prelude::*;

use super::dot::{cosine, dots, margin};
use super::embeddings::{UnitRows, gather};
use super::error::Result;
use super::{BLOCK, Embeddings, Members, Removal};

/// Bytes of kept rows of one cluster that stay in memory.
const RESIDENT_BYTES: usize = 256 << 20;
/// Rows of a block that one task compares.
const GROUP: usize = 32;

/// The removals of all clusters, by row.
pub(super) fn removals(
    embeddings: &dyn Embeddings,
    clusters: &Members,
    threshold: f64,
) -> Result<Vec<Removal>> {
    let resident = (RESIDENT_BYTES / (4 * embeddings.dim())).max(BLOCK);
    removals_with(embeddings, clusters, threshold, BLOCK, resident)
}

/// Clusters of one block run beside each other; a larger one runs alone, its blocks one after the other.
pub(super) fn removals_with(
    embeddings: &dyn Embeddings,
    clusters: &Members,
    threshold: f64,
    block: usize,
    resident: usize,
) -> Result<Vec<Removal>> {
    let star = Star { embeddings, threshold, block, resident };
    let (large, small): (Vec<&[u32]>, Vec<&[u32]>) = clusters.iter().partition(|rows| rows.len() > block);
    let parts: Vec<Result<Vec<Removal>>> = small.into_par_iter().map(|rows| star.cluster(rows)).collect();
    let mut removed = Vec::new();
    for part in parts {
        removed.extend(part?);
    }
    for rows in large {
        removed.extend(star.cluster(rows)?);
    }
    removed.par_sort_unstable_by_key(|removal| removal.row);
    Ok(removed)
}

struct Star<'a> {
    embeddings: &'a dyn Embeddings,
    threshold: f64,
    block: usize,
    resident: usize,
}

/// The kept row of the highest cosine so far, the earliest of several.
type Best = Option<(u32, f64)>;

impl Star<'_> {
    fn cluster(&self, rows: &[u32]) -> Result<Vec<Removal>> {
        let mut removed = Vec::new();
        if rows.len() < 2 {
            return Ok(removed);
        }
        let mut kept: Vec<u32> = Vec::new();
        // The first of `kept`.
        let mut in_memory = UnitRows::new(self.embeddings.dim());
        for numbers in rows.chunks(self.block) {
            let block = gather(self.embeddings, numbers)?;
            let mut best: Vec<Best> = vec![None; numbers.len()];
            self.compare(&block, &kept[..in_memory.len()], &in_memory, &mut best);
            for tile in kept[in_memory.len()..].chunks(self.block) {
                self.compare(&block, tile, &gather(self.embeddings, tile)?, &mut best);
            }
            self.decide(numbers, &block, &mut best, &mut kept, &mut in_memory);
            removed.extend(
                numbers
                    .iter()
                    .zip(best)
                    .filter_map(|(&row, best)| best.map(|(dup_of, cosine)| Removal { row, dup_of, cosine })),
            );
        }
        Ok(removed)
    }

    /// Compares the rows of a block with kept rows before it.
    fn compare(&self, block: &UnitRows, kept: &[u32], kept_rows: &UnitRows, best: &mut [Best]) {
        if kept.is_empty() {
            return;
        }
        best.par_chunks_mut(GROUP).zip(block.values.par_chunks(GROUP * block.dim)).for_each(
            |(best, rows)| {
                let mut products = [0.0; GROUP];
                let products = &mut products[..best.len()];
                for (i, &number) in kept.iter().enumerate() {
                    dots(rows, kept_rows.row(i), products);
                    for ((&product, row), best) in
                        products.iter().zip(rows.chunks_exact(block.dim)).zip(&mut *best)
                    {
                        self.offer(product, row, number, kept_rows.row(i), best);
                    }
                }
            },
        );
    }

    /// Keeps or removes the rows of a block in their order; those that stay are compared with the rows after them.
    fn decide(
        &self,
        numbers: &[u32],
        block: &UnitRows,
        best: &mut [Best],
        kept: &mut Vec<u32>,
        in_memory: &mut UnitRows,
    ) {
        let mut products = vec![0.0; numbers.len()];
        for (i, &number) in numbers.iter().enumerate() {
            if best[i].is_some() {
                continue;
            }
            // Rows in memory are the first of the kept ones: after the first that is not, none is.
            if in_memory.len() == kept.len() && kept.len() < self.resident {
                in_memory.values.extend_from_slice(block.row(i));
            }
            kept.push(number);
            let products = &mut products[i + 1..];
            dots(&block.values[(i + 1) * block.dim..], block.row(i), products);
            for (j, &product) in (i + 1..).zip(&*products) {
                self.offer(product, block.row(j), number, block.row(i), &mut best[j]);
            }
        }
    }

    /// Takes a kept row, which comes after those offered before, if it is a duplicate and closer than they.
    #[inline]
    fn offer(&self, product: f32, row: &[f32], number: u32, kept: &[f32], best: &mut Best) {
        let bar = best.map_or(self.threshold, |(_, cosine)| cosine);
        if f64::from(product + margin(row.len())) < bar {
            return;
        }
        let cosine = cosine(row, kept);
        if cosine >= self.threshold && best.is_none_or(|(_, other)| cosine > other) {
            *best = Some((number, cosine));
        }
    }
}
