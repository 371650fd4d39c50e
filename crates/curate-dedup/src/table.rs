//! From 64-bit keys to the kept documents that have them, in bounded memory.
//!
//! New entries go into a hash table of fixed size. When it is full it is sorted where it lies and written as a run; runs of
//! similar size are merged, so that n entries make at most log2(n) runs. Before the runs are asked, a filter
//! says whether any of them may have the key: for most documents of most corpora that is all that happens.
//!
//! The answer does not depend on what is where.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::runs::{Entry, Filter, Run, merged};
use crate::spill::SpillDir;

/// The number of a kept document: how many were kept before it.
pub(crate) type DocNumber = u32;

/// Document numbers stay below this.
pub(crate) const MAX_DOCS: u32 = u32::MAX;

/// Keys and their documents. What a full bucket has kept out is counted.
#[derive(Debug)]
pub(crate) struct KeyTable {
    /// A power of two of them, or none. Entries of one key lie within one stretch of taken slots.
    slots: Vec<Slot>,
    taken: usize,
    max_slots: usize,
    filter: Option<Filter>,
    filter_bytes: usize,
    /// The bits of a key that count.
    key_mask: u64,
    /// The oldest first; each at least twice as long as the next.
    runs: Vec<Run>,
    /// Runs written so far, which names the next.
    written: u64,
    /// Runs that were merged into others, and that an index still names.
    retired: Vec<Run>,
    keep_retired: bool,
    /// How many documents a bucket takes.
    max_members: u32,
    /// For full buckets: how many documents were kept out.
    hidden: BTreeMap<u64, u32>,
}

/// A key in halves, so that a slot is 12 bytes and not 16. Derived order is of no use: halves are compared as one.
#[derive(Debug, Clone, Copy)]
struct Slot {
    key: [u32; 2],
    /// [`EMPTY`] or a document.
    doc: u32,
}

const EMPTY: Slot = Slot { key: [0; 2], doc: u32::MAX };

impl Slot {
    fn new(key: u64, doc: DocNumber) -> Self {
        Self { key: [key as u32, (key >> 32) as u32], doc }
    }

    fn is_empty(self) -> bool {
        self.doc == u32::MAX
    }

    fn entry(self) -> Entry {
        (u64::from(self.key[0]) | u64::from(self.key[1]) << 32, self.doc)
    }
}

const FIRST_SLOTS: usize = 1 << 10;

impl KeyTable {
    /// The table takes up to `table_bytes` (half as much again while it grows), the filter `filter_bytes` once something was written.
    pub(crate) fn new(table_bytes: usize, filter_bytes: usize, max_members: u32) -> Self {
        let slots = (table_bytes / size_of::<Slot>()).max(FIRST_SLOTS);
        Self {
            slots: Vec::new(),
            taken: 0,
            max_slots: 1 << slots.ilog2(),
            filter: None,
            filter_bytes,
            key_mask: u64::MAX,
            runs: Vec::new(),
            written: 0,
            retired: Vec::new(),
            keep_retired: false,
            max_members,
            hidden: BTreeMap::new(),
        }
    }

    /// A table in which keys count as equal if their low 48 bits are, for callers that compare what they find.
    pub(crate) fn with_short_keys(self) -> Self {
        Self { key_mask: (1 << 48) - 1, ..self }
    }

    /// A table that starts with the runs of an index, which keeps its files until [`commit`](Self::commit).
    pub(crate) fn reopened(mut self, runs: Vec<Run>, written: u64, hidden: BTreeMap<u64, u32>) -> Self {
        Self { runs, written, hidden, keep_retired: true, filter: self.filter.take(), ..self }
    }

    /// The filter that the runs of an index are entered into as they are opened.
    pub(crate) fn filter(&mut self) -> &mut Filter {
        self.filter.get_or_insert_with(|| Filter::new(self.filter_bytes))
    }

    /// Appends the documents under `key`, in no order; returns how many the limit has kept out.
    pub(crate) fn lookup(&self, key: u64, found: &mut Vec<DocNumber>) -> Result<u32> {
        let key = key & self.key_mask;
        let before = found.len();
        if !self.slots.is_empty() {
            let last = self.slots.len() - 1;
            let mut place = key as usize & last;
            loop {
                let slot = self.slots[place];
                if slot.is_empty() {
                    break;
                }
                if slot.key == Slot::new(key, 0).key {
                    found.push(slot.doc);
                }
                place = (place + 1) & last;
            }
        }
        if self.filter.as_ref().is_some_and(|filter| filter.may_hold(key)) {
            for run in &self.runs {
                run.lookup(key, found)?;
            }
        }
        let full = found.len() - before >= self.max_members as usize;
        Ok(if full { self.hidden.get(&key).copied().unwrap_or(0) } else { 0 })
    }

    /// Enters a document under `key`, under which a look-up has just found `members`.
    pub(crate) fn insert(
        &mut self,
        key: u64,
        doc: DocNumber,
        members: usize,
        dir: &mut SpillDir,
    ) -> Result<()> {
        let key = key & self.key_mask;
        if members >= self.max_members as usize {
            let hidden = self.hidden.entry(key).or_default();
            *hidden = hidden.saturating_add(1);
            return Ok(());
        }
        if self.taken >= self.slots.len() / 4 * 3 {
            if self.slots.len() < self.max_slots {
                self.grow();
            } else {
                self.write_out(dir)?;
            }
        }
        self.place(Slot::new(key, doc));
        Ok(())
    }

    fn place(&mut self, slot: Slot) {
        let last = self.slots.len() - 1;
        let mut place = slot.key[0] as usize & last;
        while !self.slots[place].is_empty() {
            place = (place + 1) & last;
        }
        self.slots[place] = slot;
        self.taken += 1;
    }

    fn grow(&mut self) {
        let capacity = (self.slots.len() * 2).max(FIRST_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; capacity]);
        self.taken = 0;
        for slot in old.into_iter().filter(|slot| !slot.is_empty()) {
            self.place(slot);
        }
    }

    /// Writes what is in memory as a run, and merges runs that have become alike.
    pub(crate) fn write_out(&mut self, dir: &mut SpillDir) -> Result<()> {
        if self.taken == 0 {
            return Ok(());
        }
        let mut taken = 0;
        for place in 0..self.slots.len() {
            if !self.slots[place].is_empty() {
                self.slots[taken] = self.slots[place];
                taken += 1;
            }
        }
        let entries = &mut self.slots[..taken];
        entries.sort_unstable_by_key(|slot| slot.entry());
        let name = run_name(self.written);
        let run = Run::write(dir, &name, entries.iter().map(|slot| Ok(slot.entry())))?;
        self.written += 1;
        let filter = self.filter.get_or_insert_with(|| Filter::new(self.filter_bytes));
        entries.iter().for_each(|slot| filter.insert(slot.entry().0));
        self.slots.fill(EMPTY);
        self.taken = 0;
        self.runs.push(run);
        let mut first = self.runs.len() - 1;
        let mut together = self.runs[first].len();
        while first > 0 && self.runs[first - 1].len() < 2 * together {
            first -= 1;
            together += self.runs[first].len();
        }
        self.merge_from(first, dir)
    }

    /// Makes one run of all, as a finished index should have.
    pub(crate) fn merge_all(&mut self, dir: &mut SpillDir) -> Result<()> {
        self.merge_from(0, dir)
    }

    fn merge_from(&mut self, first: usize, dir: &mut SpillDir) -> Result<()> {
        if self.runs.len() - first < 2 {
            return Ok(());
        }
        let name = run_name(self.written);
        let run = Run::write(dir, &name, merged(&self.runs[first..])?)?;
        self.written += 1;
        for old in self.runs.drain(first..) {
            match self.keep_retired {
                true => self.retired.push(old),
                false => old.remove()?,
            }
        }
        self.runs.push(run);
        Ok(())
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The number that names the next run.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn hidden(&self) -> &BTreeMap<u64, u32> {
        &self.hidden
    }

    /// Forgets the runs that no index names any more.
    pub(crate) fn drop_retired(&mut self) -> Result<()> {
        self.retired.drain(..).try_for_each(Run::remove)
    }

    /// Bytes in memory.
    pub(crate) fn memory(&self) -> u64 {
        let slots = (self.slots.capacity() * size_of::<Slot>()) as u64;
        let filter = self.filter.as_ref().map_or(0, Filter::memory);
        slots + filter + self.runs.iter().map(Run::memory).sum::<u64>() + 32 * self.hidden.len() as u64
    }

    /// Bytes on disk.
    pub(crate) fn disk(&self) -> u64 {
        self.runs.iter().map(Run::bytes).sum()
    }
}

fn run_name(number: u64) -> String {
    format!("keys-{number:06}.run")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_is_what_the_documentation_says() {
        let parent = tempfile::tempdir().unwrap();
        let mut dir = SpillDir::temporary_below(parent.path().to_owned());
        let mut table = KeyTable::new(1 << 20, 1 << 16, 10);
        for doc in 0..300_000 {
            table.insert(crate::words::finish(u64::from(doc)), doc, 0, &mut dir).unwrap();
            assert!(table.memory() < (1 << 20) + (1 << 16) + (1 << 15));
        }
        assert!(table.runs.len() <= 6, "{}", table.runs.len());
        assert!(table.runs.windows(2).all(|pair| pair[0].len() >= 2 * pair[1].len()));
        let mut found = Vec::new();
        for doc in (0..300_000).step_by(1001) {
            found.clear();
            table.lookup(crate::words::finish(u64::from(doc)), &mut found).unwrap();
            assert_eq!(found, [doc]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn a_table_is_a_map_of_lists(
            // Keys that meet in the low bits, in the high bits, or not at all; written out now and then.
            entries in prop::collection::vec((0u64..40, 0u32..3, prop::bool::weighted(0.05)), 0..600),
            limit in 1u32..12,
        ) {
            let key_of = |n: u64, kind: u32| match kind { 0 => n, 1 => n << 32, _ => n << 56 | 7 };
            let parent = tempfile::tempdir().unwrap();
            let mut dir = SpillDir::temporary_below(parent.path().to_owned());
            let mut model: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
            let mut table = KeyTable::new(0, 64, limit);
            let mut found = Vec::new();
            for (doc, &(n, kind, write)) in entries.iter().enumerate() {
                let (key, doc) = (key_of(n, kind), doc as u32);
                model.entry(key).or_default().push(doc);
                found.clear();
                table.lookup(key, &mut found).unwrap();
                table.insert(key, doc, found.len(), &mut dir).unwrap();
                if write {
                    table.write_out(&mut dir).unwrap();
                }
            }
            for key in (0..45).flat_map(|n| (0..3).map(move |kind| key_of(n, kind))) {
                let expected = model.get(&key).map(Vec::as_slice).unwrap_or_default();
                let shown = expected.len().min(limit as usize);
                found.clear();
                let hidden = table.lookup(key, &mut found).unwrap();
                found.sort_unstable();
                prop_assert_eq!(&found, &expected[..shown]);
                prop_assert_eq!(hidden as usize, expected.len() - shown);
            }
        }
    }
}
