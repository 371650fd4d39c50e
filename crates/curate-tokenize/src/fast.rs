//! Byte-level BPE at the speed of memory: cut words by vector instructions, look each up, merge the new ones.
//!
//! Which tokenizers this holds for is decided in [`ByteLevelEncoder::new`]; [`ByteLevelEncoder::encode`] steps aside
//! for single texts with added tokens in them. The two halves of the work are in `words.rs` and `lookup.rs`.

use std::borrow::Cow;

use aho_corasick::AhoCorasick;
use serde::Deserialize;
use serde::de::{Error as _, SeqAccess, Visitor};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{Model as _, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};
use unicode_normalization::{IsNormalized, is_nfc_quick};
use unicode_normalization_alignments::UnicodeNormalization;

use crate::TokenId;
use crate::blocks::Instructions;
use crate::bpe::{Merge, Merger};
use crate::byte_level::unspell;
use crate::classes::{Classes, UNSTABLE};
use crate::lookup::{LookUp, LookUpState};
use crate::words::{Cuts, GPT2_PATTERN, Pattern, Splitter};

/// What a thread keeps from text to text while encoding: remembered words ([`crate::LoadOptions::cache_bytes`]) and
/// buffers that grow with the longest text.
///
/// Fits every tokenizer; used with another one it forgets and starts anew.
#[derive(Debug, Default)]
pub struct EncodeScratch {
    state: Option<State>,
    /// The ids of the document at hand.
    pub(crate) tokens: Vec<TokenId>,
}

#[derive(Debug)]
struct State {
    /// Which encoder the words were remembered for.
    owner: u64,
    cuts: Cuts,
    words: LookUpState,
}

/// How the encoder is set up beside its tokenizer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FastOptions {
    /// Must differ between tokenizers that give different ids.
    pub(crate) owner: u64,
    pub(crate) cache_bytes: usize,
    pub(crate) instructions: Instructions,
}

/// A byte-level BPE tokenizer of a known pattern.
#[derive(Debug)]
pub(crate) struct ByteLevelEncoder {
    options: FastOptions,
    splitter: Splitter,
    words: LookUp,
    /// Tokens that the crate looks for before it cuts words; a text that holds one is left to the crate.
    added: Option<AhoCorasick>,
    /// Whether the tokenizer brings text to NFC first.
    normalizes: bool,
}

impl ByteLevelEncoder {
    /// The encoder of a loaded tokenizer, if it is of the kind that this module can answer for.
    ///
    /// `json` is the tokenizer's file; the crate keeps its merges to itself. Special tokens are not looked for
    /// when the tokenizer is set to encode them as text.
    pub(crate) fn new(tokenizer: &tokenizers::Tokenizer, json: &str, options: FastOptions) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = tokenizer.get_model() else { return None };
        let has_affixes = |affix: &Option<String>| affix.as_deref().is_some_and(|affix| !affix.is_empty());
        if has_affixes(&bpe.continuing_subword_prefix) || has_affixes(&bpe.end_of_word_suffix) {
            return None;
        }
        let normalizes = normalizes(tokenizer.get_normalizer())?;
        let pattern = pattern(tokenizer.get_pre_tokenizer()?)?;
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
        let bytes_of = |token: &str| token.chars().map(unspell).collect::<Option<Vec<u8>>>();
        let mut words: Vec<(Box<[u8]>, TokenId)> = bpe
            .get_vocab()
            .into_iter()
            .filter_map(|(token, id)| Some((bytes_of(&token)?.into(), id)))
            .collect();
        let mut byte_ids = [None; 256];
        for (word, id) in &words {
            if let [byte] = **word {
                byte_ids[usize::from(byte)] = Some(*id);
            }
        }
        if byte_ids.contains(&None) {
            return None;
        }
        let byte_ids = byte_ids.map(Option::unwrap_or_default);
        let merges = merges(json, bpe)?;
        let merger = Merger::new(byte_ids, &merges)?;
        words.retain(|(word, _)| !word.is_empty());
        let words = LookUp::new(merger, &merges, words, bpe.ignore_merges, options.instructions);
        let classes = if normalizes { Classes::with_nfc() } else { Classes::new() };
        let splitter = Splitter::new(pattern, classes, options.instructions);
        Some(Self { options, splitter, words, added, normalizes })
    }

    /// Appends the ids of `text`; `false` and nothing appended where only the crate knows the answer.
    pub(crate) fn encode(&self, text: &str, scratch: &mut EncodeScratch, out: &mut Vec<TokenId>) -> bool {
        if self.has_added(text) {
            return false;
        }
        let Some(state) = self.state(scratch) else { return false };
        self.splitter.cut(text, &mut state.cuts);
        if self.normalizes
            && state.cuts.seen & UNSTABLE != 0
            && is_nfc_quick(text.chars()) != IsNormalized::Yes
        {
            // By the tables of the tokenizers crate.
            let normalized: String = text.nfc().map(|(c, _)| c).collect();
            if self.has_added(&normalized) {
                return false;
            }
            self.splitter.cut(&normalized, &mut state.cuts);
            self.words.look_up(normalized.as_bytes(), &state.cuts, &mut state.words, out);
        } else {
            self.words.look_up(text.as_bytes(), &state.cuts, &mut state.words, out);
        }
        true
    }

    fn has_added(&self, text: &str) -> bool {
        self.added.as_ref().is_some_and(|added| added.is_match(text))
    }

    /// `None` if the system has no memory for the cache.
    fn state<'s>(&self, scratch: &'s mut EncodeScratch) -> Option<&'s mut State> {
        if scratch.state.as_ref().is_none_or(|state| state.owner != self.options.owner) {
            scratch.state = Some(State {
                owner: self.options.owner,
                cuts: Cuts::default(),
                words: self.words.state(self.options.cache_bytes).ok()?,
            });
        }
        scratch.state.as_mut()
    }
}

/// Whether text is brought to NFC; `None` if something else is done to it.
fn normalizes(normalizer: Option<&NormalizerWrapper>) -> Option<bool> {
    match normalizer {
        None => Some(false),
        Some(NormalizerWrapper::NFC(_)) => Some(true),
        Some(NormalizerWrapper::Sequence(steps)) => match steps.as_ref() {
            [] => Some(false),
            [NormalizerWrapper::NFC(_)] => Some(true),
            _ => None,
        },
        Some(_) => None,
    }
}

/// The pattern that cuts words, where nothing but it happens before merging.
fn pattern(pre_tokenizer: &PreTokenizerWrapper) -> Option<Pattern> {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(spelling) if spelling.use_regex && !spelling.add_prefix_space => {
            Pattern::known(&[GPT2_PATTERN])
        }
        PreTokenizerWrapper::Sequence(steps) => {
            let (last, splits) = steps.as_ref().split_last()?;
            let PreTokenizerWrapper::ByteLevel(spelling) = last else { return None };
            if spelling.use_regex || spelling.add_prefix_space {
                return None;
            }
            let patterns: Option<Vec<&str>> = splits
                .iter()
                .map(|step| match step {
                    PreTokenizerWrapper::Split(split) => isolated(split),
                    _ => None,
                })
                .collect();
            Pattern::known(&patterns?)
        }
        _ => None,
    }
}

/// The expression of a step that makes words of its matches and of what lies between them.
fn isolated(split: &Split) -> Option<&str> {
    match &split.pattern {
        SplitPattern::Regex(pattern)
            if split.behavior == SplitDelimiterBehavior::Isolated && !split.invert =>
        {
            Some(pattern)
        }
        _ => None,
    }
}

/// The merges of a `tokenizer.json` by rank, as ids.
fn merges(json: &str, bpe: &BPE) -> Option<Vec<Merge>> {
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(borrow)]
        model: Model<'a>,
    }
    #[derive(Deserialize)]
    struct Model<'a> {
        #[serde(borrow)]
        merges: Vec<Halves<'a>>,
    }
    let file: File<'_> = serde_json::from_str(json).ok()?;
    let mut whole = String::new();
    let merge = |Halves(left, right): &Halves<'_>| {
        whole.clear();
        whole.push_str(left);
        whole.push_str(right);
        Some((bpe.token_to_id(left)?, bpe.token_to_id(right)?, bpe.token_to_id(&whole)?))
    };
    file.model.merges.iter().map(merge).collect()
}

/// The two halves of a merge: a list of two, or in older files one text with a space between them.
struct Halves<'a>(Cow<'a, str>, Cow<'a, str>);

/// A text, as it stands in the file where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Halves<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Halves<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("two tokens")
            }

            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                let (left, right) = halves(text)?;
                Ok(Halves(left.into(), right.into()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let (left, right) = halves(text)?;
                Ok(Halves(left.to_owned().into(), right.to_owned().into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut half =
                    || list.next_element::<Text<'de>>()?.ok_or_else(|| A::Error::custom("half a merge"));
                let halves = Halves(half()?.0, half()?.0);
                match list.next_element::<Text<'de>>()? {
                    None => Ok(halves),
                    Some(_) => Err(A::Error::custom("a merge of more than two")),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn halves<E: serde::de::Error>(text: &str) -> Result<(&str, &str), E> {
    text.split_once(' ').ok_or_else(|| E::custom("a merge without a space"))
}
