#!/bin/sh
# The stages of pipelines/multilingual.toml as a shell pipe. A pipe forgets which file a document came from, so its output
# is one file; its documents are those of `curate run`, in the same order.
# usage: pipelines/multilingual.sh [OUTPUT.parquet [INPUT…]]
set -eu
output=${1:-multilingual-out.parquet}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- multilingual/
curate=${CURATE:-curate}

"$curate" read "$@" |
    "$curate" clean --recipe curate-v1 --set min_stop_words=0 |
    "$curate" dedup --minhash --threshold 0.8 -o "$output"
