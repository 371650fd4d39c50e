//! Models as `transformers` keeps them: `config.json`, `model.safetensors`, `tokenizer.json`.
//!
//! ```text
//! ours                        gpt2                             llama, qwen3
//! embedding.weight            transformer.wte.weight           model.embed_tokens.weight
//! layers.0.attention.qkv      …h.0.attn.c_attn (transposed)    …layers.0.self_attn.{q,k,v}_proj, one below the other
//! layers.0.mlp.up             …h.0.mlp.c_fc (transposed)       …layers.0.mlp.{gate,up}_proj, one below the other
//! ```
//! Each parameter of ours is a stack of pieces of theirs, so one table ([`pieces`]) serves both directions. The rows
//! that pad our vocabulary are left out on export and zero after import. Logits are the same to rounding.

mod config;
mod safetensors;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use curate_shards::TokenizerInfo;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

pub use self::config::Family;
use self::safetensors::Files;
use crate::checkpoint::{self, State, write_file, write_json};
use crate::config::{Dtype, ModelConfig, RunConfig, default_micro_batch, preset};
use crate::model::Model;
use crate::{Error, Result};

/// A part of one of our parameters: so many of its rows are this tensor of theirs.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    name: String,
    rows: i64,
    /// GPT-2's layers multiply from the other side: [inputs, outputs].
    transposed: bool,
}

/// The tensors of theirs that, one below the other, are the parameter of this name.
fn pieces(family: Family, config: &ModelConfig, parameter: &str) -> Vec<Piece> {
    let [vocab, context, c, hidden, d] =
        [config.vocab_size, config.context, config.channels, config.mlp_hidden, config.head_size()]
            .map(i64::from);
    let (q, kv) = (i64::from(config.heads) * d, i64::from(config.kv_heads) * d);
    let up = if family == Family::Gpt2 { hidden } else { 2 * hidden };
    let whole = |name: &str, rows| vec![Piece { name: name.to_owned(), rows, transposed: false }];
    let gpt2 = family == Family::Gpt2;
    match parameter {
        "embedding.weight" if gpt2 => return whole("transformer.wte.weight", vocab),
        "embedding.weight" => return whole("model.embed_tokens.weight", vocab),
        "position.weight" => return whole("transformer.wpe.weight", context),
        "head.weight" => return whole("lm_head.weight", vocab),
        _ => {}
    }
    let (part, kind) = parameter.rsplit_once('.').expect("parameters are called PART.weight or PART.bias");
    if part == "norm" {
        return whole(&format!("{}.{kind}", if gpt2 { "transformer.ln_f" } else { "model.norm" }), c);
    }
    let (layer, part) = part
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'))
        .expect("all other parameters belong to a layer");
    let (prefix, names): (_, Vec<(&str, i64)>) = match family {
        Family::Gpt2 => {
            let name = match part {
                "norm1" => ("ln_1", c),
                "norm2" => ("ln_2", c),
                "attention.qkv" => ("attn.c_attn", q + 2 * kv),
                "attention.out" => ("attn.c_proj", c),
                "mlp.up" => ("mlp.c_fc", up),
                _ => ("mlp.c_proj", c),
            };
            ("transformer.h", vec![name])
        }
        Family::Llama | Family::Qwen3 => {
            let names = match part {
                "norm1" => vec![("input_layernorm", c)],
                "norm2" => vec![("post_attention_layernorm", c)],
                "attention.qkv" => {
                    vec![("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)]
                }
                "attention.q_norm" => vec![("self_attn.q_norm", d)],
                "attention.k_norm" => vec![("self_attn.k_norm", d)],
                "attention.out" => vec![("self_attn.o_proj", c)],
                "mlp.up" => vec![("mlp.gate_proj", hidden), ("mlp.up_proj", hidden)],
                _ => vec![("mlp.down_proj", c)],
            };
            ("model.layers", names)
        }
    };
    let transposed = gpt2 && kind == "weight" && !part.starts_with("norm");
    names
        .into_iter()
        .map(|(name, rows)| Piece { name: format!("{prefix}.{layer}.{name}.{kind}"), rows, transposed })
        .collect()
}

/// Reads every parameter of a model from tensors under their names.
///
/// # Errors
/// [`Error::Foreign`] if a tensor is missing or has another shape.
pub(crate) fn fill(
    model: &Model,
    family: Family,
    origin: &Path,
    mut tensor: impl FnMut(&str) -> Result<Tensor>,
) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    for parameter in model.parameters() {
        let mut at = 0;
        for piece in pieces(family, model.config(), &parameter.name) {
            let mut found = tensor(&piece.name)?;
            if piece.transposed && found.dim() == 2 {
                found = found.f_transpose(0, 1)?;
            }
            let place = parameter.tensor.f_detach()?.f_narrow(0, at, piece.rows)?;
            if found.size() != place.size() {
                let (got, expected) = (found.size(), place.size());
                let order = if piece.transposed { ", outputs first" } else { "" };
                let problem =
                    format!("tensor {} is {got:?}{order}, config.json makes it {expected:?}", piece.name);
                return Err(Error::Foreign { path: origin.to_owned(), problem });
            }
            place.shallow_clone().f_copy_(&found)?;
            at += piece.rows;
        }
    }
    Ok(())
}

/// Writes a model as `transformers` reads it into `dir`; returns whether `tokenizer.json` is one that it reads too.
///
/// A tokenizer of our own (`bytes`, `char:FILE`) goes to `curate-tokenizer.json`, which only [`import`] understands.
///
/// # Errors
/// [`Error::NoSuchForm`] if no architecture of theirs has these switches, [`Error::Io`].
pub fn export(
    model: &Model,
    tokenizer: &TokenizerInfo,
    tokenizer_json: Option<&[u8]>,
    dir: &Path,
) -> Result<bool> {
    let config = model.config();
    let family = Family::of(config)?;
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let _no_grad = tch::no_grad_guard();
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for parameter in model.parameters() {
        let mut at = 0;
        for piece in pieces(family, config, &parameter.name) {
            let rows = parameter.tensor.f_detach()?.f_narrow(0, at, piece.rows)?;
            at += piece.rows;
            tensors.push((piece.name, if piece.transposed { rows.f_transpose(0, 1)? } else { rows }));
        }
        // GPT-2's layers always have a bias: without one in ours, theirs is zero.
        if family == Family::Gpt2 && !config.bias && parameter.name.starts_with("layers.") {
            let bias = parameter.name.replace(".weight", ".bias");
            let is_linear = parameter.tensor.dim() == 2;
            for piece in pieces(family, config, &bias).into_iter().filter(|_| is_linear) {
                tensors.push((piece.name, Tensor::f_zeros([piece.rows], (Kind::Float, Device::Cpu))?));
            }
        }
    }
    let named: Vec<(String, &Tensor)> = tensors.iter().map(|(name, tensor)| (name.clone(), tensor)).collect();
    let weights = dir.join("model.safetensors");
    let aside = dir.join(".model.safetensors.new");
    checkpoint::write_tensors(&aside, &named)?;
    checkpoint::rename(&aside, &weights)?;
    let theirs = tokenizer_json.and_then(|json| write_tokenizer(dir, tokenizer, json).transpose());
    let readable = theirs.transpose()?.is_some();
    write_json(
        &dir.join("generation_config.json"),
        &json!({ "bos_token_id": tokenizer.eod, "eos_token_id": tokenizer.eod }),
    )?;
    // Last: a folder with a config.json is complete.
    write_json(&dir.join("config.json"), &family.config_json(config, tokenizer.eod))?;
    Ok(readable)
}

/// Writes the tokenizer's files; `None` if it is none of theirs.
fn write_tokenizer(dir: &Path, info: &TokenizerInfo, json: &[u8]) -> Result<Option<()>> {
    let parsed: Value = serde_json::from_slice(json).unwrap_or(Value::Null);
    if !parsed["model"].is_object() {
        write_file(&dir.join("curate-tokenizer.json"), json)?;
        return Ok(None);
    }
    write_file(&dir.join("tokenizer.json"), json)?;
    let added = parsed["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let eod = added.iter().find(|token| token["id"] == info.eod).map(|token| token["content"].clone());
    let mut config =
        json!({ "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false });
    if let Some(eod) = eod {
        (config["bos_token"], config["eos_token"]) = (eod.clone(), eod);
    }
    write_json(&dir.join("tokenizer_config.json"), &config)?;
    Ok(Some(()))
}

/// Reads a model in the form of `transformers` from a folder.
///
/// `context` shortens what a model with rotary positions may see, and with it the memory of generation.
///
/// # Errors
/// [`Error::Foreign`] for architectures, settings, tensors and number formats that are not understood: nothing that
/// would change the logits is passed over.
pub fn read(dir: &Path, context: Option<u32>) -> Result<(Model, Value)> {
    let path = dir.join("config.json");
    let json: Value = checkpoint::read_json(&path, "model configuration")?;
    let (family, mut config) = Family::read(&path, &json)?;
    shorten(&mut config, context)?;
    let files = Files::open(dir)?;
    let model = Model::blank(&config, Dtype::Fp32, Device::Cpu)?;
    let mut used = BTreeSet::new();
    let take = |name: &str| {
        // Some GPT-2 files have the names of the inner model.
        let bare = name.strip_prefix("transformer.").unwrap_or(name);
        let name = if files.contains(name) { name } else { bare };
        used.insert(name.to_owned());
        files.tensor(name)
    };
    fill(&model, family, dir, take)?;
    let is_known = |name: &&str| {
        used.contains(*name)
            || name.ends_with(".attn.bias")
            || name.ends_with(".attn.masked_bias")
            || name.ends_with("rotary_emb.inv_freq")
            || (config.tied && *name == "lm_head.weight")
            || (family == Family::Gpt2 && !config.bias)
    };
    if let Some(name) = files.names().find(|name| !is_known(name)) {
        let problem = format!("tensor {name} has no place in a {} model", family.name());
        return Err(Error::Foreign { path: dir.to_owned(), problem });
    }
    Ok((model, json))
}

/// Gives a model with rotary positions a shorter context.
pub(crate) fn shorten(config: &mut ModelConfig, context: Option<u32>) -> Result<()> {
    let Some(context) = context else { return Ok(()) };
    let longest = config.context;
    if context == 0 || context > longest {
        return Err(Error::option("--context", format!("must be 1 to {longest}, is {context}")));
    }
    if config.position == crate::config::Position::Learned && context != longest {
        return Err(Error::option("--context", "a model with learned positions has a fixed context"));
    }
    config.context = context;
    Ok(())
}

/// Makes a run directory of a model that was read: it can be evaluated, sampled from and exported.
///
/// # Errors
/// [`Error::RunExists`] if there is a run already, [`Error::Io`].
pub fn write_run(run: &Path, model: &Model, tokenizer: TokenizerInfo, origin: &str) -> Result<PathBuf> {
    if let Some((step, _)) = checkpoint::list(run)?.last() {
        return Err(Error::RunExists { run: run.to_owned(), step: *step });
    }
    std::fs::create_dir_all(run).map_err(Error::io(run))?;
    let shape = model.config();
    let mut options = preset("gpt2-tiny")?.options(shape.vocab_size, shape.context, 1);
    options.preset = format!("imported from {origin}");
    options.model = shape.clone();
    options.numerics.micro_batch = default_micro_batch(&options);
    let config = RunConfig {
        format_version: RunConfig::FORMAT_VERSION,
        options,
        shards: PathBuf::new(),
        rows_checksum: String::new(),
        tokenizer,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        libtorch: RunConfig::LIBTORCH.to_owned(),
        products: None,
    };
    write_json(&run.join("config.json"), &config)?;
    let state = State {
        step: 0,
        samples: 0,
        targets: 0,
        source_targets: Default::default(),
        seconds: 0.0,
        guard: Default::default(),
        run: config,
        files: Default::default(),
    };
    checkpoint::save_weights(run, state, model)
}
