"""Which pairs meet in which step: a pure function of seed, epoch and lengths, so that a run can be continued anywhere."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Batch = tuple[int, ...]
"""Indices of the pairs in one forward pass of one process; may be empty at the end of an epoch."""

_BATCHES_PER_POOL = 16


@dataclass(frozen=True)
class OptimizerStep:
    """One optimizer step."""

    number: int
    """From 0, over all epochs."""
    epoch: int
    passes: tuple[tuple[Batch, ...], ...]
    """[pass][process]; in a short last step of an epoch, passes and processes may have no pairs."""

    @property
    def pairs(self) -> list[int]:
        return [index for batches in self.passes for batch in batches for index in batch]


def micro_batches(lengths: Sequence[int], size: int, *, seed: int, epoch: int, group: bool) -> list[Batch]:
    """All pairs of an epoch in batches of `size`, in random order; `group` puts pairs of similar length together."""
    generator = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    generator.shuffle(order)
    if group:
        pool = size * _BATCHES_PER_POOL
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        order = [index for members in pools for index in sorted(members, key=lambda i: (-lengths[i], i))]
    batches = [tuple(order[start : start + size]) for start in range(0, len(order), size)]
    full, rest = [batch for batch in batches if len(batch) == size], [batch for batch in batches if len(batch) < size]
    if group:
        generator.shuffle(full)
    return full + rest


def steps_per_epoch(pairs: int, size: int, accumulation: int, world: int) -> int:
    return math.ceil(pairs / (size * accumulation * world))


def epoch_steps(
    lengths: Sequence[int], *, size: int, accumulation: int, world: int, seed: int, epoch: int, group: bool
) -> Iterator[OptimizerStep]:
    """The optimizer steps of one epoch. The pairs of a step do not depend on how they are spread over passes and processes."""
    batches = micro_batches(lengths, size, seed=seed, epoch=epoch, group=group)
    first = epoch * steps_per_epoch(len(lengths), size, accumulation, world)
    window = accumulation * world
    for number, start in enumerate(range(0, len(batches), window)):
        members: list[Batch] = batches[start : start + window]
        members = [()] * (window - len(members)) + members
        passes = tuple(tuple(members[k : k + world]) for k in range(0, window, world))
        yield OptimizerStep(first + number, epoch, passes)


def length_batches(lengths: Sequence[int], size: int) -> list[Batch]:
    """All pairs in batches of similar length, longest first, for a pass without training."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [tuple(order[start : start + size]) for start in range(0, len(order), size)]


def learning_rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """Share of the highest learning rate at a step (from 0): rises over the warm-up, then falls to 0 after the last step."""
    rising = round(total * warmup)
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, total - rising)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - done
