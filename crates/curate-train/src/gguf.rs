//! Reads models in GGUF version 2 and 3: Llama shapes with weights in F32, F16, Q4_0, Q4_1 or Q8_0.
//!
//! ```text
//! "GGUF"  version: u32  tensors: u64  entries: u64
//! entries × (key: string, type: u32, value)            string = u64 length, UTF-8; array = u32 type, u64 length, items
//! tensors × (name: string, n: u32, n × u64 sizes, innermost first, type: u32, offset: u64)
//! values, from the next multiple of `general.alignment` (32) on
//!
//! Q4_1   32 numbers in 20 bytes: d: f16, m: f16, 16 × two nibbles q; number = d q + m, low nibbles first
//! Q4_0   32 numbers in 18 bytes: d: f16, nibbles; d (q - 8)          Q8_0   34 bytes: d: f16, 32 × i8; d q
//! ```
//! llama.cpp keeps query and key rows in the order of interleaved rotary pairs (0, 1), (2, 3) …; here and in
//! transformers pairs are (i, i + D / 2), so the rows of each head are put back.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use half::f16;
use memmap2::Mmap;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use curate_shards::TokenizerInfo;

use crate::config::{Dtype, Mlp, ModelConfig, Norm, Position};
use crate::hf::{self, Family};
use crate::model::Model;
use crate::{Error, Result};

/// Entries nested deeper than this are damage: arrays of arrays do not occur.
const MAX_DEPTH: u32 = 4;

/// An open file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

/// What stands before the values.
#[derive(Debug, PartialEq)]
struct Header {
    entries: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorPlace>,
    values_at: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct TensorPlace {
    /// Outermost first.
    shape: Vec<u64>,
    kind: u32,
    offset: u64,
}

/// A tokenizer taken out of a GGUF file.
#[derive(Debug)]
pub struct GgufTokenizer {
    /// A `tokenizer.json`.
    pub json: Vec<u8>,
    /// Who it is.
    pub info: TokenizerInfo,
    /// The bytes of each id.
    pub vocabulary: Vec<Vec<u8>>,
}

impl Gguf {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`Error::Foreign`] if it is no GGUF file of a known version, or damaged; [`Error::Io`].
    pub fn open(path: &Path) -> Result<Gguf> {
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the map is only read, and nothing here writes to the file.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let header =
            Header::parse(&map).map_err(|problem| Error::Foreign { path: path.to_owned(), problem })?;
        Ok(Gguf { path: path.to_owned(), map, header })
    }

    fn foreign(&self, problem: impl Into<String>) -> Error {
        Error::Foreign { path: self.path.clone(), problem: problem.into() }
    }

    /// The model, in fp32 on the CPU.
    ///
    /// # Errors
    /// [`Error::Foreign`] for other architectures and number formats.
    pub fn model(&self, context: Option<u32>) -> Result<Model> {
        let mut config = self.config()?;
        hf::shorten(&mut config, context)?;
        let model = Model::blank(&config, Dtype::Fp32, Device::Cpu)?;
        hf::fill(&model, Family::Llama, &self.path, |name| self.by_their_name(name, &config))?;
        Ok(model)
    }

    fn config(&self) -> Result<ModelConfig> {
        let entries = &self.header.entries;
        if entries.get("general.architecture").and_then(Value::as_str) != Some("llama") {
            return Err(self.foreign("its architecture is not llama"));
        }
        let number = |name: &str| {
            let found = entries.get(&format!("llama.{name}")).and_then(Value::as_u64);
            found
                .and_then(|n| u32::try_from(n).ok())
                .ok_or_else(|| self.foreign(format!("llama.{name} is missing")))
        };
        let float = |name: &str, otherwise| {
            entries.get(&format!("llama.{name}")).and_then(Value::as_f64).unwrap_or(otherwise)
        };
        if entries.keys().any(|key| key.starts_with("llama.rope.scaling")) {
            return Err(self.foreign("scaled rotary positions are not supported"));
        }
        let embedding = self.header.tensors.get("token_embd.weight");
        let vocab_size = embedding.and_then(|place| u32::try_from(*place.shape.first()?).ok());
        let config = ModelConfig {
            vocab_size: vocab_size.ok_or_else(|| self.foreign("tensor token_embd.weight is missing"))?,
            context: number("context_length")?,
            layers: number("block_count")?,
            heads: number("attention.head_count")?,
            kv_heads: number("attention.head_count_kv").or_else(|_| number("attention.head_count"))?,
            channels: number("embedding_length")?,
            mlp_hidden: number("feed_forward_length")?,
            norm: Norm::RmsNorm,
            position: Position::Rope,
            rope_theta: float("rope.freq_base", 10_000.0),
            mlp: Mlp::SwiGlu,
            qk_norm: false,
            tied: !self.header.tensors.contains_key("output.weight"),
            bias: false,
            norm_eps: float("attention.layer_norm_rms_epsilon", 1e-5),
        };
        config.check().map_err(|error| self.foreign(error.to_string()))?;
        Ok(config)
    }

    /// A tensor under the name and in the order that transformers has.
    fn by_their_name(&self, name: &str, config: &ModelConfig) -> Result<Tensor> {
        let mut ours = match name {
            "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
            "model.norm.weight" => "output_norm.weight".to_owned(),
            "lm_head.weight" => "output.weight".to_owned(),
            other => other.replace("model.layers.", "blk."),
        };
        let parts = [
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("post_attention_layernorm", "ffn_norm"),
            ("input_layernorm", "attn_norm"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ];
        for (theirs, here) in parts {
            ours = ours.replace(theirs, here);
        }
        let tensor = self.tensor(&ours)?;
        let heads = match ours.rsplit('.').nth(1) {
            Some("attn_q") => config.heads,
            Some("attn_k") => config.kv_heads,
            _ => return Ok(tensor),
        };
        let (half, heads) = (i64::from(config.head_size() / 2), i64::from(heads));
        if tensor.dim() != 2 || tensor.size()[0] != heads * half * 2 {
            return Err(self.foreign(format!("tensor {ours} has an unexpected shape")));
        }
        let inputs = tensor.size()[1];
        let pairs = tensor.f_reshape([heads, half, 2, inputs])?;
        Ok(pairs.f_transpose(1, 2)?.f_reshape([heads * half * 2, inputs])?)
    }

    /// A tensor in fp32.
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let place = self.header.tensors.get(name);
        let place = place.ok_or_else(|| self.foreign(format!("tensor {name} is missing")))?;
        let values = place.read(self.map.get(self.header.values_at..).unwrap_or_default());
        let values = values.map_err(|problem| self.foreign(format!("tensor {name}: {problem}")))?;
        let shape: Vec<i64> = place.shape.iter().map(|&n| n as i64).collect();
        Ok(Tensor::f_from_slice(&values)?.f_reshape(shape)?)
    }

    /// The tokenizer, if it is byte-level BPE with words that are known here.
    ///
    /// Documents end with `<|endoftext|>` if there is such a token, else with the file's end-of-sequence id.
    ///
    /// # Errors
    /// [`Error::Foreign`] for another kind.
    pub fn tokenizer(&self) -> Result<GgufTokenizer> {
        let entry = |name: &str| self.header.entries.get(&format!("tokenizer.ggml.{name}"));
        let words = |name: &str| -> Option<Vec<&str>> {
            entry(name)?.as_array()?.iter().map(Value::as_str).collect()
        };
        let model = entry("model").and_then(Value::as_str).unwrap_or_default();
        if model != "gpt2" {
            return Err(self.foreign(format!("its tokenizer is {model:?}, not byte-level BPE")));
        }
        let digits = match entry("pre").and_then(Value::as_str) {
            Some("smollm") => true,
            Some("gpt-2" | "default") | None => false,
            Some(other) => return Err(self.foreign(format!("the words of its tokenizer are {other:?}"))),
        };
        let tokens = words("tokens").ok_or_else(|| self.foreign("it has no vocabulary"))?;
        let merges = words("merges").ok_or_else(|| self.foreign("it has no merges"))?;
        let types = entry("token_type").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is_control = |id: usize| types.get(id).and_then(Value::as_i64) == Some(3);
        let named = tokens.iter().position(|token| *token == "<|endoftext|>");
        let eos = entry("eos_token_id").and_then(Value::as_u64).and_then(|id| usize::try_from(id).ok());
        let eod = named.or(eos).filter(|id| *id < tokens.len());
        let eod = eod.ok_or_else(|| self.foreign("no token ends documents"))?;

        let vocab: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
        let special = |id: usize| {
            json!({ "id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true })
        };
        let added: Vec<Value> = (0..tokens.len()).filter(|&id| is_control(id)).map(special).collect();
        let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        let pre_tokenizer = match digits {
            false => byte_level.clone(),
            true => json!({ "type": "Sequence",
                            "pretokenizers": [{ "type": "Digits", "individual_digits": true }, byte_level] }),
        };
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": byte_level,
            "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                       "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                       "ignore_merges": false, "vocab": vocab, "merges": merges },
        });
        let json = json.to_string().into_bytes();
        let sha256 = Sha256::digest(&json).iter().map(|byte| format!("{byte:02x}")).collect();
        let vocab_size = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let info = TokenizerInfo { name: "tokenizer".into(), sha256, vocab_size, eod: eod as u32 };
        let bytes = |(id, token): (usize, &&str)| if is_control(id) { Vec::new() } else { unspell(token) };
        Ok(GgufTokenizer { json, info, vocabulary: tokens.iter().enumerate().map(bytes).collect() })
    }
}

/// The bytes that a token of byte-level BPE spells: GPT-2 writes bytes that are no visible characters as characters
/// from U+0100 on.
fn unspell(token: &str) -> Vec<u8> {
    let is_visible = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let hidden: Vec<u32> = (0..256).filter(|&byte| !is_visible(byte)).collect();
    let byte = |c: char| match u32::from(c) {
        code if is_visible(code) => code as u8,
        code => hidden.get(code.wrapping_sub(0x100) as usize).map_or(b'?', |&byte| byte as u8),
    };
    token.chars().map(byte).collect()
}

impl TensorPlace {
    fn read(&self, values: &[u8]) -> Result<Vec<f32>, String> {
        let count = self.shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
        let count = count.and_then(|n| usize::try_from(n).ok()).ok_or("its size is impossible")?;
        let (block, bytes) = match self.kind {
            0 => (1, 4),
            1 => (1, 2),
            2 => (32, 18),
            3 => (32, 20),
            8 => (32, 34),
            other => return Err(format!("number format {other} is not supported")),
        };
        if !count.is_multiple_of(block) {
            return Err(format!("{count} numbers are not whole blocks of {block}"));
        }
        let start = usize::try_from(self.offset).map_err(|_| "its place is impossible")?;
        let end = (count / block).checked_mul(bytes).and_then(|length| start.checked_add(length));
        let stored = end.and_then(|end| values.get(start..end)).ok_or("it is cut off")?;
        let mut out = Vec::with_capacity(count);
        for block in stored.chunks_exact(bytes) {
            dequantize(self.kind, block, &mut out);
        }
        Ok(out)
    }
}

/// Appends the numbers of one block.
fn dequantize(kind: u32, block: &[u8], out: &mut Vec<f32>) {
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let low = |nibbles: &[u8]| nibbles.iter().map(|byte| f32::from(byte & 15)).collect::<Vec<_>>();
    let high = |nibbles: &[u8]| nibbles.iter().map(|byte| f32::from(byte >> 4)).collect::<Vec<_>>();
    match kind {
        0 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
        1 => out.push(half(0)),
        2 => {
            let d = half(0);
            out.extend([low(&block[2..]), high(&block[2..])].concat().iter().map(|q| d * (q - 8.0)));
        }
        3 => {
            let (d, m) = (half(0), half(2));
            out.extend([low(&block[4..]), high(&block[4..])].concat().iter().map(|q| d * q + m));
        }
        _ => {
            let d = half(0);
            out.extend(block[2..].iter().map(|&q| d * f32::from(q.cast_signed())));
        }
    }
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Header, String> {
        let mut cursor = Cursor { bytes, at: 0 };
        if cursor.take(4)? != b"GGUF" {
            return Err("not a GGUF file".to_owned());
        }
        let version = cursor.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("GGUF version {version} is not supported"));
        }
        let (num_tensors, num_entries) = (cursor.u64()?, cursor.u64()?);
        let mut entries = BTreeMap::new();
        for _ in 0..num_entries {
            let key = cursor.string()?;
            let kind = cursor.u32()?;
            entries.insert(key, cursor.value(kind, 0)?);
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..num_tensors {
            let name = cursor.string()?;
            let dimensions = cursor.u32()?;
            if dimensions > 8 {
                return Err(format!("tensor {name} has {dimensions} dimensions"));
            }
            let mut shape = (0..dimensions).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>()?;
            shape.reverse();
            let (kind, offset) = (cursor.u32()?, cursor.u64()?);
            tensors.insert(name, TensorPlace { shape, kind, offset });
        }
        let alignment = entries.get("general.alignment").and_then(Value::as_u64).unwrap_or(32);
        let alignment = usize::try_from(alignment).ok().filter(|n| (1..=1 << 20).contains(n));
        let alignment = alignment.ok_or("its alignment is impossible")?;
        Ok(Header { entries, tensors, values_at: cursor.at.next_multiple_of(alignment) })
    }
}

/// Reads little-endian numbers and never past the end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| format!("the header is cut off at byte {}", self.bytes.len()))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many bytes were taken"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.u64()?).map_err(|_| "a string is too long")?;
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a string is not UTF-8".to_owned())
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => json!(self.array::<1>()?[0]),
            1 => json!(self.array::<1>()?[0].cast_signed()),
            2 => json!(u16::from_le_bytes(self.array()?)),
            3 => json!(i16::from_le_bytes(self.array()?)),
            4 => json!(self.u32()?),
            5 => json!(i32::from_le_bytes(self.array()?)),
            // By way of its decimal digits: 1e-5 in single precision is meant to be 1e-5.
            6 => json!(f32::from_le_bytes(self.array()?).to_string().parse::<f64>().unwrap_or(f64::NAN)),
            7 => json!(self.array::<1>()?[0] != 0),
            8 => json!(self.string()?),
            9 if depth < MAX_DEPTH => {
                let (kind, count) = (self.u32()?, self.u64()?);
                let mut items = Vec::new(); // grows with what is there, not with what is claimed
                for _ in 0..count {
                    items.push(self.value(kind, depth + 1)?);
                }
                Value::Array(items)
            }
            10 => json!(self.u64()?),
            11 => json!(i64::from_le_bytes(self.array()?)),
            12 => json!(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("an entry has the unknown type {other}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    /// A file with one entry and one tensor of two blocks of Q8_0.
    fn file() -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend([1u64, 2].map(u64::to_le_bytes).concat());
        out.extend(
            [string("general.alignment"), 4u32.to_le_bytes().to_vec(), 64u32.to_le_bytes().to_vec()].concat(),
        );
        let words = [string("a"), string("é")].concat();
        out.extend([string("words"), 9u32.to_le_bytes().to_vec(), 8u32.to_le_bytes().to_vec()].concat());
        out.extend([2u64.to_le_bytes().to_vec(), words].concat());
        out.extend([string("t"), 2u32.to_le_bytes().to_vec()].concat());
        out.extend([32u64, 2].map(u64::to_le_bytes).concat());
        out.extend([8u32.to_le_bytes().to_vec(), 0u64.to_le_bytes().to_vec()].concat());
        out.resize(out.len().next_multiple_of(64), 0);
        for scale in [1.0, 0.5] {
            out.extend(f16::from_f32(scale).to_le_bytes());
            out.extend((0..32).map(|i: i8| (i - 16).cast_unsigned()));
        }
        out
    }

    #[test]
    fn a_file_is_read() {
        let file = file();
        let header = Header::parse(&file).unwrap();
        assert_eq!(header.entries["words"], json!(["a", "é"]));
        let place = &header.tensors["t"];
        assert_eq!(place.shape, [2, 32]);
        let values = place.read(&file[header.values_at..]).unwrap();
        assert_eq!((values[0], values[31], values[32], values[63]), (-16.0, 15.0, -8.0, 7.5));
        assert_eq!(place.read(&file[header.values_at..file.len() - 1]).unwrap_err(), "it is cut off");
    }

    #[test]
    fn blocks_of_four_bits() {
        let mut block = [f16::from_f32(2.0).to_le_bytes(), f16::from_f32(-1.0).to_le_bytes()].concat();
        block.extend([0xa1u8; 16]);
        let mut out = Vec::new();
        dequantize(3, &block, &mut out);
        assert_eq!((out.len(), out[0], out[15], out[16], out[31]), (32, 1.0, 1.0, 19.0, 19.0));
        out.clear();
        dequantize(2, &[&block[..2], &block[4..]].concat(), &mut out);
        assert_eq!((out.len(), out[0], out[16]), (32, -14.0, 4.0));
    }

    #[test]
    fn every_prefix_is_refused_and_nothing_panics() {
        let file = file();
        let end = Header::parse(&file).unwrap().values_at - 60;
        for length in 0..end.min(120) {
            assert!(Header::parse(&file[..length]).is_err(), "{length}");
        }
        assert_eq!(Header::parse(b"GGML").unwrap_err(), "not a GGUF file");
    }

    #[test]
    fn spelled_bytes() {
        assert_eq!(unspell("Ġthe"), b" the");
        assert_eq!(unspell("Ċ"), b"\n");
        assert_eq!(unspell("Ã©"), "é".as_bytes());
        assert_eq!(unspell("ł"), [0xa0]);
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..250, byte: u8) {
            let mut file = file();
            let at = at % file.len();
            file[at] = byte;
            if let Ok(header) = Header::parse(&file) {
                for place in header.tensors.values() {
                    let _ = place.read(file.get(header.values_at..).unwrap_or_default());
                }
            }
        }
    }
}
