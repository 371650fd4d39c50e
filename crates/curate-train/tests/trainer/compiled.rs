//! The step that TorchInductor compiles (`--engine aot`), against the reference engine. Needs a Python with torch 2.11.0 and
//! a C++ compiler, and says so if there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use curate_train::config::{RunConfig, TrainOptions};
use curate_train::data::{Batch, Loader};
use curate_train::engine::{self, EngineKind};
use curate_train::model::{IGNORE, Model};
use curate_train::train::{Record, loss_and_gradients};
use tch::{Device, Kind, Tensor};

use crate::support::*;

/// Compiles the step of the run in `dir` and returns the package.
fn compile(python: &Path, dir: &Path) -> PathBuf {
    let package = dir.with_extension("pt2");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/export_step.py");
    let mut command = Command::new(python);
    command.env_remove("LD_LIBRARY_PATH").arg(script).arg(dir.join("config.json")).arg("-o").arg(&package);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    package
}

/// Begins a run with these flags, makes no step, and returns its options with the compiled step as engine.
fn begin(python: &Path, shards: &Path, run: &Path, flags: &str) -> TrainOptions {
    let flags = format!("train {} -o {} --quiet --stop-after 0 --threads 1 {flags}", text(shards), text(run));
    succeed(&flags.split_whitespace().collect::<Vec<_>>());
    let config: RunConfig = serde_json::from_slice(&std::fs::read(run.join("config.json")).unwrap()).unwrap();
    let mut options = config.options;
    options.numerics.engine = EngineKind::Aot;
    options.numerics.aot = Some(compile(python, run));
    options
}

/// Relative difference of two tensors in the 2-norm.
fn difference(got: &Tensor, expected: &Tensor) -> f64 {
    let [got, expected] = [got, expected].map(|tensor| tensor.to_kind(Kind::Double));
    let norm = |tensor: &Tensor| tensor.norm().double_value(&[]);
    norm(&(got - &expected)) / norm(&expected).max(1e-30)
}

/// Holds loss and gradients of batches against the reference engine: of whole micro-batches, and of one that is short of rows.
fn compare(shards: &curate_shards::ShardSet, options: &TrainOptions, tolerance: f64) {
    one_thread();
    let model = Model::new(&options.model, options.numerics.dtype, Device::Cpu, 3).unwrap();
    let mut engine = engine::of_run(options, &model).unwrap();
    let shards = std::sync::Arc::new(curate_shards::ShardSet::open(shards.dir()).unwrap());
    let mut loader = Loader::start(&shards, &options.data, 0, 2).unwrap();
    let [whole, mut short] = [(); 2].map(|()| loader.next_batch().unwrap());
    let tokens = 7 * short.seq_len;
    short.rows = 7;
    short.inputs.truncate(tokens);
    short.targets.truncate(tokens);
    short.targets[5..40].fill(IGNORE);
    for batch in [whole, short] {
        let loss = engine.loss(&model, &batch, 4).unwrap();
        let (expected, gradients) = loss_and_gradients(&model, &batch, 4).unwrap();
        let expected = expected.double_value(&[]);
        assert!((loss - expected).abs() < tolerance, "loss {loss} against {expected}");
        for ((parameter, got), expected) in model.parameters().iter().zip(engine.gradients()).zip(gradients) {
            assert_eq!((got.size(), got.kind()), (parameter.tensor.size(), Kind::Float));
            let difference = difference(&got, &expected);
            assert!(difference < tolerance, "{}: relative difference {difference}", parameter.name);
        }
    }
    let mut damaged = Batch { rows: 4, seq_len: 32, ..Batch::default() };
    (damaged.inputs, damaged.targets) = (vec![0; 128], vec![1; 128]);
    damaged.inputs[77] = 27;
    let error = engine.loss(&model, &damaged, 4).unwrap_err().to_string();
    assert_eq!(error, "token id 27 in split \"train\" is outside the vocabulary of 27");
}

fn losses(run: &Path) -> Vec<f64> {
    let loss = |record| if let Record::Step(step) = record { Some(step.loss_nats) } else { None };
    logged(run).into_iter().filter_map(loss).collect()
}

#[test]
fn a_compiled_step_trains_as_the_reference_does_and_refuses_other_runs() {
    let Some(python) = torch_python() else { return };
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let run = dir.join("run");
    // All that Llama has and more, in a vocabulary of 27.
    let model = "--preset llama-tiny --layers 2 --channels 32 --qk-norm true --bias true --tied false --batch-size 8 \
                 --micro-batch 4 --steps 6";
    let options = begin(&python, shards.dir(), &run, model);
    compare(&shards, &options, 1e-5);

    let package = options.numerics.aot.clone().unwrap();
    let other = dir.join("other");
    let aot = format!("--aot {}", text(&package));
    let refused = |model: &str, more: &str, expected: &str| {
        let flags = format!("train {} -o {} --quiet {model} {more}", text(shards.dir()), text(&other));
        let message = fail(2, &flags.split_whitespace().collect::<Vec<_>>());
        assert!(message.contains(expected), "{message}");
        assert!(!other.exists(), "a refused run left its directory");
    };
    for (from, to, expected) in [
        ("--micro-batch 4", "--micro-batch 2", "micro-batches of 4, the run has 2"),
        ("--layers 2", "--layers 3", "layers 2, the run has 3"),
        ("--tied false", "--tied false --mlp gelu --mlp-hidden 96", "mlp swiglu, the run has gelu"),
        ("--tied false", "--tied false --dtype bf16", "dtype fp32, the run has bf16"),
    ] {
        refused(&model.replace(from, to), &aot, &format!("run.pt2: it was made for {expected}"));
    }
    let config = format!("--aot {}", text(&run.join("config.json")));
    refused(model, &config, "config.json: not a package of python/export_step.py");
    refused(model, "--engine aot", "--engine: aot needs the package of a compiled step: give --aot FILE.pt2");
    refused(
        model,
        &format!("{aot} --recompute true"),
        "--recompute: a compiled step has settled what it keeps",
    );
    refused(model, &format!("{aot} --doc-mask attention"), "--doc-mask: this engine has no mask");

    let config = std::fs::read(run.join("config.json")).unwrap();
    let resumed = ["train", "-o", text(&run), "--resume", "--quiet", "--aot", text(&package)];
    let message = fail(2, &[&resumed[..], &["--micro-batch", "2"]].concat());
    assert!(message.contains("it was made for micro-batches of 4, the run has 2"), "{message}");
    assert!(config == std::fs::read(run.join("config.json")).unwrap(), "a refused start changed the run");

    // The run that was begun goes on with it; the reference trains a second one, two processes a third.
    succeed(&["train", "-o", text(&run), "--resume", "--quiet", "--aot", text(&package)]);
    let go = |run: &Path, more: &str| {
        let flags =
            format!("train {} -o {} --quiet --threads 1 {model} {more}", text(shards.dir()), text(run));
        succeed(&flags.split_whitespace().collect::<Vec<_>>());
        losses(run)
    };
    let reference = go(&dir.join("reference"), "--engine reference");
    let two = go(&dir.join("two"), &format!("{aot} --engine aot --nproc 2"));
    for losses in [losses(&run), two] {
        assert_eq!(losses.len(), 6);
        for (a, b) in losses.iter().zip(&reference) {
            assert!((a - b).abs() < 1e-4, "{losses:?} against {reference:?}");
        }
    }
    // Settings of a run with a package serve a run without it.
    let (settings, repeated) = (dir.join("two").join("settings.toml"), dir.join("repeated"));
    let again = ["--config", text(&settings), "--engine", "fused", "--nproc", "1", "--quiet"];
    succeed(&[&["train", "-o", text(&repeated)], &again[..]].concat());
    assert_eq!(newest(&repeated).state.run.options.numerics.aot, None);
    let recorded = newest(&run).state.run.options.numerics;
    assert_eq!((recorded.engine, recorded.aot), (EngineKind::Aot, options.numerics.aot));
}

#[test]
fn a_compiled_step_of_gpt2_in_bf16_is_the_reference_up_to_rounding() {
    let Some(python) = torch_python() else { return };
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let model = "--preset char-tiny --layers 1 --dtype bf16 --batch-size 8 --micro-batch 4";
    let options = begin(&python, shards.dir(), &dir.join("run"), model);
    // A bf16 has 8 bits: sums that are rounded elsewhere differ by a few of their last.
    compare(&shards, &options, 3e-2);
}
