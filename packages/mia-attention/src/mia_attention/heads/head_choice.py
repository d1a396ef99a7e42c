"""Which heads tell most: chosen on one half of the samples, measured on the other. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from mia_augment import ConfigError, DataError
from mia_augment.statistics import (
    Interval,
    ScoredGroup,
    grouped_auroc,
    grouped_auroc_interval,
    percentile_interval,
    scored_groups,
)

from mia_attention.heads.head_shares import Head, HeadShares

HeadGoal = Literal["wrong", "target"]
"""What heads are to tell: wrong answers from right ones, by a low share of the target; or the picture that is asked about from
the others, by the largest share."""
RESAMPLES = 1000


@dataclass(frozen=True)
class HeadChoice:
    """The heads that tell most, and how well they do.

    Attributes:
        heads: (layer, head), best first; as `score.heads` takes them.
        auroc, low, high: of the mean over them, on the half of the samples that they were not chosen on, with its 95 %
            bootstrap interval; 0.5 is chance level.
        samples: how many these were.
        scores: every head's AUROC on the half that they were chosen on, best first. The best of many is good by luck, too.
    """

    heads: list[Head]
    auroc: float
    low: float
    high: float
    samples: int
    scores: list[tuple[Head, float]]


def choose_heads(
    shares: Sequence[HeadShares], wrong: Sequence[bool | None], goal: HeadGoal = "wrong", *, most: int = 8, seed: int = 0
) -> HeadChoice:
    """The heads whose mean tells most.

    All heads are ranked on the samples of even index; of the first 1 to `most` of them, taken together, the number that tells
    most there is kept, and measured on the samples of odd index.

    `wrong`: AUROC of "a low ratio of the target means a wrong answer", within each format and number of images.
    `target`: the chance that the picture asked about gets more attention per visual token than another one of its sample.

    Args:
        shares: samples with every head's attention.
        wrong: whether each answer is wrong; None: not known, and left out. Only for the goal `wrong`.
        goal: see above.
        most: how many heads at most.
        seed: of the bootstrap.

    Raises:
        ConfigError: `most` is below 1, or there is no such goal.
        DataError: one of the halves does not tell anything.
    """
    if most < 1 or goal not in ("wrong", "target"):
        raise ConfigError(f"expected at least one head and the goal wrong or target, got {most} and {goal!r}")
    if len(wrong) != len(shares):
        raise DataError(f"expected a label for each of {len(shares)} samples, got {len(wrong)}")
    pairs = list(zip(shares, wrong, strict=True))
    even, odd = pairs[0::2], pairs[1::2]
    best, ranked = _best(even, goal, most)
    found = _interval(odd, best, goal, seed) if best else None
    if found is None:
        raise DataError(
            f"no heads can be chosen: {_counts(even, goal)} in one half and {_counts(odd, goal)} in the other; "
            "take more samples of several pictures; see docs/errors.md#no-heads-can-be-chosen"
        )
    return HeadChoice(best, *found, samples=len(odd), scores=ranked)


def held_out_ratios(
    shares: Sequence[HeadShares], wrong: Sequence[bool | None], *, most: int = 8
) -> tuple[list[Head], list[float | None]] | None:
    """Every sample's ratio by heads that were chosen without it, to be compared with readouts that nobody had to choose.

    Those of odd index are measured by the heads chosen on all of even index, which are returned; those of even index by heads
    chosen on the other half of the even ones.

    Args:
        shares, wrong, most: as for `choose_heads`, with the goal `wrong`.

    Returns:
        The heads and the ratios (None: not measured); None where right and wrong answers do not meet in one of these parts.
    """
    pairs = list(zip(shares, wrong, strict=True))
    every, *halves = (_best(part, "wrong", most)[0] for part in (pairs[0::2], pairs[2::4], pairs[0::4]))
    if not every or not all(halves):
        return None
    return every, [each.ratio(every if index % 2 else halves[index % 4 // 2]) for index, each in enumerate(shares)]


Labelled = Sequence[tuple[HeadShares, bool | None]]


def _best(part: Labelled, goal: HeadGoal, most: int) -> tuple[list[Head], list[tuple[Head, float]]]:
    """As many of the first `most` heads as tell most, taken together; and what each head alone tells, best first."""
    heads = list(part[0][0].by_head) if part else []
    scored = [(head, value) for head in heads if (value := _value(part, [head], goal)) is not None]
    ranked = sorted(scored, key=lambda item: (-item[1], item[0]))
    sets = [[head for head, _ in ranked[:count]] for count in range(1, min(most, len(ranked)) + 1)]
    values = [_value(part, chosen, goal) or 0.0 for chosen in sets]
    return (sets[int(np.argmax(values))] if sets else []), ranked


def _value(part: Labelled, heads: Sequence[Head], goal: HeadGoal) -> float | None:
    if goal == "target":
        found = _retrieved(part, heads)
        return float(np.mean(found)) if found else None
    return grouped_auroc(_groups(part, heads))


def _interval(part: Labelled, heads: Sequence[Head], goal: HeadGoal, seed: int) -> Interval | None:
    if goal == "wrong":
        return grouped_auroc_interval(_groups(part, heads), seed=seed)
    found = np.array(_retrieved(part, heads))
    if not len(found):
        return None
    generator = np.random.default_rng(seed)
    drawn = [found[generator.integers(0, len(found), len(found))].mean() for _ in range(RESAMPLES)]
    return Interval(float(found.mean()), *percentile_interval(drawn))


def _groups(part: Labelled, heads: Sequence[Head]) -> list[ScoredGroup]:
    known = [(each, label) for each, label in part if label is not None]
    ratios = [each.ratio(heads) for each, _ in known]
    low = [None if ratio is None else -ratio for ratio in ratios]  # a low ratio is to mean a wrong answer
    keys = [(each.sample.format, each.sample.parts) for each, _ in known]
    return scored_groups(low, [bool(label) for _, label in known], keys)


def _retrieved(part: Labelled, heads: Sequence[Head]) -> list[float]:
    return [found for each, _ in part if (found := each.found(heads)) is not None]


def _counts(part: Labelled, goal: HeadGoal) -> str:
    if goal == "target":
        return f"{len(part)} samples"
    return f"{sum(label is False for _, label in part)} right and {sum(label is True for _, label in part)} wrong answers"
