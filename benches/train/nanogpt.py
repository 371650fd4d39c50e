"""nanoGPT's published architecture and CPU training step in plain PyTorch, written anew: the peer of step_speed.

GPT-2 with learned positions, pre-norm, causal SDPA, exact-size vocabulary; gelu in its tanh form so that both compute the
same function. AdamW as nanoGPT sets it up on a CPU (two decay groups, not fused), clip 1.0. --fused-adamw and --bf16 are
what nanoGPT does not do there.
"""
import argparse, json, time
import numpy as np, torch
import torch.nn.functional as F
from safetensors.torch import load_file

parser = argparse.ArgumentParser()
parser.add_argument("weights"); parser.add_argument("tokens")
for name in ("layers", "channels", "heads", "vocab", "batch", "seq-len", "steps", "threads"):
    parser.add_argument(f"--{name}", type=int, required=True)
parser.add_argument("--bf16", action="store_true")
parser.add_argument("--fused-adamw", action="store_true")
parser.add_argument("--compile", action="store_true")
a = parser.parse_args()
torch.set_num_threads(a.threads)
C, H = a.channels, a.heads
w = load_file(a.weights)
w["embedding.weight"] = w["embedding.weight"][: a.vocab]  # curate's padding
w = {k: torch.nn.Parameter(v.clone()) for k, v in w.items()}
tokens = torch.from_numpy(np.fromfile(a.tokens, dtype=np.int32).astype(np.int64)).view(a.steps, a.batch, a.seq_len + 1)

def norm(x, name):
    return F.layer_norm(x, (C,), w[name + ".weight"], w[name + ".bias"], 1e-5)

def linear(x, name):
    return F.linear(x, w[name + ".weight"], w[name + ".bias"])

def loss_of(ids, targets):
    B, T = ids.shape
    x = F.embedding(ids, w["embedding.weight"]) + w["position.weight"][:T]
    for i in range(a.layers):
        p = f"layers.{i}."
        q, k, v = linear(norm(x, p + "norm1"), p + "attention.qkv").split(C, dim=2)
        q, k, v = (t.view(B, T, H, C // H).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(y.transpose(1, 2).contiguous().view(B, T, C), p + "attention.out")
        x = x + linear(F.gelu(linear(norm(x, p + "norm2"), p + "mlp.up"), approximate="tanh"), p + "mlp.down")
    logits = F.linear(norm(x, "norm"), w["embedding.weight"])
    return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1))

groups = [{"params": [p for p in w.values() if p.dim() >= 2], "weight_decay": 0.1},
          {"params": [p for p in w.values() if p.dim() < 2], "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), eps=1e-8, **({"fused": True} if a.fused_adamw else {}))
if a.compile:
    loss_of = torch.compile(loss_of)
for step in tokens:
    before = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.bf16):
        loss = loss_of(step[:, :-1], step[:, 1:])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    print(json.dumps({"loss": loss.item(), "cpu_s": round(time.process_time() - before, 4)}), flush=True)
