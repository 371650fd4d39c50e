//! Keep-first within each cluster.

use std::borrow::Cow;

use rayon::prelude::*;

use super::dot::cosine;
use super::embeddings::{UnitRows, gather};
use super::error::{Result, SemanticError};
use super::product::{Panels, WIDTH, margin, products};
use super::{Alive, BLOCK, Embeddings, Members, Removal};

/// Bytes of kept rows of one cluster that stay in memory.
const RESIDENT_BYTES: usize = 256 << 20;
/// Rows that are compared together: with a panel of as many numbers in each row they stay near the processor.
const GROUP: usize = 64;
/// Small clusters between two questions whether to go on.
const ALIVE_EVERY: usize = 64;

/// The removals of all clusters, by row.
pub(super) fn removals(
    embeddings: &dyn Embeddings,
    clusters: &Members,
    threshold: f64,
    alive: Alive<'_>,
) -> Result<Vec<Removal>> {
    let resident = (RESIDENT_BYTES / (4 * embeddings.dim())).max(BLOCK);
    removals_with(embeddings, clusters, threshold, BLOCK, resident, alive)
}

/// Clusters of one block run beside each other; a larger one runs alone, its blocks one after the other.
pub(super) fn removals_with(
    embeddings: &dyn Embeddings,
    clusters: &Members,
    threshold: f64,
    block: usize,
    resident: usize,
    alive: Alive<'_>,
) -> Result<Vec<Removal>> {
    let star = Star { embeddings, threshold, margin: margin(embeddings.dim()), block, resident, alive };
    let (large, small): (Vec<&[u32]>, Vec<&[u32]>) = clusters.iter().partition(|rows| rows.len() > block);
    let parts: Vec<Result<Vec<Removal>>> = small
        .par_chunks(ALIVE_EVERY)
        .flat_map_iter(|part| {
            let going = alive();
            part.iter().map(move |rows| if going { star.cluster(rows) } else { Err(SemanticError::Stopped) })
        })
        .collect();
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

#[derive(Clone, Copy)]
struct Star<'a> {
    embeddings: &'a dyn Embeddings,
    threshold: f64,
    margin: f32,
    block: usize,
    resident: usize,
    alive: Alive<'a>,
}

/// The kept row of the highest cosine so far, the earliest of several.
type Best = Option<(u32, f64)>;

/// Kept rows, with their numbers.
struct Kept {
    numbers: Vec<u32>,
    panels: Panels,
}

impl Kept {
    fn new(dim: usize) -> Self {
        Self { numbers: Vec::new(), panels: Panels::new(dim) }
    }

    fn push(&mut self, number: u32, row: &[f32]) {
        self.numbers.push(number);
        self.panels.push(row);
    }
}

impl Star<'_> {
    fn cluster(&self, rows: &[u32]) -> Result<Vec<Removal>> {
        let mut removed = Vec::new();
        if rows.len() < 2 {
            return Ok(removed);
        }
        let dim = self.embeddings.dim();
        // The first kept rows, and the numbers of those that have found no room.
        let (mut resident, mut others) = (Kept::new(dim), Vec::new());
        for numbers in rows.chunks(self.block) {
            if rows.len() > self.block && !(self.alive)() {
                return Err(SemanticError::Stopped);
            }
            let block = gather(self.embeddings, numbers)?;
            let mut best: Vec<Best> = vec![None; numbers.len()];
            self.compare_all(&block, &resident, &mut best);
            for tile in others.chunks(self.block) {
                let panels = Panels::from(&gather(self.embeddings, tile)?);
                self.compare_all(&block, &Kept { numbers: tile.to_vec(), panels }, &mut best);
            }
            self.decide(numbers, &block, &mut best);
            for (i, &number) in numbers.iter().enumerate().filter(|(i, _)| best[*i].is_none()) {
                // Those in memory are the first: after one that is not, none is.
                match others.is_empty() && resident.numbers.len() < self.resident {
                    true => resident.push(number, block.row(i)),
                    false => others.push(number),
                }
            }
            let found = numbers.iter().zip(best);
            let found = found.filter_map(|(&row, best)| best.map(|(dup_of, cosine)| (row, dup_of, cosine)));
            removed.extend(found.map(|(row, dup_of, cosine)| Removal { row, dup_of, cosine }));
        }
        Ok(removed)
    }

    /// Compares the rows of a block with kept rows before it.
    fn compare_all(&self, block: &UnitRows, kept: &Kept, best: &mut [Best]) {
        if kept.numbers.is_empty() {
            return;
        }
        best.par_chunks_mut(GROUP)
            .zip(block.values.par_chunks(GROUP * block.dim))
            .for_each(|(best, rows)| self.compare(rows, kept, best));
    }

    /// Compares no more than [`GROUP`] rows with kept ones.
    fn compare(&self, rows: &[f32], kept: &Kept, best: &mut [Best]) {
        let dim = self.embeddings.dim();
        let mut out = [[0.0; WIDTH]; GROUP];
        let out = &mut out[..best.len()];
        for (panel, first) in kept.panels.iter().zip((0..).step_by(WIDTH)) {
            products(rows, panel, out);
            for ((products, row), best) in out.iter().zip(rows.chunks_exact(dim)).zip(&mut *best) {
                let bar = self.bar(best);
                // Nearly always none; asked for all at once, which takes a few instructions.
                if products.iter().fold(false, |any, product| any | (*product >= bar)) {
                    for (i, &product) in (first..).zip(products) {
                        // The number of a lane without a row is never asked for: its product is none.
                        self.offer(product, row, || (kept.numbers[i], kept.panels.row(i).into()), best);
                    }
                }
            }
        }
    }

    /// Keeps or removes the rows of a block in their order.
    fn decide(&self, numbers: &[u32], block: &UnitRows, best: &mut [Best]) {
        let dim = block.dim;
        let mut fresh = Kept::new(dim);
        let groups = numbers.chunks(GROUP).zip(block.values.chunks(GROUP * dim)).zip(best.chunks_mut(GROUP));
        for ((numbers, rows), best) in groups {
            self.compare(rows, &fresh, best);
            // All pairs of the group, of which half are needed: still less work than one at a time.
            let mut pairs = [[0.0; GROUP]; GROUP];
            let mut out = [[0.0; WIDTH]; GROUP];
            let out = &mut out[..numbers.len()];
            for (panel, first) in Panels::of(rows, dim).iter().zip((0..).step_by(WIDTH)) {
                products(rows, panel, out);
                for (pairs, out) in pairs.iter_mut().zip(&*out) {
                    pairs[first..first + WIDTH].copy_from_slice(out);
                }
            }
            let row = |i: usize| &rows[i * dim..(i + 1) * dim];
            let mut kept = [false; GROUP];
            for i in 0..numbers.len() {
                for j in (0..i).filter(|&j| kept[j]) {
                    self.offer(pairs[i][j], row(i), || (numbers[j], row(j).into()), &mut best[i]);
                }
                kept[i] = best[i].is_none();
                if kept[i] {
                    fresh.push(numbers[i], row(i));
                }
            }
        }
    }

    /// Products below this are not worth a look.
    #[inline]
    fn bar(&self, best: &Best) -> f32 {
        best.map_or(self.threshold, |(_, cosine)| cosine) as f32 - self.margin
    }

    /// Takes a kept row, which comes after those offered before, if it is a duplicate and closer than they.
    #[inline]
    fn offer<'r>(
        &self,
        product: f32,
        row: &[f32],
        kept: impl FnOnce() -> (u32, Cow<'r, [f32]>),
        best: &mut Best,
    ) {
        // It is not either where there is no row, and the product no number.
        let is_worth_a_look = product >= self.bar(best);
        if !is_worth_a_look {
            return;
        }
        let (number, kept) = kept();
        let cosine = cosine(row, &kept);
        if cosine >= self.threshold && best.is_none_or(|(_, other)| cosine > other) {
            *best = Some((number, cosine));
        }
    }
}
