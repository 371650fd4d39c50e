//! The tokenizers that need no training: bytes and characters.
//!
//! Their JSON is ours and small: `{"type":"curate","model":"bytes"}` or
//! `{"type":"curate","model":"char","alphabet":"\n !abc"}`.

use serde::{Deserialize, Serialize};

use crate::TokenId;
use crate::error::{Error, Result};

/// The `type` that marks our JSON; files of Hugging Face have no such field.
pub(crate) const TYPE: &str = "curate";

/// The JSON of a built-in tokenizer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Spec {
    pub(crate) r#type: String,
    pub(crate) model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alphabet: Option<String>,
}

impl Spec {
    pub(crate) fn bytes() -> Self {
        Self { r#type: TYPE.to_owned(), model: "bytes".to_owned(), alphabet: None }
    }

    pub(crate) fn characters(alphabet: &Alphabet) -> Self {
        let alphabet = Some(alphabet.characters.iter().collect());
        Self { r#type: TYPE.to_owned(), model: "char".to_owned(), alphabet }
    }
}

/// Ids 0 to 255 are the bytes of the text in UTF-8, this one ends documents.
pub(crate) const BYTES_EOD: TokenId = 256;

/// The characters of a character tokenizer: an id is a position in them, the id after the last ends documents.
#[derive(Debug)]
pub(crate) struct Alphabet {
    /// Sorted by code point, without repeats, at least one.
    characters: Vec<char>,
    /// Ids of the ASCII characters; [`Alphabet::NONE`] for one that is missing.
    ascii: [TokenId; 128],
}

impl Alphabet {
    const NONE: TokenId = TokenId::MAX;

    /// The distinct characters of `text`; `None` when it has none.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let mut characters: Vec<char> = text.chars().collect();
        characters.sort_unstable();
        characters.dedup();
        Self::new(characters)
    }

    /// The alphabet as our JSON has it, which must be sorted: the order is what gives the ids.
    pub(crate) fn from_spec(origin: &str, alphabet: &str) -> Result<Self> {
        let not_a_tokenizer =
            |problem: &str| Error::NotATokenizer { origin: origin.to_owned(), problem: problem.to_owned() };
        let characters: Vec<char> = alphabet.chars().collect();
        if !characters.is_sorted_by(|a, b| a < b) {
            return Err(not_a_tokenizer("its alphabet is not sorted by code point, or repeats a character"));
        }
        Self::new(characters).ok_or_else(|| not_a_tokenizer("its alphabet is empty"))
    }

    fn new(characters: Vec<char>) -> Option<Self> {
        if characters.is_empty() {
            return None;
        }
        let mut ascii = [Self::NONE; 128];
        for (id, &character) in (0..).zip(&characters) {
            if character.is_ascii() {
                ascii[character as usize] = id;
            }
        }
        Some(Self { characters, ascii })
    }

    pub(crate) fn eod(&self) -> TokenId {
        TokenId::try_from(self.characters.len()).expect("there are fewer than 2^21 characters")
    }

    fn id(&self, character: char) -> Option<TokenId> {
        if character.is_ascii() {
            let id = self.ascii[character as usize];
            return (id != Self::NONE).then_some(id);
        }
        let position = self.characters.binary_search(&character).ok()?;
        Some(TokenId::try_from(position).expect("there are fewer than 2^21 characters"))
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(&self, text: &str, out: &mut Vec<TokenId>) -> Result<()> {
        for (offset, character) in text.char_indices() {
            out.push(self.id(character).ok_or(Error::NotInAlphabet { character, offset })?);
        }
        Ok(())
    }

    /// The UTF-8 bytes of each character, then nothing for the end of documents.
    pub(crate) fn vocabulary(&self) -> Vec<Vec<u8>> {
        let characters = self.characters.iter().map(|character| character.to_string().into_bytes());
        characters.chain([Vec::new()]).collect()
    }
}
