"""The length rule: the difference of two log-probs of very unequal lengths is length, not content."""

from __future__ import annotations

from mia_select.rules.candidate import Candidate
from mia_select.settings import SelectSettings

LEAST_LENGTH = 16
"""Lengths under this count as this: of two short answers neither is long."""


def too_unequal(candidate: Candidate, settings: SelectSettings) -> float | None:
    """The length ratio if it is above `max_length_ratio`; noted in the candidate either way."""
    if candidate.contrast == "pictures":
        return None
    value = candidate.length_ratio = length_ratio(candidate.chosen.text, candidate.rejected or "")
    return value if settings.max_length_ratio is not None and value > settings.max_length_ratio else None


def length_ratio(first: str, second: str) -> float:
    """Longer over shorter text in characters (>= 1); lengths under 16 count as 16.

    >>> length_ratio("Two", "There are two dogs and three cats")
    2.0625
    """
    lengths = max(len(first), LEAST_LENGTH), max(len(second), LEAST_LENGTH)
    return max(lengths) / min(lengths)
