"""`mia diagnose`: what is asked of which samples, and runs with the embedded model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import Result
from colour_samples import sample
from mia_attention import readout_of
from mia_attention.settings import ScoreSettings
from mia_augment.errors import DataError, ModelError
from mia_cli.drawn.quickstart import prepare
from mia_cli.terminal.diagnosis_tables import show_diagnosis
from mia_cli.terminal.display import Display
from mia_select.diagnosis import Diagnosis, ReadoutRatios, choose_samples, find_readout
from rich.console import Console


class _Layers(SimpleNamespace):
    """A decoder of so many layers, every sixth of which sees all of the prompt, as Gemma 3's."""

    def __init__(self, count: int) -> None:
        sizes = {index: 1024 if (index + 1) % 6 else None for index in range(count)}
        super().__init__(modules={index: SimpleNamespace(sliding_window=size) for index, size in sizes.items()})


@pytest.mark.parametrize(("layers", "middle"), [(48, 23), (62, 29), (26, 11)])
def test_the_middle_is_the_layer_that_score_reads(layers: int, middle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mia_attention.models.decoder.decoder_layers", lambda model: model.modules)
    model, settings = _Layers(layers), ScoreSettings(layer="middle")
    full = [index for index in range(layers) if (index + 1) % 6 == 0]
    assert readout_of(model, settings) == middle
    assert middle in full
    made = [ReadoutRatios("generated", index, False, [index / 100] * 80) for index in full]
    found = find_readout(made, readout_of(model, settings), "generated", False)  # type: ignore[arg-type]
    assert found is not None
    assert found.layer == middle


@pytest.mark.parametrize(
    ("score", "layer"),
    [({"layer": [1, 3]}, [1, 3]), ({"layer": "middle"}, 2), ({"layer": 3, "rows": "predicting", "value_weighted": True}, 3)],
)
def test_what_score_is_set_to_is_always_measured(
    tmp_path: Path, mia: Callable[..., Result], score: dict[str, Any], layer: Any
) -> None:
    file = prepare(tmp_path, Display(), pictures=30, test_pictures=10, per_bucket=1, seed=0, model="embedded", recipe="paper")
    settings = yaml.safe_load(file.read_text())
    settings["score"] = {**(settings.get("score") or {}), **score}
    file.write_text(yaml.safe_dump(settings))
    found = Diagnosis.model_validate_json(mia("diagnose", file, "--samples", 12, "--json").stdout)
    ways = [(s.layer, s.rows, s.value_weighted) for s in found.readouts]
    assert (layer, score.get("rows", "generated"), score.get("value_weighted", False)) in ways or found.configured is None
    assert any(line.mean_ratio_right is not None or line.mean_ratio_wrong is not None for line in found.buckets)


def test_samples_are_taken_evenly_and_the_same_ones_again() -> None:
    many = [sample(number, 2 + number % 3) for number in range(90)]
    chosen = choose_samples(iter(many), 30, seed=1)
    assert [sum(s.parts == parts for s in chosen) for parts in (2, 3, 4)] == [10, 10, 10]
    assert chosen == choose_samples(iter(reversed(many)), 30, seed=1)
    assert chosen != choose_samples(iter(many), 30, seed=2)


def test_questions_about_several_pictures_are_not_diagnosed() -> None:
    many = [sample(number, 3) for number in range(6)]
    searches = [one.model_copy(update={"id": f"search {one.id}", "format": "search", "named": [0, 1, 2]}) for one in many]
    assert {chosen.format for chosen in choose_samples(iter([*many, *searches]), 12, seed=1)} == {"sequence"}
    with pytest.raises(DataError, match="ask about one of several images, got none"):
        choose_samples(iter(searches), 12, seed=1)


def test_the_embedded_model_is_diagnosed(tmp_path: Path, mia: Callable[..., Result]) -> None:
    file = prepare(tmp_path, Display(), pictures=30, test_pictures=10, per_bucket=1, seed=0, model="embedded", recipe="paper")
    result = mia("diagnose", file, "--samples", 12, "--json")
    assert result.exit_code == 0, result.output
    found = Diagnosis.model_validate_json(result.stdout)
    assert found.samples == 12
    assert {score.layer for score in found.readouts} == {
        0,
        1,
        2,
        3,
        "rollout",
        "gradient",
        "alone",
        "consistency",
        "perplexity",
    }
    assert {score.rows for score in found.readouts} == {"generated", "predicting", "question"}
    assert sum(line.right_alone for line in found.buckets) >= 11  # its single-image accuracy is 100 %
    assert json.loads((tmp_path / "run" / "diagnosis.json").read_text())["samples"] == 12
    show_diagnosis(found, console := Console(record=True, width=200, file=io.StringIO()))
    assert "right with the picture alone" in console.export_text()


def test_a_readout_the_model_cannot_give_is_left_out_by_name(
    tmp_path: Path, mia: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("no parameters in floating point")

    monkeypatch.setattr("mia_attention.capture.given_answers.gradient_rows", refuse)
    file = prepare(tmp_path, Display(), pictures=30, test_pictures=10, per_bucket=1, seed=0, model="embedded", recipe="paper")
    found = Diagnosis.model_validate_json(mia("diagnose", file, "--samples", 8, "--json").stdout)
    assert {score.layer for score in found.readouts} <= {0, 1, 2, 3, "rollout", "alone", "consistency", "perplexity"}
    assert "readout gradient is left out: no parameters in floating point" in caplog.text
