"""What is measured of an optimizer step: sums over its pairs, added over passes, reduced over processes, then means."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from mia_dpo_train.losses import TrainingLoss, mean_where, reward
from mia_dpo_train.settings import TrainSettings

MEANS = ("dpo", "nll", "chosen_reward", "rejected_reward", "accuracy", "chosen_logp", "rejected_logp")
"""Sums that are shown as means over pairs."""


@dataclass(frozen=True)
class Sums:
    """Sums over pairs; each a double, ()."""

    pairs: Tensor
    not_finite: Tensor
    """Pairs whose log-probs or preference loss are NaN or inf."""
    loss: Tensor
    """Already weighted for its step."""
    dpo: Tensor
    """The preference loss, whichever of the table it is; of several their weighted sum."""
    nll: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor
    accuracy: Tensor
    """Pairs whose chosen answer has the higher reward; of several rejected answers the share that it beats."""
    chosen_logp: Tensor
    rejected_logp: Tensor
    chosen_tokens: Tensor
    tokens: Tensor
    """Without padding."""

    @classmethod
    def zero(cls, device: torch.device) -> Sums:
        """Of no pair."""
        return cls(**{field.name: torch.zeros((), dtype=_widest(device), device=device) for field in fields(cls)})

    def __add__(self, other: Sums) -> Sums:
        return Sums(**{name: value + vars(other)[name] for name, value in vars(self).items()})

    def over_processes(self, accelerator: Any) -> Sums:
        """The sums of all processes, by one reduction."""
        total = accelerator.reduce(torch.stack(list(vars(self).values())), "sum")
        return Sums(**dict(zip(vars(self), total.unbind(), strict=True)))

    def numbers(self) -> dict[str, float]:
        """By name, copied from the device at once."""
        return dict(zip(vars(self), torch.stack(list(vars(self).values())).tolist(), strict=True))


def pass_sums(
    found: TrainingLoss,
    policy: Tensor,
    reference: Tensor,
    lengths: Tensor,
    settings: TrainSettings,
    tokens: int,
    *,
    other_pictures: bool = False,
) -> Sums:
    """The sums of one forward pass. What is rejected is a mean over a pair's rejected answers, or where it has none, the chosen
    one under the other pictures.

    Args:
        found: its loss.
        policy, reference, lengths, other_pictures: as `training_loss` has them.
        tokens: of prompts and answers, without padding.
    """
    chosen_logps, rejected_logps = policy[0], policy[1:]
    chosen, rejected = reward(policy[0], reference[0], settings.beta), reward(policy[1:], reference[1:], settings.beta)
    there = lengths[1:] > 0
    if other_pictures:
        there[-1] &= ~there[:-1].any(0)
    finite = torch.isfinite(policy).all(0) & torch.isfinite(found.preference)
    sums = {
        "pairs": torch.tensor(policy.shape[1], device=policy.device),
        "not_finite": (~finite).sum(),
        "loss": found.loss,
        "dpo": found.preference.sum(),
        "nll": found.nll.sum(),
        "chosen_reward": chosen.sum(),
        "rejected_reward": mean_where(rejected, there).sum(),
        "accuracy": mean_where((chosen > rejected).to(chosen.dtype), there).sum(),
        "chosen_logp": chosen_logps.sum(),
        "rejected_logp": mean_where(rejected_logps, there).sum(),
        "chosen_tokens": lengths[0].sum(),
        "tokens": torch.tensor(tokens, device=policy.device),
    }
    return Sums(**{name: value.detach().to(_widest(policy.device)) for name, value in sums.items()})


def _widest(device: torch.device) -> torch.dtype:
    """Type of sums: double, which Apple's GPUs have not."""
    return torch.float32 if device.type == "mps" else torch.double


def means(sums: dict[str, float], settings: TrainSettings, *, loss_is_weighted: bool = True) -> dict[str, float]:
    """Means over pairs of `Sums.numbers`; the loss is made of them where its sum is not weighted for its step."""
    result = {name: sums[name] / sums["pairs"] for name in MEANS}
    if settings.nll == "token_mean":
        result["nll"] = sums["nll"] / sums["chosen_tokens"]
    result["margin"] = result["chosen_reward"] - result["rejected_reward"]
    parts = settings.preference_weight * result["dpo"] + settings.nll_weight * result["nll"]
    return {"loss": sums["loss"] if loss_is_weighted else parts, **result}


def memory_mb(device: torch.device) -> float:
    """Peak memory of this process so far: allocated on the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
