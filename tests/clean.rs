//! `curate clean`: normalising, rules, rejects.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Ran, Random, Scratch, corpus, curate, line, prose, report, root, shell, tree};

/// So many words that no rule has anything against: every other one is new.
fn garden(words: usize) -> String {
    let word = |i: usize| match i % 2 {
        0 => ["the", "and", "of", "with", "that", "have"][i / 2 % 6].to_owned(),
        _ => format!("river{i}"),
    };
    (0..words).map(word).collect::<Vec<_>>().join(" ") + "."
}

#[test]
fn good_documents_stay_untouched_and_poor_ones_go_with_a_reason() {
    let dir = Scratch::new();
    let rejects = dir.path("rejects.jsonl");
    let good = line("good", garden(100).trim_end());
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
    let text = garden(100).trim_end().replace(' ', "\u{a0}").replacen('\u{a0}', " \r\n", 1);
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
    let input = line("a", garden(20).trim_end());
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

/// Runs `curate clean ARGS FILE`, the arguments split at spaces.
fn clean(args: &str, files: &[&Path]) -> Ran {
    let args = ["clean"].into_iter().chain(args.split_whitespace());
    curate(args.map(AsRef::as_ref).chain(files.iter().map(|file| file.as_os_str())), "")
}

fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn statistics_are_written_beside_the_documents() {
    let dir = Scratch::new();
    let input = dir.file("in.jsonl", corpus(500));
    let plain = clean("--quiet", &[&input]).ok();
    for name in ["s.parquet", "s.jsonl", "s.jsonl.zst"] {
        let stats = dir.path(name);
        let out = curate(
            ["clean".as_ref(), "--stats".as_ref(), stats.as_os_str(), "--quiet".as_ref(), input.as_os_str()],
            "",
        )
        .ok();
        assert_eq!(out.stdout, plain.stdout, "the documents are those without --stats");
    }
    let table = dir.path("s.jsonl");
    let rows = json_lines(&fs::read_to_string(&table).unwrap());
    let (head, rows) = rows.split_first().unwrap();
    let facts = &head["number_table"]["facts"];
    assert_eq!((&facts["recipe"]["name"], &facts["words"]), (&"curate-v1".into(), &"whitespace".into()));
    assert!(facts["formulas"]["words"].is_string() && facts["normalise"] == true);
    assert_eq!(rows.len(), 500);
    let kept: Vec<&serde_json::Value> = rows.iter().filter(|row| row["verdict"] == "keep").collect();
    let ids: Vec<serde_json::Value> =
        json_lines(plain.stdout()).into_iter().map(|doc| doc["id"].clone()).collect();
    assert!(kept.iter().map(|row| &row["id"]).eq(&ids));
    let poor = rows.iter().find(|row| row["verdict"] == "drop").unwrap();
    assert_eq!((&poor["reason"], &poor["whitespace_words"]), (&"too_few_words".into(), &3.into()));
    assert!(
        curate_clean::statistics().iter().all(|s| poor[s.name].is_number()),
        "every statistic is a column"
    );
    // Any reader of Parquet finds the same rows.
    let again = curate(
        ["read".as_ref(), "--text-field".as_ref(), "verdict".as_ref(), dir.path("s.parquet").as_os_str()],
        "",
    );
    assert_eq!(again.ok().stdout().lines().count(), 500);
}

#[test]
fn statistics_do_not_depend_on_threads() {
    let dir = Scratch::new();
    let input = dir.file("in.jsonl", corpus(600));
    for name in ["s.parquet", "s.jsonl.zst"] {
        let run = |threads: &str| {
            let stats = dir.path(name);
            let args = format!("--threads {threads} --block-size 4K --quiet --stats {}", stats.display());
            let out = clean(&args, &[&input]).ok().stdout;
            (out, fs::read(&stats).unwrap())
        };
        assert!(run("1") == run("7"), "{name}");
    }
}

#[test]
fn judging_statistics_is_cleaning() {
    let dir = Scratch::new();
    let input = dir.file("in.jsonl", corpus(400));
    for (name, settings) in [
        ("s.parquet", ""),
        ("s.jsonl", "--set min_words=300"),
        ("s.parquet", "--set max_words=200 --set min_words=2"),
    ] {
        let stats = dir.path(name);
        clean(&format!("--quiet --stats {}", stats.display()), &[&input]).ok();
        let anew = clean(&format!("--quiet {settings}"), &[&input]).ok();
        let from = format!("--from-stats {} {settings}", stats.display());
        let judged = clean(&from, &[&input]).ok();
        assert_eq!(judged.stdout(), anew.stdout(), "the same documents, edited in the same way");
        let verdicts = clean(&from, &[]).ok();
        let lines = json_lines(verdicts.stdout());
        let ids = |lines: &[serde_json::Value]| lines.iter().map(|l| l["id"].clone()).collect::<Vec<_>>();
        let kept: Vec<serde_json::Value> = lines.iter().filter(|l| l["verdict"] == "keep").cloned().collect();
        assert_eq!(lines.len(), 400);
        assert_eq!(ids(&kept), ids(&json_lines(anew.stdout())));
        let dropped = lines.iter().find(|l| l["verdict"] == "drop").unwrap();
        assert!(dropped["rule"].is_string() && dropped["value"].is_number(), "with its proof: {dropped}");
        assert!(verdicts.stderr.contains("clean: 400 documents") && verdicts.stderr.contains(" dropped"));
    }
    // Documents that have gone since are passed over; a document that was not measured is an error.
    let from = format!("--from-stats {}", dir.path("s.parquet").display());
    let fewer = dir.file(
        "fewer.jsonl",
        corpus(400).lines().skip(3).take(200).map(|l| format!("{l}\n")).collect::<String>(),
    );
    assert!(
        clean(&format!("{from} --max-malformed 1"), &[&fewer])
            .ok()
            .stderr
            .contains("rows of statistics without a document")
    );
    let unknown = dir.file("unknown.jsonl", line("never-seen", &garden(100)));
    let error = clean(&from, &[&unknown]).expect(2).stderr;
    assert!(error.contains("never-seen") && error.contains("order in which they were measured"), "{error}");
}

#[test]
fn statistics_of_another_kind_are_refused() {
    let dir = Scratch::new();
    let input = dir.file("in.jsonl", corpus(20));
    let stats = dir.path("s.parquet");
    clean(&format!("--stats {}", stats.display()), &[&input]).ok();
    let check = |args: String, expected: &str| {
        let error = clean(&args, &[]).expect(2).stderr;
        assert!(error.contains(expected), "{args}: {error}");
    };
    let from = format!("--from-stats {}", stats.display());
    check(
        format!("{from} --recipe gopher"),
        "its texts were measured after normalising, the recipe takes them as they stand",
    );
    check(format!("{from} --recipe fineweb"), "recipe fineweb edits the text (`c4_");
    check(format!("{from} --set min_wrds=3"), "min_words");
    check(format!("--from-stats {}", input.display()), "no table of numbers");
    check(format!("{from} --stats other.parquet"), "cannot be used with");
    let older = dir.path("older.jsonl");
    clean(&format!("--stats {}", older.display()), &[&input]).ok();
    let text = fs::read_to_string(&older).unwrap();
    let formula = "code points of spaced words / spaced_words";
    assert!(text.contains(formula));
    fs::write(&older, text.replacen(formula, "something else", 1)).unwrap();
    check(format!("--from-stats {}", older.display()), "`mean_spaced_word_length` was something else");
    fs::write(&older, text.replace("mean_spaced_word_length", "renamed")).unwrap();
    check(
        format!("--from-stats {}", older.display()),
        "does not hold the statistic `mean_spaced_word_length`",
    );
}

#[test]
fn annotations_mirror_the_documents_as_dolma_has_them() {
    let dir = Scratch::new();
    dir.file(
        "dump/documents/a.jsonl",
        line("good", garden(100).trim_end()) + &line("poor", "three wörds only"),
    );
    dir.file("dump/documents/deep/b.jsonl", line("empty", " "));
    let (documents, dump) = (dir.path("dump/documents"), dir.path("dump"));
    let out = clean(&format!("--quiet --annotate {}/", dump.display()), &[&documents]).ok();
    let read = |name: &str| {
        let path = dump.join("attributes/curate-v1").join(name);
        json_lines(shell(&format!("gzip -dc {}", path.display()), "").ok().stdout())
    };
    let all = tree(&documents).into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<u8>>();
    assert_eq!(out.stdout, all, "every document passes as it stands");
    let (a, b) = (read("a.jsonl.gz"), read("deep/b.jsonl.gz"));
    assert_eq!((&a[0]["id"], &a[1]["id"], &b[0]["id"]), (&"good".into(), &"poor".into(), &"empty".into()));
    let poor = &a[1]["attributes"];
    assert_eq!(
        poor["curate__whitespace_words"],
        serde_json::json!([[0, 16, 3.0]]),
        "spans count code points"
    );
    assert_eq!(poor["curate__clean__too_few_words"], serde_json::json!([[0, 16, 1.0]]));
    assert!(a[0]["attributes"]["curate__clean__too_few_words"].is_null());
    assert!(b[0]["attributes"]["curate__clean__empty"].is_array());
    let file = dir.path("rows.jsonl");
    let json = dir.path("report.json");
    let args = format!("--quiet -o /dev/null --annotate {} --report {}", file.display(), json.display());
    clean(&args, &[&documents]).ok();
    assert_eq!(json_lines(&fs::read_to_string(&file).unwrap()), [a, b].concat());
    let report = report(&json);
    assert_eq!(
        (&report["read"], &report["kept"], &report["dropped"]),
        (&3.into(), &3.into(), &serde_json::json!({}))
    );
    assert_eq!(report["bytes_out"], all.len());
}

#[test]
fn a_document_is_explained_rule_by_rule() {
    let dir = Scratch::new();
    let text = "- # one…\n- # two…\n- three…\n";
    let input = dir.file("in.jsonl", line("first", &garden(100)) + &line("odd", text));
    let json = json_lines(clean("--recipe gopher-quality --explain-id odd --json", &[&input]).ok().stdout());
    assert_eq!(json.len(), 1);
    let odd = &json[0];
    assert_eq!(
        (&odd["id"], &odd["verdict"], &odd["reason"]),
        (&"odd".into(), &"drop".into(), &"too_few_words".into())
    );
    let rules = odd["rules"].as_array().unwrap();
    let rule = |reason: &str| rules.iter().find(|rule| rule["reason"] == reason).unwrap();
    assert_eq!(
        (&rule("too_few_words")["value"], &rule("too_few_words")["threshold"]),
        (&3.0.into(), &50.0.into())
    );
    assert_eq!(rule("too_many_words")["fired"], false);
    let hashes = &rule("too_many_hashes")["statistics"][0];
    assert_eq!((&hashes["name"], &hashes["places"]), (&"hash_ratio".into(), &2.into()));
    assert_eq!(
        hashes["spans"][1],
        serde_json::json!({ "start": 11, "end": 12, "text": "#" }),
        "in code points"
    );
    let table = clean("--recipe gopher-quality --explain", &[&input]).ok();
    assert!(
        table.stdout().contains("odd: dropped as too_few_words by recipe gopher-quality"),
        "{}",
        table.stdout()
    );
    assert!(
        table.stdout().contains("would drop") && table.stdout().contains("- # one…"),
        "{}",
        table.stdout()
    );
    assert!(table.stdout().contains("first: kept by recipe gopher-quality"));
    let missing = clean("--explain-id nobody", &[&input]).expect(2);
    assert!(missing.stderr.contains("no document has the id \"nobody\""), "{}", missing.stderr);
    let blank = dir.file("blank.jsonl", line("blank", " \n"));
    assert!(clean("--explain", &[&blank]).ok().stdout().contains("blank: dropped as empty"));
}

#[test]
fn recipes_are_compared() {
    let dir = Scratch::new();
    let strict = dir.file(
        "strict.toml",
        "name = \"strict\"\ndescription = \"d.\"\nsource = \"ours\"\nwords = \"whitespace\"\nnormalise = true\n\
         [thresholds]\nmost_words = 200\n[[rule]]\nreason = \"long\"\ndrop_if = \"words > most_words\"\n",
    );
    let input = dir.file("in.jsonl", corpus(300));
    let recipes = format!("curate-v1,{},gopher-quality", strict.display());
    let run = |threads: &str| {
        let args = format!("diff --json --quiet --samples 2 --threads {threads} --recipes {recipes}");
        clean(&args, &[&input]).ok().stdout().to_owned()
    };
    let text = run("1");
    assert_eq!(text, run("5"));
    let facts: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(facts["documents"], 300);
    let cells = facts["cells"].as_array().unwrap();
    let total: u64 = cells.iter().map(|cell| cell["documents"].as_u64().unwrap()).sum();
    assert_eq!(total, 300);
    for (i, recipe) in
        ["--recipe curate-v1".to_owned(), format!("--recipe {}", strict.display())].iter().enumerate()
    {
        let kept = clean(&format!("--quiet {recipe}"), &[&input]).ok().stdout().lines().count();
        assert_eq!(facts["recipes"][i]["kept"], kept, "{recipe}");
    }
    let only_strict =
        cells.iter().find(|cell| cell["kept_by"] == serde_json::json!([strict.to_str().unwrap()])).unwrap();
    assert_eq!(
        only_strict["reasons"][0]["reasons"],
        serde_json::json!(["too_few_words", null, "too_few_words"])
    );
    assert_eq!(only_strict["samples"].as_array().unwrap().len(), 2);
    assert_eq!(only_strict["samples"][0]["text"], "short and poor");
    let edits = clean("diff --json --quiet --recipes gopher,fineweb,dolma-v1.5", &[&input]).ok();
    let edits: serde_json::Value = serde_json::from_str(edits.stdout()).unwrap();
    let kept = clean("--quiet --recipe fineweb", &[&input]).ok().stdout().lines().count();
    assert_eq!(edits["recipes"][1]["kept"], kept, "a recipe that edits the text");
    let table = clean(&format!("diff --set most_words=100 --recipes {recipes}"), &[&input]).ok();
    assert!(table.stdout().contains("verdicts that differ") && table.stdout().contains("kept by all"));
    assert!(clean("diff --recipes gopher", &[&input]).expect(2).stderr.contains("2 to 16 recipes"));
    let unknown = clean("diff --recipes gopher,curate-v1 --set min_wrds=3", &[&input]).expect(2);
    assert!(unknown.stderr.contains("min_words"), "{}", unknown.stderr);
}

#[test]
fn rules_that_never_fired_are_named() {
    let dir = Scratch::new();
    let (few, many) = (dir.file("few.jsonl", corpus(900)), dir.file("many.jsonl", corpus(1100)));
    let json = dir.path("report.json");
    let warned = clean(&format!("-o /dev/null --report {}", json.display()), &[&many]).ok();
    assert!(warned.stderr.contains("warning: rules that never fired: too_many_words"), "{}", warned.stderr);
    assert!(!warned.stderr.contains("empty,"), "a text without a word is dropped by no rule");
    let report = report(&json);
    let silent = report["never_fired"].as_array().unwrap();
    assert!(silent.contains(&"too_many_hashes".into()) && !silent.contains(&"too_few_words".into()));
    assert!(!clean("-o /dev/null", &[&few]).ok().stderr.contains("never fired"));
}

#[test]
fn recipes_and_statistics_are_listed() {
    let recipes = curate(["clean", "--list-recipes"], "").ok();
    assert!(recipes.stdout().contains("gopher-quality\n    "), "{}", recipes.stdout());
    let recipes = json_lines(curate(["clean", "--list-recipes", "--json"], "").ok().stdout());
    assert_eq!(recipes.len(), curate_clean::Recipe::builtin_names().len());
    let statistics = json_lines(curate(["clean", "--list-statistics", "--json"], "").ok().stdout());
    assert_eq!(statistics.len(), curate_clean::statistics().len());
    assert!(statistics[0]["formula"].is_string());
}

/// Set `CURATE_UPDATE_SNAPSHOTS=1` to write the page anew.
#[test]
fn the_page_of_statistics_is_that_of_the_code() {
    let mut page = "# Statistics\n\nThe numbers of a text that the rules of `curate clean` are written about: \
        `curate clean --list-statistics` prints them, `--stats FILE` writes them for every document. A ratio of nothing \
        to nothing is 0. This page is made from the code.\n\n| name | unit | formula | source |\n|---|---|---|---|\n"
        .to_owned();
    for statistic in curate_clean::statistics() {
        let cell = |text: &str| text.replace('|', "\\|").replace('*', "\\*");
        page += &format!(
            "| `{}` | {} | {} | {} |\n",
            statistic.name,
            cell(statistic.unit),
            cell(statistic.formula),
            cell(statistic.source)
        );
    }
    let path = root().join("docs/statistics.md");
    if std::env::var_os("CURATE_UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/statistics.md is out of date: run with CURATE_UPDATE_SNAPSHOTS=1");
}

/// A document of a page.
fn page_line(id: &str, url: &str, text: &str) -> String {
    format!("{}\n", serde_json::json!({ "id": id, "text": text, "metadata": { "url": url } }))
}

fn reasons(dir: &Scratch, args: &[&str], input: &str) -> Vec<(String, String)> {
    let rejects = dir.path("rejects.jsonl");
    let mut all = vec!["clean", "--recipe=none", "-q", "--rejects", rejects.to_str().unwrap()];
    all.extend(args);
    curate(all, input).ok();
    fs::read_to_string(rejects)
        .unwrap()
        .lines()
        .map(|line| {
            let json: Value = serde_json::from_str(line).unwrap();
            (
                json["id"].as_str().unwrap().to_owned(),
                json["rejected"]["reason"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect()
}

const ENGLISH: &str =
    "The old lighthouse stands at the end of the pier, and nobody has lived there since the storm.";
const GERMAN: &str =
    "Der alte Leuchtturm steht am Ende der Mole, und seit dem Sturm hat dort niemand mehr gewohnt.";

#[test]
fn languages_are_told_kept_and_written_down() {
    let dir = Scratch::new();
    let input = [line("en", ENGLISH), line("de", GERMAN), line("digits", "1234 5678")].concat();
    let dropped = reasons(&dir, &["--lang=en"], &input);
    let other = |id: &str| (id.to_owned(), "language".to_owned());
    assert_eq!(dropped, [other("de"), other("digits")]);
    let out = curate(["clean", "--recipe=none", "-q", "--lang-field=metadata.lang"], &input).ok();
    let found: Vec<Value> = out.stdout().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let languages: Vec<&str> = found.iter().map(|j| j["metadata"]["lang"].as_str().unwrap()).collect();
    assert_eq!(languages, ["en-Latn", "de-Latn", "und"]);
    assert!(found[0]["metadata"]["lang_score"].as_f64().unwrap() > 0.9);
    assert_eq!(found[0]["text"], ENGLISH);
    let unknown = curate(["clean", "--lang=englisch"], "").expect(2);
    assert!(unknown.stderr.contains("there is no language `englisch`"), "{}", unknown.stderr);
    let useless = curate(["clean", "--lang-model=x.bin"], "").expect(2);
    assert!(useless.stderr.contains("--lang-model is of no use alone"), "{}", useless.stderr);
}

#[test]
fn addresses_words_and_personal_data_are_judged() {
    let dir = Scratch::new();
    let list = |name: &str, text: &str| dir.file(name, text).display().to_string();
    let input = [
        page_line("a", "https://sub.bad.example/x", ENGLISH),
        page_line("b", "https://good.example/casino/win", ENGLISH),
        page_line("c", "https://good.example/", &format!("{ENGLISH} Dreadful stuff.")),
        page_line(
            "d",
            "https://good.example/d",
            &format!("{ENGLISH} Write to jo.doe@lighthouse-keepers.org, at 93.184.216.34."),
        ),
        line("e", "No address at all, and nothing else that is of interest."),
    ]
    .concat();
    let domains = format!("--block-domains={}", list("domains", "bad.example\n"));
    let words = format!("--block-url-words={}", list("words", "casino\n"));
    let phrases = format!("--bad-words={}", list("phrases", "dreadful\n"));
    let dropped = reasons(&dir, &[&domains, &words, &phrases, "--pii=email=drop"], &input);
    let expected = [("a", "url_domain"), ("b", "url_hard_word"), ("c", "bad_words"), ("d", "pii_email")];
    assert_eq!(dropped, expected.map(|(id, reason)| (id.to_owned(), reason.to_owned())));
    let tokens = curate(["clean", "--recipe=none", "--pii=token"], &input).ok();
    assert!(tokens.stdout().contains("Write to <EMAIL>, at <IPV4>."), "{}", tokens.stdout());
    let masked = curate(["clean", "--recipe=none", "-q", "--pii=mask,ipv4=off", "--threads=2"], &input).ok();
    assert!(
        masked.stdout().contains("at 93.184.216.34.") && !masked.stdout().contains("jo.doe"),
        "{}",
        masked.stdout()
    );
    let again = curate(["clean", "--recipe=none", "-q", "--pii=mask,ipv4=off", "--threads=1"], &input).ok();
    assert_eq!(masked.stdout(), again.stdout());
    let unknown = curate(["clean", "--pii=emial=drop"], "").expect(2);
    assert!(unknown.stderr.contains("`emial` is no kind of personal data"), "{}", unknown.stderr);
}

#[test]
fn lines_that_a_site_shares_are_learned_and_cut() {
    let dir = Scratch::new();
    let mut random = Random(4);
    let pages: String = (0..40)
        .map(|i| {
            let host = if i % 2 == 0 { "one.example" } else { "two.example" };
            let text = format!("Menu of {host}\n{}\nAll rights reserved by {host}", prose(30, &mut random));
            page_line(&i.to_string(), &format!("https://{host}/{i}"), &text)
        })
        .collect();
    let lines = dir.path("site.lines");
    let lines = lines.to_str().unwrap();
    let learned = curate(["clean", "site-lines", "-o", lines], &pages).ok();
    assert!(learned.stderr.contains("4 shared lines of 40 pages"), "{}", learned.stderr);
    let site_lines = format!("--site-lines={lines}");
    let out = curate(["clean", "--recipe=none", "-q", &site_lines], &pages).ok();
    assert_eq!(out.stdout().lines().count(), 40);
    assert!(!out.stdout().contains("Menu of") && !out.stdout().contains("rights reserved"));
    let damaged = dir.file("damaged", "not lines");
    let fault = curate(["clean", &format!("--site-lines={}", damaged.display())], "").expect(2);
    assert!(fault.stderr.contains("this is no file of site lines"), "{}", fault.stderr);
}
