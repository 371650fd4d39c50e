//! What is remembered of kept documents, by number: their content keys, ids and shingle sets.

use crate::error::Result;
use crate::spill::{AppendStore, SpillDir};
use crate::table::DocNumber;

/// A record for each kept document, and what the records point to.
#[derive(Debug)]
pub(crate) struct Kept {
    records: AppendStore,
    ids: AppendStore,
    sets: AppendStore,
    count: u32,
    /// A buffer.
    bytes: Vec<u8>,
}

/// Bytes of memory for each part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeptBudget {
    pub(crate) records: usize,
    pub(crate) ids: usize,
    pub(crate) sets: usize,
}

/// Bytes of the record of a document: content key (16), place (8) and number (4) of its shingles, place (8) and length
/// (4) of its id; little-endian.
pub(crate) const RECORD: usize = 40;

struct Record {
    key: u128,
    set_at: u64,
    shingles: u32,
    id_at: u64,
    id_len: u32,
}

impl Kept {
    pub(crate) fn new(budget: KeptBudget) -> Self {
        Self::of(
            AppendStore::new(RECORDS, budget.records),
            AppendStore::new(IDS, budget.ids),
            AppendStore::new(SETS, budget.sets),
        )
    }

    /// The stores of an index.
    pub(crate) fn of(records: AppendStore, ids: AppendStore, sets: AppendStore) -> Self {
        let count = (records.len() / RECORD as u64) as u32;
        Self { records, ids, sets, count, bytes: Vec::new() }
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// Adds a document and returns its number.
    pub(crate) fn push(
        &mut self,
        key: u128,
        id: &str,
        shingles: &[u64],
        dir: &mut SpillDir,
    ) -> Result<DocNumber> {
        let id_at = self.ids.append(id.as_bytes(), dir)?;
        self.bytes.clear();
        self.bytes.extend(shingles.iter().flat_map(|shingle| shingle.to_le_bytes()));
        let set_at = self.sets.append(&self.bytes, dir)?;
        let mut record = [0; RECORD];
        record[..16].copy_from_slice(&key.to_le_bytes());
        record[16..24].copy_from_slice(&set_at.to_le_bytes());
        record[24..28].copy_from_slice(&(shingles.len() as u32).to_le_bytes());
        record[28..36].copy_from_slice(&id_at.to_le_bytes());
        record[36..].copy_from_slice(&(id.len() as u32).to_le_bytes());
        self.records.append(&record, dir)?;
        self.count += 1;
        Ok(self.count - 1)
    }

    pub(crate) fn key(&self, doc: DocNumber) -> Result<u128> {
        Ok(self.record(doc)?.key)
    }

    pub(crate) fn id(&self, doc: DocNumber) -> Result<String> {
        let Record { id_at, id_len, .. } = self.record(doc)?;
        let mut id = vec![0; id_len as usize];
        self.ids.read(id_at, &mut id)?;
        Ok(String::from_utf8_lossy(&id).into_owned())
    }

    /// Reads the shingles of a document into `set`, in place of what it held, if their number will do.
    pub(crate) fn shingles(
        &mut self,
        doc: DocNumber,
        set: &mut Vec<u64>,
        will_do: impl Fn(usize) -> bool,
    ) -> Result<bool> {
        let Record { set_at, shingles, .. } = self.record(doc)?;
        if !will_do(shingles as usize) {
            return Ok(false);
        }
        self.bytes.resize(shingles as usize * 8, 0);
        self.sets.read(set_at, &mut self.bytes)?;
        let (words, _) = self.bytes.as_chunks::<8>();
        set.clear();
        set.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
        Ok(true)
    }

    fn record(&self, doc: DocNumber) -> Result<Record> {
        let mut bytes = [0; RECORD];
        self.records.read(u64::from(doc) * RECORD as u64, &mut bytes)?;
        let part = |from: usize, to: usize| {
            let mut whole = [0; 16];
            whole[..to - from].copy_from_slice(&bytes[from..to]);
            u128::from_le_bytes(whole)
        };
        Ok(Record {
            key: part(0, 16),
            set_at: part(16, 24) as u64,
            shingles: part(24, 28) as u32,
            id_at: part(28, 36) as u64,
            id_len: part(36, 40) as u32,
        })
    }

    pub(crate) fn sync(&mut self, dir: &mut SpillDir) -> Result<()> {
        self.stores_mut().into_iter().try_for_each(|store| store.sync(dir))
    }

    /// The stores: records, ids, shingle sets.
    pub(crate) fn stores(&self) -> [&AppendStore; 3] {
        [&self.records, &self.ids, &self.sets]
    }

    pub(crate) fn stores_mut(&mut self) -> [&mut AppendStore; 3] {
        [&mut self.records, &mut self.ids, &mut self.sets]
    }
}

/// File names.
pub(crate) const RECORDS: &str = "documents.bin";
pub(crate) const IDS: &str = "ids.bin";
pub(crate) const SETS: &str = "shingles.bin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back() {
        let parent = tempfile::tempdir().unwrap();
        for budget in [0, usize::MAX] {
            let mut dir = SpillDir::temporary_below(parent.path().to_owned());
            let mut kept = Kept::new(KeptBudget { records: budget, ids: budget, sets: budget });
            let set =
                |doc: u32| (0..u64::from(doc % 91)).map(|i| i << 40 | u64::from(doc)).collect::<Vec<_>>();
            for doc in 0..9000 {
                let id = format!("漢{}", "x".repeat(doc as usize % 50));
                assert_eq!(kept.push(u128::from(doc) << 99, &id, &set(doc), &mut dir).unwrap(), doc);
            }
            let mut read = Vec::new();
            for doc in 0..9000 {
                assert!(kept.shingles(doc, &mut read, |len| len == set(doc).len()).unwrap());
                assert_eq!(read, set(doc));
                assert!(!kept.shingles(doc, &mut read, |_| false).unwrap());
                assert_eq!(kept.key(doc).unwrap(), u128::from(doc) << 99);
                assert_eq!(kept.id(doc).unwrap().len(), 3 + doc as usize % 50);
            }
        }
    }
}
