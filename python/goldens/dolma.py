"""Golden verdicts of dolma's Gopher rules with the thresholds of its v1.5 mixing configuration.

Original: dolma 1.2.1, taggers/gopher.py (`gopher_v1`), scores rounded as core/taggers.py writes them; thresholds of
github allenai/dolma configs/dolma-v1_5/mixing/cc-head.yaml. Three of those name attributes that no tagger writes
(`..._most_common_2gram`, the tagger writes `..._2grams`): `asrun` is what the configuration does, `verdict` what it means.
`values` are those that the rules compare, in the order of RULES; 0 where there are too few words for an n-gram.

    pip install dolma==1.2.1
    python dolma.py
"""

import importlib.util
import sys
import types
from pathlib import Path

import common

# This file has the name of the package.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]


# The packages import all taggers with all that each needs; plain ones in their place hold the same modules.
(root,) = importlib.util.find_spec("dolma").submodule_search_locations
for package in ("dolma", "dolma.core", "dolma.taggers"):
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = [str(Path(root, *package.split(".")[1:]))]

from dolma.core.data_types import Document  # noqa: E402
from dolma.core.taggers import TAGGER_SCORE_PRECISION  # noqa: E402
from dolma.taggers.gopher import GopherTagger  # noqa: E402

RULES = [
    ("too_few_words", "word_count", "<", 50),
    ("too_many_words", "word_count", ">", 100000),
    ("median_word_too_short", "median_word_length", "<", 3),
    ("median_word_too_long", "median_word_length", ">", 10),
    ("too_many_symbols", "symbol_to_word_ratio", ">", 0.1),
    ("too_few_alphabetic_words", "fraction_of_words_with_alpha_character", "<", 0.8),
    ("too_few_stop_words", "required_word_count", "<", 2),
    ("too_many_bullet_lines", "fraction_of_lines_starting_with_bullet_point", ">", 0.9),
    ("too_many_ellipsis_lines", "fraction_of_lines_ending_with_ellipsis", ">", 0.3),
    ("too_many_duplicate_lines", "fraction_of_duplicate_lines", ">", 0.3),
    ("too_many_characters_in_duplicate_lines", "fraction_of_characters_in_duplicate_lines", ">", 0.3),
    ("too_frequent_top_2grams", "fraction_of_characters_in_most_common_2grams", ">", 0.2),
    ("too_frequent_top_3grams", "fraction_of_characters_in_most_common_3grams", ">", 0.18),
    ("too_frequent_top_4grams", "fraction_of_characters_in_most_common_4grams", ">", 0.16),
    ("too_many_duplicate_5grams", "fraction_of_characters_in_duplicate_5grams", ">", 0.15),
    ("too_many_duplicate_6grams", "fraction_of_characters_in_duplicate_6grams", ">", 0.14),
    ("too_many_duplicate_7grams", "fraction_of_characters_in_duplicate_7grams", ">", 0.13),
    ("too_many_duplicate_8grams", "fraction_of_characters_in_duplicate_8grams", ">", 0.12),
    ("too_many_duplicate_9grams", "fraction_of_characters_in_duplicate_9grams", ">", 0.11),
    ("too_many_duplicate_10grams", "fraction_of_characters_in_duplicate_10grams", ">", 0.10),
]

args = common.arguments("dolma", __doc__)
tagger = GopherTagger()


def judge(text):
    if not text.split():
        return {"verdict": "empty", "asrun": "empty"}
    spans = tagger.predict(Document(source="", id="", text=text)).spans
    values = {span.type: round(float(span.score), TAGGER_SCORE_PRECISION) for span in spans}

    def first(rules):
        for reason, name, operator, threshold in rules:
            value = values.get(name)
            if value is not None and (value < threshold if operator == "<" else value > threshold):
                return reason
        return "keep"

    asrun = first([rule for rule in RULES if "most_common" not in rule[1]])
    return {"verdict": first(RULES), "asrun": asrun, "values": [values.get(name, 0.0) for _, name, _, _ in RULES]}


common.write(args, judge)
