"""From a share of attention to "it looked elsewhere": the threshold of each format and number of images."""

from __future__ import annotations

from mia_augment import Format

from mia_select.settings import Thresholds

Bucket = tuple[Format, int]
"""Format and number of pictures the prompt speaks of."""


def threshold_for(format_: Format, parts: int, table: Thresholds) -> float | None:
    """Threshold on the ratio; None for a format without one (`single`: all attention is on the only picture).

    A missing number lies on the straight line between its neighbours in the table; beyond the table its nearest entry holds.
    """
    if format_ == "single":
        return None
    entries: dict[int, float] = getattr(table, format_)
    if parts in entries:
        return entries[parts]
    known = sorted(entries)
    below = max((n for n in known if n < parts), default=known[0])
    above = min((n for n in known if n > parts), default=known[-1])
    if below > parts or above < parts or below == above:
        return entries[known[0] if parts < known[0] else known[-1]]
    share = (parts - below) / (above - below)
    return entries[below] + share * (entries[above] - entries[below])


def looks_elsewhere(format_: Format, ratio: float, threshold: float) -> bool:
    """Whether the attention rule keeps this ratio: at most the threshold for sequences, below it for the others."""
    return ratio <= threshold if format_ == "sequence" else ratio < threshold
