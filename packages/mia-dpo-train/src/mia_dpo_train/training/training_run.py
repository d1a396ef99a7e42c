"""What one training run consists of, as its parts (steps, evaluation, checkpoints) need it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mia_dpo_train.data.pair_set import PairSet
from mia_dpo_train.logps.reference import ReferenceSource
from mia_dpo_train.models.trainable import Trained, text_hash
from mia_dpo_train.settings import TrainSettings
from mia_dpo_train.training.metrics_log import MetricsLog
from mia_dpo_train.training.step_plan import steps_per_epoch

_NO_INFLUENCE = {"checkpoint_every", "keep_checkpoints", "workers", "image_cache_mb", "trackers", "max_length", "too_long"}
"""Settings that change no weight: a run may be continued with others."""


@dataclass(frozen=True)
class TrainingRun:
    trained: Trained
    settings: TrainSettings
    out: Path
    pairs: PairSet
    held_out: PairSet
    reference: ReferenceSource
    pad: int
    """Token that fills shorter rows of a batch."""

    @property
    def accelerator(self) -> Any:
        return self.trained.accelerator

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    @cached_property
    def log(self) -> MetricsLog:
        return MetricsLog(self.out / "metrics.jsonl", self.accelerator)

    @cached_property
    def steps_per_epoch(self) -> int:
        settings = self.settings
        world = self.accelerator.num_processes
        return steps_per_epoch(len(self.pairs), settings.per_device_batch_size, settings.accumulation, world)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        planned = self.steps_per_epoch * self.settings.epochs
        return min(planned, self.settings.max_steps or planned)

    @cached_property
    def key(self) -> str:
        """Hash of all that the weights depend on."""
        parts = {
            "settings": self.settings.model_dump(mode="json", exclude=_NO_INFLUENCE),
            "reference": self.reference.key,
            "pairs": self.pairs.digest,
        }
        return text_hash(json.dumps(parts, sort_keys=True))
