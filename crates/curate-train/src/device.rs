//! Where the tensors live, and how CUDA comes in without being linked.
//!
//! The program links only libtorch's CPU part, so one small binary serves every machine. When CUDA is asked for,
//! `libtorch_cuda.so` is opened at run time from the folder of the libtorch that is in use; its own run path finds
//! the NVIDIA libraries. Opening it makes torch see the device: its registration is a static initialiser.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use tch::Device;

use crate::{Error, Result};

unsafe extern "C" {
    /// Any function that libtorch_cpu exports would do: only its address is used.
    fn torch_call_dispatcher();
}

/// Which device to use, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA if it can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// This CUDA device, or an error.
    Cuda(usize),
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| "expected auto, cpu, cuda or cuda:N".to_owned()),
        }
    }
}

/// Opens the device, loading CUDA only when it is needed.
pub fn open(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(if cuda_problem(0).is_none() { Device::Cuda(0) } else { Device::Cpu }),
        DeviceChoice::Cuda(index) => match cuda_problem(index) {
            None => Ok(Device::Cuda(index)),
            Some(problem) => Err(Error::Device { device: name(Device::Cuda(index)), problem }),
        },
    }
}

/// The name of a device as it is written in options and files.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu => "cpu".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Sets the number of threads that tensor operations use. It is part of what a bitwise continuation depends on.
pub fn set_threads(threads: u32) {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}

/// Why this CUDA device cannot be used, or `None` if it can.
fn cuda_problem(index: usize) -> Option<String> {
    if let Err(problem) = load_cuda() {
        return Some(problem);
    }
    if !tch::Cuda::is_available() {
        return Some("libtorch_cuda was loaded but finds no GPU or no driver".to_owned());
    }
    let count = tch::Cuda::device_count();
    (index as i64 >= count).then(|| format!("there are {count} CUDA devices, counted from 0"))
}

/// Opens `libtorch_cuda.so` beside the loaded `libtorch_cpu.so`. Opening it again is harmless.
pub(crate) fn load_cuda() -> Result<(), String> {
    let library = libtorch_folder()?.join("libtorch_cuda.so");
    if !library.exists() {
        return Err(format!("this libtorch has no CUDA part ({} is missing)", library.display()));
    }
    let path = CString::new(library.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call. The library's initialisers are torch's own,
    // made for being loaded into a process that has libtorch_cpu.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        // SAFETY: dlopen has just failed on this thread, so dlerror returns a valid string until the next dl call.
        let message = unsafe { CStr::from_ptr(libc::dlerror()) };
        return Err(message.to_string_lossy().into_owned());
    }
    Ok(())
}

/// The folder of the libtorch_cpu that this process uses, links resolved.
pub(crate) fn libtorch_folder() -> Result<PathBuf, String> {
    let address = torch_call_dispatcher as *const () as *const c_void;
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is writable for a Dl_info, and any address may be asked about.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    if found == 0 {
        return Err("cannot find the libtorch that is loaded".to_owned());
    }
    // SAFETY: zeroed is a valid Dl_info (null pointers), and dladdr has filled it.
    let info = unsafe { info.assume_init() };
    // SAFETY: dladdr succeeded, so dli_fname is a NUL-terminated string owned by the loader.
    let file = unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes().to_vec();
    let file = PathBuf::from(std::ffi::OsString::from_vec(file));
    let file = file.canonicalize().map_err(|error| format!("{}: {error}", file.display()))?;
    file.parent().map(PathBuf::from).ok_or_else(|| format!("{} is in no folder", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_parsed() {
        let check = |text: &str, expected| assert_eq!(text.parse::<DeviceChoice>().ok(), expected, "{text}");
        check("auto", Some(DeviceChoice::Auto));
        check("cpu", Some(DeviceChoice::Cpu));
        check("cuda", Some(DeviceChoice::Cuda(0)));
        check("cuda:3", Some(DeviceChoice::Cuda(3)));
        check("cuda:", None);
        check("cuda:x", None);
        check("gpu", None);
    }

    #[test]
    fn the_loaded_libtorch_is_found() {
        let folder = libtorch_folder().expect("a test is linked with libtorch");
        assert!(folder.join("libtorch_cpu.so").exists(), "{}", folder.display());
    }

    #[test]
    fn cuda_works_or_says_why_not() {
        match open(DeviceChoice::Cuda(0)) {
            Ok(device) => assert_eq!(device, Device::Cuda(0)),
            Err(error) => assert!(error.hint().is_some_and(|hint| hint.contains("--device cpu")), "{error}"),
        }
        assert!(open(DeviceChoice::Auto).is_ok());
    }
}
