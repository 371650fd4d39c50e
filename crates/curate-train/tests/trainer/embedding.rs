use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use curate_train::Error;
use curate_train::config::{Dtype, preset};
use curate_train::embed::{Embedded, ID_STREAM_HEAD, IdReader, embed};
use curate_train::model::Model;
use tch::Device;

use crate::support::*;

fn model(name: &str) -> Model {
    one_thread();
    let mut config = preset(name).unwrap().options(VOCAB, 16, 10).model;
    config.layers = 2;
    Model::new(&config, Dtype::Fp32, Device::Cpu, 3).unwrap()
}

/// Shorter than the context, as long, longer, and none at all.
fn texts() -> Vec<Vec<u32>> {
    let lengths = [3, 0, 15, 16, 40, 1, 30, 7, 7, 31];
    lengths.iter().enumerate().map(|(i, n)| (0..*n).map(|j| (i as u32 * 5 + j * 7) % 26).collect()).collect()
}

fn embedded(model: &Model, threads: usize, batch: usize, texts: &[Vec<u32>]) -> (Vec<Vec<f32>>, Embedded) {
    let mut models: Vec<Model> = (0..threads).map(|_| model.share().unwrap()).collect();
    let mut rows = Vec::new();
    let write = |row: &[f32]| {
        rows.push(row.to_vec());
        Ok(())
    };
    let documents = texts.iter().map(|ids| Ok(ids.clone()));
    let done = embed(&mut models, EOD, batch, documents, write, &AtomicBool::new(false)).unwrap();
    (rows, done)
}

/// The definition: each window alone, without filling.
fn plainly(model: &Model, ids: &[u32]) -> Vec<f64> {
    let _no_grad = tch::no_grad_guard();
    let channels = model.config().channels as usize;
    let mut sum = vec![0.0; channels];
    for window in ids.chunks(model.config().context as usize - 1) {
        let tokens: Vec<i64> = std::iter::once(EOD).chain(window.iter().copied()).map(i64::from).collect();
        let hidden = values(&model.final_hidden(&token_tensor(&tokens, 1)).unwrap());
        for state in hidden.chunks_exact(channels).skip(1) {
            sum.iter_mut().zip(state).for_each(|(sum, x)| *sum += f64::from(*x));
        }
    }
    sum.iter().map(|x| x / ids.len().max(1) as f64).collect()
}

#[test]
fn the_mean_is_that_of_each_window_alone() {
    for model in [model("gpt2-tiny"), model("llama-tiny")] {
        for batch in [1, 3, 100] {
            let (rows, done) = embedded(&model, 1, batch, &texts());
            assert_eq!(done, Embedded { documents: 10, tokens: 150, empty: 1 });
            assert_eq!(rows.len(), texts().len());
            for (row, ids) in rows.iter().zip(texts()) {
                let expected = plainly(&model, &ids);
                let error =
                    row.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                assert!(error < 1e-5, "{} tokens, batch {batch}: {error}", ids.len());
                assert_eq!(row.iter().all(|x| *x == 0.0), ids.is_empty());
            }
        }
        for batch in [1, 3] {
            let one = embedded(&model, 1, batch, &texts());
            for threads in [1, 2, 4] {
                assert!(
                    embedded(&model, threads, batch, &texts()) == one,
                    "{threads} threads, batch {batch}"
                );
            }
        }
    }
}

#[test]
fn a_share_has_the_weights_and_no_memory_of_its_own() {
    let model = model("llama-tiny");
    let share = model.share().unwrap();
    for (own, other) in model.parameters().iter().zip(share.parameters()) {
        assert_eq!(
            (own.name.as_str(), own.tensor.data_ptr()),
            (other.name.as_str(), other.tensor.data_ptr())
        );
    }
    let tokens = token_tensor(&[1, 2, 3], 1);
    let _no_grad = tch::no_grad_guard();
    assert_eq!(values(&model.logits(&tokens).unwrap()), values(&share.logits(&tokens).unwrap()));
}

#[test]
fn many_documents_come_in_order() {
    let model = model("gpt2-tiny");
    let texts: Vec<Vec<u32>> = (0..200).map(|i| vec![i % 26; (i % 20) as usize]).collect();
    let (rows, _) = embedded(&model, 2, 4, &texts);
    for (row, ids) in rows.iter().zip(&texts).step_by(17) {
        let expected = plainly(&model, ids);
        assert!(row.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5));
    }
    assert_eq!(rows.len(), 200);
}

/// The stream of `curate embed`.
fn stream(texts: &[Vec<u32>]) -> Vec<u8> {
    let mut bytes = ID_STREAM_HEAD.to_vec();
    for ids in texts {
        bytes.extend((ids.len() as u32).to_le_bytes());
        bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    }
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.extend((texts.len() as u64).to_le_bytes());
    bytes
}

#[test]
fn a_stream_that_was_cut_is_an_error() {
    let whole = stream(&texts());
    let read = |bytes: &[u8]| IdReader::new(bytes).and_then(|reader| reader.collect::<Result<Vec<_>, _>>());
    assert_eq!(read(&whole).unwrap(), texts());
    for end in 0..whole.len() {
        assert!(matches!(read(&whole[..end]), Err(Error::Ids { .. })), "{end} of {}", whole.len());
    }
    let mut wrong = whole.clone();
    *wrong.last_mut().unwrap() = 1;
    assert!(read(&wrong).unwrap_err().to_string().contains("10 documents, but their end speaks of"));
    assert!(read(b"curate ids 2\n....").unwrap_err().to_string().contains("do not begin"));
}

#[test]
fn the_program_writes_an_array() {
    let dir = TestDir::new();
    let shards = small_shards(&dir.join("shards"));
    let run = dir.join("run");
    train(&mut create(&run, &shards, &small_options(&shards, 2)), None);
    let array = dir.join("rows.npy");
    let execute = |input: &[u8]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_curate-train"))
            .args(["embed", text(&run), "-o", text(&array), "--threads", "1", "--batch", "4"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = execute(&stream(&texts()));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("10 documents, 150 tokens: 10 rows of"), "{said}");
    assert!(said.contains("1 of them zeros"), "{said}");
    let bytes = fs::read(&array).unwrap();
    let channels = small_options(&shards, 2).model.channels as usize;
    assert_eq!(bytes.len(), 128 + 10 * channels * 4);
    let header = String::from_utf8_lossy(&bytes[10..128]);
    assert!(
        header.starts_with(&format!(
            "{{'descr': '<f4', 'fortran_order': False, 'shape': (10, {channels}), }}  "
        ))
    );
    assert!(header.ends_with(" \n"));
    execute(&stream(&texts()));
    assert!(fs::read(&array).unwrap() == bytes, "again the same bytes");
    fs::remove_file(&array).unwrap();
    let check = |input: &[u8], expected: &str| {
        let (code, said) = execute(input);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(!array.exists() && !dir.join(".rows.npy.new").exists());
    };
    let whole = stream(&texts());
    check(&whole[..whole.len() - 1], "end too early");
    check(&stream(&[vec![VOCAB]]), "id 27 is outside the model's vocabulary of 27");
    check(b"", "end too early");
}
