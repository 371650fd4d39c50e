"""The readers that curate's loader is compared with; each prints a line of JSON as `loader_speed read` does.

nanogpt   nanoGPT's `get_batch`, word for word but for names: random windows of a memory-mapped `.bin`, with replacement
megatron  the way of Megatron-LM's `GPTDataset`: shuffled samples of T + 1 tokens joined from documents, each cut from a
          memory-mapped `.bin` by numpy, then stacked as a DataLoader does
python    curate_shards.Batches, the reader that this project ships for Python

usage: rivals.py DIR nanogpt|megatron|python BATCHES SECONDS_AT_LEAST
"""
import json, os, sys, time

import numpy as np
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
import curate_shards

T, B = 1024, 32
torch.set_num_threads(1)
directory, reader, batches, seconds_at_least = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
manifest = json.load(open(os.path.join(directory, "manifest.json")))
dtype = {"u16": np.uint16, "i32": np.int32}[manifest["token_width"]]
shard = manifest["splits"][0]["shards"][0]["file"]
rng = np.random.default_rng(1)


def nanogpt():
    data = np.memmap(os.path.join(directory, shard + ".bin"), dtype=dtype, mode="r")
    ix = torch.randint(len(data) - T, (B,))
    x = torch.stack([torch.from_numpy((data[i : i + T]).astype(np.int64)) for i in ix])
    y = torch.stack([torch.from_numpy((data[i + 1 : i + 1 + T]).astype(np.int64)) for i in ix])
    return x, y


class Megatron:
    """Indexes are made once, as Megatron does; only reading is timed."""

    def __init__(self):
        rows = curate_shards.Rows(directory, seq_len=T, numpy_only=True)._shards[0]
        self.bin = memoryview(np.memmap(os.path.join(directory, shard + ".bin"), mode="r"))
        self.lengths, self.pointers = np.array(rows.lengths), np.array(rows.offsets)
        ends = np.cumsum(self.lengths, dtype=np.int64)
        self.samples = int((ends[-1] - 1) // T)
        starts = np.arange(self.samples + 1, dtype=np.int64) * T
        self.documents = np.searchsorted(ends, starts, side="right")
        self.offsets = starts - (ends[self.documents] - self.lengths[self.documents])
        self.shuffle = rng.permutation(self.samples)
        self.next = 0

    def get(self, document, offset, length=None):
        length = self.lengths[document] - offset if length is None else length
        place = self.pointers[document] + offset * np.dtype(dtype).itemsize
        return np.frombuffer(self.bin, dtype=dtype, count=length, offset=place)

    def sample(self, i):
        first, last = self.documents[i], self.documents[i + 1]
        start, end = self.offsets[i], self.offsets[i + 1]
        if first == last:
            parts = [self.get(first, start, end - start + 1)]
        else:
            parts = [self.get(first, start)]
            parts += [self.get(d, 0) for d in range(first + 1, last)]
            parts.append(self.get(last, 0, end + 1))
        text = torch.from_numpy(np.concatenate(parts).astype(np.int64)).long()
        return {"tokens": text[:-1].contiguous(), "labels": text[1:].contiguous()}

    def __call__(self):
        numbers = self.shuffle[self.next : self.next + B]
        self.next = (self.next + B) % (self.samples - B)
        return torch.utils.data.default_collate([self.sample(i) for i in numbers])


if reader == "python":
    iterator = iter(curate_shards.Batches(curate_shards.Rows(directory, seq_len=T), B, seed=1))
    work = lambda: next(iterator)
else:
    work = nanogpt if reader == "nanogpt" else Megatron()
work()
best, began = float("inf"), time.monotonic()
while time.monotonic() - began < seconds_at_least or best == float("inf"):
    before = time.process_time()
    for _ in range(batches):
        work()
    best = min(best, time.process_time() - before)
tokens = batches * B * T
print(json.dumps({"reader": reader, "width": np.dtype(dtype).itemsize, "policy": "concat", "order": "shuffled",
                  "work": "batch", "tokens": tokens, "cpu_s": round(best, 4),
                  "gb_per_cpu_s": round(tokens * np.dtype(dtype).itemsize / best / 1e9, 4)}))
