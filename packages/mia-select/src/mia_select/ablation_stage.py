"""The pairs of every variant as folders that the trainer reads, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mia_augment.errors import DataError
from mia_augment.files import Manifest, content_hash, image_folders, relative_folders, write_json, write_jsonl, write_manifest
from mia_augment.records import Record

from mia_select.ablation import VARIANTS, Arm, Variant, arms
from mia_select.settings import SelectSettings
from mia_select.stage import PAIRS, SCORED, Samples

ARMS = "arms.json"


class ArmSummary(Record):
    """One line of `arms.json`."""

    variant: str
    title: str
    available: int
    """Pairs that its selection could give."""
    pairs: int
    train: dict[str, Any]
    """What differs in the trainer's settings."""
    left_out: str | None


def write_arms(
    folder_in: Path,
    out: Path,
    settings: SelectSettings | None = None,
    *,
    variants: Sequence[Variant] = VARIANTS,
    pairs: int | None = None,
    least: int = 50,
    seed: int = 0,
) -> list[ArmSummary]:
    """Write `<out>/<variant>/pairs.jsonl` with its manifest for every variant that can be compared, and `arms.json`.

    All have as many pairs; called again, the same bytes come. See `arms` for the arguments.

    Raises:
        DataError: no scored samples, or fewer than two variants have enough pairs.
    """
    settings = settings or SelectSettings()
    source = folder_in / SCORED
    if not source.is_file():
        raise DataError(f"{source}: no such file; expected scored samples, as `mia score` writes them")
    found = arms(Samples(source), settings, variants=variants, pairs=pairs, least=least, seed=seed)
    lines = [summary_of(arm) for arm in found]
    if sum(line.left_out is None for line in lines) < 2:
        reasons = "; ".join(f"{line.variant}: {line.left_out}" for line in lines if line.left_out)
        raise DataError(f"{source}: expected at least two variants with enough pairs to compare; left out: {reasons}")
    digest = content_hash(source)
    for arm in found:
        if arm.left_out is None:
            _write(arm, settings, seed, digest, folder_in, out / arm.variant.name)
    write_json(out / ARMS, [line.model_dump() for line in lines])
    return lines


def summary_of(arm: Arm) -> ArmSummary:
    variant = arm.variant
    return ArmSummary(
        variant=variant.name,
        title=variant.title,
        available=arm.available,
        pairs=len(arm.pairs),
        train=dict(variant.train),
        left_out=arm.left_out,
    )


def _write(arm: Arm, settings: SelectSettings, seed: int, digest: str, folder_in: Path, out: Path) -> None:
    write_jsonl(out / PAIRS, arm.pairs)
    manifest = Manifest(
        stage="select",
        version=version("mia-select"),
        settings={
            **settings.model_dump(mode="json"),
            **dict(arm.variant.select),
            "variant": arm.variant.name,
            "rejected_from": arm.variant.rejected,
            "pairs": len(arm.pairs),
            "seed": seed,
        },
        inputs={SCORED: digest},
        image_folders=relative_folders(image_folders(folder_in), to=out),
        counts={"pairs": len(arm.pairs)},
    )
    write_manifest(out, manifest)
