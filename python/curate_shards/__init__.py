"""Read the token shards of `curate pack`: rows of T + 1 tokens in the order in which curate trains.

The idea: a view says which runs of which documents form a row, a plan says which rows form a step, and both are
functions of numbers that are known beforehand. So there is no state but the number of the step; a run resumes
exactly, and any number of ranks shares the same global batches.

    from curate_shards import Rows, Batches

    rows = Rows("shards", split="train", seq_len=1024)
    batches = Batches(rows, rows_per_step=32, seed=7, rank=0, world=1)
    for batch in batches:                 # endless: epochs follow one another, each in its own order
        batch["tokens"]                   # int64 [rows, T + 1]; inputs [:, :-1], targets [:, 1:]
        batch["lengths"]                  # int64 [rows]; positions from there on are padding
        batch["cu_seqlens"]               # a list of int32 arrays, one a row: document starts, then T
        torch.save(batches.state_dict(), ...)

A view that was packed with `--mix` serves its sources in turns, and rows that were copied out with `--materialise` are
read from their copy, without being asked to. What this reader does not know, it refuses by name.

Files are mapped, not read; only numpy is needed. With torch installed, `Rows` is a `torch.utils.data.Dataset`, `Batches`
an `IterableDataset`, and arrays come as tensors unless `numpy_only=True`.
"""

import json
import os
from bisect import bisect_right

import numpy as np

try:
    import torch
    from torch.utils.data import Dataset, IterableDataset
except ImportError:
    torch = None
    Dataset = IterableDataset = object

__all__ = ["Batches", "Mix", "Plan", "Rows", "ShardError"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FORMAT_VERSION = 1


class ShardError(Exception):
    """A file that is not what its set says; the message names it."""


def _mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class _Order:
    """The order of one epoch: a bijection of the numbers below `num_rows`.

    A Feistel network over the smallest power of two that holds all rows, walked until it lands on a row that exists;
    the same function as in the Rust crate's `plan.rs`, where it is written down.
    """

    def __init__(self, seed, epoch, num_rows):
        self.num_rows = num_rows
        bits = (num_rows - 1).bit_length()
        self._right_bits = (bits + 1) // 2
        self._left_mask = (1 << (bits // 2)) - 1
        self._right_mask = (1 << self._right_bits) - 1
        key = _mix((_mix((seed + _GOLDEN) & _MASK) + _GOLDEN * (epoch + 1)) & _MASK)
        self._keys = tuple(_mix((key + _GOLDEN * (i + 1)) & _MASK) for i in range(8))

    def row(self, x):
        """The row at a position."""
        keys = self._keys
        while True:
            left, right = x >> self._right_bits, x & self._right_mask
            for i in range(0, 8, 2):
                left ^= _mix(keys[i] ^ right) & self._left_mask
                right ^= _mix(keys[i + 1] ^ left) & self._right_mask
            x = (left << self._right_bits) | right
            if x < self.num_rows:
                return x

    def position(self, x):
        """The position of a row."""
        keys = self._keys
        while True:
            left, right = x >> self._right_bits, x & self._right_mask
            for i in range(6, -1, -2):
                right ^= _mix(keys[i + 1] ^ left) & self._right_mask
                left ^= _mix(keys[i] ^ right) & self._left_mask
            x = (left << self._right_bits) | right
            if x < self.num_rows:
                return x


class Plan:
    """Which row the n-th sample is: each epoch visits every row once, in an order of its own."""

    def __init__(self, seed, num_rows):
        if num_rows < 1:
            raise ValueError("num_rows: must be at least 1")
        self.seed, self.num_rows = seed & _MASK, num_rows
        self._epoch, self._order = None, None

    def sample(self, n):
        """Epoch and row of the n-th sample since the start of training."""
        epoch, position = divmod(n, self.num_rows)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, _Order(self.seed, epoch, self.num_rows)
        return epoch, self._order.row(position)


class Mix:
    """The turns of the sources of a mix, mapped; the file is drawn in the Rust crate's `mix.rs`."""

    def __init__(self, path, manifest, view_checksum):
        with open(path, "rb") as file:
            header = file.read(48 + 32 * len(manifest["sources"]))
        number = lambda at, size: int.from_bytes(header[at : at + size], "little")  # noqa: E731
        if header[:8] != b"CURMIX\0\0" or number(8, 4) != 1:
            raise ShardError(f"{path}: not a mix of version 1")
        self.names = [source["name"] for source in manifest["sources"]]
        k, self.samples, self._block = number(12, 4), number(16, 8), number(24, 8)
        if k != len(self.names) or self.samples != manifest["samples"] or f"{number(32, 16):032x}" != view_checksum:
            raise ShardError(f"{path}: it is not the mix that the manifest names")
        # First row, rows, draws of a cycle and salt of each source.
        self.sources = [tuple(number(48 + 32 * s + 8 * i, 8) for i in range(4)) for s in range(k)]
        blocks = -(-self.samples // self._block)
        self._counts = _map(path, "<u8", blocks * k, 48 + 32 * k).reshape(blocks, k)
        self._turns = _map(path, "u1", self.samples, 48 + 32 * k + 8 * k * blocks)
        self._orders = {}

    def order(self, seed, source, epoch):
        """The order of a source in an epoch; the last one of each source is kept."""
        key, order = self._orders.get(source, (None, None))
        if key != (seed, epoch):
            _, rows, _, salt = self.sources[source]
            order = _Order((seed + salt) & _MASK, epoch, rows)
            self._orders[source] = ((seed, epoch), order)
        return order

    def sample(self, seed, n):
        """Source, epoch of the source and row of the n-th sample since the start of training."""
        cycle, at = divmod(n, self.samples)
        source, start = int(self._turns[at]), at // self._block * self._block
        first, rows, draws, _ = self.sources[source]
        before = int(self._counts[at // self._block, source]) + np.count_nonzero(self._turns[start:at] == source)
        epoch, position = divmod(cycle * draws + before, rows)
        return source, epoch, first + self.order(seed, source, epoch).row(position)


class _MixedPlan:
    """A `Plan` over the turns of a mix."""

    def __init__(self, seed, mix):
        self.seed, self.mix = seed & _MASK, mix

    def sample(self, n):
        _, epoch, row = self.mix.sample(self.seed, n)
        return epoch, row


class _Copies:
    """Rows that were copied out; the file is drawn in the Rust crate's `rows.rs`."""

    def __init__(self, path, view, width, mix, checksum):
        with open(path, "rb") as file:
            header = file.read(56)
        number = lambda at, size: int.from_bytes(header[at : at + size], "little")  # noqa: E731
        if header[:8] != b"CURROWS\0" or number(8, 4) != 1:
            raise ShardError(f"{path}: not a row file of version 1")
        if number(32, 8) != view["rows"] or f"{number(40, 16):032x}" != checksum:
            raise ShardError(f"{path}: its rows are not those of the view")
        length = view["seq_len"] + 1
        self._rows = _map(path, width, view["rows"] * length, 4096).reshape(view["rows"], length)
        code, self._seed = number(20, 4), number(24, 8)
        if code not in (0, 1):
            raise ShardError(f"{path}: order {code} is not known to this reader")
        self._mix = mix
        self._order = _Order(self._seed, 0, view["rows"]) if code == 1 and mix is None and view["rows"] else None
        self._by_number = code == 0
        self._orders = {} if mix is None else {s: _Order((self._seed + salt) & _MASK, 0, rows)
                                               for s, (_, rows, _, salt) in enumerate(mix.sources)}

    def row(self, row):
        if self._by_number:
            place = row
        elif self._mix is None:
            place = self._order.position(row)
        else:
            source = bisect_right([first for first, *_ in self._mix.sources], row) - 1
            first = self._mix.sources[source][0]
            place = first + self._orders[source].position(row - first)
        return self._rows[place]


def _map(path, dtype, count, offset=0):
    """`count` numbers at byte `offset`, mapped; an empty array is not mapped, which the system would refuse."""
    if count == 0:
        return np.empty(0, dtype)
    needed = offset + count * np.dtype(dtype).itemsize
    found = os.path.getsize(path)
    if found < needed:
        raise ShardError(f"{path}: {found} bytes, expected {needed} at least")
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,))


class _Shard:
    def __init__(self, stem, tokens, documents, width):
        self.tokens = _map(stem + ".bin", width, tokens)
        with open(stem + ".idx", "rb") as file:
            header = file.read(34)
        if header[:9] != b"MMIDIDX\0\0":
            raise ShardError(f"{stem}.idx: not a Megatron index file")
        if header[9:17] != (1).to_bytes(8, "little"):
            raise ShardError(f"{stem}.idx: format version {int.from_bytes(header[9:17], 'little')} is not supported")
        if int.from_bytes(header[18:26], "little") != documents:
            raise ShardError(f"{stem}.idx: number of sequences is not {documents}")
        self.lengths = _map(stem + ".idx", "<i4", documents, 34)
        self.offsets = _map(stem + ".idx", "<i8", documents, 34 + 4 * documents)
        self.width = np.dtype(width).itemsize

    def document(self, i):
        start = int(self.offsets[i]) // self.width
        return self.tokens[start : start + int(self.lengths[i])]


class Rows(Dataset):
    """The rows of one split for one sequence length, by number."""

    def __init__(self, directory, split="train", seq_len=1024, numpy_only=False):
        path = os.path.join(directory, "manifest.json")
        try:
            with open(path, encoding="utf-8") as file:
                manifest = json.load(file)
        except FileNotFoundError:
            raise ShardError(f"{directory}: not a shard set, there is no manifest.json") from None
        version = manifest.get("format_version")
        if manifest.get("format") != "curate-shards" or version != _FORMAT_VERSION:
            raise ShardError(f"{path}: format version {version} is not supported (this reads {_FORMAT_VERSION})")
        splits = {entry["name"]: entry for entry in manifest["splits"]}
        if split not in splits:
            raise ShardError(f"{directory}: no split named {split!r} (there are: {', '.join(splits)})")
        views = {entry["seq_len"]: entry for entry in manifest["views"] if entry["split"] == split}
        if seq_len not in views:
            there = ", ".join(map(str, views)) or "none"
            raise ShardError(f"{directory}: split {split!r} has no view for seq_len {seq_len} (there are: {there})")
        view = views[seq_len]
        self.directory, self.split, self.seq_len = directory, split, seq_len
        self.eod = manifest["tokenizer"]["eod"]
        self.vocab_size = manifest["tokenizer"]["vocab_size"]
        # Identity of the rows, and of their turns: what a resumed run compares.
        self.checksum = (view.get("mix") or view)["xxh3_128"]
        self._torch = torch is not None and not numpy_only
        width = {"u16": "<u2", "i32": "<i4"}[manifest["token_width"]]
        self._shards, self._firsts, first = [], [], 0
        for entry in splits[split]["shards"]:
            stem = os.path.join(directory, entry["file"])
            self._shards.append(_Shard(stem, entry["tokens"], entry["documents"], width))
            self._firsts.append(first)
            first += entry["documents"]
        self.num_documents, self.num_rows = first, view["rows"]
        path = os.path.join(directory, view["file"])
        with open(path, "rb") as file:
            header = file.read(64)
        if header[:8] != b"CURVIEW\0" or int.from_bytes(header[8:12], "little") != 1:
            raise ShardError(f"{path}: not a view of version 1")
        unknown = int.from_bytes(header[20:24], "little") & ~3
        if unknown:
            raise ShardError(f"{path}: flags {unknown:#x} are not known to this reader")
        if int.from_bytes(header[24:32], "little") != self.num_rows:
            raise ShardError(f"{path}: number of rows is not {self.num_rows}")
        self._starts = _map(path, "<u8", self.num_rows + 1, 64)
        run = np.dtype([("document", "<u8"), ("offset", "<u4"), ("length", "<u4")])
        self._runs = _map(path, run, view["runs"], 64 + 8 * (self.num_rows + 1))
        self.mix = self._copies = None
        if view.get("mix"):
            self.mix = Mix(os.path.join(directory, view["mix"]["file"]), view["mix"], view["xxh3_128"])
        if view.get("materialised"):
            path = os.path.join(directory, view["materialised"]["file"])
            self._copies = _Copies(path, view, width, self.mix, self.checksum)

    def plan(self, seed):
        """The order in which training with this seed visits the rows: `.sample(n)` is the epoch and row of the n-th."""
        return Plan(seed, self.num_rows) if self.mix is None else _MixedPlan(seed, self.mix)

    def __len__(self):
        return self.num_rows

    def document(self, i):
        """The ids of a document of the split, mapped; the last is the end-of-document id."""
        if not 0 <= i < self.num_documents:
            raise IndexError(f"split {self.split!r} has {self.num_documents} documents, none numbered {i}")
        shard = bisect_right(self._firsts, i) - 1
        return self._shards[shard].document(i - self._firsts[shard])

    def fill(self, row, out):
        """Writes row `row` into `out`, int64 of T + 1; returns its length and where its documents start."""
        if not 0 <= row < self.num_rows:
            raise IndexError(f"the view has {self.num_rows} rows, none numbered {row}")
        filled, starts = 0, []
        if self._copies is not None:
            out[:] = self._copies.row(row)
            for length in self._runs[int(self._starts[row]) : int(self._starts[row + 1])]["length"]:
                starts.append(filled)
                filled += int(length)
            out[filled:] = self.eod
            return filled, starts
        for run in self._runs[int(self._starts[row]) : int(self._starts[row + 1])]:
            offset, length = int(run["offset"]), int(run["length"])
            tokens = self.document(int(run["document"]))[offset : offset + length]
            if len(tokens) != length or filled + length > len(out):
                raise ShardError(f"{self.directory}: row {row} points where nothing is")
            starts.append(filled)
            out[filled : filled + length] = tokens
            filled += length
        out[filled:] = self.eod
        return filled, starts

    def _cu_seqlens(self, starts, length):
        """Boundaries of documents among the T inputs; padding is a sequence of its own, at the end."""
        marks = {start for start in starts if start < self.seq_len} | {min(length, self.seq_len), self.seq_len}
        return np.array(sorted(marks), np.int32)

    def _wrap(self, array):
        return torch.from_numpy(array) if self._torch else array

    def __getitem__(self, row):
        tokens = np.empty(self.seq_len + 1, np.int64)
        length, starts = self.fill(row, tokens)
        return {
            "tokens": self._wrap(tokens),
            "length": length,
            "document_starts": self._wrap(np.array(starts, np.int32)),
            "cu_seqlens": self._wrap(self._cu_seqlens(starts, length)),
        }


class Batches(IterableDataset):
    """The batches of one rank, from any step on, without end.

    The rows of a step are the same for every `world`: rank r takes the r-th of `world` equal parts of them. With a
    `DataLoader`, give `batch_size=None`; more than one worker would serve the same batches again and is refused.
    """

    def __init__(self, rows, rows_per_step, seed=0, rank=0, world=1):
        if not 0 <= rank < world:
            raise ValueError(f"rank: {rank} is not in 0..{world}")
        if rows_per_step < 1 or rows_per_step % world:
            raise ValueError(f"rows_per_step: {rows_per_step} rows cannot be shared equally by {world} ranks")
        self.rows, self.rows_per_step, self.seed = rows, rows_per_step, seed
        self.rank, self.world, self.step = rank, world, 0
        self._plan = rows.plan(seed)

    def row_numbers(self, step):
        """The rows of this rank in a step."""
        share = self.rows_per_step // self.world
        first = step * self.rows_per_step + self.rank * share
        return [self._plan.sample(n)[1] for n in range(first, first + share)]

    def batch(self, step):
        """The batch of this rank in a step."""
        numbers = self.row_numbers(step)
        tokens = np.empty((len(numbers), self.rows.seq_len + 1), np.int64)
        filled = [self.rows.fill(row, out) for row, out in zip(numbers, tokens)]
        wrap = self.rows._wrap
        return {
            "tokens": wrap(tokens),
            "lengths": wrap(np.array([length for length, _ in filled], np.int64)),
            "document_starts": [wrap(np.array(starts, np.int32)) for _, starts in filled],
            "cu_seqlens": [wrap(self.rows._cu_seqlens(starts, length)) for length, starts in filled],
        }

    def __iter__(self):
        if torch is not None:
            worker = torch.utils.data.get_worker_info()
            if worker is not None and worker.num_workers > 1:
                raise ValueError("num_workers: more than one would serve the same batches again")
        return self

    def __next__(self):
        batch = self.batch(self.step)
        self.step += 1
        return batch

    def state_dict(self):
        """Where to go on; the same for all ranks and for any number of them."""
        return {
            "step": self.step,
            "seed": self.seed,
            "rows_per_step": self.rows_per_step,
            "view": self.rows.checksum,
        }

    def load_state_dict(self, state):
        """Goes on where `state` was taken; refuses that of other rows or of another order."""
        for name, ours in [("view", self.rows.checksum), ("seed", self.seed), ("rows_per_step", self.rows_per_step)]:
            if state[name] != ours:
                raise ShardError(f"{name} is {ours!r} here, the state has {state[name]!r}")
        self.step = state["step"]
