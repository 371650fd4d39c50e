//! One interface to both kinds of models.

use super::calibration::Calibration;
use super::model::{LinearModel, MAGIC, QualityError};
use crate::fasttext::{Model, Newlines, PredictScratch};

/// A model that gives texts scores from 0 to 1.
#[derive(Debug)]
pub struct Scorer(Kind);

#[derive(Debug)]
enum Kind {
    Linear(Box<LinearModel>),
    FastText { model: Box<Model>, label: usize, newlines: Newlines },
}

/// Buffers that scoring reuses.
#[derive(Debug, Default)]
pub struct ScoreScratch(PredictScratch);

impl Scorer {
    /// Reads a model of either kind. `label` is the one of a fastText model whose probability is the score; it may be
    /// left out if the model has two labels and one of them has a name for what one wants: `hq`, `pos`, `positive`,
    /// `good`, `1`.
    ///
    /// # Errors
    /// Bytes that are no model, or no such label.
    pub fn read(bytes: &[u8], label: Option<&str>, newlines: Newlines) -> Result<Self, QualityError> {
        if bytes.starts_with(MAGIC) {
            return match label {
                None => Ok(Self(Kind::Linear(Box::new(LinearModel::read(bytes)?)))),
                Some(name) => Err(QualityError::NoLabel { name: name.to_owned(), known: Vec::new() }),
            };
        }
        if !bytes.starts_with(&crate::fasttext::MAGIC.to_le_bytes()) {
            return Err(QualityError::UnknownFormat);
        }
        let model = Model::read(bytes)?;
        let known = || model.labels().to_vec();
        let label = match label {
            Some(name) => model
                .label(name)
                .ok_or_else(|| QualityError::NoLabel { name: name.to_owned(), known: known() })?,
            None => ["hq", "pos", "positive", "good", "1"]
                .iter()
                .find_map(|name| model.label(name))
                .filter(|_| model.labels().len() == 2)
                .ok_or_else(|| QualityError::WhichLabel { known: known() })?,
        };
        Ok(Self(Kind::FastText { model: Box::new(model), label, newlines }))
    }

    /// The score of `text`, 0 to 1. A fastText model that knows nothing of a text gives 0.
    pub fn score(&self, text: &str, scratch: &mut ScoreScratch) -> f32 {
        match &self.0 {
            Kind::Linear(model) => model.score(text),
            Kind::FastText { model, label, newlines } => {
                model.probability(text, *newlines, *label, &mut scratch.0)
            }
        }
    }

    /// What the model's file says of its scores; fastText's files say nothing.
    pub fn calibration(&self) -> Option<&Calibration> {
        match &self.0 {
            Kind::Linear(model) => Some(&model.about().calibration),
            Kind::FastText { .. } => None,
        }
    }
}
