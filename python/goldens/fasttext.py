#!/usr/bin/env python3
"""Writes fixtures/fasttext: tiny models of every loss and quantisation, and what the official package says of texts.

    pip install fasttext-wheel==0.9.2 numpy && python3 python/goldens/fasttext.py

The training text is generated here from word lists of our own. Predictions are asked of the package's own C++ object,
because its Python wrapper does not work with NumPy 2.
"""

import json
import pathlib
import random
import sys
import tempfile

sys.path.pop(0)  # This file has the name of the package.

import fasttext  # noqa: E402

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "fasttext"
TOPICS = {
    "water": "river sea water rain boat wave fish lake storm tide".split(),
    "bread": "bread flour oven crust bake yeast dough salt butter knead".split(),
    "fleuve": "rivière mer eau pluie bateau vague poisson lac tempête marée".split(),
    "хлеб": "хлеб мука печь корка дрожжи тесто соль масло зерно вода".split(),
    "茶": "茶 水 山 花 月 雪 風 雲 星 海".split(),
}
COMMON = "the a of to and in carries with from under".split()


def lines(rng, n):
    for _ in range(n):
        label = rng.choice(list(TOPICS))
        words = [rng.choice(TOPICS[label] if rng.random() < 0.6 else COMMON) for _ in range(rng.randint(3, 9))]
        yield f"__label__{label} " + " ".join(words)


def texts(rng):
    fixed = ["", " ", "the river carries water to the sea", "unseen zzzz qqq", "</s>", "bread </s> river",
             "__label__water", "__label__none bread", "茶 水", "riverbread", "мука\tи\u00a0соль", "\x0bsea\x0cflour\rtide",
             "a", "é", "river " * 50]
    generated = [line.split(" ", 1)[1] for line in lines(rng, 25)]
    return fixed + generated


def predict(model, text):
    return [[label.removeprefix("__label__"), round(p, 7)] for p, label in model.f.predict(text + "\n", 10, 0.0, "strict")]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = random.Random(7)
    asked = texts(rng)
    models = {}
    with tempfile.TemporaryDirectory() as tmp:
        train = pathlib.Path(tmp) / "train.txt"
        train.write_text("\n".join(lines(rng, 300)) + "\n", encoding="utf-8")
        common = dict(input=str(train), dim=5, epoch=20, lr=0.5, thread=1, verbose=0, minCount=1)

        def save(model, name):
            path = OUT / name
            model.save_model(str(path))
            loaded = fasttext.load_model(str(path))
            models[name] = [predict(loaded, text) for text in asked]

        for loss in ["softmax", "hs", "ns", "ova"]:
            words = dict(wordNgrams=2, bucket=60)
            save(fasttext.train_supervised(loss=loss, **words, **common), f"{loss}.bin")
            chars = dict(wordNgrams=1, minn=2, maxn=4, bucket=300)
            model = fasttext.train_supervised(loss=loss, **chars, **common)
            save(model, f"{loss}_chars.bin")
            model.quantize(input=str(train), qnorm=False, dsub=2)
            save(model, f"{loss}.ftz")
            model = fasttext.train_supervised(loss=loss, wordNgrams=3, minn=1, maxn=3, bucket=300, **common)
            model.quantize(input=str(train), qnorm=True, dsub=2, cutoff=280)
            save(model, f"{loss}_qnorm_cut.ftz")
        # The output is quantised by 256 centroids too, so it takes as many labels.
        many = pathlib.Path(tmp) / "many.txt"
        words = sum(TOPICS.values(), [])
        many.write_text("".join(f"__label__{i} {' '.join(rng.sample(words, 4))}\n" for i in range(260) for _ in range(2)))
        for loss in ["softmax", "hs"]:
            model = fasttext.train_supervised(loss=loss, minn=2, maxn=2, bucket=300, **{**common, "input": str(many), "dim": 3})
            model.quantize(input=str(many), qnorm=True, qout=True, dsub=2, cutoff=270)
            save(model, f"{loss}_qout_qnorm_cut.ftz")
    goldens = {"package": "fasttext-wheel 0.9.2", "texts": asked, "models": models}
    (OUT / "goldens.json").write_text(json.dumps(goldens, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
