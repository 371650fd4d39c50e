//! An index: a directory that remembers what earlier runs have kept.
//!
//! ```text
//! MANIFEST        JSON and its checksum; what it does not name does not count
//! LOCK            held by the process that uses the index
//! documents.bin   a record of 40 bytes for each document
//! ids.bin         ids, end to end
//! shingles.bin    shingle sets, 8 bytes a shingle
//! keys-NNNNNN.run sorted entries: a band's key (or that of the content) and the number of the document
//! ```
//!
//! Files are appended to or written anew, never changed, and count once a new manifest has taken the old one's name. A
//! process that is killed before that leaves the index as it was: what stands behind the ends that the manifest
//! names is cut off, and runs that it does not name are removed, when the index is next used.

#![allow(clippy::disallowed_methods)] // makes its own files appear atomically

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::error::{Error, Result};
use crate::kept::{IDS, Kept, KeptBudget, RECORD, RECORDS, SETS};
use crate::runs::Run;
use crate::spill::{AppendStore, SpillDir};
use crate::table::KeyTable;

const FORMAT: u32 = 2;
const MANIFEST: &str = "MANIFEST";

/// What an index is made of, as its manifest says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The options that an index must be used with.
    pub parameters: BTreeMap<String, Value>,
    pub documents: u32,
    /// By file name: the parts that were appended by one run each.
    pub files: BTreeMap<String, Vec<Part>>,
    pub runs: Vec<RunEntry>,
    /// The number of the next run.
    pub next_run: u64,
    /// Full buckets, and how many documents each has kept out.
    pub hidden: BTreeMap<u64, u32>,
}

/// What one run has appended to a file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub bytes: u64,
    /// xxh3-64.
    pub checksum: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEntry {
    pub name: String,
    pub entries: u64,
    pub bytes: u64,
    /// xxh3-64.
    pub checksum: u64,
}

impl Manifest {
    fn new(parameters: BTreeMap<String, Value>) -> Self {
        let files = [RECORDS, IDS, SETS].map(|name| (name.to_owned(), Vec::new()));
        Self {
            format: FORMAT,
            parameters,
            documents: 0,
            files: files.into(),
            runs: Vec::new(),
            next_run: 0,
            hidden: BTreeMap::new(),
        }
    }

    /// Reads the manifest of the index at `path`.
    ///
    /// # Errors
    /// A directory without one, one that is damaged, and one of another format.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.join(MANIFEST);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoIndex { path: path.to_owned() });
            }
            Err(e) => return Err(Error::io("read", &file, e)),
        };
        let (body, checksum) = text.trim_end().rsplit_once('\n').unwrap_or((&text, ""));
        if checksum != format!("{:016x}", xxh3_64(body.as_bytes())) {
            return Err(Error::damaged(&file, "its checksum is wrong"));
        }
        let value: Value = serde_json::from_str(body).map_err(|e| Error::damaged(&file, e.to_string()))?;
        let found = value.get("format").and_then(Value::as_u64).unwrap_or(0) as u32;
        if found != FORMAT {
            return Err(Error::OtherFormat { path: path.to_owned(), found, wanted: FORMAT });
        }
        serde_json::from_value(value).map_err(|e| Error::damaged(&file, e.to_string()))
    }

    /// Bytes of the files that the index has, by kind: documents, ids, shingles, keys.
    pub fn bytes(&self) -> BTreeMap<String, u64> {
        let parts = |parts: &Vec<Part>| parts.iter().map(|part| part.bytes).sum();
        let mut bytes: BTreeMap<String, u64> =
            self.files.iter().map(|(name, of)| (name.clone(), parts(of))).collect();
        let keys = self.runs.iter().map(|run| run.bytes).sum();
        bytes.insert("keys".to_owned(), keys);
        bytes
    }

    fn write(&self, path: &Path) -> Result<()> {
        let body = serde_json::to_string_pretty(self).expect("names, numbers and JSON values");
        let text = format!("{body}\n{:016x}\n", xxh3_64(body.as_bytes()));
        let (target, temporary) = (path.join(MANIFEST), path.join("MANIFEST.new"));
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &target))
            .and_then(|()| File::open(path)?.sync_all());
        written.map_err(|e| Error::io("write", &target, e))
    }
}

/// An index in use.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    manifest: Manifest,
    _lock: File,
}

impl Index {
    /// Opens the index at `path`, or makes an empty one, for a run with `parameters`.
    pub(crate) fn open(
        path: &Path,
        parameters: BTreeMap<String, Value>,
        budget: KeptBudget,
        table: KeyTable,
    ) -> Result<(Self, Kept, KeyTable)> {
        fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
        let lock = lock(path)?;
        let is_new = !path.join(MANIFEST).exists();
        if is_new {
            let foreign = |name: &std::ffi::OsStr| name != "LOCK" && !is_ours(&name.to_string_lossy());
            let mut entries = fs::read_dir(path).map_err(|e| Error::io("read", path, e))?;
            if entries.any(|entry| entry.is_ok_and(|entry| foreign(&entry.file_name()))) {
                return Err(Error::NoIndex { path: path.to_owned() });
            }
        }
        let manifest = if is_new { Manifest::new(parameters.clone()) } else { Manifest::read(path)? };
        for (parameter, wanted) in &parameters {
            let found = manifest.parameters.get(parameter).unwrap_or(&Value::Null);
            if found != wanted {
                return Err(Error::OtherParameters {
                    path: path.to_owned(),
                    parameter: parameter.clone(),
                    found: found.to_string(),
                    wanted: wanted.to_string(),
                });
            }
        }
        let index = Self { path: path.to_owned(), manifest, _lock: lock };
        index.remove_strays()?;
        let kept = Kept::of(
            index.store(RECORDS, budget.records)?,
            index.store(IDS, budget.ids)?,
            index.store(SETS, budget.sets)?,
        );
        let table = index.table(table)?;
        Ok((index, kept, table))
    }

    pub(crate) fn dir(&self) -> SpillDir {
        SpillDir::kept(self.path.clone())
    }

    /// Documents that the index held when it was opened.
    pub(crate) fn documents(&self) -> u32 {
        self.manifest.documents
    }

    /// Makes what was added count.
    pub(crate) fn commit(&mut self, kept: &mut Kept, table: &mut KeyTable, dir: &mut SpillDir) -> Result<()> {
        table.write_out(dir)?;
        kept.sync(dir)?;
        table.runs().iter().try_for_each(Run::sync)?;
        self.manifest.documents = kept.len();
        for store in kept.stores_mut() {
            let parts = self.manifest.files.entry(store.name().to_owned()).or_default();
            let bytes = store.len() - parts.iter().map(|part| part.bytes).sum::<u64>();
            let checksum = store.take_checksum();
            if bytes > 0 {
                parts.push(Part { bytes, checksum });
            }
        }
        let name = |run: &Run| run.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let runs = table.runs().iter();
        self.manifest.runs = runs
            .map(|run| RunEntry {
                name: name(run),
                entries: run.len(),
                bytes: run.bytes(),
                checksum: run.checksum(),
            })
            .collect();
        self.manifest.next_run = table.written();
        self.manifest.hidden = table.hidden().clone();
        self.manifest.write(&self.path)?;
        table.drop_retired()
    }

    fn table(&self, mut table: KeyTable) -> Result<KeyTable> {
        let mut runs = Vec::new();
        for entry in &self.manifest.runs {
            let filter = table.filter();
            let path = self.path.join(&entry.name);
            runs.push(Run::open(path, entry.entries, entry.checksum, |key| filter.insert(key))?);
        }
        Ok(table.reopened(runs, self.manifest.next_run, self.manifest.hidden.clone()))
    }

    /// Opens a file that is appended to, and cuts off what no manifest has named.
    fn store(&self, name: &'static str, budget: usize) -> Result<AppendStore> {
        let path = self.path.join(name);
        let parts = self.manifest.files.get(name).map(Vec::as_slice).unwrap_or_default();
        let len: u64 = parts.iter().map(|part| part.bytes).sum();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| Error::io("open", &path, e))?;
        let found = file.metadata().map_err(|e| Error::io("read", &path, e))?.len();
        if found < len {
            let what = format!("it has {found} bytes, the manifest says {len}");
            return Err(Error::damaged(&path, what));
        }
        file.set_len(len).map_err(|e| Error::io("cut", &path, e))?;
        Ok(AppendStore::reopened(name, budget, path, file, len))
    }

    fn remove_strays(&self) -> Result<()> {
        let entries = fs::read_dir(&self.path).map_err(|e| Error::io("read", &self.path, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("read", &self.path, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_named = self.manifest.runs.iter().any(|run| run.name == name);
            if is_run(&name) && !is_named || name == "MANIFEST.new" {
                fs::remove_file(entry.path()).map_err(|e| Error::io("remove", &entry.path(), e))?;
            }
        }
        Ok(())
    }
}

/// Makes one run of all that the index at `path` has; returns its manifest.
pub fn merge_index(path: &Path) -> Result<Manifest> {
    let parameters = Manifest::read(path)?.parameters;
    let budget = KeptBudget { records: 0, ids: 0, sets: 0 };
    let (mut index, mut kept, mut table) =
        Index::open(path, parameters, budget, KeyTable::new(0, 0, u32::MAX))?;
    let mut dir = index.dir();
    table.merge_all(&mut dir)?;
    index.commit(&mut kept, &mut table, &mut dir)?;
    Ok(index.manifest)
}

/// Checks every byte of the index at `path` against its manifest; returns the manifest and what is wrong.
pub fn verify_index(path: &Path) -> Result<(Manifest, Vec<Error>)> {
    let manifest = Manifest::read(path)?;
    let _lock = lock(path)?;
    let mut faults = Vec::new();
    for (name, parts) in &manifest.files {
        if let Err(fault) = check_parts(&path.join(name), parts) {
            faults.push(fault);
        }
    }
    for run in &manifest.runs {
        if let Err(fault) = Run::open(path.join(&run.name), run.entries, run.checksum, |_| {}) {
            faults.push(fault);
        }
    }
    let records = manifest.files.get(RECORDS).map(Vec::as_slice).unwrap_or_default();
    let bytes: u64 = records.iter().map(|part| part.bytes).sum();
    if bytes != u64::from(manifest.documents) * RECORD as u64 {
        let what = format!("{} documents, and {bytes} bytes of records", manifest.documents);
        faults.push(Error::damaged(&path.join(MANIFEST), what));
    }
    Ok((manifest, faults))
}

fn check_parts(path: &Path, parts: &[Part]) -> Result<()> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let (mut at, mut buffer) = (0u64, vec![0; 1 << 20]);
    for part in parts {
        let (mut left, mut hasher) = (part.bytes, Xxh3::new());
        while left > 0 {
            let bytes = &mut buffer[..left.min(1 << 20) as usize];
            file.read_exact(bytes).map_err(|e| Error::io("read", path, e))?;
            hasher.update(bytes);
            left -= bytes.len() as u64;
        }
        if hasher.digest() != part.checksum {
            let what = format!("bytes {at} to {} differ from what was written", at + part.bytes);
            return Err(Error::damaged(path, what));
        }
        at += part.bytes;
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let name = path.join("LOCK");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&name);
    let file = file.map_err(|e| Error::io("open", &name, e))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::IndexInUse { path: path.to_owned() }),
        // Some file systems know no locks.
        Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
    }
}

fn is_run(name: &str) -> bool {
    name.starts_with("keys-") && name.ends_with(".run")
}

/// A file that a first run may have left before it was killed.
fn is_ours(name: &str) -> bool {
    is_run(name) || [RECORDS, IDS, SETS, "MANIFEST.new"].contains(&name)
}
