"""Agreement instead of equality: an answer in other words is not wrong while it is likely given the picture asked about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HIGHEST = 0.9
"""Answers of which so large a share of the likelihood is the target's are taken for right whatever the others are like."""


def two_groups_cut(values: Sequence[float] | NDArray[np.float64]) -> float | None:
    """The cut that parts values into the two groups whose means lie farthest apart for their sizes; no label is needed.

    It maximises n_1 n_2 (mean_1 - mean_2)^2, midway between two neighbouring values (Otsu, 1979, on values instead of a
    histogram).

    Returns:
        None where all values are equal.

    >>> two_groups_cut([0.0, 0.1, 0.9, 1.0])
    0.5
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not len(ordered) or ordered[0] == ordered[-1]:
        return None
    count = np.arange(1, len(ordered))
    rest = len(ordered) - count
    lower = np.cumsum(ordered)[:-1]
    apart = count * rest * (lower / count - (ordered.sum() - lower) / rest) ** 2
    apart[ordered[1:] == ordered[:-1]] = -1.0  # equal values stay together
    best = int(np.argmax(apart))
    return float((ordered[best] + ordered[best + 1]) / 2)


def agreement_cut(shares: Sequence[float] | NDArray[np.float64], parts: int) -> float:
    """Above which share of the likelihood under each picture alone an answer speaks of the target, from the answers themselves.

    The cut between two groups, but not below chance, 1 / parts, where another picture is as likely, and not above `HIGHEST`:
    where all answers are right, or all wrong, there are no two groups.

    Args:
        shares: of the target, of all answers in one format and number of images.
        parts: how many pictures share the likelihood.
    """
    chance = 1 / parts
    cut = two_groups_cut(shares)
    return chance if cut is None else min(max(cut, chance), max(HIGHEST, chance))
