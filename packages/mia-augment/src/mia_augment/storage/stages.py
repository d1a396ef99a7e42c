"""A stage of a run: is its folder up to date, if not why, and making it. The only place that decides this.

A folder is up to date when its manifest tells of the work that is planned now and holds as much as it counts. Otherwise the
stage is made, by one writer. The old manifest goes before the first result is replaced, and the new one is written last. So a
folder with a manifest is whole; one without may hold what a killed call left, from which the stage goes on.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from mia_augment.errors import ConfigError
from mia_augment.storage.complete import what_is_missing
from mia_augment.storage.files import Manifest, read_manifest, write_manifest
from mia_augment.storage.lock import only_writer

SHOWN_CHANGES = 3

Progress = Callable[[int, int | None], None]
"""Called with (done, total); the total is None while it is not known."""


@dataclass(frozen=True)
class Stage:
    """A stage: its folder, its plan, and how to make it."""

    name: str
    folder: Path
    plan: Callable[[], Manifest]
    """The manifest without counts: stage, version, settings and inputs. It loads no model. It is asked when the stages before
    are done, and raises DataError where they are not."""
    make: Callable[[Manifest, Progress], Manifest]
    """Makes the results, going on where a killed call stopped, and removes the old manifest before it replaces the first of
    them. It returns the plan with its counts and notes."""
    clears: tuple[str, ...] = ()
    """Folders below its own in which a killed call may have left unfinished files."""
    results: tuple[Path, ...] = ()
    """Files that a finished stage has besides those whose records its manifest counts."""
    always: bool = False
    """Made anew each time, because it reads more than its inputs tell."""
    scratch: tuple[Path, ...] = ()
    """Folders that only an unfinished stage needs; they are removed once its manifest is written."""
    together: bool = False
    """Several processes can make it together (see `process_rank`)."""


def process_rank() -> int:
    """Number of this process among those that a launcher (`accelerate launch`, `torchrun`) started; 0 without one."""
    return int(os.environ.get("RANK", "0"))


class StageOutcome(NamedTuple):
    """Result of running a stage."""

    manifest: Manifest
    made: bool
    """False where the folder was up to date."""


class Standing(NamedTuple):
    """How a stage stands before it is run."""

    planned: Manifest
    finished: Manifest | None
    """The manifest of the folder, if it is up to date."""
    reason: str
    """Why the stage has to be made: "started", "continued", or "redone: .." with what changed; "" where it has not."""


def standing(stage: Stage) -> Standing:
    """Whether a stage's folder is up to date, and if not, why.

    Raises:
        ConfigError: the folder holds the results of another stage.
        DataError: an earlier stage is not finished, or a manifest is damaged.
    """
    planned, found = stage.plan(), read_manifest(stage.folder)
    if found is None:
        begun = stage.folder.is_dir() and any(stage.folder.iterdir())
        return Standing(planned, None, "continued" if begun else "started")
    if found.stage != planned.stage:
        raise ConfigError(
            f"{stage.folder}: expected a folder of the stage {planned.stage!r}, it holds results of {found.stage!r}; "
            "choose another folder"
        )
    if not found.same_work(planned):
        return Standing(planned, None, _redone(found, planned))
    if stage.always:
        return Standing(planned, None, "redone: made anew each time")
    missing = what_is_missing(stage.folder) or next(
        (f"{file.name} is gone" for file in stage.results if not file.is_file()), None
    )
    return Standing(planned, None, f"redone: {missing}") if missing else Standing(planned, found, "")


def run_stage(stage: Stage, progress: Progress | None = None, *, rank: int = 0) -> StageOutcome:
    """Make a stage, or leave it as it is where it is up to date.

    Args:
        stage: what to make.
        progress: told how far it is.
        rank: number of this process among those that share the stage; 0 writes the manifest.

    Raises:
        ConfigError: another process is writing into the folder, or it holds another stage.
        MiaError: from the stage; what is finished of it stays for the next call.
    """
    planned, finished, _ = standing(stage)
    if finished is not None and not any(folder.exists() for folder in stage.scratch):
        return StageOutcome(finished, made=False)
    with only_writer(stage.folder, part=rank, also=stage.clears):
        finished = standing(with_plan(stage, planned)).finished  # another process may have made it meanwhile
        made = finished is None
        if finished is None:
            started = time.monotonic()
            finished = stage.make(planned, progress or _quiet)
            finished = finished.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
            if rank == 0:
                write_manifest(stage.folder, finished)
        if rank == 0:
            for folder in stage.scratch:
                shutil.rmtree(folder, ignore_errors=True)
    return StageOutcome(finished, made)


def with_plan(stage: Stage, planned: Manifest) -> Stage:
    """The stage with a plan that is already known: planning hashes everything that goes into it."""
    return replace(stage, plan=lambda: planned)


def changes(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two JSON-like values, one line each, with the deepest names: ``settings.beta: 0.1 -> 0.2``."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [line for n in names for line in changes(old.get(n), new.get(n), f"{name}.{n}" if name else str(n))]
    if old == new:
        return []
    hashes = isinstance(old, str) and isinstance(new, str) and len(old) == len(new) >= 16
    return [f"{name} changed" if hashes else f"{name}: {old} -> {new}"]


def _redone(found: Manifest, planned: Manifest) -> str:
    work = {"version", "settings", "inputs"}
    differences = changes(found.model_dump(include=work), planned.model_dump(include=work))
    rest = f" and {len(differences) - SHOWN_CHANGES} more" if len(differences) > SHOWN_CHANGES else ""
    return f"redone: {'; '.join(differences[:SHOWN_CHANGES])}{rest}"


def _quiet(done: int, total: int | None) -> None:
    """Progress that is not shown."""
