#!/bin/sh
# The stages of pipelines/incremental-dump.toml as a shell pipe, which reads everything anew; its output is byte for byte
# that of `curate run`.
# usage: pipelines/incremental-dump.sh [OUTPUT [INPUT…]]
set -eu
output=${1:-incremental-dump/corpus.jsonl.zst}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- dumps/
curate=${CURATE:-curate}

"$curate" read "$@" |
    "$curate" clean --recipe curate-v1 |
    "$curate" dedup --minhash --threshold 0.8 -o "$output"
