#!/usr/bin/env python3
"""Quality and speed of main-text extraction: curate's engines beside trafilatura and resiliparse.

usage: run.py SAMPLE.jsonl[.zst] [--rounds 3] [--work DIR]

A record of the sample is a JSON line with `id`, `text` (the reference) and `metadata` (`html`, `page_type`, and
the snippets `with_` and `without`). Makes a virtual environment with the Python extractors, builds the release
example, then runs every extractor once a round, in turn, so that a busy moment of the machine meets all of them.
Prints a Markdown table: mean word F1 for each page type, pages per CPU second as the median of the rounds with
their range. Needs Python 3.10 with venv, cargo, and access to a package index for the first run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path

from score import score

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGES = ["trafilatura==2.3.1", "lxml_html_clean", "resiliparse==2.0.1", "zstandard"]
OURS = ["text", "readability", "trafilatura", "union"]
PEERS = ["trafilatura", "trafilatura-fast", "resiliparse"]


def environment(work):
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(work / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def example():
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "-p", "curate-clean", "--example", "extract_sample"],
        cwd=ROOT,
        check=True,
    )
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "examples" / "extract_sample"


def unpacked(sample, python, work):
    if sample.suffix != ".zst":
        return sample
    plain = work / sample.stem
    code = (
        "import sys, zstandard; "
        "zstandard.ZstdDecompressor().copy_stream(open(sys.argv[1], 'rb'), open(sys.argv[2], 'wb'))"
    )
    subprocess.run([python, "-c", code, sample, plain], check=True)
    return plain


def measure(command):
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    report = json.loads(done.stdout.splitlines()[-1])
    return report["pages"] / report["cpu_seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "bench-extract")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    python, binary = environment(options.work), example()
    sample = unpacked(options.sample.resolve(), python, options.work)
    extractors = {f"curate `{engine}`": [binary, engine] for engine in OURS}
    extractors |= {f"Python {engine}": [python, HERE / "peers.py", engine] for engine in PEERS}
    outputs = {name: options.work / f"{number}.jsonl" for number, name in enumerate(extractors)}
    speeds = {name: [] for name in extractors}
    for _ in range(options.rounds):
        for name, command in extractors.items():
            speeds[name].append(measure([*command, sample, outputs[name]]))

    scores = {name: score(sample, path) for name, path in outputs.items()}
    kinds = list(next(iter(scores.values()))["means"])
    print("| extractor | pages per CPU s | precision | recall |", " | ".join(f"F1 {kind}" for kind in kinds), "| required | boilerplate |")
    print("|" + "---|" * (6 + len(kinds)))
    for name, result in scores.items():
        low, middle, high = min(speeds[name]), statistics.median(speeds[name]), max(speeds[name])
        precision, recall, _ = result["means"]["all"]
        cells = [name, f"{middle:.0f} ({low:.0f}–{high:.0f})", f"{precision:.3f}", f"{recall:.3f}"]
        cells += [f"{result['means'][kind][2]:.3f}" for kind in kinds]
        cells += ["{}/{}".format(*result["required"]), "{}/{}".format(*result["boilerplate"])]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    sys.exit(main())
