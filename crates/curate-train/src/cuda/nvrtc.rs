//! NVRTC, NVIDIA's run-time compiler: turns the kernels' source into machine code for one kind of GPU.
//!
//! It comes with a CUDA build of torch (package nvidia-cuda-nvrtc) and needs no GPU and no driver, so a machine that has
//! neither can still check that every kernel compiles.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

use tch::Kind;

use super::source::{element_option, program};
use crate::device;
use curate_shim::library::Library;

/// Names of the library, the version that belongs to libtorch 2.11's CUDA 13 first.
const NAMES: [&str; 2] = ["libnvrtc.so.13", "libnvrtc.so.12"];

/// An opaque program of the compiler.
type Program = *mut c_void;

/// The functions of the library that are used, as nvrtc.h has them; all return 0 for success.
#[derive(Clone, Copy, Debug)]
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    arch_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
}

/// The compiler.
#[derive(Debug)]
pub(crate) struct Nvrtc {
    functions: Functions,
    /// Major and minor version.
    pub(crate) version: (i32, i32),
    /// The library holds the functions; the other one is opened for it by the next compilation.
    _libraries: [Option<Library>; 2],
}

impl Nvrtc {
    /// Opens the library: the file or folder `CURATE_NVRTC`, else the one that lies with the libtorch in use, else the
    /// loader's.
    pub(crate) fn open() -> Result<Nvrtc, String> {
        let mut problems = Vec::new();
        for path in candidates() {
            match Nvrtc::open_at(&path) {
                Ok(nvrtc) => return Ok(nvrtc),
                Err(problem) => problems.push(problem),
            }
        }
        Err(format!("NVRTC, the compiler of its kernels, is not found ({})", problems.join("; ")))
    }

    fn open_at(path: &Path) -> Result<Nvrtc, String> {
        // NVRTC loads its built-in functions by name; with them already loaded it does not matter where they lie.
        let builtins = path.parent().and_then(builtins).and_then(|path| Library::open_global(&path).ok());
        let library = Library::open(path)?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field has the signature of nvrtc.h, which has not changed since CUDA 11.2.
                unsafe { library.function($name) }?
            };
        }
        let functions = Functions {
            version: function!(c"nvrtcVersion"),
            arch_count: function!(c"nvrtcGetNumSupportedArchs"),
            archs: function!(c"nvrtcGetSupportedArchs"),
            create: function!(c"nvrtcCreateProgram"),
            compile: function!(c"nvrtcCompileProgram"),
            log_size: function!(c"nvrtcGetProgramLogSize"),
            log: function!(c"nvrtcGetProgramLog"),
            cubin_size: function!(c"nvrtcGetCUBINSize"),
            cubin: function!(c"nvrtcGetCUBIN"),
            destroy: function!(c"nvrtcDestroyProgram"),
        };
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are writable.
        let status = unsafe { (functions.version)(&mut major, &mut minor) };
        if status != 0 {
            return Err(format!("{}: nvrtcVersion failed with {status}", path.display()));
        }
        Ok(Nvrtc { functions, version: (major, minor), _libraries: [Some(library), builtins] })
    }

    /// Compute capabilities that can be compiled for: 90 is 9.0.
    pub(crate) fn architectures(&self) -> Vec<i32> {
        let mut count = 0;
        // SAFETY: the pointer is writable.
        if unsafe { (self.functions.arch_count)(&mut count) } != 0 {
            return Vec::new();
        }
        let mut all = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: there is room for `count` numbers.
        if unsafe { (self.functions.archs)(all.as_mut_ptr()) } != 0 {
            return Vec::new();
        }
        all
    }

    /// Compiles all kernels for an element type and an architecture such as `sm_90`: machine code, and the compiler's messages, which
    /// with `verbose` tell registers and shared memory of each kernel.
    pub(crate) fn compile(
        &self,
        element: Kind,
        architecture: &str,
        verbose: bool,
    ) -> Result<(Vec<u8>, String), String> {
        let source = CString::new(program()).expect("the kernels have no NUL");
        let mut options = options(element, architecture);
        if verbose {
            options.push("--ptxas-options=--verbose".to_owned());
        }
        let options: Vec<CString> =
            options.into_iter().map(|option| CString::new(option).expect("options have no NUL")).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let f = &self.functions;
        let mut program = null_mut();
        // SAFETY: NUL-terminated strings that outlive the call; no headers, hence null lists.
        check("nvrtcCreateProgram", unsafe {
            (f.create)(&mut program, source.as_ptr(), c"curate.cu".as_ptr(), 0, null(), null())
        })?;
        // SAFETY: a program just made, and as many options as are said.
        let status = unsafe { (f.compile)(program, pointers.len() as c_int, pointers.as_ptr()) };
        let log = bytes(program, f.log_size, f.log);
        let cubin = match status {
            0 => bytes(program, f.cubin_size, f.cubin),
            _ => Err(format!("the kernels do not compile for {architecture} (NVRTC error {status})")),
        };
        // SAFETY: the program is not used any more.
        unsafe { (f.destroy)(&mut program) };
        let log = String::from_utf8_lossy(&log?).trim_end_matches('\0').to_owned();
        match cubin {
            Ok(cubin) => Ok((cubin, log)),
            Err(problem) => Err(format!("{problem}:\n{log}")),
        }
    }
}

/// The compiler's options for an element type and an architecture.
pub(crate) fn options(element: Kind, architecture: &str) -> Vec<String> {
    vec![
        format!("--gpu-architecture={architecture}"),
        element_option(element).to_owned(),
        "--std=c++17".to_owned(),
    ]
}

/// The bytes that a pair of functions, for the size and for the content, gives.
fn bytes(
    program: Program,
    size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    content: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
) -> Result<Vec<u8>, String> {
    let mut length = 0;
    // SAFETY: a living program and a writable number.
    check("NVRTC", unsafe { size(program, &mut length) })?;
    let mut buffer = vec![0u8; length];
    // SAFETY: there is room for what the other function said.
    check("NVRTC", unsafe { content(program, buffer.as_mut_ptr().cast()) })?;
    Ok(buffer)
}

fn check(what: &str, status: c_int) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("{what} failed with error {status}")) }
}

/// Where the library may be, likeliest first.
fn candidates() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(own) = std::env::var_os("CURATE_NVRTC").map(PathBuf::from) {
        if !own.is_dir() {
            return vec![own];
        }
        places.push(own);
    }
    // The folder of the libtorch in use, links resolved, and the one that a build names (.cargo/config.toml).
    let in_use = device::libtorch_folder().ok().and_then(|lib| Some(lib.parent()?.parent()?.to_owned()));
    let named = std::env::var_os("LIBTORCH").and_then(|torch| Some(Path::new(&torch).parent()?.to_owned()));
    for site in in_use.into_iter().chain(named) {
        let folders = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib", "cuda/nvidia/cu13/lib"];
        places.extend(folders.map(|folder| site.join(folder)));
    }
    let there =
        places.iter().flat_map(|place| NAMES.map(|name| place.join(name))).filter(|path| path.exists());
    there.chain(NAMES.map(PathBuf::from)).collect()
}

/// `libnvrtc-builtins.so.MAJOR.MINOR` in a folder.
fn builtins(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc-builtins.so."))
    };
    files.filter(is).min()
}

#[cfg(test)]
mod tests {
    use super::super::source::signatures;
    use super::*;

    /// A100, H100 (with its own instructions too), B200; the rest if a report is asked for: L40S, H100, RTX 50.
    const ARCHITECTURES: [(&str, i32); 6] =
        [("sm_80", 80), ("sm_90a", 90), ("sm_100", 100), ("sm_89", 89), ("sm_90", 90), ("sm_120", 120)];

    #[test]
    #[allow(clippy::print_stderr)] // says why nothing was tested
    fn every_kernel_compiles_for_every_gpu() {
        let nvrtc = match Nvrtc::open() {
            Ok(nvrtc) => nvrtc,
            Err(problem) => {
                return eprintln!("skipped: {problem}; python3 tools/bootstrap.py --nvrtc fetches it");
            }
        };
        let (known, report_to) = (nvrtc.architectures(), std::env::var_os("CURATE_KERNEL_USE"));
        let count = if report_to.is_some() { ARCHITECTURES.len() } else { 3 };
        for (architecture, number) in ARCHITECTURES.into_iter().take(count) {
            if !known.contains(&number) {
                eprintln!("skipped: NVRTC {:?} does not know {architecture}", nvrtc.version);
                continue;
            }
            for element in [Kind::BFloat16, Kind::Float] {
                let (cubin, log) = nvrtc.compile(element, architecture, true).unwrap();
                assert!(cubin.starts_with(b"\x7fELF"));
                for name in signatures().keys() {
                    let compiled = format!("Compiling entry function '{name}' for '{architecture}'");
                    assert!(log.contains(&compiled), "{name} is missing:\n{log}");
                }
                // A spilled register would turn arithmetic into memory traffic.
                let spills = log.lines().filter(|line| line.contains("spill stores"));
                assert!(
                    spills.clone().all(|line| line.contains(" 0 bytes spill stores, 0 bytes spill loads")),
                    "{log}"
                );
                assert_eq!(spills.count(), signatures().len());
                if let Some(path) = &report_to {
                    report(Path::new(path), architecture, element, &log);
                }
            }
        }
    }

    /// Appends registers and shared memory of each kernel to a file.
    fn report(path: &Path, architecture: &str, element: Kind, log: &str) {
        use std::io::Write;
        let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let mut name = "";
        for line in log.lines() {
            if let Some(rest) = line.split("entry function '").nth(1) {
                name = rest.split('\'').next().unwrap_or_default();
            } else if let Some(rest) = line.split("Used ").nth(1) {
                writeln!(file, "{architecture} {element:?} {name}: {rest}").unwrap();
            }
        }
    }

    #[test]
    fn a_wrong_architecture_is_named() {
        let Ok(nvrtc) = Nvrtc::open() else { return };
        let problem = nvrtc.compile(Kind::Float, "sm_1", false).unwrap_err();
        assert!(problem.starts_with("the kernels do not compile for sm_1 (NVRTC error"), "{problem}");
    }
}
