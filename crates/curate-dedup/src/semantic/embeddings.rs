//! Rows of numbers, wherever they lie, and the same scaled to length 1.

use super::dot::dot_f64;
use super::error::{Result, SemanticError};

/// One row of `dim` numbers for each document, in the order of the documents.
pub trait Embeddings: Sync {
    fn rows(&self) -> usize;
    fn dim(&self) -> usize;
    /// Fills `out`, whose length is a multiple of `dim`, with the rows from `first` on. There are so many.
    fn read(&self, first: usize, out: &mut [f32]) -> Result<()>;
}

/// Embeddings in memory.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingSlice<'a> {
    values: &'a [f32],
    dim: usize,
}

impl<'a> EmbeddingSlice<'a> {
    /// `values`: `[rows, dim]`.
    pub fn new(values: &'a [f32], rows: usize, dim: usize) -> Result<Self> {
        if dim == 0 {
            return Err(SemanticError::NoDimensions);
        }
        if rows.checked_mul(dim) != Some(values.len()) {
            return Err(SemanticError::Shape { values: values.len(), rows, dim });
        }
        Ok(Self { values, dim })
    }
}

impl Embeddings for EmbeddingSlice<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let start = first * self.dim;
        out.copy_from_slice(&self.values[start..start + out.len()]);
        Ok(())
    }
}

/// Rows of length 1, or of zeros.
pub(super) struct UnitRows {
    pub(super) values: Vec<f32>,
    pub(super) dim: usize,
}

impl UnitRows {
    pub(super) fn new(dim: usize) -> Self {
        Self { values: Vec::new(), dim }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    pub(super) fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    pub(super) fn is_zero(&self, i: usize) -> bool {
        self.row(i).iter().all(|&x| x == 0.0)
    }
}

/// Scales a row to length 1; one of zeros stays. `None` if it has a number that is not finite.
pub(super) fn scale(row: &mut [f32]) -> Option<()> {
    // The largest f32 squared is far from the end of f64, and the smallest as well.
    let square = dot_f64(row, row);
    if !square.is_finite() {
        return None;
    }
    if square > 0.0 {
        let length = square.sqrt();
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    Some(())
}

/// Reads `count` rows from `first` on, scaled.
pub(super) fn unit_rows(embeddings: &dyn Embeddings, first: usize, count: usize) -> Result<UnitRows> {
    let dim = embeddings.dim();
    let mut values = vec![0.0; count * dim];
    embeddings.read(first, &mut values)?;
    for (i, row) in values.chunks_exact_mut(dim).enumerate() {
        scale(row).ok_or(SemanticError::NotFinite { row: first + i })?;
    }
    Ok(UnitRows { values, dim })
}

/// Reads the rows of these numbers, which ascend, scaled.
pub(super) fn gather(embeddings: &dyn Embeddings, rows: &[u32]) -> Result<UnitRows> {
    let dim = embeddings.dim();
    let mut values = vec![0.0; rows.len() * dim];
    for (&row, out) in rows.iter().zip(values.chunks_exact_mut(dim)) {
        embeddings.read(row as usize, out)?;
        scale(out).ok_or(SemanticError::NotFinite { row: row as usize })?;
    }
    Ok(UnitRows { values, dim })
}
