//! Signatures: the smallest value that each of some hundred permutations gives to the shingles of a document.
//!
//! Two sets have the same minimum under a random permutation with a probability equal to their Jaccard similarity
//! (Broder, *On the resemblance and containment of documents*, 1997). The permutations here are `a x + b` modulo
//! 2^32 with odd `a`, bijections of 32-bit integers, on the upper half of each shingle hash. The hash is well
//! mixed, so this simple family is enough (the estimator is tested against exact similarities below), and it is
//! what vector units do best: sixteen lanes to an instruction, no 64-bit products, no modulus. Two different
//! shingles of the same upper half cannot be told apart here; at 10^6 shingles that moves an estimate by 10^-4, and
//! estimates decide nothing.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::banding::{Banding, MAX_ROWS};

/// Minima computed together.
pub(crate) const LANES: usize = 16;

/// One number in each lane.
type Lanes = [u32; LANES];

/// The permutations `a x + b` of a block of lanes; every `a` is odd.
#[derive(Debug, Clone)]
struct Block {
    a: Lanes,
    b: Lanes,
}

/// Signs shingle sets and cuts the signatures into bands.
#[derive(Debug, Clone)]
pub struct MinHasher {
    banding: Banding,
    /// The last block may go beyond the signature.
    permutations: Vec<Block>,
    simd: Simd,
}

impl MinHasher {
    /// The permutations depend on `seed` alone, so a signature with more rows or bands extends one with fewer.
    pub fn new(banding: Banding, seed: u64) -> Self {
        let mut state = seed;
        let mut block = |_| {
            let drawn: [u64; LANES] = std::array::from_fn(|_| split_mix(&mut state));
            Block { a: drawn.map(|bits| (bits >> 32) as u32 | 1), b: drawn.map(|bits| bits as u32) }
        };
        let permutations = (0..banding.num_perm().div_ceil(LANES)).map(&mut block).collect();
        Self { banding, permutations, simd: Simd::best() }
    }

    pub fn banding(&self) -> Banding {
        self.banding
    }

    /// Replaces `signature` by the `bands * rows` minima of the shingles; the result is the same on every machine.
    ///
    /// Repeats among the shingles change nothing, and neither does their order. No shingles give `u32::MAX`
    /// throughout.
    pub fn sign(&self, shingles: &[u64], signature: &mut Vec<u32>) {
        self.sign_with(self.simd, shingles, signature);
    }

    fn sign_with(&self, simd: Simd, shingles: &[u64], signature: &mut Vec<u32>) {
        signature.clear();
        signature.resize(self.permutations.len() * LANES, u32::MAX);
        minima(simd, &self.permutations, shingles, signature.as_chunks_mut::<LANES>().0);
        signature.truncate(self.banding.num_perm());
    }

    /// Appends one key for each band of a signature: documents with an equal key in the same band are candidates.
    ///
    /// A key is the xxh3-64 of the band's rows as little-endian bytes, seeded with the number of the band.
    ///
    /// # Panics
    ///
    /// If the signature was made with another banding.
    pub fn band_keys(&self, signature: &[u32], keys: &mut Vec<u64>) {
        assert_eq!(signature.len(), self.banding.num_perm(), "the signature has another banding");
        let mut bytes = [0; 4 * MAX_ROWS as usize];
        let rows = self.banding.rows as usize;
        keys.extend(signature.chunks_exact(rows).enumerate().map(|(band, minima)| {
            for (to, minimum) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(minima) {
                *to = minimum.to_le_bytes();
            }
            xxh3_64_with_seed(&bytes[..4 * rows], band as u64)
        }));
    }
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    crate::words::finish(*state)
}

/// The vector instructions that one function is compiled for; the results are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Simd {
    /// Whatever the build target has: SSE2 on x86-64, NEON on AArch64.
    Target,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Simd {
    /// All that this machine can run, the best last.
    pub(crate) fn available() -> Vec<Self> {
        let mut found = vec![Self::Target];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                found.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                found.push(Self::Avx512);
            }
        }
        found
    }

    pub(crate) fn best() -> Self {
        *Self::available().last().expect("the build target is always available")
    }
}

fn minima(simd: Simd, permutations: &[Block], shingles: &[u64], minima: &mut [Lanes]) {
    match simd {
        Simd::Target => minima_inline(permutations, shingles, minima),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the variant is only made by `Simd::available`, which has found AVX2 on this machine.
        Simd::Avx2 => unsafe { minima_avx2(permutations, shingles, minima) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the variant is only made by `Simd::available`, which has found AVX-512F on this machine.
        Simd::Avx512 => unsafe { minima_avx512(permutations, shingles, minima) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn minima_avx2(permutations: &[Block], shingles: &[u64], minima: &mut [Lanes]) {
    minima_inline(permutations, shingles, minima);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn minima_avx512(permutations: &[Block], shingles: &[u64], minima: &mut [Lanes]) {
    minima_inline(permutations, shingles, minima);
}

/// Lowers each minimum by the values that its permutation gives to the shingles.
///
/// The shingles go by in tiles that stay in the first-level cache, and each block of lanes stays in registers for a
/// whole tile. Arrays of a fixed size let the compiler vectorise: with slices it would check every index.
#[inline(always)]
fn minima_inline(permutations: &[Block], shingles: &[u64], minima: &mut [Lanes]) {
    const TILE: usize = 1024;
    let mut tile = [0; TILE];
    for shingles in shingles.chunks(TILE) {
        let tile = &mut tile[..shingles.len()];
        for (base, shingle) in tile.iter_mut().zip(shingles) {
            *base = (shingle >> 32) as u32;
        }
        for (Block { a, b }, minima) in permutations.iter().zip(&mut *minima) {
            let mut least = *minima;
            for &base in &*tile {
                for lane in 0..LANES {
                    let value = base.wrapping_mul(a[lane]).wrapping_add(b[lane]);
                    least[lane] = least[lane].min(value);
                }
            }
            *minima = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use probabilistic_collections::SipHasherBuilder;
    use probabilistic_collections::similarity::MinHash;
    use proptest::prelude::*;

    use super::*;
    use crate::words::finish;

    fn hasher(bands: u32, rows: u32, seed: u64) -> MinHasher {
        MinHasher::new(Banding::new(bands, rows).unwrap(), seed)
    }

    fn sign(hasher: &MinHasher, shingles: &[u64]) -> Vec<u32> {
        let mut signature = vec![3; 5];
        hasher.sign(shingles, &mut signature);
        signature
    }

    /// Two sets of `2 n` hashes in all, of which they share the part that makes their similarity `jaccard`.
    fn pair(trial: u64, n: u64, jaccard: f64) -> (Vec<u64>, Vec<u64>) {
        let all: Vec<u64> = (0..n).map(|i| finish(trial << 32 | i)).collect();
        let shared = (jaccard * n as f64).round() as usize;
        let own = (all.len() - shared) / 2;
        let (both, rest) = all.split_at(shared);
        let (a, b) = rest.split_at(own);
        ([both, a].concat(), [both, b].concat())
    }

    fn agreement(a: &[u32], b: &[u32]) -> f64 {
        a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
    }

    /// Mean and standard deviation.
    fn moments(estimates: &[f64]) -> (f64, f64) {
        let mean = estimates.iter().sum::<f64>() / estimates.len() as f64;
        let variance =
            estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (estimates.len() - 1) as f64;
        (mean, variance.sqrt())
    }

    #[test]
    fn estimates_are_unbiased_and_as_sharp_as_they_can_be() {
        const TRIALS: u64 = 600;
        let hasher = hasher(32, 7, 1);
        let k = hasher.banding().num_perm() as f64;
        for jaccard in [0.1, 0.5, 0.7, 0.8, 0.9] {
            for n in [100, 1000] {
                let estimates: Vec<f64> = (0..TRIALS)
                    .map(|trial| {
                        let (a, b) = pair(trial, n, jaccard);
                        agreement(&sign(&hasher, &a), &sign(&hasher, &b))
                    })
                    .collect();
                let (mean, sd) = moments(&estimates);
                let ideal = f64::sqrt(jaccard * (1.0 - jaccard) / k);
                // The mean is known to ideal / sqrt(trials), the deviation to ideal / sqrt(2 trials): four of
                // these.
                let tolerance = 4.0 * ideal / f64::sqrt(TRIALS as f64);
                assert!((mean - jaccard).abs() < tolerance, "J {jaccard}, n {n}: mean {mean}");
                assert!((sd / ideal - 1.0).abs() < 0.15, "J {jaccard}, n {n}: s.d. {sd}, ideal {ideal}");
            }
        }
    }

    #[test]
    fn bands_are_shared_as_often_as_the_formula_says() {
        const TRIALS: u64 = 1500;
        let hasher = hasher(32, 7, 1);
        for jaccard in [0.4, 0.5, 0.6, 0.7] {
            let matches = (0..TRIALS)
                .filter(|&trial| {
                    let (a, b) = pair(trial, 500, jaccard);
                    let keys = |shingles: &[u64]| {
                        let mut keys = Vec::new();
                        hasher.band_keys(&sign(&hasher, shingles), &mut keys);
                        keys
                    };
                    keys(&a).iter().zip(keys(&b)).any(|(a, b)| *a == b)
                })
                .count();
            let got = matches as f64 / TRIALS as f64;
            let expected = crate::match_probability(jaccard, 32, 7);
            let tolerance = 4.0 * f64::sqrt(expected * (1.0 - expected) / TRIALS as f64);
            assert!((got - expected).abs() < tolerance, "J {jaccard}: {got}, formula {expected}");
        }
    }

    #[test]
    fn estimates_agree_with_another_library() {
        let ours = hasher(64, 4, 7);
        let theirs = MinHash::<std::vec::IntoIter<u64>, u64>::with_hashers(
            256,
            [SipHasherBuilder::from_seed(1, 2), SipHasherBuilder::from_seed(3, 4)],
        );
        let mut difference = 0.0;
        const TRIALS: u64 = 40;
        for trial in 0..TRIALS {
            let (a, b) = pair(trial, 400, 0.75);
            let estimate = agreement(&sign(&ours, &a), &sign(&ours, &b));
            difference += estimate - theirs.get_similarity(a.into_iter(), b.into_iter());
        }
        // Each estimate has a deviation of 0.027, the mean difference one of 0.006.
        let mean = difference / TRIALS as f64;
        assert!(mean.abs() < 0.025, "{mean}");
    }

    #[test]
    fn signatures_and_keys_are_fixed() {
        let hasher = hasher(2, 3, 1);
        let shingles: Vec<u64> = (0..10).map(finish).collect();
        let signature = sign(&hasher, &shingles);
        assert_eq!(signature, [437296096, 28529939, 49920087, 1082007442, 373749838, 469410132]);
        let mut keys = Vec::new();
        hasher.band_keys(&signature, &mut keys);
        assert_eq!(keys, [0xACEE_199C_335D_8F86, 0x18C6_3206_6D3D_52C4]);
    }

    #[test]
    fn a_longer_signature_extends_a_shorter_one() {
        let shingles: Vec<u64> = (0..50).map(finish).collect();
        let (short, long) = (sign(&hasher(3, 5, 9), &shingles), sign(&hasher(9, 11, 9), &shingles));
        assert_eq!(short[..], long[..15]);
        assert_ne!(long, sign(&hasher(9, 11, 10), &shingles), "the seed counts");
    }

    #[test]
    fn nothing_to_sign() {
        assert_eq!(sign(&hasher(3, 5, 9), &[]), [u32::MAX; 15]);
    }

    #[test]
    #[should_panic(expected = "another banding")]
    fn foreign_signatures_are_refused() {
        hasher(3, 5, 9).band_keys(&[0; 16], &mut Vec::new());
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_same(
            shingles in prop::collection::vec(any::<u64>(), 0..2500),
            bands in 1u32..50,
            rows in 1u32..9,
            seed in any::<u64>(),
        ) {
            let hasher = hasher(bands, rows, seed);
            let mut naive = vec![u32::MAX; hasher.banding().num_perm()];
            let coefficients = hasher.permutations.iter().flat_map(|Block { a, b }| a.iter().zip(b));
            for (minimum, (a, b)) in naive.iter_mut().zip(coefficients) {
                prop_assert_eq!(a % 2, 1);
                for shingle in &shingles {
                    *minimum = (*minimum).min(((shingle >> 32) as u32).wrapping_mul(*a).wrapping_add(*b));
                }
            }
            for simd in Simd::available() {
                let mut signature = Vec::new();
                hasher.sign_with(simd, &shingles, &mut signature);
                prop_assert_eq!(&signature, &naive, "{:?}", simd);
            }
        }
    }
}
