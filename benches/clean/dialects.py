"""Speed of the recipes beside the programs that they pin, and beside AI2's datamap-rs, in CPU seconds of one thread.

    python dialects.py --documents FILE.jsonl --datamap CHECKOUT --dclm CHECKOUT --nemo CHECKOUT [--rounds 5]

datamap-rs (github allenai/datamap-rs at f7717942d556503bdf1d18702ec5e85ae2ebf3bc) wants hundreds of crates for steps that
are not asked for here, so the ones that are go as they stand into a package of their own. Programs run in turn, each
reads and parses everything first, and the best of all rounds counts. The Python originals run once, on every tenth
document. `rules` is the part of the recipe that both have: no edits, no removal of URLs. Both leave a document at the first
rule that drops it.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "crates/curate-clean/recipes"
STEPS = """NewlineRemovalModifier PageLenFilter WordLenFilter SymbolRatioFilter BulletFilter EllipsisLineRatioFilter
AlphabeticWordRatioFilter StopWordFilter MassiveWebRepetitionFilter WordCountAdder RatioLineModifier RegexLineModifier
LineLenModifier SubstringLineModifier WordRemovalRatioFilter""".split()

MANIFEST = """[package]
name = "datamap-bench"
version = "0.1.0"
edition = "2021"
[workspace]
[dependencies]
anyhow = "1"
derivative = "2.2.0"
fxhash = "0.2.1"
once_cell = "1.21"
regex = "1.11"
serde = { version = "1", features = ["derive"] }
serde_json = "1"
unicode-segmentation = "1.12"
url = "2.5"
[profile.release]
opt-level = 3
"""

HEAD = """#![allow(warnings)]
mod utils;
use std::cmp;
use crate::utils::{get_default, json_get, json_set, json_remove};
use anyhow::{anyhow, ensure, Error, Result};
use serde::Serialize;
use serde_json::{json, Value};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::io::BufRead;
use fxhash::{FxHasher, FxHashMap};
use regex::Regex;
use unicode_segmentation::UnicodeSegmentation;
use derivative::Derivative;
use once_cell::sync::OnceCell;

pub trait DataProcessor {
    fn new(config: &Value) -> Result<Self, Error> where Self: Sized;
    fn process(&self, data: Value) -> Result<Option<Value>, Error>;
}
"""

MAIN = """
fn cpu_seconds() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    schedstat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rounds: usize = args[2].parse().unwrap();
    let documents: Vec<Value> =
        std::io::stdin().lock().lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let bytes: usize = documents.iter().map(|d| d["text"].as_str().unwrap().len()).sum();
    let mut best = f64::MAX;
    let mut kept = 0;
    let (rules, edits) = steps();
    for _ in 0..rounds {
        kept = 0;
        let mut copies = documents.clone();
        let start = cpu_seconds();
        for data in copies.drain(..) {
            let mut now = Some(data);
            for step in rules.iter().chain(if args[1] == "rules" { &[][..] } else { &edits[..] }) {
                now = step.process(now.unwrap()).unwrap();
                if now.is_none() { break; }
            }
            kept += now.is_some() as usize;
        }
        best = best.min(cpu_seconds() - start);
    }
    println!("{}", json!({"documents": documents.len(), "megabytes": bytes as f64 / 1e6, "cpu_seconds": best, "kept": kept}));
}
"""


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True, help="JSON lines with id and text")
    parser.add_argument("--datamap", type=Path, help="a checkout of allenai/datamap-rs")
    parser.add_argument("--dclm", type=Path, help="a checkout of mlfoundations/dclm")
    parser.add_argument("--nemo", type=Path, help="a checkout of NVIDIA-NeMo/Curator")
    parser.add_argument("--dolma", action="store_true", help="dolma is installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=10, help="documents that the Python originals skip to")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "curate-dialects")
    return parser.parse_args()


def datamap(args):
    """Builds the steps of datamap-rs and returns the program."""
    source = (args.datamap / "src/map_fxn.rs").read_text()
    pieces = []
    for name in STEPS:
        start = source.index(f"pub struct {name} ")
        # The attributes stand on the lines before.
        start = source.rindex("\n\n", 0, start)
        later = [match.start() for match in re.finditer(r"^pub struct \w+ ", source, re.M) if match.start() > source.index(f"pub struct {name} ")]
        end = source.rindex("\n\n", 0, later[0]) if later else len(source)
        pieces.append(source[start:end])
    enum = re.search(r"#\[derive[^\n]*\]\n(?:#\[[^\n]*\]\n)*pub enum LengthType", source)
    body = "\n".join(pieces)
    if enum and "pub enum LengthType" not in body:
        end = source.index("\n}\n", enum.start())
        body = source[enum.start() : end + 3] + body
    constructors = {"rules": [], "edits": []}
    part = "rules"
    for name, settings in pipeline(args.datamap / "configs/dclm/dclm_config.yaml"):
        part = "edits" if name == "WordCountAdder" else part
        config = "r####\"" + json.dumps({"text_field": "text"} | settings) + "\"####"
        constructors[part].append(f"Box::new({name}::new(&serde_json::from_str({config}).unwrap()).unwrap())")
    steps = "\nfn steps() -> (Vec<Box<dyn DataProcessor>>, Vec<Box<dyn DataProcessor>>) {\n    (vec![%s], vec![%s])\n}\n" % (
        ", ".join(constructors["rules"]),
        ", ".join(constructors["edits"]),
    )
    package = args.work / "datamap-bench"
    (package / "src").mkdir(parents=True, exist_ok=True)
    (package / "Cargo.toml").write_text(MANIFEST)
    (package / "src/main.rs").write_text(HEAD + body + steps + MAIN)
    (package / "src/utils.rs").write_text((args.datamap / "src/utils.rs").read_text())
    environment = os.environ | {"CARGO_TARGET_DIR": str(args.work / "target")}
    subprocess.run(["cargo", "build", "--release", "-q"], cwd=package, check=True, env=environment)
    return args.work / "target/release/datamap-bench"


def pipeline(path):
    """The steps of datamap-rs's own configuration that need no URL and no language."""
    import yaml

    for step in yaml.safe_load(path.read_text())["pipeline"]:
        name = "".join(part.title() for part in step["name"].split("_"))
        if name in STEPS:
            yield name, step.get("kwargs", {})


def rules_of(recipe, work):
    """A recipe file without the rules that edit, and what only they use."""
    text = (RECIPES / f"{recipe}.toml").read_text()
    head, *rules = text.split("\n[[rule]]\n")
    kept = [rule for rule in rules if "edit = " not in rule and "words_removed" not in rule]
    path = work / f"{recipe}-rules.toml"
    path.write_text("\n[[rule]]\n".join([head.replace("max_words_removed = 0.05\n", "")] + kept))
    return path


def measure(command, documents):
    with open(documents, "rb") as stdin:
        done = subprocess.run(list(map(str, command)), stdin=stdin, capture_output=True, check=True)
    line = (done.stderr or done.stdout).decode().strip().splitlines()[-1]
    return json.loads(line)


def python(script, args, *options):
    command = [sys.executable, "-B", ROOT / f"python/goldens/{script}.py", "--documents", args.documents, "--every", str(args.every)]
    command += ["--out", os.devnull, "--no-texts", "--verdict-only", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, check=True, env=os.environ | {"PYTHONHASHSEED": "0"})
    return json.loads(done.stderr.decode().strip().splitlines()[-1])


def main():
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "curate-clean", "--example", "verdicts"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    ours = target / "release/examples/verdicts"
    programs = {
        "curate dclm, rules": [ours, rules_of("dclm", args.work), 1],
        "curate dclm": [ours, "dclm", 1],
        "curate refinedweb": [ours, "refinedweb", 1],
        "curate dolma-v1.5": [ours, "dolma-v1.5", 1],
        "curate nemo-en": [ours, "nemo-en", 1],
    }
    if args.datamap:
        program = datamap(args)
        programs |= {"datamap-rs, rules": [program, "rules", 1], "datamap-rs dclm": [program, "all", 1]}
    seconds = {name: [] for name in programs}
    for _ in range(args.rounds):
        for name, command in programs.items():
            result = measure(command, args.documents)
            seconds[name].append(result["cpu_seconds"])
            megabytes = result["megabytes"]
    speed = {name: megabytes / min(times) for name, times in seconds.items()}
    for name, options in (("dolma", args.dolma and []), ("dclm", args.dclm and ["--source", args.dclm]), ("nemo", args.nemo and ["--source", args.nemo])):
        if options is not None and options is not False:
            result = python(name, args, *options)
            speed[f"python {name}"] = result["megabytes"] / result["cpu_seconds"]
    print("| program | MB/s | spread |\n|---|---|---|")
    for name, value in speed.items():
        times = seconds.get(name, [])
        spread = f"{(statistics.median(times) / min(times) - 1) * 100:.0f} %" if times else ""
        print(f"| {name} | {value:.1f} | {spread} |")
    for a, b in (("curate dclm, rules", "datamap-rs, rules"), ("curate dclm", "datamap-rs dclm"), ("curate dclm", "python dclm"),
                 ("curate dolma-v1.5", "python dolma"), ("curate nemo-en", "python nemo")):  # fmt: skip
        if a in speed and b in speed:
            print(f"{a} / {b}: {speed[a] / speed[b]:.1f}")


if __name__ == "__main__":
    main()
