"""Preference pairs to a LoRA adapter, and what it did to the answers' log-probs.

    uv run python examples/dpo_train/train_pairs.py pairs --model llava-hf/llava-1.5-7b-hf --out trained

`pairs` is a folder of `mia select`. The defaults of this example are for a try; `TrainSettings()` has the paper's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mia_cli.config.schema import ModelSettings
from mia_cli.loading.load import SharedModel
from mia_dpo_train import TrainSettings, train_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    settings = TrainSettings.model_validate(
        {
            "lora": {"r": 16, "alpha": 32},
            "learning_rate": 5e-4,
            "per_device_batch_size": 4,
            "accumulation": 1,
            "epochs": 20,
            "max_steps": options.steps,
            "gradient_checkpointing": False,
        }
    )
    shared = SharedModel(ModelSettings(name=options.model))
    manifest = train_pairs(options.pairs, *shared.get(), options.out, settings, model_id=shared.place)
    print(f"{manifest.counts['pairs']} pairs, {manifest.counts['steps']} steps -> {options.out / 'adapter'}")
    lines = [json.loads(line) for line in (options.out / "metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [line for line in lines if line.get("part", "train") == "train"]
    for line in (steps[0], steps[-1]):
        print(f"   step {line['step']}: loss {line['loss']:.3f}, margin {line['margin']:+.3f}, accuracy {line['accuracy']:.2f}")
    print("load it with peft.PeftModel.from_pretrained(model, adapter), or merge it: mia export --merged")


if __name__ == "__main__":
    main()
