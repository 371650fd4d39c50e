"""nanoGPT's published architecture and GPU training step in plain PyTorch, written anew: the peer of gpu_step.

GPT-2 with learned positions, pre-norm, flash attention through SDPA, bf16 autocast, fused AdamW with two decay groups, clip 1.0,
TF32 allowed: what nanoGPT's train.py does on one GPU. gelu in its tanh form, so that both compute the same function. --compile is
its torch.compile(model). One JSON line a step; seconds from one loss on the host to the next.
"""
import argparse, json, time
import numpy as np, torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file


class Block(nn.Module):
    def __init__(self, C, H):
        super().__init__()
        self.H = H
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.up, self.down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(C, dim=2)
        q, k, v = (t.view(B, T, self.H, C // self.H).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, V, T, L, H, C):
        super().__init__()
        self.embedding, self.position = nn.Embedding(V, C), nn.Embedding(T, C)
        self.layers = nn.ModuleList(Block(C, H) for _ in range(L))
        self.norm = nn.LayerNorm(C)
        self.head = nn.Linear(C, V, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids, targets):
        x = self.embedding(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        for block in self.layers:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("weights"); parser.add_argument("tokens")
    for name in ("layers", "heads", "channels", "batch", "seq-len", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--device", default="cuda")
    a = parser.parse_args()
    if not a.fp32:  # nanoGPT's settings; a comparison in fp32 is of exact products
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    weights = load_file(a.weights)
    model = GPT(weights["embedding.weight"].shape[0], a.seq_len, a.layers, a.heads, a.channels)
    renamed = {k.replace("attention.", "").replace("mlp.", ""): v for k, v in weights.items()}
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert missing == ["head.weight"] and not unexpected, (missing, unexpected)  # the head is the embedding
    model.to(a.device)
    tokens = torch.from_numpy(np.fromfile(a.tokens, dtype=np.int32).astype(np.int64)).view(a.steps, a.batch, a.seq_len + 1)
    groups = [{"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
              {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), eps=1e-8, fused=a.device == "cuda")
    step = torch.compile(model) if a.compile else model
    last = time.perf_counter()
    for batch in tokens:
        batch = batch.pin_memory().to(a.device, non_blocking=True) if a.device == "cuda" else batch
        with torch.autocast(a.device, dtype=torch.bfloat16, enabled=not a.fp32):
            loss = step(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        now = time.perf_counter()
        print(json.dumps({"loss": value, "norm": norm.item(), "seconds": round(now - last, 6)}), flush=True)
        last = now
    peak = torch.cuda.max_memory_allocated() if a.device == "cuda" else 0
    print(json.dumps({"opened_s": 0, "peak_bytes": peak}))


main()
