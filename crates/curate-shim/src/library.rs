//! Shared libraries opened at run time: nothing of CUDA is ever linked.

use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A library that stays open for the life of the process: what it has made may outlive any value here.
#[derive(Debug)]
pub struct Library {
    handle: *mut c_void,
    path: PathBuf,
}

impl Library {
    /// Opens a library by path, or by name in the loader's folders.
    pub fn open(path: &Path) -> Result<Library, String> {
        Library::open_with(path, libc::RTLD_NOW | libc::RTLD_LOCAL)
    }

    /// As [`open`](Self::open); libraries opened later find its symbols.
    pub fn open_global(path: &Path) -> Result<Library, String> {
        Library::open_with(path, libc::RTLD_NOW | libc::RTLD_GLOBAL)
    }

    fn open_with(path: &Path, flags: c_int) -> Result<Library, String> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: `name` is NUL-terminated and outlives the call; the initialisers of these libraries are made for this.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
        if handle.is_null() {
            // SAFETY: dlopen has just failed on this thread: there is a string until the next dl call.
            let message = unsafe { CStr::from_ptr(libc::dlerror()) };
            return Err(message.to_string_lossy().into_owned());
        }
        Ok(Library { handle, path: path.to_owned() })
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `F` must be the type of a C function pointer with the signature that the library documents for `name`.
    pub unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, String> {
        // SAFETY: the handle is open, the name NUL-terminated.
        let symbol = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        if symbol.is_null() {
            return Err(format!("{} has no {}", self.path.display(), name.to_string_lossy()));
        }
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>(), "a function pointer");
        // SAFETY: the sizes are equal, the address is not null, and the caller vouches for the type.
        Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&symbol) })
    }
}
