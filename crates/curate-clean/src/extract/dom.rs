//! A page as one flat array: elements and texts in document order, each with the end of its subtree.
//!
//! Pre-order makes every walk a loop over indices, so no depth of nesting can overflow the stack, skipping a
//! subtree is one assignment, and the text of a subtree is one slice. Building it is also where attributes are
//! read: what later steps ask of them is kept as flags.

use dom_query::{Document, Element, NodeData, NodeId, Tree};

use super::boilerplate;
use super::metadata::PageFacts;

/// What an element means for the text of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// A run of text.
    Text,
    /// Never shown as text: scripts, styles, form controls, media.
    Unseen,
    Inline,
    Link,
    Break,
    /// A box of its own lines.
    Block,
    Paragraph,
    Heading,
    Html,
    Body,
    Main,
    Article,
    /// What readers without scripts see: a request to turn them on, or the whole page.
    NoScript,
    Nav,
    Header,
    Footer,
    Aside,
    Form,
    Button,
    List,
    OrderedList,
    Item,
    Table,
    Row,
    Cell,
    HeaderCell,
    Pre,
    Code,
}

impl Tag {
    fn of(name: &str) -> Self {
        match name {
            "a" => Tag::Link,
            "br" => Tag::Break,
            "p" => Tag::Paragraph,
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => Tag::Heading,
            "html" => Tag::Html,
            "body" => Tag::Body,
            "main" => Tag::Main,
            "article" => Tag::Article,
            "noscript" => Tag::NoScript,
            "nav" => Tag::Nav,
            "header" => Tag::Header,
            "footer" => Tag::Footer,
            "aside" => Tag::Aside,
            "form" => Tag::Form,
            "button" => Tag::Button,
            "ul" | "menu" | "dir" => Tag::List,
            "ol" => Tag::OrderedList,
            "li" => Tag::Item,
            "table" => Tag::Table,
            "tr" => Tag::Row,
            "td" => Tag::Cell,
            "th" => Tag::HeaderCell,
            "pre" | "listing" | "xmp" => Tag::Pre,
            "code" => Tag::Code,
            "address" | "blockquote" | "caption" | "center" | "dd" | "details" | "div" | "dl" | "dt"
            | "fieldset" | "figcaption" | "figure" | "hgroup" | "hr" | "legend" | "optgroup" | "search"
            | "section" | "summary" | "tbody" | "tfoot" | "thead" => Tag::Block,
            "annotation" | "annotation-xml" | "area" | "audio" | "canvas" | "datalist" | "dialog"
            | "embed" | "frame" | "frameset" | "head" | "iframe" | "img" | "input" | "link" | "map"
            | "meta" | "meter" | "noembed" | "noframes" | "object" | "option" | "param" | "progress"
            | "rp" | "rt" | "script" | "select" | "source" | "style" | "svg" | "template" | "textarea"
            | "title" | "track" | "video" => Tag::Unseen,
            _ => Tag::Inline,
        }
    }

    /// Whether the element starts and ends lines of its own.
    pub(crate) fn is_block(self) -> bool {
        !matches!(
            self,
            Tag::Text | Tag::Unseen | Tag::Inline | Tag::Link | Tag::Break | Tag::Code | Tag::Button
        )
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    pub tag: Tag,
    /// The author hides it: `hidden`, `aria-hidden="true"`, `display:none`, text for screen readers only.
    pub hidden: bool,
    /// An `h1`: where the main part of a page begins.
    pub first_heading: bool,
    /// Its class, id or role says navigation, advertisement, consent and the like.
    pub furniture: bool,
    /// A table that is declared to be layout.
    pub layout: bool,
    /// First number of an ordered list, columns that a cell spans.
    pub number: u32,
    /// One past the last node of the subtree.
    pub end: u32,
    /// The subtree's text in [`Dom::text`], in bytes.
    pub text_from: u32,
    pub text_to: u32,
    /// Bytes of the subtree's text that are not white space, and how many of those stand inside links;
    /// hidden parts do not count.
    pub ink: u32,
    pub link_ink: u32,
}

/// The elements and texts of one document in document order.
#[derive(Debug, Default)]
pub(crate) struct Dom {
    pub nodes: Vec<Node>,
    text: String,
}

impl Dom {
    /// Copies what matters out of a parsed page, and notes what the page says of itself.
    pub(crate) fn of_page(document: &Document) -> (Self, PageFacts) {
        let mut facts = PageFacts::default();
        let dom = build(&document.tree, Some(&mut facts));
        (dom, facts)
    }

    /// Parses HTML that an engine returned as the content.
    pub(crate) fn of_content(html: &str) -> Self {
        let document = Document::fragment(html);
        build(&document.tree, None)
    }

    /// The text inside the subtree of a node as it stands in the source.
    pub(crate) fn text(&self, index: usize) -> &str {
        let node = &self.nodes[index];
        &self.text[node.text_from as usize..node.text_to as usize]
    }
}

/// An element whose children are being copied.
struct Open {
    index: usize,
    next_child: Option<NodeId>,
    in_link: bool,
}

/// Positions are 32-bit: the caller hands in less than 4 GiB of text (html5ever's own limit).
#[allow(clippy::cast_possible_truncation)]
fn build(tree: &Tree, mut facts: Option<&mut PageFacts>) -> Dom {
    let mut dom = Dom::default();
    let mut stack: Vec<Open> = Vec::new();
    let root = tree.root();
    let mut next = tree.query_node_or(&root.id, None, |node| node.first_child);
    let mut in_link = false;
    loop {
        let Some(id) = next else {
            let Some(done) = stack.pop() else { break };
            close(&mut dom, done.index, stack.last().map(|open| open.index));
            in_link = stack.last().is_some_and(|open| open.in_link);
            next = done.next_child;
            continue;
        };
        let seen = tree.query_node_or(&id, None, |node| {
            let index = match &node.data {
                NodeData::Text { contents } => {
                    push_text(&mut dom, contents, in_link, stack.last().map(|open| open.index));
                    None
                }
                NodeData::Element(element) => Some(push_element(&mut dom, element)),
                _ => None,
            };
            if let (Some(facts), NodeData::Element(element)) = (facts.as_deref_mut(), &node.data) {
                facts.see(element);
            }
            Some((index, node.first_child, node.next_sibling))
        });
        let Some((index, first_child, next_sibling)) = seen else {
            next = None;
            continue;
        };
        let Some(index) = index else {
            next = next_sibling;
            continue;
        };
        let tag = dom.nodes[index].tag;
        if tag == Tag::Unseen {
            if let Some(facts) = facts.as_deref_mut() {
                see_unseen(tree, id, facts);
            }
            // Only the head has anything to tell (its title and meta elements), and nothing in it is text.
            let is_head = tree.query_node_or(&id, false, |node| name_of(&node.data) == Some("head"));
            if !(is_head && facts.is_some()) {
                next = next_sibling;
                continue;
            }
        }
        in_link |= tag == Tag::Link;
        stack.push(Open { index, next_child: next_sibling, in_link });
        next = first_child;
    }
    dom
}

fn name_of(data: &NodeData) -> Option<&str> {
    match data {
        NodeData::Element(element) => Some(element.name.local.as_ref()),
        _ => None,
    }
}

/// Hands the text of a `title` or of structured data to the facts.
fn see_unseen(tree: &Tree, id: NodeId, facts: &mut PageFacts) {
    let wanted = tree.query_node_or(&id, false, |node| match &node.data {
        NodeData::Element(element) => facts.wants_text_of(element),
        _ => false,
    });
    if !wanted {
        return;
    }
    let child = tree.query_node_or(&id, None, |node| node.first_child);
    if let Some(child) = child {
        let is_title = tree.query_node_or(&id, false, |node| name_of(&node.data) == Some("title"));
        tree.query_node(&child, |node| {
            if let NodeData::Text { contents } = &node.data {
                facts.take_text(is_title, contents);
            }
        });
    }
}

#[allow(clippy::cast_possible_truncation)]
fn push_text(dom: &mut Dom, contents: &str, in_link: bool, parent: Option<usize>) {
    if parent.is_some_and(|parent| dom.nodes[parent].tag == Tag::Unseen) {
        return;
    }
    let ink: usize = contents.split_whitespace().map(str::len).sum();
    let text_from = dom.text.len() as u32;
    dom.text.push_str(contents);
    let end = dom.nodes.len() as u32 + 1;
    let node = Node {
        tag: Tag::Text,
        end,
        text_from,
        text_to: dom.text.len() as u32,
        ink: ink as u32,
        link_ink: if in_link { ink as u32 } else { 0 },
        hidden: false,
        first_heading: false,
        furniture: false,
        layout: false,
        number: 1,
    };
    dom.nodes.push(node);
    if let Some(parent) = parent {
        dom.nodes[parent].ink += node.ink;
        dom.nodes[parent].link_ink += node.link_ink;
    }
}

#[allow(clippy::cast_possible_truncation)]
fn push_element(dom: &mut Dom, element: &Element) -> usize {
    let name: &str = element.name.local.as_ref();
    let mut node = Node {
        tag: Tag::of(name),
        hidden: false,
        first_heading: name == "h1",
        furniture: false,
        layout: false,
        number: 1,
        // Until it is closed; an element that is not descended into stays empty.
        end: dom.nodes.len() as u32 + 1,
        text_from: dom.text.len() as u32,
        text_to: dom.text.len() as u32,
        ink: 0,
        link_ink: 0,
    };
    for attribute in &element.attrs {
        let value: &str = &attribute.value;
        match attribute.name.local.as_ref() {
            "hidden" => node.hidden |= !value.eq_ignore_ascii_case("until-found"),
            "aria-hidden" => node.hidden |= value.eq_ignore_ascii_case("true"),
            "style" => node.hidden |= boilerplate::style_hides(value),
            "class" => {
                node.hidden |= boilerplate::class_hides(value);
                node.furniture |= boilerplate::names_furniture(value);
            }
            "id" => node.furniture |= boilerplate::names_furniture(value),
            "role" => {
                node.furniture |= boilerplate::role_is_furniture(value);
                node.layout |= value == "presentation" || value == "none";
                if value == "main" && node.tag == Tag::Block {
                    node.tag = Tag::Main;
                }
            }
            "start" if node.tag == Tag::OrderedList => node.number = value.trim().parse().unwrap_or(1),
            "colspan" => node.number = value.trim().parse().unwrap_or(1),
            _ => {}
        }
    }
    dom.nodes.push(node);
    dom.nodes.len() - 1
}

#[allow(clippy::cast_possible_truncation)]
fn close(dom: &mut Dom, index: usize, parent: Option<usize>) {
    let (end, text_to) = (dom.nodes.len() as u32, dom.text.len() as u32);
    let node = &mut dom.nodes[index];
    (node.end, node.text_to) = (end, text_to);
    let (ink, link_ink) = (node.ink, node.link_ink);
    let counts = !(node.hidden || node.tag == Tag::NoScript) || boilerplate::is_protected(node.tag);
    if let Some(parent) = parent
        && counts
    {
        dom.nodes[parent].ink += ink;
        dom.nodes[parent].link_ink += link_ink;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtrees_are_ranges_with_their_text_and_links() {
        let dom = Dom::of_content("<div id=x>ab <a href=u>cd</a><script>no</script></div><p>ef</p>");
        let div = dom.nodes.iter().position(|node| node.tag == Tag::Block).expect("a div");
        let node = dom.nodes[div];
        assert_eq!((dom.text(div), node.ink, node.link_ink), ("ab cd", 4, 2));
        assert_eq!(
            dom.nodes[node.end as usize].tag,
            Tag::Paragraph,
            "the div's range ends where the p starts"
        );
        assert!(dom.nodes.iter().all(|node| node.end as usize <= dom.nodes.len() && node.end > 0));
    }

    #[test]
    fn ten_thousand_levels_do_not_recurse() {
        let html = "<div>".repeat(10_000) + "deep";
        let dom = Dom::of_content(&html);
        assert_eq!(dom.text(0), "deep");
    }
}
