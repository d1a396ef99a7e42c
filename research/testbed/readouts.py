"""What tells a wrong answer? Every readout of a model, within each format and number of images.

    uv run python research/testbed/readouts.py embedded research/testbed/work/1-300 --samples 800

Writes research/testbed/results/readouts-MODEL.json: what `mia diagnose` finds on fresh pictures, and every AUROC.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiment import HERE
from mia_attention.measure import score_layer
from mia_attention.scoring import every_readout
from mia_augment import Sample, augment_dataset
from mia_augment.images import open_picture
from mia_augment.storage import image_folders, read_jsonl, resolve_image, write_json
from mia_cli.config.schema import load_config
from mia_cli.drawn.drawn_data import ROWS_FILE
from mia_cli.drawn.quickstart import prepare
from mia_cli.loading.load import load
from mia_cli.terminal.display import Display
from mia_select.diagnosis import AnsweredSample, ReadoutRatios, choose_samples, diagnose, find_readout
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--samples", type=int, default=800)
    args = parser.parse_args()
    folder = HERE / "work" / "readouts"
    file = prepare(folder, Display(), pictures=10, test_pictures=300, per_bucket=1, seed=11, model="embedded", recipe="paper")
    config = load_config(file)
    augment_dataset(folder / "data/test" / ROWS_FILE, folder / "data/test", folder / "samples", config.augment, seed=11)
    samples = choose_samples(read_jsonl(folder / "samples" / "samples.jsonl", Sample), args.samples, 0)
    folders = image_folders(folder / "samples")

    def open_image(name: str) -> Image.Image:
        return open_picture(resolve_image(name, folders))

    for name in args.models:
        model, processor = load(name)
        read = every_readout(
            samples, model, processor, config.score, open_image=open_image, thorough=True, progress=lambda *_: None
        )
        asked = [AnsweredSample(s, read.responses[s.id], own) for s, own in zip(read.samples, read.alone, strict=True)]
        readings = [ReadoutRatios(*readout) for readout in read.readouts]
        configured = find_readout(readings, read.configured, config.score.rows, config.score.value_weighted)
        found = diagnose(asked, readings, config.select.thresholds, model=Path(name).name, configured=configured)
        per_bucket = {
            f"{reading.rows}/{reading.layer}/{'weighted' if reading.value_weighted else 'raw'}": _by_bucket(
                reading.ratios, asked
            )
            for reading in readings
        }
        result = {**found.model_dump(mode="json"), "by_bucket": per_bucket}
        write_json(HERE / "results" / f"readouts-{Path(name).name}.json", result)
        print(name, "best", found.best, flush=True)


def _by_bucket(ratios: Sequence[float | None], asked: Sequence[Any]) -> dict[str, float]:
    """AUROC within each format and number of images."""
    names = [f"{entry.sample.format}/{entry.sample.parts}" for entry in asked]
    result = {}
    for name in sorted(set(names)):
        part = [i for i, other in enumerate(names) if other == name]
        score = score_layer("x", [ratios[i] for i in part], [not asked[i].right for i in part], [name] * len(part))
        if score is not None:
            result[name] = round(score.auroc, 3)
    return result


if __name__ == "__main__":
    main()
