"""How fast a stage is, what it takes and what it last measured: the parts of a live line, of a log line and of `mia status`."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

RATE_WINDOW = 30.0
"""Seconds over which the rate is measured: the first batch of a model says little about the others."""
FOLLOWED = ("loss", "accuracy", "memory_mb")
"""Numbers of `metrics.jsonl` that a person follows; trackers have them as `train/loss` and `train/accuracy`."""
_END = 8192
"""Bytes at the end of a log that hold its last line."""


class Position(BaseModel):
    """How far a stage is."""

    stage: str
    done: int = 0
    total: int | None = None
    rate: float | None = None
    """In a second; None: not known yet."""
    memory: float | None = None
    """Bytes."""
    numbers: dict[str, float] = {}
    """The last ones measured, by the names of `metrics.jsonl`."""

    @property
    def left(self) -> float | None:
        """Seconds; None: not known."""
        return (self.total - self.done) / self.rate if self.total is not None and self.rate else None


class Pace:
    """The rate of the last half minute."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def add(self, done: int, now: float | None = None) -> None:
        """Note that so much is done; `now` in seconds."""
        now = time.monotonic() if now is None else now
        self._points.append((now, done))
        while len(self._points) > 2 and now - self._points[0][0] > RATE_WINDOW:
            self._points.popleft()

    @property
    def rate(self) -> float | None:
        """In a second; None until two moments are known."""
        (first, was), (last, done) = (self._points[0], self._points[-1]) if self._points else ((0.0, 0), (0.0, 0))
        return (done - was) / (last - first) if last > first and done > was else None


def latest_numbers(log: Path) -> dict[str, float]:
    """Those that a person follows of the last line of a `metrics.jsonl`; none while there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _END))
            lines = file.read().splitlines()
        values = json.loads(lines[-1])
    except (OSError, ValueError, IndexError):  # not there, not whole: the next look will tell
        return {}
    numbers = values if isinstance(values, Mapping) else {}
    return {name: float(numbers[name]) for name in FOLLOWED if isinstance(numbers.get(name), int | float)}


def memory_used() -> float | None:
    """Bytes: what the GPU holds for this process if it uses one, else what the process holds; None: not known here."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.memory_reserved())
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    import resource

    return float(pages * resource.getpagesize())


def numbers_text(numbers: Mapping[str, float]) -> str:
    """``loss 0.651, accuracy of pairs 88 %``."""
    told = [f"loss {numbers['loss']:.3f}"] if "loss" in numbers else []
    return ", ".join(told + ([f"accuracy of pairs {numbers['accuracy']:.0%}"] if "accuracy" in numbers else []))


def memory_text(memory: float | None) -> str:
    """``1.2 GB``; nothing where it is not known."""
    return "" if memory is None else f"{memory / 1e9:.1f} GB"
