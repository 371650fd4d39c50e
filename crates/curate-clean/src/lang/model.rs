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
//! F x { u8 length, bytes }           2 to 7 bytes, in byte order
//! F x C x u8 weight
//! ```
//!
//! `tools/language_model.py` writes it.

/// Classes of a row, padded so that a row is a whole number of vectors.
pub(super) const LANES: usize = 144;
/// `ln(1 + count)` in steps of 1/64. Counts above the table's end count as the end.
const LOG_STEPS: f64 = 64.0;
const LOG_TABLE: usize = 1024;
/// An n-gram's bytes and its length share a `u64`.
const NGRAM_BYTES: usize = 7;
/// Bits of the filter: one byte of filter for each four n-grams would be dense; 2^20 bits stay in the first cache levels
/// and let one absent n-gram in sixteen through.
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

/// What the walk over a text found: how often each feature, and which at all.
#[derive(Debug, Default)]
pub(super) struct Counts {
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
        if classes > LANES || features > usize::from(u16::MAX) + 1 {
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
        counts.counts.resize(self.weights.len(), 0);
        let mut window = 0_u64;
        for (at, &byte) in text.iter().enumerate() {
            window = window << 8 | u64::from(byte);
            let Some(feature) = self.table.longest(window, at + 1) else { continue };
            let count = &mut counts.counts[usize::from(feature)];
            if *count == 0 {
                counts.touched.push(feature);
            }
            *count = count.saturating_add(1);
        }
    }

    /// The scores of all classes, best is largest, and empties `counts`. `None` if there was no feature.
    pub(super) fn score(&self, counts: &mut Counts, scores: &mut [f32; LANES]) -> Option<()> {
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
        Some(())
    }

    fn split(&self, counts: &mut Counts) {
        counts.once.clear();
        counts.more.clear();
        for &feature in &counts.touched {
            match std::mem::take(&mut counts.counts[usize::from(feature)]) {
                1 => counts.once.push(feature),
                count => {
                    counts.more.push((feature, self.logs[usize::from(count).min(LOG_TABLE - 1)]));
                }
            }
        }
        counts.touched.clear();
    }
}

/// Exact set of n-grams with their row numbers: a filter of bits first, then open addressing.
struct NgramTable {
    filter: Vec<u64>,
    slots: Vec<u64>,
    rows: Vec<u16>,
    shift: u32,
    /// Lengths that occur, longest first.
    lengths: Vec<usize>,
}

/// Odd, from the digits of the golden ratio: the high bits of a product with it depend on all bits of the key.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

impl NgramTable {
    fn new(keys: &[u64]) -> Self {
        let slot_bits = (keys.len() * 2).next_power_of_two().trailing_zeros().max(1);
        let mut table = Self {
            filter: vec![0; 1 << (FILTER_BITS - 6)],
            slots: vec![0; 1 << slot_bits],
            rows: vec![0; 1 << slot_bits],
            shift: 64 - slot_bits,
            lengths: (1..=NGRAM_BYTES)
                .rev()
                .filter(|&n| keys.iter().any(|key| key >> 56 == n as u64))
                .collect(),
        };
        for (row, &key) in keys.iter().enumerate() {
            let hash = hash(key);
            table.filter[(hash >> (70 - FILTER_BITS)) as usize] |= 1 << (hash >> (64 - FILTER_BITS) & 63);
            let mut slot = (hash >> table.shift) as usize;
            while table.slots[slot] != 0 {
                slot = (slot + 1) & (table.slots.len() - 1);
            }
            table.slots[slot] = key;
            table.rows[slot] = row as u16; // `from_bytes` allows at most 65,536 rows.
        }
        table
    }

    /// The row of the longest n-gram that ends at the newest (lowest) byte of `window`, of which `filled` are text.
    #[inline]
    fn longest(&self, window: u64, filled: usize) -> Option<u16> {
        self.lengths.iter().filter(|&&length| length <= filled).find_map(|&length| {
            let key = (length as u64) << 56 | (window & (u64::MAX >> (64 - 8 * length)));
            let hash = hash(key);
            let bits = self.filter[(hash >> (70 - FILTER_BITS)) as usize];
            if bits >> (hash >> (64 - FILTER_BITS) & 63) & 1 == 0 {
                return None;
            }
            let mut slot = (hash >> self.shift) as usize;
            while self.slots[slot] != 0 {
                if self.slots[slot] == key {
                    return Some(self.rows[slot]);
                }
                slot = (slot + 1) & (self.slots.len() - 1);
            }
            None
        })
    }
}

#[inline]
fn hash(key: u64) -> u64 {
    (key ^ key >> 29).wrapping_mul(MIX)
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

    /// An n-gram as a key: length in the highest byte, the n-gram below it, last byte lowest.
    fn ngram(&mut self) -> Result<u64, &'static str> {
        let [length] = self.array()?;
        let bytes = self.take(usize::from(length))?;
        if !(1..=NGRAM_BYTES).contains(&bytes.len()) {
            return Err("an n-gram of impossible length");
        }
        Ok(bytes.iter().fold(0, |key, &byte| key << 8 | u64::from(byte)) | u64::from(length) << 56)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(ngram: &str) -> u64 {
        ngram.bytes().fold(0, |key, byte| key << 8 | u64::from(byte)) | (ngram.len() as u64) << 56
    }

    #[test]
    fn the_longest_ngram_wins() {
        let table = NgramTable::new(&[key("ab"), key("bc"), key("abc"), key("xabc")]);
        let check = |text: &str, expected| {
            let window = text.bytes().fold(0, |window, byte| window << 8 | u64::from(byte));
            assert_eq!(table.longest(window, text.len()), expected, "{text}");
        };
        check("ab", Some(0));
        check("abc", Some(2));
        check("zabc", Some(2));
        check("xabc", Some(3));
        check("zzzzxabc", Some(3));
        check("bc", Some(1));
        check("c", None);
        check("", None);
        // Bytes that were never read are not NULs of the text.
        let table = NgramTable::new(&[key("\0a")]);
        assert_eq!(table.longest(u64::from(b'a'), 1), None);
        assert_eq!(table.longest(u64::from(b'a'), 2), Some(0));
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
