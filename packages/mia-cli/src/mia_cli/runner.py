"""Runs the stages of a run directory: each once, again only when what goes into it changed, and always saying which and why.

Whether a stage is up to date its folder's manifest decides (`mia_augment.storage.stages`). `stages.json` keeps what the
finished stages took and made, for tables and the report.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mia_augment.storage import MANIFEST, Manifest, Progress, Stage, read_record, run_stage, standing, with_plan, write_json
from pydantic import BaseModel, ConfigDict, RootModel

from mia_cli.terminal.display import Display, counts_line, duration

STAGE_STATES = "stages.json"


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

    def __init__(self, run_dir: Path, display: Display, together: MakeTogether | None = None) -> None:
        """`together` makes the stages that several processes can share."""
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
            self.display.say(stage.name, f"unchanged, skipped ({counts_line(finished.counts)})", "dim")
            return
        if finished is None:
            lost = known is not None and not reason.startswith("redone")
            self.display.say(stage.name, f"redone: {MANIFEST} is gone" if lost else reason)
            self._forget(stage.name)
        with self.display.progress(stage.name) as progress:
            if self._together is not None and stage.together and finished is None:
                self._together(stage.name, progress)
            manifest, made = run_stage(with_plan(stage, planned), progress)
            made = made or finished is None  # or by the others
        self._keep(stage.name, manifest)
        if made:
            self.made.append(stage.name)
        told = f"done in {duration(manifest.seconds)}: {counts_line(manifest.counts)} -> {_short(_place(stage))}"
        self.display.say(stage.name, told, "green")

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


def _place(stage: Stage) -> Path:
    """What a person wants to open: the result that lies elsewhere, or the stage's folder."""
    return next((file for file in stage.results if not file.is_relative_to(stage.folder)), stage.folder)


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
