//! Training with several processes: each has the whole model and computes a share of every step.
//!
//! ```text
//! rank r of n:  rows r·B/n … of the global step ─▶ engine ─▶ gradients × (own targets / all targets)
//!               ─▶ buckets ─▶ all-reduce (sum) ─▶ the same gradient everywhere ─▶ clip, update: the same weights everywhere
//! ```
//! The rows of a step depend on (seed, step) alone, so the run sees the same samples in the same order with any number
//! of ranks, and a checkpoint knows nothing of them. What the ranks must agree on, such as the end of the run, is
//! summed too: control flow follows numbers that all have.
//!
//! The sums are made by collectives that exist: Gloo on the CPU ([`Gloo`]), NCCL on CUDA ([`Nccl`]).

mod gloo;
mod nccl;
mod place;

pub use gloo::Gloo;
pub use nccl::Nccl;
pub use place::{LISTEN_FD, Place};

use tch::{Device, Kind, Tensor};

use crate::model::Model;
use crate::muon::Muon;
use crate::optim::AdamW;
use crate::{Error, Result};

/// Elements of a bucket: 32 MB of fp32. Gradients at least half as large travel alone, without being copied.
const BUCKET: usize = 1 << 23;

/// Collective operations of one rank. All ranks call the same ones in the same order.
pub trait Comm: std::fmt::Debug {
    /// Number of this process, from 0.
    fn rank(&self) -> u32;

    /// Number of processes.
    fn world_size(&self) -> u32;

    /// Replaces each tensor by its sum over all ranks; every rank gets the same bits.
    fn all_reduce_sum(&self, tensors: &[Tensor]) -> Result<()>;

    /// Replaces each tensor by that of rank 0.
    fn broadcast(&self, tensors: &[Tensor]) -> Result<()>;

    /// Waits until every rank has come here.
    fn barrier(&self) -> Result<()>;
}

/// A single process.
#[derive(Debug, Default)]
pub struct Solo;

impl Comm for Solo {
    fn rank(&self) -> u32 {
        0
    }

    fn world_size(&self) -> u32 {
        1
    }

    fn all_reduce_sum(&self, _: &[Tensor]) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _: &[Tensor]) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }
}

/// The ranks of a run: one set of collectives for numbers on the host, one for tensors on the device.
#[derive(Debug)]
pub struct Group {
    host: Box<dyn Comm>,
    /// `None`: the tensors are on the host.
    device: Option<Box<dyn Comm>>,
    /// Buckets for small gradients, made at the first step.
    buckets: Vec<Tensor>,
}

impl Default for Group {
    fn default() -> Group {
        Group::new(Box::new(Solo))
    }
}

impl Group {
    /// A group whose tensors are on the host.
    pub fn new(host: Box<dyn Comm>) -> Group {
        Group { host, device: None, buckets: Vec::new() }
    }

    /// Meets the other ranks, and opens NCCL if the tensors are on a CUDA device.
    ///
    /// # Errors
    /// [`Error::Collective`] if the ranks do not find each other, or NCCL cannot be used.
    pub fn join(place: &Place, device: Device) -> Result<Group> {
        let gloo = Gloo::open(place)?;
        let nccl = match device {
            Device::Cuda(index) => Some(Box::new(Nccl::open(&gloo, index)?) as Box<dyn Comm>),
            _ => None,
        };
        Ok(Group { device: nccl, ..Group::new(Box::new(gloo)) })
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> u32 {
        self.host.rank()
    }

    /// Number of processes.
    pub fn world_size(&self) -> u32 {
        self.host.world_size()
    }

    /// Whether this rank writes the files of the run.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// The sums of these numbers over all ranks. Counts are exact up to 2^53.
    pub fn sum<const N: usize>(&self, numbers: [f64; N]) -> Result<[f64; N]> {
        if self.world_size() == 1 {
            return Ok(numbers);
        }
        let tensor = Tensor::f_from_slice(&numbers)?;
        self.host.all_reduce_sum(std::slice::from_ref(&tensor))?;
        let mut sums = [0.0; N];
        tensor.f_copy_data(&mut sums, N)?;
        Ok(sums)
    }

    /// The sums of these counts over all ranks, exact up to 2^53.
    pub fn sum_counts(&self, counts: &[u64]) -> Result<Vec<u64>> {
        if self.world_size() == 1 {
            return Ok(counts.to_vec());
        }
        let tensor = Tensor::f_from_slice(&counts.iter().map(|&count| count as f64).collect::<Vec<_>>())?;
        self.host.all_reduce_sum(std::slice::from_ref(&tensor))?;
        Ok(Vec::<f64>::try_from(tensor)?.into_iter().map(|sum| sum as u64).collect())
    }

    /// Whether this holds on any rank: the way to take a decision that all follow.
    pub fn any(&self, holds: bool) -> Result<bool> {
        Ok(self.sum([f64::from(u8::from(holds))])? != [0.0])
    }

    /// Waits until every rank has come here.
    pub fn barrier(&self) -> Result<()> {
        self.host.barrier()
    }

    /// Turns each rank's mean loss and mean gradient into those of the whole step.
    ///
    /// `targets` are this rank's. Gradients are changed in place: each rank's is weighted by its share of the targets
    /// before the sum. Returns the mean loss and the number of targets of the step. With two ranks that have equally
    /// many targets the result has the bits of one process that adds up the same two pieces, since halving is exact
    /// and a sum of two has one order.
    pub fn average(&mut self, loss: f64, targets: u64, gradients: &[Tensor]) -> Result<(f64, u64)> {
        if self.world_size() == 1 {
            return Ok((loss, targets));
        }
        let [nats, all] = self.sum([loss * targets as f64, targets as f64])?;
        let _no_grad = tch::no_grad_guard();
        self.sum_gradients(gradients, targets as f64 / all.max(1.0))?;
        Ok((nats / all.max(1.0), all as u64))
    }

    /// Replaces gradients by the sum over all ranks of gradient × `weight`.
    fn sum_gradients(&mut self, gradients: &[Tensor], weight: f64) -> Result<()> {
        let comm = self.device.as_ref().unwrap_or(&self.host);
        let (large, small): (Vec<&Tensor>, Vec<&Tensor>) =
            gradients.iter().partition(|gradient| gradient.numel() >= BUCKET / 2 && gradient.is_contiguous());
        let mut whole = Vec::with_capacity(large.len() + self.buckets.len());
        for gradient in large {
            let mut gradient = gradient.f_detach()?;
            let _ = gradient.f_mul_scalar_(weight)?;
            whole.push(gradient);
        }
        let runs = runs(&small);
        while self.buckets.len() < runs.len() {
            let length: i64 = runs[self.buckets.len()].iter().map(|gradient| gradient.numel() as i64).sum();
            self.buckets.push(Tensor::f_empty([length], (Kind::Float, small[0].device()))?);
        }
        for (bucket, run) in self.buckets.iter_mut().zip(&runs) {
            for (piece, gradient) in pieces(bucket, run)?.zip(*run) {
                piece?.f_copy_(&gradient.f_reshape([-1])?)?;
            }
            let _ = bucket.f_mul_scalar_(weight)?;
            whole.push(bucket.shallow_clone());
        }
        comm.all_reduce_sum(&whole)?;
        for (bucket, run) in self.buckets.iter().zip(&runs) {
            for (piece, gradient) in pieces(bucket, run)?.zip(*run) {
                gradient.f_detach()?.f_copy_(&piece?.f_view_as(gradient)?)?;
            }
        }
        Ok(())
    }

    /// Gives every rank the weights and the optimisers' state of rank 0, and checks that all stand at the same step.
    pub fn share(&self, model: &Model, optimizer: &AdamW, muon: Option<&Muon>, step: u64) -> Result<()> {
        if self.world_size() == 1 {
            return Ok(());
        }
        let (own, [sum]) = (step as f64, self.sum([step as f64])?);
        if self.any(sum != own * f64::from(self.world_size()))? {
            let problem =
                format!("this rank is at step {step}, others are not: is the run directory shared?");
            return Err(self.failed(problem));
        }
        let _no_grad = tch::no_grad_guard();
        let weights = model.parameters().iter().map(|p| Ok(p.tensor.f_detach()?));
        let moments =
            optimizer.moments().iter().filter(|m| !m.are_empty()).flat_map(|m| [&m.first, &m.second]);
        let momenta = muon.into_iter().flat_map(Muon::momenta).map(|(_, momentum)| momentum);
        let states = moments.chain(momenta).map(|state| Ok(state.f_detach()?));
        let tensors = weights.chain(states).collect::<Result<Vec<Tensor>>>()?;
        self.device.as_ref().unwrap_or(&self.host).broadcast(&tensors)
    }

    fn failed(&self, problem: String) -> Error {
        Error::Collective { rank: self.rank(), problem }
    }
}

/// Cuts a list into runs of at most [`BUCKET`] elements each; a single tensor may be longer.
fn runs<'a>(mut tensors: &'a [&'a Tensor]) -> Vec<&'a [&'a Tensor]> {
    let mut runs = Vec::new();
    while !tensors.is_empty() {
        let mut sum = 0;
        let fitting = tensors.iter().take_while(|tensor| {
            sum += tensor.numel();
            sum <= BUCKET
        });
        let (run, rest) = tensors.split_at(fitting.count().max(1));
        runs.push(run);
        tensors = rest;
    }
    runs
}

/// The places of the tensors of a run in its bucket.
fn pieces<'a>(bucket: &'a Tensor, run: &'a [&Tensor]) -> Result<impl Iterator<Item = Result<Tensor>> + 'a> {
    let mut start = 0;
    Ok(run.iter().map(move |tensor| {
        let length = tensor.numel() as i64;
        start += length;
        Ok(bucket.f_narrow(0, start - length, length)?)
    }))
}
