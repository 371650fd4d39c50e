//! `vocabulary.bin`: the bytes each token id stands for, so that text can be printed without a tokenizer.
//!
//! ```text
//! 0    8     magic "CURVOCAB"
//! 8    u32   version = 1
//! 12   u32   0
//! 16   u64   n, number of ids
//! 24   u64   × n + 1   where the bytes of each id begin, counted from the end of this table; then where all end
//!      u8    × ends[n] the bytes of all ids, back to back
//!      16    xxh3-128 of everything before, little-endian
//! ```

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use crate::TokenId;
use crate::atomic::AtomicFile;
use crate::error::{Error, Result, expect_field};
use crate::format::{hex, index, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"CURVOCAB";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 24;
const FOOTER_BYTES: usize = 16;

/// The id → bytes table of a tokenizer, held in memory (some hundred kilobytes to a few megabytes).
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// `starts[id]..starts[id + 1]` in `bytes`.
    starts: Vec<usize>,
    bytes: Vec<u8>,
}

impl Vocabulary {
    /// Reads and checks a table.
    ///
    /// # Errors
    /// [`Error::Io`], or one that names what is wrong with the file: magic, version, size, checksum, order.
    pub fn open(path: impl AsRef<Path>) -> Result<Vocabulary> {
        let path = path.as_ref();
        let file = std::fs::read(path).map_err(Error::io("read", path))?;
        Vocabulary::parse(path, &file)
    }

    /// Writes the bytes of ids 0, 1, … as a table, atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(path: impl AsRef<Path>, vocabulary: &[Vec<u8>]) -> Result<()> {
        Vocabulary::write_hashed(path.as_ref(), vocabulary).map(drop)
    }

    /// As [`Vocabulary::write`]; returns the xxh3-128 of the file.
    pub(crate) fn write_hashed(path: &Path, vocabulary: &[Vec<u8>]) -> Result<u128> {
        let mut file = AtomicFile::create(path)?;
        file.write_all(&MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.write_all(&0u32.to_le_bytes())?;
        file.write_all(&(vocabulary.len() as u64).to_le_bytes())?;
        let mut end = 0u64;
        file.write_all(&end.to_le_bytes())?;
        for bytes in vocabulary {
            end += bytes.len() as u64;
            file.write_all(&end.to_le_bytes())?;
        }
        for bytes in vocabulary {
            file.write_all(bytes)?;
        }
        file.write_all(&file.digest().to_le_bytes())?;
        file.commit()
    }

    fn parse(path: &Path, file: &[u8]) -> Result<Vocabulary> {
        let magic = &file[..file.len().min(MAGIC.len())];
        if magic != MAGIC {
            return Err(Error::WrongMagic {
                path: path.to_owned(),
                kind: "vocabulary",
                expected: String::from_utf8_lossy(&MAGIC).into_owned(),
                got: String::from_utf8_lossy(magic).into_owned(),
            });
        }
        let too_short =
            |expected| Error::WrongSize { path: path.to_owned(), expected, got: file.len() as u64 };
        let smallest = HEADER_BYTES + 8 + FOOTER_BYTES as u64;
        let header = || Some((u32_at(file, 8, 0)?, u32_at(file, 12, 0)?, u64_at(file, 16, 0)?));
        let (version, reserved, n) = header().ok_or_else(|| too_short(smallest))?;
        if version != VERSION {
            let (found, supported) = (u64::from(version), u64::from(VERSION));
            return Err(Error::UnsupportedVersion { path: path.to_owned(), found, supported });
        }
        expect_field(path, "reserved word", 0, reserved)?;
        let (content, footer) = file.split_last_chunk::<FOOTER_BYTES>().ok_or_else(|| too_short(smallest))?;
        let (got, expected) = (xxh3_128(content), u128::from_le_bytes(*footer));
        if got != expected {
            return Err(Error::BadChecksum { path: path.to_owned(), expected: hex(expected), got: hex(got) });
        }
        Vocabulary::parse_table(path, content, n)
    }

    fn parse_table(path: &Path, content: &[u8], n: u64) -> Result<Vocabulary> {
        let table_end =
            n.checked_add(1).and_then(|entries| entries.checked_mul(8)?.checked_add(HEADER_BYTES));
        let split = table_end.and_then(|end| content.split_at_checked(index(end)));
        let (head, bytes) =
            split.ok_or_else(|| Error::damaged(path, format!("too short for a table of {n} ids")))?;
        let starts: Vec<usize> = (0..=n).filter_map(|i| u64_at(head, HEADER_BYTES, i)).map(index).collect();
        let in_order =
            starts.first() == Some(&0) && starts.last() == Some(&bytes.len()) && starts.is_sorted();
        if !in_order {
            return Err(Error::damaged(path, "the table of offsets is not in order"));
        }
        Ok(Vocabulary { starts, bytes: bytes.to_vec() })
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is no id at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes an id stands for; none for an id past the end, such as those that pad a model's vocabulary.
    ///
    /// One id may hold part of a character: decode only whole texts as UTF-8.
    pub fn bytes(&self, id: TokenId) -> &[u8] {
        let id = id as usize;
        if id >= self.len() {
            return &[];
        }
        &self.bytes[self.starts[id]..self.starts[id + 1]]
    }

    /// The bytes of a sequence of ids, appended to `out`.
    pub fn decode(&self, ids: &[TokenId], out: &mut Vec<u8>) {
        ids.iter().for_each(|&id| out.extend_from_slice(self.bytes(id)));
    }
}

/// Where a set keeps its table.
pub(crate) fn vocabulary_path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

/// Name of the table in a set.
pub(crate) const FILE_NAME: &str = "vocabulary.bin";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDir;
    use proptest::prelude::*;

    fn round_trip(entries: &[Vec<u8>]) {
        let dir = TestDir::new();
        let path = dir.path().join(FILE_NAME);
        Vocabulary::write(&path, entries).unwrap();
        let vocabulary = Vocabulary::open(&path).unwrap();
        assert_eq!(vocabulary.len(), entries.len());
        assert_eq!(vocabulary.is_empty(), entries.is_empty());
        for (id, bytes) in (0..).zip(entries) {
            assert_eq!(vocabulary.bytes(id), bytes);
        }
        assert_eq!(vocabulary.bytes(u32::try_from(entries.len()).unwrap()), b"");
        assert_eq!(vocabulary.bytes(TokenId::MAX), b"");
    }

    #[test]
    fn tables_come_back() {
        round_trip(&[]);
        round_trip(&[vec![]]);
        round_trip(&[b"a".to_vec(), vec![], vec![0xff, 0], "漢".as_bytes().to_vec(), vec![7; 100_000]]);
    }

    #[test]
    fn ids_decode_to_text() {
        let dir = TestDir::new();
        let path = dir.path().join("v");
        Vocabulary::write(&path, &[b"he".to_vec(), b"llo".to_vec(), vec![0xe6, 0xbc], vec![0xa2]]).unwrap();
        let mut text = Vec::new();
        Vocabulary::open(&path).unwrap().decode(&[0, 1, 9, 2, 3], &mut text);
        assert_eq!(text, "hello漢".as_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_damage_is_an_error(
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..20),
            at: prop::sample::Index,
            change in 1u8..,
            cut: bool,
        ) {
            let file = bytes_of(&entries);
            let mut damaged = file.clone();
            if cut {
                damaged.truncate(at.index(file.len()));
            } else {
                damaged[at.index(file.len())] ^= change;
            }
            prop_assert!(Vocabulary::parse(Path::new("v"), &file).is_ok());
            prop_assert!(Vocabulary::parse(Path::new("v"), &damaged).is_err());
        }
    }

    /// The file by its description, written by other means than the code under test.
    fn bytes_of(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut file = b"CURVOCAB\x01\0\0\0\0\0\0\0".to_vec();
        file.extend((entries.len() as u64).to_le_bytes());
        for n in 0..=entries.len() {
            file.extend((entries[..n].concat().len() as u64).to_le_bytes());
        }
        file.extend(entries.concat());
        file.extend(xxh3_128(&file).to_le_bytes());
        file
    }

    #[test]
    fn each_defect_has_its_message() {
        let check = |file: &[u8], expected: &str| {
            let error = Vocabulary::parse(Path::new("v"), file).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        let sealed = |mut file: Vec<u8>| {
            file.extend(xxh3_128(&file).to_le_bytes());
            file
        };
        let good = bytes_of(&[b"ab".to_vec()]);
        let content = &good[..good.len() - FOOTER_BYTES];
        let patched = |at: usize, byte: u8| {
            let mut content = content.to_vec();
            content[at] = byte;
            sealed(content)
        };
        check(b"", "v: not a vocabulary file (it begins with \"\", expected \"CURVOCAB\")");
        check(b"CURVOCA", "v: not a vocabulary file (it begins with \"CURVOCA\", expected \"CURVOCAB\")");
        check(&good[..20], "v: 20 bytes, expected 48");
        check(&patched(8, 9), "v: format version 9 is not supported (this build reads version 1)");
        check(&patched(12, 1), "v: reserved word is 1, expected 0");
        check(&patched(16, 200), "v: too short for a table of 200 ids");
        check(&patched(23, 0xff), &format!("v: too short for a table of {} ids", (0xff_u64 << 56) + 1));
        check(&patched(24, 1), "v: the table of offsets is not in order");
        check(&patched(32, 1), "v: the table of offsets is not in order");
        let mut torn = good.clone();
        torn[40] ^= 1;
        let error = Vocabulary::parse(Path::new("v"), &torn).unwrap_err();
        assert!(error.to_string().starts_with("v: bad checksum (got "), "{error}");
    }
}
