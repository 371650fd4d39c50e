#!/usr/bin/env python3
"""Which of some embeddings repeat an earlier one, by numpy, and the embeddings as numpy and pyarrow write them.

usage: semantic.py [DIR]        writes semantic.npy, semantic.parquet and semantic.json; DIR is crates/curate-dedup/goldens

The embeddings are a few hundred directions, some of them again with noise, scaled by anything, a few rows of zeros, and
chains of neighbours. The answer is the definition, all pairs in double precision: in input order a row goes if its cosine
with an earlier row that was kept is at least the threshold; it goes for the kept row of the highest cosine, the earliest of
several. semantic.json: {threshold: [[row, kept row, cosine], ...]}. No cosine is within 1e-5 of a threshold, so that single
precision cannot decide otherwise. The table has the rows in another order, with ids d0, d1, ...

Needs: pip install numpy pyarrow (made with numpy 2, pyarrow 21 or later)
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, DIM = 240, 16
THRESHOLDS = [0.7, 0.9, 0.97]


def embeddings(rng):
    rows = rng.standard_normal((ROWS, DIM))
    for row in range(80, ROWS):
        kind = rng.integers(6)
        if kind < 3:
            rows[row] = rows[rng.integers(row)] + 10.0 ** rng.uniform(-3, 0) * rng.standard_normal(DIM)
        elif kind == 3:
            rows[row] = rows[row - 1] + 0.3 * rng.standard_normal(DIM)
        rows[row] *= 10.0 ** rng.uniform(-3, 3)
    rows[[5, 100, 101]] = 0.0
    rows[110] = rows[50]
    return rows.astype(np.float32)


def removals(rows, threshold):
    rows = rows.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    kept, removed = [], []
    for row in range(len(rows)):
        if lengths[row] == 0:
            continue
        others = np.array(kept, dtype=int)
        cosines = rows[others] @ rows[row] / (lengths[others] * lengths[row])
        if len(cosines) and np.min(np.abs(cosines - threshold)) < 1e-5:
            raise SystemExit("a cosine is too near a threshold: choose another seed")
        best = int(np.argmax(cosines)) if len(cosines) else -1
        if best >= 0 and cosines[best] >= threshold:
            removed.append([row, kept[best], round(float(cosines[best]), 9)])
        else:
            kept.append(row)
    return removed


def main():
    default = Path(__file__).resolve().parents[2] / "crates" / "curate-dedup" / "goldens"
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    rng = np.random.default_rng(11)
    rows = embeddings(rng)
    np.save(out / "semantic.npy", rows)
    order = rng.permutation(ROWS)
    table = pa.table(
        {"id": [f"d{row}" for row in order], "embedding": pa.array([rows[row].tolist() for row in order], pa.list_(pa.float32()))}
    )
    pq.write_table(table, out / "semantic.parquet", compression="zstd")
    answers = {str(threshold): removals(rows, threshold) for threshold in THRESHOLDS}
    (out / "semantic.json").write_text(json.dumps(answers) + "\n")
    print({threshold: len(answer) for threshold, answer in answers.items()})


if __name__ == "__main__":
    main()
