//! llm.c, build-nanogpt and modded-nanogpt: ids after a header of 256 words.
//!
//! ```text
//! 0     i32 × 256   [0] = 20240520, [1] = 1, [2] = N; the others 0        ids of 16 bits (GPT-2)
//!                   [0] = 20240801, [1] = 7, [2] = N                      ids of 32 bits (Llama 3)
//! 1024  u16|u32 × N ids; each document begins with the end-of-document id
//! ```
//!
//! The loaders look for the id to find where documents begin, so it is written before each document and not after. A
//! document may go on in the next file; ours do not.

use std::path::{Path, PathBuf};

use super::numbers::{self, Number};
use super::stream::{Cutter, EodPlace};
use super::{Format, Importer, Source, cannot};
use crate::atomic::AtomicFile;
use crate::error::{Error, Result, expect_field};
use crate::format::u32_at;
use crate::map::Map;

const HEADER_WORDS: u32 = 256;
const HEADER_BYTES: usize = 4 * HEADER_WORDS as usize;
const MAGIC_16: u32 = 20_240_520;
const MAGIC_32: u32 = 20_240_801;

/// Whether a file begins as these do.
pub(super) fn is_llmc(bytes: &[u8]) -> bool {
    matches!(u32_at(bytes, 0, 0), Some(MAGIC_16 | MAGIC_32)) && bytes.len() >= HEADER_BYTES
}

pub(super) fn export(source: &Source<'_>) -> Result<()> {
    let token_bytes = if source.max_token_id() > u32::from(u16::MAX) { 4 } else { 2 };
    let (mut tokens, mut bytes) = (Vec::new(), Vec::new());
    let (mut next, mut number) = (0, 1);
    while next < source.split.num_documents() {
        let (end, count) = source.file_from(next)?;
        let count = i32::try_from(count).map_err(|_| {
            cannot(Format::LlmC, format!("a file would hold {count} ids, its header can say {}", i32::MAX))
        })?;
        let name = format!("{}_{number:06}.bin", source.split.name());
        let mut file = AtomicFile::create(&source.dir.join(name))?;
        file.write_all(&header(token_bytes, count))?;
        for document in next..end {
            source.read(document, &mut tokens)?;
            tokens.rotate_right(1);
            bytes.clear();
            numbers::write(&tokens, token_bytes, &mut bytes);
            file.write_all(&bytes)?;
        }
        file.commit()?;
        (next, number) = (end, number + 1);
    }
    Ok(())
}

fn header(token_bytes: u64, count: i32) -> Vec<u8> {
    let (magic, version) = if token_bytes == 2 { (MAGIC_16, 1u32) } else { (MAGIC_32, 7) };
    let mut header = [magic.to_le_bytes(), version.to_le_bytes(), count.to_le_bytes()].concat();
    header.resize(HEADER_BYTES, 0);
    header
}

pub(super) fn import(files: &[PathBuf], importer: &mut Importer<'_>) -> Result<()> {
    let mut cutter = None;
    for path in files {
        let map = Map::open_whole(path.clone())?;
        let number = check_header(path, map.bytes())?;
        let ids = &map.bytes()[HEADER_BYTES..];
        let cutter = match &mut cutter {
            Some(cutter) => cutter,
            none => none.insert(Cutter::new(place(path, ids, number, importer)?)),
        };
        cutter.feed(path, ids, HEADER_BYTES as u64, number, importer)?;
    }
    cutter.map_or(Ok(()), |cutter| cutter.finish(importer))
}

/// A stream that begins with the id marks beginnings, unless its user says otherwise.
fn place(path: &Path, ids: &[u8], number: Number, importer: &Importer<'_>) -> Result<EodPlace> {
    if let Some(place) = importer.options.eod_place {
        return Ok(place);
    }
    let mut first = Vec::new();
    let head = &ids[..number.bytes().min(ids.len())];
    number.read(path, head, HEADER_BYTES as u64, importer.tokenizer().vocab_size, &mut first)?;
    Ok(if first == [importer.tokenizer().eod] { EodPlace::First } else { EodPlace::Last })
}

fn check_header(path: &Path, bytes: &[u8]) -> Result<Number> {
    let word = |i| u32_at(bytes, 0, i);
    let (Some(magic), Some(version), Some(count), Some(_)) =
        (word(0), word(1), word(2), word(u64::from(HEADER_WORDS) - 1))
    else {
        let (expected, got) = (HEADER_BYTES as u64, bytes.len() as u64);
        return Err(Error::WrongSize { path: path.to_owned(), expected, got });
    };
    let (number, expected) = match magic {
        MAGIC_16 => (Number::U16, 1),
        MAGIC_32 => (Number::U32, 7),
        other => {
            return Err(Error::WrongMagic {
                path: path.to_owned(),
                kind: "llm.c token",
                expected: format!("{MAGIC_16} or {MAGIC_32}"),
                got: other.to_string(),
            });
        }
    };
    expect_field(path, "version at byte 4", expected, version)?;
    let expected = HEADER_BYTES as u64 + u64::from(count) * number.bytes() as u64;
    if expected != bytes.len() as u64 {
        return Err(Error::WrongSize { path: path.to_owned(), expected, got: bytes.len() as u64 });
    }
    Ok(number)
}
