//! Packing views on disk: which runs of tokens make up each row of `T + 1` tokens.
//!
//! `SPLIT.T1024.view`, all numbers little-endian:
//!
//! ```text
//! 0    8     magic "CURVIEW\0"
//! 8    u32   version = 1
//! 12   u32   T, length of a sequence; rows hold up to T + 1 tokens
//! 16   u32   policy: 0 = concat, 1 = best-fit
//! 20   u32   flags: 1 = documents were truncated to T + 1 tokens, 2 = rows lie source by source, see mix.rs
//! 24   u64   R, number of rows
//! 32   u64   N, number of runs
//! 40   u64   number of documents of the split
//! 48   16    hash of the split the view was built on (see Split::split_hash)
//! 64   u64   × R + 1   first run of each row: 0, …, N
//!      run   × N       { u64 document, u32 offset in it, u32 length }, in tokens
//!      16    xxh3-128 of everything before
//! ```

use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::atomic::AtomicFile;
use crate::error::{Error, Result, expect_field};
use crate::format::{check_magic, check_seq_len, hex, index, mix_name, u32_at, u64_at, view_name};
use crate::manifest::{Manifest, ViewManifest};
use crate::map::Map;
use crate::mix::{Mix, MixManifest, MixSpec, PackedSource, write_mix};
use crate::packing::{LongDocuments, PackPolicy, Packing, Run, Tally, ViewOptions};
use crate::plan::BatchPlan;
use crate::reader::Split;
use crate::rows::{RowOrder, Rows, write_rows};
use crate::splits::TRAIN;

const MAGIC: [u8; 8] = *b"CURVIEW\0";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 64;
const RUN_BYTES: u64 = 16;
const FOOTER_BYTES: u64 = 16;

const TRUNCATED: u32 = 1;
const BY_SOURCE: u32 = 2;

/// What the views of one sequence length are to be.
#[derive(Clone, PartialEq, Debug)]
pub struct ViewRequest {
    /// Length and policy.
    pub options: ViewOptions,
    /// What becomes of documents that are longer than a row.
    pub long: LongDocuments,
    /// Which sources training draws from, and how much; held-out splits are packed whole.
    pub mix: Option<MixSpec>,
    /// Whether, and in which order, the training rows are copied out; see `rows.rs`.
    pub materialise: Option<RowOrder>,
}

impl From<ViewOptions> for ViewRequest {
    fn from(options: ViewOptions) -> ViewRequest {
        ViewRequest { options, long: LongDocuments::Split, mix: None, materialise: None }
    }
}

impl ViewRequest {
    /// The view of a split: mixes and copies are made for training.
    fn of_split(&self, split: &str) -> ViewRequest {
        match split {
            TRAIN => self.clone(),
            _ => ViewRequest { mix: None, materialise: None, ..self.clone() },
        }
    }

    /// How the rows differ from those of a view that is there; `None` if they do not.
    pub(crate) fn conflict(&self, existing: &ViewManifest) -> Option<(String, String)> {
        let request = self.of_split(&existing.split);
        let said = |policy: PackPolicy, long: LongDocuments, mix: Option<&MixSpec>| {
            let long = if long.is_split() { "" } else { " of truncated documents" };
            let mix = mix.map(|mix| format!(", mixed {}", serde_json::to_string(mix).expect("plain data")));
            format!("{policy}{long}{}", mix.unwrap_or_default())
        };
        let asked = said(request.options.policy, request.long, request.mix.as_ref());
        let there = said(existing.policy, existing.long, existing.mix.as_ref().map(|mix| &mix.spec));
        (asked != there).then(|| (format!("policy {there}"), asked))
    }
}

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
    mix: Option<Arc<Mix>>,
    /// Copies of the rows, if they were made.
    rows: Option<Rows>,
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
    pub(crate) fn open(dir: &Path, manifest: &ViewManifest, split: &Split, set: &Manifest) -> Result<View> {
        let path = dir.join(&manifest.file);
        let expected = manifest.rows.checked_add(1).and_then(|starts| {
            let table = starts.checked_mul(8)?.checked_add(manifest.runs.checked_mul(RUN_BYTES)?)?;
            table.checked_add(HEADER_BYTES + FOOTER_BYTES)
        });
        let expected =
            expected.ok_or_else(|| Error::damaged(&path, "the manifest gives it an impossible size"))?;
        let map = Map::open(path, expected)?;
        check_header(map.path(), map.bytes(), manifest, split)?;
        let mix = manifest.mix.as_ref().map(|mix| Mix::open(dir, mix, &manifest.xxh3_128)).transpose()?;
        if let Some(last) = manifest.mix.as_ref().and_then(|mix| mix.sources.last()) {
            expect_field(
                &dir.join(&manifest.file),
                "rows of its sources",
                manifest.rows,
                last.first_row + last.rows,
            )?;
        }
        let mut view = View {
            map,
            manifest: manifest.clone(),
            split_hash: split.hash(),
            eod: i64::from(set.tokenizer.eod),
            mix: mix.map(Arc::new),
            rows: None,
        };
        if let Some(rows) = &manifest.materialised {
            view.rows = Some(Rows::open(dir, rows, &view, set.token_width)?);
        }
        Ok(view)
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

    /// xxh3-128 of the view file in hex, or of its mix where it has one. It covers the hash of the split as well, so
    /// that it stands for every token of every row and for the turns of the sources; unlike
    /// [`crate::ShardSet::fingerprint`] it stays when another view is added to the set, or when rows are copied out.
    pub fn checksum(&self) -> &str {
        self.mix.as_ref().map_or(&self.manifest.xxh3_128, |mix| mix.checksum())
    }

    /// The order in which training visits the rows: all alike, or in turns of their sources where the view has a mix.
    ///
    /// # Errors
    /// [`Error::BadOption`] if the view has no rows, or a step none.
    pub fn plan(&self, seed: u64, rows_per_step: u32) -> Result<BatchPlan> {
        Ok(BatchPlan::new(seed, self.num_rows(), rows_per_step)?.with_mix(self.mix.clone()))
    }

    pub(crate) fn mix(&self) -> Option<&Arc<Mix>> {
        self.mix.as_ref()
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
        if let Some(rows) = &self.rows {
            return self.fill_from(rows, row, out);
        }
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
            &|row| match &self.rows {
                Some(_) => {}
                None => self.each_run(row, |run| split.prefetch_index(run.document)),
            },
            &|row| match &self.rows {
                Some(rows) if row < self.num_rows() => rows.prefetch(row),
                Some(_) => {}
                None => {
                    self.each_run(row, |run| split.prefetch_tokens(run.document, run.offset, run.length));
                }
            },
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
        if let Some(rows) = &self.rows {
            let _present = self.runs(row)?;
            rows.will_need(row);
            return Ok(());
        }
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

    /// Fills `out` from the copy of the row: the runs say how long it is and where its documents begin.
    fn fill_from(&self, rows: &Rows, row: u64, out: &mut Row) -> Result<()> {
        for run in self.runs(row)? {
            let length = run.length as usize;
            if out.tokens.len() - out.len < length || length == 0 {
                return Err(self.damaged(row, &format!("{run:?} does not fit")));
            }
            out.document_starts.push(u32::try_from(out.len).expect("positions of a row fit u32"));
            out.len += length;
        }
        rows.tokens(row)?.copy_to_i64(0..out.len, &mut out.tokens[..out.len]);
        out.tokens[out.len..].fill(self.eod);
        Ok(())
    }

    #[cold]
    fn damaged(&self, row: u64, problem: &str) -> Error {
        Error::damaged(self.map.path(), format!("row {row}: {problem}"))
    }

    /// Re-hashes the file and walks all rows.
    pub(crate) fn verify(&self, split: &Split, domains: &[String]) -> Result<()> {
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
        expect_field(self.map.path(), "number of tokens", self.manifest.tokens, tokens)?;
        if let (Some(mix), Some(entry)) = (&self.mix, &self.manifest.mix) {
            mix.verify()?;
            self.verify_sources(split, entry, domains)?;
        }
        self.rows.as_ref().map_or(Ok(()), |rows| self.verify_copies(rows, split))
    }

    /// Checks that each source's rows hold its documents and as many targets as the manifest says.
    fn verify_sources(&self, split: &Split, mix: &MixManifest, domains: &[String]) -> Result<()> {
        for source in &mix.sources {
            let mut targets = 0;
            for row in source.first_row..source.first_row + source.rows {
                let mut tokens = 0;
                for run in self.runs(row)? {
                    let domain = split.try_document(run.document)?.domain;
                    if domains.get(usize::from(domain)) != Some(&source.name) {
                        return Err(
                            self.damaged(row, &format!("holds tokens that are not of {:?}", source.name))
                        );
                    }
                    tokens += u64::from(run.length);
                }
                targets += tokens - 1;
            }
            expect_field(self.map.path(), "targets of a source", source.targets, targets)?;
        }
        Ok(())
    }

    /// Re-hashes the copies and compares each with its row.
    fn verify_copies(&self, rows: &Rows, split: &Split) -> Result<()> {
        rows.check_hash()?;
        let (mut copy, mut original) = (vec![0; self.seq_len() as usize + 1], Vec::new());
        for row in 0..self.num_rows() {
            original.clear();
            for run in self.runs(row)? {
                let (start, length) = (run.offset as usize, run.length as usize);
                let filled = original.len();
                original.resize(filled + length, 0);
                split.tokens(run.document)?.copy_to_i64(start..start + length, &mut original[filled..]);
            }
            original.resize(copy.len(), self.eod);
            let stored = rows.tokens(row)?;
            stored.copy_to_i64(0..copy.len(), &mut copy);
            if copy != original {
                return Err(Error::damaged(rows.path(), format!("row {row} is not that of the view")));
            }
        }
        Ok(())
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
    check_magic(path, bytes, MAGIC, "view", VERSION)?;
    let word = |at| u32_at(bytes, at, 0).expect("the file is larger than its header");
    let long = |at| u64_at(bytes, at, 0).expect("the file is larger than its header");
    expect_field(path, "seq_len", manifest.seq_len, word(12))?;
    expect_field(path, "policy", policy_code(manifest.policy), word(16))?;
    expect_field(path, "flags", flags(manifest.long, manifest.mix.is_some()), word(20))?;
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

fn flags(long: LongDocuments, is_mixed: bool) -> u32 {
    (if long.is_split() { 0 } else { TRUNCATED }) | (if is_mixed { BY_SOURCE } else { 0 })
}

/// Documents that are packed together.
pub(crate) struct Group {
    /// Their numbers, ascending; `None` for all of the split.
    pub(crate) documents: Option<Vec<u64>>,
    /// Their lengths in tokens.
    pub(crate) lengths: Vec<u32>,
}

/// Packs a split and writes its view, with what belongs to it; see `packing.rs` for memory and time, and 8 bytes a row
/// for the row table. A mix needs 8 bytes a document more.
pub(crate) fn write_view(
    dir: &Path,
    split: &Split,
    request: &ViewRequest,
    set: &Manifest,
) -> Result<ViewManifest> {
    let ViewRequest { options, long, mix, materialise } = request.of_split(split.name());
    check_seq_len(options.seq_len)?;
    let name = view_name(split.name(), options.seq_len);
    let path = dir.join(&name);
    let (groups, left_out) = match &mix {
        None => (vec![Group { documents: None, lengths: split.lengths()? }], 0),
        Some(mix) => groups_of(split, mix, &set.domains)?,
    };
    let packings: Vec<Packing<'_>> =
        groups.iter().map(|group| Packing::new(&group.lengths, options, long)).collect();
    let tallies: Vec<Tally> = packings.iter().map(|packing| packing.tally(&path)).collect::<Result<_>>()?;
    let total = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
    let (rows, runs, tokens) = (total(|t| t.rows), total(|t| t.runs), total(|t| t.tokens));
    let mut file = AtomicFile::create(&path)?;
    write_header(&mut file, split, options, flags(long, mix.is_some()), rows, runs)?;
    write_tables(&mut file, &groups, &packings)?;
    file.write_all(&file.digest().to_le_bytes())?;
    let view_hash = file.commit()?;
    let mut entry = ViewManifest {
        split: split.name().to_owned(),
        file: name,
        seq_len: options.seq_len,
        policy: options.policy,
        long,
        rows,
        runs,
        tokens,
        targets: tokens - rows,
        padding: rows * (u64::from(options.seq_len) + 1) - tokens,
        truncated: total(|t| t.truncated),
        documents_cut: total(|t| t.documents_cut),
        documents_skipped: total(|t| t.documents_skipped),
        xxh3_128: hex(view_hash),
        mix: None,
        materialised: None,
    };
    if let Some(spec) = &mix {
        let sources = packed_sources(&groups, &tallies);
        let name = mix_name(split.name(), options.seq_len);
        entry.mix = Some(write_mix(&dir.join(&name), name, spec, &sources, left_out, view_hash)?);
    }
    if let Some(order) = materialise {
        let view = View::open(dir, &entry, split, set)?;
        entry.materialised = Some(write_rows(dir, split, &view, order, set.token_width)?);
    }
    Ok(entry)
}

/// The documents of each source of a mix, and the tokens of all others.
fn groups_of(split: &Split, mix: &MixSpec, domains: &[String]) -> Result<(Vec<Group>, u64)> {
    let mut group_of_domain = vec![None; domains.len()];
    for (i, source) in mix.sources.iter().enumerate() {
        let domain = domains.iter().position(|name| *name == source.name);
        let domain = domain.ok_or_else(|| Error::BadMix {
            problem: format!("names {:?}, but the sources of this set are {}", source.name, quoted(domains)),
        })?;
        group_of_domain[domain] = Some(i);
    }
    split.grouped(mix.sources.len(), &group_of_domain)
}

fn quoted(names: &[String]) -> String {
    let shown = names.iter().take(20).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if names.len() > 20 { format!("{shown} and {} more", names.len() - 20) } else { shown }
}

/// Where the rows of each source begin, and what they hold.
fn packed_sources(groups: &[Group], tallies: &[Tally]) -> Vec<PackedSource> {
    let mut first_row = 0;
    let source = |(group, tally): (&Group, &Tally)| {
        let source = PackedSource {
            documents: group.lengths.len() as u64,
            first_row,
            rows: tally.rows,
            targets: tally.tokens - tally.rows,
        };
        first_row += tally.rows;
        source
    };
    groups.iter().zip(tallies).map(source).collect()
}

fn write_header(
    file: &mut AtomicFile,
    split: &Split,
    options: ViewOptions,
    flags: u32,
    rows: u64,
    runs: u64,
) -> Result<()> {
    file.write_all(&MAGIC)?;
    for word in [VERSION, options.seq_len, policy_code(options.policy), flags] {
        file.write_all(&word.to_le_bytes())?;
    }
    for long in [rows, runs, split.num_documents()] {
        file.write_all(&long.to_le_bytes())?;
    }
    file.write_all(&split.hash().to_le_bytes())
}

/// The rows are made twice, for the table and for the runs: that costs less than holding them.
fn write_tables(file: &mut AtomicFile, groups: &[Group], packings: &[Packing<'_>]) -> Result<()> {
    let mut start = 0u64;
    file.write_all(&start.to_le_bytes())?;
    for packing in packings {
        packing.for_each_row(|runs| {
            start += runs.len() as u64;
            file.write_all(&start.to_le_bytes())
        })?;
    }
    for (group, packing) in groups.iter().zip(packings) {
        packing.for_each_row(|runs| {
            for run in runs {
                let document = match &group.documents {
                    Some(documents) => documents[index(run.document)],
                    None => run.document,
                };
                let mut bytes = [0u8; 16];
                bytes[..8].copy_from_slice(&document.to_le_bytes());
                bytes[8..12].copy_from_slice(&run.offset.to_le_bytes());
                bytes[12..].copy_from_slice(&run.length.to_le_bytes());
                file.write_all(&bytes)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
