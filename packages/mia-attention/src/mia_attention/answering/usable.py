"""Batches without the pictures and prompts that cannot be used: each of these costs its own record alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from mia_augment import ModelError, Skipped
from mia_augment.prompting import refusal

from mia_attention.answering.batches import ItemT, ResultT

EncodedT = TypeVar("EncodedT")


class Usable(NamedTuple, Generic[EncodedT]):
    """What of a batch can be used."""

    encoded: EncodedT | None
    """All that can, together; None: nothing."""
    kept: list[int]
    """Their indices in the batch."""
    refused: dict[int, Skipped]
    """Why each of the others cannot, by its index in the batch."""

    def in_order(self, results: Sequence[ResultT]) -> list[ResultT | Skipped]:
        """One entry for each item of the batch: the results of those that were kept, and why the others cannot be used."""
        left = iter(results)
        return [self.refused.get(index) or next(left) for index in range(len(self.kept) + len(self.refused))]


def encode_usable(
    items: Sequence[ItemT], ids: Sequence[str], encode: Callable[[Sequence[ItemT]], EncodedT]
) -> Usable[EncodedT]:
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
            return Usable(None, [], {0: Skipped(id=ids[0], reason=reason)})
        together = error
    refused: dict[int, Skipped] = {}
    for index, item in enumerate(items):
        alone = encode_usable([item], [ids[index]], encode)
        if alone.refused:
            refused[index] = alone.refused[0]
    if not refused:
        raise ModelError(f"the model's processor takes these {len(items)} prompts only one by one: {reason}") from together
    kept = [index for index in range(len(items)) if index not in refused]
    return Usable(encode([items[index] for index in kept]) if kept else None, kept, refused)
