//! Is this the kind of text that one wants more of? Scores by a trained model.
//!
//! [`Trainer`] makes a [`LinearModel`] of two piles of documents: those one wants (positives) and the pool that one
//! filters (negatives). [`Scorer`] applies it, or any fastText classifier, to a text. A score alone says little; the
//! [`Calibration`] beside the model says which score the best 10 % of the pool reach, and how often a score is right.

mod calibration;
mod features;
mod model;
mod scorer;
mod stage;
mod train;
#[cfg(test)]
mod tests;

pub use calibration::{Calibration, Decile};
pub use model::{About, LinearModel, QualityError};
pub use scorer::{ScoreScratch, Scorer};
pub use stage::{LOW_QUALITY_SCORE, ScoreStage};
pub use train::{TrainOptions, Trainer, hash_features, is_held_out};
