//! Functions that TorchInductor has compiled ahead of time (AOTInductor): packages that Python makes and that run without it.
//!
//! A package is machine code for the shapes, the kinds and the processor that it was made for, and checks few of them: whoever
//! makes one writes down what it is for ([`metadata`]), and whoever calls it compares that first.

use std::ffi::{CStr, CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::{Error, Result, check, curate_free_message};

/// A package in C++.
#[repr(C)]
struct Opaque {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn curate_aoti_metadata(path: *const c_char, key: *const c_char, out: *mut *mut c_char) -> *mut c_char;
    fn curate_aoti_open(path: *const c_char, out: *mut *mut Opaque) -> *mut c_char;
    fn curate_aoti_run(
        package: *mut Opaque,
        inputs: *const *const C_tensor,
        count: usize,
        outputs: *mut *mut C_tensor,
        expected: usize,
    ) -> *mut c_char;
    fn curate_aoti_close(package: *mut Opaque);
}

/// The text that a package has under `key`, if there is one. Nothing of the package is executed.
///
/// # Errors
/// [`Error::Torch`] if the file is no package.
pub fn metadata(path: &Path, key: &str) -> Result<Option<String>> {
    const NAME: &str = "aoti::metadata";
    let (path, key) = (text(NAME, path.as_os_str().as_bytes())?, text(NAME, key.as_bytes())?);
    let mut value = null_mut();
    // SAFETY: NUL-terminated strings that live during the call; `value` is writable. The message is used once.
    unsafe { check(NAME, curate_aoti_metadata(path.as_ptr(), key.as_ptr(), &raw mut value)) }?;
    if value.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, so a NUL-terminated string of the shim.
    let found = unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned();
    // SAFETY: the same string, which is not used any more.
    unsafe { curate_free_message(value) };
    Ok(Some(found))
}

/// An opened package: its shared object is loaded until this is dropped.
#[derive(Debug)]
pub struct Package(*mut Opaque);

impl Package {
    /// Unpacks a package into a temporary folder and loads it, which runs code of it: open only what you have made. Its
    /// shared object looks for `libtorch.so`, which must have been opened before or be found by the loader.
    ///
    /// # Errors
    /// [`Error::Torch`] if the file is no package, or cannot be loaded.
    pub fn open(path: &Path) -> Result<Package> {
        const NAME: &str = "aoti::open";
        let path = text(NAME, path.as_os_str().as_bytes())?;
        let mut package = null_mut();
        // SAFETY: a NUL-terminated string that lives during the call; `package` is writable. The message is used once.
        unsafe { check(NAME, curate_aoti_open(path.as_ptr(), &raw mut package)) }?;
        Ok(Package(package))
    }

    /// Calls the function; it returns `outputs` tensors that are new.
    ///
    /// # Safety
    /// The inputs must have the number, order, shapes, kinds and device of those that the package was made with: the machine
    /// code takes them for granted.
    ///
    /// # Errors
    /// [`Error::Torch`] for what the function throws, and for another number of outputs.
    pub unsafe fn run(&mut self, inputs: &[&Tensor], outputs: usize) -> Result<Vec<Tensor>> {
        const NAME: &str = "aoti::run";
        let pointers: Vec<*const C_tensor> = inputs.iter().map(|tensor| tensor.as_ptr()).collect();
        let mut found = vec![null_mut(); outputs];
        // SAFETY: an open package; tensors of tch that live during the call and fit it, as the caller promises; `found` has
        // room for so many pointers. The message is used once.
        let message = unsafe {
            curate_aoti_run(self.0, pointers.as_ptr(), pointers.len(), found.as_mut_ptr(), outputs)
        };
        // SAFETY: a message of the shim, used once.
        unsafe { check(NAME, message) }?;
        // SAFETY: on success each is a tensor that nobody else owns.
        Ok(found.into_iter().map(|tensor| unsafe { Tensor::from_ptr(tensor) }).collect())
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        // SAFETY: made by the shim, and closed here alone.
        unsafe { curate_aoti_close(self.0) }
    }
}

fn text(function: &'static str, bytes: &[u8]) -> Result<CString> {
    let problem = || format!("{:?} has a NUL", String::from_utf8_lossy(bytes));
    CString::new(bytes).map_err(|_| Error::Argument { function, problem: problem() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_package_is_an_error() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let check = |path: &Path| {
            let message = metadata(path, "x").unwrap_err().to_string();
            assert!(message.starts_with("aoti::metadata: "), "{message}");
            assert!(Package::open(path).is_err());
        };
        check(&path);
        check(Path::new("/nowhere/step.pt2"));
    }
}
