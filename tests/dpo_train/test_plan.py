from __future__ import annotations

import pytest
from mia_dpo_train.training.step_plan import epoch_steps, learning_rate_factor, length_batches, micro_batches, steps_per_epoch

LENGTHS = [10 + (7 * k) % 31 for k in range(41)]


def plan(**changes):
    return list(
        epoch_steps(LENGTHS, **{"size": 2, "accumulation": 3, "world": 1, "seed": 5, "epoch": 1, "group": True, **changes})
    )


def test_every_pair_once_an_epoch():
    steps = plan()
    assert sorted(index for step in steps for index in step.pairs) == list(range(41))
    assert len(steps) == steps_per_epoch(41, 2, 3, 1) == 7


def test_steps_are_numbered_over_epochs():
    assert [step.number for step in plan(epoch=1)] == list(range(7, 14))


def test_pairs_of_a_step_do_not_depend_on_processes():
    alone, spread = plan(accumulation=6, world=1), plan(accumulation=2, world=3)
    assert [set(step.pairs) for step in alone] == [set(step.pairs) for step in spread]


def test_a_short_last_step_ends_with_pairs_in_its_last_pass():
    """Gradients are added up in the earlier passes and only the last one steps, so it must not be empty."""
    last = plan(accumulation=4)[-1]
    assert [len(batch) for (batch,) in last.passes] == [0, 0, 0, 1]
    spread = plan(accumulation=2, world=2)[-1]
    assert [[len(batch) for batch in part] for part in spread.passes] == [[0, 0], [0, 1]]


def test_pairs_that_meet_change_from_epoch_to_epoch():
    def met(epoch):
        return {frozenset(batch) for batch in micro_batches([7] * 64, 4, seed=0, epoch=epoch, group=False)}

    assert not met(0) & met(1)  # by chance 16 * 16 / C(64, 4) = 0.0004 would


def test_order_changes_with_seed_and_epoch_only():
    assert plan() == plan()
    assert plan()[0].pairs != plan(seed=6)[0].pairs
    assert plan()[0].pairs != plan(epoch=2)[0].pairs


def test_grouping_puts_similar_lengths_together():
    def spread(group):
        batches = micro_batches(LENGTHS, 4, seed=0, epoch=0, group=group)
        return sum(max(LENGTHS[i] for i in batch) - min(LENGTHS[i] for i in batch) for batch in batches)

    assert spread(True) < spread(False) / 2


def test_length_batches_hold_all_pairs_longest_first():
    batches = length_batches([3, 9, 5], 2)
    assert batches == [(1, 2), (0,)]


def test_learning_rate_rises_and_falls():
    # 20 steps, warm-up 0.1: 2 rising steps (1/2, 1), then 18 falling ones (1, 17/18, ... 1/18)
    factors = [learning_rate_factor(step, 20, 0.1, "linear") for step in range(20)]
    assert factors[:4] == pytest.approx([0.5, 1.0, 1.0, 17 / 18])
    assert factors[-1] == pytest.approx(1 / 18)
    assert learning_rate_factor(11, 20, 0.1, "cosine") == pytest.approx(0.5)
    assert learning_rate_factor(19, 20, 0.1, "constant") == 1.0
