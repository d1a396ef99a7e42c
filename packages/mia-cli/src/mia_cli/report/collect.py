"""Reads a run directory for its report."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mia_augment.files import Manifest, read_jsonl, read_manifest
from mia_augment.records import PreferencePair, ScoredSample
from mia_augment.text import same_answer
from mia_select.stage import read_selection

from mia_cli.pipeline import Folders

RULES = {
    "format": "of a wanted format",
    "answer_too_long": "true answer short enough",
    "no_confusion": "with another picture's answer",
    "degenerate": "answer is no empty or broken text",
    "correct": "answered wrongly",
    "unmeasured": "attention measured",
    "attention": "looked elsewhere",
    "perplexity": "unsure enough (perplexity)",
    "length_ratio": "of similar length",
    "edit_distance": "different enough (edit distance)",
    "duplicate": "not seen before",
    "per_image": "within the limit per picture",
    "balance": "after balancing",
    "max_pairs": "within the limit of pairs",
}
"""What is true of the candidates that a rule of the selection keeps."""

Bucket = tuple[str, int]
"""(format, number of parts)"""


@dataclass
class Ratios:
    """Attention ratios of one bucket, apart for right and wrong answers."""

    right: list[float] = field(default_factory=list)
    wrong: list[float] = field(default_factory=list)
    unmeasured: int = 0


@dataclass(frozen=True)
class Step:
    """One line of the funnel: how many are left, and what was lost on the way to it."""

    label: str
    left: int
    lost: int = 0


@dataclass(frozen=True)
class Example:
    """A pair with what its sample tells beyond it."""

    pair: PreferencePair
    response: str
    answers: list[str | None]
    """Per region, what that picture's own row answers to the question."""


def bucket_name(bucket: Bucket) -> str:
    """``sequence 3``; formats that know one number only go without it."""
    name = bucket[0].replace("_", "-")
    return name if bucket[0] in ("single", "pic_in_pic") else f"{name} {bucket[1]}"


def manifests(folders: Folders) -> dict[str, Manifest]:
    """Manifest of every finished stage, in order."""
    places = {
        "augment": folders.samples,
        "held_out": folders.held_out,
        "score": folders.scored,
        "select": folders.pairs,
        "train": folders.trained,
        "evaluate": folders.evaluated,
    }
    found = {name: read_manifest(place) for name, place in places.items()}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def ratios(folder: Path) -> dict[Bucket, Ratios]:
    """Attention ratios of all scored samples, by format and number of parts."""
    found: dict[Bucket, Ratios] = defaultdict(Ratios)
    for sample in read_jsonl(folder / "scored.jsonl", ScoredSample):
        entry = found[sample.format, sample.parts]
        if sample.attention.ratio is None:
            entry.unmeasured += 1
        else:
            (entry.right if same_answer(sample.response, sample.answer) else entry.wrong).append(sample.attention.ratio)
    return dict(sorted(found.items()))


def funnel(made: dict[str, Manifest], folder: Path) -> list[Step]:
    """From rows to pairs."""
    steps = []
    augmented = made.get("augment")
    if augmented is not None:
        rows, samples = augmented.counts.get("rows", 0), augmented.counts.get("samples", 0)
        steps.append(Step("rows read", rows))
        steps.append(Step("samples made", samples, augmented.counts.get("skipped", 0)))
    if "select" in made:
        selection = read_selection(folder)
        steps.append(Step("candidates scored", selection.candidates))
        steps += [Step(RULES.get(rule.rule, rule.rule), rule.kept, rule.dropped) for rule in selection.rules if rule.dropped]
        steps.append(Step("preference pairs", selection.pairs))
    return steps


def thresholds(folder: Path) -> dict[Bucket, float]:
    """The attention thresholds that were applied, calibrated or not."""
    return {(line.format, line.parts): line.threshold for line in read_selection(folder).thresholds}


def examples(folders: Folders, limit: int) -> list[Example]:
    """Up to `limit` pairs, the same number from every format and number of parts as far as there are as many."""
    by_bucket: dict[Bucket, list[PreferencePair]] = defaultdict(list)
    for pair in read_jsonl(folders.pairs / "pairs.jsonl", PreferencePair):
        by_bucket[pair.format, len(pair.regions)].append(pair)
    for pairs in by_bucket.values():
        random.Random(0).shuffle(pairs)
    chosen = list(_in_turn([by_bucket[bucket] for bucket in sorted(by_bucket)], limit))
    wanted = {name for pair in chosen for name in _sample_ids(pair)}
    samples = {s.id: s for s in read_jsonl(folders.scored / "scored.jsonl", ScoredSample) if s.id in wanted}
    return [_example(pair, samples) for pair in chosen]


def _sample_ids(pair: PreferencePair) -> tuple[str, str]:
    """A pair is named after its sample; one with another picture's answer has that picture's label added (`000123~Image3`)."""
    return pair.id, pair.id.rpartition("~")[0]


def _example(pair: PreferencePair, samples: dict[str, ScoredSample]) -> Example:
    for name in _sample_ids(pair):
        if name in samples:
            return Example(pair, samples[name].response, samples[name].source.answers or [None] * len(pair.regions))
    return Example(pair, "", [None] * len(pair.regions))


def _in_turn(groups: Sequence[list[PreferencePair]], limit: int) -> Iterator[PreferencePair]:
    taken = 0
    for index in range(max((len(group) for group in groups), default=0)):
        for group in groups:
            if index < len(group):
                if taken == limit:
                    return
                taken += 1
                yield group[index]


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
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                entry = json.loads(line)
                if isinstance(entry, dict):
                    yield entry
