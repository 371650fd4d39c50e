//! Loops over host memory that libtorch has only as chains of passes: AdamW, normalisation, cross-entropy.
//!
//! Each kernel is plain Rust that the compiler turns into vector code twice, once for any machine and once for AVX-512.
//! Sums run over [`LANES`] partial sums and nothing is contracted into fused multiply-adds, so both give the same bits,
//! and so does every number of threads: threads share rows or elements, never a sum.

#![allow(clippy::too_many_arguments)] // a kernel takes its arrays; a struct of slices for one call would say no more

use tch::{Device, Kind, Tensor};

/// Partial sums of a reduction: one AVX-512 register of floats.
const LANES: usize = 16;

/// Below this many elements a second thread costs more than it saves.
const PARALLEL_FROM: usize = 1 << 20;

/// Compiles a function for any machine and for AVX-512, and calls the one that this machine can run.
macro_rules! for_each_machine {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn wide($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the feature that the function needs has just been found.
                    return unsafe { wide($($arg),*) };
                }
            }
            plain($($arg),*)
        }
        #[cfg(test)]
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            /// The version for any machine, to compare with.
            #[inline(never)]
            pub(crate) fn on_any_machine($($arg: $ty),*) $(-> $ret)? $body
        }
    };
}

/// The numbers of one AdamW update that are the same for all elements of a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamWNumbers {
    /// Factor of the gradient: clipping.
    pub(crate) scale: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) eps: f32,
    /// lr / (1 - β1^t).
    pub(crate) rate: f32,
    /// 1 / sqrt(1 - β2^t).
    pub(crate) inverse_root_bias2: f32,
    /// 1 - lr × weight decay.
    pub(crate) decay: f32,
}

for_each_machine! {
    /// One AdamW update in one pass; with `shadow`, the weights are also stored as bf16, rounded to nearest even.
    fn adamw(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], shadow: Option<&mut [u16]>, n: AdamWNumbers) {
        let length = w.len();
        let (g, m, v) = (&g[..length], &mut m[..length], &mut v[..length]);
        let (rest1, rest2) = (1.0 - n.beta1, 1.0 - n.beta2);
        for i in 0..length {
            let gradient = g[i] * n.scale;
            m[i] = n.beta1 * m[i] + rest1 * gradient;
            v[i] = n.beta2 * v[i] + rest2 * gradient * gradient;
            let denominator = v[i].sqrt() * n.inverse_root_bias2 + n.eps;
            w[i] = n.decay * w[i] - n.rate * m[i] / denominator;
        }
        if let Some(shadow) = shadow {
            for (half, &w) in shadow[..length].iter_mut().zip(w.iter()) {
                let bits = w.to_bits();
                *half = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
            }
        }
    }
}

/// e^x for x ≤ 0 within two units in the last place; below -87 it gives e^-87, about 1e-38.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by the polynomial of the Cephes library, 2^n by its exponent bits.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    /// 1.5 × 2^23: added to a small number it leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_2e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        p = p * r + c;
    }
    let exp_r = p * r * r + r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    exp_r * power
}

for_each_machine! {
    /// Turns a row of logits into the gradient of `scale` × its cross-entropy and returns the cross-entropy in nats.
    ///
    /// Logits from `vocab` on are padding: they count for nothing and their gradient is 0. Without a target the whole
    /// gradient is 0 and so is the result.
    fn cross_entropy_row(row: &mut [f32], vocab: usize, target: Option<usize>, scale: f32) -> f64 {
        let (logits, padding) = row.split_at_mut(vocab);
        padding.fill(0.0);
        let Some(target) = target else {
            logits.fill(0.0);
            return 0.0;
        };
        let mut largest = [f32::NEG_INFINITY; LANES];
        let mut pieces = logits.chunks_exact(LANES);
        for piece in &mut pieces {
            for (lane, x) in largest.iter_mut().zip(piece) {
                *lane = if *x > *lane { *x } else { *lane };
            }
        }
        let rest = pieces.remainder().iter();
        let largest = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        let at_target = logits[target];
        let mut sums = [0f32; LANES];
        let mut pieces = logits.chunks_exact_mut(LANES);
        for piece in &mut pieces {
            for (lane, x) in sums.iter_mut().zip(piece) {
                *x = exp_of_negative(*x - largest);
                *lane += *x;
            }
        }
        let mut sum = sums.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        for x in pieces.into_remainder() {
            *x = exp_of_negative(*x - largest);
            sum += f64::from(*x);
        }
        let factor = (f64::from(scale) / sum) as f32;
        for x in logits.iter_mut() {
            *x *= factor;
        }
        logits[target] -= scale;
        // An infinite or undefined logit must be seen in the loss, whatever the comparisons above made of it.
        sum.ln() - f64::from(at_target - largest)
    }
}

/// Sum of `f(i)` for `i` in 0..`length`, in [`LANES`] partial sums.
#[inline(always)]
fn lane_sum(length: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let whole = length - length % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    let mut total = 0.0;
    for sum in sums {
        total += sum;
    }
    for i in whole..length {
        total += f(i);
    }
    total
}

for_each_machine! {
    /// Normalises the rows of `x`; `centred` is LayerNorm, else RMSNorm. `stats` receives (mean, 1 / deviation) of each
    /// row, the mean of RMSNorm being 0.
    fn norm_rows(
        x: &[f32], weight: &[f32], bias: Option<&[f32]>, centred: bool, eps: f32, out: &mut [f32],
        stats: &mut [[f32; 2]],
    ) {
        let c = weight.len();
        for ((x, out), stat) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)).zip(stats) {
            let mean = if centred { lane_sum(c, |i| x[i]) / c as f32 } else { 0.0 };
            let variance = lane_sum(c, |i| (x[i] - mean) * (x[i] - mean)) / c as f32;
            let inverse = 1.0 / (variance + eps).sqrt();
            *stat = [mean, inverse];
            match bias {
                None => (0..c).for_each(|i| out[i] = (x[i] - mean) * inverse * weight[i]),
                Some(bias) => (0..c).for_each(|i| out[i] = (x[i] - mean) * inverse * weight[i] + bias[i]),
            }
        }
    }
}

for_each_machine! {
    /// Backward of [`norm_rows`]: adds the gradient of its input to `dx`, of its weight to `dweight`, of its bias to
    /// `dbias`.
    fn norm_rows_backward(
        dy: &[f32], x: &[f32], weight: &[f32], centred: bool, stats: &[[f32; 2]], dx: &mut [f32],
        dweight: &mut [f32], dbias: Option<&mut [f32]>,
    ) {
        let c = weight.len();
        let dweight = &mut dweight[..c];
        let rows = dy.chunks_exact(c).zip(x.chunks_exact(c)).zip(dx.chunks_exact_mut(c)).zip(stats);
        for (((dy, x), dx), &[mean, inverse]) in rows {
            let mean_g = if centred { lane_sum(c, |i| dy[i] * weight[i]) / c as f32 } else { 0.0 };
            let mean_gx = lane_sum(c, |i| dy[i] * weight[i] * ((x[i] - mean) * inverse)) / c as f32;
            for i in 0..c {
                let normed = (x[i] - mean) * inverse;
                dx[i] += inverse * (dy[i] * weight[i] - mean_g - normed * mean_gx);
                dweight[i] += dy[i] * normed;
            }
        }
        if let Some(dbias) = dbias {
            for dy in dy.chunks_exact(c) {
                for (sum, x) in dbias.iter_mut().zip(dy) {
                    *sum += x;
                }
            }
        }
    }
}

/// Cuts `items` into one part for each thread and works on them at once; small work stays on this thread.
pub(crate) fn in_parallel<T: Send>(items: Vec<T>, elements: usize, work: impl Fn(T) + Sync) {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
    if threads == 1 || elements < PARALLEL_FROM {
        return items.into_iter().for_each(work);
    }
    let mut parts: Vec<Vec<T>> = (0..threads).map(|_| Vec::new()).collect();
    for (i, item) in items.into_iter().enumerate() {
        parts[i % threads].push(item);
    }
    let work = &work;
    std::thread::scope(|scope| {
        for part in parts.drain(1..) {
            scope.spawn(move || part.into_iter().for_each(work));
        }
        parts.remove(0).into_iter().for_each(work);
    });
}

/// The values of a contiguous fp32 tensor in host memory.
///
/// # Panics
/// If the tensor is another: the fused engine makes all tensors that come here.
pub(crate) fn floats(tensor: &Tensor) -> &[f32] {
    // SAFETY: `address` has checked that so many floats lie there; the borrow keeps the tensor alive.
    unsafe { std::slice::from_raw_parts(address(tensor, Kind::Float).cast(), tensor.numel()) }
}

/// The values of a contiguous fp32 tensor in host memory, to be changed.
///
/// # Panics
/// If the tensor is another.
pub(crate) fn floats_mut(tensor: &mut Tensor) -> &mut [f32] {
    // SAFETY: as in `floats`; the exclusive borrow is of the only handle that the caller uses meanwhile, and all tensor
    // work is on one thread.
    unsafe { std::slice::from_raw_parts_mut(address(tensor, Kind::Float).cast(), tensor.numel()) }
}

/// The bits of a contiguous bf16 tensor in host memory, to be changed.
///
/// # Panics
/// If the tensor is another.
pub(crate) fn halves_mut(tensor: &mut Tensor) -> &mut [u16] {
    // SAFETY: as in `floats_mut`, with two bytes an element.
    unsafe { std::slice::from_raw_parts_mut(address(tensor, Kind::BFloat16).cast(), tensor.numel()) }
}

fn address(tensor: &Tensor, kind: Kind) -> *mut std::ffi::c_void {
    assert!(
        tensor.kind() == kind && tensor.device() == Device::Cpu && tensor.is_contiguous(),
        "a contiguous {kind:?} tensor on the CPU is needed"
    );
    // The address of an empty tensor may be null, which a slice must not have.
    if tensor.numel() == 0 { std::ptr::NonNull::<f32>::dangling().as_ptr().cast() } else { tensor.data_ptr() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn exp_is_right_to_two_units() {
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp_of_negative(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "{x}: {error}");
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert!(exp_of_negative(f32::NEG_INFINITY) < 1e-37);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn machines_agree_and_equal_the_formula(vocab in 1usize..70, padding in 0usize..5, seed: u64) {
            let mut rng = Rng::new(seed, "row");
            let row = rng.normal(vocab + padding, 4.0);
            let target = (rng.next_u64() % vocab as u64) as usize;
            let (mut a, mut b) = (row.clone(), row.clone());
            let loss = cross_entropy_row(&mut a, vocab, Some(target), 0.5);
            prop_assert_eq!(loss, cross_entropy_row::on_any_machine(&mut b, vocab, Some(target), 0.5));
            prop_assert_eq!(&a, &b);
            let sum: f64 = row[..vocab].iter().map(|&x| f64::from(x).exp()).sum();
            prop_assert!((loss - (sum.ln() - f64::from(row[target]))).abs() < 1e-5);
            for (i, &gradient) in a.iter().enumerate() {
                let p = if i < vocab { f64::from(row[i]).exp() / sum } else { 0.0 };
                let expected = 0.5 * (p - f64::from(u8::from(i == target)));
                prop_assert!((f64::from(gradient) - expected).abs() < 1e-6);
            }
        }

        #[test]
        fn adamw_is_the_same_on_every_machine(length in 0usize..100, seed: u64) {
            let mut rng = Rng::new(seed, "adamw");
            let [w, g, m] = [1.0, 0.1, 0.1].map(|std| rng.normal(length, std));
            let v: Vec<f32> = g.iter().map(|x| x * x).collect();
            let n = AdamWNumbers {
                scale: 0.7, beta1: 0.9, beta2: 0.95, eps: 1e-8, rate: 0.01, inverse_root_bias2: 1.3, decay: 0.999,
            };
            let run = |wide: bool| {
                let (mut w, mut m, mut v, mut half) = (w.clone(), m.clone(), v.clone(), vec![0u16; length]);
                match wide {
                    true => adamw(&mut w, &g, &mut m, &mut v, Some(&mut half), n),
                    false => adamw::on_any_machine(&mut w, &g, &mut m, &mut v, Some(&mut half), n),
                }
                (w, m, v, half)
            };
            let (a, b) = (run(true), run(false));
            let expected = Tensor::from_slice(&a.0).to_kind(Kind::BFloat16).to_kind(Kind::Float);
            let halves: Vec<f32> = a.3.iter().map(|&h| f32::from_bits(u32::from(h) << 16)).collect();
            prop_assert_eq!(Vec::<f32>::try_from(expected).unwrap(), halves);
            prop_assert_eq!(a, b);
        }

        #[test]
        fn norms_are_the_same_on_every_machine(rows in 1usize..4, c in 1usize..40, centred: bool, seed: u64) {
            let mut rng = Rng::new(seed, "norm");
            let [x, dy] = [2.0, 1.0].map(|std| rng.normal(rows * c, std));
            let [weight, bias] = [1.0, 1.0].map(|std| rng.normal(c, std));
            let run = |wide: bool| {
                let (mut out, mut stats) = (vec![0.0; rows * c], vec![[0.0; 2]; rows]);
                let (mut dx, mut dw, mut db) = (vec![0.5; rows * c], vec![0.0; c], vec![0.0; c]);
                if wide {
                    norm_rows(&x, &weight, Some(&bias), centred, 1e-5, &mut out, &mut stats);
                    norm_rows_backward(&dy, &x, &weight, centred, &stats, &mut dx, &mut dw, Some(&mut db));
                } else {
                    norm_rows::on_any_machine(&x, &weight, Some(&bias), centred, 1e-5, &mut out, &mut stats);
                    norm_rows_backward::on_any_machine(
                        &dy, &x, &weight, centred, &stats, &mut dx, &mut dw, Some(&mut db),
                    );
                }
                (out, stats, dx, dw, db)
            };
            prop_assert_eq!(run(true), run(false));
        }
    }
}
