//! Runs that survive being killed.
//!
//! The stages at the head of a pipeline that look at each document alone (reading, cleaning) are done unit by unit: a
//! unit is a few consecutive input files. What a unit keeps is spooled into the run directory, and once the file is
//! complete a line about it is added to the manifest. Stages that remember (deduplication, packing) then run over the
//! spool. A run that was killed finds its finished units in the manifest and does only the others; as the spool is the
//! same whoever wrote it, so is the output.
//!
//! ```text
//! RUN/manifest.jsonl              one line a finished unit: its files, what each gave, its counts
//! RUN/units/KEY.jsonl.zst         the documents of a unit; KEY hashes its files (name, size, time) and the options
//! RUN/units/KEY.STAGE-N.jsonl.zst what a stage dropped, if a log of that was asked for
//! RUN/output.json                 the outputs that this run has begun to write, and whether they are complete
//! RUN/lock                        held while a process works in the directory
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use curate_core::Report;
use curate_io::{InputFile, Run, write_atomically};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::failure::{Failure, Result};

/// An input file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    name: String,
    bytes: u64,
    /// Time of the last change, in nanoseconds since 1970.
    modified: u128,
}

/// A finished unit, as it stands in the manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Finished {
    key: String,
    files: Vec<Identity>,
    pub(crate) runs: Vec<Run>,
    pub(crate) report: Report,
}

/// Consecutive input files that are done together.
pub(crate) struct Unit {
    pub(crate) key: String,
    pub(crate) files: Vec<InputFile>,
    identities: Vec<Identity>,
}

impl Unit {
    pub(crate) fn finished(self, runs: Vec<Run>, report: Report) -> Finished {
        Finished { key: self.key, files: self.identities, runs, report }
    }
}

/// Cuts `files` into units of at least `unit_bytes` each (the last may be smaller). `options` is everything else that
/// the content of a unit depends on.
///
/// # Errors
/// An input that cannot be read a second time, such as a pipe.
pub(crate) fn plan_units(files: Vec<InputFile>, unit_bytes: u64, options: &Value) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    let (mut open, mut identities, mut bytes) = (Vec::new(), Vec::new(), 0);
    for file in files {
        let identity = identity(&file)?;
        bytes += identity.bytes;
        identities.push(identity);
        open.push(file);
        if bytes >= unit_bytes {
            units.push(unit(std::mem::take(&mut open), std::mem::take(&mut identities), options));
            bytes = 0;
        }
    }
    if !open.is_empty() {
        units.push(unit(open, identities, options));
    }
    Ok(units)
}

fn identity(file: &InputFile) -> Result<Identity> {
    let (name, bytes, modified) = (file.name(), file.bytes(), file.modified());
    let (Some(bytes), Some(modified)) = (bytes, modified) else {
        return Err(Failure::new(format!("a resumable run cannot read {name} a second time"))
            .with_hint("store it as a file first, or leave out run-dir"));
    };
    let modified = modified.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
    Ok(Identity { name, bytes, modified })
}

fn unit(files: Vec<InputFile>, identities: Vec<Identity>, options: &Value) -> Unit {
    let content =
        serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "files": identities, "options": options });
    let key = format!("{:032x}", xxh3_128(content.to_string().as_bytes()));
    Unit { key, files, identities }
}

/// What the run has written outside its directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OutputState {
    /// Hashes the units and the options of all that is done with them.
    key: String,
    complete: bool,
}

/// A run directory that this process holds.
pub(crate) struct RunDirectory {
    dir: PathBuf,
    manifest: File,
    finished: BTreeMap<String, Finished>,
    _lock: File,
}

impl RunDirectory {
    /// Opens or makes the directory; `restart` forgets what is in it.
    ///
    /// # Errors
    /// Another process works in it.
    pub(crate) fn open(dir: &Path, restart: bool) -> Result<Self> {
        let failed = |path: &Path, e: io::Error| {
            Failure::new(e.to_string()).context(format!("cannot open {}", path.display()))
        };
        let units = dir.join("units");
        fs::create_dir_all(&units).map_err(|e| failed(&units, e))?;
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(|e| failed(&lock_path, e))?;
        lock.try_lock().map_err(|_| {
            Failure::new(format!("another process works in {}", dir.display()))
                .with_hint("wait for it, or give this run another --run-dir")
        })?;
        let path = dir.join("manifest.jsonl");
        let mut manifest = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(|e| failed(&path, e))?;
        if restart {
            manifest.set_len(0).map_err(|e| failed(&path, e))?;
            let _ = fs::remove_file(dir.join("output.json"));
        }
        let finished = read_manifest(&mut manifest).map_err(|e| failed(&path, e))?;
        Ok(Self { dir: dir.to_owned(), manifest, finished, _lock: lock })
    }

    /// Where the documents of unit `key` are spooled.
    pub(crate) fn spool(&self, key: &str) -> PathBuf {
        self.dir.join("units").join(format!("{key}.jsonl.zst"))
    }

    /// Where log number `log` of what `stage` drops is kept for unit `key`.
    pub(crate) fn log(&self, key: &str, stage: usize, log: usize) -> PathBuf {
        self.dir.join("units").join(format!("{key}.{stage}-{log}.jsonl.zst"))
    }

    /// What the manifest says of unit `key`, if its files are still there.
    pub(crate) fn find(&self, key: &str) -> Option<&Finished> {
        self.finished.get(key).filter(|_| self.spool(key).is_file())
    }

    /// Adds a finished unit to the manifest, durably.
    pub(crate) fn add(&mut self, finished: Finished) -> Result<()> {
        let mut line = serde_json::to_vec(&finished).expect("a manifest line is plain data");
        line.push(b'\n');
        let written = self.manifest.write_all(&line).and_then(|()| self.manifest.sync_data());
        written.map_err(|e| {
            Failure::new(e.to_string())
                .context(format!("cannot write {}", self.dir.join("manifest.jsonl").display()))
        })?;
        self.finished.insert(finished.key.clone(), finished);
        Ok(())
    }

    /// Removes what does not belong to `units`: of killed processes, of inputs and options that have changed.
    pub(crate) fn sweep(&self, units: &[Unit]) {
        let keys: BTreeSet<&str> = units.iter().map(|unit| unit.key.as_str()).collect();
        let Ok(entries) = fs::read_dir(self.dir.join("units")) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            let key = name.split('.').next().unwrap_or("");
            if !keys.contains(key) {
                // A file that cannot be removed takes room and does no harm.
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Whether outputs with this `key` were begun by an earlier process, and whether they are complete.
    pub(crate) fn output_state(&self, key: &str) -> (bool, bool) {
        let state = fs::read(self.dir.join("output.json")).ok();
        let state = state.and_then(|bytes| serde_json::from_slice::<OutputState>(&bytes).ok());
        match state {
            Some(state) => (true, state.complete && state.key == key),
            None => (false, false),
        }
    }

    /// Notes that outputs with this `key` are being written, or are complete.
    pub(crate) fn set_output_state(&self, key: &str, complete: bool) -> Result<()> {
        let state = OutputState { key: key.to_owned(), complete };
        let json = serde_json::to_vec(&state).expect("an output state is plain data");
        Ok(write_atomically(&self.dir.join("output.json"), &json)?)
    }
}

/// Reads the manifest; a last line that was torn by a kill is cut off.
fn read_manifest(manifest: &mut File) -> io::Result<BTreeMap<String, Finished>> {
    let mut finished = BTreeMap::new();
    let mut reader = BufReader::new(&*manifest);
    let mut sound = 0;
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let parsed = line.strip_suffix(b"\n").and_then(|l| serde_json::from_slice::<Finished>(l).ok());
        let Some(unit) = parsed else { break };
        finished.insert(unit.key.clone(), unit);
        sound += line.len() as u64;
        line.clear();
    }
    manifest.set_len(sound)?;
    Ok(finished)
}

/// The hash that names an output: of everything that it depends on.
pub(crate) fn output_key(units: &[Unit], options: &Value) -> String {
    let keys: Vec<&str> = units.iter().map(|unit| unit.key.as_str()).collect();
    format!(
        "{:032x}",
        xxh3_128(serde_json::json!({ "units": keys, "options": options }).to_string().as_bytes())
    )
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // torn files are made on purpose
mod tests {
    use super::*;

    fn finished(key: &str) -> Finished {
        let run = Run { origin: "a".to_owned(), bytes: 3 };
        Finished { key: key.to_owned(), files: Vec::new(), runs: vec![run], report: Report::default() }
    }

    #[test]
    fn a_manifest_survives_a_torn_line_and_a_second_process_is_refused() {
        let dir = std::env::temp_dir().join(format!("curate-resume-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let mut run = RunDirectory::open(&dir, false).ok().unwrap();
        for key in ["a", "b"] {
            fs::write(run.spool(key), "").unwrap();
            run.add(finished(key)).ok().unwrap();
        }
        let second = RunDirectory::open(&dir, false).err().expect("the directory is held");
        assert!(second.error.to_string().contains("another process works in"));
        drop(run);
        let path = dir.join("manifest.jsonl");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let mut run = RunDirectory::open(&dir, false).ok().unwrap();
        assert!(run.find("a").is_some() && run.find("b").is_none());
        run.add(finished("b")).ok().unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        fs::remove_file(run.spool("a")).unwrap();
        assert!(run.find("a").is_none(), "a unit whose file is gone is done again");
        drop(run);
        let run = RunDirectory::open(&dir, true).ok().unwrap();
        assert!(run.find("b").is_none(), "a restart forgets everything");
        drop(run);
        fs::remove_dir_all(&dir).unwrap();
    }
}
