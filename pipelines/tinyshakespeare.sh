#!/bin/sh
# nanoGPT's small CPU setting (config/train_shakespeare_char.py with the flags that its README gives for a laptop):
# 4 layers, 4 heads, 128 channels, context 64, 12 rows a step, 2000 steps, no dropout, no bias. Published there:
# validation loss 1.88. The text is the usual file of 1,115,394 ASCII characters; as there, the last tenth is held out
# as one piece. The held-out loss is taken over windows of 64 without overlap, as nanoGPT's random ones are.
# Measured with the defaults, seed 1 and one thread: 1.911 nats that way, 1.883 with windows that overlap by half.
# usage: pipelines/tinyshakespeare.sh INPUT.txt [DIR]
set -eu
input=$1
dir=${2:-demo/tinyshakespeare}
curate=${CURATE:-curate}

mkdir -p "$dir"
bytes=$(wc -c <"$input")
train=$((bytes * 9 / 10))
head -c "$train" "$input" >"$dir/train.txt"
tail -c +"$((train + 1))" "$input" >"$dir/val.txt"
for part in train val; do
    "$curate" read "$dir/$part.txt" |
        "$curate" tokenize --tokenizer "char:$input" |
        "$curate" pack --seq-len 64 --force -o "$dir/shards-$part"
done
"$curate" train "$dir/shards-train" --preset gpt2-tiny --bias false --batch-size 12 --steps "${STEPS:-2000}" \
    --lr 1e-3 --min-lr-ratio 0.1 --warmup "${WARMUP:-100}" --beta2 0.99 --weight-decay 0.1 --clip 1 \
    --device cpu ${THREADS:+--threads "$THREADS"} --log-every 100 -o "$dir/run"
"$curate" eval "$dir/run" --shards "$dir/shards-val" --split train --window 64 --stride 64 --json "$dir/val-like-nanogpt.json"
"$curate" eval "$dir/run" --shards "$dir/shards-val" --split train
