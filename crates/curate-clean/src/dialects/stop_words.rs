//! The stop words that a recipe lists for its language.

use super::grams::hash;

/// How many words a recipe may list.
pub(crate) const MOST: usize = 128;

/// A list of words, to be found by their hash; two different words share one in none of 10^15 lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopWords {
    /// Hash and number, ascending.
    hashes: Vec<(u64, u8)>,
    longest: usize,
}

impl StopWords {
    /// Words beyond the first 128 are left out; recipes refuse longer lists.
    pub(crate) fn new(words: &[String]) -> Self {
        let mut hashes: Vec<(u64, u8)> =
            words.iter().take(MOST).zip(0..).map(|(word, i)| (hash(word.as_bytes()), i)).collect();
        hashes.sort_unstable();
        hashes.dedup_by_key(|(hash, _)| *hash);
        Self { hashes, longest: words.iter().map(String::len).max().unwrap_or(0) }
    }

    /// How many different ones are among `words`, as they stand.
    pub(crate) fn distinct<'t>(&self, words: impl Iterator<Item = &'t str>) -> usize {
        let mut seen = 0u128;
        if self.hashes.is_empty() {
            return 0;
        }
        for word in words.filter(|word| word.len() <= self.longest) {
            let key = hash(word.as_bytes());
            if let Ok(at) = self.hashes.binary_search_by_key(&key, |(hash, _)| *hash) {
                seen |= 1 << self.hashes[at].1;
            }
        }
        seen.count_ones() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_words_of_the_list_count_once() {
        let list = ["le", "la", "d'", "le", "的"].map(str::to_owned);
        let words = StopWords::new(&list);
        let check = |text: &str, expected| assert_eq!(words.distinct(text.split(' ')), expected, "{text}");
        check("", 0);
        check("le le Le lee l", 1);
        check("la vie d' 的 le", 4);
        assert_eq!(StopWords::new(&[]).distinct(["", "a"].into_iter()), 0);
    }
}
