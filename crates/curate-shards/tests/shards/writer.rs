//! Refusals, leftovers of interrupted runs, replacing, views added later.

use curate_shards::*;

use crate::support::*;

/// The message, with the directory written as DIR.
fn message(dir: &TestDir, error: &Error) -> String {
    error.to_string().replace(dir.path().to_str().unwrap(), "DIR")
}

fn check_refused(dir: &TestDir, options: WriterOptions, expected: &str) {
    let error = ShardSetWriter::create(dir.path(), options).unwrap_err();
    assert_eq!(message(dir, &error), expected);
}

#[test]
fn impossible_options_are_refused() {
    let dir = TestDir::new();
    let info = |vocab_size, eod| TokenizerInfo { vocab_size, eod, ..options(2).tokenizer };
    let tokenizer = |vocab_size, eod| WriterOptions::new(info(vocab_size, eod));
    check_refused(&dir, tokenizer(0, 0), "vocab_size: 0 is not in 1..=2147483647");
    check_refused(&dir, tokenizer(1 << 31, 0), "vocab_size: 2147483648 is not in 1..=2147483647");
    check_refused(&dir, tokenizer(100, 100), "eod: id 100 is outside the vocabulary of 100");
    let vocabulary = vec![Vec::new(); 3];
    check_refused(&dir, WriterOptions { vocabulary, ..options(2) }, "vocabulary: holds 3 ids, more than 2");
    check_refused(
        &dir,
        WriterOptions { shard_tokens: 0, ..options(2) },
        "shard_tokens: must be at least 1, is 0",
    );
    assert!(dir.names().is_empty());
}

#[test]
fn impossible_views_are_refused() {
    let check = |views: &[ViewOptions], expected: &str| {
        let dir = TestDir::new();
        let error = ShardSetWriter::create(dir.path(), options(100)).unwrap().finish(views).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(matches!(ShardSet::open(dir.path()), Err(Error::Incomplete { .. })));
    };
    let view = |seq_len| ViewOptions { seq_len, ..CONCAT_8 };
    check(&[view(0)], "seq_len: 0 is not in 1..=16777216");
    check(&[view(MAX_SEQ_LEN + 1)], "seq_len: 16777217 is not in 1..=16777216");
    check(&[view(4), BEST_FIT_4], "seq_len: 4 is given twice");
}

#[test]
fn a_bad_document_is_named_and_leaves_the_set_as_it_was() {
    let dir = TestDir::new();
    let mut writer = ShardSetWriter::create(dir.path(), options(100)).unwrap();
    let good = Doc::new(&[1, 2], "a", 0);
    writer.push(&good.borrow()).unwrap();
    let mut refuse = |tokens: &[TokenId], expected: &str| {
        let error = writer.push(&TokenDocument { tokens, ..good.borrow() }).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some());
    };
    refuse(&[], "document 1: does not end in the end-of-document id 0 (it is empty)");
    refuse(&[5, 6], "document 2: does not end in the end-of-document id 0 (its last id is 6)");
    refuse(&[5, 100, 400, 0], "document 3, token 1: id 100 is outside the vocabulary of 100");
    writer.push(&good.borrow()).unwrap();
    let manifest = writer.finish(&[]).unwrap();
    assert_eq!((manifest.splits[0].documents, manifest.splits[0].tokens), (2, 6));
    ShardSet::open(dir.path()).unwrap().verify().unwrap();
}

#[test]
fn domains_are_numbered_in_sixteen_bits() {
    let dir = TestDir::new();
    let mut writer = ShardSetWriter::create(dir.path(), options(100)).unwrap();
    let mut push = |domain: u32| writer.push(&Doc::new(&[1], &domain.to_string(), 0).borrow());
    (0..65_536).for_each(|domain| push(domain).unwrap());
    let error = push(65_536).unwrap_err();
    assert_eq!(
        error.to_string(),
        "document 65536: domain \"65536\" is one too many, a set holds at most 65536"
    );
    push(65_535).unwrap();
    let manifest = writer.finish(&[]).unwrap();
    assert_eq!(manifest.domains.len(), 65_536);
    let set = ShardSet::open(dir.path()).unwrap();
    assert_eq!(set.split("train").unwrap().document(65_536).domain, u16::MAX);
    set.verify().unwrap();
}

#[test]
fn a_complete_set_is_replaced_only_by_force() {
    let dir = TestDir::new();
    write(dir.path(), &corpus(100), rich_options(100), &[CONCAT_8, BEST_FIT_4]);
    let before = dir.contents();
    check_refused(&dir, options(100), "DIR: already holds a complete shard set");
    assert_eq!(dir.contents(), before);
    let force = WriterOptions { force: true, ..options(100) };
    // From the first moment on there is no set, so that a crash leaves none that is half old.
    let writer = ShardSetWriter::create(dir.path(), force).unwrap();
    assert_eq!(dir.names(), [".curate-incomplete"]);
    let error = ShardSet::open(dir.path()).unwrap_err();
    assert_eq!(message(&dir, &error), "DIR: incomplete shard set, the run that wrote it did not finish");
    writer.finish(&[]).unwrap();
    assert_eq!(dir.names(), ["manifest.json"]);
}

#[test]
fn a_damaged_set_can_be_replaced_by_force_but_not_a_stranger() {
    let force = || WriterOptions { force: true, ..options(100) };
    let dir = TestDir::new();
    write(dir.path(), &corpus(100), options(100), &[]);
    let text = std::fs::read_to_string(dir.file("manifest.json")).unwrap();
    std::fs::write(dir.file("manifest.json"), &text[..text.len() / 2]).unwrap();
    assert!(ShardSet::open(dir.path()).is_err());
    write(dir.path(), &corpus(100), force(), &[]);
    ShardSet::open(dir.path()).unwrap();

    let stranger = TestDir::new();
    std::fs::write(stranger.file("manifest.json"), "{\"name\": \"an app\"}").unwrap();
    let expected = "DIR/manifest.json: is in the way and was not left by an interrupted run";
    check_refused(&stranger, force(), expected);
    assert_eq!(stranger.names(), ["manifest.json"]);
}

#[test]
fn files_of_others_are_left_alone() {
    for name in ["train-00000.bin", "corpus-00017.idx", "val.T512.view", "vocabulary.bin", "tokenizer.json"] {
        for force in [false, true] {
            let dir = TestDir::new();
            std::fs::write(dir.file(name), "mine").unwrap();
            let expected = format!("DIR/{name}: is in the way and was not left by an interrupted run");
            check_refused(&dir, WriterOptions { force, ..options(100) }, &expected);
            assert_eq!(dir.contents(), [(name.to_owned(), b"mine".to_vec())]);
        }
    }
    // Names that are not needed do not matter, nor does the very tokenizer that is used.
    let dir = TestDir::new();
    std::fs::write(dir.file("train.bin"), "mine").unwrap();
    std::fs::write(dir.file("tokenizer.json"), "{\"toy\": true}").unwrap();
    write(dir.path(), &corpus(100), rich_options(100), &[]);
    assert_eq!(std::fs::read(dir.file("train.bin")).unwrap(), b"mine");
    ShardSet::open(dir.path()).unwrap().verify().unwrap();
}

#[test]
fn an_interrupted_run_leaves_no_set_and_the_next_one_cleans_up() {
    let dir = TestDir::new();
    let mut writer = ShardSetWriter::create(dir.path(), rich_options(100)).unwrap();
    corpus(100).iter().for_each(|doc| writer.push(&doc.borrow()).unwrap());
    // As if killed: closed shards are there, temporaries too.
    std::mem::forget(writer);
    assert!(dir.names().iter().any(|name| name == "train-00000.idx"));
    assert!(dir.names().iter().any(|name| name.ends_with(".bin.curate-tmp")));
    let error = ShardSet::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Incomplete { .. }) && error.hint().is_some());
    // A dead process loses its lock; the writer forgotten above still lives, so the test moves the files instead.
    let crashed = TestDir::new();
    for name in dir.names() {
        std::fs::rename(dir.file(&name), crashed.file(&name)).unwrap();
    }
    std::fs::remove_file(crashed.file(".curate-incomplete")).unwrap();
    std::fs::write(crashed.file(".curate-incomplete"), "").unwrap();
    std::fs::write(crashed.file("notes.txt"), "mine").unwrap();
    write(crashed.path(), &corpus(100)[..1], options(100), &[]);
    let left = [
        "manifest.json",
        "notes.txt",
        "train-00000.bin",
        "train-00000.bytes",
        "train-00000.dom",
        "train-00000.idx",
    ];
    assert_eq!(crashed.names(), left);
    ShardSet::open(crashed.path()).unwrap().verify().unwrap();
}

#[test]
fn one_process_writes_at_a_time() {
    let dir = TestDir::new();
    let writer = ShardSetWriter::create(dir.path(), options(100)).unwrap();
    check_refused(&dir, options(100), "DIR: another process is writing here");
    drop(writer);
    write(dir.path(), &corpus(100), options(100), &[]);
}

#[test]
fn a_dropped_writer_leaves_no_temporaries() {
    let dir = TestDir::new();
    let mut writer = ShardSetWriter::create(dir.path(), options(100)).unwrap();
    corpus(100).iter().for_each(|doc| writer.push(&doc.borrow()).unwrap());
    drop(writer);
    assert_eq!(dir.names(), [".curate-incomplete"]);
}

#[test]
fn a_write_that_fails_breaks_the_writer() {
    let dir = TestDir::new();
    let mut writer = ShardSetWriter::create(dir.path(), options(100)).unwrap();
    // A directory in place of the temporary file: it cannot be created.
    std::fs::create_dir(dir.file("train-00000.bin.curate-tmp")).unwrap();
    let doc = Doc::new(&[1], "", 0);
    let error = writer.push(&doc.borrow()).unwrap_err();
    assert_eq!(message(&dir, &error), "DIR/train-00000.bin.curate-tmp: cannot create");
    assert!(matches!(writer.push(&doc.borrow()), Err(Error::BrokenWriter { .. })));
    assert!(matches!(writer.finish(&[]), Err(Error::BrokenWriter { .. })));
}

#[test]
fn views_can_be_added_later_and_equal_those_made_at_once() {
    let (at_once, later) = (TestDir::new(), TestDir::new());
    write(at_once.path(), &corpus(100), rich_options(100), &[CONCAT_8, BEST_FIT_4]);
    write(later.path(), &corpus(100), rich_options(100), &[CONCAT_8]);
    let open = ShardSet::open(later.path()).unwrap();
    let added = add_view(later.path(), BEST_FIT_4).unwrap();
    assert_eq!(
        added.iter().map(|view| view.file.as_str()).collect::<Vec<_>>(),
        ["train.T4.view", "val.T4.view"]
    );
    assert_eq!(at_once.contents(), later.contents());
    let again = ShardSet::open(later.path()).unwrap();
    assert_eq!(again.views("train"), [4, 8]);
    again.verify().unwrap();
    // Those who had the set open are not disturbed, and can tell that their rows are the same.
    open.verify().unwrap();
    assert_ne!(open.fingerprint(), again.fingerprint());
    let checksum = |set: &ShardSet| set.view("train", 8).unwrap().checksum().to_owned();
    assert_eq!(checksum(&open), checksum(&again));
}

#[test]
fn a_view_that_is_there_stays() {
    let dir = TestDir::new();
    let manifest = write(dir.path(), &corpus(100), rich_options(100), &[CONCAT_8]);
    let before = dir.contents();
    assert_eq!(add_view(dir.path(), CONCAT_8).unwrap(), manifest.views);
    let error = add_view(dir.path(), ViewOptions { policy: PackPolicy::BestFit, ..CONCAT_8 }).unwrap_err();
    assert_eq!(message(&dir, &error), "DIR: seq_len 8 is already packed with policy concat, not best-fit");
    assert!(add_view(dir.path(), ViewOptions { seq_len: 0, ..CONCAT_8 }).is_err());
    assert_eq!(dir.contents(), before);
    let empty = TestDir::new();
    assert!(matches!(add_view(empty.path(), CONCAT_8), Err(Error::NotAShardSet { .. })));
    assert!(empty.names().is_empty());
}

#[test]
fn requests_that_cannot_be_met_list_what_there_is() {
    let dir = TestDir::new();
    write(dir.path(), &corpus(100), rich_options(100), &[CONCAT_8, BEST_FIT_4]);
    let set = ShardSet::open(dir.path()).unwrap();
    let error = set.split("test").unwrap_err();
    assert_eq!(message(&dir, &error), "DIR: no split named \"test\" (there are: train, val)");
    let error = set.view("val", 1024).unwrap_err();
    assert_eq!(message(&dir, &error), "DIR: split \"val\" has no view for seq_len 1024 (there are: 4, 8)");
    assert!(error.hint().unwrap().contains("`curate pack --seq-len 1024`"));
    assert!(matches!(set.view("test", 8), Err(Error::UnknownSplit { .. })));
    assert!(set.views("test").is_empty());
    let (train, val) = (set.split("train").unwrap(), set.view("val", 8).unwrap());
    let error = val.try_fill(train, 0, &mut Row::default()).unwrap_err();
    assert_eq!(error.to_string(), "the view of split \"val\" cannot serve rows of split \"train\"");
}

#[test]
fn a_directory_without_a_set_is_named() {
    let dir = TestDir::new();
    let error = ShardSet::open(dir.path()).unwrap_err();
    assert_eq!(message(&dir, &error), "DIR: not a shard set, there is no manifest.json");
    let error = ShardSet::open(&dir.file("absent")).unwrap_err();
    assert!(matches!(error, Error::NotAShardSet { .. }));
    let file = dir.file("a-file");
    std::fs::write(&file, "").unwrap();
    let error = ShardSet::open(&file).unwrap_err();
    assert!(matches!(error, Error::Io { .. } | Error::NotAShardSet { .. }), "{error}");
    assert!(ShardSetWriter::create(&file, options(100)).is_err());
}
