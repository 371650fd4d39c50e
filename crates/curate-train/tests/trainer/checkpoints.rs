use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use curate_shards::ShardSet;
use curate_train::checkpoint::{latest, list, open};
use curate_train::config::ModelConfig;
use curate_train::model::Model;
use curate_train::train::{EvalRecord, Monitor, StepRecord, Trainer};
use curate_train::{Error, config::Dtype};
use tch::Device;

use crate::support::*;

/// A run of six steps with checkpoints at 2, 4 and 6.
fn run_with_checkpoints(dir: &TestDir) -> (std::path::PathBuf, curate_train::config::TrainOptions) {
    let shards = small_shards(&dir.join("shards"));
    let mut options = small_options(&shards, 6);
    options.cadence.save_every = 2;
    options.cadence.keep_last = 3;
    let run = dir.join("run");
    train(&mut create(&run, &shards, &options), None);
    (run, options)
}

#[test]
fn a_round_trip_keeps_every_bit() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let options = small_options(&shards, 3);
    let weights = |trainer: &Trainer| {
        let parameters = trainer.model().parameters().iter();
        parameters.map(|p| (p.name.clone(), values(&p.tensor))).collect::<Vec<_>>()
    };
    let mut first = create(&dir.join("run"), &shards, &options);
    train(&mut first, None);
    let expected = weights(&first);
    drop(first); // it holds the directory
    let second = resume(&dir.join("run"), &shards, &options);
    assert!(weights(&second) == expected);
    let before = tensors_of(&dir.join("run"), 3);
    second.save().unwrap();
    assert!(before == tensors_of(&dir.join("run"), 3));
    let state = newest(&dir.join("run")).state;
    assert_eq!((state.step, state.samples), (3, 24));
    assert_eq!(state.run.options, options);
}

#[test]
fn only_the_last_ones_are_kept() {
    let dir = TestDir::new();
    let (run, _) = run_with_checkpoints(&dir);
    let steps = |run| list(run).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
    assert_eq!(steps(&run), [2, 4, 6]);
    curate_train::checkpoint::tidy(&run, 1, 6).unwrap();
    assert_eq!(steps(&run), [6]);
}

#[test]
fn damage_is_named_and_the_one_before_is_used() {
    let check = |damage: fn(&std::path::Path), expected: &str| {
        let dir = TestDir::new();
        let (run, _) = run_with_checkpoints(&dir);
        damage(&run.join("step-00000006"));
        let message = open(&run.join("step-00000006")).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        let mut heard = Vec::new();
        let found = latest(&run, |error| heard.push(error.to_string())).unwrap().unwrap();
        assert_eq!(found.state.step, 4);
        assert_eq!(heard, [message]);
    };
    check(
        |dir| {
            let path = dir.join("model.safetensors");
            let length = fs::metadata(&path).unwrap().len();
            fs::File::options().write(true).open(&path).unwrap().set_len(length - 4).unwrap();
        },
        "model.safetensors: damaged checkpoint: ",
    );
    check(
        |dir| {
            let path = dir.join("optimizer.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
        },
        "optimizer.safetensors: damaged checkpoint: bad checksum (got ",
    );
    check(|dir| fs::remove_file(dir.join("model.safetensors")).unwrap(), "model.safetensors: No such file");
    check(|dir| fs::write(dir.join("state.json"), "{").unwrap(), "state.json: not a valid checkpoint state");
    check(
        |dir| {
            let path = dir.join("state.json");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace("\"format_version\": 1", "\"format_version\": 9")).unwrap();
        },
        "format version 9, this program reads version 1",
    );
}

#[test]
fn a_damaged_newest_one_costs_no_whole_one() {
    let dir = TestDir::new();
    let (run, mut options) = run_with_checkpoints(&dir);
    let damaged = run.join("step-00000006");
    fs::write(damaged.join("model.safetensors"), "").unwrap();
    options.cadence.keep_last = 1;
    let shards = Arc::new(ShardSet::open(&dir.join("shards")).unwrap());
    let go_on = |stop_after| {
        let from = latest(&run, |_| ()).unwrap().unwrap();
        train(&mut resume_from(&from, &run, &shards, &options), Some(stop_after));
        list(&run).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>()
    };
    // The damaged one is newer than what is saved meanwhile, and must not count as the last one that is kept.
    assert_eq!(go_on(4), [4, 6]);
    assert_eq!(go_on(5), [5, 6]);
    assert_eq!(go_on(6), [6]);
    open(&damaged).expect("it was written anew");
}

#[test]
fn if_none_is_whole_the_newest_ones_problem_is_the_answer() {
    let dir = TestDir::new();
    let (run, _) = run_with_checkpoints(&dir);
    for (_, path) in list(&run).unwrap() {
        fs::write(path.join("model.safetensors"), "").unwrap();
    }
    let mut heard = 0;
    let error = latest(&run, |_| heard += 1).unwrap_err();
    assert_eq!(heard, 3);
    assert!(error.to_string().contains("step-00000006/model.safetensors"), "{error}");
    assert!(error.hint().is_some());
    assert!(latest(&dir.join("nowhere"), |_| ()).unwrap().is_none());
}

#[test]
fn an_unfinished_checkpoint_is_not_seen() {
    let dir = TestDir::new();
    let (run, _) = run_with_checkpoints(&dir);
    fs::rename(run.join("step-00000006"), run.join(".step-00000006.new")).unwrap();
    fs::create_dir(run.join("step-00000009")).unwrap(); // nothing in it
    assert_eq!(newest(&run).state.step, 4);
}

#[test]
fn a_model_of_another_shape_is_refused_by_tensor() {
    let dir = TestDir::new();
    let (run, options) = run_with_checkpoints(&dir);
    let check = |change: fn(&mut ModelConfig), expected: &str| {
        let mut config = options.model.clone();
        change(&mut config);
        let model = Model::new(&config, Dtype::Fp32, Device::Cpu, 1).unwrap();
        let error = newest(&run).load_model(&model).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }));
        assert!(error.to_string().contains(expected), "{error}");
    };
    // A tensor of one row would broadcast into the wanted shape if the check were left to libtorch.
    check(|c| c.context = 64, "tensor position.weight is F32 [32, 32], expected F32 [64, 32]");
    check(|c| c.layers = 3, "28 tensors, expected 40");
    check(|c| (c.norm, c.tied) = (curate_train::config::Norm::RmsNorm, true), "28 tensors, expected 23");
}

#[test]
fn the_tensor_files_are_plain_safetensors() {
    let dir = TestDir::new();
    let (run, _) = run_with_checkpoints(&dir);
    let [model, optimizer] = tensors_of(&run, 6);
    let model = safetensors::SafeTensors::deserialize(&model).unwrap();
    let optimizer = safetensors::SafeTensors::deserialize(&optimizer).unwrap();
    assert_eq!(model.tensor("embedding.weight").unwrap().shape(), [27, 32]);
    assert_eq!(optimizer.len(), 2 * model.len());
    let second = optimizer.tensor("embedding.weight.second").unwrap();
    assert_eq!((second.dtype(), second.shape()), (safetensors::Dtype::F32, &[27usize, 32][..]));
    let squares = second.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    assert!(squares.clone().all(|x| x >= 0.0) && squares.sum::<f32>() > 0.0);
}

/// Puts a file where the checkpoint of a step would be written, once that of an earlier one is complete.
struct Blocks {
    run: std::path::PathBuf,
    steps: u64,
}

impl Monitor for Blocks {
    fn step(&mut self, record: &StepRecord) {
        self.steps = record.step;
        if record.step == 5 {
            std::fs::write(self.run.join(".step-00000006.new"), b"").unwrap();
        }
    }

    fn evaluated(&mut self, _: &EvalRecord) {}

    fn evaluating(&mut self, _: u64, _: u64) {}
}

#[test]
fn a_checkpoint_that_cannot_be_written_ends_the_run_and_leaves_the_one_before() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let mut options = small_options(&shards, 100_000);
    options.cadence.save_every = 3;
    let run = dir.join("run");
    let mut trainer = create(&run, &shards, &options);
    let mut monitor = Blocks { run: run.clone(), steps: 0 };
    let error = trainer.train(None, &mut monitor, &AtomicBool::new(false)).unwrap_err();
    let path = run.join(".step-00000006.new");
    assert!(error.to_string().starts_with(&format!("{}: ", path.display())), "{error}");
    // Found at the first step after the failure, at the latest where the next checkpoint is due.
    assert!((6..=9).contains(&monitor.steps), "{} steps", monitor.steps);
    assert_eq!(newest(&run).state.step, 3);
}

#[test]
fn a_checkpoint_written_while_training_goes_on_is_that_of_its_step() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let mut options = small_options(&shards, 12);
    (options.cadence.save_every, options.cadence.keep_last) = (2, 9);
    let (run, stopped) = (dir.join("run"), dir.join("stopped"));
    train(&mut create(&run, &shards, &options), None);
    for step in [2, 6, 10, 12] {
        options.cadence.save_every = 0; // saved at the end of training, from the tensors themselves
        let _ = std::fs::remove_dir_all(&stopped);
        train(&mut create(&stopped, &shards, &options), Some(step));
        assert!(tensors_of(&run, step) == tensors_of(&stopped, step), "step {step} differs");
    }
}
