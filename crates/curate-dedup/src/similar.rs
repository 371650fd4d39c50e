//! Exact Jaccard similarity of two shingle sets, by merging them.

/// The Jaccard similarity of two sets, each ascending and without repeats; two empty sets are equal.
///
/// The result is the double nearest to the ratio, so comparing it with a threshold such as 0.8 is exact: four
/// shingles of five reach it.
pub fn similar(a: &[u64], b: &[u64]) -> f64 {
    let shared = shared_unless_fewer_than(0, a, b).expect("no number is less than 0");
    ratio(shared, a.len(), b.len())
}

/// The Jaccard similarity of two such sets if it is at least `threshold`.
///
/// Stops as soon as the rest cannot reach the threshold any more: at once when the lengths differ too much, since
/// the similarity is at most the ratio of the lengths, and after about a third of the sets when it is well below.
pub fn similar_at_least(threshold: f64, a: &[u64], b: &[u64]) -> Option<f64> {
    // J >= t means shared >= t (|a| + |b|) / (1 + t). One less covers the rounding; the ratio itself decides.
    let needed = threshold * (a.len() + b.len()) as f64 / (1.0 + threshold);
    let needed = (needed as usize).saturating_sub(1);
    let jaccard = ratio(shared_unless_fewer_than(needed, a, b)?, a.len(), b.len());
    (jaccard >= threshold).then_some(jaccard)
}

/// Whether sets of these lengths can reach the threshold: their similarity is at most the ratio of the lengths.
pub(crate) fn can_be_similar(threshold: f64, a: usize, b: usize) -> bool {
    ratio(a.min(b), a, b) >= threshold
}

fn ratio(shared: usize, a: usize, b: usize) -> f64 {
    let all = a + b - shared;
    if all == 0 { 1.0 } else { shared as f64 / all as f64 }
}

/// How many elements two sets share, or `None` once they cannot share `needed`.
fn shared_unless_fewer_than(needed: usize, a: &[u64], b: &[u64]) -> Option<usize> {
    /// Steps between two looks at the bound.
    const STRIDE: usize = 64;
    let (mut i, mut j, mut shared) = (0, 0, 0);
    loop {
        let left = (a.len() - i).min(b.len() - j);
        if shared + left < needed {
            return None;
        }
        if left == 0 {
            return Some(shared);
        }
        // A step advances each side by at most one, so `left` steps stay inside both. No branch depends on the
        // data.
        for _ in 0..left.min(STRIDE) {
            let (x, y) = (a[i], b[j]);
            shared += usize::from(x == y);
            i += usize::from(x <= y);
            j += usize::from(y <= x);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(a: &[u64], b: &[u64], expected: f64) {
        assert_eq!(similar(a, b), expected, "{a:?} {b:?}");
        assert_eq!(similar(b, a), expected, "{b:?} {a:?}");
    }

    #[test]
    fn small_sets() {
        check(&[], &[], 1.0);
        check(&[], &[1], 0.0);
        check(&[1], &[1], 1.0);
        check(&[1, 2, 3, 4], &[1, 2, 3, 5], 0.6);
        check(&[1, 2, 3, 4], &[1, 2, 3, 4, 9], 0.8);
        check(&[0, u64::MAX], &[u64::MAX], 0.5);
    }

    #[test]
    fn a_threshold_is_reached_exactly() {
        // k of 20 elements, against every threshold of the same grid.
        let all: Vec<u64> = (0..20).collect();
        for k in 1..=20u64 {
            let part: Vec<u64> = (0..k).collect();
            for t in 1..=20u64 {
                let found = similar_at_least(t as f64 / 20.0, &part, &all);
                assert_eq!(found, (k >= t).then_some(k as f64 / 20.0), "{k} {t}");
            }
        }
    }

    proptest! {
        #[test]
        fn merging_agrees_with_sets(
            a in prop::collection::btree_set(0u64..400, 0..300),
            b in prop::collection::btree_set(0u64..400, 0..300),
            threshold in 0.1f64..=1.0,
        ) {
            let shared = a.intersection(&b).count();
            let all = a.union(&b).count();
            let expected = if all == 0 { 1.0 } else { shared as f64 / all as f64 };
            let (a, b): (Vec<u64>, Vec<u64>) = (a.into_iter().collect(), b.into_iter().collect());
            prop_assert_eq!(similar(&a, &b), expected);
            prop_assert_eq!(similar_at_least(threshold, &a, &b), (expected >= threshold).then_some(expected));
            prop_assert_eq!(similar_at_least(expected, &a, &b), Some(expected));
        }
    }
}
