"""Which layer's ratio best tells wrong answers from right ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mia_augment import DataError
from mia_augment.statistics import ScoredGroup, grouped_auroc_interval


@dataclass(frozen=True)
class LayerScore:
    """How well one layer's ratio predicts a wrong answer.

    Attributes:
        layer: counted from 0, or `rollout`.
        auroc: chance that a wrong answer has a lower ratio than a right one of the same group; 0.5 is chance level.
        low, high: its 95 % bootstrap interval.
        samples: how many had a ratio.
    """

    layer: int | str
    auroc: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True)
class LayerChoice:
    """The best layer and what was found for all of them."""

    layer: int
    scores: tuple[LayerScore, ...]


def choose_layer(
    ratios: Mapping[int, Sequence[float | None]], wrong: Sequence[bool], groups: Sequence[str], *, seed: int = 0
) -> LayerChoice:
    """The layer with the highest AUROC of "low ratio means wrong answer".

    Right and wrong answers are compared only within a group (a format and number of images), because the number of images
    moves both the ratio and the chance of an error.

    Args:
        ratios: by layer, the ratio of each sample; None: not measured.
        wrong: whether each sample's answer is wrong.
        groups: what each sample is compared within, e.g. ``sequence/3``.
        seed: of the bootstrap.

    Raises:
        DataError: no group holds both right and wrong answers with a ratio.
    """
    scores = [score_layer(layer, ratios[layer], wrong, groups, seed=seed) for layer in ratios]
    known = [score for score in scores if score is not None]
    if not known:
        raise DataError(
            f"no layer can be chosen: of {len(wrong)} answers {sum(wrong)} are wrong, and no format and number of images holds "
            "both right and wrong answers with a ratio; take more samples or name a layer"
        )
    best = max(known, key=lambda score: score.auroc)
    return LayerChoice(int(best.layer), tuple(known))


def score_layer(
    layer: int | str, ratios: Sequence[float | None], wrong: Sequence[bool], groups: Sequence[str], *, seed: int = 0
) -> LayerScore | None:
    """One layer's AUROC with its interval; None where right and wrong answers never meet in a group."""
    gathered = _by_group(ratios, wrong, groups)
    found = grouped_auroc_interval(gathered, seed=seed)
    return None if found is None else LayerScore(layer, *found, samples=sum(len(scores) for scores, _ in gathered))


def _by_group(ratios: Sequence[float | None], wrong: Sequence[bool], groups: Sequence[str]) -> list[ScoredGroup]:
    """Of each group the negated ratios, since a low one is to mean a wrong answer, and which answers are wrong."""
    gathered: dict[str, list[tuple[float, bool]]] = {}
    for ratio, is_wrong, group in zip(ratios, wrong, groups, strict=True):
        if ratio is not None:
            gathered.setdefault(group, []).append((-ratio, is_wrong))
    return [(np.array([r for r, _ in rows]), np.array([w for _, w in rows], dtype=bool)) for rows in gathered.values()]
