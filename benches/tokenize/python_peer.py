"""One Python peer on one file: python_peer.py PEER TOKENIZER.json FILE.jsonl PASSES.

Prints CPU seconds of each pass over the texts, the number of tokens, and the SHA-256 of all ids as little-endian u32.
"""

import hashlib
import json
import sys
import time
import unicodedata

import numpy as np

peer, tokenizer, path, passes = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
texts = [json.loads(line)["text"] for line in open(path, encoding="utf-8")]


def spelling():
    """Character → byte of byte-level vocabularies."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


if peer == "hf":
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(tokenizer)
    if hasattr(loaded, "encode_special_tokens"):
        loaded.encode_special_tokens = True
    batch = getattr(loaded, "encode_batch_fast", loaded.encode_batch)
    run = lambda: [e.ids for e in batch(texts, add_special_tokens=False)]
elif peer == "tiktoken":
    import tiktoken

    file = json.load(open(tokenizer, encoding="utf-8"))
    bytes_of = spelling()
    ranks = {
        bytes(bytes_of[c] for c in token): rank
        for token, rank in file["model"]["vocab"].items()
        if all(c in bytes_of for c in token) and not token.startswith("<|")
    }
    steps = file["pre_tokenizer"].get("pretokenizers", [])
    if sum(step["type"] == "Split" for step in steps) > 1:
        sys.exit("tiktoken takes one pattern")
    gpt2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    pattern = steps[0]["pattern"]["Regex"] if steps else gpt2
    loaded = tiktoken.Encoding("bench", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    # As Qwen's own tokenizer does, since tiktoken has no normalizer.
    change = (lambda text: unicodedata.normalize("NFC", text)) if (file["normalizer"] or {}).get("type") == "NFC" else str
    run = lambda: [loaded.encode_ordinary(change(text)) for text in texts]
elif peer == "fastokens":
    import fastokens

    loaded = fastokens.Tokenizer.from_file(tokenizer)
    run = lambda: [loaded.encode_ordinary(text).ids for text in texts]
elif peer == "gigatoken":
    import gigatoken

    loaded = gigatoken.Tokenizer(tokenizer)
    run = lambda: loaded.encode_batch(texts, parallel=False)
else:
    sys.exit(f"no peer {peer}")

for _ in range(passes):
    start = time.process_time()
    ids = run()
    print(f"{time.process_time() - start:.6f}", end=" ")
digest, tokens = hashlib.sha256(), 0
for text_ids in ids:
    text_ids = np.asarray(text_ids, dtype="<u4")
    digest.update(text_ids.tobytes())
    tokens += len(text_ids)
print(tokens, digest.hexdigest())
