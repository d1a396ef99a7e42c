"""Areas under the ROC curve (AUROC), over all samples or within groups, and the cut that tells most."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mia_augment.records import Record
from mia_augment.statistics.proportions import Z95, Interval, percentile_interval

ScoredGroup: TypeAlias = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Scores and labels of one group, (n,) each."""


class Auroc(Record):
    """Probability that a positive scores higher than a negative, ties counting half."""

    value: float
    low: float
    high: float


def auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the ROC curve of `scores` for the positive `labels`; None where one class is missing.

    Raises:
        ValueError: different lengths, or a score that is no number.
    """
    return grouped_auroc([_checked(scores, labels)])


def scored_groups(scores: Iterable[float | None], labels: Iterable[bool], groups: Iterable[Hashable]) -> list[ScoredGroup]:
    """Scores and labels by the group that each belongs to; None: not measured, and left out."""
    gathered: dict[Hashable, list[tuple[float, bool]]] = {}
    for score, label, group in zip(scores, labels, groups, strict=True):
        if score is not None:
            gathered.setdefault(group, []).append((score, label))
    return [(np.array([s for s, _ in rows]), np.array([label for _, label in rows], dtype=bool)) for rows in gathered.values()]


def grouped_auroc(groups: Iterable[ScoredGroup]) -> float | None:
    """Share of (positive, negative) pairs within a group whose positive scores higher, ties half; None without pairs."""
    won = pairs = 0.0
    for scores, labels in groups:
        positive, negative = scores[labels], np.sort(scores[~labels])
        below = np.searchsorted(negative, positive, side="left")
        ties = np.searchsorted(negative, positive, side="right") - below
        won += float((below + 0.5 * ties).sum())
        pairs += len(positive) * len(negative)
    return won / pairs if pairs else None


def grouped_auroc_interval(groups: Sequence[ScoredGroup], *, seed: int = 0, resamples: int = 1000) -> Interval | None:
    """`grouped_auroc` with its bootstrap interval, samples drawn anew within each group; None without pairs."""
    value = grouped_auroc(groups)
    if value is None:
        return None
    generator = np.random.default_rng(seed)
    drawn = [grouped_auroc([_redrawn(group, generator) for group in groups]) for _ in range(resamples)]
    # In floating point this is not quite 0.025: stored results keep their last digit.
    tails = (1 - 0.95) / 2, (1 + 0.95) / 2
    return Interval(value, *percentile_interval([each for each in drawn if each is not None], tails))


def auroc_interval(scores: ArrayLike, labels: ArrayLike) -> Auroc | None:
    """`auroc` with DeLong's interval on the logit scale (1988), which stays within 0 and 1; None where one class is missing.

    That interval is not defined where the classes are separated perfectly or one has a single sample. After perfect
    separation the bound is the least AUROC under which k = min(m, n) disjoint pairs would all be in order with a chance of
    2.5 %, 0.025^(1 / k); for a single sample Hanley and McNeil's variance stands in.
    """
    positive, negative = _split(scores, labels)
    m, n = len(positive), len(negative)
    if not m or not n:
        return None
    ranks = _midranks(np.concatenate([positive, negative]))
    above = (ranks[:m] - _midranks(positive)) / n
    below = 1 - (ranks[m:] - _midranks(negative)) / m
    value = float(above.mean())
    if value in (0.0, 1.0):
        bound: float = 0.025 ** (1 / min(m, n))
        return Auroc(value=value, low=min(bound, value), high=max(1 - bound, value))
    variance = float(above.var(ddof=1) / m + below.var(ddof=1) / n) if m > 1 and n > 1 else 0.0
    if variance <= 0:
        variance = _hanley_mcneil(value, m, n)
    logit, spread = math.log(value / (1 - value)), Z95 * math.sqrt(variance) / (value * (1 - value))
    low, high = (_sigmoid(logit + sign * spread) for sign in (-1, 1))
    return Auroc(value=value, low=min(low, value), high=max(high, value))


def best_cut(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """The cut between two scores that best tells positives (below it) from negatives (Youden's J); None: a class is missing.

    It lies midway between neighbouring scores, so that `<` and `<=` agree. Among equals the lowest.
    """
    positive, negative = _split(scores, labels)
    if not len(positive) or not len(negative):
        return None
    values = np.unique(np.concatenate([positive, negative]))
    if len(values) == 1:
        return None
    cuts = (values[1:] + values[:-1]) / 2
    below = [np.searchsorted(np.sort(group), cuts, side="left") / len(group) for group in (positive, negative)]
    return float(cuts[np.argmax(below[0] - below[1])])


def _redrawn(group: ScoredGroup, generator: np.random.Generator) -> ScoredGroup:
    index = generator.integers(0, len(group[0]), len(group[0]))
    return group[0][index], group[1][index]


def _checked(scores: ArrayLike, labels: ArrayLike) -> ScoredGroup:
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if values.shape != positive.shape or values.ndim != 1:
        raise ValueError(f"expected one score per label, got shapes {values.shape} and {positive.shape}")
    if np.isnan(values).any():
        raise ValueError(f"expected numbers, got NaN at position {int(np.argmax(np.isnan(values)))}")
    return values, positive


def _split(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, positive = _checked(scores, labels)
    return values[positive], values[~positive]


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def _hanley_mcneil(value: float, m: int, n: int) -> float:
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    return (value * (1 - value) + (m - 1) * (q1 - value**2) + (n - 1) * (q2 - value**2)) / (m * n)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
