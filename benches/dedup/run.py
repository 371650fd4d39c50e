#!/usr/bin/env python3
"""Near-duplicate removal on one file: `curate dedup` beside other tools, speed and truth.

usage: benches/dedup/run.py [--docs 20000] [--rounds 3] [--threshold 0.7] [--work DIR] [--peers NAME,NAME|none]
                            [--duplodocus BINARY] [--data-juicer PYTHON] [--curate BINARY] [--file FILE.jsonl]

Makes the corpus (corpus.py), then runs every tool in turn, ROUNDS times, one thread each, JSON Lines in, and takes CPU
seconds (user + system, children too), wall seconds and peak resident memory. Then it scores what each tool kept, by the
exact Jaccard similarity of word 5-grams (lower-cased runs of letters, digits and _):

- justified: of the removed documents, how many have a KEPT document at or above the threshold;
- left over: kept documents that still have a kept partner at or above it.

No labels are needed for either. Python's standard library only. The Python peers are installed once, into a virtual
environment under the work folder: datatrove with spaCy and with white-space words, text-dedup, rensa, gaoya. Duplodocus is
built apart (`cargo build --release` in a checkout) and named by --duplodocus; Data-Juicer, whose versions of other packages differ,
has an environment of its own (`pip install py-data-juicer==1.6.1`), whose interpreter --data-juicer names. A peer that does not run
is listed as such.
"""

import argparse
import collections
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
PACKAGES = ["datatrove[io]==0.10.1", "xxhash<4", "regex", "tokenizers", "nltk", "spacy>=3.8", "orjson", "text-dedup==0.4.0",
            "rensa==0.5.0", "gaoya==0.2.2"]
PEERS = ["datatrove, white space", "datatrove, spaCy", "text-dedup", "rensa", "gaoya"]


def shingles(text):
    words = re.findall(r"\w+", text.lower())
    return {hash(tuple(words[i : i + 5])) for i in range(max(1, len(words) - 4))}


def similar_pairs(path, lowest):
    """Every pair of documents with a Jaccard similarity of at least `lowest`; exact, by an inverted index.

    A pair at `lowest` shares one of the rarest shingles of the longer document: of `n` shingles, one of the first
    `n - ceil(lowest * n) + 1` in an order common to all (prefix filtering).
    """
    ids, sets = [], []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            ids.append(record["id"])
            sets.append(shingles(record["text"]))
    frequency = collections.Counter(s for found in sets for s in found)
    index, pairs = collections.defaultdict(list), []
    for number, found in enumerate(sets):
        ordered = sorted(found, key=lambda s: (frequency[s], s))
        prefix = ordered[: len(ordered) - -int(-lowest * len(ordered) // 1) + 1]
        candidates = set()
        for s in prefix:
            if frequency[s] > 1:
                candidates.update(index[s])
                index[s].append(number)
        for other in candidates:
            common = len(found & sets[other])
            jaccard = common / (len(found) + len(sets[other]) - common)
            if jaccard >= lowest:
                pairs.append((ids[other], ids[number], jaccard))
    return ids, pairs


def score(ids, pairs, kept, threshold):
    """Removed, the share of them that is justified, left-over documents, left-over at threshold + 0.1."""
    justified, left, far = set(), set(), set()
    for a, b, jaccard in pairs:
        if jaccard < threshold:
            continue
        if a in kept and b in kept:
            left.update((a, b))
            if jaccard >= threshold + 0.1:
                far.update((a, b))
        if (a in kept) != (b in kept):
            justified.add(b if a in kept else a)
    removed = [i for i in ids if i not in kept]
    share = len(justified) / len(removed) if removed else 1.0
    return len(removed), share, len(left), len(far)


def measure(command, stdout, environment=None):
    """CPU seconds, wall seconds, peak MB; or what went wrong."""
    start = time.monotonic()
    with open(stdout, "wb") as out, open(stdout + ".err", "wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        _, status, used = os.wait4(process.pid, 0)
    if status != 0:
        lines = open(stdout + ".err", errors="replace").read().strip().splitlines()
        return None, f"{command[0]}: status {status}: {lines[-1] if lines else ''}"
    return (used.ru_utime + used.ru_stime, time.monotonic() - start, used.ru_maxrss / 1024), None


def ids_of(path):
    with open(path, encoding="utf-8") as lines:
        return {json.loads(line)["id"] if line.startswith("{") else line.rstrip("\n") for line in lines}


class Bench:
    def __init__(self, args):
        self.args = args
        self.work = os.path.abspath(args.work)
        os.makedirs(self.work, exist_ok=True)
        self.file = os.path.abspath(args.file) if args.file else os.path.join(self.work, f"corpus-{args.docs}.jsonl")
        if not os.path.exists(self.file):
            subprocess.run([sys.executable, os.path.join(HERE, "corpus.py"), self.file, str(args.docs)], check=True)

    def path(self, name):
        return os.path.join(self.work, re.sub(r"\W+", "-", name))

    def tools(self):
        """name -> (command, path of what it writes: ids or records)"""
        t, out = str(self.args.threshold), {}
        curate = self.curate()
        base = [curate, "dedup", "-q", "--threads", "1", self.file]
        flags = {
            "curate --exact": ["--exact"],
            "curate 14x8, verified": ["--minhash", "--threshold", t, "--bands", "14", "--rows", "8"],
            "curate, default bands": ["--minhash", "--threshold", t],
        }
        helped = subprocess.run([curate, "dedup", "--help"], capture_output=True, text=True).stdout
        if "--verify" in helped:
            flags["curate 14x8, unverified"] = flags["curate 14x8, verified"] + ["--verify", "none"]
        for name, more in flags.items():
            out[name] = (base + more, self.path(name))
        if self.args.duplodocus:
            source, store, to = self.path("dup-in"), self.path("dup-store"), self.path("dup-out")
            os.makedirs(source, exist_ok=True)
            if not os.path.exists(source + "/a.jsonl"):
                shutil.copy(self.file, source + "/a.jsonl")
            script = (f"rm -rf {store} {to}; mkdir -p {to}; {self.args.duplodocus} minhash-memory --input-dir {source} --storage-dir "
                      f"{store} --output-dir {to} --text-key text --num-buckets 14 --bucket-size 8 --ngram-size 5 --tokenizer uniseg "
                      f"--remove-duplicates true --threads 1 >/dev/null && find {to} -name '*.jsonl*' | xargs cat")
            out["duplodocus 14x8, uniseg"] = (["sh", "-c", script], self.path("duplodocus"))
        peers = PEERS if self.args.peers == "all" else [p for p in PEERS if p in self.args.peers.split(";")]
        if peers:
            python = self.python()
            for name in peers:
                kept = self.path(name)
                out[name] = ([python, os.path.join(HERE, "peers.py"), name, self.file, kept], kept)
        if self.args.data_juicer:
            kept = self.path("data-juicer")
            out["data-juicer"] = ([self.args.data_juicer, os.path.join(HERE, "peers.py"), "data-juicer", self.file, kept], kept)
        return out

    def curate(self):
        if self.args.curate:
            return self.args.curate
        subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "-p", "curate"], cwd=ROOT, check=True)
        return os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "curate")

    def python(self):
        if self.args.python:
            return self.args.python
        venv = self.path("venv")
        if not os.path.exists(venv):
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([venv + "/bin/pip", "install", "-q", *PACKAGES], check=True)
        return venv + "/bin/python"

    def run(self):
        tools, taken, failed = self.tools(), collections.defaultdict(list), {}
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "RAYON_NUM_THREADS": "1"}
        for _ in range(self.args.rounds):
            for name, (command, out) in tools.items():
                if name in failed:
                    continue
                written = out + ".log" if "peers.py" in " ".join(command) else out
                figures, error = measure(command, written, offline)
                if error:
                    failed[name] = error
                else:
                    taken[name].append(figures)
        ids, pairs = similar_pairs(self.file, self.args.threshold)
        size = os.path.getsize(self.file)
        t = self.args.threshold
        print(f"{len(ids)} documents, {size / 1e6:.1f} MB, {len(pairs)} pairs at J >= {t}, {self.args.rounds} rounds, medians\n")
        print(f"| tool | CPU s | spread | documents per CPU s | MB per CPU s | peak MB | removed | justified | left over | J >= {t + 0.1:.1f} |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for name, figures in taken.items():
            cpu = [figure[0] for figure in figures]
            median, peak = statistics.median(cpu), max(figure[2] for figure in figures)
            removed, share, left, far = score(ids, pairs, ids_of(tools[name][1]), t)
            print(f"| {name} | {median:.2f} | {min(cpu):.2f}-{max(cpu):.2f} | {len(ids) / median:,.0f} | {size / 1e6 / median:.1f} "
                  f"| {peak:.0f} | {removed} | {100 * share:.1f} % | {left} | {far} |")
        for name, error in failed.items():
            print(f"\n{name}: did not run: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--work", default=os.path.join(ROOT, "target", "bench-dedup"))
    parser.add_argument("--peers", default="all", help="all, none, or names with ; between them")
    parser.add_argument("--duplodocus", help="its binary")
    parser.add_argument("--data-juicer", help="an interpreter that has py-data-juicer")
    parser.add_argument("--curate", help="the binary, instead of a build")
    parser.add_argument("--python", help="an interpreter that has the peers, instead of a new environment")
    parser.add_argument("--file", help="another corpus")
    Bench(parser.parse_args()).run()


if __name__ == "__main__":
    main()
