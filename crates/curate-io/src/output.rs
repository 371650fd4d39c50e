//! Where bytes go: standard output, or a file that appears when it is complete.

#![allow(clippy::disallowed_methods)] // this is the module that makes files appear atomically

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use curate_core::Error;
use flate2::write::GzEncoder;
use same_file::Handle;

use crate::error::{IoError, Result};
use crate::format::split_compression;
use crate::layout::OutputError;
use crate::parquet_output::ParquetOutput;

const WRITE_BYTES: usize = 256 << 10;
const ZSTD_LEVEL: i32 = 3;

/// A file written beside its final name and renamed when complete; dropped unfinished, it leaves nothing.
///
/// What exists already and is no regular file (a device, a named pipe) is written to as it stands. A symbolic link
/// stays a link: the file that it leads to is replaced.
pub struct AtomicFile {
    path: PathBuf,
    file: Option<File>,
    /// The name while it is written, and the name when it is complete; `None` for what is written in place.
    names: Option<(PathBuf, PathBuf)>,
}

impl AtomicFile {
    /// Creates the temporary file in the directory of `path`, which is made if it is not there.
    pub fn create(path: &Path) -> Result<Self> {
        let existing = fs::metadata(path).ok();
        if existing.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(IoError::OutputIsDirectory { path: path.to_owned() });
        }
        if existing.is_some_and(|found| !found.is_file()) || is_own_stream(path) {
            // Appending means the same for a device, and right for a stream that the shell redirected.
            let file = OpenOptions::new().append(true).open(path);
            let file = file.map_err(|e| IoError::file("open", path, e))?;
            return Ok(Self { path: path.to_owned(), file: Some(file), names: None });
        }
        let target = match fs::canonicalize(path) {
            Ok(target) if path.is_symlink() => target,
            _ => path.to_owned(),
        };
        let name = target.file_name().ok_or_else(|| IoError::OutputIsDirectory { path: path.to_owned() })?;
        let dir = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(|e| IoError::file("create", dir, e))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".tmp");
        let temporary = dir.join(hidden);
        let file = claim(&temporary, path)?;
        Ok(Self { path: path.to_owned(), file: Some(file), names: Some((temporary, target)) })
    }

    /// The path that was asked for.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file durable and gives it its final name.
    pub fn commit(mut self) -> Result<()> {
        let file = self.file.take().expect("taken only here and in drop");
        let Some((temporary, target)) = self.names.take() else { return Ok(()) };
        let renamed = file.sync_all().map_err(|e| IoError::file("write", &self.path, e)).and_then(|()| {
            fs::rename(&temporary, &target).map_err(|e| IoError::file("rename to", &self.path, e))
        });
        if renamed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        renamed
    }
}

/// Opens the temporary file of `path`, emptied and locked. What a killed process left there is taken over; what another
/// process (or another output of this one) is writing is not.
fn claim(temporary: &Path, path: &Path) -> Result<File> {
    let failed = |e| IoError::file("create", temporary, e);
    loop {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(temporary).map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(IoError::OutputInUse { path: path.to_owned() }),
            // Some file systems know no locks: writing is then as safe as it was before there were any.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        // Between opening and locking, the one that held the lock may have given the file its final name.
        let opened = Handle::from_file(file.try_clone().map_err(failed)?).map_err(failed)?;
        if Handle::from_path(temporary).is_ok_and(|found| found == opened) {
            file.set_len(0).map_err(failed)?;
            return Ok(file);
        }
    }
}

/// `/dev/stdout` and its like lead to whatever the process was given, and that must not be replaced.
fn is_own_stream(path: &Path) -> bool {
    let streams = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"];
    streams.iter().any(|stream| path.starts_with(stream))
}

impl Write for AtomicFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("open until committed").write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let (Some(_locked), Some((temporary, _))) = (self.file.take(), &self.names) {
            // Nobody is left to hear of a failure; the next output of this name takes a stray temporary over.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Writes a small file in one go, atomically.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(|e| IoError::file("write", path, e))?;
    file.commit()
}

/// Standard output, or a file compressed as its name says (`.gz`, `.zst`).
pub struct Output {
    name: String,
    writer: Writer,
}

enum Writer {
    Stdout(BufWriter<io::Stdout>),
    Plain(BufWriter<AtomicFile>),
    Gzip(GzEncoder<BufWriter<AtomicFile>>),
    Zstd(zstd::Encoder<'static, BufWriter<AtomicFile>>),
}

impl Output {
    /// `None` and `-` are standard output.
    ///
    /// # Errors
    /// A file that cannot be created, and a name that asks for a compression which is only read.
    pub fn create(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path.filter(|p| p.as_os_str() != "-") else {
            let writer = Writer::Stdout(BufWriter::with_capacity(WRITE_BYTES, io::stdout()));
            return Ok(Self { name: "stdout".to_owned(), writer });
        };
        let name = path.to_string_lossy();
        let suffix = split_compression(&name).1.to_ascii_lowercase();
        if !matches!(suffix.as_str(), "" | ".gz" | ".zst") {
            return Err(OutputError::Compression { path: path.to_owned(), suffix }.into());
        }
        let file = BufWriter::with_capacity(WRITE_BYTES, AtomicFile::create(path)?);
        let writer = match suffix.as_str() {
            ".gz" => Writer::Gzip(GzEncoder::new(file, flate2::Compression::default())),
            ".zst" => Writer::Zstd(
                zstd::Encoder::new(file, ZSTD_LEVEL).map_err(|e| IoError::file("compress", path, e))?,
            ),
            _ => Writer::Plain(file),
        };
        Ok(Self { name: name.into_owned(), writer })
    }

    /// What the output is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Flushes everything and gives a file its name.
    pub fn finish(self) -> curate_core::Result<()> {
        let Self { name, writer } = self;
        let failed = |e| Error::io(format!("cannot write {name}"), e);
        let file = match writer {
            Writer::Stdout(mut stdout) => return stdout.flush().map_err(failed),
            Writer::Plain(file) => file,
            Writer::Gzip(encoder) => encoder.finish().map_err(failed)?,
            Writer::Zstd(encoder) => encoder.finish().map_err(failed)?,
        };
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        Ok(file.commit()?)
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.writer {
            Writer::Stdout(w) => w.write(buf),
            Writer::Plain(w) => w.write(buf),
            Writer::Gzip(w) => w.write(buf),
            Writer::Zstd(w) => w.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.writer {
            Writer::Stdout(w) => w.flush(),
            Writer::Plain(w) => w.flush(),
            Writer::Gzip(w) => w.flush(),
            Writer::Zstd(w) => w.flush(),
        }
    }
}

/// A file of records, in the format that its name asks for.
pub(crate) enum RecordFile {
    Lines(Box<Output>),
    Parquet(Box<ParquetOutput>),
}

impl RecordFile {
    /// `None` and `-` are standard output, which gets JSON Lines.
    pub(crate) fn create(path: Option<&Path>) -> Result<Self> {
        let table = path.and_then(Path::extension).is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
        Ok(match path {
            Some(path) if table => Self::Parquet(Box::new(ParquetOutput::new(AtomicFile::create(path)?))),
            _ => Self::Lines(Box::new(Output::create(path)?)),
        })
    }

    /// Writes whole JSON lines.
    pub(crate) fn write(&mut self, lines: &[u8]) -> curate_core::Result<()> {
        match self {
            Self::Lines(output) => {
                output.write_all(lines).map_err(|e| Error::io(format!("cannot write {}", output.name()), e))
            }
            Self::Parquet(output) => output.write(lines),
        }
    }

    pub(crate) fn finish(self) -> curate_core::Result<()> {
        match self {
            Self::Lines(output) => output.finish(),
            Self::Parquet(output) => output.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::decompress::decompressed;

    fn scratch_dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("curate-io-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn a_file_appears_only_when_finished() {
        let dir = scratch_dir("atomic");
        for name in ["a.jsonl", "b.jsonl.gz", "c.jsonl.zst"] {
            let path = dir.join("deep").join(name);
            let mut output = Output::create(Some(&path)).unwrap();
            output.write_all(b"one\n").unwrap();
            assert!(!path.exists());
            output.finish().unwrap();
            let mut text = String::new();
            decompressed(Box::new(File::open(&path).unwrap())).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "one\n");
        }
        drop(Output::create(Some(&dir.join("never"))).unwrap());
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["deep"], "an unfinished file leaves nothing behind");
        assert!(Output::create(Some(&dir)).is_err(), "a directory is no output file");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn leftovers_are_taken_over_and_rivals_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(dir.path().join(".a.tmp"), "left by a process that was killed").unwrap();
        let mut first = AtomicFile::create(&path).unwrap();
        let error = AtomicFile::create(&path).err().unwrap();
        assert!(matches!(error, IoError::OutputInUse { .. }), "{error}");
        first.write_all(b"one").unwrap();
        first.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn devices_are_written_to_and_stay() {
        let null = Path::new("/dev/null");
        let mut output = Output::create(Some(null)).unwrap();
        output.write_all(b"x").unwrap();
        output.finish().unwrap();
        assert!(!fs::metadata(null).unwrap().is_file());
        let mut output = Output::create(Some(Path::new("/dev/full"))).unwrap();
        output.write_all(b"x").unwrap();
        let error = output.finish().unwrap_err();
        assert_eq!(error.to_string(), "cannot write /dev/full");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with("No space left on device"), "{cause}");
        // A table does the same, whether a page or the footer meets the end.
        let mut output = ParquetOutput::new(AtomicFile::create(Path::new("/dev/full")).unwrap());
        output.write(b"{\"text\":\"x\"}\n").unwrap();
        let error = output.finish().unwrap_err();
        assert_eq!(error.to_string(), "cannot write /dev/full");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with("No space left on device"), "{cause}");
    }

    #[test]
    #[cfg(unix)]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        write_atomically(&real, b"old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomically(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");
    }

    #[test]
    fn only_compressions_that_can_be_written_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let error = Output::create(Some(&dir.path().join("a.jsonl.bz2"))).err().unwrap();
        assert!(error.to_string().ends_with("a.jsonl.bz2: cannot compress as .bz2"), "{error}");
        assert_eq!(error.hint().as_deref(), Some("outputs are compressed as .gz or .zst"));
    }
}
