//! Counts past 2^31 and 2^32, in files with holes: large addresses, a few blocks of disk.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use curate_shards::*;

use crate::support::*;

/// Makes a file of this size that is all hole; `None` if the file system would fill it.
fn hole(dir: &TestDir, name: &str, bytes: u64) -> Option<File> {
    let file =
        File::options().read(true).write(true).create(true).truncate(false).open(dir.file(name)).unwrap();
    file.set_len(bytes).ok()?;
    let is_sparse = file.metadata().unwrap().blocks() * 512 < 1 << 24;
    is_sparse.then_some(file)
}

/// Rewrites `manifest.json` of a set with other counts, sealed as it should be.
fn patch_manifest(dir: &TestDir, changes: &[(&str, &str)]) {
    let path = dir.file("manifest.json");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in {text}");
        text = text.replace(from, to);
    }
    let body = &text[..text.rfind(",\n  \"checksum\"").unwrap()];
    let checksum = xxhash_rust::xxh3::xxh3_128(body.as_bytes());
    std::fs::write(path, format!("{body},\n  \"checksum\": \"{checksum:032x}\"\n}}\n")).unwrap();
}

/// One shard of 2^31 + 10 documents, of which the first and the last three have an entry in the index: 43 GB of index. The
/// tokens of the last lie past 2^32.
#[test]
#[allow(clippy::print_stderr)] // a test that is skipped says so
fn documents_past_two_to_the_thirty_one() {
    const DOCUMENTS: u64 = (1 << 31) + 10;
    const TOKENS: u64 = (1 << 32) + 100;
    let dir = TestDir::new();
    let docs = vec![Doc::new(&[1, 2], "a", 0)];
    let request = ViewOptions { seq_len: 8, policy: PackPolicy::BestFit };
    write(dir.path(), &docs, options(100), &[request]);
    // A split of that many documents: the manifest says so, and the files are that large.
    let idx_bytes = 34 + DOCUMENTS * 20 + 8;
    let files = [
        ("train-00000.idx", idx_bytes),
        ("train-00000.bin", 2 * TOKENS),
        ("train-00000.bytes", 4 * DOCUMENTS),
        ("train-00000.dom", 2 * DOCUMENTS),
    ];
    let holes: Option<Vec<File>> = files.iter().map(|(name, bytes)| hole(&dir, name, *bytes)).collect();
    let Some([idx, bin, bytes, dom]) = holes.as_deref() else {
        eprintln!("skipped: the file system holds no files of {idx_bytes} bytes with holes");
        return;
    };
    idx.write_all_at(&DOCUMENTS.to_le_bytes(), 18).unwrap();
    idx.write_all_at(&(DOCUMENTS + 1).to_le_bytes(), 26).unwrap();
    let entry = |i: u64, length: i32, at: u64| {
        idx.write_all_at(&length.to_le_bytes(), 34 + 4 * i).unwrap();
        idx.write_all_at(&(2 * at).to_le_bytes(), 34 + 4 * DOCUMENTS + 8 * i).unwrap();
    };
    // The last three documents have tokens n, n + 1, …, and the end.
    for (i, n) in (DOCUMENTS - 3..DOCUMENTS).zip([10u16, 20, 30]) {
        let at = TOKENS - 50 + 10 * (i - (DOCUMENTS - 3));
        entry(i, 4, at);
        let ids: Vec<u8> = [n, n + 1, n + 2, 0].iter().flat_map(|id| id.to_le_bytes()).collect();
        bin.write_all_at(&ids, 2 * at).unwrap();
        bytes.write_all_at(&(u32::from(n) * 100).to_le_bytes(), 4 * i).unwrap();
    }
    dom.write_all_at(&[0, 0], 2 * (DOCUMENTS - 1)).unwrap();
    let counts = |key: &str, from: u64, to: u64| (format!("\"{key}\": {from},"), format!("\"{key}\": {to},"));
    let (documents, tokens) = (counts("documents", 1, DOCUMENTS), counts("tokens", 3, TOKENS));
    // The view is that of another split now: it is made anew by hand below.
    patch_manifest(&dir, &[(&documents.0, &documents.1)]);
    let text = std::fs::read_to_string(dir.file("manifest.json")).unwrap();
    let views = text.find("\"views\"").unwrap();
    let (head, tail) = text.split_at(views);
    std::fs::write(dir.file("manifest.json"), head.replace(&tokens.0, &tokens.1) + tail).unwrap();
    // One row of the document that is past 2^31: its number and the count of documents in the view file.
    let view = dir.file("train.T8.view");
    let mut file = std::fs::read(&view).unwrap();
    file[40..48].copy_from_slice(&DOCUMENTS.to_le_bytes());
    file[80..88].copy_from_slice(&(DOCUMENTS - 2).to_le_bytes());
    std::fs::write(&view, file).unwrap();
    patch_manifest(&dir, &[]);

    let set = ShardSet::open(dir.path()).unwrap();
    let split = set.split("train").unwrap();
    assert_eq!((split.num_documents(), split.num_tokens()), (DOCUMENTS, TOKENS));
    for (i, n) in (DOCUMENTS - 3..DOCUMENTS).zip([10u32, 20, 30]) {
        let doc = split.document(i);
        assert_eq!(doc.tokens.iter().collect::<Vec<_>>(), [n, n + 1, n + 2, 0]);
        assert_eq!(doc.n_bytes, n * 100);
    }
    assert!(split.try_document(DOCUMENTS).is_err());
    // Holes are documents of no token, which no writer leaves: an error that names the document.
    let error = split.try_document(1 << 31).unwrap_err().to_string();
    assert!(error.contains("document 2147483648 of the shard: its length is not positive"), "{error}");
    let mut row = Row::new(8);
    set.view("train", 8).unwrap().fill(split, 0, &mut row);
    assert_eq!((row.len, &row.tokens[..3]), (3, &[20, 21, 22][..]));
    let disk: u64 = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512)
        .sum();
    assert!(disk < 4 << 20, "the test took {disk} bytes of disk");
}
