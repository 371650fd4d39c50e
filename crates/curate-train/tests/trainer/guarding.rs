use curate_shards::PackPolicy;
use curate_train::engine::EngineKind;
use curate_train::model::Model;
use curate_train::train::{Record, SkipRecord};

use crate::support::*;

/// Documents that are easy to foretell, but for one of noise; its number in `train`.
fn one_noisy_document(dir: &TestDir) -> (std::sync::Arc<curate_shards::ShardSet>, u64) {
    let mut all: Vec<Vec<u32>> =
        (0..400).map(|i| (0..30).map(|j| (i + j) % 26).chain([EOD]).collect()).collect();
    let mut rng = curate_train::rng::Rng::new(5, "noise");
    all[250] = (0..60).map(|_| (rng.next_u64() % 26) as u32).chain([EOD]).collect();
    let shards = write_shards(&dir.join("shards"), &all, "", &[concat(32)]);
    assert_eq!(shards.view("train", 32).unwrap().policy(), PackPolicy::Concat);
    let split = shards.split("train").unwrap();
    let noisy = (0..split.num_documents()).find(|&i| split.document(i).tokens.len() == 61).unwrap();
    (shards, noisy)
}

fn skips(run: &std::path::Path) -> Vec<SkipRecord> {
    let only_skips = |record| match record {
        Record::Skip(skip) => Some(skip),
        _ => None,
    };
    logged(run).into_iter().filter_map(only_skips).collect()
}

#[test]
fn a_spike_is_skipped_and_its_document_named() {
    for engine in [EngineKind::Reference, EngineKind::Fused] {
        let dir = TestDir::new();
        let (shards, noisy) = one_noisy_document(&dir);
        let mut options = small_options(&shards, 400);
        options.numerics.engine = engine;
        options.data.batch_size = 2;
        options.numerics.micro_batch = 2;
        options.guard.spike_sigma = 5.0;
        options.schedule.lr = 5e-3;
        let (whole, parts) = (dir.join("whole"), dir.join("parts"));
        let mut trainer = create(&whole, &shards, &options);
        train(&mut trainer, None);
        let found = skips(&whole);
        assert!(!found.is_empty(), "nothing was skipped");
        let named: Vec<u64> = found.iter().map(|skip| skip.documents[0].document).collect();
        assert!(named.contains(&noisy), "{named:?} without {noisy}");
        let worst = found.iter().map(|skip| &skip.documents[0]).find(|d| d.document == noisy).unwrap();
        assert_eq!((worst.shard.as_str(), worst.domain.as_str()), ("train-00000", "even"));
        assert!(worst.nats_per_token.unwrap() > 2.0, "{worst:?}");
        let state = newest(&whole).state;
        assert_eq!((state.step, state.guard.skipped), (400, found.len() as u64));
        // What the guard has seen is part of the state: with a break between spikes the run is the same.
        let at = found[0].step + 3;
        train(&mut create(&parts, &shards, &options), Some(at));
        train(&mut resume(&parts, &shards, &options), None);
        assert_eq!(logged(&whole), logged(&parts));
        assert!(tensors_of(&whole, 400) == tensors_of(&parts, 400), "{engine:?}: weights or moments differ");
    }
}

/// Makes every loss of a run no number.
fn break_weights(model: &Model) {
    let _no_grad = tch::no_grad_guard();
    let _ = model.parameters()[0].tensor.shallow_clone().fill_(f64::NAN);
}

#[test]
fn what_is_no_number_ends_the_run_at_once_or_after_ten_tries() {
    for (sigma, steps) in [(0.0, 1), (6.0, 10)] {
        let dir = TestDir::new();
        let shards = small_shards(&dir.join("shards"));
        let mut options = small_options(&shards, 40);
        options.guard.spike_sigma = sigma;
        let run = dir.join("run");
        let mut trainer = create(&run, &shards, &options);
        break_weights(trainer.model());
        let mut losses = Losses::default();
        let never = std::sync::atomic::AtomicBool::new(false);
        let error = trainer.train(None, &mut losses, &never).unwrap_err().to_string();
        let expected = match sigma {
            0.0 => "the loss is no finite number at step 1; the model was not updated".to_owned(),
            _ => {
                "10 updates in a row were not made, the last at step 10: loss is no finite number".to_owned()
            }
        };
        assert_eq!(error, expected);
        let log = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
        let skipped = log.lines().filter(|line| line.contains("\"event\":\"skip\"")).count();
        assert_eq!(skipped, steps);
        assert!(log.contains("\"documents\":[{\"document\":"), "{log}");
    }
}

#[test]
fn steps_whose_loss_is_no_number_stay_in_the_log() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let mut options = small_options(&shards, 40);
    options.guard.spike_sigma = 6.0;
    let run = dir.join("run");
    let mut trainer = create(&run, &shards, &options);
    break_weights(trainer.model());
    train(&mut trainer, Some(3));
    drop(trainer); // it holds the directory
    train(&mut resume(&run, &shards, &options), Some(5));
    let steps = logged(&run).into_iter().filter(|record| matches!(record, Record::Step(_)));
    assert_eq!(steps.map(|record| record.step()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}
