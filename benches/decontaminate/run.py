#!/usr/bin/env python3
"""Evaluation items planted in clean documents: recall, false hits and CPU seconds of `curate decontaminate` and datatrove.

usage: benches/decontaminate/run.py CURATE ITEMS.jsonl CLEAN.jsonl [PEER_DOCUMENTS]

CURATE is the binary; ITEMS has `question` and `answer` in each line, CLEAN `id` and `text`. Needs Python with
datatrove 0.10.1 (pip install 'datatrove[processing]==0.10.1' spacy); without it only curate is measured.

One of ten documents gets an item, in one of seven ways; the seed is fixed. datatrove's index is built by its own
`compute_hashes` (its indexer as a whole needs lighteval) and read by its own `NGramsDecontFilter`, once with its defaults
(12-grams of the answer and of where the question meets it) and once with the n-grams of the question too. It is given
the first PEER_DOCUMENTS (1,700) documents only, as it is slow; curate gets all of them.
"""

import collections
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

OTHERS = "stone river window garden letter music paper winter market island yellow quickly engine teacher".split()


def replaced(rng, question, times):
    words = question.split()
    for at in rng.sample(range(len(words)), min(times, len(words))):
        words[at] = rng.choice(OTHERS)
    return " ".join(words)


def without(rng, question, times):
    words = question.split()
    gone = set(rng.sample(range(len(words)), min(times, len(words))))
    return " ".join(word for at, word in enumerate(words) if at not in gone)


def recased(rng, question):
    question = question.upper() if rng.random() < 0.5 else question.lower()
    return re.sub(r"[.,?']", lambda _: rng.choice([" ", "!", " - ", ";"]), question)


WAYS = {
    "question and answer": lambda rng, item: f"{item['question']}\nAnswer: {item['answer']}",
    "question": lambda rng, item: item["question"],
    "case and punctuation": lambda rng, item: recased(rng, item["question"]),
    "one word": lambda rng, item: replaced(rng, item["question"], 1),
    "three words": lambda rng, item: replaced(rng, item["question"], 3),
    "two deletions": lambda rng, item: without(rng, item["question"], 2),
    "first half": lambda rng, item: " ".join(item["question"].split()[: (len(item["question"].split()) + 1) // 2]),
}


def plant(items, documents):
    """Every tenth document with an item in it; returns documents and, by id, the way."""
    rng = random.Random(7)
    ways = list(WAYS)
    planted, out = {}, []
    for i, document in enumerate(documents):
        text = document["text"]
        if i % 10 == 3:
            way = ways[i // 10 % 7]
            places = [m.end() for m in re.finditer(r"\n|\. ", text)] or [0]
            at = rng.choice(places)
            text = text[:at] + "\n" + WAYS[way](rng, rng.choice(items)) + "\n" + text[at:]
            planted[str(i)] = way
        out.append({"id": str(i), "text": text})
    return out, planted


def cpu_seconds(who):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def run_curate(binary, items, documents, folder):
    leaks = folder / "leaks.jsonl"
    before, start = cpu_seconds(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [binary, "decontaminate", "--against", items, "--action", "report", "--leaks", leaks, documents]
    subprocess.run(command + ["-o", folder / "out.jsonl"], check=True)
    wall = time.monotonic() - start
    found = {json.loads(line)["id"] for line in leaks.open()}
    return found, cpu_seconds(resource.RUSAGE_CHILDREN) - before, wall


def run_datatrove(items, documents, folder, find_query):
    import numpy
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer

    config = NGramsDecontConfig(find_query_ngrams=find_query)
    reader = NGramsDecontFilter(str(folder), config=config)
    indexer = types.SimpleNamespace(config=config, tokenizer=reader.tokenizer, hash_func=reader.hash_func)
    hashes = set()
    for item in items:
        hashes.update(NGramsDecontIndexer.compute_hashes(indexer, item["answer"], item["question"]))
    numpy.array(sorted(hashes), dtype=config.hash_config.np_descr).tofile(folder / "items.index.hashes")
    reader.load_index_hashes()
    before, start = cpu_seconds(resource.RUSAGE_SELF), time.monotonic()
    found = set()
    for document in documents:
        if reader.filter(Document(text=document["text"], id=document["id"], metadata={})) is not True:
            found.add(document["id"])
    return found, cpu_seconds(resource.RUSAGE_SELF) - before, time.monotonic() - start


def show(name, found, documents, planted, cpu, wall):
    ids = {document["id"] for document in documents}
    size = sum(len(document["text"].encode()) for document in documents)
    total, hit = collections.Counter(), collections.Counter()
    for i, way in planted.items():
        if i in ids:
            total[way] += 1
            hit[way] += i in found
    wrong = sorted(i for i in found if i not in planted)
    print(f"\n{name}: {len(documents)} documents, {size / 1e6:.0f} MB; {cpu:.2f} CPU s ({size / cpu / 1e6:.2f} MB/s), {wall:.2f} s")
    for way in WAYS:
        print(f"  {way:<24}{hit[way] / max(total[way], 1):.3f}  of {total[way]}")
    print(f"  {'recall':<24}{sum(hit.values()) / sum(total.values()):.3f}  of {sum(total.values())}")
    print(f"  hits on {len(documents) - sum(total.values())} clean documents: {len(wrong)} {wrong[:8]}")


def main():
    binary, items_path, clean_path = sys.argv[1:4]
    peer_documents = int(sys.argv[4]) if len(sys.argv) > 4 else 1700
    items = [json.loads(line) for line in open(items_path)]
    clean = [json.loads(line) for line in open(clean_path)]
    random.Random(1).shuffle(clean)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def write(file, documents):
            path = folder / file
            path.write_text("".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents))
            return path

        as_they_are = [{"id": str(i), "text": document["text"]} for i, document in enumerate(clean)]
        path = write("clean.jsonl", as_they_are)
        found, cpu, wall = run_curate(binary, items_path, path, folder)
        size = sum(len(document["text"].encode()) for document in as_they_are)
        print(f"curate on {len(clean)} clean documents: {len(found)} hits; {size / cpu / 1e6:.0f} MB per CPU s, {size / wall / 1e6:.0f} MB/s")
        for kind, share in [("items drawn alike", None), ("from each set alike", "short")]:
            pool = items
            if share:
                # Sets are told apart by the length of their answers: worked solutions, and choices.
                long = [item for item in items if "####" in item["answer"]]
                short = [item for item in items if "####" not in item["answer"]]
                pool = short + long * max(1, round(len(short) / max(len(long), 1)))
            documents, planted = plant(pool, clean)
            path = write("documents.jsonl", documents)
            found, cpu, wall = run_curate(binary, items_path, path, folder)
            show(f"curate, {kind}", found, documents, planted, cpu, wall)
        part = documents[:peer_documents]
        try:
            for name, find_query in [("datatrove, its defaults", False), ("datatrove, n-grams of the question too", True)]:
                show(name, *[(r := run_datatrove(items, part, folder, find_query))[0], part, planted, r[1], r[2]])
        except ImportError as error:
            print(f"datatrove is not installed: {error}")


if __name__ == "__main__":
    main()
