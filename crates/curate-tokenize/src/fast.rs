//! Byte-level BPE with a memory: each distinct word is merged once, its ids are remembered.
//!
//! Most of a text is words seen before. They are found by their own bytes, so an answer from the cache is the
//! answer that the `tokenizers` crate gave for that word: ids are the same by construction, as long as the
//! words are. Which tokenizers that holds for is decided in [`ByteLevelEncoder::new`];
//! [`ByteLevelEncoder::encode`] steps aside for single texts (added tokens in them, characters to normalise).

use std::hash::BuildHasher;

use aho_corasick::AhoCorasick;
use foldhash::fast::FixedState;
use regex_automata::meta::Cache;
use tokenizers::models::bpe::BPE;
use tokenizers::{Model, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};
use unicode_normalization::{IsNormalized, is_nfc_quick};

use crate::TokenId;
use crate::byte_level::{GPT2_PATTERN, Splitter, spell};

/// What a thread keeps from text to text while encoding: at most some 24 MB of remembered words, and buffers.
///
/// Fits every tokenizer; used with another one it forgets and starts anew.
#[derive(Debug, Default)]
pub struct EncodeScratch {
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    /// Which encoder the words were remembered for.
    owner: u64,
    splitter: Cache,
    words: WordCache,
    /// A word in the spelling of the vocabulary.
    spelt: String,
}

/// A byte-level BPE tokenizer of a known pattern.
#[derive(Debug)]
pub(crate) struct ByteLevelEncoder {
    owner: u64,
    splitter: Splitter,
    /// Tokens that the crate looks for before it cuts words; a text that holds one is left to the crate.
    added: Option<AhoCorasick>,
    /// Whether the tokenizer brings text to NFC first; a text that may change by it is left to the crate.
    normalizes: bool,
}

impl ByteLevelEncoder {
    /// The encoder of a loaded tokenizer, if it is of the kind that this module can answer for.
    ///
    /// `owner` must differ between tokenizers that give different ids. Special tokens are not looked for when
    /// the tokenizer is set to encode them as text.
    pub(crate) fn new(tokenizer: &tokenizers::Tokenizer, owner: u64) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = tokenizer.get_model() else { return None };
        let has_affixes = |affix: &Option<String>| affix.as_deref().is_some_and(|affix| !affix.is_empty());
        if has_affixes(&bpe.continuing_subword_prefix) || has_affixes(&bpe.end_of_word_suffix) {
            return None;
        }
        let normalizes = match tokenizer.get_normalizer() {
            None => false,
            Some(NormalizerWrapper::NFC(_)) => true,
            Some(_) => return None,
        };
        let splitter = Splitter::known(&pattern(tokenizer.get_pre_tokenizer()?)?)?;
        let mut added: Vec<String> = tokenizer
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| !(token.special && tokenizer.get_encode_special_tokens()))
            .map(|token| token.content)
            .collect();
        added.sort_unstable();
        if normalizes && added.iter().any(|token| !token.is_ascii()) {
            return None; // It would be looked for in its normalised form.
        }
        let added = if added.is_empty() { None } else { Some(AhoCorasick::new(&added).ok()?) };
        Some(Self { owner, splitter, added, normalizes })
    }

    /// Appends the ids of `text`; `Ok(false)` and nothing appended where only the crate knows the answer.
    pub(crate) fn encode(
        &self,
        bpe: &BPE,
        text: &str,
        scratch: &mut EncodeScratch,
        out: &mut Vec<TokenId>,
    ) -> tokenizers::Result<bool> {
        if self.normalizes && is_nfc_quick(text.chars()) != IsNormalized::Yes {
            return Ok(false);
        }
        if self.added.as_ref().is_some_and(|added| added.is_match(text)) {
            return Ok(false);
        }
        let State { splitter, words, spelt, .. } = self.state(scratch);
        let mut failure = None;
        self.splitter.for_each(text, splitter, |word| {
            let slot = match words.find(word.as_bytes()) {
                Ok(ids) => return out.extend_from_slice(ids),
                Err(slot) => slot,
            };
            spelt.clear();
            spelt.extend(word.bytes().map(spell));
            match bpe.tokenize(spelt) {
                Ok(tokens) => {
                    let start = out.len();
                    out.extend(tokens.iter().map(|token| token.id));
                    words.remember(slot, word.as_bytes(), &out[start..]);
                }
                Err(error) => failure = Some(error),
            }
        });
        failure.map_or(Ok(true), Err)
    }

    fn state<'s>(&self, scratch: &'s mut EncodeScratch) -> &'s mut State {
        if scratch.state.as_ref().is_none_or(|state| state.owner != self.owner) {
            scratch.state = None;
        }
        scratch.state.get_or_insert_with(|| State {
            owner: self.owner,
            splitter: self.splitter.cache(),
            words: WordCache::new(),
            spelt: String::new(),
        })
    }
}

/// The pattern that cuts words, where nothing but it happens before merging.
fn pattern(pre_tokenizer: &PreTokenizerWrapper) -> Option<String> {
    use tokenizers::pre_tokenizers::split::SplitPattern;
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(spelling) if spelling.use_regex && !spelling.add_prefix_space => {
            Some(GPT2_PATTERN.to_owned())
        }
        PreTokenizerWrapper::Sequence(steps) => match steps.as_ref() {
            [PreTokenizerWrapper::Split(split), PreTokenizerWrapper::ByteLevel(spelling)]
                if split.behavior == SplitDelimiterBehavior::Isolated
                    && !split.invert
                    && !spelling.use_regex
                    && !spelling.add_prefix_space =>
            {
                match &split.pattern {
                    SplitPattern::Regex(pattern) => Some(pattern.clone()),
                    SplitPattern::String(_) => None,
                }
            }
            _ => None,
        },
        _ => None,
    }
}

/// Word → ids, in fixed memory: an open-addressed table over one arena each of bytes and ids.
///
/// When the table is three quarters full or an arena is spent, everything is forgotten: what is common comes
/// back within a few documents, and nothing needs to be tracked to choose what to keep.
#[derive(Debug)]
struct WordCache {
    slots: Vec<Slot>,
    occupied: usize,
    bytes: Vec<u8>,
    ids: Vec<TokenId>,
    hasher: FixedState,
}

/// An entry: where its word and ids lie in the arenas. Free when `word_len` is 0, as no word is empty.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// High half of the hash, to pass over most other words without looking at them.
    tag: u32,
    bytes_start: u32,
    ids_start: u32,
    word_len: u16,
    ids_len: u16,
}

impl WordCache {
    /// 2^19 slots of 16 bytes are 8 MB: room for 390,000 distinct words; 40 MB of mixed text have 270,000.
    const SLOTS: usize = 1 << 19;
    const MAX_OCCUPIED: usize = Self::SLOTS / 4 * 3;
    const MAX_ARENA_BYTES: usize = 8 << 20;
    const MAX_ARENA_IDS: usize = 2 << 20;
    /// Longer words are rarely met again: runs of a script without spaces, base64.
    const MAX_WORD_BYTES: usize = 192;

    fn new() -> Self {
        Self {
            slots: vec![Slot::default(); Self::SLOTS],
            occupied: 0,
            bytes: Vec::new(),
            ids: Vec::new(),
            hasher: FixedState::with_seed(0),
        }
    }

    /// The ids of `word`, or the slot and tag it would take.
    fn find(&self, word: &[u8]) -> Result<&[TokenId], (usize, u32)> {
        let hash = self.hasher.hash_one(word);
        let tag = (hash >> 32) as u32;
        let mut index = hash as usize & (Self::SLOTS - 1);
        loop {
            let slot = &self.slots[index];
            if slot.word_len == 0 {
                return Err((index, tag));
            }
            if slot.tag == tag && self.word(slot) == word {
                let start = slot.ids_start as usize;
                return Ok(&self.ids[start..start + usize::from(slot.ids_len)]);
            }
            index = (index + 1) & (Self::SLOTS - 1);
        }
    }

    fn word(&self, slot: &Slot) -> &[u8] {
        let start = slot.bytes_start as usize;
        &self.bytes[start..start + usize::from(slot.word_len)]
    }

    /// Remembers what `find` did not know; `place` is what it returned.
    fn remember(&mut self, place: (usize, u32), word: &[u8], ids: &[TokenId]) {
        if word.len() > Self::MAX_WORD_BYTES {
            return;
        }
        let is_full = self.occupied == Self::MAX_OCCUPIED
            || self.bytes.len() + word.len() > Self::MAX_ARENA_BYTES
            || self.ids.len() + ids.len() > Self::MAX_ARENA_IDS;
        if is_full {
            self.forget();
            return; // The place was found in the full table; the word will be remembered next time.
        }
        let (index, tag) = place;
        let short = |len: usize| u16::try_from(len).expect("a word of 192 bytes has at most as many ids");
        let offset = |len: usize| u32::try_from(len).expect("the arenas are smaller than 4 GiB");
        self.slots[index] = Slot {
            tag,
            bytes_start: offset(self.bytes.len()),
            ids_start: offset(self.ids.len()),
            word_len: short(word.len()),
            ids_len: short(ids.len()),
        };
        self.bytes.extend_from_slice(word);
        self.ids.extend_from_slice(ids);
        self.occupied += 1;
    }

    fn forget(&mut self) {
        self.slots.fill(Slot::default());
        self.occupied = 0;
        self.bytes.clear();
        self.ids.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_gives_back_what_it_was_given_however_full() {
        let mut cache = WordCache::new();
        let (mut hits, mut forgotten) = (0, 0);
        for round in 0..2 {
            for n in 0..450_000u32 {
                let word = format!("w{}", n % 420_000);
                let ids = [n % 420_000, 7];
                match cache.find(word.as_bytes()) {
                    Ok(found) => {
                        assert_eq!(found, ids, "round {round}");
                        hits += 1;
                    }
                    Err(place) => {
                        let before = cache.occupied;
                        cache.remember(place, word.as_bytes(), &ids);
                        forgotten += u32::from(cache.occupied < before);
                    }
                }
            }
        }
        assert!(hits >= 20_000 && forgotten == 2, "{hits} hits, forgotten {forgotten} times");
        assert!(cache.occupied <= WordCache::MAX_OCCUPIED);
        assert!(
            cache.bytes.len() <= WordCache::MAX_ARENA_BYTES && cache.ids.len() <= WordCache::MAX_ARENA_IDS
        );
    }

    #[test]
    fn long_words_are_not_remembered() {
        let mut cache = WordCache::new();
        let word = [b'x'; WordCache::MAX_WORD_BYTES + 1];
        let place = cache.find(&word).unwrap_err();
        cache.remember(place, &word, &[1]);
        assert!(cache.find(&word).is_err());
        let place = cache.find(&word[1..]).unwrap_err();
        cache.remember(place, &word[1..], &[1]);
        assert_eq!(cache.find(&word[1..]), Ok([1].as_slice()));
    }
}
