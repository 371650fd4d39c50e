#!/usr/bin/env python3
"""Encoding speed of curate beside its peers: same text, same ids, one thread.

usage: benches/tokenize/run.py TOKENIZER.json FILE.jsonl [--rounds 5] [--prefix MB] [--only NAME,NAME] [--no-build] [--work DIR]

Builds curate's `encode_speed` and the Rust peers, installs the Python peers into environments of their own under DIR
(target/bench-tokenize), then runs all in turn, ROUNDS times, each in a fresh process that makes three passes over the
texts of FILE: the first is the cold figure, the best of the others the warm one. Loading a tokenizer and reading the
file are not counted. Peers that take minutes for FILE get its first 8 MB (--prefix) instead, and curate those once more.
Prints MB of text per CPU second, how many times faster curate is, and whose ids differ from curate's.

gigatoken's crate comes out of its source package and is built with features of a nightly compiler switched on.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
PASSES = 3
# Name, peer of the crate in peers/.
RUST = [
    ("fastokens 0.3.5 (crate)", "fastokens"),
    ("tokenizers 1.0.0-rc.3 (crate, encode_into)", "hf-1.0-rc"),
    ("tokenizers 0.23.2 (crate, encode_fast)", "hf-0.23"),
]
# Name, environment, peer of python_peer.py.
PYTHON = [
    ("gigatoken 0.10.0 (Python)", "stable", "gigatoken"),
    ("fastokens 0.3.5 (Python)", "stable", "fastokens"),
    ("tokenizers 1.0.0rc3 (Python)", "rc", "hf"),
    ("tokenizers 0.23.3 (Python)", "stable", "hf"),
    ("tiktoken 0.14.0 (Python)", "stable", "tiktoken"),
]
SLOW = ("tokenizers 0.23", "tiktoken")
PACKAGES = {
    "stable": ["tokenizers==0.23.3", "tiktoken==0.14.0", "fastokens==0.3.5", "gigatoken==0.10.0", "numpy"],
    "rc": ["tokenizers==1.0.0rc3", "numpy"],
}
GIGATOKEN = "0.10.0"
GIGATOKEN_MANIFEST = """[package]
name = "gigatoken-peer"
version = "0.0.0"
edition = "2024"

[workspace]

[[bin]]
name = "gigatoken-peer"
path = {source}

[dependencies]
gigatoken = {{ path = {crate} }}
libc = "0.2"
serde_json = "1"
sha2 = "0.10"

[profile.release]
lto = "fat"
"""


def build(manifest, target, *arguments, **environment):
    environment = {**os.environ, "CARGO_TARGET_DIR": target, **environment}
    command = ["cargo", "build", "--release", "--quiet", "--manifest-path", manifest, *arguments]
    return subprocess.run(command, env=environment).returncode == 0


def build_gigatoken(home):
    """Its crate, from the source package, with our loop around it; False if it cannot be had."""
    crate = os.path.join(home, "gigatoken-" + GIGATOKEN)
    if not os.path.exists(crate):
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", home]
        if subprocess.run([*download, "gigatoken==" + GIGATOKEN]).returncode != 0:
            return False
        with tarfile.open(crate + ".tar.gz") as archive:
            archive.extractall(home, filter="data")
        # A profile of theirs, not used here, has a setting that Cargo allows only with a flag.
        manifest = os.path.join(crate, "Cargo.toml")
        lines = [line for line in open(manifest, encoding="utf-8") if not line.startswith("rustflags")]
        open(manifest, "w", encoding="utf-8").writelines(lines)
        shutil.copy(os.path.join(crate, "Cargo.lock"), home)
    source = os.path.abspath(os.path.join(HERE, "peers", "src", "gigatoken.rs"))
    with open(os.path.join(home, "Cargo.toml"), "w", encoding="utf-8") as file:
        file.write(GIGATOKEN_MANIFEST.format(source=json.dumps(source), crate=json.dumps(os.path.basename(crate))))
    return build(os.path.join(home, "Cargo.toml"), os.path.join(home, "target"), RUSTC_BOOTSTRAP="1", PYO3_PYTHON=sys.executable)


def install(work):
    for name, packages in PACKAGES.items():
        home = os.path.join(work, name)
        if not os.path.exists(os.path.join(home, "installed")):
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            subprocess.run([os.path.join(home, "bin", "pip"), "install", "--quiet", *packages], check=True)
            open(os.path.join(home, "installed"), "w").close()


def cut(path, megabytes, output):
    """The first records with so many megabytes of text; all if it has fewer. Returns the megabytes."""
    size = 0
    with open(path, encoding="utf-8") as lines, open(output, "w", encoding="utf-8") as out:
        for line in lines:
            out.write(line)
            size += len(json.loads(line)["text"].encode())
            if size >= megabytes * 1e6:
                break
    return size / 1e6


def processor():
    """Its name and vectors, as far as the system tells."""
    facts = open("/proc/cpuinfo").read() if os.path.exists("/proc/cpuinfo") else ""
    name = next((line.split(":")[1].strip() for line in facts.splitlines() if line.startswith("model name")), platform.machine())
    return name + (", AVX-512" if "avx512bw" in facts else "")


def measure(command):
    """CPU seconds of the passes, tokens, hash of the ids; what a program says that fails."""
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        return "not built"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return last[:100]
    *passes, tokens, digest = done.stdout.split()
    return [float(seconds) for seconds in passes], int(tokens), digest


def table(megabytes, runs):
    """One line a peer: median and best speeds, times that curate is faster by the medians, ids."""
    print(f"{'':44} {'cold: MB/CPU s':>14} {'best':>7} {'warm':>7} {'best':>7}   curate is faster")
    print(f"{'':44} {'median':>14} {'':>7} {'median':>7} {'':>7} {'cold':>8} {'warm':>6}  ids")
    speeds, ours = {}, None
    for name, rows in runs.items():
        good = [row for row in rows if not isinstance(row, str)]
        if not good:
            print(f"{name:44} failed: {rows[0]}")
            continue
        cold, warm = [max(row[0][0], 1e-9) for row in good], [max(min(row[0][1:]), 1e-9) for row in good]
        medians = megabytes / statistics.median(cold), megabytes / statistics.median(warm)
        speeds[name] = medians
        ours = ours or (medians, good[0][1:])
        same = "same" if good[0][1:] == ours[1] else f"DIFFERENT: {good[0][1]} tokens, ours {ours[1][0]}"
        if len(good) < len(rows):
            same += f", {len(rows) - len(good)} runs failed"
        bests = megabytes / min(cold), megabytes / min(warm)
        times = [our / their for our, their in zip(ours[0], medians)]
        print(f"{name:44} {medians[0]:14.1f} {bests[0]:7.1f} {medians[1]:7.1f} {bests[1]:7.1f} {times[0]:8.2f} {times[1]:6.2f}  {same}")
    return speeds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefix", type=float, default=8, metavar="MB")
    parser.add_argument("--only", default="")
    parser.add_argument("--no-build", action="store_true", help="take the programs that are there")
    parser.add_argument("--work", default=os.path.join(ROOT, "target", "bench-tokenize"))
    args = parser.parse_args()
    work = os.path.abspath(args.work)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    gigatoken = os.path.join(work, "gigatoken")
    os.makedirs(gigatoken, exist_ok=True)
    if not args.no_build:
        ours = build(os.path.join(ROOT, "Cargo.toml"), target, "--locked", "-p", "curate-tokenize", "--example", "encode_speed")
        if not ours or not build(os.path.join(HERE, "peers", "Cargo.toml"), os.path.join(work, "peers"), "--locked"):
            sys.exit("cargo build failed")
        if not build_gigatoken(gigatoken):
            print("gigatoken's crate was not built; its row fails", file=sys.stderr)
    install(work)

    ours = os.path.join(target, "release", "examples", "encode_speed")
    rust = os.path.join(work, "peers", "release", "tokenize-peers")
    # Name → words before and after the tokenizer, the file and the number of passes.
    commands = {"curate": ([ours, "speed"], [])}
    commands["curate (AVX2)"] = ([ours, "speed"], ["avx2"])
    commands["curate (no vectors)"] = ([ours, "speed"], ["portable"])
    commands[f"gigatoken {GIGATOKEN} (crate)"] = ([os.path.join(gigatoken, "target", "release", "gigatoken-peer")], [])
    for name, peer in RUST:
        commands[name] = ([rust, peer], [])
    for name, environment, peer in PYTHON:
        commands[name] = ([os.path.join(work, environment, "bin", "python"), os.path.join(HERE, "python_peer.py"), peer], [])
    wanted = [word for word in args.only.split(",") if word]
    if wanted:
        commands = {name: c for name, c in commands.items() if name == "curate" or any(word in name for word in wanted)}
    slow = [name for name in commands if name.startswith(SLOW)]
    texts = {"whole": (os.path.abspath(args.file), [name for name in commands if name not in slow])}
    prefix = os.path.join(work, "prefix.jsonl")
    sizes = {"whole": sum(len(json.loads(line)["text"].encode()) for line in open(args.file, encoding="utf-8")) / 1e6}
    if slow:
        sizes["prefix"] = cut(args.file, args.prefix, prefix)
        texts["prefix"] = (prefix, ["curate", *slow])

    runs = {text: {name: [] for name in names} for text, (_, names) in texts.items()}
    for _ in range(args.rounds):
        for text, (path, names) in texts.items():
            for name in names:
                before, after = commands[name]
                runs[text][name].append(measure([*before, os.path.abspath(args.tokenizer), path, str(PASSES), *after]))
    print(f"{os.path.basename(args.tokenizer)}, {os.path.basename(args.file)}: {sizes['whole']:.1f} MB of text; {args.rounds} rounds, alternating, {processor()}")
    whole = table(sizes["whole"], runs["whole"])
    if slow:
        print(f"\nits first {sizes['prefix']:.1f} MB")
        for name, (cold, warm) in list(table(sizes["prefix"], runs["prefix"]).items())[1:]:
            print(f"{name}: curate on the whole text, by the byte, {whole['curate'][0] / cold:.1f} times cold, {whole['curate'][1] / warm:.1f} warm")
        os.remove(prefix)


main()
