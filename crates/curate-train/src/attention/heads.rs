//! Attention of whole tensors by [`head`]: the heads are shared between threads, the documents of a row one after another.

use tch::{Kind, Tensor};

use super::{Attended, documents, head};
use crate::kernels::{self, Element, elements_mut, floats, floats_mut, in_parallel};
use crate::{Error, Result};

/// [`super::forward`].
pub(super) fn forward<E: Element>(qkv: [&Tensor; 3], starts: &[Vec<u32>]) -> Result<(Tensor, Tensor)> {
    let (b, h, t, d) = qkv[0].size4()?;
    let mut out = Tensor::f_empty([b, h, t, d], (E::KIND, qkv[0].device()))?;
    let mut log_sum_exp = Tensor::f_empty([b, h, t], (Kind::Float, qkv[0].device()))?;
    let [time, size] = [t, d].map(|n| n as usize);
    let [q, k, v] = qkv.map(Heads::<E>::of);
    let heads = elements_mut::<E>(&mut out)
        .chunks_mut(time * size)
        .zip(floats_mut(&mut log_sum_exp).chunks_mut(time));
    in_parallel(heads.enumerate().collect(), work(qkv[0]), |(i, (out, log_sum_exp))| {
        for (start, length) in documents(starts, i / h as usize, time) {
            let [q, k, v] = [&q, &k, &v].map(|x| x.rows(i, start));
            let inputs = head::Inputs { q, k, v, d: size };
            head::forward(
                inputs,
                &mut out[start * size..][..length * size],
                &mut log_sum_exp[start..][..length],
            );
        }
    });
    Ok((out, log_sum_exp))
}

/// [`super::backward`].
pub(super) fn backward<E: Element>(d_out: &Tensor, saved: &Attended<'_>) -> Result<[Tensor; 3]> {
    let (_, h, t, d) = d_out.size4()?;
    let [time, size] = [t, d].map(|n| n as usize);
    let [q, k, v, out, d_out] = [saved.q, saved.k, saved.v, saved.out, d_out].map(Heads::<E>::of);
    let empty = || Ok::<_, Error>(Tensor::f_empty(saved.q.size(), (E::KIND, saved.q.device()))?);
    let mut gradients = [empty()?, empty()?, empty()?];
    let [dq, dk, dv] = gradients.each_mut().map(|x| elements_mut::<E>(x).chunks_mut(time * size));
    let heads = dq.zip(dk).zip(dv).zip(floats(saved.log_sum_exp).chunks(time));
    in_parallel(heads.enumerate().collect(), 2 * work(saved.q), |(i, (((dq, dk), dv), log_sum_exp))| {
        for (start, length) in documents(saved.starts, i / h as usize, time) {
            let [q, k, v, out, d_out] = [&q, &k, &v, &out, &d_out].map(|x| x.rows(i, start));
            let results = head::Results { out, d_out, log_sum_exp: &log_sum_exp[start..][..length] };
            let place = start * size..(start + length) * size;
            let gradients = [&mut *dq, &mut *dk, &mut *dv].map(|x| &mut x[place.clone()]);
            head::backward(head::Inputs { q, k, v, d: size }, results, gradients);
        }
    });
    Ok(gradients)
}

/// Products of scores and values that attention of this shape makes, for [`in_parallel`].
fn work(q: &Tensor) -> usize {
    q.numel() * q.size()[2] as usize / 16
}

/// A tensor [B, H, T, D] whose last axis is contiguous.
struct Heads<'a, E> {
    data: &'a [E],
    heads: usize,
    /// Elements from row to row, from head to head and from token to token.
    strides: [usize; 3],
}

impl<'a, E: Element> Heads<'a, E> {
    fn of(tensor: &'a Tensor) -> Heads<'a, E> {
        let [row, head, token, element] = tensor.stride()[..] else { panic!("four axes are needed") };
        assert!(element == 1, "the last axis must be contiguous");
        let strides = [row, head, token].map(|stride| stride as usize);
        Heads { data: kernels::strided_elements(tensor), heads: tensor.size()[1] as usize, strides }
    }

    /// The tokens of a head from `start` on; heads are counted through all rows.
    fn rows(&self, head: usize, start: usize) -> head::Rows<'a, E> {
        let [by_row, by_head, by_token] = self.strides;
        let offset = head / self.heads * by_row + head % self.heads * by_head + start * by_token;
        head::Rows { data: &self.data[offset..], stride: by_token }
    }
}
