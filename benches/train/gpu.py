#!/usr/bin/env python3
"""Everything that is to be known of the fused engine on a GPU, in one run: does it compute the right thing, and how fast.

usage: python3 benches/train/gpu.py [--gpu-step target/release/examples/gpu_step] [--python PYTHON] [--quick] [--only PART …]

Parts, in this order; each says what failed and the rest goes on:
  tests    the device's own tests: kernels, engine and self-check on the GPU (cargo test -p curate-train --lib cuda)
  parity   10 steps from equal weights in fp32 and bf16: losses and gradient norms beside PyTorch's
  speed    GPT-2 124M, T = 1024, bf16: nanoGPT eager and with torch.compile, curate reference and fused (attention of cuDNN and
           of flash), in turn, --rounds times
  small    a model that launching bounds: with and without CUDA graphs, beside eager PyTorch

PYTHON needs torch 2.11.0, numpy and safetensors; gpu_step needs LD_LIBRARY_PATH to hold libtorch with its CUDA part.
A result is a table on stdout and, with --json FILE, everything that was measured.

MFU = (6 N + 12 L C T) × tokens/s ÷ peak (Chowdhery et al. 2022, PaLM, appendix B; no credit for the causal mask), with N the
parameters without positions. Peaks are the vendor's dense bf16 figures, named beside the result; for another GPU only TFLOP/s are
given.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile

# Dense bf16 TFLOP/s of the data sheets, without sparsity.
PEAKS = [("H200", 989.4), ("H100 PCIe", 756.0), ("H100 NVL", 835.0), ("H100", 989.4), ("GH200", 989.4), ("B200", 2250.0),
         ("A100", 312.0), ("L40S", 362.0), ("L40", 181.0), ("RTX 4090", 165.2), ("RTX 3090", 71.0)]
HERE = os.path.dirname(os.path.abspath(__file__))
VOCAB = 50304

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--gpu-step", default="target/release/examples/gpu_step")
parser.add_argument("--python", default=sys.executable)
parser.add_argument("--batch", type=int, default=64, help="rows of a micro-batch at 124M")
parser.add_argument("--steps", type=int, default=30); parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--quick", action="store_true", help="one round of 12 steps: for a machine that is lent for minutes")
parser.add_argument("--only", nargs="+", choices=["tests", "parity", "speed", "small"])
parser.add_argument("--json")
a = parser.parse_args()
if a.quick:
    a.steps, a.rounds = 12, 1
clean = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}  # torch brings its own


class Shape:
    def __init__(self, layers, heads, channels, batch, seq_len, steps):
        self.layers, self.heads, self.channels = layers, heads, channels
        self.batch, self.seq_len, self.steps = batch, seq_len, steps

    def numbers(self):
        return [str(n) for n in (self.layers, self.heads, self.channels, self.batch, self.seq_len, self.steps)]

    def flags(self):
        names = ("--layers", "--heads", "--channels", "--batch", "--seq-len", "--steps")
        return [word for pair in zip(names, self.numbers()) for word in pair]

    def flop_per_token(self):
        L, C, T = self.layers, self.channels, self.seq_len
        n = VOCAB * C + L * (12 * C * C + 13 * C) + 2 * C
        return 6 * n + 12 * L * C * T


def curate(engine, dtype, graphs, shape, attention=None):
    env = dict(os.environ, CURATE_ATTENTION=attention) if attention else None
    return [a.gpu_step, engine, dtype, graphs, *shape.numbers()], env


def peer(files, shape, *flags):
    return [a.python, os.path.join(HERE, "gpu_nanogpt.py"), *files, *shape.flags(), *flags], clean


def steps_of(name, command, env):
    """The JSON lines of a run, or None with its error on stderr."""
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{name}: failed with {done.returncode}\n{done.stderr.strip()[-2000:]}", file=sys.stderr)
        return None
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return lines[:-1], lines[-1]


def inputs(folder, shape, tag):
    files = [os.path.join(folder, f"{tag}.safetensors"), os.path.join(folder, f"{tag}.bin")]
    subprocess.run([a.gpu_step, "reference", "fp32", "off", *shape.numbers(), *files], check=True)
    return files


def gpu_name():
    code = "import torch; print(torch.cuda.get_device_name(0), '| torch', torch.__version__, '| CUDA', torch.version.cuda)"
    return subprocess.run([a.python, "-c", code], env=clean, check=True, capture_output=True, text=True).stdout.strip()


def tests():
    command = ["cargo", "test", "--release", "-p", "curate-train", "--lib", "--", "cuda::", "--nocapture"]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout[-3000:])
    skipped = [line for line in (done.stdout + done.stderr).splitlines() if "skipped" in line]
    return {"passed": done.returncode == 0, "skipped": skipped}


def parity(folder):
    shape, result = Shape(4, 6, 384, 8, 256, 10), {}
    files = inputs(folder, shape, "parity")
    rows = {
        "PyTorch fp32": peer(files, shape, "--fp32"), "curate reference fp32": curate("reference", "fp32", "off", shape),
        "curate fused fp32": curate("fused", "fp32", "off", shape), "curate fused fp32, graph": curate("fused", "fp32", "on", shape),
        "curate reference bf16": curate("reference", "bf16", "off", shape),
        "curate fused bf16, flash": curate("fused", "bf16", "off", shape, "flash"),
        "curate fused bf16, cuDNN": curate("fused", "bf16", "off", shape, "cudnn"),
        "curate fused bf16, graph": curate("fused", "bf16", "on", shape),
    }
    runs = {name: steps_of(name, *row) for name, row in rows.items()}
    base = runs["PyTorch fp32"]
    print(f"\n{'10 steps, 4 layers of 384':32} max |loss - PyTorch fp32's|   max relative difference of the norm")
    for name, run in runs.items():
        if run and base:
            loss = max(abs(x["loss"] - y["loss"]) for x, y in zip(run[0], base[0]))
            norm = max(abs(x["norm"] / y["norm"] - 1) for x, y in zip(run[0], base[0]))
            result[name] = {"loss": loss, "norm": norm}
            print(f"{name:32} {loss:.2e}                      {norm:.2e}")
    return result


def race(title, shape, rows, warmup):
    """Runs the rows in turn; seconds a step are medians after `warmup` steps."""
    seconds, peaks, first = {name: [] for name in rows}, {}, {}
    for _ in range(a.rounds):
        for name, row in rows.items():
            run = steps_of(name, *row)
            if run:
                seconds[name] += [step["seconds"] for step in run[0][warmup:]]
                peaks[name] = run[1]["peak_bytes"]
                first.setdefault(name, run[0][0]["seconds"] + run[1]["opened_s"])
    tokens, base, result = shape.batch * shape.seq_len, None, {}
    print(f"\n{title}\n{'':34} ms/step (min-max)        tokens/s   x first row  TFLOP/s   MFU   peak GB  first step s")
    for name, values in seconds.items():
        if not values:
            continue
        middle = statistics.median(values)
        base = base or middle
        teraflop = shape.flop_per_token() * tokens / middle * 1e-12
        mfu = f"{100 * teraflop / PEAK:5.1f} %" if PEAK else "    –  "
        print(f"{name:34} {1e3 * middle:8.2f} ({1e3 * min(values):.2f}-{1e3 * max(values):.2f})  {tokens / middle:11.0f}  "
              f"{base / middle:8.2f}   {teraflop:8.1f}  {mfu}  {peaks[name] / 1e9:6.1f}  {first[name]:8.2f}")
        result[name] = {"seconds": values, "peak_bytes": peaks[name], "first_s": first[name]}
    return result


def speed(folder):
    shape = Shape(12, 12, 768, a.batch, 1024, a.steps)
    files = inputs(folder, shape, "speed")
    return race(f"GPT-2 124M, {a.batch} rows of 1024, bf16", shape, {
        "nanoGPT eager": peer(files, shape), "nanoGPT torch.compile": peer(files, shape, "--compile"),
        "curate reference": curate("reference", "bf16", "off", shape),
        "curate fused, flash": curate("fused", "bf16", "off", shape, "flash"),
        "curate fused, cuDNN": curate("fused", "bf16", "off", shape, "cudnn"),
    }, warmup=5)


def small(folder):
    shape = Shape(6, 4, 256, 4, 256, 10 * a.steps)
    files = inputs(folder, shape, "small")
    return race("6 layers of 256, 4 rows of 256, bf16", shape, {
        "nanoGPT eager": peer(files, shape), "curate reference": curate("reference", "bf16", "off", shape),
        "curate fused, launched": curate("fused", "bf16", "off", shape),
        "curate fused, graph": curate("fused", "bf16", "on", shape),
    }, warmup=20)


name = gpu_name()
known, PEAK = next((peak for peak in PEAKS if peak[0] in name), (None, None))
print(f"{name}\npeak: " + (f"{PEAK} TFLOP/s, dense bf16 of the {known}'s data sheet" if PEAK else "not known: TFLOP/s only"))
results = {"gpu": name, "peak_tflops": PEAK}
with tempfile.TemporaryDirectory() as folder:
    for part in a.only or ["tests", "parity", "speed", "small"]:
        try:
            results[part] = tests() if part == "tests" else {"parity": parity, "speed": speed, "small": small}[part](folder)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{part}: {error}", file=sys.stderr)
if a.json:
    with open(a.json, "w") as out:
        json.dump(results, out, indent=1)
