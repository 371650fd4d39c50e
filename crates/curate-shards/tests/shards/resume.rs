//! Runs that were interrupted: the next one goes on after the last finished shard, and the set is the same.

use curate_shards::*;
use proptest::prelude::*;

use crate::support::*;

/// The directory of a run that was given `docs` and then killed: what a dead process leaves.
fn killed(docs: &[Doc], options: WriterOptions) -> TestDir {
    let dir = TestDir::new();
    let mut writer = ShardSetWriter::create(dir.path(), options).unwrap();
    docs.iter().for_each(|doc| writer.push(&doc.borrow()).unwrap());
    // Nothing is cleaned up, and the lock, which this living process holds on the old file, stays behind.
    std::mem::forget(writer);
    let crashed = TestDir::new();
    for name in dir.names() {
        std::fs::rename(dir.file(&name), crashed.file(&name)).unwrap();
    }
    std::fs::remove_file(crashed.file(".curate-incomplete")).unwrap();
    std::fs::write(crashed.file(".curate-incomplete"), "").unwrap();
    crashed
}

fn resumed(dir: &TestDir, docs: &[Doc], options: WriterOptions) -> (Resume, Result<Manifest>) {
    let mut writer = ShardSetWriter::create(dir.path(), options).unwrap();
    let resume = writer.resume();
    let pushed = docs.iter().try_for_each(|doc| writer.push(&doc.borrow()));
    (resume, pushed.and_then(|()| writer.finish(&[CONCAT_8])))
}

#[test]
fn a_run_killed_anywhere_comes_out_the_same() {
    let docs = corpus(100);
    let whole = TestDir::new();
    write(whole.path(), &docs, rich_options(100), &[CONCAT_8]);
    let mut most = 0;
    for n in 0..=docs.len() {
        let dir = killed(&docs[..n], rich_options(100));
        let (resume, manifest) = resumed(&dir, &docs, rich_options(100));
        manifest.unwrap();
        most = most.max(resume.shards);
        assert_eq!(dir.contents(), whole.contents(), "killed after {n} documents");
    }
    assert!(most >= 3, "the test resumes with {most} shards at most");
}

#[test]
fn finished_shards_are_not_written_again() {
    let docs = corpus(100);
    let dir = killed(&docs, rich_options(100));
    let inode = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(dir.file(name)).unwrap().ino()
    };
    let names: Vec<String> =
        dir.names().into_iter().filter(|name| name.ends_with(".bin") && name.contains("-0")).collect();
    assert!(!names.is_empty());
    let before: Vec<u64> = names.iter().map(|name| inode(name)).collect();
    let (resume, manifest) = resumed(&dir, &docs, rich_options(100));
    manifest.unwrap();
    assert_eq!(resume.shards, names.len() as u64);
    assert_eq!(names.iter().map(|name| inode(name)).collect::<Vec<_>>(), before);
}

#[test]
fn a_run_killed_again_and_again_comes_out_the_same() {
    let docs = corpus(100);
    let whole = TestDir::new();
    write(whole.path(), &docs, rich_options(100), &[CONCAT_8]);
    let mut dir = killed(&docs[..15], rich_options(100));
    for n in [20, 5, 25, 30] {
        let mut writer = ShardSetWriter::create(dir.path(), rich_options(100)).unwrap();
        docs[..n].iter().for_each(|doc| writer.push(&doc.borrow()).unwrap());
        std::mem::forget(writer);
        let next = TestDir::new();
        for name in dir.names() {
            std::fs::rename(dir.file(&name), next.file(&name)).unwrap();
        }
        std::fs::remove_file(next.file(".curate-incomplete")).unwrap();
        std::fs::write(next.file(".curate-incomplete"), "").unwrap();
        dir = next;
    }
    resumed(&dir, &docs, rich_options(100)).1.unwrap();
    assert_eq!(dir.contents(), whole.contents());
}

#[test]
fn another_input_is_refused_and_restart_takes_it() {
    let docs = corpus(100);
    let mut others = docs.clone();
    others[2].tokens[0] ^= 1;
    for (others, what) in [(&others[..], "another token"), (&docs[..3], "fewer documents")] {
        let dir = killed(&docs, rich_options(100));
        let (_, refused) = resumed(&dir, others, rich_options(100));
        let error = refused.unwrap_err();
        assert!(
            matches!(&error, Error::OtherInput { shard, .. } if shard.starts_with("train-0000")),
            "{what}: {error}"
        );
        assert!(error.hint().unwrap().contains("--restart"));
        // What was finished is still there for the right input.
        let restart = || WriterOptions { restart: true, ..rich_options(100) };
        let (resume, manifest) = resumed(&dir, others, restart());
        manifest.unwrap();
        assert_eq!(resume, Resume::default());
        ShardSet::open(dir.path()).unwrap().verify().unwrap();
    }
}

#[test]
fn other_options_begin_afresh() {
    let docs = corpus(100);
    let others = [
        WriterOptions { seed: 8, ..rich_options(100) },
        WriterOptions { shard_tokens: 41, ..rich_options(100) },
        WriterOptions { splits: Splits::parse("val=0.4").unwrap(), ..rich_options(100) },
        rich_options(101),
    ];
    for options in others {
        let dir = killed(&docs, rich_options(100));
        let (resume, manifest) = resumed(&dir, &docs, options.clone());
        manifest.unwrap();
        assert_eq!(resume, Resume::default());
        let whole = TestDir::new();
        write(whole.path(), &docs, options, &[CONCAT_8]);
        assert_eq!(dir.contents(), whole.contents());
    }
}

#[test]
fn a_finished_shard_that_was_damaged_is_named() {
    let docs = corpus(100);
    for ending in ["bin", "idx", "bytes", "dom"] {
        let dir = killed(&docs, rich_options(100));
        let path = dir.file(&format!("train-00000.{ending}"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = resumed(&dir, &docs, rich_options(100)).1.unwrap_err();
        assert!(matches!(&error, Error::BadChecksum { path: found, .. } if *found == path), "{error}");
    }
    // One that is gone is written again, and so is what comes after it.
    let dir = killed(&docs, rich_options(100));
    std::fs::remove_file(dir.file("train-00000.dom")).unwrap();
    resumed(&dir, &docs, rich_options(100)).1.unwrap();
    ShardSet::open(dir.path()).unwrap().verify().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn a_damaged_journal_is_no_danger(at: prop::sample::Index, change in 1u8.., cut: bool, n in 10usize..30) {
        let docs = corpus(100);
        let dir = killed(&docs[..n], rich_options(100));
        let path = dir.file(".curate-journal");
        if let Ok(mut bytes) = std::fs::read(&path) {
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= change }
            std::fs::write(&path, bytes).unwrap();
        }
        resumed(&dir, &docs, rich_options(100)).1.unwrap();
        let whole = TestDir::new();
        write(whole.path(), &docs, rich_options(100), &[CONCAT_8]);
        prop_assert_eq!(dir.contents(), whole.contents());
    }
}
