//! Which tokens stand in which row: pure functions of the documents' lengths.
//!
//! Rows hold at most `T + 1` tokens: `T` inputs and, shifted by one, `T` targets.
//!
//! **Concat** lays the documents end to end and cuts every `T` tokens, so that the last token of a row is the first
//! of the next and every token but the very first is a target exactly once. No padding but in the last row; most
//! documents are cut somewhere.
//!
//! **Best fit** cuts only documents that are longer than a row: into full pieces of `T + 1` tokens that overlap by
//! one, and a rest. Whole short documents and rests are then packed, longest first, each into the open row with the
//! least room that still takes it (best-fit-decreasing; for language models: Ding et al., "Fewer Truncations Improve
//! Language Modeling", ICML 2024). Every token but a document's first is the target of its own document's
//! predecessor exactly once. On web text the price is below 0.1 % padding.
//!
//! **Long documents** are split as said, or truncated: then only the first `T + 1` tokens of a document are packed, by
//! either policy, and the rest is in no row. That is counted, never silent.
//!
//! Whatever the policy, the books must balance, and a view whose books do not is not written:
//!
//! ```text
//! tokens of the documents + repeated = tokens in rows + truncated + skipped        rows × (T + 1) = tokens + padding
//! ```
//!
//! `repeated` is 1 for every row of concat but the first and for every piece of a document but its first; `skipped` are
//! documents of a single token, which no row of best fit has a use for.
//!
//! Cost of best fit: O(documents + rows + T) time with a counting sort and a bit tree of room sizes; 12 bytes of
//! memory a document and 12 a row while it runs, from 2^32 documents on 20 and 24: the time is that of cache misses,
//! so that narrow numbers are faster. Concat needs 4 bytes a document.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::{check_seq_len, index};

/// How rows are filled; the module's text says what each costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackPolicy {
    /// Documents end to end, cut every `T` tokens.
    Concat,
    /// Best-fit-decreasing: documents that fit into a row are never cut.
    BestFit,
}

impl PackPolicy {
    /// The word for it on the command line and in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            PackPolicy::Concat => "concat",
            PackPolicy::BestFit => "best-fit",
        }
    }
}

impl std::fmt::Display for PackPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for PackPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<PackPolicy> {
        let known = [PackPolicy::Concat, PackPolicy::BestFit];
        known.into_iter().find(|policy| policy.name() == text).ok_or_else(|| Error::BadOption {
            name: "policy",
            problem: format!("{text:?} is neither concat nor best-fit"),
        })
    }
}

/// What becomes of documents that are longer than a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LongDocuments {
    /// They go on in the next row, or in rows of their own.
    #[default]
    Split,
    /// Their first `T + 1` tokens are packed, the others are left out and counted.
    Truncate,
}

impl LongDocuments {
    /// The word for it on the command line and in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            LongDocuments::Split => "split",
            LongDocuments::Truncate => "truncate",
        }
    }

    /// Whether it is what every view did before there was a choice.
    pub(crate) fn is_split(&self) -> bool {
        *self == LongDocuments::Split
    }

    /// Tokens of a document that are packed at most.
    fn limit(self, seq_len: u32) -> u32 {
        match self {
            LongDocuments::Split => u32::MAX,
            LongDocuments::Truncate => seq_len + 1,
        }
    }
}

impl std::fmt::Display for LongDocuments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a view is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ViewOptions {
    /// `T`, in 1 ..= [`crate::MAX_SEQ_LEN`].
    pub seq_len: u32,
    /// How rows are filled.
    pub policy: PackPolicy,
}

/// Consecutive tokens of one document, in one row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Number of the document in its split.
    pub document: u64,
    /// First token of the run, counted within the document.
    pub offset: u32,
    /// Number of tokens, at least 1.
    pub length: u32,
}

/// The rows of a view, before they are written.
pub(crate) struct Packing<'a> {
    lengths: &'a [u32],
    /// `T`.
    seq_len: u32,
    /// Tokens of a document that are packed at most.
    limit: u32,
    layout: Layout,
}

enum Layout {
    Concat,
    BestFit(SharedRows<u32>),
    /// For 2^32 documents and more.
    BestFitWide(SharedRows<u64>),
}

/// Counts of the rows that documents are packed into, taken from the rows as they are.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Rows.
    pub rows: u64,
    /// Runs of consecutive tokens of one document that the rows are made of.
    pub runs: u64,
    /// Positions of rows that hold a token.
    pub tokens: u64,
    /// Those of them that hold a token which an earlier position held already.
    pub repeated: u64,
    /// Tokens beyond the first `T + 1` of their document that were to be left out.
    pub truncated: u64,
    /// Documents of which no row holds every token.
    pub documents_cut: u64,
    /// Documents of which no row holds any token, because they have one token and hence no target of their own.
    pub documents_skipped: u64,
    /// Runs that begin at the first token of their document.
    beginnings: u64,
}

impl Tally {
    /// Positions of rows that hold no token.
    pub fn padding(&self, seq_len: u32) -> u64 {
        self.rows * (u64::from(seq_len) + 1) - self.tokens
    }
}

/// Counts the rows that documents of these lengths in tokens, each at least 1, would be packed into. Nothing is read or
/// written.
///
/// # Errors
/// [`Error::BadOption`] for a sequence length out of range; [`Error::Unbalanced`].
pub fn pack_lengths(lengths: &[u32], options: ViewOptions, long: LongDocuments) -> Result<Tally> {
    check_seq_len(options.seq_len)?;
    Packing::new(lengths, options, long).tally(Path::new("(no file)"))
}

impl<'a> Packing<'a> {
    /// Plans the rows for documents of these lengths in tokens, each at least 1.
    pub(crate) fn new(lengths: &'a [u32], options: ViewOptions, long: LongDocuments) -> Packing<'a> {
        let ViewOptions { seq_len, policy } = options;
        let limit = long.limit(seq_len);
        let layout = match policy {
            PackPolicy::Concat => Layout::Concat,
            // A row holds a document, so that there are no more rows than documents.
            PackPolicy::BestFit if u32::try_from(lengths.len()).is_ok_and(|n| n < u32::MAX) => {
                Layout::BestFit(SharedRows::pack(lengths, seq_len, limit))
            }
            PackPolicy::BestFit => Layout::BestFitWide(SharedRows::pack(lengths, seq_len, limit)),
        };
        Packing { lengths, seq_len, limit, layout }
    }

    /// Tokens of a document that are packed.
    fn packed(&self, document: usize) -> u32 {
        self.lengths[document].min(self.limit)
    }

    /// The same of all documents, in order.
    fn all_packed(&self) -> impl Iterator<Item = u32> + '_ {
        self.lengths.iter().map(|&length| length.min(self.limit))
    }

    /// Hands the rows over, in order, each as its runs in order.
    pub(crate) fn for_each_row(&self, mut take: impl FnMut(&[Run]) -> Result<()>) -> Result<()> {
        match &self.layout {
            Layout::Concat => self.concat_rows(&mut take),
            Layout::BestFit(shared) => self.best_fit_rows(shared, &mut take),
            Layout::BestFitWide(shared) => self.best_fit_rows(shared, &mut take),
        }
    }

    /// Counts the rows and checks that they hold every token as often as the policy promises.
    pub(crate) fn tally(&self, path: &Path) -> Result<Tally> {
        let mut tally = Tally {
            truncated: self.lengths.iter().map(|&length| u64::from(length.saturating_sub(self.limit))).sum(),
            documents_cut: self.documents_cut(),
            documents_skipped: self.documents_skipped(),
            ..Tally::default()
        };
        let mut last = None;
        self.for_each_row(|runs| {
            tally.rows += 1;
            tally.runs += runs.len() as u64;
            for run in runs {
                tally.tokens += u64::from(run.length);
                let is_first_token = run.offset == 0;
                tally.beginnings += u64::from(is_first_token);
                let goes_on = match self.layout {
                    Layout::Concat => last == Some((run.document, run.offset)),
                    _ => !is_first_token,
                };
                tally.repeated += u64::from(goes_on);
                last = Some((run.document, run.offset + run.length - 1));
            }
            Ok(())
        })?;
        self.check_balance(path, &tally)?;
        Ok(tally)
    }

    fn check_balance(&self, path: &Path, tally: &Tally) -> Result<()> {
        let documents = self.lengths.len() as u64;
        let given: u64 = self.lengths.iter().map(|&length| u64::from(length)).sum();
        let Tally { rows, runs, tokens, repeated, truncated, documents_skipped: skipped, .. } = *tally;
        let unbalanced = |problem| Err(Error::Unbalanced { path: path.to_owned(), problem });
        if given + repeated != tokens + truncated + skipped {
            return unbalanced(format!(
                "{given} tokens of documents and {repeated} repeated, but {tokens} in rows, {truncated} truncated and \
                 {skipped} skipped"
            ));
        }
        match self.layout {
            Layout::Concat if repeated != rows.saturating_sub(1) => {
                unbalanced(format!("{rows} rows repeat {repeated} tokens"))
            }
            Layout::Concat => Ok(()),
            _ if tally.beginnings + skipped != documents => {
                let begun = tally.beginnings;
                unbalanced(format!("{begun} begun and {skipped} skipped of {documents} documents"))
            }
            // Every run of best fit has a first token, which is no target; all other packed tokens are one, once.
            _ if tokens - runs + documents + truncated != given => {
                let targets = tokens - runs;
                unbalanced(format!("{targets} targets and {documents} documents, {given} tokens"))
            }
            _ => Ok(()),
        }
    }

    /// Tokens that are packed, each counted once.
    fn num_tokens(&self) -> u64 {
        self.all_packed().map(u64::from).sum()
    }

    fn documents_skipped(&self) -> u64 {
        match self.layout {
            // A single token in all is the one case in which concat makes no row of a document.
            Layout::Concat => u64::from(self.num_tokens() == 1),
            _ => self.lengths.iter().filter(|&&length| length == 1).count() as u64,
        }
    }

    fn documents_cut(&self) -> u64 {
        let seq_len = u64::from(self.seq_len);
        match self.layout {
            Layout::BestFit(_) | Layout::BestFitWide(_) => {
                self.lengths.iter().filter(|&&length| u64::from(length) > seq_len + 1).count() as u64
            }
            Layout::Concat => {
                let mut first = 0;
                let cut = |&length: &u32| {
                    let last = first + u64::from(length.min(self.limit)) - 1;
                    let row_end = first / seq_len * seq_len + seq_len;
                    first = last + 1;
                    last > row_end || length > self.limit
                };
                self.lengths.iter().copied().filter(cut).count() as u64
            }
        }
    }

    fn concat_rows(&self, take: &mut dyn FnMut(&[Run]) -> Result<()>) -> Result<()> {
        let num_rows = self.num_tokens().saturating_sub(1).div_ceil(u64::from(self.seq_len));
        let mut runs: Vec<Run> = Vec::new();
        // First token of the row: the last one of the row before.
        let (mut document, mut offset) = (0, 0);
        for _ in 0..num_rows {
            runs.clear();
            let mut room = self.seq_len + 1;
            while room > 0 && document < self.lengths.len() {
                let packed = self.packed(document);
                let length = room.min(packed - offset);
                runs.push(Run { document: document as u64, offset, length });
                room -= length;
                offset += length;
                if offset == packed {
                    (document, offset) = (document + 1, 0);
                }
            }
            take(&runs)?;
            let last = runs.last().expect("a row is made only where tokens are left");
            (document, offset) = (index(last.document), last.offset + last.length - 1);
        }
        Ok(())
    }

    /// Full pieces of long documents first, in document order, then the shared rows in the order they were opened.
    fn best_fit_rows<N: Number>(
        &self,
        shared: &SharedRows<N>,
        take: &mut dyn FnMut(&[Run]) -> Result<()>,
    ) -> Result<()> {
        for (document, length) in (0..).zip(self.all_packed()) {
            for piece in 0..full_pieces(length, self.seq_len) {
                take(&[Run { document, offset: piece * self.seq_len, length: self.seq_len + 1 }])?;
            }
        }
        let mut runs: Vec<Run> = Vec::new();
        for row in 0..shared.num_rows() {
            runs.clear();
            runs.extend(shared.documents(row).iter().map(|document| {
                let document = document.get();
                let length = self.packed(index(document));
                let offset = full_pieces(length, self.seq_len) * self.seq_len;
                Run { document, offset, length: length - offset }
            }));
            take(&runs)?;
        }
        Ok(())
    }
}

/// Number of pieces of `T + 1` tokens, overlapping by one, that a document is cut into before its rest.
fn full_pieces(length: u32, seq_len: u32) -> u32 {
    length.saturating_sub(1) / seq_len
}

/// Tokens of a document after its full pieces, their overlap included: in 2 ..= T, or 1 if nothing is left to place.
fn rest(length: u32, seq_len: u32) -> u32 {
    length - full_pieces(length, seq_len) * seq_len
}

/// Shortest piece worth placing: one token has no target.
const SHORTEST_PIECE: u32 = 2;

/// A number of a document or a row, no wider than needed.
trait Number: Copy + Ord {
    /// Stands for no number.
    const NONE: Self;

    /// `n` is below [`Number::NONE`].
    fn of(n: u64) -> Self;

    fn get(self) -> u64;
}

impl Number for u64 {
    const NONE: u64 = u64::MAX;

    fn of(n: u64) -> u64 {
        n
    }

    fn get(self) -> u64 {
        self
    }
}

impl Number for u32 {
    const NONE: u32 = u32::MAX;

    #[expect(clippy::cast_possible_truncation, reason = "chosen where documents number less than 2^32 - 1")]
    fn of(n: u64) -> u32 {
        n as u32
    }

    fn get(self) -> u64 {
        u64::from(self)
    }
}

/// The rows that rests of documents (whole short documents among them) share.
struct SharedRows<N> {
    /// `starts[row]..starts[row + 1]` in `documents`.
    starts: Vec<N>,
    /// Documents row by row, ascending within a row: longest first would put long documents first in every row.
    documents: Vec<N>,
}

impl<N: Number> SharedRows<N> {
    fn pack(lengths: &[u32], seq_len: u32, limit: u32) -> SharedRows<N> {
        let rests = || lengths.iter().map(|&length| rest(length.min(limit), seq_len));
        let mut slots = slots_by_length(rests(), seq_len);
        let (rows, num_rows): (Vec<N>, usize) = place_longest_first(&slots, seq_len);
        // From "the k-th piece of this length lies in row r" to "row r holds these documents".
        let mut starts = vec![N::of(0); num_rows + 1];
        rows.iter().for_each(|row| {
            let count = &mut starts[index(row.get()) + 1];
            *count = N::of(count.get() + 1);
        });
        (0..num_rows).for_each(|row| starts[row + 1] = N::of(starts[row + 1].get() + starts[row].get()));
        let mut free = starts.clone();
        let mut documents = vec![N::of(0); rows.len()];
        for (document, length) in (0..).zip(rests()) {
            if length < SHORTEST_PIECE {
                continue;
            }
            // Pieces of one length are alike, so the earlier document takes the earlier slot.
            let slot = &mut slots[length as usize].start;
            let place = &mut free[index(rows[index(*slot)].get())];
            documents[index(place.get())] = N::of(document);
            *slot += 1;
            *place = N::of(place.get() + 1);
        }
        SharedRows { starts, documents }
    }

    fn num_rows(&self) -> usize {
        self.starts.len() - 1
    }

    fn documents(&self, row: usize) -> &[N] {
        &self.documents[index(self.starts[row].get())..index(self.starts[row + 1].get())]
    }
}

/// For each length 0 ..= T, the slots its pieces take when all pieces are sorted by length, longest first.
fn slots_by_length(rests: impl Iterator<Item = u32>, seq_len: u32) -> Vec<std::ops::Range<u64>> {
    let mut slots = vec![0..0u64; seq_len as usize + 1];
    rests.filter(|&length| length >= SHORTEST_PIECE).for_each(|length| slots[length as usize].end += 1);
    let mut start = 0;
    for slot in slots.iter_mut().rev() {
        *slot = start..start + slot.end;
        start = slot.end;
    }
    slots
}

/// The row of each slot, and the number of rows. Among rows with the same room, the one that came to it last is taken.
fn place_longest_first<N: Number>(slots: &[std::ops::Range<u64>], seq_len: u32) -> (Vec<N>, usize) {
    let num_slots = slots.first().map_or(0, |shortest| shortest.end);
    let mut rows: Vec<N> = Vec::with_capacity(index(num_slots));
    let mut open = OpenRows::new(seq_len);
    for length in (SHORTEST_PIECE..=seq_len).rev() {
        let pieces = &slots[length as usize];
        for _ in pieces.start..pieces.end {
            rows.push(open.place(length));
        }
    }
    (rows, open.older.len())
}

/// Rows by the room that is left in them.
struct OpenRows<N> {
    /// Tokens a row holds.
    capacity: u32,
    rooms: BitTree,
    /// Last row that came to have this much room, by room.
    newest: Vec<N>,
    /// The row that was `newest` before this one, by row.
    older: Vec<N>,
}

impl<N: Number> OpenRows<N> {
    fn new(seq_len: u32) -> OpenRows<N> {
        let capacity = seq_len + 1;
        let rooms = capacity as usize + 1;
        OpenRows { capacity, rooms: BitTree::new(rooms), newest: vec![N::NONE; rooms], older: Vec::new() }
    }

    /// Puts a piece into the row with the least room that takes it, or into a new row.
    fn place(&mut self, length: u32) -> N {
        let (row, room) = match self.rooms.first_at_least(length) {
            Some(room) => (self.pop(room), room),
            None => {
                self.older.push(N::NONE);
                (N::of(self.older.len() as u64 - 1), self.capacity)
            }
        };
        let room = room - length;
        if room >= SHORTEST_PIECE {
            self.push(room, row);
        }
        row
    }

    fn pop(&mut self, room: u32) -> N {
        let row = self.newest[room as usize];
        let older = self.older[index(row.get())];
        self.newest[room as usize] = older;
        if older == N::NONE {
            self.rooms.remove(room);
        }
        row
    }

    fn push(&mut self, room: u32, row: N) {
        self.older[index(row.get())] = self.newest[room as usize];
        self.newest[room as usize] = row;
        self.rooms.insert(room);
    }
}

/// A set of small numbers that finds the next member in a few steps: 64-way, one bit a number at the lowest level,
/// one bit a non-empty word above.
struct BitTree {
    levels: Vec<Vec<u64>>,
}

impl BitTree {
    /// The empty set of numbers below `size`.
    fn new(size: usize) -> BitTree {
        let mut levels = Vec::new();
        let mut words = size;
        loop {
            words = words.div_ceil(64).max(1);
            levels.push(vec![0u64; words]);
            if words == 1 {
                return BitTree { levels };
            }
        }
    }

    fn insert(&mut self, n: u32) {
        let mut n = n as usize;
        for level in &mut self.levels {
            level[n / 64] |= 1 << (n % 64);
            n /= 64;
        }
    }

    fn remove(&mut self, n: u32) {
        let mut n = n as usize;
        for level in &mut self.levels {
            level[n / 64] &= !(1 << (n % 64));
            if level[n / 64] != 0 {
                return;
            }
            n /= 64;
        }
    }

    /// Smallest member that is at least `n`.
    fn first_at_least(&self, n: u32) -> Option<u32> {
        let mut n = n as usize;
        for (depth, level) in self.levels.iter().enumerate() {
            let word = level.get(n / 64)? & (u64::MAX << (n % 64));
            if word != 0 {
                let found = n / 64 * 64 + word.trailing_zeros() as usize;
                return Some(self.smallest_below(depth, found));
            }
            n = n / 64 + 1;
        }
        None
    }

    /// Smallest member under a bit of a level.
    fn smallest_below(&self, depth: usize, bit: usize) -> u32 {
        let smallest = self.levels[..depth]
            .iter()
            .rev()
            .fold(bit, |bit, level| bit * 64 + level[bit].trailing_zeros() as usize);
        u32::try_from(smallest).expect("members were inserted as u32")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn rows(lengths: &[u32], seq_len: u32, policy: PackPolicy) -> (Vec<Vec<Run>>, Tally) {
        rows_of(lengths, seq_len, policy, LongDocuments::Split)
    }

    fn rows_of(
        lengths: &[u32],
        seq_len: u32,
        policy: PackPolicy,
        long: LongDocuments,
    ) -> (Vec<Vec<Run>>, Tally) {
        let packing = Packing::new(lengths, ViewOptions { seq_len, policy }, long);
        let mut rows = Vec::new();
        packing
            .for_each_row(|runs| {
                rows.push(runs.to_vec());
                Ok(())
            })
            .unwrap();
        (rows, packing.tally(Path::new("x.view")).unwrap())
    }

    /// Rows as text: `0:0+3` is three tokens of document 0 from its first on.
    fn show(rows: &[Vec<Run>]) -> String {
        let run = |run: &Run| format!("{}:{}+{}", run.document, run.offset, run.length);
        let row = |row: &Vec<Run>| row.iter().map(run).collect::<Vec<_>>().join(" ");
        rows.iter().map(row).collect::<Vec<_>>().join(" | ")
    }

    /// Every token of a row as (document, position in it).
    fn expand(runs: &[Run]) -> Vec<(u64, u32)> {
        runs.iter()
            .flat_map(|run| (run.offset..run.offset + run.length).map(|at| (run.document, at)))
            .collect()
    }

    fn stream(lengths: &[u32]) -> Vec<(u64, u32)> {
        (0..).zip(lengths).flat_map(|(document, &length)| (0..length).map(move |at| (document, at))).collect()
    }

    #[test]
    fn concat_by_hand() {
        let check = |lengths: &[u32], seq_len, expected, cut, skipped| {
            let (rows, tally) = rows(lengths, seq_len, PackPolicy::Concat);
            assert_eq!(show(&rows), expected, "{lengths:?}");
            assert_eq!((tally.documents_cut, tally.documents_skipped), (cut, skipped), "{lengths:?}");
        };
        check(&[], 4, "", 0, 0);
        check(&[1], 4, "", 0, 1);
        check(&[2], 4, "0:0+2", 0, 0);
        check(&[1, 1], 4, "0:0+1 1:0+1", 0, 0);
        check(&[5], 4, "0:0+5", 0, 0);
        check(&[6], 4, "0:0+5 | 0:4+2", 1, 0);
        check(&[5, 4], 4, "0:0+5 | 0:4+1 1:0+4", 0, 0);
        check(&[4, 5], 4, "0:0+4 1:0+1 | 1:0+5", 0, 0);
        check(&[3, 3, 3], 4, "0:0+3 1:0+2 | 1:1+2 2:0+3", 1, 0);
        check(&[3], 1, "0:0+2 | 0:1+2", 1, 0);
    }

    #[test]
    fn best_fit_by_hand() {
        let check = |lengths: &[u32], seq_len, expected, cut, skipped| {
            let (rows, tally) = rows(lengths, seq_len, PackPolicy::BestFit);
            assert_eq!(show(&rows), expected, "{lengths:?}");
            assert_eq!((tally.documents_cut, tally.documents_skipped), (cut, skipped), "{lengths:?}");
        };
        check(&[], 4, "", 0, 0);
        check(&[1, 1, 1], 4, "", 0, 3);
        check(&[2], 4, "0:0+2", 0, 0);
        check(&[5], 4, "0:0+5", 0, 0);
        // The rest of a cut document is its last token and the one before.
        check(&[6], 4, "0:0+5 | 0:4+2", 1, 0);
        check(&[9], 4, "0:0+5 | 0:4+5", 1, 0);
        // 3 fits with 2, not with 4; documents stand in their order within the row.
        check(&[2, 4, 3], 4, "1:0+4 | 0:0+2 2:0+3", 0, 0);
        // Of equal pieces the earlier takes the earlier row.
        check(&[3, 3, 2, 2], 4, "0:0+3 3:0+2 | 1:0+3 2:0+2", 0, 0);
        check(&[3], 1, "0:0+2 | 0:1+2", 1, 0);
    }

    /// Best-fit-decreasing by searching all rows for every piece.
    fn naive_best_fit(lengths: &[u32], seq_len: u32) -> Vec<Vec<Run>> {
        let (mut full, mut rests) = (Vec::new(), Vec::new());
        for (document, &length) in (0..).zip(lengths) {
            let mut offset = 0;
            while length - offset > seq_len {
                full.push(vec![Run { document, offset, length: seq_len + 1 }]);
                offset += seq_len;
            }
            if length - offset >= 2 {
                rests.push(Run { document, offset, length: length - offset });
            }
        }
        rests.sort_by_key(|run| (std::cmp::Reverse(run.length), run.document));
        // Each shared row with the moment it came to have its present room.
        let mut shared: Vec<(usize, Vec<Run>)> = Vec::new();
        let room = |row: &[Run]| seq_len + 1 - row.iter().map(|run| run.length).sum::<u32>();
        for (now, run) in rests.into_iter().enumerate() {
            let fitting = shared.iter_mut().filter(|(_, row)| room(row) >= run.length);
            match fitting.min_by_key(|(since, row)| (room(row), std::cmp::Reverse(*since))) {
                Some((since, row)) => {
                    row.push(run);
                    *since = now;
                }
                None => shared.push((now, vec![run])),
            }
        }
        for (_, row) in &mut shared {
            row.sort_by_key(|run| run.document);
        }
        full.extend(shared.into_iter().map(|(_, row)| row));
        full
    }

    /// Few distinct lengths and many, short rows and long.
    fn any_lengths() -> impl Strategy<Value = (Vec<u32>, u32)> {
        (1u32..40).prop_flat_map(|longest| (prop::collection::vec(1..=longest, 0..80), 1u32..30))
    }

    proptest! {
        #[test]
        fn concat_equals_its_definition((lengths, seq_len) in any_lengths()) {
            let stream = stream(&lengths);
            let (rows, tally) = rows(&lengths, seq_len, PackPolicy::Concat);
            let targets = stream.len().saturating_sub(1);
            prop_assert_eq!(rows.len(), targets.div_ceil(seq_len as usize));
            for (r, row) in rows.iter().enumerate() {
                let start = r * seq_len as usize;
                let end = stream.len().min(start + seq_len as usize + 1);
                prop_assert_eq!(&expand(row)[..], &stream[start..end]);
                prop_assert!(row.windows(2).all(|pair| pair[0].document < pair[1].document));
            }
            prop_assert_eq!(tally.tokens - tally.rows, targets as u64);
        }

        #[test]
        fn truncation_is_packing_the_beginnings((lengths, seq_len) in any_lengths()) {
            let beginnings: Vec<u32> = lengths.iter().map(|&length| length.min(seq_len + 1)).collect();
            for policy in [PackPolicy::Concat, PackPolicy::BestFit] {
                let (rows, tally) = rows_of(&lengths, seq_len, policy, LongDocuments::Truncate);
                let (expected, _) = self::rows(&beginnings, seq_len, policy);
                prop_assert_eq!(show(&rows), show(&expected));
                let left_out: u32 = lengths.iter().zip(&beginnings).map(|(length, kept)| length - kept).sum();
                prop_assert_eq!(tally.truncated, u64::from(left_out));
                let whole: BTreeSet<u64> = rows
                    .iter()
                    .flatten()
                    .filter(|run| run.length == lengths[index(run.document)])
                    .map(|run| run.document)
                    .collect();
                let seen: BTreeSet<u64> = rows.iter().flatten().map(|run| run.document).collect();
                prop_assert_eq!(tally.documents_cut, seen.difference(&whole).count() as u64);
            }
        }

        #[test]
        fn the_books_balance((lengths, seq_len) in any_lengths(), truncate: bool, concat: bool) {
            let long = if truncate { LongDocuments::Truncate } else { LongDocuments::Split };
            let policy = if concat { PackPolicy::Concat } else { PackPolicy::BestFit };
            let (rows, tally) = rows_of(&lengths, seq_len, policy, long);
            let seen: Vec<_> = rows.iter().flat_map(|row| expand(row)).collect();
            let distinct: BTreeSet<_> = seen.iter().collect();
            prop_assert_eq!(tally.tokens, seen.len() as u64);
            prop_assert_eq!(tally.repeated, (seen.len() - distinct.len()) as u64);
            let given: u32 = lengths.iter().sum();
            let lost = u64::from(given) - distinct.len() as u64;
            prop_assert_eq!(lost, tally.truncated + tally.documents_skipped);
            prop_assert_eq!(tally.tokens + tally.padding(seq_len), tally.rows * u64::from(seq_len + 1));
            prop_assert_eq!(pack_lengths(&lengths, ViewOptions { seq_len, policy }, long).unwrap(), tally);
        }

        #[test]
        fn best_fit_equals_the_naive_search((lengths, seq_len) in any_lengths()) {
            let (rows, _) = rows(&lengths, seq_len, PackPolicy::BestFit);
            prop_assert_eq!(show(&rows), show(&naive_best_fit(&lengths, seq_len)));
        }

        #[test]
        fn wide_numbers_change_nothing((lengths, seq_len) in any_lengths()) {
            let options = ViewOptions { seq_len, policy: PackPolicy::BestFit };
            let mut wide = Packing::new(&lengths, options, LongDocuments::Split);
            wide.layout = Layout::BestFitWide(SharedRows::pack(&lengths, seq_len, u32::MAX));
            let mut rows = Vec::new();
            wide.for_each_row(|runs| {
                rows.push(runs.to_vec());
                Ok(())
            })
            .unwrap();
            prop_assert_eq!(show(&rows), show(&self::rows(&lengths, seq_len, PackPolicy::BestFit).0));
            wide.tally(Path::new("x.view")).unwrap();
        }

        #[test]
        fn best_fit_keeps_its_promises((lengths, seq_len) in any_lengths()) {
            let (rows, tally) = rows(&lengths, seq_len, PackPolicy::BestFit);
            let mut targets = Vec::new();
            for row in &rows {
                prop_assert!((2..=seq_len as usize + 1).contains(&expand(row).len()));
                targets.extend(row.iter().flat_map(|run| expand(&[*run]).split_off(1)));
            }
            targets.sort_unstable();
            let wanted: Vec<_> = stream(&lengths).into_iter().filter(|&(_, at)| at > 0).collect();
            prop_assert_eq!(targets, wanted);
            // No two shared rows are so empty that they could have been one.
            let half = rows.iter().filter(|row| expand(row).len() * 2 <= seq_len as usize + 1).count();
            prop_assert!(half <= 1, "{half} rows are at most half full");
            prop_assert_eq!(tally.rows, rows.len() as u64);
        }

        #[test]
        fn cut_documents_are_those_that_no_row_holds((lengths, seq_len) in any_lengths()) {
            for policy in [PackPolicy::Concat, PackPolicy::BestFit] {
                let (rows, tally) = rows(&lengths, seq_len, policy);
                let runs: Vec<Run> = rows.into_iter().flatten().collect();
                let whole: BTreeSet<u64> = runs
                    .iter()
                    .filter(|run| run.length == lengths[index(run.document)])
                    .map(|run| run.document)
                    .collect();
                let seen: BTreeSet<u64> = runs.iter().map(|run| run.document).collect();
                prop_assert_eq!(tally.documents_cut, seen.difference(&whole).count() as u64);
                prop_assert_eq!(tally.documents_skipped, (lengths.len() - seen.len()) as u64);
            }
        }

        #[test]
        fn the_bit_tree_is_an_ordered_set(
            size in 1u32..10_000,
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..200),
        ) {
            let (mut tree, mut set) = (BitTree::new(size as usize), BTreeSet::new());
            for (insert, at) in steps {
                let n = u32::try_from(at.index(size as usize)).unwrap();
                if insert {
                    tree.insert(n);
                    set.insert(n);
                } else {
                    tree.remove(n);
                    set.remove(&n);
                }
                for from in [0, n, n + 1, size - 1, size] {
                    prop_assert_eq!(tree.first_at_least(from), set.range(from..).next().copied());
                }
            }
        }
    }

    #[test]
    fn long_rows_and_long_documents() {
        // 127 full pieces leave 2^24 - 1 tokens, which leave room for two.
        let (rows, tally) = rows(&[i32::MAX.unsigned_abs(), 2], crate::MAX_SEQ_LEN, PackPolicy::BestFit);
        assert_eq!(rows.len(), 128);
        assert_eq!(tally.documents_cut, 1);
    }

    #[test]
    fn a_lost_document_upsets_the_balance() {
        let options = ViewOptions { seq_len: 8, policy: PackPolicy::BestFit };
        let mut packing = Packing::new(&[4, 3, 2], options, LongDocuments::Split);
        let Layout::BestFit(shared) = &mut packing.layout else { unreachable!("best fit was asked for") };
        let end = shared.starts.last_mut().unwrap();
        *end -= 1;
        let error = packing.tally(Path::new("x.view")).unwrap_err();
        assert!(matches!(error, Error::Unbalanced { .. }), "{error}");
        let expected = "x.view: the token balance is off: 9 tokens of documents and 0 repeated, but 7 in rows, \
                        0 truncated and 0 skipped; this is a bug in curate";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn policies_have_names() {
        for policy in [PackPolicy::Concat, PackPolicy::BestFit] {
            assert_eq!(policy.to_string().parse::<PackPolicy>().unwrap(), policy);
            assert_eq!(serde_json::to_value(policy).unwrap(), policy.name());
        }
        let error = "first-fit".parse::<PackPolicy>().unwrap_err();
        assert_eq!(error.to_string(), "policy: \"first-fit\" is neither concat nor best-fit");
    }
}
