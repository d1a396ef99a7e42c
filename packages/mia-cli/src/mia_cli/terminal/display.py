"""What a person sees while a stage works: a progress bar on a terminal, plain log lines elsewhere.

Progress and remarks go to standard error; results (tables, JSON) to standard output.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mia_augment.storage import Progress
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as ProgressBar
from rich.text import Text

from mia_cli.terminal.pace import Pace, Position, latest_numbers, memory_text, memory_used, numbers_text

NAME_WIDTH = 13
LOG_EVERY_SECONDS = 10.0
LOOK_EVERY_SECONDS = 1.0
PLAIN_WIDTH = 120


class Display:
    """Standard error as a person reads it."""

    def __init__(self, console: Console | None = None) -> None:
        follower = os.environ.get("RANK", "0") != "0"  # of several processes that a launcher started, the first one speaks
        self.console = console or Console(stderr=True, highlight=False, quiet=follower)

    def say(self, name: str, text: str, style: str = "") -> None:
        """One line: the stage's name, then what happened."""
        line = Text.assemble((f"{name:<{NAME_WIDTH - 2}} ", "bold"), (text, style))
        self.console.print(line, soft_wrap=True)

    @contextlib.contextmanager
    def progress(
        self, name: str, *, place: str = "", log: Path | None = None, tell: Callable[[Position], None] | None = None
    ) -> Iterator[Progress]:
        """Show how far a stage is, with rate, time left, memory and its last numbers, until the block ends.

        Args:
            name: of the stage.
            place: which of how many it is: ``3/8``.
            log: a `metrics.jsonl` whose last numbers are shown.
            tell: called with where the stage is, at most once a second.
        """
        if not self.console.is_terminal:
            yield _watched(name, log, tell, _log_lines(self, name))
            return
        columns = (
            TextColumn(f"{{task.description:<{NAME_WIDTH}}}", style="bold"),
            SpinnerColumn(),
            BarColumn(bar_width=None if self.console.width > 90 else 12),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with _BarWithNumbers(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(f"{name} {place}".strip(), total=None)

            def show(position: Position) -> None:
                bar.below = ", ".join(filter(None, (memory_text(position.memory), numbers_text(position.numbers))))
                bar.update(task, completed=position.done, total=position.total)

            yield _watched(name, log, tell, show)


class _BarWithNumbers(ProgressBar):
    """The bar, and below it what the stage takes and last measured, which no bar leaves room for."""

    below = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.below:
            yield Text(f"{'':{NAME_WIDTH}} {self.below}", "dim")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(rate_text(task.speed) if task.speed else "")


def rate_text(rate: float) -> str:
    """``7.1/s``, or where that is little ``40 s each``."""
    return f"{rate:.1f}/s" if rate >= 0.1 else f"{1 / rate:.0f} s each"


def _watched(
    name: str, log: Path | None, tell: Callable[[Position], None] | None, show: Callable[[Position], None]
) -> Progress:
    """Shows every position, with memory and numbers that are looked up once a second."""
    pace, position, last = Pace(), Position(stage=name), 0.0

    def report(done: int, total: int | None) -> None:
        nonlocal position, last
        pace.add(done)
        now = time.monotonic()
        looked = position.model_copy(update={"done": done, "total": total, "rate": pace.rate})
        if now - last >= LOOK_EVERY_SECONDS:
            last = now
            numbers = latest_numbers(log) if log is not None else {}
            told = numbers.pop("memory_mb", None)  # of the processes that train, which need not be this one
            memory = memory_used() if told is None else told * 2**20
            looked = looked.model_copy(update={"memory": memory, "numbers": numbers})
            if tell is not None:
                tell(looked)
        position = looked
        show(looked)

    return report


def _log_lines(display: Display, name: str) -> Callable[[Position], None]:
    last = time.monotonic()

    def show(position: Position) -> None:
        nonlocal last
        now = time.monotonic()
        if position.done and now - last >= LOG_EVERY_SECONDS:
            last = now
            display.say(name, position_text(position))

    return show


def position_text(position: Position) -> str:
    """``13 of 24, 1.3/s, 8.6 s left, 1.2 GB, loss 0.651, accuracy of pairs 88 %``."""
    told = [f"{position.done} of {position.total}" if position.total else str(position.done)]
    if position.rate:
        told.append(rate_text(position.rate))
    if position.left is not None:
        told.append(f"{duration(position.left)} left")
    return ", ".join(filter(None, [*told, memory_text(position.memory), numbers_text(position.numbers)]))


def duration(seconds: float | None) -> str:
    """For people: ``0.4 s``, ``12 s``, ``3 min 05 s``.

    >>> duration(185)
    '3 min 05 s'
    """
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def counts_line(counts: dict[str, int]) -> str:
    """The counts of a manifest without the break-downs.

    >>> counts_line({"samples": 1600, "without_ratio": 12, "grid/2": 75}), counts_line({"bytes": 1_250_000})
    ('1600 samples, 12 without ratio', '1.2 MB')
    """
    whole = ((name, count) for name, count in counts.items() if "/" not in name and count is not None)
    return ", ".join(
        f"{count / 1e6:.1f} MB" if name == "bytes" else f"{count} {name.replace('_', ' ')}" for name, count in whole
    )


def stdout() -> Console:
    """Where results go; wide enough for the tables when it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def print_json(value: Any) -> None:
    """A result for scripts."""
    import json

    import click

    click.echo(json.dumps(value, ensure_ascii=False, indent=2))
