//! The answer against its definition.

use proptest::prelude::*;

use curate_core::{Counters, Document, Gate, Mapper, Verdict, Work};

use super::*;
use crate::options::{Place, Storage};

fn run(
    options: &SubstringOptions,
    memory: u64,
    bad: bool,
    docs: &[String],
) -> (Vec<Option<String>>, SubstringSummary) {
    let storage = Storage { memory, place: Place::TemporaryIn(std::env::temp_dir()) };
    let mapper = RepeatMapper::new(options).unwrap();
    let mut finder = RepeatFinder::new(options.clone(), &storage).unwrap();
    if bad {
        finder.key_mask = |attempt| if attempt < 3 { 1 } else { u128::MAX };
    }
    let document = |i: usize| Document::new(b"", i.to_string(), "", docs[i].as_str());
    for i in 0..docs.len() {
        let mut doc = document(i);
        let Work::Pending(work) = mapper.map(&mut doc, &mut Default::default(), &mut Counters::default())
        else {
            panic!("the mapper decides nothing");
        };
        finder.admit(&mut doc, work).unwrap();
    }
    let texts = docs.to_vec();
    let log: SpanLog = Box::new(move |doc, proof| {
        let facts: Vec<_> = proof.proof.iter().map(|(_, value)| value.clone()).collect();
        let [
            curate_core::Value::Count(s),
            curate_core::Value::Count(e),
            curate_core::Value::Text(id),
            curate_core::Value::Count(at),
        ] = &facts[..]
        else {
            panic!("{facts:?}");
        };
        let copy = &texts[id.parse::<usize>().unwrap()][*at as usize..];
        let piece = &doc.text()[*s as usize..*e as usize];
        assert!(copy.starts_with(piece), "{piece:?} is not in {id} at {at}");
        Ok(())
    });
    let mut gate = SubstringGate::new(finder.finish().unwrap(), Some(log));
    let answer = (0..docs.len()).map(|i| {
        let mut doc = document(i);
        let verdict = gate.admit(&mut doc, ()).unwrap();
        (verdict == Verdict::Keep).then(|| doc.text().to_owned())
    });
    (answer.collect(), gate.summary())
}

fn options(unit: SubstringUnit, length: usize, copies: Copies) -> SubstringOptions {
    SubstringOptions { unit, length, copies, action: SpanAction::Remove, min_chars: 0 }
}

/// The definition, for ASCII.
fn by_definition(length: usize, copies: Copies, docs: &[String]) -> Vec<Option<String>> {
    let windows: Vec<(usize, usize)> = (0..docs.len())
        .flat_map(|d| (0..(docs[d].len() + 1).saturating_sub(length)).map(move |i| (d, i)))
        .collect();
    let is_repeat = |d: usize, i: usize| {
        windows.iter().any(|&(e, j)| {
            let counts = match copies {
                Copies::First => e < d || e == d && j + length <= i,
                Copies::None => (e, j) != (d, i),
            };
            counts && docs[e][j..j + length] == docs[d][i..i + length]
        })
    };
    let mut keep: Vec<Vec<bool>> = docs.iter().map(|doc| vec![true; doc.len()]).collect();
    for &(d, i) in windows.iter().filter(|&&(d, i)| is_repeat(d, i)) {
        keep[d][i..i + length].fill(false);
    }
    let rest = |(doc, keep): (&String, &Vec<bool>)| {
        Some(doc.chars().zip(keep).filter(|(_, keep)| **keep).map(|(c, _)| c).collect())
    };
    docs.iter().zip(&keep).map(rest).collect()
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
        prop_assert_eq!(answer, by_definition(length, copies, &docs));
    }
}

#[test]
fn words_have_the_hashes_of_shingles() {
    for text in ["Hello, wörld! don't_x 42", "今天 天気 ok", "", "a\u{301}b \u{301} İx ς"] {
        for profile in [crate::words::Profile::Curate1, crate::words::Profile::Raw] {
            let (mut placed, mut plain) = (Vec::new(), Vec::new());
            crate::words::placed_units(profile, text, &mut Vec::new(), &mut placed);
            crate::words::units(profile, text, &mut Vec::new(), &mut plain);
            assert_eq!(placed.iter().map(|unit| unit.hash).collect::<Vec<_>>(), plain, "{text}");
        }
    }
}

#[test]
fn characters_stay_whole() {
    let docs = ["xäöü".to_owned(), "yöüäöü!".to_owned()];
    let (answer, _) = run(&options(SubstringUnit::Bytes, 3, Copies::First), 16 << 20, false, &docs);
    assert_eq!(answer[1].as_deref(), Some("y!"));
}
