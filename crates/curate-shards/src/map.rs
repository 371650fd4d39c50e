//! Memory maps, and token slices cut from them: the only `unsafe` code of the crate.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap};

use crate::error::{Error, Result};
use crate::format::index;

/// A whole file, mapped read-only.
#[derive(Debug)]
pub(crate) struct Map {
    path: PathBuf,
    mmap: Mmap,
}

impl Map {
    /// Maps a file after checking that it has exactly `expected_bytes`.
    pub(crate) fn open(path: PathBuf, expected_bytes: u64) -> Result<Map> {
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let got = file.metadata().map_err(Error::io("open", &path))?.len();
        if got != expected_bytes {
            return Err(Error::WrongSize { path, expected: expected_bytes, got });
        }
        // SAFETY: the map is valid as long as nobody truncates or rewrites the file in place. The writer of this
        // crate never does: it writes under a temporary name and renames, which leaves a mapped file as it was.
        // Whoever edits a shard in place while a reader has it open breaks this condition, as with any mapped file.
        let mmap = unsafe { Mmap::map(&file) }.map_err(Error::io("map", &path))?;
        Ok(Map { path, mmap })
    }

    /// Maps a file of any size: one of another program, whose size is checked by what it says inside.
    pub(crate) fn open_whole(path: PathBuf) -> Result<Map> {
        let bytes = std::fs::metadata(&path).map_err(Error::io("open", &path))?.len();
        Map::open(path, bytes)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.mmap
    }

    /// Asks the processor for the cache lines of a range, without waiting for them. What lies outside the map is left out.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64, bytes: u64) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            const LINE: usize = 64;
            let size = self.mmap.len();
            let start = index(offset).min(size);
            let end = start.saturating_add(index(bytes)).min(size);
            for at in (start..end).step_by(LINE) {
                // SAFETY: a hint, which may name any address; this one lies in the map.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(self.mmap.as_ptr().wrapping_add(at).cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (offset, bytes); // no hint is stable there
    }

    /// Tells the system that reads of this map come in no order: it then reads the pages that are asked for and no others.
    pub(crate) fn expect_random_reads(&self) {
        // Advice that is not taken costs time, nothing else.
        let _ = self.mmap.advise(Advice::Random);
    }

    /// Asks the system to read a range into memory, without waiting for it. What lies outside the map is left out.
    pub(crate) fn will_need(&self, offset: u64, bytes: u64) {
        let size = self.mmap.len() as u64;
        let start = offset.min(size);
        let length = bytes.min(size - start);
        let _ = self.mmap.advise_range(Advice::WillNeed, index(start), index(length));
    }
}

/// The bytes as u16, without copying; `None` if they are not aligned to, or not a multiple of, two bytes.
pub(crate) fn as_u16(bytes: &[u8]) -> Option<&[u16]> {
    // SAFETY: every pair of initialised bytes is a valid u16, and `align_to` keeps alignment and bounds itself.
    let (head, body, tail) = unsafe { bytes.align_to::<u16>() };
    (head.is_empty() && tail.is_empty()).then_some(body)
}

/// The bytes as i32, without copying; `None` if they are not aligned to, or not a multiple of, four bytes.
pub(crate) fn as_i32(bytes: &[u8]) -> Option<&[i32]> {
    // SAFETY: every four initialised bytes are a valid i32, and `align_to` keeps alignment and bounds itself.
    let (head, body, tail) = unsafe { bytes.align_to::<i32>() };
    (head.is_empty() && tail.is_empty()).then_some(body)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // tests make files as they need them
mod tests {
    use super::*;
    use crate::testing::TestDir;

    #[test]
    fn empty_and_missized_files() {
        let dir = TestDir::new();
        let path = dir.path().join("a");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(Map::open(path.clone(), 0).unwrap().bytes(), b"");
        let error = Map::open(path.clone(), 7).unwrap_err();
        assert!(matches!(error, Error::WrongSize { expected: 7, got: 0, .. }), "{error}");
        let error = Map::open(dir.path().join("absent"), 0).unwrap_err();
        assert!(error.to_string().ends_with("absent: cannot open"), "{error}");
    }

    #[test]
    fn slices_are_cut_only_where_they_lie_right() {
        let words = [0x0201_u16, 0x0403, 0x0605, 0x0807];
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        // A vector of bytes may lie anywhere: find an aligned start to have both cases for certain.
        let mut room = [0u8; 24];
        let start = room.as_ptr().align_offset(4);
        room[start..start + 8].copy_from_slice(&bytes);
        assert_eq!(as_u16(&room[start..start + 8]), Some(&words[..]));
        assert_eq!(as_i32(&room[start..start + 8]), Some(&[0x0403_0201, 0x0807_0605][..]));
        assert_eq!(as_u16(&room[start + 1..start + 7]), None);
        assert_eq!(as_u16(&room[start..start + 3]), None);
        assert_eq!(as_i32(&room[start + 2..start + 6]), None);
        assert_eq!(as_u16(&[]), Some(&[][..]));
    }
}
