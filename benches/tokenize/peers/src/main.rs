//! One Rust peer on one file: `tokenize-peers hf-0.23|hf-1.0-rc|fastokens TOKENIZER.json FILE.jsonl PASSES`.
//!
//! Prints CPU seconds of each pass over the texts, the number of tokens, and the SHA-256 of all ids as little-endian u32.

use std::path::Path;

use sha2::{Digest, Sha256};

type Failure = Box<dyn std::error::Error>;
type Encoder = Box<dyn FnMut(&str, &mut Vec<u32>)>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let [_, peer, tokenizer, file, passes] = &args[..] else { return Err("see the top of main.rs".into()) };
    let mut encode = load(peer, tokenizer)?;
    let mut texts = Vec::new();
    for line in std::fs::read_to_string(file)?.lines() {
        let record: serde_json::Value = serde_json::from_str(line)?;
        texts.push(record["text"].as_str().ok_or("no text")?.to_owned());
    }
    let mut ids = Vec::new();
    for _ in 0..passes.parse::<usize>()? {
        let start = cpu_seconds()?;
        for text in &texts {
            ids.clear();
            encode(text, &mut ids);
        }
        print!("{:.4} ", cpu_seconds()? - start);
    }
    let (mut tokens, mut hash) = (0, Sha256::new());
    for text in &texts {
        ids.clear();
        encode(text, &mut ids);
        tokens += ids.len();
        ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    }
    println!("{tokens} {}", hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    Ok(())
}

fn load(peer: &str, path: &str) -> Result<Encoder, Failure> {
    Ok(match peer {
        "hf-0.23" => {
            let mut tokenizer = tokenizers_0::Tokenizer::from_file(path).map_err(|e| e.to_string())?;
            tokenizer.set_encode_special_tokens(true);
            Box::new(move |text, ids| {
                ids.extend_from_slice(tokenizer.encode_fast(text, false).expect("encodes").get_ids());
            })
        }
        "hf-1.0-rc" => {
            let json = tokenizers_1::canonicalize_file(path).map_err(|e| e.to_string())?;
            let tokenizer = tokenizers_1::from_json(&json).map_err(|e| e.to_string())?;
            let options = tokenizers_1::tokenizer::pipeline::EncodeOptions {
                add_special_tokens: false,
                encode_special_tokens: true,
                ..Default::default()
            };
            let mut out = Vec::new();
            Box::new(move |text, ids| {
                out.clear();
                tokenizer.encode_into(text, &options, &mut out).expect("encodes");
                ids.extend(out.iter().map(|token| token.id()));
            })
        }
        "fastokens" => {
            let tokenizer = fastokens::Tokenizer::from_file(Path::new(path))?;
            Box::new(move |text, ids| {
                ids.extend_from_slice(&tokenizer.encode_ordinary(text).expect("encodes"));
            })
        }
        other => return Err(format!("no peer {other}").into()),
    })
}

fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(stat.split(' ').next().ok_or("an empty schedstat")?.parse::<u64>()? as f64 / 1e9)
}
