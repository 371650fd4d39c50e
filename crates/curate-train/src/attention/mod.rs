//! The CPU's attention without autograd: whole rows, or each document of a row alone.
//!
//! Documents are cut out rather than masked: the work is the sum of their squared lengths instead of the square of the row's,
//! there is no [B, T, T] mask, and a packed document gets the numbers that it would get alone.
//!
//! Where there is AVX-512 the arithmetic is that of `head`, else libtorch's.

#[cfg(target_arch = "x86_64")]
mod head;
#[cfg(target_arch = "x86_64")]
mod heads;

use tch::{Kind, Tensor};

use crate::Result;
use crate::kernels::Element;

/// Result and logarithm of the sum of exponentials, which the backward pass needs.
///
/// `starts` has the first token of each document for every row, ascending, or no row at all for no mask.
///
/// **Shapes**: `q`, `k`, `v` [B, H, T, D] → [B, H, T, D] and [B, H, T] in fp32.
pub(crate) fn forward<E: Element>(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    starts: &[Vec<u32>],
) -> Result<(Tensor, Tensor)> {
    #[cfg(target_arch = "x86_64")]
    if head::is_best::<E>(q.size()[2]) {
        return heads::forward::<E>([q, k, v], starts);
    }
    if starts.is_empty() {
        return attend(q, k, v);
    }
    let (b, h, t, d) = q.size4()?;
    // Laid out as libtorch does, so that the caller's transposed view is contiguous.
    let out = Tensor::f_empty([b, t, h, d], (q.kind(), q.device()))?.f_transpose(1, 2)?;
    let log_sum_exp = Tensor::f_empty([b, h, t], (Kind::Float, q.device()))?;
    for Piece { row, start, length } in pieces(starts, t) {
        let part = |x: &Tensor| cut(x, row, start, length);
        let (attended, sums) = attend(&part(q)?, &part(k)?, &part(v)?)?;
        part(&out)?.f_copy_(&attended)?;
        part(&log_sum_exp)?.f_copy_(&sums)?;
    }
    Ok((out, log_sum_exp))
}

/// What [`forward`] was given and gave.
pub(crate) struct Attended<'a> {
    pub(crate) q: &'a Tensor,
    pub(crate) k: &'a Tensor,
    pub(crate) v: &'a Tensor,
    pub(crate) out: &'a Tensor,
    pub(crate) log_sum_exp: &'a Tensor,
    pub(crate) starts: &'a [Vec<u32>],
}

/// Gradients of queries, keys and values, given that of the result.
pub(crate) fn backward<E: Element>(d_out: &Tensor, saved: &Attended<'_>) -> Result<[Tensor; 3]> {
    #[cfg(target_arch = "x86_64")]
    if head::is_best::<E>(d_out.size()[2]) {
        return heads::backward::<E>(d_out, saved);
    }
    let Attended { q, k, v, out, log_sum_exp, starts } = saved;
    let whole = |d_out: &Tensor, [q, k, v, out]: [&Tensor; 4], log_sum_exp: &Tensor| {
        let (dq, dk, dv) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu_backward(
            d_out,
            q,
            k,
            v,
            out,
            log_sum_exp,
            0.0,
            true,
            None::<Tensor>,
            None,
        )?;
        Ok::<_, crate::Error>([dq, dk, dv])
    };
    if starts.is_empty() {
        return whole(d_out, [q, k, v, out], log_sum_exp);
    }
    let gradients = [q.f_empty_like()?, k.f_empty_like()?, v.f_empty_like()?];
    for Piece { row, start, length } in pieces(starts, q.size()[2]) {
        let part = |x: &Tensor| cut(x, row, start, length);
        let inputs = [&part(q)?, &part(k)?, &part(v)?, &part(out)?];
        let parts = whole(&part(d_out)?, inputs, &part(log_sum_exp)?)?;
        for (gradient, found) in gradients.iter().zip(&parts) {
            part(gradient)?.f_copy_(found)?;
        }
    }
    Ok(gradients)
}

/// Start and length of each document of a row, or of the whole row.
fn documents(starts: &[Vec<u32>], row: usize, time: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let starts = starts.get(row).map_or(&[0][..], |starts| &starts[..]);
    let ends = starts.iter().skip(1).map(|&end| end as usize).chain([time]);
    starts.iter().zip(ends).map(|(&start, end)| (start as usize, end - start as usize))
}

fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
    let no_mask = None::<Tensor>;
    Ok(Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, true, no_mask, None)?)
}

/// A document's part of a row.
struct Piece {
    row: i64,
    start: i64,
    length: i64,
}

fn pieces(starts: &[Vec<u32>], time: i64) -> impl Iterator<Item = Piece> + '_ {
    (0..starts.len()).flat_map(move |row| {
        let documents = documents(starts, row, time as usize);
        documents.map(move |(start, length)| Piece {
            row: row as i64,
            start: start as i64,
            length: length as i64,
        })
    })
}

/// [B, H, T, …] → [1, H, length, …], a view.
fn cut(x: &Tensor, row: i64, start: i64, length: i64) -> Result<Tensor> {
    Ok(x.f_narrow(0, row, 1)?.f_narrow(2, start, length)?)
}

#[cfg(all(test, target_arch = "x86_64"))]
#[allow(clippy::print_stderr)] // a test says why it is skipped
mod tests {
    use half::bf16;
    use tch::Device;

    use super::*;

    const SHAPES: [[i64; 4]; 8] = [
        [1, 1, 1, 8],
        [2, 3, 5, 16],
        [1, 2, 17, 20],
        [2, 2, 64, 64],
        [1, 2, 65, 32],
        [1, 1, 131, 80],
        [1, 2, 200, 130],
        [1, 1, 300, 64],
    ];

    /// Queries, keys, values and the gradient of the result, laid out as a model has them: a transposed view.
    fn random([b, h, t, d]: [i64; 4], kind: Kind) -> [Tensor; 4] {
        tch::manual_seed(7);
        [(); 4]
            .map(|()| Tensor::randn([b, t, h, d], (Kind::Float, Device::Cpu)).to_kind(kind).transpose(1, 2))
    }

    fn both<E: Element>([q, k, v, d_out]: &[Tensor; 4], starts: &[Vec<u32>]) -> [Tensor; 5] {
        let (out, log_sum_exp) = heads::forward::<E>([q, k, v], starts).unwrap();
        let saved = Attended { q, k, v, out: &out, log_sum_exp: &log_sum_exp, starts };
        let [dq, dk, dv] = heads::backward::<E>(d_out, &saved).unwrap();
        [out, log_sum_exp, dq, dk, dv]
    }

    /// The formula and autograd in fp64.
    fn expected([q, k, v, d_out]: &[Tensor; 4]) -> [Tensor; 5] {
        let [q, k, v] = [q, k, v].map(|x| x.to_kind(Kind::Double).set_requires_grad(true));
        let (time, d) = (q.size()[2], q.size()[3] as f64);
        let hidden = Tensor::ones([time, time], (Kind::Bool, Device::Cpu)).triu(1);
        let scores = (q.matmul(&k.transpose(-2, -1)) / d.sqrt()).masked_fill(&hidden, f64::NEG_INFINITY);
        let out = scores.softmax(-1, Kind::Double).matmul(&v);
        let loss = (&out * d_out.to_kind(Kind::Double)).sum(Kind::Double);
        let [dq, dk, dv]: [Tensor; 3] =
            Tensor::run_backward(&[loss], &[&q, &k, &v], false, false).try_into().unwrap();
        [out, scores.logsumexp([-1], false), dq, dk, dv]
    }

    fn check<E: Element>(bounds: [f64; 5]) {
        for shape in SHAPES {
            let inputs = random(shape, E::KIND);
            for ((got, expected), bound) in both::<E>(&inputs, &[]).iter().zip(expected(&inputs)).zip(bounds)
            {
                let difference = (got.to_kind(Kind::Double) - &expected).norm();
                // Of a row of one token the gradients of query and key are 0.
                let error = difference.double_value(&[]) / expected.norm().double_value(&[]).max(0.1);
                assert!(error < bound, "{shape:?}: {error:e}");
            }
        }
    }

    #[test]
    fn result_and_gradients_are_those_of_fp64() {
        if !head::is_supported() {
            return eprintln!("skipped: this processor has no AVX-512");
        }
        check::<f32>([1e-6; 5]);
        // The result is rounded to 8 bits, and so are the gradients, to which that of the result contributes.
        check::<bf16>([2e-3, 1e-6, 4e-3, 4e-3, 2e-3]);
    }

    #[test]
    fn a_document_has_the_numbers_it_has_alone() {
        if !head::is_supported() {
            return eprintln!("skipped: this processor has no AVX-512");
        }
        let inputs = random([2, 3, 100, 24], Kind::BFloat16);
        let starts = vec![vec![0, 1, 70], vec![0, 33]];
        let together = both::<bf16>(&inputs, &starts);
        for Piece { row, start, length } in pieces(&starts, 100) {
            let alone = both::<bf16>(&inputs.each_ref().map(|x| cut(x, row, start, length).unwrap()), &[]);
            for (together, alone) in together.iter().zip(&alone) {
                assert!(cut(together, row, start, length).unwrap().equal(alone), "row {row}, token {start}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_seen() {
        if !head::is_supported() {
            return eprintln!("skipped: this processor has no AVX-512");
        }
        for bad in [f64::NAN, f64::INFINITY] {
            for input in 0..3 {
                let inputs = random([1, 1, 40, 16], Kind::Float);
                let _ = inputs[input].get(0).get(0).get(30).get(3).fill_(bad);
                let out = both::<f32>(&inputs, &[])[0].isfinite().all_dim(-1, false).get(0).get(0);
                let finite = Vec::<bool>::try_from(out).unwrap();
                // A value meets the weights 0 of the queries that are computed with the first to see it.
                assert!(finite[..28].iter().all(|finite| *finite), "before the token");
                assert!(!finite[30], "{bad} in input {input}");
            }
        }
    }
}
