//! `curate dedup --keep` and `--cluster components`: what must see everything before it can say what stays.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Random, Scratch, curate, prose, report, root, shell};

/// Copies and near copies in a shuffled order, with a quality for most.
fn rated(documents: usize) -> String {
    let mut random = Random(7);
    let mut texts: Vec<String> = Vec::new();
    let mut lines = String::new();
    for i in 0..documents {
        let text = match i % 4 {
            2 => texts[random.below(texts.len())].clone(),
            3 => format!("{} {}", texts[random.below(texts.len())], prose(random.below(6), &mut random)),
            _ => prose(60, &mut random),
        };
        let quality = match random.below(6) {
            0 => Value::Null,
            1 => json!("none"),
            _ => json!(random.below(50) as f64 / 10.0 - 2.0),
        };
        let url = format!("http://example.org/{}", random.below(documents / 2));
        // No ids: a document is then called by its input and line, in both passes.
        lines += &json!({ "text": text, "url": url, "metadata": { "quality": quality } }).to_string();
        lines.push('\n');
        texts.push(text);
    }
    lines
}

fn parsed(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_best_copy_stays_where_it_stands() {
    let dir = Scratch::new();
    let words: Vec<String> = (0..100).map(|i| format!("w{i}")).collect();
    let row = |id: &str, changed: usize, extra: usize, score: Value| {
        let mut words = words.clone();
        words[..changed].iter_mut().for_each(|w| w.push('x'));
        words.extend((0..extra).map(|i| format!("end{i}")));
        json!({ "id": id, "text": words.join(" "), "score": score }).to_string() + "\n"
    };
    let input = [
        row("a", 0, 0, json!(1)),
        row("b", 3, 0, json!("7.5")),
        row("c", 0, 5, json!(null)),
        row("copy", 0, 0, json!(2)),
        "{\"id\":\"other\",\"text\":\"something else\",\"score\":0}\n".to_owned(),
    ]
    .concat();
    let path = dir.file("in.jsonl", &input);
    let removed = dir.path("removed.jsonl");
    let check = |keep: &str, expected: [&str; 2], proofs: &[(&str, &str, &str)]| {
        let args = ["dedup", "--minhash", "--threshold=0.8", "--keep", keep, "--removed"];
        let args = args.map(str::to_owned).into_iter().chain([removed.display().to_string()]);
        let from_stdin = curate(args.clone(), &input).ok();
        let from_file = curate(args.chain([path.display().to_string()]), "").ok();
        assert!(from_stdin.stdout == from_file.stdout);
        // As they came, in their order.
        let kept: String = input
            .lines()
            .filter(|line| expected.iter().any(|id| line.contains(&format!("\"id\":\"{id}\""))))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(from_file.stdout(), kept, "{keep}");
        let found = parsed(&fs::read_to_string(&removed).unwrap());
        let found: Vec<_> = found
            .iter()
            .map(|p| ["id", "reason", "dup_of"].map(|name| p[name].as_str().unwrap().to_owned()))
            .collect();
        let proofs: Vec<_> =
            proofs.iter().map(|(a, b, c)| [a, b, c].map(|part| (*part).to_owned())).collect();
        assert_eq!(found, proofs, "{keep}");
        from_file.stderr
    };
    let near = "near_duplicate";
    check("first", ["a", "other"], &[("b", near, "a"), ("c", near, "a"), ("copy", "exact_duplicate", "a")]);
    check("longest", ["c", "other"], &[("a", near, "c"), ("b", near, "c"), ("copy", near, "c")]);
    let said = check("max:score", ["b", "other"], &[("a", near, "b"), ("c", near, "b"), ("copy", near, "b")]);
    assert!(said.contains("1 documents without a number in the field of --keep came last"), "{said}");
    check(
        "min:score",
        ["a", "other"],
        &[("b", near, "a"), ("c", near, "a"), ("copy", "exact_duplicate", "a")],
    );
}

#[test]
fn threads_memory_and_the_way_in_do_not_matter() {
    let dir = Scratch::new();
    let input = rated(1500);
    let path = dir.file("in.jsonl", &input);
    let kinds: [&[&str]; 5] = [
        &["--minhash", "--keep=longest"],
        &["--minhash", "--keep=max:metadata.quality", "--threshold=0.7"],
        &["--exact", "--keep=min:metadata.quality"],
        &["--key=url", "--lines", "--minhash", "--keep=max:metadata.quality"],
        &["--exact", "--minhash", "--cluster=components"],
    ];
    for kind in kinds {
        let run = |more: &[&str], stdin: &str| {
            let (removed, temporary) = (dir.path("removed.jsonl"), dir.path("deep/temporary"));
            let places = ["--removed", removed.to_str().unwrap(), "--temp-dir", temporary.to_str().unwrap()];
            let out =
                curate(["dedup", "-q"].iter().chain(kind).chain(&places).chain(more), stdin).ok().stdout;
            let left = fs::read_dir(&temporary).map_or(0, Iterator::count);
            assert_eq!(left, 0, "temporary files go");
            (out, fs::read_to_string(removed).unwrap())
        };
        let (out, proofs) = run(&["--threads=1"], &input);
        assert!(proofs.lines().count() > 300, "{kind:?}");
        assert!(proofs.contains("\"dup_of\":\"stdin:"), "{kind:?}");
        for more in [&["--threads=4", "--block-size=3K", "--memory=80M"][..], &["--threads=2", "--memory=1G"]]
        {
            assert!(run(more, &input) == (out.clone(), proofs.clone()), "{kind:?} {more:?}");
        }
        let (from_file, named) = run(&["--threads=2", path.to_str().unwrap()], "");
        assert!(from_file == out, "{kind:?}");
        assert_eq!(named.replace(path.to_str().unwrap(), "stdin"), proofs);
        // A pipe that has a name, and one file after it.
        let args = kind.join(" ");
        let path = path.display();
        let line = format!("curate dedup -q {args} <(head -n 700 {path}) <(tail -n +701 {path})");
        assert_eq!(shell(&line, "").ok().stdout().lines().count(), out.split(|b| *b == b'\n').count() - 1);
    }
}

#[test]
fn components_keep_what_datatrove_keeps() {
    let dir = Scratch::new();
    let goldens =
        parsed(&fs::read_to_string(root().join("crates/curate-dedup/goldens/datatrove.jsonl")).unwrap());
    let rows = goldens.iter().enumerate();
    let input: String =
        rows.map(|(i, g)| json!({ "id": i.to_string(), "text": g["text"] }).to_string() + "\n").collect();
    let removed = dir.path("removed.jsonl");
    let json = dir.path("report.json");
    let run = |more: &[&str]| {
        let args = [
            "dedup",
            "--minhash",
            "--profile=datatrove",
            "--bands=14",
            "--rows=8",
            "--cluster=components",
            "--removed",
            removed.to_str().unwrap(),
            "--report",
            json.to_str().unwrap(),
        ];
        let out = curate(args.iter().chain(more), &input).ok();
        let kept: Vec<u64> =
            parsed(out.stdout()).iter().map(|row| row["id"].as_str().unwrap().parse().unwrap()).collect();
        (kept, parsed(&fs::read_to_string(&removed).unwrap()), report(&json))
    };
    let stands = |i: usize| goldens[i]["representative"].as_u64().unwrap();
    let expected: Vec<u64> =
        (0..goldens.len()).filter(|&i| stands(i) == i as u64).map(|i| i as u64).collect();
    for verify in [false, true] {
        let (kept, proofs, summary) = run(if verify { &[] } else { &["--verify=none"] });
        assert_eq!(kept, expected);
        for proof in &proofs {
            let own: usize = proof["id"].as_str().unwrap().parse().unwrap();
            assert_eq!(proof["dup_of"], stands(own).to_string());
            assert_eq!(proof["reason"], "near_duplicate");
            assert_eq!(proof["rule"], "components");
            assert_eq!(proof["jaccard"].is_number(), verify);
            assert_eq!(proof["verify"], if verify { Value::Null } else { json!("none") });
        }
        let minhash = &summary["dedup"]["minhash"];
        assert_eq!(minhash["jaccard_histogram"].as_array().unwrap().is_empty(), !verify);
        assert_eq!(minhash["candidates"], proofs.len());
        assert_eq!(summary["dropped"]["near_duplicate"], proofs.len());
    }
    let (first, _, _) = run(&["--keep=first"]);
    assert_eq!(first.len(), expected.len());
    assert_ne!(first, expected, "datatrove does not keep the first");
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let dir = Scratch::new();
    let check = |args: &[&str], parts: [&str; 2]| {
        let out = curate(["dedup"].iter().chain(args), "").expect(2);
        for part in parts {
            assert!(out.stderr.contains(part), "{args:?}: {}", out.stderr);
        }
    };
    let index = dir.path("seen");
    let index = format!("--index={}", index.display());
    let all_first =
        ["an index cannot be used where all documents must be seen first", "hint: an index keeps the first"];
    check(&["--minhash", "--keep=longest", &index], all_first);
    check(&["--minhash", "--cluster=components", &index], all_first);
    check(&["--bloom=10", "--keep=longest"], ["a Bloom filter keeps the first copy", "--exact"]);
    check(&["--minhash", "--keep=best"], ["expected first, longest, max:FIELD or min:FIELD", "best"]);
    check(&["--minhash", "--keep=max:a..b"], ["is not a field path", "a..b"]);
    check(&["--exact", "--cluster=components"], ["--minhash", ""]);
    curate(["dedup", "--exact", "--keep=first", &index], "").ok();
    assert_eq!(curate(["dedup", "--minhash", "--keep=longest"], "").ok().stdout(), "");
}

#[test]
fn inputs_that_change_between_the_passes_end_the_run() {
    // A file that grows as long as it is read.
    let dir = Scratch::new();
    let path = dir.file("in.jsonl", rated(20_000));
    let line = format!(
        "(while :; do echo '{{\"text\":\"more\"}}' >> {0}; done) & \
         curate dedup --exact --keep=longest -q {0} -o {1}; code=$?; kill $!; exit $code",
        path.display(),
        dir.path("out.jsonl").display()
    );
    let out = shell(&line, "").expect(2);
    assert!(out.stderr.contains("the inputs have changed between the two passes"), "{}", out.stderr);
    assert!(!dir.path("out.jsonl").exists());
}

#[test]
fn malformed_records_count_once_and_pass_in_place() {
    let dir = Scratch::new();
    let input = "{\"id\":\"a\",\"text\":\"one\"}\nnonsense\n{\"id\":\"b\",\"text\":\"one\"}\n";
    let json = dir.path("report.json");
    let args =
        ["dedup", "--exact", "--keep=longest", "--max-malformed=1", "--report", json.to_str().unwrap()];
    let skipped = curate(args, input).ok();
    assert_eq!(skipped.stdout(), "{\"id\":\"a\",\"text\":\"one\"}\n");
    let summary = report(&json);
    assert_eq!([&summary["read"], &summary["kept"], &summary["malformed"]], [3, 1, 1]);
    let passed = curate(args.iter().chain(&["--on-error=pass"]), input).ok();
    assert_eq!(passed.stdout(), "{\"id\":\"a\",\"text\":\"one\"}\nnonsense\n");
    curate(args.iter().chain(&["--on-error=fail"]), input).expect(1);
}

#[test]
fn a_pipeline_keeps_the_best_too() {
    let dir = Scratch::new();
    let input = dir.file("in.jsonl", rated(800));
    let pipeline = |out: &Path, top: &str| {
        format!(
            "input = {input:?}\noutput = {out:?}\n{top}\n[[stage]]\ncommand = \"read\"\n\
             [[stage]]\ncommand = \"clean\"\nrecipe = \"none\"\n\
             [[stage]]\ncommand = \"dedup\"\nkey = \"url\"\nkeep = \"min:metadata.quality\"\n\
             [[stage]]\ncommand = \"dedup\"\nminhash = true\nkeep = \"longest\"\n"
        )
    };
    let (piped, fused, resumable) =
        (dir.path("piped.jsonl"), dir.path("fused.jsonl"), dir.path("resumable.jsonl"));
    let line = format!(
        "curate read -q {} | curate clean -q --recipe none | curate dedup -q --key url --keep min:metadata.quality | \
         curate dedup -q --minhash --keep longest -o {}",
        input.display(),
        piped.display()
    );
    shell(&line, "").ok();
    let expected = fs::read_to_string(&piped).unwrap();
    assert!((100..500).contains(&expected.lines().count()), "{}", expected.lines().count());
    let top = format!("run-dir = {:?}\nunit-size = \"2K\"", dir.path("state"));
    for (out, top) in [(&fused, ""), (&resumable, top.as_str())] {
        let file = dir.file("p.toml", pipeline(out, top));
        curate(["run".as_ref(), file.as_os_str()], "").ok();
        assert!(fs::read_to_string(out).unwrap() == expected, "{out:?}");
    }
}
