//! Small shard sets, models and runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use curate_shards::{PackPolicy, ShardSet, ShardSetWriter, Splits, TokenDocument, TokenId, TokenizerInfo};
use curate_shards::{ViewOptions, WriterOptions};
use curate_train::checkpoint::Checkpoint;
use curate_train::config::{RunConfig, TrainOptions, default_micro_batch, preset};
use curate_train::rng::Rng;
use curate_train::train::{Ending, EvalRecord, Monitor, Record, RunDir, StepRecord, Trainer};
use tch::{Device, Tensor};

/// A fresh directory, removed when dropped.
pub(crate) struct TestDir(PathBuf);

impl TestDir {
    pub(crate) fn new() -> TestDir {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("curate-train-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TestDir(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The end-of-document id of the test vocabularies: the last id.
pub(crate) const VOCAB: u32 = 27;
pub(crate) const EOD: TokenId = VOCAB - 1;

/// Documents of letters (ids 0 to 25) that follow simple rules, so that there is something to learn.
pub(crate) fn documents(count: usize, seed: u64) -> Vec<Vec<TokenId>> {
    let mut rng = Rng::new(seed, "documents");
    let document = |_| {
        let length = 1 + rng.next_u64() % 60;
        let (mut id, stride) = (rng.next_u64() % 26, 1 + rng.next_u64() % 3);
        let mut tokens = Vec::new();
        for _ in 0..length {
            tokens.push(id as TokenId);
            id = (id + stride) % 26;
        }
        tokens.push(EOD);
        tokens
    };
    (0..count).map(document).collect()
}

/// Writes a shard set of these documents; domains alternate.
pub(crate) fn write_shards(
    dir: &Path,
    documents: &[Vec<TokenId>],
    splits: &str,
    views: &[ViewOptions],
) -> Arc<ShardSet> {
    let tokenizer =
        TokenizerInfo { name: "letters".into(), sha256: "00".repeat(32), vocab_size: VOCAB, eod: EOD };
    let mut options = WriterOptions::new(tokenizer);
    options.splits = Splits::parse(splits).unwrap();
    options.tokenizer_json = b"{}".to_vec();
    options.vocabulary = (b'a'..=b'z').map(|letter| vec![letter]).chain([vec![]]).collect();
    let mut writer = ShardSetWriter::create(dir, options).unwrap();
    for (key, tokens) in (0u64..).zip(documents) {
        let domain = if key % 2 == 0 { "even" } else { "odd" };
        let n_bytes = tokens.len() as u32 - 1;
        writer.push(&TokenDocument { tokens, n_bytes, domain, key }).unwrap();
    }
    writer.finish(views).unwrap();
    Arc::new(ShardSet::open(dir).unwrap())
}

pub(crate) fn concat(seq_len: u32) -> ViewOptions {
    ViewOptions { seq_len, policy: PackPolicy::Concat }
}

/// 300 documents in `train` and `val`, in rows of 32.
pub(crate) fn small_shards(dir: &Path) -> Arc<ShardSet> {
    write_shards(dir, &documents(300, 1), "val=0.1", &[concat(32)])
}

/// Options for a small model on the shards' shortest rows.
pub(crate) fn small_options(shards: &ShardSet, steps: u64) -> TrainOptions {
    let seq_len = shards.views("train")[0];
    let rows = shards.view("train", seq_len).unwrap().num_rows();
    let mut options = preset("char-tiny").unwrap().options(VOCAB, seq_len, rows);
    options.model.layers = 2;
    options.data.batch_size = 8.min(options.data.batch_size);
    options.schedule.steps = steps;
    options.schedule.warmup = 2;
    options.numerics.micro_batch = default_micro_batch(&options);
    options
}

pub(crate) fn run_config(shards: &ShardSet, options: TrainOptions) -> RunConfig {
    let view = shards.view("train", options.data.seq_len).unwrap();
    RunConfig {
        format_version: RunConfig::FORMAT_VERSION,
        options,
        shards: shards.dir().to_owned(),
        rows_checksum: view.checksum().to_owned(),
        tokenizer: shards.manifest().tokenizer.clone(),
        program: "test".into(),
        libtorch: RunConfig::LIBTORCH.into(),
        products: None,
    }
}

/// The number of threads belongs to the process, and tests run side by side: all in this one use a single thread.
/// With more of them the program is tested from outside.
pub(crate) fn one_thread() {
    curate_train::device::set_threads(1);
}

/// Starts a run on the CPU.
pub(crate) fn create(dir: &Path, shards: &Arc<ShardSet>, options: &TrainOptions) -> Trainer {
    one_thread();
    let dir = RunDir::claim(dir).unwrap();
    Trainer::create(dir, run_config(shards, options.clone()), Arc::clone(shards), Device::Cpu).unwrap()
}

/// Goes on from the newest checkpoint.
pub(crate) fn resume(dir: &Path, shards: &Arc<ShardSet>, options: &TrainOptions) -> Trainer {
    resume_from(&newest(dir), dir, shards, options)
}

/// Goes on from a checkpoint.
pub(crate) fn resume_from(
    checkpoint: &Checkpoint,
    dir: &Path,
    shards: &Arc<ShardSet>,
    options: &TrainOptions,
) -> Trainer {
    let (dir, run) = (RunDir::claim(dir).unwrap(), run_config(shards, options.clone()));
    Trainer::resume(dir, run, Arc::clone(shards), Device::Cpu, checkpoint).unwrap()
}

pub(crate) fn newest(dir: &Path) -> Checkpoint {
    curate_train::checkpoint::latest(dir, |error| panic!("{error}")).unwrap().unwrap()
}

/// Trains and returns the losses of the steps.
pub(crate) fn train(trainer: &mut Trainer, stop_after: Option<u64>) -> (Ending, Vec<f64>) {
    let mut losses = Losses::default();
    let ending = trainer.train(stop_after, &mut losses, &AtomicBool::new(false)).unwrap();
    (ending, losses.0)
}

#[derive(Default)]
pub(crate) struct Losses(pub(crate) Vec<f64>);

impl Monitor for Losses {
    fn step(&mut self, record: &StepRecord) {
        self.0.push(record.loss_nats);
    }

    fn evaluated(&mut self, _: &EvalRecord) {}

    fn evaluating(&mut self, _: u64, _: u64) {}
}

/// A run's log without its times.
pub(crate) fn logged(run: &Path) -> Vec<Record> {
    let log = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let timeless = |line| match serde_json::from_str(line).unwrap() {
        Record::Step(record) => Record::Step(StepRecord {
            seconds: 0.0,
            tokens_per_s: 0.0,
            data_wait_s: 0.0,
            save_wait_s: 0.0,
            teraflop_per_s: 0.0,
            peak_memory_bytes: 0,
            cuda_allocated_bytes: None,
            cuda_peak_bytes: None,
            ..record
        }),
        record => record,
    };
    log.lines().map(timeless).collect()
}

/// The tensor files of the checkpoint of a step, byte for byte.
pub(crate) fn tensors_of(run: &Path, step: u64) -> [Vec<u8>; 2] {
    let dir = run.join(format!("step-{step:08}"));
    ["model.safetensors", "optimizer.safetensors"].map(|name| std::fs::read(dir.join(name)).unwrap())
}

pub(crate) fn token_tensor(tokens: &[i64], rows: i64) -> Tensor {
    Tensor::from_slice(tokens).reshape([rows, -1])
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.detach().reshape([-1])).unwrap()
}

/// Runs the program.
pub(crate) fn curate_train(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_curate-train")).args(arguments).output().unwrap()
}

/// A Python with torch 2.11.0: `CURATE_TORCH_PYTHON`, else `python3` if it has that. Without one a test says that it is skipped.
#[allow(clippy::print_stdout)] // a test that is skipped says so
pub(crate) fn torch_python() -> Option<PathBuf> {
    let python = std::env::var_os("CURATE_TORCH_PYTHON").unwrap_or_else(|| "python3".into());
    let script = "import sys, torch; print(sys.executable, torch.__version__.split('+')[0])";
    // cargo's folders have another libtorch than Python's.
    let asked = Command::new(&python).env_remove("LD_LIBRARY_PATH").args(["-c", script]).output().ok();
    let answer = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let found = answer.trim().strip_suffix(RunConfig::LIBTORCH).map(|path| PathBuf::from(path.trim()));
    if found.is_none() {
        let name = python.to_string_lossy();
        println!("skipped: {name} has no torch {} (CURATE_TORCH_PYTHON names another)", RunConfig::LIBTORCH);
    }
    found
}

/// Runs the program, which must succeed, and returns its stdout and stderr.
pub(crate) fn succeed(arguments: &[&str]) -> (Vec<u8>, String) {
    let output = curate_train(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "curate-train {arguments:?}: {}\n{stderr}", output.status);
    (output.stdout, stderr)
}

/// Runs the program, which must end with this code, and returns its stderr.
pub(crate) fn fail(code: i32, arguments: &[&str]) -> String {
    let output = curate_train(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "curate-train {arguments:?}\n{stderr}");
    assert!(output.stdout.is_empty(), "curate-train {arguments:?} wrote to stdout");
    stderr
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
