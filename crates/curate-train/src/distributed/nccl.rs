//! Collectives between GPUs: NCCL through its C interface, found in the process after libtorch_cuda was opened.
//!
//! NCCL comes with libtorch's CUDA part, so nothing is linked: every function is looked up by name when a run with
//! several GPUs starts, and its absence is an error with that name. Work is queued on torch's current stream, in order
//! with the tensors' other work; no call waits for the device. The declarations follow `nccl.h` (2.x, whose ABI has kept
//! them since 2.2) and `cuda_runtime_api.h`.

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{Kind, Tensor};

use super::{Comm, Gloo};
use crate::{Error, Result};

/// `ncclUniqueId`.
#[derive(Clone, Copy)]
#[repr(C)]
struct UniqueId([u8; 128]);

type Handle = *mut c_void;
type Stream = *mut c_void;

type GetUniqueId = unsafe extern "C" fn(*mut UniqueId) -> c_int;
type InitRank = unsafe extern "C" fn(*mut Handle, c_int, UniqueId, c_int) -> c_int;
type Destroy = unsafe extern "C" fn(Handle) -> c_int;
type GroupCall = unsafe extern "C" fn() -> c_int;
/// Source, target, elements, their type, operation or root, communicator, stream.
type Collective =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Handle, Stream) -> c_int;
type ErrorString = unsafe extern "C" fn(c_int) -> *const c_char;
type SetDevice = unsafe extern "C" fn(c_int) -> c_int;
type CurrentStream = unsafe extern "C" fn(i32, *mut Stream) -> i32;

/// The functions that are used.
#[derive(Clone, Copy, Debug)]
struct Library {
    get_unique_id: GetUniqueId,
    init_rank: InitRank,
    destroy: Destroy,
    group_start: GroupCall,
    group_end: GroupCall,
    all_reduce: Collective,
    broadcast: Collective,
    error_string: ErrorString,
    set_device: SetDevice,
    current_stream: CurrentStream,
}

impl Library {
    /// Looks all functions up, or names the first that is missing.
    fn find(lookup: impl Fn(&CStr) -> *mut c_void) -> Result<Library, String> {
        macro_rules! find {
            ($name:literal, $type:ty) => {{
                let address = lookup($name);
                if address.is_null() {
                    let name = $name.to_string_lossy();
                    return Err(format!("{name} is not in the libtorch that is loaded; NCCL comes with its CUDA part"));
                }
                // SAFETY: the address is that of the C function of this name, whose declaration the type repeats; a
                // function pointer and a data pointer have one size on the systems that have NCCL.
                unsafe { std::mem::transmute::<*mut c_void, $type>(address) }
            }};
        }
        Ok(Library {
            get_unique_id: find!(c"ncclGetUniqueId", GetUniqueId),
            init_rank: find!(c"ncclCommInitRank", InitRank),
            destroy: find!(c"ncclCommDestroy", Destroy),
            group_start: find!(c"ncclGroupStart", GroupCall),
            group_end: find!(c"ncclGroupEnd", GroupCall),
            all_reduce: find!(c"ncclAllReduce", Collective),
            broadcast: find!(c"ncclBroadcast", Collective),
            error_string: find!(c"ncclGetErrorString", ErrorString),
            set_device: find!(c"cudaSetDevice", SetDevice),
            current_stream: find!(c"aoti_torch_get_current_cuda_stream", CurrentStream),
        })
    }

    fn loaded() -> Result<Library, String> {
        // SAFETY: the name ends with a NUL; looking a name up has no effect.
        Library::find(|name| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
    }
}

/// NCCL between the GPUs of a run, one for each rank.
#[derive(Debug)]
pub struct Nccl {
    rank: u32,
    world_size: u32,
    device: i32,
    library: Library,
    handle: Handle,
}

/// Values of `ncclDataType_t` and of `ncclRedOp_t`.
const FLOAT32: c_int = 7;
const FLOAT64: c_int = 8;
const SUM: c_int = 0;

impl Nccl {
    /// Connects this rank's GPU with the others'; the ranks meet through `gloo`.
    ///
    /// # Errors
    /// [`Error::Collective`] if NCCL is not there, or refuses.
    pub fn open(gloo: &Gloo, device: usize) -> Result<Nccl> {
        let (rank, world_size) = (gloo.rank(), gloo.world_size());
        let failed = |problem| Error::Collective { rank, problem };
        let library = Library::loaded().map_err(failed)?;
        let device = i32::try_from(device).expect("machines have fewer than 2^31 GPUs");
        let mut nccl = Nccl { rank, world_size, device, library, handle: std::ptr::null_mut() };
        let mut id = UniqueId([0; 128]);
        if rank == 0 {
            // SAFETY: `id` is writable for an id.
            nccl.check("ncclGetUniqueId", unsafe { (library.get_unique_id)(&raw mut id) })?;
        }
        id.0 = gloo.publish("nccl", (rank == 0).then_some(id.0))?;
        // SAFETY: no memory is passed.
        if unsafe { (library.set_device)(device) } != 0 {
            return Err(failed(format!("CUDA device {device} cannot be chosen")));
        }
        let [ranks, own] = [world_size, rank].map(|n| n as c_int);
        // SAFETY: `handle` is writable; the id is passed by value, as declared.
        let status = unsafe { (library.init_rank)(&raw mut nccl.handle, ranks, id, own) };
        nccl.check("ncclCommInitRank", status)?;
        Ok(nccl)
    }

    fn check(&self, function: &str, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the function returns a static string for any number.
        let text = unsafe { CStr::from_ptr((self.library.error_string)(status)) };
        Err(Error::Collective { rank: self.rank, problem: format!("{function}: {}", text.to_string_lossy()) })
    }

    /// Queues one operation for each tensor as a group.
    fn each(
        &self,
        function: &str,
        tensors: &[Tensor],
        queue: impl Fn(Buffer, Stream) -> c_int,
    ) -> Result<()> {
        let mut stream = std::ptr::null_mut();
        // SAFETY: `stream` is writable for a pointer.
        let status = unsafe { (self.library.current_stream)(self.device, &raw mut stream) };
        if status != 0 {
            let problem = format!("device {} has no current stream", self.device);
            return Err(Error::Collective { rank: self.rank, problem });
        }
        // Checked before the group begins: an open group must be ended.
        let buffers = tensors.iter().map(|tensor| self.buffer(tensor)).collect::<Result<Vec<_>>>()?;
        // SAFETY: no memory is passed.
        self.check("ncclGroupStart", unsafe { (self.library.group_start)() })?;
        let status = buffers.into_iter().map(|buffer| queue(buffer, stream)).find(|status| *status != 0);
        // SAFETY: no memory is passed.
        let ended = unsafe { (self.library.group_end)() };
        self.check(function, status.unwrap_or(0))?;
        self.check("ncclGroupEnd", ended)
    }

    fn buffer(&self, tensor: &Tensor) -> Result<Buffer> {
        let kind = match tensor.kind() {
            Kind::Float => FLOAT32,
            Kind::Double => FLOAT64,
            other => return Err(self.unfit(&format!("its kind is {other:?}"))),
        };
        let here = tensor.device() == tch::Device::Cuda(usize::try_from(self.device).unwrap_or(usize::MAX));
        if !here || !tensor.is_contiguous() {
            return Err(self.unfit("it is not contiguous on the rank's GPU"));
        }
        Ok(Buffer { address: tensor.data_ptr(), count: tensor.numel(), kind })
    }

    fn unfit(&self, problem: &str) -> Error {
        Error::Collective { rank: self.rank, problem: format!("a tensor cannot be sent: {problem}") }
    }
}

/// A tensor's elements on the device.
struct Buffer {
    address: *mut c_void,
    count: usize,
    kind: c_int,
}

impl Comm for Nccl {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn world_size(&self) -> u32 {
        self.world_size
    }

    fn all_reduce_sum(&self, tensors: &[Tensor]) -> Result<()> {
        self.each("ncclAllReduce", tensors, |Buffer { address, count, kind }, stream| {
            // SAFETY: `buffer` has checked that there are `count` contiguous elements of this kind on the communicator's
            // device. The caller's tensors stay alive until the stream has done its work: torch's allocator gives
            // memory that was used on a stream only to later work of the same stream.
            unsafe { (self.library.all_reduce)(address, address, count, kind, SUM, self.handle, stream) }
        })
    }

    fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        self.each("ncclBroadcast", tensors, |Buffer { address, count, kind }, stream| {
            // SAFETY: as in `all_reduce_sum`; the root is rank 0.
            unsafe { (self.library.broadcast)(address, address, count, kind, 0, self.handle, stream) }
        })
    }

    /// Waits for the other ranks' queues as well as for their hosts.
    fn barrier(&self) -> Result<()> {
        let device = tch::Device::Cuda(usize::try_from(self.device).unwrap_or(usize::MAX));
        let one = Tensor::f_ones([1], (Kind::Float, device))?;
        self.all_reduce_sum(std::slice::from_ref(&one))?;
        one.f_double_value(&[0])?; // waits for the device
        Ok(())
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: the handle came from ncclCommInitRank and is not used after this.
            unsafe { (self.library.destroy)(self.handle) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_cuda_says_which_function_is_missing() {
        let message = Library::loaded().unwrap_err();
        assert_eq!(
            message,
            "ncclGetUniqueId is not in the libtorch that is loaded; NCCL comes with its CUDA part"
        );
    }

    #[test]
    fn every_function_is_needed() {
        let names = std::cell::RefCell::new(Vec::new());
        let address = Library::loaded as *const () as *mut c_void;
        // Never called: only that all are asked for, and that one missing is told by its name.
        let all = |name: &CStr| {
            names.borrow_mut().push(name.to_owned());
            address
        };
        Library::find(all).unwrap();
        let names = names.into_inner();
        assert_eq!(names.len(), 10);
        for missing in &names {
            let lookup =
                |name: &CStr| if name == missing.as_c_str() { std::ptr::null_mut() } else { address };
            let message = Library::find(lookup).unwrap_err();
            assert!(message.starts_with(&*missing.to_string_lossy()), "{message}");
        }
    }
}
