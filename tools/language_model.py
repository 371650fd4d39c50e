#!/usr/bin/env python3
"""Makes crates/curate-clean/src/lang/model.bin from the model inside the package py3langid.

    python -m venv venv && venv/bin/pip install py3langid==0.4.0 zstandard
    venv/bin/python tools/language_model.py crates/curate-clean/src/lang/model.bin

The weights are py3langid's: naive Bayes over byte n-grams, BSD-3-Clause, notice in `model.NOTICE`. Nothing is
trained here and no text is read. What changes:

* classes that are another class's older or smaller sister (`FOLDED`) leave;
* the 65,536 n-grams that tell most about the language stay. A text's feature at a byte is the longest n-gram that ends
  there, so the counts of an n-gram that leaves are added to its longest suffix that stays, which is what training on the
  smaller set would have counted;
* a weight becomes a byte: the distance from the class's smallest log-probability, in steps of 1/255 of the range.

The layout is drawn in `crates/curate-clean/src/lang/model.rs`.
"""

import argparse
import pathlib
import struct

import numpy as np
import zstandard
from py3langid.langid import MODEL_FILE, LanguageIdentifier

MAGIC = b"CURLANG1"
FEATURES = 65_536
# Biblical Hebrew, Southern Uzbek, Wu: short texts of `he`, `uz` and `zh` were lost to them.
FOLDED = {"hbo", "uzs", "wuu"}


def ngrams(model):
    """The bytes of every feature: the shortest input after which the automaton reports it."""
    moves = np.asarray(model.tk_nextmove).reshape(-1, 256)
    rows = np.asarray(model.tk_row)
    outputs = model.tk_output
    reached, front = {0: b""}, [0]
    while front:
        following = []
        for state in front:
            targets, letters = np.unique(moves[rows[state]], return_index=True)
            for target, letter in zip(targets.tolist(), letters.tolist()):
                if target not in reached:
                    reached[target] = reached[state] + bytes([letter])
                    following.append(target)
        front = following
    grams = {}
    for state, feature in enumerate(outputs):
        if feature >= 0 and (feature not in grams or len(reached[state]) < len(grams[feature])):
            grams[feature] = reached[state]
    return [grams[feature] for feature in range(model.nb_ptc.shape[0])]


def prune(grams, probabilities):
    """The most informative n-grams, with the mass of the others folded into them.

    Those of one language stand together, frequent ones first, so that a text meets few pages of memory.
    """
    mean = probabilities.mean(axis=1, keepdims=True)
    information = (probabilities * (np.log(probabilities) - np.log(mean))).mean(axis=1)
    best = np.argsort(-information, kind="stable")[:FEATURES]
    best = sorted(best, key=lambda f: (probabilities[f].argmax(), -probabilities[f].max(), grams[f]))
    kept = [grams[feature] for feature in best]
    index = {gram: row for row, gram in enumerate(kept)}
    folded = np.zeros((len(kept), probabilities.shape[1]))
    for gram, row in zip(grams, probabilities):
        suffix = gram
        while suffix and suffix not in index:
            suffix = suffix[1:]
        if suffix:
            folded[index[suffix]] += row
    return kept, np.log(folded)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path)
    path = parser.parse_args().output

    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    columns = [i for i, code in enumerate(model.nb_classes) if code not in FOLDED]
    codes = [model.nb_classes[i] for i in columns]
    probabilities = np.exp(np.asarray(model.nb_ptc, dtype=np.float64)[:, columns])
    priors = np.asarray(model.nb_pc, dtype=np.float32)[columns]
    kept, weights = prune(ngrams(model), probabilities)

    floors = weights.min(axis=0)
    step = (weights - floors).max() / 255
    table = np.rint((weights - floors) / step).astype(np.uint8)

    out = bytearray()
    out += struct.pack("<IIf", len(codes), len(kept), step)
    for code in codes:
        out += struct.pack("<B", len(code)) + code.encode()
    out += priors.astype("<f4").tobytes()
    out += floors.astype("<f4").tobytes()
    for gram in kept:
        out += struct.pack("<B", len(gram)) + gram
    out += table.tobytes()
    path.write_bytes(MAGIC + zstandard.ZstdCompressor(level=19).compress(bytes(out)))
    print(f"{path}: {path.stat().st_size} bytes, {len(codes)} classes, {len(kept)} n-grams")


if __name__ == "__main__":
    main()
