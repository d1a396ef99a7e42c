"""What a person sees while a stage works: a progress bar on a terminal, plain log lines elsewhere.

Progress and remarks go to standard error; results (tables, JSON) to standard output.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

from mia_augment.storage import Progress
from rich.console import Console
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

NAME_WIDTH = 12
LOG_EVERY_SECONDS = 10.0
PLAIN_WIDTH = 120


class Display:
    """Standard error as a person reads it."""

    def __init__(self, console: Console | None = None) -> None:
        follower = os.environ.get("RANK", "0") != "0"  # of several processes that a launcher started, the first one speaks
        self.console = console or Console(stderr=True, highlight=False, quiet=follower)

    def say(self, name: str, text: str, style: str = "") -> None:
        """One line: the stage's name, then what happened."""
        line = Text.assemble((f"{name:<{NAME_WIDTH - 1}} ", "bold"), (text, style))
        self.console.print(line, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, name: str) -> Iterator[Progress]:
        """Show how far a stage is, with rate and time left, until the block ends."""
        if not self.console.is_terminal:
            yield _log_lines(self, name)
            return
        columns = (
            TextColumn(f"{{task.description:<{NAME_WIDTH}}}", style="bold"),
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with ProgressBar(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def _log_lines(display: Display, name: str) -> Progress:
    started = last = time.monotonic()

    def report(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if not done or now - last < LOG_EVERY_SECONDS:
            return
        last = now
        rate = done / (now - started)
        left = f", {duration((total - done) / rate)} left" if total and rate else ""
        display.say(name, f"{done}{f' of {total}' if total else ''}, {rate:.1f}/s{left}")

    return report


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
