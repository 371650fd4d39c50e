//! To other formats and back, and files of others that are not what they should be.

use std::path::Path;

use curate_shards::convert::*;
use curate_shards::*;
use proptest::prelude::*;

use crate::support::*;

const FORMATS: [Format; 6] =
    [Format::Megatron, Format::NanoGpt, Format::LlmC, Format::Olmo, Format::Datatrove, Format::Mds];

/// Small files, so that there are several.
const SMALL: ExportOptions = ExportOptions { file_tokens: 40, mds_shard_bytes: 700 };

type Documents = Vec<(String, Vec<Vec<TokenId>>)>;

/// Every split that holds something, with the ids of its documents.
fn documents(dir: &Path) -> Documents {
    let set = ShardSet::open(dir).unwrap();
    set.verify().unwrap();
    let ids = |split: &Split| {
        (0..split.num_documents()).map(|i| split.document(i).tokens.iter().collect()).collect()
    };
    set.splits().iter().filter(|s| s.num_documents() > 0).map(|s| (s.name().to_owned(), ids(s))).collect()
}

fn import_options(vocab_size: u32) -> ImportOptions {
    ImportOptions { views: vec![CONCAT_8], ..ImportOptions::new(options(vocab_size)) }
}

/// Ours, theirs, ours: the same documents in the same splits.
fn round_trip(format: Format, docs: &[Doc], vocab_size: u32) {
    let dir = TestDir::new();
    let (ours, theirs, back) = (dir.file("ours"), dir.file("theirs"), dir.file("back"));
    write(&ours, docs, rich_options(vocab_size), &[]);
    let exported = export(&ShardSet::open(&ours).unwrap(), &theirs, format, &SMALL).unwrap();
    if docs.is_empty() {
        return;
    }
    assert_eq!(Format::detect(&theirs).unwrap(), format);
    let (_, imported) = import(&theirs, &back, format, &import_options(vocab_size)).unwrap();
    assert_eq!(documents(&back), documents(&ours), "{format}");
    assert_eq!((exported.eod_added, imported.eod_added), (0, 0));
    let full = imported.splits.into_iter().filter(|split| split.documents > 0);
    assert_eq!(full.collect::<Vec<_>>(), exported.splits);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "nothing else is left");
}

#[test]
fn every_format_comes_back() {
    for format in FORMATS {
        round_trip(format, &corpus(500), 500);
        if format != Format::NanoGpt {
            round_trip(format, &corpus(70_000), 70_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]
    #[test]
    fn anything_comes_back_from_every_format(docs in any_docs(300)) {
        FORMATS.into_iter().for_each(|format| round_trip(format, &docs, 300));
    }
}

#[test]
fn wide_ids_do_not_fit_nanogpt() {
    let dir = TestDir::new();
    write(&dir.file("ours"), &[Doc::new(&[69_999], "", 0)], options(70_000), &[]);
    let set = ShardSet::open(&dir.file("ours")).unwrap();
    let error = export(&set, &dir.file("x"), Format::NanoGpt, &SMALL).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nanogpt files cannot hold this set: ids are 16-bit there, the largest here is 69999"
    );
    assert!(!dir.file("x").exists());
    // The next export cleans up after it.
    export(&set, &dir.file("x"), Format::LlmC, &SMALL).unwrap();
    let error = export(&set, &dir.file("x"), Format::LlmC, &SMALL).unwrap_err();
    assert!(
        error.to_string().ends_with("x: is in the way and was not left by an interrupted run"),
        "{error}"
    );
}

fn bytes_of(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Imports one file of that name.
fn imported(
    name: &str,
    bytes: &[u8],
    options: &ImportOptions,
) -> std::result::Result<(Documents, u64), String> {
    let dir = TestDir::new();
    let path = dir.file(name);
    std::fs::write(&path, bytes).unwrap();
    let format = Format::detect(&path).map_err(|e| e.to_string())?;
    let (_, converted) = import(&path, &dir.file("out"), format, options)
        .map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))?;
    Ok((documents(&dir.file("out")), converted.eod_added))
}

#[test]
fn documents_are_cut_at_the_id() {
    let check = |ids: &[u16], place, expected: &[&[TokenId]], added| {
        let options = ImportOptions { eod_place: place, ..import_options(100) };
        let expected: Vec<_> = expected.iter().map(|ids| ids.to_vec()).collect();
        let expected = if expected.is_empty() { vec![] } else { vec![("val".to_owned(), expected)] };
        assert_eq!(imported("x_val.bin", &bytes_of(ids), &options), Ok((expected, added)), "{ids:?}");
    };
    check(&[], None, &[], 0);
    check(&[0], None, &[&[0]], 0);
    check(&[1, 2, 0, 0, 3, 0], None, &[&[1, 2, 0], &[0], &[3, 0]], 0);
    check(&[1, 2, 0, 3], None, &[&[1, 2, 0], &[3, 0]], 1);
    let first = Some(EodPlace::First);
    check(&[0, 1, 2, 0, 0, 3], first, &[&[1, 2, 0], &[0], &[3, 0]], 0);
    check(&[1, 0, 2], first, &[&[1, 0], &[2, 0]], 0);
    check(&[0], first, &[&[0]], 0);
}

fn llmc(magic: u32, version: u32, count: u32, ids: &[u16]) -> Vec<u8> {
    let mut bytes = [magic, version, count].map(u32::to_le_bytes).concat();
    bytes.resize(1024, 0);
    bytes.extend(bytes_of(ids));
    bytes
}

#[test]
fn llmc_headers_are_checked() {
    let check = |bytes: &[u8], expected: &str| {
        assert_eq!(imported("a.bin", bytes, &import_options(100)).unwrap_err(), expected);
    };
    let good = llmc(20_240_520, 1, 3, &[0, 1, 2]);
    let expected = vec![("train".to_owned(), vec![vec![1, 2, 0]])];
    assert_eq!(imported("a.bin", &good, &import_options(100)), Ok((expected, 0)));
    check(&llmc(20_240_520, 2, 3, &[0, 1, 2]), "a.bin: version at byte 4 is 2, expected 1");
    check(&llmc(20_240_520, 1, 4, &[0, 1, 2]), "a.bin: 1030 bytes, expected 1032");
    check(
        &llmc(20_240_520, 1, 3, &[0, 1, 200]),
        "a.bin: byte 1028: the id is 200, outside the vocabulary of 100",
    );
}

/// Two documents of two and one sequences.
fn megatron(code: u8, width: usize) -> (Vec<u8>, Vec<u8>) {
    let mut idx = b"MMIDIDX\0\0\x01\0\0\0\0\0\0\0".to_vec();
    idx.push(code);
    idx.extend([3u64, 3].map(u64::to_le_bytes).concat());
    idx.extend([2i32, 1, 2].map(i32::to_le_bytes).concat());
    idx.extend([0u64, 2, 3].map(|at| (at * width as u64).to_le_bytes()).concat());
    idx.extend([0u64, 2, 3].map(u64::to_le_bytes).concat());
    let ids = [5u8, 6, 0, 7, 8];
    let bin = ids.iter().flat_map(|&id| match (code, width) {
        (6 | 7, 8) => f64::from(id).to_le_bytes().to_vec(),
        (6 | 7, _) => f32::from(id).to_le_bytes().to_vec(),
        _ => u64::from(id).to_le_bytes()[..width].to_vec(),
    });
    (bin.collect(), idx)
}

#[test]
fn every_megatron_type_and_several_sequences_a_document() {
    let types = [(1, 1), (2, 1), (3, 2), (4, 4), (5, 8), (6, 4), (6, 8), (7, 4), (7, 8), (8, 2)];
    for (code, width) in types {
        let dir = TestDir::new();
        let (bin, idx) = megatron(code, width);
        std::fs::write(dir.file("corpus_text_document.bin"), bin).unwrap();
        std::fs::write(dir.file("corpus_text_document.idx"), idx).unwrap();
        let prefix = dir.file("corpus_text_document");
        let format = Format::detect(&prefix).unwrap();
        let (_, converted) = import(&prefix, &dir.file("out"), format, &import_options(100)).unwrap();
        let expected = vec![("train".to_owned(), vec![vec![5, 6, 0], vec![7, 8, 0]])];
        assert_eq!(
            (documents(&dir.file("out")), converted.eod_added),
            (expected, 1),
            "type {code}, {width} bytes"
        );
    }
}

#[test]
fn texts_are_measured_by_the_vocabulary() {
    let dir = TestDir::new();
    std::fs::write(dir.file("train.bin"), bytes_of(&[1, 2, 0, 2, 0])).unwrap();
    let vocabulary = vec![b"<eod>".to_vec(), b"ab".to_vec(), b"cde".to_vec()];
    let options = ImportOptions {
        domain: "web".to_owned(),
        ..ImportOptions::new(WriterOptions { vocabulary, ..options(3) })
    };
    let (manifest, _) = import(dir.path(), &dir.file("out"), Format::NanoGpt, &options).unwrap();
    assert_eq!((manifest.splits[0].bytes, manifest.domains), (8, vec!["web".to_owned()]));
}

#[test]
fn shares_may_be_drawn_from_the_documents() {
    let dir = TestDir::new();
    let ids: Vec<u16> = (0..4000).map(|i| if i % 4 == 3 { 0 } else { 1 + i % 97 }).collect();
    std::fs::write(dir.file("train.bin"), bytes_of(&ids)).unwrap();
    let writer = WriterOptions { splits: Splits::parse("val=0.2").unwrap(), ..options(100) };
    let (manifest, _) =
        import(dir.path(), &dir.file("out"), Format::NanoGpt, &ImportOptions::new(writer)).unwrap();
    let counts: Vec<u64> = manifest.splits.iter().map(|split| split.documents).collect();
    assert_eq!(counts.iter().sum::<u64>(), 1000);
    assert!((100..300).contains(&counts[1]), "{counts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Any change of any file gives documents or an error, and no panic.
    #[test]
    fn damage_is_no_panic(
        which in 0..FORMATS.len(),
        file: prop::sample::Index,
        at: prop::sample::Index,
        patch in prop::collection::vec(any::<u8>(), 1..9),
        cut: bool,
    ) {
        let format = FORMATS[which];
        let dir = TestDir::new();
        let docs = vec![Doc::new(&[1, 2, 3], "a,\"b", 0), Doc::new(&[], "", 1), Doc::new(&[9; 300], "", 2)];
        write(&dir.file("ours"), &docs, options(100), &[]);
        export(&ShardSet::open(&dir.file("ours")).unwrap(), &dir.file("x"), format, &SMALL).unwrap();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir.file("x")).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path())),
                false => files.push(path),
            }
        }
        files.sort();
        let path = &files[file.index(files.len())];
        let mut bytes = std::fs::read(path).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes.iter_mut().skip(at).zip(&patch).for_each(|(byte, change)| *byte = *change);
        }
        std::fs::write(path, bytes).unwrap();
        let outcome = import(&dir.file("x"), &dir.file("out"), format, &import_options(100));
        if outcome.is_ok() {
            documents(&dir.file("out"));
        }
    }
}
