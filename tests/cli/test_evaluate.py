"""Held-out samples that cannot be asked, or that share an id."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
from mia_augment.errors import DataError
from mia_augment.records import Region, Sample, Source
from mia_augment.storage import Manifest, run_stage, write_jsonl, write_manifest
from mia_cli.config.schema import EvaluateSettings
from mia_cli.evaluate import evaluate_stage
from mia_select.evaluation import read_evaluation
from PIL import Image

SETTINGS = EvaluateSettings(max_new_tokens=2, batch_size=4)


def sample(name: str, image: str = "a.png", question: str = "what is on the left ?", answer: str = "red") -> Sample:
    return Sample(
        id=name, format="single", images=[image], prompt=f"<image>\n{question}", answer=answer, target=0,
        regions=[Region(image=0, label="Image1")], source=Source(ids=["a"], paths=[image], question=question),
    )  # fmt: skip


@pytest.fixture(scope="module")
def qwen() -> Any:
    """Qwen2-VL's processor refuses aspect ratios above 200."""
    made = tiny_models.build("qwen2_vl")
    return SimpleNamespace(id="tiny", get=lambda: (made.model, made.processor), settings=None)


@pytest.fixture
def evaluate(qwen: Any, tmp_path: Path) -> Any:
    def evaluate(samples: list[Sample], name: str) -> Manifest:
        folder = tmp_path / f"{name}-samples"
        write_jsonl(folder / "samples.jsonl", samples)
        Image.new("RGB", (60, 70), (250, 10, 10)).save(folder / "a.png")
        Image.new("RGB", (600, 1)).save(folder / "thin.png")
        write_manifest(folder, Manifest(stage="augment", version="0", settings={}, inputs={}))
        return run_stage(evaluate_stage(folder, tmp_path / name, SETTINGS, qwen, lambda: None)).manifest

    return evaluate


CHOICE = "what is it ? A. red B. blue"
SOUND = [sample("a"), sample("b", question=CHOICE, answer="A"), sample("c", question="what is on the right ?")]
ODD = {
    "thin": (sample("thin", "thin.png"), "the model's processor refuses it: absolute aspect ratio"),
    "lost": (sample("lost", "lost.png"), "image 'lost.png': no such file"),
    "token": (sample("token", question="what is <|image_pad|> ?"), "the question holds '<|image_pad|>'"),
    "options": (sample("options", "thin.png", CHOICE, "A"), "the model's processor refuses it: absolute aspect ratio"),
}


def test_samples_that_cannot_be_asked_are_left_out_and_listed(evaluate: Any, tmp_path: Path) -> None:
    mixed = [odd for odd, _ in ODD.values()]
    manifest = evaluate([mixed[0], SOUND[0], *mixed[1:3], SOUND[1], mixed[3], SOUND[2]], "mixed")
    evaluate(SOUND, "sound")
    listed = [json.loads(line) for line in (tmp_path / "mixed" / "skipped.jsonl").read_text().splitlines()]
    assert [row["id"] for row in listed] == list(ODD)
    assert [row["id"] for row in listed if not row["reason"].startswith(ODD[row["id"]][1])] == []
    assert manifest.counts == {"samples": 7, "skipped": 4, "by_likelihood": 2, "single/1": 3}
    assert read_evaluation(tmp_path / "mixed") == read_evaluation(tmp_path / "sound")
    found, expected = ((tmp_path / name / "predictions.jsonl").read_text() for name in ("mixed", "sound"))
    assert found == expected


def test_where_none_can_be_asked_the_first_reason_is_told(evaluate: Any) -> None:
    with pytest.raises(DataError, match=r"none of 2 samples could be asked; the first, thin: the model's processor refuses it"):
        evaluate([ODD["thin"][0], ODD["lost"][0]], "none")


def test_repeated_ids_are_refused_before_anything_is_asked(evaluate: Any, qwen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen, "get", None)
    with pytest.raises(DataError, match=r"samples\.jsonl: expected unique ids, got 'a' more than once"):
        evaluate([*SOUND, sample("a", question="what is on the right ?")], "repeated")
