//! Compiles `cc/*.cc`, one file for each topic, against the headers of the libtorch that torch-sys links.
//!
//! A C++ compiler is all that is needed: no GPU, no CUDA toolkit. What the files call in libtorch is resolved when the
//! program is linked.

use std::path::{Path, PathBuf};
use std::{env, fs, process::ExitCode};

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cc");
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
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // Headers of others: their warnings are not ours. The work is done inside libtorch, so -O1 is enough.
        .flag("-isystem")
        .flag(&include)
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include"))
        .opt_level(1)
        .debug(false)
        .include("cc/c10d") // stands in for gloo's headers, see c10d.cc
        .files(sources)
        .compile("curate_shim");
    // For the tests of this crate; whoever links it says the same (build.rs of curate-train).
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{}", lib.display());
    ExitCode::SUCCESS
}

/// The files of `cc/`, in the order of their names.
fn sources() -> std::io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir("cc")?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    paths.retain(|path| path.extension() == Some(Path::new("cc").as_os_str()));
    paths.sort();
    Ok(paths)
}
