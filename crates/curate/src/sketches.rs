//! Estimates in bounded memory: lengths, distinct items, frequent items.
//!
//! All of them give the same answer for the same items: the hash functions have fixed keys.

use std::collections::{BTreeSet, HashMap};

use probabilistic_collections::SipHasherBuilder;
use probabilistic_collections::count_min_sketch::{CountMinSketch, CountMinStrategy};
use probabilistic_collections::hyperloglog::HyperLogLog;

/// Keys of the hash functions: the digits of pi and of e.
const KEYS: [(u64, u64); 2] =
    [(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344), (0xb7e1_5162_8aed_2a6a, 0xbf71_5880_9cf4_f3c7)];

fn hasher(which: usize) -> SipHasherBuilder {
    let (k0, k1) = KEYS[which];
    SipHasherBuilder::from_seed(k0, k1)
}

/// Counts distinct items by their 64-bit hashes: HyperLogLog (Flajolet et al. 2007), 16 KiB.
///
/// The library keeps and merges the registers. Its own estimate has a product for a quotient and never leaves the
/// counting of empty registers, which is infinite from some ten items a register on; hence the estimate here.
pub(crate) struct Distinct(HyperLogLog<u64>);

impl Distinct {
    /// Registers of the sketch.
    pub(crate) const REGISTERS: u32 = 1 << 14;

    /// Relative standard error: 1.04 / √registers.
    pub(crate) const STANDARD_ERROR: f64 = 1.04 / 128.0;

    /// What to ask of the library to get that many registers: it takes the natural logarithm of the number that it
    /// needs for the power of two, so that 0.0081 itself would give it 2^10.
    const ASKED_ERROR: f64 = 0.001_22;

    pub(crate) fn new() -> Self {
        Self(HyperLogLog::with_hasher(Self::ASKED_ERROR, hasher(0)))
    }

    pub(crate) fn insert(&mut self, hash: u64) {
        self.0.insert(&hash);
    }

    /// Adds what another sketch has seen.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    /// How many there are, about: the estimate of Ertl (2017), which needs no correction for small or large numbers.
    pub(crate) fn count(&self) -> u64 {
        let registers = self.registers();
        let m = registers.len() as f64;
        let empty = registers.iter().filter(|r| **r == 0).count() as f64;
        let filled: f64 = registers.iter().filter(|r| **r > 0).map(|r| (-(*r as f64)).exp2()).sum();
        (m * m / (2.0 * std::f64::consts::LN_2) / (m * empty_share(empty / m) + filled)).round() as u64
    }

    /// The registers, which only serialisation gives out.
    fn registers(&self) -> Vec<u64> {
        let sketch = serde_json::to_value(&self.0).expect("a sketch is plain data");
        let registers = sketch["registers"].as_array().expect("a HyperLogLog is made of registers");
        registers.iter().filter_map(serde_json::Value::as_u64).collect()
    }
}

/// Ertl's σ: what empty registers, a share `x` of all, add to the sum; infinite if all are.
fn empty_share(x: f64) -> f64 {
    let (mut power, mut weight, mut sum) = (x, 1.0, x);
    if x >= 1.0 {
        return f64::INFINITY;
    }
    loop {
        power *= power;
        let next = sum + power * weight;
        if next == sum {
            return sum;
        }
        (sum, weight) = (next, 2.0 * weight);
    }
}

/// Keeps the most frequent items by their 64-bit hashes: a Count-Min sketch (Cormode and Muthukrishnan 2005) with the
/// items that it ranks highest beside it. 10 MiB, and some hundred bytes a candidate.
///
/// A count is never too low. It is too high by more than [`excess`](Self::excess) with a probability of e^-5.
pub(crate) struct Frequent {
    sketch: CountMinSketch<CountMinStrategy, u64>,
    items: u64,
    candidates: usize,
    /// Count and hash of the candidates.
    ranks: BTreeSet<(u64, u64)>,
    /// Count and text of the candidates, by hash.
    known: HashMap<u64, (u64, String)>,
}

impl Frequent {
    const ROWS: usize = 5;
    const COLUMNS: usize = 1 << 18;

    /// The probability that a count is within its error: 1 − e^-5.
    pub(crate) const CERTAINTY: f64 = 0.993;

    /// Keeps `top` items: several times as many are watched, so that one that comes late still finds its place.
    pub(crate) fn new(top: usize) -> Self {
        Self {
            sketch: CountMinSketch::with_hashers(Self::ROWS, Self::COLUMNS, [hasher(0), hasher(1)]),
            items: 0,
            candidates: top.saturating_mul(4).max(1000),
            ranks: BTreeSet::new(),
            known: HashMap::new(),
        }
    }

    /// Counts an item that came `times` times; `text` is asked for when it becomes a candidate.
    pub(crate) fn insert(&mut self, hash: u64, times: u32, text: impl FnOnce() -> String) {
        let n = u64::from(times);
        self.items += n;
        self.sketch.insert(&hash, i64::from(times));
        if let Some((count, _)) = self.known.get_mut(&hash) {
            // Exact from here on, whatever else falls into its cells.
            self.ranks.remove(&(*count, hash));
            *count += n;
            self.ranks.insert((*count, hash));
            return;
        }
        let is_full = self.known.len() >= self.candidates;
        // The first candidates are counted exactly from their first occurrence on.
        let count = if is_full { self.sketch.count(&hash).unsigned_abs() } else { n };
        if is_full {
            let &lowest = self.ranks.first().expect("there are candidates");
            if count <= lowest.0 {
                return;
            }
            self.ranks.remove(&lowest);
            self.known.remove(&lowest.1);
        }
        self.ranks.insert((count, hash));
        self.known.insert(hash, (count, text()));
    }

    /// Items counted, repeats included.
    pub(crate) fn items(&self) -> u64 {
        self.items
    }

    /// How much too high a count may be: e / columns of all items (0 while every distinct item is a candidate).
    pub(crate) fn excess(&self) -> u64 {
        match self.known.len() < self.candidates {
            true => 0,
            false => (std::f64::consts::E / Self::COLUMNS as f64 * self.items as f64).ceil() as u64,
        }
    }

    /// The most frequent items and their counts, most frequent first; none that came only once.
    pub(crate) fn top(&self, n: usize) -> Vec<(&str, u64)> {
        let ranked = self.ranks.iter().rev().take_while(|(count, _)| *count > 1).take(n);
        ranked.map(|(count, hash)| (self.known[hash].1.as_str(), *count)).collect()
    }
}

/// Lengths in logarithmic buckets, sixteen to each power of two: 8 KiB.
pub(crate) struct Lengths {
    counts: Vec<u64>,
    number: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Lengths {
    const PARTS_LOG: u32 = 4;
    const PARTS: u64 = 1 << Self::PARTS_LOG;

    /// Relative error of a quantile: half the width of a bucket.
    pub(crate) const QUANTILE_ERROR: f64 = 0.5 / Self::PARTS as f64;

    pub(crate) fn new() -> Self {
        let buckets = (64 - Self::PARTS_LOG as usize + 1) << Self::PARTS_LOG;
        Self { counts: vec![0; buckets], number: 0, sum: 0, min: u64::MAX, max: 0 }
    }

    pub(crate) fn insert(&mut self, length: u64) {
        self.counts[Self::bucket(length)] += 1;
        self.number += 1;
        self.sum = self.sum.saturating_add(length);
        self.min = self.min.min(length);
        self.max = self.max.max(length);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(ours, theirs)| *ours += theirs);
        self.number += other.number;
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Lengths below 16 have a bucket each.
    fn bucket(length: u64) -> usize {
        if length < Self::PARTS {
            return length as usize;
        }
        let shift = length.ilog2() - Self::PARTS_LOG;
        let part = (length >> shift) - Self::PARTS;
        ((u64::from(shift) + 1) * Self::PARTS + part) as usize
    }

    /// The shortest length of a bucket, and how many there are.
    fn range(bucket: usize) -> (u64, u64) {
        let (bucket, parts) = (bucket as u64, Self::PARTS);
        if bucket < parts {
            return (bucket, 1);
        }
        let shift = bucket / parts - 1;
        ((bucket % parts + parts) << shift, 1 << shift)
    }

    /// The shortest and the longest, exactly; `None` without any.
    pub(crate) fn extremes(&self) -> Option<(u64, u64)> {
        (self.number > 0).then_some((self.min, self.max))
    }

    /// The mean, exactly; 0 without any.
    pub(crate) fn mean(&self) -> f64 {
        if self.number == 0 { 0.0 } else { self.sum as f64 / self.number as f64 }
    }

    /// The length that a share `q` of the items do not exceed, about; 0 without any.
    pub(crate) fn quantile(&self, q: f64) -> u64 {
        let Some((min, max)) = self.extremes() else { return 0 };
        let wanted = ((q * self.number as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|n| {
            seen += n;
            seen >= wanted
        });
        let (start, width) = Self::range(bucket.expect("the buckets hold all of them"));
        (start + (width - 1) / 2).clamp(min, max)
    }

    /// The powers of two between the shortest and the longest: first and last length, and how many there are.
    pub(crate) fn octaves(&self) -> Vec<(u64, u64, u64)> {
        let Some((min, max)) = self.extremes() else { return Vec::new() };
        let octave = |length: u64| if length == 0 { 0 } else { length.ilog2() + 1 };
        let first = |octave: u32| if octave == 0 { 0 } else { 1 << (octave - 1) };
        let last =
            |octave: u32| if octave == 0 { 0 } else { (1u64 << (octave - 1)) - 1 + (1 << (octave - 1)) };
        let mut rows: Vec<(u64, u64, u64)> =
            (octave(min)..=octave(max)).map(|o| (first(o), last(o), 0)).collect();
        for (bucket, n) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            rows[(octave(Self::range(bucket).0) - octave(min)) as usize].2 += n;
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn hash(i: u64) -> u64 {
        xxh3_64(&i.to_le_bytes())
    }

    #[test]
    fn distinct_items_are_counted_within_the_stated_error() {
        let mut sketch = Distinct::new();
        assert_eq!(sketch.registers().len(), Distinct::REGISTERS as usize);
        let mut inserted = 0;
        for n in [0, 1, 100, 10_000, 30_000, 42_000, 60_000, 100_000, 400_000] {
            (inserted..n).for_each(|i| sketch.insert(hash(i)));
            (0..n.min(1000)).for_each(|i| sketch.insert(hash(i)));
            inserted = n;
            let error = (sketch.count() as f64 - n as f64).abs() / (n as f64).max(1.0);
            assert!(error <= 3.0 * Distinct::STANDARD_ERROR, "{} for {n}: {error}", sketch.count());
        }
        let mut other = Distinct::new();
        (200_000..800_000).for_each(|i| other.insert(hash(i)));
        sketch.merge(&other);
        let error = (sketch.count() as f64 / 800_000.0 - 1.0).abs();
        assert!(error <= 3.0 * Distinct::STANDARD_ERROR, "{error}");
    }

    #[test]
    fn frequent_items_are_found_among_many_rare_ones() {
        let mut frequent = Frequent::new(10);
        // Item i < 20 comes 1000 - 40 i times, spread among 200,000 items that come once or twice.
        let mut counts = [0u64; 20];
        for i in 0..200_000u64 {
            frequent.insert(hash(1000 + i / 2 * (1 + i % 2)), 1, || "rare".to_owned());
            let item = hash(1 << 40 | i) as usize % 20;
            if counts[item] < 1000 - 40 * item as u64 {
                counts[item] += 1;
                frequent.insert(hash(item as u64), 1, || item.to_string());
            }
        }
        let excess = frequent.excess();
        assert!(excess > 0 && excess < 10, "{excess}");
        let top = frequent.top(10);
        let names: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        assert_eq!(top.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
        for (item, (_, count)) in top.iter().enumerate() {
            assert!((counts[item]..=counts[item] + excess).contains(count), "{item}: {count}");
        }
    }

    #[test]
    fn few_items_are_counted_exactly() {
        let mut frequent = Frequent::new(3);
        for i in 0..10u64 {
            frequent.insert(hash(i), 1, || i.to_string());
            (0..i).for_each(|_| frequent.insert(hash(i), 1, || unreachable!("a candidate is known")));
        }
        assert_eq!((frequent.top(3), frequent.excess()), (vec![("9", 10), ("8", 9), ("7", 8)], 0));
        assert_eq!(frequent.top(100).len(), 9, "one that came once is not frequent");
        assert_eq!(frequent.items(), 55);
    }

    #[test]
    fn every_length_lies_in_its_bucket() {
        let edges = (0..64).flat_map(|e| [(1u64 << e) - 1, 1 << e, (1 << e) + 1]);
        for length in (0..5000).chain(edges).chain([u64::MAX]) {
            let (start, width) = Lengths::range(Lengths::bucket(length));
            assert!(start <= length && length - start < width, "{length}: {start} + {width}");
            assert!(width as f64 <= 2.0 * Lengths::QUANTILE_ERROR * start.max(16) as f64);
        }
    }

    #[test]
    fn quantiles_are_within_the_stated_error() {
        let mut lengths = Lengths::new();
        assert_eq!((lengths.quantile(0.5), lengths.extremes(), lengths.octaves()), (0, None, vec![]));
        let mut all: Vec<u64> = (0..10_000u64).map(|i| (i * i) % 77_777).collect();
        all.iter().for_each(|n| lengths.insert(*n));
        all.sort_unstable();
        for q in [0.01, 0.25, 0.5, 0.95, 1.0] {
            let exact = all[(q * 10_000.0) as usize - 1] as f64;
            let error = (lengths.quantile(q) as f64 - exact).abs();
            assert!(error <= Lengths::QUANTILE_ERROR * exact, "{q}: {} for {exact}", lengths.quantile(q));
        }
        assert_eq!(lengths.extremes(), Some((all[0], all[9999])));
        assert_eq!(lengths.mean(), all.iter().sum::<u64>() as f64 / 10_000.0);
        for (first, last, n) in lengths.octaves() {
            assert_eq!(
                n,
                all.iter().filter(|l| (first..=last).contains(*l)).count() as u64,
                "{first}..={last}"
            );
        }
        let mut longest = Lengths::new();
        longest.insert(u64::MAX);
        assert_eq!(longest.octaves(), [(1 << 63, u64::MAX, 1)]);
    }
}
