//! Each engine's view of a page as blocks.

use dom_query::Document;
use dom_smoothie::{Config, Readability};

use super::dom::Dom;
use super::serialize::{Block, blocks};

/// Mozilla's Readability: the highest scoring subtree of paragraphs and its siblings.
///
/// Consumes the parsed page, which the library rewrites.
pub(crate) fn readability(document: Document) -> Vec<Block> {
    let config = Config { disable_json_ld: true, ..Config::default() };
    // The address would only make links absolute, and links are not kept.
    let Ok(mut readability) = Readability::with_document(document, None, Some(config)) else {
        return Vec::new();
    };
    match readability.parse() {
        Ok(article) => content_blocks(&article.content),
        Err(_) => Vec::new(),
    }
}

/// Trafilatura's rules: known containers, then paragraphs by rule, then fallbacks.
pub(crate) fn trafilatura(html: &str) -> Vec<Block> {
    // Dates are ours (`metadata.rs`), links are kept so that navigation can be told by them, and its own fallbacks
    // are off: they double its time, and the engines that follow here do no worse (`benches/extract/README.md`).
    let options = trafilatura::Options::default()
        .with_fallback(false)
        .with_links(true)
        .with_html_date_mode(trafilatura::HtmlDateMode::Disabled);
    match trafilatura::extract(html, &options) {
        Ok(result) => {
            let mut found = content_blocks(&result.content_html);
            found.extend(content_blocks(&result.comments_html));
            found
        }
        Err(_) => Vec::new(),
    }
}

fn content_blocks(html: &str) -> Vec<Block> {
    blocks(&Dom::of_content(html), |_, node| node.hidden)
}
