//! The token files of a shard, byte by byte; all numbers little-endian.
//!
//! A shard `SPLIT-NNNNN` with `S` documents and `N` tokens, `w` = 2 or 4 bytes a token:
//!
//! ```text
//! .bin     w × N     token ids back to back, no header: u16 if the vocabulary is below 65 500, else i32;
//!                    every document ends in the end-of-document id
//! .idx     Megatron "MMIDIDX" version 1, one sequence per document:
//!          0   9     magic "MMIDIDX\0\0"
//!          9   u64   version = 1
//!          17  u8    type of a token: 8 = u16, 4 = i32
//!          18  u64   S, number of sequences
//!          26  u64   S + 1, number of document boundaries
//!          34  i32   × S       length of each document in tokens
//!              i64   × S       offset of each document in .bin, in bytes
//!              i64   × S + 1   first sequence of each document: 0, 1, …, S
//! .bytes   u32 × S   UTF-8 bytes of each document's text
//! .dom     u16 × S   domain of each document, an index into `domains` of the manifest
//! ```
//!
//! The `.view` file is drawn in `view.rs`, `.mix` in `mix.rs`, `.rows` in `rows.rs`, `vocabulary.bin` in `vocabulary.rs`, `manifest.json` in `manifest.rs`.
//! The arrays of `.idx` are not aligned (34 is no multiple of 4) and are read byte-wise; `.bin` is read where it
//! lies.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A token id as the model sees it.
pub type TokenId = u32;

/// Longest sequence a view can be packed for. The packer's tables grow with it, and a mistyped length should be an
/// error rather than an allocation of gigabytes.
pub const MAX_SEQ_LEN: u32 = 1 << 24;

/// Largest vocabulary whose ids Megatron-LM and GPT-NeoX store in 16 bits; both use this bound, below 65 536 to leave
/// room for ids added later.
const U16_VOCAB_SIZE_END: u32 = 65_500;

pub(crate) const IDX_MAGIC: [u8; 9] = *b"MMIDIDX\0\0";
pub(crate) const IDX_VERSION: u64 = 1;
pub(crate) const IDX_HEADER_BYTES: u64 = 34;

/// How a token id is stored in `.bin`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// Two bytes, unsigned.
    U16,
    /// Four bytes, signed because Megatron's index has no code for unsigned ones; ids stay below 2^31.
    I32,
}

impl Width {
    /// `U16` for vocabularies below 65 500 ids, as in Megatron-LM and GPT-NeoX, else `I32`.
    pub fn from_vocab_size(vocab_size: u32) -> Width {
        if vocab_size < U16_VOCAB_SIZE_END { Width::U16 } else { Width::I32 }
    }

    /// Bytes of one token id.
    pub fn bytes(self) -> u64 {
        match self {
            Width::U16 => 2,
            Width::I32 => 4,
        }
    }

    /// The code of this type in a Megatron index.
    pub fn megatron_code(self) -> u8 {
        match self {
            Width::U16 => 8,
            Width::I32 => 4,
        }
    }
}

/// Size of an index of `documents` documents.
pub(crate) fn idx_bytes(documents: u64) -> u64 {
    IDX_HEADER_BYTES + documents * (4 + 8 + 8) + 8
}

/// Hands the bytes of a shard's index to `write`, from its document lengths in tokens.
pub(crate) fn write_idx(
    mut write: impl FnMut(&[u8]) -> Result<()>,
    width: Width,
    lengths: &[i32],
) -> Result<()> {
    let documents = lengths.len() as u64;
    write(&IDX_MAGIC)?;
    write(&IDX_VERSION.to_le_bytes())?;
    write(&[width.megatron_code()])?;
    write(&documents.to_le_bytes())?;
    write(&(documents + 1).to_le_bytes())?;
    for length in lengths {
        write(&length.to_le_bytes())?;
    }
    let mut offset = 0u64;
    for length in lengths {
        write(&offset.to_le_bytes())?;
        offset += u64::from(length.unsigned_abs()) * width.bytes();
    }
    for boundary in 0..=documents {
        write(&boundary.to_le_bytes())?;
    }
    Ok(())
}

/// Position of a mapped item: counts and offsets are `u64` everywhere, slices want `usize`.
#[expect(clippy::cast_possible_truncation, reason = "the crate builds for 64-bit targets only, see lib.rs")]
pub(crate) fn index(n: u64) -> usize {
    n as usize
}

/// Reads the `i`-th u32 at `base`; `None` past the end.
pub(crate) fn u32_at(bytes: &[u8], base: u64, i: u64) -> Option<u32> {
    item(bytes, base, i).map(u32::from_le_bytes)
}

/// Reads the `i`-th u64 at `base`; `None` past the end.
pub(crate) fn u64_at(bytes: &[u8], base: u64, i: u64) -> Option<u64> {
    item(bytes, base, i).map(u64::from_le_bytes)
}

/// Reads the `i`-th u16 at `base`; `None` past the end.
pub(crate) fn u16_at(bytes: &[u8], base: u64, i: u64) -> Option<u16> {
    item(bytes, base, i).map(u16::from_le_bytes)
}

fn item<const N: usize>(bytes: &[u8], base: u64, i: u64) -> Option<[u8; N]> {
    let start = index(base.checked_add(i.checked_mul(N as u64)?)?);
    bytes.get(start..)?.first_chunk().copied()
}

/// Name of a split as it may stand in a file name: one to 64 of `a-z 0-9 _ -`.
///
/// Lower case only, because `Val` and `val` are one file on some file systems; no dot, because the endings are ours.
pub(crate) fn is_split_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

pub(crate) fn shard_stem(split: &str, ordinal: usize) -> String {
    format!("{split}-{ordinal:05}")
}

pub(crate) fn view_name(split: &str, seq_len: u32) -> String {
    format!("{split}.T{seq_len}.view")
}

pub(crate) fn mix_name(split: &str, seq_len: u32) -> String {
    format!("{split}.T{seq_len}.mix")
}

pub(crate) fn rows_name(split: &str, seq_len: u32) -> String {
    format!("{split}.T{seq_len}.rows")
}

/// Whether a file name is one that shards or views have.
pub(crate) fn is_shard_or_view_name(name: &str) -> bool {
    let Some((stem, ending)) = name.rsplit_once('.') else { return false };
    let digits = |text: &str, at_least| text.len() >= at_least && text.bytes().all(|b| b.is_ascii_digit());
    match ending {
        "bin" | "idx" | "bytes" | "dom" => {
            stem.rsplit_once('-').is_some_and(|(split, ordinal)| is_split_name(split) && digits(ordinal, 5))
        }
        "view" | "mix" | "rows" => {
            stem.rsplit_once(".T").is_some_and(|(split, length)| is_split_name(split) && digits(length, 1))
        }
        _ => false,
    }
}

/// Fails unless `seq_len` is in 1 ..= [`MAX_SEQ_LEN`].
pub(crate) fn check_seq_len(seq_len: u32) -> Result<()> {
    if (1..=MAX_SEQ_LEN).contains(&seq_len) {
        return Ok(());
    }
    Err(Error::BadOption { name: "seq_len", problem: format!("{seq_len} is not in 1..={MAX_SEQ_LEN}") })
}

/// Fails unless a file of ours begins with its magic and, at byte 8, the version that is known.
pub(crate) fn check_magic(
    path: &Path,
    bytes: &[u8],
    magic: [u8; 8],
    kind: &'static str,
    supported: u32,
) -> Result<()> {
    let got = bytes.get(..magic.len()).unwrap_or(bytes);
    if got != magic {
        return Err(Error::WrongMagic {
            path: path.to_owned(),
            kind,
            expected: String::from_utf8_lossy(&magic).into_owned(),
            got: String::from_utf8_lossy(got).into_owned(),
        });
    }
    let found = u32_at(bytes, 8, 0).ok_or_else(|| Error::damaged(path, "it ends in its header"))?;
    if found != supported {
        let (found, supported) = (found.into(), supported.into());
        return Err(Error::UnsupportedVersion { path: path.to_owned(), found, supported });
    }
    Ok(())
}

/// A checksum as it stands in the manifest.
pub(crate) fn hex(digest: u128) -> String {
    format!("{digest:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_follows_megatron() {
        let check = |vocab_size, width, bytes, code| {
            let got = Width::from_vocab_size(vocab_size);
            assert_eq!((got, got.bytes(), got.megatron_code()), (width, bytes, code), "{vocab_size}");
        };
        check(1, Width::U16, 2, 8);
        check(65_499, Width::U16, 2, 8);
        check(65_500, Width::I32, 4, 4);
        check(151_936, Width::I32, 4, 4);
    }

    #[test]
    fn file_names_are_recognised() {
        let check = |name, expected| assert_eq!(is_shard_or_view_name(name), expected, "{name}");
        check("train-00000.bin", true);
        check("held-out-00012.idx", true);
        check("val-123456.dom", true);
        check("val.T1024.view", true);
        check("val.T1024.mix", true);
        check("val.T1024.rows", true);
        check("train.bin", false);
        check("train-0000.bin", false);
        check("train-0000x.bin", false);
        check("-00000.bin", false);
        check("Train-00000.bin", false);
        check("val.T.view", false);
        check("vocabulary.bin", false);
        check("manifest.json", false);
        check("bin", false);
    }

    #[test]
    fn items_past_the_end_are_none() {
        let bytes = [1u8, 0, 2, 0, 3, 0];
        assert_eq!(u16_at(&bytes, 0, 2), Some(3));
        assert_eq!(u16_at(&bytes, 2, 0), Some(2));
        assert_eq!(u16_at(&bytes, 0, 3), None);
        assert_eq!(u32_at(&bytes, 4, 0), None);
        assert_eq!(u64_at(&bytes, u64::MAX, 1), None);
        assert_eq!(u64_at(&bytes, 0, u64::MAX), None);
    }
}
