//! Training: logistic regression over hashed features.
//!
//! Hashing the words is most of the work and any thread can do it ([`hash_features`]); the descent itself is serial,
//! over documents in an order that the seed gives. The result therefore depends on the documents, their order and the
//! options alone. Memory is 4 bytes a feature, which is about 8 bytes a word, and 8 bytes a weight.

use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use super::features::each_feature;
use super::model::{About, LinearModel, QualityError, check_bits};

/// Settings of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// 2^bits weights of two bytes each.
    pub bits: u32,
    pub epochs: u32,
    /// Step length of AdaGrad, in units of the score's logit.
    pub learning_rate: f32,
    /// Share of the documents that only the calibration sees.
    pub held_out: f64,
    /// Features of a document beyond this many are not looked at in training.
    pub max_features: usize,
    pub seed: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { bits: 22, epochs: 10, learning_rate: 5.0, held_out: 0.1, max_features: 1 << 16, seed: 1 }
    }
}

/// The features of a text; `features` is cleared first.
pub fn hash_features(text: &str, options: &TrainOptions, features: &mut Vec<u32>) {
    features.clear();
    each_feature(text, options.bits, |feature| {
        if features.len() < options.max_features {
            features.push(feature);
        }
    });
}

/// True if document number `ordinal` of its kind is held out of training.
pub fn is_held_out(ordinal: u64, is_positive: bool, seed: u64, share: f64) -> bool {
    let mut random = Random(seed ^ ordinal.wrapping_mul(2).wrapping_add(u64::from(is_positive)) << 1);
    random.next();
    (random.next() >> 11) as f64 / (1u64 << 53) as f64 <= share && share > 0.0
}

/// Labelled documents as features, one after the other.
#[derive(Debug)]
pub struct Trainer {
    options: TrainOptions,
    features: Vec<u32>,
    /// Where each document's features end, and whether it is a positive.
    documents: Vec<(usize, bool)>,
    /// Documents so far: negatives, positives.
    seen: [u64; 2],
    held_out: Vec<usize>,
}

impl Trainer {
    /// # Errors
    /// More or fewer bits than a model can have.
    pub fn new(options: TrainOptions) -> Result<Self, QualityError> {
        check_bits(options.bits)?;
        Ok(Self { options, features: Vec::new(), documents: Vec::new(), seen: [0; 2], held_out: Vec::new() })
    }

    pub fn options(&self) -> &TrainOptions {
        &self.options
    }

    /// Adds a document by its [`hash_features`].
    pub fn add(&mut self, features: &[u32], is_positive: bool) {
        let seen = &mut self.seen[usize::from(is_positive)];
        if is_held_out(*seen, is_positive, self.options.seed, self.options.held_out) {
            self.held_out.push(self.documents.len());
        }
        *seen += 1;
        self.features.extend_from_slice(features);
        self.documents.push((self.features.len(), is_positive));
    }

    /// Trains, and measures the result on what was held out.
    ///
    /// # Errors
    /// Positives or negatives are missing.
    pub fn finish(self) -> Result<LinearModel, QualityError> {
        let [negatives, positives] = self.seen;
        if negatives == 0 || positives == 0 {
            return Err(QualityError::OneKind { positives, negatives });
        }
        let mut order: Vec<usize> = (0..self.documents.len()).collect();
        let mut held_out = self.held_out.iter().peekable();
        order.retain(|i| held_out.next_if(|held| *held == i).is_none());
        let mut random = Random(self.options.seed);
        let mut descent = Descent::new(&self.options);
        for _ in 0..self.options.epochs {
            random.shuffle(&mut order);
            for i in &order {
                let (features, is_positive) = self.document(*i);
                descent.step(features, is_positive);
            }
        }
        let about = About {
            options: self.options.clone(),
            positives,
            negatives,
            calibration: Calibration::measure(&[]),
        };
        let mut model = LinearModel::new(&descent.weights(), descent.bias.0, about);
        let score = |i: &usize| {
            let (features, is_positive) = self.document(*i);
            (model.score_features(features), is_positive)
        };
        let scores: Vec<_> = self.held_out.iter().map(score).collect();
        model.set_calibration(Calibration::measure(&scores));
        Ok(model)
    }

    fn document(&self, i: usize) -> (&[u32], bool) {
        let start = if i == 0 { 0 } else { self.documents[i - 1].0 };
        let (end, is_positive) = self.documents[i];
        (&self.features[start..end], is_positive)
    }
}

/// AdaGrad (Duchi, Hazan and Singer 2011): rare features take long steps, frequent ones short ones.
struct Descent {
    /// Weight and sum of squared gradients, side by side: one cache miss serves both.
    parameters: Vec<(f32, f32)>,
    bias: (f32, f32),
    learning_rate: f32,
}

/// What the sum of squared gradients begins with. A feature that makes up 1 % of a text has gradients near 0.01 at
/// first: below that a step is damped, so that a word seen once does not decide.
const SQUARES_AT_START: f32 = 1e-4;

impl Descent {
    fn new(options: &TrainOptions) -> Self {
        Self {
            parameters: vec![(0.0, SQUARES_AT_START); 1 << options.bits],
            bias: (0.0, 1.0),
            learning_rate: options.learning_rate,
        }
    }

    fn step(&mut self, features: &[u32], is_positive: bool) {
        if features.is_empty() {
            return;
        }
        let n = features.len() as f32;
        let sum: f64 = features.iter().map(|f| f64::from(self.parameters[*f as usize].0)).sum();
        let z = sum / f64::from(n) + f64::from(self.bias.0);
        let error = (1.0 / (1.0 + (-z).exp())) as f32 - f32::from(u8::from(is_positive));
        let gradient = error / n;
        for feature in features {
            Self::move_by(&mut self.parameters[*feature as usize], gradient, self.learning_rate);
        }
        Self::move_by(&mut self.bias, error, 0.1);
    }

    #[inline]
    fn move_by((weight, squares): &mut (f32, f32), gradient: f32, learning_rate: f32) {
        *squares += gradient * gradient;
        *weight -= learning_rate * gradient / squares.sqrt();
    }

    fn weights(&self) -> Vec<f32> {
        self.parameters.iter().map(|(weight, _)| *weight).collect()
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fisher–Yates.
    fn shuffle(&mut self, order: &mut [usize]) {
        for i in (1..order.len()).rev() {
            let j = (u128::from(self.next()) * (i as u128 + 1)) >> 64;
            order.swap(i, j as usize);
        }
    }
}
