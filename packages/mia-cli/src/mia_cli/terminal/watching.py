"""`mia status --watch`: a run as it goes on, in a terminal or as lines of a log."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from mia_augment.storage import is_held
from rich.console import Console
from rich.live import Live

from mia_cli.inspection.status import StageStatus, read_status
from mia_cli.terminal.display import duration
from mia_cli.terminal.result_tables import result_of, status_table

EVERY = 1.0
"""Seconds between two looks."""
LINES_EVERY = 10.0
"""Seconds between two lines about one stage where there is no terminal."""


def watch_run(run_dir: Path, console: Console) -> None:
    """Show a run's stages until nobody is working on it, or the user has seen enough (Ctrl-C)."""
    with contextlib.suppress(KeyboardInterrupt):
        if console.is_terminal:
            _live(run_dir, console)
        else:
            _lines(run_dir, console)
    if not is_held(run_dir):
        console.print("nobody is working on this run" if any(s.state != "done" for s in read_status(run_dir)) else "all done")


def _live(run_dir: Path, console: Console) -> None:
    with Live(status_table(read_status(run_dir)), console=console, auto_refresh=False) as live:
        while is_held(run_dir):
            live.update(status_table(read_status(run_dir)), refresh=True)
            time.sleep(EVERY)
        live.update(status_table(read_status(run_dir)), refresh=True)


def _lines(run_dir: Path, console: Console) -> None:
    told: dict[str, tuple[str, float]] = {}
    while True:
        for stage in read_status(run_dir):
            state, at = told.get(stage.name, ("not started", 0.0))
            again = stage.position is not None and time.monotonic() - at >= LINES_EVERY
            if stage.state != state or again:
                told[stage.name] = (stage.state, time.monotonic())
                console.print(_line(stage), soft_wrap=True)
        if not is_held(run_dir):
            return
        time.sleep(EVERY)


def _line(stage: StageStatus) -> str:
    more = result_of(stage)
    took = f" in {duration(stage.seconds)}" if stage.seconds is not None else ""
    return f"{stage.name}: {stage.state}{took}{f': {more}' if more else ''}"
