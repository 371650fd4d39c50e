#!/bin/sh
# The stages of pipelines/code.toml as a shell pipe; its shards are byte for byte those of `curate run`.
# usage: pipelines/code.sh [SHARDS [INPUT…]]
set -eu
shards=${1:-code-out/shards}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- code/
curate=${CURATE:-curate}

"$curate" read --format text --max-malformed 0.5 "$@" |
    "$curate" dedup --minhash --threshold 0.85 |
    "$curate" tokenize --tokenizer bytes |
    "$curate" pack --seq-len 1024 --policy best-fit --split val=0.02 -o "$shards"
