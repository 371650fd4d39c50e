//! Loops over host memory that libtorch has only as chains of passes: AdamW, normalisation, activations, cross-entropy.
//!
//! Each kernel is plain Rust that the compiler turns into vector code twice, once for any machine and once for AVX-512.
//! Sums run over [`LANES`] partial sums and nothing is contracted into fused multiply-adds, so both give the same bits,
//! and so does every number of threads: the parts that threads share do not depend on how many there are.

#![allow(clippy::too_many_arguments)] // a kernel takes its arrays; a struct of slices for one call would say no more

use half::bf16;
use tch::{Device, Kind, Tensor};

use crate::config::Mlp;

/// Partial sums of a reduction: one AVX-512 register of floats.
const LANES: usize = 16;

/// Below this many elements a second thread costs more than it saves.
const PARALLEL_FROM: usize = 1 << 20;

/// Compiles a function for any machine and for AVX-512, and calls the one that this machine can run.
macro_rules! for_each_machine {
    (
        $(#[$meta:meta])*
        fn $name:ident $(<$generic:ident>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        pub(crate) fn $name $(<$generic: $crate::kernels::Element>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain $(<$generic: $crate::kernels::Element>)? ($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                fn wide $(<$generic: $crate::kernels::Element>)? ($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                if $crate::kernels::has_avx512() {
                    // SAFETY: the features that the function needs have just been found.
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
            pub(crate) fn on_any_machine $(<$generic: $crate::kernels::Element>)? ($($arg: $ty),*) $(-> $ret)? $body
        }
    };
}
pub(crate) use for_each_machine;

/// Whether the versions for AVX-512 can run here.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
}

/// What activations are stored as; arithmetic is fp32.
pub(crate) trait Element: Copy + Send + Sync {
    /// The tensor kind of it.
    const KIND: Kind;
    fn get(self) -> f32;
    /// The nearest; ties go to the even one.
    fn nearest(x: f32) -> Self;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
    #[inline(always)]
    fn nearest(x: f32) -> f32 {
        x
    }
}

impl Element for bf16 {
    const KIND: Kind = Kind::BFloat16;
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    /// Without a branch for NaN, so that it vectorises: those that arithmetic makes stay NaN.
    #[inline(always)]
    fn nearest(x: f32) -> bf16 {
        let bits = x.to_bits();
        bf16::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }
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
    fn adamw(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], shadow: Option<&mut [bf16]>, n: AdamWNumbers) {
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
                *half = bf16::nearest(w);
            }
        }
    }
}

/// e^x for x ≤ 0 within two units in the last place; below -87 it gives e^-87, about 1e-38.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by the polynomial of the Cephes library, 2^n by its exponent bits.
#[inline(always)]
pub(crate) fn exp_of_negative(x: f32) -> f32 {
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
    /// gradient is 0 and so is the result. `powers` is for intermediate results and as long as the row: it stays in the
    /// cache.
    fn cross_entropy_row<E>(
        row: &mut [E], vocab: usize, target: Option<usize>, scale: f32, powers: &mut [f32],
    ) -> f64 {
        let (logits, padding) = row.split_at_mut(vocab);
        let powers = &mut powers[..vocab];
        padding.fill(E::nearest(0.0));
        let Some(target) = target else {
            logits.fill(E::nearest(0.0));
            return 0.0;
        };
        let mut largest = [f32::NEG_INFINITY; LANES];
        let mut pieces = logits.chunks_exact(LANES);
        for piece in &mut pieces {
            for (lane, x) in largest.iter_mut().zip(piece) {
                *lane = if x.get() > *lane { x.get() } else { *lane };
            }
        }
        let rest = pieces.remainder().iter().map(|x| x.get());
        let largest = largest.into_iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        let at_target = logits[target].get();
        let mut sums = [0f32; LANES];
        let mut pieces = logits.chunks_exact(LANES);
        let mut power_pieces = powers.chunks_exact_mut(LANES);
        for (piece, powers) in (&mut pieces).zip(&mut power_pieces) {
            for ((lane, x), power) in sums.iter_mut().zip(piece).zip(powers) {
                *power = exp_of_negative(x.get() - largest);
                *lane += *power;
            }
        }
        let mut sum = sums.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        for (x, power) in pieces.remainder().iter().zip(power_pieces.into_remainder()) {
            *power = exp_of_negative(x.get() - largest);
            sum += f64::from(*power);
        }
        let factor = (f64::from(scale) / sum) as f32;
        for (x, power) in logits.iter_mut().zip(powers.iter()) {
            *x = E::nearest(power * factor);
        }
        logits[target] = E::nearest(powers[target] * factor - scale);
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
    /// Sum of the squares in fp64.
    fn square_sum(x: &[f32]) -> f64 {
        let mut sums = [0f64; LANES];
        let mut pieces = x.chunks_exact(LANES);
        for piece in &mut pieces {
            for (sum, &x) in sums.iter_mut().zip(piece) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += sum;
        }
        for &x in pieces.remainder() {
            total += f64::from(x) * f64::from(x);
        }
        total
    }
}

/// Normalises a row: LayerNorm if `centred`, else RMSNorm. Returns (mean, 1 / deviation), the mean of RMSNorm being 0.
#[inline(always)]
fn norm_row<E: Element>(x: &[f32], norm: Norm<'_>, out: &mut [E]) -> [f32; 2] {
    let c = norm.weight.len();
    let (x, out) = (&x[..c], &mut out[..c]);
    let mean = if norm.centred { lane_sum(c, |i| x[i]) / c as f32 } else { 0.0 };
    let variance = lane_sum(c, |i| (x[i] - mean) * (x[i] - mean)) / c as f32;
    let inverse = 1.0 / (variance + norm.eps).sqrt();
    match norm.bias {
        None => (0..c).for_each(|i| out[i] = E::nearest((x[i] - mean) * inverse * norm.weight[i])),
        Some(bias) => {
            let bias = &bias[..c];
            (0..c).for_each(|i| out[i] = E::nearest((x[i] - mean) * inverse * norm.weight[i] + bias[i]));
        }
    }
    [mean, inverse]
}

/// A normalisation's parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm<'a> {
    /// [C]
    pub(crate) weight: &'a [f32],
    /// [C]
    pub(crate) bias: Option<&'a [f32]>,
    /// LayerNorm, else RMSNorm.
    pub(crate) centred: bool,
    pub(crate) eps: f32,
}

for_each_machine! {
    /// Normalises the rows of `x`; `stats` receives (mean, 1 / deviation) of each.
    fn norm_rows<E>(x: &[f32], norm: Norm<'_>, out: &mut [E], stats: &mut [[f32; 2]]) {
        let c = norm.weight.len();
        for ((x, out), stat) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)).zip(stats) {
            *stat = norm_row(x, norm, out);
        }
    }
}

for_each_machine! {
    /// `sum` = `x` + `y` + `y_bias`, and [`norm_rows`] of it.
    fn add_norm_rows<E>(
        x: &[f32], y: &[E], y_bias: Option<&[f32]>, sum: &mut [f32], norm: Norm<'_>, out: &mut [E],
        stats: &mut [[f32; 2]],
    ) {
        let c = norm.weight.len();
        let rows = x.chunks_exact(c).zip(y.chunks_exact(c)).zip(sum.chunks_exact_mut(c));
        for (((x, y), sum), (out, stat)) in rows.zip(out.chunks_exact_mut(c).zip(stats)) {
            match y_bias {
                None => (0..c).for_each(|i| sum[i] = x[i] + y[i].get()),
                Some(bias) => {
                    let bias = &bias[..c];
                    (0..c).for_each(|i| sum[i] = x[i] + (y[i].get() + bias[i]));
                }
            }
            *stat = norm_row(sum, norm, out);
        }
    }
}

/// What the backward pass of a normalisation, and of the addition before it, adds to or writes.
#[derive(Debug)]
pub(crate) struct NormGradients<'a, E> {
    /// Gradient of the input, added to: [N, C].
    pub(crate) dx: &'a mut [f32],
    /// Receives `dx` as it is afterwards, which is the gradient of the addend.
    pub(crate) addend: Option<&'a mut [E]>,
    /// [C], added to.
    pub(crate) weight: &'a mut [f32],
    /// [C], added to.
    pub(crate) bias: Option<&'a mut [f32]>,
    /// Of the bias in the addend: [C], added to.
    pub(crate) addend_bias: Option<&'a mut [f32]>,
}

for_each_machine! {
    /// Backward of [`norm_rows`] and [`add_norm_rows`]: `x` is what was normalised.
    fn norm_rows_backward<E>(
        dy: &[E], x: &[f32], norm: Norm<'_>, stats: &[[f32; 2]], gradients: NormGradients<'_, E>,
    ) {
        let NormGradients { dx, mut addend, weight: dweight, mut bias, mut addend_bias } = gradients;
        let (weight, c) = (norm.weight, norm.weight.len());
        let dweight = &mut dweight[..c];
        let rows = dy.chunks_exact(c).zip(x.chunks_exact(c)).zip(dx.chunks_exact_mut(c)).zip(stats);
        for (row, (((dy, x), dx), &[mean, inverse])) in rows.enumerate() {
            let mean_g = if norm.centred { lane_sum(c, |i| dy[i].get() * weight[i]) / c as f32 } else { 0.0 };
            let mean_gx = lane_sum(c, |i| dy[i].get() * weight[i] * ((x[i] - mean) * inverse)) / c as f32;
            for i in 0..c {
                let normed = (x[i] - mean) * inverse;
                dx[i] += inverse * (dy[i].get() * weight[i] - mean_g - normed * mean_gx);
                dweight[i] += dy[i].get() * normed;
            }
            if let Some(sums) = &mut bias {
                sums.iter_mut().zip(dy).for_each(|(sum, x)| *sum += x.get());
            }
            if let Some(sums) = &mut addend_bias {
                sums.iter_mut().zip(&*dx).for_each(|(sum, x)| *sum += x);
            }
            if let Some(addend) = &mut addend {
                addend[row * c..][..c].iter_mut().zip(&*dx).for_each(|(out, x)| *out = E::nearest(*x));
            }
        }
    }
}

/// The logistic function of `x`, and 1 - it.
#[inline(always)]
fn logistic(x: f32) -> (f32, f32) {
    let e = exp_of_negative(-x.abs());
    let large = 1.0 / (1.0 + e);
    let small = e * large;
    if x >= 0.0 { (large, small) } else { (small, large) }
}

/// sqrt(2 / π).
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBE: f32 = 0.044_715;

/// x / 2 (1 + tanh(sqrt(2 / π) (x + 0.044715 x³))), by (1 + tanh u) / 2 = logistic(2 u).
#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * logistic(2.0 * GELU_SCALE * (x + GELU_CUBE * x * x * x)).0
}

#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    let (p, q) = logistic(2.0 * GELU_SCALE * (x + GELU_CUBE * x * x * x));
    p + x * p * q * (2.0 * GELU_SCALE * (1.0 + 3.0 * GELU_CUBE * x * x))
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x * logistic(x).0
}

#[inline(always)]
fn silu_slope(x: f32) -> f32 {
    let (p, q) = logistic(x);
    p * (1.0 + x * q)
}

for_each_machine! {
    /// The activation between the layers of the MLP, of `up` + `bias`: rows of F, for SwiGLU of 2 F (gate, value), become
    /// rows of F in `out`. `bias` has the length of a row of `up`; without one there are zeros.
    fn activate_rows<E>(mlp: Mlp, up: &[E], bias: &[f32], out: &mut [E]) {
        match mlp {
            Mlp::Gelu | Mlp::Relu2 => {
                for (up, out) in up.chunks_exact(bias.len()).zip(out.chunks_exact_mut(bias.len())) {
                    let each = out.iter_mut().zip(up).zip(bias);
                    match mlp {
                        Mlp::Gelu => each.for_each(|((out, x), b)| *out = E::nearest(gelu(x.get() + b))),
                        _ => each.for_each(|((out, x), b)| {
                            let x = x.get() + b;
                            *out = E::nearest(if x < 0.0 { 0.0 } else { x * x });
                        }),
                    }
                }
            }
            Mlp::SwiGlu => {
                let f = bias.len() / 2;
                let (gate_bias, value_bias) = bias.split_at(f);
                for (up, out) in up.chunks_exact(2 * f).zip(out.chunks_exact_mut(f)) {
                    let (gate, value) = up.split_at(f);
                    let (value_bias, value) = (&value_bias[..f], &value[..f]);
                    for (i, ((out, gate), b)) in out.iter_mut().zip(gate).zip(gate_bias).enumerate() {
                        *out = E::nearest(silu(gate.get() + b) * (value[i].get() + value_bias[i]));
                    }
                }
            }
        }
    }
}

for_each_machine! {
    /// Backward of [`activate_rows`]: writes the gradient of `up` and adds that of the bias to `dbias`.
    fn activate_rows_backward<E>(mlp: Mlp, up: &[E], bias: &[f32], dy: &[E], dup: &mut [E], dbias: &mut [f32]) {
        match mlp {
            Mlp::Gelu | Mlp::Relu2 => {
                let f = bias.len();
                let dbias = &mut dbias[..f];
                for ((up, dy), dup) in up.chunks_exact(f).zip(dy.chunks_exact(f)).zip(dup.chunks_exact_mut(f)) {
                    for i in 0..f {
                        let x = up[i].get() + bias[i];
                        let slope = match mlp {
                            Mlp::Gelu => gelu_slope(x),
                            _ => if x < 0.0 { 0.0 } else { 2.0 * x },
                        };
                        let gradient = dy[i].get() * slope;
                        dup[i] = E::nearest(gradient);
                        dbias[i] += gradient;
                    }
                }
            }
            Mlp::SwiGlu => {
                let f = bias.len() / 2;
                let (gate_bias, value_bias) = (&bias[..f], &bias[f..2 * f]);
                let (dgate_bias, dvalue_bias) = dbias.split_at_mut(f);
                let (dgate_bias, dvalue_bias) = (&mut dgate_bias[..f], &mut dvalue_bias[..f]);
                let rows = up.chunks_exact(2 * f).zip(dy.chunks_exact(f)).zip(dup.chunks_exact_mut(2 * f));
                for ((up, dy), dup) in rows {
                    let (gate, value) = (&up[..f], &up[f..2 * f]);
                    let (dgate, dvalue) = dup.split_at_mut(f);
                    let (dgate, dvalue) = (&mut dgate[..f], &mut dvalue[..f]);
                    for i in 0..f {
                        let (x, v) = (gate[i].get() + gate_bias[i], value[i].get() + value_bias[i]);
                        let by_gate = dy[i].get() * v * silu_slope(x);
                        let by_value = dy[i].get() * silu(x);
                        dgate[i] = E::nearest(by_gate);
                        dvalue[i] = E::nearest(by_value);
                        dgate_bias[i] += by_gate;
                        dvalue_bias[i] += by_value;
                    }
                }
            }
        }
    }
}

for_each_machine! {
    /// Adds `bias` to each row.
    fn add_bias<E>(rows: &mut [E], bias: &[f32]) {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(x, b)| *x = E::nearest(x.get() + b));
        }
    }
}

for_each_machine! {
    /// Adds the sum of the rows to `sums`.
    fn add_rows<E>(rows: &[E], sums: &mut [f32]) {
        for row in rows.chunks_exact(sums.len()) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x.get());
        }
    }
}

for_each_machine! {
    /// Adds `new` to `sums`, or replaces them.
    fn accumulate<E>(sums: &mut [f32], new: &[E], replace: bool) {
        match replace {
            true => sums.iter_mut().zip(new).for_each(|(sum, x)| *sum = x.get()),
            false => sums.iter_mut().zip(new).for_each(|(sum, x)| *sum += x.get()),
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

/// The values of a contiguous tensor of this kind in host memory.
///
/// # Panics
/// If the tensor is another.
pub(crate) fn elements<E: Element>(tensor: &Tensor) -> &[E] {
    // SAFETY: as in `floats`; `KIND` says the size of an element, and every bit pattern is one.
    unsafe { std::slice::from_raw_parts(address(tensor, E::KIND).cast(), tensor.numel()) }
}

/// The memory of a tensor of this kind on the host, from its first element to its last.
///
/// # Panics
/// If the tensor is of another kind or elsewhere.
#[cfg(target_arch = "x86_64")]
pub(crate) fn strided_elements<E: Element>(tensor: &Tensor) -> &[E] {
    assert!(tensor.kind() == E::KIND && tensor.device() == Device::Cpu, "needs {:?} on the CPU", E::KIND);
    if tensor.numel() == 0 {
        return &[];
    }
    let last: i64 = tensor.size().iter().zip(tensor.stride()).map(|(size, stride)| (size - 1) * stride).sum();
    // SAFETY: strides of a tensor are not negative, so that all between its first and last element is of its storage.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast_const().cast(), last as usize + 1) }
}

/// The values of a contiguous tensor of this kind in host memory, to be changed.
///
/// # Panics
/// If the tensor is another.
pub(crate) fn elements_mut<E: Element>(tensor: &mut Tensor) -> &mut [E] {
    // SAFETY: as in `floats_mut` and `elements`.
    unsafe { std::slice::from_raw_parts_mut(address(tensor, E::KIND).cast(), tensor.numel()) }
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
            let mut powers = vec![0.0; row.len()];
            let loss = cross_entropy_row(&mut a, vocab, Some(target), 0.5, &mut powers);
            prop_assert_eq!(loss, cross_entropy_row::on_any_machine(&mut b, vocab, Some(target), 0.5, &mut powers));
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
        fn square_sums_are_the_same_on_every_machine(length in 0usize..100, seed: u64) {
            let x = Rng::new(seed, "squares").normal(length, 2.0);
            let sum = square_sum(&x);
            prop_assert_eq!(sum, square_sum::on_any_machine(&x));
            let expected: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            prop_assert!((sum - expected).abs() <= 1e-13 * expected);
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
                let (mut w, mut m, mut v, mut half) = (w.clone(), m.clone(), v.clone(), vec![bf16::ZERO; length]);
                match wide {
                    true => adamw(&mut w, &g, &mut m, &mut v, Some(&mut half), n),
                    false => adamw::on_any_machine(&mut w, &g, &mut m, &mut v, Some(&mut half), n),
                }
                (w, m, v, half)
            };
            let (a, b) = (run(true), run(false));
            let expected = Tensor::from_slice(&a.0).to_kind(Kind::BFloat16).to_kind(Kind::Float);
            let halves: Vec<f32> = a.3.iter().map(|h| h.to_f32()).collect();
            prop_assert_eq!(Vec::<f32>::try_from(expected).unwrap(), halves);
            prop_assert_eq!(a, b);
        }

        #[test]
        fn norms_are_the_same_on_every_machine(rows in 1usize..4, c in 1usize..40, centred: bool, seed: u64) {
            let mut rng = Rng::new(seed, "norm");
            let [x, y, dy] = [2.0, 1.0, 1.0].map(|std| rng.normal(rows * c, std));
            let [weight, bias, y_bias] = [1.0, 1.0, 1.0].map(|std| rng.normal(c, std));
            let norm = Norm { weight: &weight, bias: Some(&bias), centred, eps: 1e-5 };
            let run = |wide: bool| {
                let [mut sum, mut out] = [(); 2].map(|()| vec![0.0; rows * c]);
                let (mut dx, mut low, mut stats) = (vec![0.5; rows * c], vec![0.0; rows * c], vec![[0.0; 2]; rows]);
                let [mut dw, mut db, mut dy_bias] = [(); 3].map(|()| vec![0.0; c]);
                let gradients = NormGradients {
                    dx: &mut dx,
                    addend: Some(&mut low),
                    weight: &mut dw,
                    bias: Some(&mut db),
                    addend_bias: Some(&mut dy_bias),
                };
                if wide {
                    add_norm_rows(&x, &y, Some(&y_bias), &mut sum, norm, &mut out, &mut stats);
                    norm_rows_backward(&dy, &sum, norm, &stats, gradients);
                } else {
                    add_norm_rows::on_any_machine(&x, &y, Some(&y_bias), &mut sum, norm, &mut out, &mut stats);
                    norm_rows_backward::on_any_machine(&dy, &sum, norm, &stats, gradients);
                }
                let (mut plain, mut plain_stats) = (vec![0.0; rows * c], vec![[0.0; 2]; rows]);
                norm_rows(&sum, norm, &mut plain, &mut plain_stats);
                assert_eq!((&plain, &plain_stats), (&out, &stats));
                assert_eq!(dx, low);
                (out, stats, dx, dw, db, dy_bias)
            };
            prop_assert_eq!(run(true), run(false));
        }

        #[test]
        fn sums_and_roundings_are_the_same_on_every_machine(rows in 1usize..4, c in 1usize..40, seed: u64) {
            let mut rng = Rng::new(seed, "sums");
            let (x, bias) = (rng.normal(rows * c, 2.0), rng.normal(c, 1.0));
            let low: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
            prop_assert_eq!(&low, &x.iter().map(|x| bf16::nearest(*x)).collect::<Vec<_>>());
            let norm = Norm { weight: &bias, bias: None, centred: false, eps: 1e-5 };
            let run = |wide: bool| {
                let (mut shifted, mut sums, mut added) = (low.clone(), vec![1.0; c], x.clone());
                let (mut out, mut stats) = (vec![bf16::ZERO; rows * c], vec![[0.0; 2]; rows]);
                if wide {
                    add_bias(&mut shifted, &bias);
                    add_rows(&low, &mut sums);
                    accumulate(&mut added, &low, false);
                    norm_rows(&x, norm, &mut out, &mut stats);
                } else {
                    add_bias::on_any_machine(&mut shifted, &bias);
                    add_rows::on_any_machine(&low, &mut sums);
                    accumulate::on_any_machine(&mut added, &low, false);
                    norm_rows::on_any_machine(&x, norm, &mut out, &mut stats);
                }
                (shifted, sums, added, out, stats)
            };
            let (shifted, sums, added, ..) = run(true);
            prop_assert_eq!(run(true), run(false));
            for i in 0..rows * c {
                prop_assert_eq!(shifted[i], bf16::from_f32(low[i].to_f32() + bias[i % c]));
                prop_assert_eq!(added[i], x[i] + low[i].to_f32());
            }
            for (i, sum) in sums.iter().enumerate() {
                let expected = (0..rows).fold(1.0, |sum, row| sum + low[row * c + i].to_f32());
                prop_assert_eq!(*sum, expected);
            }
            let mut replaced = x.clone();
            accumulate(&mut replaced, &low, true);
            prop_assert_eq!(replaced, low.iter().map(|x| x.to_f32()).collect::<Vec<_>>());
        }

        #[test]
        fn activations_equal_the_formula_and_its_slope(f in 1usize..40, seed: u64) {
            for mlp in [Mlp::Gelu, Mlp::Relu2, Mlp::SwiGlu] {
                let (rows, width) = (2, if mlp == Mlp::SwiGlu { 2 * f } else { f });
                let mut rng = Rng::new(seed, "mlp");
                let (up, bias, dy) = (rng.normal(rows * width, 2.0), rng.normal(width, 1.0), rng.normal(rows * f, 1.0));
                let run = |wide: bool| {
                    let (mut out, mut dup, mut dbias) = (vec![0.0; rows * f], vec![0.0; rows * width], vec![0.0; width]);
                    if wide {
                        activate_rows(mlp, &up, &bias, &mut out);
                        activate_rows_backward(mlp, &up, &bias, &dy, &mut dup, &mut dbias);
                    } else {
                        activate_rows::on_any_machine(mlp, &up, &bias, &mut out);
                        activate_rows_backward::on_any_machine(mlp, &up, &bias, &dy, &mut dup, &mut dbias);
                    }
                    (out, dup, dbias)
                };
                let (out, dup, dbias) = run(true);
                prop_assert_eq!((&out, &dup, &dbias), (&run(false).0, &run(false).1, &run(false).2));
                let at = |row: usize, i: usize| f64::from(up[row * width + i]) + f64::from(bias[i]);
                let formula = |row: usize, i: usize, by: f64, of_value: bool| {
                    let x = at(row, i) + if of_value { 0.0 } else { by };
                    match mlp {
                        Mlp::Gelu => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
                        Mlp::Relu2 => x.max(0.0) * x.max(0.0),
                        Mlp::SwiGlu => x / (1.0 + (-x).exp()) * (at(row, f + i) + if of_value { by } else { 0.0 }),
                    }
                };
                let close = |got: f32, expected: f64, scale: f64| (f64::from(got) - expected).abs() < 3e-6 * (scale + 1.0);
                let mut sums = vec![0.0; width];
                for (row, i) in (0..rows).flat_map(|row| (0..f).map(move |i| (row, i))) {
                    prop_assert!(close(out[row * f + i], formula(row, i, 0.0, false), 10.0));
                    for of_value in [false, true].into_iter().take(width / f) {
                        let h = 1e-5;
                        let slope = (formula(row, i, h, of_value) - formula(row, i, -h, of_value)) / (2.0 * h);
                        let place = if of_value { f + i } else { i };
                        let got = dup[row * width + place];
                        // Where ReLU² bends, the slope is not to be had from differences; it is within h there.
                        prop_assert!(close(got, slope * f64::from(dy[row * f + i]), 20.0), "{mlp:?}: {got} {slope}");
                        sums[place] += f64::from(got);
                    }
                }
                for (got, sum) in dbias.iter().zip(&sums) {
                    prop_assert!(close(*got, *sum, 10.0));
                }
            }
        }
    }
}
