"""The edit-distance rule: two texts that hardly differ teach nothing."""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein

from mia_select.rules.candidate import Candidate
from mia_select.settings import SelectSettings


def too_similar(candidate: Candidate, settings: SelectSettings) -> float | None:
    """The edit distance if it is under `min_edit_distance`; noted in the candidate either way."""
    if candidate.contrast == "pictures":
        return None
    value = candidate.edit_distance = edit_distance(candidate.chosen.text, candidate.rejected or "")
    return value if settings.min_edit_distance is not None and value < settings.min_edit_distance else None


def edit_distance(first: str, second: str) -> float:
    """Levenshtein distance over the longer length, case aside: 0 equal, 1 nothing in common.

    >>> round(edit_distance("The color is red.", "The color is blue."), 2)
    0.22
    """
    return float(Levenshtein.normalized_distance(first.lower(), second.lower()))
