//! The `k` best labels, with ties in the order of the reference program.
//!
//! The reference keeps a binary heap of the standard library of C++ and sorts it at the end. Labels of equal score
//! come out in an order that only the very steps of that heap give, and equal scores are common: sigmoids are looked
//! up in a table of 513 values.

/// A score and what has it.
type Entry = (f32, usize);

/// The heap: the worst entry is first.
#[derive(Debug, Default)]
pub(super) struct Best(Vec<Entry>);

/// True if `a` must stand below `b` in the heap.
fn below(a: Entry, b: Entry) -> bool {
    a.0 > b.0
}

impl Best {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// True if `score` is too low to be among the `k` best.
    pub(super) fn excludes(&self, k: usize, score: f32) -> bool {
        self.0.len() == k && self.0.first().is_some_and(|worst| score < worst.0)
    }

    pub(super) fn insert(&mut self, k: usize, score: f32, label: usize) {
        self.0.push((score, label));
        let last = self.0.len() - 1;
        sift_up(&mut self.0, last, (score, label));
        if self.0.len() > k {
            pop_to_end(&mut self.0);
            self.0.pop();
        }
    }

    /// The entries, best first. The heap is none any more.
    pub(super) fn sorted(&mut self) -> &[Entry] {
        for len in (2..=self.0.len()).rev() {
            pop_to_end(&mut self.0[..len]);
        }
        &self.0
    }
}

fn sift_up(heap: &mut [Entry], mut hole: usize, value: Entry) {
    while hole > 0 && below(heap[(hole - 1) / 2], value) {
        heap[hole] = heap[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    heap[hole] = value;
}

/// Moves the first entry to the end, and makes a heap of the rest: a hole sinks to the bottom, then the entry that
/// stood last rises from there.
fn pop_to_end(heap: &mut [Entry]) {
    let Some((last, heap)) = heap.split_last_mut() else { return };
    if heap.is_empty() {
        return;
    }
    let value = std::mem::replace(last, heap[0]);
    let len = heap.len();
    let (mut hole, mut child) = (0, 0);
    while child < (len - 1) / 2 {
        child = 2 * (child + 1);
        if below(heap[child], heap[child - 1]) {
            child -= 1;
        }
        heap[hole] = heap[child];
        hole = child;
    }
    if len.is_multiple_of(2) && child == (len - 2) / 2 {
        heap[hole] = heap[2 * child + 1];
        hole = 2 * child + 1;
    }
    sift_up(heap, hole, value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_come_first(scores in prop::collection::vec(0u8..20, 0..40), k in 1usize..12) {
            let mut best = Best::default();
            for (label, score) in scores.iter().enumerate() {
                if !best.excludes(k, f32::from(*score)) {
                    best.insert(k, f32::from(*score), label);
                }
            }
            let found: Vec<f32> = best.sorted().iter().map(|(score, _)| *score).collect();
            let mut expected: Vec<f32> = scores.iter().map(|s| f32::from(*s)).collect();
            expected.sort_by(|a, b| b.total_cmp(a));
            expected.truncate(k);
            prop_assert_eq!(found, expected);
        }
    }
}
