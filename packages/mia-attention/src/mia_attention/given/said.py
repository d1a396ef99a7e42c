"""What somebody else's model said to a prompt. Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mia_attention.answering.batches import Prompt


@dataclass(frozen=True)
class Said:
    """An answer from elsewhere.

    Attributes:
        text: the answer, without blanks around it.
        ids: the emitted token ids, the end-of-sequence token included, where they are known.
        ended: False where nothing is to be put behind it: it was cut off, or its ids are whole as they are.
        logps: log-prob of each emitted token in nats, where they are known; the end-of-sequence token's may be missing.
    """

    text: str
    ids: tuple[int, ...] | None = None
    ended: bool = True
    logps: tuple[float, ...] | None = None


class GivenAnswers(Protocol):
    """Knows the answers to prompts."""

    reach: int
    """How many prompts it wants to know of before they are due."""
    asks: bool
    """Whether it can be asked any prompt, not only the samples'."""

    def ahead(self, prompts: Sequence[Prompt]) -> None:
        """These prompts will be asked about soon."""
        ...

    def said(self, prompt: Prompt) -> Said:
        """The answer to a prompt.

        Raises:
            DataError: there is none, and why.
        """
        ...
