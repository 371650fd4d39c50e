//! `config.json`: which of their architectures our switches make, and back.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::{Mlp, ModelConfig, Norm, Position};
use crate::{Error, Result};

/// An architecture of `transformers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `GPT2LMHeadModel`.
    Gpt2,
    /// `LlamaForCausalLM`.
    Llama,
    /// `Qwen3ForCausalLM`: Llama with normalised query and key heads.
    Qwen3,
}

impl Family {
    /// Its `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Gpt2 => "gpt2",
            Family::Llama => "llama",
            Family::Qwen3 => "qwen3",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Family::Gpt2 => "GPT2LMHeadModel",
            Family::Llama => "LlamaForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// The architecture that has these switches.
    ///
    /// # Errors
    /// [`Error::NoSuchForm`] if there is none.
    pub fn of(config: &ModelConfig) -> Result<Family> {
        let refused = |problem: &str| Err(Error::NoSuchForm { format: "hf", problem: problem.to_owned() });
        match (config.norm, config.position, config.mlp) {
            (Norm::LayerNorm, Position::Learned, Mlp::Gelu) => {
                if config.qk_norm || config.kv_heads != config.heads {
                    return refused("gpt2 has neither normalised heads nor shared key-value heads");
                }
                Ok(Family::Gpt2)
            }
            (Norm::RmsNorm, Position::Rope, Mlp::SwiGlu) if config.qk_norm => match config.bias {
                true => refused("qwen3 has no bias in its feed-forward layers"),
                false => Ok(Family::Qwen3),
            },
            (Norm::RmsNorm, Position::Rope, Mlp::SwiGlu) => Ok(Family::Llama),
            (norm, position, mlp) => {
                let problem = format!("no architecture has {norm:?}, {position:?} and {mlp:?} together");
                refused(&problem.to_lowercase())
            }
        }
    }

    /// Their configuration of a model of ours.
    pub(super) fn config_json(self, config: &ModelConfig, eod: u32) -> Value {
        let mut value = json!({
            "architectures": [self.class()],
            "model_type": self.name(),
            "vocab_size": config.vocab_size,
            "tie_word_embeddings": config.tied,
            "bos_token_id": eod,
            "eos_token_id": eod,
            "initializer_range": 0.02,
            "torch_dtype": "float32",
            "use_cache": true,
        });
        let more = match self {
            Family::Gpt2 => json!({
                "n_positions": config.context,
                "n_embd": config.channels,
                "n_layer": config.layers,
                "n_head": config.heads,
                "n_inner": config.mlp_hidden,
                "activation_function": "gelu_new",
                "layer_norm_epsilon": config.norm_eps,
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
            }),
            Family::Llama | Family::Qwen3 => json!({
                "max_position_embeddings": config.context,
                "hidden_size": config.channels,
                "intermediate_size": config.mlp_hidden,
                "num_hidden_layers": config.layers,
                "num_attention_heads": config.heads,
                "num_key_value_heads": config.kv_heads,
                "head_dim": config.head_size(),
                "hidden_act": "silu",
                "rms_norm_eps": config.norm_eps,
                "rope_theta": config.rope_theta,
                "rope_scaling": null,
                "attention_bias": config.bias,
                "mlp_bias": config.bias,
                "attention_dropout": 0.0,
            }),
        };
        let (Value::Object(all), Value::Object(more)) = (&mut value, more) else {
            unreachable!("both are written as objects above")
        };
        all.extend(more);
        value
    }

    /// Our switches for a configuration of theirs.
    pub(super) fn read(path: &Path, json: &Value) -> Result<(Family, ModelConfig)> {
        let fields = Fields { path, json };
        let family = match json["model_type"].as_str() {
            Some("gpt2") => Family::Gpt2,
            Some("llama") => Family::Llama,
            Some("qwen3") => Family::Qwen3,
            other => {
                return Err(fields.refused(format!("model_type {} is not known", other.unwrap_or("(none)"))));
            }
        };
        let config = match family {
            Family::Gpt2 => gpt2(&fields)?,
            Family::Llama | Family::Qwen3 => llama(&fields, family)?,
        };
        let checked = config.check();
        checked.map_err(|error| fields.refused(error.to_string()))?;
        Ok((family, config))
    }
}

fn gpt2(fields: &Fields<'_>) -> Result<ModelConfig> {
    fields.expect("scale_attn_weights", &[json!(true)])?;
    fields.expect("scale_attn_by_inverse_layer_idx", &[json!(false)])?;
    fields.expect("activation_function", &[json!("gelu_new"), json!("gelu_pytorch_tanh")])?;
    let channels = fields.number("n_embd")?;
    let heads = fields.number("n_head")?;
    Ok(ModelConfig {
        vocab_size: fields.number("vocab_size")?,
        context: fields.number("n_positions")?,
        layers: fields.number("n_layer")?,
        heads,
        kv_heads: heads,
        channels,
        mlp_hidden: fields.number_or("n_inner", channels.saturating_mul(4))?,
        norm: Norm::LayerNorm,
        position: Position::Learned,
        rope_theta: 10_000.0,
        mlp: Mlp::Gelu,
        qk_norm: false,
        tied: fields.flag("tie_word_embeddings", true),
        bias: true,
        norm_eps: fields.float("layer_norm_epsilon", 1e-5),
    })
}

fn llama(fields: &Fields<'_>, family: Family) -> Result<ModelConfig> {
    fields.expect("hidden_act", &[json!("silu")])?;
    fields.expect("rope_scaling", &[Value::Null])?;
    fields.expect("use_sliding_window", &[json!(false)])?;
    let bias = fields.flag("attention_bias", false);
    let mlp_bias = fields.flag("mlp_bias", false);
    if bias != mlp_bias && (family == Family::Llama || bias) {
        return Err(fields.refused("a bias in some linear layers only".to_owned()));
    }
    let channels = fields.number("hidden_size")?;
    let heads = fields.number("num_attention_heads")?;
    let head_size = fields.number_or("head_dim", channels / heads.max(1))?;
    if head_size.saturating_mul(heads) != channels {
        let problem = format!("{heads} heads of {head_size} do not make {channels} channels");
        return Err(fields.refused(problem));
    }
    Ok(ModelConfig {
        vocab_size: fields.number("vocab_size")?,
        context: fields.number("max_position_embeddings")?,
        layers: fields.number("num_hidden_layers")?,
        heads,
        kv_heads: fields.number_or("num_key_value_heads", heads)?,
        channels,
        mlp_hidden: fields.number("intermediate_size")?,
        norm: Norm::RmsNorm,
        position: Position::Rope,
        rope_theta: fields.float("rope_theta", 10_000.0),
        mlp: Mlp::SwiGlu,
        qk_norm: family == Family::Qwen3,
        tied: fields.flag("tie_word_embeddings", false),
        bias,
        norm_eps: fields.float("rms_norm_eps", 1e-6),
    })
}

/// The members of a `config.json`.
struct Fields<'a> {
    path: &'a Path,
    json: &'a Value,
}

impl Fields<'_> {
    fn refused(&self, problem: String) -> Error {
        Error::Foreign { path: self.path.to_owned(), problem }
    }

    fn number(&self, name: &str) -> Result<u32> {
        let value = &self.json[name];
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.ok_or_else(|| self.refused(format!("{name} is {value}, expected a number")))
    }

    fn number_or(&self, name: &str, otherwise: u32) -> Result<u32> {
        if self.json[name].is_null() { Ok(otherwise) } else { self.number(name) }
    }

    fn float(&self, name: &str, otherwise: f64) -> f64 {
        self.json[name].as_f64().unwrap_or(otherwise)
    }

    fn flag(&self, name: &str, otherwise: bool) -> bool {
        self.json[name].as_bool().unwrap_or(otherwise)
    }

    /// Refuses a value that would change the logits; an absent one is the first of those allowed.
    fn expect(&self, name: &str, allowed: &[Value]) -> Result<()> {
        let value = &self.json[name];
        let default_rope = value.get("rope_type").is_some_and(|kind| kind == "default");
        if value.is_null() || default_rope || allowed.contains(value) {
            return Ok(());
        }
        Err(self.refused(format!("{name} = {value} is not supported")))
    }
}
