//! Connected components: everything that shares a band, directly or through others, is one cluster.
//!
//! No pair is compared, so a cluster may hold documents that are not alike, and what is removed has no proof beyond
//! the shared band. It is what most tools do; here it serves to reproduce them, and to see what verification
//! changes.
//!
//! Two phases: [`Components::add`] each document in input order, then [`Components::partition`].
//!
//! # datatrove's order
//!
//! datatrove keeps the root of a union by size, so what it keeps depends on the order of its unions: by band, then by
//! the minima of the band as numbers, then by document, where each document is joined with the one before it. For
//! [`Representative::UnionBySize`] the signatures are therefore needed too; of each set of documents with an equal
//! band, one is read back.

use crate::banding::Banding;
use crate::error::Result;
use crate::external::{Cursor, Sorted, Sorter};
use crate::options::{Place, Storage};
use crate::spill::{AppendStore, SpillDir};

/// Which document of a component stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Representative {
    /// The first of the input.
    First,
    /// The root of datatrove's union by size: the same document as `MinhashDedupFilter` lets through, if its files
    /// were read in the order of their names.
    UnionBySize,
}

/// The documents by their band keys, to be joined when all are known.
///
/// Memory: that of its [`Storage`], beyond which go files of 16 bytes for each document and band; or of 32, and 8 for each
/// minimum, with [`Representative::UnionBySize`]. [`Components::partition`] adds 8 bytes a document, and 16 for each of the
/// largest set of documents that share the first minimum of a band.
#[derive(Debug)]
pub struct Components {
    banding: Banding,
    entries: Entries,
    documents: u32,
    dir: SpillDir,
}

/// The documents of each bucket.
#[derive(Debug)]
enum Entries {
    /// Key, then band and document: the order of buckets is nothing to [`Representative::First`].
    First(Sorter<2>),
    /// Band, first minimum, key, document. The signatures stand side by side, as many zeros for a document without one.
    UnionBySize(Sorter<4>, Box<AppendStore>),
}

impl Components {
    /// Components whose document of this kind stays. Files go below the directory of `storage`, which cannot be an index.
    ///
    /// # Errors
    /// An index: components can change with every document, so nothing can be said before the last one.
    pub fn new(banding: Banding, representative: Representative, storage: &Storage) -> Result<Self> {
        let Place::TemporaryIn(parent) = &storage.place else { return Err(crate::Error::IndexOfAll) };
        let memory = usize::try_from(storage.memory).unwrap_or(usize::MAX);
        let entries = match representative {
            Representative::First => Entries::First(Sorter::new("bands", memory / 2)),
            Representative::UnionBySize => Entries::UnionBySize(
                Sorter::new("bands", memory / 2),
                Box::new(AppendStore::new("signatures.bin", memory / 4)),
            ),
        };
        Ok(Self { banding, entries, documents: 0, dir: SpillDir::temporary_below(parent.clone()) })
    }

    pub fn representative(&self) -> Representative {
        match self.entries {
            Entries::First(_) => Representative::First,
            Entries::UnionBySize(..) => Representative::UnionBySize,
        }
    }

    /// Adds the next document. No keys at all mean a document without a signature, which joins nothing. The
    /// signature is used by [`Representative::UnionBySize`] alone, and may be empty for the other.
    ///
    /// Fails only when a file cannot be written.
    ///
    /// # Panics
    ///
    /// If the keys or a needed signature were made with another banding, or after 2^32 - 1 documents.
    pub fn add(&mut self, band_keys: &[u64], signature: &[u64]) -> Result<()> {
        let doc = u64::from(self.documents);
        self.documents = self.documents.checked_add(1).expect("a component holds at most 2^32 - 1 documents");
        let Self { banding, entries, dir, .. } = self;
        if !band_keys.is_empty() {
            assert_eq!(band_keys.len(), banding.bands as usize, "the keys have another banding");
        }
        let keys = (0u64..).zip(band_keys);
        match entries {
            Entries::First(sorter) => {
                keys.into_iter().try_for_each(|(band, &key)| sorter.push([key, band << 32 | doc], dir))
            }
            Entries::UnionBySize(sorter, signatures) => {
                let mut bytes = vec![0; banding.num_perm() * 8];
                if !band_keys.is_empty() {
                    assert_eq!(signature.len(), banding.num_perm(), "the signature has another banding");
                    let minima = bytes.as_chunks_mut::<8>().0.iter_mut().zip(signature);
                    minima.for_each(|(bytes, minimum)| *bytes = minimum.to_le_bytes());
                }
                signatures.append(&bytes, dir)?;
                keys.into_iter().try_for_each(|(band, &key)| {
                    sorter.push([band, signature[band as usize * banding.rows as usize], key, doc], dir)
                })
            }
        }
    }

    /// Bytes in memory.
    pub fn memory(&self) -> u64 {
        match &self.entries {
            Entries::First(sorter) => sorter.memory(),
            Entries::UnionBySize(sorter, signatures) => sorter.memory() + signatures.memory(),
        }
    }

    /// Bytes in files.
    pub fn disk(&self) -> u64 {
        match &self.entries {
            Entries::First(sorter) => sorter.disk(),
            Entries::UnionBySize(sorter, signatures) => sorter.disk() + signatures.disk(),
        }
    }

    /// Joins what shares a band. Fails only when a file cannot be written or read.
    pub fn partition(self) -> Result<Partition> {
        let Self { banding, entries, documents, mut dir } = self;
        let mut forest = Forest::new(documents);
        match entries {
            Entries::First(sorter) => {
                let sorted = sorter.finish(&mut dir)?;
                let mut before: Option<[u64; 2]> = None;
                let mut cursor = sorted.start()?;
                while let Some(entry) = cursor.next(&sorted)? {
                    if let Some(before) = before
                        && (before[0], before[1] >> 32) == (entry[0], entry[1] >> 32)
                    {
                        forest.join(before[1] as u32, entry[1] as u32);
                    }
                    before = Some(entry);
                }
                Ok(forest.partition(true))
            }
            Entries::UnionBySize(sorter, signatures) => {
                let sorted = sorter.finish(&mut dir)?;
                let mut groups = Groups { cursor: sorted.start()?, sorted: &sorted, next: None };
                let mut group = Vec::new();
                while groups.read(&mut group)? {
                    join_in_datatroves_order(&group, &signatures, banding, &mut forest)?;
                }
                Ok(forest.partition(false))
            }
        }
    }
}

/// Sorted entries by band and first minimum.
struct Groups<'s> {
    sorted: &'s Sorted<4>,
    cursor: Cursor<4>,
    /// The first entry of the next group.
    next: Option<[u64; 4]>,
}

impl Groups<'_> {
    /// Reads the next group in place of the one in `group`; false at the end.
    fn read(&mut self, group: &mut Vec<[u64; 4]>) -> Result<bool> {
        group.clear();
        group.extend(self.next.take());
        while let Some(entry) = self.cursor.next(self.sorted)? {
            if group.first().is_some_and(|first| first[..2] != entry[..2]) {
                self.next = Some(entry);
                return Ok(true);
            }
            group.push(entry);
        }
        Ok(!group.is_empty())
    }
}

/// Joins the buckets of a group, which agree in band and first minimum, in the order of all their minima.
fn join_in_datatroves_order(
    group: &[[u64; 4]],
    signatures: &AppendStore,
    banding: Banding,
    forest: &mut Forest,
) -> Result<()> {
    let buckets = group.chunk_by(|a, b| a[2] == b[2]).filter(|bucket| bucket.len() > 1);
    let mut ordered: Vec<(Vec<u64>, &[[u64; 4]])> = buckets.map(|bucket| (Vec::new(), bucket)).collect();
    if ordered.len() > 1 {
        for (rows, bucket) in &mut ordered {
            let [band, _, _, doc] = bucket[0];
            let mut bytes = vec![0; banding.rows as usize * 8];
            let first = doc * banding.num_perm() as u64 + band * u64::from(banding.rows);
            signatures.read(first * 8, &mut bytes)?;
            rows.extend(bytes.as_chunks::<8>().0.iter().map(|minimum| u64::from_le_bytes(*minimum)));
        }
        ordered.sort_unstable();
    }
    for pair in ordered.iter().flat_map(|(_, bucket)| bucket.windows(2)) {
        forest.join(pair[0][3] as u32, pair[1][3] as u32);
    }
    Ok(())
}

/// Who stands for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Of each document by number: the document of its component that stays, itself if it is alone.
    pub representatives: Vec<u32>,
}

impl Partition {
    /// Lets the document of each component stay that comes first when documents are ordered by `rank`, then by number.
    pub fn keep_lowest(&mut self, rank: impl Fn(u32) -> Result<u64>) -> Result<()> {
        let mut best: Vec<(u64, u32)> = vec![(u64::MAX, u32::MAX); self.representatives.len()];
        for (doc, &root) in (0u32..).zip(&self.representatives) {
            let best = &mut best[root as usize];
            *best = (*best).min((rank(doc)?, doc));
        }
        self.representatives.iter_mut().for_each(|root| *root = best[*root as usize].1);
        Ok(())
    }

    pub fn is_kept(&self, doc: u32) -> bool {
        self.representatives[doc as usize] == doc
    }

    /// Documents that stay.
    pub fn kept(&self) -> u64 {
        self.representatives.iter().zip(0..).filter(|&(&kept, doc)| kept == doc).count() as u64
    }
}

/// Trees of documents, joined by size.
struct Forest {
    parents: Vec<u32>,
    /// Of roots.
    sizes: Vec<u32>,
}

impl Forest {
    fn new(documents: u32) -> Self {
        Self { parents: (0..documents).collect(), sizes: vec![1; documents as usize] }
    }

    fn root(&mut self, doc: u32) -> u32 {
        let mut root = doc;
        while self.parents[root as usize] != root {
            root = self.parents[root as usize];
        }
        let mut at = doc;
        while at != root {
            at = std::mem::replace(&mut self.parents[at as usize], root);
        }
        root
    }

    fn join(&mut self, a: u32, b: u32) {
        let (mut a, mut b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        // Of equals the earlier operand stays root.
        if self.sizes[a as usize] < self.sizes[b as usize] {
            std::mem::swap(&mut a, &mut b);
        }
        self.parents[b as usize] = a;
        self.sizes[a as usize] += self.sizes[b as usize];
    }

    fn partition(mut self, first: bool) -> Partition {
        const NONE: u32 = u32::MAX;
        let documents = self.parents.len() as u32;
        let roots: Vec<u32> = (0..documents).map(|doc| self.root(doc)).collect();
        if !first {
            return Partition { representatives: roots };
        }
        let mut firsts = self.sizes;
        firsts.fill(NONE);
        let first_of = |(root, doc): (u32, u32)| {
            let first = &mut firsts[root as usize];
            if *first == NONE {
                *first = doc;
            }
            *first
        };
        Partition { representatives: roots.into_iter().zip(0..documents).map(first_of).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::datatrove::{DatatroveBuffers, DatatroveHasher};

    fn banding(bands: u32, rows: u32) -> Banding {
        Banding::new(bands, rows).unwrap()
    }

    fn storage(memory: u64) -> Storage {
        Storage { memory, place: Place::TemporaryIn(std::env::temp_dir()) }
    }

    fn representatives(bands: u32, documents: &[&[u64]]) -> Vec<u32> {
        let mut components = Components::new(banding(bands, 1), Representative::First, &storage(0)).unwrap();
        for keys in documents {
            components.add(keys, &[]).unwrap();
        }
        components.partition().unwrap().representatives
    }

    #[test]
    fn neighbours_of_neighbours_are_joined() {
        assert!(representatives(2, &[]).is_empty());
        assert_eq!(representatives(2, &[&[1, 2], &[3, 4], &[1, 5]]), [0, 1, 0]);
        assert_eq!(representatives(2, &[&[1, 2], &[3, 4], &[1, 4]]), [0, 0, 0]);
        // An equal key in another band is nothing.
        assert_eq!(representatives(2, &[&[1, 2], &[2, 1]]), [0, 1]);
        assert_eq!(representatives(2, &[&[], &[1, 2], &[], &[3, 2]]), [0, 1, 2, 1]);
    }

    #[test]
    #[should_panic(expected = "another banding")]
    fn foreign_keys_are_refused() {
        representatives(2, &[&[1]]);
    }

    /// What datatrove 0.10.1 keeps of the goldens, and which documents it joins.
    #[test]
    fn goldens_of_the_package() {
        let goldens = include_str!("../goldens/datatrove.jsonl");
        let hasher = DatatroveHasher::new(banding(14, 8), 5, 1).unwrap();
        for memory in [0, 64 << 20] {
            let by_size = Representative::UnionBySize;
            let mut components = Components::new(hasher.banding(), by_size, &storage(memory)).unwrap();
            let (mut buffers, mut keys) = (DatatroveBuffers::default(), Vec::new());
            let mut expected = Vec::new();
            for line in goldens.lines() {
                let golden: serde_json::Value = serde_json::from_str(line).unwrap();
                expected.push(golden["representative"].as_u64().unwrap() as u32);
                keys.clear();
                let text = golden["text"].as_str().unwrap();
                let signature = hasher.signature(text, &mut buffers).unwrap_or_default();
                if !signature.is_empty() {
                    hasher.band_keys(signature, &mut keys);
                }
                components.add(&keys, signature).unwrap();
            }
            assert!(components.memory() > 0);
            let partition = components.partition().unwrap();
            assert_eq!(partition.representatives, expected);
            assert!(partition.kept() < expected.len() as u64);
            assert!((0..).zip(&expected).all(|(doc, &kept)| partition.is_kept(doc) == (doc == kept)));
        }
    }

    /// As datatrove has it: sorted records, adjacent equals, union by size over a map.
    fn model(signatures: &[Option<Vec<u64>>], bands: usize, rows: usize) -> Vec<u32> {
        let mut parents: BTreeMap<u32, u32> = (0..signatures.len() as u32).map(|d| (d, d)).collect();
        let mut sizes: BTreeMap<u32, u32> = BTreeMap::new();
        let root = |parents: &BTreeMap<u32, u32>, mut doc: u32| {
            while parents[&doc] != doc {
                doc = parents[&doc];
            }
            doc
        };
        for band in 0..bands {
            let mut records: Vec<(&[u64], u32)> = signatures
                .iter()
                .zip(0..)
                .filter_map(|(s, doc)| Some((&s.as_ref()?[band * rows..(band + 1) * rows], doc)))
                .collect();
            records.sort();
            for pair in records.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                let (mut a, mut b) = (root(&parents, pair[0].1), root(&parents, pair[1].1));
                let size = |doc| sizes.get(&doc).copied().unwrap_or(1);
                let (of_a, of_b) = (size(a), size(b));
                if a != b {
                    if of_a < of_b {
                        std::mem::swap(&mut a, &mut b);
                    }
                    parents.insert(b, a);
                    sizes.insert(a, of_a + of_b);
                }
            }
        }
        (0..signatures.len() as u32).map(|doc| root(&parents, doc)).collect()
    }

    proptest! {
        #[test]
        fn partitions_are_those_of_the_model(
            documents in prop::collection::vec(prop::option::weighted(0.9, prop::collection::vec(0u64..6, 6)), 0..60),
        ) {
            let (bands, rows) = (3, 2);
            let hasher = DatatroveHasher::new(banding(bands, rows), 5, 1).unwrap();
            let expected = model(&documents, bands as usize, rows as usize);
            let make = |which| Components::new(hasher.banding(), which, &storage(0)).unwrap();
            let (mut first, mut keys) = (make(Representative::First), Vec::new());
            let mut by_size = make(Representative::UnionBySize);
            for signature in &documents {
                keys.clear();
                if let Some(signature) = signature {
                    hasher.band_keys(signature, &mut keys);
                }
                first.add(&keys, &[]).unwrap();
                by_size.add(&keys, signature.as_deref().unwrap_or_default()).unwrap();
            }
            prop_assert_eq!(by_size.representative(), Representative::UnionBySize);
            prop_assert_eq!(first.representative(), Representative::First);
            let (first, by_size) = (first.partition().unwrap(), by_size.partition().unwrap());
            prop_assert_eq!(&by_size.representatives, &expected);
            prop_assert_eq!(first.kept(), by_size.kept());
            // The same components, the first of each.
            let mut members: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
            for (doc, &root) in (0..).zip(&expected) {
                members.entry(root).or_default().insert(doc);
            }
            for (doc, root) in (0usize..).zip(&expected) {
                prop_assert_eq!(first.representatives[doc], *members[root].first().unwrap());
            }
        }
    }
}
