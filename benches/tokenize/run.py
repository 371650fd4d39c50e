#!/usr/bin/env python3
"""Encoding speed of curate beside its peers: same text, same ids, one thread.

usage: benches/tokenize/run.py TOKENIZER.json FILE.jsonl [--rounds 5] [--only NAME,NAME] [--work DIR]

Builds curate's `encode_speed` and the Rust peers, installs the Python peers into environments of their own under DIR
(target/bench-tokenize), then runs all in turn, ROUNDS times, each in a fresh process that makes three passes over the
texts of FILE: the first is the cold figure, the best of the others the warm one. Loading a tokenizer and reading the
file are not counted. Prints medians of MB of text per CPU second and says whose ids differ from curate's.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
PASSES = 3
RUST = {"tokenizers 0.23.2 (crate, encode_fast)": "hf-0.23", "tokenizers 1.0.0-rc.3 (crate, encode_into)": "hf-1.0-rc", "fastokens 0.3.5 (crate)": "fastokens"}
# Name, environment, packages, peer.
PYTHON = [
    ("tokenizers 0.23.3 (Python)", "stable", "hf"),
    ("tokenizers 1.0.0rc3 (Python)", "rc", "hf"),
    ("tiktoken 0.14.0 (Python)", "stable", "tiktoken"),
    ("fastokens 0.3.5 (Python)", "stable", "fastokens"),
    ("gigatoken 0.10.0 (Python)", "stable", "gigatoken"),
]
PACKAGES = {
    "stable": ["tokenizers==0.23.3", "tiktoken==0.14.0", "fastokens==0.3.5", "gigatoken==0.10.0", "numpy"],
    "rc": ["tokenizers==1.0.0rc3", "numpy"],
}


def build(manifest, target, *arguments):
    environment = {**os.environ, "CARGO_TARGET_DIR": target}
    command = ["cargo", "build", "--release", "--quiet", "--manifest-path", manifest, *arguments]
    subprocess.run(command, env=environment, check=True)


def install(work):
    for name, packages in PACKAGES.items():
        home = os.path.join(work, name)
        if not os.path.exists(os.path.join(home, "installed")):
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            subprocess.run([os.path.join(home, "bin", "pip"), "install", "--quiet", *packages], check=True)
            open(os.path.join(home, "installed"), "w").close()


def measure(command):
    """CPU seconds of the passes, tokens, hash of the ids; None if the program fails."""
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return last[:100]
    *passes, tokens, digest = done.stdout.split()
    return [float(seconds) for seconds in passes], int(tokens), digest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--work", default=os.path.join(ROOT, "target", "bench-tokenize"))
    args = parser.parse_args()
    work = os.path.abspath(args.work)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    build(os.path.join(ROOT, "Cargo.toml"), target, "--locked", "-p", "curate-tokenize", "--example", "encode_speed")
    build(os.path.join(HERE, "peers", "Cargo.toml"), os.path.join(work, "peers"))
    install(work)

    inputs = [os.path.abspath(args.tokenizer), os.path.abspath(args.file), str(PASSES)]
    ours = os.path.join(target, "release", "examples", "encode_speed")
    commands = {"curate": [ours, "speed", *inputs], "curate (AVX2)": [ours, "speed", *inputs, "avx2"]}
    commands["curate (no vectors)"] = [ours, "speed", *inputs, "portable"]
    for name, peer in RUST.items():
        commands[name] = [os.path.join(work, "peers", "release", "tokenize-peers"), peer, *inputs]
    for name, environment, peer in PYTHON:
        python = os.path.join(work, environment, "bin", "python")
        commands[name] = [python, os.path.join(HERE, "python_peer.py"), peer, *inputs]
    wanted = [word for word in args.only.split(",") if word]
    if wanted:
        commands = {name: c for name, c in commands.items() if any(word in name for word in wanted + ["curate"])}

    megabytes = sum(len(json.loads(line)["text"].encode()) for line in open(inputs[1], encoding="utf-8")) / 1e6
    runs = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            runs[name].append(measure(command))
    print(f"{os.path.basename(args.tokenizer)}, {os.path.basename(args.file)}: {megabytes:.1f} MB of text; {args.rounds} rounds, alternating, {platform.machine()}")
    print(f"{'':44} {'cold MB/CPU s':>14} {'warm':>7} {'cold ÷':>7}  ids")
    ours = [run for run in runs["curate"] if not isinstance(run, str)]
    our_cold = statistics.median(run[0][0] for run in ours)
    for name, rows in runs.items():
        good = [row for row in rows if not isinstance(row, str)]
        if not good:
            print(f"{name:44} failed: {rows[0]}")
            continue
        cold = statistics.median(row[0][0] for row in good)
        warm = statistics.median(min(row[0][1:]) for row in good)
        same = "same" if good[0][1:] == ours[0][1:] else f"DIFFERENT: {good[0][1]} tokens, ours {ours[0][1]}"
        print(f"{name:44} {megabytes / cold:14.1f} {megabytes / warm:7.1f} {cold / our_cold:7.2f}  {same}")


main()
