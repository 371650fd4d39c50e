//! Compiled kernels on disk, so that only the first run of a program on a machine compiles.
//!
//! `kernels-HASH.cubin` in `$CURATE_CACHE`, else `$XDG_CACHE_HOME/curate`, else `~/.cache/curate`. The name is the hash of
//! everything the content depends on: source, options (element type, architecture) and compiler version. A cache that
//! cannot be written costs the compilation and nothing else.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tch::Kind;

use super::nvrtc::{Nvrtc, options};
use super::source::program;

/// Machine code for an element type and an architecture, from the cache or from the compiler.
pub(crate) fn cubin(nvrtc: &Nvrtc, element: Kind, architecture: &str) -> Result<Vec<u8>, String> {
    cubin_in(folder().as_deref(), nvrtc, element, architecture)
}

fn cubin_in(
    folder: Option<&Path>,
    nvrtc: &Nvrtc,
    element: Kind,
    architecture: &str,
) -> Result<Vec<u8>, String> {
    let path = folder.map(|folder| folder.join(name(nvrtc.version, element, architecture)));
    // A torn file cannot be there: it appears under its name when it is complete.
    if let Some(found) = path.as_ref().and_then(|path| std::fs::read(path).ok()) {
        return Ok(found);
    }
    let cubin = nvrtc.compile(element, architecture, false)?.0;
    if let Some(path) = path {
        let _ = store(&path, &cubin); // the next run compiles again
    }
    Ok(cubin)
}

fn name(version: (i32, i32), element: Kind, architecture: &str) -> String {
    let hash = Sha256::new()
        .chain_update(program())
        .chain_update(format!("{version:?} {:?}", options(element, architecture)))
        .finalize();
    let hash: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("kernels-{hash}.cubin")
}

fn folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("CURATE_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("curate")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/curate")))
}

/// Writes aside and renames: another process sees all of the file or none.
#[allow(clippy::disallowed_methods)] // this is such a module
fn store(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().expect("a file in the cache folder");
    std::fs::create_dir_all(folder)?;
    let aside = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = std::fs::File::create(&aside)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.and_then(|()| std::fs::rename(&aside, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&aside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_depends_on_compiler_type_and_architecture() {
        let all = [
            name((13, 0), Kind::Float, "sm_90"),
            name((13, 1), Kind::Float, "sm_90"),
            name((13, 0), Kind::BFloat16, "sm_90"),
            name((13, 0), Kind::Float, "sm_80"),
        ];
        let mut distinct = all.to_vec();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
        assert_eq!(all[0], name((13, 0), Kind::Float, "sm_90"));
    }

    #[test]
    fn a_file_appears_complete_and_leaves_nothing_beside_it() {
        let folder = std::env::temp_dir().join(format!("curate-cache-test-{}", std::process::id()));
        let path = folder.join("deeper/kernels-0.cubin");
        store(&path, b"content").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
        assert_eq!(std::fs::read_dir(folder.join("deeper")).unwrap().count(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_cached_kernel_is_not_compiled_again() {
        let Ok(nvrtc) = Nvrtc::open() else { return };
        let folder = std::env::temp_dir().join(format!("curate-cache-test-nvrtc-{}", std::process::id()));
        let first = cubin_in(Some(&folder), &nvrtc, Kind::Float, "sm_80").unwrap();
        let path = folder.join(name(nvrtc.version, Kind::Float, "sm_80"));
        assert_eq!(std::fs::read(&path).unwrap(), first);
        store(&path, b"from the cache").unwrap();
        assert_eq!(cubin_in(Some(&folder), &nvrtc, Kind::Float, "sm_80").unwrap(), b"from the cache");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
