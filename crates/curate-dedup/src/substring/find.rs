//! The first pass: where the repeated windows are, and where their first copies.

use curate_core::{Counters, Document, Gate, Mapper, Verdict, Work};

use super::anchors::{Anchor, Anchors};
use super::windows::{KEY_BITS, WindowHash};
use super::{Copies, SpanAction, SubstringOptions, SubstringSummary, SubstringUnit};
use crate::error::{Error, Result};
use crate::external::{Sorted, Sorter};
use crate::options::{Place, Storage};
use crate::spill::{AppendStore, SpillDir};
use crate::twopass::Seen;
use crate::words::{PlacedUnit, placed_units};

const POSITION_BITS: u32 = 128 - KEY_BITS;
const MAX_UNITS: u64 = 1 << POSITION_BITS;
const COUNT_BITS: u32 = 24;
/// Hash functions that are tried.
const ATTEMPTS: u32 = 8;

/// Finds the anchors of a document.
#[derive(Debug)]
pub struct RepeatMapper {
    unit: SubstringUnit,
    anchors: Anchors,
}

/// What the finder needs to know of a document.
#[derive(Debug)]
pub struct RepeatWork {
    units: Vec<PlacedUnit>,
    anchors: Vec<Anchor>,
}

impl RepeatMapper {
    /// # Errors
    /// Options out of their range.
    pub fn new(options: &SubstringOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self { unit: options.unit, anchors: Anchors::new(options.length) })
    }
}

impl Mapper for RepeatMapper {
    type Work = RepeatWork;
    type Scratch = (Vec<u8>, Vec<u64>);

    fn map(
        &self,
        doc: &mut Document<'_>,
        (word, ring): &mut Self::Scratch,
        _: &mut Counters,
    ) -> Work<RepeatWork> {
        let (mut units, mut anchors) = (Vec::new(), Vec::new());
        if u32::try_from(doc.text_len()).is_ok() {
            match self.unit {
                SubstringUnit::Bytes => {
                    let bytes = doc.text().as_bytes();
                    self.anchors.find(bytes.len(), |i| u64::from(bytes[i]) + 1, ring, &mut anchors);
                }
                SubstringUnit::Words(profile) => {
                    placed_units(profile, doc.text(), word, &mut units);
                    self.anchors.find(units.len(), |i| units[i].hash, ring, &mut anchors);
                }
            }
        }
        Work::Pending(RepeatWork { units, anchors })
    }
}

/// Remembers the units of all documents, and then finds the repeats.
#[derive(Debug)]
pub struct RepeatFinder {
    options: SubstringOptions,
    memory: usize,
    units: AppendStore,
    /// For words: where in its document each starts, 4 bytes.
    places: AppendStore,
    /// For each document its first unit and the place of its id, 8 bytes each.
    documents: AppendStore,
    ids: AppendStore,
    /// The hash of each anchor, its first window and how many there are.
    anchors: Sorter<2>,
    dir: SpillDir,
    seen: Seen,
    summary: SubstringSummary,
    buffer: Vec<u8>,
    /// Tests make the first hash functions bad ones.
    pub(super) key_mask: fn(u32) -> u128,
}

impl RepeatFinder {
    /// # Errors
    /// Options out of their range, or too little memory. There is no index of substrings.
    pub fn new(options: SubstringOptions, storage: &Storage) -> Result<Self> {
        options.validate()?;
        storage.validate()?;
        let Place::TemporaryIn(parent) = &storage.place else { return Err(Error::IndexOfUnits) };
        let marked = matches!(options.action, SpanAction::Mark(_));
        let memory = usize::try_from(storage.memory).unwrap_or(usize::MAX);
        let store = |name| AppendStore::new(name, memory / 32);
        Ok(Self {
            options,
            memory,
            units: store("units"),
            places: store("places"),
            documents: store("documents"),
            ids: store("ids"),
            anchors: Sorter::new("anchors", memory / 5),
            dir: SpillDir::temporary_below(parent.clone()),
            seen: Seen::default(),
            summary: SubstringSummary { marked, ..SubstringSummary::default() },
            buffer: Vec::new(),
            key_mask: |_| u128::MAX,
        })
    }

    fn remember(&mut self, doc: &Document<'_>, work: &RepeatWork) -> Result<()> {
        if u32::try_from(doc.text_len()).is_err() {
            return Err(Error::TextTooLong { id: doc.id().to_owned(), bytes: doc.text_len() as u64 });
        }
        self.seen.add(doc);
        let start = self.summary.units;
        self.document_entry(start, doc.id())?;
        match self.options.unit {
            SubstringUnit::Bytes => {
                self.units.append(doc.text().as_bytes(), &mut self.dir)?;
                self.summary.units += doc.text_len() as u64;
            }
            SubstringUnit::Words(_) => {
                self.buffer.clear();
                self.buffer.extend(work.units.iter().flat_map(|unit| unit.hash.to_le_bytes()));
                self.units.append(&self.buffer, &mut self.dir)?;
                self.buffer.clear();
                self.buffer.extend(work.units.iter().flat_map(|unit| unit.start.to_le_bytes()));
                self.places.append(&self.buffer, &mut self.dir)?;
                self.summary.units += work.units.len() as u64;
            }
        }
        self.summary.documents += 1;
        if self.summary.units >= MAX_UNITS {
            return Err(Error::TooManyUnits { limit: MAX_UNITS });
        }
        for anchor in &work.anchors {
            let range = (start + u64::from(anchor.first)) << COUNT_BITS | u64::from(anchor.windows);
            self.anchors.push([anchor.key, range], &mut self.dir)?;
        }
        self.summary.anchors += work.anchors.len() as u64;
        Ok(())
    }

    fn document_entry(&mut self, start: u64, id: &str) -> Result<()> {
        let at = self.ids.append(id.as_bytes(), &mut self.dir)?;
        self.documents.append(&start.to_le_bytes(), &mut self.dir)?;
        self.documents.append(&at.to_le_bytes(), &mut self.dir)?;
        Ok(())
    }

    /// Finds the repeats, after the last document. `alive` is asked now and then; its error ends the work.
    ///
    /// # Errors
    /// Files that cannot be written or read, or eight bad hash functions in a row.
    pub fn finish(
        mut self,
        mut alive: impl FnMut() -> curate_core::Result<()>,
    ) -> curate_core::Result<Repeats> {
        self.document_entry(self.summary.units, "")?;
        let hot = self.shared_anchors(&mut alive)?;
        for attempt in 0..ATTEMPTS {
            let mut segments = AppendStore::new("segments", self.memory / 32);
            if self.segments(&hot, attempt, &mut segments, &mut alive)? {
                hot.remove()?;
                return Ok(self.into_repeats(segments));
            }
            self.summary.collisions += 1;
        }
        Err(Error::Collisions { attempts: ATTEMPTS }.into())
    }

    fn into_repeats(self, segments: AppendStore) -> Repeats {
        let Self { options, units, places, documents, ids, dir, seen, mut summary, .. } = self;
        let stores = [&units, &places, &documents, &ids, &segments];
        summary.disk_bytes += stores.iter().map(|store| store.disk()).sum::<u64>();
        summary.memory_bytes += stores.iter().map(|store| store.memory()).sum::<u64>();
        Repeats { options, places, documents, ids, segments, seen: seen.digest(), summary, _dir: dir }
    }

    /// The windows whose anchors are not alone, by position.
    fn shared_anchors(
        &mut self,
        alive: &mut impl FnMut() -> curate_core::Result<()>,
    ) -> curate_core::Result<Sorted<1>> {
        let anchors = std::mem::replace(&mut self.anchors, Sorter::new("anchors", 0));
        self.note(anchors.memory(), anchors.disk());
        let anchors = anchors.finish(&mut self.dir)?;
        let mut hot = Sorter::new("shared", self.memory / 5);
        let (mut before, mut pushed, mut read) = (None::<[u64; 2]>, false, 0);
        let mut cursor = anchors.start()?;
        while let Some(entry) = cursor.next(&anchors)? {
            ask(&mut read, alive)?;
            let same = before.filter(|before| before[0] == entry[0]);
            if let (Some([_, first]), false) = (same, pushed) {
                hot.push([first], &mut self.dir)?;
            }
            pushed = same.is_some();
            if pushed {
                hot.push([entry[1]], &mut self.dir)?;
            }
            before = Some(entry);
        }
        self.note(anchors.memory() + hot.memory(), anchors.disk() + hot.disk());
        anchors.remove()?;
        Ok(hot.finish(&mut self.dir)?)
    }

    /// Remembers what sorting takes, if it was never as much.
    fn note(&mut self, memory: u64, disk: u64) {
        self.summary.memory_bytes = self.summary.memory_bytes.max(memory);
        self.summary.disk_bytes = self.summary.disk_bytes.max(disk);
    }

    /// Writes the segments; `false` if a hash function took different windows for equal ones.
    fn segments(
        &mut self,
        hot: &Sorted<1>,
        attempt: u32,
        segments: &mut AppendStore,
        alive: &mut impl FnMut() -> curate_core::Result<()>,
    ) -> curate_core::Result<bool> {
        let windows = self.windows(hot, attempt, alive)?;
        let repeats = self.repeats(&windows, alive)?;
        let memory = hot.memory() + windows.memory() + repeats.memory();
        self.note(memory, hot.disk() + windows.disk() + repeats.disk());
        windows.remove()?;
        let mut open: Option<[u64; 3]> = None;
        let mut read = 0;
        let mut cursor = repeats.start()?;
        while let Some([at, first]) = cursor.next(&repeats)? {
            ask(&mut read, alive)?;
            match &mut open {
                Some([start, copy, count]) if *start + *count == at && *copy + *count == first => *count += 1,
                _ => {
                    if let Some(segment) = open.replace([at, first, 1])
                        && !self.write_segment(segment, segments)?
                    {
                        return Ok(false);
                    }
                }
            }
        }
        let sound = open.map_or(Ok(true), |segment| self.write_segment(segment, segments))?;
        repeats.remove()?;
        Ok(sound)
    }

    /// The key of each window whose anchor is not alone, and its position in the low bits.
    fn windows(
        &mut self,
        hot: &Sorted<1>,
        attempt: u32,
        alive: &mut impl FnMut() -> curate_core::Result<()>,
    ) -> curate_core::Result<Sorted<2>> {
        let length = self.options.length;
        let hash = WindowHash::new(length, u64::from(attempt));
        let mask = (self.key_mask)(attempt);
        let width = self.width();
        let mut windows = Sorter::new("windows", self.memory / 5);
        let (mut units, mut count, mut read) = (Vec::new(), 0, 0);
        let mut cursor = hot.start()?;
        while let Some([range]) = cursor.next(hot)? {
            ask(&mut read, alive)?;
            let mut at = range >> COUNT_BITS;
            let unit_count = (range & ((1 << COUNT_BITS) - 1)) as usize + length - 1;
            self.read_units(at, unit_count, &mut units)?;
            let Self { dir, .. } = self;
            let unit = |i| unit_at(&units, width, i);
            hash.keys(length, unit_count, unit, |key| {
                let entry = (key & mask) << POSITION_BITS | u128::from(at);
                (at, count) = (at + 1, count + 1);
                windows.push([(entry >> 64) as u64, entry as u64], dir)
            })?;
        }
        self.summary.windows = count;
        self.note(hot.memory() + windows.memory(), hot.disk() + windows.disk());
        Ok(windows.finish(&mut self.dir)?)
    }

    /// The windows that are repeated, by position, each with the first of its copies.
    fn repeats(
        &mut self,
        windows: &Sorted<2>,
        alive: &mut impl FnMut() -> curate_core::Result<()>,
    ) -> curate_core::Result<Sorted<2>> {
        let length = self.options.length as u64;
        let all = self.options.copies == Copies::None;
        let mut repeats = Sorter::new("repeats", self.memory / 5);
        // The key of the windows at hand, the first of them, and whether no other has been seen.
        let mut group: Option<(u128, u64, bool)> = None;
        let mut read = 0;
        let mut cursor = windows.start()?;
        while let Some([high, low]) = cursor.next(windows)? {
            ask(&mut read, alive)?;
            let key = (u128::from(high) << 64 | u128::from(low)) >> POSITION_BITS;
            let at = low & (MAX_UNITS - 1);
            match &mut group {
                Some((same, first, alone)) if *same == key => {
                    if all && std::mem::take(alone) {
                        repeats.push([*first, at], &mut self.dir)?;
                    }
                    if all || *first + length <= at {
                        repeats.push([at, *first], &mut self.dir)?;
                    }
                }
                _ => group = Some((key, at, true)),
            }
        }
        self.note(windows.memory() + repeats.memory(), windows.disk() + repeats.disk());
        Ok(repeats.finish(&mut self.dir)?)
    }

    /// Compares a segment with its first copy; writes it if they are equal.
    fn write_segment(&mut self, [at, first, windows]: [u64; 3], segments: &mut AppendStore) -> Result<bool> {
        let mut left = windows + self.options.length as u64 - 1;
        let (mut a, mut b) = (at, first);
        let (mut units, mut copy) = (Vec::new(), Vec::new());
        while left > 0 {
            let count = left.min(8192);
            self.read_units(a, count as usize, &mut units)?;
            self.read_units(b, count as usize, &mut copy)?;
            if units != copy {
                return Ok(false);
            }
            (a, b, left) = (a + count, b + count, left - count);
        }
        for n in [at, first, windows] {
            segments.append(&n.to_le_bytes(), &mut self.dir)?;
        }
        Ok(true)
    }

    fn width(&self) -> usize {
        if self.options.unit == SubstringUnit::Bytes { 1 } else { 8 }
    }

    fn read_units(&self, start: u64, count: usize, units: &mut Vec<u8>) -> Result<()> {
        units.resize(count * self.width(), 0);
        self.units.read(start * self.width() as u64, units)
    }
}

/// Calls `alive` once in many calls; `calls` counts them.
fn ask(calls: &mut u32, alive: &mut impl FnMut() -> curate_core::Result<()>) -> curate_core::Result<()> {
    *calls = calls.wrapping_add(1);
    if calls.is_multiple_of(1 << 16) { alive() } else { Ok(()) }
}

fn unit_at(units: &[u8], width: usize, i: usize) -> u64 {
    match width {
        1 => u64::from(units[i]),
        _ => u64::from_le_bytes(units[8 * i..8 * i + 8].try_into().expect("8 bytes")),
    }
}

impl Gate for RepeatFinder {
    type Work = RepeatWork;

    fn admit(&mut self, doc: &mut Document<'_>, work: RepeatWork) -> curate_core::Result<Verdict> {
        self.remember(doc, &work)?;
        Ok(Verdict::Keep)
    }
}

/// The repeats of all documents.
#[derive(Debug)]
pub struct Repeats {
    pub(super) options: SubstringOptions,
    places: AppendStore,
    documents: AppendStore,
    ids: AppendStore,
    segments: AppendStore,
    /// The digest of the documents of the first pass.
    pub(super) seen: u64,
    pub(super) summary: SubstringSummary,
    _dir: SpillDir,
}

impl Repeats {
    /// Segment number `i`, if there is one: its first unit, that of its first copy, and how many windows it has.
    pub(super) fn segment(&self, i: u64) -> Result<Option<[u64; 3]>> {
        let mut n = [[0; 8]; 3];
        if 24 * i >= self.segments.len() {
            return Ok(None);
        }
        self.segments.read(24 * i, n.as_flattened_mut())?;
        Ok(Some(n.map(u64::from_le_bytes)))
    }

    /// The first unit of a document; of one past the last, the number of all units.
    pub(super) fn start(&self, document: u64) -> Result<u64> {
        Ok(self.entry(document)?[0])
    }

    fn entry(&self, document: u64) -> Result<[u64; 2]> {
        let mut n = [[0; 8]; 2];
        self.documents.read(16 * document, n.as_flattened_mut())?;
        Ok(n.map(u64::from_le_bytes))
    }

    /// The id of the document that has this unit, and the byte there at which the unit starts.
    pub(super) fn place(&self, unit: u64) -> Result<(String, u64)> {
        let (mut low, mut high) = (0, self.summary.documents);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.start(middle)? <= unit {
                true => low = middle,
                false => high = middle,
            }
        }
        let [start, id_start] = self.entry(low)?;
        let mut id = vec![0; (self.entry(low + 1)?[1] - id_start) as usize];
        self.ids.read(id_start, &mut id)?;
        let id = String::from_utf8_lossy(&id).into_owned();
        if self.options.unit == SubstringUnit::Bytes {
            return Ok((id, unit - start));
        }
        let mut place = [0; 4];
        self.places.read(4 * unit, &mut place)?;
        Ok((id, u64::from(u32::from_le_bytes(place))))
    }
}
