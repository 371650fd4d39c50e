//! The `datatrove` profile: the signatures of datatrove 0.10's MinHash, bit for bit, for words between white space.
//!
//! What `MinhashDedupSignature` computes with its default configuration and a tokenizer that splits on white space:
//!
//! 1. [`simplify`](Simplified): lower case; each number (`\p{Nd}+`, or two of these around one of `.,،٫⎖⎗⎘`)
//!    becomes `0`; some ninety punctuation marks and all controls become spaces; NFD without the marks of category
//!    Mn; words.
//! 2. Each run of `ngram` words, joined by single spaces, is hashed with xxh64. Fewer words: no signature, and the
//!    document is never a duplicate.
//! 3. Permutation `i` takes a hash `h` to `(h a_i + b_i mod 2^64) mod (2^61 - 1)`, and the signature is the minimum
//!    of each. All `a` and then all `b` are drawn by numpy's `RandomState(seed).randint`.
//!
//! The result depends on the Unicode version where text has characters that are newer than 2021: lower case and
//! decomposition are those of the Rust libraries, marks those of CPython 3.11, digits those of the `regex` package.

mod permutations;
mod simplify;
mod tables;

use xxhash_rust::xxh3::xxh3_64_with_seed;
use xxhash_rust::xxh64::xxh64;

use self::permutations::Permutations;
use self::simplify::Simplified;
use crate::banding::{Banding, MAX_ROWS};
use crate::error::{Error, Result};

/// Signs texts as datatrove does.
#[derive(Debug, Clone)]
pub struct DatatroveHasher {
    banding: Banding,
    ngram: usize,
    permutations: Permutations,
}

/// Buffers of [`DatatroveHasher`], to be reused from text to text.
#[derive(Debug, Default)]
pub struct DatatroveBuffers {
    simplified: Simplified,
    hashes: Vec<u64>,
    signature: Vec<u64>,
}

impl DatatroveHasher {
    /// An error if numpy would refuse the seed, which has 32 bits.
    ///
    /// # Panics
    ///
    /// If `ngram` is 0.
    pub fn new(banding: Banding, ngram: usize, seed: u64) -> Result<Self> {
        assert!(ngram > 0, "a shingle has at least one word");
        let seed = u32::try_from(seed).map_err(|_| Error::DatatroveSeed { got: seed })?;
        Ok(Self { banding, ngram, permutations: Permutations::new(banding.num_perm(), seed) })
    }

    pub fn banding(&self) -> Banding {
        self.banding
    }

    /// The `bands * rows` minima of a text; `None` if it has fewer than `ngram` words.
    pub fn signature<'b>(&self, text: &str, buffers: &'b mut DatatroveBuffers) -> Option<&'b [u64]> {
        let DatatroveBuffers { simplified, hashes, signature } = buffers;
        hashes.clear();
        hash_windows(self.ngram, text, simplified, hashes);
        if hashes.is_empty() {
            return None;
        }
        self.sign(hashes, signature);
        Some(signature)
    }

    /// Replaces `signature` by the minima of the hashes.
    pub(crate) fn sign(&self, hashes: &[u64], signature: &mut Vec<u64>) {
        self.permutations.minima(hashes, signature);
    }

    /// Appends one key for each band: the xxh3-64 of its rows as little-endian bytes, seeded with its number.
    ///
    /// # Panics
    ///
    /// If the signature was made with another banding.
    pub fn band_keys(&self, signature: &[u64], keys: &mut Vec<u64>) {
        assert_eq!(signature.len(), self.banding.num_perm(), "the signature has another banding");
        let mut bytes = [0; 8 * MAX_ROWS as usize];
        let rows = self.banding.rows as usize;
        keys.extend(signature.chunks_exact(rows).enumerate().map(|(band, minima)| {
            for (to, minimum) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(minima) {
                *to = minimum.to_le_bytes();
            }
            xxh3_64_with_seed(&bytes[..8 * rows], band as u64)
        }));
    }
}

/// Appends the xxh64 of each run of `ngram` words of the simplified text; none if it has fewer words.
pub(crate) fn hash_windows(ngram: usize, text: &str, simplified: &mut Simplified, hashes: &mut Vec<u64>) {
    simplified.read(text);
    hashes.extend(simplified.windows(ngram).map(|window| xxh64(window, 0)));
}

/// What the shingler needs to know of this profile.
pub(crate) use self::simplify::Simplified as DatatroveText;

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher() -> DatatroveHasher {
        DatatroveHasher::new(Banding::new(14, 8).unwrap(), 5, 1).unwrap()
    }

    #[test]
    fn goldens_of_the_package() {
        // Documents of our own; each line: text, then the signature that datatrove 0.10.1 gave, or null.
        let goldens = include_str!("../../goldens/datatrove.jsonl");
        let mut buffers = DatatroveBuffers::default();
        let mut signed = 0;
        for line in goldens.lines() {
            let golden: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = golden["text"].as_str().unwrap();
            let expected: Option<Vec<u64>> = serde_json::from_value(golden["signature"].clone()).unwrap();
            let got = hasher().signature(text, &mut buffers).map(<[u64]>::to_vec);
            assert_eq!(got, expected, "{text:?}");
            signed += usize::from(got.is_some());
        }
        assert!(signed >= 20, "{signed}");
    }

    #[test]
    fn few_words_have_no_signature() {
        let mut buffers = DatatroveBuffers::default();
        for (text, signed) in [
            ("", false),
            ("a b c d", false),
            ("a, b. c - d", false),
            ("a b c d e", true),
            ("1.2.3.4.5 a b", true),
        ] {
            assert_eq!(hasher().signature(text, &mut buffers).is_some(), signed, "{text:?}");
        }
    }

    #[test]
    fn seeds_are_those_of_numpy() {
        let error = DatatroveHasher::new(Banding::new(1, 1).unwrap(), 5, 1 << 32).unwrap_err();
        assert_eq!(
            error.to_string(),
            "seed 4294967296: expected 0..=4294967295, the seeds of numpy's RandomState"
        );
    }
}
