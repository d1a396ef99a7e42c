"""Prompts that are sent to a server before their batch is due, so that it never waits for us."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from mia_attention.answering.batches import ItemT
from mia_attention.given.said import GivenAnswers


def asked_ahead(groups: Iterable[Sequence[ItemT]], given: GivenAnswers | None) -> Iterator[Sequence[ItemT]]:
    """The groups in their order, each after `given.reach` further prompts have been sent."""
    waiting: deque[Sequence[ItemT]] = deque()
    count = 0
    for group in groups:
        if given is not None:
            given.ahead(group)  # type: ignore[arg-type]  # groups of prompts
        waiting.append(group)
        count += len(group)
        while count - len(waiting[0]) >= (given.reach if given else 0):
            count -= len(waiting[0])
            yield waiting.popleft()
            if not waiting:
                break
    yield from waiting
