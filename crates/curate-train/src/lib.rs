//! Model, training loop, evaluation and generation: with its shim the only crate that links libtorch.
//!
//! ```text
//! ShardSet ─ BatchPlan(seed, step) ─▶ Batch [B, T] ─▶ Model ─▶ loss ─▶ gradients ─▶ clip ─▶ AdamW, Muon ─▶ checkpoint
//!     └ documents ─▶ windows ─▶ Model ─▶ nats per token, perplexity, bits per byte
//! token ids of documents ─▶ windows ─▶ Model ─▶ mean of the final hidden state
//! ```
//! Engines compute gradients ([`engine`]): *reference*, plain tensor operations under autograd, on CPU and CUDA, and
//! *fused*, a backward pass of our own for the CPU ([`fused`]) and for CUDA ([`cuda`]); a third calls a step that TorchInductor has
//! compiled ([`aot`]). The trainer knows token ids only; text and tokenizers are elsewhere. Everything that a resumed run needs is one value, [`checkpoint::State`] and the
//! tensors beside it, and on a CPU the continued run equals the uninterrupted one bit for bit.
//!
//! All tensor work happens on the thread that calls, and another thread hands over plain token buffers; only [`embed`] has
//! several threads, each with a share of the model.

mod attention;
pub mod checkpoint;
pub mod config;
pub mod curve;
pub mod data;
pub mod device;
pub mod distributed;
pub mod embed;
mod error;
pub mod engine;
pub mod eval;
pub mod aot;
mod slots;
pub mod fused;
pub mod cuda;
pub mod generate;
pub mod gguf;
pub mod guard;
pub mod hf;
mod kernels;
mod log;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod muon;
pub mod npy;
pub mod optim;
mod recompute;
pub mod rng;
pub mod saver;
pub mod scaling;
pub mod sources;
pub mod schedule;
pub mod settings;
pub mod tensorboard;
pub mod train;

pub use error::{Error, Result};
