"""`mia diagnose`: findings that follow from known answers and ratios, and one run with the embedded model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from mia_augment.errors import ModelError
from mia_augment.records import Region, Sample, Source
from mia_cli.config import PipelineConfig
from mia_cli.console import Display
from mia_cli.diagnose import choose_samples
from mia_cli.diagnosis import Asked, Reading, diagnose
from mia_cli.diagnosis_tables import show_diagnosis
from mia_cli.findings import Diagnosis
from mia_cli.quickstart import prepare
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
    found = diagnose([*two, *three], readings([*ratios]), CONFIG, model="m")
    independent = [roc_auc_score([i >= 40 for i in range(80)], [-r for r in part]) for part in (ratios[:80], ratios[80:])]
    assert found.configured is not None
    assert found.configured.auroc == pytest.approx(np.mean(independent), abs=1e-12)  # groups of equal size
    assert [round(line.auroc.value, 12) for line in found.buckets if line.auroc] == [round(v, 12) for v in independent]
    assert found.readouts[0].layer == 1
    assert found.readouts[1].auroc == 0.5
    assert by_name(found, "attention")[0] is True


def test_a_ratio_that_tells_nothing_is_called_so() -> None:
    ratios = [0.2 + 0.001 * ((7 * i) % 40) for i in range(80)]  # the same values, right or wrong
    found = diagnose(asked(40, 40), readings([*ratios]), CONFIG, model="m")
    good, text = by_name(found, "attention")
    assert not good
    assert "does not tell" in text
    assert found.advice["select"] == {"attention": False, "rejected": "both"}


def test_a_layer_that_was_not_read_is_called_so() -> None:
    config = PipelineConfig.model_validate({"score": {"layer": 7}})
    found = diagnose(asked(40, 40), readings([0.9] * 40 + [0.1] * 40), config, model="m")
    assert by_name(found, "attention") == (
        None,
        "the readout that `score` is set to was not measured: a layer that the model does not have, or a mean of several",
    )
    assert by_name(found, "thresholds") == (None, "what the thresholds decide is not known without the ratios")
    assert found.best is not None
    assert found.best.layer == 1


def test_an_inert_threshold_is_named_and_one_that_divides_is_not() -> None:
    low = diagnose(asked(40, 40), readings([0.1] * 80), CONFIG, model="m")
    assert by_name(low, "thresholds")[0] is False
    assert [line.inert for line in low.buckets] == [True]
    assert (low.buckets[0].right_passed, low.buckets[0].wrong_passed) == (1.0, 1.0)
    divided = diagnose(asked(40, 40), readings([0.9] * 40 + [0.1] * 40), CONFIG, model="m")
    assert by_name(divided, "thresholds")[0] is True
    assert (divided.buckets[0].right_passed, divided.buckets[0].wrong_passed) == (0.0, 1.0)


def test_room_and_confusion_are_counted() -> None:
    found = diagnose(asked(30, 10), readings([0.5] * 40), CONFIG, model="m")
    assert by_name(found, "room") == (True, "100% right with the picture alone, 75% among several: 25 points to win back")
    assert by_name(found, "confusion")[1] == "100% of 10 wrong answers are right about another of the pictures"
    assert found.buckets[0].told_another == 10
    other = diagnose(asked(30, 10, said="green"), readings([0.5] * 40), CONFIG, model="m")
    assert other.buckets[0].told_another == 0
    none = diagnose(asked(40, 0), readings([0.5] * 40), CONFIG, model="m")
    assert by_name(none, "room")[0] is False


def test_a_favourite_wrong_answer_is_named() -> None:
    """Training on it as rejected would teach to avoid the word; answers about companions as rejected balance it."""
    found = diagnose(asked(20, 20), readings([0.5] * 40), CONFIG, model="m")
    assert "'blue' (20 to 0)" in by_name(found, "one_sided")[1]
    assert found.advice["score"]["confusions"] is True
    assert found.advice["select"]["rejected"] == "both"
    few = diagnose(asked(20, 19), readings([0.5] * 39), CONFIG, model="m")
    assert "one_sided" not in {finding.name for finding in few.findings}
    assert "score" not in few.advice
    assert "rejected" not in few.advice.get("select", {})


def test_free_answers_are_not_judged_by_equality() -> None:
    found = diagnose(asked(0, 40, alone="a red thing, I think"), readings([0.5] * 40), CONFIG, model="m")
    assert found.findings[0].name == "matching"
    assert {finding.name for finding in found.findings} == {"matching", "thresholds"}


def test_the_best_readout_is_measured_on_samples_it_was_not_chosen_on() -> None:
    """Thirty readouts of pure noise: the best of them looks good on all samples, not on the other half."""
    rng = np.random.default_rng(1)
    noise = [Reading("generated", layer, False, rng.random(80).tolist()) for layer in range(30)]
    found = diagnose(asked(40, 40), noise, CONFIG, model="m")
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

    monkeypatch.setattr("mia_attention.given.gradient_rows", refuse)
    file = prepare(tmp_path, Display(), pictures=30, test_pictures=10, per_bucket=1, seed=0, model="embedded")
    found = Diagnosis.model_validate_json(mia("diagnose", file, "--samples", 8, "--json").stdout)
    assert {score.layer for score in found.readouts} <= {0, 1, 2, 3, "rollout"}
    assert "readout gradient is left out: no parameters in floating point" in caplog.text
