#!/usr/bin/env python3
"""curate's training step beside nanoGPT's: equal initial weights, one token file, rounds interleaved, CPU seconds.

usage: python3 benches/train/run.py --step-speed target/release/examples/step_speed [--python PYTHON] [--layers 12] ...

PYTHON needs torch 2.11.0, numpy and safetensors; step_speed needs LD_LIBRARY_PATH to hold libtorch.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile

parser = argparse.ArgumentParser()
parser.add_argument("--step-speed", required=True)
parser.add_argument("--python", default=sys.executable)
parser.add_argument("--layers", default="12"); parser.add_argument("--batch", default="4")
parser.add_argument("--seq-len", default="64"); parser.add_argument("--steps", default="10")
parser.add_argument("--threads", default="1"); parser.add_argument("--rounds", type=int, default=2)
a = parser.parse_args()
peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nanogpt.py")
shape = [a.layers, a.batch, a.seq_len, a.steps, a.threads]
clean = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}  # torch brings its own
with tempfile.TemporaryDirectory() as tmp:
    files = [os.path.join(tmp, "weights.safetensors"), os.path.join(tmp, "tokens.bin")]
    subprocess.run([a.step_speed, "fused", "fp32", *shape, *files], check=True)
    python = [a.python, peer, *files, "--layers", a.layers, "--batch", a.batch, "--seq-len", a.seq_len,
              "--steps", a.steps, "--threads", a.threads]
    rows = {
        "nanoGPT fp32": (python, clean),
        "nanoGPT bf16 autocast + fused AdamW": ([*python, "--bf16", "--fused-adamw"], clean),
        "curate reference fp32": ([a.step_speed, "reference", "fp32", *shape], None),
        "curate fused fp32": ([a.step_speed, "fused", "fp32", *shape], None),
        "curate fused bf16": ([a.step_speed, "fused", "bf16", *shape], None),
    }
    seconds, losses = {name: [] for name in rows}, {}
    for _ in range(a.rounds):
        for name, (command, env) in rows.items():
            out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
            steps = [json.loads(line) for line in out.splitlines()]
            seconds[name] += [step["cpu_s"] for step in steps[2:]]  # the first two warm up
            losses[name] = [step["loss"] for step in steps]
base = statistics.median(seconds["nanoGPT fp32"])
tokens = int(a.batch) * int(a.seq_len)
print(f"{'':38} CPU s/step  (min-max)      tokens/CPU-s  x nanoGPT  max |loss difference|")
for name, values in seconds.items():
    middle = statistics.median(values)
    worst = max(abs(x - y) for x, y in zip(losses[name], losses["nanoGPT fp32"]))
    print(f"{name:38} {middle:10.3f}  ({min(values):.3f}-{max(values):.3f})  {tokens / middle:12.1f}  {base / middle:9.2f}  {worst:.2e}")
