"""Which picture answers speak of, before and after: agreement by likelihood, which is neither equality nor accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mia_augment import LogpAlone, Record
from mia_augment.statistics import (
    Difference,
    MeanDifference,
    SpokenOf,
    likeliest_per_token,
    paired_difference,
    paired_mean_difference,
    said_of_none_below,
    shares,
    spoken_of,
)

Named = Literal["target", "other_image", "mixed", "neither"]
"""What an answer speaks of, seen from the picture asked about."""


class Speaks(Record):
    """What one answer speaks of, judged by the untrained model's view of each picture alone."""

    share: float
    """The target's share of the answer's likelihood."""
    about: Named


class Speaking(Record):
    """Answers to samples of several pictures, of which both answers could be measured."""

    n: int
    before: int
    """Answers that speak of the picture asked about."""
    after: int | None = None
    difference: Difference | None = None
    share_before: float
    """Mean of the target's share."""
    share_after: float | None = None
    share_difference: MeanDifference | None = None


def speaks(logps: LogpAlone, target: int, floor: float | None) -> Speaks | None:
    """What an answer speaks of; None where it could not be measured, or there is a single picture.

    Args:
        floor: as `answers_floor` gives it.
    """
    parts = shares(logps.summed)
    found = None if parts is None else spoken_of(parts, target, logps, floor)
    return None if parts is None or found is None else Speaks(share=parts[target], about=named(found, target))


def named(found: SpokenOf, target: int) -> Named:
    """The name of what `spoken_of` has found."""
    if isinstance(found, str):
        return found
    return "target" if found == target else "other_image"


def answers_floor(answers: Sequence[LogpAlone], own: Sequence[float]) -> float | None:
    """Below which mean log-prob per token under the likeliest picture an answer speaks of none (`said_of_none_below`).

    Args:
        answers: all of them, before and after.
        own: of the model's answers about targets alone, the mean log-prob per token.
    """
    best = [value for logps in answers if (value := likeliest_per_token(logps)) is not None]
    return said_of_none_below(best, own)


def speaking(before: Sequence[Speaks | None], after: Sequence[Speaks | None] | None, *, seed: int = 0) -> Speaking | None:
    """How many answers speak of the picture asked about, and the mean share; None where none was measured.

    Samples of which one of the two answers could not be measured are left out of both.
    """
    pairs = [(b, b if after is None else after[index]) for index, b in enumerate(before)]
    kept = [(b, a) for b, a in pairs if b is not None and a is not None]
    if not kept:
        return None
    first, second = [b.about == "target" for b, _ in kept], [a.about == "target" for _, a in kept]
    shares_before, shares_after = [b.share for b, _ in kept], [a.share for _, a in kept]
    alone = Speaking(n=len(kept), before=sum(first), share_before=sum(shares_before) / len(kept))
    if after is None:
        return alone
    return alone.model_copy(
        update={
            "after": sum(second),
            "difference": paired_difference(first, second, seed=seed),
            "share_after": sum(shares_after) / len(kept),
            "share_difference": paired_mean_difference(shares_before, shares_after, seed=seed),
        }
    )
