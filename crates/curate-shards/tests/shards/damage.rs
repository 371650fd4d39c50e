//! Files that were cut or changed after they were written: each gives an error, none a panic or a wrong answer.

use std::path::Path;
use std::sync::LazyLock;

use curate_shards::*;
use proptest::prelude::*;

use crate::support::*;

/// The files of a small set, written once.
static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let dir = TestDir::new();
    write(dir.path(), &corpus(100), rich_options(100), &[CONCAT_8, BEST_FIT_4]);
    dir.contents()
});

/// The set with one file changed.
fn damaged(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> TestDir {
    let dir = TestDir::new();
    for (file, bytes) in FILES.iter().filter(|(file, _)| file != name) {
        std::fs::write(dir.file(file), bytes).unwrap();
    }
    let mut bytes = FILES.iter().find(|(file, _)| file == name).unwrap().1.clone();
    change(&mut bytes);
    std::fs::write(dir.file(name), bytes).unwrap();
    dir
}

fn open_and_verify(dir: &Path) -> Result<()> {
    let set = ShardSet::open(dir)?;
    read_everything(&set);
    set.verify()
}

/// Every document and row may fail or be wrong, as nothing was verified yet, but must not panic.
fn read_everything(set: &ShardSet) {
    let mut row = Row::default();
    for split in set.splits() {
        for i in 0..split.num_documents() {
            let _ = split.try_document(i).map(|doc| doc.tokens.iter().count());
        }
        for seq_len in set.views(split.name()) {
            let Ok(view) = set.view(split.name(), seq_len) else { continue };
            for r in 0..view.num_rows() {
                let _ = view.try_fill(split, r, &mut row);
            }
        }
    }
}

#[test]
fn the_set_itself_is_sound() {
    let dir = damaged("manifest.json", |_| {});
    open_and_verify(dir.path()).unwrap();
}

#[test]
fn any_change_of_any_file_is_found() {
    let dir = damaged("manifest.json", |_| {});
    let (file, at, kind) = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) };
    proptest!(config, |(file in file, at in at, change in 1u8.., kind in kind)| {
        let (name, bytes) = file.get(&FILES);
        let at = at.index(bytes.len());
        std::fs::write(dir.file(name), damage(bytes, at, change, kind)).unwrap();
        let found = open_and_verify(dir.path());
        std::fs::write(dir.file(name), bytes).unwrap();
        // The last byte of the manifest is a line feed, which may turn into other white space or go.
        let harmless = name == "manifest.json" && at + 2 >= bytes.len();
        prop_assert!(found.is_err() || harmless, "{name}: change at {at} was not found");
    });
}

#[test]
fn a_missing_file_is_named() {
    for (name, _) in FILES.iter().filter(|(name, _)| name != "manifest.json") {
        let dir = damaged(name, |_| {});
        std::fs::remove_file(dir.file(name)).unwrap();
        let error = ShardSet::open(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with(&format!("{name}: cannot open")), "{error}");
    }
}

/// Opens or verifies the damaged set and compares the message, with the directory left out.
fn check(name: &str, change: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let dir = damaged(name, change);
    let error = open_and_verify(dir.path()).unwrap_err();
    let message = error.to_string().replace(&format!("{}/", dir.path().display()), "");
    assert!(message.starts_with(expected), "got: {message}\nexpected: {expected}");
    assert!(error.hint().is_some(), "{message}");
}

#[test]
fn each_defect_of_a_shard_has_its_message() {
    check("train-00000.bin", |b| b.truncate(10), "train-00000.bin: 10 bytes, expected 80");
    check("train-00000.bin", |b| b[3] ^= 1, "train-00000.bin: bad checksum (got ");
    check("train-00000.bytes", |b| b.push(0), "train-00000.bytes: 33 bytes, expected 32");
    check("train-00000.dom", |b| b[0] ^= 1, "train-00000.dom: bad checksum (got ");
    check(
        "train-00001.idx",
        |b| b[0] = b'X',
        "train-00001.idx: not a Megatron index file (it begins with \"XMIDIDX",
    );
    check(
        "train-00001.idx",
        |b| b[9] = 2,
        "train-00001.idx: format version 2 is not supported (this build reads version 1)",
    );
    check("train-00001.idx", |b| b[17] = 4, "train-00001.idx: token type is 4, expected 8");
    check("train-00001.idx", |b| b[18] += 1, "train-00001.idx: number of sequences is ");
    check("train-00001.idx", |b| b[26] += 1, "train-00001.idx: number of document boundaries is ");
    check("train-00001.idx", |b| b[34] ^= 1, "train-00001.idx: bad checksum (got ");
}

#[test]
fn each_defect_of_a_view_has_its_message() {
    let name = "val.T8.view";
    check(name, |b| b.truncate(40), "val.T8.view: 40 bytes, expected ");
    check(name, |b| b[0] = b'X', "val.T8.view: not a view file (it begins with \"XURVIEW");
    check(name, |b| b[8] = 7, "val.T8.view: format version 7 is not supported (this build reads version 1)");
    check(name, |b| b[12] = 9, "val.T8.view: seq_len is 9, expected 8");
    check(name, |b| b[16] = 1, "val.T8.view: policy is 1, expected 0");
    check(name, |b| b[20] = 1, "val.T8.view: flags is 1, expected 0");
    check(name, |b| b[24] += 1, "val.T8.view: number of rows is ");
    check(name, |b| b[32] += 1, "val.T8.view: number of runs is ");
    check(name, |b| b[40] += 1, "val.T8.view: number of documents is ");
    check(name, |b| b[48] ^= 1, "val.T8.view: hash of the split is ");
    check(name, |b| b[72] ^= 1, "val.T8.view: bad checksum (got ");
}

#[test]
fn each_defect_of_the_manifest_has_its_message() {
    let replace = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{text}");
            *bytes = text.replacen(from, to, 1).into_bytes();
        }
    };
    let name = "manifest.json";
    check(name, |b| b.truncate(50), "manifest.json: not a valid manifest");
    check(name, |b| b.clear(), "manifest.json: not a valid manifest");
    check(
        name,
        replace("\"format\": \"curate-shards\"", "\"format\": \"x\""),
        "manifest.json: format is x, expected curate-shards",
    );
    check(
        name,
        replace("\"format_version\": 1", "\"format_version\": 99"),
        "manifest.json: format version 99 is not supported (this build reads version 1)",
    );
    check(name, replace("\"seed\": 7", "\"seed\": 8"), "manifest.json: bad checksum (got ");
    check(
        name,
        replace("\"checksum\"", "\"chekcsum\""),
        "manifest.json: bad checksum (got no checksum, expected )",
    );
}

#[test]
fn damage_that_was_not_verified_is_an_error_where_it_is_used() {
    // The length of the first document becomes negative, then too large.
    for (byte, value, problem) in [(37, 0x80, "length"), (37, 0x7f, "not in the .bin file")] {
        let dir = damaged("train-00000.idx", |b| b[byte] = value);
        let set = ShardSet::open(dir.path()).unwrap();
        let split = set.split("train").unwrap();
        let error = split.try_document(0).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains(problem), "{error}");
        assert!(set.view("train", 8).unwrap().try_fill(split, 0, &mut Row::default()).is_err());
        split.try_document(1).unwrap();
    }
    // The first run of a row points past its document.
    let rows =
        ShardSet::open(damaged("manifest.json", |_| {}).path()).unwrap().view("train", 8).unwrap().num_rows();
    let first_run = 64 + 8 * (usize::try_from(rows).unwrap() + 1);
    let dir = damaged("train.T8.view", |b| b[first_run + 8] = 0xff);
    let set = ShardSet::open(dir.path()).unwrap();
    let error = set.view("train", 8).unwrap().try_fill(set.split("train").unwrap(), 0, &mut Row::default());
    assert!(error.unwrap_err().to_string().contains("row 0: Run { document: 0, offset: 255"));
}
