"""The loss, from log-probs of answers (nats, sums over an answer's tokens) to the number that is differentiated.

With r(y) = log pi(y) - log ref(y), and h = r(chosen) - r(rejected):

| name | loss of a pair | source |
|---|---|---|
| `sigmoid` | -log sigmoid(beta h) | DPO, arXiv 2305.18290, eq. 7 |
| `robust` | (-(1 - s) log sigmoid(beta h) + s log sigmoid(-beta h)) / (1 - 2 s), s = label_smoothing | rDPO, arXiv 2403.00409 |
| `ipo` | (h - 1 / (2 beta))^2, with h of means over tokens | arXiv 2310.12036, eq. 17 |
| `hinge` | max(0, 1 - beta h) | SLiC, arXiv 2305.10425 |
| `bco_pair` | -log sigmoid(beta r(chosen) - delta) - log sigmoid(delta - beta r(rejected)) | BCO, arXiv 2404.04656 |
| `apo_zero` | 1 - sigmoid(beta r(chosen)) + sigmoid(beta r(rejected)) | APO, arXiv 2408.06266, eq. 7 |
| `image` | -log sigmoid(beta (r(chosen) - r(chosen, other pictures))) | mDPO's conditional preference, arXiv 2406.11839 |
| `anchor` | -log sigmoid(beta r(chosen)) | mDPO's anchored preference with delta = 0, arXiv 2406.11839 |
| `sft` | -log pi(chosen): mean over tokens | the method's NLL, arXiv 2410.17637, section 3.3 |

A step's loss is the weighted sum of their means over its pairs; of several rejected answers to a prompt, a pair's loss is the
mean over them. A pair without what a loss contrasts (no rejected answer, no other pictures) adds 0 to it. Tensors of chosen
answers are (pairs,), of rejected ones (answers, pairs). Importing this needs no torch, so that settings can be checked against
the table before a model loads.
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


def robust_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Robust DPO (rDPO, arXiv 2403.00409): unbiased where a share s = label_smoothing of the pairs is swapped.

    (-(1 - s) log sigmoid(beta h) + s log sigmoid(-beta h)) / (1 - 2 s).
    """
    from torch.nn.functional import logsigmoid

    h = log_ratio_difference(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
    mixed = -(1 - label_smoothing) * logsigmoid(beta * h) + label_smoothing * logsigmoid(-beta * h)
    return mixed / (1 - 2 * label_smoothing)


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


def bco_pair_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
    reward_shift: float = 0.0,
) -> Tensor:
    """BCO on pairs (arXiv 2404.04656): each answer by itself is told from the mean reward delta, `reward_shift`.

    -log sigmoid(beta r(chosen) - delta) - log sigmoid(-(beta r(rejected) - delta)).
    """
    from torch.nn.functional import logsigmoid

    chosen = beta * (policy_chosen_logps - reference_chosen_logps) - reward_shift
    rejected = beta * (policy_rejected_logps - reference_rejected_logps) - reward_shift
    return -logsigmoid(chosen) - logsigmoid(-rejected)


def apo_zero_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
) -> Tensor:
    """APO-zero (arXiv 2408.06266, eq. 7): 1 - sigmoid(beta r(chosen)) + sigmoid(beta r(rejected))."""
    chosen = (beta * (policy_chosen_logps - reference_chosen_logps)).sigmoid()
    return 1 - chosen + (beta * (policy_rejected_logps - reference_rejected_logps)).sigmoid()


def image_loss(
    policy_chosen_logps: Tensor,
    policy_other_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_other_logps: Tensor,
    beta: float,
) -> Tensor:
    """mDPO's conditional preference (arXiv 2406.11839): DPO between two sets of pictures instead of two answers.

    `policy_other_logps`, `reference_other_logps`: of the chosen answer under the other pictures.
    """
    return dpo_loss(policy_chosen_logps, policy_other_logps, reference_chosen_logps, reference_other_logps, beta)


def anchor_loss(policy_chosen_logps: Tensor, reference_chosen_logps: Tensor, beta: float) -> Tensor:
    """mDPO's anchor (arXiv 2406.11839) at 0: -log sigmoid(beta r(chosen)); the chosen reward shall not fall."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (policy_chosen_logps - reference_chosen_logps))


def nll(policy_chosen_logps: Tensor, chosen_lengths: Tensor, *, per_token: bool = True) -> Tensor:
    """Negative log-likelihood of every chosen answer: the mean over its tokens (per_token), or the sum."""
    return -policy_chosen_logps / chosen_lengths if per_token else -policy_chosen_logps


NLL = "sft"
"""The loss that is a likelihood and no preference."""

PREFERENCE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "sigmoid": dpo_loss, "ipo": ipo_loss, "hinge": hinge_loss, "bco_pair": bco_pair_loss, "robust": robust_loss,
    "apo_zero": apo_zero_loss, "image": image_loss, "anchor": anchor_loss, NLL: nll,
}  # fmt: skip
"""Name in the settings -> loss of every pair. A function is given what it names among its parameters, of: `policy_` and
`reference_` before `chosen_logps`, `rejected_logps` and `other_logps`; `beta`, `label_smoothing`, `reward_shift`,
`chosen_lengths`, `rejected_lengths`."""


def log_ratio_difference(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, reference_chosen_logps: Tensor, reference_rejected_logps: Tensor
) -> Tensor:
    """h of every pair."""
    return (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)


def reward(policy_logps: Tensor, reference_logps: Tensor, beta: float) -> Tensor:
    """Implicit reward beta * (log pi - log ref) of every answer; no gradient."""
    return beta * (policy_logps - reference_logps).detach()


class TrainingLoss(NamedTuple):
    """The loss of the pairs of one forward pass, and of what it is made."""

    loss: Tensor
    """What the pass adds to the loss of its step: ()."""
    preference: Tensor
    """Per pair; of several preference losses their weighted sum."""
    nll: Tensor
    """Per pair: mean over its tokens with nll pair_mean, sum with token_mean."""


def training_loss(
    policy: Tensor,
    reference: Tensor,
    lengths: Tensor,
    *,
    settings: TrainSettings,
    pairs: int,
    chosen_tokens: int,
    other_pictures: bool = False,
    reward_shift: float = 0.0,
) -> TrainingLoss:
    """The method's sum: weights * (mean preference losses) + weight * (mean NLL), over all pairs of an optimizer step.

    Args:
        policy: log-probs, (answers, pairs): of the chosen answers, of the rejected ones, and with `other_pictures` in the last
            row of the chosen ones under the other pictures.
        reference: likewise, by the reference model.
        lengths: tokens of these answers; 0: the pair has none there.
        pairs: pairs of the whole step, over all passes and processes.
        chosen_tokens: tokens of all chosen answers of the whole step.
        reward_shift: delta of `bco_pair`.
    """
    answers = slice(1, -1) if other_pictures else slice(1, None)
    offered: dict[str, Any] = {"beta": settings.beta, "label_smoothing": settings.label_smoothing, "reward_shift": reward_shift}
    offered |= {"chosen_lengths": lengths[0], "rejected_lengths": lengths[answers].clamp(min=1)}
    for model, logps in (("policy", policy), ("reference", reference)):
        offered |= {f"{model}_chosen_logps": logps[0], f"{model}_rejected_logps": logps[answers]}
        offered |= {f"{model}_other_logps": logps[-1:]} if other_pictures else {}
    there = {"policy_rejected_logps": lengths[answers] > 0, "policy_other_logps": lengths[-1:] > 0}
    preference = policy.new_zeros(policy.shape[1])
    for name, weight in settings.preference_terms.items():
        function = PREFERENCE_LOSSES[name]
        needed = [parameter for parameter in inspect.signature(function).parameters if parameter in offered]
        if takes(function, "policy_other_logps") and not other_pictures:
            continue
        losses = function(**{parameter: offered[parameter] for parameter in needed})
        contrast = next((there[parameter] for parameter in needed if parameter in there), None)
        preference = preference + weight * (losses if contrast is None else mean_where(losses, contrast))
    per_token = settings.nll == "pair_mean"
    likelihood = nll(policy[0], lengths[0], per_token=per_token)
    loss = settings.preference_weight * preference.sum() / pairs
    loss = loss + settings.nll_weight * likelihood.sum() / (pairs if per_token else chosen_tokens)
    return TrainingLoss(loss, preference, likelihood)


def mean_where(values: Tensor, there: Tensor) -> Tensor:
    """Mean of each column over its rows that are there, both (rows, pairs); 0 where none is."""
    return values.where(there, values.new_zeros(())).sum(0) / there.sum(0).clamp(min=1)


def takes(function: Callable[..., Tensor], name: str) -> bool:
    """Whether a function has a parameter of this name."""
    return name in inspect.signature(function).parameters
