//! The `text` engine: all visible text of a page but its furniture.
//!
//! 1. If one `main` element holds a fair share of the page, the rest of the page is not looked at.
//! 2. Navigation, footers, asides, forms and page headers are left out, by element, by role and by the words of
//!    class and id, unless the part holds the page's main heading or too much of its text: then the name is wrong
//!    about it (a wrapper called `has-sidebar`, a page inside one `form`).
//! 3. What is hidden is left out, and so is `noscript`, unless it holds more text than all that is visible: some
//!    pages are hidden until their scripts have run, and some give crawlers a copy of themselves in `noscript`.

use super::boilerplate::is_protected;
use super::dom::{Dom, Node, Tag};
use super::serialize::{Block, blocks};

/// An element named as furniture stays if it holds more than this share of the page's text, in percent.
const MAX_FURNITURE_PERCENT: u64 = 40;
/// A `main` element with less than this share of the page's text is an empty frame, in percent.
const MIN_MAIN_PERCENT: u64 = 20;

/// The page as blocks, without furniture; links are not judged here.
pub(crate) fn page_blocks(dom: &Dom) -> Vec<Block> {
    let page = Page::of(dom);
    blocks(dom, |index, node| page.leaves_out(index, node))
}

/// What is decided from the page as a whole.
#[derive(Default)]
struct Page {
    /// Visible text in bytes without white space.
    ink: u64,
    /// The same for `noscript` elements together.
    noscript_ink: u64,
    /// Half-open ranges of the outermost `main` and `article` elements, where a `header` belongs to the text.
    articles: Vec<(usize, usize)>,
    /// Positions of `main` elements and main headings.
    hearts: Vec<usize>,
    /// The range outside of which nothing is content.
    within: Option<(usize, usize)>,
}

impl Page {
    fn of(dom: &Dom) -> Self {
        let mut page = Page::default();
        let mut mains = Vec::new();
        let mut index = 0;
        while let Some(node) = dom.nodes.get(index) {
            match node.tag {
                Tag::Text => page.ink += u64::from(node.ink),
                Tag::NoScript => page.noscript_ink += u64::from(node.ink),
                Tag::Main | Tag::Article if page.articles.last().is_none_or(|(_, end)| *end <= index) => {
                    page.articles.push((index, node.end as usize));
                }
                _ => {}
            }
            if node.tag == Tag::Main {
                mains.push(index);
            }
            if node.tag == Tag::Main || node.first_heading {
                page.hearts.push(index);
            }
            let unseen = (node.hidden && !is_protected(node.tag)) || node.tag == Tag::NoScript;
            index = if unseen { node.end as usize } else { index + 1 };
        }
        if let [main] = mains[..]
            && page.share(dom.nodes[main].ink) >= MIN_MAIN_PERCENT
            && page.noscript_ink <= page.ink
        {
            page.within = Some((main, dom.nodes[main].end as usize));
        }
        page
    }

    fn leaves_out(&self, index: usize, node: &Node) -> bool {
        let end = node.end as usize;
        if self.within.is_some_and(|(from, to)| index >= to || end <= from) {
            return true;
        }
        if node.tag == Tag::NoScript {
            return self.noscript_ink <= self.ink;
        }
        if is_protected(node.tag) {
            return false;
        }
        if node.hidden {
            return u64::from(node.ink) <= self.ink;
        }
        let by_element = match node.tag {
            Tag::Nav | Tag::Footer | Tag::Aside | Tag::Form | Tag::Button => true,
            Tag::Header => !self.in_article(index),
            _ => false,
        };
        let by_name = node.furniture && !self.holds_heart(index, end);
        (by_element || by_name) && self.share(node.ink) <= MAX_FURNITURE_PERCENT
    }

    /// Share of the page's visible text in percent.
    fn share(&self, ink: u32) -> u64 {
        u64::from(ink) * 100 / self.ink.max(1)
    }

    fn holds_heart(&self, from: usize, to: usize) -> bool {
        let at = self.hearts.partition_point(|heart| *heart < from);
        self.hearts.get(at).is_some_and(|heart| *heart < to)
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
            "<body><noscript>turn it on</noscript>",
            "<!-- x -->",
        ] {
            check(&format!("{furniture}{body}"), text);
        }
        check(&format!("<article><header>Head</header>{body}</article>"), &format!("Head\n\n{text}"));
    }

    #[test]
    fn a_main_element_is_believed_if_it_holds_something() {
        check("<p>before</p><main>The text of the page</main><p>after</p>", "The text of the page");
        check(
            "<p>The text of the page is here, outside</p><main>Wait</main>",
            "The text of the page is here, outside\n\nWait",
        );
        check("<main>one</main><p>between</p><main>two</main>", "one\n\nbetween\n\ntwo");
    }

    #[test]
    fn a_name_does_not_remove_the_page_itself() {
        check(
            "<body class=has-sidebar><form><div class=menu-wrapper>Long text here</div></form>",
            "Long text here",
        );
        check("<div style='visibility:hidden'>All there is</div>", "All there is");
        check(
            "<div class=row-offcanvas><h1>Head</h1></div><p>a longer text outside of it</p>",
            "Head\n\na longer text outside of it",
        );
        check(
            "<p>Turn scripts on</p><noscript><p>The whole thread, post by post</p></noscript>",
            "Turn scripts on\n\nThe whole thread, post by post",
        );
        check("", "");
    }
}
