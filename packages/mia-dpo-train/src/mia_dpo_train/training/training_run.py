"""What one training run consists of, as its parts (steps, evaluation, checkpoints) need it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from mia_dpo_train.data.encode import PairBatch
from mia_dpo_train.data.pair_set import PairSet
from mia_dpo_train.logps.reference import ReferenceSource
from mia_dpo_train.losses import TrainingLoss, training_loss
from mia_dpo_train.models.trainable import Trained, text_hash
from mia_dpo_train.settings import TrainSettings
from mia_dpo_train.training.metrics_log import MetricsLog
from mia_dpo_train.training.step_plan import steps_per_epoch

_NO_INFLUENCE = {
    *("checkpoint_every", "keep_checkpoints", "workers", "image_cache_mb", "trackers", "max_length", "too_long"),
    "offload_activations",
}
"""Settings that change no weight: a run may be continued with others."""


@dataclass
class RewardMean:
    """The running mean of the rewards of all answers, chosen and rejected, in the steps before: delta of `bco_pair`.

    Its parts are the sums over processes that every step makes of its pairs anyway: neither passes nor processes change it.
    """

    total: float = 0.0
    """Sum over pairs of the chosen reward and the mean rejected one."""
    count: float = 0.0

    def add(self, sums: Mapping[str, float]) -> None:
        """Take in the sums of a step, over all processes (`Sums.numbers`)."""
        self.total += sums["chosen_reward"] + sums["rejected_reward"]
        self.count += 2 * sums["pairs"]

    @property
    def mean(self) -> float:
        """0 before the first step, where policy and reference are one."""
        return self.total / self.count if self.count else 0.0


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
    rewards: RewardMean = field(default_factory=RewardMean)

    def loss(self, batch: PairBatch, policy: Tensor, reference: Tensor, *, pairs: int, chosen_tokens: int) -> TrainingLoss:
        """The loss of a batch, in a step of so many pairs and chosen tokens."""
        return training_loss(
            policy,
            reference,
            batch.lengths,
            settings=self.settings,
            pairs=pairs,
            chosen_tokens=chosen_tokens,
            other_pictures=batch.others is not None,
            reward_shift=self.rewards.mean if self.settings.bco_shift == "running" else 0.0,
        )

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
