from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from mia_augment.statistics import (
    ScoredGroup,
    auroc,
    auroc_interval,
    best_cut,
    grouped_auroc,
    grouped_auroc_interval,
    mcnemar_exact,
    paired_difference,
    wilson,
)
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29.
    for successes, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_knows_nothing_without_samples_and_refuses_nonsense() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(7, 7)[1] == 1.0
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)


def test_paired_difference_counts_changes() -> None:
    before = [True] * 50 + [False] * 50
    after = [True] * 45 + [False] * 5 + [True] * 15 + [False] * 35
    difference = paired_difference(before, after)
    assert (difference.n, difference.better, difference.worse) == (100, 15, 5)
    assert difference.mean == pytest.approx(0.10)
    # Two-sided binomial p of 5 in 20, summed by hand: 2 * 21700 / 2**20.
    assert difference.mcnemar_p == pytest.approx(2 * 21700 / 2**20)


def test_bootstrap_interval_is_the_normal_one_for_many_samples() -> None:
    rng = np.random.default_rng(5)
    before, after = rng.random(4000) < 0.5, rng.random(4000) < 0.55
    change = after.astype(float) - before.astype(float)
    half = 1.96 * change.std() / math.sqrt(len(change))
    difference = paired_difference(before.tolist(), after.tolist())
    assert difference.mean == pytest.approx(change.mean())
    assert (difference.low, difference.high) == pytest.approx((change.mean() - half, change.mean() + half), abs=0.002)


def test_paired_difference_repeats_for_a_seed() -> None:
    before, after = [True, False, True, False] * 10, [True, True, False, True] * 10
    assert paired_difference(before, after, seed=3) == paired_difference(before, after, seed=3)


def test_paired_difference_needs_the_same_samples() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_difference([True, False], [True])
    with pytest.raises(ValueError, match="got none"):
        paired_difference([], [])


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (3, 3), (0, 6), (12, 4)])
def test_mcnemar_sums_the_binomial_tail(better: int, worse: int) -> None:
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(min(better, worse) + 1)) / 2**n
    assert mcnemar_exact(better, worse) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_survives_many_changes() -> None:
    assert 0 < mcnemar_exact(5200, 4800) < 1e-4


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    scores, labels = [0.1, 0.4, 0.35, 0.8, 0.4], [False, False, True, True, True]
    positive = [s for s, y in zip(scores, labels, strict=True) if y]
    negative = [s for s, y in zip(scores, labels, strict=True) if not y]
    expected = sum((p > n) + 0.5 * (p == n) for p, n in product(positive, negative)) / 6
    assert auroc(scores, labels) == pytest.approx(expected)
    interval = auroc_interval(scores, labels)
    assert interval is not None
    assert interval.value == pytest.approx(expected)


def test_auroc_abstains_without_both_classes() -> None:
    assert auroc([0.1, 0.2], [True, True]) is None
    assert auroc_interval([0.1, 0.2], [False, False]) is None
    assert best_cut([0.1, 0.2], [False, False]) is None


def test_auroc_refuses_nan() -> None:
    with pytest.raises(ValueError, match="NaN at position 1"):
        auroc([0.1, float("nan")], [True, False])


def test_auroc_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    truth = 0.76025  # Phi(1 / sqrt(2)) for normals one standard deviation apart
    labels = np.arange(120) < 40
    inside = 0
    for _ in range(400):
        interval = auroc_interval(rng.normal(size=120) + labels, labels)
        assert interval is not None
        inside += interval.low <= truth <= interval.high
    assert 0.92 <= inside / 400 <= 0.98


def test_auroc_interval_has_width_even_when_separation_is_perfect() -> None:
    interval = auroc_interval([1, 2, 3, 4], [False, False, True, True])
    assert interval is not None
    assert interval.value == 1.0
    assert interval.high == 1.0
    assert interval.low == pytest.approx(0.158, abs=1e-3)  # sqrt(0.025)
    single = auroc_interval([1, 2, 3], [False, True, False])
    assert single is not None
    assert single.value == 0.5
    assert single.high - single.low > 0.3


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_after_perfect_separation_of_many_the_interval_is_narrow(value: float) -> None:
    labels = np.arange(120) < 50
    interval = auroc_interval(np.where(labels, value, 0.5), labels)
    assert interval is not None
    bounds = (interval.low, interval.value, interval.high)
    assert sorted(abs(bound - value) for bound in bounds) == pytest.approx([0.0, 0.0, 1 - 0.92888], abs=1e-5)  # 0.025^(1 / 50)


def test_the_interval_after_perfect_separation_hardly_ever_misses_the_truth() -> None:
    rng, labels, truth = np.random.default_rng(1), np.arange(40) < 20, 0.9830  # Phi(3 / sqrt(2)), to four digits
    found = [auroc_interval(rng.normal(size=40) + 3 * labels, labels) for _ in range(400)]
    perfect = [interval for interval in found if interval is not None and interval.value == 1.0]
    assert len(perfect) > 20
    assert all(interval.low <= truth for interval in perfect)


def test_best_cut_is_the_midpoint_where_youden_is_largest() -> None:
    scores = [0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9]
    wrong = [True, True, True, True, False, False, False, False]
    # Below 0.35: 3 of 4 wrong, no right (J 0.75); below 0.65: 4 of 4 and 1 of 4 (J 0.75). The lower of equals.
    assert best_cut(scores, wrong) == pytest.approx(0.35)
    assert best_cut([0.5, 0.5], [True, False]) is None


def lower(ratios: NDArray[np.float64], wrong: NDArray[np.bool_]) -> ScoredGroup:
    """A group in which a low ratio means a wrong answer."""
    return -ratios, wrong


def test_auroc_by_hand_with_a_tie() -> None:
    # wrong 0.2 and 0.5, right 0.4 and 0.5: pairs won 1, 1, 0, 1/2
    part = (np.array([0.2, 0.4, 0.5, 0.5]), np.array([True, False, True, False]))
    assert grouped_auroc([lower(*part)]) == pytest.approx(2.5 / 4)


def test_auroc_of_one_group_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    ratios, wrong = rng.random(50).round(1), rng.random(50) > 0.6
    assert grouped_auroc([lower(ratios, wrong)]) == pytest.approx(roc_auc_score(wrong, -ratios))


def test_pairs_are_only_made_within_a_group() -> None:
    # across groups low ratio means wrong; within each group it means right
    first = (np.array([0.1, 0.2]), np.array([False, True]))
    second = (np.array([0.8, 0.9]), np.array([False, True]))
    assert grouped_auroc([lower(*first), lower(*second)]) == 0.0
    assert grouped_auroc([lower(np.array([0.1]), np.array([True])), lower(np.array([0.9]), np.array([False]))]) is None


def test_a_grouped_interval_holds_the_value_and_repeats_for_a_seed() -> None:
    rng = np.random.default_rng(0)
    groups = [(rng.normal(size=60), rng.random(60) < 0.5) for _ in range(2)]
    found = grouped_auroc_interval(groups, seed=1)
    assert found is not None
    assert found == grouped_auroc_interval(groups, seed=1)
    assert found != grouped_auroc_interval(groups, seed=2)
    delong = [auroc_interval(*group) for group in groups]
    widths = [each.high - each.low for each in delong if each]
    assert found.low < found.value == grouped_auroc(groups) < found.high
    # Two groups of equal size have the mean of two areas, whose interval is narrower by the square root of two.
    assert found.high - found.low == pytest.approx(np.mean(widths) / np.sqrt(2), rel=0.15)
    assert grouped_auroc_interval([(np.array([0.1]), np.array([True]))]) is None
