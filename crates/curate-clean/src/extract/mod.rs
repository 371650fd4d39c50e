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
use links::drop_navigation;
use metadata::PageFacts;
use pool::{Failure, Pool};
use serialize::{Block, render};

/// Name of the threads that pages are extracted on.
///
/// A panic of a library there is caught and counted, but the panic hook still runs first: a program that wants no
/// message on stderr for it installs a hook that is silent on threads of this name.
pub const EXTRACT_THREAD: &str = "curate-extract";

/// An engine that found less than this share of the page's text is not believed, in percent.
const MIN_SHARE_PERCENT: u64 = 50;
/// What an engine must find, in bytes without white space, where nothing but furniture is seen: about 25 words.
const MIN_INK: u64 = 125;

/// Who decides what the main text of a page is.
///
/// [`Engine::Text`] is the default: it has the best mean word F1 over pages of seven types and is the fastest
/// (`benches/extract/README.md`). On articles Readability is a little better and lets half as much boilerplate pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Mozilla's Readability (crate `dom_smoothie`): one article, found by scores.
    Readability,
    /// Trafilatura's rules (crate `trafilatura`). Slower.
    Trafilatura,
    /// All visible text but navigation and the like.
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
        ExtractOptions { engine: Engine::Text, max_nodes: 200_000, max_millis: 10_000 }
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

/// Asks the engine, and the ones after it while the answer is implausibly little.
fn choose(html: &str, document: Document, dom: &Dom, engine: Engine) -> (Vec<Block>, &'static str) {
    let whole = drop_navigation(page::page_blocks(dom));
    let mut document = Some(document);
    let order: &[Engine] = match engine {
        Engine::Text => &[],
        Engine::Readability => &[Engine::Readability],
        Engine::Trafilatura => &[Engine::Trafilatura, Engine::Readability],
        Engine::Union => &[Engine::Union],
    };
    for &engine in order {
        let readability = || document.take().map_or_else(Vec::new, engines::readability);
        let found = drop_navigation(ask(engine, html, readability));
        if is_enough(ink(&found), ink(&whole)) {
            return (found, engine.name());
        }
    }
    (whole, Engine::Text.name())
}

fn ask(engine: Engine, html: &str, readability: impl FnOnce() -> Vec<Block>) -> Vec<Block> {
    match engine {
        Engine::Readability => readability(),
        Engine::Trafilatura => engines::trafilatura(html),
        Engine::Union => union::union(engines::trafilatura(html), readability()),
        Engine::Text => Vec::new(),
    }
}

fn ink(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| u64::from(block.ink)).sum()
}

/// Whether an engine's text is plausible beside all the text of the page that is not furniture.
///
/// An article is most of its page's text. Where an engine has less than half, it picked one part of a page that
/// has several: a product, a list of teasers, the first post of a thread.
fn is_enough(found: u64, whole: u64) -> bool {
    if whole == 0 {
        return found >= MIN_INK;
    }
    found * 100 >= whole * MIN_SHARE_PERCENT
}

fn with_facts(text: String, facts: &PageFacts, engine: &'static str) -> MainText {
    MainText { text, title: facts.title(), date: facts.date(), lang: facts.lang(), engine }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extractor(engine: Engine) -> PageExtractor {
        PageExtractor::new(ExtractOptions { engine, ..ExtractOptions::default() })
    }

    /// An article amid furniture, with the shapes that a serializer must not lose.
    fn article() -> String {
        let prose = "The river rose in the night, and by morning the lower fields, the road and the old \
                     bridge were under water, so that nobody could reach the mill before noon. ";
        format!(
            "<!doctype html><html lang=en><head><title>The flood</title>\
             <meta property='article:published_time' content='2024-05-06T07:08:09Z'></head><body>\
             <nav><ul><li><a href=/>Home</a><li><a href=/n>News</a></ul></nav>\
             <article><h1>The flood</h1><p>{p}</p><p>{p}{p}</p>\
             <ul><li>first thing that was lost in it</li><li>second thing that was lost</li></ul>\
             <table><tr><th>day</th><th>level</th></tr><tr><td>Monday</td><td>3.1</td></tr></table>\
             <pre>for day in week:\n    measure(day)\n</pre><p>{p}{p}</p></article>\
             <footer><p>All rights reserved.</p></footer></body></html>",
            p = prose
        )
    }

    #[test]
    fn names_and_engines_are_the_same_list() {
        for engine in Engine::ALL {
            assert_eq!(engine.to_string().parse(), Ok(engine));
        }
        let error = "Text".parse::<Engine>().expect_err("names are lower case").to_string();
        assert!(Engine::ALL.iter().all(|engine| error.contains(engine.name())), "{error}");
    }

    #[test]
    fn every_engine_finds_an_article_with_its_shapes() {
        for engine in Engine::ALL {
            let PageText::Text(found) = extractor(engine).extract(&article(), None) else {
                panic!("{engine}: no text")
            };
            assert_eq!(found.engine, engine.name());
            assert_eq!(found.title.as_deref(), Some("The flood"));
            assert_eq!(found.date.as_deref(), Some("2024-05-06"));
            assert_eq!(found.lang.as_deref(), Some("en"));
            for wanted in
                ["The river rose", "- first thing that was lost in it\n- second", "| Monday | 3.1 |"]
            {
                assert!(found.text.contains(wanted), "{engine} lacks {wanted:?}:\n{}", found.text);
            }
            assert!(
                found.text.contains("```\nfor day in week:\n    measure(day)\n```"),
                "{engine}:\n{}",
                found.text
            );
            for furniture in ["Home", "rights reserved", "<"] {
                assert!(!found.text.contains(furniture), "{engine} kept {furniture:?}:\n{}", found.text);
            }
        }
    }

    #[test]
    fn an_engine_that_finds_too_little_is_not_believed() {
        let teaser = |n| {
            format!("<div class=card><h3>Thing {n}</h3><div>Made of wood, number {n} of many</div></div>")
        };
        let page: String = (0..60).map(teaser).collect();
        for engine in Engine::ALL {
            let PageText::Text(found) = extractor(engine).extract(&page, None) else {
                panic!("{engine}: no text")
            };
            assert!(found.text.contains("number 0 of") && found.text.contains("number 59 of"), "{engine}");
        }
        assert!(is_enough(50, 100) && !is_enough(49, 100) && !is_enough(124, 0) && is_enough(125, 0));
    }

    #[test]
    fn pages_without_text_are_set_aside() {
        for engine in Engine::ALL {
            for page in [
                "",
                " \n",
                "<html><body></body></html>",
                "<script>let x = 1</script>",
                "<nav><a href=/>a</a></nav>",
            ] {
                let found = extractor(engine).extract(page, None);
                assert_eq!(found, PageText::SetAside("no_main_text"), "{engine}: {page}");
            }
        }
    }

    #[test]
    fn a_page_too_large_is_not_parsed() {
        let extractor = PageExtractor::new(ExtractOptions { max_nodes: 10, ..ExtractOptions::default() });
        assert_eq!(extractor.extract(&"<p>x".repeat(11), None), PageText::SetAside("page_too_large"));
        assert!(matches!(extractor.extract(&"<p>x".repeat(10), None), PageText::Text(_)));
    }

    #[test]
    fn a_page_that_takes_too_long_is_given_up() {
        let options = ExtractOptions { engine: Engine::Union, max_millis: 1, ..ExtractOptions::default() };
        let page = "<p>Some words, and a <b>few</b> more.".repeat(20_000);
        assert_eq!(
            PageExtractor::new(options).extract(&page, None),
            PageText::SetAside("extraction_timeout")
        );
    }

    #[test]
    fn hostile_pages_end_without_a_panic() {
        let article = article();
        let mut pages = vec![
            "<div>".repeat(100_000) + "deep",
            "<div>".repeat(2_000) + "deep",
            "<table><tr>".repeat(90_000) + "deep",
            "<table><tr><td>".repeat(300) + "deep",
            "<ul><li>".repeat(1_000) + "deep",
            "<b><p>".repeat(1_000) + "deep",
            "<a href=x>".repeat(5_000) + "deep",
            "<".repeat(50_000),
            "&".repeat(50_000),
            "<!--".repeat(20_000),
            "<pre>".repeat(1_000) + "\n\n",
            "<svg><title>".repeat(500),
            "<template><p>x".repeat(500),
            "<select><option>".repeat(2_000),
            "\u{0}\u{feff}\u{202e}<p>\u{1f600}</p>".repeat(100),
        ];
        pages.extend((0..article.len()).step_by(97).filter_map(|at| article.get(..at)).map(str::to_owned));
        for engine in Engine::ALL {
            let extractor = extractor(engine);
            for page in &pages {
                let found = extractor.extract(page, None);
                let start: String = page.chars().take(40).collect();
                assert_ne!(found, PageText::SetAside("extraction_failed"), "{engine}: {start}");
                assert_ne!(found, PageText::SetAside("extraction_timeout"), "{engine}: {start}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_text_is_a_page_and_gives_the_same_again(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "<p>", "</p>", "<div class=nav>", "</div>", "<table>", "<tr><td>", "</table>", "<li>", "<ol start=7>",
                    "<pre>", "</pre>", "<a href=x>", "</a>", "<br>", "<b>", "</b>", "<main>", "<article>", "</article>",
                    "<noscript>", "some words of text, ", "\u{a0}", "&nbsp;", "&#0;", "<td colspan=3>", "<h1>", "<code>", "|\n",
                    "<style>", "<!--", "-->", "<textarea>", "<template>", "<svg>", "<math><mi>", "<frameset>", "語",
                ]),
                0..60,
            ),
        ) {
            let page = String::from_utf8_lossy(&bytes).into_owned() + &pieces.concat();
            for engine in Engine::ALL {
                let found = extractor(engine).extract(&page, None);
                prop_assert_ne!(&found, &PageText::SetAside("extraction_failed"));
                prop_assert_eq!(&found, &extractor(engine).extract(&page, None));
                if let PageText::Text(found) = found {
                    prop_assert!(!found.text.is_empty() && !found.text.ends_with('\n'), "{:?}", found.text);
                }
            }
        }
    }
}
