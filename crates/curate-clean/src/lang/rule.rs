//! From an identified language to a verdict.

use curate_core::{Dropped, Value, Verdict};

use super::{Identified, LanguageTag, UnknownLanguage};

/// Which languages stay, and how sure the identification must be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LanguageRule {
    /// Languages that stay; none given: all stay.
    pub allow: Vec<LanguageTag>,
    /// A document with a smaller score is dropped, 0..=1.
    pub min_score: f32,
}

impl LanguageRule {
    /// A rule from codes as people write them: `de`, `deu`, `sr-Latn`, `zho_Hans`. An unknown code is an error.
    pub fn new<'c>(
        allow: impl IntoIterator<Item = &'c str>,
        min_score: f32,
    ) -> Result<Self, UnknownLanguage> {
        let allow = allow.into_iter().map(LanguageTag::parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { allow, min_score })
    }

    /// Drops for `language` (another language; proof: language, score, the languages expected) or for `language_score`
    /// (the right one, but not surely; proof: language, score, threshold).
    pub fn judge(&self, found: &Identified) -> Verdict {
        let facts = || {
            let language = Value::Text(found.tag().to_string());
            vec![("language", language), ("score", Value::Number(f64::from(found.score)))]
        };
        if !self.allow.is_empty() && !self.allow.iter().any(|tag| tag.covers(found.tag())) {
            let expected: Vec<String> = self.allow.iter().map(ToString::to_string).collect();
            let mut proof = facts();
            proof.push(("expected", Value::Text(expected.join(","))));
            return Verdict::Drop(Dropped { reason: "language".into(), proof });
        }
        if found.score < self.min_score {
            let mut proof = facts();
            proof.push(("threshold", Value::Number(f64::from(self.min_score))));
            return Verdict::Drop(Dropped { reason: "language_score".into(), proof });
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LanguageId, LanguageScratch};

    fn check(allow: &[&str], min_score: f32, text: &str, reason: Option<&str>) {
        let rule = LanguageRule::new(allow.iter().copied(), min_score).expect("codes are known");
        let found = LanguageId::embedded().identify(text, &mut LanguageScratch::default());
        match (rule.judge(&found), reason) {
            (Verdict::Keep, None) => {}
            (Verdict::Drop(dropped), Some(reason)) => {
                assert_eq!(&*dropped.reason, reason, "{text}");
                assert_eq!(dropped.proof.len(), 3);
                assert_eq!(dropped.proof[1], ("score", Value::Number(f64::from(found.score))));
            }
            (verdict, reason) => panic!("{text}: {verdict:?}, not {reason:?}"),
        }
    }

    #[test]
    fn drops_with_proof() {
        let english = "The committee will meet again on the first Monday of the next month.";
        check(&[], 0.0, english, None);
        check(&["en"], 0.5, english, None);
        check(&["eng"], 0.5, english, None);
        check(&["de", "eng_Latn"], 0.5, english, None);
        check(&["de", "fr"], 0.0, english, Some("language"));
        check(&["en"], 1.1, english, Some("language_score"));
        check(&["en"], 0.0, "12345", Some("language"));
        check(&[], 0.1, "12345", Some("language_score"));
        check(&["sr-Latn"], 0.0, "Влада је јуче усвојила нови закон о високом образовању.", Some("language"));
        check(&["sr"], 0.0, "Влада је јуче усвојила нови закон о високом образовању.", None);
    }
}
