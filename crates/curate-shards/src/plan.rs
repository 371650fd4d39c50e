//! Which rows form which step, as a pure function of (seed, step).
//!
//! Every epoch visits every row once, in an order given by a keyed permutation that is computed, not stored: a
//! Feistel network over the smallest power of two that holds all rows, walked until it lands on a row that exists
//! ("cycle walking": Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). So the plan needs no
//! memory, any position is reached at once, a resumed run goes on exactly where it stopped, and the order does not
//! depend on how many machines share the rows.
//!
//! The function is part of the format: a checkpoint stores only the step. For `n` rows:
//!
//! ```text
//! bits      = number of bits of n - 1;  l = floor(bits / 2), r = ceil(bits / 2)
//! mix(z)    = splitmix64's finaliser: z ^= z >> 30; z *= 0xbf58476d1ce4e5b9; z ^= z >> 27;
//!             z *= 0x94d049bb133111eb; z ^= z >> 31
//! G         = 0x9e3779b97f4a7c15                                    (all arithmetic modulo 2^64)
//! key       = mix(mix(seed + G) + G × (epoch + 1))
//! key[i]    = mix(key + G × (i + 1)),  i = 0 … 7
//! permute(x): left = the upper l bits of x, right = its lower r bits; for i = 0, 2, 4, 6:
//!                 left  ^= the lower l bits of mix(key[i] ^ right)
//!                 right ^= the lower r bits of mix(key[i + 1] ^ left)
//!             y = left and right together; again with x = y while y >= n
//! sample k  : epoch = k / n, row = permute(k % n)
//! ```
//!
//! A view with a mix has another sequence of samples, which is drawn in `mix.rs`; within each source it is this one.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mix::Mix;

/// Eight rounds: small networks need more of them than large ones to look shuffled, and eight cost some 40 ns.
const ROUNDS: usize = 8;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The order in which training visits the rows of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    seed: u64,
    num_rows: u64,
    rows_per_step: u32,
    /// Which sources take which turns; without it all rows are alike.
    mix: Option<Arc<Mix>>,
}

impl BatchPlan {
    /// A plan over `num_rows` rows that takes `rows_per_step` of them for a step (all micro-batches of all ranks).
    ///
    /// # Errors
    /// [`Error::BadOption`] if either number is zero.
    pub fn new(seed: u64, num_rows: u64, rows_per_step: u32) -> Result<BatchPlan> {
        let zero = |name| Error::BadOption { name, problem: "must be at least 1, is 0".to_owned() };
        if num_rows == 0 {
            return Err(zero("num_rows"));
        }
        if rows_per_step == 0 {
            return Err(zero("rows_per_step"));
        }
        Ok(BatchPlan { seed, num_rows, rows_per_step, mix: None })
    }

    /// The same plan for rows of several sources, which take turns as `mix` says. [`crate::View::plan`] makes the plan
    /// that a view asks for.
    pub(crate) fn with_mix(self, mix: Option<Arc<Mix>>) -> BatchPlan {
        BatchPlan { mix, ..self }
    }

    /// How sources take turns, if there are several.
    pub fn mix(&self) -> Option<&Mix> {
        self.mix.as_deref()
    }

    /// Number of rows, all visited once an epoch (with a mix: of their source).
    pub fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// Number of rows of a step.
    pub fn rows_per_step(&self) -> u32 {
        self.rows_per_step
    }

    /// Epoch (with a mix: of its source) and row of the `n`-th sample since the start of training. Constant time, some
    /// 0.1 µs.
    pub fn sample(&self, n: u64) -> (u64, u64) {
        if let Some(mix) = &self.mix {
            let sample = mix.sample(self.seed, n);
            return (sample.epoch, sample.row);
        }
        let (epoch, position) = (n / self.num_rows, n % self.num_rows);
        (epoch, Permutation::new(self.seed, epoch, self.num_rows).apply(position))
    }

    /// The rows of a step: samples `step × rows_per_step` and on. A step may straddle two epochs. Where n processes share
    /// it, the r-th takes those from r·B/n to (r + 1)·B/n, so the global sequence is the same for every n.
    ///
    /// # Panics
    /// If the step lies beyond sample 2^64, which no run reaches.
    pub fn step(&self, step: u64) -> impl Iterator<Item = u64> + '_ {
        let rows = u64::from(self.rows_per_step);
        let first = step.checked_mul(rows).expect("fewer than 2^64 samples are ever drawn");
        (0..rows).map(move |i| self.sample(first + i).1)
    }
}

/// The order of one epoch: a bijection of `0..num_rows`.
#[derive(Clone, Debug)]
pub(crate) struct Permutation {
    num_rows: u64,
    /// Bits of the left and of the right half.
    halves: (u32, u32),
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// `num_rows` is at least 1.
    pub(crate) fn new(seed: u64, epoch: u64, num_rows: u64) -> Permutation {
        let bits = u64::BITS - (num_rows - 1).leading_zeros();
        let key =
            mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(GOLDEN.wrapping_mul(epoch.wrapping_add(1))));
        let mut keys = [0; ROUNDS];
        for (i, round_key) in (1..).zip(&mut keys) {
            *round_key = mix(key.wrapping_add(GOLDEN.wrapping_mul(i)));
        }
        Permutation { num_rows, halves: (bits / 2, bits.div_ceil(2)), keys }
    }

    /// The row at a position.
    pub(crate) fn apply(&self, position: u64) -> u64 {
        let mut x = position;
        // Ends because the network is a bijection: the cycle of `position` comes back below `num_rows`, at the latest
        // at `position` itself. The network is less than twice too large, so fewer than two turns are the average.
        loop {
            x = self.network(x);
            if x < self.num_rows {
                return x;
            }
        }
    }

    /// The position of a row: the inverse of [`Permutation::apply`].
    pub(crate) fn position(&self, row: u64) -> u64 {
        let mut x = row;
        loop {
            x = self.inverse_network(x);
            if x < self.num_rows {
                return x;
            }
        }
    }

    fn inverse_network(&self, x: u64) -> u64 {
        let (left_bits, right_bits) = self.halves;
        let (left_mask, right_mask) = ((1 << left_bits) - 1, (1 << right_bits) - 1);
        let (mut left, mut right) = (x >> right_bits, x & right_mask);
        for keys in self.keys.as_chunks::<2>().0.iter().rev() {
            right ^= mix(keys[1] ^ left) & right_mask;
            left ^= mix(keys[0] ^ right) & left_mask;
        }
        left << right_bits | right
    }

    fn network(&self, x: u64) -> u64 {
        let (left_bits, right_bits) = self.halves;
        let (left_mask, right_mask) = ((1 << left_bits) - 1, (1 << right_bits) - 1);
        let (mut left, mut right) = (x >> right_bits, x & right_mask);
        for keys in self.keys.as_chunks::<2>().0 {
            left ^= mix(keys[0] ^ right) & left_mask;
            right ^= mix(keys[1] ^ left) & right_mask;
        }
        left << right_bits | right
    }
}

/// splitmix64's finaliser.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::index;
    use proptest::prelude::*;

    fn order(seed: u64, epoch: u64, num_rows: u64) -> Vec<u64> {
        let permutation = Permutation::new(seed, epoch, num_rows);
        (0..num_rows).map(|position| permutation.apply(position)).collect()
    }

    fn assert_bijective(seed: u64, epoch: u64, num_rows: u64) {
        let mut rows = order(seed, epoch, num_rows);
        let permutation = Permutation::new(seed, epoch, num_rows);
        assert!((0..).zip(&rows).all(|(position, &row)| permutation.position(row) == position));
        rows.sort_unstable();
        assert!(rows.into_iter().eq(0..num_rows), "seed {seed}, epoch {epoch}, {num_rows} rows");
    }

    #[test]
    fn every_epoch_visits_every_row_once() {
        for num_rows in [1, 2, 3, 4, 5, 10, 15, 16, 17, 1000, 65_535, 65_536, 65_537] {
            for (seed, epoch) in [(0, 0), (7, 1), (u64::MAX, u64::MAX)] {
                assert_bijective(seed, epoch, num_rows);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_number_of_rows_is_permuted(seed: u64, epoch: u64, num_rows in 1u64..5000) {
            assert_bijective(seed, epoch, num_rows);
        }

        #[test]
        fn rows_are_in_range_at_any_size(seed: u64, num_rows in 1u64.., n: u64) {
            let (epoch, row) = BatchPlan::new(seed, num_rows, 1).unwrap().sample(n);
            prop_assert_eq!(epoch, n / num_rows);
            prop_assert!(row < num_rows);
        }
    }

    #[test]
    fn epochs_and_seeds_have_different_orders() {
        let base = order(1, 0, 1000);
        for other in [order(1, 1, 1000), order(2, 0, 1000), (0..1000).collect()] {
            // Two unrelated orders of 1000 agree in one place on average.
            let same = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 10, "{same} places agree");
        }
        assert_eq!(base, order(1, 0, 1000));
    }

    #[test]
    fn every_row_comes_at_every_position_equally_often() {
        for num_rows in [2, 3, 4, 5, 7, 10] {
            let epochs = 4000 * num_rows;
            let mut counts = vec![0u64; index(num_rows * num_rows)];
            for epoch in 0..epochs {
                for (position, row) in (0..).zip(order(3, epoch, num_rows)) {
                    counts[index(position * num_rows + row)] += 1;
                }
            }
            // Each count is binomial with mean 4000, hence a standard deviation below 64; allow five.
            assert!(counts.iter().all(|count| count.abs_diff(4000) < 320), "{num_rows} rows: {counts:?}");
        }
    }

    #[test]
    fn the_order_is_part_of_the_format() {
        // Computed by a separate program from the module's text. A change breaks every run that resumes.
        let check = |seed, num_rows, first: &[(u64, u64)]| {
            let plan = BatchPlan::new(seed, num_rows, 1).unwrap();
            let got: Vec<_> = (0..first.len() as u64).map(|n| plan.sample(n)).collect();
            assert_eq!(got, first, "seed {seed}, {num_rows} rows");
        };
        check(0, 1, GOLDEN_1);
        check(7, 5, GOLDEN_5);
        check(1337, 1000, GOLDEN_1000);
        check(u64::MAX, 1 << 40, GOLDEN_LARGE);
    }

    #[test]
    fn a_step_is_a_run_of_samples_and_may_straddle_epochs() {
        let plan = BatchPlan::new(9, 10, 4).unwrap();
        let rows = |step| plan.step(step).collect::<Vec<_>>();
        let all: Vec<u64> = (0..5).flat_map(rows).collect();
        assert_eq!(all, (0..20).map(|n| plan.sample(n).1).collect::<Vec<_>>());
        assert_eq!(all[..10], order(9, 0, 10));
        assert_eq!(all[10..], order(9, 1, 10));
        // Another batch size cuts the same sequence otherwise.
        let wide = BatchPlan::new(9, 10, 20).unwrap();
        assert_eq!(wide.step(0).collect::<Vec<_>>(), all);
    }

    #[test]
    fn nothing_to_visit_is_an_error() {
        let message = |rows, step| BatchPlan::new(0, rows, step).unwrap_err().to_string();
        assert_eq!(message(0, 1), "num_rows: must be at least 1, is 0");
        assert_eq!(message(1, 0), "rows_per_step: must be at least 1, is 0");
    }

    const GOLDEN_1: &[(u64, u64)] = &[(0, 0), (1, 0), (2, 0)];
    const GOLDEN_5: &[(u64, u64)] =
        &[(0, 1), (0, 4), (0, 2), (0, 3), (0, 0), (1, 1), (1, 3), (1, 4), (1, 2), (1, 0), (2, 0)];
    const GOLDEN_1000: &[(u64, u64)] =
        &[(0, 709), (0, 796), (0, 927), (0, 499), (0, 718), (0, 889), (0, 991), (0, 253)];
    const GOLDEN_LARGE: &[(u64, u64)] =
        &[(0, 297032125346), (0, 75794769626), (0, 806792569536), (0, 48438160521)];
}
