//! The answer against its definition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use curate_core::{Counters, Document, Dropped, Gate, Mapper, Value, Verdict, Work};

use super::*;
use crate::options::{Place, Storage};
use crate::words::Profile;

/// Checks every proof against the texts, and keeps it.
struct Checked {
    texts: Vec<String>,
    unit: SubstringUnit,
    spans: Arc<Mutex<Vec<(String, usize, usize)>>>,
}

impl SpanLog for Checked {
    fn write(&mut self, doc: &Document<'_>, proof: &Dropped) -> curate_core::Result<()> {
        let facts: Vec<_> = proof.proof.iter().map(|(_, value)| value.clone()).collect();
        let [Value::Count(start), Value::Count(end), Value::Text(id), Value::Count(at), Value::Text(said)] =
            &facts[..]
        else {
            panic!("{facts:?}");
        };
        let (start, end) = (*start as usize, *end as usize);
        let piece = &doc.text()[start..end];
        assert_eq!(piece, said);
        let copy = &self.texts[id.parse::<usize>().unwrap()][*at as usize..];
        match self.unit {
            SubstringUnit::Bytes => assert!(copy.starts_with(piece), "{piece:?} is not in {id} at {at}"),
            SubstringUnit::Words(profile) => {
                let (piece, copy) = (words(profile, piece), words(profile, copy));
                assert!(copy.starts_with(&piece), "{piece:?} is not in {id} at {at}");
            }
        }
        self.spans.lock().unwrap().push((doc.id().to_owned(), start, end));
        Ok(())
    }

    fn finish(self: Box<Self>) -> curate_core::Result<()> {
        Ok(())
    }
}

fn words(profile: Profile, text: &str) -> Vec<u64> {
    let mut units = Vec::new();
    crate::words::units(profile, text, &mut Vec::new(), &mut units);
    units
}

/// What a run leaves.
#[derive(Debug, PartialEq)]
struct Answer {
    /// `None` for a document that was dropped.
    texts: Vec<Option<String>>,
    fields: Vec<Vec<(String, String)>>,
    /// Document, start and end of each span that was written down.
    spans: Vec<(String, usize, usize)>,
}

fn document(i: usize, text: &str) -> Document<'_> {
    Document::new(b"", i.to_string(), "", text)
}

fn find(options: &SubstringOptions, memory: u64, bad: bool, docs: &[String]) -> Repeats {
    let storage = Storage { memory, place: Place::TemporaryIn(std::env::temp_dir()) };
    let mapper = RepeatMapper::new(options).unwrap();
    let mut finder = RepeatFinder::new(options.clone(), &storage).unwrap();
    if bad {
        finder.key_mask = |attempt| if attempt < 3 { 1 } else { u128::MAX };
    }
    for (i, text) in docs.iter().enumerate() {
        let mut doc = document(i, text);
        let Work::Pending(work) = mapper.map(&mut doc, &mut Default::default(), &mut Counters::default())
        else {
            panic!("the mapper decides nothing");
        };
        finder.admit(&mut doc, work).unwrap();
    }
    finder.finish(|| Ok(())).unwrap()
}

fn run(options: &SubstringOptions, memory: u64, bad: bool, docs: &[String]) -> (Answer, SubstringSummary) {
    let spans = Arc::new(Mutex::new(Vec::new()));
    let mut gate = SubstringGate::new(Arc::new(find(options, memory, bad, docs)));
    gate.set_log(Box::new(Checked { texts: docs.to_vec(), unit: options.unit, spans: Arc::clone(&spans) }));
    let (mut texts, mut fields) = (Vec::new(), Vec::new());
    for (i, text) in docs.iter().enumerate() {
        let mut doc = document(i, text);
        let verdict = gate.admit(&mut doc, ()).unwrap();
        texts.push((verdict == Verdict::Keep).then(|| doc.text().to_owned()));
        fields.push(doc.set_fields().to_vec());
    }
    gate.check().unwrap();
    gate.finish_log().unwrap();
    let spans = std::mem::take(&mut *spans.lock().unwrap());
    (Answer { texts, fields, spans }, gate.summary().clone())
}

fn options(unit: SubstringUnit, length: usize, copies: Copies) -> SubstringOptions {
    SubstringOptions { unit, length, copies, action: SpanAction::Remove, min_chars: 0 }
}

/// What repeated windows cover in a document.
#[derive(Clone)]
struct Covered {
    units: Vec<bool>,
    /// Of each unit whether one window holds it and the next one.
    with_next: Vec<bool>,
}

/// The definition, with no cleverness.
fn covered(length: usize, copies: Copies, docs: &[Vec<u64>]) -> Vec<Covered> {
    let mut places: BTreeMap<&[u64], Vec<(usize, usize)>> = BTreeMap::new();
    for (d, doc) in docs.iter().enumerate() {
        for (i, window) in doc.windows(length).enumerate() {
            places.entry(window).or_default().push((d, i));
        }
    }
    let nothing =
        |doc: &Vec<u64>| Covered { units: vec![false; doc.len()], with_next: vec![false; doc.len()] };
    let mut covered: Vec<Covered> = docs.iter().map(nothing).collect();
    for group in places.values() {
        let (first, last) = (group[0], group[group.len() - 1]);
        for &(d, i) in group {
            let is_repeat = match copies {
                Copies::First => first.0 < d || first.1 + length <= i,
                Copies::None => first != last,
            };
            if is_repeat {
                covered[d].units[i..i + length].fill(true);
                covered[d].with_next[i..i + length - 1].fill(true);
            }
        }
    }
    covered
}

/// The definition, for ASCII bytes.
fn by_definition(length: usize, copies: Copies, docs: &[String]) -> Vec<Option<String>> {
    let units: Vec<Vec<u64>> = docs.iter().map(|doc| doc.bytes().map(u64::from).collect()).collect();
    let rest = |(doc, covered): (&String, Covered)| {
        Some(doc.chars().zip(covered.units).filter(|(_, cut)| !cut).map(|(c, _)| c).collect())
    };
    docs.iter().zip(covered(length, copies, &units)).map(rest).collect()
}

/// The definition, for words, and what stands between two of them in one window.
fn words_by_definition(
    profile: Profile,
    length: usize,
    copies: Copies,
    docs: &[String],
) -> Vec<Option<String>> {
    let placed = |doc: &String| {
        let mut placed = Vec::new();
        crate::words::placed_units(profile, doc, &mut Vec::new(), &mut placed);
        placed
    };
    let placed: Vec<_> = docs.iter().map(placed).collect();
    let units: Vec<Vec<u64>> = placed.iter().map(|doc| doc.iter().map(|unit| unit.hash).collect()).collect();
    let rest = |((doc, placed), covered): ((&String, Vec<crate::words::PlacedUnit>), Covered)| {
        let (mut rest, mut at) = (String::new(), 0);
        for (i, unit) in placed.iter().enumerate().filter(|(i, _)| covered.units[*i]) {
            if i == 0 || !covered.with_next[i - 1] {
                rest.push_str(&doc[at..unit.start as usize]);
            }
            at = unit.end as usize;
        }
        Some(rest + &doc[at..])
    };
    docs.iter().zip(placed).zip(covered(length, copies, &units)).map(rest).collect()
}

proptest! {
    #[test]
    fn bytes_are_cut_by_the_definition(
        docs in prop::collection::vec("[ab]{0,60}", 0..6),
        length in 2..12usize,
        none in any::<bool>(),
        bad in any::<bool>(),
    ) {
        let copies = if none { Copies::None } else { Copies::First };
        let (answer, _) = run(&options(SubstringUnit::Bytes, length, copies), 16 << 20, bad, &docs);
        prop_assert_eq!(answer.texts, by_definition(length, copies, &docs));
    }

    #[test]
    fn words_are_cut_by_the_definition(
        docs in prop::collection::vec("([aAb]{1,2}[ ,.]{1,2}){0,25}", 0..5),
        length in 2..7usize,
        none in any::<bool>(),
        raw in any::<bool>(),
    ) {
        let copies = if none { Copies::None } else { Copies::First };
        let profile = if raw { Profile::Raw } else { Profile::Curate1 };
        let (answer, _) = run(&options(SubstringUnit::Words(profile), length, copies), 16 << 20, false, &docs);
        prop_assert_eq!(answer.texts, words_by_definition(profile, length, copies, &docs));
    }
}

#[test]
fn words_have_the_hashes_of_shingles() {
    for text in ["Hello, wörld! don't_x 42", "今天 天気 ok", "", "a\u{301}b \u{301} İx ς"] {
        for profile in [Profile::Curate1, Profile::Raw] {
            let mut placed = Vec::new();
            crate::words::placed_units(profile, text, &mut Vec::new(), &mut placed);
            assert_eq!(
                placed.iter().map(|unit| unit.hash).collect::<Vec<_>>(),
                words(profile, text),
                "{text}"
            );
        }
    }
}

#[test]
fn characters_stay_whole() {
    let docs = ["xäöü".to_owned(), "yöüäöü!".to_owned()];
    let (answer, _) = run(&options(SubstringUnit::Bytes, 3, Copies::First), 16 << 20, false, &docs);
    assert_eq!(answer.texts[1].as_deref(), Some("y!"));
}

#[test]
fn case_and_punctuation_matter_to_raw_words_only() {
    let docs = ["Of all the things I know, this is one.", "He said: (of ALL the Things i know) and left"];
    let docs = docs.map(str::to_owned);
    let cut = |profile| {
        let (answer, summary) =
            run(&options(SubstringUnit::Words(profile), 4, Copies::First), 16 << 20, false, &docs);
        (answer.texts[1].clone().unwrap(), answer.spans, summary.span_bytes)
    };
    let span = ("1".to_owned(), 10, 34);
    assert_eq!(cut(Profile::Curate1), ("He said: () and left".to_owned(), vec![span], 24));
    assert_eq!(cut(Profile::Raw), (docs[1].clone(), vec![], 0));
}

#[test]
fn a_script_without_spaces_has_a_word_for_each_character() {
    let docs = ["春眠不覚暁、処処聞啼鳥。".to_owned(), "曰く「春眠不覚暁」と。".to_owned()];
    let (answer, _) =
        run(&options(SubstringUnit::Words(Profile::Curate1), 5, Copies::First), 16 << 20, false, &docs);
    assert_eq!(answer.texts[1].as_deref(), Some("曰く「」と。"));
}

#[test]
fn spans_are_marked_and_the_text_stays() {
    let docs = ["one two three four five", "and one two three four", "nothing here"].map(str::to_owned);
    let mark = SubstringOptions {
        action: SpanAction::Mark("metadata.repeats".to_owned()),
        min_chars: 1000,
        ..options(SubstringUnit::Words(Profile::Curate1), 3, Copies::First)
    };
    let (answer, summary) = run(&mark, 16 << 20, false, &docs);
    assert_eq!(answer.texts, docs.map(Some), "nothing is cut, so nothing is too short");
    let value = r#"[{"start":4,"end":22,"dup_of":"0","offset":0}]"#;
    let field = |value: &str| vec![("metadata.repeats".to_owned(), value.to_owned())];
    assert_eq!(answer.fields, [vec![], field(value), vec![]]);
    assert_eq!((summary.edited, summary.spans, summary.span_bytes, summary.dropped), (1, 1, 18, 0));
}

#[test]
fn what_is_left_too_short_is_dropped() {
    let docs = ["one two three four five", "(one two three) xy z", "one two three four", "  ", "kept"];
    let docs = docs.map(str::to_owned);
    let check = |min_chars, expected: [Option<&str>; 5]| {
        let options = SubstringOptions {
            min_chars,
            ..options(SubstringUnit::Words(Profile::Curate1), 3, Copies::First)
        };
        let (answer, summary) = run(&options, 16 << 20, false, &docs);
        assert_eq!(answer.texts, expected.map(|text| text.map(str::to_owned)), "{min_chars}");
        let dropped = expected.iter().filter(|text| text.is_none()).count() as u64;
        assert_eq!((summary.dropped, summary.edited), (dropped, 2 - dropped));
        assert_eq!(answer.spans.len(), 2, "spans of dropped documents are written down too");
    };
    check(0, [Some(&docs[0]), Some("() xy z"), Some(""), Some("  "), Some("kept")]);
    check(1, [Some(&docs[0]), Some("() xy z"), None, Some("  "), Some("kept")]);
    check(5, [Some(&docs[0]), Some("() xy z"), None, Some("  "), Some("kept")]);
    check(6, [Some(&docs[0]), None, None, Some("  "), Some("kept")]);
}

/// Texts of words that hardly occur twice, with passages planted in them, and what was planted.
fn planted() -> (Vec<String>, u64) {
    let mut state = 5u64;
    let mut random = |n: u64| {
        state += 1;
        crate::words::finish(state) % n
    };
    let mut words =
        |count: u64| (0..count).map(|_| format!("w{:07}", random(10_000_000))).collect::<Vec<_>>();
    let passages: Vec<Vec<String>> = (0..40).map(|i| words(60 + i)).collect();
    let mut planted = 0;
    let docs = (0..6000).map(|i| {
        let mut text = words(60);
        if i % 10 == 3 {
            let passage = &passages[i / 10 % passages.len()];
            planted += if i / 10 < passages.len() { 0 } else { passage.len() as u64 };
            text.splice(20..20, passage.iter().cloned());
        }
        text.join(" ")
    });
    (docs.collect(), planted)
}

#[test]
fn what_is_planted_is_found_in_any_memory() {
    let (docs, planted) = planted();
    for (unit, length) in [(SubstringUnit::Words(Profile::Curate1), 50), (SubstringUnit::Bytes, 200)] {
        let options = options(unit, length, Copies::First);
        let (answer, summary) = run(&options, 1 << 30, false, &docs);
        let cut: usize =
            answer.texts.iter().zip(&docs).map(|(text, doc)| doc.len() - text.as_ref().unwrap().len()).sum();
        // A word has 8 characters and a space after it; bytes go on into a space, a `w` and some digits
        // that one of the earlier copies has as well.
        let spare = if length == 50 { 0 } else { 8 * summary.spans };
        let planted = 9 * planted - summary.spans;
        assert!((planted..=planted + spare).contains(&(cut as u64)), "{cut} of {planted}");
        assert_eq!((summary.spans, summary.edited, summary.dropped), (560, 560, 0));
        let small = run(&options, 16 << 20, false, &docs);
        assert!(small.0 == answer, "{unit:?}");
        assert!(small.1.disk_bytes > 0 && summary.disk_bytes == 0);
        assert!(small.1.memory_bytes < 16 << 20, "{}", small.1.memory_bytes);
        let same = |summary: SubstringSummary| SubstringSummary { memory_bytes: 0, disk_bytes: 0, ..summary };
        assert_eq!(same(small.1), same(summary));
    }
}

#[test]
fn other_documents_in_the_second_pass_are_noticed() {
    let docs = ["one two three four", "one two three four", "five"].map(str::to_owned);
    let options = options(SubstringUnit::Words(Profile::Curate1), 3, Copies::First);
    let repeats = Arc::new(find(&options, 16 << 20, false, &docs));
    let second_pass = |docs: &[&str]| -> Option<String> {
        let mut gate = SubstringGate::new(Arc::clone(&repeats));
        for (i, text) in docs.iter().enumerate() {
            if let Err(error) = gate.admit(&mut document(i, text), ()) {
                return Some(error.to_string());
            }
        }
        gate.check().err().map(|error| error.to_string())
    };
    assert_eq!(second_pass(&["one two three four", "one two three four", "five"]), None);
    let changed = |part: &str, docs: &[&str]| {
        let error = second_pass(docs).expect("an error");
        assert!(error.contains(part), "{error}");
    };
    changed("3 documents in the first, 2 in the second", &["one two three four", "one two three four"]);
    changed("document 1 is not what it was", &["one two three four", "one", "five"]);
    changed("document 3 is not what it was", &["one two three four", "one two three four", "five", "six"]);
    changed("the inputs have changed", &["one two three four!", "one two three four", "five"]);
}

#[test]
fn nobody_waits_for_an_interrupted_search() {
    let docs = ["ab".repeat(60_000)];
    let mapper = RepeatMapper::new(&options(SubstringUnit::Bytes, 50, Copies::First)).unwrap();
    let storage = Storage { memory: 16 << 20, place: Place::TemporaryIn(std::env::temp_dir()) };
    let mut finder = RepeatFinder::new(options(SubstringUnit::Bytes, 50, Copies::First), &storage).unwrap();
    let mut doc = document(0, &docs[0]);
    let Work::Pending(work) = mapper.map(&mut doc, &mut Default::default(), &mut Counters::default()) else {
        panic!("the mapper decides nothing");
    };
    finder.admit(&mut doc, work).unwrap();
    assert!(matches!(
        finder.finish(|| Err(curate_core::Error::ClosedPipe)),
        Err(curate_core::Error::ClosedPipe)
    ));
}

#[test]
fn what_cannot_be_done_is_said() {
    let check = |unit, length, expected: &str| {
        let error = RepeatMapper::new(&options(unit, length, Copies::First)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(SubstringUnit::Bytes, 1, "repeated substrings of 1 bytes: expected 2 to 65536");
    check(
        SubstringUnit::Words(Profile::Raw),
        65_537,
        "repeated substrings of 65537 words: expected 2 to 65536",
    );
    check(
        SubstringUnit::Words(Profile::Datatrove),
        50,
        "the datatrove profile has no words that can be cut out of a text",
    );
    let index = Storage { memory: 16 << 20, place: Place::Index("seen".into()) };
    let error = RepeatFinder::new(options(SubstringUnit::Bytes, 50, Copies::First), &index).unwrap_err();
    assert_eq!(error.to_string(), "an index remembers whole documents only");
}
