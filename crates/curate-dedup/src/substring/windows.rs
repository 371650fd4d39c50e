//! Hashes of windows: two polynomials modulo 2^61 - 1 whose points depend on a seed, 88 bits together.

use crate::words::finish;

const P: u64 = (1 << 61) - 1;
/// Bits of a key.
pub(super) const KEY_BITS: u32 = 88;

#[derive(Debug, Clone, Copy)]
pub(super) struct WindowHash {
    lanes: [Lane; 2],
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    salt: u64,
    base: u64,
    /// `base^length`: the weight of the unit that leaves a window.
    leaving: u64,
}

impl WindowHash {
    pub(super) fn new(length: usize, seed: u64) -> Self {
        let lane = |i: u64| {
            let salt = finish(2 * seed + i + 1);
            let base = finish(salt) % P;
            Lane { salt, base, leaving: (0..length).fold(1, |power, _| multiply(power, base)) }
        };
        Self { lanes: [lane(0), lane(1)] }
    }

    /// The keys of all windows in `count` units.
    pub(super) fn keys(
        &self,
        length: usize,
        count: usize,
        unit: impl Fn(usize) -> u64,
        mut found: impl FnMut(u128) -> crate::Result<()>,
    ) -> crate::Result<()> {
        let mut state = [0; 2];
        for end in 0..count {
            for (state, lane) in state.iter_mut().zip(&self.lanes) {
                *state = add(multiply(*state, lane.base), lane.value(unit(end)));
                if end >= length {
                    *state = add(*state, P - multiply(lane.value(unit(end - length)), lane.leaving));
                }
            }
            if end + 1 >= length {
                found(u128::from(state[0]) << 27 | u128::from(state[1] & ((1 << 27) - 1)))?;
            }
        }
        Ok(())
    }
}

impl Lane {
    /// Different units have different values in all but 2^-61 of seeds.
    fn value(&self, unit: u64) -> u64 {
        finish(unit ^ self.salt) % P
    }
}

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    add((product as u64) & P, (product >> 61) as u64)
}

fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= P { sum - P } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rolled_key_is_that_of_its_window_alone() {
        let hash = WindowHash::new(5, 3);
        let units: Vec<u64> = (0..40).map(|i| finish(i % 7)).collect();
        let mut rolled = Vec::new();
        hash.keys(
            5,
            units.len(),
            |i| units[i],
            |key| {
                rolled.push(key);
                Ok(())
            },
        )
        .unwrap();
        for (window, key) in units.windows(5).zip(&rolled) {
            let keep = |alone| {
                assert_eq!(alone, *key);
                Ok(())
            };
            hash.keys(5, 5, |i| window[i], keep).unwrap();
            assert!(key >> KEY_BITS == 0);
        }
        assert_eq!((rolled.len(), rolled[0]), (36, rolled[7]));
        assert!((1..7).all(|i| rolled[i] != rolled[0]));
    }
}
