use std::process::{Child, Command};

use curate_train::config::{Dtype, preset};
use curate_train::data::Loader;
use curate_train::model::Model;
use curate_train::optim::{AdamW, clip, global_norm};
use curate_train::train::{Ending, loss_and_gradients};
use tch::Device;

use crate::support::{
    EOD, TestDir, concat, create, one_thread, small_options, small_shards, text, train, write_shards,
};

#[test]
fn the_loss_falls() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let mut trainer = create(&dir.join("run"), &shards, &small_options(&shards, 60));
    let (ending, losses) = train(&mut trainer, None);
    let last = losses[50..].iter().sum::<f64>() / 10.0;
    assert!((losses[0] - 27f64.ln()).abs() < 0.05, "first loss {}", losses[0]);
    assert!(last < 2.0, "last losses {last}");
    let Ending::Finished(Some(evaluation)) = ending else { panic!("{ending:?}") };
    let unigram = evaluation.unigram.unwrap();
    assert!(evaluation.total.nats_per_token < 0.7 * unigram.nats_per_token);
    assert_eq!(evaluation.total.tokens, unigram.tokens);
}

#[test]
fn one_batch_is_overfitted() {
    one_thread();
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let options = small_options(&shards, 1);
    let batch = Loader::start(&shards, &options.data, 0, 1).unwrap().next_batch().unwrap();
    for name in ["gpt2-tiny", "llama-tiny"] {
        let config = preset(name).unwrap().options(27, 32, 100).model;
        let model = Model::new(&config, Dtype::Fp32, Device::Cpu, 1).unwrap();
        let mut adamw = AdamW::new(Default::default(), model.parameters()).unwrap();
        let mut last = f64::NAN;
        for _ in 0..150 {
            let (loss, mut gradients) = loss_and_gradients(&model, &batch, 64).unwrap();
            last = loss.double_value(&[]);
            let norm = global_norm(&gradients).unwrap();
            clip(&mut gradients, norm, 1.0).unwrap();
            adamw.step(model.parameters(), &gradients, 2e-3).unwrap();
            if last < 0.05 {
                break;
            }
        }
        // The rows differ from their first inputs on, so that nothing about them need stay uncertain.
        assert!(last < 0.05, "{name}: {last}");
    }
}

/// 172 characters, 26 of them distinct: the space and all letters but z.
const TEXT: &str = "in a quiet valley a brown fox keeps a small journal of every bird she hears at dawn and when winter \
                    comes she reads it again by the fire while deep snow covers the old road";

#[test]
fn the_170_character_example_is_learned_in_seconds() {
    let mut symbols: Vec<char> = TEXT.chars().collect();
    symbols.sort_unstable();
    symbols.dedup();
    assert_eq!(symbols.len(), 26);
    let id = |c| symbols.binary_search(&c).unwrap() as u32;
    let tokens: Vec<u32> = TEXT.chars().map(id).chain([EOD]).collect();

    let example = |copies: usize| {
        let dir = TestDir::new();
        let shards = write_shards(&dir.join("shards"), &vec![tokens.clone(); copies], "", &[concat(128)]);
        let rows = shards.view("train", 128).unwrap().num_rows();
        let mut options = preset("char-tiny").unwrap().options(27, 128, rows);
        assert_eq!(options.model.num_parameters(), 55_840);
        options.data.batch_size = options.data.batch_size.min(8);
        options.numerics.micro_batch = options.data.batch_size;
        options.schedule.steps = 150;
        options.cadence.eval_split = "train".into();
        let (ending, losses) = train(&mut create(&dir.join("run"), &shards, &options), None);
        assert!((losses[0] - 27f64.ln()).abs() < 0.05, "first loss {}, ln 27 = {}", losses[0], 27f64.ln());
        assert!(losses[149].exp() <= 5.0, "perplexity of the last step {}", losses[149].exp());
        let Ending::Finished(Some(evaluation)) = ending else { panic!("{ending:?}") };
        assert_eq!(evaluation.total.tokens, (TEXT.len() + 1) as u64 * copies as u64);
        evaluation.total.perplexity
    };
    // One copy makes two rows, which always begin at the same characters: learned positions then know the text only
    // from there, and the evaluation, whose windows begin elsewhere, sees it.
    let one = example(1);
    assert!(one > 5.0, "perplexity {one}: no longer so?");
    // Laid end to end, copies are cut at every place.
    let many = example(60);
    assert!(many <= 5.0, "perplexity {many}");
}

#[test]
fn memory_stays_flat() {
    let dir = TestDir::new();
    small_shards(&dir.join("shards"));
    let peak = |engine: &str, steps: &str| {
        let run = dir.join(&format!("{engine}-{steps}"));
        let mut program = Command::new(env!("CARGO_BIN_EXE_curate-train"));
        program.args(["train", text(&dir.join("shards")), "-o", text(&run), "--preset", "char-tiny"]);
        program.args(["--layers", "1", "--batch-size", "4", "--threads", "1", "--steps", steps, "--quiet"]);
        program.args(["--engine", engine, "--optimizer", "muon", "--spike-sigma", "6"]);
        peak_resident_bytes(program.spawn().unwrap())
    };
    for (engine, steps) in [("fused", "3000"), ("reference", "600")] {
        let (short, long) = (peak(engine, "50"), peak(engine, steps));
        // One leaked batch of logits a step would be 550 × 4 × 32 × 27 × 4 B = 7.6 MB, one leaked gradient 34 MB.
        assert!(long < short + (4 << 20), "{engine}: {short} bytes after 50 steps, {long} after {steps}");
    }
}

/// Waits for a process, which must succeed, and returns the largest memory it had.
fn peak_resident_bytes(child: Child) -> u64 {
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both pointers are valid for writing, and the process is a child of this one that nobody else waits for.
    let pid = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, usage.as_mut_ptr()) };
    assert_eq!((pid, status), (child.id() as libc::pid_t, 0));
    // SAFETY: wait4 succeeded and has filled it; zeroed would be valid too.
    let usage = unsafe { usage.assume_init() };
    usage.ru_maxrss as u64 * 1024
}
