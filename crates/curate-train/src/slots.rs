//! A model's parameters as the fused engines hold them: by their places in the model's list.

use half::bf16;
use tch::{Kind, Tensor};

use crate::Result;
use crate::kernels::{self, elements_mut, floats, floats_mut, in_parallel};
use crate::model::{Model, Parameter};
use crate::optim::{AdamW, Moments};

/// Elements of a pass over weights that a thread works on at once: its arrays stay in the cache of a core.
pub(crate) const PIECE: usize = 1 << 16;

/// A parameter and what belongs to it.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The fp32 weight: another handle on the model's tensor, cut from autograd.
    pub(crate) weight: Tensor,
    /// The weight as bf16, if that is what is computed with.
    pub(crate) shadow: Option<Tensor>,
    pub(crate) grad: Tensor,
    pub(crate) decays: bool,
}

impl Slot {
    /// One for each parameter of a model that computes in `kind`, in its order; gradients are zero.
    pub(crate) fn all_of(model: &Model, kind: Kind) -> Result<Vec<Slot>> {
        let slot = |p: &Parameter| {
            let weight = p.tensor.f_detach()?;
            let shadow = match kind {
                Kind::BFloat16 => Some(weight.f_to_kind(kind)?),
                _ => None,
            };
            Ok(Slot { grad: weight.f_zeros_like()?, weight, shadow, decays: p.decays })
        };
        model.parameters().iter().map(slot).collect()
    }

    /// The weight in the kind that is computed with.
    pub(crate) fn value(&self) -> &Tensor {
        self.shadow.as_ref().unwrap_or(&self.weight)
    }
}

/// One AdamW update in host memory with the slots' gradients times `scale`, of the parameters that have moments.
pub(crate) fn update(slots: &mut [Slot], adamw: &mut AdamW, lr: f64, scale: f64) {
    let _no_grad = tch::no_grad_guard();
    let (numbers, moments) = adamw.begin_update(lr, scale);
    struct Work<'a> {
        w: &'a mut [f32],
        g: &'a [f32],
        m: &'a mut [f32],
        v: &'a mut [f32],
        shadow: Option<&'a mut [bf16]>,
        decays: bool,
    }
    let mut work = Vec::new();
    let mut elements = 0;
    for (slot, Moments { first, second }) in slots.iter_mut().zip(moments) {
        if first.numel() == 0 {
            continue; // another optimiser's
        }
        let Slot { weight, shadow, grad, decays } = slot;
        elements += weight.numel();
        let mut halves = shadow.as_mut().map(|shadow| elements_mut(shadow).chunks_mut(PIECE));
        let pieces = floats_mut(weight).chunks_mut(PIECE).zip(floats(grad).chunks(PIECE));
        let moments = floats_mut(first).chunks_mut(PIECE).zip(floats_mut(second).chunks_mut(PIECE));
        for ((w, g), (m, v)) in pieces.zip(moments) {
            let shadow = halves.as_mut().and_then(Iterator::next);
            work.push(Work { w, g, m, v, shadow, decays: *decays });
        }
    }
    in_parallel(work, elements, |piece| {
        let Work { w, g, m, v, shadow, decays } = piece;
        kernels::adamw(w, g, m, v, shadow, numbers(decays));
    });
}

/// Where the parameters of each part are in the list.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) embedding: usize,
    pub(crate) position: Option<usize>,
    pub(crate) blocks: Vec<BlockNames>,
    pub(crate) norm: Pair,
    /// The embedding's place again, if they are tied.
    pub(crate) head: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockNames {
    pub(crate) norm1: Pair,
    pub(crate) qkv: Pair,
    pub(crate) qk_norm: Option<[Pair; 2]>,
    pub(crate) out: Pair,
    pub(crate) norm2: Pair,
    pub(crate) up: Pair,
    pub(crate) down: Pair,
}

/// A weight and its bias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) weight: usize,
    pub(crate) bias: Option<usize>,
}

impl Names {
    /// Those of a model.
    pub(crate) fn of(model: &Model) -> Names {
        let find = |name: &str| model.parameters().iter().position(|p| p.name == name);
        let one = |name: &str| find(name).expect("every model has it");
        let pair =
            |name: &str| Pair { weight: one(&format!("{name}.weight")), bias: find(&format!("{name}.bias")) };
        let block = |layer: u32| {
            let part = |part: &str| pair(&format!("layers.{layer}.{part}"));
            BlockNames {
                norm1: part("norm1"),
                qkv: part("attention.qkv"),
                qk_norm: model.config().qk_norm.then(|| [part("attention.q_norm"), part("attention.k_norm")]),
                out: part("attention.out"),
                norm2: part("norm2"),
                up: part("mlp.up"),
                down: part("mlp.down"),
            }
        };
        Names {
            embedding: one("embedding.weight"),
            position: find("position.weight"),
            blocks: (0..model.config().layers).map(block).collect(),
            norm: pair("norm"),
            head: find("head.weight").unwrap_or_else(|| one("embedding.weight")),
        }
    }
}
