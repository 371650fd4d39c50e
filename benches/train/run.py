#!/usr/bin/env python3
"""curate's training step beside other trainers': equal initial weights, one token file, rounds interleaved, CPU seconds.

usage: python3 benches/train/run.py --examples target/release/examples [--python PYTHON] [--shape 124m] ...

PYTHON (which also runs this script) needs torch 2.11.0, numpy and safetensors. The examples step_speed and tch_min_gpt
find libtorch by LD_LIBRARY_PATH. --llmc is a checkout of karpathy/llm.c, --candle the program of benches/train/candle.
"""
import argparse, json, os, platform, re, shutil, statistics, subprocess, sys, tempfile
import llmc

# layers, channels, heads, vocabulary, rows, tokens of a row
SHAPES = {
    "124m": (12, 768, 12, 50304, 4, 64),  # llm.c's CPU setting
    "124m-1024": (12, 768, 12, 50304, 1, 1024),
    "char": (4, 128, 4, 65, 12, 64),  # nanoGPT's published CPU setting
}
parser = argparse.ArgumentParser()
parser.add_argument("--examples", required=True)
parser.add_argument("--python", default=sys.executable)
parser.add_argument("--shape", default="124m", choices=SHAPES)
parser.add_argument("--steps", type=int, default=10); parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--threads", type=int, default=1); parser.add_argument("--compile", action="store_true")
parser.add_argument("--aot", action="store_true", help="also curate's compiled step; compiling takes minutes")
parser.add_argument("--llmc"); parser.add_argument("--candle")
parser.add_argument("--at-once", action="store_true",
                    help="all trainers of a round at the same time: the same conditions for all where others work too")
parser.add_argument("--json", help="also write all figures here")
a = parser.parse_args()
a.python = shutil.which(a.python)
for name in ("examples", "python", "llmc", "candle"):
    if getattr(a, name):
        setattr(a, name, os.path.abspath(getattr(a, name)))
layers, channels, heads, vocab, batch, seq_len = SHAPES[a.shape]
numbers = [str(n) for n in (*SHAPES[a.shape], a.steps, a.threads)]
peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nanogpt.py")
step_speed, min_gpt = (os.path.join(a.examples, name) for name in ("step_speed", "tch_min_gpt"))
clean = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}  # torch brings its own
with tempfile.TemporaryDirectory() as tmp:
    files = [os.path.join(tmp, "weights.safetensors"), os.path.join(tmp, "tokens.bin")]
    subprocess.run([step_speed, "fused", "fp32", *numbers, *files], check=True)
    names = ("layers", "channels", "heads", "vocab", "batch", "seq-len", "steps", "threads")
    python = [a.python, peer, *files] + [word for pair in zip(("--" + n for n in names), numbers) for word in pair]
    rows = {
        "nanoGPT fp32": (python, clean),
        "nanoGPT bf16 autocast + fused AdamW": ([*python, "--bf16", "--fused-adamw"], clean),
        "tch min-gpt fp32": ([min_gpt, *files, *numbers], None),
        "curate reference fp32": ([step_speed, "reference", "fp32", *numbers], None),
        "curate fused fp32": ([step_speed, "fused", "fp32", *numbers], None),
        "curate fused bf16": ([step_speed, "fused", "bf16", *numbers], None),
    }
    if a.compile:
        rows["nanoGPT fp32 torch.compile + fused AdamW"] = ([*python, "--compile", "--fused-adamw"], clean)
        rows["nanoGPT bf16 torch.compile + fused AdamW"] = ([*python, "--compile", "--bf16", "--fused-adamw"], clean)
    if a.aot:
        export = os.path.join(os.path.dirname(peer), "../../python/export_step.py")
        model = {
            "vocab_size": vocab, "context": seq_len, "layers": layers, "heads": heads, "kv_heads": heads, "channels": channels,
            "mlp_hidden": 4 * channels, "norm": "layernorm", "position": "learned", "rope_theta": 10000.0, "mlp": "gelu",
            "qk_norm": False, "tied": True, "bias": True, "norm_eps": 1e-5,
        }
        for dtype in ("fp32", "bf16"):
            config, package = (os.path.join(tmp, name) for name in ("config.json", f"{dtype}.pt2"))
            with open(config, "w") as file:
                options = {"model": model, "data": {"seq_len": seq_len}, "numerics": {"dtype": dtype, "micro_batch": batch}}
                json.dump({"options": options}, file)
            subprocess.run([a.python, export, config, "-o", package], env=clean, check=True)
            rows[f"curate aot {dtype}"] = ([step_speed, package, dtype, *numbers], None)
    if a.candle:
        shape = [*numbers[:1], *numbers[4:7], *numbers[1:3]]
        rows["candle fp32"] = ([a.candle, *files, *shape], {**clean, "RAYON_NUM_THREADS": str(a.threads)})
    if a.llmc:
        program = llmc.build(a.llmc, tmp)
        llmc.write_inputs(*files, tmp, layers, channels, heads, vocab, batch, seq_len)
        env = {**clean, "OMP_NUM_THREADS": str(a.threads), "OMP_WAIT_POLICY": "passive"}
        env.update(B=str(batch), T=str(seq_len), STEPS=str(a.steps))
        rows["llm.c fp32"] = ([program], env)
    seconds, losses = {name: [] for name in rows}, {}
    def start(name):
        command, env = rows[name]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, cwd=tmp)

    def finish(name, process):
        out = process.communicate()[0]
        if process.returncode:
            sys.exit(f"{name} ended with status {process.returncode}")
        steps = llmc.parse(out) if name.startswith("llm.c") else [json.loads(line) for line in out.splitlines()]
        seconds[name] += [step["cpu_s"] for step in steps[2:]]  # the first two warm up
        losses[name] = [step["loss"] for step in steps]

    for _ in range(a.rounds):
        if a.at_once:
            for name, process in [(name, start(name)) for name in rows]:
                finish(name, process)
        else:
            for name in rows:
                finish(name, start(name))
base, tokens = statistics.median(seconds["nanoGPT fp32"]), batch * seq_len
table = []
for name, values in seconds.items():
    middle = statistics.median(values)
    differences = [abs(x - y) for x, y in zip(losses[name], losses["nanoGPT fp32"])]
    table.append({"name": name, "cpu_s": middle, "min": min(values), "max": max(values),
                  "tokens_per_cpu_s": tokens / middle, "against_nanogpt": base / middle,
                  "first_loss_difference": differences[0], "largest_loss_difference": max(differences)})
print(f"{'':42} CPU s/step  (min-max)          tokens/CPU-s  x nanoGPT  |loss difference| first, largest")
for row in table:
    print("{name:42} {cpu_s:10.4f}  ({min:.4f}-{max:.4f})  {tokens_per_cpu_s:14.1f}  {against_nanogpt:9.2f}  "
          "{first_loss_difference:.1e} {largest_loss_difference:.1e}".format(**row))
if a.json:
    cpu = re.search("model name\\s*: (.*)", open("/proc/cpuinfo").read())
    record = {"shape": a.shape, "steps": a.steps, "rounds": a.rounds, "threads": a.threads,
              "processor": cpu and cpu[1], "load": os.getloadavg(), "python": platform.python_version(), "rows": table}
    with open(a.json, "w") as out:
        json.dump(record, out, indent=1)
