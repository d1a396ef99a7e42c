"""Numbers with their uncertainty: proportions, paired differences, areas under the curve. All intervals are 95 %."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from mia_augment import Record
from numpy.typing import ArrayLike, NDArray

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""
RESAMPLES = 10_000


class Difference(Record):
    """After minus before, on the same samples."""

    n: int
    mean: float
    """Share right after minus share right before."""
    low: float
    high: float
    """95 % bootstrap interval of `mean`, resampling the samples."""
    mcnemar_p: float
    """Exact two-sided p of McNemar's test: that as many got better as got worse."""
    better: int
    """Wrong before, right after."""
    worse: int
    """Right before, wrong after."""


class Auroc(Record):
    """Probability that a positive scores higher than a negative, ties counting half."""

    value: float
    low: float
    high: float


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion; (0, 1) for n = 0, where nothing is known.

    Raises:
        ValueError: not 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def paired_difference(before: Sequence[bool], after: Sequence[bool], *, seed: int = 0) -> Difference:
    """How much better `after` is than `before`, answer by answer on the same samples.

    Raises:
        ValueError: different lengths, or no samples.
    """
    if len(before) != len(after):
        raise ValueError(f"expected the same samples before and after, got {len(before)} and {len(after)}")
    if not len(before):
        raise ValueError("expected at least one sample, got none")
    n = len(before)
    better = sum(1 for b, a in zip(before, after, strict=True) if a and not b)
    worse = sum(1 for b, a in zip(before, after, strict=True) if b and not a)
    # Resampling n samples with replacement draws the three outcomes from a multinomial distribution.
    drawn = np.random.default_rng(seed).multinomial(n, [better / n, worse / n, (n - better - worse) / n], size=RESAMPLES)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / n, [2.5, 97.5])
    return Difference(
        n=n,
        mean=(better - worse) / n,
        low=float(low),
        high=float(high),
        mcnemar_p=mcnemar_exact(better, worse),
        better=better,
        worse=worse,
    )


def mcnemar_exact(better: int, worse: int) -> float:
    """Two-sided binomial p of `better` against `worse` changes under equal chances; 1 where nothing changed."""
    n = better + worse
    log_half = n * math.log(2)
    tail = math.fsum(math.exp(_log_choose(n, k) - log_half) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * tail)


def auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the ROC curve of `scores` for the positive `labels`; None where one class is missing.

    Raises:
        ValueError: different lengths, or a score that is no number.
    """
    positive, negative = _split(scores, labels)
    if not len(positive) or not len(negative):
        return None
    ranks = _midranks(np.concatenate([positive, negative]))
    m, n = len(positive), len(negative)
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))


def auroc_interval(scores: ArrayLike, labels: ArrayLike) -> Auroc | None:
    """`auroc` with DeLong's interval on the logit scale (1988), which stays within 0 and 1; None where one class is missing.

    With a single sample in a class, or perfect separation, that interval is not defined: Hanley and McNeil's variance
    stands in, with the value half a sample away from the border.
    """
    positive, negative = _split(scores, labels)
    m, n = len(positive), len(negative)
    if not m or not n:
        return None
    ranks = _midranks(np.concatenate([positive, negative]))
    above = (ranks[:m] - _midranks(positive)) / n
    below = 1 - (ranks[m:] - _midranks(negative)) / m
    value = float(above.mean())
    inner = min(max(value, 0.5 / (m * n)), 1 - 0.5 / (m * n))
    variance = float(above.var(ddof=1) / m + below.var(ddof=1) / n) if m > 1 and n > 1 else 0.0
    if variance <= 0:
        variance = _hanley_mcneil(inner, m, n)
    logit, spread = math.log(inner / (1 - inner)), Z95 * math.sqrt(variance) / (inner * (1 - inner))
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


def _split(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if values.shape != positive.shape or values.ndim != 1:
        raise ValueError(f"expected one score per label, got shapes {values.shape} and {positive.shape}")
    if np.isnan(values).any():
        raise ValueError(f"expected numbers, got NaN at position {int(np.argmax(np.isnan(values)))}")
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


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
