#!/usr/bin/env python3
"""Reading, parsing and writing JSON Lines unchanged: `curate read` beside cat, jq and a serde_json loop.

usage: benches/passthrough/run.py FILE.jsonl [ROUNDS]

Builds what it measures, reads the file once so that it lies in the page cache, then runs the commands in turn, ROUNDS
times (7), output to /dev/null. Prints the median CPU seconds (user + system, all threads), their spread, GB of input a
CPU second, wall seconds, and cycles a byte where `perf` may count them. Python's standard library only.
"""

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time


def measure(command):
    """Runs a command; CPU seconds, wall seconds, cycles (or None)."""
    cycles = None
    if PERF:
        command = ["perf", "stat", "-x,", "-e", "cycles", "-o", "perf.out", "--"] + command
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    if status != 0:
        sys.exit(f"failed with status {status}: {' '.join(command)}")
    if PERF:
        found = re.search(r"^(\d+),", open("perf.out").read(), re.M)
        cycles = int(found.group(1)) if found else None
        os.remove("perf.out")
    return used.ru_utime + used.ru_stime, wall, cycles


def perf_counts():
    if not shutil.which("perf"):
        return False
    done = subprocess.run(["perf", "stat", "-x,", "-e", "cycles", "true"], capture_output=True, text=True)
    return done.returncode == 0 and re.match(r"\d+,", done.stderr) is not None


root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
path = os.path.abspath(sys.argv[1])
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
PERF = perf_counts()
for args in (["-p", "curate"], ["-p", "curate-io", "--example", "serde_json_loop"]):
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", *args], cwd=root, check=True)
target = os.environ.get("CARGO_TARGET_DIR", os.path.join(root, "target"))
curate = os.path.join(target, "release", "curate")
commands = {
    "cat": ["cat", path],
    "curate read --threads 1": [curate, "read", "-q", "--threads", "1", path],
    "curate read --threads 2": [curate, "read", "-q", "--threads", "2", path],
    "serde_json loop": [os.path.join(target, "release", "examples", "serde_json_loop"), path],
}
if shutil.which("jq"):
    commands["jq -c ."] = ["jq", "-c", ".", path]
size = os.path.getsize(path)
subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)
runs = {name: [] for name in commands}
for i in range(rounds):
    for name, command in commands.items():
        # jq is two orders slower: twice is enough to see it.
        if name.startswith("jq") and i >= 2:
            continue
        runs[name].append(measure(command))
print(f"{size / 1e6:.1f} MB of JSON Lines; {os.cpu_count()} cores, {platform.machine()}; {rounds} rounds, alternating")
print(f"{'command':26} {'CPU s':>8} {'min–max':>15} {'GB/CPU s':>9} {'wall s':>7} {'cycles/B':>9}")
for name, rows in runs.items():
    cpu = [row[0] for row in rows]
    median = statistics.median(cpu)
    cycles = [row[2] for row in rows if row[2]]
    per_byte = f"{statistics.median(cycles) / size:9.2f}" if cycles else f"{'-':>9}"
    wall = statistics.median(row[1] for row in rows)
    print(
        f"{name:26} {median:8.3f} {min(cpu):7.3f}–{max(cpu):.3f} {size / 1e9 / median:9.2f} {wall:7.2f} {per_byte}"
    )
