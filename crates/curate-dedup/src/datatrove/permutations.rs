//! The permutations: numpy's draws, and the minima of `(h a + b mod 2^64) mod (2^61 - 1)`.

use crate::minhash::Simd;

/// Minima computed together: two registers of eight 64-bit lanes, or four of four.
pub(crate) const LANES: usize = 16;

type Lanes = [u64; LANES];

const MERSENNE: u64 = (1 << 61) - 1;

#[derive(Debug, Clone)]
pub(super) struct Permutations {
    len: usize,
    /// The last block is filled up with zeros.
    blocks: Vec<Block>,
    simd: Simd,
}

#[derive(Debug, Clone)]
struct Block {
    a: Lanes,
    b: Lanes,
}

impl Permutations {
    /// `len` permutations as `numpy.random.RandomState(seed)` draws them: every `a` in `1..2^61-1`, then every `b`
    /// in `0..2^61-1`.
    pub(super) fn new(len: usize, seed: u32) -> Self {
        let mut generator = MersenneTwister::new(seed);
        let a: Vec<u64> = (0..len).map(|_| 1 + generator.up_to(MERSENNE - 2)).collect();
        let b: Vec<u64> = (0..len).map(|_| generator.up_to(MERSENNE - 1)).collect();
        let lanes = |drawn: &[u64], block: usize| {
            std::array::from_fn(|lane| drawn.get(block * LANES + lane).copied().unwrap_or_default())
        };
        let blocks = (0..len.div_ceil(LANES)).map(|i| Block { a: lanes(&a, i), b: lanes(&b, i) }).collect();
        Self { len, blocks, simd: Simd::best() }
    }

    /// Replaces `signature` by the minimum of each permutation over `hashes`.
    pub(super) fn minima(&self, hashes: &[u64], signature: &mut Vec<u64>) {
        self.minima_with(self.simd, hashes, signature);
    }

    fn minima_with(&self, simd: Simd, hashes: &[u64], signature: &mut Vec<u64>) {
        signature.clear();
        signature.resize(self.blocks.len() * LANES, u64::MAX);
        let minima = signature.as_chunks_mut::<LANES>().0;
        match simd {
            Simd::Target => minima_inline(&self.blocks, hashes, minima),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the variant is only made by `Simd::available`, which has found AVX2 on this machine.
            Simd::Avx2 => unsafe { minima_avx2(&self.blocks, hashes, minima) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: likewise AVX-512 F and DQ.
            Simd::Avx512 => unsafe { minima_avx512(&self.blocks, hashes, minima) },
        }
        signature.truncate(self.len);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn minima_avx2(blocks: &[Block], hashes: &[u64], minima: &mut [Lanes]) {
    minima_inline(blocks, hashes, minima);
}

// DQ has the product of 64-bit lanes in one instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn minima_avx512(blocks: &[Block], hashes: &[u64], minima: &mut [Lanes]) {
    minima_inline(blocks, hashes, minima);
}

/// The hashes go by in tiles that stay in the first-level cache, a block of lanes stays in registers for a tile.
#[inline(always)]
fn minima_inline(blocks: &[Block], hashes: &[u64], minima: &mut [Lanes]) {
    const TILE: usize = 1024;
    for tile in hashes.chunks(TILE) {
        for (Block { a, b }, minima) in blocks.iter().zip(&mut *minima) {
            let (mut least, mut greatest) = (*minima, [0; LANES]);
            for &hash in tile {
                for lane in 0..LANES {
                    let value = hash.wrapping_mul(a[lane]).wrapping_add(b[lane]);
                    // 2^61 is 1 modulo 2^61 - 1, so this is the remainder, or 2^61 - 1 more than it.
                    let value = (value & MERSENNE) + (value >> 61);
                    least[lane] = least[lane].min(value);
                    greatest[lane] = greatest[lane].max(value);
                }
            }
            // One value in 2^58 is too great; so whether there is one is asked for all together.
            if greatest.iter().any(|&value| value >= MERSENNE) {
                lower_exactly(a, b, tile, minima);
            } else {
                *minima = least;
            }
        }
    }
}

#[cold]
fn lower_exactly(a: &Lanes, b: &Lanes, tile: &[u64], minima: &mut Lanes) {
    for &hash in tile {
        for (minimum, (a, b)) in minima.iter_mut().zip(a.iter().zip(b)) {
            *minimum = (*minimum).min(hash.wrapping_mul(*a).wrapping_add(*b) % MERSENNE);
        }
    }
}

/// MT19937 (Matsumoto and Nishimura, 1998), seeded as numpy's `RandomState` seeds it from one integer.
struct MersenneTwister {
    state: [u32; Self::N],
    at: usize,
}

impl MersenneTwister {
    const N: usize = 624;
    const M: usize = 397;

    fn new(seed: u32) -> Self {
        let mut state = [seed; Self::N];
        for i in 1..Self::N {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, at: Self::N }
    }

    fn next_u32(&mut self) -> u32 {
        if self.at == Self::N {
            self.twist();
        }
        let y = self.state[self.at];
        self.at += 1;
        let y = y ^ (y >> 11);
        let y = y ^ (y << 7 & 0x9D2C_5680);
        let y = y ^ (y << 15 & 0xEFC6_0000);
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..Self::N {
            let joined = self.state[i] & 0x8000_0000 | self.state[(i + 1) % Self::N] & 0x7FFF_FFFF;
            let feedback = if joined & 1 == 1 { 0x9908_B0DF } else { 0 };
            self.state[i] = self.state[(i + Self::M) % Self::N] ^ (joined >> 1) ^ feedback;
        }
        self.at = 0;
    }

    /// A number in `0..=last`: two draws, the upper half first, masked, until one is small enough.
    fn up_to(&mut self, last: u64) -> u64 {
        let mask = u64::MAX >> last.leading_zeros();
        loop {
            let (high, low) = (u64::from(self.next_u32()), u64::from(self.next_u32()));
            let drawn = (high << 32 | low) & mask;
            if drawn <= last {
                return drawn;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_those_of_numpy() {
        let permutations = Permutations::new(112, 1);
        assert_eq!(permutations.blocks[0].a[0], 775_169_054_918_279_404);
        assert_eq!(permutations.blocks[0].b[0], 1_062_448_801_025_099_917);
        // The 10 000th number of the reference implementation with its default seed.
        let mut generator = MersenneTwister::new(5489);
        assert_eq!((0..10_000).map(|_| generator.next_u32()).last(), Some(4_123_659_995));
    }

    #[test]
    fn remainders_at_the_edge_are_exact() {
        // A permutation that changes nothing shows the remainder itself.
        let block = Block { a: [1; LANES], b: [0; LANES] };
        for simd in Simd::available() {
            let permutations = Permutations { len: 1, blocks: vec![block.clone()], simd };
            for hash in [0, 1, MERSENNE - 1, MERSENNE, MERSENNE + 1, 7 * MERSENNE + 6, 8 * MERSENNE, u64::MAX]
            {
                let mut signature = Vec::new();
                permutations.minima(&[hash], &mut signature);
                assert_eq!(signature, [hash % MERSENNE], "{hash} by {simd:?}");
                permutations.minima(&[5, hash, 3], &mut signature);
                assert_eq!(signature, [(hash % MERSENNE).min(3)], "{hash} by {simd:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_same(
            hashes in prop::collection::vec(any::<u64>(), 0..2500),
            len in 1usize..130,
            seed in any::<u32>(),
        ) {
            let permutations = Permutations::new(len, seed);
            let coefficients = permutations.blocks.iter().flat_map(|Block { a, b }| a.iter().zip(b)).take(len);
            let expected: Vec<u64> = coefficients
                .map(|(a, b)| {
                    let values = hashes.iter().map(|h| h.wrapping_mul(*a).wrapping_add(*b) % MERSENNE);
                    values.min().unwrap_or(u64::MAX)
                })
                .collect();
            for simd in Simd::available() {
                let mut signature = vec![5; 3];
                permutations.minima_with(simd, &hashes, &mut signature);
                prop_assert_eq!(&signature, &expected, "{:?}", simd);
            }
        }
    }
}
