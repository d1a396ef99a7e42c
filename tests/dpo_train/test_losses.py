"""Losses against values worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from mia_dpo_train.losses import log_ratio_difference, negative_log_likelihoods, preference_losses, rewards
from mia_dpo_train.settings import TrainSettings
from mia_dpo_train.training.metrics_log import SUMS, pass_loss

LENGTHS = torch.tensor([[3, 2], [4, 1]])


def test_difference_of_log_ratios():
    # chosen rose by 2 nats over the reference, rejected fell by 1: h = 2 - (-1) = 3
    h = log_ratio_difference(torch.tensor([-8.0]), torch.tensor([-6.0]), torch.tensor([-10.0]), torch.tensor([-5.0]))
    assert h.tolist() == [3.0]


def test_sigmoid_loss():
    # -log sigmoid(0.1 * 20) = log(1 + e^-2); at h = 0 it is log 2
    losses = preference_losses(torch.tensor([20.0, 0.0]), beta=0.1)
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(2)], abs=1e-7)


def test_label_smoothing_mixes_both_directions():
    # 0.8 * log(1 + e^-2) + 0.2 * log(1 + e^2)
    expected = 0.8 * math.log(1 + math.exp(-2)) + 0.2 * math.log(1 + math.exp(2))
    assert preference_losses(torch.tensor([20.0]), 0.1, "sigmoid", 0.2).item() == pytest.approx(expected, abs=1e-6)


def test_ipo_loss_is_zero_at_its_target():
    # target 1 / (2 * 0.1) = 5; at h = 2 the loss is 3^2
    assert preference_losses(torch.tensor([5.0, 2.0]), 0.1, "ipo").tolist() == pytest.approx([0.0, 9.0])


def test_hinge_loss_is_flat_beyond_its_margin():
    # 1 - 0.1 * 4 = 0.6; beyond h = 10 nothing is left
    assert preference_losses(torch.tensor([4.0, 12.0]), 0.1, "hinge").tolist() == pytest.approx([0.6, 0.0])


def test_nll_per_token_and_summed():
    logps, lengths = torch.tensor([-6.0, -1.0]), torch.tensor([3, 2])
    assert negative_log_likelihoods(logps, lengths, per_token=True).tolist() == [2.0, 0.5]
    assert negative_log_likelihoods(logps, lengths, per_token=False).tolist() == [6.0, 1.0]


def test_rewards_carry_no_gradient():
    policy = torch.tensor([-3.0], requires_grad=True)
    reward = rewards(policy, torch.tensor([-5.0]), beta=0.1)
    assert reward.item() == pytest.approx(0.2)
    assert not reward.requires_grad


@pytest.mark.parametrize(("nll", "expected_nll"), [("pair_mean", (2.0 + 0.5) / 4), ("token_mean", 7.0 / 10)])
def test_a_pass_adds_its_share_of_the_step(nll, expected_nll):
    # Two of the step's four pairs, 5 of its 10 chosen tokens; policy = reference, so that every DPO loss is log 2.
    policy = torch.tensor([[-6.0, -1.0], [-4.0, -4.0]])
    settings = TrainSettings(nll=nll, gamma=0.3, dpo_alpha=2.0)
    loss, sums = pass_loss(policy, policy.clone(), LENGTHS, settings, pairs=4, chosen_tokens=10)
    assert loss.item() == pytest.approx(2.0 * 2 * math.log(2) / 4 + 0.3 * expected_nll, abs=1e-6)
    named = dict(zip(SUMS, sums.tolist(), strict=True))
    assert (named["pairs"], named["chosen_tokens"], named["not_finite"]) == (2, 5, 0)


def test_pairs_without_finite_log_probs_are_counted():
    policy = torch.tensor([[float("nan"), -1.0], [-4.0, -4.0]])
    _, sums = pass_loss(policy, torch.zeros(2, 2), LENGTHS, TrainSettings(), pairs=2, chosen_tokens=5)
    assert sums[SUMS.index("not_finite")] == 1


def test_ipo_compares_means_over_tokens():
    # h = (-6 + 9) / 3 - (-4 - 0) / 4 = 2; target 1 / (2 * 0.5) = 1
    policy, reference = torch.tensor([[-6.0], [-4.0]]), torch.tensor([[-9.0], [0.0]])
    settings = TrainSettings(loss="ipo", beta=0.5, gamma=0.0)
    loss, _ = pass_loss(policy, reference, torch.tensor([[3], [4]]), settings, pairs=1, chosen_tokens=3)
    assert loss.item() == pytest.approx((2 - 1) ** 2)
