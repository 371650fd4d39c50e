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

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use crate::banding::Banding;

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
/// Memory: 12 bytes for each document and band, 8 more for each document; and 8 bytes for each minimum with
/// [`Representative::UnionBySize`], unless a file takes these. [`Components::partition`] adds 8 bytes a document, and
/// those of a band's minima for each set of documents that share it.
#[derive(Debug)]
pub struct Components {
    banding: Banding,
    bands: Vec<Vec<Entry>>,
    documents: u32,
    signatures: Option<Signatures>,
}

/// A document in a bucket. The key is in halves, so that an entry is 12 bytes and not 16.
#[derive(Debug, Clone, Copy)]
struct Entry {
    key: [u32; 2],
    doc: u32,
}

impl Components {
    /// Components whose first document stays.
    pub fn new(banding: Banding) -> Self {
        let bands = vec![Vec::new(); banding.bands as usize];
        Self { banding, bands, documents: 0, signatures: None }
    }

    /// Components as datatrove finds them, with the document that it keeps.
    ///
    /// `spool`, an empty file open for reading and writing, takes the signatures of `8 * bands * rows` bytes a
    /// document; without one they stay in memory.
    pub fn union_by_size(banding: Banding, spool: Option<File>) -> Self {
        let store = match spool {
            Some(file) => Store::File { writer: BufWriter::with_capacity(1 << 16, file) },
            None => Store::Memory(Vec::new()),
        };
        let signatures = Signatures { store, numbers: Vec::new(), count: 0 };
        Self { signatures: Some(signatures), ..Self::new(banding) }
    }

    pub fn representative(&self) -> Representative {
        match self.signatures {
            Some(_) => Representative::UnionBySize,
            None => Representative::First,
        }
    }

    /// Adds the next document. No keys at all mean a document without a signature, which joins nothing. The
    /// signature is used by [`Representative::UnionBySize`] alone, and may be empty for the other.
    ///
    /// Fails only when the spool cannot be written.
    ///
    /// # Panics
    ///
    /// If the keys or a needed signature were made with another banding, or after 2^32 - 1 documents.
    pub fn add(&mut self, band_keys: &[u64], signature: &[u64]) -> io::Result<()> {
        let doc = self.documents;
        self.documents = doc.checked_add(1).expect("a component holds at most 2^32 - 1 documents");
        if !band_keys.is_empty() {
            assert_eq!(band_keys.len(), self.bands.len(), "the keys have another banding");
            for (band, &key) in self.bands.iter_mut().zip(band_keys) {
                band.push(Entry { key: [(key >> 32) as u32, key as u32], doc });
            }
        }
        match &mut self.signatures {
            Some(_) if band_keys.is_empty() => Ok(()),
            Some(signatures) => {
                assert_eq!(signature.len(), self.banding.num_perm(), "the signature has another banding");
                signatures.push(doc, signature)
            }
            None => Ok(()),
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        let entries: usize = self.bands.iter().map(Vec::capacity).sum();
        let signatures = self.signatures.as_ref().map_or(0, Signatures::bytes);
        (entries * size_of::<Entry>()) as u64 + signatures
    }

    /// Joins what shares a band. Fails only when the spool cannot be read.
    pub fn partition(self) -> io::Result<Partition> {
        let Self { banding, bands, documents, signatures } = self;
        let mut signatures = signatures.map(Signatures::finish).transpose()?;
        let mut forest = Forest::new(documents);
        for (band, mut entries) in bands.into_iter().enumerate() {
            entries.sort_unstable_by_key(|entry| (entry.key, entry.doc));
            let buckets = entries.chunk_by(|a, b| a.key == b.key).filter(|bucket| bucket.len() > 1);
            match &mut signatures {
                None => buckets.for_each(|bucket| forest.join(bucket)),
                Some(signatures) => {
                    let mut ordered = Vec::new();
                    for bucket in buckets {
                        let rows = signatures.rows(bucket[0].doc, banding, band)?;
                        ordered.push((rows, bucket));
                    }
                    ordered.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                    ordered.iter().for_each(|(_, bucket)| forest.join(bucket));
                }
            }
        }
        let first = signatures.is_none();
        Ok(forest.partition(first))
    }
}

/// Who stands for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Of each document by number: the document of its component that stays, itself if it is alone.
    pub representatives: Vec<u32>,
}

impl Partition {
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

    /// Joins each document of a bucket with the one before it.
    fn join(&mut self, bucket: &[Entry]) {
        for pair in bucket.windows(2) {
            let (mut a, mut b) = (self.root(pair[0].doc), self.root(pair[1].doc));
            if a == b {
                continue;
            }
            // Of equals the earlier operand stays root.
            if self.sizes[a as usize] < self.sizes[b as usize] {
                std::mem::swap(&mut a, &mut b);
            }
            self.parents[b as usize] = a;
            self.sizes[a as usize] += self.sizes[b as usize];
        }
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

/// The signatures of the documents that have one, one after the other.
#[derive(Debug)]
struct Signatures {
    store: Store,
    /// Of each document by number: which signature is its own.
    numbers: Vec<u32>,
    count: u32,
}

#[derive(Debug)]
enum Store {
    Memory(Vec<u64>),
    File { writer: BufWriter<File> },
}

impl Signatures {
    fn push(&mut self, doc: u32, signature: &[u64]) -> io::Result<()> {
        self.numbers.resize(doc as usize, u32::MAX);
        self.numbers.push(self.count);
        self.count += 1;
        match &mut self.store {
            Store::Memory(minima) => minima.extend_from_slice(signature),
            Store::File { writer } => {
                signature.iter().try_for_each(|minimum| writer.write_all(&minimum.to_le_bytes()))?;
            }
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let minima = match &self.store {
            Store::Memory(minima) => minima.capacity() * size_of::<u64>(),
            Store::File { writer } => writer.capacity(),
        };
        (minima + self.numbers.capacity() * size_of::<u32>()) as u64
    }

    /// Nothing more will be pushed.
    fn finish(mut self) -> io::Result<Self> {
        if let Store::File { writer } = &mut self.store {
            writer.flush()?;
        }
        Ok(self)
    }

    /// The minima of a band of a document.
    fn rows(&mut self, doc: u32, banding: Banding, band: usize) -> io::Result<Box<[u64]>> {
        let rows = banding.rows as usize;
        let start = self.numbers[doc as usize] as usize * banding.num_perm() + band * rows;
        match &mut self.store {
            Store::Memory(minima) => Ok(minima[start..start + rows].into()),
            Store::File { writer } => {
                let file = writer.get_mut();
                file.seek(SeekFrom::Start((start * size_of::<u64>()) as u64))?;
                let mut bytes = vec![0; rows * size_of::<u64>()];
                file.read_exact(&mut bytes)?;
                Ok(bytes.as_chunks::<8>().0.iter().map(|minimum| u64::from_le_bytes(*minimum)).collect())
            }
        }
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

    fn representatives(bands: u32, documents: &[&[u64]]) -> Vec<u32> {
        let mut components = Components::new(banding(bands, 1));
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
        for spool in [None, Some(tempfile::tempfile().unwrap())] {
            let mut components = Components::union_by_size(hasher.banding(), spool);
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
            assert!(components.bytes() > 0);
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
            let (mut first, mut keys) = (Components::new(hasher.banding()), Vec::new());
            let mut by_size = Components::union_by_size(hasher.banding(), None);
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
