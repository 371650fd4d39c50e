#!/usr/bin/env python3
"""From JSONL to token files: curate beside whole pipelines of others, on the same text, with the ids compared.

usage: benches/tokenize/whole.py GPT2.json FILE.jsonl... [--rounds 3] [--megabytes N] [--only NAME,NAME] [--torch PYTHON]
                                 [--megatron DIR] [--work DIR]

Installs the peers, each into an environment of its own, under DIR (target/bench-tokenize); `curate` must be built.
Counted are the processor seconds of all processes, from start to end, on one worker, and the memory of the largest.
`net` is without what the same command takes for six documents: imports and loading; `×` are the times that it takes of
`curate run`. curate is run twice: fused (`curate run`) and as a pipe of two processes. Tokens and ids are read back from
what was written.

litdata and Megatron need torch 2.11.0, gigabytes of it: --torch names an interpreter of the same version that has it.
Megatron's scripts are in no package: --megatron is a checkout of NVIDIA/Megatron-LM; what follows one of them is here.
Records need `id` for dolma, which shuffles documents and takes white space off their ends.
"""

import argparse
import array
import collections
import glob
import gzip
import hashlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
# Environment → groups of packages; a group with --no-deps leaves out what is declared but not needed, or cannot be had.
TORCH = "torch==2.11.0"
DOLMA = "tokenizers==0.19.1 numpy<2 anyascii blingfire==0.1.8 boto3 fasttext-wheel==0.9.2 fsspec jsonpath-ng jq msgspec nltk"
DOLMA += " omegaconf platformdirs pyyaml python-dotenv requests rich smart-open tqdm uniseg necessary charset-normalizer zstandard"
LITDATA = "tokenizers==0.23.3 lightning-utilities filelock numpy boto3 requests tifffile obstore"
MEGATRON = "numpy packaging tokenizers==0.23.3 transformers==5.24.0 gigatoken==0.10.0 awkward typing_extensions"
PACKAGES = {
    "gigatoken": [["gigatoken==0.10.0", "numpy"]],
    "nanogpt": [["datasets==5.2.0", "tiktoken==0.14.0", "tokenizers==0.23.3", "numpy"]],
    "datatrove": [["datatrove==0.10.1", "tokenizers==0.23.3", "orjson", "numpy"]],
    "dolma": [["--no-deps", "dolma==1.2.1"], DOLMA.split()],
    "litdata": [["--no-deps", "litdata==0.2.76"], [TORCH, *LITDATA.split()]],
    "megatron": [["--no-deps", "megatron-core==0.16.1"], [TORCH, *MEGATRON.split()]],
}
# Name, environment, peer, where its ids are.
PEERS = [
    ("gigatoken 0.10.0, JsonlFileSource", "gigatoken", "gigatoken", "tokens.bin"),
    ("nanoGPT prepare.py (tiktoken 0.14.0)", "nanogpt", "nanogpt", "tokens.bin"),
    ("datatrove 0.10.1 DocumentTokenizer", "datatrove", "datatrove", "*.ds"),
    ("datasets 5.2.0 map + group_texts", "nanogpt", "hf-map", None),
    ("dolma 1.2.1 tokens", "dolma", "dolma", "*.npy"),
    ("litdata 0.2.76 optimize", "litdata", "litdata", "chunk-*.bin"),
    ("Megatron-Core 0.16.1, as its script", "megatron", "megatron", "tokens.bin"),
]
SCRIPTS = [
    ("Megatron-LM preprocess_data.py", "megatron", "preprocess_data", "tokens_text_document.bin"),
    ("Megatron-LM preprocess_data_fast.py", "megatron", "preprocess_data_fast", "tokens_text_document.bin"),
]
EOD = 50256
# What the system counts of a process begins with the memory of the one that started it: so a small one does.
LAUNCHER = """import os, subprocess, sys, time
start = time.monotonic()
_, status, usage = os.wait4(subprocess.Popen(sys.argv[2:]).pid, 0)
seconds, wall = usage.ru_utime + usage.ru_stime, time.monotonic() - start
print(seconds, wall, usage.ru_maxrss * 1024 / 1e6, status, file=open(sys.argv[1], "w"))
"""
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


def packages_of(python):
    """Where an interpreter has its packages."""
    program = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout.strip()


def install(work, wanted, torch):
    for name in wanted:
        home = os.path.join(work, "whole-" + name)
        if os.path.exists(os.path.join(home, "installed")):
            continue
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        python = os.path.join(home, "bin", "python")
        if torch:
            with open(os.path.join(packages_of(python), "torch.pth"), "w") as file:
                file.write(packages_of(torch) + "\n")
        for group in PACKAGES[name]:
            group = [package for package in group if not torch or package != TORCH]
            subprocess.run([python, "-m", "pip", "install", "--quiet", *group], check=True)
        open(os.path.join(home, "installed"), "w").close()


def measure(command, out, **environment):
    """Processor seconds of the command and all that it starts, seconds by the clock, megabytes of the largest process; what
    it says last if it fails."""
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", **environment}
    with tempfile.NamedTemporaryFile("w+") as found, tempfile.TemporaryFile() as log:
        subprocess.run([sys.executable, "-c", LAUNCHER, found.name, *command], stdout=log, stderr=log, env=environment, check=True)
        seconds, wall, memory, status = map(float, found.read().split())
        log.seek(0)
        said = log.read().decode(errors="replace").strip().splitlines()
    return (seconds, wall, memory) if status == 0 else (said or ["no message"])[-1][:100]


def written(out, pattern):
    """The ids in the files; their number alone where they are in rows of a table."""
    if pattern is None:
        return int(open(os.path.join(out, "rows")).read())
    joined = array.array("H")
    for path in sorted(glob.glob(os.path.join(out, "**", pattern), recursive=True)):
        with open(path, "rb") as file:
            if pattern.startswith("chunk"):
                # litdata: a number of items, where each begins, then their ids in 32 bits.
                items = int.from_bytes(file.read(4), "little")
                file.seek(4 * (items + 2))
                joined.extend(array.array("H", array.array("I", file.read())))
            else:
                joined.frombytes(file.read())
    return joined


def documents(ids):
    """How often each document is there, by its hash."""
    found, start = collections.Counter(), 0
    ids = ids + array.array("H", [EOD])
    while start < len(ids):
        end = ids.index(EOD, start)
        found[hashlib.sha256(ids[start:end]).digest()] += 1
        start = end + 1
    return found


def compared(ids, ours):
    if isinstance(ids, int):
        return f"{ids - len(ours):+} tokens, rows"
    if ids == ours:
        return "same"
    theirs, own = documents(ids), documents(ours)
    shared = (theirs & own).total()
    if shared == own.total() == theirs.total():
        return "same, documents in another order"
    return f"DIFFERENT: {len(ids) - len(ours):+} tokens; {shared} of {own.total()} documents the same"


def joined(files, count, megabytes, path):
    """The records of the files in turn, up to so many documents or megabytes."""
    lines = itertools.chain.from_iterable(itertools.zip_longest(*[open(file, encoding="utf-8") for file in files]))
    size = 0
    with open(path, "w", encoding="utf-8") as out, gzip.open(path + ".gz", "wt", encoding="utf-8") as packed:
        for line in itertools.islice((line for line in lines if line is not None), count):
            out.write(line)
            packed.write(line)
            size += len(line.encode())
            if size >= megabytes * 1e6:
                break


def tokenizers(path, home):
    """The tokenizer as transformers takes it, and with merges as older versions wrote them, for dolma."""
    os.makedirs(home, exist_ok=True)
    shutil.copy(path, os.path.join(home, "tokenizer.json"))
    file = json.load(open(path, encoding="utf-8"))
    file["model"]["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in file["model"]["merges"]]
    json.dump(file, open(os.path.join(home, "spaced.json"), "w", encoding="utf-8"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    json.dump(names, open(os.path.join(home, "tokenizer_config.json"), "w"))
    return os.path.join(home, "tokenizer.json")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=float("inf"))
    parser.add_argument("--only", default="")
    parser.add_argument("--torch", metavar="PYTHON")
    parser.add_argument("--megatron", metavar="DIR")
    parser.add_argument("--work", default=os.path.join(ROOT, "target", "bench-tokenize"))
    args = parser.parse_args()
    work = os.path.abspath(args.work)
    wanted = [word for word in args.only.split(",") if word]
    peers = PEERS + (SCRIPTS if args.megatron else [])
    peers = [peer for peer in peers if not wanted or any(word in peer[0] for word in wanted)]
    install(work, sorted({environment for _, environment, _, _ in peers}), args.torch)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    curate = os.path.join(target, "release", "curate")

    home = os.path.join(work, "whole")
    out = os.path.join(home, "out")
    inputs = {}
    for name, count in (("all", None), ("six", 6)):
        folder = os.path.join(home, name)
        os.makedirs(folder, exist_ok=True)
        inputs[name] = os.path.join(folder, "text.jsonl")
        joined(args.files, count, args.megabytes, inputs[name])
    tokenizer = tokenizers(args.tokenizer, os.path.join(home, "tokenizer"))

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

    runs, found, failed = {}, {}, {}
    for _ in range(args.rounds):
        for size, text in inputs.items():
            for name, command, pattern in commands(text):
                if name in failed:
                    continue
                run = measure(command, out, MEGATRON=os.path.abspath(args.megatron or ""))
                if isinstance(run, str):
                    if name.startswith("curate"):
                        sys.exit(f"{name}: {run}")
                    failed[name] = run
                    continue
                runs.setdefault((name, size), []).append(run)
                if size == "all" and name not in found:
                    ids = written(out, pattern)
                    found[name] = len(ids) if pattern else ids, compared(ids, found["curate run (fused)"][2] if found else ids), ids if not found else None
    shutil.rmtree(home)
    ours = found["curate run (fused)"][0]
    print(f"{ours} tokens, {args.rounds} rounds, alternating, one worker")
    print(f"{'':38} {'CPU s, best':>11} {'median':>7} {'start':>6} {'wall s':>7} {'MB':>6} {'M tokens/CPU s':>15} {'net':>7} {'× CPU':>7} {'× net':>7}  ids")
    base = None
    for name in (name for name in found if name not in failed):
        seconds = [run[0] for run in runs[name, "all"]]
        best, start = min(seconds), min(run[0] for run in runs[name, "six"])
        wall, memory = min(run[1] for run in runs[name, "all"]), max(run[2] for run in runs[name, "all"])
        tokens, same, _ = found[name]
        speeds = tokens / 1e6 / best, tokens / 1e6 / (best - start) if best > start else float("nan")
        base = base or speeds
        times = [our / their for our, their in zip(base, speeds)]
        print(
            f"{name:38} {best:11.2f} {statistics.median(seconds):7.2f} {start:6.2f} {wall:7.2f} {memory:6.0f}"
            f" {speeds[0]:15.2f} {speeds[1]:7.2f} {times[0]:7.1f} {times[1]:7.1f}  {same}"
        )
    for name, error in failed.items():
        print(f"{name:38} failed: {error}")


main()
