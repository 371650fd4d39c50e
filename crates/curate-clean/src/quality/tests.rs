//! Training, scoring, and files that come back.

use proptest::prelude::*;

use super::*;
use crate::fasttext::Newlines;

const GOOD: [&str; 3] = ["the ripe apple", "a sweet pear and a plum", "cherries in the bowl"];
const POOR: [&str; 3] = ["click here to buy now", "cookies policy accept", "sign in to buy more"];

fn options() -> TrainOptions {
    TrainOptions { bits: 12, held_out: 0.2, ..TrainOptions::default() }
}

fn trained(options: TrainOptions) -> LinearModel {
    let mut trainer = Trainer::new(options).unwrap();
    let mut features = Vec::new();
    for i in 0..60 {
        for (texts, is_positive) in [(GOOD, true), (POOR, false)] {
            let text = format!("{} {}", texts[i % 3], texts[(i / 3) % 3]);
            hash_features(&text, trainer.options(), &mut features);
            trainer.add(&features, is_positive);
        }
    }
    trainer.finish().unwrap()
}

#[test]
fn what_was_wanted_scores_higher() {
    let model = trained(options());
    let calibration = &model.about().calibration;
    assert_eq!((model.about().positives, model.about().negatives), (60, 60));
    assert!(calibration.positives + calibration.negatives > 10);
    assert_eq!(calibration.auc, Some(1.0));
    assert!(model.score("the apple and the pear") > 0.6 && model.score("buy cookies here now") < 0.4);
    let nothing = model.score("");
    assert_eq!(nothing, model.score(" \n"));
    assert!((0.2..0.8).contains(&nothing), "{nothing}");
}

#[test]
fn training_repeats_itself_and_follows_its_seed() {
    assert_eq!(trained(options()).to_bytes(), trained(options()).to_bytes());
    assert_ne!(trained(options()).to_bytes(), trained(TrainOptions { seed: 2, ..options() }).to_bytes());
}

#[test]
fn one_pile_is_not_enough() {
    let mut trainer = Trainer::new(options()).unwrap();
    trainer.add(&[1, 2], true);
    assert_eq!(trainer.finish().unwrap_err(), QualityError::OneKind { positives: 1, negatives: 0 });
    assert!(Trainer::new(TrainOptions { bits: 40, ..options() }).is_err());
}

#[test]
fn files_come_back_and_damage_is_named() {
    let model = trained(options());
    let bytes = model.to_bytes();
    let back = LinearModel::read(&bytes).unwrap();
    assert_eq!(back.score("the apple").to_bits(), model.score("the apple").to_bits());
    assert_eq!(back.about().calibration.negative_percentiles, model.about().calibration.negative_percentiles);
    assert_eq!(back.about().options, model.about().options);
    let check = |bytes: &[u8], part: &str| {
        let error = Scorer::read(bytes, None, Newlines::Space).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.hint().is_some());
    };
    check(b"", "neither a quality model");
    check(b"CURATEQM", "ends within its head");
    check(&bytes[..bytes.len() - 1], "bad checksum");
    let mut other = bytes.clone();
    other[8] = 2;
    check(&other, "version 2");
    other[8] = 1;
    other[100] ^= 1;
    check(&other, "bad checksum");
}

#[test]
fn a_fasttext_label_must_be_named_or_obvious() {
    let bytes =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/fasttext/softmax.bin")).unwrap();
    let check = |label, part: &str| {
        let error = Scorer::read(&bytes, label, Newlines::Space).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    check(None, "5 labels, and none was chosen");
    check(Some("wine"), "no label `wine`");
    let scorer = Scorer::read(&bytes, Some("__label__water"), Newlines::Space).unwrap();
    let mut scratch = ScoreScratch::default();
    assert!(scorer.score("the river to the sea", &mut scratch) > 0.9);
    assert!(scorer.score("bread and butter", &mut scratch) < 0.1);
}

proptest! {
    /// The features that training saw are those that scoring sees.
    #[test]
    fn scores_are_those_of_the_features(text: String) {
        let model = trained(options());
        let mut features = Vec::new();
        hash_features(&text, &options(), &mut features);
        prop_assert_eq!(model.score(&text).to_bits(), model.score_features(&features).to_bits());
    }

    #[test]
    fn damaged_files_never_panic(at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = trained(options()).to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        // A right checksum, so that what comes after it is reached.
        let end = bytes.len() - 8;
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(model) = LinearModel::read(&bytes) {
            model.score("some words");
        }
    }
}
