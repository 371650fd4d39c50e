//! Tokenizers of Hugging Face: a `tokenizer.json`, run by the `tokenizers` crate.
//!
//! What the file says about padding, truncation and dropout is for other uses and is switched off; its
//! post-processor adds no tokens because none are asked for.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerImpl,
};

use crate::TokenId;
use crate::byte_level::unspell;
use crate::error::{Error, Result};
use crate::fast::{ByteLevelEncoder, EncodeScratch, FastOptions};

/// Tokens that end documents, by custom; the first that a vocabulary has is taken.
///
/// `<|endoftext|>` comes before `<|im_end|>`, because models that have both end documents with the first and
/// turns of a dialogue with the second.
pub(crate) const EOD_CANDIDATES: [&str; 8] = [
    "<|endoftext|>",         // GPT-2, GPT-NeoX, Qwen, StarCoder, SmolLM
    "<|end_of_text|>",       // Llama 3, Granite
    "<｜end▁of▁sentence｜>", // DeepSeek
    "</s>",                  // Llama 2, Mistral, T5, RoBERTa
    "<eos>",                 // Gemma
    "[EOS]",
    "<|eos|>",
    "<|im_end|>",
];

/// A tokenizer of Hugging Face, set up for whole documents.
#[derive(Debug)]
pub(crate) struct HfTokenizer {
    inner: tokenizers::Tokenizer,
    eod: TokenId,
    vocab_size: u32,
    /// Whether special tokens in the text count as such.
    parse_special: bool,
    unknown: Option<TokenId>,
    fast: Option<ByteLevelEncoder>,
}

impl HfTokenizer {
    /// Reads a `tokenizer.json`. `fast.owner` identifies the file and the options among
    /// all.
    pub(crate) fn parse(
        origin: &str,
        json: &str,
        eod: Option<&str>,
        parse_special: bool,
        fast: FastOptions,
    ) -> Result<Self> {
        let not_a_tokenizer = |problem: String| Error::NotATokenizer { origin: origin.to_owned(), problem };
        let mut inner = read(json).map_err(|error| not_a_tokenizer(error.to_string()))?;
        inner.with_truncation(None).map_err(|error| not_a_tokenizer(error.to_string()))?;
        inner.with_padding(None);
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some()
        {
            let mut bpe = bpe.clone();
            bpe.dropout = None; // It would draw other ids each time.
            inner.with_model(bpe);
        }
        let vocab_size = vocab_size(&inner).map_err(not_a_tokenizer)?;
        let eod = find_eod(origin, &inner, eod)?;
        inner.set_encode_special_tokens(!parse_special);
        if !parse_special {
            treat_as_special(&mut inner, eod).map_err(|error| not_a_tokenizer(error.to_string()))?;
        }
        let unknown = unknown_id(&inner, json);
        let fast = ByteLevelEncoder::new(&inner, json, fast);
        Ok(Self { inner, eod, vocab_size, parse_special, unknown, fast })
    }

    pub(crate) fn eod(&self) -> TokenId {
        self.eod
    }

    pub(crate) fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// The id that stands for whatever the vocabulary cannot spell, if there is one.
    pub(crate) fn unknown(&self) -> Option<TokenId> {
        self.unknown
    }

    /// Whether texts are encoded here rather than by the crate, some sixty times faster.
    pub(crate) fn is_fast(&self) -> bool {
        self.fast.is_some()
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(
        &self,
        text: &str,
        scratch: &mut EncodeScratch,
        out: &mut Vec<TokenId>,
    ) -> Result<()> {
        let start = out.len();
        let is_done = self.fast.as_ref().is_some_and(|fast| fast.encode(text, scratch, out));
        if !is_done {
            let encoding = self.inner.encode_fast(text, false).map_err(|source| Error::Encode { source })?;
            out.extend_from_slice(encoding.get_ids());
        }
        // No text may end its own document. Byte-level models cannot be made to; Unigram ones can: they know
        // `</s>`.
        if !self.parse_special
            && holds(&out[start..], self.eod)
            && let Some(position) = out[start..].iter().position(|&id| id == self.eod)
        {
            out.truncate(start);
            return Err(Error::EodInText { eod: self.eod, position });
        }
        Ok(())
    }

    /// What each id stands for in a text; nothing for special tokens, the end of documents and unused ids.
    pub(crate) fn vocabulary(&self) -> Vec<Vec<u8>> {
        let notation = Notation::of(&self.inner);
        let added = self.inner.get_added_tokens_decoder();
        let text_of = |id| match added.get(&id) {
            _ if id == self.eod => Vec::new(),
            Some(token) if token.special => Vec::new(),
            Some(token) => token.content.clone().into_bytes(),
            None => self.inner.id_to_token(id).map(|token| notation.bytes(&token)).unwrap_or_default(),
        };
        (0..self.vocab_size).map(text_of).collect()
    }
}

/// Whether `id` is among `ids`; without a way out of the loop, it looks at a vector of them at a time.
fn holds(ids: &[TokenId], id: TokenId) -> bool {
    ids.chunks(256).any(|ids| ids.iter().fold(false, |found, &other| found | (other == id)))
}

/// The tokenizer of a file.
///
/// The crate reads a model of unknown kind into one tree, then another, then the model: three times the time of reading
/// BPE, which nearly all are, directly.
fn read(json: &str) -> tokenizers::Result<tokenizers::Tokenizer> {
    type OfBpe =
        TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;
    match serde_json::from_str::<OfBpe>(json) {
        Ok(tokenizer) => Ok(tokenizer.into()),
        Err(_) => json.parse(),
    }
}

/// The highest id and one.
///
/// The crate numbers added tokens anew, from the size of the vocabulary on. Where ids have gaps this may give
/// two tokens one id, and nobody could tell afterwards which was meant.
fn vocab_size(tokenizer: &tokenizers::Tokenizer) -> std::result::Result<u32, String> {
    let mut ids: Vec<(TokenId, String)> =
        tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
    ids.sort_unstable();
    if let Some([(id, a), (_, b)]) = ids.array_windows().find(|[(a, _), (b, _)]| a == b) {
        return Err(format!(
            "its tokens {a:?} and {b:?} have the same id {id} once added tokens are numbered"
        ));
    }
    let highest = ids.last().map(|(id, _)| *id);
    highest.and_then(|id| id.checked_add(1)).ok_or_else(|| "its vocabulary is empty".to_owned())
}

fn find_eod(origin: &str, tokenizer: &tokenizers::Tokenizer, asked: Option<&str>) -> Result<TokenId> {
    let Some(token) = asked else {
        let found = EOD_CANDIDATES.iter().find_map(|token| tokenizer.token_to_id(token));
        return found.ok_or(Error::NoEod { origin: origin.to_owned(), tried: &EOD_CANDIDATES });
    };
    let by_number = || {
        let id = token.strip_prefix("id:")?.parse().ok()?;
        tokenizer.id_to_token(id).map(|_| id)
    };
    let found = tokenizer.token_to_id(token).or_else(by_number);
    found.ok_or_else(|| Error::UnknownEod { origin: origin.to_owned(), token: token.to_owned() })
}

/// Marks the token that ends documents as special, if the file added it as an ordinary one: a text that quotes
/// it must not end there.
fn treat_as_special(tokenizer: &mut tokenizers::Tokenizer, id: TokenId) -> tokenizers::Result<()> {
    let added = tokenizer.get_added_tokens_decoder().remove(&id);
    if let Some(token) = added.filter(|token| !token.special) {
        tokenizer.add_special_tokens([AddedToken { special: true, ..token }])?;
    }
    Ok(())
}

fn unknown_id(tokenizer: &tokenizers::Tokenizer, json: &str) -> Option<TokenId> {
    #[derive(Deserialize)]
    struct File {
        model: Unigram,
    }
    #[derive(Deserialize)]
    struct Unigram {
        unk_id: Option<TokenId>,
    }
    match tokenizer.get_model() {
        ModelWrapper::BPE(model) => tokenizer.token_to_id(model.unk_token.as_deref()?),
        ModelWrapper::WordPiece(model) => tokenizer.token_to_id(&model.unk_token),
        ModelWrapper::WordLevel(model) => tokenizer.token_to_id(&model.unk_token),
        // The crate keeps this one to itself.
        ModelWrapper::Unigram(_) => serde_json::from_str::<File>(json).ok()?.model.unk_id,
    }
}

/// How the tokens of a vocabulary are written.
#[derive(Debug, PartialEq)]
enum Notation {
    /// One character a byte.
    ByteLevel,
    /// As text, up to some marks.
    Marked(Marks),
}

/// The marks that a vocabulary written as text may use; an empty string is no mark.
#[derive(Debug, Default, PartialEq)]
struct Marks {
    /// Stands for a space, as `▁` does.
    space: String,
    /// Ends a word, as `</w>` does.
    end_of_word: String,
    /// Begins a token that continues a word, as `##` does; other tokens then begin with a space.
    continuation: String,
    /// Whether `<0x0A>` is a byte.
    has_bytes: bool,
}

impl Notation {
    fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        // The parts of a tokenizer are many nested types with private fields; their JSON is public and stable.
        let json = |part: serde_json::Result<Value>| part.unwrap_or_default();
        let decoder = parts(json(serde_json::to_value(tokenizer.get_decoder())));
        let mut others = parts(json(serde_json::to_value(tokenizer.get_pre_tokenizer())));
        others.extend(parts(json(serde_json::to_value(tokenizer.get_normalizer()))));
        if decoder.iter().chain(&others).any(|part| part["type"] == "ByteLevel") {
            return Self::ByteLevel;
        }
        let mut marks = Marks::default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for part in others.iter().chain(&decoder) {
            match part["type"].as_str() {
                Some("Metaspace") => marks.space = text(&part["replacement"]),
                Some("WordPiece") => marks.continuation = text(&part["prefix"]),
                Some("BPEDecoder") => marks.end_of_word = text(&part["suffix"]),
                Some("ByteFallback") => marks.has_bytes = true,
                _ => {}
            }
        }
        for part in decoder.iter().filter(|part| part["type"] == "Replace" && part["content"] == " ") {
            marks.space = text(&part["pattern"]["String"]);
        }
        if let ModelWrapper::BPE(bpe) = tokenizer.get_model() {
            marks.has_bytes |= bpe.byte_fallback;
        }
        Self::Marked(marks)
    }

    /// The bytes that `token` adds to a text.
    fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            // A token with other characters in it is text, as the crate's decoder has it.
            Self::ByteLevel => token
                .chars()
                .map(unspell)
                .collect::<Option<Vec<u8>>>()
                .unwrap_or_else(|| token.as_bytes().to_vec()),
            Self::Marked(marks) => marks.bytes(token),
        }
    }
}

impl Marks {
    fn bytes(&self, token: &str) -> Vec<u8> {
        if self.has_bytes
            && let Some(byte) = byte_token(token)
        {
            return vec![byte];
        }
        let mut text = token.to_owned();
        if !self.continuation.is_empty() {
            text = match token.strip_prefix(&self.continuation) {
                Some(rest) => rest.to_owned(),
                None => format!(" {token}"),
            };
        }
        if !self.end_of_word.is_empty()
            && let Some(word) = token.strip_suffix(&self.end_of_word)
        {
            text = format!("{word} ");
        }
        if !self.space.is_empty() {
            text = text.replace(&self.space, " ");
        }
        text.into_bytes()
    }
}

/// The byte that `<0x0A>` and its like name.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_byte { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// A part of a tokenizer with the parts inside it, outermost first.
fn parts(part: Value) -> Vec<Value> {
    let inner: Vec<Value> = ["decoders", "pretokenizers", "normalizers"]
        .iter()
        .filter_map(|field| part.get(field)?.as_array())
        .flatten()
        .flat_map(|inner| parts(inner.clone()))
        .collect();
    [part].into_iter().chain(inner).collect()
}
