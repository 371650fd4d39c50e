//! What libtorch can do and tch does not offer: C++ behind a C ABI, as safe functions on tensors.
//!
//! Each topic is one file in `cc/` and one module here that declares its functions and makes them safe: shapes, kinds
//! and layouts are checked on this side, and what C++ throws comes back as [`Error::Torch`]. The C++ is compiled by the
//! build script with the headers of the libtorch that torch-sys links, on any machine that has a C++ compiler.
//!
//! All functions must be called on the thread that does the tensor work, as those of tch.

pub mod aoti;
pub mod c10d;
pub mod cuda;
pub mod library;
pub mod linear;

use std::ffi::{CStr, c_char};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong behind the C ABI.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch threw an exception: its message, without the C++ stack.
    #[error("{function}: {message}")]
    Torch { function: &'static str, message: String },
    /// A tensor does not have the shape, kind or layout that the function needs.
    #[error("{function}: {problem}")]
    Argument { function: &'static str, problem: String },
    /// The CUDA part is not there or cannot be loaded.
    #[error("{problem}")]
    Cuda { problem: String },
    /// An operation of tch failed on the way.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
}

unsafe extern "C" {
    fn curate_free_message(message: *mut c_char);
}

/// What a function of the ABI returned, as a result.
///
/// # Safety
/// `message` must be null or come from a function of `cc/`, and must not be used again.
unsafe fn check(function: &'static str, message: *mut c_char) -> Result<()> {
    // SAFETY: the caller promises a message of `cc/`, which this frees.
    unsafe { check_with(function, message, curate_free_message) }
}

/// As [`check`], for messages that `free` takes back.
///
/// # Safety
/// `message` must be null or a string that `free` takes, and must not be used again.
unsafe fn check_with(
    function: &'static str,
    message: *mut c_char,
    free: unsafe extern "C" fn(*mut c_char),
) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the caller promises a message of ours, which ends with a NUL.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: the same message, which is not used any more.
    unsafe { free(message) };
    // What follows is the file and the stack of libtorch's build.
    let text = text.split("\nException raised from").next().unwrap_or_default().to_owned();
    Err(Error::Torch { function, message: text })
}
