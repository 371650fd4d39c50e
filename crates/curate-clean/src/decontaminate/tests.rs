use proptest::prelude::*;

use super::*;

const DUCKS: &str = "Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her \
    friends every day with four. How much does she make every day at the farmers' market?";

fn index(items: &[(&str, &str)]) -> Index {
    let mut builder = IndexBuilder::new(1 << 30);
    builder.begin_set("set");
    for (i, (question, answer)) in items.iter().enumerate() {
        builder.add(Item { id: &i.to_string(), question, answer }).unwrap();
    }
    builder.build()
}

fn found(index: &Index, text: &str) -> Vec<(usize, String)> {
    let leaks = index.find(text, THRESHOLD, &mut Scratch::default());
    leaks.iter().map(|leak| (leak.item, text[leak.spans[0].clone()].to_owned())).collect()
}

fn robes() -> Index {
    index(&[
        (DUCKS, "18"),
        ("A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total?", "3"),
        ("Who wrote Middlemarch?", "George Eliot"),
        ("What is true?", "All of the above"),
        ("", ""),
    ])
}

#[test]
fn an_item_is_found_whatever_was_done_to_it() {
    let index = robes();
    assert_eq!((index.len(), index.sets()[0].items, index.sets()[0].empty), (4, 5, 1));
    let check = |planted: &str, item: usize, span: &str| {
        let text = format!("Here is what I was asked yesterday.\n\n{planted}\n\nI could not say.");
        assert_eq!(found(&index, &text), [(item, span.to_owned())], "{planted}");
    };
    let whole = DUCKS.trim_end_matches('?');
    check(DUCKS, 0, whole);
    check(&DUCKS.to_uppercase(), 0, &whole.to_uppercase());
    let unmarked = DUCKS.replace(['.', '?'], " -");
    check(&unmarked, 0, unmarked.trim_end_matches(" -"));
    let replaced = DUCKS.replace("muffins", "pies").replace("friends", "sisters").replace("make", "earn");
    check(&replaced, 0, replaced.trim_end_matches('?'));
    let half = "A robe takes 2 bolts of blue fiber and";
    check(half, 1, half);
    check("Who wrote Middlemarch? It was George Eliot.", 2, "Who wrote Middlemarch? It was George Eliot");
}

#[test]
fn ordinary_text_is_left_alone() {
    let index = robes();
    for text in [
        "",
        "Who wrote Middlemarch? I forgot.",
        "What is true? All of the above.",
        "Ducks lay eggs every day. How much does she make at the market? A robe takes time to sew.",
        "16 16 16 16 16 16 16 16 16 16 16 16 2 2 2 2 2 2 2 2",
    ] {
        assert_eq!(found(&index, text), [], "{text}");
    }
}

fn story(words: std::ops::Range<u32>) -> String {
    words.map(|i| format!("w{} ", i * i % 7919)).collect()
}

#[test]
fn a_held_out_document_is_found_by_fifty_words_of_it() {
    let index = index(&[(&story(0..2000), "")]);
    let check = |shared: std::ops::Range<u32>, expected: bool| {
        let text = format!("before {}after", story(shared.clone()));
        assert_eq!(!found(&index, &text).is_empty(), expected, "{shared:?}");
    };
    check(300..360, true);
    check(300..340, false);
    check(0..2000, true);
    // Two places, two spans.
    let text = format!(
        "{} and quite another thing between them, of more words than a gap {}",
        story(100..160),
        story(900..970)
    );
    let leaks = index.find(&text, THRESHOLD, &mut Scratch::default());
    assert_eq!((leaks.len(), leaks[0].spans.len()), (1, 2));
}

#[test]
fn an_index_that_outgrows_its_memory_is_refused() {
    let mut builder = IndexBuilder::new(10_000);
    let error = (0..1000).find_map(|_| builder.add(Item { id: "i", question: DUCKS, answer: "" }).err());
    let error = error.expect("the limit is reached");
    assert!(matches!(error, IndexError::TooLarge { needed: 10_001.., allowed: 10_000 }), "{error}");
    assert!(error.hint().unwrap().contains("--memory"));
}

#[test]
fn ranges_are_merged() {
    assert_eq!(merge(vec![5..7, 0..2, 2..3, 6..9]), [0..3, 5..9]);
    assert!(merge(Vec::new()).is_empty());
}

proptest! {
    #[test]
    fn nothing_panics_and_spans_are_sound(text in "[a-d éÀ漢. ]{0,200}", items in prop::collection::vec("[a-d é漢 ]{0,60}", 1..6)) {
        let items: Vec<(&str, &str)> = items.iter().map(|item| (item.as_str(), "a b")).collect();
        let index = index(&items);
        for leak in index.find(&text, 0.01, &mut Scratch::default()) {
            prop_assert!(leak.score > 0.0 && leak.score <= 1.0 && leak.coverage <= 1.0);
            let mut end = 0;
            for span in leak.spans {
                prop_assert!(span.start >= end && span.end > span.start);
                prop_assert!(text.get(span.clone()).is_some());
                end = span.end;
            }
        }
    }

    #[test]
    fn a_rare_sentence_is_always_found(seed in 0_u32..5000, before in 0_usize..40, after in 0_usize..40) {
        let sentence: String = (0..20).map(|i| format!("q{} ", seed * 31 + i * i)).collect();
        let index = index(&[(&sentence, "")]);
        let text = format!("{}{sentence}{}", "filler ".repeat(before), "other ".repeat(after));
        let found = found(&index, &text);
        prop_assert_eq!(found, vec![(0, sentence.trim_end().to_owned())]);
    }
}
