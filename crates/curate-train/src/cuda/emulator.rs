//! The kernels on a CPU, for tests: their own source, compiled as C++ with an emulation of blocks, barriers and shuffles.
//!
//! The C++ compiler that torch-sys needs anyway makes one small library for each element type, kept in the temporary
//! folder under a name that is the hash of what it was made from. A launch is unpacked there exactly as the driver would
//! unpack it, so what stays untested is the driver's call alone.

#![allow(clippy::disallowed_methods)] // a test's own files

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use tch::Kind;

use super::launch::Launch;
use super::source::{Type, element_option, program, signatures};

/// Runs all threads and blocks of a kernel; the result is null or what went wrong.
type Run = unsafe extern "C" fn(c_uint, c_uint, c_uint, c_int, *const *const c_void) -> *const c_char;

/// The kernels for one element type.
#[derive(Debug)]
pub(crate) struct Emulator {
    library: usize,
    element: Kind,
}

impl Emulator {
    /// The emulator of a type; it is made once a process.
    pub(crate) fn of(element: Kind) -> &'static Emulator {
        static EMULATORS: [OnceLock<Emulator>; 2] = [OnceLock::new(), OnceLock::new()];
        EMULATORS[usize::from(element == Kind::BFloat16)].get_or_init(|| {
            let path = CString::new(build(element).as_os_str().as_bytes()).unwrap();
            // SAFETY: a NUL-terminated path; the library has no initialisers beyond libstdc++'s.
            let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
            assert!(!library.is_null(), "{path:?} cannot be loaded");
            Emulator { library: library as usize, element }
        })
    }

    /// Runs a launch, threads and blocks in ascending or in descending order.
    ///
    /// # Panics
    /// If the kernel's threads wait for each other for ever.
    pub(crate) fn run(&self, launch: &Launch<'_>, reverse: bool) {
        let cells = launch.cells(self.element);
        let addresses: Vec<*const c_void> =
            cells.iter().map(|cell| std::ptr::from_ref(cell).cast()).collect();
        let name = CString::new(format!("emulate_{}", launch.kernel)).unwrap();
        // SAFETY: the handle is of a library that is never closed, the name is NUL-terminated.
        let symbol = unsafe { libc::dlsym(self.library as *mut c_void, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?} is missing");
        // SAFETY: `glue` made the function with this signature.
        let run = unsafe { std::mem::transmute::<*mut c_void, Run>(symbol) };
        let [x, y] = launch.grid;
        // SAFETY: `cells` has checked the arguments against the kernel's signature; that the kernel stays inside its
        // arrays is what the tests are about.
        let problem = unsafe { run(x, y, launch.block, reverse.into(), addresses.as_ptr()) };
        if !problem.is_null() {
            // SAFETY: not null: a string constant of the library.
            let problem = unsafe { CStr::from_ptr(problem) };
            panic!("{}: {}", launch.kernel, problem.to_string_lossy());
        }
    }
}

/// Makes the library of an element type, unless it is there already.
fn build(element: Kind) -> PathBuf {
    let header = include_str!("kernels/emulator.hpp");
    let text = format!("{header}\n{}\n{}", program(), glue());
    let flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-w"];
    let hash = Sha256::digest(format!("{text}{flags:?}{element:?}"));
    let name = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let folder = std::env::temp_dir();
    let library = folder.join(format!("curate-kernels-{name}.so"));
    if library.exists() {
        return library;
    }
    let own = folder.join(format!("curate-kernels-{name}-{}", std::process::id()));
    let [source, new] = ["cpp", "so"].map(|end| own.with_extension(end));
    std::fs::write(&source, text).unwrap();
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let mut command = Command::new(compiler);
    command.args(flags).arg(element_option(element)).arg("-o").args([&new, &source]);
    let output = command.output().expect("a C++ compiler is there: torch-sys was built with it");
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&new, &library).unwrap();
    std::fs::remove_file(&source).unwrap();
    library
}

/// A C function for each kernel that unpacks its arguments.
fn glue() -> String {
    let of = |of: &Type| match of {
        Type::Elements => "element*",
        Type::Floats => "float*",
        Type::Doubles => "double*",
        Type::Ints => "int*",
        Type::Longs => "long long*",
        Type::Int => "int",
        Type::Long => "long long",
        Type::Float => "float",
    };
    let kernel = |(name, parameters): (&String, &Vec<Type>)| {
        let arguments: Vec<String> =
            (0..).zip(parameters).map(|(i, parameter)| format!("*({}*)a[{i}]", of(parameter))).collect();
        format!(
            "extern \"C\" const char* emulate_{name}(unsigned x, unsigned y, unsigned block, int reverse, void** a) {{\n\
             return emulator::run(x, y, block, reverse, [&] {{ {name}({}); }}); }}\n",
            arguments.join(", ")
        )
    };
    signatures().iter().map(kernel).collect()
}
