"""`mia diagnose`: findings that follow from known answers and ratios, and one run with the embedded model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import Result
from mia_attention import readout_of
from mia_attention.settings import ScoreSettings
from mia_augment.errors import ModelError
from mia_augment.records import Region, Sample, Source
from mia_cli.config.schema import PipelineConfig
from mia_cli.diagnosis import Asked, Reading, configured_reading, diagnose
from mia_cli.drawn.quickstart import prepare
from mia_cli.experiments.diagnose import choose_samples
from mia_cli.findings import Diagnosis
from mia_cli.terminal.diagnosis_tables import show_diagnosis
from mia_cli.terminal.display import Display
from rich.console import Console
from sklearn.metrics import roc_auc_score

CONFIG = PipelineConfig.model_validate({"score": {"layer": 1}})


def sample(number: int, parts: int, answer: str = "red") -> Sample:
    return Sample(
        id=f"s{number}",
        format="sequence",
        images=[f"{i}.png" for i in range(parts)],
        prompt="<image>" * parts + "What colour?",
        answer=answer,
        regions=[Region(image=i, label=f"Image{i + 1}") for i in range(parts)],
        target=0,
        source=Source(
            ids=["x"] * parts, paths=["p"] * parts, question="What colour?", answers=[answer] + ["blue"] * (parts - 1)
        ),
    )


def asked(right: int, wrong: int, *, parts: int = 3, said: str = "blue", alone: str = "red") -> list[Asked]:
    return [Asked(sample(number, parts), "red" if number < right else said, alone) for number in range(right + wrong)]


def readings(ratios: list[float | None]) -> list[Reading]:
    return [Reading("generated", 0, False, [0.5] * len(ratios)), Reading("generated", 1, False, ratios)]


def by_name(found: Diagnosis, name: str) -> tuple[bool | None, str]:
    return next((finding.good, finding.text) for finding in found.findings if finding.name == name)


def test_a_telling_ratio_is_found_and_measured_within_each_number_of_images() -> None:
    rng = np.random.default_rng(0)
    two, three = asked(40, 40, parts=2), asked(40, 40, parts=3)
    ratios = [float(rng.normal(0.3 if i < 40 else 0.2, 0.08)) for i in range(80)]
    ratios += [float(rng.normal(0.9 if i < 40 else 0.8, 0.08)) for i in range(80)]
    found = diagnose([*two, *three], readings([*ratios]), CONFIG, model="m", layer=1)
    independent = [roc_auc_score([i >= 40 for i in range(80)], [-r for r in part]) for part in (ratios[:80], ratios[80:])]
    assert found.configured is not None
    assert found.configured.auroc == pytest.approx(np.mean(independent), abs=1e-12)  # groups of equal size
    assert [round(line.auroc.value, 12) for line in found.buckets if line.auroc] == [round(v, 12) for v in independent]
    assert found.readouts[0].layer == 1
    assert found.readouts[1].auroc == 0.5
    assert by_name(found, "attention")[0] is True


def test_a_ratio_that_tells_nothing_is_called_so() -> None:
    ratios = [0.2 + 0.001 * ((7 * i) % 40) for i in range(80)]  # the same values, right or wrong
    found = diagnose(asked(40, 40), readings([*ratios]), CONFIG, model="m", layer=1)
    good, text = by_name(found, "attention")
    assert not good
    assert "does not tell" in text
    assert found.advice["select"] == {"attention": False, "rejected": "both"}


def test_a_layer_that_is_yet_to_be_chosen_is_called_so() -> None:
    config = PipelineConfig.model_validate({"score": {"layer": "auto"}})
    found = diagnose(asked(40, 40), readings([0.9] * 40 + [0.1] * 40), config, model="m")
    assert by_name(found, "attention") == (
        None,
        "the readout that `score` is set to was not measured: `auto`, which chooses a layer when scoring, or one that "
        "cannot be read from this model",
    )
    assert by_name(found, "thresholds") == (None, "what the thresholds decide is not known without the ratios")
    assert found.best is not None
    assert found.best.layer == 1


def test_an_inert_threshold_is_named_and_one_that_divides_is_not() -> None:
    low = diagnose(asked(40, 40), readings([0.1] * 80), CONFIG, model="m", layer=1)
    assert by_name(low, "thresholds")[0] is False
    assert [line.inert for line in low.buckets] == [True]
    assert (low.buckets[0].right_passed, low.buckets[0].wrong_passed) == (1.0, 1.0)
    divided = diagnose(asked(40, 40), readings([0.9] * 40 + [0.1] * 40), CONFIG, model="m", layer=1)
    assert by_name(divided, "thresholds")[0] is True
    assert (divided.buckets[0].right_passed, divided.buckets[0].wrong_passed) == (0.0, 1.0)


def test_thresholds_are_not_called_good_where_they_could_not_be_judged() -> None:
    none_right = diagnose(asked(0, 31), readings([0.9] * 15 + [0.1] * 16), CONFIG, model="m", layer=1)
    assert none_right.buckets[0].judged is False
    assert by_name(none_right, "thresholds") == (
        None,
        "what they decide cannot be told in every format and number of images: that takes 20 right and 20 wrong answers",
    )
    divided = [0.9] * 40 + [0.1] * 40
    both = [*asked(40, 40, parts=2), *asked(0, 31, parts=3)]
    found = diagnose(both, readings([*divided, *[0.9] * 15, *[0.1] * 16]), CONFIG, model="m", layer=1)
    good, text = by_name(found, "thresholds")
    assert good is None
    assert "divide the answers in 1 of 2 (sequence of 2); what they decide cannot be told in 1 of 2 (sequence of 3)" in text
    inert = diagnose(both, readings([*divided, *[0.1] * 31]), CONFIG, model="m", layer=1)
    assert by_name(inert, "thresholds")[0] is False


def test_what_was_not_measured_is_no_reason_to_turn_the_attention_rule_off() -> None:
    none_right = diagnose(asked(0, 31), readings([0.9] * 15 + [0.1] * 16), CONFIG, model="m", layer=1)
    assert none_right.configured is None
    assert "attention" not in none_right.advice.get("select", {})
    free = diagnose(asked(0, 40, alone="a red thing, I think"), readings([0.1] * 40), CONFIG, model="m", layer=1)
    assert free.advice == {"select": {"calibrate": "auto"}}  # what the FAQ says: the attention rule decides alone there
    free = diagnose(asked(0, 40, alone="a red thing"), readings([0.1, 0.9] * 20), CONFIG, model="m", layer=1)
    assert free.advice == {}


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
    made = [Reading("generated", index, False, [index / 100] * 80) for index in full]
    config = PipelineConfig.model_validate({"score": {"layer": "middle"}})
    found = configured_reading(made, config, readout_of(model, settings))  # type: ignore[arg-type]
    assert found is not None
    assert found.layer == middle


@pytest.mark.parametrize(
    ("score", "layer"),
    [({"layer": [1, 3]}, [1, 3]), ({"layer": "middle"}, 2), ({"layer": 3, "rows": "predicting", "value_weighted": True}, 3)],
)
def test_what_score_is_set_to_is_always_measured(
    tmp_path: Path, mia: Callable[..., Result], score: dict[str, Any], layer: Any
) -> None:
    file = prepare(tmp_path, Display(), pictures=30, test_pictures=10, per_bucket=1, seed=0, model="embedded")
    settings = yaml.safe_load(file.read_text())
    settings["score"] = {**(settings.get("score") or {}), **score}
    file.write_text(yaml.safe_dump(settings))
    found = Diagnosis.model_validate_json(mia("diagnose", file, "--samples", 12, "--json").stdout)
    ways = [(s.layer, s.rows, s.value_weighted) for s in found.readouts]
    assert (layer, score.get("rows", "generated"), score.get("value_weighted", False)) in ways or found.configured is None
    assert any(line.mean_ratio_right is not None or line.mean_ratio_wrong is not None for line in found.buckets)


def test_room_and_confusion_are_counted() -> None:
    found = diagnose(asked(30, 10), readings([0.5] * 40), CONFIG, model="m", layer=1)
    assert by_name(found, "room") == (True, "100% right with the picture alone, 75% among several: 25 points to win back")
    assert by_name(found, "confusion")[1] == "100% of 10 wrong answers are right about another of the pictures"
    assert found.buckets[0].told_another == 10
    other = diagnose(asked(30, 10, said="green"), readings([0.5] * 40), CONFIG, model="m", layer=1)
    assert other.buckets[0].told_another == 0
    none = diagnose(asked(40, 0), readings([0.5] * 40), CONFIG, model="m", layer=1)
    assert by_name(none, "room")[0] is False


def test_a_favourite_wrong_answer_is_named() -> None:
    """Training on it as rejected would teach to avoid the word; answers about companions as rejected balance it."""
    found = diagnose(asked(20, 20), readings([0.5] * 40), CONFIG, model="m", layer=1)
    assert "'blue' (20 to 0)" in by_name(found, "one_sided")[1]
    assert found.advice["score"]["confusions"] is True
    assert found.advice["select"]["rejected"] == "both"
    few = diagnose(asked(20, 19), readings([0.5] * 39), CONFIG, model="m", layer=1)
    assert "one_sided" not in {finding.name for finding in few.findings}
    assert "score" not in few.advice
    assert "rejected" not in few.advice.get("select", {})


def test_free_answers_are_not_judged_by_equality() -> None:
    found = diagnose(asked(0, 40, alone="a red thing, I think"), readings([0.5] * 40), CONFIG, model="m", layer=1)
    assert found.findings[0].name == "matching"
    assert {finding.name for finding in found.findings} == {"matching", "thresholds"}


def test_the_best_readout_is_measured_on_samples_it_was_not_chosen_on() -> None:
    """Thirty readouts of pure noise: the best of them looks good on all samples, not on the other half."""
    rng = np.random.default_rng(1)
    noise = [Reading("generated", layer, False, rng.random(80).tolist()) for layer in range(30)]
    found = diagnose(asked(40, 40), noise, CONFIG, model="m", layer=1)
    assert found.best is not None
    assert found.readouts[0].auroc > 0.6
    assert found.best.low < 0.5
    assert found.best.samples == 40


def test_samples_are_taken_evenly_and_the_same_ones_again() -> None:
    many = [sample(number, 2 + number % 3) for number in range(90)]
    chosen = choose_samples(iter(many), 30, seed=1)
    assert [sum(s.parts == parts for s in chosen) for parts in (2, 3, 4)] == [10, 10, 10]
    assert chosen == choose_samples(iter(reversed(many)), 30, seed=1)
    assert chosen != choose_samples(iter(many), 30, seed=2)


def test_the_embedded_model_is_diagnosed(tmp_path: Path, mia: Callable[..., Result]) -> None:
    file = prepare(tmp_path, Display(), pictures=30, test_pictures=10, per_bucket=1, seed=0, model="embedded")
    result = mia("diagnose", file, "--samples", 12, "--json")
    assert result.exit_code == 0, result.output
    found = Diagnosis.model_validate_json(result.stdout)
    assert found.samples == 12
    assert {score.layer for score in found.readouts} == {0, 1, 2, 3, "rollout", "gradient"}
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
    file = prepare(tmp_path, Display(), pictures=30, test_pictures=10, per_bucket=1, seed=0, model="embedded")
    found = Diagnosis.model_validate_json(mia("diagnose", file, "--samples", 8, "--json").stdout)
    assert {score.layer for score in found.readouts} <= {0, 1, 2, 3, "rollout"}
    assert "readout gradient is left out: no parameters in floating point" in caplog.text
