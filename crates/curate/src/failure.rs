//! What a command tells its caller: an exit code, and on failure an error with its causes and a remedy.

use std::error::Error as StdError;
use std::fmt;
use std::process::ExitCode;

use curate_io::IoError;

use crate::signals::Interrupted;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; also when the reader of our output closed it early, as `| head` does.
    Done = 0,
    /// Finished, but something is wrong with the data: more malformed records than allowed.
    BadData = 1,
    /// Could not run: bad usage, unreadable input, a full disk.
    CouldNotRun = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error on its way to the user.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Box<dyn StdError + Send + Sync>,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    pub(crate) exit: Exit,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { error: message.into().into(), hint: None, exit: Exit::CouldNotRun }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts `context` before the error, which becomes its cause.
    pub(crate) fn context(self, context: impl Into<String>) -> Self {
        Self { error: Box::new(Context { message: context.into(), cause: self.error }), ..self }
    }

    /// True if the run ended only because nobody reads its output any more.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self.error.downcast_ref(), Some(curate_core::Error::ClosedPipe))
    }

    /// The signal that ended the run, if one did.
    pub(crate) fn signal(&self) -> Option<i32> {
        let mut error: Option<&(dyn StdError + 'static)> = Some(&*self.error);
        while let Some(link) = error {
            // A transparent error is passed over by `source`, hence the look inside.
            let inner = match link.downcast_ref() {
                Some(curate_core::Error::Other(inner)) => inner.downcast_ref(),
                _ => link.downcast_ref(),
            };
            if let Some(Interrupted { signal }) = inner {
                return Some(*signal);
            }
            error = link.source();
        }
        None
    }
}

#[derive(Debug)]
struct Context {
    message: String,
    cause: Box<dyn StdError + Send + Sync>,
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Context {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}

impl From<curate_core::Error> for Failure {
    fn from(error: curate_core::Error) -> Self {
        let hint = match &error {
            curate_core::Error::Malformed(_) => {
                Some("--on-error skip counts such records and goes on".to_owned())
            }
            curate_core::Error::Other(other) => hint_of(&**other),
            _ => None,
        };
        let exit = match error {
            curate_core::Error::Malformed(_) => Exit::BadData,
            _ => Exit::CouldNotRun,
        };
        Self { error: Box::new(error), hint, exit }
    }
}

/// The hint of whichever library's error this is.
fn hint_of(error: &(dyn StdError + Send + Sync + 'static)) -> Option<String> {
    error
        .downcast_ref::<IoError>()
        .and_then(IoError::hint)
        .or_else(|| error.downcast_ref::<curate_dedup::Error>().and_then(curate_dedup::Error::hint))
        .or_else(|| error.downcast_ref::<curate_shards::Error>().and_then(curate_shards::Error::hint))
        .or_else(|| error.downcast_ref::<curate_tokenize::Error>().and_then(curate_tokenize::Error::hint))
}

macro_rules! from_library {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self { hint: error.hint(), error: Box::new(error), exit: Exit::CouldNotRun }
            }
        }
    )*};
}

from_library!(
    IoError,
    curate_clean::Error,
    curate_clean::quality::QualityError,
    curate_dedup::Error,
    curate_tokenize::Error
);

impl From<curate_shards::Error> for Failure {
    fn from(error: curate_shards::Error) -> Self {
        let exit = match error {
            curate_shards::Error::Unbalanced { .. } => Exit::BadData,
            _ => Exit::CouldNotRun,
        };
        Self { hint: error.hint(), error: Box::new(error), exit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_do_not_balance_are_bad_data() {
        let problem = "3 in, 2 out".to_owned();
        let unbalanced = curate_shards::Error::Unbalanced { path: "train.T8.view".into(), problem };
        assert_eq!(Failure::from(unbalanced).exit, Exit::BadData);
        let absent = curate_shards::Error::NotAShardSet { dir: "x".into() };
        assert_eq!(Failure::from(absent).exit, Exit::CouldNotRun);
    }

    #[test]
    fn an_interruption_is_found_below_its_context() {
        let interrupted = || Failure::from(curate_core::Error::other(Interrupted { signal: 15 }));
        assert_eq!(interrupted().signal(), Some(15));
        assert_eq!(interrupted().context("cannot pack").context("cannot run").signal(), Some(15));
        assert_eq!(Failure::new("a full disk").context("cannot write").signal(), None);
    }
}
