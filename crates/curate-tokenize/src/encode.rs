//! The stage that turns documents into ids.

use curate_core::{Counters, Document, Dropped, Mapper, Value, Verdict, Work, content_key};

use crate::error::Error;
use crate::fast::EncodeScratch;
use crate::{TokenId, Tokenizer};

/// A document as ids, with what later stages need to know of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedDocument {
    pub id: String,
    /// The corpus it belongs to; empty when the record names none.
    pub source: String,
    /// UTF-8 bytes of the text: the unit of bits per byte.
    pub n_bytes: u32,
    /// What decides the side of a split: the low 64 bits of [`content_key`], so that equal texts fall on one side, or
    /// what [`EncodeMapper::with_keys`] says.
    pub key: u64,
    /// Ends in the end-of-document id; an empty text is that one id. At most `i32::MAX` of them.
    pub tokens: Vec<TokenId>,
}

/// Encodes each document and leaves it to the gate as [`EncodedDocument`].
///
/// Counts `tokens` (ends of documents included) and `unknown_tokens`. Drops what cannot be encoded:
/// `not_in_alphabet`, `text_ends_document` (the text alone gives the end-of-document id), `document_too_long`
/// (4 GiB of text or 2^31 tokens), `not_encodable`.
pub struct EncodeMapper<'t> {
    tokenizer: &'t Tokenizer,
    keys: Option<&'t KeyOf>,
}

/// Something that a document has in common with those that belong to the same side of a split; `None` if it stands alone.
pub type KeyOf = dyn Fn(&Document<'_>) -> Option<u64> + Send + Sync;

impl std::fmt::Debug for EncodeMapper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncodeMapper").field("tokenizer", &self.tokenizer).finish_non_exhaustive()
    }
}

impl<'t> EncodeMapper<'t> {
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, keys: None }
    }

    /// Takes the key of a document from `keys` where that has one.
    #[must_use]
    pub fn with_keys(self, keys: Option<&'t KeyOf>) -> Self {
        Self { keys, ..self }
    }

    fn encode(&self, doc: &Document<'_>, scratch: &mut EncodeScratch) -> Result<EncodedDocument, Error> {
        let text = doc.text();
        let too_long =
            |tokens: usize| Error::DocumentTooLong { bytes: text.len() as u64, tokens: tokens as u64 };
        let n_bytes = u32::try_from(text.len()).map_err(|_| too_long(0))?;
        let mut buffer = std::mem::take(&mut scratch.tokens);
        buffer.clear();
        let encoded = self.tokenizer.encode_document(text, scratch, &mut buffer);
        let tokens = buffer.to_vec(); // Exact: it waits for its turn with all the others of its block.
        scratch.tokens = buffer;
        encoded?;
        if i32::try_from(tokens.len()).is_err() {
            return Err(too_long(tokens.len()));
        }
        let key = self.keys.and_then(|key| key(doc)).unwrap_or_else(|| content_key(text) as u64);
        Ok(EncodedDocument { id: doc.id().to_owned(), source: doc.source().to_owned(), n_bytes, key, tokens })
    }
}

impl Mapper for EncodeMapper<'_> {
    type Work = EncodedDocument;
    type Scratch = EncodeScratch;

    fn map(
        &self,
        doc: &mut Document<'_>,
        scratch: &mut EncodeScratch,
        counters: &mut Counters,
    ) -> Work<EncodedDocument> {
        match self.encode(doc, scratch) {
            Ok(encoded) => {
                counters.add("tokens", encoded.tokens.len() as u64);
                if let Some(unknown) = self.tokenizer.unknown() {
                    let count = encoded.tokens.iter().filter(|&&id| id == unknown).count();
                    counters.add("unknown_tokens", count as u64);
                }
                Work::Pending(encoded)
            }
            Err(error) => Work::Decided(Verdict::Drop(dropped(&error))),
        }
    }
}

fn dropped(error: &Error) -> Dropped {
    let (reason, proof) = match error {
        Error::NotInAlphabet { character, offset } => (
            "not_in_alphabet",
            vec![
                ("character", Value::Text(character.to_string())),
                ("code_point", Value::Text(format!("U+{:04X}", u32::from(*character)))),
                ("byte_offset", Value::Count(*offset as u64)),
            ],
        ),
        Error::EodInText { eod, position } => (
            "text_ends_document",
            vec![
                ("token_id", Value::Count(u64::from(*eod))),
                ("token_position", Value::Count(*position as u64)),
            ],
        ),
        Error::DocumentTooLong { bytes, tokens } => {
            ("document_too_long", vec![("bytes", Value::Count(*bytes)), ("tokens", Value::Count(*tokens))])
        }
        Error::Encode { source } => ("not_encodable", vec![("error", Value::Text(source.to_string()))]),
        other => ("not_encodable", vec![("error", Value::Text(other.to_string()))]),
    };
    Dropped { reason: reason.into(), proof }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LoadOptions;

    fn map(tokenizer: &Tokenizer, text: &str) -> Work<EncodedDocument> {
        let mut doc = Document::new(b"", "d1", "web", text);
        EncodeMapper::new(tokenizer).map(&mut doc, &mut EncodeScratch::default(), &mut Counters::default())
    }

    fn characters(alphabet: &str) -> Tokenizer {
        let json = serde_json::json!({"type": "curate", "model": "char", "alphabet": alphabet}).to_string();
        Tokenizer::from_json("char", json.as_bytes(), &LoadOptions::default()).unwrap()
    }

    #[test]
    fn a_document_becomes_ids_that_end_in_eod() {
        let tokenizer = Tokenizer::load("bytes", &LoadOptions::default()).unwrap();
        let check = |text: &str, tokens: &[TokenId]| match map(&tokenizer, text) {
            Work::Pending(encoded) => {
                assert_eq!((encoded.id.as_str(), encoded.source.as_str()), ("d1", "web"));
                assert_eq!(encoded.n_bytes as usize, text.len());
                assert_eq!(encoded.key, content_key(text) as u64);
                assert_eq!(encoded.tokens, tokens);
            }
            Work::Decided(verdict) => panic!("{verdict:?}"),
        };
        check("", &[256]);
        check("ab\n", &[97, 98, 10, 256]);
        check("é", &[0xC3, 0xA9, 256]);
    }

    #[test]
    fn what_has_no_id_is_dropped_with_its_place() {
        let Work::Decided(Verdict::Drop(dropped)) = map(&characters("abé"), "abé~") else {
            panic!("not dropped")
        };
        assert_eq!(&*dropped.reason, "not_in_alphabet");
        let expected = [
            ("character", Value::Text("~".to_owned())),
            ("code_point", Value::Text("U+007E".to_owned())),
            ("byte_offset", Value::Count(4)),
        ];
        assert_eq!(dropped.proof, expected);
    }

    #[test]
    fn tokens_are_counted() {
        let tokenizer = characters("ab");
        let mut counters = Counters::default();
        for text in ["ab", "", "a"] {
            let mut doc = Document::new(b"", "d", "", text);
            EncodeMapper::new(&tokenizer).map(&mut doc, &mut EncodeScratch::default(), &mut counters);
        }
        let mut expected = Counters::default();
        expected.add("tokens", 6);
        assert_eq!(counters, expected);
    }
}
