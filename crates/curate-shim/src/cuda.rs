//! torch's CUDA side that tch lacks: attention kernels, CUDA graphs, streams, memory.
//!
//! The C++ (`cuda/cuda.cc`) is a shared object of its own inside this crate, opened from memory after libtorch_cuda, which has the
//! symbols that it needs: a program that links this crate starts, and runs on a CPU, without any CUDA library. Where the build found
//! no CUDA headers there is no such object, and [`Cuda::get`] says so. It was compiled and loaded without a GPU, and has
//! never run on one.

use std::ffi::{c_char, c_int, c_void};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::OnceLock;

use tch::Tensor;

use crate::library::Library;
use crate::{Error, Result};

/// The shared object, if the build made it.
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libcurate_cuda.so"));

type CTensor = *mut torch_sys::C_tensor;
type Opaque = *mut c_void;

/// The functions, as cuda.cc has them: null for success, else a message.
#[derive(Clone, Copy, Debug)]
struct Functions {
    free_message: unsafe extern "C" fn(*mut c_char),
    use_device: unsafe extern "C" fn(c_int) -> *mut c_char,
    stream: unsafe extern "C" fn(c_int, *mut Opaque) -> *mut c_char,
    attention: unsafe extern "C" fn(
        c_int,
        CTensor,
        CTensor,
        CTensor,
        CTensor,
        i64,
        *mut Opaque,
        *mut CTensor,
    ) -> *mut c_char,
    attention_backward: unsafe extern "C" fn(
        Opaque,
        CTensor,
        CTensor,
        CTensor,
        CTensor,
        *mut CTensor,
        *mut CTensor,
        *mut CTensor,
    ) -> *mut c_char,
    attention_free: unsafe extern "C" fn(Opaque),
    graph_begin: unsafe extern "C" fn(c_int, *mut Opaque) -> *mut c_char,
    graph_end: unsafe extern "C" fn(Opaque) -> *mut c_char,
    graph_replay: unsafe extern "C" fn(Opaque) -> *mut c_char,
    graph_free: unsafe extern "C" fn(Opaque),
    copy: unsafe extern "C" fn(CTensor, CTensor) -> *mut c_char,
    memory: unsafe extern "C" fn(c_int, *mut i64, *mut i64, *mut i64) -> *mut c_char,
    reset_peak: unsafe extern "C" fn(c_int) -> *mut c_char,
    empty_cache: unsafe extern "C" fn() -> *mut c_char,
    deterministic: unsafe extern "C" fn(c_int) -> *mut c_char,
}

/// The opened object.
#[derive(Debug)]
pub struct Cuda {
    f: Functions,
    _library: Library,
}

/// Which of torch's kernels computes attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// FlashAttention 2, in bf16.
    Flash = 0,
    /// cuDNN's, in bf16; faster on Hopper, not deterministic.
    CuDnn = 1,
    /// Memory-efficient attention, also in fp32.
    Efficient = 2,
}

/// What the backward pass of attention needs.
#[derive(Debug)]
pub struct Attended {
    saved: Opaque,
    free: unsafe extern "C" fn(Opaque),
}

impl Drop for Attended {
    fn drop(&mut self) {
        // SAFETY: made by the shim, and freed here alone.
        unsafe { (self.free)(self.saved) }
    }
}

/// A recorded graph.
#[derive(Debug)]
pub struct Graph {
    graph: Opaque,
    free: unsafe extern "C" fn(Opaque),
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by the shim, and freed here alone.
        unsafe { (self.free)(self.graph) }
    }
}

/// Bytes of torch's CUDA allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In tensors now.
    pub current: u64,
    /// In tensors at most, since the last reset.
    pub peak: u64,
    /// Held from the device.
    pub reserved: u64,
}

impl Cuda {
    /// The object of this process; libtorch_cuda must have been opened before, with its symbols for all.
    pub fn get() -> Result<&'static Cuda> {
        // Function pointers and a handle of a library that is never closed.
        struct Shared(Result<Cuda, String>);
        // SAFETY: what the functions do is torch's affair, whose CUDA side is thread-safe; the handle is not used after opening.
        unsafe impl Send for Shared {}
        // SAFETY: as above.
        unsafe impl Sync for Shared {}
        static CUDA: OnceLock<Shared> = OnceLock::new();
        let opened = CUDA.get_or_init(|| Shared(Cuda::open()));
        opened.0.as_ref().map_err(|problem| Error::Cuda { problem: problem.clone() })
    }

    fn open() -> Result<Cuda, String> {
        if OBJECT.is_empty() {
            return Err("this program was built without the header files of CUDA".to_owned());
        }
        let library = Library::open(&in_memory(OBJECT)?)?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field has the signature of cuda.cc for this name.
                unsafe { library.function($name) }?
            };
        }
        let f = Functions {
            free_message: function!(c"curate_cuda_free_message"),
            use_device: function!(c"curate_cuda_use"),
            stream: function!(c"curate_cuda_stream"),
            attention: function!(c"curate_cuda_attention"),
            attention_backward: function!(c"curate_cuda_attention_backward"),
            attention_free: function!(c"curate_cuda_attention_free"),
            graph_begin: function!(c"curate_cuda_graph_begin"),
            graph_end: function!(c"curate_cuda_graph_end"),
            graph_replay: function!(c"curate_cuda_graph_replay"),
            graph_free: function!(c"curate_cuda_graph_free"),
            copy: function!(c"curate_cuda_copy"),
            memory: function!(c"curate_cuda_memory"),
            reset_peak: function!(c"curate_cuda_reset_peak"),
            empty_cache: function!(c"curate_cuda_empty_cache"),
            deterministic: function!(c"curate_cuda_deterministic"),
        };
        Ok(Cuda { f, _library: library })
    }

    /// Makes a device the one that this thread launches on.
    pub fn use_device(&self, device: i32) -> Result<()> {
        // SAFETY: a number.
        self.check("use_device", unsafe { (self.f.use_device)(device) })
    }

    /// The stream on which torch launches.
    pub fn stream(&self, device: i32) -> Result<*mut c_void> {
        let mut stream = null_mut();
        // SAFETY: the pointer is writable.
        self.check("stream", unsafe { (self.f.stream)(device, &mut stream) })?;
        Ok(stream)
    }

    /// Causal attention: q [B, H, T, D], k and v [B, K, T, D] → [B, H, T, D].
    ///
    /// With `documents` (where each begins and the end of the last, as 32-bit integers on the device, and the length of the longest)
    /// q [N, H, D], k and v [N, K, D] → [N, H, D]: the documents lie one after another and see themselves alone.
    pub fn attention(
        &self,
        kernel: Attention,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        documents: Option<(&Tensor, i64)>,
    ) -> Result<(Tensor, Attended)> {
        let (mut saved, mut out) = (null_mut(), null_mut());
        let [cq, ck, cv] = [q, k, v].map(|tensor| tensor.as_ptr().cast_mut());
        let (starts, longest) =
            documents.map_or((null_mut(), 0), |(starts, longest)| (starts.as_ptr().cast_mut(), longest));
        // SAFETY: living tensors; both pointers are writable.
        let message =
            unsafe { (self.f.attention)(kernel as c_int, cq, ck, cv, starts, longest, &mut saved, &mut out) };
        self.check("attention", message)?;
        // SAFETY: on success `out` is a tensor of ours.
        let out = unsafe { Tensor::from_ptr(out) };
        Ok((out, Attended { saved, free: self.f.attention_free }))
    }

    /// The gradients of q, k and v, from that of the result.
    pub fn attention_backward(
        &self,
        attended: &Attended,
        dout: &Tensor,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let [mut dq, mut dk, mut dv] = [null_mut(); 3];
        let [cd, cq, ck, cv] = [dout, q, k, v].map(|tensor| tensor.as_ptr().cast_mut());
        // SAFETY: living tensors, a living forward pass, writable pointers.
        let message =
            unsafe { (self.f.attention_backward)(attended.saved, cd, cq, ck, cv, &mut dq, &mut dk, &mut dv) };
        self.check("attention_backward", message)?;
        // SAFETY: on success all three are tensors of ours.
        Ok([dq, dk, dv].map(|tensor| unsafe { Tensor::from_ptr(tensor) }))
    }

    /// Records what `work` launches on the device, without doing it.
    pub fn record<E: From<Error>>(
        &self,
        device: i32,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<Graph, E> {
        let mut graph = null_mut();
        // SAFETY: the pointer is writable.
        self.check("record", unsafe { (self.f.graph_begin)(device, &mut graph) })?;
        let graph = Graph { graph, free: self.f.graph_free };
        let done = work();
        // SAFETY: the graph was begun just before; it must be ended whatever the work came to.
        let ended = self.check("record", unsafe { (self.f.graph_end)(graph.graph) });
        done?;
        Ok(ended.map(|()| graph)?)
    }

    /// Puts the recorded work on torch's stream.
    pub fn replay(&self, graph: &Graph) -> Result<()> {
        // SAFETY: a graph that was recorded whole.
        self.check("replay", unsafe { (self.f.graph_replay)(graph.graph) })
    }

    /// Copies; from pinned host memory without waiting.
    pub fn copy(&self, to: &Tensor, from: &Tensor) -> Result<()> {
        // SAFETY: living tensors.
        self.check("copy", unsafe { (self.f.copy)(to.as_ptr().cast_mut(), from.as_ptr().cast_mut()) })
    }

    /// What the allocator holds.
    pub fn memory(&self, device: i32) -> Result<Memory> {
        let [mut current, mut peak, mut reserved] = [0; 3];
        // SAFETY: the pointers are writable.
        self.check("memory", unsafe { (self.f.memory)(device, &mut current, &mut peak, &mut reserved) })?;
        let [current, peak, reserved] =
            [current, peak, reserved].map(|bytes| u64::try_from(bytes).unwrap_or(0));
        Ok(Memory { current, peak, reserved })
    }

    /// Lets the peak start anew.
    pub fn reset_peak(&self, device: i32) -> Result<()> {
        // SAFETY: a number.
        self.check("reset_peak", unsafe { (self.f.reset_peak)(device) })
    }

    /// Gives memory that no tensor uses back to the device.
    pub fn empty_cache(&self) -> Result<()> {
        // SAFETY: no arguments.
        self.check("empty_cache", unsafe { (self.f.empty_cache)() })
    }

    /// Makes torch choose algorithms that give the same bits every time.
    pub fn set_deterministic(&self, on: bool) -> Result<()> {
        // SAFETY: a number.
        self.check("set_deterministic", unsafe { (self.f.deterministic)(on.into()) })
    }

    fn check(&self, function: &'static str, message: *mut c_char) -> Result<()> {
        // SAFETY: null or a message of the object, which `free_message` takes.
        unsafe { crate::check_with(function, message, self.f.free_message) }
    }
}

/// A path under which the loader finds these bytes: a file in memory, which lives as long as the process.
fn in_memory(bytes: &[u8]) -> Result<PathBuf, String> {
    // SAFETY: a NUL-terminated name and no flags.
    let descriptor = unsafe { libc::memfd_create(c"curate-cuda-shim".as_ptr(), 0) };
    if descriptor < 0 {
        return Err(format!("memfd_create: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let mut file = unsafe { std::fs::File::from_raw_fd(descriptor) };
    file.write_all(bytes).map_err(|error| format!("writing the CUDA shim to memory: {error}"))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    std::mem::forget(file); // the loader opens the path later
    Ok(path)
}
