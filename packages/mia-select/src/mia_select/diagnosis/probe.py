"""A probe: does a linear function of a hidden state tell wrong answers from right ones? It needs labels: a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
L2 = 10.0
"""Strength of the ridge on standardised states: with thousands of dimensions and hundreds of answers, little is left free."""
FIT_STEPS = 50


class Logistic(NamedTuple):
    """P(positive) = sigmoid(x . weights + bias)."""

    weights: Values
    bias: float

    def probabilities(self, states: Values) -> Values:
        """(n,) of states, (n, width)."""
        found: Values = _sigmoid(states @ self.weights + self.bias)
        return found


def fit_logistic(states: Values, positive: NDArray[np.bool_], l2: float = L2) -> Logistic:
    """Minimise sum_i log(1 + exp(-y_i (x_i . w + b))) + l2 / 2 |w|^2, y = 1 or -1, by Newton's steps; b is free.

    The minimum lies in the span of the rows, so that it is looked for there: with U S V^T the thin SVD of the states, in the
    coordinates U S, of which there are no more than rows.

    Args:
        states: (n, width).
        positive: (n,), of both kinds.
        l2: above 0, so that there is one minimum.

    >>> fit_logistic(np.array([[-1.0], [1.0]]), np.array([False, True]), l2=1.0).bias
    0.0
    """
    left, scale, right = np.linalg.svd(states, full_matrices=False)
    inner = np.column_stack([left * scale, np.ones(len(states))])
    ridge = np.full(inner.shape[1], l2)
    ridge[-1] = 0.0
    found, target = np.zeros(inner.shape[1]), positive.astype(np.float64)
    for _ in range(FIT_STEPS):
        said = _sigmoid(inner @ found)
        gradient = inner.T @ (said - target) + ridge * found
        curve = (inner * (said * (1 - said))[:, None]).T @ inner + np.diag(ridge)
        step = np.linalg.lstsq(curve, gradient, rcond=None)[0]
        found = found - step
        if float(np.abs(step).max()) < 1e-10:
            break
    return Logistic(found[:-1] @ right, float(found[-1]))


def cross_fitted(states: Values, positive: Sequence[bool], l2: float = L2) -> list[float] | None:
    """P(positive) of every row, by a probe that was fitted on the other half: rows of even index, and of odd index.

    States are standardised by the half that was fitted on.

    Returns:
        None where a half holds answers of one kind only.
    """
    labels, found = np.asarray(positive, dtype=bool), np.empty(len(positive))
    for fitted, told in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        if labels[fitted].all() or not labels[fitted].any():
            return None
        mean, spread = states[fitted].mean(0), states[fitted].std(0)
        spread = np.where(spread > 0, spread, 1.0)
        probe = fit_logistic((states[fitted] - mean) / spread, labels[fitted], l2)
        found[told] = probe.probabilities((states[told] - mean) / spread)
    return [float(value) for value in found]


def _sigmoid(values: Values) -> Values:
    found: Values = 0.5 * (1 + np.tanh(values / 2))
    return found
