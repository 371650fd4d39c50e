//! What stands around the rules of `clean`: addresses and languages before them, words and personal data after.

use std::path::{Path, PathBuf};

use clap::Args;
use curate_clean::fasttext::{Model, Newlines};
use curate_clean::{
    BadWordStage, BadWords, BadWordsOptions, LanguageRule, LanguageStage, LanguageTeller, Pii, PiiKind,
    PiiMode, PiiOptions, PiiStage, SiteLineStage, SiteLines, UrlListTexts, UrlLists, UrlStage,
};
use curate_core::Stage;
use serde::Serialize;
use serde_json::json;

use crate::commands::dedup::url_of;
use crate::failure::{Failure, Result};

/// The options on what is no rule over statistics.
#[derive(Args, Debug, Clone, Serialize)]
#[command(next_help_heading = "Languages, addresses, words, personal data")]
pub(crate) struct GuardOptions {
    /// Keep only documents in these languages: `en`, `deu`, `sr-Latn`
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lang: Vec<String>,

    /// Drop documents whose language is less sure than this, 0 to 1
    #[arg(long, value_name = "SCORE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    min_lang_score: Option<f32>,

    /// Write the language to this field, and its score to FIELD_score
    #[arg(long, value_name = "FIELD")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lang_field: Option<String>,

    /// Tell languages by a fastText model (.bin, .ftz) instead of the embedded one
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lang_model: Option<PathBuf>,

    /// Drop documents of these domains, and of those below them
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    block_domains: Option<PathBuf>,

    /// Drop documents of these addresses
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    block_urls: Option<PathBuf>,

    /// Drop documents with one of these words in their address
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    block_url_words: Option<PathBuf>,

    /// Drop documents with two of these words in their address
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    block_url_soft_words: Option<PathBuf>,

    /// Cut the lines that many pages of a site share, as `curate clean site-lines` has learned them
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    site_lines: Option<PathBuf>,

    /// Drop documents with one of these phrases, one a line
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    bad_words: Option<PathBuf>,

    /// Drop them only if the phrases are more than this share of the text
    #[arg(long, value_name = "RATIO", requires = "bad_words")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bad_words: Option<f64>,

    /// What becomes of personal data and keys: off, token (<EMAIL>), mask or drop, for all kinds that are on by default (email,
    /// ipv4, ipv6, secret) or KIND=MODE for one, also phone, iban, card [default: as the recipe says]
    #[arg(long, value_name = "MODE|KIND=MODE", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pii: Vec<String>,
}

/// A stage around the rules.
pub(crate) enum Guard {
    Urls(UrlStage),
    Language(LanguageStage),
    SiteLines(SiteLineStage),
    BadWords(BadWordStage),
    Pii(PiiStage),
}

impl Guard {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Urls(_) => "clean_urls",
            Self::Language(_) => "clean_language",
            Self::SiteLines(_) => "clean_site_lines",
            Self::BadWords(_) => "clean_bad_words",
            Self::Pii(_) => "clean_pii",
        }
    }

    pub(crate) fn stage(&self) -> Stage<'_> {
        let name = self.name();
        match self {
            Self::Urls(stage) => Stage::filter(name, stage),
            Self::Language(stage) => Stage::filter(name, stage),
            Self::SiteLines(stage) => Stage::filter(name, stage),
            Self::BadWords(stage) => Stage::filter(name, stage),
            Self::Pii(stage) => Stage::filter(name, stage),
        }
    }
}

impl GuardOptions {
    /// Whether any is given.
    pub(crate) fn is_used(&self) -> bool {
        !self.lang.is_empty()
            || self.min_lang_score.is_some()
            || self.lang_field.is_some()
            || !self.pii.is_empty()
            || self.paths().next().is_some()
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let Self {
            lang_model,
            block_domains,
            block_urls,
            block_url_words,
            block_url_soft_words,
            site_lines,
            bad_words,
            ..
        } = self;
        [lang_model, block_domains, block_urls, block_url_words, block_url_soft_words, site_lines, bad_words]
            .into_iter()
            .flatten()
    }

    /// The stages before the rules and those after; `pii` is what the recipe does with personal data.
    pub(crate) fn prepare(&self, pii: PiiMode) -> Result<(Vec<Guard>, Vec<Guard>)> {
        let before = [self.urls()?, self.language()?, self.site_lines()?];
        let after = [self.bad_words()?, self.pii(pii)?];
        Ok((before.into_iter().flatten().collect(), after.into_iter().flatten().collect()))
    }

    /// The files that verdicts depend on, by size and time.
    pub(crate) fn files(&self) -> Result<serde_json::Value> {
        let marks = self.paths().map(|path| {
            let about = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
            let modified = about.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
            Ok(json!([path, about.len(), modified.map(|t| t.as_nanos().to_string())]))
        });
        Ok(json!(marks.collect::<Result<Vec<_>>>()?))
    }

    fn urls(&self) -> Result<Option<Guard>> {
        let read = |path: &Option<PathBuf>| path.as_deref().map_or(Ok(String::new()), read_text);
        let lists =
            [&self.block_domains, &self.block_urls, &self.block_url_words, &self.block_url_soft_words];
        if lists.iter().all(|path| path.is_none()) {
            return Ok(None);
        }
        let [domains, urls, hard_words, soft_words] = lists.map(read);
        let texts = UrlListTexts {
            domains: &domains?,
            urls: &urls?,
            hard_words: &hard_words?,
            soft_words: &soft_words?,
            subwords: "",
        };
        let lists = UrlLists::new(texts, 2).map_err(|e| Failure::new(e.to_string()))?;
        Ok(Some(Guard::Urls(UrlStage { lists, url: url_of()? })))
    }

    fn language(&self) -> Result<Option<Guard>> {
        let judges = !self.lang.is_empty() || self.min_lang_score.is_some();
        if !judges && self.lang_field.is_none() {
            return match &self.lang_model {
                Some(_) => Err(Failure::new("--lang-model is of no use alone")
                    .with_hint("say what to do with languages: --lang, --min-lang-score or --lang-field")),
                None => Ok(None),
            };
        }
        let codes = self.lang.iter().map(String::as_str);
        let rule = LanguageRule::new(codes, self.min_lang_score.unwrap_or(0.0))
            .map_err(|e| Failure::new(e.to_string()).with_hint(e.hint()))?;
        let teller = match &self.lang_model {
            None => LanguageTeller::Embedded,
            Some(path) => {
                let bytes = std::fs::read(path).map_err(|e| unreadable(path, &e))?;
                let model = Model::read(&bytes).map_err(|e| {
                    let failure = Failure::new(e.to_string());
                    let failure = match e.hint() {
                        Some(hint) => failure.with_hint(hint),
                        None => failure,
                    };
                    failure.context(format!("cannot use {}", path.display()))
                })?;
                LanguageTeller::FastText(Box::new(model), Newlines::Space)
            }
        };
        let rule = judges.then_some(rule);
        Ok(Some(Guard::Language(LanguageStage { teller, rule, field: self.lang_field.clone() })))
    }

    fn site_lines(&self) -> Result<Option<Guard>> {
        let Some(path) = &self.site_lines else { return Ok(None) };
        let bytes = std::fs::read(path).map_err(|e| unreadable(path, &e))?;
        let lines = SiteLines::from_bytes(&bytes)
            .map_err(|e| Failure::new(e.to_string()).context(format!("cannot use {}", path.display())))?;
        Ok(Some(Guard::SiteLines(SiteLineStage { lines, url: url_of()? })))
    }

    fn bad_words(&self) -> Result<Option<Guard>> {
        let Some(path) = &self.bad_words else { return Ok(None) };
        let options = BadWordsOptions { max_ratio: self.max_bad_words, ..BadWordsOptions::default() };
        let words = BadWords::new(&read_text(path)?, options)
            .map_err(|e| Failure::new(e.to_string()).context(format!("cannot use {}", path.display())))?;
        Ok(Some(Guard::BadWords(BadWordStage(words))))
    }

    fn pii(&self, by_recipe: PiiMode) -> Result<Option<Guard>> {
        let mut options = PiiOptions::all_in(by_recipe);
        for setting in &self.pii {
            match setting.split_once('=') {
                None => options = PiiOptions::all_in(pii_mode(setting)?),
                Some((kind, mode)) => {
                    let found = PiiKind::ALL.into_iter().find(|known| known.name() == kind);
                    let found = found.ok_or_else(|| {
                        let known = PiiKind::ALL.map(PiiKind::name).join(", ");
                        Failure::new(format!("`{kind}` is no kind of personal data"))
                            .with_hint(format!("there are {known}"))
                    })?;
                    *options.mode_mut(found) = pii_mode(mode)?;
                }
            }
        }
        let is_off = PiiKind::ALL.into_iter().all(|kind| options.mode(kind) == PiiMode::Off);
        Ok((!is_off).then(|| Guard::Pii(PiiStage(Pii::new(options)))))
    }
}

fn pii_mode(name: &str) -> Result<PiiMode> {
    Ok(match name {
        "off" => PiiMode::Off,
        "token" => PiiMode::Token,
        "mask" => PiiMode::Mask,
        "drop" => PiiMode::Drop,
        _ => {
            return Err(Failure::new(format!("`{name}` is nothing that can be done with personal data"))
                .with_hint("say off, token, mask or drop, or KIND=MODE such as email=mask"));
        }
    })
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(error.to_string()).context(format!("cannot read {}", path.display()))
}
