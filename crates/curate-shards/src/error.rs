//! What can go wrong, with the facts a person needs to find and mend it.

use std::path::{Path, PathBuf};

use crate::TokenId;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One failure; the message names the file and what was expected and found, [`Error::hint`] the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{}: cannot {action}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },

    // Requests that cannot be met.
    /// The target directory already holds a finished set.
    #[error("{}: already holds a complete shard set", dir.display())]
    AlreadyComplete { dir: PathBuf },
    /// The target directory holds files that a set would overwrite but that no run of this writer left there.
    #[error("{}: is in the way and was not left by an interrupted run", path.display())]
    ForeignFile { path: PathBuf },
    /// Another process is writing to the directory at this moment.
    #[error("{}: another process is writing here", dir.display())]
    Busy { dir: PathBuf },
    /// An option has a value that cannot work.
    #[error("{name}: {problem}")]
    BadOption { name: &'static str, problem: String },
    /// A split specification such as `val=0.05` does not parse or does not add up.
    #[error("split {spec:?}: {problem}")]
    BadSplits { spec: String, problem: String },
    /// A mix such as `web=0.6,code=0.4` does not parse, or the set cannot give what it asks for.
    #[error("mix {problem}")]
    BadMix { problem: String },
    /// The set has no split of this name.
    #[error("{}: no split named {name:?} (there are: {})", dir.display(), available.join(", "))]
    UnknownSplit { dir: PathBuf, name: String, available: Vec<String> },
    /// The split has not been packed for this sequence length.
    #[error("{}: split {split:?} has no view for seq_len {seq_len} (there are: {})", dir.display(), list(available))]
    UnknownView { dir: PathBuf, split: String, seq_len: u32, available: Vec<u32> },
    /// The set already has a view of this length, packed otherwise.
    #[error("{}: seq_len {seq_len} is already packed with {existing}, not {requested}", dir.display())]
    ViewExists { dir: PathBuf, seq_len: u32, existing: String, requested: String },
    /// A view was asked to fill a row from a split it was not built on.
    #[error("the view of split {view:?} cannot serve rows of split {split:?}")]
    WrongSplit { view: String, split: String },
    /// A document number is past the end of its split.
    #[error("split {split:?} has {num_documents} documents, none numbered {document}")]
    DocumentOutOfRange { split: String, document: u64, num_documents: u64 },
    /// A row number is past the end of its view.
    #[error("{}: has {num_rows} rows, none numbered {row}", path.display())]
    RowOutOfRange { path: PathBuf, row: u64, num_rows: u64 },

    // Documents that cannot be taken. `document` counts from 0 in the order of `push`.
    /// A token id is not in the vocabulary.
    #[error("document {document}, token {position}: id {id} is outside the vocabulary of {vocab_size}")]
    TokenOutOfRange { document: u64, position: u64, id: TokenId, vocab_size: u32 },
    /// A document does not end in the end-of-document id.
    #[error("document {document}: does not end in the end-of-document id {eod} ({})", ending(*last))]
    MissingEod { document: u64, eod: TokenId, last: Option<TokenId> },
    /// A document is longer than the index can say (lengths there are 32-bit signed).
    #[error("document {document}: {tokens} tokens, the index holds at most {}", i32::MAX)]
    DocumentTooLong { document: u64, tokens: u64 },
    /// There are more domains than a 16-bit index can name.
    #[error("document {document}: domain {domain:?} is one too many, a set holds at most {}", u32::from(u16::MAX) + 1)]
    TooManyDomains { document: u64, domain: String },
    /// An earlier write failed, so that the files no longer agree with one another.
    #[error("{}: an earlier write failed, the set cannot be finished", dir.display())]
    BrokenWriter { dir: PathBuf },

    /// The documents are not those that an interrupted run in the directory had been given.
    #[error("{}: the input is not that of the interrupted run: shard {shard} comes out otherwise", dir.display())]
    OtherInput { dir: PathBuf, shard: String },

    // Conversion.
    /// Nothing at the path has a name or a beginning that a format of token files has.
    #[error("{}: no token files of a format that is known", path.display())]
    UnknownFormat { path: PathBuf },
    /// The path holds no files of the format that was asked for.
    #[error("{}: no {format} token files", path.display())]
    NothingToImport { path: PathBuf, format: &'static str },
    /// The format has no way to say what the set holds.
    #[error("{format} files cannot hold this set: {problem}")]
    CannotExport { format: &'static str, problem: String },
    /// A number in a token file is no id of the vocabulary.
    #[error("{}: byte {offset}: the id is {got}, outside the vocabulary of {vocab_size}", path.display())]
    BadToken { path: PathBuf, offset: u64, got: String, vocab_size: u32 },

    // Files that are not what they should be.
    /// The directory holds no `manifest.json`.
    #[error("{}: not a shard set, there is no manifest.json", dir.display())]
    NotAShardSet { dir: PathBuf },
    /// The directory holds the remains of a run that did not finish.
    #[error("{}: incomplete shard set, the run that wrote it did not finish", dir.display())]
    Incomplete { dir: PathBuf },
    /// A JSON file does not parse, or lacks a field.
    #[error("{}: not a valid manifest", path.display())]
    BadManifest { path: PathBuf, source: serde_json::Error },
    /// The file was written by a version of the format this build does not know.
    #[error("{}: format version {found} is not supported (this build reads version {supported})", path.display())]
    UnsupportedVersion { path: PathBuf, found: u64, supported: u64 },
    /// The file does not begin with the bytes that mark its kind.
    #[error("{}: not a {kind} file (it begins with {got:?}, expected {expected:?})", path.display())]
    WrongMagic { path: PathBuf, kind: &'static str, expected: String, got: String },
    /// The file has another length than its manifest or header says.
    #[error("{}: {got} bytes, expected {expected}", path.display())]
    WrongSize { path: PathBuf, expected: u64, got: u64 },
    /// A field of the file contradicts the manifest.
    #[error("{}: {field} is {got}, expected {expected}", path.display())]
    WrongField { path: PathBuf, field: &'static str, expected: String, got: String },
    /// The bytes of the file are not the bytes that were written.
    #[error("{}: bad checksum (got {got}, expected {expected})", path.display())]
    BadChecksum { path: PathBuf, expected: String, got: String },
    /// An entry inside the file points where nothing is.
    #[error("{}: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    /// A view does not hold each token as often as its policy promises: a bug in the packer.
    #[error("{}: the token balance is off: {problem}; this is a bug in curate", path.display())]
    Unbalanced { path: PathBuf, problem: String },
}

impl Error {
    /// What to do about it, where there is something; one line, no full stop.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::AlreadyComplete { .. } => {
                Some("choose another directory, or --force to replace what is there".to_owned())
            }
            Error::ForeignFile { .. } => Some("choose an empty directory, or move the file away".to_owned()),
            Error::Busy { .. } => Some("wait for the other process, or choose another directory".to_owned()),
            Error::BadSplits { .. } => {
                Some("write NAME=SHARE pairs such as val=0.05,test=0.01; the rest is train".to_owned())
            }
            Error::BadMix { .. } => Some(
                "write NAME=SHARE pairs such as web=0.6,code=0.3,books=0.1:4, where :4 allows four epochs; names are the \
                 sources of the documents (`curate inspect SHARDS` lists them)"
                    .to_owned(),
            ),
            Error::UnknownView { seq_len, .. } => Some(format!(
                "make one with `curate pack --seq-len {seq_len}`, or train with a length that is there"
            )),
            Error::ViewExists { .. } => {
                Some("a set holds one view per length; choose another --seq-len, or --force to replace it".to_owned())
            }
            Error::TokenOutOfRange { .. } => {
                Some("the documents were made by another tokenizer than the one given".to_owned())
            }
            Error::UnknownFormat { .. } => Some(
                "curate, megatron, nanogpt, llmc, olmo, datatrove and mds are known; name one with --from"
                    .to_owned(),
            ),
            Error::NothingToImport { .. } => {
                Some("give the directory, the file or the Megatron prefix that holds them".to_owned())
            }
            Error::BadToken { .. } => Some(
                "another tokenizer made the ids, or they are of another width (--token-bytes)".to_owned(),
            ),
            Error::OtherInput { .. } => {
                Some("give the same input again to go on with it, or --restart to begin afresh".to_owned())
            }
            Error::MissingEod { .. } => Some("`curate tokenize` appends the id to every document".to_owned()),
            Error::Incomplete { .. } => {
                Some("run the command that wrote it again; it goes on after the last finished shard".to_owned())
            }
            Error::NotAShardSet { .. } => Some("give the directory that `curate pack` wrote".to_owned()),
            Error::UnsupportedVersion { found, supported, .. } if found > supported => {
                Some("it was written by a newer curate; use that one".to_owned())
            }
            Error::WrongSize { expected, got, .. } if got < expected => {
                Some("the file is truncated; copy it again or write the set anew".to_owned())
            }
            Error::BadManifest { .. }
            | Error::WrongMagic { .. }
            | Error::WrongSize { .. }
            | Error::WrongField { .. }
            | Error::BadChecksum { .. }
            | Error::Damaged { .. } => Some(
                "the file was changed or damaged after it was written; copy it again or write the set anew"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Closure for `map_err` that says which file could not be opened, read, written, …
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Error {
        Error::Damaged { path: path.to_owned(), problem: problem.into() }
    }
}

/// Fails with both values in the message unless a field has the value that was promised.
pub(crate) fn expect_field<T: PartialEq + ToString>(
    path: &Path,
    field: &'static str,
    expected: T,
    got: T,
) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::WrongField {
        path: path.to_owned(),
        field,
        expected: expected.to_string(),
        got: got.to_string(),
    })
}

fn list(numbers: &[u32]) -> String {
    match numbers {
        [] => "none".to_owned(),
        _ => numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn ending(last: Option<TokenId>) -> String {
    last.map_or_else(|| "it is empty".to_owned(), |id| format!("its last id is {id}"))
}
