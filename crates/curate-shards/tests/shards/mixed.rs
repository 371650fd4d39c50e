//! Views with a mix of sources, truncated documents, and rows that were copied out.

use curate_shards::*;
use proptest::prelude::*;

use crate::support::*;

fn view(seq_len: u32) -> ViewRequest {
    ViewOptions { seq_len, policy: PackPolicy::BestFit }.into()
}

fn mixed(spec: &str, target: Option<u64>) -> ViewRequest {
    ViewRequest { mix: Some(MixSpec::parse(spec, target).unwrap()), ..view(8) }
}

fn write_views(
    dir: &TestDir,
    docs: &[Doc],
    options: WriterOptions,
    views: &[ViewRequest],
) -> Result<Manifest> {
    let mut writer = ShardSetWriter::create(dir.path(), options).unwrap();
    docs.iter().for_each(|doc| writer.push(&doc.borrow()).unwrap());
    writer.finish_with(views)
}

/// Sixty documents of 2 to 40 tokens: three of five are web, one code, one books. Ids tell the source.
fn sources() -> Vec<Doc> {
    let of = |i: u32| {
        let (domain, base) =
            [("web", 100), ("code", 200), ("web", 100), ("books", 300), ("web", 100)][i as usize % 5];
        let body: Vec<TokenId> = (0..1 + i * 7 % 39).map(|t| base + (i + t) % 90).collect();
        Doc::new(&body, domain, u64::from(i))
    };
    (0..60).map(of).collect()
}

fn source_of(row: &Row) -> i64 {
    let body = row.tokens[..row.len].iter().filter(|&&id| id != i64::from(EOD));
    let sources: std::collections::BTreeSet<i64> = body.map(|id| id / 100).collect();
    assert_eq!(sources.len(), 1, "a row holds tokens of one source: {row:?}");
    *sources.first().unwrap()
}

#[test]
fn sources_take_turns_by_tokens() {
    let dir = TestDir::new();
    let request = mixed("books=0.2:3,web=0.5,code=0.3:2", Some(1500));
    let manifest = write_views(&dir, &sources(), options(400), &[request]).unwrap();
    let set = ShardSet::open(dir.path()).unwrap();
    set.verify().unwrap();
    let (split, view) = (set.split("train").unwrap(), set.view("train", 8).unwrap());
    let mix = manifest.views[0].mix.as_ref().unwrap();
    assert_eq!(mix.sources.iter().map(|s| s.rows).sum::<u64>(), view.num_rows());
    assert_eq!(mix.sources.iter().map(|s| s.documents).sum::<u64>(), 60);
    let drawn: f64 = mix.sources.iter().map(SourceManifest::drawn_targets).sum();
    assert!((drawn - 1500.0).abs() < 3.0 * 8.0, "{drawn}");
    let plan = view.plan(9, 4).unwrap();
    let mut row = Row::new(8);
    let (mut counts, mut tokens) = ([0u64; 3], [0u64; 3]);
    let mut seen = vec![0u64; usize::try_from(view.num_rows()).unwrap()];
    let steps = (0..2 * mix.samples / 4).flat_map(|step| plan.step(step).collect::<Vec<_>>());
    for (n, number) in (1u64..).zip(steps) {
        view.fill(split, number, &mut row);
        let source = [3, 1, 2].iter().position(|&s| s == source_of(&row)).unwrap();
        counts[source] += 1;
        tokens[source] += row.len as u64 - 1;
        seen[usize::try_from(number).unwrap()] += 1;
        for (count, entry) in counts.iter().zip(&mix.sources) {
            let share = n as f64 * entry.draws as f64 / mix.samples as f64;
            assert!((*count as f64 - share).abs() < 1.0, "after {n} samples: {count} of {share}");
        }
        // In tokens: within a row of the share, and what rows of a source differ by.
        if n % mix.samples == 0 {
            for (tokens, share) in tokens.iter().zip([0.2, 0.5, 0.3]) {
                let expected = (n / mix.samples) as f64 * 1500.0 * share;
                assert!(
                    (*tokens as f64 - expected).abs() <= 2.0 * 8.0,
                    "{tokens} tokens, expected {expected}"
                );
            }
            let drawn: Vec<u64> = plan.mix().unwrap().drawn(n);
            assert_eq!(drawn, counts);
        }
    }
    // Rows of a source come equally often, give or take the epoch that has begun.
    for entry in &mix.sources {
        let rows = &seen[usize::try_from(entry.first_row).unwrap()..][..usize::try_from(entry.rows).unwrap()];
        let (min, max) = (rows.iter().min().unwrap(), rows.iter().max().unwrap());
        assert!(max - min <= 1, "{}: {min} to {max}", entry.name);
    }
}

#[test]
fn a_mix_does_not_depend_on_the_files() {
    let rows_of = |shard_tokens, splits: &str| {
        let dir = TestDir::new();
        let options = WriterOptions { shard_tokens, splits: Splits::parse(splits).unwrap(), ..options(400) };
        let manifest = write_views(&dir, &sources(), options, &[mixed("web=1,code=2:9", None)]).unwrap();
        let set = ShardSet::open(dir.path()).unwrap();
        set.verify().unwrap();
        assert!(manifest.views.iter().all(|view| view.mix.is_some() == (view.split == "train")));
        let (split, view) = (set.split("train").unwrap(), set.view("train", 8).unwrap());
        let plan = view.plan(1, 1).unwrap();
        let mut row = Row::new(8);
        let mut rows = Vec::new();
        for n in 0..200 {
            view.fill(split, plan.sample(n).1, &mut row);
            rows.push(row.clone());
        }
        (rows, manifest.views[0].mix.clone().unwrap())
    };
    let (rows, mix) = rows_of(1 << 20, "");
    let (other_rows, other) = rows_of(37, "");
    assert_eq!(rows, other_rows);
    assert_eq!((mix.sources, mix.left_out), (other.sources, other.left_out));
    let books: usize = sources().iter().filter(|doc| doc.domain == "books").map(|doc| doc.tokens.len()).sum();
    assert_eq!(mix.left_out, books as u64);
    rows_of(37, "val=0.3");
}

#[test]
fn a_mix_that_the_set_cannot_give_is_refused() {
    let check = |request: ViewRequest, expected: &str| {
        let dir = TestDir::new();
        let error = write_views(&dir, &sources(), options(400), &[request]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        mixed("web=1,news=1", None),
        "mix names \"news\", but the sources of this set are \"web\", \"code\", \"books\"",
    );
    let dir = TestDir::new();
    let error =
        write_views(&dir, &[Doc::new(&[], "web", 0)], options(400), &[mixed("web=1", None)]).unwrap_err();
    assert_eq!(error.to_string(), "mix source \"web\" has no rows in this set");
}

#[test]
fn copied_rows_are_the_rows() {
    let plain = TestDir::new();
    write_views(&plain, &sources(), options(400), &[view(8)]).unwrap();
    let plain = ShardSet::open(plain.path()).unwrap();
    for vocab_size in [400, 70_000] {
        for order in [RowOrder::Number, RowOrder::Training { seed: 5 }] {
            for mix in [None, Some(MixSpec::parse("code=1,web=1,books=1", None).unwrap())] {
                let dir = TestDir::new();
                let is_mixed = mix.is_some();
                let request = ViewRequest { mix, materialise: Some(order), ..view(8) };
                let splits = Splits::parse(if is_mixed { "" } else { "val=0.3" }).unwrap();
                let options = WriterOptions { splits, ..options(vocab_size) };
                let manifest = write_views(&dir, &sources(), options, &[request]).unwrap();
                assert_eq!(manifest.views.iter().filter(|view| view.materialised.is_some()).count(), 1);
                let set = ShardSet::open(dir.path()).unwrap();
                set.verify().unwrap();
                let bare = TestDir::new();
                let request =
                    ViewRequest { mix: manifest.views[0].mix.clone().map(|mix| mix.spec), ..view(8) };
                let options = WriterOptions {
                    splits: Splits::parse(&manifest.split_shares).unwrap(),
                    ..self::options(vocab_size)
                };
                write_views(&bare, &sources(), options, &[request]).unwrap();
                let bare = ShardSet::open(bare.path()).unwrap();
                let views = (set.view("train", 8).unwrap(), bare.view("train", 8).unwrap());
                assert_eq!(
                    views.0.checksum(),
                    views.1.checksum(),
                    "copies do not change which rows there are"
                );
                let (mut row, mut expected) = (Row::new(8), Row::new(8));
                for number in 0..views.0.num_rows() {
                    views.0.fill(set.split("train").unwrap(), number, &mut row);
                    views.1.fill(bare.split("train").unwrap(), number, &mut expected);
                    assert_eq!(row, expected, "row {number}, {order:?}");
                }
                assert!(views.0.try_fill(set.split("train").unwrap(), views.0.num_rows(), &mut row).is_err());
            }
        }
    }
    drop(plain);
}

/// The file by its description, read by other means than the code under test.
#[test]
fn the_first_epoch_reads_the_copies_from_front_to_back() {
    let dir = TestDir::new();
    let request = ViewRequest { materialise: Some(RowOrder::Training { seed: 5 }), ..view(8) };
    write_views(&dir, &sources(), options(400), &[request]).unwrap();
    let set = ShardSet::open(dir.path()).unwrap();
    let (split, view) = (set.split("train").unwrap(), set.view("train", 8).unwrap());
    let file = std::fs::read(dir.file("train.T8.rows")).unwrap();
    assert_eq!(&file[..8], b"CURROWS\0");
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!([word(8), word(12), word(16), word(20), word(24), word(28)], [1, 8, 2, 1, 5, 0]);
    assert_eq!(u64::from(word(32)), view.num_rows());
    assert!(file[56..4096].iter().all(|&byte| byte == 0));
    let stored: Vec<Vec<i64>> = file[4096..file.len() - 16]
        .chunks(18)
        .map(|row| row.chunks(2).map(|id| i64::from(u16::from_le_bytes(id.try_into().unwrap()))).collect())
        .collect();
    let plan = view.plan(5, 1).unwrap();
    let mut row = Row::new(8);
    assert_eq!(stored.len() as u64, view.num_rows());
    for (n, stored) in (0..).zip(stored) {
        view.fill(split, plan.sample(n).1, &mut row);
        assert_eq!(row.tokens, stored, "sample {n}");
    }
}

#[test]
fn defects_of_copies_and_mixes_are_found() {
    let dir = TestDir::new();
    let request = ViewRequest { materialise: Some(RowOrder::Number), ..mixed("web=1,code=1", None) };
    write_views(&dir, &sources(), options(400), &[request]).unwrap();
    let good = dir.contents();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) };
    let (file, at) = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
    proptest!(config, |(file in file, at in at, change in 1u8.., kind in 0..3)| {
        let files: Vec<_> = good.iter().filter(|(name, _)| name.contains(".T8.")).collect();
        let (name, bytes) = file.get(&files);
        let at = at.index(bytes.len());
        std::fs::write(dir.file(name), damage(bytes, at, change, kind)).unwrap();
        let opened = ShardSet::open(dir.path()).and_then(|set| {
            let (split, view) = (set.split("train")?, set.view("train", 8)?);
            let plan = view.plan(3, 1)?;
            let mut row = Row::new(8);
            // Not verified yet: rows may be wrong or missing, but nothing panics.
            for n in 0..view.num_rows() {
                let _ = view.try_fill(split, plan.sample(n).1, &mut row);
            }
            set.verify()
        });
        std::fs::write(dir.file(name), bytes).unwrap();
        prop_assert!(opened.is_err(), "{name}: change at {at} was not found");
    });
}

#[test]
fn truncated_documents_are_counted() {
    let dir = TestDir::new();
    let request = ViewRequest { long: LongDocuments::Truncate, ..view(8) };
    let manifest = write_views(&dir, &sources(), options(400), &[request]).unwrap();
    let view = &manifest.views[0];
    let lengths: Vec<u64> = sources().iter().map(|doc| doc.tokens.len() as u64).collect();
    let (given, left_out) =
        (lengths.iter().sum::<u64>(), lengths.iter().map(|len| len.saturating_sub(9)).sum::<u64>());
    assert!(left_out > 0);
    assert_eq!(
        (view.truncated, view.documents_cut),
        (left_out, lengths.iter().filter(|&&len| len > 9).count() as u64)
    );
    let balance = view.balance(given).unwrap();
    assert_eq!((balance.in_rows, balance.repeated, balance.truncated), (given - left_out, 0, left_out));
    assert_eq!(balance.in_rows + balance.padding, view.rows * 9);
    let error = view.balance(given + 1000).unwrap_err();
    assert!(error.to_string().starts_with("train.T8.view: the token balance is off: "), "{error}");
    let set = ShardSet::open(dir.path()).unwrap();
    set.verify().unwrap();
    // An older reader refuses the flag by name rather than take the view for a whole one.
    assert_eq!(std::fs::read(dir.file("train.T8.view")).unwrap()[20..24], [1, 0, 0, 0]);
}

#[test]
fn views_of_every_kind_can_be_added_later_and_replaced() {
    let kinds = [
        view(8),
        ViewRequest { long: LongDocuments::Truncate, ..view(8) },
        mixed("web=1,code=1", None),
        ViewRequest { materialise: Some(RowOrder::Training { seed: 1 }), ..view(8) },
        ViewRequest { materialise: Some(RowOrder::Number), ..mixed("web=1,code=3", None) },
    ];
    let rich = || WriterOptions { splits: Splits::parse("val=0.3").unwrap(), ..options(400) };
    let later = TestDir::new();
    write_views(&later, &sources(), rich(), &[]).unwrap();
    for kind in &kinds {
        let at_once = TestDir::new();
        write_views(&at_once, &sources(), rich(), std::slice::from_ref(kind)).unwrap();
        add_views(later.path(), std::slice::from_ref(kind), true).unwrap();
        assert_eq!(at_once.contents(), later.contents(), "{kind:?}");
        // Again: nothing happens.
        add_views(later.path(), std::slice::from_ref(kind), false).unwrap();
        assert_eq!(at_once.contents(), later.contents(), "{kind:?}");
    }
    let error = add_views(later.path(), &kinds[1..2], false).unwrap_err();
    let message = error.to_string().replace(later.path().to_str().unwrap(), "DIR");
    assert!(
        message.starts_with("DIR: seq_len 8 is already packed with policy best-fit, mixed {"),
        "{message}"
    );
    assert!(message.ends_with(", not best-fit of truncated documents"), "{message}");
}
