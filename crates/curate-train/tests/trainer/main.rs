//! What the trainer promises, tested on small models on the CPU.
//!
//! - `model`: initial loss, causality, gradients, accumulation, for every combination of switches
//! - `learning`: loss falls, one batch is overfitted, the 170-character example, memory stays flat
//! - `compiled`: the step that TorchInductor compiles, against the reference engine
//! - `resuming`: a run that stops, or is killed, and goes on is the run that never stopped, bit for bit
//! - `parallel`: several processes that share every step: equality with one, signals, deaths
//! - `checkpoints`: round trips, damage, options that do not match
//! - `evaluating`: every token scored once, against a plain f64 model
//! - `masking`: documents that share a row, against the same documents apart
//! - `reporting`: settings files, TensorBoard's events, the picture, samples, early stop
//! - `sources`: how much of each source was seen, against targets looked at one by one
//! - `guarding`: updates that are not made, and whose fault it is
//! - `traps`: what tch does wrong by itself
//! - `generating`: the cache against recomputing, seeds
//! - `hf`: models of transformers and GGUF files, both ways, with transformers as the oracle
//! - `embedding`: the mean of the hidden state against each window alone; the stream of ids; the array
//! - `commands`: the program from the outside: messages, exit codes, files

#![allow(clippy::disallowed_methods)] // tests make files as they need them

mod checkpoints;
mod commands;
mod compiled;
mod embedding;
mod evaluating;
mod generating;
mod guarding;
mod hf;
mod learning;
mod masking;
mod model;
mod parallel;
mod reporting;
mod resuming;
mod sources;
mod support;
mod traps;
