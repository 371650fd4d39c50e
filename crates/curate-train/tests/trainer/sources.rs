use std::sync::Arc;

use curate_shards::{MixSpec, Row, ShardSet, View, ViewRequest, add_views};
use curate_train::config::DocMask;
use curate_train::data::Loader;
use curate_train::model::IGNORE;
use curate_train::sources::Sources;
use curate_train::train::Record;

use crate::support::*;

/// The domain of every token of a row.
fn domains(shards: &ShardSet, view: &View, number: u64) -> Vec<String> {
    let split = shards.split("train").unwrap();
    let mut row = Row::new(view.seq_len());
    view.fill(split, number, &mut row);
    let runs = view.runs(number).unwrap();
    let name = |document| shards.manifest().domains[usize::from(split.document(document).domain)].clone();
    runs.flat_map(|run| vec![name(run.document); run.length as usize]).collect()
}

/// Holds the counts of 40 batches against their targets, looked at one by one.
fn check(shards: &Arc<ShardSet>, names: &[&str]) {
    let mut options = small_options(shards, 1).data;
    let view = shards.view("train", options.seq_len).unwrap();
    let sources = Sources::of(shards, &view, "train");
    assert_eq!(sources.names(), names);
    for mask in [DocMask::None, DocMask::Loss, DocMask::Attention] {
        options.doc_mask = mask;
        let mut loader = Loader::start(shards, &options, 0, 40).unwrap();
        for _ in 0..40 {
            let batch = loader.next_batch().unwrap();
            let mut expected = vec![0; names.len()];
            for (targets, &number) in batch.targets.chunks(batch.seq_len).zip(&batch.row_numbers) {
                let domains = domains(shards, &view, number);
                for (target, domain) in targets.iter().zip(&domains[1..]).filter(|(t, _)| **t != IGNORE) {
                    let source = names.iter().position(|name| name == domain);
                    expected[source.unwrap_or_else(|| panic!("{target} is of {domain}"))] += 1;
                }
            }
            assert_eq!(batch.source_targets, expected);
            assert_eq!(expected.iter().sum::<u64>(), batch.num_targets());
        }
    }
}

#[test]
fn targets_are_counted_with_their_documents() {
    let dir = TestDir::new();
    check(&small_shards(&dir.join("shards")), &["even", "odd"]);
    // Documents that span rows, and rows with a document's end in the middle.
    let long: Vec<_> = documents(90, 2).chunks(3).map(<[_]>::concat).collect();
    check(&write_shards(&dir.join("long"), &long, "val=0.1", &[concat(16)]), &["even", "odd"]);
}

#[test]
fn targets_of_a_mix_are_counted_by_the_turns_of_its_sources() {
    let dir = TestDir::new();
    let path = dir.join("shards");
    write_shards(&path, &documents(300, 1), "val=0.1", &[]);
    let mix = MixSpec::parse("odd=0.7:3,even=0.3", None).unwrap();
    let request = ViewRequest { mix: Some(mix), ..concat(32).into() };
    add_views(&path, &[request], false).unwrap();
    let shards = Arc::new(ShardSet::open(&path).unwrap());
    check(&shards, &["odd", "even"]);
    let mut trainer = create(&dir.join("run"), &shards, &small_options(&shards, 30));
    train(&mut trainer, None);
    let counts = trainer.source_targets();
    let (odd, even) = (counts["odd"] as f64, counts["even"] as f64);
    assert!((odd / (odd + even) - 0.7).abs() < 0.02, "{counts:?}");
}

#[test]
fn one_source_is_not_told_and_a_resumed_run_counts_on() {
    let dir = TestDir::new();
    let path = dir.join("shards");
    let shards = small_shards(&path);
    let options = small_options(&shards, 10);
    let (whole, parts) = (dir.join("whole"), dir.join("parts"));
    train(&mut create(&whole, &shards, &options), None);
    train(&mut create(&parts, &shards, &options), Some(4));
    train(&mut resume(&parts, &shards, &options), None);
    assert_eq!(logged(&whole), logged(&parts));
    for record in logged(&whole) {
        if let Record::Step(step) = record {
            assert_eq!(step.source_targets.values().sum::<u64>(), step.targets);
        }
    }
    // A checkpoint from before sources were counted: half a count is none.
    let old = dir.join("old");
    train(&mut create(&old, &shards, &options), Some(4));
    let state = newest(&old).path.join("state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(json.as_object_mut().unwrap().remove("source_targets").is_some());
    std::fs::write(&state, json.to_string()).unwrap();
    let mut trainer = resume(&old, &shards, &options);
    train(&mut trainer, None);
    assert!(trainer.source_targets().is_empty());
    let one: Vec<u32> = (0..20).chain([EOD]).collect();
    let shards = write_shards(&dir.join("one"), &[one], "val=0.000001", &[concat(4)]);
    let view = shards.view("train", 4).unwrap();
    assert!(Sources::of(&shards, &view, "train").names().is_empty());
}
