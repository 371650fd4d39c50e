"""One trainer on one text: trainer_peer.py PEER FILE.jsonl VOCABULARY MERGES.json.

Prints CPU seconds, megabytes of memory above what the texts take and of the whole process at its peak in training, and
writes the merges in order.
"""

import json
import re
import sys
import tempfile
import time

peer, path, vocabulary, output = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
END = "<|endoftext|>"
texts = [json.loads(line)["text"] for line in open(path, encoding="utf-8")]


def spelling():
    """Byte → character of byte-level vocabularies."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + n) for n, byte in enumerate(others)}


spelled = spelling()
spell = lambda token: "".join(spelled[byte] for byte in token)

if peer == "hf":
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    def run():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, min_frequency=2, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(iter(texts), trainer)
        return tokenizer

    merges = lambda found: [tuple(pair) for pair in json.loads(found.to_str())["model"]["merges"]]
elif peer == "rustbpe":
    import rustbpe

    def run():
        tokenizer = rustbpe.Tokenizer()
        tokenizer.train_from_iterator(iter(texts), vocabulary - 1, pattern=GPT2)
        return tokenizer

    # It keeps ranks, not pairs: tokens in order.
    merges = lambda found: [(spell(bytes(token)), "") for token, rank in found.get_mergeable_ranks() if rank > 255]
elif peer in ("gigatoken", "gigabpe"):
    # These read files: the end of documents stands between texts, as both cut there.
    file = tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt")
    file.write(END.join(text.replace(END, "") for text in texts))
    file.flush()
    texts = []
    if peer == "gigatoken":
        import gigatoken

        run = lambda: gigatoken.train_bpe(gigatoken.TextFileSource([file.name], separator=END), vocabulary, [END])
        merges = lambda found: [(spell(left), spell(right)) for left, right in found[1]]
    else:
        import gigabpe

        run = lambda: gigabpe.train_bpe([file.name], vocabulary, special_tokens=[END], min_frequency=2, pretokenizer="bytelevel", threads=1)
        merges = lambda found: found[1]
else:
    sys.exit(f"no peer {peer}")

# Not of getrusage: that begins with the memory of the process that started this one.
peak = lambda: int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) * 1024 / 1e6
# Begins the count of the peak anew: reading the texts may have taken more.
open("/proc/self/clear_refs", "w").write("5")
before, start = peak(), time.process_time()
found = run()
seconds, memory = time.process_time() - start, peak() - before
json.dump(merges(found), open(output, "w", encoding="utf-8"))
print(f"{seconds:.3f} {memory:.0f} {before + memory:.0f}")
