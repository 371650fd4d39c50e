"""Repairs of mojibake beside ftfy with datatrove's settings.

usage: ftfy.py NORMALISE_SAMPLE DOCUMENTS.jsonl; needs `pip install ftfy==6.3.1`. NORMALISE_SAMPLE is the built example
`normalise_sample` of curate-clean. Normalising does more than ftfy (line ends, NFC, blanks), so a text counts as equal
if its normal form is that of ftfy's output. ftfy is asked without and with the decoding of HTML entities, which
normalising never does. Besides the documents, 3,000 of their lines beyond ASCII are made into mojibake by reading
their UTF-8 as Windows-1252 and Latin-1 in turn.
"""

import json
import subprocess
import sys
import tempfile
import time

# This file has the name of the package, and its folder would be searched first.
sys.path.pop(0)

import ftfy  # noqa: E402
import ftfy.bad_codecs  # noqa: E402, F401  (registers sloppy-windows-1252)

SETTINGS = dict(
    remove_terminal_escapes=True, fix_encoding=True, restore_byte_a0=True, replace_lossy_sequences=True,
    decode_inconsistent_utf8=True, fix_c1_controls=True, fix_latin_ligatures=False, fix_character_width=False,
    uncurl_quotes=False, fix_line_breaks=False, fix_surrogates=True, remove_control_chars=True, normalization=None,
)  # fmt: skip


def normalise(example, texts):
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as source, tempfile.NamedTemporaryFile() as out:
        source.writelines(json.dumps(text) + "\n" for text in texts)
        source.flush()
        summary = subprocess.run([example, source.name, out.name], check=True, capture_output=True, text=True).stdout
        return [json.loads(line) for line in out], json.loads(summary)


def compare(example, name, texts, unescape, originals=None):
    config = ftfy.TextFixerConfig(unescape_html=unescape, **SETTINGS)
    start = time.process_time()
    fixed = [ftfy.fix_text(text, config=config) for text in texts]
    seconds = time.process_time() - start
    ours, summary = normalise(example, texts)
    theirs, _ = normalise(example, fixed)
    differing = [i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
    result = {
        "texts": name, "unescape_html": unescape, "n": len(texts), "equal": len(texts) - len(differing),
        "changed_by_ftfy": sum(a != b for a, b in zip(texts, fixed, strict=True)),
        "ftfy_seconds": round(seconds, 3), "curate": summary,
    }  # fmt: skip
    if originals:
        wanted, _ = normalise(example, originals)
        result["recovered"] = {
            "curate": sum(a == b for a, b in zip(ours, wanted, strict=True)),
            "ftfy": sum(a == b for a, b in zip(theirs, wanted, strict=True)),
        }
    print(json.dumps(result, ensure_ascii=False))
    for i in differing[:25]:
        at = next((k for k, (a, b) in enumerate(zip(ours[i], theirs[i])) if a != b), -1)
        cut = slice(max(0, at - 20), at + 30)
        print("  DIFFERS", i, repr(ours[i][cut]), "ftfy:", repr(theirs[i][cut]))


def main():
    example, path = sys.argv[1:]
    texts = [json.loads(line)["text"] for line in open(path, encoding="utf-8")]
    lines = sorted({line.strip() for text in texts for line in text.split("\n") if not line.isascii()})
    lines = [line for line in lines if 10 < len(line) < 400 and ftfy.fix_encoding(line) == line]
    lines = lines[:: max(1, len(lines) // 3000)][:3000]
    codecs = ("sloppy-windows-1252", "latin-1")
    broken = [line.encode().decode(codecs[i % 2]) for i, line in enumerate(lines)]
    for unescape in (False, "auto"):
        compare(example, "documents", texts, unescape)
    compare(example, "clean lines", lines, False, lines)
    compare(example, "mojibake lines", broken, False, lines)


main()
