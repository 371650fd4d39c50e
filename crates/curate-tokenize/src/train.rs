//! Training a tokenizer: count words, learn merges, write a `tokenizer.json`.
//!
//! What comes out is byte-level BPE as GPT-2 has it: any text can be encoded and comes back byte for byte. The
//! file reads in every Hugging Face tool. Ids: 0 is `<|endoftext|>`, 1 to 256 are the bytes in the order of
//! their spellings, then the merges; the order that Hugging Face's trainer gives them.
//!
//! ```ignore
//! let counter = WordCounter::default();
//! // On any number of threads: counter.count(text, &mut scratch), or a stage of `CountMapper::new(&counter)`.
//! let json = train(counter, &BpeTrainerOptions { vocab_size: 8192, ..Default::default() })?;
//! ```

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};

use curate_core::{Counters, Document, Mapper, Never, Work};
use foldhash::fast::FixedState;
use serde::Serialize;

use crate::TokenId;
use crate::byte_level::spell;
use crate::error::{Error, Result};
use crate::merges::{Merges, Stop, learn};
use crate::words::{Cuts, Splitter};

/// How the token that ends documents is written in the tokenizers that we train.
pub const EOD_TOKEN: &str = "<|endoftext|>";

/// What to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpeTrainerOptions {
    /// Number of ids to reach, from 257. Small corpora may run out of pairs before.
    pub vocab_size: u32,
    /// Pairs seen less often are not merged; 0 and 1 are the same.
    pub min_frequency: u64,
}

impl Default for BpeTrainerOptions {
    /// 32,768 ids, which fit in 16 bits and are a multiple of 128; pairs seen once are chance.
    fn default() -> Self {
        Self { vocab_size: 32_768, min_frequency: 2 }
    }
}

type Counts = HashMap<Box<[u8]>, u64, FixedState>;

/// Distinct words and how often they were seen, counted from any number of threads.
///
/// Words are cut as GPT-2 cuts them. Memory grows with the distinct words, not with the text: about 60 bytes
/// each, a word every 100 to 400 bytes of text. Counts are sums, so that the result does not depend on who
/// counted what.
#[derive(Debug)]
pub struct WordCounter {
    splitter: Splitter,
    /// Words by hash, so that threads seldom wait for each other.
    shards: Vec<Mutex<Counts>>,
    hasher: FixedState,
}

impl Default for WordCounter {
    fn default() -> Self {
        let shards = (0..Self::SHARDS).map(|_| Mutex::default()).collect();
        Self { splitter: Splitter::gpt2(), shards, hasher: FixedState::with_seed(1) }
    }
}

/// What a thread keeps between the texts it counts: the words of one text.
#[derive(Debug, Default)]
pub struct CountScratch {
    cuts: Cuts,
    counts: HashMap<Box<[u8]>, u64, FixedState>,
    by_shard: Vec<Vec<(Box<[u8]>, u64)>>,
}

impl WordCounter {
    const SHARDS: usize = 64;

    /// Adds the words of `text`.
    pub fn count(&self, text: &str, scratch: &mut CountScratch) {
        let CountScratch { cuts, counts, by_shard } = scratch;
        self.splitter.for_each(text, cuts, |word| match counts.get_mut(word.as_bytes()) {
            Some(count) => *count += 1,
            None => {
                counts.insert(word.as_bytes().into(), 1);
            }
        });
        by_shard.resize_with(Self::SHARDS, Vec::new);
        counts.drain().for_each(|(word, count)| by_shard[self.shard_of(&word)].push((word, count)));
        for (words, shard) in by_shard.iter_mut().zip(&self.shards) {
            if words.is_empty() {
                continue;
            }
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            words.drain(..).for_each(|(word, count)| *shard.entry(word).or_default() += count);
        }
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: WordCounter) {
        for (ours, theirs) in self.shards.iter_mut().zip(other.shards) {
            let ours = ours.get_mut().unwrap_or_else(PoisonError::into_inner);
            let theirs = theirs.into_inner().unwrap_or_else(PoisonError::into_inner);
            theirs.into_iter().for_each(|(word, count)| *ours.entry(word).or_default() += count);
        }
    }

    /// Number of distinct words so far.
    pub fn distinct_words(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len() as u64)
            .sum()
    }

    /// The words in the order of their bytes, with their counts.
    fn into_sorted(self) -> Vec<(Box<[u8]>, u64)> {
        let shards =
            self.shards.into_iter().map(|shard| shard.into_inner().unwrap_or_else(PoisonError::into_inner));
        let mut words: Vec<_> = shards.flatten().collect();
        words.sort_unstable();
        words
    }

    fn shard_of(&self, word: &[u8]) -> usize {
        // The top bits: the low ones choose the place within a map.
        (self.hasher.hash_one(word) >> (u64::BITS - Self::SHARDS.ilog2())) as usize
    }
}

/// The stage that counts words: it keeps every document and leaves it as it is.
#[derive(Debug)]
pub struct CountMapper<'c> {
    counter: &'c WordCounter,
}

impl<'c> CountMapper<'c> {
    pub fn new(counter: &'c WordCounter) -> Self {
        Self { counter }
    }
}

impl Mapper for CountMapper<'_> {
    type Work = Never;
    type Scratch = CountScratch;

    fn map(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut CountScratch,
        _counters: &mut Counters,
    ) -> Work<Never> {
        self.counter.count(doc.text(), scratch);
        Work::keep()
    }
}

/// Trains byte-level BPE on the counted words; returns the bytes of a `tokenizer.json`.
///
/// The same words give the same bytes, for any number of threads and on any machine. Runs on one thread; takes
/// a few seconds for a million distinct words.
///
/// # Errors
/// [`Error::VocabularyTooSmall`], [`Error::NoText`], [`Error::TooManyWords`].
pub fn train(counter: WordCounter, options: &BpeTrainerOptions) -> Result<Vec<u8>> {
    let first_tokens = first_tokens();
    let minimum = u32::try_from(first_tokens.len()).expect("there are 257 of them");
    if options.vocab_size < minimum {
        return Err(Error::VocabularyTooSmall { vocab_size: options.vocab_size, minimum });
    }
    let words = counter.into_sorted();
    if words.is_empty() {
        return Err(Error::NoText);
    }
    let bytes: u64 = words.iter().map(|(word, _)| word.len() as u64).sum();
    if bytes >= u64::from(u32::MAX) {
        return Err(Error::TooManyWords { bytes });
    }
    let stop = Stop { vocab_size: options.vocab_size as usize, min_frequency: options.min_frequency };
    Ok(tokenizer_json(&learn(&words, first_tokens, stop)))
}

/// The end of documents, which no bytes spell, then the bytes in the order of the characters that spell them.
fn first_tokens() -> Vec<Vec<u8>> {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.sort_unstable_by_key(|&byte| spell(byte));
    [Vec::new()].into_iter().chain(bytes.into_iter().map(|byte| vec![byte])).collect()
}

/// A `tokenizer.json`, field by field as Hugging Face tools write it.
#[derive(Serialize)]
struct TokenizerFile {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: [AddedToken; 1],
    normalizer: (),
    pre_tokenizer: ByteLevel,
    post_processor: ByteLevel,
    decoder: ByteLevel,
    model: BpeModel,
}

#[derive(Serialize)]
struct AddedToken {
    id: TokenId,
    content: &'static str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize, Clone, Copy)]
struct ByteLevel {
    r#type: &'static str,
    add_prefix_space: bool,
    trim_offsets: bool,
    use_regex: bool,
}

#[derive(Serialize)]
struct BpeModel {
    r#type: &'static str,
    dropout: (),
    unk_token: (),
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: serde_json::Map<String, serde_json::Value>,
    merges: Vec<(String, String)>,
}

fn tokenizer_json(merges: &Merges) -> Vec<u8> {
    let mut spellings: Vec<String> =
        merges.tokens.iter().map(|bytes| bytes.iter().copied().map(spell).collect()).collect();
    spellings[0] = EOD_TOKEN.to_owned();
    let spelling = |id: TokenId| spellings[id as usize].clone();
    let byte_level =
        ByteLevel { r#type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
    let file = TokenizerFile {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens: [AddedToken {
            id: 0,
            content: EOD_TOKEN,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        }],
        normalizer: (),
        pre_tokenizer: byte_level,
        // Adds no token; GPT-2's own file has it, for offsets without the leading space.
        post_processor: ByteLevel { trim_offsets: false, ..byte_level },
        decoder: byte_level,
        model: BpeModel {
            r#type: "BPE",
            dropout: (),
            unk_token: (),
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: false,
            vocab: (0u64..).zip(&spellings).map(|(id, token)| (token.clone(), id.into())).collect(),
            merges: merges.pairs.iter().map(|&(left, right)| (spelling(left), spelling(right))).collect(),
        },
    };
    let mut json = serde_json::to_vec_pretty(&file).expect("structs of strings and numbers are JSON");
    json.push(b'\n');
    json
}

#[cfg(test)]
mod tests {
    use tokenizers::models::bpe::{BPE, BpeTrainer};
    use tokenizers::pre_tokenizers::byte_level::ByteLevel as TheirByteLevel;

    use super::*;
    use crate::testing::{SMALL, TEXT};
    use crate::{LoadOptions, Tokenizer};

    fn counted(texts: &[&str]) -> WordCounter {
        let counter = WordCounter::default();
        let mut scratch = CountScratch::default();
        texts.iter().for_each(|text| counter.count(text, &mut scratch));
        counter
    }

    fn options(vocab_size: u32) -> BpeTrainerOptions {
        BpeTrainerOptions { vocab_size, min_frequency: 2 }
    }

    #[test]
    fn words_are_counted_with_their_space() {
        let words = counted(&["the cat the", " the\n", ""]).into_sorted();
        let words: Vec<_> =
            words.iter().map(|(word, count)| (std::str::from_utf8(word).unwrap(), *count)).collect();
        assert_eq!(words, [("\n", 1), (" cat", 1), (" the", 2), ("the", 1)]);
    }

    #[test]
    fn how_the_counting_is_shared_out_does_not_matter() {
        let texts: Vec<String> = (0..40).map(|n| format!("{TEXT} {n} {}", "word ".repeat(n % 7))).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let alone = counted(&texts);
        assert_eq!(alone.distinct_words(), counted(&texts).into_sorted().len() as u64);
        let shared = WordCounter::default();
        std::thread::scope(|scope| {
            for part in texts.chunks(7).rev() {
                let shared = &shared;
                scope.spawn(move || {
                    let mut scratch = CountScratch::default();
                    part.iter().for_each(|text| shared.count(text, &mut scratch));
                });
            }
        });
        let mut merged = counted(&texts[20..]);
        merged.merge(counted(&texts[..20]));
        let json = train(alone, &options(400)).unwrap();
        assert_eq!(train(shared, &options(400)).unwrap(), json);
        assert_eq!(train(merged, &options(400)).unwrap(), json);
    }

    #[test]
    fn the_stage_counts_and_keeps() {
        let counter = WordCounter::default();
        let mapper = CountMapper::new(&counter);
        let mut doc = Document::new(b"", "d", "", "the cat");
        let work = mapper.map(&mut doc, &mut CountScratch::default(), &mut Counters::default());
        assert!(matches!(work, Work::Decided(curate_core::Verdict::Keep)));
        assert_eq!((doc.is_edited(), counter.distinct_words()), (false, 2));
    }

    #[test]
    fn a_small_file_has_the_ids_in_order() {
        let json = train(counted(&["low low low lower lower newest newest"]), &options(262)).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let vocab = &file["model"]["vocab"];
        assert_eq!(
            (&vocab[EOD_TOKEN], &vocab["!"], &vocab["Ġ"], &vocab["Ń"]),
            (&0.into(), &1.into(), &221.into(), &256.into())
        );
        // "l o" and "o w" are seen 5 times; "l" has the lower id. "Ġ low" has 4.
        let merges = serde_json::json!([["l", "o"], ["lo", "w"], ["Ġ", "low"], ["e", "r"], ["e", "s"]]);
        assert_eq!(file["model"]["merges"], merges);
        assert_eq!(vocab["Ġlow"], 259);
        assert!(json.starts_with(b"{\n  \"version\": \"1.0\",\n") && json.ends_with(b"}\n"));
    }

    #[test]
    fn a_vocabulary_of_bytes_alone_is_allowed() {
        let json = train(counted(&["aaaa"]), &options(257)).unwrap();
        let tokenizer = Tokenizer::from_json("t", &json, &LoadOptions::default()).unwrap();
        assert_eq!((tokenizer.info().vocab_size, tokenizer.info().eod), (257, 0));
        let error = train(counted(&["aaaa"]), &options(256)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a vocabulary of 256 is too small: 256 bytes and the end-of-document token take 257"
        );
        assert!(matches!(train(counted(&[]), &options(300)), Err(Error::NoText)));
    }

    #[test]
    fn the_file_is_the_one_that_the_crate_trains_and_writes() {
        let mut theirs = tokenizers::Tokenizer::new(BPE::default());
        theirs.with_pre_tokenizer(Some(TheirByteLevel::new(false, true, true)));
        theirs.with_decoder(Some(TheirByteLevel::new(false, true, true)));
        theirs.with_post_processor(Some(TheirByteLevel::new(false, false, true)));
        let trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(320)
            .min_frequency(2)
            .special_tokens(vec![tokenizers::AddedToken::from(EOD_TOKEN, true)])
            .initial_alphabet(TheirByteLevel::alphabet().into_iter().collect())
            .build();
        // The wrapper of all models wants the wrapper of all trainers.
        let mut trainer = tokenizers::models::TrainerWrapper::from(trainer);
        // Without the special token, which the crate would cut out of the training text.
        let text = TEXT.replace(EOD_TOKEN, "");
        theirs.train(&mut trainer, [text.as_str()].into_iter()).unwrap();
        let ours = train(counted(&[&text]), &options(320)).unwrap();
        assert_eq!(String::from_utf8(ours).unwrap(), theirs.to_string(true).unwrap() + "\n");
    }

    #[test]
    fn training_compresses() {
        let tokenizer = Tokenizer::from_json("t", &SMALL, &LoadOptions::default()).unwrap();
        let mut ids = Vec::new();
        tokenizer.encode(TEXT, &mut crate::EncodeScratch::default(), &mut ids).unwrap();
        assert!(ids.len() * 3 < TEXT.len() * 2, "{} ids for {} bytes", ids.len(), TEXT.len());
    }
}
