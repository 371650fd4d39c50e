//! CPU seconds of a training step of a GPT-2, to be compared with other trainers (`benches/train/run.py`).
//!
//! ```text
//! step_speed ENGINE DTYPE LAYERS CHANNELS HEADS VOCAB BATCH SEQ_LEN STEPS THREADS [WEIGHTS TOKENS]
//! ```
//! prints one line of JSON a step: loss and CPU seconds. ENGINE is reference, fused or a package of `python/export_step.py`. With the last two it only writes the initial weights
//! (safetensors) and the token file: 32-bit ids, step by step, BATCH rows of SEQ_LEN + 1. Each row begins with the last
//! token of the row before it, so that trainers that read one stream see the same batches.

#![allow(clippy::print_stdout, clippy::disallowed_methods)] // an example talks to its caller

use std::error::Error;
use std::io::Write;

use curate_train::config::{Dtype, ModelConfig, default_mlp_hidden, preset};
use curate_train::data::Batch;
use curate_train::engine::{self, EngineKind};
use curate_train::model::Model;
use curate_train::optim::{AdamW, AdamWOptions, clip_scale, global_norm};
use curate_train::rng::Rng;
use tch::{Device, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    curate_train::memory::keep();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [engine, dtype, numbers @ ..] = &args[..] else { return Err("ten arguments are needed".into()) };
    let numbers = numbers.iter().map_while(|n| n.parse().ok()).collect::<Vec<u32>>();
    let [layers, channels, heads, vocab, rows, seq_len, steps, threads] = numbers[..] else {
        return Err("ENGINE, DTYPE and eight numbers are needed".into());
    };
    let (kind, package) = match engine.as_str() {
        "fused" => (EngineKind::Fused, None),
        "reference" => (EngineKind::Reference, None),
        package => (EngineKind::Aot, Some(package.into())),
    };
    let dtype = if dtype == "bf16" { Dtype::Bf16 } else { Dtype::Fp32 };
    curate_train::device::set_threads(threads);
    let mut options = preset("gpt2-124m")?.options(vocab, seq_len, 1 << 40);
    let gpt2 = options.model.clone();
    options.model = ModelConfig {
        layers,
        channels,
        heads,
        kv_heads: heads,
        mlp_hidden: default_mlp_hidden(gpt2.mlp, channels),
        ..gpt2
    };
    let numerics = &mut options.numerics;
    (numerics.engine, numerics.aot, numerics.dtype, numerics.micro_batch) = (kind, package, dtype, rows);
    let model = Model::new(&options.model, dtype, Device::Cpu, 1)?;
    let (rows, seq_len, steps) = (rows as usize, seq_len as usize, steps as usize);
    let mut rng = Rng::new(1, "tokens");
    // Squares of squares of uniform numbers favour small ids, so that there is something to learn.
    let stream: Vec<i32> =
        (0..=steps * rows * seq_len).map(|_| (f64::from(vocab) * rng.uniform().powi(4)) as i32).collect();
    let tokens: Vec<i32> =
        (0..steps * rows).flat_map(|row| &stream[row * seq_len..][..=seq_len]).copied().collect();
    if let [.., weights, file] = &args[..]
        && args.len() == 12
    {
        let tensors: Vec<_> =
            model.parameters().iter().map(|p| (p.name.clone(), p.tensor.detach())).collect();
        Tensor::write_safetensors(&tensors, weights)?;
        std::fs::write(file, tokens.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())?;
        return Ok(());
    }
    let mut engine = engine::of_run(&options, &model)?;
    let mut adamw = AdamW::new(AdamWOptions::default(), model.parameters())?;
    for step in tokens.chunks_exact(rows * (seq_len + 1)) {
        let ids = |shift: usize| {
            let row = |row: &[i32]| row[shift..][..seq_len].iter().map(|&id| id.into()).collect::<Vec<i64>>();
            step.chunks_exact(seq_len + 1).flat_map(row).collect()
        };
        let batch = Batch { rows, seq_len, inputs: ids(0), targets: ids(1), ..Batch::default() };
        let before = cpu_seconds();
        let loss = engine.loss(&model, &batch, u32::try_from(rows)?)?;
        let computed = cpu_seconds();
        let norm = global_norm(&engine.gradients())?;
        engine.step(&model, &mut adamw, 6e-4, clip_scale(norm, 1.0))?;
        let cpu = cpu_seconds() - before;
        let update = cpu_seconds() - computed;
        println!("{{\"loss\": {loss}, \"norm\": {norm}, \"cpu_s\": {cpu:.4}, \"update_s\": {update:.4}}}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// CPU seconds of all threads of this process.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
