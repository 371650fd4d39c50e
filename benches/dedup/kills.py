#!/usr/bin/env python3
"""Kills `curate dedup --index` at random moments, runs it again, and compares every byte with a run that nobody killed.

usage: benches/dedup/kills.py [--kills 100] [--docs 20000] [--memory 16M] [--seed 1] [--work DIR] [--curate BINARY]

Makes a corpus (corpus.py) and cuts it into two dumps. The first goes into an index. Then, KILLS times: the index is put back
to that state, a run over the second dump is killed with SIGKILL after a random time (one in three while it is about to
end, when outputs and index are completed), one in four of the repeated runs is killed too, and the last one ends by
itself. SHA-256 of the output, of the proofs and of every file of the index must be those of the reference; nothing else
may be left beside them.

A kill can come when the index has been committed already, in the moment before the process ends. Such a run was complete,
so it is not repeated: its bytes are compared as they are, and it is counted apart. Python's standard library only.
"""

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")


def digests(folder):
    """SHA-256 of every file below `folder`, hidden ones too, by path."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


class Trial:
    def __init__(self, arguments, work):
        self.curate, self.memory, self.work = arguments.curate, arguments.memory, work
        self.state = os.path.join(work, "state")
        self.index = os.path.join(self.state, "index")

    def command(self, dump):
        out, removed = os.path.join(self.state, "out.jsonl"), os.path.join(self.state, "removed.jsonl")
        return [self.curate, "dedup", "--minhash", "--quiet", "--memory", self.memory, "--index", self.index,
                "--removed", removed, "-o", out, dump]

    def run(self, dump):
        start = time.monotonic()
        subprocess.run(self.command(dump), check=True)
        return time.monotonic() - start

    def killed(self, dump, after):
        """Runs and kills after so many seconds; true if it was still running."""
        process = subprocess.Popen(self.command(dump))
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.wait() != 0

    def restore(self, saved):
        shutil.rmtree(self.state)
        shutil.copytree(saved, self.state)

    def manifest(self):
        with open(os.path.join(self.index, "MANIFEST"), "rb") as file:
            return file.read()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--memory", default="16M")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work")
    parser.add_argument("--curate", default=os.path.join(ROOT, "target", "release", "curate"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        sys.exit(trial(arguments, work))


def trial(arguments, work):
    rng = random.Random(arguments.seed)
    corpus = os.path.join(work, "corpus.jsonl")
    subprocess.run([sys.executable, os.path.join(HERE, "corpus.py"), corpus, str(arguments.docs), str(arguments.seed)],
                   check=True)
    dumps = [os.path.join(work, name) for name in ("a.jsonl", "b.jsonl")]
    with open(corpus, encoding="utf-8") as lines:
        files = [open(dump, "w", encoding="utf-8") for dump in dumps]
        for number, line in enumerate(lines):
            files[number * 2 // arguments.docs].write(line)
        for file in files:
            file.close()

    trial = Trial(arguments, work)
    os.makedirs(trial.state)
    trial.run(dumps[0])
    for name in ("out.jsonl", "removed.jsonl"):
        os.remove(os.path.join(trial.state, name))
    before, saved = trial.manifest(), os.path.join(work, "saved")
    shutil.copytree(trial.state, saved)
    # The shortest of three: a kill after the end teaches nothing.
    seconds = trial.run(dumps[1])
    for _ in range(2):
        trial.restore(saved)
        seconds = min(seconds, trial.run(dumps[1]))
    expected, after = digests(trial.state), trial.manifest()
    assert before != after, "the second dump must add to the index"
    print(f"reference: {len(expected)} files, {seconds:.2f} s", flush=True)

    kills = ended = committed = repeated = wrong = 0
    while kills + committed < arguments.kills:
        trial.restore(saved)
        late = rng.random() < 1 / 3
        moment = seconds * (rng.uniform(0.85, 1.02) if late else rng.uniform(0, 0.95))
        if not trial.killed(dumps[1], moment):
            ended += 1
            continue
        if trial.manifest() == after:
            committed += 1
        else:
            kills += 1
            assert trial.manifest() == before, "neither the old manifest nor the new one"
            if rng.random() < 0.25 and trial.killed(dumps[1], seconds * rng.random()) and trial.manifest() == before:
                repeated += 1
            if trial.manifest() == before:
                trial.run(dumps[1])
        found = digests(trial.state)
        if found != expected:
            wrong += 1
            names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            print(f"kill {kills + committed} after {moment:.3f} s: other bytes in {', '.join(names)}", flush=True)
    print(f"{kills} runs killed and repeated ({repeated} of them killed twice), {committed} killed after their commit; "
          f"{ended} ended before their kill and do not count")
    print(f"{kills + committed - wrong} of {kills + committed} gave the bytes of the reference")
    return 1 if wrong else 0


if __name__ == "__main__":
    main()
