//! Products of rows with one other: with a centroid that has just been drawn, and in double precision.
//!
//! The baseline and AVX2 run the same code, with lanes instead of a running sum and no fused multiply-add, so that every
//! machine and every tile gets the same bits.

const LANES: usize = 16;
/// Rows that share the loads of the other.
const TILE: usize = 4;

/// The dot products of each row of `rows` (`[n, dim]`) with `other` (`[dim]`).
pub(super) fn dots(rows: &[f32], other: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just been found to have AVX2.
        return unsafe { dots_avx2(rows, other, out) };
    }
    dots_inline(rows, other, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dots_avx2(rows: &[f32], other: &[f32], out: &mut [f32]) {
    dots_inline(rows, other, out);
}

#[inline(always)]
fn dots_inline(rows: &[f32], other: &[f32], out: &mut [f32]) {
    let dim = other.len();
    let mut tiles = rows.chunks_exact(dim * TILE);
    let mut outs = out.chunks_exact_mut(TILE);
    for (tile, out) in (&mut tiles).zip(&mut outs) {
        out.copy_from_slice(&dot_tile::<TILE>(tile, other));
    }
    for (row, out) in tiles.remainder().chunks_exact(dim).zip(outs.into_remainder()) {
        [*out] = dot_tile::<1>(row, other);
    }
}

#[inline(always)]
fn dot_tile<const N: usize>(rows: &[f32], other: &[f32]) -> [f32; N] {
    let dim = other.len();
    let (chunks, rest) = other.as_chunks::<LANES>();
    let rows: [(&[[f32; LANES]], &[f32]); N] =
        std::array::from_fn(|n| rows[n * dim..(n + 1) * dim].as_chunks::<LANES>());
    let mut sums = [[0.0f32; LANES]; N];
    for (i, b) in chunks.iter().enumerate() {
        for n in 0..N {
            let a = &rows[n].0[i];
            for lane in 0..LANES {
                sums[n][lane] += a[lane] * b[lane];
            }
        }
    }
    std::array::from_fn(|n| {
        let tail: f32 = rows[n].1.iter().zip(rest).map(|(a, b)| a * b).sum();
        sums[n].iter().sum::<f32>() + tail
    })
}

/// The dot product in double precision, in one fixed order.
pub(super) fn dot_f64(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 8;
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    let tail: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    sums.iter().sum::<f64>() + tail
}

/// The cosine of two rows that are not zeros: 1 exactly if they are equal, and never more.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    // The root of a square is the number itself in IEEE arithmetic, but the product of two roots may not be.
    (dot_f64(a, b) / (dot_f64(a, a) * dot_f64(b, b)).sqrt()).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One row, one lane at a time.
    fn scalar(a: &[f32], b: &[f32]) -> f32 {
        let whole = a.len() / LANES * LANES;
        let lane = |lane: usize| (lane..whole).step_by(LANES).fold(0.0, |sum, i| sum + a[i] * b[i]);
        let sums: f32 = (0..LANES).map(lane).sum();
        let tail: f32 = (whole..a.len()).map(|i| a[i] * b[i]).sum();
        sums + tail
    }

    proptest! {
        #[test]
        fn every_path_gives_the_bits_of_the_scalar_loop(
            dim in 1usize..70, n in 0usize..10, values in prop::collection::vec(-2.0f32..2.0, 700)
        ) {
            let (other, rows) = values.split_at(dim);
            let rows = &rows[..(n * dim).min(rows.len() / dim * dim)];
            let expected: Vec<u32> = rows.chunks_exact(dim).map(|row| scalar(row, other).to_bits()).collect();
            for path in [dots, dots_inline] {
                let mut out = vec![0.0; rows.len() / dim];
                path(rows, other, &mut out);
                prop_assert_eq!(&out.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), &expected);
            }
        }
    }
}
