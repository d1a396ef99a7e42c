"""What the selection found worth a warning, in one line for each format."""

from __future__ import annotations

import re
from collections import defaultdict

from mia_select.selection import Selection

INERT_WORDS = "is inert"
CHANCE_WORDS = "does not tell right from wrong"


def short_notes(selection: Selection) -> list[str]:
    """A line for each format that has warnings of its own, then those of other kinds as they are.

    >>> warnings = ["grid of 2: the threshold 0.7 is inert, ..", "grid of 3: the threshold 0.6 is inert, .."]
    >>> short_notes(Selection.model_construct(warnings=warnings, thresholds=[]))
    ['grid of 2, 3: the thresholds of the table are inert and were kept']
    """
    about: dict[str, dict[str, list[int]]] = defaultdict(lambda: {INERT_WORDS: [], CHANCE_WORDS: []})
    others = []
    for warning in selection.warnings:
        found = re.match(r"(\w+) of (\d+): ", warning)
        kind = next((kind for kind in (INERT_WORDS, CHANCE_WORDS) if kind in warning), None)
        if found is None or kind is None:
            others.append(warning)
        else:
            about[found[1]][kind].append(int(found[2]))
    from_data = {(line.format, line.parts) for line in selection.thresholds if line.origin != "table"}
    lines = []
    for name, kinds in about.items():
        parts = sorted({*kinds[INERT_WORDS], *kinds[CHANCE_WORDS]})
        words = []
        if kinds[INERT_WORDS]:
            kept = not any(bucket in from_data for bucket in ((name, number) for number in kinds[INERT_WORDS]))
            done = "were kept" if kept else "were set anew from the data"
            words.append(f"the thresholds of the table are inert{_for(kinds[INERT_WORDS], parts)} and {done}")
        if kinds[CHANCE_WORDS]:
            words.append(f"the ratio tells wrong from right no better than chance{_for(kinds[CHANCE_WORDS], parts)}")
        lines.append(f"{name.replace('_', '-')} of {_listed(parts)}: {'; '.join(words)}")
    return lines + others


def _for(some: list[int], parts: list[int]) -> str:
    return "" if sorted(some) == parts else f" for {_listed(some)}"


def _listed(parts: list[int]) -> str:
    return ", ".join(map(str, parts))
