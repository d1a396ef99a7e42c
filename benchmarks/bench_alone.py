"""The readout `alone`: what it costs beside plain scoring, and whether sums or means per token tell better in long answers.

    OMP_NUM_THREADS=1 uv run python benchmarks/bench_alone.py cost [--samples 96] [--repeats 3]
    OMP_NUM_THREADS=1 uv run python benchmarks/bench_alone.py lengths [--samples 200]

Embedded model, pictures drawn as for the quickstart, one thread. CPU seconds, the ways in turn, so that other work on the
machine counts for all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from mia_attention import ScoreSettings, score, under_each_picture
from mia_augment import AugmentSettings, Sample, augment_dataset
from mia_augment.images import OpenImage, picture_opener
from mia_augment.statistics import auroc, shares
from mia_augment.storage import read_jsonl
from mia_cli.drawn.drawn_data import write_rows
from mia_cli.loading.load import load

SHAPES = {
    "formats": {"sequence": 0.7, "grid": 0.15, "pic_in_pic": 0.15},
    "sequence": {"counts": [2, 3, 4, 5]},
    "grid": {"counts": [2, 3, 4], "cell": 96, "gap": 20, "label": 18},
}
LONG = 100
"""Tokens of a long answer."""


@contextlib.contextmanager
def drawn(count: int) -> Iterator[tuple[list[Sample], OpenImage, dict[str, list[str]]]]:
    """Samples about drawn pictures, how to open them, and by path the five true sentences about a picture."""
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "data", Path(folder) / "samples"
        write_rows(root, "train", max(20, count // 4))
        augment_dataset(root / "rows.json", root, out, AugmentSettings.model_validate(SHAPES))
        samples = list(read_jsonl(out / "samples.jsonl", Sample))
        random.Random(0).shuffle(samples)
        facts: dict[str, list[str]] = {}
        for row in json.loads((root / "rows.json").read_text()):
            facts.setdefault(row["image"], []).append(row["conversations"][1]["value"])
        yield samples[:count], picture_opener(out), facts


def cost(count: int, repeats: int) -> None:
    """CPU seconds of scoring by a layer, by the readout `alone`, and by a layer with answers about all parts."""
    model, processor = load("embedded")
    ways: dict[str, dict[str, Any]] = {
        "plain (a layer)": {"layer": 2},
        "alone": {"layer": "alone"},
        "alone, own_answer": {"layer": "alone", "own_answer": True},
    }
    with drawn(count) as (samples, open_image, _):
        for name, tokens in (("one sentence, as the model ends it", 12), (f"{LONG} tokens, never ended", LONG)):
            never = patch("mia_attention.answering.responses.end_tokens", lambda *_: ())
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            with never if tokens == LONG else contextlib.nullcontext():
                for _ in range(repeats):
                    for way, changes in ways.items():
                        settings = ScoreSettings(batch_size=32, max_new_tokens=tokens, disturb=False, **changes)
                        began = time.process_time()
                        found = list(score(samples, model, processor, settings, open_image=open_image))
                        seconds[way].append(time.process_time() - began)
            said = statistics.mean(one.response_tokens for one in found)
            parts = statistics.mean(one.parts for one in found)
            plain = statistics.median(seconds["plain (a layer)"])
            print(f"{name}: {count} samples of {parts:.1f} pictures, {said:.1f} tokens on average")
            for way, each in seconds.items():
                ratios = sorted(a / b for a, b in zip(each, seconds["plain (a layer)"], strict=True))
                print(f"  {way:20} {statistics.median(each):7.2f} s  {statistics.median(each) / plain:.2f}x  {ratios}")


def lengths(count: int) -> None:
    """AUROC of the target's share by sums and by means, of answers of one to five sentences about one of the pictures."""
    model, processor = load("embedded")
    rng = random.Random(0)
    print("sentences, wrong ones: AUROC by sums, by means; right answers above 1/2 by sums, by means; wrong ones, the same")
    with drawn(count) as (samples, open_image, facts):
        for number in range(1, 6):
            for wrong in sorted({1, number}):
                told = [_texts(sample, facts, number, wrong, rng) for sample in samples]
                texts = [text for pair in told for text in pair]
                twice = [sample for sample in samples for _ in range(2)]
                found = under_each_picture(twice, texts, model, processor, open_image=open_image, batch_size=64)
                labels = np.tile([True, False], len(samples))
                line = []
                for kind in ("summed", "per_token"):
                    values = [shares(getattr(one, kind)) for one in found]
                    line.append(np.array([v[s.target] for v, s in zip(values, twice, strict=True) if v is not None]))
                aurocs = [auroc(values, labels) for values in line]
                above = [[float((values[labels == kind] > 0.5).mean()) for values in line] for kind in (True, False)]
                print(
                    number,
                    wrong,
                    [round(a or 0, 3) for a in aurocs],
                    [[round(v, 3) for v in pair] for pair in above],
                    flush=True,
                )


def _texts(sample: Sample, facts: dict[str, list[str]], number: int, wrong: int, rng: random.Random) -> tuple[str, str]:
    """What is true of the target, and the same with the last `wrong` of its sentences from another part."""
    own = facts[sample.source.paths[sample.target]]
    other = facts[rng.choice([path for index, path in enumerate(sample.source.paths) if index != sample.target])]
    first = own.index(sample.answer)
    order = [first, *rng.sample([index for index in range(len(own)) if index != first], number - 1)]
    kept = [own[index] for index in order]
    return " ".join(kept), " ".join([*kept[: number - wrong], *(other[index] for index in order[number - wrong :])])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "lengths"])
    parser.add_argument("--samples", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "cost":
        cost(asked.samples or 96, asked.repeats)
    else:
        lengths(asked.samples or 200)
