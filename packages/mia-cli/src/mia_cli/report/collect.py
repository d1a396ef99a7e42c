"""Reads a run directory for its report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_augment import FORMATS, Bucket, DataError, ScoredSample, same_answer
from mia_augment.storage import Manifest, read_jsonl, read_lines, read_manifest
from mia_select import read_selection
from mia_select.rules import RULES
from mia_select.selection import Ratios
from pydantic_core import from_json

from mia_cli.layout import Folders

RULE_WORDS = {rule.name: rule.keeps for rule in RULES}
"""What is true of the candidates that a rule of the selection keeps."""
DROP_WORDS = {rule.name: rule.dropped for rule in RULES}
"""What is true of those that it drops."""


@dataclass
class MeasuredRatios(Ratios):
    """Attention ratios of one bucket, and how many samples have none."""

    unmeasured: int = 0


@dataclass(frozen=True)
class FunnelLine:
    """One line of the funnel: how many are left, and what was lost on the way to it."""

    label: str
    left: int
    lost: int = 0


def in_order(buckets: Iterable[Bucket]) -> list[Bucket]:
    """By format, in the order of the table of formats; fewer parts first."""
    order = list(FORMATS)
    return sorted(buckets, key=lambda bucket: (order.index(bucket[0]), bucket[1]))


def bucket_name(bucket: Bucket) -> str:
    """``sequence 3``; formats that know one number only go without it."""
    return FORMATS[bucket[0]].title_of(bucket[1])


def manifests(folders: Folders) -> dict[str, Manifest]:
    """Manifest of every finished stage, in order."""
    found = {name: read_manifest(place) for name, place in folders.places().items() if name != "attention"}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def ratios(folder: Path) -> dict[Bucket, MeasuredRatios]:
    """Attention ratios of all scored samples, by format and number of parts."""
    found: dict[Bucket, MeasuredRatios] = defaultdict(MeasuredRatios)
    for sample in read_jsonl(folder / "scored.jsonl", ScoredSample):
        entry = found[sample.format, sample.parts]
        if sample.attention.ratio is None:
            entry.unmeasured += 1
        else:
            known = sample.answer or sample.own_answer or ""
            entry.add(sample.attention.ratio, same_answer(sample.response, known))
    return {bucket: found[bucket] for bucket in in_order(found)}


def funnel(made: dict[str, Manifest], folder: Path) -> list[FunnelLine]:
    """From rows to pairs."""
    steps = []
    augmented = made.get("augment")
    if augmented is not None:
        counts = augmented.counts
        refused, other = counts.get("rows_skipped", 0), counts.get("other_part", 0)
        steps.append(FunnelLine("rows read", counts.get("rows", 0)))
        if refused or other:
            steps.append(FunnelLine("rows used, less those held out", counts.get("rows", 0) - refused - other, refused + other))
        steps.append(FunnelLine("samples made", counts.get("samples", 0), counts.get("skipped", 0) - refused))
    if "select" in made:
        selection = read_selection(folder)
        steps.append(FunnelLine("candidates scored", selection.candidates))
        steps += [
            FunnelLine(RULE_WORDS.get(rule.rule, rule.rule), rule.kept, rule.dropped)
            for rule in selection.rules
            if rule.dropped
        ]
        steps.append(FunnelLine("preference pairs", selection.pairs))
    return steps


def thresholds(folder: Path) -> dict[Bucket, float]:
    """The attention thresholds that were applied, calibrated or not."""
    return {(line.format, line.parts): line.threshold for line in read_selection(folder).thresholds}


def curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Every number of the training log as (step, value) points; measurements on held-out pairs left out."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    if not path.is_file():
        return {}
    for step, entry in enumerate(_json_lines(path), 1):
        if entry.get("part", "train") != "train":
            continue
        place = float(entry.get("step", step))
        for name, value in entry.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("step", "epoch"):
                found[name].append((place, float(value)))
    return dict(found)


def _json_lines(path: Path) -> Iterable[dict[str, Any]]:
    for number, line in read_lines(path):
        try:
            entry = from_json(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not valid JSON: {error}; delete this line") from error
        if isinstance(entry, dict):
            yield entry
