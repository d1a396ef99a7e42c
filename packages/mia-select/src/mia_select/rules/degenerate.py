"""Answers that are no answers: empty, caught in a loop, or holding an image token."""

from __future__ import annotations

from collections.abc import Sequence

from mia_select.rules.candidate import Candidate
from mia_select.settings import SelectSettings

REPEATS = 4
"""So often must a unit stand at the end, one after another, to be a loop."""
LOOP_CHARACTERS = 32
"""Shorter repetitions (``no no no no``, ``......``) are no loop yet."""
_TAIL = 8


def degenerate_side(candidate: Candidate, settings: SelectSettings) -> str | None:
    """Whether one of the two texts is no answer at all."""
    if reason := degenerate(candidate.rejected or "", settings.image_tokens):
        return reason
    reason = degenerate(candidate.chosen.text, settings.image_tokens)
    return reason and f"{'own answer' if candidate.chosen.own else 'ground truth'}: {reason}"


def degenerate(text: str, image_tokens: Sequence[str]) -> str | None:
    """Why a text is no usable answer: `empty`, `image token ...` or `repetition loop`; None: it is one."""
    if not text.strip():
        return "empty"
    if "<" in text or "[" in text:
        for token in image_tokens:
            if token in text:
                return f"image token {token}"
    return "repetition loop" if is_loop(text) else None


def is_loop(text: str) -> bool:
    """Whether at least half of the text, at its end, is one unit over and over.

    >>> is_loop("It is red and it is red and it is red and it is red and it is")
    True
    """
    text = text.rstrip()
    total = len(text)
    if total < LOOP_CHARACTERS:
        return False
    tail = text[-_TAIL:]
    found = text.rfind(tail, 0, total - 1)
    while found >= 0:
        period = total - _TAIL - found
        need = max(LOOP_CHARACTERS, REPEATS * period, (total + 1) // 2)
        if need > total:
            return False
        if text[-need + period :] == text[-need:-period]:
            return True
        found = text.rfind(tail, 0, found + _TAIL - 1)
    return False
