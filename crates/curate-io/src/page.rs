//! Web pages: what a record of one holds, and the interface to whoever finds its main text.

/// A page, decoded.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    pub html: &'a str,
    pub url: Option<&'a str>,
}

/// What an [`Extractor`] made of a page.
#[derive(Debug, Clone, PartialEq)]
pub enum Extraction {
    Text(MainText),
    /// The page has no text to give, for a reason that is counted: `no_main_text`, `page_too_large`.
    SetAside(&'static str),
}

/// The main text of a page and what the page says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MainText {
    pub text: String,
    pub title: Option<String>,
    /// Date of publication as `YYYY-MM-DD`, if the page names one.
    pub date: Option<String>,
    /// Language tag that the page declares.
    pub lang: Option<String>,
}

/// Finds the main text of pages; any thread may call it.
///
/// What it returns must depend on the page alone.
pub trait Extractor: Send + Sync {
    fn extract(&self, page: Page<'_>) -> Extraction;
}
