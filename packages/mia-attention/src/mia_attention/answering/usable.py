"""Batches without the pictures and prompts that cannot be used: each of these costs its own record alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from mia_augment import ModelError
from mia_augment.prompting import refusal

ItemT = TypeVar("ItemT")
EncodedT = TypeVar("EncodedT")


class Usable(NamedTuple, Generic[EncodedT]):
    """What of a batch can be used."""

    encoded: EncodedT | None
    """All that can, together; None: nothing."""
    kept: list[int]
    """Their indices in the batch."""
    refused: dict[int, str]
    """Why each of the others cannot."""


def encode_usable(items: Sequence[ItemT], encode: Callable[[Sequence[ItemT]], EncodedT]) -> Usable[EncodedT]:
    """Encode those items of a batch that can be; if the batch fails, they are tried one by one.

    Raises:
        ModelError: every item can be encoded alone, but not all of them together.
        Exception: `encode` raises what is no record's fault (see `mia_augment.prompting.refusals`).
    """
    try:
        return Usable(encode(items), list(range(len(items))), {})
    except Exception as error:
        if (reason := refusal(error)) is None:
            raise
        if len(items) == 1:
            return Usable(None, [], {0: reason})
        together = error
    refused: dict[int, str] = {}
    for index, item in enumerate(items):
        alone = encode_usable([item], encode)
        if alone.refused:
            refused[index] = alone.refused[0]
    if not refused:
        raise ModelError(f"the model's processor takes these {len(items)} prompts only one by one: {reason}") from together
    kept = [index for index in range(len(items)) if index not in refused]
    return Usable(encode([items[index] for index in kept]) if kept else None, kept, refused)
