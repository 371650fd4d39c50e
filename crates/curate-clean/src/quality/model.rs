//! The model and its file.
//!
//! A file is, all numbers little-endian:
//!
//! ```text
//! 8 bytes   magic "CURATEQM"
//! u32       version, 1
//! u32       bits: there are 2^bits weights, 8 to 28
//! f32       scale: a weight is its number times this
//! f32       bias
//! u64       length of the JSON
//! …         JSON: the calibration, and what the model was trained with
//! i16 …     2^bits weights
//! u64       xxh3-64 of everything before
//! ```

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::calibration::Calibration;
use super::features::each_feature;
use super::train::TrainOptions;

pub(crate) const MAGIC: &[u8; 8] = b"CURATEQM";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 32;
const BITS: std::ops::RangeInclusive<u32> = 8..=28;

/// What is wrong with a model file, or with a request to train one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QualityError {
    #[error("neither a quality model nor a fastText model")]
    UnknownFormat,
    #[error("quality model of version {found}; this program reads version {VERSION}")]
    Version { found: u32 },
    #[error("the quality model is damaged: {what}")]
    Damaged { what: String },
    #[error("bits must be {} to {}, found {found}", BITS.start(), BITS.end())]
    Bits { found: u32 },
    #[error("training needs both positive and negative documents; found {positives} and {negatives}")]
    OneKind { positives: u64, negatives: u64 },
    #[error("no label `{name}` in the model; it has {}", some(known))]
    NoLabel { name: String, known: Vec<String> },
    #[error("the model has {} labels, and none was chosen", known.len())]
    WhichLabel { known: Vec<String> },
    #[error(transparent)]
    FastText(#[from] crate::fasttext::FastTextError),
}

/// The first few of many names.
fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
    format!("{}{}", shown.join(", "), if names.len() > 8 { ", …" } else { "" })
}

impl QualityError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownFormat => {
                "models come from `curate train-classifier`, or are fastText's .bin and .ftz".to_owned()
            }
            Self::Version { .. } => "train the model anew, or use the curate that wrote it".to_owned(),
            Self::Damaged { .. } => "copy the file again, or train the model anew".to_owned(),
            Self::NoLabel { .. } => "--label takes one of the model's labels".to_owned(),
            Self::WhichLabel { known } => format!("choose one with --label; the model has {}", some(known)),
            Self::OneKind { .. } => "--pos and --neg each take files with documents".to_owned(),
            Self::Bits { .. } => return None,
            Self::FastText(error) => return error.hint(),
        })
    }
}

/// A hashed linear model: a weight for each word and each pair of words, by hash.
///
/// The score of a text is the logistic function of the bias plus the mean weight of its features, so it does not
/// grow with the length of the text.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearModel {
    bits: u32,
    scale: f32,
    bias: f32,
    weights: Vec<i16>,
    about: About,
}

/// The JSON part of a model's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub options: TrainOptions,
    pub positives: u64,
    pub negatives: u64,
    pub calibration: Calibration,
}

impl LinearModel {
    /// Rounds `weights`, 2^bits of them, to 16 bits each.
    pub(super) fn new(weights: &[f32], bias: f32, about: About) -> Self {
        let most = weights.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        let scale = if most > 0.0 { most / f32::from(i16::MAX) } else { 1.0 };
        let weights: Vec<i16> = weights.iter().map(|w| (w / scale).round() as i16).collect();
        Self { bits: weights.len().trailing_zeros(), scale, bias, weights, about }
    }

    pub fn about(&self) -> &About {
        &self.about
    }

    pub(super) fn set_calibration(&mut self, calibration: Calibration) {
        self.about.calibration = calibration;
    }

    /// The score of `text`, 0 to 1; that of the bias for a text without words.
    ///
    /// Weights are summed as integers: the same text has the same score on every machine but for the exponential.
    pub fn score(&self, text: &str) -> f32 {
        let mut sum = 0i64;
        let mask = self.weights.len() - 1;
        let n =
            each_feature(text, self.bits, |feature| sum += i64::from(self.weights[feature as usize & mask]));
        self.score_of(sum, n)
    }

    /// The score of features that were hashed before.
    pub(super) fn score_features(&self, features: &[u32]) -> f32 {
        let sum = features.iter().map(|feature| i64::from(self.weights[*feature as usize])).sum();
        self.score_of(sum, features.len() as u64)
    }

    fn score_of(&self, sum: i64, n: u64) -> f32 {
        let mean = if n == 0 { 0.0 } else { sum as f64 / n as f64 };
        let z = f64::from(self.bias) + mean * f64::from(self.scale);
        (1.0 / (1.0 + (-z).exp())) as f32
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let about = serde_json::to_vec(&self.about).expect("plain data");
        let mut out = Vec::with_capacity(HEAD_BYTES + about.len() + self.weights.len() * 2 + 8);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.bits.to_le_bytes());
        out.extend_from_slice(&self.scale.to_le_bytes());
        out.extend_from_slice(&self.bias.to_le_bytes());
        out.extend_from_slice(&(about.len() as u64).to_le_bytes());
        out.extend_from_slice(&about);
        self.weights.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// Another format, an unknown version, a wrong length or checksum.
    pub fn read(bytes: &[u8]) -> Result<Self, QualityError> {
        let damaged = |what: &str| QualityError::Damaged { what: what.to_owned() };
        if !bytes.starts_with(MAGIC) {
            return Err(QualityError::UnknownFormat);
        }
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(damaged("it ends within its head"));
        };
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let found = u32::from_le_bytes(word(8));
        if found != VERSION {
            return Err(QualityError::Version { found });
        }
        let Some((body, checksum)) = bytes.split_last_chunk::<8>() else {
            return Err(damaged("it has no checksum"));
        };
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(damaged("bad checksum"));
        }
        let bits = u32::from_le_bytes(word(12));
        if !BITS.contains(&bits) {
            return Err(QualityError::Bits { found: bits });
        }
        let about_len =
            u64::from(u32::from_le_bytes(word(24))) | u64::from(u32::from_le_bytes(word(28))) << 32;
        let rest = &rest[..rest.len().saturating_sub(8)];
        let weights_len = 2usize << bits;
        if about_len.checked_add(weights_len as u64) != Some(rest.len() as u64) {
            return Err(damaged("its length is not what its head says"));
        }
        let (about, weights) = rest.split_at(about_len as usize);
        let about = serde_json::from_slice(about).map_err(|e| damaged(&e.to_string()))?;
        let weights = weights.chunks_exact(2).map(|w| i16::from_le_bytes([w[0], w[1]])).collect();
        let (scale, bias) = (f32::from_le_bytes(word(16)), f32::from_le_bytes(word(20)));
        if !(scale.is_finite() && bias.is_finite()) {
            return Err(damaged("its scale or bias is no number"));
        }
        Ok(Self { bits, scale, bias, weights, about })
    }
}

pub(super) fn check_bits(bits: u32) -> Result<(), QualityError> {
    if BITS.contains(&bits) { Ok(()) } else { Err(QualityError::Bits { found: bits }) }
}
