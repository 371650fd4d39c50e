//! The seeds: word n-grams of items, found in a text by their hash.
//!
//! A Bloom filter of two bits in one 64-bit word answers nearly always, and with "no"; what passes is looked up in
//! postings sorted by hash. Memory: 8 bytes a seed, 2 to 4 of the filter, 4 of the bucket table.

use super::words::mix;

/// Places kept for one n-gram: text that stands in more items than this is a template of theirs.
const MAX_POSTINGS: usize = 16;

/// The hash of the `n` words of a window, wherever it begins.
#[inline(always)]
pub(crate) fn gram(hashes: impl Iterator<Item = u64>) -> u64 {
    hashes.fold(0, |state, word| state.wrapping_mul(GRAM_FACTOR).wrapping_add(word))
}

/// The odd factor of the rolling polynomial over word hashes.
pub(crate) const GRAM_FACTOR: u64 = 0xd134_2543_de82_ef95;

/// What an n-gram is looked up by.
#[inline(always)]
pub(crate) fn key(gram: u64) -> u64 {
    mix(gram)
}

/// Collects seeds until [`build`](Self::build).
#[derive(Debug, Default)]
pub(crate) struct SeedCollector {
    found: Vec<(u64, u32)>,
}

impl SeedCollector {
    /// Bytes at the peak of building, for each seed.
    pub(crate) const PEAK_BYTES: u64 = 32;

    pub(crate) fn push(&mut self, gram: u64, position: u32) {
        self.found.push((key(gram), position));
    }

    pub(crate) fn build(mut self) -> Seeds {
        self.found.sort_unstable();
        let mut kept = 0;
        for i in 0..self.found.len() {
            let (key, _) = self.found[i];
            if kept < MAX_POSTINGS || self.found[kept - MAX_POSTINGS].0 != key {
                self.found[kept] = self.found[i];
                kept += 1;
            }
        }
        self.found.truncate(kept);
        let bucket_bits = kept.next_power_of_two().trailing_zeros().max(4);
        let mut seeds = Seeds {
            filter: vec![0; (kept / 4).next_power_of_two().max(1)],
            bucket_shift: 64 - bucket_bits,
            buckets: vec![0; (1 << bucket_bits) + 1],
            postings: Vec::with_capacity(kept),
        };
        for &(key, position) in &self.found {
            let (word, mask) = seeds.filter_place(key);
            seeds.filter[word] |= mask;
            seeds.buckets[(key >> seeds.bucket_shift) as usize + 1] += 1;
            seeds.postings.push((key as u32, position));
        }
        for i in 1..seeds.buckets.len() {
            seeds.buckets[i] += seeds.buckets[i - 1];
        }
        seeds
    }
}

/// Seeds by hash.
#[derive(Debug)]
pub(crate) struct Seeds {
    filter: Vec<u64>,
    bucket_shift: u32,
    /// Where the postings of each value of the upper bits of the key begin.
    buckets: Vec<u32>,
    /// The lower half of the key, and the word of the items that the n-gram begins with.
    postings: Vec<(u32, u32)>,
}

impl Seeds {
    #[inline(always)]
    fn filter_place(&self, key: u64) -> (usize, u64) {
        let word = (key >> 12) as usize & (self.filter.len() - 1);
        (word, 1 << (key & 63) | 1 << (key >> 6 & 63))
    }

    /// False for nearly all keys that are not there.
    #[inline(always)]
    pub(crate) fn may_hold(&self, key: u64) -> bool {
        let (word, mask) = self.filter_place(key);
        self.filter[word] & mask == mask
    }

    /// Positions in the items where the n-gram with this key begins; a false one has a chance of about 2^-32.
    pub(crate) fn find(&self, key: u64) -> impl Iterator<Item = u32> {
        let bucket = if self.may_hold(key) { self.bucket(key) } else { &[] };
        let tag = key as u32;
        bucket.iter().filter(move |(low, _)| *low == tag).map(|(_, position)| *position)
    }

    fn bucket(&self, key: u64) -> &[(u32, u32)] {
        let bucket = (key >> self.bucket_shift) as usize;
        &self.postings[self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.postings.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.filter.len() * 8 + self.buckets.len() * 4 + self.postings.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_nothing_else() {
        let mut collector = SeedCollector::default();
        for i in 0..1000_u32 {
            collector.push(u64::from(i % 500) * 7, i);
        }
        let seeds = collector.build();
        for gram in 0..500 {
            assert_eq!(seeds.find(key(gram * 7)).collect::<Vec<_>>(), [gram as u32, gram as u32 + 500]);
            assert_eq!(seeds.find(key(gram * 7 + 1)).count(), 0);
        }
        assert_eq!(SeedCollector::default().build().find(key(0)).count(), 0);
    }

    #[test]
    fn a_template_keeps_its_first_places() {
        let mut collector = SeedCollector::default();
        (0..100).rev().for_each(|i| collector.push(9, i));
        collector.push(8, 5);
        let seeds = collector.build();
        assert_eq!(seeds.find(key(9)).collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
        assert_eq!(seeds.find(key(8)).collect::<Vec<_>>(), [5]);
        assert_eq!(seeds.len(), 17);
    }
}
