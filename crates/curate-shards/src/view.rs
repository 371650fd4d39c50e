//! Packing views on disk: which runs of tokens make up each row of `T + 1` tokens.
//!
//! `SPLIT.T1024.view`, all numbers little-endian:
//!
//! ```text
//! 0    8     magic "CURVIEW\0"
//! 8    u32   version = 1
//! 12   u32   T, length of a sequence; rows hold up to T + 1 tokens
//! 16   u32   policy: 0 = concat, 1 = best-fit
//! 20   u32   0
//! 24   u64   R, number of rows
//! 32   u64   N, number of runs
//! 40   u64   number of documents of the split
//! 48   16    hash of the split the view was built on (see Split::split_hash)
//! 64   u64   × R + 1   first run of each row: 0, …, N
//!      run   × N       { u64 document, u32 offset in it, u32 length }, in tokens
//!      16    xxh3-128 of everything before
//! ```

use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use crate::atomic::AtomicFile;
use crate::error::{Error, Result, expect_field};
use crate::format::{check_seq_len, hex, u32_at, u64_at, view_name};
use crate::manifest::ViewManifest;
use crate::map::Map;
use crate::packing::{PackPolicy, Packing, Run, Tally, ViewOptions};
use crate::reader::Split;

const MAGIC: [u8; 8] = *b"CURVIEW\0";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 64;
const RUN_BYTES: u64 = 16;
const FOOTER_BYTES: u64 = 16;

/// The rows of one split for one sequence length, mapped from disk.
///
/// Opening is constant time: magic, version, sizes and counts are checked then, each run when it is served, the
/// checksum in [`crate::ShardSet::verify`].
#[derive(Debug)]
pub struct View {
    map: Map,
    manifest: ViewManifest,
    split_hash: u128,
    eod: i64,
}

/// One row of `T + 1` tokens: inputs are `tokens[..T]`, targets `tokens[1..]`.
///
/// Made once and filled again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// `T + 1` ids. Positions from `len` on are padding: they hold the end-of-document id and must not be scored.
    pub tokens: Vec<i64>,
    /// Number of real tokens, at least 2.
    pub len: usize,
    /// Where runs of other documents begin, ascending. The first is always 0, also when the row begins in the midst
    /// of a document. With the best-fit policy a target at one of these positions (other than 0) is the first token
    /// of a document or a token that was a target elsewhere already: predicting it across the boundary tells little.
    pub document_starts: Vec<u32>,
}

impl Row {
    /// A row for views of this sequence length.
    pub fn new(seq_len: u32) -> Row {
        Row { tokens: vec![0; seq_len as usize + 1], len: 0, document_starts: Vec::new() }
    }
}

impl View {
    /// Maps a view and checks it against its manifest entry and the split.
    pub(crate) fn open(dir: &Path, manifest: &ViewManifest, split: &Split, eod: u32) -> Result<View> {
        let path = dir.join(&manifest.file);
        let expected = manifest.rows.checked_add(1).and_then(|starts| {
            let table = starts.checked_mul(8)?.checked_add(manifest.runs.checked_mul(RUN_BYTES)?)?;
            table.checked_add(HEADER_BYTES + FOOTER_BYTES)
        });
        let expected =
            expected.ok_or_else(|| Error::damaged(&path, "the manifest gives it an impossible size"))?;
        let map = Map::open(path, expected)?;
        check_header(map.path(), map.bytes(), manifest, split)?;
        let (manifest, split_hash) = (manifest.clone(), split.hash());
        Ok(View { map, manifest, split_hash, eod: i64::from(eod) })
    }

    /// `T`.
    pub fn seq_len(&self) -> u32 {
        self.manifest.seq_len
    }

    /// How the rows were filled.
    pub fn policy(&self) -> PackPolicy {
        self.manifest.policy
    }

    /// Number of rows.
    pub fn num_rows(&self) -> u64 {
        self.manifest.rows
    }

    /// Counts of the view.
    pub fn manifest(&self) -> &ViewManifest {
        &self.manifest
    }

    /// xxh3-128 of the view file in hex. It covers the hash of the split as well, so that it stands for every token of
    /// every row; unlike [`crate::ShardSet::fingerprint`] it stays when another view is added to the set.
    pub fn checksum(&self) -> &str {
        &self.manifest.xxh3_128
    }

    /// Fills `out` with a row. Nothing is allocated once `out` has seen a few rows.
    ///
    /// # Panics
    /// With the message of [`View::try_fill`] when that fails.
    pub fn fill(&self, split: &Split, row: u64, out: &mut Row) {
        if let Err(error) = self.try_fill(split, row, out) {
            panic!("{error}");
        }
    }

    /// As [`View::fill`], for callers that report errors. On failure the content of `out` is unspecified.
    ///
    /// # Errors
    /// [`Error::RowOutOfRange`]; [`Error::WrongSplit`] if the view was built on another split;
    /// [`Error::Damaged`] if the view or the index points where nothing is.
    pub fn try_fill(&self, split: &Split, row: u64, out: &mut Row) -> Result<()> {
        if split.hash() != self.split_hash || split.name() != self.manifest.split {
            let (view, split) = (self.manifest.split.clone(), split.name().to_owned());
            return Err(Error::WrongSplit { view, split });
        }
        let capacity = self.seq_len() as usize + 1;
        out.tokens.resize(capacity, self.eod);
        out.document_starts.clear();
        out.len = 0;
        for run in self.runs(row)? {
            let tokens = split.tokens(run.document)?;
            let (start, length) = (run.offset as usize, run.length as usize);
            let past_row = capacity - out.len < length;
            if past_row || tokens.len().saturating_sub(start) < length || length == 0 {
                return Err(self.damaged(row, &format!("{run:?} does not fit")));
            }
            // Lossless: a row has at most MAX_SEQ_LEN + 1 positions.
            out.document_starts.push(u32::try_from(out.len).expect("positions of a row fit u32"));
            tokens.copy_to_i64(start..start + length, &mut out.tokens[out.len..out.len + length]);
            out.len += length;
        }
        out.tokens[out.len..].fill(self.eod);
        Ok(())
    }

    /// Fills `row` with one row after another and hands each to `each`, with its number. In shuffled order this takes half
    /// the time of as many calls of [`View::try_fill`]: what a row needs is asked for while others are copied.
    ///
    /// A row is four lookups, each the address of the next: table, runs, index, tokens. Every one of them is made some
    /// rows ahead of the one after it, so that no copy waits for memory.
    ///
    /// # Errors
    /// As [`View::try_fill`], or what `each` returns.
    pub fn fill_each<E: From<Error>>(
        &self,
        split: &Split,
        rows: &[u64],
        row: &mut Row,
        mut each: impl FnMut(u64, &Row) -> Result<(), E>,
    ) -> Result<(), E> {
        /// Rows between two lookups: as long as one row takes to be copied, memory takes to answer.
        const AHEAD: usize = 2;
        let stages: [&dyn Fn(u64); 4] = [
            &|row| self.map.prefetch(HEADER_BYTES + 8 * row, 16),
            &|row| self.prefetch_runs(row),
            &|row| self.each_run(row, |run| split.prefetch_index(run.document)),
            &|row| self.each_run(row, |run| split.prefetch_tokens(run.document, run.offset, run.length)),
        ];
        let depth = AHEAD * stages.len();
        for i in 0..rows.len() + depth {
            for (stage, look_up) in stages.iter().enumerate() {
                if let Some(&row) = i.checked_sub(AHEAD * stage).and_then(|i| rows.get(i)) {
                    look_up(row);
                }
            }
            if let Some(&number) = i.checked_sub(depth).and_then(|i| rows.get(i)) {
                self.try_fill(split, number, row)?;
                each(number, row)?;
            }
        }
        Ok(())
    }

    /// Asks the processor for the runs of a row.
    fn prefetch_runs(&self, row: u64) {
        let start = |row| u64_at(self.map.bytes(), HEADER_BYTES, row);
        if let (Some(start), Some(end)) = (start(row), start(row + 1)) {
            let base = HEADER_BYTES + 8 * (self.num_rows() + 1);
            self.map.prefetch(base + RUN_BYTES * start, RUN_BYTES * end.saturating_sub(start).min(8));
        }
    }

    /// The first runs of a row, if it has any; what is wrong with it comes out when it is filled.
    fn each_run(&self, row: u64, look_up: impl Fn(Run)) {
        if let Ok(runs) = self.runs(row) {
            runs.take(8).for_each(look_up);
        }
    }

    /// Asks the system to read a row into memory, without waiting for it: for a row that is filled some time later.
    ///
    /// # Errors
    /// As [`View::runs`]; [`Error::DocumentOutOfRange`] or [`Error::Damaged`] if the row points where nothing is.
    pub fn will_need(&self, split: &Split, row: u64) -> Result<()> {
        // Documents of one row mostly follow one another: one request for all of them would need their places first.
        self.runs(row)?.try_for_each(|run| split.will_need(run.document, run.offset, run.length))
    }

    /// The runs of a row in order: which document every token comes from.
    ///
    /// # Errors
    /// [`Error::RowOutOfRange`]; [`Error::Damaged`] if the row table is not in order.
    pub fn runs(&self, row: u64) -> Result<impl Iterator<Item = Run> + '_> {
        let num_rows = self.num_rows();
        if row >= num_rows {
            return Err(Error::RowOutOfRange { path: self.map.path().to_owned(), row, num_rows });
        }
        let start = |row| u64_at(self.map.bytes(), HEADER_BYTES, row).unwrap_or(u64::MAX);
        let (start, end) = (start(row), start(row + 1));
        if start >= end || end > self.manifest.runs {
            return Err(self.damaged(row, &format!("its runs are {start}..{end} of {}", self.manifest.runs)));
        }
        Ok((start..end).map(|run| self.run(run)))
    }

    fn run(&self, run: u64) -> Run {
        let base = HEADER_BYTES + 8 * (self.num_rows() + 1) + RUN_BYTES * run;
        let bytes = self.map.bytes();
        // The size of the file was checked at opening; a run of length zero would be refused all the same.
        let document = u64_at(bytes, base, 0).unwrap_or(u64::MAX);
        let (offset, length) =
            (u32_at(bytes, base + 8, 0).unwrap_or(0), u32_at(bytes, base + 12, 0).unwrap_or(0));
        Run { document, offset, length }
    }

    #[cold]
    fn damaged(&self, row: u64, problem: &str) -> Error {
        Error::damaged(self.map.path(), format!("row {row}: {problem}"))
    }

    /// Re-hashes the file and walks all rows.
    pub(crate) fn verify(&self, split: &Split) -> Result<()> {
        let got = hex(xxh3_128(self.map.bytes()));
        if got != self.manifest.xxh3_128 {
            let (path, expected) = (self.map.path().to_owned(), self.manifest.xxh3_128.clone());
            return Err(Error::BadChecksum { path, expected, got });
        }
        let mut next_run = 0;
        let mut tokens = 0;
        for row in 0..self.num_rows() {
            let starts = u64_at(self.map.bytes(), HEADER_BYTES, row);
            if starts != Some(next_run) {
                return Err(self.damaged(row, &format!("begins at run {starts:?}, expected {next_run}")));
            }
            let length = self.verify_row(split, row, &mut next_run)?;
            tokens += length;
        }
        expect_field(self.map.path(), "number of runs", self.manifest.runs, next_run)?;
        expect_field(self.map.path(), "number of tokens", self.manifest.tokens, tokens)
    }

    fn verify_row(&self, split: &Split, row: u64, next_run: &mut u64) -> Result<u64> {
        let mut tokens = 0;
        for run in self.runs(row)? {
            let length = split.tokens(run.document)?.len() as u64;
            if run.length == 0 || u64::from(run.offset) + u64::from(run.length) > length {
                return Err(
                    self.damaged(row, &format!("{run:?} does not lie in its document of {length} tokens"))
                );
            }
            tokens += u64::from(run.length);
            *next_run += 1;
        }
        if !(2..=u64::from(self.seq_len()) + 1).contains(&tokens) {
            return Err(self.damaged(row, &format!("has {tokens} tokens")));
        }
        Ok(tokens)
    }
}

fn check_header(path: &Path, bytes: &[u8], manifest: &ViewManifest, split: &Split) -> Result<()> {
    let magic = &bytes[..MAGIC.len()];
    if magic != MAGIC {
        return Err(Error::WrongMagic {
            path: path.to_owned(),
            kind: "view",
            expected: String::from_utf8_lossy(&MAGIC).into_owned(),
            got: String::from_utf8_lossy(magic).into_owned(),
        });
    }
    let word = |at| u32_at(bytes, at, 0).expect("the file is larger than its header");
    let long = |at| u64_at(bytes, at, 0).expect("the file is larger than its header");
    if word(8) != VERSION {
        let (found, supported) = (u64::from(word(8)), u64::from(VERSION));
        return Err(Error::UnsupportedVersion { path: path.to_owned(), found, supported });
    }
    expect_field(path, "seq_len", manifest.seq_len, word(12))?;
    expect_field(path, "policy", policy_code(manifest.policy), word(16))?;
    expect_field(path, "reserved word", 0, word(20))?;
    expect_field(path, "number of rows", manifest.rows, long(24))?;
    expect_field(path, "number of runs", manifest.runs, long(32))?;
    expect_field(path, "number of documents", split.num_documents(), long(40))?;
    let split_hash = u128::from(long(48)) | u128::from(long(56)) << 64;
    expect_field(path, "hash of the split", split.split_hash(), hex(split_hash))
}

fn policy_code(policy: PackPolicy) -> u32 {
    match policy {
        PackPolicy::Concat => 0,
        PackPolicy::BestFit => 1,
    }
}

/// Packs a split and writes its view; see `packing.rs` for memory and time, and 8 bytes a row for the row table.
pub(crate) fn write_view(dir: &Path, split: &Split, options: ViewOptions) -> Result<ViewManifest> {
    check_seq_len(options.seq_len)?;
    let name = view_name(split.name(), options.seq_len);
    let path = dir.join(&name);
    let lengths = split.lengths()?;
    let packing = Packing::new(&lengths, options);
    let tally = packing.tally(&path)?;
    let mut file = AtomicFile::create(&path)?;
    write_header(&mut file, split, options, &tally)?;
    write_rows(&mut file, &packing)?;
    file.write_all(&file.digest().to_le_bytes())?;
    let xxh3_128 = hex(file.commit()?);
    Ok(ViewManifest {
        split: split.name().to_owned(),
        file: name,
        seq_len: options.seq_len,
        policy: options.policy,
        rows: tally.rows,
        runs: tally.runs,
        tokens: tally.tokens,
        targets: tally.tokens - tally.rows,
        padding: tally.rows * (u64::from(options.seq_len) + 1) - tally.tokens,
        documents_cut: tally.documents_cut,
        documents_skipped: tally.documents_skipped,
        xxh3_128,
    })
}

fn write_header(file: &mut AtomicFile, split: &Split, options: ViewOptions, tally: &Tally) -> Result<()> {
    file.write_all(&MAGIC)?;
    for word in [VERSION, options.seq_len, policy_code(options.policy), 0] {
        file.write_all(&word.to_le_bytes())?;
    }
    for long in [tally.rows, tally.runs, split.num_documents()] {
        file.write_all(&long.to_le_bytes())?;
    }
    file.write_all(&split.hash().to_le_bytes())
}

/// The rows are made twice, for the table and for the runs: that costs less than holding them.
fn write_rows(file: &mut AtomicFile, packing: &Packing<'_>) -> Result<()> {
    let mut start = 0u64;
    file.write_all(&start.to_le_bytes())?;
    packing.for_each_row(|runs| {
        start += runs.len() as u64;
        file.write_all(&start.to_le_bytes())
    })?;
    packing.for_each_row(|runs| {
        for run in runs {
            let mut bytes = [0u8; 16];
            bytes[..8].copy_from_slice(&run.document.to_le_bytes());
            bytes[8..12].copy_from_slice(&run.offset.to_le_bytes());
            bytes[12..].copy_from_slice(&run.length.to_le_bytes());
            file.write_all(&bytes)?;
        }
        Ok(())
    })
}
