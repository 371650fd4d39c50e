#!/usr/bin/env python3
"""Three files of text to measure encoders on: english.jsonl, code.jsonl, multi.jsonl.

usage: benches/tokenize/corpus.py [OUT] [--shared DIR] [--english MB] [--code MB] [--multi MB]

Needs `zstd`, and `apt-get` with `dpkg-deb` of a Debian 12; takes the rest from what building curate has brought:

- english: whole books, the newest revision of each PEP, EIP and Rust RFC (both of DIR, ../shared/data), the kernel's
  documentation, an English dictionary, manual pages, Perl's manual
- code: the crates of Cargo.lock (Rust, and the C that some carry), Go, Python's library
- multi: LibreOffice's and GIMP's help and manual pages in Chinese, Japanese, Korean, Hindi, Russian, Ukrainian, Greek,
  Vietnamese, Khmer, German, French, Spanish, Polish, Turkish; the declaration of human rights in 470 languages; Chinese poems

Nothing is there twice, or caches of words would look better than they are: equal documents are dropped, and so are
lines of over 40 characters that a package has already given (the frames of pages). The order is a fixed shuffle. The
same packages give the same files; their versions and the SHA-256 of each file are printed.
"""

import argparse
import glob
import gzip
import hashlib
import html
import json
import os
import random
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
LANGUAGES = "de el es fr hi ja km ko pl ru th tr uk vi zh-cn zh-tw".split()
HELP = ["libreoffice-help-" + language for language in LANGUAGES if language not in ("th", "uk")]
PAGES = ["manpages-" + language for language in "de es fr ja pl ru uk zh".split()]
MANUALS = ["debian-reference-ja", "debian-reference-zh-cn", "debian-faq-ko", "debian-faq-ru", "aptitude-doc-ru", "gimp-help-ja"]
PACKAGES = [
    *["linux-doc-6.1", "manpages", "manpages-dev", "git-man", "perl-doc", "dict-gcide"],
    *["golang-1.19-src", "libpython3.11-stdlib"],
    *[*HELP, *PAGES, *MANUALS],
]


def unpack(work):
    """Package → folder with its files."""
    folders = {}
    for package in PACKAGES:
        folder = folders[package] = os.path.join(work, package)
        if os.path.exists(folder):
            continue
        os.makedirs(work, exist_ok=True)
        if subprocess.run(["apt-get", "download", "-qq", package], cwd=work, stderr=subprocess.DEVNULL).returncode != 0:
            sys.exit(f"apt-get has no {package}; run apt-get update")
        (deb,) = glob.glob(os.path.join(work, package + "_*.deb"))
        subprocess.run(["dpkg-deb", "-x", deb, folder + ".part"], check=True)
        os.rename(folder + ".part", folder)
        print(os.path.basename(deb)[:-4], file=sys.stderr)
    return folders


def files(folder, *endings):
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            if name.endswith(endings) and not os.path.islink(path):
                yield path


def read(path):
    """Text of a file; None if it is no text."""
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            return file.read().decode()
    except (UnicodeDecodeError, gzip.BadGzipFile):
        return None


def jsonl(path):
    zstd = subprocess.Popen(["zstd", "-dc", "--long=27", path], stdout=subprocess.PIPE)
    yield from map(json.loads, zstd.stdout)
    zstd.wait()


def of_html(page):
    page = re.sub(r"(?s)<(script|style|head).*?</\1>", " ", page)
    page = re.sub(r"(?i)</?(p|div|h\d|li|tr|td|br|pre|table|ul|dt|dd)\b[^>]*>", "\n", page)
    return re.sub(r"\s*\n\s*", "\n", html.unescape(re.sub(r"<[^>]*>", "", page))).strip()


def of_roff(page):
    lines = [line for line in page.splitlines() if not line.startswith((".\\\"", "'\\\"", ".TH", ".de", ".if", ".ie", "..", ".so"))]
    lines = [re.sub(r"^\.[A-Za-z]{1,3}\s*", "", line) for line in lines]
    text = re.sub(r"\\f[A-Z]|\\f\[[^]]*\]|\\f\(..|\\&|\\/|\\,|\\c", "", "\n".join(lines))
    return text.replace("\\-", "-").replace("\\(aq", "'").replace("\\(co", "©").replace("\\e", "\\")


def new_lines(texts):
    """The texts without the longer lines that an earlier one has had."""
    seen = set()
    for text in texts:
        kept = []
        for line in text.splitlines():
            if len(line) <= 40 or line not in seen:
                kept.append(line)
            if len(line) > 40:
                seen.add(line)
        yield "\n".join(kept)


def readable(folder, change, *endings):
    texts = (read(path) for path in files(folder, *endings))
    yield from new_lines(change(text) for text in texts if text)


def newest(path):
    """The last revision of each document of dedup_dev."""
    last = {}
    for record in jsonl(path):
        name, _, revision = record["id"].partition("@")
        if not record["source"].startswith("tldr") and last.get(name, (-1,))[0] < int(revision or 0):
            last[name] = (int(revision or 0), record["text"])
    return [text for _, text in last.values()]


def dictionary(folder):
    """An entry a paragraph, a few hundred a document."""
    (path,) = files(folder, ".dict.dz")
    text = gzip.open(path).read().decode(errors="replace")
    return [text[start : start + 8000] for start in range(0, len(text), 8000)]


def english(shared, folders):
    for part in ("train", "valid", "test"):
        yield "books", [record["text"] for record in jsonl(f"{shared}/train/books.{part}.jsonl.zst")], 50
    yield "proposals", newest(f"{shared}/dedup_dev/docs.jsonl.zst"), 25
    yield "kernel", readable(folders["linux-doc-6.1"], str, ".rst.gz", ".txt.gz"), 20
    yield "dictionary", dictionary(folders["dict-gcide"]), 10
    for package in ("manpages", "manpages-dev", "git-man"):
        yield package, readable(folders[package], of_roff, ".gz"), 5
    yield "perl", readable(folders["perl-doc"], str, ".pod"), 5


def code(shared, folders):
    lock = open(os.path.join(ROOT, "Cargo.lock"), encoding="utf-8").read()
    crates = re.findall(r'name = "(.*)"\nversion = "(.*)"\nsource = ', lock)
    homes = [glob.glob(os.path.expanduser(f"~/.cargo/registry/src/*/{name}-{version}")) for name, version in crates]
    homes = [home[0] for home in homes if home]
    random.Random(1).shuffle(homes)
    sources = lambda *endings: (text for home in homes for path in files(home, *endings) if (text := read(path)))
    yield "rust", sources(".rs"), 10
    yield "c", sources(".c", ".h", ".cpp"), 5
    yield "go", (read(path) for path in files(folders["golang-1.19-src"], ".go")), 6
    yield "python", (read(path) for path in files(folders["libpython3.11-stdlib"], ".py")), 6


def multi(shared, folders):
    for package in HELP:
        yield package, readable(folders[package], of_html, ".html"), 1.5
    for package in PAGES:
        yield package, readable(folders[package], of_roff, ".gz"), 1.5
    for package in MANUALS:
        yield package, readable(folders[package], of_html, ".html"), 1.5
    yield "rights", [record["text"] for record in jsonl(f"{shared}/langid/udhr.jsonl.zst")], 3
    poems = (r["text"] for r in jsonl(f"{shared}/mix/mix.jsonl.zst") if r["source"].startswith("chinese-poetry"))
    yield "poems", poems, 2


def write(path, parts, megabytes):
    """Up to so many megabytes of each part, shuffled, cut to the size of all."""
    seen, records = set(), []
    for name, texts, part_megabytes in parts:
        size = 0
        for text in texts:
            digest = hashlib.sha256(text.encode(errors="replace")).digest() if text else b""
            # Files of megabytes are tables rather than text, books aside.
            if not text or len(text) > 400_000 and name != "books" or digest in seen:
                continue
            seen.add(digest)
            size += len(text.encode())
            records.append({"id": f"{name}/{len(records)}", "text": text, "source": name})
            if size >= part_megabytes * 1e6:
                break
        print(f"{os.path.basename(path)} {name} {size / 1e6:.1f} MB", file=sys.stderr)
    random.Random(7).shuffle(records)
    size, digest = 0, hashlib.sha256()
    with open(path + ".part", "wb") as out:
        for record in records:
            line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
            digest.update(line)
            out.write(line)
            size += len(record["text"].encode())
            if size >= megabytes * 1e6:
                break
    os.rename(path + ".part", path)
    print(f"{path}: {size / 1e6:.1f} MB of text, SHA-256 {digest.hexdigest()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default=os.path.join(ROOT, "target", "bench-tokenize", "corpus"))
    parser.add_argument("--shared", default=os.path.join(ROOT, "..", "shared", "data"))
    parser.add_argument("--english", type=float, default=80)
    parser.add_argument("--code", type=float, default=25)
    parser.add_argument("--multi", type=float, default=25)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    folders = unpack(os.path.join(args.out, "packages"))
    for part, megabytes in ((english, args.english), (code, args.code), (multi, args.multi)):
        write(os.path.join(args.out, part.__name__ + ".jsonl"), part(args.shared, folders), megabytes)


main()
