//! MosaicML Streaming, Composer and llm-foundry: MDS shards with a column of tokens.
//!
//! ```text
//! SPLIT/index.json        { "version": 2, "shards": [{ column_names, column_encodings, column_sizes, samples,
//!                           raw_data: { basename, bytes, hashes }, zip_data, compression, … }, …] }
//! SPLIT/shard.00000.mds   u32           n, number of samples
//!                         u32 × n + 1   where each begins, and the end, in bytes from the start of the file
//!                         JSON          the shard's entry of the index without its sizes
//!                         samples       u32 a column of variable size: its bytes; then the columns
//! ```
//!
//! A sample is a document. Ours have one column, `tokens`, of encoding `ndarray:uint16` or `ndarray:int32`: one byte
//! (number of axes × 4 + size class of the shape: 0 = u8, 1 = u16, 2 = u32, 3 = u64), the shape, the ids. Import
//! also takes `ndarray` with the type in its first byte (8 × bytes, + 1 if signed, + 2 if float), arrays of fixed shape,
//! and `bytes`, which are 64-bit ids unless told otherwise. Hashes by xxh3 are written and, where a shard has
//! them, checked. Compressed shards are not read.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::numbers::{self, Number};
use super::{Format, Importer, Source, cannot};
use crate::TokenId;
use crate::atomic::AtomicFile;
use crate::error::{Error, Result, expect_field};
use crate::format::{hex, index, u32_at};
use crate::map::Map;

pub(super) const INDEX: &str = "index.json";

const HASH: &str = "xxh3_128";

pub(super) fn export(source: &Source<'_>) -> Result<()> {
    let dir = source.split_dir()?;
    let limit = source.options.mds_shard_bytes.min(u64::from(u32::MAX));
    let config = config(source.token_bytes(), limit);
    let text = config.to_string();
    let mut shards: Vec<Value> = Vec::new();
    let mut shard = Shard::default();
    let (mut tokens, mut sample) = (Vec::new(), Vec::new());
    let mut flush = |shard: &mut Shard| -> Result<()> {
        let basename = format!("shard.{:05}.mds", shards.len());
        let bytes = shard.encode(text.as_bytes())?;
        let hash = hex(AtomicFile::write(&dir.join(&basename), &bytes)?);
        let mut entry = config.clone();
        entry["raw_data"] = json!({ "basename": basename, "bytes": bytes.len(), "hashes": { HASH: hash } });
        entry["samples"] = json!(shard.ends.len());
        entry["zip_data"] = Value::Null;
        shards.push(entry);
        *shard = Shard::default();
        Ok(())
    };
    for document in 0..source.split.num_documents() {
        source.read(document, &mut tokens)?;
        encode(&tokens, source.token_bytes(), &mut sample)?;
        if !shard.ends.is_empty() && shard.size(text.len(), sample.len()) > limit {
            flush(&mut shard)?;
        }
        shard.data.extend_from_slice(&sample);
        shard.ends.push(shard.data.len() as u64);
    }
    flush(&mut shard)?;
    let index = json!({ "shards": shards, "version": 2 });
    AtomicFile::write(&dir.join(INDEX), index.to_string().as_bytes()).map(drop)
}

fn config(token_bytes: u64, limit: u64) -> Value {
    let encoding = if token_bytes == 2 { "ndarray:uint16" } else { "ndarray:int32" };
    json!({
        "column_encodings": [encoding],
        "column_names": ["tokens"],
        "column_sizes": [null],
        "compression": null,
        "format": "mds",
        "hashes": [HASH],
        "size_limit": limit,
        "version": 2,
    })
}

/// The shard being filled.
#[derive(Default)]
struct Shard {
    data: Vec<u8>,
    ends: Vec<u64>,
}

impl Shard {
    /// Bytes of the file with one more sample.
    fn size(&self, config: usize, sample: usize) -> u64 {
        (8 + 4 * (self.ends.len() + 1) + config + self.data.len() + sample) as u64
    }

    fn encode(&self, config: &[u8]) -> Result<Vec<u8>> {
        let head = (4 + 4 * (self.ends.len() + 1) + config.len()) as u64;
        let small = |n: u64| u32::try_from(n).map_err(|_| cannot(Format::Mds, "a shard would pass 4 GiB"));
        let mut bytes = small(self.ends.len() as u64)?.to_le_bytes().to_vec();
        for end in std::iter::once(&0).chain(&self.ends) {
            bytes.extend(small(head + end)?.to_le_bytes());
        }
        bytes.extend_from_slice(config);
        bytes.extend_from_slice(&self.data);
        Ok(bytes)
    }
}

/// One sample.
fn encode(tokens: &[TokenId], token_bytes: u64, out: &mut Vec<u8>) -> Result<()> {
    let length = tokens.len() as u64;
    let length_bytes = length.to_le_bytes();
    let (class, shape) = match length {
        0..=0xff => (0, &length_bytes[..1]),
        0x100..=0xffff => (1, &length_bytes[..2]),
        _ => (2, &length_bytes[..4]),
    };
    let size = 1 + shape.len() as u64 + length * token_bytes;
    let size = u32::try_from(size)
        .map_err(|_| cannot(Format::Mds, format!("a document of {size} bytes passes 4 GiB")))?;
    out.clear();
    out.extend(size.to_le_bytes());
    out.push(1 << 2 | class);
    out.extend_from_slice(shape);
    numbers::write(tokens, token_bytes, out);
    Ok(())
}

#[derive(Deserialize)]
struct IndexFile {
    version: u64,
    shards: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    column_encodings: Vec<String>,
    column_names: Vec<String>,
    column_sizes: Vec<Option<u64>>,
    #[serde(default)]
    compression: Option<String>,
    format: String,
    raw_data: RawData,
    samples: u32,
}

#[derive(Deserialize)]
struct RawData {
    basename: String,
    bytes: u64,
    #[serde(default)]
    hashes: serde_json::Map<String, Value>,
}

pub(super) fn import(files: &[PathBuf], importer: &mut Importer<'_>) -> Result<()> {
    for path in files {
        let text = std::fs::read(path).map_err(Error::io("read", path))?;
        let bad = |source| Error::BadManifest { path: path.clone(), source };
        let file: IndexFile = serde_json::from_slice(&text).map_err(bad)?;
        expect_field(path, "version", 2, file.version)?;
        for entry in &file.shards {
            import_shard(path, entry, importer)?;
        }
    }
    Ok(())
}

fn import_shard(index_path: &Path, entry: &Entry, importer: &mut Importer<'_>) -> Result<()> {
    expect_field(index_path, "format of a shard", "mds", entry.format.as_str())?;
    let name = &entry.raw_data.basename;
    // A path would reach out of the directory.
    if Path::new(name).file_name() != Some(name.as_ref()) {
        return Err(Error::damaged(index_path, format!("{name:?} is no plain file name")));
    }
    let path = index_path.with_file_name(name);
    if let Some(compression) = entry.compression.as_ref().filter(|_| !path.exists()) {
        let problem =
            format!("{name} is compressed with {compression}: decompress the shards beside it first");
        return Err(Error::damaged(index_path, problem));
    }
    let map = Map::open(path, entry.raw_data.bytes)?;
    check_hash(&map, entry)?;
    let column = Column::find(index_path, entry, importer)?;
    let mut tokens = Vec::new();
    for sample in 0..u64::from(entry.samples) {
        let (offset, bytes) = sample_of(&map, entry, sample)?;
        tokens.clear();
        column.read(&map, offset, bytes, importer, &mut tokens).map_err(|error| match error {
            Error::Damaged { path, problem } => Error::damaged(&path, format!("sample {sample}: {problem}")),
            other => other,
        })?;
        importer.document(&mut tokens)?;
    }
    Ok(())
}

fn check_hash(map: &Map, entry: &Entry) -> Result<()> {
    for name in [HASH, "xxh128"] {
        if let Some(Value::String(expected)) = entry.raw_data.hashes.get(name) {
            let got = hex(xxh3_128(map.bytes()));
            if got != *expected {
                let (path, expected) = (map.path().to_owned(), expected.clone());
                return Err(Error::BadChecksum { path, expected, got });
            }
        }
    }
    Ok(())
}

/// Where a sample lies, and its bytes.
fn sample_of<'a>(map: &'a Map, entry: &Entry, sample: u64) -> Result<(u64, &'a [u8])> {
    let bytes = map.bytes();
    let count = u32_at(bytes, 0, 0).unwrap_or(0);
    expect_field(map.path(), "number of samples at byte 0", entry.samples, count)?;
    let (begin, end) = (u32_at(bytes, 4, sample), u32_at(bytes, 4, sample + 1));
    let (Some(begin), Some(end)) = (begin, end) else {
        return Err(Error::damaged(map.path(), format!("ends before the offsets of its {count} samples")));
    };
    let found = bytes.get(begin as usize..end as usize);
    let found = found.ok_or_else(|| {
        let problem = format!(
            "byte {}: sample {sample} is bytes {begin}..{end}, expected them in 0..{}",
            4 + 4 * sample,
            bytes.len()
        );
        Error::damaged(map.path(), problem)
    })?;
    Ok((u64::from(begin), found))
}

/// The column that holds the ids.
struct Column<'a> {
    sizes: &'a [Option<u64>],
    position: usize,
    encoding: Encoding,
}

enum Encoding {
    Bytes(Number),
    Array { number: Option<Number>, fixed_shape: bool },
}

impl Column<'_> {
    fn find<'a>(path: &Path, entry: &'a Entry, importer: &Importer<'_>) -> Result<Column<'a>> {
        let names = &entry.column_names;
        if names.len() != entry.column_encodings.len() || names.len() != entry.column_sizes.len() {
            return Err(Error::damaged(path, "a shard has not as many column names as encodings and sizes"));
        }
        let wanted =
            importer.options.column.as_deref().map_or(vec!["tokens", "input_ids"], |name| vec![name]);
        let position = names.iter().position(|name| wanted.contains(&name.as_str()));
        let position = position.ok_or_else(|| {
            let problem = format!("no column {} (there are: {})", wanted.join(" or "), names.join(", "));
            Error::damaged(path, problem)
        })?;
        let encoding = Encoding::parse(path, &entry.column_encodings[position], importer)?;
        Ok(Column { sizes: &entry.column_sizes, position, encoding })
    }

    fn read(
        &self,
        map: &Map,
        offset: u64,
        sample: &[u8],
        importer: &Importer<'_>,
        tokens: &mut Vec<TokenId>,
    ) -> Result<()> {
        let damaged = |problem: &str| Error::damaged(map.path(), format!("byte {offset}: {problem}"));
        let (mut heads, mut start, mut size) = (0u64, 0u64, 0u64);
        for (i, fixed) in self.sizes.iter().enumerate() {
            // A size of 0 counts as variable there.
            let bytes = match fixed.filter(|&bytes| bytes > 0) {
                Some(bytes) => bytes,
                None => {
                    let bytes = u32_at(sample, 0, heads);
                    heads += 1;
                    u64::from(bytes.ok_or_else(|| damaged("ends inside the sizes of its columns"))?)
                }
            };
            if i < self.position {
                start = start.saturating_add(bytes);
            }
            if i == self.position {
                size = bytes;
            }
        }
        let start = start.saturating_add(4 * heads);
        let data = sample.get(index(start)..index(start.saturating_add(size)));
        let data = data.ok_or_else(|| damaged("its columns are longer than itself"))?;
        let (number, ids) = self.encoding.ids(data).map_err(damaged)?;
        let at = offset + start + (data.len() - ids.len()) as u64;
        number.read(map.path(), ids, at, importer.tokenizer().vocab_size, tokens)
    }
}

impl Encoding {
    fn parse(path: &Path, text: &str, importer: &Importer<'_>) -> Result<Encoding> {
        let mut parts = text.split(':');
        let (kind, number, shape) = (parts.next(), parts.next(), parts.next());
        let unknown = || {
            let problem = format!("a column of encoding {text:?} holds no ids, expected ndarray or bytes");
            Error::damaged(path, problem)
        };
        match kind {
            Some("bytes") if importer.options.token_bytes.is_none() => Ok(Encoding::Bytes(Number::I64)),
            Some("bytes") => Ok(Encoding::Bytes(importer.options.number()?)),
            Some("ndarray") => {
                let number = number.map(|name| named(name).ok_or_else(unknown)).transpose()?;
                Ok(Encoding::Array { number, fixed_shape: shape.is_some() })
            }
            _ => Err(unknown()),
        }
    }

    /// The type of the ids and their bytes.
    fn ids<'a>(&self, data: &'a [u8]) -> std::result::Result<(Number, &'a [u8]), &'static str> {
        let Encoding::Array { number, fixed_shape } = *self else {
            let Encoding::Bytes(number) = *self else { return Err("no ids") };
            return Ok((number, data));
        };
        let mut rest = data;
        let number = match number {
            Some(number) => number,
            None => {
                let (&code, after) = rest.split_first().ok_or("an array without its type")?;
                rest = after;
                coded(code).ok_or("an array of an unknown type")?
            }
        };
        if fixed_shape {
            return Ok((number, rest));
        }
        let (&axes, after) = rest.split_first().ok_or("an array without its shape")?;
        let (count, bytes) = (usize::from(axes >> 2), 1usize << (axes & 3));
        let (shape, ids) =
            after.split_at_checked(count * bytes).ok_or("an array that ends inside its shape")?;
        let axis = |axis: &[u8]| axis.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        let numbers = shape.chunks_exact(bytes).map(axis).try_fold(1u64, u64::checked_mul);
        let expected = numbers.and_then(|n| n.checked_mul(number.bytes() as u64));
        if expected != Some(ids.len() as u64) {
            return Err("an array whose shape is not its size");
        }
        Ok((number, ids))
    }
}

fn named(name: &str) -> Option<Number> {
    Some(match name {
        "uint8" => Number::U8,
        "int8" => Number::I8,
        "uint16" => Number::U16,
        "int16" => Number::I16,
        "uint32" => Number::U32,
        "int32" => Number::I32,
        "uint64" => Number::U64,
        "int64" => Number::I64,
        "float32" => Number::F32,
        "float64" => Number::F64,
        _ => return None,
    })
}

fn coded(code: u8) -> Option<Number> {
    Some(match code {
        8 => Number::U8,
        9 => Number::I8,
        16 => Number::U16,
        17 => Number::I16,
        32 => Number::U32,
        33 => Number::I32,
        34 => Number::F32,
        64 => Number::U64,
        65 => Number::I64,
        66 => Number::F64,
        _ => return None,
    })
}
