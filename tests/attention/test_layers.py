"""Choosing the layer whose ratio predicts wrong answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mia_attention import ScoreSettings, choose_layer, layer_profile, score, score_samples
from mia_augment.errors import DataError
from mia_augment.storage.files import write_jsonl


def test_the_layer_that_separates_is_chosen_and_missing_ratios_are_left_out() -> None:
    wrong = [True, True, True, False, False, False]
    ratios: dict[int, list[float | None]] = {
        0: [0.5, 0.4, 0.6, 0.5, 0.4, 0.6],
        1: [0.1, 0.2, None, 0.7, 0.8, 0.9],
        2: [0.9, 0.8, 0.7, 0.1, 0.2, 0.3],
    }
    choice = choose_layer(ratios, wrong, ["sequence/2"] * 6)
    assert choice.layer == 1
    assert [(score.layer, score.auroc, score.samples) for score in choice.scores] == [(0, 0.5, 6), (1, 1.0, 5), (2, 0.0, 6)]
    assert all(score.low <= score.auroc <= score.high for score in choice.scores)
    assert choose_layer(ratios, wrong, ["sequence/2"] * 6) == choice


def test_only_right_answers_leave_nothing_to_choose_by() -> None:
    with pytest.raises(DataError, match="no layer can be chosen: of 2 answers 0 are wrong"):
        choose_layer({0: [0.1, 0.2]}, [False, False], ["sequence/2"] * 2)


def labelled(tiny: SimpleNamespace, build: Any) -> list[Any]:
    """Sequences of which every other one's ground truth is the model's own answer."""
    names = ["a.png", "b.png", "c.png"]
    samples = [tiny.sequence(f"s{i}", [names[i % 3], names[(i + 1) % 3]], i % 2) for i in range(8)]
    own = score(samples, build.model, build.processor, ScoreSettings(max_new_tokens=4), open_image=tiny.open_image)
    return [
        s.model_copy(update={"answer": got.response if i % 4 < 2 else "no"})
        for i, (s, got) in enumerate(zip(samples, own, strict=True))
    ]


def test_profile_of_each_layer_equals_scoring_with_that_layer(tiny: SimpleNamespace) -> None:
    build = tiny.build("internvl")
    samples = labelled(tiny, build)
    settings = ScoreSettings(max_new_tokens=4, batch_size=3)
    profile = layer_profile(samples, build.model, build.processor, settings, open_image=tiny.open_image)
    for layer in range(4):
        one = score(
            samples, build.model, build.processor, settings.model_copy(update={"layer": layer}), open_image=tiny.open_image
        )
        for (_, response, attentions), expected in zip(profile, one, strict=True):
            assert response == expected.response
            assert attentions[layer] == expected.attention


def test_layer_auto_scores_with_the_chosen_layer_and_keeps_the_table(tmp_path: Path, tiny: SimpleNamespace) -> None:
    build = tiny.build("internvl")
    write_jsonl(tmp_path / "samples.jsonl", labelled(tiny, build))
    for name in ("a.png", "b.png", "c.png"):
        tiny.open_image(name).save(tmp_path / name)
    out = tmp_path / "out"
    settings = ScoreSettings(max_new_tokens=4, batch_size=3, layer="auto")
    score_samples(tmp_path, build.model, build.processor, out, settings, model_id="tiny")
    chosen = json.loads((out / "layer.json").read_text())
    assert len(chosen["scores"]) == 4
    best = max(chosen["scores"], key=lambda score: score["auroc"])
    assert best["layer"] == chosen["layer"]
    layers = {json.loads(line)["attention"]["layer"] for line in (out / "scored.jsonl").read_text().splitlines()}
    assert layers == {chosen["layer"]}
