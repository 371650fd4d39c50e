//! The items to look for, and the seeds that find them.

use super::align::ItemWords;
use super::seeds::{SeedCollector, Seeds, gram};
use super::weight::{Frequencies, STEPS};
use super::words::{Word, split};

/// Words of the long seed.
pub(crate) const LONG_GRAM: usize = 8;
/// Words of the short seed, used where they weigh enough.
pub(crate) const SHORT_GRAM: usize = 3;
/// Nats from which three words in a row are a seed.
const SHORT_GRAM_NATS: f32 = 10.0;
/// The heaviest short seeds of an item are there even if they weigh less, but not
const ALWAYS_SEEDS: usize = 4;
/// below this: every page would be full of them.
const FEWEST_NATS: f32 = 6.5;
/// Items of more words are documents: they are found by long seeds alone.
pub(crate) const DOCUMENT_WORDS: usize = 512;

/// Words between two hints at the item that a word belongs to.
const HINT_WORDS: usize = 64;

/// An item of an evaluation set, or a held-out document.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    pub id: &'a str,
    /// The question, prompt, problem, or all the text of a document.
    pub question: &'a str,
    /// What completes it; may be empty.
    pub answer: &'a str,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: Box<str>,
    pub(crate) set: u32,
    /// The first of its words in the index.
    start: u32,
    /// Words of the question.
    pub(crate) question: u32,
    /// Weights of all words of the question and of the answer, in sixteenths of a nat.
    pub(crate) question_weight: u64,
    pub(crate) answer_weight: u64,
}

/// An index that cannot be built as asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IndexError {
    #[error("the items to look for need about {needed} bytes of memory, more than the {allowed} allowed")]
    TooLarge { needed: u64, allowed: u64 },
    #[error("the items to look for have more than 4,294,967,295 words")]
    TooManyWords,
}

impl IndexError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some("raise --memory, or look for a part of the items at a time".to_owned())
    }
}

/// Takes items one by one; [`build`](Self::build) makes the index.
///
/// Memory: about 90 bytes a word of an item, 45 of a document, while it is built; half of that afterwards.
#[derive(Debug)]
pub struct IndexBuilder {
    sets: Vec<EvaluationSet>,
    items: Vec<Entry>,
    words: Vec<u32>,
    frequencies: Frequencies,
    long: SeedCollector,
    short_words: u64,
    memory_bytes: u64,
    buffer: Vec<Word>,
}

/// One of the sets of items, with how many it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationSet {
    pub name: String,
    pub items: u64,
    /// Items without a word in them, which cannot be looked for.
    pub empty: u64,
}

impl IndexBuilder {
    /// A builder that gives up when it would need more than `memory_bytes`.
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            sets: Vec::new(),
            items: Vec::new(),
            words: Vec::new(),
            frequencies: Frequencies::default(),
            long: SeedCollector::default(),
            short_words: 0,
            memory_bytes,
            buffer: Vec::new(),
        }
    }

    /// Begins a set: the items that follow belong to it.
    pub fn begin_set(&mut self, name: &str) {
        if self.sets.last().is_none_or(|set| set.name != name) {
            self.sets.push(EvaluationSet { name: name.to_owned(), items: 0, empty: 0 });
        }
    }

    /// Adds an item to the current set.
    ///
    /// # Errors
    /// When the index would outgrow its memory.
    pub fn add(&mut self, item: Item<'_>) -> Result<(), IndexError> {
        if self.sets.is_empty() {
            self.begin_set("items");
        }
        let set = self.sets.len() - 1;
        let start = self.words.len();
        self.sets[set].items += 1;
        let mut question = 0;
        for (i, text) in [item.question, item.answer].into_iter().enumerate() {
            split(text, &mut self.buffer);
            self.words.extend(self.buffer.iter().map(|w| w.short()));
            if i == 0 {
                question = self.buffer.len();
            }
        }
        let words = &self.words[start..];
        if words.is_empty() {
            self.sets[set].empty += 1;
            return Ok(());
        }
        u32::try_from(self.words.len()).map_err(|_| IndexError::TooManyWords)?;
        self.frequencies.add(words);
        for (i, window) in words.windows(LONG_GRAM).enumerate() {
            self.long.push(gram(window.iter().map(|w| u64::from(*w))), (start + i) as u32);
        }
        if words.len() <= DOCUMENT_WORDS {
            self.short_words += words.len() as u64;
        }
        self.items.push(Entry {
            id: item.id.into(),
            set: set as u32,
            start: start as u32,
            question: question as u32,
            question_weight: 0,
            answer_weight: 0,
        });
        let needed = self.peak_bytes();
        if needed > self.memory_bytes {
            return Err(IndexError::TooLarge { needed, allowed: self.memory_bytes });
        }
        Ok(())
    }

    /// What building takes at most, with what has been added so far.
    fn peak_bytes(&self) -> u64 {
        const ITEM_BYTES: u64 = 96;
        const DISTINCT_BYTES: u64 = 18;
        let words = self.words.len() as u64;
        (words + self.short_words) * SeedCollector::PEAK_BYTES
            + words * 8
            + self.items.len() as u64 * ITEM_BYTES
            + self.frequencies.distinct() as u64 * DISTINCT_BYTES
    }

    /// The index of all items added.
    pub fn build(self) -> Index {
        let weigh = self.frequencies.weigher();
        let weights: Vec<u8> = self.words.iter().map(|w| weigh(*w)).collect();
        let mut hints = Vec::with_capacity(self.words.len() / HINT_WORDS + 1);
        for (i, item) in self.items.iter().enumerate().skip(1) {
            // Words up to the item's first belong to the items before it.
            hints.resize((item.start as usize).div_ceil(HINT_WORDS), i as u32 - 1);
        }
        let last = self.items.len().saturating_sub(1) as u32;
        hints.resize(self.words.len().div_ceil(HINT_WORDS), last);
        let mut index = Index {
            sets: self.sets,
            items: self.items,
            words: self.words,
            weights,
            hints,
            long: self.long.build(),
            short: SeedCollector::default().build(),
        };
        let mut short = SeedCollector::default();
        for i in 0..index.items.len() {
            let item = index.words_of(i);
            let weight = |weights: &[u8]| weights.iter().map(|w| u64::from(*w)).sum::<u64>();
            let (question, answer) =
                (weight(&item.weights[..item.question]), weight(&item.weights[item.question..]));
            if item.words.len() <= DOCUMENT_WORDS {
                let start = index.items[i].start;
                for at in short_seeds(item) {
                    let window = &item.words[at..(at + SHORT_GRAM).min(item.words.len())];
                    short.push(gram(window.iter().map(|w| u64::from(*w))), start + at as u32);
                }
            }
            (index.items[i].question_weight, index.items[i].answer_weight) = (question, answer);
        }
        index.short = short.build();
        index
    }
}

/// Where the short seeds of an item begin: in its question, or anywhere if the question is too short for one.
fn short_seeds(item: ItemWords<'_>) -> Vec<usize> {
    let within = if item.question >= SHORT_GRAM { item.question } else { item.words.len() };
    let weight = |at: usize| -> f32 {
        item.weights[at..at + SHORT_GRAM].iter().map(|w| f32::from(*w)).sum::<f32>() / STEPS
    };
    let mut seeds: Vec<usize> = (0..(within + 1).saturating_sub(SHORT_GRAM)).collect();
    seeds.sort_by(|a, b| weight(*b).total_cmp(&weight(*a)).then(a.cmp(b)));
    let at_least = |nats: f32| seeds.iter().take_while(|at| weight(**at) >= nats).count();
    let kept = at_least(SHORT_GRAM_NATS).max(at_least(FEWEST_NATS).min(ALWAYS_SEEDS));
    seeds.truncate(kept);
    seeds
}

/// Items, and the seeds that find them in a text.
#[derive(Debug)]
pub struct Index {
    sets: Vec<EvaluationSet>,
    items: Vec<Entry>,
    /// The words of all items, back to back.
    words: Vec<u32>,
    weights: Vec<u8>,
    /// The item of every 64th word.
    hints: Vec<u32>,
    pub(crate) long: Seeds,
    pub(crate) short: Seeds,
}

impl Index {
    pub fn sets(&self) -> &[EvaluationSet] {
        &self.sets
    }

    /// Items that can be looked for.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The number of an item's set.
    pub fn set_of(&self, item: usize) -> usize {
        self.items[item].set as usize
    }

    pub fn id_of(&self, item: usize) -> &str {
        &self.items[item].id
    }

    /// Seeds of both lengths.
    pub fn seeds(&self) -> usize {
        self.long.len() + self.short.len()
    }

    /// Memory that the index holds.
    pub fn bytes(&self) -> usize {
        let ids: usize = self.items.iter().map(|item| item.id.len()).sum();
        self.words.len() * 5
            + self.long.bytes()
            + self.short.bytes()
            + self.items.len() * size_of::<Entry>()
            + ids
    }

    pub(crate) fn entry(&self, item: usize) -> &Entry {
        &self.items[item]
    }

    /// The item that a word belongs to, and the word's place in it.
    pub(crate) fn item_at(&self, position: u32) -> (usize, usize) {
        let mut item = self.hints[position as usize / HINT_WORDS] as usize;
        while self.items.get(item + 1).is_some_and(|next| next.start <= position) {
            item += 1;
        }
        (item, (position - self.items[item].start) as usize)
    }

    pub(crate) fn words_of(&self, item: usize) -> ItemWords<'_> {
        let entry = &self.items[item];
        let start = entry.start as usize;
        let end = self.items.get(item + 1).map_or(self.words.len(), |next| next.start as usize);
        ItemWords {
            words: &self.words[start..end],
            weights: &self.weights[start..end],
            question: entry.question as usize,
        }
    }
}
