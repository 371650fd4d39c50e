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
    /// Only tokens with at least this share of the likeliest one's probability may be chosen; 0 = all (Nguyen et al. 2024).
    pub min_p: f64,
    /// Divides the positive logits of tokens that the text has already, and multiplies the negative ones; 1 = none
    /// (Keskar et al. 2019).
    pub repetition_penalty: f64,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }
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
        if !(self.min_p >= 0.0 && self.min_p <= 1.0) {
            return Err(Error::option("--min-p", format!("must lie between 0 and 1, is {}", self.min_p)));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            let problem = format!("must be above 0, is {}", self.repetition_penalty);
            return Err(Error::option("--repetition-penalty", problem));
        }
        Ok(())
    }

    /// Lowers the logits of tokens that `text` has, each once.
    fn penalize(&self, logits: &mut [f32], text: &[i64]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let seen: std::collections::BTreeSet<i64> = text.iter().copied().collect();
        let penalty = self.repetition_penalty as f32;
        for id in seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
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
        let least = self.min_p * weights[0];
        let kept = weights[..kept].iter().take_while(|&&weight| weight >= least).count().max(1);
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
        let tokens = beginning(model, eod, prompt)?;
        Ok(Generator { model, sampling, rng, cache: Some(model.new_cache(1)?), tokens, start: 0 })
    }

    /// Does without the key-value cache.
    pub fn without_cache(mut self) -> Self {
        self.cache = None;
        self
    }

    /// Adds a token and returns it.
    pub fn next_token(&mut self) -> Result<u32> {
        let mut logits = self.next_logits()?;
        self.sampling.penalize(&mut logits, &self.tokens);
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

/// The end-of-document id and the prompt.
fn beginning(model: &Model, eod: u32, prompt: &[u32]) -> Result<Vec<i64>> {
    let vocab_size = model.config().vocab_size;
    if let Some(id) = prompt.iter().find(|id| **id >= vocab_size) {
        let problem = format!("id {id} is outside the vocabulary of {vocab_size}");
        return Err(Error::option("--prompt-ids", problem));
    }
    Ok(std::iter::once(eod).chain(prompt.iter().copied()).map(i64::from).collect())
}

/// Several texts that grow together, each as a [`Generator`]'s would, but for rounding.
///
/// A text that is done leaves its slot to another: texts of unequal length share the batch, each with its own part of
/// the cache.
#[derive(Debug)]
pub struct Batch<'a> {
    model: &'a Model,
    sampling: Sampling,
    cache: KvCache,
    slots: Vec<Option<Slot>>,
}

#[derive(Debug)]
struct Slot {
    tokens: Vec<i64>,
    rng: Rng,
    /// First token that the model sees.
    start: usize,
    /// Tokens from there on that are in the cache.
    cached: usize,
}

impl<'a> Batch<'a> {
    /// An empty batch of so many slots.
    pub fn new(model: &'a Model, slots: usize, sampling: Sampling) -> Result<Batch<'a>> {
        sampling.check()?;
        Ok(Batch {
            model,
            sampling,
            cache: model.new_rows(slots)?,
            slots: (0..slots).map(|_| None).collect(),
        })
    }

    /// Begins a text in a slot, in place of the one there.
    pub fn begin(&mut self, slot: usize, eod: u32, prompt: &[u32], rng: Rng) -> Result<()> {
        let tokens = beginning(self.model, eod, prompt)?;
        self.slots[slot] = Some(Slot { tokens, rng, start: 0, cached: 0 });
        Ok(())
    }

    /// Ends the text in a slot.
    pub fn end(&mut self, slot: usize) {
        self.slots[slot] = None;
    }

    /// Adds a token to every text: (slot, token) in the order of the slots.
    pub fn step(&mut self) -> Result<Vec<(usize, u32)>> {
        let _no_grad = tch::no_grad_guard();
        let logits = self.logits()?;
        let mut chosen = Vec::new();
        for ((number, slot), logits) in self.slots.iter_mut().enumerate().zip(logits) {
            if let (Some(slot), Some(mut logits)) = (slot, logits) {
                self.sampling.penalize(&mut logits, &slot.tokens);
                let id = self.sampling.choose(&logits, &mut slot.rng);
                slot.tokens.push(i64::from(id));
                chosen.push((number, id));
            }
        }
        Ok(chosen)
    }

    /// Logits of the token that comes next in each slot: new texts and those that outgrew the context are read alone, the
    /// others go on together.
    fn logits(&mut self) -> Result<Vec<Option<Vec<f32>>>> {
        let context = self.model.config().context as usize;
        let mut out: Vec<Option<Vec<f32>>> = self.slots.iter().map(|_| None).collect();
        let mut next = vec![None; self.slots.len()];
        let host =
            |logits: Tensor| -> Result<Vec<f32>> { Ok(Vec::try_from(logits.f_to_device(Device::Cpu)?)?) };
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            if slot.tokens.len() - slot.start > context {
                (slot.start, slot.cached) = (slot.tokens.len() - (context / 2).max(1), 0);
            }
            if slot.cached == 0 {
                let input = Tensor::f_from_slice(&slot.tokens[slot.start..])?.f_unsqueeze(0)?;
                let input = input.f_to_device(self.model.device())?;
                out[number] = Some(host(self.model.read_row(&input, &mut self.cache, number)?)?);
            } else {
                next[number] = slot.tokens.last().copied();
            }
            slot.cached = slot.tokens.len() - slot.start;
        }
        if next.iter().any(Option::is_some) {
            self.cache.clear_rows(&self.slots.iter().map(Option::is_none).collect::<Vec<_>>());
            let logits = self.model.next_logits_of_rows(&next, &mut self.cache)?;
            // A text that has just been read is not moved on; its own logits stand.
            for number in (0..next.len()).filter(|&number| next[number].is_some()) {
                out[number] = Some(host(logits.f_get(number as i64)?)?);
            }
        }
        Ok(out)
    }
}

/// Ends a text at the first of several strings, and holds back what may be the beginning of one.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<Vec<u8>>,
    held: Vec<u8>,
}

impl StopStrings {
    /// Empty strings are left out.
    pub fn new(stops: &[String]) -> StopStrings {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).map(|stop| stop.clone().into_bytes());
        StopStrings { stops: stops.collect(), held: Vec::new() }
    }

    /// Adds bytes to the text; appends to `out` what is certain to belong to it. True if the text ends here.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        self.held.extend_from_slice(bytes);
        let held = &self.held;
        let first = (0..held.len()).find(|&at| self.stops.iter().any(|stop| held[at..].starts_with(stop)));
        if let Some(at) = first {
            out.extend_from_slice(&self.held[..at]);
            self.held.clear();
            return true;
        }
        let may_begin = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&held[*at..]));
        let safe = (0..held.len()).find(may_begin).unwrap_or(held.len());
        out.extend(self.held.drain(..safe));
        false
    }

    /// What is held back when the text ends by itself.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
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
        let found = shares(Sampling { temperature, top_k, top_p, ..Sampling::default() }, &logits);
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
    fn min_p_asks_for_a_share_of_the_likeliest() {
        let logits = [0.1f32.ln(), 0.4f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let found = shares(Sampling { min_p: 0.6, ..Sampling::default() }, &logits);
        assert!(found[0] == 0.0 && found[3] == 0.0 && (found[1] - 4.0 / 7.0).abs() < 0.015, "{found:?}");
    }

    #[test]
    fn repeated_tokens_are_penalised_once() {
        let mut logits = [2.0, -2.0, 3.0];
        Sampling { repetition_penalty: 2.0, ..Sampling::default() }.penalize(&mut logits, &[0, 0, 1, 9]);
        assert_eq!(logits, [1.0, -4.0, 3.0]);
    }

    #[test]
    fn a_text_ends_before_its_stop_string() {
        let check = |stops: &[&str], pieces: &[&str], expected: &str, ended: bool| {
            let mut filter = StopStrings::new(&stops.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
            let mut out = Vec::new();
            let found = pieces.iter().any(|piece| filter.push(piece.as_bytes(), &mut out));
            if !found {
                filter.finish(&mut out);
            }
            assert_eq!(
                (String::from_utf8(out).unwrap().as_str(), found),
                (expected, ended),
                "{stops:?} {pieces:?}"
            );
        };
        check(&[], &["a", "b"], "ab", false);
        check(&["\n\n"], &["a\n", "b", "\n", "\nc"], "a\nb", true);
        check(&["end", "n"], &["be", "end"], "be", true);
        check(&["aab"], &["a", "a", "a", "b"], "a", true);
        check(&["aab"], &["aa"], "aa", false);
        check(&[""], &["x"], "x", false);
    }

    #[test]
    fn ranges_are_checked() {
        let check =
            |temperature, top_p| Sampling { temperature, top_p, ..Sampling::default() }.check().is_ok();
        assert!(check(0.0, 1.0));
        assert!(!check(-1.0, 1.0) && !check(f64::NAN, 1.0) && !check(1.0, 0.0) && !check(1.0, 1.1));
    }
}
