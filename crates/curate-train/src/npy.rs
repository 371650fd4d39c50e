//! Writes NumPy's `.npy` format, version 1.0: rows of single-precision numbers, as many as come.
//!
//! ```text
//! 93 'NUMPY'  1 0  118: u16
//! {'descr': '<f4', 'fortran_order': False, 'shape': (ROWS, DIM), }   padded with spaces, line feed    118 bytes
//! ROWS × DIM numbers, little-endian
//! ```
//! The header is written last, when the rows are counted, and the file gets its name after that.

#![allow(clippy::disallowed_methods)] // this module makes a file appear atomically

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const HEADER: usize = 128;

/// A file of rows that is not complete yet.
#[derive(Debug)]
pub struct NpyWriter {
    path: PathBuf,
    aside: PathBuf,
    file: BufWriter<File>,
    dim: usize,
    rows: u64,
    complete: bool,
}

impl NpyWriter {
    /// # Errors
    /// A file that cannot be created.
    pub fn create(path: &Path, dim: usize) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Error::option("--output", "must name a file"))?;
        let aside = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
        let file = File::create(&aside).map_err(Error::io(&aside))?;
        let mut file = BufWriter::with_capacity(256 << 10, file);
        file.write_all(&[0; HEADER]).map_err(Error::io(&aside))?;
        Ok(Self { path: path.to_owned(), aside, file, dim, rows: 0, complete: false })
    }

    /// Appends a row, which has as many numbers as all.
    pub fn push(&mut self, row: &[f32]) -> Result<()> {
        assert_eq!(row.len(), self.dim, "rows are equally long");
        self.rows += 1;
        row.iter().try_for_each(|x| self.file.write_all(&x.to_le_bytes())).map_err(Error::io(&self.aside))
    }

    /// Completes the file and gives it its name.
    pub fn finish(mut self) -> Result<()> {
        let text =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", self.rows, self.dim);
        let mut header = b"\x93NUMPY\x01\x00".to_vec();
        header.extend(((HEADER - 10) as u16).to_le_bytes());
        header.extend(text.as_bytes());
        header.resize(HEADER - 1, b' ');
        header.push(b'\n');
        self.file.flush().map_err(Error::io(&self.aside))?;
        let file = self.file.get_ref();
        file.write_all_at(&header, 0).and_then(|()| file.sync_all()).map_err(Error::io(&self.aside))?;
        std::fs::rename(&self.aside, &self.path).map_err(Error::io(&self.path))?;
        self.complete = true;
        Ok(())
    }
}

impl Drop for NpyWriter {
    fn drop(&mut self) {
        if !self.complete {
            // Nobody is left to hear of a failure.
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}
