//! The demo's corpus: Markdown, licences and source comments of the locked dependency crates.
//!
//! They lie on every machine that has built the project: thousands of files of real prose, with natural exact and
//! near-duplicates (every crate brings its licence).

#![allow(clippy::disallowed_methods)] // a chore

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Result;
use crate::comments::comment_text;
use crate::metadata::cargo_metadata;

/// Comments of less text than this say too little to be a document.
const MIN_COMMENT_BYTES: usize = 200;

/// Writes the corpus as JSON Lines: `{"id","text","source"}`, in the order of crate names and paths.
pub(crate) fn write(path: &Path) -> Result<()> {
    let metadata = cargo_metadata()?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let mut crates: Vec<(String, PathBuf)> = packages.iter().filter_map(registry_crate).collect();
    crates.sort();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let unfinished = path.with_extension("tmp");
    let mut out = BufWriter::new(File::create(&unfinished)?);
    let (mut documents, mut bytes) = (0u64, 0u64);
    for (name, dir) in &crates {
        for file in files(dir)? {
            let Some((source, text)) = document(&file) else { continue };
            let within = file.strip_prefix(dir)?.display();
            let record = json!({ "id": format!("{name}/{within}"), "text": text, "source": source });
            writeln!(out, "{record}")?;
            documents += 1;
            bytes += text.len() as u64;
        }
    }
    out.into_inner()?.sync_all()?;
    fs::rename(&unfinished, path)?;
    println!(
        "corpus: {documents} documents, {:.1} MB of text from {} crates",
        bytes as f64 / 1e6,
        crates.len()
    );
    Ok(())
}

/// The name and directory of a crate that came from a registry.
fn registry_crate(package: &Value) -> Option<(String, PathBuf)> {
    package["source"].as_str()?;
    let dir = Path::new(package["manifest_path"].as_str()?).parent()?.to_owned();
    Some((format!("{}-{}", package["name"].as_str()?, package["version"].as_str()?), dir))
}

/// All files below `dir`, by path.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

/// The kind and the text of a file that is prose or holds some.
fn document(path: &Path) -> Option<(&'static str, String)> {
    let name = path.file_name()?.to_str()?;
    let extension = path.extension().and_then(|e| e.to_str());
    let read = || fs::read_to_string(path).ok();
    if ["LICENSE", "LICENCE", "COPYING", "NOTICE"].iter().any(|start| name.to_uppercase().starts_with(start))
    {
        return Some(("licence", read()?));
    }
    match extension {
        Some("md") => Some(("markdown", read()?)),
        Some("rs") => {
            Some(("comments", comment_text(&read()?))).filter(|(_, text)| text.len() >= MIN_COMMENT_BYTES)
        }
        _ => None,
    }
}
