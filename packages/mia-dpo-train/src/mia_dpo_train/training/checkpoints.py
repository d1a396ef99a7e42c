"""Checkpoints that are whole or not there, so that a killed run goes on and ends with the same bytes."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mia_augment import DataError
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

logger = logging.getLogger(__name__)

STATE = "state.json"
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True)
class Progressed:
    """How far a run has come."""

    key: str
    """Hash of all that the run depends on."""
    steps: int
    """Finished optimizer steps."""
    processes: int
    """Number of processes; a step's pairs depend on it."""
    metrics_lines: int
    """Lines of metrics.jsonl that belong to these steps."""


def whole_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder under a temporary name, sync it, and only then give it its name (replacing an older one).

    Raises:
        DataError: the disk is full; whatever stood there before still does.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        for path in temporary.rglob("*"):
            if path.is_file():
                _sync(path)
        _sync(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        _sync(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise DataError(
                f"{folder}: the disk is full; free some space and run again, the last checkpoint is kept"
            ) from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoint_folders(root: Path) -> list[Path]:
    """Checkpoints, newest first."""
    found = [path for path in root.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: path.name, reverse=True)


def checkpoint_name(steps: int) -> str:
    return f"step-{steps:08d}"


def prune(root: Path, keep: int) -> None:
    for folder in checkpoint_folders(root)[keep:]:
        shutil.rmtree(folder)


def write_state(folder: Path, progressed: Progressed) -> None:
    """Write how far the run is, and the size of every other file, by which a damaged checkpoint is told."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    text = json.dumps({"progressed": asdict(progressed), "sizes": sizes}, indent=2)
    (folder / STATE).write_text(text + "\n", encoding="utf-8")


def read_state(folder: Path) -> Progressed | None:
    """None when the checkpoint is not whole."""
    try:
        content = from_json((folder / STATE).read_bytes())
        complete = all((folder / name).stat().st_size == size for name, size in content["sizes"].items())
        return Progressed(**content["progressed"]) if complete else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def newest(root: Path, key: str) -> tuple[Path, Progressed] | None:
    """The newest whole checkpoint of the run `key`. Those of other runs are removed; damaged ones are passed over."""
    for folder in checkpoint_folders(root):
        progressed = read_state(folder)
        if progressed is None:
            logger.warning("%s is not whole; taking the one before", folder)
        elif progressed.key != key:
            logger.warning("%s belongs to a run with other settings, pairs or model; starting anew", folder)
            shutil.rmtree(folder)
        else:
            return folder, progressed
    return None


def write_tensors(folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Write trained parameters and the optimizer's state as safetensors."""
    save_file({name: parameter.detach().contiguous() for name, parameter in parameters.items()}, folder / WEIGHTS)
    state: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        for part, value in optimizer.state.get(parameter, {}).items():
            state[f"{name}/{part}"] = torch.as_tensor(value).contiguous()
    save_file(state, folder / OPTIMIZER)


def read_tensors(folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Put what `write_tensors` wrote back in place."""
    try:
        weights, state = load_file(folder / WEIGHTS), load_file(folder / OPTIMIZER)
    except SafetensorError as error:
        raise DataError(
            f"{folder}: the checkpoint is damaged ({error}); delete this folder to go on from the one before"
        ) from error
    if weights.keys() != parameters.keys():
        raise DataError(f"{folder}: its parameters are not those that are trained; delete the folder to start anew")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    restored: dict[Any, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, part = key.rsplit("/", 1)
        parameter = parameters[name]
        restored.setdefault(parameter, {})[part] = value if part == "step" else value.to(parameter.device)
    optimizer.state.update(restored)
