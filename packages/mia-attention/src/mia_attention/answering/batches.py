"""Batches of like length, run one after another with the next one prepared meanwhile."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Protocol, TypeVar

import torch
from mia_augment import ModelError, is_out_of_memory

logger = logging.getLogger(__name__)

WINDOW = 64
"""Batches' worth of prompts that are sorted by length together."""


class Prompt(Protocol):
    """What can be answered; every `mia_augment.records.Sample` is one."""

    @property
    def id(self) -> str: ...
    @property
    def images(self) -> list[str]: ...
    @property
    def prompt(self) -> str: ...


ItemT = TypeVar("ItemT")
PromptT = TypeVar("PromptT", bound=Prompt)
PreparedT = TypeVar("PreparedT")
ResultT = TypeVar("ResultT")


def windows(items: Iterable[ItemT], batch_size: int) -> Iterator[list[ItemT]]:
    """Cut a stream into windows of at most `WINDOW` batches."""
    iterator = iter(items)
    while window := list(islice(iterator, WINDOW * batch_size)):
        yield window


def plan(prompts: Sequence[Prompt], batch_size: int) -> list[list[int]]:
    """Indices of each batch: prompts of like length together, longest first, so that running out of memory shows early."""

    def length(index: int) -> tuple[int, int, int]:
        prompt = prompts[index]
        return -len(prompt.images), -len(getattr(prompt, "regions", [])), -len(prompt.prompt)

    order = sorted(range(len(prompts)), key=length)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def numbered_batches(prompts: Sequence[Prompt], batch_size: int) -> list[list[int]]:
    """Batches as indices into `prompts`, window by window, numbered the same in every call and process."""
    batches, start = [], 0
    for window in windows(prompts, batch_size):
        batches.extend([[start + index for index in batch] for batch in plan(window, batch_size)])
        start += len(window)
    return batches


def run_in_order(
    items: Iterable[ItemT],
    batch_size: int,
    prepare: Callable[[Sequence[ItemT]], PreparedT],
    run: Callable[[PreparedT], list[ResultT]],
    prompt_of: Callable[[ItemT], Prompt],
) -> Iterator[ResultT]:
    """One result for each item, in their order, though they run in batches of like length.

    Args:
        prepare, run: as for `run_batches`; `run` gives one result for each item of a batch.
        prompt_of: by what an item's length is told.
    """
    for window in windows(items, batch_size):
        batches = plan([prompt_of(item) for item in window], batch_size)
        found: dict[int, ResultT] = {}
        for batch, results in zip(batches, run_batches([[window[i] for i in b] for b in batches], prepare, run), strict=True):
            found.update(zip(batch, results, strict=True))
        yield from (found[index] for index in range(len(window)))


def run_batches(
    batches: Iterable[Sequence[ItemT]],
    prepare: Callable[[Sequence[ItemT]], PreparedT],
    run: Callable[[PreparedT], list[ResultT]],
) -> Iterator[list[ResultT]]:
    """Results of each batch in order; a thread prepares the next batch while one runs.

    A batch that does not fit into memory is halved until it does.

    Raises:
        ModelError: a single prompt does not fit into memory.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        iterator = iter(batches)
        current = next(iterator, None)
        future = pool.submit(prepare, current) if current is not None else None
        while current is not None and future is not None:
            ready = [future]  # handed over: what a batch holds of the device's memory is free when its halves are tried
            wait(ready)
            upcoming = next(iterator, None)
            future = pool.submit(prepare, upcoming) if upcoming is not None else None
            yield _run_or_halve(current, ready, prepare, run)
            current = upcoming


def _run_or_halve(
    items: Sequence[ItemT],
    ready: list[Future[PreparedT]],
    prepare: Callable[[Sequence[ItemT]], PreparedT],
    run: Callable[[PreparedT], list[ResultT]],
) -> list[ResultT]:
    """Results of a batch; `ready` holds it prepared, or is empty.

    Preparing moves it to the device, so memory may run out there as well.
    """
    try:
        return run(ready.pop().result() if ready else prepare(items))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if len(items) == 1:
            raise ModelError(
                f"out of memory on a single prompt: {error}; use a smaller model, picture or max_new_tokens; "
                "see docs/errors.md#out-of-memory"
            ) from error
    gc.collect()  # what failed may be held by cycles, and with it what it had on the device
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(items) // 2
    logger.warning("out of memory with a batch of %d; going on with %d and %d", len(items), half, len(items) - half)
    return [result for part in (items[:half], items[half:]) for result in _run_or_halve(part, [], prepare, run)]
