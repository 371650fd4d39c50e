//! What the engine asks of a device. The GPU answers with its driver and torch's CUDA operators ([`super::gpu`]); in tests a CPU
//! answers with the emulated kernels and torch's CPU operators, and everything above this line is the same code.

use std::fmt::Debug;

use tch::{Device, Tensor};

use super::launch::Launch;
use crate::Result;

/// A device that runs the engine's work in the order in which it is asked for.
pub(crate) trait Backend: Debug {
    /// What the backward pass of attention needs besides its inputs.
    type Attended: Debug;
    /// Work that was recorded and can be done again.
    type Recording: Debug;

    /// Runs a kernel.
    fn run(&self, launch: &Launch<'_>) -> Result<()>;

    /// grad = a · b, or with `add` grad += a · b; the sum is fp32 whatever `a` and `b` are.
    ///
    /// **Shapes**: a [M, N], b [N, O], grad [M, O] in fp32.
    fn product(&self, grad: &Tensor, a: &Tensor, b: &Tensor, add: bool) -> Result<()>;

    /// Causal attention; with `documents` each sees itself alone.
    ///
    /// **Shapes**: q [B, H, T, D], k and v [B, K, T, D], views of larger rows → [B, H, T, D].
    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        documents: Option<&Documents>,
    ) -> Result<(Tensor, Self::Attended)>;

    /// The gradients of q, k and v from that of the result.
    fn attention_backward(
        &self,
        dout: &Tensor,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        attended: &Self::Attended,
    ) -> Result<[Tensor; 3]>;

    /// Host memory from which [`send`](Self::send) copies without waiting: `length` 32-bit integers.
    fn staging(&self, length: i64) -> Result<Tensor>;

    /// Copies from staging memory, which must not change before the device was next waited for.
    fn send(&self, to: &Tensor, from: &Tensor) -> Result<()>;

    /// Records the work that `work` asks for without doing it; `None` if this device cannot.
    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Recording>>;

    /// Does the recorded work.
    fn replay(&self, recording: &Self::Recording) -> Result<()>;
}

/// The documents of a micro-batch, its rows one after another.
#[derive(Debug)]
pub(crate) struct Documents {
    /// Where each begins and the end of the last, on the device: [documents + 1] 32-bit integers.
    pub(crate) starts: Tensor,
    /// Tokens of the longest.
    pub(crate) longest: i64,
}

impl Documents {
    /// From the first input of each document in every row of `time` tokens; `None` if there are no rows.
    pub(crate) fn of(starts: &[Vec<u32>], time: i64, device: Device) -> Result<Option<Documents>> {
        if starts.is_empty() {
            return Ok(None);
        }
        let row = |(row, starts): (i64, &Vec<u32>)| {
            starts.iter().map(|&start| (row * time + i64::from(start)) as i32).collect::<Vec<_>>()
        };
        let mut all: Vec<i32> = (0..).zip(starts).flat_map(row).collect();
        all.push((starts.len() as i64 * time) as i32);
        let longest = all.windows(2).map(|pair| i64::from(pair[1] - pair[0])).max().unwrap_or(0);
        Ok(Some(Documents { starts: Tensor::f_from_slice(&all)?.f_to_device(device)?, longest }))
    }
}

/// Repeats key or value heads for the queries that share them: [B, K, T, D] → [B, H, T, D].
pub(crate) fn spread(x: &Tensor, heads: i64) -> Result<Tensor> {
    match heads / x.size()[1] {
        1 => Ok(x.shallow_clone()),
        group => Ok(x.f_repeat_interleave_self_int(group, 1, None)?),
    }
}

/// The backward of [`spread`]: sums over the queries that share a head, in fp32.
pub(crate) fn gather(x: &Tensor, kv_heads: i64) -> Result<Tensor> {
    let (b, h, t, d) = x.size4()?;
    if h == kv_heads {
        return Ok(x.shallow_clone());
    }
    Ok(x.f_reshape([b, kv_heads, h / kv_heads, t, d])?.f_sum_dim_intlist(2, false, tch::Kind::Float)?)
}
