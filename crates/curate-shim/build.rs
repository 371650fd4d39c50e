//! Compiles `cc/*.cc`, one file for each topic, against the headers of the libtorch that torch-sys links.
//!
//! A C++ compiler is all that is needed: no GPU, no CUDA toolkit. What the files call in libtorch is resolved when the
//! program is linked.
//!
//! `cuda/cuda.cc` becomes a shared object that the crate carries and opens at run time. It needs CUDA's header files: those of
//! `CURATE_CUDA_INCLUDE` (folders, separated by colons), else of the packages beside libtorch (tools/bootstrap.py), else of
//! `CUDA_HOME` or /usr/local/cuda. Without them the crate is built without it, and says so when CUDA is asked for.

use std::path::{Path, PathBuf};
use std::{env, fs, process::ExitCode};

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cc");
    println!("cargo:rerun-if-changed=cuda");
    println!("cargo:rerun-if-env-changed=CURATE_CUDA_INCLUDE");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    // torch-sys declares `links = "tch"`, hence this name; its own comment names another.
    let lib = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB").unwrap_or_default());
    let include = lib.with_file_name("include");
    if !include.join("ATen/core/Tensor.h").exists() {
        println!(
            "cargo:error=no headers of libtorch in {include:?}: run `python3 tools/bootstrap.py`, or set LIBTORCH to a \
             libtorch 2.11.0 that has them"
        );
        return ExitCode::FAILURE;
    }
    let sources = match sources() {
        Ok(sources) => sources,
        Err(error) => {
            println!("cargo:error=cannot read the folder cc: {error}");
            return ExitCode::FAILURE;
        }
    };
    compiler(&include)
        .include("cc/c10d") // stands in for gloo's headers, see c10d.cc
        .files(sources)
        .compile("curate_shim");
    if let Err(problem) = cuda_object(&include) {
        println!("cargo:error=the CUDA part: {problem}");
        return ExitCode::FAILURE;
    }
    // For the tests of this crate; whoever links it says the same (build.rs of curate-train).
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{}", lib.display());
    ExitCode::SUCCESS
}

/// The compiler with libtorch's headers. They are others': their warnings are not ours. The work is done inside libtorch, so -O1
/// is enough.
fn compiler(include: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").flag("-isystem").flag(include).flag("-isystem");
    build.flag(include.join("torch/csrc/api/include")).opt_level(1).debug(false);
    build
}

/// Makes `libcurate_cuda.so` in the output folder: empty without CUDA's headers.
#[allow(clippy::disallowed_methods)] // cargo throws the output folder of a failed build script away
fn cuda_object(include: &Path) -> Result<(), String> {
    let object = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("libcurate_cuda.so");
    let site = include.parent().and_then(Path::parent).unwrap_or(include);
    let folders = cuda_headers(site);
    if folders.is_empty() {
        println!(
            "cargo:warning=no header files of CUDA: curate-train will have no fused engine and no graphs on a GPU"
        );
        return fs::write(&object, []).map_err(|error| format!("{}: {error}", object.display()));
    }
    let mut command = compiler(include).get_compiler().to_command();
    for folder in &folders {
        command.arg("-isystem").arg(folder);
    }
    // Symbols of libtorch stay undefined on purpose: libtorch_cuda has them when the object is opened.
    command.args(["-shared", "-fPIC", "cuda/cuda.cc", "-o"]).arg(&object);
    let status = command.status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}")) }
}

/// Folders that together hold the run-time's headers and the compiler's (`crt`), or none.
fn cuda_headers(site: &Path) -> Vec<PathBuf> {
    let own = env::var_os("CURATE_CUDA_INCLUDE").map(|value| env::split_paths(&value).collect::<Vec<_>>());
    let packages = ["cu13", "cuda_runtime", "cuda_nvcc", "cuda_crt"];
    // A full torch lacks the compiler's headers: tools/bootstrap.py puts them beside it.
    let places = [site.join("nvidia"), site.join("cuda/nvidia")];
    let beside = places.iter().flat_map(|place| packages.map(|package| place.join(package).join("include")));
    let toolkit = env::var_os("CUDA_HOME").map_or_else(|| PathBuf::from("/usr/local/cuda"), PathBuf::from);
    let choices = [own.unwrap_or_default(), beside.collect(), vec![toolkit.join("include")]];
    let complete = |folders: &Vec<PathBuf>| {
        let has = |file: &str| folders.iter().any(|folder| folder.join(file).exists());
        has("cuda_runtime_api.h") && has("crt/host_defines.h")
    };
    choices.into_iter().find(complete).unwrap_or_default()
}

/// The files of `cc/`, in the order of their names.
fn sources() -> std::io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir("cc")?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    paths.retain(|path| path.extension() == Some(Path::new("cc").as_os_str()));
    paths.sort();
    Ok(paths)
}
