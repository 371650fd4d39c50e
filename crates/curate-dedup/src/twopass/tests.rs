//! Two passes give the answer of the definition, read in the order that was asked for.

use proptest::prelude::*;

use super::*;
use crate::tests::{Removal, brute_force, words};

/// A text, and the number by which it may be ordered.
type Row = (String, Option<f64>);

fn storage(memory: u64) -> Storage {
    Storage { memory, place: Place::TemporaryIn(std::env::temp_dir()) }
}

/// The documents of rows: their ids are their positions, their sources the words for their numbers.
fn documents(rows: &[Row]) -> impl Iterator<Item = Document<'_>> {
    rows.iter().enumerate().map(|(position, (text, number))| {
        let source = number.map_or(String::new(), |number| number.to_string());
        Document::new(b"", position.to_string(), source, text.as_str())
    })
}

fn number_of() -> NumberOf {
    Box::new(|doc| doc.source().parse().ok())
}

fn gather((mapper, mut gate): (GatherMapper, GatherGate), rows: &[Row]) -> Arc<Decisions> {
    let (mut scratch, mut counters) = (SketchBuffers::default(), Counters::default());
    for mut doc in documents(rows) {
        let Work::Pending(work) = mapper.map(&mut doc, &mut scratch, &mut counters) else {
            panic!("the mapper decides nothing");
        };
        assert_eq!(gate.admit(&mut doc, work).unwrap(), Verdict::Keep);
    }
    Arc::new(gate.decide(|| Ok(())).unwrap())
}

fn apply(decisions: &Arc<Decisions>, rows: &[Row]) -> Vec<Option<Dropped>> {
    let mut gate = decisions.gate().unwrap();
    let verdicts = documents(rows).map(|mut doc| match gate.admit(&mut doc, ()).unwrap() {
        Verdict::Keep => None,
        Verdict::Drop(dropped) => Some(dropped),
    });
    let verdicts = verdicts.collect();
    gate.check().unwrap();
    verdicts
}

fn removal(dropped: &Dropped) -> Removal {
    let fact = |name| dropped.proof.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    let Some(Value::Text(dup_of)) = fact("dup_of") else { panic!("{dropped:?}") };
    let Some(&Value::Number(jaccard)) = fact("jaccard") else { panic!("{dropped:?}") };
    Removal { reason: dropped.reason.to_string(), dup_of: dup_of.parse().unwrap(), jaccard }
}

fn minhash(options: MinHashOptions) -> DedupOptions {
    DedupOptions { exact: true, minhash: Some(options) }
}

fn orders() -> [Order; 4] {
    [Order::Input, Order::Longest, Order::Largest(number_of()), Order::Smallest(number_of())]
}

/// The positions of rows in an order, by comparing.
fn positions(order: &Order, rows: &[Row]) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..rows.len()).collect();
    // A stable sort leaves equals in input order; what has no number goes last either way.
    positions.sort_by(|&a, &b| {
        let ((a, m), (b, n)) = (&rows[a], &rows[b]);
        let last = m.is_none().cmp(&n.is_none());
        match order {
            Order::Input => std::cmp::Ordering::Equal,
            Order::Longest => b.len().cmp(&a.len()),
            Order::Largest(_) => last.then(n.partial_cmp(m).unwrap()),
            Order::Smallest(_) => last.then(m.partial_cmp(n).unwrap()),
        }
    });
    positions
}

/// The definition, applied to the rows in order; positions are those of the input.
fn model(threshold: f64, ngram: usize, order: &Order, rows: &[Row]) -> Vec<Option<Removal>> {
    let positions = positions(order, rows);
    let texts: Vec<String> = positions.iter().map(|&position| rows[position].0.clone()).collect();
    let mut answer = vec![None; rows.len()];
    for (i, removal) in brute_force(threshold, ngram, &texts).into_iter().enumerate() {
        answer[positions[i]] = removal.map(|found| Removal { dup_of: positions[found.dup_of], ..found });
    }
    answer
}

fn numbers() -> impl Strategy<Value = Option<f64>> {
    prop::option::weighted(
        0.8,
        prop::sample::select(vec![-1e300, -2.5, -0.0, 0.0, 1e-9, 1.0, 2.0, f64::MAX, -f64::MAX]),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn the_answer_is_that_of_the_definition_in_the_order(
        rows in prop::collection::vec(("[abc]{0,2}( {1,2}[abc]){0,9}", numbers()), 0..40),
        threshold in prop::sample::select(vec![0.3, 0.5, 0.75, 1.0]),
        ngram in 1usize..4,
    ) {
        for order in orders() {
            let expected = model(threshold, ngram, &order, &rows);
            let by_number = order.is_by_number();
            // A thousand bands of one row leave out a pair of Jaccard 0.3 once in 10^158 times.
            let options = minhash(MinHashOptions {
                threshold, ngram, bands: Some(1024), rows: Some(1), profile: Profile::Raw, ..MinHashOptions::default()
            });
            let decisions = gather(gather_contents_in(options, Cluster::Star, order, &storage(0)).unwrap(), &rows);
            let answer = apply(&decisions, &rows);
            let found: Vec<Option<Removal>> = answer.iter().map(|d| d.as_ref().map(removal)).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(apply(&decisions, &rows), answer, "decisions can be applied again");
            let missing = rows.iter().filter(|(_, number)| number.is_none()).count() as u64;
            prop_assert_eq!(decisions.without_number(), by_number.then_some(missing));
        }
    }

    #[test]
    fn equal_texts_and_keys_leave_the_first_of_the_order(
        rows in prop::collection::vec(("[ab]{0,2}", numbers()), 0..40),
    ) {
        for (exact, with_key) in orders().into_iter().zip(orders()) {
            let positions = positions(&exact, &rows);
            let stands = |row: &Row| positions.iter().copied().find(|&p| rows[p].0 == row.0).unwrap();
            let expected: Vec<usize> = rows.iter().map(stands).collect();
            let key: KeyOf = Box::new(|doc| Some(doc.text().to_owned()));
            let options = DedupOptions { exact: true, minhash: None };
            for halves in [
                gather_contents_in(options, Cluster::Star, exact, &storage(0)).unwrap(),
                gather_keys("text", key, with_key, &storage(16 << 20)).unwrap(),
            ] {
                let answer = apply(&gather(halves, &rows), &rows);
                let stands = |(own, dropped): (usize, &Option<Dropped>)| match dropped {
                    None => own,
                    Some(dropped) => match &dropped.proof[0].1 {
                        Value::Text(id) => id.parse().unwrap(),
                        other => panic!("{other:?}"),
                    },
                };
                prop_assert_eq!(answer.iter().enumerate().map(stands).collect::<Vec<_>>(), expected.clone());
            }
        }
    }

    #[test]
    fn numbers_keep_their_order_as_bits(a in any::<f64>(), b in any::<f64>()) {
        let bits = [a, b].map(ordered_bits);
        prop_assert_eq!(bits.map(|bits| bits.is_some()), [a.is_finite(), b.is_finite()]);
        if let [Some(x), Some(y)] = bits {
            prop_assert_eq!(x.cmp(&y), a.partial_cmp(&b).unwrap());
            prop_assert!(x != NO_NUMBER && !x != NO_NUMBER);
        }
    }

    #[test]
    fn proofs_come_back(
        reason in prop::sample::select(REASONS.to_vec()),
        facts in prop::collection::vec((prop::sample::select(FACTS.to_vec()), 0..3, ".*", any::<u64>()), 0..6),
    ) {
        let value = |(name, kind, text, number): (&'static str, i32, String, u64)| (name, match kind {
            0 => Value::Text(text),
            1 => Value::Number(number as f64 / 7.0),
            _ => Value::Count(number),
        });
        let dropped = Dropped { reason: reason.into(), proof: facts.into_iter().map(value).collect() };
        let mut bytes = Vec::new();
        encode(&dropped, &mut bytes);
        prop_assert_eq!(decode(&bytes), dropped);
    }
}

/// Families of near copies, copies and strangers, in texts of different lengths.
fn families(count: usize) -> Vec<Row> {
    (0..count)
        .map(|n| {
            let family = n * 7 % (count / 3);
            let mut text = words(&format!("w{family}x"), 30 + family % 40);
            text.extend(words("more", n % 3));
            (text.join(" "), (n % 5 != 0).then_some((n * 31 % 101) as f64))
        })
        .collect()
}

#[test]
fn memory_does_not_change_the_answer() {
    let rows = families(1500);
    let spaces = |cluster, which: usize, memory| {
        let order = orders().into_iter().nth(which).unwrap();
        let halves = gather_contents_in(minhash(MinHashOptions::default()), cluster, order, &storage(memory));
        let decisions = gather(halves.unwrap(), &rows);
        let DecidedSummary::Contents(summary) = decisions.summary() else { panic!("contents") };
        (apply(&decisions, &rows), (**summary).clone())
    };
    for cluster in [Cluster::Star, Cluster::Components(Representative::First)] {
        for which in 0..4 {
            let (expected, whole) = spaces(cluster, which, 256 << 20);
            assert!(expected.iter().flatten().count() > 500);
            assert_eq!(whole.disk_bytes, 0);
            let (answer, little) = spaces(cluster, which, 0);
            assert!(answer == expected, "{cluster:?} {which}");
            assert!(little.disk_bytes > 100_000, "{little:?}");
            assert_eq!(
                (little.minhash, little.biggest_clusters, little.sources),
                (whole.minhash, whole.biggest_clusters, whole.sources)
            );
        }
    }
}

#[test]
fn input_order_is_what_one_pass_gives() {
    let rows = families(900);
    let (mapper, mut gate) =
        Deduplicator::new(minhash(MinHashOptions::default())).unwrap().split_in(&storage(0)).unwrap();
    let (mut scratch, mut counters) = (SketchBuffers::default(), Counters::default());
    let streamed: Vec<Option<Dropped>> = documents(&rows)
        .map(|mut doc| {
            let Work::Pending(work) = mapper.map(&mut doc, &mut scratch, &mut counters) else { panic!() };
            match gate.admit(&mut doc, work).unwrap() {
                Verdict::Keep => None,
                Verdict::Drop(dropped) => Some(dropped),
            }
        })
        .collect();
    let halves =
        gather_contents_in(minhash(MinHashOptions::default()), Cluster::Star, Order::Input, &storage(0));
    let decisions = gather(halves.unwrap(), &rows);
    assert!(apply(&decisions, &rows) == streamed);
    let DecidedSummary::Contents(summary) = decisions.summary() else { panic!("contents") };
    let (one, two) = (gate.summary().unwrap(), &**summary);
    assert_eq!(
        (one.minhash, one.clusters, one.biggest_clusters),
        (two.minhash.clone(), two.clusters, two.biggest_clusters.clone())
    );
}

#[test]
fn what_datatrove_keeps() {
    let goldens = include_str!("../../goldens/datatrove.jsonl");
    let goldens: Vec<serde_json::Value> =
        goldens.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows: Vec<Row> = goldens.iter().map(|g| (g["text"].as_str().unwrap().to_owned(), None)).collect();
    for (memory, verify) in [(0, true), (64 << 20, false)] {
        let options = MinHashOptions {
            profile: Profile::Datatrove,
            bands: Some(14),
            rows: Some(8),
            verify,
            ..MinHashOptions::default()
        };
        let cluster = Cluster::Components(Representative::UnionBySize);
        let halves = gather_contents_in(minhash(options), cluster, Order::Input, &storage(memory)).unwrap();
        let decisions = gather(halves, &rows);
        let answer = apply(&decisions, &rows);
        for (own, (dropped, golden)) in answer.iter().zip(&goldens).enumerate() {
            let expected = golden["representative"].as_u64().unwrap() as usize;
            match dropped {
                None => assert_eq!(expected, own),
                Some(dropped) if verify => assert_eq!(removal(dropped).dup_of, expected),
                Some(dropped) => {
                    let text = |text: &str| Value::Text(text.to_owned());
                    let proof = [
                        ("dup_of", text(&expected.to_string())),
                        ("verify", text("none")),
                        ("rule", text("components")),
                    ];
                    assert_eq!(dropped.proof, proof);
                }
            }
        }
        let DecidedSummary::Contents(summary) = decisions.summary() else { panic!("contents") };
        let removed = answer.iter().flatten().count() as u64;
        assert_eq!((summary.documents, summary.near_duplicates), (rows.len() as u64, removed));
        let minhash = summary.minhash.as_ref().unwrap();
        let binned: u64 = minhash.jaccard_histogram.iter().map(|bin| bin.count).sum();
        assert_eq!((minhash.verified.is_some(), binned), (verify, if verify { removed } else { 0 }));
    }
}

#[test]
fn a_chain_is_one_component_and_the_order_chooses() {
    let base = words("a", 100);
    let rows: Vec<Row> = (0..4)
        .map(|n| ([&words("b", 8 * n)[..], &base[8 * n..]].concat().join(" "), Some([2.0, 9.0, 4.0, 9.0][n])))
        .collect();
    let check = |order, expected: [Option<&str>; 4]| {
        let cluster = Cluster::Components(Representative::First);
        let halves = gather_contents_in(minhash(MinHashOptions::default()), cluster, order, &storage(0));
        let answer = apply(&gather(halves.unwrap(), &rows), &rows);
        let named = answer.iter().map(|d| d.as_ref().map(|d| removal(d).dup_of.to_string()));
        assert_eq!(named.collect::<Vec<_>>(), expected.map(|id| id.map(str::to_owned)));
        answer
    };
    let answer = check(Order::Input, [None, Some("0"), Some("0"), Some("0")]);
    // What it was removed for may be far away, and the proof says how far.
    assert!(removal(answer[3].as_ref().unwrap()).jaccard < 0.7);
    check(Order::Largest(number_of()), [Some("1"), None, Some("1"), Some("1")]);
    check(Order::Smallest(number_of()), [None, Some("0"), Some("0"), Some("0")]);
    check(Order::Longest, [None, Some("0"), Some("0"), Some("0")]);
}

#[test]
fn other_documents_in_the_second_pass_are_noticed() {
    let rows = families(60);
    let halves = gather_contents_in(
        DedupOptions { exact: true, minhash: None },
        Cluster::Star,
        Order::Longest,
        &storage(0),
    );
    let decisions = gather(halves.unwrap(), &rows);
    let check = |rows: &[Row], expected: &str| {
        let mut gate = decisions.gate().unwrap();
        for mut doc in documents(rows) {
            gate.admit(&mut doc, ()).unwrap();
        }
        assert_eq!(gate.check().unwrap_err().to_string(), expected);
    };
    let changed = "the inputs have changed between the two passes: 60 documents in the first, ";
    check(&rows[..59], &format!("{changed}59 in the second"));
    let mut other = rows.clone();
    other[7].0.push('x');
    check(&other, &format!("{changed}60 in the second"));
}

#[test]
fn what_cannot_be_done_is_said() {
    let check = |options, cluster, storage: &Storage, expected: &str| {
        let error = gather_contents(options, cluster, Order::Input, storage).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let fine = storage(Storage::DEFAULT_MEMORY);
    let exact = DedupOptions { exact: true, minhash: None };
    let first = Cluster::Components(Representative::First);
    check(exact.clone(), Cluster::Star, &storage(1), "1 bytes of memory: expected 16777216 or more");
    check(exact, first, &fine, "components are made of near-duplicates: MinHash was not asked for");
    let index = Storage { place: Place::Index("seen".into()), ..fine.clone() };
    let near = || minhash(MinHashOptions::default());
    check(near(), Cluster::Star, &index, "an index cannot be used where all documents must be seen first");
    check(
        near(),
        Cluster::Components(Representative::UnionBySize),
        &fine,
        "only the profile datatrove has the signatures by which datatrove chooses what to keep",
    );
}
