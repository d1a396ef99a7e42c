"""Probes and perplexity beside the readouts: in the table, never advised."""

from __future__ import annotations

import numpy as np
from colour_samples import sample
from mia_select.diagnosis import AnsweredSample, ReadoutRatios, diagnose, with_references
from mia_select.settings import Thresholds


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
