//! GPT-2 trained as tch's own `min-gpt` example does: a peer of step_speed (`benches/train/run.py`).
//!
//! ```text
//! tch_min_gpt WEIGHTS TOKENS LAYERS CHANNELS HEADS VOCAB BATCH SEQ_LEN STEPS THREADS
//! ```
//! Autograd, attention of basic operations, `nn::AdamW` with two decay groups and its clipping. One line of JSON a step.

#![allow(clippy::print_stdout, clippy::disallowed_methods)] // an example talks to its caller
#![allow(clippy::assign_op_pattern)] // autograd still needs the old tensor

use std::collections::HashMap;
use std::error::Error;

use tch::nn::{self, OptimizerConfig};
use tch::{Device, Kind, Tensor};

struct Gpt {
    weights: HashMap<String, Tensor>,
    layers: i64,
    heads: i64,
    mask: Tensor,
}

impl Gpt {
    fn get(&self, name: &str) -> &Tensor {
        &self.weights[name]
    }

    fn norm(&self, x: &Tensor, name: &str) -> Tensor {
        let [weight, bias] = ["weight", "bias"].map(|part| self.get(&format!("{name}.{part}")));
        x.layer_norm(weight.size(), Some(weight), Some(bias), 1e-5, false)
    }

    fn linear(&self, x: &Tensor, name: &str) -> Tensor {
        x.linear(self.get(&format!("{name}.weight")), Some(self.get(&format!("{name}.bias"))))
    }

    fn loss(&self, ids: &Tensor, targets: &Tensor) -> Tensor {
        let (b, t) = ids.size2().expect("two dimensions");
        let embedding = self.get("embedding.weight");
        let c = embedding.size()[1];
        let d = c / self.heads;
        let x = Tensor::embedding(embedding, ids, -1, false, false);
        let mut x = x + self.get("position.weight").narrow(0, 0, t);
        for i in 0..self.layers {
            let p = format!("layers.{i}");
            let qkv = self.linear(&self.norm(&x, &format!("{p}.norm1")), &format!("{p}.attention.qkv"));
            let heads: Vec<Tensor> = qkv
                .chunk(3, -1)
                .iter()
                .map(|part| part.view([b, t, self.heads, d]).transpose(1, 2))
                .collect();
            let scores = heads[0].matmul(&heads[1].transpose(-2, -1)) * (1.0 / (d as f64).sqrt());
            let scores = scores.masked_fill(&self.mask.narrow(0, 0, t).narrow(1, 0, t), f64::NEG_INFINITY);
            let y = scores.softmax(-1, Kind::Float).matmul(&heads[2]);
            let y = y.transpose(1, 2).contiguous().view([b, t, c]);
            x = x + self.linear(&y, &format!("{p}.attention.out"));
            let h = self.linear(&self.norm(&x, &format!("{p}.norm2")), &format!("{p}.mlp.up"));
            x = x + self.linear(&h.gelu("tanh"), &format!("{p}.mlp.down"));
        }
        let logits = self.norm(&x, "norm").linear(embedding, None::<Tensor>);
        logits.view([b * t, -1]).cross_entropy_for_logits(&targets.reshape([-1]))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let numbers = args.iter().skip(2).map(|n| n.parse()).collect::<Result<Vec<i64>, _>>()?;
    let [layers, _, heads, vocab, rows, seq_len, steps, threads] = numbers[..] else {
        return Err("two files and eight numbers are needed".into());
    };
    tch::set_num_threads(threads.try_into()?);
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let mut weights = HashMap::new();
    for (name, tensor) in Tensor::read_safetensors(&args[0])? {
        // Rows of padding are ours only.
        let tensor = if name == "embedding.weight" { tensor.narrow(0, 0, vocab) } else { tensor };
        let group = usize::from(tensor.dim() < 2);
        let variable = root.set_group(group).var_copy(&name.replace('.', "|"), &tensor);
        weights.insert(name, variable);
    }
    let mask = Tensor::ones([seq_len, seq_len], (Kind::Bool, Device::Cpu)).triu(1);
    let model = Gpt { weights, layers, heads, mask };
    let mut optimizer =
        nn::AdamW { beta1: 0.9, beta2: 0.95, wd: 0.1, eps: 1e-8, amsgrad: false }.build(&store, 6e-4)?;
    optimizer.set_weight_decay_group(1, 0.0);
    let ids: Vec<i64> = std::fs::read(&args[1])?
        .chunks_exact(4)
        .map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    let ids = Tensor::from_slice(&ids).view([-1, rows, seq_len + 1]);
    for step in 0..steps {
        let before = cpu_seconds();
        let step = ids.get(step);
        let loss = model.loss(&step.narrow(1, 0, seq_len), &step.narrow(1, 1, seq_len));
        optimizer.zero_grad();
        loss.backward();
        optimizer.clip_grad_norm(1.0);
        optimizer.step();
        let loss = loss.double_value(&[]);
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
