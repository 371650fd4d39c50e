"""Golden verdicts of FineWeb-2's filters for some languages, on whitespace words.

Original: datatrove 0.10.1 as `fineweb-2-pipeline.py` of github huggingface/fineweb-2 d0defb2 uses it, with the thresholds and
stop words of `configs/` there.

    pip install datatrove==0.10.1 spacy==3.8.18 regex pyyaml
    python fineweb2.py --source CHECKOUT
"""

import sys
from pathlib import Path

import common

args = common.arguments("fineweb2", __doc__, "a checkout of huggingface/fineweb-2")
# A file here has the name of the package.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]

import yaml  # noqa: E402
from datatrove.data import Document  # noqa: E402
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter  # noqa: E402

for module in ("gopher_repetition_filter", "gopher_quality_filter", "fineweb_quality_filter"):
    sys.modules[f"datatrove.pipeline.filters.{module}"].split_into_words = lambda text, language: text.split()

REASONS = {
    "dup_line_frac": "too_many_duplicate_lines",
    **{f"top_{n}_gram": f"too_frequent_top_{n}grams" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"too_many_duplicate_{n}grams" for n in range(5, 11)},
    "line_punct_ratio": "too_few_ended_lines",
    "char_dup_ratio": "too_many_characters_in_repeated_lines",
    "list_ratio": "too_many_line_feeds",
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
}


def filters(language):
    config = yaml.safe_load((args.source / "configs" / f"{language}.yml").read_text(encoding="utf-8"))
    return [
        GopherRepetitionFilter(
            dup_para_frac=0,
            dup_line_char_frac=0,
            dup_para_char_frac=0,
            dup_line_frac=config["dup_line_frac"],
            top_n_grams=config["top_n_grams"],
            dup_n_grams=config["dup_n_grams"],
        ),
        FineWebQualityFilter(
            short_line_thr=999,
            char_duplicates_ratio=0.1,
            line_punct_thr=config["line_punct_thr"],
            new_line_ratio=config["new_line_ratio"],
        ),
        GopherQualityFilter(
            max_avg_word_length=config["max_avg_word_length"],
            min_avg_word_length=config["min_avg_word_length"],
            stop_words=config["stopwords"],
            max_non_alpha_words_ratio=config["max_non_alpha_words_ratio"],
            min_stop_words=2,
        ),
    ]


CHAINS = {language: filters(language) for language in ("fra_Latn", "cmn_Hani", "rus_Cyrl", "hin_Deva")}


def judge(text):
    if not text.split():
        return {language: "empty" for language in CHAINS}
    verdicts = {}
    for language, chain in CHAINS.items():
        results = (each.filter(Document(text=text, id="")) for each in chain)
        reason = next((result[1] for result in results if result is not True), "keep")
        verdicts[language] = REASONS.get(reason, reason)
    return verdicts


common.write(args, judge)
