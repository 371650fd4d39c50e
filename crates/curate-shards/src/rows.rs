//! Materialised rows: the tokens of a view copied out, row after row, for storage that is slow at random access.
//!
//! A view says which runs of which documents form a row, so that filling one touches a place of the shards for every
//! run. A row file holds the same tokens once more, contiguous, in the order in which they will be read: by number, or
//! as training with a given seed visits them in its first epoch. That epoch then reads the file from front to back;
//! later epochs, and runs with other seeds, have another order and jump from row to row, but not within a row. Rows of
//! a view with a mix lie source by source, each source in its own order: one sequential stream a source.
//!
//! The file does not stand alone: run lengths and document boundaries are those of the view, which is small. The view
//! finds the file and uses it by itself; rows are the same with and without.
//!
//! `SPLIT.T1024.rows`, all numbers little-endian:
//!
//! ```text
//! 0     8     magic "CURROWS\0"
//! 8     u32   version = 1
//! 12    u32   T; rows hold T + 1 tokens
//! 16    u32   w, bytes of a token: 2 = u16, 4 = i32
//! 20    u32   order: 0 = by number, 1 = of training
//! 24    u64   seed of that order, 0 where it is by number
//! 32    u64   R, number of rows
//! 40    16    checksum of the view: xxh3-128 of its file, or of the .mix file where it has a mix
//! 56          zeros to 4096, so that rows begin on a page
//! 4096  w     × (T + 1) × R   rows; positions past a row's end hold the end-of-document id
//!       16    xxh3-128 of everything before
//! ```
//!
//! Row `r` lies at place `r`, or, in the order of training, at the place where `permute` of `plan.rs` with that seed and
//! epoch 0 puts it (within the rows of its source where the view has a mix, with the source's salt added to the seed).

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::atomic::AtomicFile;
use crate::error::{Error, Result, expect_field};
use crate::format::{Width, check_magic, hex, index, rows_name, u32_at, u64_at};
use crate::map::Map;
use crate::mix::Mix;
use crate::plan::Permutation;
use crate::reader::{Split, Tokens};
use crate::view::{Row, View};

const MAGIC: [u8; 8] = *b"CURROWS\0";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 4096;
const FOOTER_BYTES: u64 = 16;

/// In which order materialised rows lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "order")]
pub enum RowOrder {
    /// By number.
    Number,
    /// As training with this seed visits them in its first epoch.
    Training {
        /// Seed of the row order.
        seed: u64,
    },
}

impl RowOrder {
    /// Code and seed as the header has them.
    fn code(self) -> (u32, u64) {
        match self {
            RowOrder::Number => (0, 0),
            RowOrder::Training { seed } => (1, seed),
        }
    }
}

/// A row file as the manifest of its view has it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct RowsManifest {
    /// File name, such as `train.T1024.rows`.
    pub file: String,
    /// In which order the rows lie.
    #[serde(flatten)]
    pub order: RowOrder,
    /// Size of the file.
    pub bytes: u64,
    /// xxh3-128 of the file, in hex.
    pub xxh3_128: String,
}

/// Materialised rows, mapped.
#[derive(Debug)]
pub(crate) struct Rows {
    map: Map,
    manifest: RowsManifest,
    width: Width,
    num_rows: u64,
    seq_len: u32,
    places: Places,
}

impl Rows {
    /// Maps a row file and checks it against its manifest entry and its view.
    pub(crate) fn open(dir: &Path, manifest: &RowsManifest, view: &View, width: Width) -> Result<Rows> {
        let path = dir.join(&manifest.file);
        let (num_rows, seq_len) = (view.num_rows(), view.seq_len());
        let size = (u64::from(seq_len) + 1)
            .checked_mul(width.bytes())
            .and_then(|row| row.checked_mul(num_rows)?.checked_add(HEADER_BYTES + FOOTER_BYTES));
        let size = size.ok_or_else(|| Error::damaged(&path, "the manifest gives it an impossible size"))?;
        let map = Map::open(path, size)?;
        let (path, bytes) = (map.path(), map.bytes());
        check_magic(path, bytes, MAGIC, "row", VERSION)?;
        let word = |at| u32_at(bytes, at, 0).expect("the file is larger than its header");
        let long = |at| u64_at(bytes, at, 0).expect("the file is larger than its header");
        let (code, seed) = manifest.order.code();
        expect_field(path, "size in the manifest", size, manifest.bytes)?;
        expect_field(path, "seq_len", seq_len, word(12))?;
        expect_field(path, "bytes of a token", width.bytes(), word(16).into())?;
        expect_field(path, "order", code, word(20))?;
        expect_field(path, "seed of the order", seed, long(24))?;
        expect_field(path, "number of rows", num_rows, long(32))?;
        let hash = u128::from(long(40)) | u128::from(long(48)) << 64;
        expect_field(path, "checksum of the view", view.checksum().to_owned(), hex(hash))?;
        let places = Places::new(manifest.order, num_rows, view.mix());
        Ok(Rows { manifest: manifest.clone(), width, num_rows, seq_len, places, map })
    }

    /// Asks the system to read a row into memory, without waiting for it.
    pub(crate) fn will_need(&self, row: u64) {
        let (start, bytes) = self.range(row);
        self.map.will_need(start, bytes);
    }

    /// Asks the processor for a row.
    pub(crate) fn prefetch(&self, row: u64) {
        let (start, bytes) = self.range(row);
        self.map.prefetch(start, bytes);
    }

    /// First byte and bytes of a row that is there.
    fn range(&self, row: u64) -> (u64, u64) {
        let row_bytes = (u64::from(self.seq_len) + 1) * self.width.bytes();
        (HEADER_BYTES + self.places.place(row) * row_bytes, row_bytes)
    }

    /// The `T + 1` tokens of a row.
    pub(crate) fn tokens(&self, row: u64) -> Result<Tokens<'_>> {
        let tokens = (row < self.num_rows).then(|| {
            let (start, row_bytes) = self.range(row);
            Tokens::cut(self.map.bytes().get(index(start)..index(start + row_bytes))?, self.width)
        });
        tokens.flatten().ok_or_else(|| Error::damaged(self.path(), format!("there is no row {row}")))
    }

    pub(crate) fn path(&self) -> &Path {
        self.map.path()
    }

    pub(crate) fn check_hash(&self) -> Result<()> {
        let got = hex(xxh3_128(self.map.bytes()));
        if got != self.manifest.xxh3_128 {
            let (path, expected) = (self.map.path().to_owned(), self.manifest.xxh3_128.clone());
            return Err(Error::BadChecksum { path, expected, got });
        }
        Ok(())
    }
}

/// Where rows lie in a file, and which row lies where: constant time either way.
#[derive(Debug)]
enum Places {
    Number,
    All(Permutation),
    /// The order of each source, in the order of the sources.
    Mixed(Arc<Mix>, Vec<Permutation>),
}

impl Places {
    fn new(order: RowOrder, num_rows: u64, mix: Option<&Arc<Mix>>) -> Places {
        match (order, mix) {
            (RowOrder::Number, _) => Places::Number,
            (RowOrder::Training { seed }, Some(mix)) => Places::Mixed(
                Arc::clone(mix),
                mix.sources().iter().map(|source| source.order(seed, 0)).collect(),
            ),
            (RowOrder::Training { seed }, None) => Places::All(Permutation::new(seed, 0, num_rows.max(1))),
        }
    }

    /// The row that lies at a place.
    fn row(&self, place: u64) -> u64 {
        match self {
            Places::Number => place,
            Places::All(order) => order.apply(place),
            Places::Mixed(mix, orders) => match locate(mix, place) {
                Some((source, first)) => first + orders[source].apply(place - first),
                None => place,
            },
        }
    }

    /// The place of a row that exists.
    fn place(&self, row: u64) -> u64 {
        match self {
            Places::Number => row,
            Places::All(order) => order.position(row),
            Places::Mixed(mix, orders) => match locate(mix, row) {
                Some((source, first)) => first + orders[source].position(row - first),
                None => row,
            },
        }
    }
}

/// Number and first row of the source that a row, or a place, belongs to.
fn locate(mix: &Mix, row: u64) -> Option<(usize, u64)> {
    let sources = mix.sources();
    let source = sources.partition_point(|source| source.first_row <= row).checked_sub(1)?;
    let first = sources[source].first_row;
    (row - first < sources[source].rows).then_some((source, first))
}

/// Copies the rows of a view into a file beside it.
pub(crate) fn write_rows(
    dir: &Path,
    split: &Split,
    view: &View,
    order: RowOrder,
    width: Width,
) -> Result<RowsManifest> {
    let name = rows_name(split.name(), view.seq_len());
    let mut file = AtomicFile::create(&dir.join(&name))?;
    let (code, seed) = order.code();
    file.write_all(&MAGIC)?;
    let token_bytes = u32::try_from(width.bytes()).expect("two or four");
    for word in [VERSION, view.seq_len(), token_bytes, code] {
        file.write_all(&word.to_le_bytes())?;
    }
    for long in [seed, view.num_rows()] {
        file.write_all(&long.to_le_bytes())?;
    }
    let hash = u128::from_str_radix(view.checksum(), 16).expect("a checksum is 32 hex digits");
    file.write_all(&hash.to_le_bytes())?;
    file.write_all(&[0; 4096 - 56])?;
    let places = Places::new(order, view.num_rows(), view.mix());
    let (mut row, mut bytes) = (Row::new(view.seq_len()), Vec::new());
    for place in 0..view.num_rows() {
        view.try_fill(split, places.row(place), &mut row)?;
        encode(&row.tokens, width, &mut bytes);
        file.write_all(&bytes)?;
    }
    file.write_all(&file.digest().to_le_bytes())?;
    let bytes =
        HEADER_BYTES + (u64::from(view.seq_len()) + 1) * width.bytes() * view.num_rows() + FOOTER_BYTES;
    Ok(RowsManifest { file: name, order, bytes, xxh3_128: hex(file.commit()?) })
}

/// The ids as they lie on disk.
#[expect(clippy::cast_possible_truncation, reason = "the ids were read from files of this width")]
fn encode(ids: &[i64], width: Width, out: &mut Vec<u8>) {
    out.clear();
    match width {
        Width::U16 => out.extend(ids.iter().flat_map(|&id| (id as u16).to_le_bytes())),
        Width::I32 => out.extend(ids.iter().flat_map(|&id| (id as i32).to_le_bytes())),
    }
}
