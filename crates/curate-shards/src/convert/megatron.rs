//! Megatron-LM, NeMo and GPT-NeoX: `.bin` and `.idx`, laid out as in `format.rs`.
//!
//! Export joins the shards of a split in one pair of files, because those trainers take one prefix a data set; a
//! single shard of ours can be given to them as it is. Import takes what any of them wrote: every number type, documents
//! of several sequences, with or without the modes that follow the index. Types 6 and 7 are 64- and 32-bit floats in
//! Megatron-Core and the other way round in GPT-NeoX: the size of `.bin` tells which.

use std::path::{Path, PathBuf};

use super::numbers::{self, Number};
use super::{Importer, Source};
use crate::atomic::AtomicFile;
use crate::error::{Error, Result};
use crate::format::{IDX_HEADER_BYTES, IDX_MAGIC, IDX_VERSION, index, u32_at, u64_at, write_idx};
use crate::map::Map;

pub(super) fn export(source: &Source<'_>) -> Result<()> {
    let path = |ending| source.dir.join(format!("{}.{ending}", source.split.name()));
    let mut bin = AtomicFile::create(&path("bin"))?;
    let (mut tokens, mut bytes, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for document in 0..source.split.num_documents() {
        source.read(document, &mut tokens)?;
        bytes.clear();
        numbers::write(&tokens, source.token_bytes(), &mut bytes);
        bin.write_all(&bytes)?;
        lengths.push(i32::try_from(tokens.len()).expect("lengths of our own index are 32-bit"));
    }
    bin.commit()?;
    let mut idx = AtomicFile::create(&path("idx"))?;
    write_idx(|bytes| idx.write_all(bytes), source.set.manifest().token_width, &lengths)?;
    idx.commit().map(drop)
}

pub(super) fn import(files: &[PathBuf], importer: &mut Importer<'_>) -> Result<()> {
    for path in files {
        let index = Index::open(path)?;
        let bin = Map::open_whole(path.with_extension("bin"))?;
        let number = index.number(&bin)?;
        let mut tokens = Vec::new();
        for document in 0..index.documents {
            tokens.clear();
            for sequence in index.sequences_of(document)? {
                let (offset, bytes) = index.sequence(sequence, number, &bin)?;
                number.read(bin.path(), bytes, offset, importer.tokenizer().vocab_size, &mut tokens)?;
            }
            importer.document(&mut tokens)?;
        }
    }
    Ok(())
}

/// An index of any origin.
struct Index {
    map: Map,
    code: u8,
    sequences: u64,
    /// One less than the boundaries there are.
    documents: u64,
}

impl Index {
    fn open(path: &Path) -> Result<Index> {
        let map = Map::open_whole(path.to_owned())?;
        let bytes = map.bytes();
        let got = bytes.len() as u64;
        let magic = &bytes[..IDX_MAGIC.len().min(bytes.len())];
        if magic != IDX_MAGIC {
            return Err(Error::WrongMagic {
                path: path.to_owned(),
                kind: "Megatron index",
                expected: String::from_utf8_lossy(&IDX_MAGIC).into_owned(),
                got: String::from_utf8_lossy(magic).into_owned(),
            });
        }
        let (Some(version), Some(&code), Some(sequences), Some(boundaries)) =
            (u64_at(bytes, 9, 0), bytes.get(17), u64_at(bytes, 18, 0), u64_at(bytes, 26, 0))
        else {
            return Err(Error::WrongSize { path: path.to_owned(), expected: IDX_HEADER_BYTES, got });
        };
        if version != IDX_VERSION {
            let (found, supported) = (version, IDX_VERSION);
            return Err(Error::UnsupportedVersion { path: path.to_owned(), found, supported });
        }
        let expected = sequences.checked_mul(12).and_then(|a| boundaries.checked_mul(8)?.checked_add(a));
        let expected = expected.and_then(|tables| tables.checked_add(IDX_HEADER_BYTES)).unwrap_or(u64::MAX);
        // Multimodal indexes have a byte a sequence more.
        if got != expected && expected.checked_add(sequences) != Some(got) {
            return Err(Error::WrongSize { path: path.to_owned(), expected, got });
        }
        let documents = boundaries.checked_sub(1);
        let documents = documents
            .ok_or_else(|| Error::damaged(path, "byte 26: no document boundary, expected one at least"))?;
        let index = Index { map, code, sequences, documents };
        index.check_ends()?;
        Ok(index)
    }

    /// The first boundary is the first sequence, the last the end.
    fn check_ends(&self) -> Result<()> {
        for (i, expected) in [(0, 0), (self.documents, self.sequences)] {
            let got = self.boundary(i);
            if got != expected {
                let problem = format!(
                    "byte {}: boundary {i} is sequence {got}, expected {expected}",
                    self.boundary_at(i)
                );
                return Err(Error::damaged(self.map.path(), problem));
            }
        }
        Ok(())
    }

    fn boundary_at(&self, i: u64) -> u64 {
        IDX_HEADER_BYTES + 12 * self.sequences + 8 * i
    }

    fn boundary(&self, i: u64) -> u64 {
        u64_at(self.map.bytes(), self.boundary_at(i), 0).expect("the size was checked")
    }

    fn sequences_of(&self, document: u64) -> Result<std::ops::Range<u64>> {
        let (start, end) = (self.boundary(document), self.boundary(document + 1));
        if start > end || end > self.sequences {
            let at = self.boundary_at(document + 1);
            let problem = format!("byte {at}: boundary {end}, expected {start} to {}", self.sequences);
            return Err(Error::damaged(self.map.path(), problem));
        }
        Ok(start..end)
    }

    fn length(&self, sequence: u64) -> Result<u64> {
        let length = u32_at(self.map.bytes(), IDX_HEADER_BYTES, sequence).expect("the size was checked");
        if i32::try_from(length).is_err() {
            let at = IDX_HEADER_BYTES + 4 * sequence;
            return Err(Error::damaged(
                self.map.path(),
                format!("byte {at}: sequence {sequence} has a negative length"),
            ));
        }
        Ok(u64::from(length))
    }

    fn sequence<'a>(&self, sequence: u64, number: Number, bin: &'a Map) -> Result<(u64, &'a [u8])> {
        let at = IDX_HEADER_BYTES + 4 * self.sequences + 8 * sequence;
        let offset = u64_at(self.map.bytes(), at, 0).expect("the size was checked");
        let end = offset.checked_add(self.length(sequence)? * number.bytes() as u64);
        let bytes = end.and_then(|end| bin.bytes().get(index(offset)..index(end)));
        let bytes = bytes.ok_or_else(|| {
            let problem = format!(
                "byte {at}: sequence {sequence} lies at {offset}, outside the {} bytes of {}",
                bin.bytes().len(),
                bin.path().display()
            );
            Error::damaged(self.map.path(), problem)
        })?;
        Ok((offset, bytes))
    }

    fn number(&self, bin: &Map) -> Result<Number> {
        let number = match self.code {
            1 => Number::U8,
            2 => Number::I8,
            3 => Number::I16,
            4 => Number::I32,
            5 => Number::I64,
            6 | 7 => {
                let mut tokens = 0u64;
                for sequence in 0..self.sequences {
                    tokens = tokens.saturating_add(self.length(sequence)?);
                }
                if tokens.saturating_mul(8) == bin.bytes().len() as u64 { Number::F64 } else { Number::F32 }
            }
            8 => Number::U16,
            other => {
                let problem = format!("byte 17: token type {other}, expected 1 to 8");
                return Err(Error::damaged(self.map.path(), problem));
            }
        };
        Ok(number)
    }
}
