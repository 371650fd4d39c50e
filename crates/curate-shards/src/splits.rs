//! Held-out shares: which side of the split a document falls on.
//!
//! A document's side is a keyed hash of its own key and nothing else. Adding files, reordering them or cutting them
//! otherwise moves no document to another side, and documents with one key (say, the members of a cluster of
//! near-duplicates) stay together.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, Result};
use crate::format::is_split_name;

/// Name of the side that takes what no held-out share takes.
pub(crate) const TRAIN: &str = "train";

/// The sides of a set: `train` and any number of held-out shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Splits {
    held_out: Vec<HeldOut>,
}

#[derive(Clone, Debug, PartialEq)]
struct HeldOut {
    name: String,
    share: f64,
    /// Hashes below this, and not below an earlier one's, fall on this side.
    end: u64,
}

impl Splits {
    /// Everything is `train`.
    pub fn none() -> Splits {
        Splits { held_out: Vec::new() }
    }

    /// Reads `NAME=SHARE` pairs separated by commas, such as `val=0.05,test=0.01`; the empty text is [`Splits::none`].
    ///
    /// Shares are of documents (more exactly: of keys), lie between 0 and 1 and add up to less than 1. Names are
    /// lower-case letters, digits, `_` and `-`. Shares are laid end to end in the order given, so that another share
    /// added at the end takes its documents from `train` alone.
    ///
    /// # Errors
    /// [`Error::BadSplits`] with what is wrong.
    pub fn parse(spec: &str) -> Result<Splits> {
        let bad = |problem: String| Error::BadSplits { spec: spec.to_owned(), problem };
        let mut held_out: Vec<HeldOut> = Vec::new();
        let mut total = 0.0;
        for pair in spec.split(',').filter(|_| !spec.trim().is_empty()) {
            let (name, share) =
                pair.split_once('=').ok_or_else(|| bad(format!("{pair:?} is not NAME=SHARE")))?;
            let (name, share) = (name.trim(), share.trim());
            if !is_split_name(name) {
                return Err(bad(format!("the name {name:?} is not made of a-z, 0-9, _ and -")));
            }
            if name == TRAIN || held_out.iter().any(|other| other.name == name) {
                return Err(bad(format!("{name} is taken")));
            }
            let share: f64 = share.parse().map_err(|_| bad(format!("{share:?} is not a number")))?;
            if !(share > 0.0 && share < 1.0) {
                return Err(bad(format!("the share of {name} is {share}, not between 0 and 1")));
            }
            total += share;
            if total >= 1.0 {
                return Err(bad(format!("the shares add up to {total}, which leaves nothing for {TRAIN}")));
            }
            held_out.push(HeldOut { name: name.to_owned(), share, end: hashes_below(total) });
        }
        Ok(Splits { held_out })
    }

    /// The sides in order, `train` first; [`Splits::side`] is an index into this list.
    pub fn names(&self) -> Vec<&str> {
        std::iter::once(TRAIN).chain(self.held_out.iter().map(|side| side.name.as_str())).collect()
    }

    /// Side of the document with this key: xxh3-64 of the key's eight little-endian bytes, seeded, against the
    /// cumulative shares.
    pub fn side(&self, seed: u64, key: u64) -> usize {
        let hash = xxh3_64_with_seed(&key.to_le_bytes(), seed);
        self.held_out.iter().position(|side| hash < side.end).map_or(0, |i| i + 1)
    }
}

/// The specification that [`Splits::parse`] reads back.
impl std::fmt::Display for Splits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, side) in self.held_out.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}={}", side.name, side.share)?;
        }
        Ok(())
    }
}

/// How many of the 2^64 hashes make up a share.
#[expect(clippy::cast_possible_truncation, reason = "shares are below 1, and the cast saturates")]
fn hashes_below(share: f64) -> u64 {
    (share * 2f64.powi(64)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_accepts() {
        let check = |spec, names: &[&str], written| {
            let splits = Splits::parse(spec).unwrap();
            assert_eq!(splits.names(), names, "{spec}");
            assert_eq!(splits.to_string(), written);
            assert_eq!(Splits::parse(&splits.to_string()).unwrap(), splits);
        };
        check("", &["train"], "");
        check("  ", &["train"], "");
        check("val=0.05", &["train", "val"], "val=0.05");
        check(" val = 0.05 , test=1e-2", &["train", "val", "test"], "val=0.05,test=0.01");
        check("held-out_2=0.999", &["train", "held-out_2"], "held-out_2=0.999");
    }

    #[test]
    fn parse_refuses_and_says_why() {
        let check = |spec, problem| {
            let error = Splits::parse(spec).unwrap_err();
            assert_eq!(error.to_string(), format!("split {spec:?}: {problem}"));
            assert!(error.hint().is_some());
        };
        check("val", "\"val\" is not NAME=SHARE");
        check("val=0.1,", "\"\" is not NAME=SHARE");
        check("val=x", "\"x\" is not a number");
        check("val=0", "the share of val is 0, not between 0 and 1");
        check("val=1", "the share of val is 1, not between 0 and 1");
        check("val=-0.1", "the share of val is -0.1, not between 0 and 1");
        check("val=NaN", "the share of val is NaN, not between 0 and 1");
        check("train=0.1", "train is taken");
        check("val=0.1,val=0.1", "val is taken");
        check("a/b=0.1", "the name \"a/b\" is not made of a-z, 0-9, _ and -");
        check("Val=0.1", "the name \"Val\" is not made of a-z, 0-9, _ and -");
        check("=0.1", "the name \"\" is not made of a-z, 0-9, _ and -");
        check("a=0.5,b=0.5", "the shares add up to 1, which leaves nothing for train");
    }

    #[test]
    fn shares_are_near_nominal_and_depend_on_the_seed() {
        const KEYS: u64 = 200_000;
        let splits = Splits::parse("val=0.05,test=0.01").unwrap();
        let count = |seed| {
            let mut counts = [0u64; 3];
            (0..KEYS).for_each(|key| counts[splits.side(seed, key)] += 1);
            counts
        };
        for seed in [0, 1, u64::MAX] {
            let counts = count(seed);
            // Five standard deviations of a binomial of 200 000 at 0.05 and 0.01 are 487 and 222 documents.
            assert!(counts[1].abs_diff(KEYS / 20) < 487, "{counts:?}");
            assert!(counts[2].abs_diff(KEYS / 100) < 222, "{counts:?}");
        }
        assert!((0..1000).any(|key| splits.side(0, key) != splits.side(1, key)));
    }

    #[test]
    fn sides_are_stable() {
        // Part of what a set promises: these values may not change between versions.
        let splits = Splits::parse("val=0.3,test=0.3").unwrap();
        let sides: Vec<usize> = (0..16).map(|key| splits.side(7, key)).collect();
        assert_eq!(sides, SIDES_OF_SEED_7);
        // Another share at the end moves documents out of train only.
        let (small, large) = (Splits::parse("val=0.3").unwrap(), splits);
        assert!((0..1000).all(|key| small.side(7, key) == 0 || large.side(7, key) == small.side(7, key)));
    }

    const SIDES_OF_SEED_7: [usize; 16] = [1, 0, 2, 1, 0, 1, 0, 0, 0, 1, 1, 1, 2, 1, 1, 1];
}
