"""Golden verdicts of datatrove's filters: Gopher repetition and quality, C4, and FineWeb's chain of all of them.

Original: datatrove 0.10.1. `gopher`, `c4` and `fineweb` are on whitespace words (str.split() in place of spaCy's tokeniser;
sentences stay spaCy's); with `--shipped`, on the words of spaCy as the package has them. Texts are those that the edits leave.

    pip install datatrove==0.10.1 spacy==3.8.18 regex
    python datatrove.py
"""

import sys
from pathlib import Path

import common

# This file has the name of the package.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]

from datatrove.data import Document  # noqa: E402
from datatrove.pipeline.filters import (  # noqa: E402
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils import text as texts  # noqa: E402

REASONS = {
    "empty": "empty",
    "dup_para_frac": "too_many_duplicate_paragraphs",
    "dup_para_char_frac": "too_many_characters_in_duplicate_paragraphs",
    "dup_line_frac": "too_many_duplicate_lines",
    "dup_line_char_frac": "too_many_characters_in_duplicate_lines",
    **{f"top_{n}_gram": f"too_frequent_top_{n}grams" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"too_many_duplicate_{n}grams" for n in range(5, 11)},
    "gopher_short_doc": "too_few_words",
    "gopher_long_doc": "too_many_words",
    "gopher_below_avg_threshold": "mean_word_too_short",
    "gopher_above_avg_threshold": "mean_word_too_long",
    "gopher_too_many_hashes": "too_many_hashes",
    "gopher_too_many_ellipsis": "too_many_ellipses",
    "gopher_too_many_bullets": "too_many_bullet_lines",
    "gopher_too_many_end_ellipsis": "too_many_ellipsis_lines",
    "gopher_below_alpha_threshold": "too_few_alphabetic_words",
    "gopher_enough_stop_words": "too_few_stop_words",
    "lorem_ipsum": "lorem_ipsum",
    "curly_bracket": "curly_bracket",
    "too_few_sentences": "too_few_sentences",
    "line_punct_ratio": "too_few_ended_lines",
    "short_line_ratio": "too_many_short_lines",
    "char_dup_ratio": "too_many_characters_in_repeated_lines",
    "list_ratio": "too_many_line_feeds",
}

parser_flags = [flag for flag in ("--shipped", "--fineweb-only") if flag in sys.argv]
sys.argv = [arg for arg in sys.argv if arg not in parser_flags]
args = common.arguments("datatrove", __doc__)
if "--shipped" not in parser_flags:
    for module in ("gopher_repetition_filter", "gopher_quality_filter", "fineweb_quality_filter"):
        sys.modules[f"datatrove.pipeline.filters.{module}"].split_into_words = lambda text, language: text.split()

GOPHER = [GopherRepetitionFilter(), GopherQualityFilter()]
CHAINS = {
    "gopher": GOPHER,
    "c4": [C4QualityFilter()],
    "fineweb": [*GOPHER, C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()],
}
if "--fineweb-only" in parser_flags:
    CHAINS = {"fineweb": CHAINS["fineweb"]}


def run(chain, text):
    doc = Document(text=text, id="")
    for step in chain:
        result = step.filter(doc)
        if result is not True:
            return {"verdict": REASONS[result[1]]}
    return {"verdict": "keep"} if doc.text == text else {"verdict": "keep", "text": doc.text}


def judge(text):
    # A text without a word is empty to curate whatever the recipe.
    if not text.split():
        return {name: {"verdict": "empty"} for name in CHAINS}
    results = {name: run(chain, text) for name, chain in CHAINS.items()}
    for result in results.values():
        if args.no_texts and "text" in result:
            result["characters"] = len(result.pop("text"))
    return results


args.no_texts = True
common.write(args, judge)
