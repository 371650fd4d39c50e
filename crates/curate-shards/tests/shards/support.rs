//! Small corpora, directories, and a reader of the formats that shares no code with the crate.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use curate_shards::*;
use proptest::prelude::*;

/// A fresh directory, removed when dropped.
pub(crate) struct TestDir(PathBuf);

impl TestDir {
    pub(crate) fn new() -> TestDir {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("curate-shards-set-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TestDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Names of all files, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Names and contents of all files, sorted.
    pub(crate) fn contents(&self) -> Vec<(String, Vec<u8>)> {
        self.names()
            .into_iter()
            .map(|name| (name.clone(), std::fs::read(self.file(&name)).unwrap()))
            .collect()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file's bytes with one change at `at`: a byte altered by `change`, which is not 0, all from there on cut off, or
/// `change` put in.
pub(crate) fn damage(bytes: &[u8], at: usize, change: u8, kind: i32) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    match kind {
        0 => changed[at] ^= change,
        1 => changed.truncate(at),
        _ => changed.insert(at, change),
    }
    changed
}

/// A document that owns its parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Doc {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) n_bytes: u32,
    pub(crate) domain: String,
    pub(crate) key: u64,
}

pub(crate) const EOD: TokenId = 0;

impl Doc {
    /// A document of `body`, EOD appended.
    pub(crate) fn new(body: &[TokenId], domain: &str, key: u64) -> Doc {
        let mut tokens = body.to_vec();
        tokens.push(EOD);
        Doc { n_bytes: 3 * body.len() as u32, tokens, domain: domain.to_owned(), key }
    }

    pub(crate) fn borrow(&self) -> TokenDocument<'_> {
        TokenDocument { tokens: &self.tokens, n_bytes: self.n_bytes, domain: &self.domain, key: self.key }
    }
}

pub(crate) fn options(vocab_size: u32) -> WriterOptions {
    WriterOptions::new(TokenizerInfo {
        name: "toy".to_owned(),
        sha256: "5a".repeat(32),
        vocab_size,
        eod: EOD,
    })
}

pub(crate) fn write(dir: &Path, docs: &[Doc], options: WriterOptions, views: &[ViewOptions]) -> Manifest {
    let mut writer = ShardSetWriter::create(dir, options).unwrap();
    docs.iter().for_each(|doc| writer.push(&doc.borrow()).unwrap());
    writer.finish(views).unwrap()
}

pub(crate) const CONCAT_8: ViewOptions = ViewOptions { seq_len: 8, policy: PackPolicy::Concat };
pub(crate) const BEST_FIT_4: ViewOptions = ViewOptions { seq_len: 4, policy: PackPolicy::BestFit };

/// Thirty documents of 1 to 12 tokens in three domains; some are held out at `val=0.3`.
pub(crate) fn corpus(vocab_size: u32) -> Vec<Doc> {
    let domains = ["web", "", "code"];
    let body = |i: u32| (0..i * 7 % 12).map(|t| 1 + (i * 31 + t * 17) % (vocab_size - 1)).collect::<Vec<_>>();
    (0..30).map(|i| Doc::new(&body(i), domains[i as usize % 3], u64::from(i))).collect()
}

/// `val=0.3`, rotation after 40 tokens, a vocabulary, a tokenizer and a lineage.
pub(crate) fn rich_options(vocab_size: u32) -> WriterOptions {
    WriterOptions {
        tokenizer_json: b"{\"toy\": true}".to_vec(),
        vocabulary: (0..vocab_size.min(100)).map(|id| format!("<{id}>").into_bytes()).collect(),
        splits: Splits::parse("val=0.3").unwrap(),
        seed: 7,
        shard_tokens: 40,
        lineage: serde_json::json!({"clean": {"recipe": "none", "ratio": 0.1}}),
        ..options(vocab_size)
    }
}

pub(crate) fn any_docs(vocab_size: u32) -> impl Strategy<Value = Vec<Doc>> {
    let body = prop::collection::vec(1..vocab_size, 0..20);
    let doc = (body, any::<u32>(), "[a-c]?", any::<u64>());
    let doc = doc.prop_map(|(body, n_bytes, domain, key)| Doc { n_bytes, ..Doc::new(&body, &domain, key) });
    prop::collection::vec(doc, 0..40)
}

/// A Megatron index and its tokens, read from the description of the format byte by byte.
pub(crate) struct Megatron {
    pub(crate) code: u8,
    pub(crate) lengths: Vec<i32>,
    pub(crate) pointers: Vec<i64>,
    pub(crate) boundaries: Vec<i64>,
    pub(crate) documents: Vec<Vec<i64>>,
}

pub(crate) fn read_megatron(idx: &[u8], bin: &[u8]) -> Megatron {
    let mut rest = idx;
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head
    };
    let i32_of = |bytes: &[u8]| i32::from_le_bytes(bytes.try_into().unwrap());
    let i64_of = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
    assert_eq!(take(9), b"MMIDIDX\x00\x00");
    assert_eq!(i64_of(take(8)), 1, "version");
    let code = take(1)[0];
    let sequences = usize::try_from(i64_of(take(8))).unwrap();
    let documents = usize::try_from(i64_of(take(8))).unwrap();
    let lengths: Vec<i32> = (0..sequences).map(|_| i32_of(take(4))).collect();
    let pointers: Vec<i64> = (0..sequences).map(|_| i64_of(take(8))).collect();
    let boundaries: Vec<i64> = (0..documents).map(|_| i64_of(take(8))).collect();
    assert!(rest.is_empty(), "{} bytes after the index", rest.len());
    let token = |bytes: &[u8]| match code {
        8 => i64::from(u16::from_le_bytes(bytes.try_into().unwrap())),
        4 => i64::from(i32_of(bytes)),
        other => panic!("token type {other}"),
    };
    let width = if code == 8 { 2 } else { 4 };
    let tokens = |(&length, &pointer): (&i32, &i64)| {
        let start = usize::try_from(pointer).unwrap();
        bin[start..start + width * usize::try_from(length).unwrap()].chunks(width).map(token).collect()
    };
    let documents = lengths.iter().zip(&pointers).map(tokens).collect();
    Megatron { code, lengths, pointers, boundaries, documents }
}
