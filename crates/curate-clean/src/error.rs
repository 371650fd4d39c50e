//! What can be wrong with a recipe.

use crate::expr::{ExpressionError, Problem};

pub type Result<T> = std::result::Result<T, Error>;

/// A recipe, or a change to one, that cannot be used. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("there is no recipe called `{name}`")]
    UnknownRecipe { name: String, nearest: Option<&'static str>, known: &'static [&'static str] },
    #[error("recipe {recipe}, line {line}: {message}")]
    Syntax { recipe: String, line: usize, message: String },
    #[error("recipe {recipe}, line {line}: unknown key `{key}`")]
    UnknownKey {
        recipe: String,
        line: usize,
        key: String,
        nearest: Option<&'static str>,
        known: &'static [&'static str],
    },
    #[error("recipe {recipe}, line {line}: `{key}` is missing")]
    MissingKey { recipe: String, line: usize, key: &'static str },
    #[error("recipe {recipe}, line {line}: `{key}` must be {expected}, not {found}")]
    Unsuitable { recipe: String, line: usize, key: String, expected: String, found: String },
    #[error("recipe {recipe}, line {line}: `{key} = \"{text}\"`: {error}")]
    Expression { recipe: String, line: usize, key: &'static str, text: String, error: Box<ExpressionError> },
    #[error("recipe {recipe}, line {line}: no rule uses the threshold `{name}`")]
    UnusedThreshold { recipe: String, line: usize, name: String },
    #[error(
        "recipe {recipe} edits the text (`{edit}`, before it asks for {reason}), and what its rules ask for after that \
         is not among the statistics"
    )]
    EditsText { recipe: String, edit: &'static str, reason: String },
    #[error("`{setting}` is not NAME=NUMBER")]
    Setting { setting: String },
    #[error("recipe {recipe} has no threshold called `{name}`")]
    UnknownThreshold { recipe: String, name: String, nearest: Option<String>, known: Vec<String> },
}

impl Error {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownRecipe { nearest: Some(nearest), .. }
            | Self::UnknownKey { nearest: Some(nearest), .. } => Some(did_you_mean(nearest)),
            Self::UnknownThreshold { nearest: Some(nearest), .. } => Some(did_you_mean(nearest)),
            Self::UnknownRecipe { known, .. } => Some(format!("there are {}", known.join(", "))),
            Self::UnknownKey { known, .. } => Some(format!("known keys are {}", known.join(", "))),
            Self::UnknownThreshold { known, .. } if known.is_empty() => {
                Some("it has no thresholds at all".to_owned())
            }
            Self::UnknownThreshold { known, .. } => Some(format!("it has {}", known.join(", "))),
            Self::UnusedThreshold { .. } => Some("use it in a rule or take it out".to_owned()),
            Self::EditsText { .. } => {
                Some("it can only be asked of texts: curate clean --recipe NAME".to_owned())
            }
            Self::Setting { .. } => Some("for example min_words=20".to_owned()),
            Self::Expression { error, .. } => match &error.problem {
                Problem::UnknownName { nearest: Some(nearest), .. } => Some(did_you_mean(nearest)),
                Problem::UnknownName { nearest: None, .. } => {
                    Some("names are those of the statistics and of the recipe's thresholds".to_owned())
                }
                _ => None,
            },
            Self::Syntax { .. } | Self::MissingKey { .. } | Self::Unsuitable { .. } => None,
        }
    }
}

fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}
