//! What cargo knows about the workspace and its locked dependencies.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Result;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_owned()
}

/// `cargo metadata` of the workspace as locked, for this machine's platform.
pub(crate) fn cargo_metadata() -> Result<Value> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc -vV names no host")?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args([
        "metadata",
        "--locked",
        "--format-version=1",
        "--filter-platform",
        host,
    ]);
    Ok(serde_json::from_str(&output(&mut command)?)?)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every edge between crates of the workspace. A new one is a design change: see docs/ARCHITECTURE.md.
    const ARROWS: [(&str, &str); 12] = [
        ("curate", "curate-clean"),
        ("curate", "curate-core"),
        ("curate", "curate-dedup"),
        ("curate", "curate-io"),
        ("curate", "curate-shards"),
        ("curate", "curate-tokenize"),
        ("curate-clean", "curate-core"),
        ("curate-dedup", "curate-core"),
        ("curate-io", "curate-core"),
        ("curate-tokenize", "curate-core"),
        ("curate-train", "curate-shards"),
        ("curate-train", "curate-shim"),
    ];

    #[test]
    fn dependency_arrows_are_the_designed_ones() {
        let metadata = cargo_metadata().unwrap();
        let mut found = BTreeSet::new();
        let mut links_torch = BTreeSet::new();
        let members: BTreeSet<&str> =
            metadata["workspace_members"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let packages = metadata["packages"].as_array().unwrap();
        for package in packages.iter().filter(|p| members.contains(p["id"].as_str().unwrap())) {
            let name = package["name"].as_str().unwrap();
            for dependency in package["dependencies"].as_array().unwrap() {
                let to = dependency["name"].as_str().unwrap();
                let dev = if dependency["kind"] == "dev" { " (dev)" } else { "" };
                if to.starts_with("curate") {
                    found.insert((name, format!("{to}{dev}")));
                }
                if to == "tch" || to == "torch-sys" {
                    links_torch.insert(name);
                }
            }
        }
        let allowed: BTreeSet<(&str, String)> = ARROWS.iter().map(|(a, b)| (*a, (*b).to_owned())).collect();
        assert_eq!(found, allowed);
        assert_eq!(links_torch, BTreeSet::from(["curate-shim", "curate-train"]));
    }

    #[test]
    fn default_members_are_all_that_need_no_libtorch() {
        let metadata = cargo_metadata().unwrap();
        let ids = |key: &str| -> BTreeSet<String> {
            metadata[key].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
        };
        let (all, default) = (ids("workspace_members"), ids("workspace_default_members"));
        let missing: Vec<_> = all.difference(&default).collect();
        let need_libtorch = ["curate-shim", "curate-train"];
        assert_eq!(missing.len(), need_libtorch.len(), "{missing:?}");
        assert!(missing.iter().zip(need_libtorch).all(|(id, name)| id.contains(name)), "{missing:?}");
    }
}
