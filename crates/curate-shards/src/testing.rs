//! Directories for tests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Manifest, ShardSetWriter, TokenDocument, TokenizerInfo, ViewOptions, WriterOptions};

/// A fresh directory, removed when dropped.
pub(crate) struct TestDir(PathBuf);

impl TestDir {
    pub(crate) fn new() -> TestDir {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("curate-shards-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TestDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A set of three documents and nine tokens, `1 2 0  3 4 5 0  6 0`, in one shard of `train`; 4 bytes of text each.
pub(crate) fn write_set(dir: &Path, views: &[ViewOptions]) -> Manifest {
    let tokenizer = TokenizerInfo { name: "toy".to_owned(), sha256: String::new(), vocab_size: 10, eod: 0 };
    let mut writer = ShardSetWriter::create(dir, WriterOptions::new(tokenizer)).unwrap();
    for (tokens, domain) in [(&[1, 2, 0][..], "a"), (&[3, 4, 5, 0], "b"), (&[6, 0], "a")] {
        writer.push(&TokenDocument { tokens, n_bytes: 4, domain, key: 0 }).unwrap();
    }
    writer.finish(views).unwrap()
}
