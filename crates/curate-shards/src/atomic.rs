//! Files that are either complete under their final name or not there: temporary, fsync, rename.
//!
//! A directory that is being written holds the file [`MARKER`], locked by the writing process. The operating
//! system drops the lock when the process dies, the file stays: that is how the next run tells the remains of an
//! interrupted run, which it may sweep away, from files of somebody else, which it must not touch.

#![allow(clippy::disallowed_methods)] // this is the module that makes files appear atomically

use std::fs::{File, TryLockError};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};

/// Ending of a file that is not complete yet.
pub(crate) const TEMPORARY_SUFFIX: &str = ".curate-tmp";

/// Marks a directory that is being written, or was when its writer died.
pub(crate) const MARKER: &str = ".curate-incomplete";

/// Large enough that a shard is written in few system calls, small enough for three files of every split.
const BUFFER_BYTES: usize = 1 << 18;

/// A file under a temporary name that gets its final name in [`AtomicFile::commit`]; dropped before, it vanishes.
///
/// The xxh3-128 of the bytes is computed as they pass, so that nothing is read back.
pub(crate) struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    hasher: Xxh3,
    committed: bool,
}

impl AtomicFile {
    pub(crate) fn create(path: &Path) -> Result<AtomicFile> {
        let temporary = temporary_name(path);
        let file = File::create(&temporary).map_err(Error::io("create", &temporary))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(AtomicFile { path: path.to_owned(), temporary, file, hasher: Xxh3::new(), committed: false })
    }

    /// Writes one file whole and returns its xxh3-128.
    pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<u128> {
        let mut file = AtomicFile::create(path)?;
        file.write_all(bytes)?;
        file.commit()
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(Error::io("write", &self.temporary))
    }

    /// xxh3-128 of the bytes written so far.
    pub(crate) fn digest(&self) -> u128 {
        self.hasher.digest128()
    }

    /// Flushes, syncs and renames; returns the xxh3-128 of the file. The caller syncs the directory when its last
    /// file is in place.
    pub(crate) fn commit(mut self) -> Result<u128> {
        self.file.flush().map_err(Error::io("write", &self.temporary))?;
        self.file.get_ref().sync_all().map_err(Error::io("sync", &self.temporary))?;
        std::fs::rename(&self.temporary, &self.path).map_err(Error::io("rename", &self.temporary))?;
        self.committed = true;
        Ok(self.digest())
    }
}

/// For writers that wrap another, such as a compressor.
impl Write for &mut AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.committed {
            // Nobody is left to tell, and the next run sweeps what stays.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}

/// Makes the renames in a directory durable.
pub(crate) fn sync_directory(dir: &Path) -> Result<()> {
    // Directories cannot be opened for syncing outside Unix; renames there are as durable as they get.
    if cfg!(unix) {
        File::open(dir).and_then(|handle| handle.sync_all()).map_err(Error::io("sync", dir))?;
    }
    Ok(())
}

/// Gives a directory whose files are all complete its name, which may be that of an empty directory.
pub(crate) fn publish_directory(temporary: &Path, target: &Path) -> Result<()> {
    for entry in std::fs::read_dir(temporary).map_err(Error::io("list", temporary))? {
        let path = entry.map_err(Error::io("list", temporary))?.path();
        if path.is_dir() {
            sync_directory(&path)?;
        }
    }
    sync_directory(temporary)?;
    std::fs::rename(temporary, target).map_err(Error::io("rename", temporary))?;
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// Removes a directory that may not be there, with all that is in it.
pub(crate) fn remove_directory_if_present(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_present(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The right to write to a directory, held by one process at a time; see the module's text.
pub(crate) struct DirectoryLock {
    marker: PathBuf,
    _file: File,
}

impl DirectoryLock {
    /// Whether a writer is at work in the directory, or died there.
    pub(crate) fn is_marked(dir: &Path) -> bool {
        dir.join(MARKER).exists()
    }

    pub(crate) fn acquire(dir: &Path) -> Result<DirectoryLock> {
        let marker = dir.join(MARKER);
        let file = File::create(&marker).map_err(Error::io("create", &marker))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Error::Busy { dir: dir.to_owned() }),
            // A file system without locks (some network ones) protects nobody, which is no reason not to write.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(DirectoryLock { marker, _file: file }),
        }
    }

    /// Says that the directory is complete.
    pub(crate) fn release(self) -> Result<()> {
        remove_if_present(&self.marker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDir;

    #[test]
    fn a_file_appears_whole_and_only_at_commit() {
        let dir = TestDir::new();
        let path = dir.path().join("a.bin");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"hel").unwrap();
        file.write_all(b"lo").unwrap();
        assert!(!path.exists());
        assert_eq!(file.commit().unwrap(), xxhash_rust::xxh3::xxh3_128(b"hello"));
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dropped_file_leaves_nothing_and_keeps_the_old_one() {
        let dir = TestDir::new();
        let path = dir.path().join("a.bin");
        AtomicFile::write(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_lock_is_exclusive_and_its_marker_outlives_a_dead_writer() {
        let dir = TestDir::new();
        let lock = DirectoryLock::acquire(dir.path()).unwrap();
        assert!(matches!(DirectoryLock::acquire(dir.path()), Err(Error::Busy { .. })));
        drop(lock);
        assert!(DirectoryLock::is_marked(dir.path()));
        DirectoryLock::acquire(dir.path()).unwrap().release().unwrap();
        assert!(!DirectoryLock::is_marked(dir.path()));
    }
}
