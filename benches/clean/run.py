"""FineWeb's chain beside datatrove, as shipped and on whitespace words, in CPU seconds of one thread, in turn.

    pip install datatrove==0.10.1 spacy==3.8.18 regex
    python run.py --documents FILE.jsonl [--rounds 3] [--every 20]

Both judge texts that lie in memory: no reading, no parsing, no writing. curate takes all documents, datatrove every
`--every`-th, a few seconds' worth. Prints megabytes a CPU second by program, with the spread over the rounds, the ratios, and how many
verdicts differ. dialects.py has the other recipes with dolma, DCLM, NeMo Curator and datamap-rs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "crates/curate-clean/recipes/fineweb.toml"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True, help="JSON lines with id and text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=20, help="documents that datatrove skips to")
    return parser.parse_args()


def curate(program, recipe, args, out):
    with open(args.documents, "rb") as stdin, open(out, "wb") as stdout:
        done = subprocess.run([str(program), str(recipe), "1"], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=True)
    return json.loads(done.stderr.decode().splitlines()[-1])


def datatrove(args, out, *options):
    command = [sys.executable, "-B", ROOT / "python/goldens/datatrove.py", "--documents", args.documents]
    command += ["--every", args.every, "--out", out, "--no-texts", "--fineweb-only", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, check=True)
    return json.loads(done.stderr.decode().splitlines()[-1])


def verdicts(path, name):
    for line in path.read_text().splitlines():
        row = json.loads(line)
        verdict = row[name] if name in row else row.get("fineweb", row.get("verdict"))
        yield row["id"], verdict["verdict"] if isinstance(verdict, dict) else verdict


def main():
    args = parse()
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "curate-clean", "--example", "verdicts"], cwd=ROOT, check=True)
    program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/verdicts"
    work = Path(tempfile.mkdtemp(prefix="curate-clean-bench-"))
    spacy = work / "fineweb-spacy.toml"
    spacy.write_text(RECIPE.read_text().replace('words = "whitespace"', 'words = "spacy-en"'))
    programs = {
        "curate fineweb": lambda out: curate(program, "fineweb", args, out),
        "curate fineweb, --words spacy-en": lambda out: curate(program, spacy, args, out),
        "datatrove, whitespace words": lambda out: datatrove(args, out),
        "datatrove as shipped": lambda out: datatrove(args, out, "--shipped"),
    }
    speeds = {name: [] for name in programs}
    found = {}
    for _ in range(args.rounds):
        for i, (name, run) in enumerate(programs.items()):
            out = work / f"{i}.jsonl"
            result = run(out)
            speeds[name].append(result["megabytes"] / result["cpu_seconds"])
            found[name] = dict(verdicts(out, str(spacy) if "spacy" in name else "fineweb"))
    for name, values in speeds.items():
        best, middle = max(values), statistics.median(values)
        print(f"{name:36} {best:8.3f} MB/s, median {100 * (1 - middle / best):.1f} % slower")
    for ours, theirs in [(0, 2), (0, 3), (1, 3)]:
        a, b = list(programs)[ours], list(programs)[theirs]
        print(f"{a} / {b}: {max(speeds[a]) / max(speeds[b]):.1f} x")
    for ours, theirs in [(0, 2), (1, 3)]:
        a, b = list(programs)[ours], list(programs)[theirs]
        other = sum(found[a][key] != verdict for key, verdict in found[b].items())
        print(f"{a} and {b}: {other} of {len(found[b])} verdicts differ, reasons included")


if __name__ == "__main__":
    main()
