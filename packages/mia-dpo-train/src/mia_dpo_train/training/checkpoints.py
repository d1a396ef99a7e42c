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
from typing import TYPE_CHECKING, Any

import torch
from mia_augment import ConfigError, DataError
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mia_dpo_train.models.trainable import trainable

if TYPE_CHECKING:
    from mia_dpo_train.training.training_run import TrainingRun

logger = logging.getLogger(__name__)

PROGRESS = "state.json"
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
    reward_total: float = 0.0
    """With the next: the mean reward of these steps (`RewardMean`)."""
    reward_count: float = 0.0


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
    (folder / PROGRESS).write_text(text + "\n", encoding="utf-8")


def read_state(folder: Path) -> Progressed | None:
    """None when the checkpoint is not whole."""
    try:
        content = from_json((folder / PROGRESS).read_bytes())
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


def resume(run: TrainingRun) -> int:
    """Go on from the newest whole checkpoint; returns how many steps are done.

    Raises:
        ConfigError: another number of processes made it.
    """
    found = newest(run.checkpoints, run.key)
    if found is None:
        run.log.start(0, run.settings)
        return 0
    folder, progressed = found
    now = run.accelerator.num_processes
    if progressed.processes != now:
        raise ConfigError(
            f"{folder} was made by {progressed.processes} processes, now there are {now}: run with "
            f"{progressed.processes} to go on, or delete {run.checkpoints} to start anew"
        )
    logger.info("going on from %s", folder)
    if run.trained.sharded:
        run.accelerator.load_state(str(folder / "accelerate"))
    else:
        read_tensors(folder, trainable(run.trained.model), run.trained.optimizer.optimizer)
    run.rewards.total, run.rewards.count = progressed.reward_total, progressed.reward_count
    run.log.start(progressed.metrics_lines, run.settings)
    return progressed.steps


def save_checkpoint(run: TrainingRun, steps: int) -> None:
    """Write the checkpoint of a run after some steps, and remove those that are too many."""
    accelerator, trained = run.accelerator, run.trained
    run.log.sync()
    rewards = run.rewards
    progressed = Progressed(run.key, steps, accelerator.num_processes, run.log.lines, rewards.total, rewards.count)
    folder = run.checkpoints / checkpoint_name(steps)
    parts = run.checkpoints / f".{folder.name}.parts"
    if trained.sharded:  # all processes write into one folder, which the main one then makes the checkpoint
        accelerator.save_state(str(parts), safe_serialization=True)
        accelerator.wait_for_everyone()

    def write(temporary: Path) -> None:
        if trained.sharded:
            parts.rename(temporary / "accelerate")
        else:
            write_tensors(temporary, trainable(trained.model), trained.optimizer.optimizer)
        write_state(temporary, progressed)

    if accelerator.is_main_process:
        whole_folder(folder, write)
        prune(run.checkpoints, run.settings.keep_checkpoints)
    accelerator.wait_for_everyone()
