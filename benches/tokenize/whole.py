#!/usr/bin/env python3
"""From JSONL to token files: curate beside whole pipelines of others, on the same text, with the ids compared.

usage: benches/tokenize/whole.py GPT2.json FILE.jsonl... [--rounds 3] [--only NAME,NAME] [--work DIR]

Installs the peers, each into an environment of its own, under DIR (target/bench-tokenize); `curate` must be built.
Counted are the processor seconds of all processes, from start to end, on one worker. `net` is without what the same
command takes for six documents: imports and loading. curate is run twice: fused (`curate run`) and as a pipe of two
processes. Tokens and ids are read back from what was written.
"""

import argparse
import glob
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys

import itertools

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
PACKAGES = {
    "gigatoken": ["gigatoken==0.10.0", "numpy"],
    "nanogpt": ["datasets==5.2.0", "tiktoken==0.14.0", "tokenizers==0.23.3", "numpy"],
    "datatrove": ["datatrove==0.10.1", "tokenizers==0.23.3", "orjson", "numpy"],
}
# Name, environment, peer, where its ids are.
PEERS = [
    ("gigatoken 0.10.0, JsonlFileSource", "gigatoken", "gigatoken", "tokens.bin"),
    ("nanoGPT prepare.py (tiktoken 0.14.0)", "nanogpt", "nanogpt", "tokens.bin"),
    ("datatrove 0.10.1 DocumentTokenizer", "datatrove", "datatrove", "*.ds"),
    ("datasets 5.2.0 map + group_texts", "nanogpt", "hf-map", None),
]
PIPELINE = """input = {input}
threads = 1

[[stage]]
command = "tokenize"
tokenizer = {tokenizer}

[[stage]]
command = "pack"
seq-len = 1024
output = {output}
"""


def install(work, wanted):
    for name in wanted:
        home = os.path.join(work, "whole-" + name)
        if not os.path.exists(os.path.join(home, "installed")):
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            subprocess.run([os.path.join(home, "bin", "pip"), "install", "--quiet", *PACKAGES[name]], check=True)
            open(os.path.join(home, "installed"), "w").close()


def measure(command, out):
    """Processor seconds of the command and all that it starts; an error's last line."""
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr[-800:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def written(out, pattern):
    """Number and SHA-256 of the ids, and whether they were kept as such."""
    if pattern is None:
        return int(open(os.path.join(out, "rows")).read()), "rows"
    digest, size = hashlib.sha256(), 0
    for path in sorted(glob.glob(os.path.join(out, pattern))):
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
                size += len(block)
    return size // 2, digest.hexdigest()


def joined(files, count, path):
    """The records of the files in turn; all, or `count` of them."""
    lines = itertools.chain.from_iterable(itertools.zip_longest(*[open(file, encoding="utf-8") for file in files]))
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(itertools.islice((line for line in lines if line is not None), count))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--work", default=os.path.join(ROOT, "target", "bench-tokenize"))
    args = parser.parse_args()
    work, tokenizer = os.path.abspath(args.work), os.path.abspath(args.tokenizer)
    wanted = [word for word in args.only.split(",") if word]
    peers = [peer for peer in PEERS if not wanted or any(word in peer[0] for word in wanted)]
    install(work, sorted({environment for _, environment, _, _ in peers}))
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    curate = os.path.join(target, "release", "curate")

    home = os.path.join(work, "whole")
    out = os.path.join(home, "out")
    os.makedirs(home, exist_ok=True)
    inputs = {}
    for name, count in (("all", None), ("six", 6)):
        folder = os.path.join(home, name)
        os.makedirs(folder, exist_ok=True)
        inputs[name] = os.path.join(folder, "text.jsonl")
        joined(args.files, count, inputs[name])

    def commands(text):
        pipeline = os.path.join(home, "pipeline.toml")
        with open(pipeline, "w") as file:
            file.write(PIPELINE.format(input=json.dumps(text), tokenizer=json.dumps(tokenizer), output=json.dumps(out)))
        pipe = '"$0" tokenize --threads 1 --tokenizer "$1" "$2" | "$0" pack --seq-len 1024 -o "$3"'
        yield "curate run (fused)", [curate, "run", pipeline], "train-*.bin"
        yield "curate tokenize | curate pack", ["bash", "-c", pipe, curate, tokenizer, text, out], "train-*.bin"
        for name, environment, peer, pattern in peers:
            python = os.path.join(work, "whole-" + environment, "bin", "python")
            yield name, [python, os.path.join(HERE, "whole_peer.py"), peer, tokenizer, text, out], pattern

    seconds, found = {}, {}
    for _ in range(args.rounds):
        for size, text in inputs.items():
            for name, command, pattern in commands(text):
                seconds.setdefault((name, size), []).append(measure(command, out))
                found[name, size] = written(out, pattern)
    shutil.rmtree(home)
    ours = found["curate run (fused)", "all"]
    print(f"{ours[0]} tokens, {args.rounds} rounds, alternating, one worker")
    print(f"{'':40} {'CPU s, best':>11} {'median':>7} {'start':>6} {'M tokens/CPU s':>15} {'net':>7}  ids")
    for name in dict.fromkeys(name for name, _ in seconds):
        every, start = seconds[name, "all"], min(seconds[name, "six"])
        tokens, digest = found[name, "all"]
        same = "same" if (tokens, digest) == ours else f"{tokens} tokens" if digest == "rows" else f"DIFFERENT: {tokens} tokens"
        net = tokens / 1e6 / max(min(every) - start, 1e-9)
        print(f"{name:40} {min(every):11.2f} {statistics.median(every):7.2f} {start:6.2f} {tokens / 1e6 / min(every):15.2f} {net:7.2f}  {same}")


main()
