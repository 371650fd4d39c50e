"""Compares the verdicts of recipes with those of the originals on any documents, and lists where they differ.

    python dclm.py --source CHECKOUT --documents FILE --no-texts --out DIR/dclm.jsonl      (also dolma.py, nemo.py)
    cargo run --release -p curate-clean --example verdicts -- \\
        dclm,refinedweb,dolma-v1.5,dolma-v1.5-asrun,nemo-en < FILE > DIR/curate.jsonl
    python parity.py DIR
"""

import json
import sys
from pathlib import Path

# recipe: file of the original, verdict in its rows, length of the edited text in its rows
COMPARISONS = [
    ("dclm", "dclm", lambda row: row["verdict"], lambda row: row.get("characters")),
    ("refinedweb", "dclm", lambda row: row["edits"]["verdict"], lambda row: row["edits"].get("characters")),
    ("dolma-v1.5", "dolma", lambda row: row["verdict"], None),
    ("dolma-v1.5-asrun", "dolma", lambda row: row["asrun"], None),
    ("nemo-en", "nemo", lambda row: row["verdict"], None),
    ("nemo-en (ties by place)", "nemo", lambda row: row["ties"], None),
]


def rows(path):
    with open(path, encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def main():
    folder = Path(sys.argv[1])
    ours = rows(folder / "curate.jsonl")
    print("| recipe | documents | kept | other keep or drop | other reason | other length of the edited text |")
    print("|---|---|---|---|---|---|")
    examples = []
    for title, original, verdict, length in COMPARISONS:
        recipe = title.split(" ")[0]
        theirs = rows(folder / f"{original}.jsonl")
        assert [str(row["id"]) for row in ours] == [row["id"] for row in theirs], original
        kept = keeps = reasons = lengths = 0
        for mine, row in zip(ours, theirs):
            found, expected = mine[recipe], verdict(row)
            kept += expected == "keep"
            if found != expected:
                keeps += (found == "keep") != (expected == "keep")
                reasons += (found == "keep") == (expected == "keep")
                examples.append(f"{title}: {row['id']}: {found}, there {expected}")
            elif found == "keep" and length and mine.get(f"{recipe}_characters") != length(row):
                lengths += 1
                examples.append(f"{title}: {row['id']}: another text is left")
        print(f"| {title} | {len(theirs)} | {kept} | {keeps} | {reasons} | {lengths} |")
    print("\n".join(["", *examples[:50]]))


if __name__ == "__main__":
    main()
