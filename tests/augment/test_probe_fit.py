"""The logistic probe: its optimum, scikit-learn's, and rows that it was not fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mia_augment.errors import ConfigError, DataError
from mia_augment.statistics import fit_probe, held_out_probabilities
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score


def some_states(rows: int, hidden: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(rows, hidden))
    return states, states[:, 0] + 0.7 * rng.normal(size=rows) > 0


@pytest.mark.parametrize(("rows", "hidden"), [(60, 5), (30, 200)])
def test_the_probe_is_where_its_loss_has_no_slope(rows: int, hidden: int) -> None:
    """The loss written out for all dimensions, its slope by torch's autograd; and no other optimizer finds less."""
    states, labels = some_states(rows, hidden)
    probe = fit_probe(states, labels, penalty=0.5)
    inputs = torch.tensor((states - states.mean(0)) / states.std(0))
    weights = torch.tensor(probe.weights, requires_grad=True)
    bias = torch.tensor(probe.bias, dtype=torch.float64, requires_grad=True)
    signs = torch.tensor(np.where(labels, 1.0, -1.0))
    loss = torch.nn.functional.softplus(-signs * (inputs @ weights + bias)).sum() + 0.25 * (weights**2).sum()
    slopes = torch.autograd.grad(loss, [weights, bias])
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-7
    np.testing.assert_allclose(probe(states), torch.sigmoid(inputs @ weights + bias).detach().numpy(), atol=1e-12)


def test_a_probe_worked_by_hand() -> None:
    """States -1 and 1 with labels no and yes: no bias, and w with 2 / (1 + exp(w)) = penalty w; w = 1: penalty 2 / (1 + e)."""
    probe = fit_probe([[-1.0], [1.0]], [False, True], penalty=2 / (1 + np.e))
    assert probe.bias == pytest.approx(0, abs=1e-9)
    assert probe.weights == pytest.approx([1.0])
    assert probe([[1.0]])[0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_held_out_rows_are_judged_by_probes_without_them() -> None:
    noise = np.random.default_rng(1).normal(size=(40, 300))
    labels = [index % 2 == 0 for index in range(40)]
    assert ((fit_probe(noise, labels)(noise) > 0.5) == labels).all()  # more dimensions than rows: all can be learnt by heart
    assert 0.2 < ((held_out_probabilities(noise, labels) > 0.5) == labels).mean() < 0.8
    states, real = some_states(200, 5)
    assert ((held_out_probabilities(states, real) > 0.5) == real).mean() > 0.7
    np.testing.assert_array_equal(held_out_probabilities(states, real), held_out_probabilities(states, real))


def test_what_cannot_be_probed() -> None:
    with pytest.raises(DataError, match="both kinds"):
        fit_probe([[1.0], [2.0]], [True, True])
    with pytest.raises(DataError, match="finite"):
        fit_probe([[1.0], [float("nan")]], [True, False])
    with pytest.raises(DataError, match="one row for each of 3 labels"):
        fit_probe([[1.0], [2.0]], [True, False, True])
    with pytest.raises(DataError, match="at least two rows of each kind, got 1"):
        held_out_probabilities([[1.0], [2.0], [3.0]], [True, False, False])
    with pytest.raises(ConfigError, match="penalty"):
        fit_probe([[1.0], [2.0]], [True, False], penalty=0)


@pytest.mark.parametrize(("rows", "hidden", "penalty"), [(60, 4, 1.0), (40, 100, 10.0), (50, 3, 0.01)])
def test_the_fit_is_scikit_learns(rows: int, hidden: int, penalty: float) -> None:
    states, labels = some_states(rows, hidden)
    states = (states - states.mean(0)) / states.std(0)
    found = fit_probe(states, labels, penalty=penalty)
    peer = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(states, labels)
    assert found.weights == pytest.approx(peer.coef_[0], abs=1e-4)
    assert found.bias == pytest.approx(peer.intercept_[0], abs=1e-4)
    assert found(states) == pytest.approx(peer.predict_proba(states)[:, 1], abs=1e-4)


def test_states_that_tell_nothing_tell_nothing() -> None:
    rng = np.random.default_rng(3)
    told = []
    for _ in range(20):
        labels = rng.random(100) < 0.5
        told.append(roc_auc_score(labels, held_out_probabilities(rng.normal(size=(100, 200)), labels.tolist(), folds=2)))
    assert np.mean(told) == pytest.approx(0.5, abs=0.05)  # fitted and told on the same rows it would be 1
