//! `curate clean`: normalising, rules, rejects.

use crate::support::{Scratch, curate, line, report};

fn prose(words: usize) -> String {
    "the river and the garden that we have with of old stones ".repeat(words / 11 + 1)
}

#[test]
fn good_documents_stay_untouched_and_poor_ones_go_with_a_reason() {
    let dir = Scratch::new();
    let rejects = dir.path("rejects.jsonl");
    let good = line("good", prose(100).trim_end());
    let input = good.clone() + &line("poor", "three words only");
    let out = curate(["clean".as_ref(), "--rejects".as_ref(), rejects.as_os_str()], &input).ok();
    assert_eq!(out.stdout(), good);
    let rejected = report(&rejects);
    assert_eq!(rejected["id"], "poor");
    assert_eq!(rejected["text"], "three words only", "a reject can be read again");
    assert_eq!(rejected["rejected"]["stage"], "clean");
    assert_eq!(rejected["rejected"]["reason"], "too_few_words");
    assert_eq!(
        (&rejected["rejected"]["value"], &rejected["rejected"]["threshold"]),
        (&3.0.into(), &50.0.into())
    );
    let again =
        curate(["clean".as_ref(), "--recipe".as_ref(), "none".as_ref(), rejects.as_os_str()], "").ok();
    assert!(again.stdout().contains("\"rejected\""));
}

#[test]
fn an_edited_document_keeps_its_other_fields() {
    let text = prose(100).trim_end().replace(' ', "\u{a0}").replacen('\u{a0}', " \r\n", 1);
    let input = format!("{{\"n\" : 1.0, \"text\": {}, \"z\":[ ]}}\n", serde_json::json!(text));
    let out = curate(["clean", "--recipe", "none"], &input).ok();
    let expected = format!(
        "{{\"n\" : 1.0, \"text\": {}, \"z\":[ ]}}\n",
        serde_json::json!(text.replacen(" \r\n", "\n", 1))
    );
    assert_eq!(out.stdout(), expected);
}

#[test]
fn thresholds_can_be_set_and_names_are_checked() {
    let input = line("a", prose(20).trim_end());
    assert_eq!(curate(["clean"], &input).ok().stdout(), "");
    assert_eq!(curate(["clean", "--set", "min_words=10"], &input).ok().stdout(), input);
    let wrong = curate(["clean", "--set", "min_wrds=10"], "").expect(2);
    assert!(wrong.stderr.contains("min_words"), "the near miss is named: {}", wrong.stderr);
    let unknown = curate(["clean", "--recipe", "gophre"], "").expect(2);
    assert!(unknown.stderr.contains("gopher"), "{}", unknown.stderr);
}

#[test]
fn a_recipe_file_is_checked_before_anything_is_read() {
    let dir = Scratch::new();
    let recipe = dir.file(
        "mine.toml",
        "name = \"mine\"\ndescription = \"d\"\nsource = \"ours\"\nwords = \"whitespace\"\nnormalise = true\n[[rule]]\nreason = \"too_few_words\"\ndrop_if = \"wrds < 3\"\n",
    );
    let out = curate(["clean".as_ref(), "--recipe".as_ref(), recipe.as_os_str()], "").expect(2);
    assert!(out.stderr.contains("wrds") && out.stderr.contains("words"), "{}", out.stderr);
}

#[test]
fn the_report_adds_up() {
    let dir = Scratch::new();
    let json = dir.path("report.json");
    let input = crate::support::corpus(300);
    let out =
        curate(["clean".as_ref(), "--report".as_ref(), json.as_os_str(), "--quiet".as_ref()], &input).ok();
    assert_eq!(out.stderr, "");
    let report = report(&json);
    let n = |key: &str| report[key].as_u64().unwrap();
    let dropped: u64 = report["dropped"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
    assert_eq!(n("read"), n("kept") + dropped + n("malformed"));
    assert_eq!(n("kept"), out.stdout().lines().count() as u64);
    assert_eq!(n("bytes_out"), out.stdout.len() as u64);
    assert!(n("malformed") == 3 && dropped > 10);
    assert!(n("peak_rss_bytes") > 0 && report["version"] == env!("CARGO_PKG_VERSION"));
}
