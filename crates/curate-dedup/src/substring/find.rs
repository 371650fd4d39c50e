//! The first pass: where the repeated windows are, and where their first copies.

use curate_core::{Counters, Document, Gate, Mapper, Verdict, Work};

use super::anchors::{Anchor, Anchors};
use super::sorter::Sorter;
use super::windows::{KEY_BITS, WindowHash};
use super::{Copies, SubstringOptions, SubstringSummary, SubstringUnit};
use crate::error::{Error, Result};
use crate::options::{Place, Storage};
use crate::spill::{AppendStore, SpillDir};
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
    anchors: Sorter,
    dir: SpillDir,
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
            summary: SubstringSummary::default(),
            buffer: Vec::new(),
            key_mask: |_| u128::MAX,
        })
    }

    fn remember(&mut self, doc: &Document<'_>, work: &RepeatWork) -> Result<()> {
        if u32::try_from(doc.text_len()).is_err() {
            return Err(Error::TextTooLong { id: doc.id().to_owned(), bytes: doc.text_len() as u64 });
        }
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
            self.anchors.push(u128::from(anchor.key) << 64 | u128::from(range), &mut self.dir)?;
        }
        Ok(())
    }

    fn document_entry(&mut self, start: u64, id: &str) -> Result<()> {
        let at = self.ids.append(id.as_bytes(), &mut self.dir)?;
        self.documents.append(&start.to_le_bytes(), &mut self.dir)?;
        self.documents.append(&at.to_le_bytes(), &mut self.dir)?;
        Ok(())
    }

    /// Finds the repeats, after the last document.
    ///
    /// # Errors
    /// Files that cannot be written or read, or eight bad hash functions in a row.
    pub fn finish(mut self) -> Result<Repeats> {
        self.document_entry(self.summary.units, "")?;
        self.summary.anchors = self.anchors.len();
        let hot = self.shared_anchors()?;
        for attempt in 0..ATTEMPTS {
            let mut segments = AppendStore::new("segments", self.memory / 32);
            if self.segments(&hot, attempt, &mut segments)? {
                hot.remove()?;
                let Self { options, units, places, documents, ids, dir, mut summary, .. } = self;
                let stores = [&units, &places, &documents, &ids, &segments];
                summary.disk_bytes += stores.iter().map(|store| store.disk()).sum::<u64>();
                summary.memory_bytes += stores.iter().map(|store| store.memory()).sum::<u64>();
                return Ok(Repeats { options, places, documents, ids, segments, summary, _dir: dir });
            }
            self.summary.collisions += 1;
        }
        Err(Error::Collisions { attempts: ATTEMPTS })
    }

    /// The windows whose anchors are not alone, by position.
    fn shared_anchors(&mut self) -> Result<Sorter> {
        let mut anchors = std::mem::replace(&mut self.anchors, Sorter::new("anchors", 0));
        anchors.finish(&mut self.dir)?;
        let mut hot = Sorter::new("shared", self.memory / 5);
        let (mut before, mut pushed) = (None::<u128>, false);
        for entry in anchors.iter()? {
            let entry = entry?;
            let same = before.filter(|before| before >> 64 == entry >> 64);
            if let (Some(first), false) = (same, pushed) {
                hot.push(first & u128::from(u64::MAX), &mut self.dir)?;
            }
            pushed = same.is_some();
            if pushed {
                hot.push(entry & u128::from(u64::MAX), &mut self.dir)?;
            }
            before = Some(entry);
        }
        self.note(&[&anchors, &hot]);
        anchors.remove()?;
        hot.finish(&mut self.dir)?;
        Ok(hot)
    }

    fn note(&mut self, sorters: &[&Sorter]) {
        let disk = sorters.iter().map(|sorter| sorter.disk()).sum();
        let memory = sorters.iter().map(|sorter| sorter.memory()).sum();
        self.summary.disk_bytes = self.summary.disk_bytes.max(disk);
        self.summary.memory_bytes = self.summary.memory_bytes.max(memory);
    }

    /// Writes the segments; `false` if a hash function took different windows for equal ones.
    fn segments(&mut self, hot: &Sorter, attempt: u32, segments: &mut AppendStore) -> Result<bool> {
        let length = self.options.length;
        let hash = WindowHash::new(length, u64::from(attempt));
        let mask = (self.key_mask)(attempt);
        let mut windows = Sorter::new("windows", self.memory / 5);
        for range in hot.iter()? {
            let range = range?;
            let (start, count) =
                ((range >> COUNT_BITS) as u64, (range & ((1 << COUNT_BITS) - 1)) as usize + length - 1);
            let units = self.read_units(start, count)?;
            let width = self.width();
            let mut at = start;
            let Self { dir, .. } = self;
            hash.keys(
                length,
                count,
                |i| unit_at(&units, width, i),
                |key| {
                    windows.push((key & mask) << POSITION_BITS | u128::from(at), dir)?;
                    at += 1;
                    Ok(())
                },
            )?;
        }
        windows.finish(&mut self.dir)?;
        self.summary.windows = windows.len();
        let mut repeats = Sorter::new("repeats", self.memory / 5);
        let position = |entry: u128| (entry & u128::from(MAX_UNITS - 1)) as u64;
        let mut group: Option<(u128, u64, bool)> = None;
        for entry in windows.iter()? {
            let entry = entry?;
            let (key, at) = (entry >> POSITION_BITS, position(entry));
            match &mut group {
                Some((same, first, alone)) if *same == key => {
                    let all = self.options.copies == Copies::None;
                    if all && std::mem::take(alone) {
                        repeats.push(u128::from(*first) << 64 | u128::from(at), &mut self.dir)?;
                    }
                    if all || *first + length as u64 <= at {
                        repeats.push(u128::from(at) << 64 | u128::from(*first), &mut self.dir)?;
                    }
                }
                _ => group = Some((key, at, true)),
            }
        }
        self.note(&[hot, &windows, &repeats]);
        windows.remove()?;
        repeats.finish(&mut self.dir)?;
        let mut open: Option<[u64; 3]> = None;
        for repeat in repeats.iter()? {
            let repeat = repeat?;
            let (at, first) = ((repeat >> 64) as u64, repeat as u64);
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

    /// Compares a segment with its first copy; writes it if they are equal.
    fn write_segment(&mut self, [at, first, windows]: [u64; 3], segments: &mut AppendStore) -> Result<bool> {
        let mut left = windows + self.options.length as u64 - 1;
        let (mut a, mut b) = (at, first);
        while left > 0 {
            let count = left.min(8192);
            if self.read_units(a, count as usize)? != self.read_units(b, count as usize)? {
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

    fn read_units(&self, start: u64, count: usize) -> Result<Vec<u8>> {
        let mut units = vec![0; count * self.width()];
        self.units.read(start * self.width() as u64, &mut units)?;
        Ok(units)
    }
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
        self.remember(doc, &work).map_err(curate_core::Error::other)?;
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
