"""Golden verdicts of DCLM's reproduction of RefinedWeb, from its own mappers.

Original: github mlfoundations/dclm at 361714bdd60bb9b7f4b2d8354cebbf0dec0c329e, baselines/baselines_configs/
dclm_baseline_refinedweb.yaml without the URL lists and the language filter. Word boundaries are uniseg 0.10.1's.

    pip install uniseg==0.10.1 fasttext-wheel==0.9.2 retrie==0.3.1 nltk unidecode loguru ...
    python dclm.py --source CHECKOUT

Each line: id; `verdict` of the whole (`keep` or the reason) with the text if it was edited; `edits`, the same for the line
edits alone; `values`, the shares that the repetition rules compare, until the first one that drops.
"""

import os
import sys
import types

import common

args = common.arguments("dclm", __doc__, "a checkout of mlfoundations/dclm")
os.chdir(args.source)
# The package imports every mapper it has; those that are not asked here need not be installed.
for name in ("kenlm", "sentencepiece", "justext", "tensorflow", "gcsfs", "boto3", "transformers", "pythainlp", "resiliparse", "langdetect"):
    try:
        __import__(name)
    except ImportError:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].AutoTokenizer = None

# Their packages import what runs them; plain ones in their place hold the same modules.
for package in ("core", "baselines", "baselines.core", "baselines.mappers", "baselines.mappers.filters", "baselines.mappers.enrichers"):
    module = types.ModuleType(package)
    module.__path__ = ["baselines/core" if package == "core" else package.replace(".", "/")]
    sys.modules[package] = module

from baselines.mappers import modifiers  # noqa: E402
from baselines.mappers.enrichers import enrichers  # noqa: E402
from baselines.mappers.filters import content_filters as filters  # noqa: E402

GRAMS = {2: 0.2, 3: 0.18, 4: 0.16, 5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
REPETITION = (
    [("too_many_duplicate_lines", "line", 0.3, False), ("too_many_duplicate_paragraphs", "paragraph", 0.3, False)]
    + [("too_many_characters_in_duplicate_lines", "line", 0.2, True)]
    + [("too_many_characters_in_duplicate_paragraphs", "paragraph", 0.2, True)]
    + [("too_frequent_top_" if n < 5 else "too_many_duplicate_", n, share, True) for n, share in GRAMS.items()]
)


def repetition(page):
    """The reason of the first repetition filter that drops the page, if one does."""
    cache = {}
    for reason, granularity, share, characters in REPETITION:
        if not filters.repetition_filter(page, granularity, share, count_characters=characters, cache=cache):
            return reason + (f"{granularity}grams" if isinstance(granularity, int) else "")
    return None


def length(page):
    if filters.page_length_filter(page, "word", min_length=50, max_length=100000, ignore_punctuation=True):
        return None
    return "too_many_words" if filters.page_length_filter(page, "word", min_length=50, ignore_punctuation=True) else "too_few_words"


def word_length(page):
    if filters.word_length_filter(page, 3, 10):
        return None
    return "mean_word_too_long" if filters.word_length_filter(page, 3) else "mean_word_too_short"


remove_urls = modifiers.url_removal_modifier(tlds_filepath="baselines/mappers/iana_tlds.txt")
squeeze = modifiers.newline_removal_modifier(max_consecutive=2)
BEFORE = [("nothing_left", remove_urls), ("nothing_left", squeeze)]
RULES = [
    ("too_many_symbols", lambda p: filters.symbol_ratio_filter(p, 0.1)),
    ("too_many_bullet_lines", lambda p: filters.bullet_count_filter(p, 0.9)),
    ("too_many_ellipsis_lines", lambda p: filters.ellipsis_count_filter(p, 0.3)),
    ("too_few_alphabetic_words", lambda p: filters.alphabetic_word_ratio_filter(p, 0.2)),
    ("too_few_stop_words", lambda p: filters.stop_word_filter(p, count_unique=False, min_stop_word=2)),
]
EDITS = [
    ("count", lambda p: enrichers.word_counter_enricher(p, key="previous_word_count", overwrite=True)),
    ("nothing_left", lambda p: modifiers.uppercase_ratio_line_modifier(p, 0.5)),
    ("nothing_left", lambda p: modifiers.numeric_ratio_line_modifier(p, 0.999999)),
    ("nothing_left", modifiers.counter_line_modifier()),
    ("nothing_left", lambda p: modifiers.line_length_modifier(p, min_length=2)),
    ("nothing_left", modifiers.substring_line_modifier("items in cart", max_length=10, remove_substring_only=True)),
    ("nothing_left", modifiers.substring_line_modifier("Read more...", max_length=10, location="suffix", remove_substring_only=True)),
    ("nothing_left", modifiers.substring_line_modifier("Sign-in", max_length=10, location="prefix", remove_substring_only=True)),
    ("too_many_words_removed", lambda p: filters.word_removal_ratio_filter(p, "previous_word_count", max_removed_ratio=0.05)),
]


def run(page, chain):
    for reason, step in chain:
        if not step(page):
            return reason
    return None


def whole(text):
    if not text.split():
        return {"verdict": "empty"}
    page = {"text": text}
    reason = (
        run(page, BEFORE) or length(page) or word_length(page) or run(page, RULES) or repetition(page) or run(page, EDITS)
    )
    return {"verdict": reason or "keep"} | ({} if reason else {"text": page["text"]})


def edits_alone(text):
    if not text.split():
        return {"verdict": "empty"}
    page = {"text": text}
    reason = run(page, BEFORE) or run(page, EDITS)
    return {"verdict": reason or "keep"} | ({} if reason or page["text"] == text else {"text": page["text"]})


def judge(text):
    if args.verdict_only:
        return whole(text)
    edits = edits_alone(text)
    if args.no_texts and "text" in edits:
        edits["characters"] = len(edits.pop("text"))
    return whole(text) | {"edits": edits}


common.write(args, judge)
