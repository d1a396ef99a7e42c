"""Every example runs as it stands, one after the other."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from mia_augment.records import PreferencePair
from mia_augment.storage.files import read_jsonl
from mia_cli.config.schema import load_config
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch, capsys):
    """Run an example with arguments; gives what it prints."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_stages_one_after_the_other(example, tmp_path):
    samples, scored, pairs, trained = (tmp_path / name for name in ("samples", "scored", "pairs", "trained"))
    told = example("augment/samples_from_rows.py", "--out", samples, "--pictures", 8)
    rows, made, skipped = map(int, re.findall(r"\d+", told.splitlines()[0]))
    assert rows == 40 == made + skipped
    assert told.count("<- asked") == 3

    told = example("attention/which_layer.py", samples, "--out", scored)
    assert told.startswith(f"{made} answers")
    assert "AUROC" in told

    told = example("select/compare_settings.py", scored, "--out", pairs)
    wrong = int(told.split("every wrong answer")[1].split()[0])
    kept = list(read_jsonl(pairs / "pairs.jsonl", PreferencePair))
    assert 1 <= len(kept) <= wrong
    assert len((pairs / "trl" / "train.jsonl").read_text("utf-8").splitlines()) == len(kept)

    told = example("dpo_train/train_pairs.py", pairs, "--out", trained, "--steps", 4)
    assert f"{len(kept)} pairs, 4 steps" in told
    assert (trained / "adapter" / "adapter_model.safetensors").is_file()


def test_attention_over_my_picture(example, tmp_path):
    told = example("attention_over_my_picture/look.py", "--out", tmp_path / "where.html")
    assert "In Image2, which letter is written? -> The letter is" in told
    page = (tmp_path / "where.html").read_text("utf-8")
    assert page.count("<figure") == 2
    assert page.startswith("<!doctype html>")


def test_attention_over_pictures_of_ones_own(example, tmp_path):
    for name, color in (("a.png", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (200, 120), color).save(tmp_path / name)
    out = tmp_path / "where.html"
    told = example(
        "attention_over_my_picture/look.py", tmp_path / "a.png", tmp_path / "b.jpg",
        "--question", "In Image1, what is the color of the background?", "--out", out,
    )  # fmt: skip
    assert "In Image1, what is the color of the background?" in told
    assert "Image2 · b.jpg" in out.read_text("utf-8")


def test_a_pipeline_from_python(example, tmp_path):
    first = example("cli/run_from_python.py", "--work", tmp_path, "--pictures", 16)
    assert "made in this call: augment, held_out, score, select, attention, train, evaluate, report" in first
    assert json.loads((tmp_path / "run" / "evaluate" / "evaluation.json").read_text("utf-8"))["rows"]
    assert "nothing, all was there" in example("cli/run_from_python.py", "--work", tmp_path, "--pictures", 16)


@pytest.mark.parametrize("path", sorted((EXAMPLES / "cli").glob("*.yaml")), ids=lambda path: path.name)
def test_settings_to_start_from_are_valid(path):
    config = load_config(path)
    assert config.data.source == path.parent / "rows.json"
    assert config.train.per_device_batch_size * config.train.accumulation == 64
