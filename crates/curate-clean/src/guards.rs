//! Stages around the rules: what the address, the language, a list of words and personal data say of a document.
//!
//! Each looks at one document at a time, counts what it found, and drops with a reason and a proof.

use std::sync::Arc;

use curate_core::{Counters, Document, Dropped, Mapper, Never, Value, Verdict, Work};

use crate::fasttext::{Model, Newlines, PredictScratch};
use crate::{
    BadWords, Identified, LanguageCode, LanguageId, LanguageRule, LanguageScratch, LanguageTag, Pii,
    PiiScratch, Script, SiteLines, UrlLists,
};

/// Something that a document is asked for: its address.
pub type Asked = Box<dyn Fn(&Document<'_>) -> Option<String> + Send + Sync>;

/// Drops documents whose address is on a list. A document without an address stays.
pub struct UrlStage {
    pub lists: UrlLists,
    pub url: Asked,
}

impl Mapper for UrlStage {
    type Work = Never;
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, _: &mut (), counters: &mut Counters) -> Work<Never> {
        let Some(url) = (self.url)(doc) else {
            counters.add("without_url", 1);
            return Work::keep();
        };
        match self.lists.check(&url) {
            None => Work::keep(),
            Some(blocked) => {
                let proof = vec![("url", Value::Text(url)), ("entry", Value::Text(blocked.proof))];
                Work::Decided(Verdict::Drop(Dropped { reason: Arc::from(blocked.reason), proof }))
            }
        }
    }
}

/// Who tells languages.
#[derive(Debug)]
pub enum LanguageTeller {
    Embedded,
    FastText(Box<Model>, Newlines),
}

/// Identifies the language of each document: writes it into a field, and drops what is not wanted.
#[derive(Debug)]
pub struct LanguageStage {
    pub teller: LanguageTeller,
    pub rule: Option<LanguageRule>,
    /// Dotted path of the field for the code; `_score` is appended for that of the score.
    pub field: Option<String>,
}

/// Buffers of [`LanguageStage`].
#[derive(Debug, Default)]
pub struct LanguageStageScratch {
    embedded: LanguageScratch,
    fasttext: PredictScratch,
}

impl LanguageStage {
    fn identify(&self, text: &str, scratch: &mut LanguageStageScratch) -> Identified {
        match &self.teller {
            LanguageTeller::Embedded => LanguageId::embedded().identify(text, &mut scratch.embedded),
            LanguageTeller::FastText(model, newlines) => {
                let found = model.predict(text, *newlines, 2, 0.0, &mut scratch.fasttext);
                let mut tags = found.iter().map(|prediction| {
                    let tag = LanguageTag::parse(&model.labels()[prediction.label]).ok();
                    (tag, prediction.probability.min(1.0))
                });
                let (first, second) = (tags.next(), tags.next());
                let code = |tag: Option<LanguageTag>| tag.map_or(LanguageCode::UND, |tag| tag.language);
                Identified {
                    language: first.map_or(LanguageCode::UND, |(tag, _)| code(tag)),
                    script: first.and_then(|(tag, _)| tag?.script).unwrap_or(Script::NONE),
                    score: first.map_or(0.0, |(_, score)| score),
                    runner_up: second.map(|(tag, score)| (code(tag), score)),
                    second: None,
                    other_share: 0.0,
                }
            }
        }
    }
}

impl Mapper for LanguageStage {
    type Work = Never;
    type Scratch = LanguageStageScratch;

    fn map(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut LanguageStageScratch,
        counters: &mut Counters,
    ) -> Work<Never> {
        let found = self.identify(doc.text(), scratch);
        counters.add("mixed_languages", u64::from(found.mixed()));
        if let Some(field) = &self.field {
            doc.set_field(field, format!("\"{}\"", found.tag()));
            doc.set_field(&format!("{field}_score"), format!("{:.4}", found.score));
        }
        Work::Decided(self.rule.as_ref().map_or(Verdict::Keep, |rule| rule.judge(&found)))
    }
}

/// Takes the lines out that many pages of a document's site have.
pub struct SiteLineStage {
    pub lines: SiteLines,
    pub url: Asked,
}

impl Mapper for SiteLineStage {
    type Work = Never;
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, _: &mut (), counters: &mut Counters) -> Work<Never> {
        let Some(url) = (self.url)(doc) else {
            counters.add("without_url", 1);
            return Work::keep();
        };
        if let Some(host) = crate::host(&url) {
            let (text, cut) = self.lines.apply(&host, doc.text());
            if cut > 0 {
                counters.add("site_lines_cut", u64::from(cut));
                let text = text.into_owned();
                if text.trim().is_empty() {
                    let proof = vec![("lines", Value::Count(u64::from(cut)))];
                    return Work::Decided(Verdict::Drop(Dropped { reason: "only_site_lines".into(), proof }));
                }
                doc.set_text(text);
            }
        }
        Work::keep()
    }
}

/// Drops documents with a phrase of a list.
#[derive(Debug)]
pub struct BadWordStage(pub BadWords);

impl Mapper for BadWordStage {
    type Work = Never;
    type Scratch = String;

    fn map(&self, doc: &mut Document<'_>, lowered: &mut String, counters: &mut Counters) -> Work<Never> {
        match self.0.check(doc.text(), lowered) {
            None => Work::keep(),
            Some(found) if !found.is_dropped => {
                counters.add("bad_words_kept", 1);
                Work::keep()
            }
            Some(found) => {
                let mut proof = vec![("phrase", Value::Text(found.phrase.to_owned()))];
                if found.ratio > 0.0 {
                    proof.push(("ratio", Value::Number(found.ratio)));
                }
                Work::Decided(Verdict::Drop(Dropped { reason: "bad_words".into(), proof }))
            }
        }
    }
}

/// Scrubs personal data and keys.
#[derive(Debug)]
pub struct PiiStage(pub Pii);

impl Mapper for PiiStage {
    type Work = Never;
    type Scratch = PiiScratch;

    fn map(&self, doc: &mut Document<'_>, scratch: &mut PiiScratch, counters: &mut Counters) -> Work<Never> {
        let outcome = self.0.scrub(doc.text(), scratch);
        outcome.counts.count(counters);
        if let Some(kind) = outcome.drop {
            let proof = vec![("found", Value::Count(u64::from(outcome.counts.of(kind))))];
            return Work::Decided(Verdict::Drop(Dropped { reason: kind.reason().into(), proof }));
        }
        if let std::borrow::Cow::Owned(text) = outcome.text {
            doc.set_text(text);
        }
        Work::keep()
    }
}
