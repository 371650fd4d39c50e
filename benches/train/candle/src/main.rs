//! GPT-2 trained with candle, in fp32: a peer of step_speed (`benches/train/run.py`).
//!
//! `candle-gpt WEIGHTS TOKENS LAYERS BATCH SEQ_LEN STEPS CHANNELS HEADS` prints one line of JSON a step. Written as candle's own training
//! examples are: tensor operations under its autograd and `candle_nn::AdamW`. LayerNorm is made of basic operations
//! because candle's fused one has no backward pass; there is no clipping, as in those examples.

use std::collections::HashMap;
use std::error::Error;

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss, ops};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Gpt {
    weights: HashMap<String, Var>,
    layers: usize,
    heads: usize,
    mask: Tensor,
}

impl Gpt {
    fn get(&self, name: &str) -> &Tensor {
        self.weights[name].as_tensor()
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
        let x = x.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
        let weight = self.get(&format!("{name}.weight"));
        Ok(x.broadcast_mul(weight)?.broadcast_add(self.get(&format!("{name}.bias")))?)
    }

    /// [N, I] → [N, O]
    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let y = x.matmul(&self.get(&format!("{name}.weight")).t()?)?;
        Ok(y.broadcast_add(self.get(&format!("{name}.bias")))?)
    }

    fn loss(&self, ids: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let embedding = self.get("embedding.weight");
        let c = embedding.dim(1)?;
        let x = embedding.index_select(&ids.flatten_all()?, 0)?.reshape((b, t, c))?;
        let mut x = x.broadcast_add(&self.get("position.weight").narrow(0, 0, t)?)?.reshape((b * t, c))?;
        for i in 0..self.layers {
            let p = format!("layers.{i}");
            let qkv = self.linear(&self.norm(&x, &format!("{p}.norm1"))?, &format!("{p}.attention.qkv"))?;
            let qkv = qkv.reshape((b, t, 3, self.heads, c / self.heads))?;
            let part = |k| -> Result<Tensor> { Ok(qkv.narrow(2, k, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous()?) };
            let (q, k, v) = (part(0)?, part(1)?, part(2)?); // [B, H, T, D]
            let scores = (q.matmul(&k.t()?)? / ((c / self.heads) as f64).sqrt())?;
            let y = ops::softmax(&scores.broadcast_add(&self.mask)?, D::Minus1)?.matmul(&v)?;
            let y = y.transpose(1, 2)?.reshape((b * t, c))?;
            x = (x + self.linear(&y, &format!("{p}.attention.out"))?)?;
            let h = self.linear(&self.norm(&x, &format!("{p}.norm2"))?, &format!("{p}.mlp.up"))?.gelu()?;
            x = (x + self.linear(&h, &format!("{p}.mlp.down"))?)?;
        }
        let logits = self.norm(&x, "norm")?.matmul(&embedding.t()?)?;
        Ok(loss::cross_entropy(&logits, &targets.flatten_all()?)?)
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args[i].parse::<usize>();
    let (layers, rows, seq_len, steps, heads) = (number(2)?, number(3)?, number(4)?, number(5)?, number(7)?);
    let device = Device::Cpu;
    let tensors = candle_core::safetensors::load(&args[0], &device)?;
    let weights = tensors.into_iter().map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor)?)));
    let weights: HashMap<String, Var> = weights.collect::<Result<_>>()?;
    let mask = (0..seq_len * seq_len).map(|i| if i % seq_len > i / seq_len { f32::NEG_INFINITY } else { 0.0 });
    let mask = Tensor::from_vec(mask.collect::<Vec<f32>>(), (seq_len, seq_len), &device)?;
    let model = Gpt { weights, layers, heads, mask };
    let params = ParamsAdamW { lr: 6e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let mut optimizer = AdamW::new(model.weights.values().cloned().collect(), params)?;
    let bytes = std::fs::read(&args[1])?;
    let ids: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    for step in ids.chunks_exact(rows * (seq_len + 1)).take(steps) {
        let step = Tensor::from_slice(step, (rows, seq_len + 1), &device)?.to_dtype(DType::U32)?;
        let before = cpu_seconds();
        let inputs = step.narrow(1, 0, seq_len)?.contiguous()?;
        let loss = model.loss(&inputs, &step.narrow(1, 1, seq_len)?.contiguous()?)?;
        optimizer.backward_step(&loss)?;
        let loss = loss.to_scalar::<f32>()?;
        println!("{{\"loss\": {loss}, \"cpu_s\": {:.4}}}", cpu_seconds() - before);
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
