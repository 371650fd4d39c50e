//! How a signature is cut: bands of rows, and how likely two documents are to share one.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::minhash::LANES;

/// More bands than this no one can want: at one row each they find a pair of Jaccard 0.02 with certainty.
pub const MAX_BANDS: u32 = 1024;
/// More rows than this leave no chance to any pair below 0.95.
pub const MAX_ROWS: u32 = 64;

/// A signature of `bands * rows` minima. Two documents are candidates if all rows of some band agree.
///
/// More bands find more pairs; more rows in a band find fewer. Every candidate is verified, so a generous banding
/// costs time and never a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Banding {
    pub bands: u32,
    pub rows: u32,
}

impl Banding {
    /// A banding of one's own.
    pub fn new(bands: u32, rows: u32) -> Result<Self> {
        match () {
            () if !(1..=MAX_BANDS).contains(&bands) => Err(Error::Bands { got: bands }),
            () if !(1..=MAX_ROWS).contains(&rows) => Err(Error::Rows { got: rows }),
            () => Ok(Self { bands, rows }),
        }
    }

    /// The banding for a threshold in [`MIN_THRESHOLD`](crate::MIN_THRESHOLD)`..=1`.
    ///
    /// 0.8 means 32 x 7 (a pair at the threshold is found with probability 0.9995), 0.7 means 42 x 6 (0.9948):
    /// these two are settled and tested on real revisions. Any other threshold takes the most rows, hence the
    /// fewest false candidates, with which at most 256 minima find a pair at the threshold with a probability of at
    /// least 0.995; what the last block of 16 minima has left then goes into further bands.
    pub fn for_threshold(threshold: f64) -> Self {
        const MIN_PROBABILITY: f64 = 0.995;
        const BUDGET: u32 = 256;
        if threshold == 0.8 {
            return Self { bands: 32, rows: 7 };
        }
        if threshold == 0.7 {
            return Self { bands: 42, rows: 6 };
        }
        let enough = |rows: u32| {
            let bands =
                (1..=BUDGET / rows).find(|&b| match_probability(threshold, b, rows) >= MIN_PROBABILITY)?;
            let computed = (bands * rows).next_multiple_of(LANES as u32);
            Some(Self { bands: computed / rows, rows })
        };
        (1..=MAX_ROWS).rev().find_map(enough).expect("one row and 256 bands find a pair of Jaccard 0.1")
    }

    /// The number of minima: the `num_perm` of other tools.
    pub fn num_perm(self) -> usize {
        self.bands as usize * self.rows as usize
    }
}

/// The probability that two documents of Jaccard similarity `jaccard` share a band: `1 - (1 - jaccard^rows)^bands`.
///
/// Broder's estimate per minimum, Leskovec, Rajaraman and Ullman, *Mining of Massive Datasets*, section 3.4.
pub fn match_probability(jaccard: f64, bands: u32, rows: u32) -> f64 {
    1.0 - (1.0 - jaccard.powf(f64::from(rows))).powf(f64::from(bands))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::MIN_THRESHOLD;

    #[test]
    fn published_probabilities() {
        // datatrove prints 0.772 for its 14 x 8 at 0.75 and 0.924 at 0.8; Lee et al. 0.995 for 450 x 20 at 0.8.
        for (jaccard, bands, rows, expected) in [
            (0.75, 14, 8, 0.772),
            (0.8, 14, 8, 0.924),
            (0.8, 450, 20, 0.995),
            (0.8, 32, 7, 0.9995),
            (0.7, 42, 6, 0.9948),
            (0.0, 5, 5, 0.0),
            (1.0, 5, 5, 1.0),
        ] {
            let got = match_probability(jaccard, bands, rows);
            assert!((got - expected).abs() < 6e-4, "{bands} x {rows} at {jaccard}: {got}");
        }
    }

    #[test]
    fn thresholds_and_their_bandings() {
        for (threshold, bands, rows) in [
            (0.1, 64, 1),
            (0.5, 42, 3),
            (0.7, 42, 6),
            (0.8, 32, 7),
            (0.9, 19, 13),
            (0.95, 12, 20),
            (1.0, 1, 64),
        ] {
            assert_eq!(Banding::for_threshold(threshold), Banding { bands, rows }, "{threshold}");
        }
    }

    #[test]
    fn every_threshold_has_a_banding_that_finds_it() {
        for hundredth in (MIN_THRESHOLD * 100.0) as u32..=100 {
            let threshold = f64::from(hundredth) / 100.0;
            let banding = Banding::for_threshold(threshold);
            let Banding { bands, rows } = banding;
            assert_eq!(Banding::new(bands, rows).ok(), Some(banding));
            assert!(banding.num_perm() <= 256, "{threshold}: {bands} x {rows}");
            let probability = match_probability(threshold, bands, rows);
            let settled = if threshold == 0.7 { 0.9947 } else { 0.995 };
            assert!(probability >= settled, "{threshold}: {bands} x {rows} finds {probability}");
        }
    }
}
