"""Which layer's ratio best tells wrong answers from right ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mia_augment import DataError
from mia_augment.statistics import grouped_auroc_interval, scored_groups


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
    low = [None if ratio is None else -ratio for ratio in ratios]  # a low ratio is to mean a wrong answer
    gathered = scored_groups(low, wrong, groups)
    found = grouped_auroc_interval(gathered, seed=seed)
    return None if found is None else LayerScore(layer, *found, samples=sum(len(scores) for scores, _ in gathered))
