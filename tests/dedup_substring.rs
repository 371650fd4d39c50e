//! `curate dedup --substring` and `--substring-bytes`: passages that an earlier text has word for word.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;

use serde_json::{Value, json};

use crate::support::{Random, Scratch, curate, prose, report, shell};

fn parsed(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texts(output: &str) -> Vec<String> {
    parsed(output).iter().map(|row| row["text"].as_str().unwrap().to_owned()).collect()
}

/// Prose in which passages of earlier texts stand, of 3 to 40 words.
fn borrowing(documents: usize) -> Vec<String> {
    let mut random = Random(11);
    let mut made: Vec<String> = Vec::new();
    for i in 0..documents {
        let mut words: Vec<String> = prose(40, &mut random).split(' ').map(str::to_owned).collect();
        if i > 0 && i % 3 > 0 {
            let from: Vec<&str> = made[random.below(i)].split(' ').collect();
            let start = random.below(from.len());
            let end = from.len().min(start + 3 + random.below(38));
            let at = random.below(words.len());
            words.splice(at..at, from[start..end].iter().map(|word| (*word).to_owned()));
        }
        made.push(words.join(" "));
    }
    made
}

fn records(texts: &[String]) -> String {
    let record = |(i, text): (usize, &String)| json!({ "n": i, "text": text }).to_string() + "\n";
    texts.iter().enumerate().map(record).collect()
}

/// Pieces of the text that `length` units in a row cover whose like ends, earlier in the input, before they begin: tried for every
/// window. `units` are places in the text.
fn repeated(
    texts: &[String],
    units: impl Fn(&str) -> Vec<Range<usize>>,
    length: usize,
) -> Vec<Vec<Range<usize>>> {
    let mut seen: HashMap<Vec<String>, (usize, usize)> = HashMap::new();
    let covered = |(document, text): (usize, &String)| {
        let units = units(text);
        let mut found: Vec<Range<usize>> = Vec::new();
        for (at, window) in units.windows(length).enumerate() {
            let words = window.iter().map(|unit| text[unit.clone()].to_owned()).collect();
            let &mut (first, place) = seen.entry(words).or_insert((document, at));
            if first < document || place + length <= at {
                let span = window[0].start..window[length - 1].end;
                match found.last_mut().filter(|last| span.start < last.end) {
                    Some(last) => last.end = span.end,
                    None => found.push(span),
                }
            }
        }
        found
    };
    texts.iter().enumerate().map(covered).collect()
}

fn without(text: &str, spans: &[Range<usize>]) -> String {
    let mut rest = String::new();
    let mut at = 0;
    for span in spans {
        rest += &text[at..span.start];
        at = span.end;
    }
    rest + &text[at..]
}

fn words_of(text: &str) -> Vec<Range<usize>> {
    let start = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split_whitespace().map(|word| start(word)..start(word) + word.len()).collect()
}

fn bytes_of(text: &str) -> Vec<Range<usize>> {
    (0..text.len()).map(|i| i..i + 1).collect()
}

#[test]
fn what_stays_is_what_trying_every_window_leaves() {
    let texts_in = borrowing(300);
    let input = records(&texts_in);
    let check = |flag: &str, spans: Vec<Vec<Range<usize>>>| {
        let expected: Vec<String> = texts_in
            .iter()
            .zip(&spans)
            .map(|(text, spans)| without(text, spans))
            .filter(|text| !text.trim().is_empty())
            .collect();
        assert!(spans.iter().filter(|spans| !spans.is_empty()).count() > 100, "{flag}");
        let out = curate(["dedup", flag, "--profile=raw"], &input).ok();
        let found = texts(out.stdout());
        let first = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert!(first.is_none(), "{flag}: {first:#?}");
        assert_eq!(found.len(), expected.len(), "{flag}");
    };
    check("--substring=5", repeated(&texts_in, words_of, 5));
    check("--substring=12", repeated(&texts_in, words_of, 12));
    check("--substring-bytes=60", repeated(&texts_in, bytes_of, 60));
}

#[test]
fn every_span_can_be_looked_up_in_the_document_that_it_names() {
    let dir = Scratch::new();
    let texts_in = borrowing(200);
    let path = dir.file("in.jsonl", records(&texts_in));
    let (spans, out, told) = (dir.path("spans.jsonl"), dir.path("out.jsonl"), dir.path("report.json"));
    let run = curate(
        [
            "dedup",
            "--substring=6",
            "--substring-action=mark:metadata.repeats",
            "--substring-spans",
            spans.to_str().unwrap(),
            "-o",
            out.to_str().unwrap(),
            "--report",
            told.to_str().unwrap(),
            path.to_str().unwrap(),
        ],
        "",
    )
    .ok();
    assert!(run.stderr.contains("repeated substrings"), "{}", run.stderr);
    let proofs = parsed(&fs::read_to_string(spans).unwrap());
    assert!(proofs.len() > 60, "{}", proofs.len());
    // A document without an id is called by its input and line.
    let text_of = |id: &Value| {
        let (file, line) = id.as_str().unwrap().rsplit_once(':').unwrap();
        assert_eq!(file, path.to_str().unwrap());
        &texts_in[line.parse::<usize>().unwrap() - 1]
    };
    let place = |proof: &Value, name: &str| proof[name].as_u64().unwrap() as usize;
    for proof in &proofs {
        let (start, end, offset) = (place(proof, "start"), place(proof, "end"), place(proof, "offset"));
        let said = proof["text"].as_str().unwrap();
        assert_eq!(proof["reason"], "repeated_substring");
        assert_eq!(&text_of(&proof["id"])[start..end], said);
        // Words are equal; how they are written may differ.
        let copy = &text_of(&proof["dup_of"])[offset..offset + said.len()];
        assert_eq!(copy.to_lowercase(), said.to_lowercase());
    }
    let marked = parsed(&fs::read_to_string(out).unwrap());
    assert_eq!(marked.len(), texts_in.len());
    let marks = |row: &Value| row["metadata"]["repeats"].as_array().map_or(0, Vec::len);
    assert_eq!(marked.iter().map(marks).sum::<usize>(), proofs.len());
    for (row, text) in marked.iter().zip(&texts_in) {
        assert_eq!(row["text"], **text, "a marked text stays as it is");
    }
    let summary = &report(&told)["dedup_substring"];
    assert_eq!(summary["edited"], marked.iter().filter(|row| marks(row) > 0).count());
    assert_eq!(summary["marked"], true);
}

#[test]
fn threads_memory_and_the_way_in_do_not_matter() {
    let dir = Scratch::new();
    let mut input = records(&borrowing(3000));
    input.insert_str(input.find('\n').unwrap() + 1, "{\"text\": 3}\nno record\n");
    let path = dir.file("in.jsonl", &input);
    let kinds: [&[&str]; 3] = [
        &["--substring=8"],
        &["--substring-bytes=50", "--substring-keep=none", "--substring-min-chars=30"],
        &["--exact", "--lines", "--minhash", "--keep=longest", "--substring=10"],
    ];
    for kind in kinds {
        let run = |more: &[&str], stdin: &str| {
            let names = ["removed", "spans", "temporary"].map(|name| dir.path(name));
            let places = ["--removed", "--substring-spans", "--temp-dir"]
                .into_iter()
                .zip(&names)
                .flat_map(|(flag, path)| [flag, path.to_str().unwrap()]);
            let fixed = ["dedup", "-q", "--max-malformed=0.1", "--on-error=pass"];
            let out = curate(
                fixed.into_iter().chain(kind.iter().copied()).chain(places).chain(more.iter().copied()),
                stdin,
            )
            .ok()
            .stdout;
            assert_eq!(fs::read_dir(&names[2]).map_or(0, Iterator::count), 0, "temporary files go");
            (out, fs::read_to_string(&names[0]).unwrap(), fs::read_to_string(&names[1]).unwrap())
        };
        let first = run(&["--threads=1"], &input);
        assert!(first.2.lines().count() > 300, "{kind:?}");
        let kept = String::from_utf8_lossy(&first.0);
        assert!(kept.contains("{\"text\": 3}\nno record\n"), "what is no document passes once");
        for more in [&["--threads=4", "--block-size=3K", "--memory=80M"][..], &["--threads=2", "--memory=1G"]]
        {
            assert!(run(more, &input) == first, "{kind:?} {more:?}");
        }
        let named = run(&["--threads=2", path.to_str().unwrap()], "");
        assert!(named.0 == first.0, "{kind:?}");
        assert_eq!(named.2.replace(path.to_str().unwrap(), "stdin"), first.2);
        let line = format!(
            "curate dedup -q --max-malformed=0.1 --on-error=pass {} <(head -n 700 {path}) <(tail -n +701 {path})",
            kind.join(" "),
            path = path.display()
        );
        assert!(shell(&line, "").ok().stdout == first.0, "a pipe that has a name");
    }
}

#[test]
fn a_pipeline_cuts_what_the_command_cuts() {
    let dir = Scratch::new();
    let input = dir.file("in.jsonl", records(&borrowing(400)));
    let fused = dir.path("fused.jsonl");
    let pipeline = format!(
        "output = {fused:?}\ninput = {input:?}\n[[stage]]\ncommand = \"clean\"\nrecipe = \"none\"\n[[stage]]\ncommand = \"dedup\"\nminhash = true\nsubstring = 9\n"
    );
    let file = dir.file("chain.toml", pipeline);
    curate(["run", file.to_str().unwrap()], "").ok();
    let line = format!(
        "curate read {} | curate clean --recipe none | curate dedup --minhash --substring=9",
        input.display()
    );
    assert!(shell(&line, "").ok().stdout == fs::read(fused).unwrap());
    let resumable = format!("run-dir = {:?}\n{}", dir.path("run"), fs::read_to_string(&file).unwrap());
    let file = dir.file("resumable.toml", resumable);
    let told = curate(["run", file.to_str().unwrap()], "").expect(2).stderr;
    assert!(told.contains("cannot be used in a run that can be resumed"), "{told}");
}

#[test]
fn what_cannot_be_done_is_said_with_a_way_out() {
    let dir = Scratch::new();
    let index = format!("--index={}", dir.path("index").display());
    let check = |args: &[&str], said: &[&str]| {
        let told = curate(["dedup"].iter().chain(args), "{\"text\":\"x\"}\n").expect(2).stderr;
        for part in said {
            assert!(told.contains(part), "{args:?}: {told}");
        }
    };
    check(
        &["--substring=10", &index],
        &["an index cannot be used with --substring", "hint: run `curate dedup --index` first"],
    );
    check(&["--substring=1"], &["expected 2 to 65536"]);
    check(&["--substring", "in.jsonl"], &["give inputs before this option"]);
    check(&["--substring=10", "--substring-bytes=99"], &["cannot be used with"]);
    check(&["--exact", "--substring-spans=x"], &["--substring"]);
    check(&["--substring=10", "--profile=datatrove"], &["datatrove", "hint:"]);
    check(&["--substring=10", "--substring-action=cut"], &["expected remove, mark or mark:FIELD"]);
}
