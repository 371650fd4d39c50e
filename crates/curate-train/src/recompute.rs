//! Gradients with the memory of one block: blocks keep only their input and are run again for their backward pass
//! (Chen et al. 2016, "Training deep nets with sublinear memory cost").
//!
//! ```text
//! forward, recording nothing:  x0 = embed;  x1 = block 0 (x0);  …                       kept: x0 … xL
//! loss of xL, recorded:        dxL, gradients of norm and head
//! blocks in reverse, recorded: d(xi) and its gradients from sum(block(xi) · d(xi+1))
//! ```
//! The sums are those of the whole graph in the same order, so the gradients are the same numbers.

use tch::Tensor;

use crate::Result;
use crate::model::{Model, Segments};

/// `scale` × the sum of the losses, and its gradient for each parameter in order.
pub(crate) fn loss_and_gradients(
    model: &Model,
    tokens: &Tensor,
    targets: &Tensor,
    segments: Option<&Segments>,
    scale: f64,
) -> Result<(Tensor, Vec<Tensor>)> {
    let layers = model.config().layers as usize;
    let mut gradients = Gradients { model, sums: model.parameters().iter().map(|_| None).collect() };
    let context = model.block_context(tokens, segments)?;
    let inputs = {
        let _no_grad = tch::no_grad_guard();
        let mut inputs = vec![model.embed(tokens, segments)?];
        for layer in 0..layers {
            inputs.push(model.block(layer, &inputs[layer], &context)?);
        }
        inputs
    };
    let last = as_leaf(&inputs[layers])?;
    let loss = model.loss_sum_of(&last, targets)?.f_mul_scalar(scale)?;
    let is_end = |name: &str| name.starts_with("norm.") || name == model.head_name();
    let mut dx = gradients.backward(&loss, Some(&last), is_end)?.expect("asked for");
    drop(last);
    for (layer, input) in inputs[..layers].iter().enumerate().rev() {
        let input = as_leaf(input)?;
        let output = model.block(layer, &input, &context)?.f_mul(&dx)?.f_sum(None)?;
        let prefix = format!("layers.{layer}.");
        let is_own = |name: &str| name.starts_with(&prefix);
        dx = gradients.backward(&output, Some(&input), is_own)?.expect("asked for");
    }
    let output = model.embed(tokens, segments)?.f_mul(&dx)?.f_sum(None)?;
    gradients.backward(&output, None, |name| name == "embedding.weight" || name == "position.weight")?;
    let sums = gradients.sums.into_iter();
    Ok((loss.f_detach()?, sums.map(|sum| sum.expect("every parameter is in one of the stages")).collect()))
}

/// The same values as the beginning of a graph.
fn as_leaf(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_detach()?.f_set_requires_grad(true)?)
}

struct Gradients<'a> {
    model: &'a Model,
    sums: Vec<Option<Tensor>>,
}

impl Gradients<'_> {
    /// Adds the gradients of a scalar for the parameters of one stage; returns that of its input.
    fn backward(
        &mut self,
        scalar: &Tensor,
        input: Option<&Tensor>,
        is_own: impl Fn(&str) -> bool,
    ) -> Result<Option<Tensor>> {
        let parameters = self.model.parameters();
        let own: Vec<usize> = (0..parameters.len()).filter(|&i| is_own(&parameters[i].name)).collect();
        let wanted: Vec<&Tensor> =
            input.into_iter().chain(own.iter().map(|&i| &parameters[i].tensor)).collect();
        let mut found = Tensor::f_run_backward(&[scalar], &wanted, false, false)?;
        let of_input = input.map(|_| found.remove(0));
        for (place, gradient) in own.into_iter().zip(found) {
            match &mut self.sums[place] {
                None => self.sums[place] = Some(gradient),
                // The embedding, where it is the head as well.
                Some(sum) => drop(sum.f_add_(&gradient)?),
            }
        }
        Ok(of_input)
    }
}
