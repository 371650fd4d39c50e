//! What a shared word proves: its weight in nats, from how many items hold it and how common it is anyway.
//!
//! The weight of a word is `ln((N + M) / (n + M p + 0.4))`: it stands in `n` of `N` pieces of items, and it counts as
//! seen in a share `p` of `M` = 20,000 pieces more. So a dozen items already know that `the` proves nothing, and
//! among thousands their own counts decide.

use std::collections::HashMap;

use super::words::{Word, split};

/// Words of this many in a row count as one piece of an item: a book is many pieces, a question is one.
pub(crate) const PIECE_WORDS: usize = 64;

const PRIOR_PIECES: f64 = 20_000.0;

/// Words that stand in nearly any text, and those that stand in many: `p` is 0.4 and 0.04. Single letters and the numbers
/// up to 1000 have 0.5: runs of them (tables, formulas, lists) are alike everywhere.
const EVERYWHERE: &str = "the of and to in a is that for it as was with be by on not he his but at are this have from \
    or an they which one you were all her she there would their we him been has when who will no more if out so up \
    what its about than into them can only other some could these two may then do any my now such our over i me had \
    how does s t did your";
const OFTEN: &str = "time new first like man even most made after also well many must through years where much way \
    down should because each just those people mr too little state good very make world still see own men work long \
    here get both between life being under never day same another know while last might us great old year off come \
    since against go came right used take three states himself few house use during without again place around \
    however home small found mrs thought went say part once general high upon school every don left number course \
    war until always away something fact though water public less put think almost hand enough far took head yet \
    government system better set told nothing night end why called didn eyes find going look asked later point \
    knew next city business case group toward young days let room word give program side large second four five \
    six seven eight nine ten hundred thousand true false following statement correct \
    answer question most best least example given find many total per";

/// Weights are kept in sixteenths of a nat.
pub(crate) const STEPS: f32 = 16.0;

/// Counts in how many pieces each word stands.
#[derive(Debug, Default)]
pub(crate) struct Frequencies {
    pieces: u32,
    by_word: HashMap<u32, u32>,
    buffer: Vec<u32>,
}

impl Frequencies {
    /// Counts the words of one item.
    pub(crate) fn add(&mut self, words: &[u32]) {
        for piece in words.chunks(PIECE_WORDS) {
            self.pieces += 1;
            self.buffer.clear();
            self.buffer.extend_from_slice(piece);
            self.buffer.sort_unstable();
            self.buffer.dedup();
            for word in &self.buffer {
                *self.by_word.entry(*word).or_default() += 1;
            }
        }
    }

    pub(crate) fn distinct(&self) -> usize {
        self.by_word.len()
    }

    /// The function that gives a word's weight, in sixteenths of a nat.
    pub(crate) fn weigher(self) -> impl Fn(u32) -> u8 {
        let mut prior = HashMap::new();
        let mut words: Vec<Word> = Vec::new();
        let numbers: String = (0..=1000).map(|n| format!("{n} ")).collect();
        let letters: String = ('a'..='z').flat_map(|c| [c, ' ']).collect();
        let lists = [(OFTEN, 0.04), (&*numbers, 0.5), (&*letters, 0.5), (EVERYWHERE, 0.4)];
        for (list, share) in lists {
            split(list, &mut words);
            prior.extend(words.iter().map(|w| (w.short(), share)));
        }
        move |word| {
            let seen = f64::from(self.by_word.get(&word).copied().unwrap_or(0));
            let share = prior.get(&word).copied().unwrap_or(0.0);
            let rarity = (f64::from(self.pieces) + PRIOR_PIECES) / (seen + PRIOR_PIECES * share + 0.4);
            (rarity.ln().clamp(0.0, 15.0) as f32 * STEPS) as u8
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> u32 {
        let mut words = Vec::new();
        split(text, &mut words);
        words[0].short()
    }

    #[test]
    fn rare_words_weigh_more_than_common_ones() {
        let mut few = Frequencies::default();
        few.add(&[word("duck"), word("the")]);
        let few = few.weigher();
        assert!(few(word("duck")) > few(word("people")) && few(word("people")) > few(word("the")));
        let mut many = Frequencies::default();
        for _ in 0..5000 {
            many.add(&[word("duck"), word("robe"), word("duck")]);
        }
        many.add(&[word("zymurgy")]);
        let many = many.weigher();
        assert!(f32::from(many(word("duck"))) < 2.0 * STEPS, "a word of every item proves little");
        assert!(f32::from(many(word("zymurgy"))) > 8.0 * STEPS);
    }
}
