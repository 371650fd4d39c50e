#!/usr/bin/env python3
"""Makes a recipe of FineWeb-2's configuration for a language.

    python3 tools/fineweb2_recipe.py CONFIGS/fra_Latn.yml > crates/curate-clean/recipes/fineweb2/fra_Latn.toml

Configurations: github huggingface/fineweb-2, `configs/`; the ones that come with curate are of commit d0defb2. A recipe for any
other language is made in the same way and used by its file: `curate clean --recipe swh_Latn.toml`. Only what those files hold is
read; Python's standard library alone.
"""

import json
import re
import sys
from pathlib import Path

HEAD = """name = "fineweb2:{language}"
description = "FineWeb-2's filters for {language} as datatrove has them, on whitespace words."
source = "huggingface/fineweb-2 d0defb2 configs/{language}.yml and fineweb-2-pipeline.py; datatrove 0.10.1"
words = "whitespace"
normalise = false
stop_words = {stop_words}

# The original splits words by the language's own tokenizer, and drops documents with a language score below {score}:
# `--lang` and `--min-lang-score` of `curate clean` stand for that, with the scores of another model.

[thresholds]
{thresholds}
"""


def read(path):
    """The few shapes of YAML that the configurations have: numbers, lists of pairs, lists of strings."""
    config, key = {}, None
    for line in path.read_text(encoding="utf-8").splitlines():
        if m := re.match(r"(\w+):\s*(\S*)$", line):
            key, value = m.groups()
            config[key] = float(value) if value else []
        elif m := re.match(r"- - (\d+)$", line):
            config[key].append([int(m[1])])
        elif m := re.match(r"  - (\S+)$", line):
            config[key][-1].append(float(m[1]))
        elif m := re.match(r"- (.*)$", line):
            config[key].append(string(m[1]))
        else:
            sys.exit(f"{path}: not understood: {line}")
    return config


def string(text):
    if text.startswith('"'):
        escape = r'\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)'
        return re.sub(escape, lambda m: chr(int(m[1][1:], 16)) if m[1][0] in "xuU" and len(m[1]) > 1 else m[1], text[1:-1])
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    return text


def main():
    path = Path(sys.argv[1])
    config = read(path)
    thresholds, rules = [], []

    def rule(reason, statistic, operator, name, value, disabled=0):
        if value == disabled:
            return
        value = int(value) if value == int(value) else value
        thresholds.append(f"{name} = {value}")
        rules.append(f'[[rule]]\nreason = "{reason}"\ndrop_if = "{statistic} {operator} {name}"\n')

    rule("too_many_duplicate_lines", "datatrove_duplicate_lines_ratio", ">", "max_duplicate_lines", config["dup_line_frac"])
    for n, value in config["top_n_grams"]:
        rule(f"too_frequent_top_{n}grams", f"datatrove_top_{n}grams", ">", f"max_top_{n}grams", value, None)
    for n, value in config["dup_n_grams"]:
        rule(f"too_many_duplicate_{n}grams", f"datatrove_duplicate_{n}grams", ">", f"max_duplicate_{n}grams", value, None)
    if config["line_punct_thr"] > 0:
        rule("too_few_ended_lines", "fineweb_ended_lines_ratio", "<", "min_ended_lines", config["line_punct_thr"])
    rule("too_many_characters_in_repeated_lines", "fineweb_duplicate_line_characters_ratio", ">", "max_repeated_line_characters", 0.1)
    rule("too_many_line_feeds", "fineweb_line_feeds_per_word", ">", "max_line_feeds_per_word", config["new_line_ratio"], None)
    rule("too_few_words", "content_words", "<", "min_words", 50)
    rule("too_many_words", "content_words", ">", "max_words", 100_000)
    rule("mean_word_too_short", "mean_word_length", "<", "min_word_length", config["min_avg_word_length"])
    rule("mean_word_too_long", "mean_word_length", ">", "max_word_length", config["max_avg_word_length"])
    rule("too_many_hashes", "hash_ratio", ">", "max_hash_ratio", 0.1)
    rule("too_many_ellipses", "ellipsis_ratio", ">", "max_ellipsis_ratio", 0.1)
    rule("too_many_bullet_lines", "bullet_lines_ratio", ">", "max_bullet_lines", 0.9)
    rule("too_many_ellipsis_lines", "ellipsis_lines_ratio", ">", "max_ellipsis_lines", 0.3)
    rule("too_few_alphabetic_words", "alphabetic_words_ratio", "<", "min_alphabetic_words", config["max_non_alpha_words_ratio"])
    rule("too_few_stop_words", "recipe_stop_words_distinct", "<", "min_stop_words", 2)
    head = HEAD.format(
        language=path.stem,
        stop_words=json.dumps(config["stopwords"], ensure_ascii=False),
        score=config["language_score"],
        thresholds="\n".join(thresholds),
    )
    print(head + "\n" + "\n".join(rules), end="")


main()
