//! A small seeded generator for initial weights and sampling.
//!
//! libtorch's own generator is global, differs between devices and cannot be saved through tch; this one is a value.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::kernels::for_each_machine;

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
        mixed(self.state)
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        unit(self.next_u64())
    }

    /// `count` normal numbers of mean 0 and the given standard deviation (Box–Muller). Many are made by all cores: the
    /// state is a counter, so each can begin where its part does, and the numbers are the same.
    pub fn normal(&mut self, count: usize, std: f64) -> Vec<f32> {
        let mut values = vec![0.0; count];
        self.fill_normal(&mut values, std);
        values
    }

    /// As [`normal`](Self::normal), into memory that is there.
    pub fn fill_normal(&mut self, values: &mut [f32], std: f64) {
        /// Numbers below which a thread costs more than it saves.
        const LEAST: usize = 1 << 17;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // A part begins with a whole batch, and so with a pair.
        let share = values.len().div_ceil(cores).max(LEAST).next_multiple_of(2 * BATCH);
        let (count, own) = (values.len(), self.clone());
        std::thread::scope(|scope| {
            for (i, part) in values.chunks_mut(share).enumerate() {
                let rng = own.ahead((i * share) as u64);
                let mut fill = move || normals(rng.state, std, part);
                if count <= share { fill() } else { drop(scope.spawn(fill)) }
            }
        });
        *self = self.ahead(count.next_multiple_of(2) as u64);
    }

    /// The generator after `draws` numbers of 64 bits.
    fn ahead(&self, draws: u64) -> Rng {
        Rng { state: self.state.wrapping_add(GOLDEN.wrapping_mul(draws)) }
    }
}

/// SplitMix64's output for a state.
#[inline(always)]
fn mixed(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The upper 53 of 64 bits as a number in `[0, 1)`.
#[inline(always)]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Pairs that are made at once, a step for all of them at a time.
const BATCH: usize = 64;

for_each_machine! {
    /// Normal numbers from the generator's state on: each two draws make two of them.
    fn normals(state: u64, std: f64, values: &mut [f32]) {
        let mut radius = [0.0; BATCH];
        let [mut sin, mut cos] = [[0.0; BATCH]; 2];
        for (i, values) in values.chunks_mut(2 * BATCH).enumerate() {
            for pair in 0..BATCH {
                let draw = (2 * (i * BATCH + pair)) as u64;
                let [first, second] = [1, 2].map(|n| mixed(state.wrapping_add(GOLDEN.wrapping_mul(draw + n))));
                // 1 - u lies in (0, 1], where the logarithm is finite.
                radius[pair] = std * (-2.0 * ln(1.0 - unit(first))).sqrt();
                (sin[pair], cos[pair]) = sin_cos_of_turns(unit(second));
            }
            for (pair, values) in values.chunks_mut(2).enumerate() {
                values[0] = (radius[pair] * cos[pair]) as f32;
                if let Some(value) = values.get_mut(1) {
                    *value = (radius[pair] * sin[pair]) as f32;
                }
            }
        }
    }
}

/// Natural logarithm of a normal positive number, to a unit in the last place; without a branch, and with the same bits
/// on every machine and C library.
///
/// FreeBSD's `e_log.c`: x = 2^k (1 + f) with 1 + f in [√½, √2), s = f / (2 + f), and a polynomial in s².
#[inline(always)]
fn ln(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    const EXPONENT_OF_1: u64 = 0x3ff0_0000_0000_0000;
    const LG: [f64; 7] = [
        6.666_666_666_666_735e-1,
        3.999_999_999_940_942e-1,
        2.857_142_874_366_239e-1,
        2.222_219_843_214_978_4e-1,
        1.818_357_216_161_805e-1,
        1.531_383_769_920_937_3e-1,
        1.479_819_860_511_658_6e-1,
    ];
    // Half a power of two up or down, so that the mantissa lies about 1.
    let shifted = x.to_bits().wrapping_add(EXPONENT_OF_1 - ROOT_HALF);
    let k = ((shifted >> 52) as i64 - 1023) as f64;
    let f = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff) + ROOT_HALF) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let odd = w * (LG[1] + w * (LG[3] + w * LG[5]));
    let even = z * (LG[0] + w * (LG[2] + w * (LG[4] + w * LG[6])));
    let half_square = 0.5 * f * f;
    k * LN2_HIGH - ((half_square - (s * (half_square + odd + even) + k * LN2_LOW)) - f)
}

/// Sine and cosine of 2π `u` for `u` in `[0, 1]`, to a unit in the last place or two.
///
/// The quarter of the circle is taken off exactly; on [-π/4, π/4] by FreeBSD's `k_sin.c` and `k_cos.c`.
#[inline(always)]
fn sin_cos_of_turns(u: f64) -> (f64, f64) {
    const S: [f64; 6] = [
        -1.666_666_666_666_663_2e-1,
        8.333_333_333_322_49e-3,
        -1.984_126_982_985_795e-4,
        2.755_731_370_707_006_8e-6,
        -2.505_076_025_340_686_3e-8,
        1.589_690_995_211_55e-10,
    ];
    const C: [f64; 6] = [
        4.166_666_666_666_66e-2,
        -1.388_888_888_887_411e-3,
        2.480_158_728_947_673e-5,
        -2.755_731_435_139_066_3e-7,
        2.087_572_321_298_175e-9,
        -1.135_964_755_778_819_5e-11,
    ];
    /// 1.5 × 2^52: added to a small number it leaves the nearest integer in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let shifted = 4.0 * u + ROUND;
    let x = (4.0 * u - (shifted - ROUND)) * std::f64::consts::FRAC_PI_2;
    let z = x * x;
    let sin = x + x * z * (S[0] + z * (S[1] + z * (S[2] + z * (S[3] + z * (S[4] + z * S[5])))));
    let cos = 1.0 - (0.5 * z - z * z * (C[0] + z * (C[1] + z * (C[2] + z * (C[3] + z * (C[4] + z * C[5]))))));
    let quarter = shifted.to_bits();
    let (a, b) = if quarter & 1 == 0 { (sin, cos) } else { (cos, sin) };
    // The sine is negative in the third and fourth quarter, the cosine in the second and third.
    let sign = |negative: u64| f64::from_bits(1f64.to_bits() | (negative & 1) << 63);
    (a * sign(quarter >> 1), b * sign((quarter >> 1) ^ quarter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elementary_functions_are_those_of_the_library() {
        let mut rng = Rng::new(3, "functions");
        for i in 0..1_000_000 {
            // Down to the smallest that there is, and numbers next to 1 and to the quarters of the circle.
            let u = match i % 4 {
                0 => rng.uniform(),
                1 => 1.0 - rng.uniform() * 1e-9,
                2 => (rng.uniform() * 64.0).exp2() * (1.0 / (1u64 << 53) as f64),
                _ => (rng.next_u64() % 5) as f64 / 4.0 + (rng.uniform() - 0.5) * 1e-6,
            };
            let u = u.clamp(1.0 / (1u64 << 53) as f64, 1.0);
            assert!((ln(u) - u.ln()).abs() <= 1.5 * f64::EPSILON * u.ln().abs(), "ln {u}");
            let (sin, cos) = sin_cos_of_turns(u);
            let (sin2, cos2) = (std::f64::consts::TAU * u).sin_cos();
            // The library's argument is rounded: that is up to 4.4e-16 of an angle.
            assert!((sin - sin2).abs() < 1e-15 && (cos - cos2).abs() < 1e-15, "sine and cosine of {u} turns");
        }
        assert_eq!((ln(1.0), sin_cos_of_turns(0.0), sin_cos_of_turns(0.25)), (0.0, (0.0, 1.0), (1.0, 0.0)));
        assert_eq!((sin_cos_of_turns(0.5), sin_cos_of_turns(0.75)), ((0.0, -1.0), (-1.0, 0.0)));
    }

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
                // By the library's functions the last bit of one in millions is another.
                let radius = 0.02 * (-2.0 * (1.0 - one.uniform()).ln()).sqrt();
                let (sin, cos) = (std::f64::consts::TAU * one.uniform()).sin_cos();
                for (got, expected) in pair.iter().zip([radius * cos, radius * sin]) {
                    assert!((f64::from(*got) - expected).abs() <= 6.1e-8 * expected.abs() + 1e-17);
                }
            }
            assert_eq!(all.next_u64(), one.next_u64());
            let mut slow = vec![0.0; count];
            normals::on_any_machine(Rng::new(5, "weights").state, 0.02, &mut slow);
            assert!(values == slow);
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
