"""The probe: against scikit-learn, and honest on states that tell nothing."""

from __future__ import annotations

import numpy as np
import pytest
from colour_samples import sample
from mia_select.diagnosis import AnsweredSample, ReadoutRatios, diagnose, with_references
from mia_select.diagnosis.probe import cross_fitted, fit_logistic
from mia_select.settings import Thresholds
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score


@pytest.mark.parametrize(("rows", "width", "l2"), [(60, 4, 1.0), (40, 100, 10.0), (50, 3, 0.01)])
def test_the_fit_is_scikit_learns(rows: int, width: int, l2: float) -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(rows, width))
    positive = states[:, 0] + rng.normal(size=rows) > 0.3
    found = fit_logistic(states, positive, l2)
    peer = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000).fit(states, positive)
    assert found.weights == pytest.approx(peer.coef_[0], abs=1e-4)
    assert found.bias == pytest.approx(peer.intercept_[0], abs=1e-4)
    assert found.probabilities(states) == pytest.approx(peer.predict_proba(states)[:, 1], abs=1e-4)


def test_each_half_is_told_by_the_other() -> None:
    rng = np.random.default_rng(1)
    states = rng.normal(size=(40, 6))
    positive = states[:, 1] > 0
    found = cross_fitted(states, positive.tolist(), 2.0)
    even = states[::2]
    mean, spread = even.mean(0), even.std(0)
    peer = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit((even - mean) / spread, positive[::2])
    assert found is not None
    assert found[1::2] == pytest.approx(peer.predict_proba((states[1::2] - mean) / spread)[:, 1], abs=1e-4)
    assert cross_fitted(states, [True] * 40) is None
    same = np.ones((40, 6))
    assert cross_fitted(same, positive.tolist()) is not None  # a state that never changes divides by nothing


def answered(count: int) -> list[AnsweredSample]:
    return [AnsweredSample(sample(number, 3), "red" if number % 4 < 2 else "blue", "red") for number in range(count)]


def test_references_stand_in_the_table_but_are_never_advised() -> None:
    asked = answered(80)
    right = np.array([entry.right for entry in asked])
    rng = np.random.default_rng(2)
    states = rng.normal(size=(80, 2, 5)).astype(np.float32)
    states[:, 1, 0] += 8 * right
    weak = ReadoutRatios("generated", 1, False, [0.5 + 0.1 * float(r) + 0.2 * float(rng.normal()) for r in right])
    sureness = [0.4 + 0.5 * float(r) for r in right]
    readouts = with_references([weak], asked, sureness, states)
    found = diagnose(asked, readouts, Thresholds(), model="m", configured=weak)
    by_name = {score.name: score for score in found.by_kind}
    assert by_name["perplexity"].auroc == 1.0
    assert by_name["probe of the state behind layer 1 (needs labels)"].auroc > 0.95
    assert "layer 1, generated rows" in by_name
    assert len(by_name) == 3  # of two probes the better one
    assert found.best is not None
    assert (found.best.layer, found.best.probe) == (1, False)
    assert "score" not in found.advice or found.advice["score"].get("layer") != "perplexity"
    layers = {(score.layer, score.probe) for score in found.readouts}
    assert layers == {(1, False), ("perplexity", False), (0, True), (1, True)}


def test_a_probe_of_states_that_tell_nothing_tells_nothing() -> None:
    rng = np.random.default_rng(3)
    told = []
    for _ in range(20):
        right = rng.random(100) < 0.5
        told.append(roc_auc_score(right, cross_fitted(rng.normal(size=(100, 200)), right.tolist()) or []))
    assert np.mean(told) == pytest.approx(0.5, abs=0.05)  # fitted and told on the same rows it would be 1
