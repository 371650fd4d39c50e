//! The CPU's attention without autograd: whole rows, or each document of a row alone.
//!
//! Documents are cut out rather than masked: the work is the sum of their squared lengths instead of the square of the row's,
//! there is no [B, T, T] mask, and a packed document gets the numbers that it would get alone.

use tch::{Kind, Tensor};

use crate::Result;

/// Result and logarithm of the sum of exponentials, which the backward pass needs.
///
/// `starts` has the first token of each document for every row, ascending, or no row at all for no mask.
///
/// **Shapes**: `q`, `k`, `v` [B, H, T, D] → [B, H, T, D] and [B, H, T] in fp32.
pub(crate) fn forward(q: &Tensor, k: &Tensor, v: &Tensor, starts: &[Vec<u32>]) -> Result<(Tensor, Tensor)> {
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
pub(crate) fn backward(d_out: &Tensor, saved: &Attended<'_>) -> Result<[Tensor; 3]> {
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
    (0..).zip(starts).flat_map(move |(row, starts)| {
        let ends = starts.iter().skip(1).map(|&end| i64::from(end)).chain([time]);
        starts.iter().zip(ends).map(move |(&start, end)| {
            let start = i64::from(start);
            Piece { row, start, length: end - start }
        })
    })
}

/// [B, H, T, …] → [1, H, length, …], a view.
fn cut(x: &Tensor, row: i64, start: i64, length: i64) -> Result<Tensor> {
    Ok(x.f_narrow(0, row, 1)?.f_narrow(2, start, length)?)
}
