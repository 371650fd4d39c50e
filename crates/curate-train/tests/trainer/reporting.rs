use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use curate_train::metrics::Speed;
use curate_train::settings::to_toml;
use curate_train::tensorboard::EventWriter;
use curate_train::train::{Ending, Record};
use serde_json::Value;

use crate::support::*;

/// An event as our own reader sees it.
#[derive(Debug, Default, PartialEq)]
struct Event {
    step: u64,
    version: Option<String>,
    starts_session: bool,
    scalars: Vec<(String, f32)>,
}

fn event_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Fields of a protocol buffer: (number, wire type, value of a varint or 0, bytes).
fn fields(mut bytes: &[u8]) -> Vec<(u8, u8, u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let (number, wire) = ((key >> 3) as u8, (key & 7) as u8);
        let (value, length) = match wire {
            0 => (varint(&mut bytes), 0),
            1 => (0, 8),
            2 => {
                let length = varint(&mut bytes);
                (0, length as usize)
            }
            5 => (0, 4),
            other => panic!("wire type {other}"),
        };
        found.push((number, wire, value, &bytes[..length]));
        bytes = &bytes[length..];
    }
    found
}

/// Reads an event file; lengths must fit, checksums are checked by the Python test and the unit tests.
fn read_events(path: &Path) -> Vec<Event> {
    let bytes = fs::read(path).unwrap();
    let (mut rest, mut events) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let mut event = Event::default();
        for (number, _, value, bytes) in fields(&rest[12..12 + length]) {
            match number {
                1 => assert!(f64::from_le_bytes(bytes.try_into().unwrap()) > 1.6e9, "seconds since 1970"),
                2 => event.step = value,
                3 => event.version = Some(String::from_utf8(bytes.to_vec()).unwrap()),
                5 => {
                    for (_, _, _, value) in fields(bytes) {
                        let inner = fields(value);
                        let tag = String::from_utf8(inner[0].3.to_vec()).unwrap();
                        event.scalars.push((tag, f32::from_le_bytes(inner[1].3.try_into().unwrap())));
                    }
                }
                7 => event.starts_session = fields(bytes)[0].2 == 1,
                other => panic!("field {other}"),
            }
        }
        events.push(event);
        rest = &rest[12 + length + 4..];
    }
    events
}

#[test]
fn events_are_read_back() {
    let dir = TestDir::new();
    let mut first = EventWriter::create(&dir.join("tb"), 1).unwrap();
    first.scalars(1, &[("a/b", 1.5), ("c", -2.0)]).unwrap();
    first.scalars(300, &[("c", 0.25)]).unwrap();
    let mut second = EventWriter::create(&dir.join("tb"), 200).unwrap();
    second.scalars(200, &[("c", 4.0)]).unwrap();
    let files = event_files(&dir.join("tb"));
    assert_eq!(files.len(), 2);
    let found = read_events(&files[0]);
    assert_eq!(found[0].version.as_deref(), Some("brain.Event:2"));
    assert_eq!(found[1].scalars, [("a/b".into(), 1.5), ("c".into(), -2.0)]);
    assert_eq!((found[2].step, &found[2].scalars[..]), (300, &[("c".to_owned(), 0.25)][..]));
    let found = read_events(&files[1]);
    assert!(found[1].starts_session && found[1].step == 200);
}

/// TensorBoard's own reader as the oracle, if Python has it.
#[test]
#[allow(clippy::print_stdout)]
fn tensorboard_reads_the_events_of_a_run_that_went_on() {
    let python = std::env::var("CURATE_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import tensorboard"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} has no tensorboard");
        return;
    }
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let mut options = small_options(&shards, 12);
    options.cadence.eval_every = 5;
    let run = dir.join("run");
    train(&mut create(&run, &shards, &options), Some(8));
    // Killed after its checkpoint at 5: the steps after it are made, and told, again.
    fs::remove_dir_all(run.join("step-00000008")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100)); // file names are ordered by the second
    train(&mut resume(&run, &shards, &options), None);
    let script = "\
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
a = EventAccumulator(sys.argv[1]); a.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in a.Scalars(tag)] for tag in a.Tags()['scalars']}))";
    let output = Command::new(&python).args(["-c", script, text(&run.join("tensorboard"))]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let losses: Vec<(u64, f32)> = logged(&run)
        .into_iter()
        .filter_map(|record| match record {
            Record::Step(step) => Some((step.step, step.loss_nats as f32)),
            _ => None,
        })
        .collect();
    let theirs: Vec<(u64, f32)> = serde_json::from_value(found["train/loss_nats"].clone()).unwrap();
    assert_eq!(theirs, losses);
    assert_eq!(found["eval/val_nats_per_token"].as_array().unwrap().len(), 3);
}

#[test]
fn a_line_torn_within_a_letter_costs_no_other_line() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let run = dir.join("run");
    let options = small_options(&shards, 8);
    train(&mut create(&run, &shards, &options), Some(5));
    let before = logged(&run);
    let mut log = fs::File::options().append(true).open(run.join("log.jsonl")).unwrap();
    log.write_all(b"{\"event\":\"sample\",\"step\":5,\"text\":\"caf\xc3").unwrap();
    train(&mut resume(&run, &shards, &options), None);
    let after = logged(&run);
    assert_eq!((before.len(), after.len()), (5, 9), "eight steps and an evaluation");
    assert_eq!(before, after[..5]);
}

#[test]
fn a_run_has_its_picture_its_speed_and_its_samples() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let mut options = small_options(&shards, 12);
    options.cadence.sample_every = 5;
    options.cadence.sample_prompt_ids = vec![0, 1];
    options.cadence.sample_tokens = 9;
    options.cadence.eval_every = 4;
    options.cadence.peak_tflops = 0.5;
    let (whole, parts) = (dir.join("whole"), dir.join("parts"));
    train(&mut create(&whole, &shards, &options), None);
    train(&mut create(&parts, &shards, &options), Some(5));
    train(&mut resume(&parts, &shards, &options), None);
    let timeless = |run: &Path| {
        logged(run)
            .into_iter()
            .map(|record| match record {
                Record::Step(step) => Record::Step(curate_train::train::StepRecord { mfu: None, ..step }),
                other => other,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(timeless(&whole), timeless(&parts));
    let samples: Vec<(u64, String)> = logged(&whole)
        .into_iter()
        .filter_map(|record| match record {
            Record::Sample(sample) => Some((sample.step, sample.text)),
            _ => None,
        })
        .collect();
    assert_eq!(samples.iter().map(|s| s.0).collect::<Vec<_>>(), [5, 10]);
    assert!(samples.iter().all(|s| s.1.starts_with("ab") && s.1.len() <= 11), "{samples:?}");
    let svg = fs::read_to_string(whole.join("curve.svg")).unwrap();
    assert_eq!(svg.matches("<circle").count(), 3, "evaluations at 4, 8 and the end");
    let speed: Speed = serde_json::from_slice(&fs::read(whole.join("speed.json")).unwrap()).unwrap();
    assert_eq!((speed.steps, speed.warm_up_steps), (7, 5));
    let flop = options.model.flop_per_token(32) * speed.tokens_per_s * 1e-12;
    assert!((speed.teraflop_per_s - flop).abs() < 1e-12 && (speed.mfu.unwrap() - flop / 0.5).abs() < 1e-12);
    assert!(speed.data_wait_share < 0.5 && speed.peak_memory_bytes > 10 << 20);
    assert_eq!(event_files(&whole.join("tensorboard")).len(), 1);
    assert_eq!(event_files(&parts.join("tensorboard")).len(), 2);
}

#[test]
fn a_run_that_gets_no_better_ends() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let mut options = small_options(&shards, 200);
    // With this rate nothing is learned that lasts.
    (options.schedule.lr, options.optimizer.clip) = (0.3, 0.0);
    (options.cadence.eval_every, options.cadence.patience, options.cadence.keep_last) = (2, 3, 4);
    let run = dir.join("run");
    let (ending, _) = train(&mut create(&run, &shards, &options), None);
    let Ending::OutOfPatience(best) = ending else { panic!("{ending:?}") };
    let evals: Vec<(u64, f64)> = logged(&run)
        .into_iter()
        .filter_map(|record| match record {
            Record::Eval(eval) => Some((eval.step, eval.nats_per_token)),
            _ => None,
        })
        .collect();
    let lowest = evals.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!((best.step, best.nats_per_token), *lowest);
    assert_eq!(evals.last().unwrap().0, best.step + 3 * 2);
    assert!(run.join(format!("step-{:08}", best.step)).is_dir(), "the best weights are gone");
    // It stays so when resumed, until it is given more patience.
    let (ending, losses) = train(&mut resume(&run, &shards, &options), None);
    assert!(matches!(ending, Ending::OutOfPatience(_)) && losses.is_empty());
    options.cadence.patience = 5;
    let (_, losses) = train(&mut resume(&run, &shards, &options), Some(best.step + 8));
    assert_eq!(losses.len(), 2);
}

#[test]
fn settings_are_written_and_read_back() {
    let dir = TestDir::new();
    small_shards(&dir.join("shards"));
    let run = |name: &str| text(&dir.join(name)).to_owned();
    let flags = "--preset llama-tiny --layers 2 --steps 3 --batch-tokens 256 --lr 0.0123 --schedule wsd --decay-share 0.3 \
                 --optimizer muon --doc-mask attention --spike-sigma 5.5 --eval-every 2 --patience 4 --sample-every 2 \
                 --sample-prompt-ids 1,2 --threads 1 --recompute true --engine reference --quiet";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    succeed(&[&["train", &run("shards"), "-o", &run("a")], &flags[..]].concat());
    let settings = run("a") + "/settings.toml";
    succeed(&["train", "--config", &settings, "-o", &run("b"), "--quiet"]);
    let config = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(run(name) + "/config.json").unwrap()).unwrap()
    };
    assert_eq!(config("a"), config("b"));
    assert!(tensors_of(&dir.join("a"), 3) == tensors_of(&dir.join("b"), 3));
    // Flags win.
    succeed(&[
        "train",
        "--config",
        &settings,
        "--lr",
        "0.5",
        "--batch-tokens=64",
        "-o",
        &run("c"),
        "--quiet",
    ]);
    let mut expected = config("a");
    expected["options"]["schedule"]["lr"] = 0.5.into();
    expected["options"]["data"]["batch_size"] = 2.into();
    expected["options"]["numerics"]["micro_batch"] =
        config("c")["options"]["numerics"]["micro_batch"].clone();
    assert_eq!(config("c"), expected);
    // Every name in the file is a flag's, or a comment.
    let toml = to_toml(&newest(&dir.join("a")).state.run);
    assert_eq!(toml, fs::read_to_string(&settings).unwrap());
    assert!(toml.contains("\nlr = 0.0123\n") && toml.contains("\n# vocab-size = 27\n"), "{toml}");
}

#[test]
fn mistakes_in_a_settings_file_are_told_with_their_line() {
    let dir = TestDir::new();
    let file = dir.join("s.toml");
    let check = |content: &str, expected: &str| {
        fs::write(&file, content).unwrap();
        let stderr = fail(2, &["train", "--config", text(&file), "-o", text(&dir.join("run"))]);
        let expected = expected.replace("FILE", text(&file));
        assert!(stderr.starts_with(&expected), "{stderr:?}, expected {expected:?}");
    };
    check("lr = 0.1\n\nlearning-rate = 3\n", "error: FILE:3: there is no setting \"learning-rate\"");
    check("steps = 5\nlr = 'fast'\n", "error: FILE:2: invalid value 'fast' for '--lr <RATE>'");
    check(
        "# one\n# two\nnorm = 'batchnorm'\n",
        "error: FILE:3: invalid value 'batchnorm' for '--norm <NAME>'",
    );
    check("lr = 1\nlr = 2\n", "error: FILE:2: ");
    check("lr = \n", "error: FILE:1: ");
    check("config = 'x'\n", "error: FILE:1: there is no setting \"config\"");
    check("lr = { a = 1 }\n", "error: FILE:1: lr: expected a number, a text, true or false, or a list");
    check("patience = 3\nshards = 'nowhere'\n", "error: nowhere");
    let stderr = fail(2, &["train", "--config", text(&dir.join("absent.toml"))]);
    assert!(stderr.contains("absent.toml: No such file"), "{stderr}");
    let stderr = fail(2, &["train", "x", "--sample-prompt", "a"]);
    assert!(stderr.contains("--sample-prompt-ids"), "{stderr}");
}
