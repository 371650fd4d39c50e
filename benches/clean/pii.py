"""Findings and speed beside datatrove's PIIFormatter on the same documents.

usage: pii.py PII_SAMPLE DOCUMENTS.jsonl; needs `pip install datatrove==0.10.1`. PII_SAMPLE is the built example
`pii_sample` of curate-clean. A finding of datatrove counts as found if one of ours of the same kind overlaps it; what
is missed, and what is found as an address, is listed with its surroundings, to be judged by a reader.
"""

import collections
import json
import subprocess
import sys
import tempfile
import time

from datatrove.pipeline.formatters import PIIFormatter


def peer_spans(formatter, text):
    for kind, replacer in (("email", formatter.emails_replacer), ("ipv4", formatter.ip_replacer)):
        for match in replacer.regex.finditer(text):
            if not replacer.validator or replacer.validator(match.group(0)):
                yield kind, match.start(), match.end()


def main():
    example, path = sys.argv[1:]
    records = [json.loads(line) for line in open(path, encoding="utf-8")]
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as out:
        ours = json.loads(subprocess.run([example, path, out.name], check=True, capture_output=True, text=True).stdout)
        findings = [json.loads(line) for line in out]
    formatter = PIIFormatter()
    counts = collections.Counter()
    for record, spans in zip(records, findings, strict=True):
        text = record["text"]
        raw = text.encode()
        # Ours are bytes, datatrove's characters.
        mine = [(k, len(raw[:a].decode()), len(raw[:b].decode())) for k, a, b in spans]
        peers = list(peer_spans(formatter, text))
        for kind, a, b in peers:
            found = any(k == kind and x < b and a < y for k, x, y in mine)
            counts[kind, "both" if found else "datatrove only"] += 1
            if not found:
                print("MISSED", kind, record["id"], repr(text[max(0, a - 30) : b + 20]))
        for kind, a, b in mine:
            if not any(k == kind and x < b and a < y for k, x, y in peers):
                counts[kind, "curate only"] += 1
            if kind in ("ipv4", "ipv6", "secret"):
                print("FOUND", kind, record["id"], repr(text[max(0, a - 40) : b + 20]))
    start = time.process_time()
    for record in records:
        formatter.format(record["text"])
    seconds = time.process_time() - start
    print(json.dumps({"|".join(key): n for key, n in sorted(counts.items())}))
    print(json.dumps({"curate": ours, "datatrove_mb_per_s": ours["bytes"] / 1e6 / seconds}))


main()
