use std::io;
use std::path::PathBuf;

pub(super) type Result<T> = std::result::Result<T, SemanticError>;

/// What can be wrong with options and embeddings.
#[derive(Debug, thiserror::Error)]
pub enum SemanticError {
    #[error("a cosine threshold of {got}: expected more than 0 and at most 1")]
    Threshold { got: f64 },
    #[error("0 clusters: expected 1 or more")]
    NoClusters,
    #[error("a sample of {got} rows for {clusters} clusters: expected at least a row for each")]
    Sample { got: usize, clusters: usize },
    #[error("embeddings of 0 dimensions")]
    NoDimensions,
    #[error("{values} values are no {rows} rows of {dim}")]
    Shape { values: usize, rows: usize, dim: usize },
    #[error("{rows} rows: at most {limit} can be numbered")]
    TooManyRows { rows: u64, limit: u64 },
    #[error("row {row} of the embeddings (counted from 0) has a value that is infinite or not a number")]
    NotFinite { row: usize },
    #[error("cannot {action} {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is no array that can be read: {what}")]
    Npy { path: PathBuf, what: String },
    #[error("cannot read embeddings back")]
    Spool(#[source] Box<crate::error::Error>),
    #[error("stopped")]
    Stopped,
    #[error("cannot start threads")]
    Threads { source: rayon::ThreadPoolBuildError },
}

impl SemanticError {
    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Sample { clusters, .. } => Some(format!("give a sample of {} or more", clusters * 16)),
            Self::TooManyRows { .. } => Some("split the input and deduplicate the parts".to_owned()),
            Self::Npy { .. } => {
                Some("save a two-dimensional float array in C order: numpy.save(path, rows)".to_owned())
            }
            _ => None,
        }
    }
}
