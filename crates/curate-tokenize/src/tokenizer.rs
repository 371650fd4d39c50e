//! A tokenizer: text to ids and ids to bytes, with the JSON that can bring it back.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::TokenId;
use crate::blocks::Instructions;
use crate::builtin::{self, Alphabet, BYTES_EOD, Spec};
use crate::error::{Error, Result};
use crate::fast::{EncodeScratch, FastOptions};
use crate::hf::HfTokenizer;

/// How to set up a tokenizer.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The token that ends documents, as the vocabulary writes it, or `id:N`.
    ///
    /// `None` takes the first of these that a Hugging Face tokenizer has: `<|endoftext|>`, `<|end_of_text|>`,
    /// `<｜end▁of▁sentence｜>`, `</s>`, `<eos>`, `[EOS]`, `<|eos|>`, `<|im_end|>`. The built-in tokenizers have
    /// one of their own, which has no spelling; there only `id:N` with its number is accepted.
    pub eod: Option<String>,
    /// Whether special tokens written out in a text count as such. By default they are plain text, so that no
    /// document can forge the end of a document or a turn.
    pub parse_special: bool,
    /// Memory for remembered words, in bytes, of each [`EncodeScratch`]: more is faster on large vocabularies and
    /// mixed text. Changes no ids.
    pub cache_bytes: usize,
    /// Which machine instructions to use; changes no ids.
    pub instructions: Instructions,
}

impl Default for LoadOptions {
    /// 64 MiB of words: half a million short ones and what they are merged into, which is more than 40 MB of mixed
    /// text have.
    fn default() -> Self {
        Self { eod: None, parse_special: false, cache_bytes: 64 << 20, instructions: Instructions::Best }
    }
}

/// What must be known of a tokenizer to use the ids that it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerInfo {
    /// Name for people: `bytes`, `char`, or from the file's name.
    pub name: String,
    /// SHA-256 of [`Tokenizer::to_json`], in lower-case hex.
    pub sha256: String,
    /// The highest id and one, added tokens included: all ids are below this.
    pub vocab_size: u32,
    /// The id that ends documents.
    pub eod: TokenId,
}

/// Turns text into ids.
///
/// Takes little memory for the built-in ones, some ten times its file for a Hugging Face one.
#[derive(Debug)]
pub struct Tokenizer {
    model: Model,
    info: TokenizerInfo,
    json: String,
}

#[derive(Debug)]
enum Model {
    Bytes,
    Characters(Box<Alphabet>),
    HuggingFace(Box<HfTokenizer>),
}

impl Tokenizer {
    /// Loads the tokenizer that `spec` names.
    ///
    /// - `bytes`: ids 0 to 255 are the UTF-8 bytes, 256 ends documents;
    /// - `char:FILE`: ids are the distinct characters of a UTF-8 file in the order of their code points, the id
    ///   after the last ends documents; a text with other characters cannot be encoded;
    /// - anything else is the path of a Hugging Face `tokenizer.json`, of a directory that holds one, or of the
    ///   JSON that [`to_json`](Self::to_json) gives for the first two.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::EmptyAlphabet`], [`Error::NotATokenizer`], [`Error::NoEod`],
    /// [`Error::UnknownEod`].
    pub fn load(spec: &str, options: &LoadOptions) -> Result<Self> {
        if spec == "bytes" {
            return Self::build(spec, spec, json_of(&Spec::bytes()), options);
        }
        if let Some(path) = spec.strip_prefix("char:") {
            let path = Path::new(path);
            let text = read(path, "text that gives the alphabet")?;
            let alphabet =
                Alphabet::of_text(&text).ok_or_else(|| Error::EmptyAlphabet { path: path.to_owned() })?;
            return Self::build("char", spec, json_of(&Spec::characters(&alphabet)), options);
        }
        let named = Path::new(spec);
        let path = if named.is_dir() { named.join("tokenizer.json") } else { named.to_owned() };
        let json = read(&path, "tokenizer")?;
        Self::build(&name_of(&path), &path.display().to_string(), json, options)
    }

    /// Brings back a tokenizer from what [`to_json`](Self::to_json) gave, or from the bytes of a
    /// `tokenizer.json`.
    ///
    /// `name` becomes [`TokenizerInfo::name`] and stands in messages.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn from_json(name: &str, json: &[u8], options: &LoadOptions) -> Result<Self> {
        let json = std::str::from_utf8(json).map_err(|error| Error::NotATokenizer {
            origin: name.to_owned(),
            problem: format!("it is not UTF-8 ({error})"),
        })?;
        Self::build(name, name, json.to_owned(), options)
    }

    fn build(name: &str, origin: &str, json: String, options: &LoadOptions) -> Result<Self> {
        let digest = Sha256::digest(&json);
        let model = match kind(origin, &json)? {
            Kind::Ours => builtin_model(origin, &json)?,
            Kind::HuggingFace => {
                let (head, _) = digest.split_first_chunk().expect("a SHA-256 has 32 bytes");
                let owner = u64::from_le_bytes(*head) ^ u64::from(options.parse_special);
                let fast = FastOptions {
                    owner,
                    cache_bytes: options.cache_bytes,
                    instructions: options.instructions,
                };
                let eod = options.eod.as_deref();
                Model::HuggingFace(Box::new(HfTokenizer::parse(
                    origin,
                    &json,
                    eod,
                    options.parse_special,
                    fast,
                )?))
            }
        };
        let (eod, vocab_size) = match &model {
            Model::Bytes => (BYTES_EOD, BYTES_EOD + 1),
            Model::Characters(alphabet) => (alphabet.eod(), alphabet.eod() + 1),
            Model::HuggingFace(hf) => (hf.eod(), hf.vocab_size()),
        };
        if let (Model::Bytes | Model::Characters(_), Some(asked)) = (&model, &options.eod)
            && *asked != format!("id:{eod}")
        {
            return Err(Error::UnknownEod { origin: origin.to_owned(), token: asked.clone() });
        }
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { model, info: TokenizerInfo { name: name.to_owned(), sha256, vocab_size, eod }, json })
    }

    /// Name, fingerprint, size and end of documents.
    pub fn info(&self) -> &TokenizerInfo {
        &self.info
    }

    /// The JSON that brings the tokenizer back: the file as it was, or ours for the built-in ones. It is UTF-8.
    pub fn to_json(&self) -> Vec<u8> {
        self.json.clone().into_bytes()
    }

    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// Whether texts are encoded at a hundred megabytes a second and more on one core.
    ///
    /// True of the built-in tokenizers and of byte-level BPE with the words of GPT-2, cl100k, Llama 3, o200k,
    /// Qwen or DeepSeek, with or without NFC. All others are run by the `tokenizers` crate alone, at some 1 to 4.
    pub fn is_fast(&self) -> bool {
        match &self.model {
            Model::Bytes | Model::Characters(_) => true,
            Model::HuggingFace(hf) => hf.is_fast(),
        }
    }

    /// The id that stands for what the vocabulary cannot spell, if the tokenizer has one. Byte-level ones have
    /// none.
    pub fn unknown(&self) -> Option<TokenId> {
        match &self.model {
            Model::Bytes | Model::Characters(_) => None,
            Model::HuggingFace(hf) => hf.unknown(),
        }
    }

    /// Appends the ids of `text` to `out`: those that Hugging Face `tokenizers` gives, without template tokens.
    ///
    /// Nothing is appended when it fails. `scratch` holds what a thread remembers between texts; it changes the
    /// speed and nothing else.
    ///
    /// # Errors
    /// [`Error::NotInAlphabet`], [`Error::EodInText`], [`Error::Encode`].
    pub fn encode(&self, text: &str, scratch: &mut EncodeScratch, out: &mut Vec<TokenId>) -> Result<()> {
        let start = out.len();
        let encoded = match &self.model {
            Model::Bytes => {
                out.extend(text.bytes().map(TokenId::from));
                Ok(())
            }
            Model::Characters(alphabet) => alphabet.encode(text, out),
            Model::HuggingFace(hf) => hf.encode(text, scratch, out),
        };
        if encoded.is_err() {
            out.truncate(start);
        }
        encoded
    }

    /// Appends the ids of `text` and the one that ends documents. An empty text is that one id.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_document(
        &self,
        text: &str,
        scratch: &mut EncodeScratch,
        out: &mut Vec<TokenId>,
    ) -> Result<()> {
        self.encode(text, scratch, out)?;
        out.push(self.info.eod);
        Ok(())
    }

    /// The bytes that `ids` stand for: the entries of [`vocabulary`](Self::vocabulary), one after the other.
    ///
    /// For bytes, characters and byte-level BPE without a normaliser this is the text that was encoded.
    /// Elsewhere it is close to it: SentencePiece models put a space before the first word. Builds the
    /// vocabulary anew; keep that instead where much is decoded.
    pub fn decode(&self, ids: &[TokenId]) -> Vec<u8> {
        match &self.model {
            // The only ids of this one above 255 end documents or are none of its own.
            Model::Bytes => ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect(),
            Model::Characters(_) | Model::HuggingFace(_) => {
                let vocabulary = self.vocabulary();
                let bytes = |&id: &TokenId| vocabulary.get(id as usize).map_or(&[][..], Vec::as_slice);
                ids.iter().flat_map(bytes).copied().collect()
            }
        }
    }

    /// The bytes each id stands for in a text, by id.
    ///
    /// Nothing for the end of documents, special tokens and unused ids; added tokens are their literal text.
    /// One id may hold part of a character: only whole texts are UTF-8.
    pub fn vocabulary(&self) -> Vec<Vec<u8>> {
        match &self.model {
            Model::Bytes => (0..=255).map(|byte| vec![byte]).chain([Vec::new()]).collect(),
            Model::Characters(alphabet) => alphabet.vocabulary(),
            Model::HuggingFace(hf) => hf.vocabulary(),
        }
    }
}

fn read(path: &Path, what: &'static str) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { what, path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| Error::NotATokenizer {
        origin: path.display().to_string(),
        problem: format!("it is not UTF-8 ({})", error.utf8_error()),
    })
}

/// `gpt2` for `gpt2.json`; for a `tokenizer.json`, the directory's name says more than the file's.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    let parent = path.parent().and_then(Path::file_name);
    match parent {
        Some(parent) if stem == "tokenizer" => parent,
        _ => stem,
    }
    .to_string_lossy()
    .into_owned()
}

fn json_of(spec: &Spec) -> String {
    serde_json::to_string(spec).expect("a struct of strings is JSON")
}

/// Whose JSON it is.
enum Kind {
    Ours,
    HuggingFace,
}

fn kind(origin: &str, json: &str) -> Result<Kind> {
    #[derive(Deserialize)]
    #[serde(expecting = "a JSON object")]
    struct Probe {
        r#type: Option<Value>,
        model: Option<serde::de::IgnoredAny>,
    }
    let not_a_tokenizer = |problem: String| Error::NotATokenizer { origin: origin.to_owned(), problem };
    let probe: Probe = serde_json::from_str(json).map_err(|error| not_a_tokenizer(error.to_string()))?;
    match (probe.r#type, probe.model) {
        (Some(kind), _) if kind == builtin::TYPE => Ok(Kind::Ours),
        (_, Some(_)) => Ok(Kind::HuggingFace),
        (_, None) => Err(not_a_tokenizer("it has no field `model`".to_owned())),
    }
}

fn builtin_model(origin: &str, json: &str) -> Result<Model> {
    let not_a_tokenizer = |problem: String| Error::NotATokenizer { origin: origin.to_owned(), problem };
    let spec: Spec = serde_json::from_str(json).map_err(|error| not_a_tokenizer(error.to_string()))?;
    match (spec.model.as_str(), spec.alphabet) {
        ("bytes", None) => Ok(Model::Bytes),
        ("char", Some(alphabet)) => Ok(Model::Characters(Box::new(Alphabet::from_spec(origin, &alphabet)?))),
        ("bytes", Some(_)) => Err(not_a_tokenizer("the model `bytes` has no alphabet".to_owned())),
        ("char", None) => Err(not_a_tokenizer("the model `char` needs an alphabet".to_owned())),
        (other, _) => Err(not_a_tokenizer(format!("unknown model `{other}`, expected `bytes` or `char`"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{SMALL, TEXT, TempDir, added, small_json, tokenizer};

    fn load(spec: &str) -> Result<Tokenizer> {
        Tokenizer::load(spec, &LoadOptions::default())
    }

    fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<TokenId> {
        let mut ids = Vec::new();
        tokenizer.encode(text, &mut EncodeScratch::default(), &mut ids).unwrap();
        ids
    }

    /// The ids that the `tokenizers` crate gives when it is called directly.
    fn their_ids(json: &Value, text: &str, parse_special: bool) -> Vec<TokenId> {
        let mut theirs: tokenizers::Tokenizer = json.to_string().parse().unwrap();
        theirs.set_encode_special_tokens(!parse_special);
        theirs.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    fn with_eod(eod: &str) -> LoadOptions {
        LoadOptions { eod: Some(eod.to_owned()), ..LoadOptions::default() }
    }

    const PARSE_SPECIAL: LoadOptions = LoadOptions {
        eod: None,
        parse_special: true,
        cache_bytes: 1 << 20,
        instructions: Instructions::Best,
    };

    #[test]
    fn bytes_are_their_own_ids() {
        let bytes = load("bytes").unwrap();
        assert_eq!(encode(&bytes, "aé\n"), [97, 195, 169, 10]);
        assert_eq!(bytes.to_json(), br#"{"type":"curate","model":"bytes"}"#);
        let info = bytes.info();
        assert_eq!((info.name.as_str(), info.vocab_size, info.eod), ("bytes", 257, 256));
        // printf '{"type":"curate","model":"bytes"}' | sha256sum
        assert_eq!(info.sha256, "67c23e0745983a4a300c885861f4e1939516b855639d16c371dff04bbd44b7a2");
        assert_eq!(bytes.decode(&[97, 256, 195, 169, 9999]), "aé".as_bytes());
        let vocabulary = bytes.vocabulary();
        assert_eq!(
            (vocabulary.len(), vocabulary[0x41].as_slice(), vocabulary[256].len()),
            (257, b"A".as_slice(), 0)
        );
        assert_eq!(bytes.unknown(), None);
    }

    #[test]
    fn characters_are_numbered_by_code_point() {
        let dir = TempDir::new("char");
        let file = dir.write("alphabet.txt", "cabba\n猫b");
        let tokenizer = load(&format!("char:{}", file.display())).unwrap();
        assert_eq!(
            tokenizer.to_json(),
            "{\"type\":\"curate\",\"model\":\"char\",\"alphabet\":\"\\nabc猫\"}".as_bytes()
        );
        let info = tokenizer.info();
        assert_eq!((info.name.as_str(), info.vocab_size, info.eod), ("char", 6, 5));
        assert_eq!(encode(&tokenizer, "cab猫\n"), [3, 1, 2, 4, 0]);
        assert_eq!(tokenizer.decode(&[4, 5, 1, 77]), "猫a".as_bytes());
        assert_eq!(tokenizer.vocabulary()[4..], [b"\xE7\x8C\xAB".to_vec(), vec![]]);
        let mut ids = vec![42];
        let error = tokenizer.encode("ab犬", &mut EncodeScratch::default(), &mut ids).unwrap_err();
        assert!(matches!(error, Error::NotInAlphabet { character: '犬', offset: 2 }));
        assert_eq!(ids, [42], "a failed text leaves nothing behind");
        let back = Tokenizer::from_json("char", &tokenizer.to_json(), &LoadOptions::default()).unwrap();
        assert_eq!(back.info(), tokenizer.info());
    }

    #[test]
    fn a_path_is_a_file_or_the_directory_around_it() {
        let dir = TempDir::new("path");
        let file = dir.write("tiny-model/tokenizer.json", &*SMALL);
        let of_file = load(file.to_str().unwrap()).unwrap();
        let of_dir = load(file.parent().unwrap().to_str().unwrap()).unwrap();
        assert_eq!(of_file.info(), of_dir.info());
        assert_eq!((of_file.info().name.as_str(), of_file.info().eod), ("tiny-model", 0));
        assert_eq!(of_file.to_json(), *SMALL, "the file's bytes as they were");
        let file = dir.write("gpt9.json", &*SMALL);
        assert_eq!(load(file.to_str().unwrap()).unwrap().info().name, "gpt9");
    }

    #[test]
    fn what_is_no_tokenizer_is_refused_by_name() {
        let dir = TempDir::new("refused");
        let check = |content: &[u8], expected: &str| {
            let path = dir.write("x.json", content);
            let error = load(path.to_str().unwrap()).unwrap_err();
            let expected = format!("{}: not a tokenizer: {expected}", path.display());
            assert!(error.to_string().starts_with(&expected), "{error}\nexpected {expected}");
            assert!(error.hint().is_some());
        };
        check(b"", "EOF while parsing a value at line 1 column 0");
        check(b"hello", "expected value at line 1 column 1");
        check(b"[1]", "invalid length 1, expected a JSON object");
        check(b"\"bytes\"", "invalid type: string \"bytes\", expected a JSON object");
        check(b"{\"a\":\"\xFF\"}", "it is not UTF-8");
        check(br#"{"hello":0,"world":1}"#, "it has no field `model`");
        check(br#"{"model":{"type":"BPE"}}"#, "");
        check(br#"{"model":{"type":"WordLevel","vocab":{},"unk_token":"?"}}"#, "its vocabulary is empty");
        check(br#"{"type":"curate","model":"words"}"#, "unknown model `words`, expected `bytes` or `char`");
        check(br#"{"type":"curate","model":"char"}"#, "the model `char` needs an alphabet");
        check(br#"{"type":"curate","model":"bytes","alphabet":"a"}"#, "the model `bytes` has no alphabet");
        check(br#"{"type":"curate","model":"char","alphabet":""}"#, "its alphabet is empty");
        check(br#"{"type":"curate","model":"char","alphabet":"ba"}"#, "its alphabet is not sorted");
        check(br#"{"type":"curate","model":"char","alphabet":"aa"}"#, "its alphabet is not sorted");
        check(br#"{"type":"curate","model":"bytes","size":3}"#, "unknown field `size`");
        check(
            br#"{"model":{"type":"BPE","vocab":{"</s>":0,"a":2},"merges":[]},"added_tokens":[{"id":5,"content":"b","special":false,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false}]}"#,
            r#"its tokens "a" and "b" have the same id 2"#,
        );
        let mut truncated = SMALL.clone();
        truncated.truncate(SMALL.len() / 2);
        check(&truncated, "EOF while parsing");
        let mut newer = small_json();
        newer["version"] = json!("2.0");
        check(newer.to_string().as_bytes(), "Unknown tokenizer version '2.0'");
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        let dir = TempDir::new("unread");
        let missing = dir.path().join("nothing.json");
        let error = load(missing.to_str().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: cannot read the tokenizer", missing.display()));
        assert_eq!(
            error.hint().unwrap(),
            "a tokenizer is the path of a tokenizer.json, `bytes`, or `char:FILE`"
        );
        assert!(matches!(load("char:/no/such/file"), Err(Error::Read { .. })));
        let empty = dir.write("empty.txt", "");
        assert!(matches!(load(&format!("char:{}", empty.display())), Err(Error::EmptyAlphabet { .. })));
        // A directory without a tokenizer names the file that is missing.
        let error = load(dir.path().to_str().unwrap()).unwrap_err();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }

    #[test]
    fn the_end_of_documents_is_found_or_named() {
        let eod_of = |tokens: &[&str], options: &LoadOptions| {
            let vocab: serde_json::Map<_, _> =
                (0u32..).zip(tokens).map(|(id, token)| (token.to_string(), json!(id))).collect();
            let json = json!({"model": {"type": "WordLevel", "vocab": vocab, "unk_token": "?"}});
            tokenizer(&json, options).map(|tokenizer| tokenizer.info().eod)
        };
        let found = LoadOptions::default();
        assert_eq!(eod_of(&["a", "<|im_end|>", "<|endoftext|>"], &found).unwrap(), 2);
        assert_eq!(eod_of(&["a", "<|im_end|>"], &found).unwrap(), 1);
        assert_eq!(eod_of(&["a", "<eos>", "</s>"], &found).unwrap(), 2);
        assert_eq!(eod_of(&["a", "</s>", "END"], &with_eod("END")).unwrap(), 2);
        assert_eq!(eod_of(&["a", "</s>", "END"], &with_eod("id:0")).unwrap(), 0);
        let error = eod_of(&["a", "b"], &found).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("test: cannot tell which token ends a document (looked for <|endoftext|>, ")
        );
        for unknown in ["STOP", "id:3", "id:x", "id:"] {
            let error = eod_of(&["a", "</s>", "END"], &with_eod(unknown)).unwrap_err();
            assert_eq!(error.to_string(), format!("test: has no token {unknown:?} to end documents with"));
        }
        assert!(Tokenizer::load("bytes", &with_eod("id:256")).is_ok());
        assert!(matches!(Tokenizer::load("bytes", &with_eod("</s>")), Err(Error::UnknownEod { .. })));
    }

    #[test]
    fn special_tokens_in_a_text_are_text() {
        let json = small_json();
        let plain = tokenizer(&json, &LoadOptions::default()).unwrap();
        let text = "the cat<|endoftext|>the";
        let ids = encode(&plain, text);
        assert!(!ids.contains(&0));
        assert_eq!(plain.decode(&ids), text.as_bytes());
        assert_eq!(ids, their_ids(&json, text, false));
        let parsing = tokenizer(&json, &PARSE_SPECIAL).unwrap();
        let ids = encode(&parsing, text);
        assert_eq!(ids.iter().filter(|&&id| id == 0).count(), 1);
        assert_eq!(ids, their_ids(&json, text, true));
        assert_eq!(parsing.decode(&ids), b"the catthe", "special tokens stand for no bytes");
        // One scratch may serve both: it forgets rather than mixes.
        let mut scratch = EncodeScratch::default();
        for (tokenizer, parse_special) in [(&plain, false), (&parsing, true), (&plain, false)] {
            let mut ids = Vec::new();
            tokenizer.encode(text, &mut scratch, &mut ids).unwrap();
            assert_eq!(ids, their_ids(&json, text, parse_special));
        }
    }

    #[test]
    fn an_ordinary_added_token_cannot_end_a_document_either() {
        let mut json = small_json();
        let next = json["model"]["vocab"].as_object().unwrap().len() as TokenId;
        json["added_tokens"] = json!([added(0, "<|endoftext|>", false), added(next, "<tool>", false)]);
        let tokenizer = tokenizer(&json, &LoadOptions::default()).unwrap();
        let ids = encode(&tokenizer, "a<|endoftext|><tool>b");
        assert!(!ids.contains(&0) && ids.contains(&next), "{ids:?}");
        assert_eq!(tokenizer.decode(&ids), b"a<|endoftext|><tool>b");
        assert_eq!(tokenizer.info().vocab_size, next + 1);
    }

    #[test]
    fn a_text_that_encodes_to_the_end_of_documents_is_an_error() {
        let json = json!({
            "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["</s>", -1.0], ["a", -2.0]]},
            "added_tokens": [added(1, "</s>", true)],
        });
        let plain = tokenizer(&json, &LoadOptions::default()).unwrap();
        assert_eq!(plain.unknown(), Some(0));
        assert_eq!(encode(&plain, "aab"), [2, 2, 0]);
        let mut ids = Vec::new();
        let error = plain.encode("aa</s>a", &mut EncodeScratch::default(), &mut ids).unwrap_err();
        assert!(matches!(error, Error::EodInText { eod: 1, position: 2 }), "{error}");
        assert!(ids.is_empty());
        assert_eq!(encode(&tokenizer(&json, &PARSE_SPECIAL).unwrap(), "aa</s>a"), [2, 2, 1, 2]);
    }

    #[test]
    fn truncation_padding_dropout_and_templates_are_off() {
        let mut json = small_json();
        let expected = their_ids(&json, TEXT, false);
        json["truncation"] =
            json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = json!({
            "strategy": {"Fixed": 9999}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
        });
        json["model"]["dropout"] = json!(0.9);
        json["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
        });
        for _ in 0..3 {
            assert_eq!(encode(&tokenizer(&json, &LoadOptions::default()).unwrap(), TEXT), expected);
        }
    }

    #[test]
    fn vocabularies_are_bytes_in_every_notation() {
        let check = |json: Value, expected: &[&[u8]]| {
            let tokenizer = tokenizer(&json, &with_eod("id:0")).unwrap();
            assert_eq!(tokenizer.vocabulary(), expected, "{json}");
        };
        let bpe = |vocab: Value| json!({"type": "BPE", "vocab": vocab, "merges": []});
        check(
            json!({
                "model": bpe(json!({"</s>": 0, "ĠaÃ": 1, "中": 2, "b": 3, "c": 9})),
                "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
                "added_tokens": [added(5, "Ġ", false), added(6, "<pad>", true)],
            }),
            &[b"", b" a\xC3", "中".as_bytes(), b"b", b"", "Ġ".as_bytes(), b"", b"", b"", b"c"],
        );
        check(
            json!({
                "model": bpe(json!({"</s>": 0, "▁a▁b": 1, "<0x0A>": 2, "<0xfF>": 3, "<0x+1>": 4})),
                "decoder": {"type": "Sequence", "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ]},
            }),
            &[b"", b" a b", b"\n", b"\xFF", b"<0x+1>"],
        );
        check(
            json!({
                "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁x", -1.0], ["<0x0A>", -2.0]]},
                "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
            }),
            &[b"", b" x", b"<0x0A>"],
        );
        check(
            json!({
                "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "play": 1, "##ing": 2}},
                "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            }),
            &[b"", b" play", b"ing"],
        );
        check(
            json!({
                "model": bpe(json!({"</s>": 0, "lo": 1, "w</w>": 2})),
                "decoder": {"type": "BPEDecoder", "suffix": "</w>"},
            }),
            &[b"", b"lo", b"w "],
        );
    }

    #[test]
    fn a_document_ends_in_eod() {
        let tokenizer = tokenizer(&small_json(), &LoadOptions::default()).unwrap();
        let mut ids = vec![7];
        tokenizer.encode_document("", &mut EncodeScratch::default(), &mut ids).unwrap();
        assert_eq!(ids, [7, 0], "appended to what was there");
    }

    /// The trained tokenizer dressed up as others are: each must give the crate's ids, by the fast way or
    /// without it.
    struct Variant {
        ours: Tokenizer,
        theirs: tokenizers::Tokenizer,
        is_fast: bool,
    }

    static VARIANTS: LazyLock<Vec<Variant>> = LazyLock::new(|| {
        let load = |(json, is_fast): (Value, bool)| {
            let ours = tokenizer(&json, &LoadOptions::default()).unwrap();
            let mut theirs: tokenizers::Tokenizer = json.to_string().parse().unwrap();
            theirs.set_encode_special_tokens(true);
            Variant { ours, theirs, is_fast }
        };
        variants().into_iter().map(load).collect()
    });

    fn variants() -> Vec<(Value, bool)> {
        let plain = small_json();
        let mut added_tokens = plain.clone();
        added_tokens["added_tokens"] =
            json!([added(0, "<|endoftext|>", true), added(9998, "cat", false), added(9999, "  ", false)]);
        let mut nfc = added_tokens.clone();
        nfc["normalizer"] = json!({"type": "NFC"});
        let mut qwen = nfc.clone();
        let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let byte_level = |prefix: bool, regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex});
        let split = |pattern: &str, behavior: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": false});
        let sequence = |steps: Value| json!({"type": "Sequence", "pretokenizers": steps});
        qwen["pre_tokenizer"] = sequence(json!([split(pattern, "Isolated"), byte_level(false, false)]));
        let mut ignore_merges = plain.clone();
        ignore_merges["model"]["ignore_merges"] = json!(true);
        // One token as a word, though no merge leads to it.
        let unreachable: String = "中".bytes().map(crate::byte_level::spell).collect();
        let vocab = ignore_merges["model"]["vocab"].as_object_mut().unwrap();
        vocab.insert(unreachable, json!(vocab.len()));
        let mut prefix_space = plain.clone();
        prefix_space["pre_tokenizer"] = byte_level(true, true);
        let mut digits = plain.clone();
        digits["pre_tokenizer"] =
            sequence(json!([{"type": "Digits", "individual_digits": true}, byte_level(false, true)]));
        let mut removed = plain.clone();
        removed["pre_tokenizer"] = sequence(json!([split(r"\s+", "Removed"), byte_level(false, false)]));
        let mut lower_case = plain.clone();
        lower_case["normalizer"] = json!({"type": "Lowercase"});
        let fast = [plain, added_tokens, nfc, qwen, ignore_merges].map(|json| (json, true));
        let slow = [prefix_space, digits, removed, lower_case].map(|json| (json, false));
        fast.into_iter().chain(slow).collect()
    }

    #[test]
    fn ids_are_those_of_the_crate_whatever_the_pipeline() {
        for Variant { ours, theirs, is_fast } in &*VARIANTS {
            assert_eq!(ours.is_fast(), *is_fast, "{:?}", theirs.get_pre_tokenizer());
            let pieces = ["中 文中 中文中文中文中", "猫中猫在中猫中子中"].join(" ");
            let repeated = ["ab ".repeat(3000), "猫".repeat(300), "中".repeat(300)];
            let [ab, cats, middles] = repeated.each_ref().map(String::as_str);
            for text in [TEXT, "", "cat", "  ", "\u{1100}\u{1161}", &pieces, ab, cats, middles] {
                assert_eq!(
                    encode(ours, text),
                    theirs.encode_fast(text, false).unwrap().get_ids(),
                    "{text:?}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_text_survives(text in r"(?s:[ \t\r\n']|[a-dthe]{1,4}|[0-9]|<\|endoftext\|>|é|e\u{301}|中|\PC|.){0,40}") {
            let characters: std::collections::BTreeSet<char> = text.chars().chain(['!']).collect();
            let alphabet = json!({"type": "curate", "model": "char", "alphabet": String::from_iter(characters)});
            let characters = tokenizer(&alphabet, &LoadOptions::default()).unwrap();
            for tokenizer in [&VARIANTS[0].ours, &load("bytes").unwrap(), &characters] {
                let mut ids = Vec::new();
                tokenizer.encode_document(&text, &mut EncodeScratch::default(), &mut ids).unwrap();
                prop_assert_eq!(tokenizer.decode(&ids), text.as_bytes());
                prop_assert_eq!(ids.pop(), Some(tokenizer.info().eod));
                prop_assert!(ids.iter().all(|&id| id < tokenizer.info().vocab_size && id != tokenizer.info().eod));
            }
        }

        #[test]
        fn ids_are_those_of_the_crate(
            texts in proptest::collection::vec(r"(?s:[ \t\r\n\u{a0}']|[a-dthe]{1,4}|cat|  |[0-9]|<\|endoftext\|>|é|e\u{301}|\u{1161}|中|.){0,30}", 1..6)
        ) {
            for Variant { ours, theirs, .. } in &*VARIANTS {
                let mut scratch = EncodeScratch::default();
                for text in texts.iter().chain(&texts) {
                    let mut ids = Vec::new();
                    ours.encode(text, &mut scratch, &mut ids).unwrap();
                    let encoding = theirs.encode_fast(text.as_str(), false).unwrap();
                    prop_assert_eq!(ids.as_slice(), encoding.get_ids(), "{:?}", text);
                }
            }
        }
    }
}
