//! The `text` engine: all visible text of a page but its furniture.
//!
//! Furniture is left out by element (`nav`, `footer`, …), by role and by name, unless it holds more than a share of
//! the page: then the name is wrong about it (a wrapper called `has-sidebar`, a page inside one `form`).

use super::boilerplate::is_protected;
use super::dom::{Dom, Node, Tag};
use super::serialize::{Block, blocks};

/// An element named as furniture stays if it holds more than this share of the page's text, in percent.
const MAX_FURNITURE_PERCENT: u64 = 40;

/// The page as blocks, without furniture; links are not judged here.
pub(crate) fn page_blocks(dom: &Dom) -> Vec<Block> {
    let page = Page::of(dom);
    let found = blocks(dom, |index, node| page.leaves_out(index, node));
    if found.is_empty() {
        // Some pages are hidden until their scripts have run.
        return blocks(dom, |_, node| node.tag == Tag::Nav || node.tag == Tag::Footer);
    }
    found
}

struct Page {
    ink: u64,
    /// Half-open ranges of `main` and `article` elements, where a `header` belongs to the text.
    articles: Vec<(usize, usize)>,
}

impl Page {
    fn of(dom: &Dom) -> Self {
        let mut articles: Vec<(usize, usize)> = Vec::new();
        let mut ink = 0;
        for (index, node) in dom.nodes.iter().enumerate() {
            if node.tag == Tag::Text {
                ink += u64::from(node.ink);
            }
            let is_article = matches!(node.tag, Tag::Main | Tag::Article);
            if is_article && articles.last().is_none_or(|(_, end)| *end <= index) {
                articles.push((index, node.end as usize));
            }
        }
        Page { ink, articles }
    }

    fn leaves_out(&self, index: usize, node: &Node) -> bool {
        if is_protected(node.tag) {
            return false;
        }
        if node.hidden {
            return true;
        }
        let suspect = match node.tag {
            Tag::Nav | Tag::Footer | Tag::Aside | Tag::Form | Tag::Button => true,
            Tag::Header => !self.in_article(index) || node.furniture,
            _ => node.furniture,
        };
        suspect && u64::from(node.ink) * 100 <= self.ink * MAX_FURNITURE_PERCENT
    }

    fn in_article(&self, index: usize) -> bool {
        let at = self.articles.partition_point(|(start, _)| *start <= index);
        at > 0 && index < self.articles[at - 1].1
    }
}

#[cfg(test)]
mod tests {
    use super::super::serialize::render;
    use super::*;
    use dom_query::Document;

    fn check(html: &str, expected: &str) {
        let (dom, _) = Dom::of_page(&Document::from(html));
        assert_eq!(render(&page_blocks(&dom)), expected, "{html}");
    }

    #[test]
    fn furniture_is_left_out() {
        let body = "<p>The text of the page, which is longer than its furniture.</p>";
        let text = "The text of the page, which is longer than its furniture.";
        for furniture in [
            "<nav>Home</nav>",
            "<footer>(c)</footer>",
            "<header>Site</header>",
            "<div class='site-nav'>Home</div>",
            "<div role=navigation>Home</div>",
            "<div hidden>x</div>",
            "<p style='display: none'>x</p>",
            "<span class=sr-only>x</span>",
            "<select><option>x</select>",
            "<noscript>turn it on</noscript>",
            "<!-- x -->",
        ] {
            check(&format!("{furniture}{body}"), text);
        }
        check(&format!("<article><header>Head</header>{body}</article>"), &format!("Head\n\n{text}"));
    }

    #[test]
    fn a_name_does_not_remove_the_page_itself() {
        check(
            "<body class=has-sidebar><form><div class=menu-wrapper>Long text here</div></form>",
            "Long text here",
        );
        check("<div style='visibility:hidden'>All there is</div>", "All there is");
        check("", "");
    }
}
