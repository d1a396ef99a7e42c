"""What somebody else's model said to a prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mia_augment import DataError, Skipped

from mia_attention.answering.batches import Prompt
from mia_attention.answering.likelihood import said_ids
from mia_attention.answering.responses import Response


@dataclass(frozen=True)
class Said:
    """An answer from elsewhere.

    Attributes:
        text: the answer, without blanks around it.
        ids: the emitted token ids, the end-of-sequence token included, where they are known.
        ended: False where the answer was cut off at its longest allowed length, so that nothing ends it.
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


def emitted(prompt: Prompt, said: Said, model: Any, processor: Any) -> list[int]:
    """Token ids of an answer as a model would have emitted them.

    Raises:
        DataError: it says nothing.
    """
    if said.ids:
        return list(said.ids)
    if not said.text:
        raise DataError("nothing was said: expected an answer of at least one word")
    return said_ids(prompt, said.text, model, processor, end=said.ended)


def responses_from(given: GivenAnswers, prompts: Sequence[Prompt], model: Any, processor: Any) -> Iterator[Response | Skipped]:
    """What is said to each prompt, in order, with the log-probs that are told (NaN where none are); or why nothing is."""
    given.ahead(prompts)
    for prompt in prompts:
        try:
            said = given.said(prompt)
            ids = emitted(prompt, said, model, processor)
        except DataError as error:
            yield Skipped(id=prompt.id, reason=str(error))
            continue
        mean = sum(said.logps) / len(said.logps) if said.logps else math.nan
        yield Response(said.text, tuple(ids), mean, math.exp(-mean))
