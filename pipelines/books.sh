#!/bin/sh
# The stages of pipelines/books.toml as a shell pipe; its shards are byte for byte those of `curate run`.
# usage: pipelines/books.sh [SHARDS [INPUT…]]
set -eu
shards=${1:-books-out/shards}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- books/
curate=${CURATE:-curate}

"$curate" read "$@" |
    "$curate" clean --recipe none |
    "$curate" dedup --minhash --threshold 0.7 |
    "$curate" tokenize --tokenizer bytes |
    "$curate" pack --seq-len 2048 --policy best-fit --split val=0.05,test=0.05 -o "$shards"
