//! Exact deduplication in a fixed amount of memory, with a known rate of errors: a Bloom filter of content keys.
//!
//! Nothing is remembered of a document but bits that it shares with others. A document whose bits are all set is taken for a
//! copy; now and then it is not one. What is removed can therefore not name what it is a copy of, and the
//! summary says how many removals are expected to be wrong, and how many of a sample were.

use std::collections::BTreeSet;

use curate_core::{Counters, Document, Dropped, Gate, Mapper, Value, Verdict, Work, content_key};
use probabilistic_collections::SipHasherBuilder;
use probabilistic_collections::bloom::BloomFilter;
use serde::Serialize;

use crate::error::{Error, Result};

/// How large a filter is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BloomOptions {
    /// Different documents that it is made for.
    pub documents: u64,
    /// The share of new documents that a filter with so many in it takes for copies.
    pub false_positive_rate: f64,
}

impl BloomOptions {
    pub fn validate(&self) -> Result<()> {
        match () {
            () if self.documents == 0 => Err(Error::NoDocuments),
            () if !(1e-12..=0.5).contains(&self.false_positive_rate) => {
                Err(Error::FalsePositiveRate { got: self.false_positive_rate })
            }
            () => Ok(()),
        }
    }

    /// Bytes of the filter: 1.44 log2(1 / rate) bits a document.
    pub fn bytes(&self) -> u64 {
        let bits = -self.false_positive_rate.log2() * self.documents as f64 / 2f64.ln();
        (bits / 8.0).ceil() as u64
    }
}

/// What a filter has done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BloomSummary {
    pub options: BloomOptions,
    pub bytes: u64,
    pub documents: u64,
    pub removed: u64,
    /// The share of bits that are set, and the false positive rate that it means for the next document.
    pub fill: f64,
    pub false_positive_rate_now: f64,
    /// Removals that are expected to be wrong: the sum over all new documents of the rate at their time.
    pub expected_false_positives: f64,
    /// One content key in 1,024 is remembered exactly, up to a million of them; of the removals among these, those that were
    /// wrong.
    pub sampled: u64,
    pub sampled_removals: u64,
    pub sampled_false_positives: u64,
}

/// Computes content keys.
#[derive(Debug)]
pub struct BloomMapper;

impl Mapper for BloomMapper {
    type Work = u128;
    type Scratch = ();

    fn map(&self, doc: &mut Document<'_>, _: &mut (), _: &mut Counters) -> Work<u128> {
        Work::Pending(content_key(doc.text()))
    }
}

/// Keeps what its filter has not seen.
#[derive(Debug)]
pub struct BloomGate {
    options: BloomOptions,
    filter: BloomFilter<u128, SipHasherBuilder>,
    bits_set: u64,
    documents: u64,
    removed: u64,
    expected: f64,
    sample: BTreeSet<u128>,
    sampled_removals: u64,
    sampled_false_positives: u64,
}

/// Documents between two counts of the bits that are set.
const STRIDE: u64 = 1 << 16;
const SAMPLE_SHIFT: u32 = 10;
const MAX_SAMPLE: usize = 1 << 20;

impl BloomGate {
    /// Makes the filter, in all of its memory.
    pub fn new(options: BloomOptions) -> Result<Self> {
        options.validate()?;
        let documents = usize::try_from(options.documents).map_err(|_| Error::NoDocuments)?;
        // Fixed seeds: the same filter in every run and on every machine.
        let hashers =
            [SipHasherBuilder::from_seed(0x6375, 0x7261), SipHasherBuilder::from_seed(0x7465, 0x2f31)];
        Ok(Self {
            options,
            filter: BloomFilter::with_hashers(documents, options.false_positive_rate, hashers),
            bits_set: 0,
            documents: 0,
            removed: 0,
            expected: 0.0,
            sample: BTreeSet::new(),
            sampled_removals: 0,
            sampled_false_positives: 0,
        })
    }

    pub fn summary(&self) -> BloomSummary {
        let bits = self.filter.len() as f64;
        let fill = self.filter.count_ones() as f64 / bits;
        BloomSummary {
            options: self.options,
            bytes: self.filter.len().div_ceil(8) as u64,
            documents: self.documents,
            removed: self.removed,
            fill,
            false_positive_rate_now: self.filter.estimated_fpp(),
            expected_false_positives: self.expected,
            sampled: self.sample.len() as u64,
            sampled_removals: self.sampled_removals,
            sampled_false_positives: self.sampled_false_positives,
        }
    }

    /// The chance that a new document is taken for a copy, as of the last count.
    fn rate(&self) -> f64 {
        (self.bits_set as f64 / self.filter.len() as f64).powi(self.filter.hasher_count() as i32)
    }
}

impl Gate for BloomGate {
    type Work = u128;

    fn admit(&mut self, _doc: &mut Document<'_>, key: u128) -> curate_core::Result<Verdict> {
        if self.documents.is_multiple_of(STRIDE) {
            self.bits_set = self.filter.count_ones() as u64;
        }
        self.documents += 1;
        let seen = self.filter.contains(&key);
        let is_sampled = key >> (128 - SAMPLE_SHIFT) == 0;
        if is_sampled {
            let is_new = !self.sample.contains(&key);
            if is_new && self.sample.len() < MAX_SAMPLE {
                self.sample.insert(key);
            }
            self.sampled_removals += u64::from(seen);
            self.sampled_false_positives += u64::from(seen && is_new);
        }
        if seen {
            self.removed += 1;
            let proof = vec![
                ("rule", Value::Text("bloom".to_owned())),
                ("false_positive_rate", Value::Number(self.rate())),
            ];
            return Ok(Verdict::Drop(Dropped { reason: "probable_duplicate".into(), proof }));
        }
        self.filter.insert(&key);
        self.expected += self.rate();
        Ok(Verdict::Keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(documents: u64, false_positive_rate: f64) -> BloomGate {
        BloomGate::new(BloomOptions { documents, false_positive_rate }).unwrap()
    }

    fn is_kept(gate: &mut BloomGate, text: &str) -> bool {
        let mut doc = Document::new(b"", "", "", text);
        let Work::Pending(key) = BloomMapper.map(&mut doc, &mut (), &mut Counters::default()) else {
            panic!("the mapper decides nothing");
        };
        gate.admit(&mut doc, key).unwrap() == Verdict::Keep
    }

    #[test]
    fn copies_go_and_nearly_all_others_stay() {
        let mut gate = gate(20_000, 0.01);
        let kept = (0..20_000).filter(|i| is_kept(&mut gate, &format!("document {i}"))).count();
        assert!((0..20_000).all(|i| !is_kept(&mut gate, &format!("  document\n{i}"))));
        let summary = gate.summary();
        assert_eq!(summary.removed, 40_000 - kept as u64);
        // The expectation of wrong removals is checked against their number.
        let wrong = 20_000.0 - kept as f64;
        assert!(
            wrong < 200.0 && (wrong - summary.expected_false_positives).abs() < 40.0,
            "{wrong} {summary:?}"
        );
        assert!((0.005..0.015).contains(&summary.false_positive_rate_now), "{summary:?}");
        assert!(summary.bytes.abs_diff(gate.options.bytes()) <= 1, "{summary:?}");
    }

    #[test]
    fn a_filter_that_is_too_full_says_so() {
        let mut gate = gate(1000, 0.01);
        let removed = (0..300_000).filter(|i| !is_kept(&mut gate, &format!("document {i}"))).count();
        let summary = gate.summary();
        assert!(removed > 100_000 && summary.false_positive_rate_now > 0.9, "{summary:?}");
        assert!(summary.sampled_false_positives > 50, "{summary:?}");
    }

    #[test]
    fn two_runs_are_alike() {
        let run = || {
            let mut gate = gate(500, 0.2);
            (0..2000).map(|i| is_kept(&mut gate, &format!("document {i}"))).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn options_are_checked() {
        let check = |documents, false_positive_rate| {
            BloomOptions { documents, false_positive_rate }.validate().map_err(|e| e.to_string()).err()
        };
        assert_eq!(check(1, 0.01), None);
        assert_eq!(check(0, 0.01).unwrap(), "a Bloom filter for 0 documents: expected 1 or more");
        assert_eq!(check(1, 0.0).unwrap(), "a false positive rate of 0: expected 1e-12 to 0.5");
        assert!(check(1, f64::NAN).is_some());
    }
}
