//! Causal attention of one head over one document, forward and backward, in AVX-512.
//!
//! libtorch's CPU kernel makes a library call for every product of two blocks: in bf16 some 20 µs each, more than a block
//! of 64 × 64 takes to compute. Here the products are written out, all in fp32, without what the mask hides.
//!
//! ```text
//! forward, 16 queries at a time:   S = Q Kᵀ ─▶ P = exp(S - max) ─▶ O = P V ÷ row sums
//! backward, 64 keys at a time, for each 64 queries from there on:
//!     S = Q Kᵀ, dP = dO Vᵀ ─▶ P = exp(S - log-sum-exp), dS = P (dP - rows of dO·O) ─▶ dV += Pᵀ dO, dK += dSᵀ Q, dQ += dS K
//! ```
//! The backward pass is that of FlashAttention-2 (Dao 2023, algorithm 2). Heads are independent, so that neither the
//! number of threads nor the other documents of a row change a bit. A thread takes 12 bytes × T × D meanwhile, 24 in the
//! backward pass: the inputs as fp32.

use std::arch::x86_64::*;
use std::sync::LazyLock;

use tch::Kind;

use crate::kernels::{Element, exp_of_negative, has_avx512};

/// Keys of a block, and queries of one in the backward pass: an array of 64 × 64 floats is half of a core's first cache.
const BLOCK: usize = 64;
/// Queries of the forward pass whose products with all keys exist at once.
const STRIP: usize = 16;
/// Rows of a result that [`product`] keeps in registers.
const TILE: usize = 4;
/// Floats of a register.
const LANES: usize = 16;

/// Whether this machine can run these functions.
pub(super) fn is_supported() -> bool {
    has_avx512()
}

/// Whether they are the fastest there are for rows of `time` tokens: with AMX, libtorch's calls are worth their price in
/// bf16 once blocks are large.
pub(super) fn is_best<E: Element>(time: i64) -> bool {
    /// Tokens from which libtorch takes blocks of 256 queries and 512 keys.
    const LARGE: i64 = 768;
    /// AMX-BF16. A virtual machine pays dearly for the question.
    static HAS_AMX: LazyLock<bool> = LazyLock::new(|| __cpuid_count(7, 0).edx >> 22 & 1 == 1);
    is_supported() && !(E::KIND == Kind::BFloat16 && time >= LARGE && *HAS_AMX)
}

/// Tokens of one head: `D` elements each, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a, E> {
    pub(super) data: &'a [E],
    pub(super) stride: usize,
}

impl<'a, E> Rows<'a, E> {
    fn row(&self, token: usize, d: usize) -> &'a [E] {
        &self.data[token * self.stride..][..d]
    }
}

/// What attention reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a, E> {
    pub(super) q: Rows<'a, E>,
    pub(super) k: Rows<'a, E>,
    pub(super) v: Rows<'a, E>,
    /// Size of the head.
    pub(super) d: usize,
}

/// What the backward pass reads besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Results<'a, E> {
    pub(super) out: Rows<'a, E>,
    pub(super) d_out: Rows<'a, E>,
    /// [T]
    pub(super) log_sum_exp: &'a [f32],
}

/// Writes the result [T, D] and the logarithm of each row's sum of exponentials [T], in nats; T is the latter's length.
///
/// # Panics
/// If [`is_supported`] is not true, or the arrays are too short.
pub(super) fn forward<E: Element>(inputs: Inputs<'_, E>, out: &mut [E], log_sum_exp: &mut [f32]) {
    assert!(is_supported(), "needs AVX-512");
    // SAFETY: the features that the function needs have just been found.
    unsafe { forward_wide(inputs, out, log_sum_exp) }
}

/// Writes the gradients of queries, keys and values, [T, D] each; T is the length of `log_sum_exp`.
///
/// # Panics
/// As [`forward`].
pub(super) fn backward<E: Element>(inputs: Inputs<'_, E>, results: Results<'_, E>, gradients: [&mut [E]; 3]) {
    assert!(is_supported(), "needs AVX-512");
    // SAFETY: as above.
    unsafe { backward_wide(inputs, results, gradients) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn forward_wide<E: Element>(inputs: Inputs<'_, E>, out: &mut [E], log_sum_exp: &mut [f32]) {
    let Inputs { q, k, v, d } = inputs;
    let (n, width, scale) = (log_sum_exp.len(), d.next_multiple_of(LANES), scale(d));
    let keys = n.next_multiple_of(BLOCK);
    let k = transposed(k, n, d, width);
    let [q, v] = [(q, scale), (v, 1.0)].map(|(rows, factor)| packed(rows, n, d, width, factor));
    let mut strip = vec![0.0; STRIP * keys];
    let mut sums = vec![0.0; STRIP * width];
    for first in (0..n).step_by(STRIP) {
        let count = STRIP.min(n - first);
        // Row r of a tile sees the keys up to first + r; a tile computes those of its last row.
        let seen = |row: usize| (first + row + TILE).min(keys);
        for row in (0..count).step_by(TILE) {
            for block in (0..seen(row)).step_by(BLOCK) {
                let k = &k[block * width..][..BLOCK * width];
                let wanted = (seen(row) - block).min(BLOCK);
                let a = Strided { data: &q[(first + row) * width..], row: width, column: 1 };
                products(width, a, k, BLOCK, &mut strip[row * keys + block..], keys, wanted, false);
            }
        }
        let mut inverses = [0.0; STRIP];
        for (row, inverse) in inverses[..count].iter_mut().enumerate() {
            let token = first + row;
            let powers = &mut strip[row * keys..][..keys];
            let (sum, largest) = soften(&mut powers[..=token]);
            powers[token + 1..seen(row / TILE * TILE)].fill(0.0);
            *inverse = 1.0 / sum;
            log_sum_exp[token] = largest + sum.ln();
        }
        sums.fill(0.0);
        for block in (0..first + count).step_by(BLOCK) {
            for row in (0..count).step_by(TILE) {
                let depth = seen(row).min(n).saturating_sub(block).min(BLOCK);
                let a = Strided { data: &strip[row * keys + block..], row: keys, column: 1 };
                products(depth, a, &v[block * width..], width, &mut sums[row * width..], width, width, true);
            }
        }
        for (row, inverse) in inverses[..count].iter().enumerate() {
            let out = out[(first + row) * d..][..d].iter_mut();
            out.zip(&sums[row * width..]).for_each(|(out, sum)| *out = E::nearest(sum * inverse));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn backward_wide<E: Element>(inputs: Inputs<'_, E>, results: Results<'_, E>, gradients: [&mut [E]; 3]) {
    let Inputs { q, k, v, d } = inputs;
    let Results { out, d_out, log_sum_exp } = results;
    let [dq, dk, dv] = gradients;
    let (n, width, scale) = (log_sum_exp.len(), d.next_multiple_of(LANES), scale(d));
    let (k_t, v_t) = (transposed(k, n, d, width), transposed(v, n, d, width));
    let (q, k) = (packed(q, n, d, width, scale), packed(k, n, d, width, 1.0));
    let out_dots: Vec<f32> = (0..n).map(|token| dot(out.row(token, d), d_out.row(token, d))).collect();
    let d_out = packed(d_out, n, d, width, 1.0);
    let mut dq_sums = vec![0.0; q.len()];
    let [mut dk_sums, mut dv_sums] = [(); 2].map(|()| vec![0.0; BLOCK * width]);
    let [mut p, mut ds] = [(); 2].map(|()| vec![0.0; BLOCK * BLOCK]);
    for keys in (0..n).step_by(BLOCK) {
        dk_sums.fill(0.0);
        dv_sums.fill(0.0);
        let (k_t, v_t) = (&k_t[keys * width..][..BLOCK * width], &v_t[keys * width..][..BLOCK * width]);
        for queries in (keys..n).step_by(BLOCK) {
            let is_diagonal = queries == keys;
            // Of the keys, those that row r of the block sees, and of the queries, the first that sees key c.
            let seen = |row: usize| if is_diagonal { row } else { BLOCK };
            let first = |key: usize| if is_diagonal { key } else { 0 };
            let count = BLOCK.min(n - queries);
            for row in (0..count).step_by(TILE) {
                let at = (queries + row) * width;
                let wanted = seen(row + TILE).min(BLOCK);
                let of = |data| Strided { data, row: width, column: 1 };
                products(width, of(&q[at..]), k_t, BLOCK, &mut p[row * BLOCK..], BLOCK, wanted, false);
                products(width, of(&d_out[at..]), v_t, BLOCK, &mut ds[row * BLOCK..], BLOCK, wanted, false);
            }
            for row in 0..BLOCK {
                let visible = if row < count { seen(row + 1).min(BLOCK) } else { 0 };
                let (p, ds) = (&mut p[row * BLOCK..][..BLOCK], &mut ds[row * BLOCK..][..BLOCK]);
                if visible > 0 {
                    let (log_sum, out_dot) = (log_sum_exp[queries + row], out_dots[queries + row]);
                    for (p, ds) in p.iter_mut().zip(ds.iter_mut()) {
                        *p = exp_of_negative(*p - log_sum);
                        *ds = *p * (*ds - out_dot);
                    }
                }
                p[visible..].fill(0.0);
                ds[visible..].fill(0.0);
            }
            for key in (0..BLOCK).step_by(TILE) {
                let from = first(key);
                let depth = count.saturating_sub(from);
                let of = |data| Strided { data, row: 1, column: BLOCK };
                let (at, out) = ((queries + from) * width, key * width);
                let place = from * BLOCK + key;
                products(
                    depth,
                    of(&p[place..]),
                    &d_out[at..],
                    width,
                    &mut dv_sums[out..],
                    width,
                    width,
                    true,
                );
                products(depth, of(&ds[place..]), &q[at..], width, &mut dk_sums[out..], width, width, true);
            }
            for row in (0..count).step_by(TILE) {
                let depth = seen(row + TILE).min(BLOCK).min(n - keys);
                let a = Strided { data: &ds[row * BLOCK..], row: BLOCK, column: 1 };
                let out = &mut dq_sums[(queries + row) * width..];
                products(depth, a, &k[keys * width..], width, out, width, width, true);
            }
        }
        let count = BLOCK.min(n - keys);
        unpack(&dk_sums, width, &mut dk[keys * d..][..count * d], d, 1.0);
        unpack(&dv_sums, width, &mut dv[keys * d..][..count * d], d, 1.0);
    }
    unpack(&dq_sums, width, &mut dq[..n * d], d, scale);
}

fn scale(d: usize) -> f32 {
    1.0 / (d as f32).sqrt()
}

/// A matrix of which element (r, c) is at `row` × r + `column` × c.
#[derive(Clone, Copy)]
struct Strided<'a> {
    data: &'a [f32],
    row: usize,
    column: usize,
}

/// [`TILE`] rows of c = a · b, or += with `accumulate`: a [TILE, depth], b [depth, columns], c [TILE, columns].
///
/// Columns are computed in whole registers: those of `b` and `c` must go on to the next multiple of 16.
#[inline]
#[allow(clippy::too_many_arguments)] // three matrices and how they lie
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn products(
    depth: usize,
    a: Strided<'_>,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
    columns: usize,
    accumulate: bool,
) {
    if depth == 0 {
        return;
    }
    for column in (0..columns).step_by(4 * LANES) {
        let (b, c) = (&b[column..], &mut c[column..]);
        match (columns - column).div_ceil(LANES) {
            1 => product::<1>(depth, a, b, b_row, c, c_row, accumulate),
            2 => product::<2>(depth, a, b, b_row, c, c_row, accumulate),
            3 => product::<3>(depth, a, b, b_row, c, c_row, accumulate),
            _ => product::<4>(depth, a, b, b_row, c, c_row, accumulate),
        }
    }
}

/// [`products`] of `REGISTERS` registers of columns: 16 sums stay in registers, each step adds one outer product.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn product<const REGISTERS: usize>(
    depth: usize,
    a: Strided<'_>,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
    accumulate: bool,
) {
    assert!(a.data.len() > (TILE - 1) * a.row + (depth - 1) * a.column);
    assert!(b.len() >= (depth - 1) * b_row + REGISTERS * LANES);
    assert!(c.len() >= (TILE - 1) * c_row + REGISTERS * LANES);
    let mut sums = [[_mm512_setzero_ps(); REGISTERS]; TILE];
    // SAFETY: the greatest index of each matrix has been compared with its length above.
    unsafe {
        if accumulate {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(c.as_ptr().add(row * c_row + i * LANES));
                }
            }
        }
        for step in 0..depth {
            let b: [__m512; REGISTERS] =
                std::array::from_fn(|i| _mm512_loadu_ps(b.as_ptr().add(step * b_row + i * LANES)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.data.as_ptr().add(row * a.row + step * a.column));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_fmadd_ps(a, b, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (i, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(c.as_mut_ptr().add(row * c_row + i * LANES), *sum);
            }
        }
    }
}

/// Replaces a row by its exponentials, less its largest value; returns their sum and that value.
#[inline(always)]
fn soften(row: &mut [f32]) -> (f32, f32) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    // Zero, or no number if the row has such or an infinite one: comparisons would overlook it.
    let mut zeros = [0f32; LANES];
    let mut pieces = row.chunks_exact(LANES);
    for piece in &mut pieces {
        for i in 0..LANES {
            largest[i] = if piece[i] > largest[i] { piece[i] } else { largest[i] };
            zeros[i] += piece[i] * 0.0;
        }
    }
    for (i, &x) in pieces.remainder().iter().enumerate() {
        largest[i] = if x > largest[i] { x } else { largest[i] };
        zeros[i] += x * 0.0;
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = zeros;
    let mut pieces = row.chunks_exact_mut(LANES);
    for piece in &mut pieces {
        for i in 0..LANES {
            piece[i] = exp_of_negative(piece[i] - largest);
            sums[i] += piece[i];
        }
    }
    for (i, x) in pieces.into_remainder().iter_mut().enumerate() {
        *x = exp_of_negative(*x - largest);
        sums[i] += *x;
    }
    (sums.iter().sum(), largest)
}

#[inline(always)]
fn dot<E: Element>(a: &[E], b: &[E]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a.get() * b.get()).sum()
}

/// Rows as fp32 times `factor`, with zeros up to whole registers and up to a whole block of rows: [T…, width].
#[inline(always)]
fn packed<E: Element>(rows: Rows<'_, E>, n: usize, d: usize, width: usize, factor: f32) -> Vec<f32> {
    let mut out = vec![0.0; n.next_multiple_of(BLOCK) * width];
    for (token, out) in out.chunks_exact_mut(width).take(n).enumerate() {
        out.iter_mut().zip(rows.row(token, d)).for_each(|(out, x)| *out = x.get() * factor);
    }
    out
}

/// Rows as fp32, transposed in blocks: [blocks, width, BLOCK], with zeros where there is no token.
#[inline(always)]
fn transposed<E: Element>(rows: Rows<'_, E>, n: usize, d: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0; n.next_multiple_of(BLOCK) * width];
    for (block, out) in out.chunks_exact_mut(BLOCK * width).enumerate() {
        for token in 0..BLOCK.min(n - block * BLOCK) {
            let row = rows.row(block * BLOCK + token, d);
            row.iter().enumerate().for_each(|(i, x)| out[i * BLOCK + token] = x.get());
        }
    }
    out
}

/// The reverse of [`packed`] for as many rows as `out` has: [T, D].
#[inline(always)]
fn unpack<E: Element>(rows: &[f32], width: usize, out: &mut [E], d: usize, factor: f32) {
    for (out, row) in out.chunks_exact_mut(d).zip(rows.chunks_exact(width)) {
        out.iter_mut().zip(row).for_each(|(out, x)| *out = E::nearest(x * factor));
    }
}
