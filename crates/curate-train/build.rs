//! Tells the linker where libtorch will be found at run time.
//!
//! RUNPATH rather than RPATH, so that `LD_LIBRARY_PATH`, which `curate train` may set on another machine, wins.

use std::{env, path::Path, process::ExitCode};

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=build.rs");
    // torch-sys declares `links = "tch"`, hence this name; its own comment names another.
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").unwrap_or_default();
    for file in ["libtorch_cpu.so", "libc10.so"] {
        if !Path::new(&lib).join(file).exists() {
            println!(
                "cargo:error=no {file} in {lib:?}: run `python3 tools/bootstrap.py`, or set LIBTORCH to a libtorch 2.11.0"
            );
            return ExitCode::FAILURE;
        }
    }
    // First the folder of the build; then `.libtorch/` beside the target folder, seen from `target/release/` and
    // from `target/release/deps/`, so that a checkout can be moved.
    let places = [lib.as_str(), "$ORIGIN/../../.libtorch/torch/lib", "$ORIGIN/../../../.libtorch/torch/lib"];
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags");
    for place in places {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{place}");
    }
    ExitCode::SUCCESS
}
