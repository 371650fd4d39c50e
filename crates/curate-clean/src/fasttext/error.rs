//! What can be wrong with a fastText file.

/// A fastText model that cannot be used. Offsets count bytes from the start of the file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FastTextError {
    #[error("not a fastText model: expected the magic number 793712314, found {found}")]
    Magic { found: i32 },
    #[error("fastText version {found}; 11 and 12 can be read")]
    Version { found: i32 },
    #[error("the file ends at byte {offset}, within {what}")]
    Truncated { what: &'static str, offset: usize },
    #[error("{what} at byte {offset}: {found}, expected {expected}")]
    Bad { what: &'static str, offset: usize, found: String, expected: String },
    #[error("the model holds word vectors, not a classifier")]
    NotSupervised,
    #[error("training needs at least {needed} labels, found {found}")]
    TooFewLabels { needed: usize, found: usize },
}

impl FastTextError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Magic { .. } => {
                "models are files .bin or .ftz written by fastText; .vec files are not models".to_owned()
            }
            Self::Version { .. } => "save the model again with a current fastText".to_owned(),
            Self::Truncated { .. } => "the file is cut short: fetch or copy it again".to_owned(),
            Self::NotSupervised => "train it with `fasttext supervised`".to_owned(),
            Self::Bad { .. } => "the file is damaged: fetch or copy it again".to_owned(),
            Self::TooFewLabels { .. } => return None,
        })
    }
}
