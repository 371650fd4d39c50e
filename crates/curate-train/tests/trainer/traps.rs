//! What goes wrong with tch's own store, optimiser and closures, and does not here. Each trap is shown first.

use std::panic::{AssertUnwindSafe, catch_unwind};

use curate_train::checkpoint::Checkpoint;
use curate_train::config::Dtype;
use curate_train::eval::{EvalOptions, evaluate};
use curate_train::model::Model;
use curate_train::train::loss_and_gradients;
use tch::nn::{self, OptimizerConfig};
use tch::{Device, Kind, Tensor};

use crate::support::*;

/// A store with one parameter `w` [2, 3] of zeros.
fn store() -> (nn::VarStore, Tensor) {
    let store = nn::VarStore::new(Device::Cpu);
    let w = store.root().zeros("w", &[2, 3]);
    (store, w)
}

/// A checkpoint of a run in which `change` was made to the tensor called `norm.weight`, with sizes and hashes as recorded
/// for what is now there.
fn changed_checkpoint(dir: &TestDir, change: fn(&Tensor) -> Tensor) -> (Checkpoint, Model) {
    let shards = small_shards(&dir.join("shards"));
    let options = small_options(&shards, 2);
    train(&mut create(&dir.join("run"), &shards, &options), None);
    let checkpoint = newest(&dir.join("run"));
    let path = checkpoint.path.join("model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    for (name, tensor) in &mut tensors {
        if name == "norm.weight" {
            *tensor = change(tensor);
        }
    }
    Tensor::write_safetensors(&tensors, &path).unwrap();
    (checkpoint, Model::new(&options.model, Dtype::Fp32, Device::Cpu, 7).unwrap())
}

#[test]
fn a_smaller_tensor_is_not_broadcast_into_place() {
    let dir = TestDir::new();
    let file = dir.join("w.safetensors");
    Tensor::write_safetensors(&[("w", Tensor::from_slice(&[1f32, 2.0, 3.0]))], &file).unwrap();
    let (mut theirs, w) = store();
    theirs.load(&file).unwrap();
    assert_eq!(values(&w), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0], "tch has become stricter");

    let (checkpoint, model) = changed_checkpoint(&dir, |weight| weight.narrow(0, 0, 1));
    let before = values(&model.parameters()[0].tensor);
    let message = checkpoint.load_model(&model).unwrap_err().to_string();
    assert!(message.contains("tensor norm.weight is F32 [1], expected F32 [32]"), "{message}");
    assert_eq!(before.len(), values(&model.parameters()[0].tensor).len());
}

#[test]
fn a_file_does_not_change_the_kind_of_a_weight() {
    let dir = TestDir::new();
    let file = dir.join("w.safetensors");
    let half = Tensor::zeros([2, 3], (Kind::BFloat16, Device::Cpu));
    Tensor::write_safetensors(&[("w", half)], &file).unwrap();
    let (mut theirs, _) = store();
    theirs.load(&file).unwrap();
    let kind = theirs.variables()["w"].kind();
    assert_eq!(kind, Kind::BFloat16, "tch has become stricter");

    let (checkpoint, model) = changed_checkpoint(&dir, |weight| weight.to_kind(Kind::BFloat16));
    let message = checkpoint.load_model(&model).unwrap_err().to_string();
    assert!(message.contains("tensor norm.weight is BF16 [32], expected F32 [32]"), "{message}");
    assert!(model.parameters().iter().all(|p| p.tensor.kind() == Kind::Float));
}

#[test]
fn two_parameters_do_not_share_a_name() {
    let (theirs, _) = store();
    let _second = theirs.root().zeros("w", &[2, 3]);
    let mut names: Vec<String> = theirs.variables().into_keys().collect();
    names.sort();
    assert!(names.len() == 2 && names[1].starts_with("w__"), "{names:?}");
    // Ours panics (model.rs has that test); every model of every combination of switches has unique names (model).
}

#[test]
fn a_panic_leaves_gradients_on() {
    let records = || {
        let one = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        (one * 2.0).requires_grad()
    };
    // On a thread of its own: the mode is the thread's, and stays off on this one.
    let theirs = std::thread::spawn(move || {
        assert!(records() && caught(|| tch::no_grad(|| panic!("inside"))));
        records()
    });
    assert!(!theirs.join().unwrap(), "tch has become panic-safe");

    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let options = small_options(&shards, 1);
    one_thread();
    let model = Model::new(&options.model, Dtype::Fp32, Device::Cpu, 1).unwrap();
    let eval = EvalOptions { split: "val".into(), ..Default::default() };
    assert!(caught(|| {
        let _ = evaluate(&model, &shards, &eval, &mut |_, _| panic!("inside an evaluation"));
    }));
    assert!(records());
    let batch =
        curate_train::data::Loader::start(&shards, &options.data, 0, 1).unwrap().next_batch().unwrap();
    let (_, gradients) = loss_and_gradients(&model, &batch, 8).unwrap();
    assert!(gradients.iter().all(|g| g.norm().double_value(&[]) > 0.0));
}

fn caught(f: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn an_optimiser_that_goes_on_has_its_state() {
    // The same four gradients with a new optimiser after two of them: all that tch's can do.
    let theirs = |restarts: bool| {
        let (store, w) = store();
        let adamw = || nn::AdamW::default().build(&store, 0.1).unwrap();
        let mut optimiser = adamw();
        for step in 0..4 {
            if restarts && step == 2 {
                optimiser = adamw();
            }
            let loss = (&w * f64::from(step * step + 1)).sum(Kind::Float) + w.square().sum(Kind::Float);
            optimiser.backward_step(&loss);
        }
        values(&w)
    };
    assert_ne!(theirs(false), theirs(true), "tch's optimiser is restored by magic");
    // Ours, AdamW and Muon: resuming.
}
