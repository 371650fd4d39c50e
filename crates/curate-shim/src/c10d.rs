//! c10d's collectives on the CPU: several processes that sum and share tensors over TCP (Gloo, as libtorch has it).
//!
//! All ranks call the same functions with tensors of the same shapes in the same order. If one of them ends, the others'
//! next call is an error, after which the group is of no use.

use std::ffi::{CString, c_char, c_int};
use std::time::Duration;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::{Error, Result, check};

/// A group in C++.
#[repr(C)]
struct Opaque {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn curate_c10d_open(
        host: *const c_char,
        port: u16,
        rank: c_int,
        world_size: c_int,
        serves: c_int,
        listen_fd: c_int,
        prefix: *const c_char,
        interface: *const c_char,
        timeout_ms: i64,
        out: *mut *mut Opaque,
    ) -> *mut c_char;
    fn curate_c10d_all_reduce_sum(
        group: *mut Opaque,
        tensors: *const *mut C_tensor,
        count: usize,
    ) -> *mut c_char;
    fn curate_c10d_broadcast(group: *mut Opaque, tensors: *const *mut C_tensor, count: usize) -> *mut c_char;
    fn curate_c10d_barrier(group: *mut Opaque) -> *mut c_char;
    fn curate_c10d_set(
        group: *mut Opaque,
        key: *const c_char,
        bytes: *const u8,
        length: usize,
    ) -> *mut c_char;
    fn curate_c10d_get(group: *mut Opaque, key: *const c_char, bytes: *mut u8, length: usize) -> *mut c_char;
    fn curate_c10d_close(group: *mut Opaque);
}

/// How the ranks meet.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Machine of the store.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// Number of this process, from 0.
    pub rank: u32,
    /// Number of processes.
    pub world_size: u32,
    /// Whether this process has the store; one does.
    pub serves: bool,
    /// A socket that listens on the port already; the group owns it from then on.
    pub listen_fd: Option<i32>,
    /// Keeps the keys of this group apart from those of others in the same store.
    pub prefix: &'a str,
    /// Address that Gloo binds to. `None`: the interface that `GLOO_SOCKET_IFNAME` names, else the address of the machine's
    /// name.
    pub interface: Option<&'a str>,
    /// How long a call waits for the other ranks.
    pub timeout: Duration,
}

/// The processes that call each other's collectives. Closed when dropped.
#[derive(Debug)]
pub struct Group(*mut Opaque);

impl Group {
    /// Meets the other ranks and connects to each; waits for all of them.
    pub fn open(options: &Options<'_>) -> Result<Group> {
        const NAME: &str = "c10d::open";
        let text = |text: &str| {
            let problem = || format!("{text:?} has a NUL");
            CString::new(text).map_err(|_| Error::Argument { function: NAME, problem: problem() })
        };
        let (host, prefix) = (text(options.host)?, text(options.prefix)?);
        let interface = options.interface.map(text).transpose()?;
        let number = |n: u32| c_int::try_from(n).unwrap_or(c_int::MAX);
        let timeout_ms = i64::try_from(options.timeout.as_millis()).unwrap_or(i64::MAX);
        let mut group = std::ptr::null_mut();
        // SAFETY: strings that live during the call, or null where that is allowed; `group` is writable. The message is
        // used once.
        unsafe {
            check(
                NAME,
                curate_c10d_open(
                    host.as_ptr(),
                    options.port,
                    number(options.rank),
                    number(options.world_size),
                    options.serves.into(),
                    options.listen_fd.unwrap_or(-1),
                    prefix.as_ptr(),
                    interface.as_ref().map_or(std::ptr::null(), |text| text.as_ptr()),
                    timeout_ms,
                    &raw mut group,
                ),
            )?;
        }
        Ok(Group(group))
    }

    /// Replaces each tensor by its sum over all ranks; every rank gets the same bits.
    pub fn all_reduce_sum(&self, tensors: &[Tensor]) -> Result<()> {
        const NAME: &str = "c10d::all_reduce_sum";
        let pointers = pointers(NAME, tensors)?;
        // SAFETY: the group is open; `pointers` are tensors of tch that live during the call, which ends when nothing is
        // in flight. The message is used once.
        unsafe { check(NAME, curate_c10d_all_reduce_sum(self.0, pointers.as_ptr(), pointers.len())) }
    }

    /// Replaces each tensor by that of rank 0.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        const NAME: &str = "c10d::broadcast";
        let pointers = pointers(NAME, tensors)?;
        // SAFETY: as in `all_reduce_sum`.
        unsafe { check(NAME, curate_c10d_broadcast(self.0, pointers.as_ptr(), pointers.len())) }
    }

    /// Waits until every rank has come here.
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: the group is open. The message is used once.
        unsafe { check("c10d::barrier", curate_c10d_barrier(self.0)) }
    }

    /// Publishes bytes under a key.
    pub fn set(&self, key: &str, bytes: &[u8]) -> Result<()> {
        const NAME: &str = "c10d::set";
        let key = key_of(NAME, key)?;
        // SAFETY: the group is open; key and bytes live during the call. The message is used once.
        unsafe { check(NAME, curate_c10d_set(self.0, key.as_ptr(), bytes.as_ptr(), bytes.len())) }
    }

    /// Waits for a key's bytes and copies them; another length is an error.
    pub fn get(&self, key: &str, bytes: &mut [u8]) -> Result<()> {
        const NAME: &str = "c10d::get";
        let key = key_of(NAME, key)?;
        // SAFETY: the group is open; `bytes` is writable for its length. The message is used once.
        unsafe { check(NAME, curate_c10d_get(self.0, key.as_ptr(), bytes.as_mut_ptr(), bytes.len())) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the group was opened and is not used any more; nothing is in flight between calls.
        unsafe { curate_c10d_close(self.0) }
    }
}

fn key_of(function: &'static str, key: &str) -> Result<CString> {
    CString::new(key).map_err(|_| Error::Argument { function, problem: format!("{key:?} has a NUL") })
}

/// The tensors as C++ sees them; they must be what Gloo takes.
fn pointers(function: &'static str, tensors: &[Tensor]) -> Result<Vec<*mut C_tensor>> {
    for tensor in tensors {
        let fits = tensor.device() == Device::Cpu
            && tensor.is_contiguous()
            && matches!(tensor.kind(), Kind::Float | Kind::Double | Kind::Int64);
        if !fits {
            let (kind, device) = (tensor.kind(), tensor.device());
            let problem =
                format!("{kind:?} on {device:?}: only contiguous fp32, fp64 and int64 on the CPU are sent");
            return Err(Error::Argument { function, problem });
        }
    }
    Ok(tensors.iter().map(|tensor| tensor.as_ptr().cast_mut()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::IntoRawFd;

    /// Runs `work` on as many threads as there are ranks, each with its group.
    fn ranks<T: Send>(world_size: u32, work: impl Fn(u32, &Group) -> T + Sync) -> Vec<T> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let listen_fd = listener.into_raw_fd();
        let one = |rank: u32| {
            let options = Options {
                host: "127.0.0.1",
                port,
                rank,
                world_size,
                serves: rank == 0,
                listen_fd: (rank == 0).then_some(listen_fd),
                prefix: "test",
                interface: Some("127.0.0.1"),
                timeout: Duration::from_secs(60),
            };
            work(rank, &Group::open(&options).unwrap())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..world_size).map(|rank| scope.spawn(move || one(rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.reshape([-1])).unwrap()
    }

    #[test]
    fn every_rank_gets_the_same_sums() {
        for world_size in [1, 2, 3] {
            let sums = ranks(world_size, |rank, group| {
                let values: Vec<f32> = (0..100_003).map(|i| (i as f32 * 0.37 + rank as f32).sin()).collect();
                let tensors = [Tensor::from_slice(&values), Tensor::from_slice(&[f64::from(rank), 1.0])];
                group.all_reduce_sum(&tensors).unwrap();
                group.barrier().unwrap();
                (floats(&tensors[0]), Vec::<f64>::try_from(&tensors[1]).unwrap())
            });
            let n = f64::from(world_size);
            for (large, small) in &sums {
                assert_eq!(small, &[n * (n - 1.0) / 2.0, n]);
                assert!(large == &sums[0].0, "{world_size} ranks: the sums differ");
                for i in [0, 1, 50_000, 100_002] {
                    let exact: f64 =
                        (0..world_size).map(|rank| f64::from((i as f32 * 0.37 + rank as f32).sin())).sum();
                    assert!((f64::from(large[i]) - exact).abs() < 1e-6, "{i}: {} for {exact}", large[i]);
                }
            }
        }
    }

    #[test]
    fn rank_zero_is_copied_and_keys_are_found() {
        let found = ranks(2, |rank, group| {
            let tensor = Tensor::from_slice(&[rank as f32 + 5.0; 3]);
            group.broadcast(std::slice::from_ref(&tensor)).unwrap();
            if rank == 0 {
                group.set("key", &[1, 2, 3]).unwrap();
            }
            let mut bytes = [0; 3];
            group.get("key", &mut bytes).unwrap();
            let short = group.get("key", &mut [0; 2]).unwrap_err().to_string();
            assert_eq!(short, "c10d::get: key has 3 bytes, expected 2");
            group.barrier().unwrap(); // rank 0 has the store: it may not end first
            (floats(&tensor), bytes)
        });
        assert_eq!(found, vec![(vec![5.0; 3], [1, 2, 3]); 2]);
    }

    #[test]
    fn a_rank_that_ends_is_an_error_for_the_others() {
        let found = ranks(2, |rank, group| {
            (rank == 0)
                .then(|| group.all_reduce_sum(&[Tensor::from_slice(&[1f32; 1000])]).unwrap_err().to_string())
        });
        let message = found[0].as_deref().unwrap();
        assert!(message.starts_with("c10d::all_reduce_sum: "), "{message}");
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        ranks(1, |_, group| {
            let half = Tensor::zeros([2], (Kind::BFloat16, Device::Cpu));
            let strided = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).tr();
            for tensor in [half, strided] {
                let message = group.all_reduce_sum(&[tensor]).unwrap_err().to_string();
                assert!(
                    message.ends_with("only contiguous fp32, fp64 and int64 on the CPU are sent"),
                    "{message}"
                );
            }
        });
    }
}
