#!/usr/bin/env python3
"""Repeated substrings: `curate dedup --substring-bytes` beside the suffix arrays of Lee et al. (deduplicate-text-datasets).

usage: benches/dedup/substring.py FILE.jsonl [--megabytes 100] [--length 200] [--rounds 3] [--memory 1G] [--work DIR]
                                  [--curate BINARY] [--peer BINARY]

Cuts the beginning of FILE, runs both tools on it in turn, one thread each, and takes CPU seconds, wall seconds and peak resident
memory, the peer's over its three commands (make, self-similar, collect). Then it compares what both found, byte by byte: every
copy of a substring of LENGTH bytes, the first one too (`--substring-keep none`), which is what the peer's byte ranges hold. The peer
reads one file of raw text, in which documents stand apart by a mark that occurs once. Two things are counted apart: curate cuts
whole characters only, so up to three bytes at each end of a range differ; and the first and the last bytes of marks may be equal, so that
the peer finds beginnings and ends of texts that are up to three bytes too short.

The peer is built apart: `cargo build --release` in a checkout of google-research/deduplicate-text-datasets; without --peer, curate
runs alone.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def measured(command, cwd, stdout=subprocess.DEVNULL):
    """CPU seconds, wall seconds and peak resident bytes of a command that must succeed."""
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=cwd, stdout=stdout, stderr=subprocess.PIPE)
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}:\n{said.decode()}")
    return used.ru_utime + used.ru_stime, time.monotonic() - start, used.ru_maxrss * 1024


def prepare(path, megabytes, work):
    """The records as JSON Lines with numbers for ids, and as one file of marks and texts; where each text begins in it."""
    records, raw, starts, size = os.path.join(work, "in.jsonl"), os.path.join(work, "in.raw"), [], 0
    with open(path, encoding="utf-8") as source, open(records, "w", encoding="utf-8") as lines, open(raw, "wb") as marked:
        for number, line in enumerate(source):
            text = json.loads(line)["text"]
            encoded = text.encode()
            if size + len(encoded) > megabytes * 1_000_000:
                break
            lines.write(json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n")
            # 0xff never occurs in UTF-8, and the number never twice.
            marked.write(b"\xff\xff" + number.to_bytes(4, "little"))
            starts.append(marked.tell())
            marked.write(encoded)
            size += len(encoded)
    return records, raw, starts, size


def merged(spans):
    found = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return found


def covered(spans, size):
    """A byte for each byte of the file, 1 where a span covers it."""
    marks = bytearray(size)
    for start, end in spans:
        marks[start:end] = b"\x01" * (end - start)
    return marks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--work", default=None)
    parser.add_argument("--curate", default=os.path.join(HERE, "..", "..", "target", "release", "curate"))
    parser.add_argument("--peer", default=None, help="the peer's binary, dedup_dataset")
    options = parser.parse_args()
    curate = os.path.abspath(options.curate)
    work = options.work or tempfile.mkdtemp(prefix="curate-substring-")
    os.makedirs(work, exist_ok=True)
    records, raw, starts, size = prepare(options.file, options.megabytes, work)
    print(f"{len(starts)} documents, {size / 1e6:.1f} MB of text, substrings of {options.length} bytes")

    spans, report = os.path.join(work, "spans.jsonl"), os.path.join(work, "report.json")
    ours = [curate, "dedup", "-q", f"--substring-bytes={options.length}", "--substring-keep=none", "--threads=1",
            f"--memory={options.memory}", f"--temp-dir={work}", f"--report={report}", "-o", "/dev/null", records]
    ranges, cache = os.path.join(work, "ranges"), os.path.join(work, "cache")
    threshold = ["--length-threshold", str(options.length)]
    theirs = options.peer and [
        [os.path.abspath(options.peer), "make", "--data-file", raw],
        [os.path.abspath(options.peer), "self-similar", "--data-file", raw, *threshold, "--cache-dir", cache, "--num-threads", "1"],
        [os.path.abspath(options.peer), "collect", "--data-file", raw, "--cache-dir", cache, *threshold],
    ]
    runs = {"curate": [], "suffix arrays": []}
    for _ in range(options.rounds):
        runs["curate"].append(measured(ours, work))
        if theirs:
            shutil.rmtree(cache, ignore_errors=True)
            os.makedirs(cache)
            with open(ranges, "wb") as out:
                parts = [measured(command, work, out if command[1] == "collect" else subprocess.DEVNULL) for command in theirs]
            runs["suffix arrays"].append((sum(p[0] for p in parts), sum(p[1] for p in parts), max(p[2] for p in parts)))
    print("| tool | CPU s (spread) | wall s | MB a CPU s | peak MB |\n|---|---|---|---|---|")
    for name, taken in runs.items():
        if taken:
            cpu = statistics.median(t[0] for t in taken)
            spread = f"{min(t[0] for t in taken):.1f} to {max(t[0] for t in taken):.1f}"
            wall = statistics.median(t[1] for t in taken)
            print(f"| {name} | {cpu:.2f} ({spread}) | {wall:.2f} | {size / 1e6 / cpu:.1f} | {max(t[2] for t in taken) / 1e6:.0f} |")
    with open(report, encoding="utf-8") as file:
        told = json.load(file)["dedup_substring"]
    print("curate:", json.dumps(told))
    if not theirs:
        return
    # Once more, with the spans written: a timed run writes no proofs.
    measured(ours[:-1] + ["--substring-spans", spans, "--substring-action=mark", records], work)
    with open(spans, encoding="utf-8") as lines:
        proofs = map(json.loads, lines)
        ours_found = merged([starts[int(p["id"])] + p[k] for k in ("start", "end")] for p in proofs)
    with open(ranges, encoding="utf-8") as lines:
        pairs = [line.split() for line in lines]
        theirs_found = merged([int(pair[0]), int(pair[1])] for pair in pairs if len(pair) == 2 and pair[0].isdigit())
    total = os.path.getsize(raw)
    mine, other = covered(ours_found, total), covered(theirs_found, total)
    with open(raw, "rb") as file:
        text = file.read()
    both = sum(map(int.__and__, mine, other))
    only_mine = mine.count(1) - both
    # A byte that only the peer has is the rest of a character if the character lies partly outside its range.
    cut, marks, short, missed = 0, 0, 0, 0
    begins = set(starts)
    inside_mark = covered(((start - 6, start) for start in starts), total)
    at = 0
    while at < total:
        if not other[at] or mine[at]:
            at += 1
            continue
        if inside_mark[at]:
            marks, at = marks + 1, at + 1
            continue
        end = at
        while end < total and other[end] and not mine[end] and not inside_mark[end]:
            end += 1
        if (at in begins or end < total and inside_mark[end]) and end - at < options.length:
            short += end - at
        elif end - at <= 3 and any(byte & 0x80 for byte in text[at:end]):
            cut += end - at
        else:
            missed += end - at
        at = end
    print(f"bytes found by both {both}, by curate alone {only_mine}, by suffix arrays alone {missed}; "
          f"parts of characters left whole {cut}, of beginnings and ends that are too short {short}, of marks {marks}")


if __name__ == "__main__":
    main()
