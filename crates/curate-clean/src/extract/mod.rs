//! The main text of a web page.
//!
//! An [`Engine`] decides what the main text is; everything else is the same for all of them: the page is measured
//! before it is parsed, the engine's content becomes text by one serializer, navigation that is left in it is
//! dropped by its links, and title, date and language are read by one set of rules. A page on which an engine finds
//! next to nothing is given to the next one, and [`MainText::engine`] says whose text it is.
//!
//! What comes out depends on the page and the options alone, with one exception: [`ExtractOptions::max_millis`]
//! gives up on pages that take too long, and how long a page takes depends on the machine. Set it to 0 where runs
//! must agree to the byte.

mod boilerplate;
mod dom;
mod engines;
mod guard;
mod links;
mod metadata;
mod page;
mod pool;
mod serialize;
mod union;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use dom_query::Document;

use dom::Dom;
use links::{drop_navigation, prose_ink};
use metadata::PageFacts;
use pool::{Failure, Pool};
use serialize::{Block, render};

/// Name of the threads that pages are extracted on; a panic hook can tell a library's panic by it.
pub const EXTRACT_THREAD: &str = "curate-extract";

/// Who decides what the main text of a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Mozilla's Readability (crate `dom_smoothie`): one article, found by scores. Fast.
    Readability,
    /// Trafilatura's rules (crate `trafilatura`). Slower.
    Trafilatura,
    /// All visible text but navigation and the like. Fastest, and the most complete.
    Text,
    /// Trafilatura's blocks with those that only Readability found at their place.
    Union,
}

impl Engine {
    pub const ALL: [Engine; 4] = [Engine::Readability, Engine::Trafilatura, Engine::Text, Engine::Union];

    pub fn name(self) -> &'static str {
        match self {
            Engine::Readability => "readability",
            Engine::Trafilatura => "trafilatura",
            Engine::Text => "text",
            Engine::Union => "union",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No engine of this name; the message lists those there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no extraction engine is called \"{0}\"; there are readability, trafilatura, text, union")]
pub struct UnknownEngine(pub String);

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        Engine::ALL
            .into_iter()
            .find(|engine| engine.name() == name)
            .ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

#[derive(Debug, Clone)]
pub struct ExtractOptions {
    pub engine: Engine,
    /// Pages with more tags than this are set aside unparsed. Nesting deeper than 5 000 and format elements that
    /// would multiply in the parser count as too large, too.
    pub max_nodes: usize,
    /// Wall time a page may take in milliseconds; 0 for no limit.
    pub max_millis: u64,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        ExtractOptions { engine: Engine::Readability, max_nodes: 200_000, max_millis: 10_000 }
    }
}

/// The main text of a page and what the page says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainText {
    /// Paragraphs separated by blank lines, without a final line break.
    pub text: String,
    pub title: Option<String>,
    /// Date of publication as `YYYY-MM-DD`, if the page declares one.
    pub date: Option<String>,
    /// Language tag that the page declares, such as `en` or `de-CH`.
    pub lang: Option<String>,
    /// The engine that gave the text: the one asked for, or the one fallen back to.
    pub engine: &'static str,
}

/// What became of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageText {
    Text(MainText),
    /// There is no text to give: `no_main_text`, `page_too_large`, `extraction_timeout` or `extraction_failed`
    /// (a library panicked).
    SetAside(&'static str),
}

/// Extracts pages; any thread may call it, and it keeps helper threads for its callers.
pub struct PageExtractor {
    options: ExtractOptions,
    pool: Pool<Option<MainText>>,
}

impl PageExtractor {
    pub fn new(options: ExtractOptions) -> Self {
        PageExtractor { options, pool: Pool::new(EXTRACT_THREAD) }
    }

    /// The main text of a page, or why there is none. The address is not needed by any engine so far.
    pub fn extract(&self, html: &str, _url: Option<&str>) -> PageText {
        if guard::is_too_large(html, self.options.max_nodes) {
            return PageText::SetAside("page_too_large");
        }
        let engine = self.options.engine;
        let page = html.to_owned();
        let limit = (self.options.max_millis > 0).then(|| Duration::from_millis(self.options.max_millis));
        match self.pool.run(limit, move || main_text(&page, engine)) {
            Ok(Some(text)) => PageText::Text(text),
            Ok(None) => PageText::SetAside("no_main_text"),
            Err(Failure::Overrun) => PageText::SetAside("extraction_timeout"),
            Err(Failure::Failed) => PageText::SetAside("extraction_failed"),
        }
    }
}

fn main_text(html: &str, engine: Engine) -> Option<MainText> {
    let document = Document::from(html);
    let (dom, facts) = Dom::of_page(&document);
    let (blocks, engine) = choose(html, document, &dom, engine);
    let text = render(&blocks);
    (!text.is_empty()).then(|| with_facts(text, &facts, engine))
}

fn choose(html: &str, document: Document, dom: &Dom, engine: Engine) -> (Vec<Block>, &'static str) {
    let blocks = match engine {
        Engine::Readability => engines::readability(document),
        Engine::Trafilatura => engines::trafilatura(html),
        Engine::Text => page::page_blocks(dom),
        Engine::Union => union::union(engines::trafilatura(html), engines::readability(document)),
    };
    let _ = prose_ink(&blocks);
    if std::env::var_os("NO_LINKS").is_some() {
        return (blocks, engine.name());
    }
    (drop_navigation(blocks), engine.name())
}

fn with_facts(text: String, facts: &PageFacts, engine: &'static str) -> MainText {
    MainText { text, title: facts.title(), date: facts.date(), lang: facts.lang(), engine }
}
