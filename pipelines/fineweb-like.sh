#!/bin/sh
# The stages of pipelines/fineweb-like.toml as a shell pipe; its shards are byte for byte those of `curate run`.
# usage: pipelines/fineweb-like.sh [SHARDS [INPUT…]]
set -eu
shards=${1:-fineweb-like/shards}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- crawl/
curate=${CURATE:-curate}

"$curate" read --extract trafilatura --max-malformed 0.05 "$@" |
    "$curate" clean --recipe curate-v1 |
    "$curate" dedup --minhash --threshold 0.75 --bands 14 --rows 8 |
    "$curate" tokenize --tokenizer bytes |
    "$curate" pack --seq-len 1024 --split val=0.01 -o "$shards"
