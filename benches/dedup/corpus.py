#!/usr/bin/env python3
"""Writes a corpus with planted near-duplicates: the same bytes for the same arguments, everywhere.

usage: benches/dedup/corpus.py FILE.jsonl [DOCUMENTS [SEED]]

DOCUMENTS (20 000) documents of 522 words on average, drawn from a vocabulary of 50 000 words with Zipf's frequencies
(the r-th word has weight 1 / r). A quarter of them are copies of an earlier original, of five kinds in turn: exact;
with other punctuation and letter case; with words replaced so that the Jaccard similarity of word 5-grams is about 0.95,
0.9, 0.8, 0.7 or 0.5; the same with other punctuation. Copies stand anywhere after their original. Each line is
{"id", "text", "of", "kind"}: `of` names the original. Python's standard library only.
"""

import bisect
import itertools
import json
import random
import sys

CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"
JACCARDS = [0.95, 0.9, 0.8, 0.7, 0.5]
VOCABULARY = 50_000
COPIES = 0.25


def vocabulary(rng):
    """Words of one to five syllables, the frequent ones short, all different."""
    words, seen = [], set()
    while len(words) < VOCABULARY:
        syllables = 1 + (len(words) > 60) + (len(words) > 2_000) + (rng.random() < 0.3) + (rng.random() < 0.2)
        word = "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(syllables)) + rng.choice(["", "n", "s", "r"])
        if word not in seen:
            seen.add(word)
            words.append(word)
    return words


class Writer:
    def __init__(self, rng):
        self.rng = rng
        self.words = vocabulary(rng)
        self.weights = list(itertools.accumulate(1 / rank for rank in range(1, VOCABULARY + 1)))

    def draw(self, n):
        total = self.weights[-1]
        return [self.words[bisect.bisect(self.weights, self.rng.random() * total)] for _ in range(n)]

    def text(self, words, layout):
        """Sentences of 5 to 25 words in paragraphs of 3 to 8 sentences; the number `layout` decides where they end."""
        rng, out, at = random.Random(layout), [], 0
        sentences = 0
        while at < len(words):
            sentence = words[at : at + rng.randint(5, 25)]
            at += len(sentence)
            sentence[0] = sentence[0].capitalize()
            if len(sentence) > 8:
                sentence[len(sentence) // 2] += rng.choice([",", ";", ",", " -"])
            sentences += 1
            out.append(" ".join(sentence) + rng.choice(".....!?") + ("\n\n" if sentences % rng.randint(3, 8) == 0 else " "))
        return "".join(out).rstrip()

    def replaced(self, words, jaccard):
        """Replaces words so that about `jaccard` of all 5-grams are common: each replacement spoils up to five."""
        n = max(1, len(words) - 4)
        common = 2 * n * jaccard / (1 + jaccard)
        spoiled = round((n - common) / 5)
        words = list(words)
        for place in self.rng.sample(range(len(words)), min(spoiled, len(words))):
            words[place] = "x" + self.rng.choice(self.words)
        return words


def documents(count, seed):
    rng = random.Random(seed)
    writer = Writer(rng)
    originals = []  # number, words, layout
    for i in range(count):
        if originals and rng.random() < COPIES * count / (count - 1):
            original, words, layout = rng.choice(originals)
            kind = rng.randrange(4)
            label = "exact"
            if kind >= 2:
                jaccard = rng.choice(JACCARDS)
                words, label = writer.replaced(words, jaccard), f"J{jaccard}"
            if kind % 2 == 1:
                layout, label = rng.random(), label + "+punctuation"
            text = writer.text(words, layout)
            yield {"id": f"d{i}", "text": text, "of": f"d{original}", "kind": label}
            continue
        length = max(20, round(rng.lognormvariate(6.078, 0.6)))
        words, layout = writer.draw(length), rng.random()
        text = writer.text(words, layout)
        originals.append((i, words, layout))
        yield {"id": f"d{i}", "text": text, "of": None, "kind": "original"}


def main():
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        for document in documents(count, seed):
            out.write(json.dumps(document, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
