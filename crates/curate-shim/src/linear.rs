//! Matrix products through oneDNN: what a linear layer and its backward pass need.
//!
//! For inputs x [N, I], weight w [O, I] and outputs y [N, O], all contiguous:
//! ```text
//! y = x · wᵀ          dx = dy · w          dw (+)= dyᵀ · x
//! ```
//! Nothing is copied or transposed in memory. Sums are in fp32; with bf16 the result is rounded once at the end. The
//! same call on the same machine with as many threads gives the same bits.

use std::ffi::{c_char, c_int};

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::{Error, Result, check};

unsafe extern "C" {
    fn curate_matmul(
        a: *const C_tensor,
        b: *const C_tensor,
        out: *mut C_tensor,
        accumulate: c_int,
    ) -> *mut c_char;
}

/// Whether oneDNN has its fast kernels for this machine: AVX-512 with byte, word, double-word and vector-length
/// extensions. Where it has not, the functions of this module return an error.
pub fn is_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// y = x · wᵀ: `x` [N, I], `weight` [O, I], `y` [N, O], all of one kind, fp32 or bf16.
pub fn forward(x: &Tensor, weight: &Tensor, y: &mut Tensor) -> Result<()> {
    const NAME: &str = "linear::forward";
    let ([n, i], [o, i2], [n2, o2]) = (shape(NAME, x)?, shape(NAME, weight)?, shape(NAME, y)?);
    expect(NAME, n == n2 && i == i2 && o == o2, || {
        format!("shapes [{n}, {i}] · [{o}, {i2}]ᵀ do not give [{n2}, {o2}]")
    })?;
    matmul(NAME, x, &weight.f_tr()?, y, false)
}

/// dx = dy · w: `dy` [N, O], `weight` [O, I], `dx` [N, I], all of one kind.
pub fn input_gradient(dy: &Tensor, weight: &Tensor, dx: &mut Tensor) -> Result<()> {
    const NAME: &str = "linear::input_gradient";
    let ([n, o], [o2, i], [n2, i2]) = (shape(NAME, dy)?, shape(NAME, weight)?, shape(NAME, dx)?);
    expect(NAME, n == n2 && i == i2 && o == o2, || {
        format!("shapes [{n}, {o}] · [{o2}, {i}] do not give [{n2}, {i2}]")
    })?;
    matmul(NAME, dy, weight, dx, false)
}

/// dw = dyᵀ · x, or dw += dyᵀ · x with `accumulate`: `dy` [N, O], `x` [N, I], `dweight` [O, I], all of one kind.
pub fn weight_gradient(dy: &Tensor, x: &Tensor, dweight: &mut Tensor, accumulate: bool) -> Result<()> {
    const NAME: &str = "linear::weight_gradient";
    let ([n, o], [n2, i], [o2, i2]) = (shape(NAME, dy)?, shape(NAME, x)?, shape(NAME, dweight)?);
    expect(NAME, n == n2 && i == i2 && o == o2, || {
        format!("shapes [{n}, {o}]ᵀ · [{n2}, {i}] do not give [{o2}, {i2}]")
    })?;
    matmul(NAME, &dy.f_tr()?, x, dweight, accumulate)
}

/// The sides of a contiguous matrix on the CPU.
fn shape(function: &'static str, tensor: &Tensor) -> Result<[i64; 2]> {
    let size = tensor.size();
    expect(function, size.len() == 2 && tensor.is_contiguous() && tensor.device() == Device::Cpu, || {
        format!("{size:?} on {:?} is not a contiguous matrix on the CPU", tensor.device())
    })?;
    expect(function, matches!(tensor.kind(), Kind::Float | Kind::BFloat16), || {
        format!("{:?} is neither fp32 nor bf16", tensor.kind())
    })?;
    Ok([size[0], size[1]])
}

fn expect(function: &'static str, holds: bool, problem: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Argument { function, problem: problem() }) }
}

fn matmul(function: &'static str, a: &Tensor, b: &Tensor, out: &mut Tensor, accumulate: bool) -> Result<()> {
    expect(function, a.kind() == b.kind() && a.kind() == out.kind(), || {
        format!("kinds {:?}, {:?} and {:?} are not one", a.kind(), b.kind(), out.kind())
    })?;
    // SAFETY: three tensors of tch, alive during the call. Their shapes fit, so oneDNN stays within their memory;
    // `out` is borrowed exclusively. The message is used once.
    unsafe { check(function, curate_matmul(a.as_ptr(), b.as_ptr(), out.as_mut_ptr(), accumulate.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(size: [i64; 2], kind: Kind) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind)
    }

    /// Largest difference from the product in fp64, against the largest element of it.
    fn error(got: &Tensor, expected: &Tensor) -> f64 {
        let expected = expected.to_kind(Kind::Double);
        let difference = (got.to_kind(Kind::Double) - &expected).abs().max();
        difference.double_value(&[]) / expected.abs().max().double_value(&[])
    }

    #[test]
    fn products_equal_those_in_fp64() {
        if !is_supported() {
            return;
        }
        for (kind, limit) in [(Kind::Float, 2e-6), (Kind::BFloat16, 8e-3)] {
            for [n, i, o] in [[1, 1, 1], [3, 7, 5], [64, 100, 33], [256, 96, 300]] {
                let (x, w, dy) = (random([n, i], kind), random([o, i], kind), random([n, o], kind));
                let [x64, w64, dy64] = [&x, &w, &dy].map(|t| t.to_kind(Kind::Double));
                let (mut y, mut dx, mut dw) = (dy.zeros_like(), x.zeros_like(), w.zeros_like());
                forward(&x, &w, &mut y).unwrap();
                input_gradient(&dy, &w, &mut dx).unwrap();
                weight_gradient(&dy, &x, &mut dw, false).unwrap();
                assert!(error(&y, &x64.matmul(&w64.tr())) < limit, "y {kind:?} {n} {i} {o}");
                assert!(error(&dx, &dy64.matmul(&w64)) < limit, "dx {kind:?} {n} {i} {o}");
                let expected = dy64.tr().matmul(&x64);
                assert!(error(&dw, &expected) < limit, "dw {kind:?} {n} {i} {o}");
                weight_gradient(&dy, &x, &mut dw, true).unwrap();
                assert!(error(&dw, &(expected * 2)) < limit, "dw twice {kind:?} {n} {i} {o}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_not_a_crash() {
        let (x, w) = (random([4, 8], Kind::Float), random([6, 8], Kind::Float));
        let fails = |x: &Tensor, w: &Tensor, mut y: Tensor, expected: &str| {
            let message = forward(x, w, &mut y).unwrap_err().to_string();
            assert_eq!(message, expected);
        };
        let y = || random([4, 6], Kind::Float);
        fails(
            &x,
            &random([6, 9], Kind::Float),
            y(),
            "linear::forward: shapes [4, 8] · [6, 9]ᵀ do not give [4, 6]",
        );
        fails(
            &x,
            &w.to_kind(Kind::BFloat16),
            y(),
            "linear::forward: kinds Float, BFloat16 and Float are not one",
        );
        fails(&x.to_kind(Kind::Half), &w, y(), "linear::forward: Half is neither fp32 nor bf16");
        let strided = random([8, 6], Kind::Float).tr();
        fails(&x, &strided, y(), "linear::forward: [6, 8] on Cpu is not a contiguous matrix on the CPU");
    }

    #[test]
    fn an_exception_comes_back_as_its_message() {
        // The ABI itself, past the checks: three dimensions and one.
        let (a, b) = (Tensor::zeros([2, 2, 2], (Kind::Float, Device::Cpu)), random([2, 2], Kind::Float));
        let mut out = b.zeros_like();
        // SAFETY: tensors alive during the call; libtorch checks their dimensions before it touches memory.
        let result = unsafe { check("matmul", curate_matmul(a.as_ptr(), b.as_ptr(), out.as_mut_ptr(), 0)) };
        let message = result.unwrap_err().to_string();
        assert_eq!(message, "matmul: mkldnn_matmul:  unsupported dims for mat and mat2");
    }
}
