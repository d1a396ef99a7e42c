"""Answers that are rejected far more often than chosen: training on them teaches the model to avoid the words themselves."""

from __future__ import annotations

from collections import Counter

from mia_augment import normalize_answer

SHORT = 48
"""Longer answers hardly ever come twice; they are not counted."""
DISTINCT = 20_000
"""Once so many different answers were rejected or chosen, no other answer is counted any more, so that memory stays flat."""
TIMES, ENOUGH = 3, 20
"""An answer is one-sided when it is rejected at least ENOUGH times, and TIMES as often as it is chosen."""
SHOWN = 3


class AnswerCounts:
    """How often each short answer is rejected and chosen."""

    def __init__(self) -> None:
        self._rejected: Counter[str] = Counter()
        self._chosen: Counter[str] = Counter()

    def add(self, chosen: str, rejected: str, *more: str) -> None:
        """Count a pair's answers, several rejected ones each."""
        for counts, answer in ((self._chosen, chosen), *((self._rejected, each) for each in (rejected, *more))):
            key = normalize_answer(answer) if len(answer) <= SHORT else ""
            if key and (key in self._rejected or key in self._chosen or len(counts) < DISTINCT):
                counts[key] += 1

    def one_sided(self) -> str | None:
        """The most one-sided answers, each with how often it is rejected and chosen; None: there are none.

        >>> counts = AnswerCounts()
        >>> for _ in range(20): counts.add(chosen="No.", rejected="Yes.")
        >>> counts.one_sided()
        "'yes' (20 to 0)"
        """
        found = [
            (rejected - self._chosen[answer], answer)
            for answer, rejected in self._rejected.items()
            if rejected >= ENOUGH and rejected >= TIMES * self._chosen[answer]
        ]
        worst = [
            f"{answer!r} ({self._rejected[answer]} to {self._chosen[answer]})"
            for _, answer in sorted(found, reverse=True)[:SHOWN]
        ]
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return ", ".join(worst) + more if found else None

    def warnings(self) -> list[str]:
        """A line for the one-sided answers, if there are any."""
        found = self.one_sided()
        if found is None:
            return []
        return [
            f"rejected far more often than chosen: {found}; the model will learn to avoid these words, "
            "whatever a picture shows; consider `rejected: both`"
        ]
