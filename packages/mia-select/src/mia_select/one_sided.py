"""Answers that are rejected far more often than chosen: training on them teaches the model to avoid the words themselves."""

from __future__ import annotations

from collections import Counter

from mia_augment.records import PreferencePair
from mia_augment.text import normalize_answer

SHORT = 48
"""Longer answers hardly ever come twice; they are not counted."""
DISTINCT = 20_000
"""Once there are so many different answers, new ones are not counted any more, so that memory stays flat."""
TIMES, ENOUGH = 3, 20
"""An answer is one-sided when it is rejected in at least ENOUGH pairs, and TIMES as often as it is chosen."""
SHOWN = 3


class AnswerCounts:
    """How often each short answer is rejected and chosen."""

    def __init__(self) -> None:
        self._rejected: Counter[str] = Counter()
        self._chosen: Counter[str] = Counter()

    def add(self, pair: PreferencePair) -> None:
        for counts, answer in ((self._rejected, pair.rejected), (self._chosen, pair.chosen)):
            key = normalize_answer(answer) if len(answer) <= SHORT else ""
            if key and (key in counts or len(counts) < DISTINCT):
                counts[key] += 1

    def warnings(self) -> list[str]:
        """One line that names the most one-sided answers, or none."""
        one_sided = [
            (rejected - self._chosen[answer], answer)
            for answer, rejected in self._rejected.items()
            if rejected >= ENOUGH and rejected >= TIMES * self._chosen[answer]
        ]
        if not one_sided:
            return []
        worst = [
            f"{answer!r} in {self._rejected[answer]} pairs (chosen in {self._chosen[answer]})"
            for _, answer in sorted(one_sided, reverse=True)[:SHOWN]
        ]
        more = f" and {len(one_sided) - SHOWN} more" if len(one_sided) > SHOWN else ""
        return [
            f"some answers are rejected far more often than chosen: {', '.join(worst)}{more}; the model will learn to avoid "
            "these words whatever the picture shows; consider `rejected: both` or `confusion`, and look at single pictures"
        ]
