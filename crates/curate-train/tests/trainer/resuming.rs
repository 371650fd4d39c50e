use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use curate_train::config::Dtype;
use curate_train::data::{Batch, Loader};
use curate_train::engine::EngineKind;
use curate_train::model::IGNORE;
use curate_train::muon::OptimizerKind;
use curate_train::train::Ending;

use crate::support::*;

#[test]
fn stopping_and_going_on_is_not_stopping() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let mut options = small_options(&shards, 24);
    options.cadence.eval_every = 5;
    options.cadence.keep_last = 9;
    let (whole, parts) = (dir.join("whole"), dir.join("parts"));
    train(&mut create(&whole, &shards, &options), None);

    let (ending, _) = train(&mut create(&parts, &shards, &options), Some(7));
    assert_eq!(ending, Ending::Stopped);
    // Stopped where an evaluation is due: it is made after resuming.
    let (ending, _) = train(&mut resume(&parts, &shards, &options), Some(10));
    assert_eq!(ending, Ending::Stopped);
    let (ending, _) = train(&mut resume(&parts, &shards, &options), Some(19));
    assert_eq!(ending, Ending::Stopped);
    // Going on from an older checkpoint does the later steps again, and logs them once.
    std::fs::remove_dir_all(parts.join("step-00000019")).unwrap();
    let (ending, losses) = train(&mut resume(&parts, &shards, &options), None);
    assert!(matches!(ending, Ending::Finished(Some(_))));
    assert_eq!(losses.len(), 24 - 15);

    assert_eq!(logged(&whole).len(), 24 + 4 + 1);
    assert_eq!(logged(&whole), logged(&parts));
    assert!(tensors_of(&whole, 24) == tensors_of(&parts, 24), "weights or moments differ");
}

#[test]
fn so_it_is_with_two_threads_and_through_the_program() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let (whole, parts) = (dir.join("whole"), dir.join("parts"));
    let flags =
        "--preset llama-tiny --layers 2 --batch-size 8 --micro-batch 4 --steps 16 --threads 2 --quiet";
    let flags: Vec<&str> = flags.split(' ').collect();
    succeed(&[&["train", text(shards.dir()), "-o", text(&whole)], &flags[..]].concat());
    succeed(&[&["train", text(shards.dir()), "-o", text(&parts), "--stop-after", "9"], &flags[..]].concat());
    succeed(&["train", "-o", text(&parts), "--resume", "--quiet"]);
    assert_eq!(logged(&whole), logged(&parts));
    assert!(tensors_of(&whole, 16) == tensors_of(&parts, 16), "weights or moments differ");
}

/// Kills a run at random moments, some of them in the midst of a checkpoint, and compares it with one that never was.
fn killed_and_resumed(kills: u64) {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let steps = 120 * kills;
    let flags = |run: &str| {
        let run = text(&dir.join(run)).to_owned();
        let fixed = format!(
            "--preset char-tiny --batch-size 4 --steps {steps} --save-every 3 --eval-every 50 --threads 1 --quiet"
        );
        let mut flags = vec!["train".to_owned(), text(shards.dir()).to_owned(), "-o".to_owned(), run];
        flags.extend(fixed.split(' ').map(str::to_owned));
        flags
    };
    let start = |flags: &[String]| {
        Command::new(env!("CARGO_BIN_EXE_curate-train")).args(flags).stderr(Stdio::inherit()).spawn().unwrap()
    };
    assert!(start(&flags("whole")).wait().unwrap().success());

    let run = dir.join("killed");
    let mut random = curate_train::rng::Rng::new(kills, "moments");
    for kill in 0..kills {
        let mut flags = flags("killed");
        if newest_step(&run).is_some() {
            flags.push("--resume".to_owned());
        }
        let before = newest_step(&run);
        let mut child = start(&flags);
        // Every second one some time after its first checkpoint, so that the run gets on; the others at any time, from
        // the start of the process on.
        let began = Instant::now();
        while kill % 2 == 0 && newest_step(&run) == before && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint in two minutes");
            std::thread::sleep(Duration::from_millis(1));
        }
        let longest_ms = if kill % 2 == 0 { 150.0 } else { 2000.0 };
        std::thread::sleep(Duration::from_micros((1e3 * longest_ms * random.uniform()) as u64));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    assert!(newest_step(&run).is_some_and(|step| step < steps), "the run was over before the last kill");
    let mut flags = flags("killed");
    flags.push("--resume".to_owned());
    assert!(start(&flags).wait().unwrap().success());

    assert_eq!(logged(&dir.join("whole")), logged(&run));
    assert!(tensors_of(&dir.join("whole"), steps) == tensors_of(&run, steps), "weights or moments differ");
    let hidden =
        std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(hidden.filter(|name| name.starts_with('.')).count(), 0, "leftovers of a killed process");
}

#[test]
fn a_killed_run_goes_on_as_if_nothing_had_happened() {
    killed_and_resumed(3);
}

#[test]
#[ignore = "takes minutes: cargo test -p curate-train --test trainer -- --ignored twenty"]
fn so_it_does_after_twenty_kills() {
    killed_and_resumed(20);
}

#[test]
fn a_finished_run_may_be_resumed_and_changes_nothing() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let options = small_options(&shards, 4);
    let run = dir.join("run");
    train(&mut create(&run, &shards, &options), None);
    let (log, tensors) = (logged(&run), tensors_of(&run, 4));
    let (ending, losses) = train(&mut resume(&run, &shards, &options), None);
    assert!(matches!(ending, Ending::Finished(Some(_))) && losses.is_empty());
    assert_eq!(logged(&run), log);
    assert!(tensors_of(&run, 4) == tensors);
}

#[test]
fn a_run_that_is_out_of_time_goes_on_later() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let options = small_options(&shards, 4);
    let (whole, run) = (dir.join("whole"), dir.join("run"));
    train(&mut create(&whole, &shards, &options), None);
    let mut trainer = create(&run, &shards, &options);
    train(&mut trainer, Some(2));
    trainer.stop_at(Some(Instant::now()));
    let (ending, losses) = train(&mut trainer, None);
    assert_eq!((ending, losses.len()), (Ending::Stopped, 0));
    drop(trainer);
    train(&mut resume(&run, &shards, &options), None);
    assert!(tensors_of(&whole, 4) == tensors_of(&run, 4));
}

#[test]
fn the_fused_engine_resumes_bit_for_bit() {
    for (dtype, recompute) in [(Dtype::Fp32, false), (Dtype::Bf16, true)] {
        let dir = TestDir::new();
        let shards = small_shards(&dir.join("shards"));
        let mut options = small_options(&shards, 12);
        options.numerics.engine = EngineKind::Fused;
        (options.numerics.dtype, options.numerics.recompute) = (dtype, recompute);
        let (whole, parts) = (dir.join("whole"), dir.join("parts"));
        train(&mut create(&whole, &shards, &options), None);
        train(&mut create(&parts, &shards, &options), Some(5));
        train(&mut resume(&parts, &shards, &options), None);
        assert_eq!(logged(&whole), logged(&parts));
        assert!(tensors_of(&whole, 12) == tensors_of(&parts, 12), "{dtype:?}: weights or moments differ");
    }
}

#[test]
fn muon_resumes_bit_for_bit_with_both_engines() {
    for (engine, dtype) in [(EngineKind::Reference, Dtype::Fp32), (EngineKind::Fused, Dtype::Bf16)] {
        let dir = TestDir::new();
        let shards = small_shards(&dir.join("shards"));
        let mut options = small_options(&shards, 12);
        options.muon.optimizer = OptimizerKind::Muon;
        (options.numerics.engine, options.numerics.dtype) = (engine, dtype);
        let (whole, parts) = (dir.join("whole"), dir.join("parts"));
        train(&mut create(&whole, &shards, &options), None);
        train(&mut create(&parts, &shards, &options), Some(5));
        train(&mut resume(&parts, &shards, &options), None);
        assert_eq!(logged(&whole), logged(&parts));
        assert!(tensors_of(&whole, 12) == tensors_of(&parts, 12), "{engine:?}: weights or momenta differ");
        let [_, optimizer] = tensors_of(&whole, 12);
        let optimizer = safetensors::SafeTensors::deserialize(&optimizer).unwrap();
        let mut names: Vec<&str> =
            optimizer.names().into_iter().filter(|n| n.starts_with("layers.0.mlp.up.")).collect();
        names.sort_unstable();
        let expected =
            ["bias.first", "bias.second", "weight.momentum"].map(|n| format!("layers.0.mlp.up.{n}"));
        assert_eq!(names, expected);
        // Neither kind can go on from the other's state.
        options.muon.optimizer = OptimizerKind::AdamW;
        let recorded = newest(&parts).state.run.options;
        let message = recorded.check_resume(&options).unwrap_err().to_string();
        assert!(message.contains("--optimizer: the run has muon, asked for adamw"), "{message}");
    }
}

#[test]
fn two_processes_cannot_share_a_run() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let run = dir.join("run");
    let mut first = create(&run, &shards, &small_options(&shards, 4));
    train(&mut first, Some(1));
    let stderr = fail(2, &["train", "-o", text(&run), "--resume"]);
    let expected = format!("error: {} is in use by another process", text(&run));
    assert_eq!(stderr.lines().last(), Some(expected.as_str()));
    drop(first);
    succeed(&["train", "-o", text(&run), "--resume", "--quiet"]);
}

/// Else one that the other process is about to save would be passed over, and its steps made again.
#[test]
fn a_run_is_locked_before_its_checkpoints_are_looked_through() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let run = dir.join("run");
    let mut first = create(&run, &shards, &small_options(&shards, 4));
    train(&mut first, Some(2));
    std::fs::write(run.join("step-00000002").join("state.json"), "damaged").unwrap();
    let stderr = fail(2, &["train", "-o", text(&run), "--resume"]);
    assert_eq!(stderr, format!("error: {} is in use by another process\n", text(&run)));
}

fn newest_step(run: &std::path::Path) -> Option<u64> {
    curate_train::checkpoint::list(run).unwrap().last().map(|(step, _)| *step)
}

#[test]
fn batches_depend_on_seed_and_step_only() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let data = small_options(&shards, 1).data;
    let read = |first, end| -> Vec<Batch> {
        let mut loader = Loader::start(&shards, &data, first, end).unwrap();
        (first..end).map(|_| loader.next_batch().unwrap()).collect()
    };
    let all = read(0, 90);
    assert_eq!(all[17..40], read(17, 40));
    assert_eq!(all[0].inputs.len(), 8 * 32);
    assert!(all.iter().all(|batch| batch.targets.len() == 8 * 32));
    let other = Loader::start(&shards, &curate_train::config::DataOptions { seed: 2, ..data }, 0, 1);
    assert_ne!(all[0], other.unwrap().next_batch().unwrap());
}

#[test]
fn every_row_of_an_epoch_is_trained_on_once() {
    let dir = TestDir::new();
    let shards = write_shards(&dir.join("shards"), &documents(40, 3), "", &[concat(16)]);
    let tokens = shards.split("train").unwrap().num_tokens();
    let mut data = small_options(&shards, 1).data;
    let rows = shards.view("train", 16).unwrap().num_rows();
    data.batch_size = 1;
    let mut loader = Loader::start(&shards, &data, 0, rows).unwrap();
    let batches: Vec<Batch> = (0..rows).map(|_| loader.next_batch().unwrap()).collect();
    // Concatenated, every token but the very first is a target once.
    assert_eq!(batches.iter().map(Batch::num_targets).sum::<u64>(), tokens - 1);
    for batch in &batches {
        for i in 0..15 {
            assert!(batch.targets[i] == IGNORE || batch.targets[i] == batch.inputs[i + 1]);
        }
    }
}

#[test]
fn best_fit_rows_train_on_every_token_a_document_foretells() {
    let dir = TestDir::new();
    let view = curate_shards::ViewOptions { seq_len: 16, policy: curate_shards::PackPolicy::BestFit };
    let shards = write_shards(&dir.join("shards"), &documents(60, 4), "", &[view]);
    let split = shards.split("train").unwrap();
    let mut data = small_options(&shards, 1).data;
    let view = shards.view("train", 16).unwrap();
    data.batch_size = 1;
    let mut loader = Loader::start(&shards, &data, 0, view.num_rows()).unwrap();
    let trained: u64 = (0..view.num_rows()).map(|_| loader.next_batch().unwrap().num_targets()).sum();
    // Each token but a document's first is a target once; a first token is one if its document follows another.
    let within = split.num_tokens() - split.num_documents();
    let after_another: u64 = (0..view.num_rows())
        .map(|row| view.runs(row).unwrap().skip(1).filter(|run| run.offset == 0).count() as u64)
        .sum();
    assert!(after_another > 0, "the case must occur");
    assert_eq!(trained, within + after_another);
}
