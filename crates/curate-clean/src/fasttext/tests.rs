//! Models that the reference program trained, and what it says of texts; then models that no program would write.

use proptest::prelude::*;

use super::*;

/// Fixtures are written by `python/goldens/fasttext.py` with the official package.
fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/../../fixtures/fasttext/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every prediction of the reference for every model: labels in order, probabilities to 1e-5.
#[test]
fn predictions_are_those_of_the_reference() {
    let goldens: serde_json::Value = serde_json::from_slice(&fixture("goldens.json")).unwrap();
    let texts: Vec<&str> = goldens["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let models = goldens["models"].as_object().unwrap();
    assert!(models.len() >= 10, "every loss, dense and quantised");
    let mut scratch = PredictScratch::default();
    for (name, predictions) in models {
        let model = Model::read(&fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (text, expected) in texts.iter().zip(predictions.as_array().unwrap()) {
            let found = model.predict(text, Newlines::Space, 10, 0.0, &mut scratch);
            let expected = expected.as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{name}: {text:?}");
            for (found, expected) in found.iter().zip(expected) {
                let (label, p) = (expected[0].as_str().unwrap(), expected[1].as_f64().unwrap());
                assert_eq!(model.labels()[found.label], label, "{name}: {text:?}");
                assert!((f64::from(found.probability) - p).abs() < 1e-5, "{name}: {text:?}: {found:?}, {p}");
            }
        }
    }
}

#[test]
fn thresholds_and_k_cut_the_same_list() {
    let mut scratch = PredictScratch::default();
    for name in ["softmax.bin", "hs.ftz", "ova.bin"] {
        let model = Model::read(&fixture(name)).unwrap();
        let text = "the river carries water to the sea";
        let all = model.predict(text, Newlines::Space, 10, 0.0, &mut scratch).to_vec();
        assert!(all.len() > 2 && all.windows(2).all(|w| w[0].probability >= w[1].probability), "{name}");
        assert_eq!(model.predict(text, Newlines::Space, 2, 0.0, &mut scratch), &all[..2], "{name}");
        let above = all.iter().filter(|p| p.probability > all[1].probability - 1e-4).count();
        let found = model.predict(text, Newlines::Space, 10, all[1].probability - 1e-4, &mut scratch);
        assert_eq!(found, &all[..above], "{name}");
        assert!(model.predict(text, Newlines::Space, 0, 0.0, &mut scratch).is_empty(), "{name}");
    }
}

#[test]
fn line_ends_separate_or_vanish() {
    let model = Model::read(&fixture("softmax.bin")).unwrap();
    let mut scratch = PredictScratch::default();
    let mut of = |text, newlines| model.predict(text, newlines, 9, 0.0, &mut scratch).to_vec();
    assert_eq!(of("river\nwater", Newlines::Space), of("river water", Newlines::Space));
    assert_eq!(of("ri\nver wa\nter", Newlines::Remove), of("river water", Newlines::Space));
    assert_ne!(of("ri\nver", Newlines::Space), of("ri\nver", Newlines::Remove));
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let model = fixture("softmax.bin");
    let check = |bytes: &[u8], part: &str| {
        let error = Model::read(bytes).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    check(b"", "ends at byte 0, within the magic number");
    check(b"{\"text\":\"x\"}", "not a fastText model");
    check(&model[..model.len() - 1], "within a matrix");
    let with = |at: usize, value: i32| {
        let mut bytes = model.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    check(&with(4, 13), "version 13");
    check(&with(8, -1), "dim at byte");
    check(&with(36, 1), "word vectors");
    check(&with(64, i32::MAX), "size of the dictionary");
}

#[test]
fn a_trained_model_reads_back_and_knows_its_texts() {
    let documents = [(0, "a red apple and a red cherry"), (1, "a grey stone and a grey wall")].repeat(20);
    let options =
        FastTextOptions { dim: 4, lr: 0.5, buckets: 64, epochs: 20, min_count: 1, ..Default::default() };
    let bytes = train(&documents, &["fruit", "rock"], &options).unwrap();
    assert_eq!(bytes, train(&documents, &["fruit", "rock"], &options).unwrap(), "the same bytes each time");
    let model = Model::read(&bytes).unwrap();
    let mut scratch = PredictScratch::default();
    let mut best =
        |text| model.labels()[model.predict(text, Newlines::Space, 1, 0.0, &mut scratch)[0].label].clone();
    assert_eq!((best("red cherry"), best("grey wall")), ("fruit".to_owned(), "rock".to_owned()));
    assert!(train(&documents, &["one"], &options).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is wrong with a file, reading it ends in an error or in a model that can be asked.
    #[test]
    fn damaged_models_never_panic(
        which in 0usize..4, at in any::<prop::sample::Index>(), byte: u8, head in any::<bool>(), cut in any::<Option<prop::sample::Index>>()
    ) {
        let mut bytes = fixture(["softmax.bin", "hs.ftz", "softmax_qout_qnorm_cut.ftz", "ova.bin"][which]);
        let len = if head { 200.min(bytes.len()) } else { bytes.len() };
        let at = at.index(len);
        bytes[at] = byte;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(model) = Model::read(&bytes) {
            let mut scratch = PredictScratch::default();
            model.predict("the river carries wäter\nto the sea", Newlines::Remove, 3, 0.1, &mut scratch);
        }
    }
}
