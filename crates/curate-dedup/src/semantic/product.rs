//! Products of many rows with many others, as k-means and the search for duplicates need them.
//!
//! A product is one chain of fused multiply-adds in the order of the dimensions: `s = fma(a[k], b[k], s)` from `s = 0`.
//! IEEE 754 says what each step gives, so all instruction sets and all tiles give the same bits. For speed the *others* lie
//! interleaved in panels of [`WIDTH`]: each lane of a vector then holds the chain of another row, and nothing is ever summed
//! across lanes. Processors with neither AVX-512 nor AVX2 and FMA compute the same, slowly.

use super::embeddings::UnitRows;

/// Rows of a panel: two vectors of AVX-512.
pub(super) const WIDTH: usize = 32;

/// How far a product of unit rows can be from the true one, and a threshold from its rounding to single precision.
pub(super) fn margin(dim: usize) -> f32 {
    // A chain of n roundings is wrong by at most n/2 epsilons of the sum of magnitudes, which is 1 for unit rows.
    (dim + 8) as f32 * f32::EPSILON
}

/// Rows that others are multiplied with.
#[derive(Debug)]
pub(super) struct Panels {
    /// Panel by panel, in it dimension by dimension, a number of each of its rows: `[panels, dim, WIDTH]`.
    values: Vec<f32>,
    dim: usize,
    rows: usize,
}

impl Panels {
    pub(super) fn new(dim: usize) -> Self {
        Self { values: Vec::new(), dim, rows: 0 }
    }

    pub(super) fn of(rows: &[f32], dim: usize) -> Self {
        let mut panels = Self::new(dim);
        panels.values.reserve_exact((rows.len() / dim).next_multiple_of(WIDTH) * dim);
        rows.chunks_exact(dim).for_each(|row| panels.push(row));
        panels
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    pub(super) fn push(&mut self, row: &[f32]) {
        let lane = self.rows % WIDTH;
        if lane == 0 {
            let panel = self.dim * WIDTH;
            if self.values.capacity() - self.values.len() < panel {
                // A vector that doubles by itself would hold up to twice what it needs.
                self.values.reserve_exact(panel.max(self.values.len() / 8));
            }
            // What is no number is neither above a threshold nor nearest: the lanes of no row need no further care.
            self.values.resize(self.values.len() + self.dim * WIDTH, f32::NAN);
        }
        let start = self.values.len() - self.dim * WIDTH;
        for (column, x) in self.values[start..].chunks_exact_mut(WIDTH).zip(row) {
            column[lane] = *x;
        }
        self.rows += 1;
    }

    pub(super) fn row(&self, i: usize) -> Vec<f32> {
        let start = i / WIDTH * WIDTH * self.dim;
        let columns = self.values[start..start + WIDTH * self.dim].chunks_exact(WIDTH);
        columns.map(|column| column[i % WIDTH]).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim * WIDTH)
    }
}

/// Compiles a function three times, and calls the one that the processor is best at. Only `fma` is of the essence: what is
/// inlined into the other two then has vectors of their width too.
macro_rules! dispatched {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) = $inner:ident, $avx512:ident, $avx2:ident) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has just been found to have AVX-512F.
                return unsafe { $avx512($($arg),*) };
            } else if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                // SAFETY: the processor has just been found to have AVX2 and FMA.
                return unsafe { $avx2($($arg),*) };
            }
            $inner::<4>($($arg),*);
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        fn $avx512($($arg: $type),*) {
            $inner::<8>($($arg),*);
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn $avx2($($arg: $type),*) {
            $inner::<2>($($arg),*);
        }
    };
}

dispatched! {
    /// Multiplies each of `rows` (`[n, dim]`) with the rows of a panel.
    fn products(rows: &[f32], panel: &[f32], out: &mut [[f32; WIDTH]]) = products_in, products_avx512, products_avx2
}

dispatched! {
    /// The highest product of each of `rows` with the rows of `panels`, and the number of that row, the first of several.
    fn nearest(rows: &[f32], panels: &Panels, best: &mut [(f32, u32)]) = nearest_in, nearest_avx512, nearest_avx2
}

#[inline(always)]
fn products_in<const R: usize>(rows: &[f32], panel: &[f32], out: &mut [[f32; WIDTH]]) {
    let (columns, _) = panel.as_chunks::<WIDTH>();
    let dim = columns.len();
    for (rows, out) in rows.chunks(dim * R).zip(out.chunks_mut(R)) {
        let rows: [&[f32]; R] = tile_of(rows, dim);
        out.copy_from_slice(&multiply(rows, columns)[..out.len()]);
    }
}

/// `R` rows; where there are fewer, the first one again.
#[inline(always)]
fn tile_of<const R: usize>(rows: &[f32], dim: usize) -> [&[f32]; R] {
    std::array::from_fn(|r| rows.get(r * dim..(r + 1) * dim).unwrap_or(&rows[..dim]))
}

/// The chains of `R` rows stay in registers from the first dimension to the last.
#[inline(always)]
fn multiply<const R: usize>(rows: [&[f32]; R], columns: &[[f32; WIDTH]]) -> [[f32; WIDTH]; R] {
    let mut sums = [[0.0f32; WIDTH]; R];
    // The lengths are equal; said once here, it need not be asked in the loop.
    let dim = columns.len();
    let rows = rows.map(|row| &row[..dim]);
    for k in 0..dim {
        let column = columns[k];
        for r in 0..R {
            let a = rows[r][k];
            for lane in 0..WIDTH {
                sums[r][lane] = a.mul_add(column[lane], sums[r][lane]);
            }
        }
    }
    sums
}

#[inline(always)]
fn nearest_in<const R: usize>(rows: &[f32], panels: &Panels, best: &mut [(f32, u32)]) {
    for (rows, best) in rows.chunks(R * panels.dim).zip(best.chunks_mut(R)) {
        let rows: [&[f32]; R] = tile_of(rows, panels.dim);
        let mut highest = [[f32::NEG_INFINITY; WIDTH]; R];
        let mut at = [[0u32; WIDTH]; R];
        for (number, panel) in (0u32..).zip(panels.iter()) {
            let products = multiply(rows, panel.as_chunks::<WIDTH>().0);
            for r in 0..R {
                for lane in 0..WIDTH {
                    let higher = products[r][lane] > highest[r][lane];
                    highest[r][lane] = if higher { products[r][lane] } else { highest[r][lane] };
                    at[r][lane] = if higher { number } else { at[r][lane] };
                }
            }
        }
        for (r, best) in best.iter_mut().enumerate() {
            *best = (f32::NEG_INFINITY, 0);
            for lane in 0..WIDTH {
                let found = (highest[r][lane], at[r][lane] * WIDTH as u32 + lane as u32);
                if found.0 > best.0 || found.0 == best.0 && found.1 < best.1 {
                    *best = found;
                }
            }
        }
    }
}

/// The panels of rows that were read.
impl From<&UnitRows> for Panels {
    fn from(rows: &UnitRows) -> Self {
        Self::of(&rows.values, rows.dim)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition.
    fn chain(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).fold(0.0, |sum, (a, b)| a.mul_add(*b, sum))
    }

    type Products = fn(&[f32], &[f32], &mut [[f32; WIDTH]]);
    type Nearest = fn(&[f32], &Panels, &mut [(f32, u32)]);

    /// All that this processor can run.
    fn paths() -> Vec<(Products, Nearest)> {
        let mut paths: Vec<(Products, Nearest)> = vec![
            (products, nearest),
            (products_in::<1>, nearest_in::<1>),
            (products_in::<3>, nearest_in::<3>),
        ];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            paths.push((
                // SAFETY: the processor has just been found to have AVX2 and FMA.
                |rows, panel, out| unsafe { products_avx2(rows, panel, out) },
                // SAFETY: as above.
                |rows, panels, best| unsafe { nearest_avx2(rows, panels, best) },
            ));
        }
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") {
            paths.push((
                // SAFETY: the processor has just been found to have AVX-512F.
                |rows, panel, out| unsafe { products_avx512(rows, panel, out) },
                // SAFETY: as above.
                |rows, panels, best| unsafe { nearest_avx512(rows, panels, best) },
            ));
        }
        paths
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_path_gives_the_bits_of_the_definition(
            dim in 1usize..40, n in 0usize..20, m in 1usize..70, seed in any::<u32>()
        ) {
            let mut state = u64::from(seed);
            let mut values = |count: usize| -> Vec<f32> {
                let next = || {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    // Few values, so that some products are equal.
                    ((state >> 61) as f32 - 3.5) / 3.0
                };
                std::iter::repeat_with(next).take(count).collect()
            };
            let (rows, others) = (values(n * dim), values(m * dim));
            let panels = Panels::of(&others, dim);
            prop_assert_eq!(panels.len(), m);
            for (i, other) in others.chunks_exact(dim).enumerate() {
                prop_assert_eq!(&panels.row(i)[..], other);
            }
            for (products, nearest) in paths() {
                let mut best = vec![(0.0, 0); n];
                nearest(&rows, &panels, &mut best);
                for (p, panel) in panels.iter().enumerate() {
                    let mut out = vec![[0.0; WIDTH]; n];
                    products(&rows, panel, &mut out);
                    for (row, out) in rows.chunks_exact(dim).zip(&out) {
                        for (lane, found) in out.iter().enumerate() {
                            match others.chunks_exact(dim).nth(p * WIDTH + lane) {
                                Some(other) => prop_assert_eq!(found.to_bits(), chain(row, other).to_bits()),
                                None => prop_assert!(found.is_nan()),
                            }
                        }
                    }
                }
                for (row, best) in rows.chunks_exact(dim).zip(&best) {
                    let mut expected = (f32::NEG_INFINITY, 0);
                    for (other, number) in others.chunks_exact(dim).zip(0..) {
                        if chain(row, other) > expected.0 {
                            expected = (chain(row, other), number);
                        }
                    }
                    prop_assert_eq!(*best, expected);
                }
            }
        }
    }
}
