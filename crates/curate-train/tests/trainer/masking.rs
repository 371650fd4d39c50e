use curate_shards::{PackPolicy, ViewOptions};
use curate_train::config::{DocMask, Dtype, Mlp, ModelConfig, Norm, Position, default_mlp_hidden, preset};
use curate_train::data::{Batch, Loader};
use curate_train::fused::Fused;
use curate_train::model::{IGNORE, Model};
use curate_train::rng::Rng;
use curate_train::train::loss_and_gradients;
use tch::{Device, Kind};

use crate::support::*;

const T: usize = 24;

fn configs() -> Vec<ModelConfig> {
    let base = preset("gpt2-tiny").unwrap().options(VOCAB, T as u32, 100).model;
    let base = ModelConfig { layers: 2, channels: 32, mlp_hidden: 128, ..base };
    let rope = ModelConfig {
        position: Position::Rope,
        norm: Norm::RmsNorm,
        mlp: Mlp::SwiGlu,
        mlp_hidden: default_mlp_hidden(Mlp::SwiGlu, 32),
        kv_heads: 2,
        qk_norm: true,
        ..base.clone()
    };
    vec![base, rope]
}

fn ids(count: usize, rng: &mut Rng) -> Vec<i64> {
    (0..count).map(|_| (rng.next_u64() % 26) as i64).collect()
}

/// Three rows of documents of these lengths, and the same documents each in a row of its own, filled up with what does not
/// count.
fn packed_and_apart() -> (Batch, Batch) {
    let lengths: [&[usize]; 3] = [&[7, 1, 16], &[24], &[10, 14]];
    let mut rng = Rng::new(4, "packed");
    let (mut packed, mut apart) =
        (Batch { seq_len: T, ..Batch::default() }, Batch { seq_len: T, ..Batch::default() });
    for lengths in lengths {
        let mut starts = Vec::new();
        let mut at = 0;
        for &length in lengths {
            let (inputs, targets) = (ids(length, &mut rng), ids(length, &mut rng));
            starts.push(at as u32);
            at += length;
            packed.inputs.extend(&inputs);
            packed.targets.extend(&targets);
            let row = apart.inputs.len();
            apart.inputs.extend(&inputs);
            apart.targets.extend(&targets);
            apart.inputs.resize(row + T, 3);
            apart.targets.resize(row + T, IGNORE);
            apart.rows += 1;
        }
        packed.rows += 1;
        packed.starts.push(starts);
    }
    (packed, apart)
}

#[test]
fn packed_documents_are_the_documents_apart() {
    let (packed, apart) = packed_and_apart();
    assert_eq!(packed.num_targets(), apart.num_targets());
    for config in configs() {
        one_thread();
        let new = || Model::new(&config, Dtype::Fp32, Device::Cpu, 1).unwrap();
        let oracle = new().into_oracle().unwrap();
        let (expected_loss, expected) = loss_and_gradients(&oracle, &apart, 64).unwrap();
        let expected_loss = expected_loss.double_value(&[]);
        let unmasked = Batch { starts: Vec::new(), ..packed.clone() };
        let (without, _) = loss_and_gradients(&oracle, &unmasked, 64).unwrap();
        assert!((without.double_value(&[]) - expected_loss).abs() > 1e-5, "the mask changes nothing");

        let (in_f64, _) = loss_and_gradients(&oracle, &packed, 2).unwrap();
        assert!((in_f64.double_value(&[]) - expected_loss).abs() < 1e-12, "{config:?}: {in_f64:?}");
        let model = new();
        let (loss, gradients) = loss_and_gradients(&model, &packed, 2).unwrap();
        let mut fused = Fused::new(&model, false).unwrap();
        let fused_loss = fused.loss(&packed, 2).unwrap();
        let mut again = Fused::new(&model, true).unwrap();
        let again_loss = again.loss(&packed, 2).unwrap();
        for (loss, gradients) in [
            (loss.double_value(&[]), gradients),
            (fused_loss, fused.gradients()),
            (again_loss, again.gradients()),
        ] {
            assert!((loss / expected_loss - 1.0).abs() < 1e-6, "{config:?}: {loss}, {expected_loss}");
            for ((parameter, found), expected) in model.parameters().iter().zip(&gradients).zip(&expected) {
                let difference = (found.to_kind(Kind::Double) - expected).norm().double_value(&[]);
                let error = difference / expected.norm().double_value(&[]);
                assert!(error < 1e-5, "{}: {error} in {config:?}", parameter.name);
            }
        }
    }
}

#[test]
fn the_fused_engine_gives_a_packed_document_its_own_bits() {
    let (packed, apart) = packed_and_apart();
    one_thread();
    let model = Model::new(&configs()[0], Dtype::Fp32, Device::Cpu, 1).unwrap();
    // One document at a time, so that there is no sum over others.
    let mut fused = Fused::new(&model, false).unwrap();
    let only = |batch: &Batch, row: usize, from: usize, length: usize| {
        let mut targets = vec![IGNORE; T];
        targets[from..from + length].copy_from_slice(&batch.targets[row * T + from..][..length]);
        let starts = batch.starts.get(row).cloned().into_iter().collect();
        Batch {
            rows: 1,
            seq_len: T,
            inputs: batch.inputs[row * T..][..T].to_vec(),
            targets,
            starts,
            ..Batch::default()
        }
    };
    let a = fused.loss(&only(&packed, 0, 8, 16), 1).unwrap();
    let b = fused.loss(&only(&apart, 2, 0, 16), 1).unwrap();
    assert_eq!(a, b);
}

fn batches(policy: PackPolicy, mask: DocMask) -> (Vec<Batch>, std::sync::Arc<curate_shards::ShardSet>) {
    let dir = TestDir::new();
    let view = ViewOptions { seq_len: 16, policy };
    let shards = write_shards(&dir.join("shards"), &documents(60, 4), "", &[view]);
    let mut data = small_options(&shards, 1).data;
    (data.batch_size, data.doc_mask) = (1, mask);
    let rows = shards.view("train", 16).unwrap().num_rows();
    let mut loader = Loader::start(&shards, &data, 0, rows).unwrap();
    ((0..rows).map(|_| loader.next_batch().unwrap()).collect(), shards)
}

#[test]
fn no_target_crosses_a_boundary_with_the_mask_on_the_loss() {
    for policy in [PackPolicy::Concat, PackPolicy::BestFit] {
        let (batches, shards) = batches(policy, DocMask::Loss);
        let split = shards.split("train").unwrap();
        let scored: u64 = batches.iter().map(Batch::num_targets).sum();
        // Every token but the first of each document.
        assert_eq!(scored, split.num_tokens() - split.num_documents());
        for batch in &batches {
            let at_ends =
                batch.inputs.iter().zip(&batch.targets).filter(|(input, _)| **input == i64::from(EOD));
            assert!(at_ends.into_iter().all(|(_, target)| *target == IGNORE) && batch.starts.is_empty());
        }
    }
}

#[test]
fn a_document_that_sees_itself_alone_begins_with_the_end_before_it() {
    for policy in [PackPolicy::Concat, PackPolicy::BestFit] {
        let (with_mask, _) = batches(policy, DocMask::Attention);
        let (without, _) = batches(policy, DocMask::None);
        let (mut all_starts, mut lost) = (0, 0);
        for (batch, other) in with_mask.iter().zip(&without) {
            assert_eq!(batch.inputs, other.inputs);
            let starts: Vec<usize> = batch.starts[0].iter().map(|&start| start as usize).collect();
            assert!(starts[0] == 0 && starts.is_sorted_by(|a, b| a < b) && *starts.last().unwrap() < 16);
            all_starts += starts.len();
            // An end that a new document follows is that document's first input, and foretells its first token.
            for at in 1..16 {
                let (end, target) = (batch.inputs[at] == i64::from(EOD), batch.targets[at]);
                if end && target != IGNORE {
                    assert!(starts.contains(&at), "{starts:?} without {at}: {:?}", batch.inputs);
                }
                let begins = starts.contains(&at);
                assert!(!begins || end || batch.targets[at - 1] == IGNORE, "a target across {at}");
            }
            lost += other.num_targets() - batch.num_targets();
        }
        assert!(all_starts > with_mask.len(), "no row has two documents");
        if policy == PackPolicy::Concat {
            assert_eq!(lost, 0, "every boundary follows the end of a document");
        }
    }
}

#[test]
fn a_masked_run_learns_and_resumes_bit_for_bit() {
    for engine in [curate_train::engine::EngineKind::Reference, curate_train::engine::EngineKind::Fused] {
        let dir = TestDir::new();
        let shards = small_shards(&dir.join("shards"));
        let mut options = small_options(&shards, 30);
        options.data.doc_mask = DocMask::Attention;
        options.numerics.engine = engine;
        let (whole, parts) = (dir.join("whole"), dir.join("parts"));
        let (_, losses) = train(&mut create(&whole, &shards, &options), None);
        assert!(losses[29] < losses[0] - 0.5, "{losses:?}");
        train(&mut create(&parts, &shards, &options), Some(11));
        train(&mut resume(&parts, &shards, &options), None);
        assert!(tensors_of(&whole, 30) == tensors_of(&parts, 30), "{engine:?}: weights or moments differ");
    }
}
