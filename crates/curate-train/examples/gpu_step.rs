//! Seconds of a training step of GPT-2 on a GPU, to be compared with other trainers (`benches/train/gpu.py`).
//!
//! ```text
//! gpu_step ENGINE DTYPE GRAPHS LAYERS HEADS CHANNELS BATCH SEQ_LEN STEPS [WEIGHTS TOKENS]
//! ```
//! prints one line of JSON a step: loss, gradient norm and wall seconds; the last line has the peak of the device's memory in
//! bytes. A step's seconds run from one loss on the host to the next, so that no work that the device still has is left out.
//! With the last two it first writes the initial weights (safetensors) and the token file (32-bit ids, step by step: BATCH rows of
//! SEQ_LEN + 1) and stops.

#![allow(clippy::print_stdout, clippy::disallowed_methods)] // an example talks to its caller

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use curate_train::config::{CudaGraphs, Dtype, default_mlp_hidden, preset};
use curate_train::cuda;
use curate_train::data::Batch;
use curate_train::device::{self, DeviceChoice};
use curate_train::engine::{self, EngineKind};
use curate_train::model::Model;
use curate_train::optim::{AdamW, clip_scale};
use curate_train::rng::Rng;
use tch::Tensor;

const VOCAB: u32 = 50_304;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(([engine, dtype, graphs], numbers)) = args.split_first_chunk::<3>() else {
        return Err("at least nine arguments are needed".into());
    };
    let Some((numbers, files)) = numbers.split_first_chunk::<6>() else {
        return Err("at least nine arguments are needed".into());
    };
    let numbers = numbers.iter().map(|text| text.parse::<u32>()).collect::<Result<Vec<_>, _>>()?;
    let [layers, heads, channels, rows, seq_len, steps] = numbers[..] else { unreachable!("six numbers") };

    let mut options = preset("gpt2-124m")?.options(VOCAB, seq_len, 1 << 40);
    let model = &mut options.model;
    (model.layers, model.heads, model.kv_heads, model.channels) = (layers, heads, heads, channels);
    model.mlp_hidden = default_mlp_hidden(model.mlp, channels);
    let numerics = &mut options.numerics;
    numerics.engine = if engine == "fused" { EngineKind::Fused } else { EngineKind::Reference };
    numerics.dtype = if dtype == "bf16" { Dtype::Bf16 } else { Dtype::Fp32 };
    numerics.cuda_graphs = match graphs.as_str() {
        "on" => CudaGraphs::On,
        "off" => CudaGraphs::Off,
        _ => CudaGraphs::Auto,
    };
    (numerics.micro_batch, options.data.batch_size) = (rows, rows);

    let choice = if files.is_empty() { DeviceChoice::Cuda(0) } else { DeviceChoice::Cpu };
    let device = device::open(choice)?;
    let model = Model::new(&options.model, options.numerics.dtype, device, 1)?;
    let (rows, seq_len) = (rows as usize, seq_len as usize);
    let mut rng = Rng::new(1, "tokens");
    // Powers of uniform numbers favour small ids, so that there is something to learn.
    let tokens: Vec<i32> = (0..steps as usize * rows * (seq_len + 1))
        .map(|_| (f64::from(VOCAB) * rng.uniform().powi(4)) as i32)
        .collect();
    if let [weights, file] = files {
        let tensors: Vec<_> =
            model.parameters().iter().map(|p| (p.name.clone(), p.tensor.detach())).collect();
        Tensor::write_safetensors(&tensors, weights)?;
        std::fs::write(file, tokens.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())?;
        return Ok(());
    }

    let opening = Instant::now();
    let mut engine = engine::of_run(&options, &model)?;
    let opened = opening.elapsed().as_secs_f64();
    let mut adamw = AdamW::new(options.optimizer.clone(), model.parameters())?;
    let mut last = Instant::now();
    for step in tokens.chunks_exact(rows * (seq_len + 1)) {
        let ids = |shift: usize| {
            let row = |row: &[i32]| row[shift..][..seq_len].iter().map(|&id| id.into()).collect::<Vec<i64>>();
            step.chunks_exact(seq_len + 1).flat_map(row).collect()
        };
        let batch = Batch { rows, seq_len, inputs: ids(0), targets: ids(1), ..Batch::default() };
        let loss = engine.loss(&model, &batch, u32::try_from(rows)?)?;
        let norm = engine.grad_norm()?;
        let seconds = last.elapsed().as_secs_f64();
        last = Instant::now();
        engine.step(&model, &mut adamw, 6e-4, clip_scale(norm, options.optimizer.clip))?;
        println!("{{\"loss\": {loss}, \"norm\": {norm}, \"seconds\": {seconds:.6}}}");
        std::io::stdout().flush()?;
    }
    let peak = cuda::memory(device).map_or(0, |memory| memory.peak);
    println!("{{\"opened_s\": {opened:.3}, \"peak_bytes\": {peak}}}");
    Ok(())
}
