use curate_train::config::{Dtype, ModelConfig, preset};
use curate_train::generate::{Batch, Generator, Sampling};
use curate_train::model::Model;
use curate_train::rng::Rng;
use tch::Device;

use crate::support::*;

fn models() -> Vec<Model> {
    one_thread();
    let model = |name: &str, change: fn(&mut ModelConfig)| {
        let mut config = preset(name).unwrap().options(VOCAB, 16, 10).model;
        config.layers = 2;
        change(&mut config);
        let model = Model::new(&config, Dtype::Fp32, Device::Cpu, 3).unwrap();
        let _no_grad = tch::no_grad_guard();
        // Sharper than fresh weights, so that a wrong context would change the choice.
        for parameter in model.parameters().iter().filter(|p| p.decays) {
            let _ = parameter.tensor.shallow_clone().g_mul_scalar_(6.0);
        }
        model
    };
    vec![
        model("gpt2-tiny", |_| ()),
        model("llama-tiny", |_| ()),
        model("llama-tiny", |c| (c.kv_heads, c.qk_norm) = (1, true)),
    ]
}

const SAMPLING: Sampling =
    Sampling { temperature: 0.8, top_k: 0, top_p: 0.95, min_p: 0.0, repetition_penalty: 1.0 };

fn generate(mut generator: Generator<'_>, count: usize) -> Vec<u32> {
    (0..count).map(|_| generator.next_token().unwrap()).collect()
}

fn generator<'a>(model: &'a Model, prompt: &[u32], seed: u64) -> Generator<'a> {
    Generator::new(model, EOD, prompt, SAMPLING, Rng::new(seed, "test")).unwrap()
}

#[test]
fn the_cache_changes_nothing() {
    for model in models() {
        // Three times the context, so that it moves on several times; prompts shorter and longer than it.
        for prompt in [vec![], vec![3, 1, 4], (0..40).map(|i| i % 26).collect()] {
            let cached = generate(generator(&model, &prompt, 1), 48);
            let plain = generate(generator(&model, &prompt, 1).without_cache(), 48);
            assert_eq!(cached, plain, "{:?}", model.config());
        }
    }
}

#[test]
fn cached_logits_are_those_of_the_whole_text() {
    for model in models() {
        let _no_grad = tch::no_grad_guard();
        let ids: Vec<i64> = (0..16).map(|i| i * 7 % 27).collect();
        let whole = model.logits(&token_tensor(&ids, 1)).unwrap();
        let mut cache = model.new_cache(1).unwrap();
        let mut check = |at: usize, fresh: &[i64]| {
            let logits = model.next_logits(&token_tensor(fresh, 1), &mut cache).unwrap();
            let (ours, expected) = (values(&logits), values(&whole.select(1, at as i64)));
            let error = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let scale = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!(error < 1e-5 * scale.max(1.0), "place {at}: {error} of {scale}");
        };
        check(4, &ids[..5]);
        (5..16).for_each(|at| check(at, &ids[at..=at]));
    }
}

#[test]
fn a_batch_gives_what_each_text_gives_alone() {
    for model in models() {
        let prompts: Vec<Vec<u32>> =
            vec![vec![], vec![3, 1, 4], (0..40).map(|i| i % 26).collect(), vec![7; 9], vec![2]];
        let alone: Vec<Vec<u32>> = (0..)
            .zip(&prompts)
            .map(|(seed, prompt)| generate(generator(&model, prompt, seed), 20 + seed as usize))
            .collect();
        // Three slots for five texts: the fourth and fifth take over the places of those that are done first.
        let mut batch = Batch::new(&model, 3, SAMPLING).unwrap();
        let mut texts = vec![Vec::new(); 5];
        let mut holds: Vec<Option<usize>> = vec![None; 3];
        let mut waiting = 0..5;
        loop {
            for (slot, held) in holds.iter_mut().enumerate() {
                if held.is_none_or(|text| texts[text].len() == alone[text].len()) {
                    batch.end(slot);
                    *held = waiting.next();
                    if let Some(text) = *held {
                        batch.begin(slot, EOD, &prompts[text], Rng::new(text as u64, "test")).unwrap();
                    }
                }
            }
            let chosen = batch.step().unwrap();
            if chosen.is_empty() {
                break;
            }
            for (slot, id) in chosen {
                texts[holds[slot].unwrap()].push(id);
            }
        }
        assert_eq!(texts, alone, "{:?}", model.config());
    }
}

#[test]
fn the_seed_decides() {
    let model = &models()[0];
    let text = |seed| generate(generator(model, &[2], seed), 30);
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

#[test]
fn a_foreign_prompt_is_refused() {
    let model = &models()[0];
    let error = Generator::new(model, EOD, &[1, VOCAB], SAMPLING, Rng::new(1, "test")).unwrap_err();
    assert_eq!(error.to_string(), "--prompt-ids: id 27 is outside the vocabulary of 27");
}
