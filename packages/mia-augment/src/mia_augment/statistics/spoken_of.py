"""Which picture an answer speaks of, by its likelihood under each picture alone. Pure; log-probs in nats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mia_augment.records import LogpAlone

SpokenOf: TypeAlias = int | Literal["mixed", "neither"]
"""Index of a part; or no single one: `mixed` from several, or said of none of them."""

KNOWN_ENOUGH = 20
"""Own answers from which the floor of likelihoods may be read."""
RARELY = 0.01
"""Share of the model's own answers that may lie under the floor."""
AS_LIKELY = 0.5
"""An answer half as likely under the target as under the likeliest part may be true of both: it counts as the target's."""


def shares(logps: Sequence[float | None]) -> list[float] | None:
    """Each part's share of an answer's likelihood: exp(l_k) / sum_i exp(l_i); the parts' posterior if all are asked as often.

    Args:
        logps: log p(answer | part k alone), in nats, of all parts.

    Returns:
        Shares that add up to 1; None where a part was not measured or the answer is impossible whatever is shown.

    >>> [round(share, 2) for share in shares([-1.0, -1.0, -1.0 + math.log(2)])]
    [0.25, 0.25, 0.5]
    """
    known = [logp for logp in logps if logp is not None]
    if not known or len(known) < len(logps) or max(known) == -math.inf:
        return None
    largest = max(known)
    weights = [math.exp(logp - largest) for logp in known]
    return [weight / sum(weights) for weight in weights]


def against_likeliest(logps: Sequence[float | None], target: int) -> float | None:
    """The target's likelihood over that of the likeliest part: p_t / max over k of p_k, 1 where that is the target itself.

    Pictures of which the same is true divide a likelihood among them, so that a share depends on how many they are: an answer
    that is true of four pictures has a share of 1/4 for each. Against the likeliest part it has 1.

    Returns:
        None as for `shares`, and of a single part.

    >>> against_likeliest([0.0, 0.0, 0.0, -9.0], 0)
    1.0
    """
    found = shares(logps)
    return None if found is None or len(found) < 2 else found[target] / max(found)


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


def said_of_none_below(best: Sequence[float], own: Sequence[float]) -> float | None:
    """Mean log-prob per token under the likeliest picture below which an answer speaks of none of the pictures.

    The model's own answers about pictures alone show how likely an answer is that speaks of its picture. The floor is the
    cut between two groups of all answers (`two_groups_cut`), but never above the likelihood that all but `RARELY` of the own
    answers reach: where no answer speaks of none, there are no two groups, and (nearly) none is called so.

    Args:
        best: of each answer to several pictures, the largest of its means per token under each picture alone.
        own: of each own answer about a picture alone, the mean log-prob of its tokens under that picture.

    Returns:
        None where fewer than `KNOWN_ENOUGH` own answers are known.

    >>> said_of_none_below([-0.1] * 30 + [-1.9] * 2, [-0.1] * 30)
    -1.0
    """
    known = [value for value in own if math.isfinite(value)]
    if len(known) < KNOWN_ENOUGH:
        return None
    reached = float(np.quantile(known, RARELY))
    cut = two_groups_cut([value for value in best if math.isfinite(value)])
    return reached if cut is None else min(cut, reached)


def likeliest_per_token(logps: LogpAlone) -> float | None:
    """The largest of the means per token under each part; None where a part was not measured."""
    known = [value for value in logps.per_token if value is not None]
    return max(known) if known and len(known) == len(logps.per_token) else None


def spoken_of(parts: Sequence[float], target: int, logps: LogpAlone | None, floor: float | None) -> SpokenOf | None:
    """The part that an answer speaks of: the one under which it is likeliest, unless it is unlikely under every part.

    The target where it is `AS_LIKELY`, or more, as the likeliest: what is true of it may be true of others too. Unlikely under
    every part as a whole, but each token likely under some part: `mixed` from several. Else said of `neither`.

    Args:
        parts: each part's share of the answer's likelihood, as `shares` gives them.
        target: the part asked about.
        logps: of the answer under each part alone; None: not known, so nothing is called mixed or said of neither.
        floor: what `said_of_none_below` gives; None: the same.

    Returns:
        None of less than two parts.
    """
    if len(parts) < 2:
        return None
    best = None if logps is None else likeliest_per_token(logps)
    if logps is not None and floor is not None and best is not None and best < floor:
        return "mixed" if logps.per_token_any is not None and logps.per_token_any >= floor else "neither"
    likeliest = max(range(len(parts)), key=parts.__getitem__)
    return target if parts[target] >= AS_LIKELY * parts[likeliest] else likeliest
