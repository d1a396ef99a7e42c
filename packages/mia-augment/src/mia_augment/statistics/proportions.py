"""Shares of right answers, and differences of such shares on the same samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mia_augment.records import Record

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


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


class MeanDifference(Record):
    """Mean of after minus before, of a number on the same samples."""

    n: int
    mean: float
    low: float
    high: float
    """95 % bootstrap interval of `mean`, resampling the samples."""


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def percentile_interval(
    resampled: Sequence[float] | NDArray[np.float64], tails: tuple[float, float] = (0.025, 0.975)
) -> tuple[float, float]:
    """The middle 95 % of what a bootstrap's resamples gave (Efron's percentile interval)."""
    low, high = np.quantile(resampled, tails)
    return float(low), float(high)


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
    drawn = np.random.default_rng(seed).multinomial(n, [better / n, worse / n, (n - better - worse) / n], size=10_000)
    low, high = percentile_interval((drawn[:, 0] - drawn[:, 1]) / n)
    return Difference(
        n=n,
        mean=(better - worse) / n,
        low=low,
        high=high,
        mcnemar_p=mcnemar_exact(better, worse),
        better=better,
        worse=worse,
    )


def paired_mean_difference(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> MeanDifference:
    """How much larger a number is after than before, on the same samples, with a percentile bootstrap over them.

    Raises:
        ValueError: different lengths, or no samples.
    """
    if len(before) != len(after):
        raise ValueError(f"expected the same samples before and after, got {len(before)} and {len(after)}")
    if not len(before):
        raise ValueError("expected at least one sample, got none")
    gains = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    generator, n = np.random.default_rng(seed), len(gains)
    low, high = percentile_interval([float(gains[generator.integers(0, n, n)].mean()) for _ in range(2000)])
    return MeanDifference(n=n, mean=float(gains.mean()), low=low, high=high)


def mcnemar_exact(better: int, worse: int) -> float:
    """Two-sided binomial p of `better` against `worse` changes under equal chances; 1 where nothing changed."""
    n = better + worse
    log_half = n * math.log(2)
    tail = math.fsum(math.exp(_log_choose(n, k) - log_half) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * tail)


def crossed_bootstrap(values: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """Mean of a (training seed, sample) table; training seeds and samples are both drawn with replacement.

    Drawing from few training seeds shows too little of their spread; their variance is therefore widened by S / (S - 1).
    """
    seeds, samples = values.shape
    generator = np.random.default_rng(seed)
    centre = values.mean()
    per_seed, per_sample = values.mean(axis=1), values.mean(axis=0)
    means = np.empty(2000)
    widened = np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 0.0
    for index in range(len(means)):
        columns = np.bincount(generator.integers(0, samples, samples), minlength=samples)
        drawn = generator.integers(0, seeds, seeds)
        means[index] = (per_sample @ columns) / samples + widened * (per_seed[drawn].mean() - centre)
    return Interval(float(centre), *percentile_interval(means))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
