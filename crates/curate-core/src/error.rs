//! What ends a run.

use std::error::Error as StdError;
use std::io;

use crate::Malformed;

pub type Result<T> = std::result::Result<T, Error>;

/// What ends a run before its input does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reader of our output has gone, as `| head` does: not a failure.
    #[error("the reader of the output has closed it")]
    ClosedPipe,
    /// A record could not be read and the run was told to stop at the first one.
    #[error("malformed record: {0}")]
    Malformed(Malformed),
    /// An input or an output failed; `what` names it.
    #[error("{what}")]
    Io { what: String, source: io::Error },
    /// A stage, a source or a sink failed in its own way.
    #[error(transparent)]
    Other(Box<dyn StdError + Send + Sync>),
    /// A stage panicked: a bug in curate.
    #[error("stage panicked: {message} (this is a bug in curate)")]
    Panicked { message: String },
}

impl Error {
    /// Wraps an I/O error; a broken pipe becomes [`Error::ClosedPipe`].
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Io { what: what.into(), source },
        }
    }

    /// Wraps the error of another crate.
    pub fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}
