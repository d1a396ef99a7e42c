"""The stages one by one over real photographs with dirty rows among the tidy ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def samples(mia, photographs, tmp_path) -> Path:
    out, small = tmp_path / "samples", tmp_path / "small.yaml"
    small.write_text("grid: {counts: [2, 4, 6]}\n")
    rows = ("--source", photographs / "rows.json", "--image-root", photographs)
    result = mia("augment", *rows, "--out", out, "--seed", 3, "--config", small)
    assert result.exit_code == 0, result.stderr
    return out


def test_every_bad_row_is_listed_with_its_reason(samples):
    reasons = {entry["id"]: entry["reason"] for entry in records(samples / "skipped.jsonl")}
    assert set(reasons) == {"text-only", "no-such-file", "cut-off", "outside", "no-turns"}
    assert "image" in reasons["text-only"]
    assert "missing.jpg" in reasons["no-such-file"]
    assert ".." in reasons["outside"]


def test_every_good_row_becomes_a_sample(samples):
    manifest = json.loads((samples / "manifest.json").read_text())
    asked = {sample["source"]["ids"][sample["target"]] for sample in records(samples / "samples.jsonl")}
    assert {"several-turns", "17", "image-last"} <= asked
    assert len(asked) == 7 * 3 + 3 == manifest["counts"]["samples"]
    assert manifest["counts"]["skipped"] == 5


def test_pictures_and_boxes_are_what_they_say(samples, photographs):
    for sample in records(samples / "samples.jsonl"):
        assert sample["prompt"].count("<image>") == len(sample["images"])
        places = [photographs / name if (photographs / name).is_file() else samples / name for name in sample["images"]]
        sizes = [Image.open(place).size for place in places]
        for region in sample["regions"]:
            if region["box"] is not None:
                left, top, right, bottom = region["box"]
                width, height = sizes[region["image"]]
                assert 0 <= left < right <= width
                assert 0 <= top < bottom <= height
        if sample["format"] == "sequence":
            assert sample["images"] == sample["source"]["paths"]
            assert f"In Image{sample['target'] + 1}, " in sample["prompt"]


def test_later_turns_are_kept(samples):
    several = [s for s in records(samples / "samples.jsonl") if s["source"]["ids"][s["target"]] == "several-turns"]
    assert several[0]["answer"] == "A cat."
    assert several[0]["followups"][0]["answer"] == "No."


def test_from_photographs_to_an_exported_model(mia, samples, tmp_path, random_model):
    scored, pairs, trained, evaluated = (tmp_path / name for name in ("score", "select", "train", "evaluate"))
    model = ("--model", random_model)
    score = tmp_path / "score.yaml"
    score.write_text("max_new_tokens: 6\n")
    assert mia("score", "--samples", samples, *model, "--out", scored, "--config", score, "--no-disturb").exit_code == 0
    rules = tmp_path / "rules.yaml"
    rules.write_text("attention: false\nmin_perplexity: 1\nmax_length_ratio: null\n")
    assert mia("select", "--scored", scored, "--out", pairs, "--config", rules).exit_code == 0
    steps = tmp_path / "train.yaml"
    steps.write_text("max_steps: 1\naccumulation: 2\nlora: {r: 4, alpha: 8}\n")
    done = mia("train", "--pairs", pairs, *model, "--out", trained, "--config", steps)
    assert done.exit_code == 0, done.stderr
    options = ("--samples", samples, *model, "--adapter", trained, "--out", evaluated, "--max-new-tokens", 6)
    result = mia("evaluate", *options, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["n"] == 24
    merged = mia("export", "--merged", *model, "--adapter", trained, "--out", tmp_path / "merged")
    assert merged.exit_code == 0, merged.stderr
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    for layout in ("trl", "llama-factory", "ms-swift", "mia-dpo"):
        result = mia("export", "--pairs", pairs, "--format", layout, "--out", tmp_path / layout)
        assert result.exit_code == 0, result.stderr
        assert (tmp_path / layout).exists()


def test_a_base_model_alone_can_be_measured(mia, samples, tmp_path, random_model):
    result = mia("evaluate", "--samples", samples, "--model", random_model, "--out", tmp_path / "out", "--max-new-tokens", 4)
    assert result.exit_code == 0, result.stderr
    assert "sequence" in result.stdout
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["rows"][0]["after"] is None
