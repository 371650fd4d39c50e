"""llm.c's CPU trainer, given the weights, tokens and shape of the comparison.

Its `main` is hard-wired: files, batch, steps, a shuffled loader, evaluation and sampling in between, wall time. PATCHES
makes these variable and the time CPU time; the model, its passes and the update are untouched. It has neither clipping
nor decay groups, so that only the first loss can be compared.
"""
import os, shutil, struct, subprocess
import numpy as np
from safetensors.numpy import load_file

PATCHES = [
    ("int B = 4;", "int B = atoi(getenv(\"B\"));"),
    ("int T = 64;", "int T = atoi(getenv(\"T\"));"),
    ("step <= 40", "step < atoi(getenv(\"STEPS\"))"),
    ("B, T, 0, 1, 1);", "B, T, 0, 1, 0);"),  # in the file's order
    ("if (step % 10 == 0) {", "if (0) {"),
    ("if (step > 0 && step % 20 == 0) {", "if (0) {"),
    ("CLOCK_MONOTONIC, &start", "CLOCK_PROCESS_CPUTIME_ID, &start"),
    ("CLOCK_MONOTONIC, &end", "CLOCK_PROCESS_CPUTIME_ID, &end"),
    ("1e-4f, 0.9f, 0.999f, 1e-8f, 0.0f", "6e-4f, 0.9f, 0.95f, 1e-8f, 0.1f"),
]
ORDER = ["norm1.weight", "norm1.bias", "attention.qkv.weight", "attention.qkv.bias", "attention.out.weight",
         "attention.out.bias", "norm2.weight", "norm2.bias", "mlp.up.weight", "mlp.up.bias", "mlp.down.weight",
         "mlp.down.bias"]


def build(checkout, folder):
    """Compile a patched copy in `folder` and return the program."""
    source = open(os.path.join(checkout, "train_gpt2.c")).read()
    for old, new in PATCHES:
        assert old in source, f"llm.c no longer has {old!r}"
        source = source.replace(old, new)
    shutil.copytree(os.path.join(checkout, "llmc"), os.path.join(folder, "llmc"))
    path = os.path.join(folder, "train_gpt2.c")
    open(path, "w").write(source)
    flags = ["-Ofast", "-march=native", "-fopenmp", "-DOMP", "-Wno-unused-result"]
    subprocess.run(["gcc", *flags, path, "-o", os.path.join(folder, "train_gpt2"), "-lm"], check=True, cwd=folder)
    return os.path.join(folder, "train_gpt2")


def write_inputs(weights, tokens, folder, layers, channels, heads, vocab, batch, seq_len):
    """The model (version 3, fp32) and the token file in llm.c's formats, where its `main` looks for them."""
    w = load_file(weights)
    header = np.zeros(256, np.int32)
    header[:8] = [20240326, 3, seq_len, vocab, layers, heads, channels, w["embedding.weight"].shape[0]]
    with open(os.path.join(folder, "gpt2_124M.bin"), "wb") as out:
        out.write(header.tobytes())
        for name in ("embedding.weight", "position.weight"):
            out.write(w[name].tobytes())
        for name in ORDER:
            for layer in range(layers):
                out.write(w[f"layers.{layer}.{name}"].tobytes())
        for name in ("norm.weight", "norm.bias"):
            out.write(w[name].tobytes())
    rows = np.fromfile(tokens, dtype=np.int32).reshape(-1, seq_len + 1)
    stream = np.concatenate([rows[:, :-1].reshape(-1), rows[-1, -1:]]).astype(np.uint16)
    data = os.path.join(folder, "dev/data/tinyshakespeare")
    os.makedirs(data, exist_ok=True)
    header[:3] = [20240520, 1, len(stream)]
    for split in ("train", "val"):
        with open(os.path.join(data, f"tiny_shakespeare_{split}.bin"), "wb") as out:
            out.write(header.tobytes() + stream.tobytes())


def parse(text):
    """The lines `step N: train loss L (took M ms)` as the other peers print them."""
    steps = []
    for line in text.splitlines():
        if line.startswith("step "):
            words = line.split()
            steps.append({"loss": float(words[4]), "cpu_s": float(words[6]) / 1000})
    return steps
