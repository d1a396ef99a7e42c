"""Rows with one picture each become samples with several; prints one of each format with the boxes of its parts.

    uv run python examples/augment/samples_from_rows.py --source rows.json --image-root pictures --out samples

Without --source, pictures are drawn and asked about.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mia_augment import AugmentSettings, Sample, augment_dataset
from mia_augment.storage import read_jsonl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--image-root", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=20, help="to draw, without --source")
    options = parser.parse_args()
    source = options.source or drawn(options.out.with_name(f"{options.out.name}-rows"), options.pictures)

    settings = AugmentSettings.model_validate(
        {"formats": {"sequence": 2, "grid": 1, "pic_in_pic": 1}, "sequence": {"counts": [2, 3, 4]}, "grid": {"counts": [2, 4]}}
    )
    manifest = augment_dataset(source, options.image_root or source.parent, options.out, settings, seed=0)
    print(f"{manifest.counts['rows']} rows, {manifest.counts['samples']} samples, {manifest.counts['skipped']} skipped")

    shown = set()
    for sample in read_jsonl(options.out / "samples.jsonl", Sample):
        if sample.format not in shown:
            shown.add(sample.format)
            print(f"\n{sample.id}: {', '.join(sample.images)}\n{sample.prompt}\n-> {sample.answer}")
            for index, region in enumerate(sample.regions):
                print(f"   {region.label}: image {region.image}, box {region.box}{' <- asked' * (index == sample.target)}")


def drawn(folder: Path, pictures: int) -> Path:
    """Rows over drawn pictures."""
    from mia_cli.drawn.drawn_data import ROWS_FILE, write_rows

    write_rows(folder, "train", pictures)
    return folder / ROWS_FILE


if __name__ == "__main__":
    main()
