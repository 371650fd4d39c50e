//! Which language is a text in?
//!
//! [`LanguageId`] answers from a model that is part of the program: naive Bayes over byte n-grams for 139 classes, with a
//! table of scripts in front for the languages that have a script to themselves. Long texts are judged by a sample of
//! bounded size, so the cost of a document has a bound too. [`LanguageRule`] turns the answer into a verdict.
//!
//! ```
//! use curate_clean::{LanguageId, LanguageScratch};
//!
//! let mut scratch = LanguageScratch::default();
//! let found = LanguageId::embedded().identify("Der Hund schläft unter dem Tisch.", &mut scratch);
//! assert_eq!(found.language.as_str(), "de");
//! ```

mod identify;
mod rule;
mod codes;
mod sample;
mod script;
mod model;

pub use codes::{LanguageCode, LanguageTag, UnknownLanguage};
pub use identify::{Identified, LanguageId, LanguageModel, LanguageScratch};
pub use rule::LanguageRule;
pub use sample::SampleOptions;
pub use script::Script;
