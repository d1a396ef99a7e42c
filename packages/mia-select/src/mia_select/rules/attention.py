"""The attention rule: from a share of attention to "it looked elsewhere", by a threshold per format and number of images."""

from __future__ import annotations

import operator
from typing import Any

from mia_augment import FORMATS, FormatName

from mia_select.rules.candidate import Candidate
from mia_select.settings import SelectSettings, Thresholds


def unmeasured(candidate: Candidate, settings: SelectSettings) -> str | None:
    """Why an own answer lacks a number that a later rule needs."""
    if not candidate.own:
        return None
    if settings.attention and candidate.ratio is None and FORMATS[candidate.format].shared is None:
        return candidate.unmeasured or "no attention ratio"
    return "no perplexity" if settings.min_perplexity is not None and candidate.perplexity is None else None


def attention(candidate: Candidate, settings: SelectSettings) -> float | None:
    """The ratio of an own answer that fails: the model looked at the target (`reversed`: elsewhere)."""
    ratio, threshold = candidate.ratio, candidate.threshold
    if not candidate.own or not settings.attention or ratio is None or threshold is None:
        return None
    elsewhere = looks_elsewhere(candidate.format, ratio, threshold)
    return ratio if elsewhere == (settings.attention == "reversed") else None


def threshold_for(format_: FormatName, parts: int, table: Thresholds) -> float | None:
    """Threshold on the ratio; None for a format without one (`single`: all attention is on the only picture).

    A missing number lies on the straight line between its neighbours in the table; beyond the table its nearest entry holds.
    """
    if not FORMATS[format_].thresholds:
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


def looks_elsewhere(format_: FormatName, ratio: Any, threshold: float) -> Any:
    """Whether the attention rule keeps a ratio, or each of an array: at most the threshold for sequences, else below it."""
    keeps = operator.le if FORMATS[format_].inclusive else operator.lt
    return keeps(ratio, threshold)
