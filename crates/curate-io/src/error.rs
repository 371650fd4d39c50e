//! What can go wrong between bytes and records.

use std::io;
use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, IoError>;

#[derive(Debug, thiserror::Error)]
pub enum IoError {
    #[error("cannot {action} {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} holds no input files")]
    EmptyDirectory { path: PathBuf },
    #[error("{name}: a record at byte {offset} is longer than {limit} bytes")]
    RecordTooLong { name: String, offset: u64, limit: usize },
    #[error("{path} is shorter than the run's manifest says")]
    SpoolTooShort { path: PathBuf },
    #[error("{pattern} matches no input file")]
    NoMatch { pattern: String },
    #[error("{pattern} is not a pattern of file names: {message}")]
    Pattern { pattern: String, message: String },
    #[error("cannot {action} {url}: {message}")]
    Url { action: &'static str, url: String, message: String, hint: String },
    #[error("{path} is a directory")]
    OutputIsDirectory { path: PathBuf },
    #[error("{path} is being written already")]
    OutputInUse { path: PathBuf },
    #[error("{path:?} is not a field path: expected names joined by dots, such as metadata.text")]
    FieldPath { path: String },
    #[error(transparent)]
    Output(#[from] crate::layout::OutputError),
}

impl IoError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { action, path: path.into(), source }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("check the path; `-` reads standard input".to_owned())
            }
            Self::EmptyDirectory { .. } => Some(
                "name the files, or use --format text to read files of any name as plain text".to_owned(),
            ),
            Self::RecordTooLong { .. } => Some(
                "raise --max-record-bytes, or read the input with --format text if it is not JSON Lines"
                    .to_owned(),
            ),
            Self::SpoolTooShort { .. } => {
                Some("the run directory was changed by someone: start again with --restart".to_owned())
            }
            Self::OutputIsDirectory { .. } => Some("name a file, such as out/kept.jsonl.zst".to_owned()),
            Self::OutputInUse { .. } => {
                Some("another process, or another option of this one, writes to the same file".to_owned())
            }
            Self::Output(error) => Some(error.hint()),
            Self::NoMatch { .. } => Some(
                "`*` stops at a slash, `**` does not; files of unknown kind are passed over unless --format says \
                 what they are"
                    .to_owned(),
            ),
            Self::Pattern { .. } => {
                Some("patterns know `*`, `**`, `?` and `[a-z]`; `[*]` is a star in a name".to_owned())
            }
            Self::Url { hint, .. } => Some(hint.clone()),
            Self::File { .. } | Self::FieldPath { .. } => None,
        }
    }
}

impl From<IoError> for curate_core::Error {
    fn from(error: IoError) -> Self {
        Self::other(error)
    }
}
