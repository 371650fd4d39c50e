//! What can be wrong with the options of a deduplication, and the one thing that can go wrong in a run.

use crate::banding::{Banding, MAX_BANDS, MAX_ROWS};
use crate::options::{MAX_NGRAM, MIN_THRESHOLD};

pub type Result<T> = std::result::Result<T, Error>;

/// A value that cannot be worked with, and the range that can.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("nothing to do: neither exact nor MinHash deduplication was asked for")]
    NothingToDo,
    #[error("threshold {got} is outside {MIN_THRESHOLD}..=1")]
    Threshold { got: f64 },
    #[error("n-grams of {got} words: expected 1..={MAX_NGRAM}")]
    Ngram { got: usize },
    #[error("{got} bands: expected 1..={MAX_BANDS}")]
    Bands { got: u32 },
    #[error("{got} rows in a band: expected 1..={MAX_ROWS}")]
    Rows { got: u32 },
    #[error("the number of {given} is given, but not the number of {missing}")]
    HalfBanding { given: &'static str, missing: &'static str, threshold: f64 },
    #[error("at most 0 candidates in a band: expected 1 or more")]
    NoCandidates,
    #[error("seed {got}: expected 0..={}, the seeds of numpy's RandomState", u32::MAX)]
    DatatroveSeed { got: u64 },
    #[error("unknown profile {got:?}: expected curate-1, raw or datatrove")]
    Profile { got: String },
    #[error("more than {limit} documents were kept: the tables of one pass cannot number more")]
    TooManyDocuments { limit: u32 },
}

impl Error {
    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NothingToDo => Some("choose exact deduplication, MinHash, or both".to_owned()),
            Self::Threshold { .. } => {
                Some("the threshold is a Jaccard similarity; 0.8 and 0.7 are the usual values".to_owned())
            }
            Self::HalfBanding { threshold, .. } => {
                let Banding { bands, rows } = Banding::for_threshold(*threshold);
                Some(format!(
                    "give both or neither; without them the threshold {threshold} means {bands} bands of {rows} rows"
                ))
            }
            Self::TooManyDocuments { .. } => Some("split the input and deduplicate the parts".to_owned()),
            Self::Ngram { .. }
            | Self::Bands { .. }
            | Self::Rows { .. }
            | Self::NoCandidates
            | Self::DatatroveSeed { .. }
            | Self::Profile { .. } => None,
        }
    }
}
