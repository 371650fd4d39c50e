#!/usr/bin/env python3
"""Reading batches from the page cache: curate's loader beside others, on the same token files, in turn.

usage: python3 benches/loader/run.py --loader-speed target/release/examples/loader_speed [--dir DIR] [--tokens N] ...

PYTHON needs torch and numpy. DIR keeps the token files (2 and 4 bytes a token) for the next run.
"""
import argparse, json, os, subprocess, sys, tempfile

parser = argparse.ArgumentParser()
parser.add_argument("--loader-speed", required=True)
parser.add_argument("--python", default=sys.executable)
parser.add_argument("--dir", default=os.path.join(tempfile.gettempdir(), "curate-loader-bench"))
parser.add_argument("--tokens", default="256000000"); parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--keep", action="store_true", help="leave the token files where they are")
a = parser.parse_args()
rivals = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rivals.py")
best = {}
for width in ["u16", "i32"]:
    directory = os.path.join(a.dir, width)
    if not os.path.exists(os.path.join(directory, "manifest.json")):
        os.makedirs(directory, exist_ok=True)
        subprocess.run([a.loader_speed, "make", directory, width, a.tokens], check=True)
    commands = [[a.loader_speed, "read", directory, "3"]]
    commands += [[a.python, rivals, directory, reader, "100", "2"] for reader in ["nanogpt", "megatron", "python"]]
    for _ in range(a.rounds):
        for command in commands:
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for line in map(json.loads, out.splitlines()):
                key = tuple(line[name] for name in ["width", "policy", "order", "work", "reader"])
                if key not in best or line["cpu_s"] < best[key]["cpu_s"]:
                    best[key] = line
    if not a.keep:
        subprocess.run(["rm", "-r", directory], check=True)
print(f"{'bytes':>5}  {'policy':8}  {'order':10}  {'work':5}  {'reader':8}  GB/CPU-s   M tokens/CPU-s")
for key, line in best.items():
    rate = line["tokens"] / line["cpu_s"] / 1e6
    print("{:5}  {:8}  {:10}  {:5}  {:8}".format(*key), f"{line['gb_per_cpu_s']:9.3f}  {rate:14.1f}")
