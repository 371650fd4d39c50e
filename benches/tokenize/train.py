#!/usr/bin/env python3
"""Training of tokenizers: curate beside its peers, on the same text, with the merges compared.

usage: benches/tokenize/train.py FILE.jsonl... [--megabytes 20,60,100] [--vocabulary 32768] [--rounds 3] [--work DIR]

Installs the peers into an environment under DIR (target/bench-tokenize). Each run is a fresh process on one thread.
Peers: CPU seconds and added memory of the training call alone, the texts lie in memory (or in a plain file, where the
peer reads files). curate: the whole command, reading and parsing of the JSON included. `peak` is the memory of the whole
process, texts and Python's modules included. `same` counts the merges that make the tokens of `tokenizers`, in order,
from the first on; peers that start from fewer bytes make more of them. 100 MB want english.jsonl and code.jsonl.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
PEERS = {
    "tokenizers 0.23.3": "hf",
    "rustbpe 0.1.0": "rustbpe",
    "gigabpe 0.1.0": "gigabpe",
    "gigatoken 0.10.0": "gigatoken",
}
PACKAGES = ["tokenizers==0.23.3", "rustbpe==0.1.0", "gigabpe==0.1.0", "gigatoken==0.10.0", "numpy"]


def install(work):
    home = os.path.join(work, "train")
    if not os.path.exists(os.path.join(home, "installed")):
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([os.path.join(home, "bin", "pip"), "install", "--quiet", *PACKAGES], check=True)
        open(os.path.join(home, "installed"), "w").close()
    return os.path.join(home, "bin", "python")


def cut(paths, megabytes, output):
    """The first records of the files in turn, with so many megabytes of text."""
    files, size = [open(path, encoding="utf-8") for path in paths], 0
    with open(output, "w", encoding="utf-8") as out:
        for line in itertools.chain.from_iterable(itertools.zip_longest(*files)):
            if line is not None:
                out.write(line)
                size += len(json.loads(line)["text"].encode())
                if size >= megabytes * 1e6:
                    return size / 1e6
    return size / 1e6


def measure(command):
    """Standard output of a process and its CPU seconds; what it says if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "RAYON_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    error = (done.stderr.strip().splitlines() or ["no message"])[-1][:100] if done.returncode else ""
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, error


def ours(curate, text, vocabulary, work):
    report, output = os.path.join(work, "report.json"), os.path.join(work, "tokenizer.json")
    command = [curate, "train-tokenizer", "--threads", "1", "--vocab-size", str(vocabulary), "-o", output, "--report", report, "--quiet", text]
    _, seconds, error = measure(command)
    if error:
        sys.exit(error)
    peak = json.load(open(report))["peak_rss_bytes"] / 1e6
    return seconds, peak, peak, json.load(open(output))["model"]["merges"]


def theirs(python, peer, text, vocabulary, work):
    output = os.path.join(work, "merges.json")
    out, _, error = measure([python, os.path.join(HERE, "trainer_peer.py"), peer, text, str(vocabulary), output])
    if error:
        return error
    seconds, memory, peak = map(float, out.splitlines()[-1].split())
    return seconds, memory, peak, json.load(open(output))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--megabytes", default="20,60,100")
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", default=os.path.join(ROOT, "target", "bench-tokenize"))
    args = parser.parse_args()
    work = os.path.abspath(args.work)
    python = install(work)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    curate = os.path.join(target, "release", "curate")
    text = os.path.join(work, "text.jsonl")
    for megabytes in map(float, args.megabytes.split(",")):
        size = cut(args.files, megabytes, text)
        runs = {name: [] for name in ["curate", *PEERS]}
        for _ in range(args.rounds):
            runs["curate"].append(ours(curate, text, args.vocabulary, work))
            for name, peer in PEERS.items():
                runs[name].append(theirs(python, peer, text, args.vocabulary, work))
        expected = next((run[3] for run in runs["tokenizers 0.23.3"] if not isinstance(run, str)), [])
        print(f"{size:.0f} MB, {args.vocabulary} ids, {args.rounds} rounds, alternating")
        print(f"{'':24} {'CPU s, best':>12} {'median':>8} {'MB':>7} {'peak':>7} {'merges':>8} {'same':>8}")
        for name, rows in runs.items():
            good = [row for row in rows if not isinstance(row, str)]
            if not good:
                print(f"{name:24} failed: {rows[0]}")
                continue
            seconds, memory, peak = [row[0] for row in good], max(row[1] for row in good), max(row[2] for row in good)
            same = sum(1 for _ in itertools.takewhile(lambda pair: "".join(pair[0]) == "".join(pair[1]), zip(good[0][3], expected)))
            print(f"{name:24} {min(seconds):12.2f} {statistics.median(seconds):8.2f} {memory:7.0f} {peak:7.0f} {len(good[0][3]):8} {same:8}", flush=True)
    os.remove(text)


main()
