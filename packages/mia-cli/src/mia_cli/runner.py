"""Runs the stages of a run directory: each once, again only when what goes into it changed, and always saying which and why.

Whether a stage is up to date its folder's manifest decides (`mia_augment.storage.stages`). `stages.json` keeps what the
finished stages took and made, for tables and the report.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mia_augment.storage import (
    MANIFEST,
    Manifest,
    Progress,
    Stage,
    read_manifest,
    read_record,
    run_stage,
    standing,
    with_plan,
    write_json,
)
from pydantic import BaseModel, ConfigDict, RootModel

from mia_cli.layout import POSITION
from mia_cli.terminal.counts_text import stage_counts
from mia_cli.terminal.display import Display, duration
from mia_cli.terminal.pace import Position

STAGE_STATES = "stages.json"
METRICS = "metrics.jsonl"


MakeTogether = Callable[[str, Progress], None]
"""Makes the stage of a name with several processes, where there are several; what is not made is made here."""


class StageState(BaseModel):
    """A finished stage."""

    model_config = ConfigDict(extra="forbid")

    seconds: float
    """Time that making it took."""
    counts: dict[str, int] = {}
    key: dict[str, Any] | None = None
    """What version 0.1 noted of the stage's inputs; its manifest has them now."""


class _States(RootModel[dict[str, StageState]]):
    """What `stages.json` holds, by the stage's name."""


class Runner:
    """Runs stages in order within one run directory."""

    def __init__(
        self, run_dir: Path, display: Display, together: MakeTogether | None = None, order: Sequence[str] = ()
    ) -> None:
        """`together` makes the stages that several processes can share; `order` names all that are to be run."""
        self._order = list(order)
        self.run_dir = run_dir
        self._together = together
        self.display = display
        self.states = read_states(run_dir)
        self.made: list[str] = []
        """Names of the stages that did work."""

    def run(self, stage: Stage) -> None:
        """Run a stage, or skip it.

        Raises:
            MiaError: from the stage; then it counts as unfinished and everything after it keeps its old state.
        """
        planned, finished, reason = standing(stage)
        known = self.states.get(stage.name)
        if finished is not None and not any(folder.exists() for folder in stage.scratch):
            self._keep(stage.name, finished)
            self.display.say(stage.name, f"unchanged, skipped ({stage_counts(stage.name, finished.counts)})", "dim")
            return
        if finished is None:
            lost = known is not None and not reason.startswith("redone")
            self.display.say(stage.name, f"redone: {MANIFEST} is gone" if lost else reason + replacing(stage))
            self._forget(stage.name)
        with self._watched(stage) as progress:
            if self._together is not None and stage.together and finished is None:
                self._together(stage.name, progress)
            manifest, made = run_stage(with_plan(stage, planned), progress)
            made = made or finished is None  # or by the others
        self._keep(stage.name, manifest)
        if made:
            self.made.append(stage.name)
        told = f"done in {duration(manifest.seconds)}: {stage_counts(stage.name, manifest.counts)} -> {_short(_place(stage))}"
        self.display.say(stage.name, told, "green")

    @contextlib.contextmanager
    def _watched(self, stage: Stage) -> Iterator[Progress]:
        """Show how far a stage is, and write it down for `mia status`."""
        place = f"{self._order.index(stage.name) + 1}/{len(self._order)}" if stage.name in self._order else ""
        file = self.run_dir / POSITION

        def tell(position: Position) -> None:
            write_json(file, position.model_dump(mode="json"))

        try:
            with self.display.progress(stage.name, place=place, log=stage.folder / METRICS, tell=tell) as progress:
                yield progress
        finally:
            file.unlink(missing_ok=True)

    def _keep(self, name: str, manifest: Manifest) -> None:
        state = StageState(seconds=manifest.seconds or 0.0, counts=manifest.counts)
        if self.states.get(name) != state:
            self.states[name] = state
            self._write()

    def _forget(self, name: str) -> None:
        if self.states.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        states = {name: state.model_dump(exclude_none=True) for name, state in self.states.items()}
        write_json(self.run_dir / STAGE_STATES, states)


def read_states(run_dir: Path) -> dict[str, StageState]:
    """The finished stages of a run directory, in the order they were made."""
    path = run_dir / STAGE_STATES
    if not path.is_file():
        return {}
    return read_record(path, _States, "delete it to redo all stages").root


def depending_on(stage: Stage, **inputs: str) -> Stage:
    """The stage with more inputs in its manifest: it is made anew when one of them changes."""

    def plan() -> Manifest:
        planned = stage.plan()
        return planned.model_copy(update={"inputs": {**planned.inputs, **inputs}})

    return replace(stage, plan=plan)


def replacing(stage: Stage) -> str:
    """Which results will be written over, as the end of a sentence; "" where there are none, or they are made each time."""
    found = read_manifest(stage.folder)
    if found is None or stage.always or not (told := stage_counts(stage.name, found.counts)):
        return ""
    return f"; replaces what is there ({told})"


def _place(stage: Stage) -> Path:
    """What a person wants to open: the result that lies elsewhere, or the stage's folder."""
    return next((file for file in stage.results if not file.is_relative_to(stage.folder)), stage.folder)


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
