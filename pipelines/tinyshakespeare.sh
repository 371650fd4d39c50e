#!/bin/sh
# nanoGPT's character model of tinyshakespeare at its setting for a CPU (published validation loss 1.88) or for a GPU
# (1.4697); pipelines/settings/shakespeare-char-*.toml have the numbers. The text is the usual file of 1,115,394 ASCII
# characters; as there, the last tenth is held out as one piece. The held-out loss is taken over windows of the context
# without overlap, as nanoGPT's random ones are. docs/evaluation.md has what was measured.
# usage: pipelines/tinyshakespeare.sh [cpu|gpu] INPUT.txt [DIR] [MORE FLAGS OF curate train]
set -eu
setting=cpu
case $1 in cpu | gpu) setting=$1 && shift ;; esac
input=$1
dir=${2:-demo/tinyshakespeare-$setting}
shift
[ $# -eq 0 ] || shift
curate=${CURATE:-curate}
settings=$(dirname "$0")/settings/shakespeare-char-$setting.toml
context=$(sed -n 's/^seq-len = //p' "$settings")

mkdir -p "$dir"
bytes=$(wc -c <"$input")
train=$((bytes * 9 / 10))
head -c "$train" "$input" >"$dir/train.txt"
tail -c +"$((train + 1))" "$input" >"$dir/val.txt"
for part in train val; do
    "$curate" read "$dir/$part.txt" |
        "$curate" tokenize --tokenizer "char:$input" |
        "$curate" pack --seq-len "$context" --force -o "$dir/shards-$part"
done
"$curate" train "$dir/shards-train" --config "$settings" --eval-shards "$dir/shards-val" --eval-split train -o "$dir/run" "$@"
"$curate" eval "$dir/run" --shards "$dir/shards-val" --split train --window "$context" --stride "$context" \
    --json "$dir/val-like-nanogpt.json"
"$curate" eval "$dir/run" --shards "$dir/shards-val" --split train
