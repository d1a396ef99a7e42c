"""How far a run is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mia_augment.storage import is_held
from pydantic import BaseModel

from mia_cli.layout import POSITION, REPORT, Folders
from mia_cli.runner import read_states
from mia_cli.terminal.pace import Position


class StageStatus(BaseModel):
    """One stage of a run."""

    name: str
    state: Literal["done", "running", "unfinished", "not started"]
    seconds: float | None = None
    """Time that making it took."""
    counts: dict[str, int] = {}
    place: str
    """Its folder or file."""
    position: Position | None = None
    """How far it is, where it is running and has told."""


def read_status(run_dir: Path) -> list[StageStatus]:
    """All stages in order."""
    places = {**Folders(run_dir).places(), "report": run_dir / REPORT}
    states = read_states(run_dir)
    busy = is_held(run_dir)
    position = _position(run_dir) if busy else None
    found: list[StageStatus] = []
    for name, place in places.items():
        state = states.get(name)
        begun = place.is_file() or (place.is_dir() and any(place.iterdir()))
        if state is not None and begun:
            found.append(StageStatus(name=name, state="done", seconds=state.seconds, counts=state.counts, place=str(place)))
        else:
            named = position is not None and position.stage == name
            running = named or (busy and begun and position is None and not any(s.state == "running" for s in found))
            word = "running" if running else "unfinished" if begun else "not started"
            told = position if running and position is not None and position.stage == name else None
            found.append(StageStatus(name=name, state=word, place=str(place), position=told))
    return found


def _position(run_dir: Path) -> Position | None:
    try:
        return Position.model_validate_json((run_dir / POSITION).read_bytes())
    except (OSError, ValueError):  # none, or just being replaced
        return None
