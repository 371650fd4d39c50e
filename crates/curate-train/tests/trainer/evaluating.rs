use std::ops::ControlFlow;

use curate_shards::ShardSet;
use curate_train::Error;
use curate_train::config::{Dtype, ModelConfig, preset};
use curate_train::eval::{DocumentScore, EvalOptions, Evaluation, Like, evaluate};
use curate_train::model::Model;
use tch::{Device, Kind};

use crate::support::*;

/// Documents from one token to five windows long.
fn shards(dir: &TestDir) -> std::sync::Arc<ShardSet> {
    let mut all = documents(40, 6);
    all.push(vec![EOD]);
    all.push((0..79).map(|i| i * i % 26).chain([EOD]).collect());
    all.push((0..15).map(|i| i % 26).chain([EOD]).collect());
    write_shards(&dir.join("shards"), &all, "val=0.3", &[concat(16)])
}

/// A model whose context is 16, with weights large enough that its predictions differ from each other.
fn model() -> Model {
    one_thread();
    let config = preset("gpt2-tiny").unwrap().options(VOCAB, 16, 10).model;
    let model = Model::new(&ModelConfig { layers: 2, ..config }, Dtype::Fp32, Device::Cpu, 3).unwrap();
    let _no_grad = tch::no_grad_guard();
    for parameter in model.parameters().iter().filter(|p| p.decays) {
        let _ = parameter.tensor.shallow_clone().g_mul_scalar_(6.0);
    }
    model
}

fn evaluated(model: &Model, shards: &ShardSet, options: &EvalOptions) -> (Evaluation, Vec<DocumentScore>) {
    evaluate(model, shards, options, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn options(split: &str) -> EvalOptions {
    EvalOptions { split: split.into(), baseline: true, ..Default::default() }
}

/// One token at a time: the context is what the protocol says, the log-softmax is taken in f64.
fn naive(model: &Model, tokens: &[i64], window: usize, stride: usize) -> f64 {
    let _no_grad = tch::no_grad_guard();
    let prefixed: Vec<i64> = std::iter::once(i64::from(EOD)).chain(tokens.iter().copied()).collect();
    let nats = |i: usize| {
        // The window that scores token i is the first that reaches it: windows end at window + k stride.
        let k = (i + 1).saturating_sub(window).div_ceil(stride);
        let input = &prefixed[k * stride..=i];
        let logits = model.logits(&token_tensor(input, 1)).unwrap();
        let last =
            logits.select(1, input.len() as i64 - 1).to_kind(Kind::Double).log_softmax(-1, Kind::Double);
        -last.double_value(&[0, tokens[i]])
    };
    (0..tokens.len()).map(nats).sum()
}

#[test]
fn every_token_is_scored_once_as_a_plain_f64_model_does() {
    let dir = TestDir::new();
    let (shards, model) = (shards(&dir), model());
    for (window, stride) in
        [(None, None), (Some(16), Some(16)), (Some(16), Some(1)), (Some(7), Some(3)), (Some(1), None)]
    {
        for split in ["train", "val"] {
            let options = EvalOptions { window, stride, ..options(split) };
            let (evaluation, scores) = evaluated(&model, &shards, &options);
            let split = shards.split(split).unwrap();
            assert_eq!(evaluation.total.tokens, split.num_tokens());
            assert_eq!(evaluation.total.documents, split.num_documents());
            assert_eq!(evaluation.total.bytes, split.num_bytes());
            let (window, stride) = (evaluation.protocol.window as usize, evaluation.protocol.stride as usize);
            for score in &scores {
                let tokens: Vec<i64> = split.document(score.document).tokens.iter().map(i64::from).collect();
                let expected = naive(&model, &tokens, window, stride);
                let error = (score.nats - expected).abs() / expected;
                assert!(
                    error < 1e-5,
                    "document {}: {} nats, expected {expected}",
                    score.document,
                    score.nats
                );
            }
        }
    }
}

#[test]
fn a_document_within_the_window_is_read_in_one_go() {
    let dir = TestDir::new();
    let document: Vec<u32> = (0..15).map(|i| i * 5 % 26).chain([EOD]).collect();
    let shards = write_shards(&dir.join("shards"), std::slice::from_ref(&document), "", &[concat(16)]);
    let model = model();
    let (evaluation, _) = evaluated(&model, &shards, &options("train"));
    let targets: Vec<i64> = document.iter().map(|&id| i64::from(id)).collect();
    let inputs: Vec<i64> = std::iter::once(i64::from(EOD)).chain(targets[..15].iter().copied()).collect();
    let losses = model.token_losses(&token_tensor(&inputs, 1), &token_tensor(&targets, 1)).unwrap();
    let sum: f64 = values(&losses).iter().map(|&nats| f64::from(nats)).sum();
    assert!((evaluation.total.nats - sum).abs() < 1e-9);
    let last = f64::from(values(&losses)[15]);
    assert!((evaluation.total.eod_nats - last).abs() < 1e-9);
    let bytes = 15.0 * std::f64::consts::LN_2;
    assert!((evaluation.total.bits_per_byte - sum / bytes).abs() < 1e-9);
    assert!((evaluation.total.text_bits_per_byte - (sum - last) / bytes).abs() < 1e-9);
}

#[test]
fn the_unigram_baseline_is_the_smoothed_frequency() {
    let dir = TestDir::new();
    let shards = write_shards(&dir.join("shards"), &[vec![0, 0, 0, 1, EOD]], "", &[concat(16)]);
    let (evaluation, _) = evaluated(&model(), &shards, &options("train"));
    let unigram = evaluation.unigram.unwrap();
    // Five tokens and 27 added ones.
    let nats = |count: f64| -f64::ln((count + 1.0) / 32.0);
    let expected = 3.0 * nats(3.0) + nats(1.0) + nats(1.0);
    assert!((unigram.nats - expected).abs() < 1e-12, "{} nats, expected {expected}", unigram.nats);
    assert!((unigram.eod_nats - nats(1.0)).abs() < 1e-12);
    assert_eq!(unigram.tokens, 5);
}

#[test]
fn domains_add_up() {
    let dir = TestDir::new();
    let (evaluation, scores) = evaluated(&model(), &shards(&dir), &options("val"));
    let names: Vec<&str> = evaluation.domains.iter().map(|d| d.domain.as_str()).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"even") && names.contains(&"odd"));
    let sum = |f: fn(&curate_train::eval::Score) -> f64| {
        evaluation.domains.iter().map(|d| f(&d.score)).sum::<f64>()
    };
    assert_eq!(sum(|s| s.tokens as f64), evaluation.total.tokens as f64);
    assert!((sum(|s| s.nats) - evaluation.total.nats).abs() < 1e-9);
    assert!((scores.iter().map(|s| s.nats).sum::<f64>() - evaluation.total.nats).abs() < 1e-12);
}

#[test]
fn limits_take_the_first_documents_and_are_stated() {
    let dir = TestDir::new();
    let shards = shards(&dir);
    let model = model();
    let (all, scores) = evaluated(&model, &shards, &options("train"));
    assert_eq!(all.protocol.excluded, "nothing");
    let (part, _) = evaluated(&model, &shards, &EvalOptions { max_documents: Some(3), ..options("train") });
    assert_eq!(part.total.documents, 3);
    assert_eq!(part.protocol.excluded, "what follows the first 3 documents");
    let limit = scores[0].tokens + 1;
    let (part, _) = evaluated(&model, &shards, &EvalOptions { max_tokens: Some(limit), ..options("train") });
    assert_eq!(part.total.documents, 2, "the document that crosses the limit is still scored");
}

#[test]
fn impossible_requests_are_refused() {
    let dir = TestDir::new();
    let (shards, model) = (shards(&dir), model());
    let check = |options: EvalOptions, expected: &str| {
        let error = evaluate(&model, &shards, &options, &mut |_, _| ControlFlow::Continue(())).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(
        EvalOptions { window: Some(17), ..options("val") },
        "--window: must be 1 to 16 (the model's context), is 17",
    );
    check(EvalOptions { window: Some(0), ..options("val") }, "--window: must be 1 to 16");
    check(
        EvalOptions { stride: Some(17), ..options("val") },
        "--stride: must be 1 to 16 (the window), is 17",
    );
    check(EvalOptions { max_documents: Some(0), ..options("val") }, "has no documents");
    check(options("test"), "test");
    let interrupted = evaluate(&model, &shards, &options("val"), &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(interrupted, Err(Error::Interrupted)));
}

#[test]
#[allow(clippy::print_stdout)]
fn other_tools_say_the_same_under_their_protocols() {
    let Some(python) = crate::hf::python() else { return };
    let dir = TestDir::new();
    let (shards, model) = (shards(&dir), model());
    let folder = dir.join("model");
    curate_train::hf::export(&model, &shards.manifest().tokenizer, None, &folder).unwrap();
    let split = shards.split("val").unwrap();
    let text = |i| split.document(i).tokens.iter().filter(|&id| id != EOD).collect::<Vec<_>>();
    let documents: Vec<Vec<u32>> = (0..split.num_documents()).map(text).collect();
    let windows = [(16, 16), (16, 8), (16, 1), (7, 3), (2, 2)];
    let task = serde_json::json!({ "documents": documents, "join": [3, 4], "windows": windows, "prefix": 5 });
    std::fs::write(folder.join("task.json"), task.to_string()).unwrap();
    let told: serde_json::Value =
        serde_json::from_str(&crate::hf::ask(&python, "eval_oracle.py", &[&folder])).unwrap();
    for (i, (window, stride)) in windows.into_iter().enumerate() {
        let like = |like, stride| {
            let join = vec![3, 4];
            let options =
                EvalOptions { window: Some(window), stride, like, join, prefix: Some(5), ..options("val") };
            evaluated(&model, &shards, &options).0.total
        };
        let (ours, theirs) = (like(Like::Transformers, Some(stride)), &told["transformers"][i]);
        assert_eq!(ours.tokens, theirs["tokens"], "window {window}, stride {stride}");
        let mean = theirs["nats"].as_f64().unwrap() / ours.tokens as f64;
        assert!(
            (ours.nats_per_token - mean).abs() < 1e-4,
            "{window}, {stride}: {} {mean}",
            ours.nats_per_token
        );
        let Some(nats) = told["lm_eval"][i].as_f64() else {
            println!("skipped: this Python has no lm-eval (pip install --no-deps lm-eval)");
            continue;
        };
        let ours = like(Like::LmEval, None);
        assert_eq!(ours.tokens, documents.iter().map(|d| d.len() as u64).sum::<u64>());
        assert!(
            (ours.nats - nats).abs() / (ours.tokens as f64) < 1e-4,
            "window {window}: {} {nats}",
            ours.nats
        );
    }
}
