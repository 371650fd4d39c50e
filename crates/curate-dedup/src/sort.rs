//! Sorting hashes: they are spread evenly, so their top bits already say nearly where they belong.

/// Buffers of [`sort_unique`].
#[derive(Debug, Default)]
pub(crate) struct SortBuffers {
    ends: Vec<u32>,
    spread: Vec<u64>,
}

/// Below this a comparison sort is as fast.
const SMALL: usize = 64;
/// A bucket with more keys than this is sorted on its own before the insertion pass: it holds repeats, or somebody
/// chose the words so.
const CROWDED: u32 = 24;

/// Sorts `keys` and removes repeats.
///
/// About one bucket for each key, then one insertion pass over all: linear time for hashes, and no worse than a
/// comparison sort for anything else, since crowded buckets are sorted by comparison. Up to twice as fast as
/// `sort_unstable` for the shingles of a page or a chapter, and no faster at a million.
pub(crate) fn sort_unique(keys: &mut Vec<u64>, buffers: &mut SortBuffers) {
    if keys.len() < SMALL || u32::try_from(keys.len()).is_err() {
        keys.sort_unstable();
    } else {
        spread_and_insert(keys, buffers);
    }
    keys.dedup();
}

fn spread_and_insert(keys: &mut Vec<u64>, buffers: &mut SortBuffers) {
    let SortBuffers { ends, spread } = buffers;
    let bucket_bits = keys.len().ilog2();
    let bucket_of = |key: u64| (key >> (64 - bucket_bits)) as usize;
    ends.clear();
    ends.resize(1 << bucket_bits, 0);
    for &key in &*keys {
        ends[bucket_of(key)] += 1;
    }
    let mut start = 0;
    let mut crowded = false;
    for end in ends.iter_mut() {
        crowded |= *end > CROWDED;
        start += std::mem::replace(end, start);
    }
    // Each entry of `ends` is now its bucket's start, and becomes its end as the keys arrive.
    spread.clear();
    spread.resize(keys.len(), 0);
    for &key in &*keys {
        let place = &mut ends[bucket_of(key)];
        spread[*place as usize] = key;
        *place += 1;
    }
    if crowded {
        let mut start = 0;
        for &end in ends.iter() {
            if end - start > CROWDED {
                spread[start as usize..end as usize].sort_unstable();
            }
            start = end;
        }
    }
    insertion_sort(spread);
    std::mem::swap(keys, spread);
}

fn insertion_sort(keys: &mut [u64]) {
    for i in 1..keys.len() {
        let key = keys[i];
        let mut hole = i;
        while hole > 0 && keys[hole - 1] > key {
            keys[hole] = keys[hole - 1];
            hole -= 1;
        }
        keys[hole] = key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::words::finish;

    fn check(keys: Vec<u64>) {
        let mut expected = keys.clone();
        expected.sort_unstable();
        expected.dedup();
        let mut got = keys;
        let mut buffers = SortBuffers { ends: vec![7; 3], spread: vec![9; 200] };
        sort_unique(&mut got, &mut buffers);
        assert_eq!(got, expected);
    }

    #[test]
    fn any_keys_are_sorted() {
        for len in [0, 1, 2, 63, 64, 65, 127, 128, 1000, 40_000] {
            check((0..len).map(finish).collect());
            check((0..len).map(|i| finish(i % 7)).collect());
            check((0..len).map(|i| i % 97).collect());
            check((0..len).rev().collect());
            check((0..len).map(|i| u64::MAX - i / 2).collect());
            check(vec![u64::MAX; len as usize]);
        }
    }

    proptest! {
        #[test]
        fn sorts_as_the_standard_sort_does(keys in prop::collection::vec(any::<u64>(), 0..400)) {
            check(keys);
        }
    }
}
