#!/usr/bin/env bash
# A small quickstart on one thread, and the hashes of what must not change when code only moves: tests/house/golden.sh FOLDER
set -euo pipefail
export OMP_NUM_THREADS=1
uv run mia quickstart "$1" --recipe paper --pictures 60 --test-pictures 20 --per-bucket 5 >"$1.log" 2>&1 || { tail -20 "$1.log" >&2; exit 1; }
# The quickstart trains all of the model; adapters on the same pairs, three steps.
printf 'lora: {r: 8, alpha: 16}\nmax_steps: 3\n' >"$1/lora.yaml"
uv run mia train --pairs "$1/run/select" --model embedded --config "$1/lora.yaml" --out "$1/run/train-lora" >>"$1.log" 2>&1 ||
    { tail -20 "$1.log" >&2; exit 1; }
cd "$1"
find . -name 'samples.jsonl' -o -name 'pairs.jsonl' -o -name 'predictions.jsonl' -o -name '*.safetensors' -path '*/train*' -not -path '*checkpoints*' |
    LC_ALL=C sort | xargs sha256sum
