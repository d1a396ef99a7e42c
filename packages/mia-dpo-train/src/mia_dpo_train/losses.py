"""The loss, from log-probs of answers (nats, sums over an answer's tokens) to the number that is differentiated.

    h    = (log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected))
    loss = dpo_alpha * mean over pairs of -log sigmoid(beta * h)  +  gamma * NLL(chosen)      (arXiv 2410.17637, section 3.3)

`PREFERENCE_LOSSES` has what may stand in the place of the first term. All tensors are (pairs,) unless said otherwise. Importing
this needs no torch, so that settings can be checked against the table before a model loads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from mia_dpo_train.settings import TrainSettings


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """DPO (arXiv 2305.18290, eq. 7): -log sigmoid(beta h).

    With s = label_smoothing, the assumed share of swapped pairs: -(1 - s) log sigmoid(beta h) - s log sigmoid(-beta h).
    """
    from torch.nn.functional import logsigmoid

    h = log_ratio_difference(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
    return -(1 - label_smoothing) * logsigmoid(beta * h) - label_smoothing * logsigmoid(-beta * h)


def ipo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
) -> Tensor:
    """IPO (arXiv 2310.12036, eq. 17): (h - 1 / (2 beta))^2, with h of means over tokens, as its authors ran it."""
    h = log_ratio_difference(
        policy_chosen_logps / chosen_lengths,
        policy_rejected_logps / rejected_lengths,
        reference_chosen_logps / chosen_lengths,
        reference_rejected_logps / rejected_lengths,
    )
    return (h - 1 / (2 * beta)) ** 2


def hinge_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
) -> Tensor:
    """The hinge loss of SLiC (arXiv 2305.10425): max(0, 1 - beta h)."""
    h = log_ratio_difference(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
    return (1 - beta * h).relu()


PREFERENCE_LOSSES: dict[str, Callable[..., Tensor]] = {"sigmoid": dpo_loss, "ipo": ipo_loss, "hinge": hinge_loss}
"""Name in the settings -> loss of every pair, from the four log-probs and beta. Whatever else of `label_smoothing`,
`chosen_lengths` and `rejected_lengths` a function names among its parameters, it is given."""


def log_ratio_difference(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, reference_chosen_logps: Tensor, reference_rejected_logps: Tensor
) -> Tensor:
    """h of every pair."""
    return (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)


def nll(policy_chosen_logps: Tensor, chosen_lengths: Tensor, *, per_token: bool) -> Tensor:
    """Negative log-likelihood of every chosen answer: the mean over its tokens (per_token), or the sum."""
    return -policy_chosen_logps / chosen_lengths if per_token else -policy_chosen_logps


def reward(policy_logps: Tensor, reference_logps: Tensor, beta: float) -> Tensor:
    """Implicit reward beta * (log pi - log ref) of every answer; no gradient."""
    return beta * (policy_logps - reference_logps).detach()


class TrainingLoss(NamedTuple):
    """The loss of the pairs of one forward pass, and of what it is made."""

    loss: Tensor
    """What the pass adds to the loss of its step: ()."""
    preference: Tensor
    nll: Tensor
    """Per pair: mean over its tokens with nll pair_mean, sum with token_mean."""


def training_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    settings: TrainSettings,
    pairs: int,
    chosen_tokens: int,
) -> TrainingLoss:
    """The method's sum: dpo_alpha * (mean preference loss) + gamma * (mean NLL), over all pairs of an optimizer step.

    Args:
        chosen_lengths, rejected_lengths: tokens of the answers.
        pairs: pairs of the whole step, over all passes and processes.
        chosen_tokens: tokens of all chosen answers of the whole step.
    """
    logps = (policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
    function = PREFERENCE_LOSSES[settings.loss]
    offered: dict[str, Any] = {
        "label_smoothing": settings.label_smoothing,
        "chosen_lengths": chosen_lengths,
        "rejected_lengths": rejected_lengths,
    }
    preference = function(*logps, settings.beta, **{name: offered[name] for name in offered if takes(function, name)})
    per_token = settings.nll == "pair_mean"
    likelihood = nll(policy_chosen_logps, chosen_lengths, per_token=per_token)
    answers = pairs if per_token else chosen_tokens
    loss = settings.dpo_alpha * preference.sum() / pairs + settings.gamma * likelihood.sum() / answers
    return TrainingLoss(loss, preference, likelihood)


def takes(function: Callable[..., Tensor], name: str) -> bool:
    """Whether a function has a parameter of this name."""
    return name in inspect.signature(function).parameters
