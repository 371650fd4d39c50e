//! The stage that scores documents, and drops those that score too low.

use curate_core::{Counters, Document, Dropped, Mapper, Never, Value, Verdict, Work};

use super::scorer::{ScoreScratch, Scorer};

/// The reason of a document whose score is below the threshold.
pub const LOW_QUALITY_SCORE: &str = "low_quality_score";

/// Writes the score of each document into a field of its record.
#[derive(Debug)]
pub struct ScoreStage {
    pub scorer: Scorer,
    /// Dotted path of the field.
    pub field: String,
    /// Documents below this score are dropped.
    pub drop_below: Option<f32>,
}

impl Mapper for ScoreStage {
    type Work = Never;
    type Scratch = ScoreScratch;

    fn map(&self, doc: &mut Document<'_>, scratch: &mut ScoreScratch, _: &mut Counters) -> Work<Never> {
        let score = self.scorer.score(doc.text(), scratch);
        // Display gives the shortest decimal that reads back as this number, without an exponent: sound JSON.
        doc.set_field(&self.field, format!("{score}"));
        match self.drop_below {
            Some(threshold) if score < threshold => Work::Decided(Verdict::Drop(Dropped {
                reason: LOW_QUALITY_SCORE.into(),
                proof: vec![
                    ("score", Value::Number(decimal(score))),
                    ("threshold", Value::Number(decimal(threshold))),
                ],
            })),
            _ => Work::keep(),
        }
    }
}

/// The number that the shortest decimal of `x` stands for: 0.1 and not 0.10000000149.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().expect("a float prints as a number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fasttext::Newlines;

    #[test]
    fn a_score_is_written_and_judged() {
        let bytes =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/fasttext/softmax.bin"))
                .unwrap();
        let scorer = Scorer::read(&bytes, Some("water"), Newlines::Space).unwrap();
        let stage = ScoreStage { scorer, field: "m.q".to_owned(), drop_below: Some(0.5) };
        let check = |text: &str, kept: bool| {
            let mut doc = Document::new(b"", "id", "", text);
            let work = stage.map(&mut doc, &mut ScoreScratch::default(), &mut Counters::default());
            let [(path, score)] = doc.set_fields() else { panic!("one field") };
            assert_eq!(path, "m.q");
            let score: f64 = score.parse().unwrap();
            assert_eq!(matches!(work, Work::Decided(Verdict::Keep)), kept, "{text}: {score}");
            assert_eq!(score >= 0.5, kept);
            if let Work::Decided(Verdict::Drop(dropped)) = work {
                assert_eq!(&*dropped.reason, LOW_QUALITY_SCORE);
                assert_eq!(dropped.proof[0], ("score", Value::Number(score)));
            }
        };
        check("river sea water rain", true);
        check("bread flour oven", false);
    }
}
