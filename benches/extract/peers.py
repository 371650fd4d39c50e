"""Runs one extractor of the Python world over the sample.

usage: peers.py ENGINE SAMPLE.jsonl PREDICTIONS.jsonl
ENGINE is trafilatura, trafilatura-fast or resiliparse. Prints one line of JSON with the CPU seconds spent
inside the extractor; the first page is run once before the clock starts, so that loading is not counted.
"""

import json
import sys
import time


def load(engine):
    if engine == "resiliparse":
        from resiliparse.extract.html2text import extract_plain_text

        return lambda html: extract_plain_text(html, main_content=True)
    from trafilatura import extract

    return lambda html: extract(html, fast=engine == "trafilatura-fast")


engine, sample_path, predictions_path = sys.argv[1:4]
with open(sample_path, encoding="utf-8") as lines:
    pages = [json.loads(line) for line in lines]
extract = load(engine)
extract(pages[0]["metadata"]["html"])
cpu_seconds = 0.0
with open(predictions_path, "w", encoding="utf-8") as out:
    for page in pages:
        start = time.process_time()
        text = extract(page["metadata"]["html"])
        cpu_seconds += time.process_time() - start
        print(json.dumps({"id": page["id"], "text": text or ""}), file=out)
print(json.dumps({"engine": engine, "pages": len(pages), "cpu_seconds": round(cpu_seconds, 4)}))
