//! A small seeded generator for initial weights and sampling.
//!
//! libtorch's own generator is global, differs between devices and cannot be saved through tch; this one is a value.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What the state grows by with each number.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit word of state, equidistributed, passes BigCrush.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The generator of one named stream: streams of one seed are unrelated, and do not depend on each other's use.
    pub fn new(seed: u64, stream: &str) -> Rng {
        Rng { state: xxh3_64_with_seed(stream.as_bytes(), seed) }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// `count` normal numbers of mean 0 and the given standard deviation (Box–Muller). Many are made by all cores: the
    /// state is a counter, so each can begin where its part does, and the numbers are the same.
    pub fn normal(&mut self, count: usize, std: f64) -> Vec<f32> {
        /// Pairs below which a thread costs more than it saves.
        const PAIRS: usize = 1 << 16;
        let pairs = count.div_ceil(2);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = pairs.div_ceil(cores).max(PAIRS);
        let mut values = vec![0.0; 2 * pairs];
        std::thread::scope(|scope| {
            for (i, part) in values.chunks_mut(2 * share).enumerate() {
                let mut rng = self.ahead(2 * (i * share) as u64);
                let mut fill =
                    move || part.as_chunks_mut().0.iter_mut().for_each(|pair| *pair = rng.normal_pair(std));
                if pairs <= share { fill() } else { drop(scope.spawn(fill)) }
            }
        });
        *self = self.ahead(2 * pairs as u64);
        values.truncate(count);
        values
    }

    fn normal_pair(&mut self, std: f64) -> [f32; 2] {
        // 1 - u lies in (0, 1], where the logarithm is finite.
        let radius = std * (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        [(radius * cos) as f32, (radius * sin) as f32]
    }

    /// The generator after `draws` numbers of 64 bits.
    fn ahead(&self, draws: u64) -> Rng {
        Rng { state: self.state.wrapping_add(GOLDEN.wrapping_mul(draws)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_their_mean_and_deviation() {
        let values = Rng::new(7, "weights").normal(100_001, 0.5);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
        let variance =
            values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert_eq!(values.len(), 100_001);
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((variance.sqrt() - 0.5).abs() < 0.005, "deviation {}", variance.sqrt());
    }

    #[test]
    fn many_numbers_are_those_that_come_one_after_another() {
        for count in [0, 1, 7, 131_072, 300_001] {
            let (mut all, mut one) = (Rng::new(5, "weights"), Rng::new(5, "weights"));
            let values = all.normal(count, 0.02);
            assert_eq!(values.len(), count);
            for pair in values.chunks(2) {
                assert_eq!(pair, &one.normal_pair(0.02)[..pair.len()]);
            }
            assert_eq!(all.next_u64(), one.next_u64());
        }
    }

    #[test]
    fn streams_and_seeds_differ_and_repeat() {
        let first = |seed, stream: &str| Rng::new(seed, stream).next_u64();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
    }
}
