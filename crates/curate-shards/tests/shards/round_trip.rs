//! What is written is what is read.

use curate_shards::*;
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use crate::support::*;

/// Writes the documents and compares everything a reader can ask for with them.
fn check(docs: &[Doc], options: WriterOptions, views: &[ViewOptions]) {
    let dir = TestDir::new();
    let (splits, seed, tokenizer) = (options.splits.clone(), options.seed, options.tokenizer.clone());
    let manifest = write(dir.path(), docs, options, views);
    let set = ShardSet::open(dir.path()).unwrap();
    set.verify().unwrap();
    assert_eq!(set.manifest(), &manifest);
    assert_eq!(set.manifest().tokenizer, tokenizer);
    assert!(dir.names().iter().all(|name| !name.ends_with(".curate-tmp") && !name.starts_with('.')));
    for (side, name) in splits.names().into_iter().enumerate() {
        let docs: Vec<&Doc> = docs.iter().filter(|doc| splits.side(seed, doc.key) == side).collect();
        let split = set.split(name).unwrap();
        check_documents(&set, split, &docs);
        check_megatron(&dir, &manifest, name, &docs);
        assert_eq!(set.views(name).len(), views.len());
        for view in views {
            check_rows(&set, split, &docs, *view);
        }
    }
}

fn check_documents(set: &ShardSet, split: &Split, docs: &[&Doc]) {
    assert_eq!(split.num_documents(), docs.len() as u64);
    assert_eq!(split.num_tokens(), docs.iter().map(|doc| doc.tokens.len() as u64).sum::<u64>());
    assert_eq!(split.num_bytes(), docs.iter().map(|doc| u64::from(doc.n_bytes)).sum::<u64>());
    for (i, doc) in (0..).zip(docs) {
        let got = split.document(i);
        assert_eq!(got.tokens.iter().collect::<Vec<_>>(), doc.tokens, "document {i}");
        assert_eq!(got.n_bytes, doc.n_bytes);
        assert_eq!(set.manifest().domains[usize::from(got.domain)], doc.domain);
    }
    let end = split.num_documents();
    assert!(
        matches!(split.try_document(end), Err(Error::DocumentOutOfRange { document, .. }) if document == end)
    );
    assert!(split.try_document(u64::MAX).is_err());
}

fn check_megatron(dir: &TestDir, manifest: &Manifest, split: &str, docs: &[&Doc]) {
    let entry = manifest.splits.iter().find(|entry| entry.name == split).unwrap();
    let read = |stem: &str, ending| std::fs::read(dir.file(&format!("{stem}.{ending}"))).unwrap();
    let mut documents = Vec::new();
    for shard in &entry.shards {
        let idx = read_megatron(&read(&shard.file, "idx"), &read(&shard.file, "bin"));
        assert_eq!(idx.code, manifest.token_width.megatron_code());
        assert_eq!(idx.boundaries, (0..=idx.lengths.len() as i64).collect::<Vec<_>>());
        assert!(idx.pointers.is_sorted());
        assert_eq!(shard.documents, idx.documents.len() as u64);
        let (min, max) = (shard.min_token_id, shard.max_token_id);
        assert_eq!(idx.documents.concat().into_iter().min(), Some(i64::from(min)));
        assert_eq!(idx.documents.concat().into_iter().max(), Some(i64::from(max)));
        let alone = shard.documents == 1;
        assert!(alone || shard.tokens <= manifest.shard_tokens, "{} has {} tokens", shard.file, shard.tokens);
        documents.extend(idx.documents);
    }
    let expected: Vec<Vec<i64>> =
        docs.iter().map(|doc| doc.tokens.iter().map(|&id| i64::from(id)).collect()).collect();
    assert_eq!(documents, expected);
}

fn check_rows(set: &ShardSet, split: &Split, docs: &[&Doc], options: ViewOptions) {
    let view = set.view(split.name(), options.seq_len).unwrap();
    assert_eq!((view.seq_len(), view.policy()), (options.seq_len, options.policy));
    let stream: Vec<i64> = docs.iter().flat_map(|doc| &doc.tokens).map(|&id| i64::from(id)).collect();
    let seq_len = options.seq_len as usize;
    // One buffer for all rows, filled with rubbish first: nothing of it may stay.
    let mut row = Row { tokens: vec![-1; 3], len: 99, document_starts: vec![7, 7] };
    let (mut tokens, mut padding) = (0, 0);
    for r in 0..view.num_rows() {
        view.fill(split, r, &mut row);
        assert_eq!(row.tokens.len(), seq_len + 1);
        assert!(row.len >= 2);
        assert!(row.tokens[row.len..].iter().all(|&id| id == i64::from(EOD)));
        assert_eq!(row.document_starts[0], 0);
        assert!(row.document_starts.is_sorted_by(|a, b| a < b));
        let runs: Vec<Run> = view.runs(r).unwrap().collect();
        let starts = runs.iter().scan(0, |at, run| Some(std::mem::replace(at, *at + run.length)));
        assert_eq!(row.document_starts, starts.collect::<Vec<_>>());
        let from_runs = runs.iter().flat_map(|run| {
            let doc = docs[usize::try_from(run.document).unwrap()];
            doc.tokens[run.offset as usize..][..run.length as usize].iter().map(|&id| i64::from(id))
        });
        assert_eq!(row.tokens[..row.len], from_runs.collect::<Vec<_>>());
        if options.policy == PackPolicy::Concat {
            let start = usize::try_from(r).unwrap() * seq_len;
            assert_eq!(row.tokens[..row.len], stream[start..stream.len().min(start + seq_len + 1)]);
        }
        tokens += row.len as u64;
        padding += (seq_len + 1 - row.len) as u64;
    }
    let entry = view.manifest();
    assert_eq!((entry.tokens, entry.targets, entry.padding), (tokens, tokens - view.num_rows(), padding));
    let end = view.num_rows();
    assert!(
        matches!(view.try_fill(split, end, &mut row), Err(Error::RowOutOfRange { row, .. }) if row == end)
    );
    assert!(view.try_fill(split, u64::MAX, &mut row).is_err());
}

#[test]
fn both_widths_with_rotation_and_held_out_documents() {
    for vocab_size in [50, 65_499, 65_500, 200_000, i32::MAX as u32] {
        check(&corpus(vocab_size), rich_options(vocab_size), &[CONCAT_8, BEST_FIT_4]);
    }
}

#[test]
fn largest_ids_survive() {
    for vocab_size in [65_499, 65_500, i32::MAX as u32] {
        check(&[Doc::new(&[vocab_size - 1, 1], "", 0)], options(vocab_size), &[CONCAT_8]);
    }
}

#[test]
fn no_documents_at_all() {
    check(&[], options(100), &[CONCAT_8, BEST_FIT_4]);
    check(&[], rich_options(100), &[CONCAT_8]);
    check(&[], rich_options(100), &[]);
}

#[test]
fn one_side_without_documents() {
    // Key 0 is held out by this seed, key 1 is not.
    check(&[Doc::new(&[5, 6], "a", 0)], rich_options(100), &[CONCAT_8, BEST_FIT_4]);
    check(&[Doc::new(&[5, 6], "a", 1)], rich_options(100), &[CONCAT_8, BEST_FIT_4]);
}

#[test]
fn documents_of_one_token() {
    let lone = Doc::new(&[], "", 1);
    check(std::slice::from_ref(&lone), options(100), &[CONCAT_8, BEST_FIT_4]);
    check(&vec![lone.clone(); 20], options(100), &[CONCAT_8, BEST_FIT_4]);
    let dir = TestDir::new();
    let manifest = write(dir.path(), &vec![lone; 20], options(100), &[CONCAT_8, BEST_FIT_4]);
    assert_eq!((manifest.views[0].rows, manifest.views[0].documents_skipped), (3, 0));
    assert_eq!((manifest.views[1].rows, manifest.views[1].documents_skipped), (0, 20));
}

#[test]
fn a_document_longer_than_a_shard_has_one_for_itself() {
    let long: Vec<TokenId> = (1..100).collect();
    let docs = [Doc::new(&[1], "", 0), Doc::new(&long, "", 0), Doc::new(&[2], "", 0), Doc::new(&[3], "", 0)];
    let small = || WriterOptions { shard_tokens: 10, ..options(100) };
    check(&docs, small(), &[CONCAT_8, BEST_FIT_4]);
    let dir = TestDir::new();
    let manifest = write(dir.path(), &docs, small(), &[]);
    let tokens: Vec<u64> = manifest.splits[0].shards.iter().map(|shard| shard.tokens).collect();
    assert_eq!(tokens, [2, 100, 4]);
    check(&docs, WriterOptions { shard_tokens: 1, ..options(100) }, &[CONCAT_8]);
}

#[test]
fn counts_by_domain_add_up() {
    let dir = TestDir::new();
    let manifest = write(dir.path(), &corpus(100), rich_options(100), &[]);
    assert_eq!(manifest.domains, ["web", "", "code"]);
    for split in &manifest.splits {
        assert_eq!(split.domains.iter().map(|d| d.documents).sum::<u64>(), split.documents);
        assert_eq!(split.domains.iter().map(|d| d.tokens).sum::<u64>(), split.tokens);
        assert_eq!(split.domains.iter().map(|d| d.bytes).sum::<u64>(), split.bytes);
        assert!(split.domains.iter().all(|d| d.documents > 0));
    }
    assert_eq!(manifest.splits.iter().map(|split| split.documents).sum::<u64>(), 30);
}

#[test]
fn vocabulary_tokenizer_and_lineage_lie_beside_the_shards() {
    let dir = TestDir::new();
    write(dir.path(), &corpus(100), rich_options(100), &[]);
    let set = ShardSet::open(dir.path()).unwrap();
    assert_eq!(set.dir(), dir.path());
    assert_eq!(set.vocabulary().unwrap().unwrap().bytes(42), b"<42>");
    assert_eq!(std::fs::read(dir.file("tokenizer.json")).unwrap(), b"{\"toy\": true}");
    assert_eq!(set.manifest().lineage["clean"]["ratio"], 0.1);
    let bare = TestDir::new();
    write(bare.path(), &corpus(100), options(100), &[]);
    assert!(ShardSet::open(bare.path()).unwrap().vocabulary().unwrap().is_none());
}

#[test]
fn tokens_are_copied_by_range() {
    let (narrow, wide) = (Tokens::U16(&[1, 2, 65_498]), Tokens::I32(&[1, 2, 65_498]));
    for tokens in [narrow, wide] {
        let mut out = [0; 2];
        tokens.copy_to_i64(1..3, &mut out);
        assert_eq!(out, [2, 65_498]);
        tokens.copy_to_i64(1..1, &mut []);
        assert_eq!(
            (tokens.len(), tokens.is_empty(), tokens.get(0), tokens.last()),
            (3, false, 1, Some(65_498))
        );
    }
    assert_eq!(Tokens::U16(&[]).last(), None);
}

#[test]
#[should_panic(expected = "one place for each token")]
fn a_buffer_of_another_length_is_a_bug() {
    Tokens::U16(&[1, 2]).copy_to_i64(0..2, &mut [0]);
}

#[test]
fn the_same_documents_give_the_same_bytes() {
    let (one, two) = (TestDir::new(), TestDir::new());
    for dir in [&one, &two] {
        write(dir.path(), &corpus(100), rich_options(100), &[CONCAT_8, BEST_FIT_4]);
    }
    assert_eq!(one.contents(), two.contents());
    let open = |dir: &TestDir| ShardSet::open(dir.path()).unwrap();
    assert_eq!(open(&one).fingerprint(), open(&two).fingerprint());
}

#[test]
fn the_bytes_are_part_of_the_format() {
    // Sets that exist must stay readable, and the same input must go on giving the same files: a change here needs
    // a new format version.
    let dir = TestDir::new();
    write(dir.path(), &corpus(100), rich_options(100), &[CONCAT_8, BEST_FIT_4]);
    let hashes =
        dir.contents().into_iter().map(|(name, bytes)| format!("{name} {:032x}\n", xxh3_128(&bytes)));
    assert_eq!(hashes.collect::<String>(), GOLDEN_FILES);
}

const GOLDEN_FILES: &str = "\
manifest.json 915c4fb30610814024d60ef006a69f3d\n\
tokenizer.json f33c3212b3090c8f70f469e7f52a1dae\n\
train-00000.bin 314d6b0242c75eb9555e56b927381d46\n\
train-00000.bytes 093c09966d5c3dbeadbcc78e89f203ca\n\
train-00000.dom 28fca8b35f84a4ea2a6db14066830502\n\
train-00000.idx e5a15008dc89f92616c899ea55bf0c39\n\
train-00001.bin 27137d9bfe84a21a0a91b86d3da57f9e\n\
train-00001.bytes b11c641fd11df9125f4841f1d89c682c\n\
train-00001.dom 4427591952eb352507a7d3c60e9c862a\n\
train-00001.idx b1b54b0affa42e1fdd6830d04dfbb805\n\
train-00002.bin 7903bdbb9ab734d9bfb47b04ebd41bfb\n\
train-00002.bytes 761db42a46b8c256362f51b5451dd2ad\n\
train-00002.dom 83a44145205a046f9ea5d528a91678b4\n\
train-00002.idx 0a04038b615836c3285fcfc2fbf0de60\n\
train.T4.view bfb3ccd92a884842c6438ea16900e28c\n\
train.T8.view 55702fae5b86b533b46defb4415c55c3\n\
val-00000.bin 72291380878409f0b173557adcebb7cd\n\
val-00000.bytes 3f182f568790e25afc9310c08b902681\n\
val-00000.dom b98202103c8ba1fe2c074b31e4324ce5\n\
val-00000.idx cc544c6d17721ee3531b722c93b01ce6\n\
val-00001.bin a3c3d01d6bd46e2dade62ca73ae7e4ce\n\
val-00001.bytes e03044e8e022bca6359a60ced97c540d\n\
val-00001.dom 64f89926b29a404f2dec6d679d2114d1\n\
val-00001.idx 276756c1d501a21ca99d39557f841725\n\
val.T4.view c4663bcf9f449f2a876559f8f55cf1c3\n\
val.T8.view 79017b23f5448ab3bbfb1b08059d8100\n\
vocabulary.bin 31937901c9b16763591d4012c080c04a\n\
";

#[test]
fn split_hashes_tell_contents_apart() {
    let hash = |docs: &[Doc], split| {
        let dir = TestDir::new();
        write(dir.path(), docs, rich_options(100), &[]);
        ShardSet::open(dir.path()).unwrap().split(split).unwrap().split_hash()
    };
    let docs = corpus(100);
    let (train, val) = (hash(&docs, "train"), hash(&docs, "val"));
    let changed = |change: fn(&mut Doc)| {
        let mut docs = docs.clone();
        change(&mut docs[1]); // Document 1 is in train.
        docs
    };
    for other in [changed(|doc| doc.tokens[0] += 1), changed(|doc| doc.n_bytes += 1)] {
        assert_ne!(hash(&other, "train"), train);
        assert_eq!(hash(&other, "val"), val);
    }
    // Another first domain gives all domains other numbers, in both splits.
    let renumbered = changed(|doc| doc.domain = "code".to_owned());
    assert_eq!((hash(&renumbered, "train"), hash(&renumbered, "val")), (train, val));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn anything_comes_back(
        docs in any_docs(70_000),
        wide: bool,
        shard_tokens in 30u64..400,
        seq_lens in prop::collection::btree_set(1u32..40, 0..3),
        best_fit: bool,
        spec in prop::sample::select(vec!["", "val=0.5", "a=0.2,b=0.3"]),
        seed: u64,
    ) {
        let vocab_size = if wide { 70_000 } else { 300 };
        let docs: Vec<Doc> = docs
            .into_iter()
            .map(|doc| Doc { tokens: doc.tokens.iter().map(|id| id % vocab_size).collect(), ..doc })
            .collect();
        let policy = if best_fit { PackPolicy::BestFit } else { PackPolicy::Concat };
        let views: Vec<_> = seq_lens.into_iter().map(|seq_len| ViewOptions { seq_len, policy }).collect();
        let splits = Splits::parse(spec).unwrap();
        check(&docs, WriterOptions { splits, shard_tokens, seed, ..options(vocab_size) }, &views);
    }
}
