"""Compiles the training step of a run ahead of time, for `curate train --engine aot`.

    curate train shards --preset gpt2-tiny --stop-after 0 -o run
    python3 python/export_step.py run/config.json -o step.pt2
    curate train -o run --resume --aot step.pt2

The step is a function of the weights, a micro-batch and a factor; it returns the loss and the gradient of every weight:

    weights in curate's order [, cos, sin: T x D/2], ids B x T, targets B x T, scale -> loss, gradients in the same order
    loss = scale x sum of the cross-entropies in nats; targets of -100 count for nothing

The formulas are those of the reference engine (crates/curate-train/src/model.rs). TorchInductor turns them into C++ and
compiles that for this processor. So the package holds for one model shape, one arithmetic, one micro-batch and one
length of rows, and for processors like this one; what it was made for stands in it, and curate refuses it elsewhere. The
number of threads is free.

Needs torch 2.11.0 in full and a C++ compiler; minutes for a large model. Running the package needs neither.
"""

import argparse
import json
import re
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

FORMAT_VERSION = 1
TORCH = "2.11.0"
IGNORE = -100
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def padded_vocab(config):
    """Rows of the embedding: from 1024 on a multiple of 128."""
    vocab = config["vocab_size"]
    return vocab if vocab < 1024 else -(-vocab // 128) * 128


def parameters(config):
    """Name and shape of every weight, in curate's order."""
    c, hidden = config["channels"], config["mlp_hidden"]
    d = c // config["heads"]
    found = []

    def linear(name, outputs, inputs):
        found.append((f"{name}.weight", [outputs, inputs]))
        if config["bias"]:
            found.append((f"{name}.bias", [outputs]))

    def norm(name):
        found.append((f"{name}.weight", [c]))
        if config["norm"] == "layernorm":
            found.append((f"{name}.bias", [c]))

    found.append(("embedding.weight", [padded_vocab(config), c]))
    if config["position"] == "learned":
        found.append(("position.weight", [config["context"], c]))
    for layer in range(config["layers"]):
        part = f"layers.{layer}."
        norm(part + "norm1")
        linear(part + "attention.qkv", (config["heads"] + 2 * config["kv_heads"]) * d, c)
        if config["qk_norm"]:
            found.append((part + "attention.q_norm.weight", [d]))
            found.append((part + "attention.k_norm.weight", [d]))
        linear(part + "attention.out", c, config["heads"] * d)
        norm(part + "norm2")
        linear(part + "mlp.up", 2 * hidden if config["mlp"] == "swiglu" else hidden, c)
        linear(part + "mlp.down", c, hidden)
    norm("norm")
    if not config["tied"]:
        found.append(("head.weight", [padded_vocab(config), c]))
    return found


class Decoder:
    """The reference engine's model on weights by name, cast to `dtype` where they are used."""

    def __init__(self, config, dtype, weights, rotation):
        self.config, self.dtype, self.weights, self.rotation = config, dtype, weights, rotation

    def weight(self, name):
        weight = self.weights.get(name)
        return None if weight is None else weight.to(self.dtype)

    def linear(self, name, x):
        return F.linear(x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))

    def norm(self, name, x):
        weight, eps = self.weight(f"{name}.weight"), self.config["norm_eps"]
        if self.config["norm"] == "rmsnorm" or name.endswith(("q_norm", "k_norm")):
            return F.rms_norm(x, weight.shape, weight, eps)
        return F.layer_norm(x, weight.shape, weight, self.weight(f"{name}.bias"), eps)

    def rotate(self, x):
        """Rotates the pairs (i, i + D / 2) of each head: [B, H, T, D] -> the same."""
        (a, b), (cos, sin) = x.chunk(2, -1), self.rotation
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, name, x):
        config = self.config
        (batch, time, c), heads, kv_heads = x.shape, config["heads"], config["kv_heads"]
        d = c // heads
        parts = self.linear(f"{name}.qkv", x).split([heads * d, kv_heads * d, kv_heads * d], -1)
        q, k, v = (part.view(batch, time, -1, d).transpose(1, 2) for part in parts)  # [B, H, T, D]
        if config["qk_norm"]:
            q, k = self.norm(f"{name}.q_norm", q), self.norm(f"{name}.k_norm", k)
        if self.rotation:
            q, k = self.rotate(q), self.rotate(k)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=kv_heads < heads)
        return self.linear(f"{name}.out", y.transpose(1, 2).reshape(batch, time, heads * d))

    def mlp(self, name, x):
        up, kind = self.linear(f"{name}.up", x), self.config["mlp"]
        if kind == "swiglu":
            gate, value = up.chunk(2, -1)
            active = F.silu(gate) * value
        else:
            active = F.gelu(up, approximate="tanh") if kind == "gelu" else F.relu(up).square()
        return self.linear(f"{name}.down", active)

    def loss_sum(self, ids, targets):
        x = F.embedding(ids, self.weights["embedding.weight"])  # [B, T, C]
        if "position.weight" in self.weights:
            x = x + self.weights["position.weight"][: ids.shape[1]]
        x = x.to(self.dtype)
        for layer in range(self.config["layers"]):
            part = f"layers.{layer}."
            x = x + self.attention(part + "attention", self.norm(part + "norm1", x))
            x = x + self.mlp(part + "mlp", self.norm(part + "norm2", x))
        head = self.weight("head.weight" if "head.weight" in self.weights else "embedding.weight")
        logits = F.linear(self.norm("norm", x), head)[..., : self.config["vocab_size"]].float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORE)


def training_step(config, dtype):
    """The function that is compiled."""
    names = [name for name, _ in parameters(config)]

    def step(*inputs):
        weights, (*rotation, ids, targets, scale) = inputs[: len(names)], inputs[len(names) :]
        rotation = [table.to(dtype) for table in rotation]
        model = Decoder(config, dtype, dict(zip(names, weights)), rotation)
        loss = model.loss_sum(ids, targets) * scale
        gradients = torch.autograd.grad(loss, weights)
        return loss.detach(), *(gradient.contiguous() for gradient in gradients)

    return step


def example(config, batch, seq_len):
    """Inputs of the right shapes; their values are only computed with while the step is traced."""
    inputs = [(0.02 * torch.randn(shape)).requires_grad_() for _, shape in parameters(config)]
    if config["position"] == "rope":
        half = config["channels"] // config["heads"] // 2
        inputs += [torch.rand(seq_len, half), torch.rand(seq_len, half)]
    ids = torch.randint(config["vocab_size"], (2, batch, seq_len))
    return (*inputs, ids[0], ids[1], torch.tensor(1.0))


class Module(torch.nn.Module):
    """`torch.export` takes modules only."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    def forward(self, *inputs):
        return self.graph(*inputs)


def instruction_sets():
    """What this processor can do: Inductor compiles for it alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    # Those that a compiler makes use of; others depend on the kernel and on virtual machines.
    sets = re.compile("sse|ssse|avx|fma|f16c|bmi|abm|adx|amx|movbe|popcnt|gfni|vaes|vpclmul|sha_ni|xop|tbm")
    return [flag for flag in flags if sets.match(flag)]


def compile_step(about, path):
    """Writes the package of a step that `about` describes."""
    config, dtype = about["model"], DTYPES[about["dtype"]]
    inputs = example(config, about["micro_batch"], about["seq_len"])
    graph = make_fx(training_step(config, dtype), tracing_mode="real")(*inputs)
    inputs = tuple(value.detach() for value in inputs)
    with torch.no_grad():
        program = torch.export.export(Module(graph), inputs, strict=False)
    options = {
        "aot_inductor.metadata": {"curate": json.dumps(about)},
        "cpp.dynamic_threads": True,  # as many as the run has
    }
    # Aside, then renamed: a package under its name is whole.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        aside = Path(folder) / path.name
        torch._inductor.aoti_compile_and_package(program, package_path=str(aside), inductor_configs=options)
        aside.replace(path)


def main():
    warnings.simplefilter("ignore", FutureWarning)  # torch's of its own code
    parser = argparse.ArgumentParser(
        description="Compile the training step of a run ahead of time.",
        epilog="Example: python3 python/export_step.py run/config.json -o step.pt2",
    )
    parser.add_argument("config", type=Path, help="config.json of a run directory")
    parser.add_argument("-o", "--output", type=Path, required=True, help="package to write, *.pt2")
    parser.add_argument("--micro-batch", type=int, help="rows of a pass [default: the run's]")
    parser.add_argument("--seq-len", type=int, help="tokens of a row [default: the run's]")
    parser.add_argument("--dtype", choices=DTYPES, help="arithmetic [default: the run's]")
    args = parser.parse_args()
    if torch.__version__.split("+")[0] != TORCH:
        sys.exit(f"error: this is torch {torch.__version__}; curate's is {TORCH}, and packages are for one version only")
    if args.output.suffix != ".pt2":
        sys.exit(f"error: {args.output}: the name of a package ends with .pt2")
    try:
        options = json.loads(args.config.read_text())["options"]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: {args.config}: not the config.json of a run ({error!r})")
    seq_len = args.seq_len or options["data"]["seq_len"]
    about = {
        "format_version": FORMAT_VERSION,
        "torch": TORCH,
        "model": options["model"] | {"context": seq_len},
        "dtype": args.dtype or options["numerics"]["dtype"],
        "micro_batch": args.micro_batch or options["numerics"]["micro_batch"],
        "seq_len": seq_len,
    }
    about["parameters"] = parameters(about["model"])
    about["processor"] = instruction_sets()
    # With one thread Inductor leaves OpenMP out for good.
    torch.set_num_threads(max(2, torch.get_num_threads()))
    compile_step(about, args.output)
    size = f"{about['micro_batch']} rows x {seq_len} tokens, {about['dtype']}"
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, {size}", file=sys.stderr)


if __name__ == "__main__":
    main()
