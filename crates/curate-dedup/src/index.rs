//! Who shares a band with this document? One hash table per band, in memory.
//!
//! A table is open addressing over slots of 12 bytes: the 64-bit key and the one document in its bucket, or the
//! head of a chain of links for the few buckets with more. Keys are hashes already, so they are not hashed again.
//! At most three slots of four are taken: 16 to 32 bytes for each kept document and band, 12 more for each
//! document that does not have its bucket to itself (and 12 for the first that has to share).

/// The number of a kept document: how many were kept before it.
pub(crate) type DocNumber = u32;

/// Document numbers stay below this, so that a slot has one bit to tell a chain from a document.
pub(crate) const MAX_DOCS: u32 = CHAIN - 1;

/// The band tables of all kept documents.
#[derive(Debug)]
pub(crate) struct BandIndex {
    bands: Vec<Buckets>,
    /// How many documents a bucket shows: the first so many that came.
    max_members: u32,
}

impl BandIndex {
    pub(crate) fn new(bands: usize, max_members: u32) -> Self {
        Self { bands: (0..bands).map(|_| Buckets::default()).collect(), max_members }
    }

    /// Appends the documents of every bucket that `keys` name, one entry for each band in common. Returns how many
    /// entries the limit has hidden.
    pub(crate) fn lookup(&self, keys: &[u64], found: &mut Vec<DocNumber>) -> u64 {
        self.bands.iter().zip(keys).map(|(buckets, &key)| u64::from(buckets.lookup(key, found))).sum()
    }

    /// Enters a document into its bucket of every band.
    pub(crate) fn insert(&mut self, keys: &[u64], doc: DocNumber) {
        for (buckets, &key) in self.bands.iter_mut().zip(keys) {
            buckets.insert(key, doc, self.max_members);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bands.iter().map(Buckets::bytes).sum()
    }
}

/// From 64-bit keys to the documents that were entered under them.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    /// A power of two of them, or none.
    slots: Vec<Slot>,
    taken: usize,
    links: Vec<Link>,
}

/// A key in halves, so that a slot is 12 bytes and not 16.
#[derive(Debug, Clone, Copy)]
struct Slot {
    key: [u32; 2],
    /// [`EMPTY`]; or a document; or [`CHAIN`] plus the number of the bucket's last link.
    head: u32,
}

/// A document of a bucket that several share.
#[derive(Debug, Clone, Copy)]
struct Link {
    doc: DocNumber,
    /// The link entered before this one, or [`EMPTY`].
    earlier: u32,
    /// Documents entered under the key up to this one; in the last link, also those that the limit kept out.
    members: u32,
}

const EMPTY: u32 = u32::MAX;
const CHAIN: u32 = 1 << 31;

impl Buckets {
    /// Appends the documents under `key`, the last first. Returns how many were kept out by the limit.
    pub(crate) fn lookup(&self, key: u64, found: &mut Vec<DocNumber>) -> u32 {
        if self.slots.is_empty() {
            return 0;
        }
        let head = self.slots[self.place(key)].head;
        if head == EMPTY {
            return 0;
        }
        if head & CHAIN == 0 {
            found.push(head);
            return 0;
        }
        let before = found.len();
        let mut at = head & !CHAIN;
        let members = self.links[at as usize].members;
        while at != EMPTY {
            let link = self.links[at as usize];
            found.push(link.doc);
            at = link.earlier;
        }
        members - (found.len() - before) as u32
    }

    /// Enters a document; beyond `max_members` (at least 1) it is counted and not entered.
    pub(crate) fn insert(&mut self, key: u64, doc: DocNumber, max_members: u32) {
        if self.taken >= self.slots.len() / 4 * 3 {
            self.grow();
        }
        let place = self.place(key);
        let head = self.slots[place].head;
        if head == EMPTY {
            self.slots[place] = Slot { key: halves(key), head: doc };
            self.taken += 1;
            return;
        }
        if head & CHAIN == 0 {
            self.slots[place].head = self.link(Link { doc: head, earlier: EMPTY, members: 1 });
        }
        let last = self.slots[place].head & !CHAIN;
        let members = self.links[last as usize].members.saturating_add(1);
        if members > max_members {
            self.links[last as usize].members = members;
        } else {
            self.slots[place].head = self.link(Link { doc, earlier: last, members });
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.slots.capacity() * size_of::<Slot>() + self.links.capacity() * size_of::<Link>()) as u64
    }

    /// Appends a link and returns the head that leads to it.
    fn link(&mut self, link: Link) -> u32 {
        let number = self.links.len() as u32;
        assert!(
            number < CHAIN - 1,
            "a bucket table holds fewer links than documents, which are fewer than 2^31"
        );
        self.links.push(link);
        CHAIN | number
    }

    /// The slot that holds `key`, or the empty one where it belongs.
    fn place(&self, key: u64) -> usize {
        let last = self.slots.len() - 1;
        let mut place = key as usize & last;
        while self.slots[place].head != EMPTY && self.slots[place].key != halves(key) {
            place = (place + 1) & last;
        }
        place
    }

    fn grow(&mut self) {
        let capacity = (self.slots.len() * 2).max(16);
        let old = std::mem::replace(&mut self.slots, vec![Slot { key: [0; 2], head: EMPTY }; capacity]);
        for slot in old.into_iter().filter(|slot| slot.head != EMPTY) {
            let place = self.place(u64::from(slot.key[0]) | u64::from(slot.key[1]) << 32);
            self.slots[place] = slot;
        }
    }
}

fn halves(key: u64) -> [u32; 2] {
    [key as u32, (key >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_limit_shows_the_first_and_counts_the_rest() {
        for limit in 1..4 {
            let mut index = BandIndex::new(1, limit);
            for doc in 0..5 {
                index.insert(&[77], doc);
            }
            let mut found = Vec::new();
            let hidden = index.lookup(&[77], &mut found);
            found.sort_unstable();
            assert_eq!(found, (0..limit).collect::<Vec<_>>());
            assert_eq!(hidden, u64::from(5 - limit));
        }
    }

    #[test]
    fn bands_are_told_apart() {
        let mut index = BandIndex::new(2, 10);
        index.insert(&[1, 2], 0);
        let mut found = Vec::new();
        index.lookup(&[2, 1], &mut found);
        assert!(found.is_empty());
        index.lookup(&[1, 2], &mut found);
        assert_eq!(found, [0, 0]);
    }

    #[test]
    fn memory_is_what_the_documentation_says() {
        let mut buckets = Buckets::default();
        let entries = 100_000u32;
        for doc in 0..entries {
            buckets.insert(crate::words::finish(u64::from(doc)), doc, 10);
        }
        let per_entry = buckets.bytes() as f64 / f64::from(entries);
        assert!((16.0..=32.0).contains(&per_entry), "{per_entry}");
    }

    proptest! {
        #[test]
        fn a_table_is_a_map_of_lists(
            // Keys that meet in the low bits, in the high bits, or not at all.
            entries in prop::collection::vec((0u64..40, 0u32..3), 0..400),
            limit in 1u32..12,
        ) {
            let key_of = |(n, kind): (u64, u32)| match kind { 0 => n, 1 => n << 32, _ => n << 56 | 7 };
            let mut model: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
            let mut buckets = Buckets::default();
            for (doc, &entry) in entries.iter().enumerate() {
                model.entry(key_of(entry)).or_default().push(doc as u32);
                buckets.insert(key_of(entry), doc as u32, limit);
            }
            for key in (0..45).flat_map(|n| [key_of((n, 0)), key_of((n, 1)), key_of((n, 2))]) {
                let expected = model.get(&key).map(Vec::as_slice).unwrap_or_default();
                let shown = expected.len().min(limit as usize);
                let mut found = Vec::new();
                let hidden = buckets.lookup(key, &mut found);
                found.sort_unstable();
                prop_assert_eq!(&found, &expected[..shown]);
                prop_assert_eq!(hidden as usize, expected.len() - shown);
            }
        }
    }
}
