//! Collectives on the CPU: c10d's Gloo, which is part of libtorch.

use std::time::Duration;

use curate_shim::c10d;
use tch::Tensor;

use super::{Comm, Place};
use crate::{Error, Result};

/// How long a rank waits for the others: an evaluation of one may not take longer.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Gloo over TCP. Sums are made in an order that depends on the number of ranks alone, so a run can be repeated, and
/// every rank gets the same bits.
#[derive(Debug)]
pub struct Gloo {
    rank: u32,
    world_size: u32,
    group: c10d::Group,
}

impl Gloo {
    /// Meets the other ranks at the place's address and connects to each.
    pub fn open(place: &Place) -> Result<Gloo> {
        let rank = place.rank;
        let failed = |error: curate_shim::Error| Error::Collective { rank, problem: error.to_string() };
        let loopback = place.host == "localhost" || place.host.starts_with("127.");
        let options = c10d::Options {
            host: &place.host,
            port: place.port,
            rank,
            world_size: place.world_size,
            serves: place.serves,
            listen_fd: place.listen_fd.filter(|_| place.serves),
            prefix: &place.prefix,
            // The name of this machine may resolve to an address that the others cannot reach, or to none.
            interface: loopback.then_some("127.0.0.1"),
            timeout: TIMEOUT,
        };
        let group = c10d::Group::open(&options).map_err(failed)?;
        Ok(Gloo { rank, world_size: place.world_size, group })
    }

    /// Gives the bytes that rank 0 has to all ranks.
    pub(super) fn publish<const N: usize>(&self, key: &str, bytes: Option<[u8; N]>) -> Result<[u8; N]> {
        if let Some(bytes) = bytes {
            self.checked(self.group.set(key, &bytes))?;
        }
        let mut found = [0; N];
        self.checked(self.group.get(key, &mut found))?;
        Ok(found)
    }

    fn checked<T>(&self, result: curate_shim::Result<T>) -> Result<T> {
        result.map_err(|error| Error::Collective { rank: self.rank, problem: error.to_string() })
    }
}

impl Comm for Gloo {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn world_size(&self) -> u32 {
        self.world_size
    }

    fn all_reduce_sum(&self, tensors: &[Tensor]) -> Result<()> {
        self.checked(self.group.all_reduce_sum(tensors))
    }

    fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        self.checked(self.group.broadcast(tensors))
    }

    fn barrier(&self) -> Result<()> {
        self.checked(self.group.barrier())
    }
}
