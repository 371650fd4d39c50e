//! One Rust peer on one file: `tokenize-peers hf-0.23|hf-1.0-rc|fastokens TOKENIZER.json FILE.jsonl PASSES`.

use std::path::Path;

mod passes;

use passes::{Encoder, Failure};

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let [_, peer, tokenizer, file, count] = &args[..] else { return Err("see the top of main.rs".into()) };
    passes::run(load(peer, tokenizer)?, file, count.parse()?)
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
