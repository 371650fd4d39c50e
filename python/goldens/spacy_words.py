"""Compares the words of `spacy-en` with spaCy's own on any documents, as datatrove strips them.

    cargo run --release -p curate-clean --example split_words -- spacy-en < FILE > WORDS
    python spacy_words.py FILE WORDS        (spacy==3.8.18)
"""

import json
import sys
from collections import Counter

import spacy


def main():
    nlp = spacy.blank("en")
    documents, same, words, others = 0, 0, 0, Counter()
    with open(sys.argv[1], encoding="utf-8") as texts, open(sys.argv[2], encoding="utf-8") as found:
        for text, mine in zip(texts, found):
            text, mine = json.loads(text)["text"], json.loads(mine)
            with nlp.memory_zone():
                tokens = [token.text.strip() for token in nlp.tokenizer(text)]
            theirs = [token for token in tokens if token]
            documents += 1
            words += len(theirs)
            same += mine == theirs
            if mine != theirs:
                at = next((i for i, (a, b) in enumerate(zip(mine, theirs)) if a != b), 0)
                others[str((mine[at : at + 3], theirs[at : at + 3]))] += 1
    print(f"{documents} documents, {words} words, {same} documents equal ({same / documents:.4%})")
    for example, n in others.most_common(40):
        print(n, example)


if __name__ == "__main__":
    main()
