"""Losses by transformers and lm-eval. usage: eval_oracle.py DIR [LM_EVAL_UTILS]; DIR holds a model and task.json."""
import importlib.util, json, sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

folder = Path(sys.argv[1])
task = json.loads((folder / "task.json").read_text())
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()


def recipe(ids, max_length, stride):
    """The loop of transformers' docs/source/en/perplexity.md, whose loss is a mean over the targets that are left."""
    encodings = torch.tensor([ids])
    seq_len, nll_sum, n_tokens, prev_end_loc = encodings.size(1), 0.0, 0, 0
    for begin_loc in range(0, seq_len, stride):
        end_loc = min(begin_loc + max_length, seq_len)
        trg_len = end_loc - prev_end_loc
        input_ids = encodings[:, begin_loc:end_loc]
        target_ids = input_ids.clone()
        target_ids[:, :-trg_len] = -100
        with torch.no_grad():
            loss = model(input_ids, labels=target_ids).loss
        num_loss_tokens = (target_ids != -100).sum().item() - 1
        nll_sum += loss.item() * num_loss_tokens if num_loss_tokens else 0.0
        n_tokens += num_loss_tokens
        prev_end_loc = end_loc
        if end_loc == seq_len:
            break
    return {"nats": nll_sum, "tokens": n_tokens}


def lm_eval_utils():
    """lm_eval/utils.py as installed, without the rest of the package; None if it is not there."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None:
        return None
    path = Path(spec.submodule_search_locations[0]) / "utils.py"
    module_spec = importlib.util.spec_from_file_location("lm_eval_utils", path)
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception:
        return None
    return module


def rolling(utils, ids, max_length, prefix):
    windows = utils.get_rolling_token_windows(token_list=ids, prefix_token=prefix, max_seq_len=max_length, context_len=1)
    total = 0.0
    for context, continuation in map(utils.make_disjoint_window, windows):
        inputs = (list(context) + list(continuation))[-(max_length + 1) :][:-1]
        with torch.no_grad():
            logits = model(torch.tensor([inputs])).logits[0, -len(continuation) :].log_softmax(-1)
        total -= logits.gather(1, torch.tensor(continuation)[:, None]).double().sum().item()
    return total


stream = []
for i, document in enumerate(task["documents"]):
    stream += (task["join"] if i else []) + document
out = {"transformers": [recipe(stream, w, s) for w, s in task["windows"]]}
utils = lm_eval_utils()
if utils:
    out["lm_eval"] = [sum(rolling(utils, d, w, task["prefix"]) for d in task["documents"] if d) for w, _ in task["windows"]]
print(json.dumps(out))
