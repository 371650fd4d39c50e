//! Sampling text, token by token.

use tch::{Device, Tensor};

use crate::model::{KvCache, Model};
use crate::rng::Rng;
use crate::{Error, Result};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits: below 1 sharper, above 1 flatter; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Only the `top_k` likeliest tokens may be chosen; 0 = all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability may be chosen; 1 = all.
    pub top_p: f64,
}

impl Sampling {
    /// Checks the ranges.
    pub fn check(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::option(
                "--temperature",
                format!("must be 0 or more, is {}", self.temperature),
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::option(
                "--top-p",
                format!("must be above 0 and at most 1, is {}", self.top_p),
            ));
        }
        Ok(())
    }

    /// Chooses a token. Among equals the one with the smaller id comes first, so the choice depends on nothing but
    /// the arguments.
    fn choose(&self, logits: &[f32], rng: &mut Rng) -> u32 {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        if self.temperature == 0.0 || self.top_k == 1 {
            return order[0];
        }
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let largest = f64::from(logits[order[0] as usize]);
        let weight = |&id: &u32| ((f64::from(logits[id as usize]) - largest) / self.temperature).exp();
        let mut weights: Vec<f64> = order.iter().map(weight).collect();
        let enough = self.top_p * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let reaches = |weight: &f64| {
            sum += weight;
            sum >= enough
        };
        let kept = weights.iter().position(reaches).map_or(weights.len(), |last| last + 1);
        weights.truncate(kept);
        let mut left = rng.uniform() * weights.iter().sum::<f64>();
        for (id, weight) in order.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return *id;
            }
        }
        order[kept - 1] // rounding may leave a crumb
    }
}

/// A text that grows: the prompt, then what the model adds.
///
/// The model sees at most its context. When a text outgrows it, all but the later half of the context is forgotten
/// and the rest is read anew, so the cost of a token stays bounded.
#[derive(Debug)]
pub struct Generator<'a> {
    model: &'a Model,
    sampling: Sampling,
    rng: Rng,
    /// `None` reads all visible tokens again for each new one: slow, and what the cache is compared with.
    cache: Option<KvCache>,
    tokens: Vec<i64>,
    /// First token that the model sees.
    start: usize,
}

impl<'a> Generator<'a> {
    /// A text that begins with `eod` and the prompt. In training every document follows an end-of-document id, so
    /// that an empty prompt makes the model begin one.
    pub fn new(
        model: &'a Model,
        eod: u32,
        prompt: &[u32],
        sampling: Sampling,
        rng: Rng,
    ) -> Result<Generator<'a>> {
        sampling.check()?;
        let vocab_size = model.config().vocab_size;
        if let Some(id) = prompt.iter().find(|id| **id >= vocab_size) {
            let problem = format!("id {id} is outside the vocabulary of {vocab_size}");
            return Err(Error::option("--prompt-ids", problem));
        }
        let tokens = std::iter::once(eod).chain(prompt.iter().copied()).map(i64::from).collect();
        Ok(Generator { model, sampling, rng, cache: Some(model.new_cache(1)?), tokens, start: 0 })
    }

    /// Does without the key-value cache.
    pub fn without_cache(mut self) -> Self {
        self.cache = None;
        self
    }

    /// Adds a token and returns it.
    pub fn next_token(&mut self) -> Result<u32> {
        let logits = self.next_logits()?;
        let id = self.sampling.choose(&logits, &mut self.rng);
        self.tokens.push(i64::from(id));
        Ok(id)
    }

    /// Logits of the token that comes next.
    fn next_logits(&mut self) -> Result<Vec<f32>> {
        let _no_grad = tch::no_grad_guard();
        let context = self.model.config().context as usize;
        if self.tokens.len() - self.start > context {
            self.start = self.tokens.len() - (context / 2).max(1);
            if let Some(cache) = &mut self.cache {
                cache.clear();
            }
        }
        let seen = self.cache.as_ref().map_or(0, KvCache::len);
        let fresh = &self.tokens[self.start + seen..];
        let input = Tensor::f_from_slice(fresh)?.f_unsqueeze(0)?.f_to_device(self.model.device())?;
        let logits = match &mut self.cache {
            Some(cache) => self.model.next_logits(&input, cache)?,
            None => self.model.logits(&input)?.f_select(1, fresh.len() as i64 - 1)?,
        };
        Ok(Vec::try_from(logits.f_squeeze_dim(0)?.f_to_device(Device::Cpu)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut rng = Rng::new(5, "sampling");
        let mut counts = vec![0.0; logits.len()];
        (0..20_000).for_each(|_| counts[sampling.choose(logits, &mut rng) as usize] += 1.0 / 20_000.0);
        counts
    }

    fn check(temperature: f64, top_k: usize, top_p: f64, expected: [f64; 4]) {
        let logits = [0.1f32.ln(), 0.4f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let found = shares(Sampling { temperature, top_k, top_p }, &logits);
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.015);
        assert!(
            close,
            "temperature {temperature}, top-k {top_k}, top-p {top_p}: {found:?}, expected {expected:?}"
        );
    }

    #[test]
    fn shares_follow_the_probabilities() {
        check(1.0, 0, 1.0, [0.1, 0.4, 0.3, 0.2]);
        check(0.5, 0, 1.0, [1.0 / 30.0, 16.0 / 30.0, 9.0 / 30.0, 4.0 / 30.0]);
        check(0.0, 0, 1.0, [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        check(1.0, 2, 1.0, [0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
        check(1.0, 0, 0.65, [0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
        check(1.0, 0, 0.75, [0.0, 4.0 / 9.0, 3.0 / 9.0, 2.0 / 9.0]);
        check(1.0, 1, 1.0, [0.0, 1.0, 0.0, 0.0]);
        check(1.0, 99, 1e-9, [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn ranges_are_checked() {
        let check = |temperature, top_p| Sampling { temperature, top_k: 0, top_p }.check().is_ok();
        assert!(check(0.0, 1.0));
        assert!(!check(-1.0, 1.0) && !check(f64::NAN, 1.0) && !check(1.0, 0.0) && !check(1.0, 1.1));
    }
}
