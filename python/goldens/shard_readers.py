"""Check `curate shards convert` against the other tools' own readers and writers.

    python shard_readers.py CURATE SHARDS SCRATCH

SHARDS is a shard set with a train split. Each reader that is installed (megatron-core, mosaicml-streaming, datatrove)
reads what curate writes, and curate reads what its writer writes; every id and every document must be the same.
GPT-NeoX is no package: the environment variable GPT_NEOX names a checkout of it, which needs torch.
nanoGPT's, llm.c's and OLMo's files are read here by their description with numpy. Tools that are absent are named and
left out.
"""

import csv
import gzip
import importlib.util
import json
import os
import subprocess
import sys
import types

# This directory has a datatrove.py of its own.
sys.path.pop(0)

import numpy as np  # noqa: E402

curate, shards, scratch = sys.argv[1:]
manifest = json.load(open(os.path.join(shards, "manifest.json")))
dtype = {"u16": np.uint16, "i32": np.int32}[manifest["token_width"]]
tokenizer = manifest["tokenizer"]
eod = tokenizer["eod"]


def ours(directory):
    """The documents of the train split, by the description of the format."""
    documents = []
    entry = json.load(open(os.path.join(directory, "manifest.json")))["splits"][0]
    for shard in entry["shards"]:
        stem = os.path.join(directory, shard["file"])
        tokens = np.fromfile(stem + ".bin", dtype)
        n = shard["documents"]
        lengths = np.frombuffer(open(stem + ".idx", "rb").read()[34 : 34 + 4 * n], np.int32)
        documents += np.split(tokens, np.cumsum(lengths)[:-1])
    return documents


EXPECTED = ours(shards)


def same(name, documents):
    documents = list(documents)
    assert len(documents) == len(EXPECTED), (name, len(documents), len(EXPECTED))
    for i, (got, expected) in enumerate(zip(documents, EXPECTED)):
        assert np.array_equal(np.asarray(got, np.int64), expected.astype(np.int64)), (name, i)
    print(f"{name}: {len(documents)} documents, {sum(map(len, documents))} ids equal")


def convert(source, target, *options):
    target = os.path.join(scratch, target)
    subprocess.run([curate, "shards", "convert", "--quiet", source, target, *options], check=True)
    return target


def back(name, source, *options):
    """Imports what another writer wrote."""
    facts = ["--vocab-size", str(tokenizer["vocab_size"]), "--eod", str(eod)]
    same(f"{name} -> curate", ours(convert(source, f"back-{name}", "--to", "curate", *facts, *options)))


def cut(ids, first):
    """Documents between end-of-document ids."""
    ends = np.flatnonzero(ids == eod)
    if first:
        return [np.append(part[1:], part[0]) for part in np.split(ids, ends)[1:]]
    return np.split(ids, ends + 1)[:-1]


def nanogpt():
    if dtype != np.uint16:
        return print("nanogpt: left out: its ids have 16 bits")
    out = convert(shards, "nanogpt", "--to", "nanogpt")
    same("nanogpt", cut(np.memmap(os.path.join(out, "train.bin"), np.uint16, "r"), False))


def llmc():
    out = convert(shards, "llmc", "--to", "llmc", "--file-tokens", "100000")
    documents = []
    for name in sorted(n for n in os.listdir(out) if n.startswith("train_")):
        data = open(os.path.join(out, name), "rb").read()
        header = np.frombuffer(data[:1024], np.int32)
        kind, size = {20240520: (1, np.uint16), 20240801: (7, np.uint32)}[int(header[0])]
        ids = np.frombuffer(data[1024:], size)
        assert header[1] == kind and header[2] == len(ids)
        documents += cut(ids, True)
    same("llmc", documents)


def olmo():
    out = os.path.join(convert(shards, "olmo", "--to", "olmo", "--file-tokens", "100000"), "train")
    documents = []
    for name in sorted(n for n in os.listdir(out) if n.endswith(".npy")):
        ids = np.memmap(os.path.join(out, name), dtype, "r")
        with gzip.open(os.path.join(out, name[:-4] + ".csv.gz"), "rt", newline="") as file:
            documents += [ids[int(row[0]) : int(row[1])] for row in csv.reader(file)]
    same("olmo", documents)


def megatron():
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    out = os.path.join(convert(shards, "megatron", "--to", "megatron"), "train")
    # Its rows are views of a map that goes with it: it must outlive them.
    dataset = IndexedDataset(out)
    same("megatron-core", dataset)
    assert np.array_equal(dataset.document_indices, np.arange(len(EXPECTED) + 1))
    first = os.path.join(shards, manifest["splits"][0]["shards"][0]["file"])
    assert len(IndexedDataset(first)) == manifest["splits"][0]["shards"][0]["documents"]
    for kind in {np.int32, np.int64, dtype}:
        name = f"theirs-megatron-{np.dtype(kind).name}"
        prefix = os.path.join(scratch, name)
        builder = IndexedDatasetBuilder(prefix + ".bin", dtype=kind)
        for document in EXPECTED:
            # Two sequences a document, where it has two ids.
            lengths = [1, len(document) - 1] if len(document) > 1 else [1]
            builder.add_document(document.astype(kind), lengths)
        builder.finalize(prefix + ".idx")
        back(name, prefix)


def gpt_neox():
    if "GPT_NEOX" not in os.environ:
        raise ImportError("GPT_NEOX names no checkout")
    # Of its package, named as megatron-core's, the reader needs one function; the rest wants deepspeed.
    theirs = sys.modules.pop("megatron", None)
    sys.modules["megatron"] = types.ModuleType("megatron")
    sys.modules["megatron"].print_rank_0 = lambda *message: None
    path = os.path.join(os.environ["GPT_NEOX"], "megatron/data/indexed_dataset.py")
    spec = importlib.util.spec_from_file_location("neox_indexed_dataset", path)
    neox = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(neox)
    del sys.modules["megatron"]
    if theirs:
        sys.modules["megatron"] = theirs

    out = os.path.join(convert(shards, "megatron-neox", "--to", "megatron"), "train")
    assert neox.infer_dataset_impl(out) == "mmap"
    dataset = neox.make_dataset(out, "mmap")
    same("gpt-neox", (dataset[i] for i in range(len(dataset))))
    assert np.array_equal(dataset.doc_idx, np.arange(len(EXPECTED) + 1))
    assert np.array_equal(dataset.sizes, [len(document) for document in EXPECTED])
    prefix = os.path.join(scratch, "theirs-neox")
    builder = neox.make_builder(prefix + ".bin", "mmap", tokenizer["vocab_size"])
    for document in EXPECTED:
        # Two sequences a document, where it has two ids.
        for part in np.split(document, [1]) if len(document) > 1 else [document]:
            builder.add_item(part)
        builder.end_document()
    builder.finalize(prefix + ".idx")
    back("gpt-neox", prefix)


def streaming():
    from streaming.base.format.mds.reader import MDSReader
    from streaming.base.format.mds.writer import MDSWriter

    out = os.path.join(convert(shards, "mds", "--to", "mds"), "train")
    documents = []
    for entry in json.load(open(os.path.join(out, "index.json")))["shards"]:
        reader = MDSReader.from_json(out, "", entry)
        reader.validate(False)
        documents += [reader[i]["tokens"] for i in range(reader.samples)]
    same("mosaicml-streaming", documents)
    for name, encoding in [("typed", "ndarray:int32"), ("untyped", "ndarray"), ("bytes", "bytes")]:
        theirs = os.path.join(scratch, "theirs-mds-" + name)
        columns = {"a": "str", "tokens": encoding, "z": "int"}
        with MDSWriter(columns=columns, out=theirs, hashes=["xxh3_128"], size_limit=1 << 16) as writer:
            for i, document in enumerate(EXPECTED):
                ids = document.astype(np.int64).tobytes() if encoding == "bytes" else document.astype(np.int32)
                writer.write({"a": "x" * i, "tokens": ids, "z": i})
        back("mds-" + name, theirs)


def datatrove():
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    out = os.path.join(convert(shards, "datatrove", "--to", "datatrove"), "train")
    # Its reader of files needs torch; its index is plain.
    path = os.path.join(out, "00000_train.ds")
    ids, ends = np.fromfile(path, dtype), np.fromfile(path + ".index", np.uint64)
    same("datatrove", np.split(ids, ends[:-1].astype(np.int64)))
    size = np.dtype(dtype).itemsize
    file = TokenizedFile(
        os.path.join(scratch, "theirs-datatrove"), "00000_train.ds", save_final_metadata=True,
        tokenizer_name_or_path=tokenizer["name"], token_size=size,
    )
    for document in EXPECTED:
        file.write(document.tolist(), None)
    file.close()
    metadata = [open(d + "/00000_train.ds.metadata").read() for d in (out, os.path.join(scratch, "theirs-datatrove"))]
    assert [m.split("\n")[:2] for m in metadata[:1]] == [m.split("\n")[:2] for m in metadata[1:]], metadata
    back("datatrove", os.path.join(scratch, "theirs-datatrove"))


def datatrove_torch():
    from datatrove.utils.dataset import DatatroveFileDataset

    rows = DatatroveFileDataset(os.path.join(scratch, "datatrove/train/00000_train.ds"), 63, np.dtype(dtype).itemsize)
    stream = np.concatenate(EXPECTED)
    for i in range(len(rows)):
        assert np.array_equal(rows[i]["input_ids"].numpy(), stream[64 * i : 64 * i + 64]), i
    print(f"datatrove DatatroveFileDataset: {len(rows)} rows equal")


for check in [nanogpt, llmc, olmo, megatron, gpt_neox, streaming, datatrove, datatrove_torch]:
    try:
        check()
    except ImportError as error:
        print(f"{check.__name__}: left out: {error}")
