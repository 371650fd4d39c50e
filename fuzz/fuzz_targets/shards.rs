//! Any bytes in place of a file of a shard set: an error or rows, never a panic, and `verify` finds every change.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use curate_shards::{
    MixSpec, PackPolicy, Row, RowOrder, ShardSet, ShardSetWriter, TokenDocument, TokenizerInfo, ViewOptions,
    ViewRequest, WriterOptions,
};
use libfuzzer_sys::fuzz_target;

/// A small set with a mix and copied rows, and its files.
static SET: LazyLock<(PathBuf, Vec<(PathBuf, Vec<u8>)>)> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("curate-fuzz-shards-{}", std::process::id()));
    let tokenizer = TokenizerInfo { name: "toy".to_owned(), sha256: String::new(), vocab_size: 100, eod: 0 };
    let options = WriterOptions { force: true, restart: true, ..WriterOptions::new(tokenizer) };
    let mut writer = ShardSetWriter::create(&dir, options).expect("a directory for temporary files");
    for i in 0..40u32 {
        let mut tokens: Vec<u32> = (0..i % 13).map(|t| 1 + (i + t) % 99).collect();
        tokens.push(0);
        let domain = ["web", "code"][i as usize % 2];
        writer.push(&TokenDocument { tokens: &tokens, n_bytes: i, domain, key: 0 }).expect("sound documents");
    }
    let view = ViewRequest {
        mix: Some(MixSpec::parse("web=2,code=1", None).expect("a mix")),
        materialise: Some(RowOrder::Training { seed: 3 }),
        ..ViewOptions { seq_len: 8, policy: PackPolicy::BestFit }.into()
    };
    writer.finish_with(&[view]).expect("a set");
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(&dir).expect("made above").map(|entry| entry.expect("readable").path()).collect();
    names.sort();
    let files = names.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("readable"))).collect();
    (dir, files)
});

fuzz_target!(|input: (u8, u16, Vec<u8>, bool)| {
    let (dir, files) = &*SET;
    let (which, at, patch, cut) = input;
    let (path, sound) = &files[usize::from(which) % files.len()];
    let mut bytes = sound.clone();
    let at = usize::from(at) % bytes.len();
    match cut {
        true => bytes.truncate(at),
        false => bytes.iter_mut().skip(at).zip(&patch).for_each(|(byte, change)| *byte = *change),
    }
    std::fs::write(path, &bytes).expect("writable");
    let verified = ShardSet::open(dir).and_then(|set| {
        let (split, view) = (set.split("train")?, set.view("train", 8)?);
        let plan = view.plan(1, 1)?;
        let mut row = Row::new(8);
        for n in 0..2 * view.num_rows() {
            let _ = view.try_fill(split, plan.sample(n).1, &mut row);
        }
        set.verify()
    });
    let is_same = bytes == *sound || path.ends_with("manifest.json");
    assert!(verified.is_err() || is_same, "a change of {} at {at} was not found", path.display());
    std::fs::write(path, sound).expect("writable");
});
