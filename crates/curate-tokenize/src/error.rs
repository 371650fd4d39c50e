//! What can go wrong, with the facts a person needs to find and mend it.

use std::io;
use std::path::PathBuf;

use crate::TokenId;

/// Result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// One failure; [`Error::hint`] has the remedy where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Tokenizers that cannot be had.
    /// The operating system refused to read a file that a tokenizer is made from.
    #[error("{}: cannot read the {what}", path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    /// The text is not the JSON of a tokenizer. `origin` is a path or a name.
    #[error("{origin}: not a tokenizer: {problem}")]
    NotATokenizer { origin: String, problem: String },
    /// The tokenizer has no token that is known to end documents.
    #[error("{origin}: cannot tell which token ends a document (looked for {})", tried.join(", "))]
    NoEod { origin: String, tried: &'static [&'static str] },
    /// The token asked for as the end of documents is not in the vocabulary.
    #[error("{origin}: has no token {token:?} to end documents with")]
    UnknownEod { origin: String, token: String },
    /// The file that is to give the alphabet of a character tokenizer has no characters.
    #[error("{}: is empty, it gives no alphabet", path.display())]
    EmptyAlphabet { path: PathBuf },

    // Documents that cannot be encoded.
    /// A character that the alphabet of a character tokenizer lacks. `offset` counts bytes.
    #[error("{character:?} (U+{:04X}) at byte {offset} is not in the alphabet", u32::from(*character))]
    NotInAlphabet { character: char, offset: usize },
    /// The text alone gives the id that is to mark its end. `position` counts tokens.
    #[error("token {position} of the text is the end-of-document id {eod} itself")]
    EodInText { eod: TokenId, position: usize },
    /// The document is too long for the token stream and the shard index.
    #[error("{bytes} bytes, {tokens} tokens: a document may have {} bytes and {} tokens", u32::MAX, i32::MAX)]
    DocumentTooLong { bytes: u64, tokens: u64 },
    /// The `tokenizers` crate could not encode the text.
    #[error("the tokenizer cannot encode the text")]
    Encode { source: Box<dyn std::error::Error + Send + Sync> },

    // Token streams.
    /// There is nothing to read.
    #[error("the input is empty, expected a token stream")]
    EmptyStream,
    /// The bytes are not a token stream.
    #[error("not a token stream: {problem}")]
    NotAStream { problem: String },
    /// The stream was written by a version that this build does not know.
    #[error("token stream version {found} is not supported (this build reads version {supported})")]
    StreamVersion { found: String, supported: u32 },
    /// The stream stops before its end marker.
    #[error("the token stream is cut short after {documents} documents: its end marker is missing")]
    Truncated { documents: u64 },
    /// Something follows the end marker.
    #[error("something follows the end of the token stream, after {documents} documents")]
    TrailingData { documents: u64 },
    /// A part of the stream contradicts the format.
    #[error("the token stream is damaged after {documents} documents: {problem}")]
    Damaged { documents: u64, problem: String },
    /// The operating system failed to deliver the stream.
    #[error("cannot read the token stream")]
    ReadStream { source: io::Error },
    /// The operating system refused to take the stream.
    #[error("cannot write the token stream")]
    WriteStream { source: io::Error },
    /// Arrow refused to encode the stream.
    #[error("cannot encode the token stream")]
    EncodeStream { source: arrow_schema::ArrowError },

    // Training.
    /// The vocabulary asked for has no room for the bytes and the end-of-document token.
    #[error(
        "a vocabulary of {vocab_size} is too small: 256 bytes and the end-of-document token take {minimum}"
    )]
    VocabularyTooSmall { vocab_size: u32, minimum: u32 },
    /// There was no text to train on.
    #[error("no text to train on")]
    NoText,
    /// More distinct words than positions can be numbered for.
    #[error("the distinct words take {bytes} bytes, training can hold {}", u32::MAX)]
    TooManyWords { bytes: u64 },
}

impl Error {
    /// What to do about it, where there is something; one line, no full stop.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "a tokenizer is the path of a tokenizer.json, `bytes`, or `char:FILE`"
            }
            Error::NotATokenizer { .. } => {
                "expected the tokenizer.json of a Hugging Face fast tokenizer, or what `curate train-tokenizer` writes"
            }
            Error::NoEod { .. } => "name it with --eod TOKEN",
            Error::UnknownEod { .. } => "give a token of the vocabulary, or its number as id:N",
            Error::EmptyAlphabet { .. } => "name a text that holds every character the documents use",
            Error::EmptyStream | Error::NotAStream { .. } => {
                "the input of this command is the output of `curate tokenize`"
            }
            Error::StreamVersion { .. } => "use the same version of curate on both ends of the pipe",
            Error::Truncated { .. } => {
                "the command that wrote it was stopped or failed; see its messages, then run it again"
            }
            Error::TrailingData { .. } => {
                "token streams cannot be joined by `cat`; tokenize all inputs in one command"
            }
            Error::Damaged { .. } => "write the stream anew with `curate tokenize`",
            Error::VocabularyTooSmall { minimum, .. } => {
                return Some(format!("ask for --vocab-size {minimum} or more"));
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Turns what arrow-ipc reports while writing into ours, keeping the I/O error apart.
    pub(crate) fn writing(error: arrow_schema::ArrowError) -> Error {
        match error {
            arrow_schema::ArrowError::IoError(_, source) => Error::WriteStream { source },
            source => Error::EncodeStream { source },
        }
    }
}

impl From<Error> for curate_core::Error {
    /// A closed pipe becomes [`curate_core::Error::ClosedPipe`], everything else is passed on whole.
    fn from(error: Error) -> Self {
        match error {
            Error::WriteStream { source } if source.kind() == io::ErrorKind::BrokenPipe => {
                curate_core::Error::ClosedPipe
            }
            error => curate_core::Error::other(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_facts_and_the_remedy() {
        let error = Error::NotInAlphabet { character: 'é', offset: 7 };
        assert_eq!(error.to_string(), "'é' (U+00E9) at byte 7 is not in the alphabet");
        let error = Error::NoEod { origin: "t.json".into(), tried: &["<a>", "<b>"] };
        assert_eq!(
            error.to_string(),
            "t.json: cannot tell which token ends a document (looked for <a>, <b>)"
        );
        assert_eq!(error.hint().unwrap(), "name it with --eod TOKEN");
        let error = Error::Truncated { documents: 12 };
        assert_eq!(
            error.to_string(),
            "the token stream is cut short after 12 documents: its end marker is missing"
        );
        assert!(Error::NoText.hint().is_none());
    }

    #[test]
    fn a_closed_pipe_is_told_apart() {
        let arrow = |kind| arrow_schema::ArrowError::IoError(String::new(), io::Error::from(kind));
        let closed = curate_core::Error::from(Error::writing(arrow(io::ErrorKind::BrokenPipe)));
        assert!(matches!(closed, curate_core::Error::ClosedPipe));
        let full = curate_core::Error::from(Error::writing(arrow(io::ErrorKind::StorageFull)));
        assert!(matches!(full, curate_core::Error::Other(_)));
    }
}
