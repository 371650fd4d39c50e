//! Anchors: a gram for each window, the same for equal windows.

use crate::words::finish;

/// Windows in a row that have the same anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    /// The hash of the anchor's gram.
    pub(super) key: u64,
    /// The first of the windows, by its first unit in the document.
    pub(super) first: u32,
    /// At most as many as there are grams in a window.
    pub(super) windows: u32,
}

/// Finds anchors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchors {
    length: usize,
    gram: usize,
    /// `BASE^gram`: the weight of the unit that leaves a gram.
    leaving: u64,
}

const BASE: u64 = 0xA24B_AED4_963E_E40B;

impl Anchors {
    /// For windows of `length` units, two at least.
    pub(super) fn new(length: usize) -> Self {
        let gram = length.div_ceil(2);
        Self { length, gram, leaving: (0..gram).fold(1, |power: u64, _| power.wrapping_mul(BASE)) }
    }

    /// Appends the anchors of a document of `count` units; `ring` is a buffer.
    ///
    /// Of grams with the same hash the last is taken, so that a run of one unit needs no second look at any.
    pub(super) fn find(
        &self,
        count: usize,
        unit: impl Fn(usize) -> u64,
        ring: &mut Vec<u64>,
        found: &mut Vec<Anchor>,
    ) {
        let Self { length, gram, leaving } = *self;
        if count < length {
            return;
        }
        let grams = length - gram + 1;
        let mask = grams.next_power_of_two() - 1;
        ring.clear();
        ring.resize(mask + 1, 0);
        let mut rolled = 0u64;
        let mut least = (u64::MAX, 0);
        let mut open: Option<(usize, Anchor)> = None;
        for end in 0..count {
            rolled = rolled.wrapping_mul(BASE).wrapping_add(unit(end));
            if end >= gram {
                rolled = rolled.wrapping_sub(unit(end - gram).wrapping_mul(leaving));
            }
            let Some(at) = (end + 1).checked_sub(gram) else { continue };
            let hash = finish(rolled);
            ring[at & mask] = hash;
            if hash <= least.0 {
                least = (hash, at);
            } else if least.1 + grams <= at {
                let left = (at + 1 - grams..=at).rev();
                least = left.fold((u64::MAX, at), |least, i| match ring[i & mask] < least.0 {
                    true => (ring[i & mask], i),
                    false => least,
                });
            }
            let Some(window) = (end + 1).checked_sub(length) else { continue };
            match &mut open {
                Some((place, anchor)) if *place == least.1 => anchor.windows += 1,
                _ => {
                    let next = Anchor { key: least.0, first: window as u32, windows: 1 };
                    found.extend(open.replace((least.1, next)).map(|(_, anchor)| anchor));
                }
            }
        }
        found.extend(open.map(|(_, anchor)| anchor));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn windows_have_one_anchor_each_and_equal_ones_the_same(
            units in prop::collection::vec(0..3u64, 0..200),
            length in 2..12usize,
        ) {
            let mut found = Vec::new();
            Anchors::new(length).find(units.len(), |i| units[i], &mut Vec::new(), &mut found);
            let keys: Vec<u64> =
                found.iter().flat_map(|anchor| (0..anchor.windows).map(|_| anchor.key)).collect();
            let windows: Vec<&[u64]> = units.windows(length).collect();
            prop_assert_eq!(keys.len(), windows.len());
            let mut next = 0;
            for anchor in &found {
                prop_assert_eq!(anchor.first, next);
                next += anchor.windows;
            }
            for (a, key) in windows.iter().zip(&keys) {
                for (b, other) in windows.iter().zip(&keys) {
                    prop_assert!(a != b || key == other);
                }
            }
        }
    }

    #[test]
    fn there_are_few() {
        let mut found = Vec::new();
        Anchors::new(200).find(1_000_000, |i| finish(i as u64) & 0xff, &mut Vec::new(), &mut found);
        assert!((15_000..25_000).contains(&found.len()), "{}", found.len());
        found.clear();
        Anchors::new(200).find(10_000, |_| 7, &mut Vec::new(), &mut found);
        assert_eq!(found.len(), 9801, "a run has an anchor for each window");
    }
}
