"""Logits of transformers. usage: transformers_oracle.py logits DIR... | make DIR

logits: writes DIR/logits.f32 for each exported model, from the ids in DIR/ids.json.
make:   saves random models of its own under DIR, with ids and logits beside them.
"""
import json, sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config


def logits(model, folder):
    ids = json.loads((folder / "ids.json").read_text())
    with torch.no_grad():
        out = model.eval()(torch.tensor([ids])).logits[0].float().contiguous()
    (folder / "logits.f32").write_bytes(out.numpy().tobytes())


def make(root):
    torch.manual_seed(1)
    small = dict(vocab_size=1500, bos_token_id=0, eos_token_id=0)
    llama = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
                 max_position_embeddings=64, initializer_range=0.2, **small)
    configs = {
        "gpt2": GPT2Config(n_embd=48, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2, **small),
        "gpt2-inner": GPT2Config(n_embd=48, n_layer=1, n_head=4, n_positions=64, n_inner=72, layer_norm_epsilon=1e-3,
                                 tie_word_embeddings=False, initializer_range=0.2, **small),
        "llama": LlamaConfig(rope_theta=5e5, rms_norm_eps=1e-6, **llama),
        "llama-bias": LlamaConfig(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, **llama),
        "qwen3": Qwen3Config(head_dim=8, rms_norm_eps=1e-4, **llama),
    }
    for name, config in configs.items():
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():  # biases and norms start as constants, which would hide a wrong place
            for p in model.parameters():
                if p.dim() == 1:
                    p.add_(0.3 * torch.randn_like(p))
        folder = root / name
        model.save_pretrained(folder, max_shard_size="100KB" if name == "llama" else "5GB")
        (folder / "ids.json").write_text(json.dumps([(i * 37 + 5) % 1500 for i in range(40)]))
        logits(model, folder)


if sys.argv[1] == "make":
    make(Path(sys.argv[2]))
else:
    for folder in map(Path, sys.argv[2:]):
        logits(AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32), folder)
