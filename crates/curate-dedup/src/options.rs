//! What to look for, and the checks on it.

use std::path::PathBuf;

use serde::Serialize;

use crate::banding::Banding;
use crate::error::{Error, Result};
use crate::words::Profile;

/// The lowest threshold that makes sense: below it almost every pair of long documents is a candidate.
pub const MIN_THRESHOLD: f64 = 0.1;
/// The longest shingle; longer runs of words ask for substring deduplication.
pub const MAX_NGRAM: usize = 64;

/// The least memory that the stage works in.
pub const MIN_MEMORY: u64 = 16 << 20;

/// Where what is remembered of kept documents lies. None of this changes the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// Bytes that the stage may use; what does not fit goes to files.
    pub memory: u64,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// A temporary directory in this one, made when memory is full.
    TemporaryIn(PathBuf),
    /// An index: what it holds has been seen before, and [`DedupGate::commit`](crate::DedupGate::commit) adds to it.
    Index(PathBuf),
}

impl Storage {
    /// The memory for which the default is meant to do: a million documents, or less of them on disk.
    pub const DEFAULT_MEMORY: u64 = 256 << 20;

    pub fn validate(&self) -> Result<()> {
        if self.memory < MIN_MEMORY { Err(Error::Memory { got: self.memory }) } else { Ok(()) }
    }
}

/// What counts as seen before.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct DedupOptions {
    /// Remove texts that are the same up to white space. MinHash implies it: equal texts have similarity 1.
    pub exact: bool,
    /// Remove texts that are nearly the same.
    pub minhash: Option<MinHashOptions>,
}

impl DedupOptions {
    pub fn validate(&self) -> Result<()> {
        match &self.minhash {
            Some(minhash) => minhash.validate(),
            None if self.exact => Ok(()),
            None => Err(Error::NothingToDo),
        }
    }
}

/// What counts as nearly the same, and how to find it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MinHashOptions {
    /// The exact Jaccard similarity from which on a document is a near-duplicate.
    pub threshold: f64,
    /// Bands and rows of the signature: both, or neither for those that suit the threshold.
    pub bands: Option<u32>,
    pub rows: Option<u32>,
    /// Units in a shingle.
    pub ngram: usize,
    pub profile: Profile,
    /// Seed of the permutations.
    pub seed: u64,
    /// A bucket of one band proposes no more than this many documents: the first that were kept. The comparisons
    /// that this skips are counted in the summary.
    pub max_candidates_per_band: u32,
    /// Compare the shingles of every candidate. Without it whatever shares a band counts as the same, the first that was
    /// kept stands for it, and nothing is proven.
    pub verify: bool,
}

impl Default for MinHashOptions {
    fn default() -> Self {
        Self {
            threshold: 0.8,
            bands: None,
            rows: None,
            ngram: 5,
            profile: Profile::default(),
            seed: 1,
            // Kept documents of one bucket are pairwise below the threshold or were not proposed to each other:
            // a thousand of them are a template with other contents, and their pages look like each other anyway.
            max_candidates_per_band: 1000,
            verify: true,
        }
    }
}

impl MinHashOptions {
    pub fn validate(&self) -> Result<()> {
        if !(MIN_THRESHOLD..=1.0).contains(&self.threshold) {
            return Err(Error::Threshold { got: self.threshold });
        }
        if !(1..=MAX_NGRAM).contains(&self.ngram) {
            return Err(Error::Ngram { got: self.ngram });
        }
        if self.max_candidates_per_band == 0 {
            return Err(Error::NoCandidates);
        }
        self.banding().map(|_| ())
    }

    /// The banding that was asked for, or the one that suits the threshold.
    pub fn banding(&self) -> Result<Banding> {
        let half = |given, missing| Error::HalfBanding { given, missing, threshold: self.threshold };
        match (self.bands, self.rows) {
            (Some(bands), Some(rows)) => Banding::new(bands, rows),
            (Some(_), None) => Err(half("bands", "rows")),
            (None, Some(_)) => Err(half("rows", "bands")),
            (None, None) => Ok(Banding::for_threshold(self.threshold)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut MinHashOptions), expected: &str) {
        let mut minhash = MinHashOptions::default();
        change(&mut minhash);
        let options = DedupOptions { exact: false, minhash: Some(minhash) };
        let got = options.validate().err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(got, expected);
    }

    #[test]
    fn values_out_of_range_are_named() {
        check(|_| {}, "");
        check(|o| (o.bands, o.rows) = (Some(14), Some(8)), "");
        check(|o| o.threshold = 0.05, "threshold 0.05 is outside 0.1..=1");
        check(|o| o.threshold = 1.01, "threshold 1.01 is outside 0.1..=1");
        check(|o| o.threshold = f64::NAN, "threshold NaN is outside 0.1..=1");
        check(|o| o.ngram = 0, "n-grams of 0 words: expected 1..=64");
        check(|o| o.ngram = 65, "n-grams of 65 words: expected 1..=64");
        check(|o| (o.bands, o.rows) = (Some(0), Some(8)), "0 bands: expected 1..=1024");
        check(|o| (o.bands, o.rows) = (Some(9), Some(65)), "65 rows in a band: expected 1..=64");
        check(|o| o.bands = Some(9), "the number of bands is given, but not the number of rows");
        check(|o| o.rows = Some(9), "the number of rows is given, but not the number of bands");
        check(|o| o.max_candidates_per_band = 0, "at most 0 candidates in a band: expected 1 or more");
    }

    #[test]
    fn something_must_be_asked_for() {
        assert!(matches!(DedupOptions::default().validate(), Err(Error::NothingToDo)));
        assert!(DedupOptions { exact: true, minhash: None }.validate().is_ok());
    }

    #[test]
    fn half_a_banding_is_answered_with_a_whole_one() {
        let options = MinHashOptions { rows: Some(5), threshold: 0.7, ..MinHashOptions::default() };
        let hint = options.validate().unwrap_err().hint();
        let expected = "give both or neither; without them the threshold 0.7 means 42 bands of 6 rows";
        assert_eq!(hint.as_deref(), Some(expected));
    }
}
