//! The embedded model: naive Bayes over byte n-grams.
//!
//! A text's feature at a byte is the longest known n-gram that ends there. With `c` occurrences of feature `f`, class `j`
//! has the score `prior[j] + sum over f of ln(1 + c) * (floor[j] + step * weight[f][j])`; weights are bytes, so all sums
//! over features are sums of integers, which come out the same in any order and at any vector width.
//!
//! The file, little-endian; everything behind the first eight bytes is one zstd frame:
//!
//! ```text
//! "CURLANG1"
//! u32 classes C   u32 n-grams F   f32 step
//! C x { u8 length, code }            ISO 639; a code may stand twice, once for each script
//! C x f32 prior   C x f32 floor
//! F x { u8 length, bytes }           2 to 6 bytes, the first not NUL
//! F x C x u8 weight
//! ```
//!
//! `tools/language_model.py` writes it.

/// Classes of a row, padded so that a row is a whole number of vectors.
pub(super) const LANES: usize = 144;
/// `ln(1 + count)` in steps of 1/64. Counts above the table's end count as the end.
const LOG_STEPS: f64 = 64.0;
const LOG_TABLE: usize = 1024;
/// Lengths of n-grams in bytes, longest first.
const LENGTHS: [u32; 5] = [6, 5, 4, 3, 2];
/// N-grams of a model at most: a row number is 16 bits.
const MAX_NGRAMS: usize = 1 << 16;
const SLOT_BITS: u32 = 17;
/// 2^20 bits are small enough for the second cache level and let one absent n-gram in sixteen through.
const FILTER_BITS: u32 = 20;

pub(super) struct Model {
    pub(super) codes: Vec<String>,
    priors: Vec<f32>,
    floors: Vec<f32>,
    step: f32,
    weights: Vec<[u8; LANES]>,
    table: NgramTable,
    logs: Vec<u16>,
}

/// What the walk over a text found: the features one after the other, then how often each.
#[derive(Debug, Default)]
pub(super) struct Counts {
    found: Vec<u16>,
    counts: Vec<u16>,
    touched: Vec<u16>,
    /// Features that occur once, and those that occur more often with `ln(1 + count)`.
    once: Vec<u16>,
    more: Vec<(u16, u16)>,
}

impl Model {
    /// Reads a model file. Errors say what is wrong with it; the embedded one is tested to have none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        let packed = bytes.strip_prefix(b"CURLANG1").ok_or("not a language model")?;
        let unpacked = zstd::stream::decode_all(packed).map_err(|_| "the zstd frame is damaged")?;
        let mut fields = Fields { rest: &unpacked };
        let classes = fields.u32()? as usize;
        let features = fields.u32()? as usize;
        let step = fields.f32()?;
        if classes > LANES || features > MAX_NGRAMS {
            return Err("more classes or n-grams than this version can hold");
        }
        let codes = (0..classes).map(|_| fields.code()).collect::<Result<Vec<_>, _>>()?;
        let priors = (0..classes).map(|_| fields.f32()).collect::<Result<Vec<_>, _>>()?;
        let floors = (0..classes).map(|_| fields.f32()).collect::<Result<Vec<_>, _>>()?;
        let keys = (0..features).map(|_| fields.ngram()).collect::<Result<Vec<_>, _>>()?;
        let mut weights = vec![[0; LANES]; features];
        for row in &mut weights {
            row[..classes].copy_from_slice(fields.take(classes)?);
        }
        let logs =
            (0..LOG_TABLE).map(|count| ((1.0 + count as f64).ln() * LOG_STEPS).round() as u16).collect();
        Ok(Self { codes, priors, floors, step, weights, table: NgramTable::new(&keys), logs })
    }

    /// Adds the features of `text` to `counts`. N-grams do not reach from one call's text into the next.
    pub(super) fn count(&self, text: &[u8], counts: &mut Counts) {
        let mut window = 0_u64;
        counts.found.reserve(text.len());
        for &byte in text {
            window = window << 8 | u64::from(byte);
            if let Some(feature) = self.table.longest(window) {
                prefetch(&self.weights, feature);
                counts.found.push(feature);
            }
        }
    }

    /// The scores of all classes, best is largest, and empties `counts`. Returns the evidence: the sum of `ln(1 + count)` in
    /// units of a feature that occurs once; `None` if there was no feature.
    pub(super) fn score(&self, counts: &mut Counts, scores: &mut [f32; LANES]) -> Option<f32> {
        self.split(counts);
        if counts.once.is_empty() && counts.more.is_empty() {
            return None;
        }
        let mut sums = [0_u32; LANES];
        add_rows(&self.weights, &counts.once, &counts.more, u32::from(self.logs[1]), &mut sums);
        let mass = counts.once.len() as u64 * u64::from(self.logs[1])
            + counts.more.iter().map(|&(_, log)| u64::from(log)).sum::<u64>();
        let mass = (mass as f64 / LOG_STEPS) as f32;
        let step = self.step / LOG_STEPS as f32;
        for (class, (prior, floor)) in self.priors.iter().zip(&self.floors).enumerate() {
            scores[class] = prior + floor * mass + step * sums[class] as f32;
        }
        Some(mass / std::f32::consts::LN_2)
    }

    /// Counts what was found. The list of different features grows without a branch: whether a feature is new is a
    /// coin that no processor can predict.
    fn split(&self, counts: &mut Counts) {
        counts.counts.resize(self.weights.len(), 0);
        counts.touched.clear();
        counts.touched.resize(counts.found.len(), 0);
        let mut different = 0;
        for &feature in &counts.found {
            let count = &mut counts.counts[usize::from(feature)];
            counts.touched[different] = feature;
            different += usize::from(*count == 0);
            *count = count.saturating_add(1);
        }
        counts.found.clear();
        counts.once.clear();
        counts.more.clear();
        for &feature in &counts.touched[..different] {
            match std::mem::take(&mut counts.counts[usize::from(feature)]) {
                1 => counts.once.push(feature),
                count => {
                    counts.more.push((feature, self.logs[usize::from(count).min(LOG_TABLE - 1)]));
                }
            }
        }
    }
}

/// Exact map from n-grams to row numbers: a filter of bits first, then open addressing.
///
/// An n-gram is the number that its bytes are, last byte lowest. Its length needs no place, since no n-gram starts with
/// NUL: a longer key that starts with NULs is the shorter n-gram, and finding that early is no mistake.
struct NgramTable {
    filter: Box<[u64]>,
    /// N-gram in the upper 48 bits, row in the lower 16; 0 is free.
    slots: Box<[u64]>,
}

/// Odd, from the digits of the golden ratio: the high bits of a product with it depend on all bits of the key.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

impl NgramTable {
    /// Keys must be different and at most [`MAX_NGRAMS`], half the slots.
    fn new(keys: &[u64]) -> Self {
        let mut filter = vec![0_u64; 1 << (FILTER_BITS - 6)];
        let mut slots = vec![0; 1 << SLOT_BITS];
        for (row, &key) in keys.iter().enumerate() {
            let hash = hash(key);
            filter[(hash >> (70 - FILTER_BITS)) as usize] |= 1 << (hash >> (64 - FILTER_BITS) & 63);
            let mut slot = (hash >> (64 - SLOT_BITS)) as usize;
            while slots[slot] != 0 {
                slot = (slot + 1) & (slots.len() - 1);
            }
            slots[slot] = key << 16 | row as u64;
        }
        Self { filter: filter.into(), slots: slots.into() }
    }

    /// The row of the longest n-gram that ends at the newest (lowest) byte of `window`. Bytes before the text are NUL.
    #[inline]
    fn longest(&self, window: u64) -> Option<u16> {
        // All lengths are asked at once, without a branch between them; mostly the first that the filter lets through
        // is the answer.
        let keys = LENGTHS.map(|length| window & (u64::MAX >> (64 - 8 * length)));
        let hashes = keys.map(hash);
        let mut candidates = 0_u32;
        for (at, hash) in hashes.iter().enumerate() {
            let bits = self.filter[(hash >> (70 - FILTER_BITS)) as usize];
            candidates |= ((bits >> (hash >> (64 - FILTER_BITS) & 63) & 1) as u32) << at;
        }
        while candidates != 0 {
            let at = candidates.trailing_zeros() as usize;
            let mut slot = (hashes[at] >> (64 - SLOT_BITS)) as usize;
            while self.slots[slot] != 0 {
                if self.slots[slot] >> 16 == keys[at] {
                    return Some(self.slots[slot] as u16);
                }
                slot = (slot + 1) & ((1 << SLOT_BITS) - 1);
            }
            candidates &= candidates - 1;
        }
        None
    }
}

#[inline]
fn hash(key: u64) -> u64 {
    (key ^ key >> 29).wrapping_mul(MIX)
}

/// Asks for the memory of a row, which is needed when the whole text has been walked.
#[inline]
fn prefetch(weights: &[[u8; LANES]], row: u16) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let row = weights[usize::from(row)].as_ptr();
        for line in [0, 64, 128] {
            // SAFETY: SSE is part of x86-64; the address is inside the row, and a prefetch reads nothing that a program
            // can see.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(row.add(line).cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (weights, row);
}

/// `sums[j] += log_once * (rows of once)[j] + log * (rows of more)[j]`, with the widest vectors of the processor.
fn add_rows(
    weights: &[[u8; LANES]],
    once: &[u16],
    more: &[(u16, u16)],
    log_once: u32,
    sums: &mut [u32; LANES],
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as the line above asked it.
        return unsafe { add_rows_avx2(weights, once, more, log_once, sums) };
    }
    add_rows_scalar(weights, once, more, log_once, sums);
}

/// The same loops, compiled for 32-byte vectors.
///
/// # Safety
/// The processor must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn add_rows_avx2(
    weights: &[[u8; LANES]],
    once: &[u16],
    more: &[(u16, u16)],
    log_once: u32,
    sums: &mut [u32; LANES],
) {
    add_rows_scalar(weights, once, more, log_once, sums);
}

#[inline(always)]
fn add_rows_scalar(
    weights: &[[u8; LANES]],
    once: &[u16],
    more: &[(u16, u16)],
    log_once: u32,
    sums: &mut [u32; LANES],
) {
    // Most features of a document occur once: their rows are summed as they are, in 16 bits, which 257 rows of bytes
    // cannot overflow, and multiplied at the end.
    for rows in once.chunks(256) {
        let mut narrow = [0_u16; LANES];
        for &row in rows {
            for (sum, &weight) in narrow.iter_mut().zip(&weights[usize::from(row)]) {
                *sum += u16::from(weight);
            }
        }
        for (sum, &part) in sums.iter_mut().zip(&narrow) {
            *sum += u32::from(part) * log_once;
        }
    }
    // 255 * 444 * 65,536 features would pass 32 bits; `SampleOptions` bounds a sample to 16,384 bytes.
    for &(row, log) in more {
        for (sum, &weight) in sums.iter_mut().zip(&weights[usize::from(row)]) {
            *sum += u32::from(weight) * u32::from(log);
        }
    }
}

/// Reads the fields of a model one after the other.
struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Fields<'b> {
    fn take(&mut self, bytes: usize) -> Result<&'b [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or("the model ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        Ok(self.take(N)?.try_into().expect("take returns as many bytes as asked"))
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_le_bytes)
    }

    fn f32(&mut self) -> Result<f32, &'static str> {
        self.array().map(f32::from_le_bytes)
    }

    fn code(&mut self) -> Result<String, &'static str> {
        let [length] = self.array()?;
        let code = self.take(usize::from(length))?.to_vec();
        String::from_utf8(code).map_err(|_| "a language code is not text")
    }

    /// An n-gram as the number that its bytes are.
    fn ngram(&mut self) -> Result<u64, &'static str> {
        let [length] = self.array()?;
        let bytes = self.take(usize::from(length))?;
        if !LENGTHS.contains(&u32::from(length)) || bytes[0] == 0 {
            return Err("an n-gram of impossible length");
        }
        Ok(bytes.iter().fold(0, |key, &byte| key << 8 | u64::from(byte)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(ngram: &str) -> u64 {
        ngram.bytes().fold(0, |key, byte| key << 8 | u64::from(byte))
    }

    #[test]
    fn the_longest_ngram_wins() {
        let table = NgramTable::new(&[key("ab"), key("bc"), key("abc"), key("xxxabc")]);
        let check = |text: &str, expected| {
            let window = text.bytes().fold(0, |window, byte| window << 8 | u64::from(byte));
            assert_eq!(table.longest(window), expected, "{text}");
        };
        check("ab", Some(0));
        check("abc", Some(2));
        check("zabc", Some(2));
        check("xxxabc", Some(3));
        check("zzzzxxxabc", Some(3));
        check("bc", Some(1));
        check("c", None);
        check("", None);
        check("\0\0\0bc", Some(1));
        check("a\0b", None);
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = include_bytes!("model.bin");
        assert!(Model::from_bytes(good).is_ok());
        assert!(Model::from_bytes(&good[1..]).is_err());
        assert!(Model::from_bytes(&good[..good.len() - 100]).is_err());
        let short =
            [b"CURLANG1".to_vec(), zstd::stream::encode_all(&[9, 0, 0, 0][..], 1).expect("in memory")];
        assert_eq!(Model::from_bytes(&short.concat()).err(), Some("the model ends too early"));
        let wide = [b"CURLANG1".to_vec(), zstd::stream::encode_all(&[9; 12][..], 1).expect("in memory")];
        assert!(Model::from_bytes(&wide.concat()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The vector path is the scalar path, and both are the formula.
        #[test]
        fn vectors_add_as_scalars_do(
            seed in any::<u64>(),
            once in prop::collection::vec(0_u16..300, 0..600),
            more in prop::collection::vec((0_u16..300, 70_u16..444), 0..50),
        ) {
            let weights: Vec<[u8; LANES]> = (0..300_u64)
                .map(|row| std::array::from_fn(|lane| (hash(seed ^ row << 32 ^ lane as u64) >> 56) as u8))
                .collect();
            let mut scalar = [3; LANES];
            add_rows_scalar(&weights, &once, &more, 44, &mut scalar);
            let mut vector = [3; LANES];
            add_rows(&weights, &once, &more, 44, &mut vector);
            prop_assert_eq!(scalar, vector);
            let naive: [u32; LANES] = std::array::from_fn(|lane| {
                let weight = |row: u16| u32::from(weights[usize::from(row)][lane]);
                3 + once.iter().map(|&row| 44 * weight(row)).sum::<u32>()
                    + more.iter().map(|&(row, log)| u32::from(log) * weight(row)).sum::<u32>()
            });
            prop_assert_eq!(scalar, naive);
        }
    }
}
