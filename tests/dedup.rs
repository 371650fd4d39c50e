//! `curate dedup`: what goes, what stays, and the proof.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{CURATE, Random, Scratch, curate, line, prose};

fn story(seed: u64, words: usize) -> String {
    let mut random = Random(seed);
    (0..words).map(|_| format!("w{}", random.below(5000))).collect::<Vec<_>>().join(" ")
}

fn ids(out: &str) -> Vec<String> {
    out.lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_first_copy_stays_and_each_removal_has_its_proof() {
    let dir = Scratch::new();
    let removed = dir.path("removed.jsonl");
    let a = story(1, 200);
    let near = a.replacen("w", "x", 1);
    let input = [
        line("a", &a),
        line("other", &story(2, 200)),
        line("same", &format!("  {} \n", a.replace(' ', "\n"))),
        line("near", &near),
        line("shouted", &a.to_uppercase()),
    ]
    .concat();
    let out =
        curate(["dedup".as_ref(), "--minhash".as_ref(), "--removed".as_ref(), removed.as_os_str()], &input)
            .ok();
    assert_eq!(ids(out.stdout()), ["a", "other"]);
    let proofs: Vec<Value> =
        fs::read_to_string(&removed).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let proof =
        |i: usize| (proofs[i]["id"].as_str(), proofs[i]["reason"].as_str(), proofs[i]["dup_of"].as_str());
    assert_eq!(proof(0), (Some("same"), Some("exact_duplicate"), Some("a")));
    assert_eq!(proof(1), (Some("near"), Some("near_duplicate"), Some("a")));
    assert_eq!(proof(2), (Some("shouted"), Some("near_duplicate"), Some("a")));
    // One word changed of 200: its one 5-gram (it is the first word) is lost on each side: 195 of 197 shared.
    let jaccard = proofs[1]["jaccard"].as_f64().unwrap();
    assert!((jaccard - 195.0 / 197.0).abs() < 1e-12, "{jaccard}");
}

#[test]
fn exact_alone_leaves_near_duplicates() {
    let a = story(1, 100);
    let input = line("a", &a) + &line("b", &a.replacen("w", "x", 1)) + &line("c", &a);
    assert_eq!(ids(curate(["dedup", "--exact"], &input).ok().stdout()), ["a", "b"]);
}

#[test]
fn nothing_is_removed_for_resembling_a_removed_document() {
    // b resembles a, c resembles b but not a: c stays.
    let words: Vec<String> = (0..100).map(|i| format!("w{i}")).collect();
    let change = |from: usize, to: usize| {
        let mut words = words.clone();
        words[from..to].iter_mut().for_each(|w| w.push('x'));
        words.join(" ")
    };
    let input = line("a", &words.join(" ")) + &line("b", &change(0, 10)) + &line("c", &change(0, 20));
    let out = curate(["dedup", "--minhash", "--threshold", "0.75"], &input).ok();
    assert_eq!(ids(out.stdout()), ["a", "c"]);
}

#[test]
fn short_and_unspaced_texts_are_not_lost() {
    let rows = [
        ("short-1", "hello there"),
        ("short-2", "good night"),
        ("short-3", "hello there"),
        ("zh-1", "今天早上我们在河边散步并且看到了很多美丽的花朵和小鸟"),
        ("zh-2", "今天早上我们在河边散步并且看到了很多美丽的花朵和小鸟"),
        ("zh-3", "昨天晚上他们在城市里吃饭然后回家睡觉没有看见任何人"),
        ("empty", ""),
    ];
    let input: String = rows.iter().map(|(id, text)| line(id, text)).collect();
    let out = curate(["dedup", "--minhash"], &input).ok();
    assert_eq!(ids(out.stdout()), ["short-1", "short-2", "zh-1", "zh-3", "empty"]);
}

#[test]
fn options_are_checked() {
    assert!(curate(["dedup"], "").expect(2).stderr.contains("--exact"));
    let out = curate(["dedup", "--minhash", "--threshold", "1.5"], "").expect(2);
    assert!(out.stderr.contains("1.5"), "{}", out.stderr);
    curate(["dedup", "--minhash", "--bands", "4"], "").expect(2);
}

/// Texts of which some are copies and some nearly.
fn repetitive(documents: usize, seed: u64) -> String {
    let mut random = Random(seed);
    let mut texts: Vec<String> = Vec::new();
    (0..documents)
        .map(|i| {
            let text = match i % 5 {
                3 => texts[random.below(texts.len())].clone(),
                4 => texts[random.below(texts.len())].replacen(' ', " or ", 2),
                _ => prose(60, &mut random),
            };
            texts.push(text.clone());
            line(&format!("{seed}-{i}"), &text)
        })
        .collect()
}

#[test]
fn memory_does_not_change_the_answer() {
    let dir = Scratch::new();
    let input = repetitive(3000, 1);
    let expected = curate(["dedup", "--minhash", "-q"], &input).ok();
    for args in [["--memory=16M", "--threads=2"], ["--memory=64M", "--block-size=8K"]] {
        let temporary = dir.path("deep/temporary");
        let out = curate(
            ["dedup", "--minhash", "-q", args[0], args[1], "--temp-dir", temporary.to_str().unwrap()],
            &input,
        );
        assert!(out.ok().stdout == expected.stdout, "{args:?}");
        assert!(
            !temporary.exists() || fs::read_dir(temporary).unwrap().next().is_none(),
            "temporary files go"
        );
    }
    let little = curate(["dedup", "--exact", "--memory", "1M"], "").expect(2);
    assert!(
        little.stderr.contains("1048576 bytes of memory: expected 16777216 or more"),
        "{}",
        little.stderr
    );
}

#[test]
fn an_index_remembers() {
    let dir = Scratch::new();
    let index = dir.path("seen");
    let index = index.to_str().unwrap();
    let (a, b) = (repetitive(300, 1), repetitive(200, 2));
    // The second dump repeats some of the first.
    let b: String = b
        .lines()
        .chain(a.lines().step_by(7))
        .map(|line| format!("{}\n", line.replacen("1-", "b1-", 1)))
        .collect();
    let whole = dir.path("whole.jsonl");
    let removed = |name: &str| fs::read_to_string(dir.path(name)).unwrap();
    let args = |removed: &Path| {
        ["dedup", "--minhash", "-q", "--removed"]
            .map(str::to_owned)
            .into_iter()
            .chain([removed.display().to_string()])
            .collect::<Vec<_>>()
    };
    let both = curate(args(&whole), format!("{a}{b}")).ok();
    let with = |removed: &str, input: &str| {
        let mut args = args(&dir.path(removed));
        args.extend(["--index".to_owned(), index.to_owned()]);
        curate(args, input).ok()
    };
    let first = with("a", &a);
    let second = with("b", &b);
    assert!([first.stdout.clone(), second.stdout.clone()].concat() == both.stdout);
    assert_eq!(removed("a") + &removed("b"), removed("whole.jsonl"));
    assert!(removed("b").contains("\"dup_of\":\"1-"), "the older document is named");
    let known = with("again", &b);
    assert_eq!(known.stdout(), "", "all of it is known now");
    let stat: Value =
        serde_json::from_str(curate(["dedup", "index", "stat", index], "").ok().stdout()).unwrap();
    assert_eq!(stat["documents"], both.stdout().lines().count());
    curate(["dedup", "index", "verify", index], "").ok();
    curate(["dedup", "index", "merge", index], "").ok();
    assert_eq!(with("merged", &b).stdout(), "");
    let other = curate(["dedup", "--minhash", "--threshold=0.7", "--index", index], "").expect(2);
    assert!(other.stderr.contains("was made with bands 32, not 42"), "{}", other.stderr);
    assert!(other.stderr.contains("hint: give the same options"), "{}", other.stderr);
    // A torn tail is cut off, a flipped bit is found.
    let ids = dir.path("seen/ids.bin");
    let sound = fs::read(&ids).unwrap();
    fs::write(&ids, [sound.clone(), b"torn".to_vec()].concat()).unwrap();
    assert_eq!(with("torn", &b).stdout(), "");
    assert!(fs::read(&ids).unwrap() == sound);
    let mut flipped = sound.clone();
    flipped[7] ^= 1;
    fs::write(&ids, flipped).unwrap();
    let fault = curate(["dedup", "index", "verify", index], "").expect(1);
    assert!(fault.stderr.contains("ids.bin is damaged: bytes 0 to"), "{}", fault.stderr);
    let elsewhere = dir.path("");
    let elsewhere = curate(["dedup", "--exact", "--index", elsewhere.to_str().unwrap()], "").expect(2);
    assert!(elsewhere.stderr.contains("is no index"), "{}", elsewhere.stderr);
}

#[test]
fn a_killed_run_leaves_the_index_as_it_was() {
    let dir = Scratch::new();
    let index = dir.path("seen");
    let (a, b) = (repetitive(500, 1), repetitive(6000, 2));
    let (a, b) = (dir.file("a.jsonl", a), dir.file("b.jsonl", b));
    let output = dir.path("out.jsonl");
    let args = |input: &Path| {
        let paths = [("--index", &*index), ("-o", &*output), ("--memory", Path::new("16M")), ("", input)];
        let paths = paths.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]);
        ["dedup", "--minhash", "-q"]
            .map(str::to_owned)
            .into_iter()
            .chain(paths.filter(|a| !a.is_empty()))
            .collect::<Vec<_>>()
    };
    curate(args(&a), "").ok();
    let copy = dir.path("copy");
    copy_dir(&index, &copy);
    let start = std::time::Instant::now();
    curate(args(&b), "").ok();
    let whole = start.elapsed();
    let expected = fs::read(&output).unwrap();
    let manifest = fs::read(index.join("MANIFEST")).unwrap();
    let mut random = Random(9);
    for round in 0..6 {
        fs::remove_dir_all(&index).unwrap();
        copy_dir(&copy, &index);
        let mut child = std::process::Command::new(CURATE).args(args(&b)).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
        child.kill().unwrap();
        child.wait().unwrap();
        let committed = fs::read(index.join("MANIFEST")).unwrap() == manifest;
        if committed {
            continue;
        }
        curate(args(&b), "").ok();
        assert!(fs::read(&output).unwrap() == expected, "round {round}");
        assert!(fs::read(index.join("MANIFEST")).unwrap() == manifest, "round {round}");
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn kinds_are_combined_cheap_first() {
    let dir = Scratch::new();
    let page = |id: &str, url: &str, text: &str| {
        format!("{}\n", serde_json::json!({"id": id, "text": text, "metadata": {"url": url}}))
    };
    let menu = "Home | News | Weather and sports";
    let (one, two, three) = (story(1, 60), story(2, 60), story(3, 60));
    let input = [
        page("a", "https://www.example.org/x", &format!("{menu}\n{one}\n")),
        page("same-url", "http://example.org/x/#top", &three),
        page("copy", "http://example.org/copy", &format!("{menu}\n{one}")),
        page("b", "http://example.org/b", &format!("{menu}\n{two}\nthe end")),
        page("near", "http://example.com/near", &format!("{menu}\n{}", two.replacen('w', "v", 1))),
        page("lines", "http://example.com/lines", &format!("{menu}\n{one}\n{two}\nnew")),
    ]
    .concat();
    let removed = dir.path("removed.jsonl");
    let args = ["dedup", "--key=url", "--lines", "--minhash", "--removed", removed.to_str().unwrap()];
    let out = curate(args, &input).ok();
    let texts: Vec<Value> = out.stdout().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(ids(out.stdout()), ["a", "b"]);
    assert_eq!(texts[1]["text"], format!("{two}\nthe end"), "the menu is cut");
    assert_eq!(texts[1]["metadata"]["url"], "http://example.org/b");
    let proofs: Vec<Value> =
        fs::read_to_string(&removed).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let brief: Vec<_> = proofs.iter().map(|p| (&p["id"], &p["reason"], &p["dup_of"])).collect();
    let expected = [
        ("same-url", "duplicate_key", "a"),
        ("copy", "exact_duplicate", "a"),
        ("near", "near_duplicate", "b"),
        ("lines", "repeated_lines", "a"),
    ]
    .map(|(id, reason, dup_of)| (Value::from(id), Value::from(reason), Value::from(dup_of)));
    assert_eq!(brief, expected.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>());
    assert!(
        out.stderr.contains("1 lines (27 characters) cut from 1 documents") || out.stderr.contains("lines ("),
        "{}",
        out.stderr
    );
    let per_host = curate(["dedup", "--lines", "--per-host", "-q"], &input).ok();
    assert!(per_host.stdout().contains("\"near\",\"text\":\"Home"), "{}", per_host.stdout());
    let bloom = curate(["dedup", "--bloom=1000"], &input).ok();
    assert_eq!(ids(bloom.stdout()).len(), 5);
    assert!(bloom.stderr.contains("probable_duplicate"), "{}", bloom.stderr);
    let other = curate(["dedup", "--bloom=1000", "--bloom-rate=2"], &input).expect(2);
    assert!(other.stderr.contains("a false positive rate of 2"), "{}", other.stderr);
}
