"""Compares verdicts of curate with those of datatrove, document by document.

    python python/goldens/datatrove.py --documents mix.jsonl --no-texts --out datatrove.jsonl
    verdicts gopher,c4,fineweb < mix.jsonl > curate.jsonl
    python benches/clean/datatrove.py curate.jsonl datatrove.jsonl
"""

import json
import sys
from collections import Counter

curate, datatrove = ([json.loads(line) for line in open(path, encoding="utf-8")] for path in sys.argv[1:3])
assert len(curate) == len(datatrove)
for recipe in ("gopher", "c4", "fineweb"):
    rows = [(c["id"], c[recipe], d[recipe]["verdict"]) for c, d in zip(curate, datatrove) if recipe in c and recipe in d]
    if not rows:
        continue
    differ = [row for row in rows if row[1] != row[2]]
    lengths = sum(
        c.get(f"{recipe}_characters") != d[recipe].get("characters")
        for c, d in zip(curate, datatrove)
        if c.get(recipe) == d.get(recipe, {}).get("verdict") == "keep"
    )
    print(f"{recipe}: {len(rows) - len(differ)} of {len(rows)} same verdict and reason ({1 - len(differ) / len(rows):.4%}); "
          f"{lengths} texts edited to another length")
    for (ours, theirs), n in Counter(row[1:] for row in differ).most_common(8):
        print(f"  {n} {ours}, not {theirs}: {[row[0] for row in differ if row[1:] == (ours, theirs)][:3]}")
