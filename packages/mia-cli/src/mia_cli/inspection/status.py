"""How far a run is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mia_augment.storage import is_held
from pydantic import BaseModel

from mia_cli.layout import REPORT, Folders
from mia_cli.runner import read_states


class StageStatus(BaseModel):
    """One stage of a run."""

    name: str
    state: Literal["done", "running", "unfinished", "not started"]
    seconds: float | None = None
    """Time that making it took."""
    counts: dict[str, int] = {}
    place: str
    """Its folder or file."""


def read_status(run_dir: Path) -> list[StageStatus]:
    """All stages in order."""
    places = {**Folders(run_dir).places(), "report": run_dir / REPORT}
    states = read_states(run_dir)
    busy = is_held(run_dir)
    found = []
    for name, place in places.items():
        state = states.get(name)
        begun = place.is_file() or (place.is_dir() and any(place.iterdir()))
        if state is not None and begun:
            found.append(StageStatus(name=name, state="done", seconds=state.seconds, counts=state.counts, place=str(place)))
        else:
            running = busy and begun and not any(stage.state == "running" for stage in found)
            word = "running" if running else "unfinished" if begun else "not started"
            found.append(StageStatus(name=name, state=word, place=str(place)))
    return found
