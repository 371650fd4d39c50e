//! Two extractions of one page as one text: every block that either found, in reading order.
//!
//! The blocks of both are aligned by their text with white space and markers taken off (a longest common
//! subsequence by way of anchors: blocks that occur once in each, the longest increasing run of them, as patience
//! diffs do). What only the second found is put after the block it follows there, unless its text is already
//! part of the first.

use super::serialize::Block;

/// Merges `second` into `first`; the order of `first` is kept.
pub(crate) fn union(first: Vec<Block>, second: Vec<Block>) -> Vec<Block> {
    if first.is_empty() || second.is_empty() {
        return if first.is_empty() { second } else { first };
    }
    let first_keys: Vec<String> = first.iter().map(key).collect();
    let second_keys: Vec<String> = second.iter().map(key).collect();
    // One string with separators answers "is this text already there", also for blocks that were cut differently.
    let all_first = first_keys.join("\u{0}");
    let anchors = anchors(&first_keys, &second_keys);
    let mut merged = Vec::with_capacity(first.len() + second.len());
    let mut first = first.into_iter();
    let mut second = second.into_iter().zip(&second_keys).enumerate().peekable();
    let mut taken = 0;
    let mut anchors = anchors.into_iter().peekable();
    loop {
        let (until_first, until_second) = anchors.next().unwrap_or((usize::MAX, usize::MAX));
        while taken < until_first {
            let Some(block) = first.next() else { break };
            merged.push(block);
            taken += 1;
        }
        while let Some((_, (block, key))) = second.next_if(|(at, _)| *at < until_second) {
            if !all_first.contains(key.as_str()) {
                merged.push(block);
            }
        }
        if until_first == usize::MAX {
            return merged;
        }
        // The anchor itself comes from the first; its twin is skipped.
        second.next();
    }
}

/// The text of a block without white space, case and anything but letters and digits.
fn key(block: &Block) -> String {
    block.text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Pairs of positions of equal blocks, both increasing: those that occur once on each side.
fn anchors(first: &[String], second: &[String]) -> Vec<(usize, usize)> {
    let unique_first = unique(first);
    let unique_second = unique(second);
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for (text, at) in &unique_first {
        if let Ok(found) = unique_second.binary_search_by(|(other, _)| other.cmp(text)) {
            pairs.push((*at, unique_second[found].1));
        }
    }
    pairs.sort_unstable();
    increasing(&pairs)
}

/// The non-empty texts that occur once, sorted, with their positions.
fn unique(keys: &[String]) -> Vec<(&str, usize)> {
    let mut sorted: Vec<(&str, usize)> = keys
        .iter()
        .enumerate()
        .filter(|(_, key)| !key.is_empty())
        .map(|(at, key)| (key.as_str(), at))
        .collect();
    sorted.sort_unstable();
    let same = |a: Option<&(&str, usize)>, b: &(&str, usize)| a.is_some_and(|a| a.0 == b.0);
    let alone = |at: usize| {
        !same(at.checked_sub(1).and_then(|at| sorted.get(at)), &sorted[at])
            && !same(sorted.get(at + 1), &sorted[at])
    };
    (0..sorted.len()).filter(|&at| alone(at)).map(|at| sorted[at]).collect()
}

/// The longest subsequence whose second positions increase, by patience sorting: O(n log n).
fn increasing(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut tops: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (at, (_, position)) in pairs.iter().enumerate() {
        let pile = tops.partition_point(|&top| pairs[top].1 < *position);
        before.push(pile.checked_sub(1).map(|pile| tops[pile]));
        if pile == tops.len() {
            tops.push(at);
        } else {
            tops[pile] = at;
        }
    }
    let mut chain = Vec::with_capacity(tops.len());
    let mut next = tops.last().copied();
    while let Some(at) = next {
        chain.push(pairs[at]);
        next = before[at];
    }
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::super::serialize::Kind;
    use super::*;

    fn blocks(texts: &str) -> Vec<Block> {
        let block = |text: &str| Block {
            kind: Kind::Paragraph,
            marker: String::new(),
            text: text.to_owned(),
            ink: 1,
            link_ink: 0,
            links: 0,
        };
        texts.split_whitespace().map(block).collect()
    }

    fn check(first: &str, second: &str, expected: &str) {
        let merged = union(blocks(first), blocks(second));
        let texts: Vec<&str> = merged.iter().map(|block| block.text.as_str()).collect();
        assert_eq!(texts.join(" "), expected, "{first} + {second}");
    }

    #[test]
    fn what_only_one_found_stands_at_its_place() {
        check("", "", "");
        check("a b", "", "a b");
        check("", "a b", "a b");
        check("a b c", "a b c", "a b c");
        check("a c", "a b c", "a b c");
        check("b d", "a b c d e", "a b c d e");
        check("a x c", "a y c", "a x y c");
        check("c b a", "a b c d", "c b a d");
        check("a a b", "a z b", "a a z b");
    }

    #[test]
    fn text_that_is_there_in_another_cut_is_not_repeated() {
        check("Hello,World end", "Hello World new", "Hello,World end new");
        check("a-b", "A,B", "a-b");
    }

    #[test]
    fn every_block_of_the_first_is_kept() {
        proptest::proptest!(|(first in "([a-f] ){0,12}", second in "([a-h] ){0,12}")| {
            let merged = union(blocks(&first), blocks(&second));
            let mut texts = merged.iter().map(|block| block.text.as_str());
            proptest::prop_assert!(first.split_whitespace().all(|text| texts.any(|other| other == text)));
            let has = |text: &str| merged.iter().any(|block| block.text == text);
            proptest::prop_assert!(second.split_whitespace().all(has));
        });
    }
}
