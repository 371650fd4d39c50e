//! Updates that are not made: the batch's loss or gradient is no number, or lies far above those of the steps before.
//!
//! A loss or gradient norm `x` is a spike if it exceeds the mean of the last [`WINDOW`] steps by more than `spike_sigma` of
//! their standard deviations, as in OLMo-core and llm.c. The step counts, the learning rate moves on, the weights and the
//! optimiser stay. Values of skipped steps enter the window too, so that a lasting change of level is soon the new normal.
//! What was skipped is told with the documents of the batch, the worst first.

use std::collections::VecDeque;

use curate_shards::{ShardSet, View};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::Result;
use crate::data::Batch;
use crate::model::{IGNORE, MicroBatch, Model};

/// Steps that a value is compared with.
pub const WINDOW: usize = 128;

/// Steps that must have been seen before anything is called a spike: half the window, as in OLMo-core.
const ENOUGH: usize = WINDOW / 2;

/// So many skipped steps one after the other mean that the model is broken, not the data.
pub const MOST_IN_A_ROW: u32 = 10;

/// Documents that are named at most.
const MOST_DOCUMENTS: usize = 20;

/// Settings of the guard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GuardOptions {
    /// Standard deviations above the mean from which on an update is not made; 0 = only what is no number is refused,
    /// and ends the run.
    pub spike_sigma: f64,
}

/// What the guard has seen; part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    losses: VecDeque<f64>,
    norms: VecDeque<f64>,
    /// Updates that were not made since the start of the run.
    pub skipped: u64,
    in_a_row: u32,
}

/// Why an update is not made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// Which number: `loss` or `gradient norm`.
    pub quantity: String,
    /// Its value; absent if it is infinite or no number.
    pub value: Option<f64>,
    /// Mean of the steps before.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
}

impl Guard {
    /// Judges a step before its update: why it should not be made, if so.
    pub fn judge(&mut self, options: &GuardOptions, loss: f64, grad_norm: f64) -> Option<Cause> {
        let cause = spike(&self.losses, "loss", loss, options.spike_sigma)
            .or_else(|| spike(&self.norms, "gradient norm", grad_norm, options.spike_sigma));
        for (window, value) in [(&mut self.losses, loss), (&mut self.norms, grad_norm)] {
            if value.is_finite() {
                window.push_back(value);
                if window.len() > WINDOW {
                    window.pop_front();
                }
            }
        }
        match cause {
            None => self.in_a_row = 0,
            Some(_) => (self.skipped, self.in_a_row) = (self.skipped + 1, self.in_a_row + 1),
        }
        cause
    }

    /// Whether skipping helps no more.
    pub fn gives_up(&self) -> bool {
        self.in_a_row >= MOST_IN_A_ROW
    }
}

fn spike(window: &VecDeque<f64>, quantity: &str, value: f64, sigma: f64) -> Option<Cause> {
    let n = window.len().max(1) as f64;
    let mean = window.iter().sum::<f64>() / n;
    let deviation = (window.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let is_far = sigma > 0.0 && window.len() >= ENOUGH && value - mean > sigma * deviation;
    let finite = value.is_finite().then_some(value);
    (finite.is_none() || is_far).then(|| Cause {
        quantity: quantity.to_owned(),
        value: finite,
        mean,
        deviation,
    })
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value {
            None => write!(f, "{} is no finite number", self.quantity),
            Some(value) => {
                let sigmas = (value - self.mean) / self.deviation;
                write!(
                    f,
                    "{} {value:.4}, {sigmas:.1} standard deviations above {:.4}",
                    self.quantity, self.mean
                )
            }
        }
    }
}

/// A document, or a part of one, in a batch whose update was not made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its number in the split.
    pub document: u64,
    /// The files of its shard, without their ending.
    pub shard: String,
    /// Its domain.
    pub domain: String,
    /// The row of the view that it is in.
    pub row: u64,
    /// Its targets in the batch.
    pub targets: u64,
    /// Mean loss of these; absent if it is infinite or no number.
    pub nats_per_token: Option<f64>,
}

impl std::fmt::Display for Suspect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let loss = self.nats_per_token.map_or("no number".to_owned(), |nats| format!("{nats:.3} nats"));
        write!(f, "document {} ({}, {}): {loss}", self.document, self.shard, self.domain)
    }
}

/// The documents of a batch, those that the model foretells worst first, and how many there are in all. Costs a forward
/// pass.
pub fn suspects(
    model: &Model,
    shards: &ShardSet,
    view: &View,
    split: &str,
    batch: &Batch,
    micro_batch: u32,
) -> Result<(Vec<Suspect>, u64)> {
    let split = shards.split(split)?;
    let losses = losses(model, batch, micro_batch)?;
    let mut suspects = Vec::new();
    for (i, &row) in batch.row_numbers.iter().enumerate() {
        let in_row = i * batch.seq_len..(i + 1) * batch.seq_len;
        let (losses, targets) = (&losses[in_row.clone()], &batch.targets[in_row]);
        let mut at = 0;
        for run in view.runs(row)? {
            // Token `at` of the row is the target of input `at` - 1.
            let end = at + run.length as usize;
            let scored = (at.max(1) - 1..end.max(1) - 1).filter(|&input| targets[input] != IGNORE);
            let (targets, nats) =
                scored.fold((0, 0.0), |(n, sum), input| (n + 1, sum + f64::from(losses[input])));
            let nats_per_token = Some(nats / targets.max(1) as f64).filter(|nats| nats.is_finite());
            suspects.push(Suspect {
                document: run.document,
                shard: shard_of(shards, split.name(), run.document),
                domain: domain_of(shards, split.try_document(run.document)?.domain),
                row,
                targets,
                nats_per_token,
            });
            at = end;
        }
    }
    let all = suspects.len() as u64;
    let badness = |suspect: &Suspect| suspect.nats_per_token.unwrap_or(f64::INFINITY);
    suspects.sort_by(|a, b| badness(b).total_cmp(&badness(a)));
    suspects.truncate(MOST_DOCUMENTS);
    Ok((suspects, all))
}

/// The loss of each target of a batch in nats, 0 where there is none.
fn losses(model: &Model, batch: &Batch, micro_batch: u32) -> Result<Vec<f32>> {
    let _no_grad = tch::no_grad_guard();
    let mut losses = Vec::with_capacity(batch.targets.len());
    for piece in MicroBatch::all_of(batch, micro_batch, model.device()) {
        let MicroBatch { inputs, targets, segments } = piece?;
        let part = model.token_losses_in(&inputs, &targets, segments.as_ref())?;
        losses.extend(Vec::<f32>::try_from(part.f_to_device(Device::Cpu)?)?); // waits for the device
    }
    Ok(losses)
}

fn shard_of(shards: &ShardSet, split: &str, document: u64) -> String {
    let split = shards.manifest().splits.iter().find(|entry| entry.name == split);
    let mut end = 0;
    let holds = |shard: &&curate_shards::ShardManifest| {
        end += shard.documents;
        document < end
    };
    split.and_then(|split| split.shards.iter().find(holds)).map_or(String::new(), |shard| shard.file.clone())
}

fn domain_of(shards: &ShardSet, domain: u16) -> String {
    shards.manifest().domains.get(usize::from(domain)).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a guard and returns the steps that were skipped.
    fn skipped(sigma: f64, losses: impl IntoIterator<Item = f64>) -> (Guard, Vec<usize>) {
        let (mut guard, options) = (Guard::default(), GuardOptions { spike_sigma: sigma });
        let judged = losses.into_iter().enumerate();
        let skipped = judged.filter_map(|(i, loss)| guard.judge(&options, loss, 1.0).map(|_| i)).collect();
        (guard, skipped)
    }

    /// Values around 3 with a standard deviation of about 0.1.
    fn noisy(i: usize) -> f64 {
        3.0 + 0.14 * ((i as f64 * 0.7).sin())
    }

    #[test]
    fn spikes_are_skipped_once_enough_was_seen() {
        let with_spike =
            |at: usize, height: f64| (0..200).map(move |i| if i == at { height } else { noisy(i) });
        assert_eq!(skipped(6.0, with_spike(100, 4.0)).1, [100]);
        assert_eq!(skipped(6.0, with_spike(100, 3.3)).1, [0usize; 0]);
        assert_eq!(skipped(6.0, with_spike(10, 9.0)).1, [0usize; 0], "too early to say");
        assert_eq!(skipped(0.0, with_spike(100, 9.0)).1, [0usize; 0]);
        assert_eq!(skipped(6.0, with_spike(100, -9.0)).1, [0usize; 0], "a good batch is no spike");
    }

    #[test]
    fn a_lasting_change_of_level_becomes_normal() {
        let (_, skipped) = skipped(6.0, (0..400).map(|i| if i < 200 { noisy(i) } else { noisy(i) + 2.0 }));
        assert!(!skipped.is_empty() && skipped.iter().all(|i| (200..260).contains(i)), "{skipped:?}");
    }

    #[test]
    fn what_is_no_number_is_always_refused_and_leaves_no_trace() {
        let (guard, found) = skipped(0.0, [1.0, f64::NAN, 2.0, f64::INFINITY]);
        assert_eq!(found, [1, 3]);
        assert_eq!((guard.skipped, guard.losses.len()), (2, 2));
        let (guard, _) = skipped(6.0, [f64::NAN; MOST_IN_A_ROW as usize]);
        assert!(guard.gives_up());
        let (guard, _) = skipped(6.0, [f64::NAN, f64::NAN, 1.0, f64::NAN]);
        assert!(!guard.gives_up());
        let again: Guard = serde_json::from_str(&serde_json::to_string(&guard).unwrap()).unwrap();
        assert_eq!(again, guard);
    }

    #[test]
    fn the_gradient_is_watched_too() {
        let (mut guard, options) = (Guard::default(), GuardOptions { spike_sigma: 6.0 });
        for i in 0..100 {
            assert_eq!(guard.judge(&options, 3.0, noisy(i)), None);
        }
        let cause = guard.judge(&options, 3.0, 9.0).unwrap();
        assert!(cause.to_string().starts_with("gradient norm 9.0000, "), "{cause}");
    }
}
