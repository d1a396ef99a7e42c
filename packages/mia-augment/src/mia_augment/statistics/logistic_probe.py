"""A linear probe: does a hidden state tell right from wrong? Logistic regression with an L2 penalty, exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mia_augment.errors import ConfigError, DataError

NEWTON_STEPS = 100
"""Of Newton's method at most; some ten suffice."""
LAST_STEP = 1e-10
"""Length of the last step."""


@dataclass(frozen=True)
class Probe:
    """p(mixed up | h) = sigmoid(w . (h - mean) / scale + b).

    Attributes:
        weights: (hidden,)
        bias: b.
        mean, scale: of the states it was fitted on, (hidden,) each.
    """

    weights: NDArray[np.float64]
    bias: float
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    def __call__(self, states: ArrayLike) -> NDArray[np.float64]:
        """Probability of the label, (rows,), from (rows, hidden)."""
        return _sigmoid((np.asarray(states, dtype=np.float64) - self.mean) / self.scale @ self.weights + self.bias)


def fit_probe(states: ArrayLike, labels: Sequence[bool], *, penalty: float = 1.0) -> Probe:
    """Fit a probe: the least of sum_i log(1 + exp(-y_i z_i)) + penalty / 2 |w|^2 over w and b, with y = 1 or -1.

    The states are centred and each dimension divided by its standard deviation. Since the best w is a sum of states, it is
    looked for in their span, at most as many directions as there are rows, by Newton's method.

    Args:
        states: (rows, hidden), for instance of the position that predicts the answer.
        labels: whether each answer is mixed up.
        penalty: weight of |w|^2; more: a flatter probe.

    Raises:
        DataError: a state is no number, or not both labels are there.
        ConfigError: the penalty is not above 0.
    """
    rows, mixed = np.asarray(states, dtype=np.float64), np.asarray(labels, dtype=bool)
    if rows.ndim != 2 or len(rows) != len(mixed) or not np.isfinite(rows).all():
        raise DataError(
            f"states: expected finite numbers, (rows, hidden), one row for each of {len(mixed)} labels, got {rows.shape}"
        )
    if mixed.all() or not mixed.any():
        raise DataError(f"labels: expected both kinds, got {len(mixed)} of one")
    if penalty <= 0:
        raise ConfigError(f"penalty: expected a number above 0, got {penalty}")
    mean, scale = rows.mean(0), rows.std(0)
    scale[scale == 0] = 1.0
    left, lengths, right = np.linalg.svd((rows - mean) / scale, full_matrices=False)
    kept = lengths > lengths.max(initial=0) * 1e-10
    found = _newton(left[:, kept] * lengths[kept], np.where(mixed, 1.0, -1.0), penalty)
    return Probe(found[:-1] @ right[kept], float(found[-1]), mean, scale)


def held_out_probabilities(
    states: ArrayLike, labels: Sequence[bool], *, folds: int = 5, penalty: float = 1.0, seed: int = 0
) -> NDArray[np.float64]:
    """Each row's probability by a probe that was fitted without it, (rows,).

    Args:
        states, labels, penalty: as for `fit_probe`.
        folds: parts, each left out once; both labels are spread evenly over them.
        seed: of who is in which part.

    Raises:
        DataError: fewer than two rows of a label, or as `fit_probe`.
    """
    rows, mixed = np.asarray(states, dtype=np.float64), np.asarray(labels, dtype=bool)
    least = min(int(mixed.sum()), int((~mixed).sum()))
    if least < 2:
        raise DataError(f"labels: expected at least two rows of each kind, got {least} of one")
    part = np.empty(len(mixed), dtype=int)
    rng = np.random.default_rng(seed)
    for kind in (True, False):
        members = rng.permutation(np.flatnonzero(mixed == kind))
        part[members] = np.arange(len(members)) % min(folds, least)
    out = np.empty(len(mixed))
    for fold in range(min(folds, least)):
        out[part == fold] = fit_probe(rows[part != fold], mixed[part != fold], penalty=penalty)(rows[part == fold])
    return out


def _newton(inputs: NDArray[np.float64], signs: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Weights and, last, the bias."""
    design = np.column_stack([inputs, np.ones(len(inputs))])
    weighed = np.full(design.shape[1], penalty)
    weighed[-1] = 0.0
    found = np.zeros(design.shape[1])

    def loss(at: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -signs * (design @ at)).sum() + 0.5 * (weighed * at * at).sum())

    for _ in range(NEWTON_STEPS):
        chance = _sigmoid(signs * (design @ found))
        slope = -design.T @ (signs * (1 - chance)) + weighed * found
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(weighed)
        step = np.linalg.lstsq(curve, slope, rcond=None)[0]
        size = 1.0
        while loss(found - size * step) > loss(found) and size > LAST_STEP:
            size /= 2
        found = found - size * step
        if np.linalg.norm(size * step) < LAST_STEP * (1 + np.linalg.norm(found)):
            break
    return found


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.exp(-np.logaddexp(0, -values))
    return result
