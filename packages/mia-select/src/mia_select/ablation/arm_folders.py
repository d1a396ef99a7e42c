"""The pairs of every variant as folders that the trainer reads, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mia_augment import DataError, Record
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    Progress,
    Stage,
    check_whole,
    content_hash,
    run_stage,
    write_json,
    write_jsonl,
)

from mia_select.ablation.variants import LEAST, Arm, Pool, Variant, arms, pool
from mia_select.evaluation.comparison import Comparison
from mia_select.settings import SelectSettings
from mia_select.stage import PAIRS, SCORED, Samples, selection_manifest

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
    compared_with: str | None
    """Arm with as many pairs; None: it is the reference or left out."""
    same_as: str | None
    """Arm with the very same pairs and training, which is not trained again."""
    left_out: str | None


class Ablation(Record):
    """What `ablation.json` holds."""

    comparison: Comparison
    arms: list[ArmSummary]
    """Of the first seed; the others have as many pairs."""
    flattered: str | None = None
    """What to know before believing the figures, where not all questions are truly held out (see `Evaluation`)."""


def read_pool(folder: Path, settings: SelectSettings, variant: Variant) -> Pool:
    """What a variant's selection makes of a folder of scored samples.

    Raises:
        DataError: no scored samples there, or not as many as their manifest counts.
    """
    source = folder / SCORED
    if not source.is_file():
        raise DataError(f"{source}: no such file; expected scored samples, as `mia score` writes them")
    check_whole(folder)
    return pool(Samples(source), settings, variant)


def write_arms(
    pools: Mapping[str, Pool],
    sources: Mapping[str, Path],
    out: Path,
    settings: SelectSettings,
    size: int,
    *,
    least: int = LEAST,
    seed: int = 0,
) -> list[ArmSummary]:
    """Write `<out>/<variant>/pairs.jsonl` with its manifest for every variant that can be compared, and `arms.json`.

    Called again, the same bytes come. See `arms`.

    Args:
        pools: variant -> its pool, the reference's first.
        sources: variant -> the folder that its pool was read from; a control has the reference's.

    Raises:
        DataError: fewer than two variants have enough pairs.
    """
    found = arms(list(pools.values()), size, least=least, seed=seed)
    lines = [summary_of(arm) for arm in found]
    if sum(line.left_out is None for line in lines) < 2:
        reasons = "; ".join(f"{line.variant}: {line.left_out}" for line in lines if line.left_out)
        raise DataError(f"{out}: expected at least two variants with enough pairs to compare; left out: {reasons}")
    digests = {folder: content_hash(folder / SCORED) for folder in set(sources.values())}
    first = next(iter(pools))
    for arm in found:
        if arm.left_out is None and arm.same_as is None:
            folder = sources.get(arm.variant.name, sources[first])
            run_stage(_arm_stage(arm, settings, seed, folder, digests[folder], out / arm.variant.name))
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
        compared_with=arm.compared_with,
        same_as=arm.same_as,
        left_out=arm.left_out,
    )


def _arm_stage(arm: Arm, settings: SelectSettings, seed: int, folder_in: Path, digest: str, out: Path) -> Stage:
    """The stage that writes the folder of an arm: a selection of its pairs."""

    def plan() -> Manifest:
        chosen = {**settings.model_dump(mode="json"), **dict(arm.variant.select), "variant": arm.variant.name}
        drawn = {"rejected_from": arm.variant.rejected, "pairs": len(arm.pairs), "draw": seed}
        return selection_manifest(folder_in, out, {**chosen, **drawn}, digest)

    def make(planned: Manifest, _: Progress) -> Manifest:
        (out / MANIFEST).unlink(missing_ok=True)
        return planned.model_copy(update={"counts": {"pairs": write_jsonl(out / PAIRS, arm.pairs)}})

    return Stage("select", out, plan, make)


def controls(lines: Sequence[ArmSummary]) -> dict[str, str]:
    """Variant -> the arm that it is compared with."""
    return {line.variant: line.compared_with for line in lines if line.compared_with is not None}
