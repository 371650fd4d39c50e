"""What bf16 costs the gradients, and where: the fp64 model with the roundings of the fused engine put in one by one.

    pip install torch==2.11.0 numpy
    python3 benches/train/rounding.py             # a minute

Prints the largest relative error (2-norm, a tensor at a time, five seeds) of the weight gradients of QK-norm and of all other
tensors. A point is one place where the engine holds numbers as bf16: an operand of a matrix product, which tensor cores
want so, or a result that is stored. Rounding only the operands leaves the error of an engine that keeps everything else exact:
no kernel can do better with products of bf16.
"""

import math

import torch
import torch.nn.functional as F

OPERANDS = ["qkv.weight", "h1", "q, k, v", "p", "y", "out.weight", "h2", "up.weight", "active", "down.weight", "hidden"]
OPERANDS += ["head.weight", "dlogits", "dx", "dup", "dy", "dS", "dqkv"]
RESULTS = ["qkv", "dq, dk", "branch", "up", "logits", "dhidden", "dh2", "dactive", "dh1"]
SIZES = [dict(C=32, H=4, T=12, B=3, V=27), dict(C=128, H=4, T=64, B=4, V=500), dict(C=256, H=4, T=128, B=4, V=1000)]
LAYERS, SEEDS, EPS = 2, 5, 1e-5


def bf16(x):
    return x.float().bfloat16().to(x.dtype)


class Point(torch.autograd.Function):
    """The identity, rounded to bf16 forward, its gradient backward, or both."""

    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.backward_rounds = backward
        return bf16(x) if forward else x.clone()

    @staticmethod
    def backward(ctx, g):
        return (bf16(g) if ctx.backward_rounds else g), None, None


class Attention(torch.autograd.Function):
    """Flash attention's formulas; its result is rounded before the backward pass uses it."""

    @staticmethod
    def forward(ctx, q, k, v, on):
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
        power = (scores - scores.amax(-1, keepdim=True)).exp()
        total = power.sum(-1, keepdim=True)
        out = (bf16(power) if "p" in on else power) @ v / total
        out = bf16(out) if "y" in on else out
        ctx.on = on
        ctx.save_for_backward(q, k, v, power / total, out)
        return out

    @staticmethod
    def backward(ctx, g):
        q, k, v, p, out = ctx.saved_tensors
        ds = p * (g @ v.mT - (g * out).sum(-1, keepdim=True)) / math.sqrt(q.shape[-1])
        ds = bf16(ds) if "dS" in ctx.on else ds
        return ds @ k, ds.mT @ q, (bf16(p) if "p" in ctx.on else p).mT @ g, None


def weights(C, V, H, seed, **_):
    g = torch.Generator().manual_seed(seed)
    normal = lambda *size: 0.02 * torch.randn(*size, generator=g, dtype=torch.float64)
    w = {"head.weight": normal(V, C), "norm": torch.ones(C).double()}
    for layer in range(LAYERS):
        block = {"norm1": torch.ones(C), "q_norm": torch.ones(C // H), "k_norm": torch.ones(C // H), "norm2": torch.ones(C)}
        block |= {"qkv.weight": normal(3 * C, C), "out.weight": normal(C, C) / 2, "up.weight": normal(4 * C, C)}
        block |= {"down.weight": normal(C, 4 * C) / 2}
        w |= {f"{layer}.{name}": tensor.double() for name, tensor in block.items()}
    return {name: tensor.float().double() for name, tensor in w.items()}


def gradients(w, ids, targets, H, on):
    """Of the mean loss, with bf16 at the points `on`; with `on` = None in fp32 under torch's autocast."""
    auto, on = on is None, on or ()
    w = {name: (t.float() if auto else t).clone().requires_grad_() for name, t in w.items()}
    (B, T), C = ids.shape, w["norm"].shape[0]
    D = C // H
    point = lambda x, forward=None, backward=None: x if auto else Point.apply(x, forward in on, backward in on)
    weight = lambda name: point(w[name], name.split(".", 1)[1] if name[0].isdigit() else name)
    linear = lambda x, name: F.linear(x, weight(name))

    def norm(x, name):
        with torch.autocast("cpu", enabled=False):  # as autocast has it on a GPU
            return F.rms_norm(x.to(w[name].dtype), w[name].shape, w[name], EPS)

    angles = torch.arange(T).double()[:, None] * 1e4 ** (-torch.arange(D // 2).double() * 2 / D)
    cos, sin = (f(angles).to(w["norm"].dtype) for f in (torch.cos, torch.sin))

    def turned(x):
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    with torch.autocast("cpu", torch.bfloat16, enabled=auto):
        x = w["head.weight"][ids]
        for layer in range(LAYERS):
            name = lambda what: f"{layer}.{what}"
            h = point(norm(x, name("norm1")), "h1", "dh1")
            qkv = point(linear(h, name("qkv.weight")), "qkv", "dqkv").view(B, T, 3 * H, D).transpose(1, 2)
            q, k, v = qkv.chunk(3, 1)
            q, k = (point(turned(norm(x, name(n))), "q, k, v", "dq, dk") for x, n in [(q, "q_norm"), (k, "k_norm")])
            v = point(v, "q, k, v")
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True) if auto else Attention.apply(q, k, v, on)
            y = point(y.transpose(1, 2).reshape(B, T, C), None, "dy")
            x = x + point(linear(y, name("out.weight")), "branch", "dx")
            up = point(linear(point(norm(x, name("norm2")), "h2", "dh2"), name("up.weight")), "up", "dup")
            active = point(F.gelu(up, approximate="tanh"), "active", "dactive")
            x = x + point(linear(active, name("down.weight")), "branch", "dx")
        logits = point(linear(point(norm(x, "norm"), "hidden", "dhidden"), "head.weight"), "logits", "dlogits")
    logits = logits.float() if auto else logits
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    return {name: t.grad.double() for name, t in w.items()}


def main():
    torch.set_num_threads(1)
    ways = {"operands of the product for q, k, v": ["qkv.weight", "h1"], "operands of all products": OPERANDS}
    ways |= {"stored results": RESULTS, "both, as the fused engine": OPERANDS + RESULTS, "torch's autocast": None}
    ways |= {f"{point} alone": [point] for point in OPERANDS + RESULTS}
    worst = {way: [] for way in ways}
    for size in SIZES:
        errors = {way: [0.0, 0.0] for way in ways}
        for seed in range(SEEDS):
            w = weights(seed=seed, **size)
            g = torch.Generator().manual_seed(seed)
            ids, targets = torch.randint(size["V"], (2, size["B"], size["T"]), generator=g)
            exact = gradients(w, ids, targets, size["H"], [])
            for way, on in ways.items():
                for name, found in gradients(w, ids, targets, size["H"], on).items():
                    error = ((found - exact[name]).norm() / exact[name].norm()).item()
                    which = 0 if name.endswith(("q_norm", "k_norm")) else 1
                    errors[way][which] = max(errors[way][which], error)
        for way in ways:
            worst[way].append(errors[way])
    print(f"{'%: QK-norm, others':38}" + "".join(f"{s['C']:8} ch. × {s['B'] * s['T']:4}" for s in SIZES))
    for way, errors in worst.items():
        print(f"{way:38}" + "".join(f"{100 * qk:12.2f} {100 * others:6.2f}" for qk, others in errors))


if __name__ == "__main__":
    main()
