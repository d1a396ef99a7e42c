"""Preference losses as pure functions of the log-probs of answers (nats; sums over tokens, but means for IPO).

With h = (log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected)), the paper's loss is
dpo_alpha * -log sigmoid(beta * h) + gamma * NLL(chosen) (arXiv 2410.17637, section 3.3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mia_dpo_train.settings import LossKind


def log_ratio_difference(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, reference_chosen_logps: Tensor, reference_rejected_logps: Tensor
) -> Tensor:
    """h, per pair: (pairs,)."""
    return (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)


def preference_losses(h: Tensor, beta: float, kind: LossKind = "sigmoid", label_smoothing: float = 0.0) -> Tensor:
    """Loss of every pair: (pairs,), from h: (pairs,).

    - sigmoid: -(1 - s) log sigmoid(beta h) - s log sigmoid(-beta h), with s = label_smoothing (arXiv 2305.18290, eq. 7).
    - ipo: (h - 1 / (2 beta))^2 (arXiv 2310.12036, eq. 17); here h is of means over tokens, as its authors ran it.
    - hinge: max(0, 1 - beta h) (arXiv 2305.10425).
    """
    if kind == "ipo":
        return (h - 1 / (2 * beta)) ** 2
    if kind == "hinge":
        return torch.relu(1 - beta * h)
    return -(1 - label_smoothing) * F.logsigmoid(beta * h) - label_smoothing * F.logsigmoid(-beta * h)


def negative_log_likelihoods(chosen_logps: Tensor, chosen_lengths: Tensor, *, per_token: bool) -> Tensor:
    """What a pair adds to the NLL: its mean over tokens (per_token), or the sum over its tokens. (pairs,)"""
    return -chosen_logps / chosen_lengths if per_token else -chosen_logps


def rewards(policy_logps: Tensor, reference_logps: Tensor, beta: float) -> Tensor:
    """Implicit reward beta * (log pi - log ref) of an answer; no gradient. (pairs,)"""
    return beta * (policy_logps - reference_logps).detach()
