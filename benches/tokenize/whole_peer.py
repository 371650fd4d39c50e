"""One pipeline from JSONL to token files: whole_peer.py PEER TOKENIZER.json IN.jsonl OUT.

Writes as the peer's own script does and leaves its files in OUT; `whole.py` counts processor time and reads them.
"""

import functools
import json
import multiprocessing
import os
import runpy
import sys

import numpy as np

EOD = 50256


def gigatoken(tokenizer, path, out):
    import gigatoken

    loaded = gigatoken.Tokenizer(tokenizer)
    found = loaded.encode_files(gigatoken.JsonlFileSource([path]), parallel=False)
    with open(os.path.join(out, "tokens.bin"), "wb") as file:
        for ids in found:
            ids = np.asarray(ids, dtype=np.uint16)
            file.write(ids.tobytes() + np.uint16(EOD).tobytes())


def encoding(tokenizer):
    """tiktoken's GPT-2, from the ranks in a tokenizer.json instead of a download."""
    import tiktoken

    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    bytes_of = {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
    vocabulary = json.load(open(tokenizer, encoding="utf-8"))["model"]["vocab"]
    ranks = {bytes(bytes_of[c] for c in token): rank for token, rank in vocabulary.items() if token != "<|endoftext|>"}
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": EOD})


def nanogpt(tokenizer, path, out):
    """karpathy/nanoGPT, data/openwebtext/prepare.py, of a JSONL file and without the split."""
    from datasets import load_dataset

    enc = encoding(tokenizer)

    def process(example):
        ids = enc.encode_ordinary(example["text"])
        ids.append(EOD)
        return {"ids": ids, "len": len(ids)}

    dataset = load_dataset("json", data_files=path, split="train", cache_dir=os.path.join(out, "cache"))
    tokenized = dataset.map(process, remove_columns=dataset.column_names, desc="tokenizing", num_proc=1)
    total = np.sum(tokenized["len"], dtype=np.uint64)
    array = np.memmap(os.path.join(out, "tokens.bin"), dtype=np.uint16, mode="w+", shape=(int(total),))
    batches, at = min(64, len(tokenized)), 0
    for n in range(batches):
        batch = tokenized.shard(num_shards=batches, index=n, contiguous=True).with_format("numpy")
        ids = np.concatenate(batch["ids"])
        array[at : at + len(ids)] = ids
        at += len(ids)
    array.flush()


def hf_map(tokenizer, path, out):
    """`datasets.map` and `group_texts` of run_clm.py, which drops the tail of each batch of 1,000 documents."""
    from datasets import load_dataset
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(tokenizer)
    block = 1024

    def encode(examples):
        return {"input_ids": [e.ids + [EOD] for e in loaded.encode_batch(examples["text"], add_special_tokens=False)]}

    def group(examples):
        joined = [id for ids in examples["input_ids"] for id in ids]
        total = len(joined) // block * block
        return {"input_ids": [joined[at : at + block] for at in range(0, total, block)]}

    dataset = load_dataset("json", data_files=path, split="train", cache_dir=os.path.join(out, "cache"))
    tokenized = dataset.map(encode, batched=True, remove_columns=dataset.column_names)
    grouped = tokenized.map(group, batched=True)
    grouped.save_to_disk(os.path.join(out, "saved"))
    with open(os.path.join(out, "rows"), "w") as file:
        file.write(str(len(grouped) * block))


def datatrove(tokenizer, path, out):
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    steps = [
        JsonlReader(os.path.dirname(path), glob_pattern=os.path.basename(path)),
        DocumentTokenizer(out, tokenizer_name_or_path=tokenizer, eos_token="<|endoftext|>", shuffle_documents=False),
    ]
    LocalPipelineExecutor(steps, tasks=1, workers=1, logging_dir=os.path.join(out, "logs")).run()


def dolma(tokenizer, path, out):
    from dolma.cli.__main__ import main

    options = {
        "documents": path + ".gz",
        "destination": out,
        "tokenizer.name_or_path": os.path.join(os.path.dirname(tokenizer), "spaced.json"),
        "tokenizer.eos_token_id": str(EOD),
        "tokenizer.pad_token_id": str(EOD),
        "processes": "1",
        "dtype": "uint16",
    }
    main(["tokens", "--tokenizer.encode_special_tokens", *[word for option, value in options.items() for word in ("--" + option, value)]])


def tensors(tokenizer, path):
    """A tensor of ids for each document, as litdata's guide for text has it."""
    import torch
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(tokenizer)
    loaded.encode_special_tokens = True
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield torch.tensor(loaded.encode(json.loads(line)["text"], add_special_tokens=False).ids + [EOD], dtype=torch.int32)


def litdata(tokenizer, path, out):
    from litdata import TokensLoader, optimize

    read = functools.partial(tensors, tokenizer)
    optimize(read, [path], out, num_workers=1, chunk_bytes="64MB", item_loader=TokensLoader(block_size=1025))


class Encoder:
    """A worker of Megatron's preprocess_data.py."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def initialize(self):
        from tokenizers import Tokenizer

        Encoder.loaded = Tokenizer.from_file(self.tokenizer)
        Encoder.loaded.encode_special_tokens = True

    def encode(self, line):
        ids = Encoder.loaded.encode(json.loads(line)["text"], add_special_tokens=False).ids
        return ids + [EOD] if ids else ids


def megatron(tokenizer, path, out):
    """NVIDIA/Megatron-LM, tools/preprocess_data.py --append-eod --workers 1, with the tokenizers library alone."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    encoder = Encoder(tokenizer)
    builder = IndexedDatasetBuilder(os.path.join(out, "tokens.bin"), dtype=np.uint16)
    with multiprocessing.Pool(1, initializer=encoder.initialize) as pool, open(path, encoding="utf-8") as lines:
        for ids in pool.imap(encoder.encode, lines, 32):
            builder.add_document(ids, [len(ids)])
        builder.finalize(os.path.join(out, "tokens.idx"))
        pool.close()
        pool.join()


def megatron_script(name, *options):
    """A script of the checkout that MEGATRON names, as it is."""

    def run(tokenizer, path, out):
        import typing

        import typing_extensions

        # It is written for Python 3.12.
        typing.override = typing_extensions.override
        root = os.environ["MEGATRON"]
        script = os.path.join(root, "tools", name + ".py")
        model = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", os.path.dirname(tokenizer)]
        sys.argv = [script, "--input", path, "--output-prefix", os.path.join(out, "tokens"), *model, "--append-eod", *options]
        sys.path.insert(0, root)
        runpy.run_path(script, run_name="__main__")

    return run


PEERS = {"gigatoken": gigatoken, "nanogpt": nanogpt, "hf-map": hf_map, "datatrove": datatrove, "dolma": dolma, "litdata": litdata, "megatron": megatron}
PEERS["preprocess_data"] = megatron_script("preprocess_data", "--workers", "1")
PEERS["preprocess_data_fast"] = megatron_script("preprocess_data_fast", "--use-gigatoken")

if __name__ == "__main__":
    peer, tokenizer, path, out = sys.argv[1:]
    PEERS[peer](tokenizer, path, out)
