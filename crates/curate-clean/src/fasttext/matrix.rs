//! Weights: dense, or product-quantised as fastText does it.
//!
//! A quantised row is a code for each sub-vector; the code names one of 256 centroids. Tables that fit into a cache
//! when written out are written out on reading: the sums are the same, bit for bit, and a look-up is one copy.

use super::read::Reader;
use super::{FastTextError, simd};

type Result<T> = std::result::Result<T, FastTextError>;

/// Centroids of a sub-vector: codes are bytes.
const CENTROIDS: usize = 256;

/// A quantised matrix of at most this many floats is written out.
const WRITE_OUT_FLOATS: usize = 8 << 20;

/// Rows of `cols` floats.
#[derive(Debug)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) cols: usize,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    Dense(Vec<f32>),
    Quantised { codes: Vec<u8>, quantiser: Quantiser, norms: Option<Vec<f32>> },
}

impl Matrix {
    pub(super) fn read(reader: &mut Reader<'_>, quantised: bool, cols: usize) -> Result<Self> {
        match quantised {
            true => Self::read_quantised(reader, cols),
            false => Self::read_dense(reader, cols),
        }
    }

    fn read_dense(reader: &mut Reader<'_>, cols: usize) -> Result<Self> {
        let rows = read_shape(reader, cols)?;
        let n = rows.checked_mul(cols).ok_or_else(|| reader.bad("rows of a matrix", rows, "fewer"))?;
        Ok(Self { rows, cols, weights: Weights::Dense(reader.floats(n, "a matrix")?) })
    }

    fn read_quantised(reader: &mut Reader<'_>, cols: usize) -> Result<Self> {
        let has_norms = reader.flag("whether norms are quantised")?;
        let rows = read_shape(reader, cols)?;
        let n_codes = reader.count("the number of codes", 0..=i64::from(i32::MAX))?;
        let codes = reader.take(n_codes, "codes")?.to_vec();
        let quantiser = Quantiser::read(reader, cols)?;
        if rows.checked_mul(quantiser.parts) != Some(n_codes) {
            return Err(reader.bad("the number of codes", n_codes, format!("{} a row", quantiser.parts)));
        }
        let norms = match has_norms {
            true => {
                let codes = reader.take(rows, "codes of norms")?;
                let norms = Quantiser::read(reader, 1)?;
                Some(codes.iter().map(|code| norms.centroid(0, *code)[0]).collect())
            }
            false => None,
        };
        let matrix = Self { rows, cols, weights: Weights::Quantised { codes, quantiser, norms } };
        Ok(matrix.written_out())
    }

    /// The same matrix, dense if that is small.
    fn written_out(self) -> Self {
        if self.rows.saturating_mul(self.cols) > WRITE_OUT_FLOATS {
            return self;
        }
        let mut floats = vec![0.0; self.rows * self.cols];
        for (row, out) in floats.chunks_exact_mut(self.cols).enumerate() {
            self.add_row(out, row);
        }
        Self { weights: Weights::Dense(floats), ..self }
    }

    /// Adds row `row` to `sum`.
    #[inline]
    pub(super) fn add_row(&self, sum: &mut [f32], row: usize) {
        match &self.weights {
            Weights::Dense(floats) => {
                let row = &floats[row * self.cols..(row + 1) * self.cols];
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            Weights::Quantised { codes, quantiser, norms } => {
                let norm = norms.as_ref().map_or(1.0, |norms| norms[row]);
                for (part, code) in quantiser.codes_of(codes, row).iter().enumerate() {
                    let centroid = quantiser.centroid(part, *code);
                    let sum = &mut sum[part * quantiser.part_len..];
                    sum.iter_mut().zip(centroid).for_each(|(sum, x)| *sum += norm * x);
                }
            }
        }
    }

    /// Adds all of `rows` to `sum`, in their order.
    pub(super) fn add_rows(&self, sum: &mut [f32], rows: &[u32]) {
        match &self.weights {
            Weights::Dense(floats) => simd::add_rows(sum, floats, rows),
            Weights::Quantised { .. } => rows.iter().for_each(|row| self.add_row(sum, *row as usize)),
        }
    }

    /// The dot product of row `row` and `x`.
    #[inline]
    pub(super) fn dot_row(&self, x: &[f32], row: usize) -> f32 {
        match &self.weights {
            Weights::Dense(floats) => simd::dot(&floats[row * self.cols..(row + 1) * self.cols], x),
            Weights::Quantised { codes, quantiser, norms } => {
                let norm = norms.as_ref().map_or(1.0, |norms| norms[row]);
                let mut sum = 0.0;
                for (part, code) in quantiser.codes_of(codes, row).iter().enumerate() {
                    let centroid = quantiser.centroid(part, *code);
                    let x = &x[part * quantiser.part_len..];
                    sum += x.iter().zip(centroid).map(|(x, c)| x * c).sum::<f32>();
                }
                sum * norm
            }
        }
    }
}

/// Rows and columns, of which the columns must be `cols`.
fn read_shape(reader: &mut Reader<'_>, cols: usize) -> Result<usize> {
    let rows = reader.long_count("rows of a matrix", 0..=i64::from(i32::MAX))?;
    let found = reader.i64("columns of a matrix")?;
    match found == cols as i64 {
        true => Ok(rows),
        false => Err(reader.bad("columns of a matrix", found, cols.to_string())),
    }
}

/// Centroids of the sub-vectors of a row.
#[derive(Debug)]
struct Quantiser {
    parts: usize,
    part_len: usize,
    last_len: usize,
    centroids: Vec<f32>,
}

impl Quantiser {
    fn read(reader: &mut Reader<'_>, cols: usize) -> Result<Self> {
        let most = 0..=cols as i64;
        let dim = reader.count("length of quantised rows", most.clone())?;
        let parts = reader.count("number of sub-vectors", most.clone())?;
        let part_len = reader.count("length of sub-vectors", most.clone())?;
        let last_len = reader.count("length of the last sub-vector", most)?;
        let sound = parts > 0
            && part_len > 0
            && (1..=part_len).contains(&last_len)
            && dim == cols
            && (parts - 1).checked_mul(part_len).map(|n| n + last_len) == Some(cols);
        if !sound {
            let found = format!("{dim} = {} × {part_len} + {last_len}", parts.wrapping_sub(1));
            return Err(reader.bad("sub-vectors", found, format!("{cols} in all")));
        }
        let centroids = reader.floats(dim * CENTROIDS, "centroids")?;
        Ok(Self { parts, part_len, last_len, centroids })
    }

    fn codes_of<'c>(&self, codes: &'c [u8], row: usize) -> &'c [u8] {
        &codes[row * self.parts..(row + 1) * self.parts]
    }

    /// The centroid that `code` names for sub-vector `part`; those of the last one lie closer together.
    #[inline]
    fn centroid(&self, part: usize, code: u8) -> &[f32] {
        let len = if part + 1 == self.parts { self.last_len } else { self.part_len };
        let start = part * CENTROIDS * self.part_len + usize::from(code) * len;
        &self.centroids[start..start + len]
    }
}
