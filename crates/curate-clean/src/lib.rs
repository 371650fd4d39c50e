//! Is this text worth keeping? Main text of pages, normalising, statistics, rules.
//!
//! Statistics first, policy second: one pass over a text computes named numbers ([`statistics`] lists them), and a
//! [`Recipe`] is a list of rules that are expressions over the names (`stop_words_distinct < 2`). [`Cleaner`] is
//! the stage that puts both together: normalise the text, measure it, drop it for the first rule that fires, with
//! the rule, the value and the threshold as proof.
//!
//! Published filters with the same thresholds differ in what they count, so a recipe names the implementation that
//! it pins and the words it is computed on. Nothing here reads a file, a clock or the environment.

mod extract;
pub mod fasttext;
pub mod quality;
mod bytes;
mod clean;
pub mod decontaminate;
mod normalise;
mod mojibake;
mod chars;
mod words;
mod stats;
mod dialects;
mod expr;
mod recipe;
mod judge;
mod spans;
mod lang;
mod pii;
mod bad_words;
mod url_lists;
mod site_lines;
mod guards;
mod nearest;
mod error;

pub use bad_words::{BadWord, BadWords, BadWordsError, BadWordsOptions};
pub use clean::{CleanScratch, Cleaner, EMPTY, RuleOutcome};
pub use dialects::Edit;
pub use error::{Error, Result};
pub use expr::{Expression, ExpressionError, Problem};
pub use extract::{EXTRACT_THREAD, Engine, ExtractOptions, MainText, PageExtractor, PageText, UnknownEngine};
pub use guards::{
    Asked, BadWordStage, LanguageStage, LanguageStageScratch, LanguageTeller, PiiStage, SiteLineStage,
    UrlStage,
};
pub use judge::{Judge, values};
pub use lang::{
    Identified, LanguageCode, LanguageId, LanguageModel, LanguageRule, LanguageScratch, LanguageTag,
    SampleOptions, Script, UnknownLanguage,
};
pub use normalise::{Changes, Normaliser};
pub use pii::{Pii, PiiCounts, PiiKind, PiiMode, PiiOptions, PiiOutcome, PiiScratch, PiiSpan};
pub use recipe::{Recipe, Rule};
pub use site_lines::{SiteLines, SiteLinesError, SiteLinesLearner, SiteLinesOptions};
pub use spans::spans;
pub use stats::{Measurements, Measurer, StatisticInfo, statistics};
pub use url_lists::{BlockedUrl, UrlListTexts, UrlLists, host};
pub use words::Words;
