"""What is measured of a step, summed over passes and processes, and where it goes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from mia_augment import DataError
from mia_augment.storage import naming, read_lines
from pydantic_core import from_json
from torch import Tensor

from mia_dpo_train.losses import log_ratio_difference, negative_log_likelihoods, preference_losses, rewards
from mia_dpo_train.settings import TrainSettings

SUMS = [
    "pairs", "not_finite", "loss", "dpo", "nll", "chosen_reward", "rejected_reward", "accuracy", "chosen_logp", "rejected_logp",
    "chosen_tokens", "tokens",
]  # fmt: skip
"""Entries of a vector of sums over pairs; `loss` is already weighted for its step."""


def pass_loss(
    policy: Tensor, reference: Tensor, lengths: Tensor, settings: TrainSettings, *, pairs: int, chosen_tokens: int
) -> tuple[Tensor, Tensor]:
    """What one forward pass adds to the loss of its step, and its sums (`SUMS`).

    Args:
        policy: log-probs of chosen and rejected answers, (2, pairs of this pass).
        reference: likewise, by the reference model.
        lengths: tokens of chosen and rejected answers, (2, pairs of this pass).
        pairs: pairs of the whole step, over all passes and processes.
        chosen_tokens: tokens of all chosen answers of the whole step.
    """
    scale = lengths if settings.loss == "ipo" else torch.ones_like(lengths)
    h = log_ratio_difference(*(policy / scale), *(reference / scale))
    dpo = preference_losses(h, settings.beta, settings.loss, settings.label_smoothing)
    per_token = settings.nll == "pair_mean"
    nll = negative_log_likelihoods(policy[0], lengths[0], per_token=per_token)
    loss = settings.dpo_alpha * dpo.sum() / pairs + settings.gamma * nll.sum() / (pairs if per_token else chosen_tokens)
    chosen, rejected = (rewards(policy[side], reference[side], settings.beta) for side in (0, 1))
    finite = torch.isfinite(policy).all(0) & torch.isfinite(dpo)
    count = torch.tensor(float(len(h)), device=h.device)
    parts = [
        count, (~finite).sum(), loss, dpo.sum(), nll.sum(), chosen.sum(), rejected.sum(), (chosen > rejected).sum(),
        policy[0].sum(), policy[1].sum(), lengths[0].sum(),
    ]  # fmt: skip
    return loss, torch.stack(
        [*(part.detach().double() for part in parts), torch.zeros((), device=h.device, dtype=torch.double)]
    )


def means(sums: Tensor, settings: TrainSettings, *, loss_is_weighted: bool = True) -> dict[str, float]:
    """Means over pairs of a vector of sums."""
    named = dict(zip(SUMS, sums.tolist(), strict=True))
    pairs, tokens = named["pairs"], named["chosen_tokens"]
    result = {name: named[name] / pairs for name in SUMS[3:10]}
    result["nll"] = named["nll"] / (pairs if settings.nll == "pair_mean" else tokens)
    result["margin"] = result["chosen_reward"] - result["rejected_reward"]
    parts = settings.dpo_alpha * result["dpo"] + settings.gamma * result["nll"]
    return {"loss": named["loss"] if loss_is_weighted else parts, **result}


def memory_mb(device: torch.device) -> float:
    """Peak memory of this process so far: allocated on the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


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

    def sync(self) -> None:
        """Bring all lines to the disk, as a checkpoint that counts them needs."""
        if self.accelerator.is_main_process and self.path.is_file():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def end(self) -> None:
        """Close the trackers, and not the process group with them (`end_training` would): more may be trained here."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
