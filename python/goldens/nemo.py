"""Golden verdicts of NeMo Curator's English heuristic filters.

Original: github NVIDIA-NeMo/Curator at 1e2e4275eb6cf79fafaebc5b35c253a146417113, nemo_curator/config/text/
heuristic_filter_english_pipeline.yaml (formerly heuristic_filter_en.yaml), filters and thresholds in its order.

    pip install regex loguru pyyaml
    PYTHONHASHSEED=0 python nemo.py --source CHECKOUT

Among n-grams that are equally frequent the original takes the one that comes first in a set, so it depends on the hash seed
of the process; `ties` is the verdict if the one that comes first in the text is taken, and the recipe's.
"""

import sys
import types

import common

args = common.arguments("nemo", __doc__, "a checkout of NVIDIA-NeMo/Curator")
PACKAGE = "nemo_curator.stages.text"
for name in ("nemo_curator", "nemo_curator.stages", PACKAGE, f"{PACKAGE}.filters", f"{PACKAGE}.filters.heuristic"):
    module = types.ModuleType(name)
    module.__path__ = [str(args.source / name.replace(".", "/"))]
    sys.modules[name] = module
sys.modules[f"{PACKAGE}.utils"] = types.ModuleType(f"{PACKAGE}.utils")
sys.modules[f"{PACKAGE}.utils"].__path__ = [str(args.source / "nemo_curator/stages/text/utils")]

import yaml  # noqa: E402
from nemo_curator.stages.text.filters.heuristic import string  # noqa: E402
from nemo_curator.stages.text.filters.heuristic.repetition import repetition  # noqa: E402
from nemo_curator.stages.text.utils.text_utils import get_ngrams  # noqa: E402

REASONS = {
    "NonAlphaNumericFilter": "too_few_alphanumeric_characters",
    "SymbolsToWordsFilter": "too_many_symbols",
    "NumbersFilter": "too_many_digits",
    "UrlsFilter": "too_many_urls",
    "WhiteSpaceFilter": "too_much_white_space",
    "ParenthesesFilter": "too_many_parentheses",
    "BoilerPlateStringFilter": "too_much_boilerplate",
    "RepeatedLinesFilter": "too_many_duplicate_lines",
    "RepeatedParagraphsFilter": "too_many_duplicate_paragraphs",
    "RepeatedLinesByCharFilter": "too_many_characters_in_duplicate_lines",
    "RepeatedParagraphsByCharFilter": "too_many_characters_in_duplicate_paragraphs",
    "PunctuationFilter": "too_many_lines_without_end_mark",
    "WordsWithoutAlphabetsFilter": "too_few_alphabetic_words",
    "CommonEnglishWordsFilter": "too_few_stop_words",
    "LongWordFilter": "word_too_long",
    "EllipsisFilter": "too_many_ellipsis_lines",
    "BulletsFilter": "too_many_bullet_lines",
}


def reason(filter, score):
    name = type(filter).__name__
    if name == "WordCountFilter":
        return "too_few_words" if score < filter._min_words else "too_many_words"
    if name == "MeanWordLengthFilter":
        return "mean_word_too_short" if score < filter._min_cutoff else "mean_word_too_long"
    if name == "RepeatingTopNGramsFilter":
        return f"too_frequent_top_{filter._n}grams"
    if name == "RepeatingDuplicateNGramsFilter":
        return f"too_many_duplicate_{filter._n}grams"
    return REASONS[name]


def filters():
    config = yaml.safe_load(open(args.source / "nemo_curator/config/text/heuristic_filter_english_pipeline.yaml"))
    for stage in config["stages"]:
        settings = dict(stage.get("filter_obj", {}))
        if settings:
            path = settings.pop("_target_")
            module = repetition if ".repetition." in path else string
            yield getattr(module, path.rsplit(".", 1)[1])(**settings)


FILTERS = list(filters())


def first_in_text(filter, text):
    """The score of the top n-gram filter if ties go to the n-gram that comes first in the text."""
    words = text.split()
    if len(words) < filter._n:
        return 1.0
    counts = {}
    for ngram in get_ngrams(words, filter._n):
        counts[ngram] = counts.get(ngram, 0) + 1
    return (len(text) - len(text.replace(" ".join(max(counts, key=counts.get)), ""))) / len(text)


def verdict(text, ties):
    for filter in FILTERS:
        is_top = ties and isinstance(filter, repetition.RepeatingTopNGramsFilter)
        score = first_in_text(filter, text) if is_top else filter.score_document(text)
        if not filter.keep_document(score):
            return reason(filter, score)
    return "keep"


def judge(text):
    if not text.split():
        return {"verdict": "empty", "ties": "empty"}
    if args.verdict_only:
        return {"verdict": verdict(text, False)}
    return {"verdict": verdict(text, False), "ties": verdict(text, True)}


common.write(args, judge)
