"""An answer's token ids as the pieces of text that a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\ufffd"
"""What a tokenizer writes for bytes that are no whole character yet."""


def answer_pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text that each token adds, blanks included; a token that only begins a character, or is special, adds nothing."""
    pieces: list[str] = []
    told = ""
    for end in range(1, len(ids) + 1):
        text = str(tokenizer.decode(list(ids[:end]), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        if text.endswith(UNFINISHED) and end < len(ids):
            text = told
        pieces.append(text[_common(told, text) :])
        told = text
    return pieces


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with together."""
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
