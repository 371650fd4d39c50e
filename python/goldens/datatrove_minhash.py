#!/usr/bin/env python3
"""What datatrove's MinHash says of documents that this script makes, or of a file.

usage: datatrove_minhash.py > crates/curate-dedup/goldens/datatrove.jsonl
       datatrove_minhash.py DOCS.jsonl COUNT > out.jsonl        the first COUNT documents, each COUNT-th part of the file
       datatrove_minhash.py --tables > crates/curate-dedup/src/datatrove/tables.rs

Runs the four steps of datatrove (signatures, buckets, clusters, and the removal lists of the last) with its default
configuration and a tokenizer that splits on white space. Each line of the result: {"text", "signature": [112 numbers] or
null, "representative": the number of the document that is kept for this one}. The reference was made with datatrove
0.10.1, numpy 2, CPython 3.11.

Needs: pip install 'datatrove[io]' xxhash regex numpy
"""

import json
import os
import random
import struct
import sys
import tempfile

WORDS = """river stone winter letter garden market engine window paper island silver thunder morning candle bridge
forest harbour kitchen meadow signal lantern copper orchard saddle velvet willow anchor basket cedar dagger""".split()


def documents():
    """Documents of our own: scripts, numbers, punctuation, short ones, and families that resemble each other."""
    rng = random.Random(7)
    texts = [
        "", "one two three four", "one two three four five", "One, two; three: four - five!",
        "In 1,234.56 days v1.2.3 of 7٫5 and ٣٤،٥ cost $9.99 (or 10,000,000).",
        "Ça va? Où êtes-vous, élève naïf, à Zürich, Łódź or Kraków — İstanbul, ŠKODA?",
        "Ο ΟΔΥΣΣΕΑΣ ΚΑΙ Ο ΣΙΣΥΦΟΣ ΤΗΣ ΟΔΟΥ ΠΑΝΤΑΣ", "Привет, мир! Ещё один йогурт стоит 12,5 рублей № 7.",
        "한국어 문장도 다섯 단어가 넘으면 서명을 받는다.", "我们 今天 下午 要去 图书馆 。 你 呢 ？", "हिन्दी में १२३ और ४५.६ संख्याएँ हैं, है ना?",
        "tabs\tand\nlines\r\nand\u3000wide\u00a0spaces\x1fcontrols\x7f\x85here and\u200bthere",
        "😀 emoji 👩‍👩‍👧 and 𝟙𝟚𝟛 digits 𝐀𝐁𝐂 letters e\u0301 marks \u0301 alone x\u302e\u0300y z",
        "_snake_case_ [brackets] {braces} a/b c\\d e|f g~h i^j k`l m´n o…p q–r s—t u«v» w„x“ y’z ％１〈a",
    ]
    for family in range(8):
        base = [rng.choice(WORDS) + str(rng.randrange(40)) for _ in range(rng.randrange(60, 160))]
        for member in range(rng.randrange(2, 6)):
            words = list(base)
            for _ in range(rng.choice([0, 0, 1, 2, 4, 8])):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
            texts.append(rng.choice([" ", ", "]).join(words))
    rng.shuffle(texts)
    return texts


def signatures_and_partition(texts):
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.utils.word_tokenizers import WordTokenizer

    class WhiteSpace(WordTokenizer):
        def word_tokenize(self, text):
            return text.split()

        def sent_tokenize(self, text):
            raise NotImplementedError

        def span_tokenize(self, text):
            raise NotImplementedError

    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)
        step = MinhashDedupSignature(path("sigs"), language=WhiteSpace())
        signatures = []
        for text in texts:
            shingles = step.get_shingles(text)
            signatures.append([x for band in step.get_signature(shingles) for x in band] if shingles.size else None)
        step.run((Document(text=text, id=str(i)) for i, text in enumerate(texts)), 0, 1)
        for rank in range(14):
            MinhashDedupBuckets(path("sigs"), path("dups")).run(None, rank, 14)
        MinhashDedupCluster(path("dups"), path("remove"), save_cluster_id=True).run(None, 0, 1)
        removed, clusters = set(), {}
        name = path("remove/000000.remove")
        if os.path.exists(name):
            data = open(name, "rb").read()
            removed = set(struct.unpack(f"<{len(data) // 4}I", data))
            data = open(path("remove/000000.clusters"), "rb").read()
            pairs = list(struct.iter_unpack("<2I", data))
            for doc, cluster in pairs:
                if doc not in removed:
                    clusters[cluster] = doc
            representatives = {doc: clusters[cluster] for doc, cluster in pairs}
        else:
            representatives = {}
    return signatures, [representatives.get(i, i) for i in range(len(texts))]


def tables():
    import unicodedata

    import regex

    def ranges(holds):
        found = []
        for code in (c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and holds(chr(c))):
            if found and found[-1][1] == code - 1:
                found[-1][1] = code
            else:
                found.append([code, code])
        return found

    def show(name, doc, found):
        print(f"\n/// {doc}\npub(super) const {name}: [(u32, u32); {len(found)}] = [")
        line = "   "
        for first, last in found:
            item = f" (0x{first:04X}, 0x{last:04X}),"
            if len(line) + len(item) > 110:
                print(line)
                line = "   "
            line += item
        print(f"{line}\n];")

    print("//! Two Unicode categories as ranges, first and last code point; made by\n"
          "//! `python/goldens/datatrove_minhash.py --tables`.")
    show("DECIMAL_DIGITS", "`Nd`, as the `regex` package that datatrove uses has it: Unicode 17.",
         ranges(lambda c: regex.match(r"\p{Nd}", c)))
    show("NONSPACING_MARKS", "`Mn`, as `unicodedata` of CPython 3.11 has it: Unicode 14.",
         ranges(lambda c: unicodedata.category(c) == "Mn"))


def main():
    if sys.argv[1:] == ["--tables"]:
        return tables()
    texts = documents()
    if len(sys.argv) > 1:
        lines = open(sys.argv[1], encoding="utf-8").readlines()
        texts = [json.loads(line)["text"] for line in lines[:: max(1, len(lines) // int(sys.argv[2]))]]
    for text, signature, representative in zip(texts, *signatures_and_partition(texts)):
        print(json.dumps({"text": text, "signature": signature, "representative": representative}, ensure_ascii=False))


if __name__ == "__main__":
    main()
