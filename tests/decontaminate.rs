//! `curate decontaminate`: what is found of evaluation items, what happens to it, and how much clean text is touched.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Random, Scratch, corpus, curate, line, prose, report};

struct Item {
    question: String,
    answer: String,
}

/// The evaluation items of `path`, if it is there.
fn shared_items(path: &Path) -> Option<Vec<Item>> {
    let bytes = zstd::decode_all(fs::File::open(path).ok()?).ok()?;
    let text = String::from_utf8(bytes).unwrap();
    let item = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| value[name].as_str().unwrap().to_owned();
        Item { question: field("question"), answer: field("answer") }
    };
    Some(text.lines().map(item).collect())
}

/// Items of our own: sums in words, each with things and numbers of its own.
fn made_items(n: usize) -> Vec<Item> {
    const WHO: [&str; 8] = ["Amara", "Bertram", "Chiara", "Dmitri", "Eluned", "Farouk", "Gudrun", "Hiroshi"];
    const WHAT: [&str; 8] =
        ["walnuts", "postcards", "lanterns", "kettles", "violins", "tadpoles", "saddles", "thimbles"];
    const WHERE: [&str; 8] =
        ["harbour", "monastery", "greenhouse", "foundry", "lighthouse", "orchard", "tannery", "quarry"];
    let mut random = Random(99);
    (0..n)
        .map(|i| {
            let mut pick = |list: &[&'static str; 8]| list[random.below(8)];
            let (who, what, wher, other) = (pick(&WHO), pick(&WHAT), pick(&WHERE), pick(&WHAT));
            let (a, b) = (3 + i % 90, 2 + i % 7);
            let question = format!(
                "{who} carries {a} {what} from the {wher} every evening and swaps {b} of them for crooked {other}. \
                 How many {what} are left after {b} evenings of bargaining?"
            );
            Item { question, answer: format!("{}", (a - b.min(a)) * b) }
        })
        .collect()
}

/// The evaluation items there are, in equal parts of each set, with a name for messages.
fn items(dir: &Scratch) -> (PathBuf, Vec<Item>) {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/decontam");
    let sets: Vec<Vec<Item>> = ["mmlu", "gsm8k"]
        .iter()
        .filter_map(|n| shared_items(&shared.join(format!("{n}.test.jsonl.zst"))))
        .collect();
    let items: Vec<Item> = match sets.len() {
        2 => sets.into_iter().flatten().collect(),
        _ => {
            println!("shared evaluation items are not there: items of our own instead");
            made_items(2000)
        }
    };
    let lines: String = items
        .iter()
        .map(|i| json!({"question": i.question, "answer": i.answer}).to_string() + "\n")
        .collect();
    (dir.file("items.jsonl", lines), items)
}

const WAYS: [&str; 7] = [
    "question and answer",
    "question",
    "case and punctuation",
    "one word",
    "three words",
    "two deletions",
    "first half",
];

/// The question as a page may hold it.
fn altered(item: &Item, way: usize, random: &mut Random) -> String {
    const OTHERS: [&str; 6] = ["stone", "yellow", "teacher", "quickly", "engine", "island"];
    let mut words: Vec<&str> = item.question.split_whitespace().collect();
    let replace = |words: &mut Vec<&str>, times: usize, random: &mut Random| {
        for _ in 0..times {
            let at = random.below(words.len());
            words[at] = OTHERS[random.below(OTHERS.len())];
        }
    };
    match way {
        0 => return format!("{}\nAnswer: {}", item.question, item.answer),
        1 => return item.question.clone(),
        2 => return item.question.to_uppercase().replace(['.', ',', '?'], " --"),
        3 => replace(&mut words, 1, random),
        4 => replace(&mut words, 3, random),
        5 => (0..2).for_each(|_| {
            if words.len() > 1 {
                words.remove(random.below(words.len()));
            }
        }),
        _ => words.truncate(words.len().div_ceil(2)),
    }
    words.join(" ")
}

/// Ten documents of prose for each planted item; the item's number and way are in the id of the one that holds it.
fn planted(items: &[Item], plants: usize) -> String {
    let mut random = Random(5);
    let mut lines = String::new();
    for i in 0..plants * 10 {
        let mut paragraphs: Vec<String> = (0..4).map(|_| prose(40, &mut random)).collect();
        let id = if i % 10 == 3 {
            // Every other plant from the second half of the list, where the smaller set is.
            let way = i / 10 % 7;
            let small = items.len() - items.len() / 12;
            let number = if i / 70 % 2 == 0 {
                random.below(items.len())
            } else {
                small + random.below(items.len() - small)
            };
            paragraphs.insert(random.below(5), altered(&items[number], way, &mut random));
            format!("{i}/{number}/{way}")
        } else {
            format!("{i}")
        };
        lines += &line(&id, &paragraphs.join("\n\n"));
    }
    lines
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn leaks_of(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn planted_items_are_found_and_clean_documents_are_not() {
    let dir = Scratch::new();
    let (against, items) = items(&dir);
    let docs = dir.file("docs.jsonl", planted(&items, 700));
    let leaks = dir.path("leaks.jsonl");
    curate(
        [
            "decontaminate",
            "--against",
            text(&against),
            "--action",
            "report",
            "--leaks",
            text(&leaks),
            text(&docs),
            "-o",
            text(&dir.path("out.jsonl")),
        ],
        "",
    )
    .ok();
    let mut found: BTreeMap<String, bool> = BTreeMap::new();
    for leak in leaks_of(&leaks) {
        found.insert(leak["id"].as_str().unwrap().to_owned(), true);
    }
    let is_planted = |id: &String| id.contains('/');
    let false_hits: Vec<&String> = found.keys().filter(|id| !is_planted(id)).collect();
    assert!(false_hits.is_empty(), "{false_hits:?}");
    let mut table = String::new();
    for (way, name) in WAYS.iter().enumerate() {
        let hits = found.keys().filter(|id| id.ends_with(&format!("/{way}"))).count();
        writeln!(table, "{name}: {hits} of 100").unwrap();
    }
    println!("{table}");
    let recall = found.len() as f64 / 700.0;
    assert!(recall >= 0.93, "recall {recall}\n{table}");
}

const DUCKS: &str = "Janet's ducks lay sixteen eggs each day. She eats three for breakfast and bakes muffins for her \
    friends with four. How much does she earn daily at the farmers' market?";

fn against(dir: &Scratch) -> PathBuf {
    let item = json!({"id": "ducks", "question": DUCKS, "answer": "18"}).to_string();
    dir.file("evals/math.jsonl", item + "\n")
}

#[test]
fn the_three_actions() {
    let dir = Scratch::new();
    let against = against(&dir);
    let leaky = format!("Früher war – “alles” besser.\n\n{DUCKS}\n\nNach dem Rätsel.");
    let clean = "A page about ducks, eggs and a market.";
    let other = r#"{"x": 1.50, "id":"c","text":"clean \u0041 again"}"#;
    let input = line("a", clean) + &line("b", &leaky) + other + "\n";
    let rejects = dir.path("rejects.jsonl");
    let run = |action: &str| {
        let leaks = dir.path(&format!("{action}.jsonl"));
        let mut arguments =
            vec!["decontaminate", "--against", text(&against), "--action", action, "--leaks", text(&leaks)];
        if action == "drop" {
            arguments.extend(["--rejects", text(&rejects)]);
        }
        let out = curate(arguments, &input).ok();
        assert!(out.stderr.contains("math.jsonl"), "{}", out.stderr);
        let leaks = leaks_of(&leaks);
        let leak = &leaks[0];
        assert_eq!(leaks.len(), 1);
        assert_eq!(
            (&leak["id"], &leak["set"], &leak["item"]),
            (&json!("b"), &json!("math.jsonl"), &json!("ducks"))
        );
        let chars: Vec<char> = leaky.chars().collect();
        let span = &leak["spans"][0];
        let at = |i: usize| usize::try_from(span[i].as_u64().unwrap()).unwrap();
        let shared: String = chars[at(0)..at(1)].iter().collect();
        assert_eq!(shared, DUCKS.trim_end_matches('?'));
        assert_eq!(leak["text"], json!(shared));
        out.stdout().to_owned()
    };
    assert_eq!(run("report"), input);
    assert_eq!(run("drop"), line("a", clean) + other + "\n");
    let masked = leaky.replace(DUCKS.trim_end_matches('?'), "[removed]");
    assert_eq!(run("mask"), line("a", clean) + &line("b", &masked) + other + "\n");
    let rejected: Value = serde_json::from_str(&fs::read_to_string(&rejects).unwrap()).unwrap();
    assert_eq!(rejected["rejected"]["reason"], json!("contaminated"));
    assert_eq!(rejected["rejected"]["item"], json!("ducks"));
}

#[test]
fn too_many_removals_end_the_run_without_an_output() {
    let dir = Scratch::new();
    let against = against(&dir);
    let lines: String =
        (0..100).map(|i| line(&i.to_string(), if i < 20 { DUCKS } else { "clean" })).collect();
    let docs = dir.file("docs.jsonl", lines);
    let (out, leaks) = (dir.path("out.jsonl"), dir.path("leaks.jsonl"));
    let run = |more: &[&str]| {
        let arguments = [
            "decontaminate",
            "--against",
            text(&against),
            text(&docs),
            "-o",
            text(&out),
            "--leaks",
            text(&leaks),
        ];
        curate(arguments.iter().chain(more), "")
    };
    let failed = run(&[]).expect(1);
    assert!(
        failed.stderr.contains("20 of 100 documents") && failed.stderr.contains("hint:"),
        "{}",
        failed.stderr
    );
    assert!(!out.exists());
    assert_eq!(leaks_of(&leaks).len(), 20, "the evidence stays");
    run(&["--max-removed", "0.2"]).ok();
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 80);
    run(&["--action", "report"]).ok();
    run(&["--action", "mask"]).expect(1);
}

#[test]
fn the_output_does_not_depend_on_threads_or_blocks() {
    let dir = Scratch::new();
    let items = made_items(200);
    let lines: String = items
        .iter()
        .map(|i| json!({"question": i.question, "answer": i.answer}).to_string() + "\n")
        .collect();
    let against = dir.file("items.jsonl", lines);
    let docs = dir.file("docs.jsonl", corpus(300) + &planted(&items, 40));
    let run = |threads: &str, block: &str| {
        let leaks = dir.path(&format!("leaks-{threads}-{block}.jsonl"));
        let out = curate(
            [
                "decontaminate",
                "--against",
                text(&against),
                "--action",
                "mask",
                "--max-removed",
                "1",
                "--max-malformed",
                "1",
                "--threads",
                threads,
                "--block-size",
                block,
                "--leaks",
                text(&leaks),
                text(&docs),
            ],
            "",
        )
        .ok();
        (out.stdout, fs::read(leaks).unwrap())
    };
    let once = run("1", "256K");
    assert!(!once.1.is_empty());
    assert!(once == run("4", "256K") && once == run("3", "2K"));
}

#[test]
fn items_in_parquet_and_named_fields() {
    let dir = Scratch::new();
    let rows = json!({"id": "r", "text": "irrelevant words", "meta": {"ask": DUCKS, "reply": "18"}})
        .to_string()
        + "\n";
    let parquet = dir.path("evals.parquet");
    curate(["read", "-o", text(&parquet)], &rows).ok();
    let input = line("a", DUCKS) + &line("b", "clean");
    let out = curate(
        ["decontaminate", "--against", text(&parquet), "--item-fields", "meta.ask,meta.reply"],
        &input,
    )
    .ok();
    assert_eq!(out.stdout(), line("b", "clean"));
}

#[test]
fn a_held_out_split_is_kept_out_of_training_text() {
    let dir = Scratch::new();
    let mut random = Random(11);
    let book: Vec<String> = (0..3000).map(|_| format!("w{}", random.below(100_000))).collect();
    let held_out = dir.file("held-out.jsonl", line("book", &book.join(" ")));
    let page = |from: usize, to: usize| format!("A page that quotes. {} And ends.", book[from..to].join(" "));
    let input = line("much", &page(500, 600))
        + &line("little", &page(500, 530))
        + &line("none", &prose(300, &mut random));
    let json = dir.path("report.json");
    let out = curate(["decontaminate", "--against", text(&held_out), "--report", text(&json)], &input).ok();
    assert_eq!(out.stdout(), input.lines().skip(1).map(|l| l.to_owned() + "\n").collect::<String>());
    let facts = &report(&json)["decontaminate"];
    assert_eq!((&facts["documents"], &facts["sets"][0]["items_found"]), (&json!(1), &json!(1)));
}

#[test]
fn a_stage_of_a_pipeline_is_the_command() {
    let dir = Scratch::new();
    let against = against(&dir);
    let input = line("a", &prose(200, &mut Random(3))) + &line("b", DUCKS);
    let docs = dir.file("docs.jsonl", &input);
    let out = dir.path("out.jsonl");
    let pipeline = format!(
        "input = {docs:?}\noutput = {out:?}\n[[stage]]\ncommand = \"decontaminate\"\nagainst = [{against:?}]\n\
         [[stage]]\ncommand = \"dedup\"\nexact = true\n"
    );
    let ran = curate(["run", text(&dir.file("p.toml", &pipeline))], "").ok();
    assert!(ran.stderr.contains("1 documents are contaminated"), "{}", ran.stderr);
    let piped = curate(["decontaminate", "--against", text(&against)], &input).ok();
    assert_eq!(fs::read_to_string(&out).unwrap(), piped.stdout());
    let resumable = pipeline.replace(
        "[[stage]]\ncommand = \"dec",
        &format!("run-dir = {:?}\n[[stage]]\ncommand = \"dec", dir.path("run")),
    );
    fs::remove_file(&out).unwrap();
    curate(["run", text(&dir.file("r.toml", resumable))], "").ok();
    assert_eq!(fs::read_to_string(&out).unwrap(), piped.stdout());
}

#[test]
fn faults_are_named() {
    let dir = Scratch::new();
    let check = |arguments: &[&str], part: &str| {
        let out = curate([&["decontaminate"], arguments].concat(), "").expect(2);
        assert!(out.stderr.contains(part), "{}", out.stderr);
    };
    let good = against(&dir);
    let empty = dir.file("empty.jsonl", "");
    let odd = dir.file("odd.jsonl", "\n{\"name\": 1}\n");
    let broken = dir.file("broken.jsonl", "{\"question\": \n");
    check(&[], "--against");
    check(&["--against", "no/such/file"], "no/such/file");
    check(&["--against", text(&empty)], "no item");
    check(&["--against", text(&odd)], "odd.jsonl:2");
    check(&["--against", text(&broken)], "broken.jsonl:1");
    check(&["--against", text(&good), "--memory", "1K"], "bytes of memory");
    check(&["--against", text(&good), "--threshold", "0"], "above 0");
}
