//! Navigation that is left in a text, told from reference lists by the length of its entries.
//!
//! A block is navigation if most of its letters stand in links and its entries are short: "Home · News · Contact",
//! "Read more". References, see-also lists and headlines also stand in links, but are titles of several words.
//! Lists are judged as a whole, so that no entry is torn out of one.

use super::serialize::{Block, Kind};

/// Share of letters inside links from which a block is one of links, in percent.
const LINK_PERCENT: u64 = 60;
/// Mean bytes of an entry (an item, or a link of a paragraph) below which links are navigation: three or four words.
const SHORT_ENTRY: u64 = 20;

/// Removes blocks and lists that are mostly short links.
pub(crate) fn drop_navigation(blocks: Vec<Block>) -> Vec<Block> {
    let mut kept = Vec::with_capacity(blocks.len());
    let mut group: Vec<Block> = Vec::new();
    for block in blocks {
        let in_list = matches!(block.kind, Kind::Item | Kind::ItemMore);
        if in_list {
            group.push(block);
            continue;
        }
        flush(&mut group, &mut kept);
        if !is_navigation(std::slice::from_ref(&block)) {
            kept.push(block);
        }
    }
    flush(&mut group, &mut kept);
    kept
}

fn flush(group: &mut Vec<Block>, kept: &mut Vec<Block>) {
    if !is_navigation(group) {
        kept.append(group);
    }
    group.clear();
}

fn is_navigation(group: &[Block]) -> bool {
    let sum = |of: fn(&Block) -> u32| group.iter().map(|block| u64::from(of(block))).sum::<u64>();
    let (ink, link_ink) = (sum(|block| block.ink), sum(|block| block.link_ink));
    let Some(first) = group.first() else { return false };
    if matches!(first.kind, Kind::Heading | Kind::Pre) || link_ink * 100 < ink * LINK_PERCENT {
        return false;
    }
    let items = group.iter().filter(|block| block.kind == Kind::Item).count() as u64;
    let entries = items.max(sum(|block| block.links)).max(1);
    ink < entries * SHORT_ENTRY
}

#[cfg(test)]
mod tests {
    use super::super::dom::Dom;
    use super::super::serialize::{blocks, render};
    use super::*;

    fn check(html: &str, expected: &str) {
        let dom = Dom::of_content(html);
        assert_eq!(render(&drop_navigation(blocks(&dom, |_, _| false))), expected, "{html}");
    }

    #[test]
    fn short_links_go_and_references_stay() {
        check("<p>a</p><ul><li><a href=1>Home</a><li><a href=2>News</a></ul><p>b</p>", "a\n\nb");
        check("<p><a href=1>Home</a> | <a href=2>News and views</a></p>", "");
        check("<p>Text with <a href=1>one link</a> stays.</p>", "Text with one link stays.");
        check("<h2><a href=1>Short</a></h2>", "Short");
        let reference = "<li><a href=1>On the electrodynamics of moving bodies</a>, 1905";
        check(
            &format!("<ol>{reference}{reference}</ol>"),
            "1. On the electrodynamics of moving bodies, 1905\n2. On the electrodynamics of moving bodies, 1905",
        );
    }

    #[test]
    fn a_list_is_judged_as_a_whole() {
        let html = "<ul><li><a href=1>Yes</a><li>Here follows a plain item that has no link at all, and is long.</ul>";
        check(html, "- Yes\n- Here follows a plain item that has no link at all, and is long.");
    }
}
