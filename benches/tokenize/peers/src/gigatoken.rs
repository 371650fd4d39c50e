//! gigatoken's own encoder on one file: `gigatoken-peer TOKENIZER.json FILE.jsonl PASSES`.
//!
//! Its crate is only in the source package of the Python module, and wants features of a nightly compiler; `run.py` unpacks
//! it and writes the manifest. The calls are those of its benchmark `encode_st`.

use gigatoken_rs::load_tokenizer::hf::{HfTokenizer, load_hf_slice};

mod passes;

fn main() -> Result<(), passes::Failure> {
    let args: Vec<String> = std::env::args().collect();
    let [_, tokenizer, file, count] = &args[..] else { return Err("see the top of gigatoken.rs".into()) };
    let json = std::fs::read(tokenizer)?;
    let normalizes = serde_json::from_slice::<serde_json::Value>(&json)?["normalizer"]["type"] == "NFC";
    let HfTokenizer::Bpe(mut tokenizer) = load_hf_slice(&json).map_err(|e| e.to_string())? else {
        return Err("not byte-level BPE".into());
    };
    let encode = move |text: &str, ids: &mut Vec<u32>| {
        if normalizes {
            // The only call that does; it looks for special tokens too, as the Python module.
            return tokenizer.encode_with_added_tokens_flat(text.as_bytes(), ids);
        }
        let words = tokenizer.pretokenizer_type().pretokenize(text.as_bytes());
        tokenizer.memoized_encode_flat(words, ids);
    };
    passes::run(Box::new(encode), file, count.parse()?)
}
