"""What the scripts that take golden verdicts share: which documents go in, and where verdicts go."""

import argparse
import io
import json
import sys
import time
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "goldens"


def arguments(name, description, source=None):
    """Parses the command line; `source` says which checkout the script imports the original from, if it needs one."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--documents", type=Path, default=FIXTURES / "documents.jsonl", help="JSON lines with id and text")
    parser.add_argument("--out", type=Path, default=FIXTURES / f"{name}.jsonl")
    parser.add_argument("--limit", type=int, help="only so many documents")
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth document")
    parser.add_argument("--no-texts", action="store_true", help="write no edited texts, only their lengths")
    parser.add_argument("--verdict-only", action="store_true", help="nothing but the verdict, for timing")
    if source:
        parser.add_argument("--source", type=Path, required=True, help=source)
    args = parser.parse_args()
    if source:
        sys.path.insert(0, str(args.source))
    return args


def read(args):
    """The documents as (id, text); a document without an id is called by its line number."""
    if args.documents.suffix == ".zst":
        import zstandard

        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(open(args.documents, "rb")), "utf-8", newline="\n")
    else:
        lines = open(args.documents, encoding="utf-8", newline="\n")
    for i, line in enumerate(lines):
        if i % args.every == 0 and (args.limit is None or i < args.limit):
            record = json.loads(line)
            yield str(record.get("id", i)), record["text"]


def write(args, judge):
    """Writes what `judge(text)` returns for each document, and the CPU seconds that all took to standard error."""
    documents = list(read(args))
    start = time.process_time()
    results = [judge(text) for _, text in documents]
    seconds = time.process_time() - start
    with open(args.out, "w", encoding="utf-8", newline="\n") as out:
        for (id, text), result in zip(documents, results):
            edited = result.pop("text", None)
            if edited is not None and edited != text:
                result["characters" if args.no_texts else "text"] = len(edited) if args.no_texts else edited
            out.write(json.dumps({"id": id} | result, ensure_ascii=False) + "\n")
    megabytes = sum(len(text.encode("utf-8", "surrogatepass")) for _, text in documents) / 1e6
    print(json.dumps({"documents": len(documents), "megabytes": megabytes, "cpu_seconds": seconds}), file=sys.stderr)
