#!/bin/sh
# Trains the 56 thousand parameters of char-tiny on a text of 170 characters until it knows it by heart: the loss
# starts near ln 27 = 3.30 nats and the perplexity on that same text ends below 5.
# usage: pipelines/handbook-char.sh [DIR]
set -eu
dir=${1:-demo/handbook-char}
curate=${CURATE:-curate}

"$curate" tokenize --tokenizer char:fixtures/char-tiny.txt fixtures/char-tiny.jsonl |
    "$curate" pack --seq-len 128 --force -o "$dir/shards"
"$curate" train "$dir/shards" --preset char-tiny --device cpu --sample-every 100 --sample-prompt "the quick" -o "$dir/run"
"$curate" eval "$dir/run" --split train
"$curate" generate "$dir/run" --prompt "the quick" --max-tokens 60 --temperature 0.1
