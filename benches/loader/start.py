#!/usr/bin/env python3
"""From the start of the process to its first step: wall and CPU seconds when each line appears.

usage: python3 benches/loader/start.py CURATE_TRAIN SHARDS [FLAGS OF curate-train train]
"""
import os, subprocess, sys, tempfile, time

program, shards, *flags = sys.argv[1:]
with tempfile.TemporaryDirectory() as tmp:
    command = [program, "train", shards, "-o", os.path.join(tmp, "run"), "--log-every", "1", "--stop-after", "1", *flags]
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={"OMP_WAIT_POLICY": "passive", **os.environ})
    for line in process.stderr:
        if line.startswith(("run ", "step     1", "error")):
            with open(f"/proc/{process.pid}/stat") as stat:
                ticks = stat.read().rsplit(")", 1)[1].split()[11:13]
            cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
            print(f"{time.monotonic() - began:7.2f} s  {cpu:7.2f} CPU-s  {line.rstrip()[:70]}", flush=True)
            if line.startswith("step"):
                process.kill()
    process.wait()
