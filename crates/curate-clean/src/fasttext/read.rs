//! A cursor over the bytes of a model file: every read is checked, and nothing is allocated that the file is too
//! short to fill.

use super::FastTextError;

type Result<T> = std::result::Result<T, FastTextError>;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(super) fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8]> {
        let end = self.offset.checked_add(n).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(FastTextError::Truncated { what, offset: self.bytes.len() })?;
        let part = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(part)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        Ok(self.take(N, what)?.try_into().expect("take returns as many as asked for"))
    }

    pub(super) fn i32(&mut self, what: &'static str) -> Result<i32> {
        self.array(what).map(i32::from_le_bytes)
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64> {
        self.array(what).map(i64::from_le_bytes)
    }

    pub(super) fn f64(&mut self, what: &'static str) -> Result<f64> {
        self.array(what).map(f64::from_le_bytes)
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self, what: &'static str) -> Result<bool> {
        match self.array::<1>(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.bad(what, other, "0 or 1")),
        }
    }

    /// An `i32` within `range`.
    pub(super) fn count(
        &mut self,
        what: &'static str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<usize> {
        let found = i64::from(self.i32(what)?);
        self.within(what, found, range)
    }

    /// An `i64` within `range`.
    pub(super) fn long_count(
        &mut self,
        what: &'static str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<usize> {
        let found = self.i64(what)?;
        self.within(what, found, range)
    }

    fn within(&self, what: &'static str, found: i64, range: std::ops::RangeInclusive<i64>) -> Result<usize> {
        match range.contains(&found) {
            true => Ok(found as usize),
            false => Err(self.bad(what, found, format!("{} to {}", range.start(), range.end()))),
        }
    }

    pub(super) fn bad(
        &self,
        what: &'static str,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> FastTextError {
        FastTextError::Bad { what, offset: self.offset, found: found.to_string(), expected: expected.into() }
    }

    /// Bytes up to a NUL, which is passed over.
    pub(super) fn c_string(&mut self, what: &'static str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.offset..];
        let len =
            memchr::memchr(0, rest).ok_or(FastTextError::Truncated { what, offset: self.bytes.len() })?;
        self.offset += len + 1;
        Ok(&rest[..len])
    }

    /// `n` floats; checked against what is left before any memory is taken.
    pub(super) fn floats(&mut self, n: usize, what: &'static str) -> Result<Vec<f32>> {
        let bytes = n.checked_mul(4).ok_or(FastTextError::Truncated { what, offset: self.bytes.len() })?;
        let bytes = self.take(bytes, what)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}
