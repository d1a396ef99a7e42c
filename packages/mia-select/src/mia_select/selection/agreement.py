"""Agreement instead of equality: an answer in other words is not wrong while it is likely given the picture asked about.

It agrees where the target is (nearly) the picture under which it is likeliest (`against_likeliest`), unless it is unlikely
under all of them (`said_of_none_below`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from mia_augment import Bucket
from mia_augment.statistics import AS_LIKELY, against_likeliest, likeliest_per_token, said_of_none_below, two_groups_cut
from numpy.typing import NDArray

from mia_select.rules.candidate import Candidate

HIGHEST = 0.9
"""Answers of which so large a share of the likelihood is the target's are taken for right whatever the others are like."""


def agreement_cut(shares: Sequence[float] | NDArray[np.float64], parts: int) -> float:
    """The share of the likelihood under each picture alone above which an answer speaks of the target; found from the answers.

    The cut between two groups, but not below chance, 1 / parts, where another picture is as likely, and not above `HIGHEST`:
    where all answers are right, or all wrong, there are no two groups.

    Args:
        shares: of the target, of all answers in one format and number of images.
        parts: how many pictures share the likelihood.
    """
    chance = 1 / parts
    cut = two_groups_cut(shares)
    return chance if cut is None else min(max(cut, chance), max(HIGHEST, chance))


HARDLY = 0.1
"""An answer under a tenth as likely under the target as under the likeliest part is none about the target, and one that is
`AS_LIKELY` is one, whatever the other answers are like. Measured in benchmarks/RESULTS.md."""


def likely_cut(against: Sequence[float] | NDArray[np.float64]) -> float:
    """The likelihood ratio, target over likeliest part, above which an answer speaks of the target.

    The cut between two groups, within `HARDLY` and `AS_LIKELY`.

    Args:
        against: of all answers in one format and number of images.

    >>> likely_cut([0.0, 0.05, 0.4, 1.0]), likely_cut([0.95, 1.0]), likely_cut([0.0, 0.01])
    (0.5, 0.5, 0.1)
    """
    cut = two_groups_cut(against)
    return AS_LIKELY if cut is None else min(max(cut, HARDLY), AS_LIKELY)


@dataclass
class Agreement:
    """The answers of all samples, of which each is then told whether it agrees with the picture asked about."""

    _against: dict[Bucket, list[float]] = field(default_factory=dict)
    _each: list[tuple[Bucket, float, float | None]] = field(default_factory=list)
    _own: list[float] = field(default_factory=list)

    def add(self, candidate: Candidate) -> None:
        """Note an own answer that has a ratio of the readout `alone`."""
        logps, ratio = candidate.logp_alone, candidate.ratio or 0.0
        against = None if logps is None else against_likeliest(logps.summed, candidate.target)
        if against is None:  # of the others it is known only what they have together
            against = ratio / max(ratio, 1 - ratio)
        best = None if logps is None else likeliest_per_token(logps)
        self._against.setdefault(candidate.bucket, []).append(against)
        self._each.append((candidate.bucket, against, best))
        if candidate.own_mean_logp is not None:
            self._own.append(candidate.own_mean_logp)

    def floor(self) -> float | None:
        """The mean log-prob per token below which an answer speaks of no picture; None: too few own answers are known."""
        return said_of_none_below([best for _, _, best in self._each if best is not None], self._own)

    def verdicts(self) -> Iterable[bool]:
        """Whether each answer agrees, in their order."""
        floor = self.floor()
        cuts = {bucket: likely_cut(values) for bucket, values in self._against.items()}
        for bucket, against, best in self._each:
            said_of_none = floor is not None and best is not None and best < floor
            yield against > cuts[bucket] and not said_of_none
