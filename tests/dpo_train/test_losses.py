"""Losses against values worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from mia_dpo_train import losses
from mia_dpo_train.losses import (
    anchor_loss,
    apo_zero_loss,
    bco_pair_loss,
    dpo_loss,
    hinge_loss,
    image_loss,
    ipo_loss,
    log_ratio_difference,
    nll,
    reward,
    robust_loss,
    training_loss,
)
from mia_dpo_train.settings import TrainSettings
from mia_dpo_train.training.metrics import Sums, means, pass_sums
from mia_dpo_train.training.training_run import RewardMean

LENGTHS = torch.tensor([[3, 2], [4, 1]])
ZERO = torch.zeros(2)


def of_difference(*h):
    """The four log-probs of pairs with these h: chosen 4 nats below and rejected 4 nats above the reference, but for h."""
    wanted = torch.tensor(h)
    return wanted - 14.0, torch.full_like(wanted, -6.0), torch.full_like(wanted, -10.0), torch.full_like(wanted, -2.0)


def measured(policy, reference, settings, **step):
    found = training_loss(policy, reference, LENGTHS, settings=settings, **step)
    return found, pass_sums(found, policy, reference, LENGTHS, settings, tokens=40)


def test_difference_of_log_ratios():
    # chosen rose by 2 nats over the reference, rejected fell by 1: h = 2 - (-1) = 3
    h = log_ratio_difference(torch.tensor([-8.0]), torch.tensor([-6.0]), torch.tensor([-10.0]), torch.tensor([-5.0]))
    assert h.tolist() == [3.0]


def test_sigmoid_loss():
    # -log sigmoid(0.1 * 20) = log(1 + e^-2); at h = 0 it is log 2
    found = dpo_loss(*of_difference(20.0, 0.0), beta=0.1)
    assert found.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(2)], abs=1e-7)


def test_label_smoothing_mixes_both_directions():
    # 0.8 * log(1 + e^-2) + 0.2 * log(1 + e^2)
    expected = 0.8 * math.log(1 + math.exp(-2)) + 0.2 * math.log(1 + math.exp(2))
    assert dpo_loss(*of_difference(20.0), 0.1, label_smoothing=0.2).item() == pytest.approx(expected, abs=1e-6)


def test_ipo_loss_is_zero_at_its_target():
    # target 1 / (2 * 0.1) = 5; at h = 2 the loss is 3^2
    one = torch.ones(2)
    assert ipo_loss(*of_difference(5.0, 2.0), 0.1, one, one).tolist() == pytest.approx([0.0, 9.0])


def test_hinge_loss_is_flat_beyond_its_margin():
    # 1 - 0.1 * 4 = 0.6; beyond h = 10 nothing is left
    assert hinge_loss(*of_difference(4.0, 12.0), 0.1).tolist() == pytest.approx([0.6, 0.0])


def test_nll_per_token_and_summed():
    logps, lengths = torch.tensor([-6.0, -1.0]), torch.tensor([3, 2])
    assert nll(logps, lengths, per_token=True).tolist() == [2.0, 0.5]
    assert nll(logps, lengths, per_token=False).tolist() == [6.0, 1.0]


def test_rewards_carry_no_gradient():
    policy = torch.tensor([-3.0], requires_grad=True)
    found = reward(policy, torch.tensor([-5.0]), beta=0.1)
    assert found.item() == pytest.approx(0.2)
    assert not found.requires_grad


@pytest.mark.parametrize(("kind", "expected_nll"), [("pair_mean", (2.0 + 0.5) / 4), ("token_mean", 7.0 / 10)])
def test_a_pass_adds_its_share_of_the_step(kind, expected_nll):
    # Two of the step's four pairs, 5 of its 10 chosen tokens; policy = reference, so that every DPO loss is log 2.
    policy = torch.tensor([[-6.0, -1.0], [-4.0, -4.0]])
    settings = TrainSettings(nll=kind, gamma=0.3, dpo_alpha=2.0)
    found, sums = measured(policy, policy.clone(), settings, pairs=4, chosen_tokens=10)
    assert found.loss.item() == pytest.approx(2.0 * 2 * math.log(2) / 4 + 0.3 * expected_nll, abs=1e-6)
    named = sums.numbers()
    assert (named["pairs"], named["chosen_tokens"], named["not_finite"], named["tokens"]) == (2, 5, 0, 40)


def test_every_sum_is_of_its_own_name():
    # Rewards with beta 0.1: chosen 0.1 * (3, -1), rejected 0.1 * (-2, 1); log-probs -7 and -8; NLL per token 2 and 0.5.
    policy, reference = torch.tensor([[-6.0, -1.0], [-5.0, -3.0]]), torch.tensor([[-9.0, 0.0], [-3.0, -4.0]])
    found, sums = measured(policy, reference, TrainSettings(), pairs=2, chosen_tokens=5)
    assert sums.numbers() == pytest.approx({
        "pairs": 2, "not_finite": 0, "loss": found.loss.item(), "nll": 2.5, "chosen_reward": 0.2, "rejected_reward": -0.1,
        "dpo": math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(0.2)), "accuracy": 1, "chosen_logp": -7,
        "rejected_logp": -8, "chosen_tokens": 5, "tokens": 40,
    })  # fmt: skip
    twice = (sums + sums).numbers()
    assert twice == pytest.approx({name: 2 * value for name, value in sums.numbers().items()})
    shown = means(twice, TrainSettings(gamma=0.3), loss_is_weighted=False)
    assert (shown["accuracy"], shown["nll"], shown["chosen_logp"]) == (0.5, 1.25, -3.5)
    assert shown["margin"] == pytest.approx((0.2 + 0.1) / 2)
    assert shown["loss"] == pytest.approx(shown["dpo"] + 0.3 * 1.25)


def test_sums_of_processes_are_reduced_at_once():
    class Three:
        """As if all of three processes had the same."""

        calls = 0

        def reduce(self, tensor, how):
            self.calls += 1
            return tensor * 3

    policy, three = torch.tensor([[-6.0, -1.0], [-4.0, -4.0]]), Three()
    _, sums = measured(policy, policy - 1.0, TrainSettings(), pairs=2, chosen_tokens=5)
    everywhere = (Sums.zero(policy.device) + sums).over_processes(three)
    assert everywhere.numbers() == pytest.approx({name: 3 * value for name, value in sums.numbers().items()})
    assert three.calls == 1


def test_pairs_without_finite_log_probs_are_counted():
    policy = torch.tensor([[float("nan"), -1.0], [-4.0, -4.0]])
    _, sums = measured(policy, torch.zeros(2, 2), TrainSettings(), pairs=2, chosen_tokens=5)
    assert sums.not_finite == 1


def test_ipo_compares_means_over_tokens():
    # h = (-6 + 9) / 3 - (-4 - 0) / 4 = 2; target 1 / (2 * 0.5) = 1
    policy, reference = torch.tensor([[-6.0], [-4.0]]), torch.tensor([[-9.0], [0.0]])
    settings = TrainSettings(loss="ipo", beta=0.5, gamma=0.0)
    found = training_loss(policy, reference, torch.tensor([[3], [4]]), settings=settings, pairs=1, chosen_tokens=3)
    assert found.loss.item() == pytest.approx((2 - 1) ** 2)


def test_a_loss_is_a_row_of_the_table(monkeypatch):
    """A function and its name: the settings know it, the sum gives it what it asks for by name."""

    def squared(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta, chosen_lengths
    ):
        return beta * (policy_chosen_logps - reference_rejected_logps) ** 2 / chosen_lengths

    with pytest.raises(ValueError, match=r"expected one of sigmoid, ipo, hinge, .*, sft, got 'squared'"):
        TrainSettings(loss="squared")
    monkeypatch.setitem(losses.PREFERENCE_LOSSES, "squared", squared)
    settings = TrainSettings(loss="squared", beta=0.5, gamma=0.0)
    policy = torch.tensor([[-6.0, -2.0], [-4.0, -4.0]])
    found = training_loss(policy, torch.zeros(2, 2), LENGTHS, settings=settings, pairs=2, chosen_tokens=5)
    assert found.preference.tolist() == [0.5 * 36 / 3, 0.5 * 4 / 2]
    with pytest.raises(ValueError, match="label_smoothing is defined for loss sigmoid, robust only, got loss squared"):
        TrainSettings(loss="squared", label_smoothing=0.1)


def log_sigmoid(value):
    return -math.log(1 + math.exp(-value))


def test_robust_loss_takes_the_swapped_share_out():
    # beta h = 2, s = 0.2: (-0.8 log sigmoid(2) + 0.2 log sigmoid(-2)) / 0.6
    expected = (-0.8 * log_sigmoid(2) + 0.2 * log_sigmoid(-2)) / 0.6
    assert robust_loss(*of_difference(20.0), 0.1, label_smoothing=0.2).item() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(robust_loss(*of_difference(20.0, -3.0), 0.1), dpo_loss(*of_difference(20.0, -3.0), 0.1))


def test_bco_judges_each_answer_by_the_shift():
    # Rewards: chosen 0.1 * (h - 4), rejected 0.1 * -4; h = 20: 1.6 and -0.4; shifted by 0.5: 1.1 and -0.9
    plain, shifted = (bco_pair_loss(*of_difference(20.0), 0.1, **shift).item() for shift in ({}, {"reward_shift": 0.5}))
    assert plain == pytest.approx(-log_sigmoid(1.6) - log_sigmoid(0.4), abs=1e-6)
    assert shifted == pytest.approx(-log_sigmoid(1.1) - log_sigmoid(0.9), abs=1e-6)


def test_apo_zero_raises_the_chosen_and_lowers_the_rejected():
    # Rewards 1.6 and -0.4
    expected = 1 - 1 / (1 + math.exp(-1.6)) + 1 / (1 + math.exp(0.4))
    assert apo_zero_loss(*of_difference(20.0), 0.1).item() == pytest.approx(expected, abs=1e-6)


def test_image_loss_contrasts_pictures_and_the_anchor_holds_the_chosen_reward():
    # Chosen rose by 16 nats, under the other pictures it fell by 4: h = 20; reward of the chosen one 1.6
    chosen, other, reference, reference_other = of_difference(20.0)
    assert image_loss(chosen, other, reference, reference_other, 0.1).item() == pytest.approx(-log_sigmoid(2.0), abs=1e-6)
    assert anchor_loss(chosen, reference, 0.1).item() == pytest.approx(-log_sigmoid(1.6), abs=1e-6)


def listed(**weights):
    return [{"name": name, "weight": weight} for name, weight in weights.items()]


def test_losses_are_added_by_weight():
    policy, reference = torch.tensor([[-6.0, -2.0], [-4.0, -4.0]]), torch.tensor([[-9.0, 0.0], [-3.0, -5.0]])
    settings = TrainSettings.model_validate({"loss": listed(sigmoid=0.8, bco_pair=0.2, sft=0.5), "beta": 0.5})
    found = training_loss(policy, reference, LENGTHS, settings=settings, pairs=4, chosen_tokens=9)
    # Rewards: chosen 0.5 * (3, -2), rejected 0.5 * (-1, 1)
    sigmoid = [-log_sigmoid(2.0), -log_sigmoid(-1.5)]
    bco = [-log_sigmoid(1.5) - log_sigmoid(0.5), -log_sigmoid(-1.0) - log_sigmoid(-0.5)]
    assert found.preference.tolist() == pytest.approx([0.8 * a + 0.2 * b for a, b in zip(sigmoid, bco, strict=True)])
    assert found.loss.item() == pytest.approx((found.preference.sum().item() + 0.5 * (2.0 + 1.0)) / 4)
    shown = means({**dict.fromkeys(vars(Sums.zero(policy.device)), 1.0), "dpo": 3.0}, settings, loss_is_weighted=False)
    assert shown["loss"] == 3.0 + 0.5


def test_a_list_of_one_is_the_name():
    policy = torch.tensor([[-6.0, -2.0], [-4.0, -4.0]])
    step = {"pairs": 2, "chosen_tokens": 5}
    named = TrainSettings(loss="hinge", gamma=0.1)
    same = TrainSettings.model_validate({"loss": listed(hinge=1.0, sft=0.1)})
    one, other = (training_loss(policy, policy * 2, LENGTHS, settings=s, **step).loss for s in (named, same))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": listed(sigmoid=1.0, squared=1.0)}, "expected one of sigmoid, ipo"),
        ({"loss": [*listed(sigmoid=1.0), *listed(sigmoid=0.5)]}, "got sigmoid 2 times"),
        ({"loss": []}, "nothing would be learnt"),
        ({"loss": listed(sigmoid=0.0)}, "nothing would be learnt"),
        ({"loss": listed(sigmoid=-1.0)}, "greater than or equal to 0"),
        ({"loss": listed(sigmoid=1.0), "gamma": 0.3}, "dpo_alpha and gamma go with a single loss"),
        ({"loss": "sft"}, "prefers nothing"),
        ({"loss": listed(hinge=1.0, ipo=1.0), "label_smoothing": 0.1}, "sigmoid, robust only, got loss hinge, ipo"),
        ({"bco_shift": "running"}, "bco_shift is defined for loss bco_pair only, got loss sigmoid"),
    ],
)
def test_lists_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings.model_validate(changes)


SEVERAL = torch.tensor([[-6.0, -2.0, -1.0], [-4.0, -4.0, 0.0], [-7.0, 0.0, 0.0], [-5.0, 0.0, -3.0]])
"""Chosen, two rejected ones, and the chosen one under other pictures, of three pairs: the second has neither a second rejected
answer nor other pictures, the third has pictures alone."""
SEVERAL_LENGTHS = torch.tensor([[3, 2, 1], [4, 1, 0], [2, 0, 0], [3, 0, 1]])


def test_the_loss_of_a_pair_is_the_mean_over_its_rejected_answers():
    reference = torch.where(SEVERAL_LENGTHS > 0, -5.0, 0.0)
    settings = TrainSettings.model_validate({"loss": listed(sigmoid=1.0, image=0.5, anchor=0.25), "beta": 1.0})
    step = {"settings": settings, "pairs": 3, "chosen_tokens": 6}
    found = training_loss(SEVERAL, reference, SEVERAL_LENGTHS, other_pictures=True, **step)
    # r: chosen -1, 3, 4; rejected 1 and -2 | 1 | none; under the other pictures 0 | none | 2
    expected = [
        -(log_sigmoid(-2) + log_sigmoid(1)) / 2 - 0.5 * log_sigmoid(-1) - 0.25 * log_sigmoid(-1),
        -log_sigmoid(2) - 0.25 * log_sigmoid(3),
        -0.5 * log_sigmoid(2) - 0.25 * log_sigmoid(4),
    ]
    assert found.preference.tolist() == pytest.approx(expected, abs=1e-6)
    sums = pass_sums(found, SEVERAL, reference, SEVERAL_LENGTHS, settings, 0, other_pictures=True).numbers()
    assert sums["rejected_reward"] == pytest.approx((1 - 2) / 2 + 1 + 2)
    assert sums["rejected_logp"] == pytest.approx((-4 - 7) / 2 - 4 - 3)
    assert sums["accuracy"] == 0.5 + 1 + 1


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "hinge", "bco_pair", "apo_zero", "robust"])
def test_an_answer_that_is_not_there_has_neither_loss_nor_gradient(name):
    policy = SEVERAL[:3].clone().requires_grad_()
    settings = TrainSettings(loss=name, gamma=0.0)
    found = training_loss(policy, SEVERAL[:3] * 2, SEVERAL_LENGTHS[:3], settings=settings, pairs=3, chosen_tokens=6)
    found.loss.backward()
    assert policy.grad.isfinite().all()
    assert policy.grad[2, 1:].tolist() == [0, 0]
    assert found.preference[2] == 0
    alone = training_loss(
        SEVERAL[:2, 1:2], SEVERAL[:2, 1:2] * 2, SEVERAL_LENGTHS[:2, 1:2], settings=settings, pairs=1, chosen_tokens=2
    )
    assert found.preference[1] == alone.preference[0]


def test_the_mean_reward_is_of_all_answers_before():
    rewards = RewardMean()
    assert rewards.mean == 0
    rewards.add({"chosen_reward": 3.0, "rejected_reward": -1.0, "pairs": 2.0})
    rewards.add({"chosen_reward": 4.0, "rejected_reward": 0.0, "pairs": 1.0})
    assert rewards.mean == (3 - 1 + 4) / 6
