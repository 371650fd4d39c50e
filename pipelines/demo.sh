#!/bin/sh
# The stages of pipelines/demo.toml as a shell pipe; its shards are byte for byte those of `curate run`.
# usage: pipelines/demo.sh [INPUT [TOKENIZER [SHARDS]]]
set -eu
input=${1:-demo/corpus.jsonl}
tokenizer=${2:-demo/tokenizer.json}
shards=${3:-demo/shards-from-pipe}
curate=${CURATE:-curate}

"$curate" read "$input" |
    "$curate" clean --recipe curate-v1 |
    "$curate" dedup --minhash --threshold 0.8 |
    "$curate" tokenize --tokenizer "$tokenizer" |
    "$curate" pack --seq-len 256 --split val=0.05 -o "$shards"
