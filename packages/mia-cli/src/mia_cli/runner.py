"""Runs the stages of a run directory: each once, again only when what goes into it changed, and always saying which and why.

What every finished stage was made from stands in `stages.json`. A stage whose entry agrees with what it would be made from
now, and whose folder is complete, is skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_augment import DataError
from mia_augment.storage import (
    MANIFEST,
    Progress,
    content_hash,
    only_writer,
    read_manifest,
    read_record,
    what_is_missing,
    write_json,
)
from pydantic import BaseModel, ConfigDict, RootModel

from mia_cli.terminal.display import Display, counts_line, duration

STATE = "stages.json"
SHOWN_CHANGES = 3

Key = dict[str, Any]
"""What a stage is made from: settings and content hashes. Equal keys give equal files."""


class StageState(BaseModel):
    """A finished stage."""

    model_config = ConfigDict(extra="forbid")

    key: Key
    seconds: float
    """Time that making it took."""
    counts: dict[str, int] = {}


class _States(RootModel[dict[str, StageState]]):
    """What `stages.json` holds, by the stage's name."""


@dataclass(frozen=True)
class Stage:
    name: str
    output: Path
    """File that a finished stage has: its manifest or its result."""
    key: Callable[[], Key]
    """Asked when the stages before it are done."""
    make: Callable[[Progress], dict[str, int]]
    """Makes the files, resuming where it was stopped; returns the counts to show."""
    watches_its_inputs: bool = False
    """It looks at its inputs itself (many files); it is always called and returns at once when they are unchanged."""


class Runner:
    """Runs stages in order within one run directory."""

    def __init__(self, run_dir: Path, display: Display) -> None:
        self.run_dir = run_dir
        self.display = display
        self.states = read_states(run_dir)
        self.made: list[str] = []
        """Names of the stages that did work."""

    def run(self, stage: Stage) -> None:
        """Run a stage, or skip it.

        Raises:
            MiaError: from the stage; then it counts as unfinished and everything after it keeps its old state.
        """
        key = _plain(stage.key())
        state = self.states.get(stage.name)
        lost = _lost(stage.output)
        same = state is not None and state.key == key and lost is None
        if state is not None and same and not stage.watches_its_inputs:
            self.display.say(stage.name, f"unchanged, skipped ({counts_line(state.counts)})", "dim")
            return
        before = _stamp(stage.output)
        if not same:
            self.display.say(stage.name, _why(state, key, stage.output, lost))
            self._forget(stage.name)
        started = time.monotonic()
        with self.display.progress(stage.name) as progress:
            counts = stage.make(progress)
        seconds = max(time.monotonic() - started, _told_seconds(stage.output))
        if same and before == _stamp(stage.output):
            self.display.say(stage.name, f"unchanged, skipped ({counts_line(counts)})", "dim")
            return
        if same:
            self.display.say(stage.name, "its input files changed, made anew")
        self.made.append(stage.name)
        self.states[stage.name] = StageState(key=key, seconds=round(seconds, 3), counts=counts)
        self._write()
        self.display.say(stage.name, f"done in {duration(seconds)}: {counts_line(counts)} -> {_short(stage.output)}", "green")

    def _forget(self, name: str) -> None:
        if self.states.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        write_json(self.run_dir / STATE, {name: state.model_dump() for name, state in self.states.items()})


def read_states(run_dir: Path) -> dict[str, StageState]:
    """The finished stages of a run directory, in the order they were made."""
    path = run_dir / STATE
    if not path.is_file():
        return {}
    return read_record(path, _States, "delete it to redo all stages").root


@contextlib.contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """Hold a run directory for this process alone.

    Raises:
        ConfigError: another process holds it.
    """
    with only_writer(run_dir):
        yield


def made_from(folder: Path, *names: str) -> Key:
    """Hashes of an earlier stage's files, and of what it was itself made from (which covers its pictures)."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError(f"{folder}: no {MANIFEST} there; expected the folder of a finished stage")
    origin = manifest.model_dump(include={"inputs", "image_folders"})
    return {**{name: content_hash(folder / name) for name in names}, "pictures": digest(origin)}


def digest(value: Any) -> str:
    """Short hash of a JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def changes(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two keys, one line each, deepest names: ``settings.beta: 0.1 -> 0.2``."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [line for n in names for line in changes(old.get(n), new.get(n), f"{name}.{n}" if name else str(n))]
    if old == new:
        return []
    hashes = isinstance(old, str) and isinstance(new, str) and len(old) == len(new) and len(old) >= 16
    return [f"{name} changed" if hashes else f"{name}: {old} -> {new}"]


def _told_seconds(output: Path) -> float:
    """What the stage itself says it took: more than was just measured, if the last call was killed after its end."""
    manifest = read_manifest(output.parent) if output.name == MANIFEST else None
    return (manifest.seconds or 0.0) if manifest else 0.0


def _lost(output: Path) -> str | None:
    """What a finished stage should have left and is not there, in words."""
    if not output.is_file():
        return f"{output.name} is gone"
    return what_is_missing(output.parent) if output.name == MANIFEST else None


def _why(state: StageState | None, key: Key, output: Path, lost: str | None) -> str:
    if state is None:
        begun = output.name == MANIFEST and output.parent.is_dir() and any(output.parent.iterdir())
        return "continued" if begun else "started"
    if state.key == key:
        return f"redone: {lost}"
    differences = changes(state.key, key)
    more = f" and {len(differences) - SHOWN_CHANGES} more" if len(differences) > SHOWN_CHANGES else ""
    return f"redone: {'; '.join(differences[:SHOWN_CHANGES])}{more}"


def _plain(key: Key) -> Key:
    """As it reads back from JSON."""
    plain: Key = json.loads(json.dumps(key, default=str))
    return plain


def _stamp(path: Path) -> tuple[int, int] | None:
    return (path.stat().st_mtime_ns, path.stat().st_ino) if path.is_file() else None


def _short(path: Path) -> str:
    folder = path.parent if path.name == MANIFEST else path
    with contextlib.suppress(ValueError):
        return str(folder.relative_to(Path.cwd()))
    return str(folder)
