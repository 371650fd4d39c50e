//! Muon: hidden matrices are moved along the nearest orthogonal matrix to their momentum (Jordan et al. 2024).
//!
//! For each matrix `W` of [rows, columns] with gradient `G`, learning rate `η`, momentum `μ` and weight decay `λ`:
//! ```text
//! M = μ M + (1 - μ) G                        U = μ M + (1 - μ) G          (Nesterov)
//! W = (1 - η λ) W - η · 0.2 · sqrt(max(rows, columns)) · polar(U)
//! ```
//! The factor makes an update as large, root mean square, as AdamW's are in practice (Liu et al. 2025, "Muon is scalable
//! for LLM training"), so one learning rate serves both. `polar(U)` = U (UᵀU)^(-1/2), whose singular values are all 1, comes
//! from five steps of a polynomial in matrix products only (Amsel et al. 2025, "Polar Express"); singular values above a
//! thousandth of the largest end between 0.7 and 1.2, which is all that is needed.
//!
//! Several maps that stand in one matrix (queries, keys and values; gate and up projection) are taken apart, as each
//! has a scale of its own. Embeddings, the output matrix, vectors and learned positions are AdamW's.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Result;
use crate::config::{Mlp, ModelConfig};
use crate::model::{Model, Parameter};

/// What updates the hidden matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW, as all else.
    #[default]
    AdamW,
    /// Muon.
    Muon,
}

/// Settings of Muon. Learning rate and weight decay are those of AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MuonOptions {
    /// Whether it is used.
    pub optimizer: OptimizerKind,
    /// Decay of the mean gradient `M`.
    pub momentum: f64,
}

impl Default for MuonOptions {
    fn default() -> Self {
        MuonOptions { optimizer: OptimizerKind::AdamW, momentum: 0.95 }
    }
}

/// Coefficients (a, b, c) of the steps X ← a X + (b XXᵀ + c (XXᵀ)²) X: Polar Express for five steps with a margin of 2 %,
/// as in modded-nanogpt and nanochat.
const POLAR_EXPRESS: [(f64, f64, f64); 5] = [
    (8.156_554_524_902_461, -22.483_292_925_577_95, 15.878_769_915_207_462),
    (4.042_929_935_166_739, -2.808_917_465_908_714, 0.500_017_845_105_131_6),
    (3.891_667_802_292_660_7, -2.772_484_153_217_685, 0.506_064_817_850_339_3),
    (3.285_753_657_755_655, -2.368_129_493_342_537_6, 0.464_490_242_330_031_06),
    (2.346_541_325_859_637_7, -1.709_782_838_268_708_1, 0.423_235_511_693_053_23),
];

/// Keeps the largest singular value below 1 in spite of rounding; belongs to the coefficients.
const MARGIN: f64 = 1.02;

/// Root mean square of an update in units of the learning rate.
const UPDATE_RMS: f64 = 0.2;

/// Muon with the momentum of its matrices.
#[derive(Debug)]
pub struct Muon {
    momentum: f64,
    weight_decay: f64,
    /// Arithmetic of the matrix products: the model's.
    kind: Kind,
    matrices: Vec<Matrix>,
}

#[derive(Debug)]
struct Matrix {
    /// Its place among the parameters.
    parameter: usize,
    /// `M`.
    momentum: Tensor,
    /// Rows of each of the maps that stand in it.
    parts: Vec<i64>,
}

impl Muon {
    /// For the hidden matrices of a model; no update is made yet.
    pub fn new(options: &MuonOptions, weight_decay: f64, model: &Model) -> Result<Muon> {
        let _no_grad = tch::no_grad_guard();
        let matrix = |(parameter, p): (usize, &Parameter)| {
            let parts = parts(&p.name, p.tensor.size()[0], model.config());
            Ok(Matrix { parameter, momentum: p.tensor.f_zeros_like()?, parts })
        };
        let hidden = model.parameters().iter().enumerate().filter(|(_, p)| is_hidden_matrix(p));
        Ok(Muon {
            momentum: options.momentum,
            weight_decay,
            kind: if model.dtype_name() == "bf16" { Kind::BFloat16 } else { Kind::Float },
            matrices: hidden.map(matrix).collect::<Result<_>>()?,
        })
    }

    /// Places of its matrices among the parameters, ascending.
    pub fn places(&self) -> Vec<usize> {
        self.matrices.iter().map(|matrix| matrix.parameter).collect()
    }

    /// The momentum of each matrix, in the order of [`places`](Self::places).
    pub fn momenta(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        self.matrices.iter().map(|matrix| (matrix.parameter, &matrix.momentum))
    }

    /// One update of its matrices, given the gradients of all parameters, to be multiplied by `scale`.
    pub fn step(
        &mut self,
        parameters: &[Parameter],
        gradients: &[Tensor],
        lr: f64,
        scale: f64,
    ) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let mu = self.momentum;
        for Matrix { parameter, momentum, parts } in &mut self.matrices {
            let gradient = gradients[*parameter].f_mul_scalar((1.0 - mu) * scale)?;
            let _ = momentum.f_mul_scalar_(mu)?.f_add_(&gradient)?;
            let update = momentum.f_mul_scalar(mu)?.f_add(&gradient)?.f_to_kind(self.kind)?;
            let weight = &parameters[*parameter].tensor;
            let _ = weight.shallow_clone().f_mul_scalar_(1.0 - lr * self.weight_decay)?;
            let mut row = 0;
            for &rows in parts.iter() {
                let direction = polar(&update.f_narrow(0, row, rows)?)?;
                let (rows, columns) = direction.size2()?;
                let size = lr * UPDATE_RMS * (rows.max(columns) as f64).sqrt();
                let direction = direction.f_to_kind(weight.kind())?.f_mul_scalar(size)?;
                let _ = weight.f_narrow(0, row, rows)?.f_sub_(&direction)?;
                row += rows;
            }
        }
        Ok(())
    }
}

/// Whether Muon is made for a parameter: a matrix of a block.
pub(crate) fn is_hidden_matrix(parameter: &Parameter) -> bool {
    parameter.name.starts_with("layers.") && parameter.tensor.dim() == 2
}

/// Rows of each map in a matrix of `rows` rows.
fn parts(name: &str, rows: i64, config: &ModelConfig) -> Vec<i64> {
    let [heads, kv_heads, d] = [config.heads, config.kv_heads, config.head_size()].map(i64::from);
    match config.mlp {
        _ if name.ends_with("attention.qkv.weight") => vec![heads * d, kv_heads * d, kv_heads * d],
        Mlp::SwiGlu if name.ends_with("mlp.up.weight") => vec![rows / 2, rows / 2],
        _ => vec![rows],
    }
}

/// The orthogonal matrix that `u` is nearest to, roughly; zero stays zero.
///
/// **Shapes**: [rows, columns] → the same. The products have the smaller side squared.
fn polar(u: &Tensor) -> Result<Tensor> {
    let (rows, columns) = u.size2()?;
    let wide = if rows > columns { u.f_tr()? } else { u.shallow_clone() };
    let norm = wide.f_to_kind(Kind::Float)?.f_norm()?.f_mul_scalar(MARGIN)?.f_add_scalar(1e-30)?;
    let mut x = wide.f_to_kind(Kind::Float)?.f_div(&norm)?.f_to_kind(u.kind())?;
    for (a, b, c) in POLAR_EXPRESS {
        let gram = x.f_mm(&x.f_tr()?)?;
        let factor = gram.f_mul_scalar(b)?.f_add(&gram.f_mm(&gram)?.f_mul_scalar(c)?)?;
        x = x.f_mul_scalar(a)?.f_add(&factor.f_mm(&x)?)?;
    }
    Ok(if rows > columns { x.f_tr()? } else { x })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::config::{Dtype, preset};
    use crate::rng::Rng;

    /// A matrix of f64 by rows.
    type Plain = Vec<Vec<f64>>;

    fn product(a: &Plain, b: &Plain) -> Plain {
        let entry = |row: &[f64], j: usize| row.iter().zip(b).map(|(x, b)| x * b[j]).sum();
        a.iter().map(|row| (0..b[0].len()).map(|j| entry(row, j)).collect()).collect()
    }

    fn transposed(a: &Plain) -> Plain {
        (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
    }

    fn combined(a: f64, x: &Plain, b: f64, y: &Plain) -> Plain {
        x.iter().zip(y).map(|(x, y)| x.iter().zip(y).map(|(x, y)| a * x + b * y).collect()).collect()
    }

    /// The module's text for one map, in f64.
    fn plain_polar(u: &Plain) -> Plain {
        let tall = u.len() > u[0].len();
        let mut x = if tall { transposed(u) } else { u.clone() };
        let norm = x.iter().flatten().map(|x| x * x).sum::<f64>().sqrt() * 1.02 + 1e-30;
        x = combined(1.0 / norm, &x, 0.0, &x);
        for (a, b, c) in POLAR_EXPRESS {
            let gram = product(&x, &transposed(&x));
            let factor = combined(b, &gram, c, &product(&gram, &gram));
            x = combined(a, &x, 1.0, &product(&factor, &x));
        }
        if tall { transposed(&x) } else { x }
    }

    fn plain(tensor: &Tensor) -> Plain {
        let columns = tensor.size()[1] as usize;
        let flat = Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double).reshape([-1])).unwrap();
        flat.chunks_exact(columns).map(<[f64]>::to_vec).collect()
    }

    fn tensor(values: &Plain) -> Tensor {
        let flat: Vec<f64> = values.iter().flatten().copied().collect();
        Tensor::from_slice(&flat).reshape([values.len() as i64, -1]).to_kind(Kind::Float)
    }

    fn random(rows: usize, columns: usize, name: &str) -> Tensor {
        let values = Rng::new(11, name).normal(rows * columns, 0.3);
        Tensor::from_slice(&values).reshape([rows as i64, columns as i64])
    }

    fn llama() -> Model {
        let config = preset("llama-tiny").unwrap().options(27, 12, 100).model;
        let config = ModelConfig { layers: 1, channels: 32, mlp_hidden: 96, ..config };
        Model::new(&config, Dtype::Fp32, Device::Cpu, 1).unwrap()
    }

    #[test]
    fn updates_are_those_of_a_plain_f64_program() {
        let model = llama();
        let options = MuonOptions { optimizer: OptimizerKind::Muon, momentum: 0.9 };
        let mut muon = Muon::new(&options, 0.1, &model).unwrap();
        let names: Vec<&str> = muon.places().iter().map(|&i| model.parameters()[i].name.as_str()).collect();
        assert_eq!(
            names,
            ["attention.qkv", "attention.out", "mlp.up", "mlp.down"].map(|n| format!("layers.0.{n}.weight"))
        );
        let mut weights: Vec<Plain> = model
            .parameters()
            .iter()
            .map(|p| match p.tensor.dim() {
                2 => plain(&p.tensor),
                _ => Vec::new(),
            })
            .collect();
        let mut momenta: Vec<Plain> = weights.iter().map(|w| combined(0.0, w, 0.0, w)).collect();
        for step in 0..3 {
            let (lr, scale) = (0.02 / f64::from(step + 1), 0.5);
            let gradients: Vec<Tensor> = model
                .parameters()
                .iter()
                .enumerate()
                .map(|(i, p)| {
                    let size = p.tensor.size();
                    random(size[0] as usize, *size.get(1).unwrap_or(&1) as usize, &format!("{step} {i}"))
                        .reshape(&size)
                })
                .collect();
            muon.step(model.parameters(), &gradients, lr, scale).unwrap();
            for place in muon.places() {
                let g = plain(&gradients[place]);
                momenta[place] = combined(0.9, &momenta[place], 0.1 * scale, &g);
                let u = combined(0.9, &momenta[place], 0.1 * scale, &g);
                let parts: &[usize] = match names[muon.places().iter().position(|p| *p == place).unwrap()] {
                    "layers.0.attention.qkv.weight" => &[32, 16, 16],
                    "layers.0.mlp.up.weight" => &[96, 96],
                    _ => &[32],
                };
                let mut row = 0;
                for &rows in parts {
                    let o = plain_polar(&u[row..row + rows].to_vec());
                    let size = lr * 0.2 * (rows.max(o[0].len()) as f64).sqrt();
                    for (w, o) in weights[place][row..row + rows].iter_mut().zip(&o) {
                        w.iter_mut().zip(o).for_each(|(w, o)| *w = *w * (1.0 - lr * 0.1) - size * o);
                    }
                    row += rows;
                }
                assert_eq!(row, weights[place].len());
                let found = plain(&model.parameters()[place].tensor);
                let error = found.iter().flatten().zip(weights[place].iter().flatten());
                let error = error.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(error < 2e-6, "step {step}, {place}: off by {error}");
            }
        }
    }

    #[test]
    fn the_result_is_nearly_orthogonal() {
        for (rows, columns) in [(32, 32), (16, 48), (48, 16)] {
            let o = plain(&polar(&random(rows, columns, "polar")).unwrap());
            let o = if rows > columns { transposed(&o) } else { o };
            let gram = tensor(&product(&o, &transposed(&o)));
            let identity = Tensor::eye(gram.size()[0], (Kind::Float, Device::Cpu));
            let error = (&gram - &identity).norm().double_value(&[]) / identity.norm().double_value(&[]);
            assert!(error < 0.25, "{rows} × {columns}: {error}");
        }
        let zero = polar(&Tensor::zeros([4, 3], (Kind::Float, Device::Cpu))).unwrap();
        assert_eq!(zero.abs().sum(Kind::Float).double_value(&[]), 0.0);
    }
}
