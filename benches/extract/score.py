"""Scores predictions against the reference texts of the sample.

usage: score.py SAMPLE.jsonl PREDICTIONS.jsonl
A page's precision, recall and F1 are those of the multisets of its lower-cased words (`\\w+`); the figures
are means over pages, for each page type and for all. Snippets that an annotator required, or named as
boilerplate, are looked for as substrings after lower-casing and collapsing white space. Prints JSON.
"""

import collections
import json
import re
import sys


def words(text):
    return collections.Counter(re.findall(r"\w+", text.lower()))


def precision_recall_f1(got, want):
    if not want:
        return (0.0, 0.0, 0.0) if got else (1.0, 1.0, 1.0)
    common = (got & want).total()
    precision = common / max(1, got.total())
    recall = common / want.total()
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0


def score(sample_path, predictions_path):
    with open(predictions_path, encoding="utf-8") as lines:
        predicted = {page["id"]: page["text"] for page in map(json.loads, lines)}
    rows = collections.defaultdict(list)
    snippets = {"with_": [0, 0], "without": [0, 0]}
    with open(sample_path, encoding="utf-8") as lines:
        for page in map(json.loads, lines):
            text, about = predicted.get(page["id"], ""), page["metadata"]
            result = precision_recall_f1(words(text), words(page["text"] or ""))
            rows["all"].append(result)
            rows[about.get("page_type", "?")].append(result)
            plain = " ".join(text.lower().split())
            for kind, tally in snippets.items():
                for snippet in about.get(kind) or []:
                    tally[1] += 1
                    tally[0] += " ".join(snippet.lower().split()) in plain
    means = {kind: [round(sum(column) / len(column), 4) for column in zip(*of)] for kind, of in rows.items()}
    return {"means": dict(sorted(means.items())), "required": snippets["with_"], "boilerplate": snippets["without"]}


if __name__ == "__main__":
    print(json.dumps(score(*sys.argv[1:3])))
