"""Where the metrics go: `metrics.jsonl` and the trackers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mia_augment import DataError
from mia_augment.storage import naming, read_lines
from pydantic_core import from_json

from mia_dpo_train.settings import TrainSettings


class MetricsLog:
    """`metrics.jsonl`, one object a line, and the trackers."""

    def __init__(self, path: Path, accelerator: Any) -> None:
        self.path, self.accelerator = path, accelerator
        self.lines = 0

    def start(self, keep: int, settings: TrainSettings) -> None:
        """Keep the first lines, which belong to the checkpoint that training goes on from."""
        self.lines = keep
        if not self.accelerator.is_main_process:
            return
        lines = self.path.read_bytes().splitlines(keepends=True)[:keep] if keep and self.path.is_file() else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path):
            self.path.write_bytes(b"".join(lines))
        if self.accelerator.log_with:
            flat = {name: value for name, value in settings.model_dump().items() if isinstance(value, str | int | float)}
            here = {"wandb": {"dir": str(self.path.parent)}}  # tensorboard's folder is the accelerator's
            self.accelerator.init_trackers("mia", config=flat, init_kwargs=here)

    def add(self, step: int, values: dict[str, float | int | None], part: str = "train") -> None:
        """One line: step, part (`train` or `held_out`) and values."""
        self.lines += 1
        if not self.accelerator.is_main_process:
            return
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "part": part, **values}) + "\n")
        if self.accelerator.log_with:
            numbers = {f"{part}/{name}": value for name, value in values.items() if isinstance(value, int | float)}
            self.accelerator.log(numbers, step=step)

    def read(self) -> list[dict[str, Any]]:
        try:
            return [from_json(line) for _, line in read_lines(self.path)] if self.path.is_file() else []
        except ValueError as error:
            raise DataError(f"{self.path}: not valid JSON lines: {error}; delete the folder to train again") from error

    def last(self, part: str) -> dict[str, float] | None:
        """The newest metrics of a part, without counts; None: there are none."""
        found = [row for row in self.read() if row["part"] == part]
        return {name: value for name, value in found[-1].items() if isinstance(value, float)} if found else None

    def sync(self) -> None:
        """Bring all lines to the disk, as a checkpoint that counts them needs."""
        if self.accelerator.is_main_process and self.path.is_file():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def end(self) -> None:
        """Close the trackers, and not the process group with them (`end_training` would): more may be trained here."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
