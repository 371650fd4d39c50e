//! AdamW with its state in our hands, and clipping by the global norm.
//!
//! tch's optimisers keep their moments inside libtorch, where they can be neither saved nor inspected; a run could
//! not be resumed.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::kernels::{self, AdamWNumbers};
use crate::model::Parameter;

/// Settings of the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWOptions {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of a weight that a step of learning rate 1 would take away; for matrices only.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; larger ones are scaled down. 0 = no limit.
    pub clip: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        AdamWOptions { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 }
    }
}

/// Running means of a parameter's gradient and of its square.
#[derive(Debug)]
pub struct Moments {
    /// Mean of the gradient.
    pub first: Tensor,
    /// Mean of its square.
    pub second: Tensor,
}

impl Moments {
    /// Whether the parameter is another optimiser's.
    pub fn are_empty(&self) -> bool {
        self.first.numel() == 0
    }
}

/// AdamW (Loshchilov, Hutter 2019).
///
/// For update `t` = 1, 2, …, learning rate `η` and gradient `g`, element by element:
/// ```text
/// m = β1 m + (1 - β1) g          v = β2 v + (1 - β2) g²
/// w = (1 - η λ) w - η / (1 - β1^t) · m / (sqrt(v) / sqrt(1 - β2^t) + ε)
/// ```
/// `λ` is the weight decay for parameters that decay, else 0.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    moments: Vec<Moments>,
    updates: u64,
}

impl AdamW {
    /// An optimiser that has made no update.
    pub fn new(options: AdamWOptions, parameters: &[Parameter]) -> Result<AdamW> {
        AdamW::of(options, parameters, |_| true)
    }

    /// An optimiser of those parameters for which `is_own`; the others have empty moments and are left as they are.
    pub fn of(
        options: AdamWOptions,
        parameters: &[Parameter],
        is_own: impl Fn(&Parameter) -> bool,
    ) -> Result<AdamW> {
        let _no_grad = tch::no_grad_guard();
        let zeros = |p: &Parameter| {
            let moment = || match is_own(p) {
                true => p.tensor.f_zeros_like(),
                false => Tensor::f_zeros([0], (Kind::Float, p.tensor.device())),
            };
            Ok(Moments { first: moment()?, second: moment()? })
        };
        let moments = parameters.iter().map(zeros).collect::<Result<_>>()?;
        Ok(AdamW { options, moments, updates: 0 })
    }

    /// Updates made so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The moments, one pair for each parameter, in order.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// Says how many updates the moments have seen, after their values were read from a checkpoint.
    pub fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }

    /// Counts an update and returns its numbers, for parameters that decay or not, and the moments to be changed with
    /// them. Gradients are multiplied by `scale`.
    pub(crate) fn begin_update(
        &mut self,
        lr: f64,
        scale: f64,
    ) -> (impl Fn(bool) -> AdamWNumbers + Sync + use<>, &mut [Moments]) {
        self.updates += 1;
        let AdamWOptions { beta1, beta2, eps, weight_decay, .. } = self.options;
        let t = self.updates as f64;
        let numbers = move |decays| AdamWNumbers {
            scale: scale as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            eps: eps as f32,
            rate: (lr / (1.0 - beta1.powf(t))) as f32,
            inverse_root_bias2: (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32,
            decay: if decays { (1.0 - lr * weight_decay) as f32 } else { 1.0 },
        };
        (numbers, &mut self.moments)
    }

    /// One update of all parameters, given their gradients in order.
    pub fn step(&mut self, parameters: &[Parameter], gradients: &[Tensor], lr: f64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        self.updates += 1;
        let t = self.updates as f64;
        let bias1 = 1.0 - self.options.beta1.powf(t);
        let bias2 = 1.0 - self.options.beta2.powf(t);
        for ((parameter, gradient), moments) in parameters.iter().zip(gradients).zip(&mut self.moments) {
            if moments.are_empty() {
                continue;
            }
            let decay = if parameter.decays { 1.0 - lr * self.options.weight_decay } else { 1.0 };
            let update = Update { options: &self.options, rate: lr / bias1, root_bias2: bias2.sqrt(), decay };
            update.apply(&parameter.tensor, gradient, moments)?;
        }
        Ok(())
    }
}

/// The numbers of one update that are the same for all elements of a parameter.
struct Update<'a> {
    options: &'a AdamWOptions,
    rate: f64,
    root_bias2: f64,
    decay: f64,
}

impl Update<'_> {
    /// On a CPU, by pieces that stay in the cache: the update is ten passes over memory otherwise.
    fn apply(&self, weight: &Tensor, gradient: &Tensor, moments: &Moments) -> Result<()> {
        /// The share of a thread: below this, libtorch does not cut an element-wise operation any further.
        const PIECE: i64 = 1 << 15;
        let length = weight.numel() as i64;
        let threads = i64::from(tch::get_num_threads()).max(2);
        let piece = if weight.device().is_cuda() { length } else { PIECE * threads };
        let flat = |tensor: &Tensor| tensor.f_reshape([-1]);
        let (weight, gradient) = (flat(weight)?, flat(gradient)?);
        let (first, second) = (flat(&moments.first)?, flat(&moments.second)?);
        for start in (0..length).step_by(piece.max(1) as usize) {
            let cut = |tensor: &Tensor| tensor.f_narrow(0, start, piece.min(length - start));
            self.apply_piece(cut(&weight)?, &cut(&gradient)?, cut(&first)?, cut(&second)?)?;
        }
        Ok(())
    }

    fn apply_piece(&self, mut weight: Tensor, gradient: &Tensor, mut m: Tensor, mut v: Tensor) -> Result<()> {
        let AdamWOptions { beta1, beta2, eps, .. } = *self.options;
        let _ = m.f_lerp_(gradient, 1.0 - beta1)?;
        let _ = v.f_mul_scalar_(beta2)?.f_addcmul_(gradient, &gradient.f_mul_scalar(1.0 - beta2)?)?;
        let denominator = v.f_sqrt()?.f_div_scalar_(self.root_bias2)?.f_add_scalar_(eps)?;
        let _ = weight.f_mul_scalar_(self.decay)?.f_addcdiv_(&m.f_mul_scalar(-self.rate)?, &denominator)?;
        Ok(())
    }
}

/// Global L2 norm of the gradients, on the host: this waits for the device.
///
/// On a CPU squares are summed in fp64. libtorch's own norm adds them up in fp32 there, in a few long chains: of 38 million
/// normal numbers it was 2.7e-3 too small. On a GPU its sums are trees, and short.
pub fn global_norm(gradients: &[Tensor]) -> Result<f64> {
    let _no_grad = tch::no_grad_guard();
    let is_ours = |g: &&Tensor| g.device() == Device::Cpu && g.kind() == Kind::Float;
    let (ours, others): (Vec<&Tensor>, Vec<&Tensor>) = gradients.iter().partition(is_ours);
    let mut sum = square_sum(&ours)?;
    if !others.is_empty() {
        let norms = others.iter().map(|gradient| Ok(gradient.f_norm()?)).collect::<Result<Vec<_>>>()?;
        let squares = Tensor::f_stack(&norms, 0)?.f_to_kind(Kind::Double)?.f_square()?;
        sum += squares.f_sum(Kind::Double)?.f_double_value(&[])?;
    }
    Ok(sum.sqrt())
}

/// Sum of the squares of fp32 tensors in host memory, in fp64. The parts that threads share do not depend on how many
/// there are, and are added in their order.
fn square_sum(tensors: &[&Tensor]) -> Result<f64> {
    /// Elements of a part.
    const PART: usize = 1 << 16;
    // Autograd's gradients may be views with strides: those are copied, all others are read in place.
    let tensors = tensors.iter().map(|tensor| Ok(tensor.f_contiguous()?)).collect::<Result<Vec<_>>>()?;
    let parts: Vec<&[f32]> = tensors.iter().flat_map(|tensor| kernels::floats(tensor).chunks(PART)).collect();
    let elements = tensors.iter().map(Tensor::numel).sum();
    let mut sums = vec![0.0; parts.len()];
    let work = parts.into_iter().zip(&mut sums).collect();
    kernels::in_parallel(work, elements, |(part, sum)| *sum = kernels::square_sum(part));
    Ok(sums.iter().sum())
}

/// The factor that brings gradients of this `norm` down to a global norm of `limit`; 1 if they are small enough. A limit
/// of 0 is no limit.
pub fn clip_scale(norm: f64, limit: f64) -> f64 {
    if limit > 0.0 && norm > limit { limit / norm } else { 1.0 }
}

/// Scales gradients.
pub fn scale(gradients: &mut [Tensor], factor: f64) -> Result<()> {
    if factor != 1.0 {
        let _no_grad = tch::no_grad_guard();
        for gradient in gradients {
            let _ = gradient.f_mul_scalar_(factor)?;
        }
    }
    Ok(())
}

/// Scales the gradients down to a global norm of `limit` if their `norm` is larger. A limit of 0 is no limit.
pub fn clip(gradients: &mut [Tensor], norm: f64, limit: f64) -> Result<()> {
    scale(gradients, clip_scale(norm, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The formula of the documentation for one number, in f64.
    struct Scalar {
        w: f64,
        m: f64,
        v: f64,
    }

    impl Scalar {
        fn step(&mut self, g: f64, lr: f64, t: i32, decay: f64, o: &AdamWOptions) {
            self.m = o.beta1 * self.m + (1.0 - o.beta1) * g;
            self.v = o.beta2 * self.v + (1.0 - o.beta2) * g * g;
            let (m, v) = (self.m / (1.0 - o.beta1.powi(t)), self.v / (1.0 - o.beta2.powi(t)));
            self.w = self.w * (1.0 - lr * decay) - lr * m / (v.sqrt() + o.eps);
        }
    }

    fn parameter(values: &[f32], shape: &[i64], decays: bool) -> Parameter {
        let tensor = Tensor::from_slice(values).reshape(shape).set_requires_grad(true);
        Parameter { name: "w".into(), tensor, decays }
    }

    /// Long enough for several pieces and a remainder.
    const LENGTH: usize = (1 << 16) * 2 + 17;

    #[test]
    fn equals_the_scalar_formula() {
        let mut rng = Rng::new(3, "adamw");
        for decays in [true, false] {
            let start = rng.normal(LENGTH, 1.0);
            let parameters = [parameter(&start, &[LENGTH as i64], decays)];
            let options = AdamWOptions::default();
            let mut adamw = AdamW::new(options.clone(), &parameters).unwrap();
            let mut reference: Vec<Scalar> =
                start.iter().map(|&w| Scalar { w: w.into(), m: 0.0, v: 0.0 }).collect();
            for t in 1..=5 {
                let gradient = rng.normal(LENGTH, 0.1);
                let lr = 0.01 / f64::from(t);
                adamw.step(&parameters, &[Tensor::from_slice(&gradient)], lr).unwrap();
                let decay = if decays { options.weight_decay } else { 0.0 };
                for (scalar, &g) in reference.iter_mut().zip(&gradient) {
                    scalar.step(g.into(), lr, t, decay, &options);
                }
            }
            let ours = Vec::<f32>::try_from(parameters[0].tensor.detach()).unwrap();
            for (i, (&ours, reference)) in ours.iter().zip(&reference).enumerate() {
                assert!((f64::from(ours) - reference.w).abs() < 2e-6, "{i}: {ours} against {}", reference.w);
            }
            assert_eq!(adamw.updates(), 5);
        }
    }

    #[test]
    fn the_norm_is_that_of_fp64() {
        let options = (Kind::Float, Device::Cpu);
        tch::manual_seed(5);
        let large = Tensor::randn([8192, 1024], options) * 1e-3 + 1e-4;
        let small = Tensor::randn([7, 33], options);
        let check = |gradients: &[Tensor], limit: f64| {
            let squares = |g: &Tensor| g.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
            let expected = gradients.iter().map(squares).sum::<f64>().sqrt();
            let norm = global_norm(gradients).unwrap();
            assert!((norm - expected).abs() <= limit * expected, "{norm} against {expected}");
        };
        check(&[], 0.0);
        check(std::slice::from_ref(&large), 1e-12);
        check(
            &[small.shallow_clone(), large.tr(), large.narrow(1, 3, 900), Tensor::zeros([0], options)],
            1e-12,
        );
        check(&[small.to_kind(Kind::Double), large.narrow(0, 0, 10)], 1e-12);
        check(&[large.to_kind(Kind::BFloat16), large], 1e-2);
    }

    #[test]
    fn clipping_keeps_small_gradients_and_scales_large_ones() {
        let check = |limit: f64, expected: [f32; 3]| {
            let mut gradients = [Tensor::from_slice(&[3f32]), Tensor::from_slice(&[0f32, 4.0])];
            let norm = global_norm(&gradients).unwrap();
            assert_eq!(norm, 5.0);
            clip(&mut gradients, norm, limit).unwrap();
            let values = Vec::<f32>::try_from(Tensor::cat(&gradients, 0)).unwrap();
            assert_eq!(values, expected);
        };
        check(1.0, [0.6, 0.0, 0.8]);
        check(5.0, [3.0, 0.0, 4.0]);
        check(0.0, [3.0, 0.0, 4.0]);
    }
}
