"""Answers of a model to multi-image samples: where it looked, what kind of hallucination it has, and which layer tells most.

    uv run python examples/attention/which_layer.py samples --model llava-hf/llava-1.5-7b-hf --out scored

`samples` is a folder of `mia augment` (or of the example beside this one).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mia_attention import ScoreSettings, analyze, find_layer, score_samples
from mia_augment import DataError, Sample, ScoredSample
from mia_augment.images import open_picture
from mia_augment.storage import image_folders, read_jsonl, resolve_image
from mia_cli.loading.load import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model, processor = load(options.model)  # any transformers model and its processor will do

    settings = ScoreSettings(layer="middle", batch_size=16, max_new_tokens=16, disturb=False)
    manifest = score_samples(options.samples, model, processor, options.out, settings, model_id=options.model)
    print(f"{manifest.counts['scored']} answers")

    report = analyze(read_jsonl(options.out / "scored.jsonl", ScoredSample))
    print(f"\n{'':12} answers right focused confusion interference")
    for group in report.groups:
        if group.by == "format":
            numbers = (group.count, group.correct, group.focused, group.sequence_confusion, group.element_interference)
            print(f"{group.key:12} {numbers[0]:7} {numbers[1]:5} {numbers[2]:7} {numbers[3]:9} {numbers[4]:12}")

    folders = image_folders(options.samples)
    samples = list(read_jsonl(options.samples / "samples.jsonl", Sample))
    try:
        choice = find_layer(
            samples, model, processor, settings, open_image=lambda name: open_picture(resolve_image(name, folders))
        )
    except DataError as error:  # too few answers, or all of them right or all wrong
        print(f"\nno layer chosen: {error}")
        return
    print(f"\nlayer {choice.layer}; AUROC of `a low ratio means a wrong answer`, 0.5 is chance:")
    for found in choice.scores:
        print(f"   layer {found.layer}: {found.auroc:.2f} [{found.low:.2f}, {found.high:.2f}]")


if __name__ == "__main__":
    main()
