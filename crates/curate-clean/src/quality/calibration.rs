//! What scores mean: measured on documents that training has not seen.

use serde::{Deserialize, Serialize};

/// How well scores tell positives from negatives, and which score is how rare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Held-out documents of each kind.
    pub positives: u64,
    pub negatives: u64,
    /// Probability that a positive scores above a negative, ties counting half: 0.5 is chance. `None` if one kind is
    /// missing.
    pub auc: Option<f64>,
    /// Ten parts of the held-out documents, lowest scores first.
    pub deciles: Vec<Decile>,
    /// Scores of held-out negatives (the pool that one filters): number i is above i % of them. 101 numbers, or none.
    pub negative_percentiles: Vec<f32>,
    /// The same of held-out positives.
    pub positive_percentiles: Vec<f32>,
}

/// A tenth of the held-out documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decile {
    pub documents: u64,
    pub mean_score: f64,
    /// Share of positives, 0 to 1. A calibrated score equals it.
    pub positive: f64,
}

impl Calibration {
    /// Measures `scores`, each with whether its document is a positive.
    pub fn measure(scores: &[(f32, bool)]) -> Self {
        let mut sorted = scores.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let of = |kind: bool| -> Vec<f32> { sorted.iter().filter(|s| s.1 == kind).map(|s| s.0).collect() };
        let (negatives, positives) = (of(false), of(true));
        Self {
            positives: positives.len() as u64,
            negatives: negatives.len() as u64,
            auc: auc(&sorted),
            deciles: deciles(&sorted),
            negative_percentiles: percentiles(&negatives),
            positive_percentiles: percentiles(&positives),
        }
    }

    /// The score that the best `percent` % of the pool reach; `None` without held-out negatives or outside 0 to 100.
    pub fn threshold_of_top(&self, percent: f64) -> Option<f32> {
        if !(0.0..=100.0).contains(&percent) || self.negative_percentiles.len() != 101 {
            return None;
        }
        let at = 100.0 - percent;
        let (low, part) = (at.floor() as usize, at.fract() as f32);
        let from = self.negative_percentiles[low];
        let to = self.negative_percentiles[(low + 1).min(100)];
        Some(from + (to - from) * part)
    }
}

/// The Mann–Whitney statistic over sorted scores, divided by the number of pairs.
fn auc(sorted: &[(f32, bool)]) -> Option<f64> {
    let (mut negatives, mut wins, mut positives) = (0.0, 0.0, 0.0);
    for ties in sorted.chunk_by(|a, b| a.0 == b.0) {
        let up = ties.iter().filter(|s| s.1).count() as f64;
        let down = ties.len() as f64 - up;
        wins += up * (negatives + down / 2.0);
        positives += up;
        negatives += down;
    }
    let pairs: f64 = positives * negatives;
    (pairs > 0.0).then(|| wins / pairs)
}

fn deciles(sorted: &[(f32, bool)]) -> Vec<Decile> {
    let n = sorted.len();
    let parts = (0..10).map(|i| &sorted[n * i / 10..n * (i + 1) / 10]).filter(|part| !part.is_empty());
    let decile = |part: &[(f32, bool)]| Decile {
        documents: part.len() as u64,
        mean_score: part.iter().map(|s| f64::from(s.0)).sum::<f64>() / part.len() as f64,
        positive: part.iter().filter(|s| s.1).count() as f64 / part.len() as f64,
    };
    parts.map(decile).collect()
}

fn percentiles(sorted: &[f32]) -> Vec<f32> {
    let Some(last) = sorted.len().checked_sub(1) else { return Vec::new() };
    (0..=100).map(|i| sorted[(last * i + 50) / 100]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_of_known_rankings() {
        let check = |scores: &[(f32, bool)], expected: Option<f64>| {
            assert_eq!(Calibration::measure(scores).auc, expected, "{scores:?}");
        };
        check(&[], None);
        check(&[(0.5, true)], None);
        check(&[(0.1, false), (0.9, true)], Some(1.0));
        check(&[(0.9, false), (0.1, true)], Some(0.0));
        check(&[(0.5, false), (0.5, true)], Some(0.5));
        check(&[(0.1, false), (0.3, true), (0.2, false), (0.2, true)], Some(0.875));
    }

    #[test]
    fn the_top_of_the_pool() {
        let scores: Vec<(f32, bool)> =
            (0..=1000).map(|i| (i as f32 / 1000.0, false)).chain([(0.99, true)]).collect();
        let calibration = Calibration::measure(&scores);
        let check = |percent, expected: Option<f32>| {
            let found = calibration.threshold_of_top(percent);
            assert!(found.zip(expected).is_none_or(|(a, b)| (a - b).abs() < 1e-3), "{percent}: {found:?}");
            assert_eq!(found.is_some(), expected.is_some(), "{percent}");
        };
        check(10.0, Some(0.9));
        check(0.0, Some(1.0));
        check(100.0, Some(0.0));
        check(2.5, Some(0.975));
        check(-1.0, None);
        check(f64::NAN, None);
        assert_eq!(calibration.deciles.len(), 10);
        assert_eq!(Calibration::measure(&[(0.5, true)]).threshold_of_top(10.0), None);
    }
}
