"""What bad input gets: one clear message, exit code 2, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml


def write(folder: Path, rows: object, **sections: object) -> Path:
    """Rows and a pipeline.yaml over them."""
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"run_dir": "run", "data": {"source": "rows.json"}, **sections}), encoding="utf-8")
    return path


def files(folder: Path) -> set[str]:
    """Results that lie in a folder (not the settings, the lock, or an unfinished stage's scratch)."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if name not in ("pipeline.json", ".lock", "stages.json")}


def refused(mia, *arguments: object) -> str:
    result = mia(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    said = result.stderr[result.stderr.index("error: ") :]
    assert "Traceback" not in result.stderr
    return said


def test_an_unknown_key(mia, tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text("data:\n  sorce: rows.json\n")
    said = refused(mia, "run", path)
    assert "line 2" in said
    assert "did you mean 'source'" in said
    assert [p.name for p in tmp_path.iterdir()] == ["pipeline.yaml"]


def test_no_settings_file(mia, tmp_path):
    assert "mia init" in refused(mia, "run", tmp_path / "none.yaml")


def test_no_source(mia, tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text("seed: 1\n")
    assert "data.source" in refused(mia, "run", path)


def test_a_missing_data_file(mia, tmp_path):
    path = write(tmp_path, [])
    (tmp_path / "rows.json").unlink()
    assert "rows.json" in refused(mia, "run", path)
    assert files(tmp_path / "run") == set()


@pytest.mark.parametrize("rows", [[], [{"id": "1", "image": "no.png", "conversations": []}]])
def test_nothing_to_augment(mia, tmp_path, rows):
    assert "not one sample" in refused(mia, "run", write(tmp_path, rows))
    assert not {name for name in files(tmp_path / "run") if name.endswith(("samples.jsonl", "manifest.json"))}


def test_data_that_is_no_json(mia, tmp_path):
    path = write(tmp_path, [])
    (tmp_path / "rows.json").write_text('[{"id": 1, "image"')
    assert "rows.json" in refused(mia, "run", path)


def test_a_model_that_is_no_vision_language_model(mia, tmp_path, photographs):
    empty = tmp_path / "empty"
    empty.mkdir()
    samples = tmp_path / "samples"
    assert mia("augment", "--source", photographs / "rows.json", "--image-root", photographs, "--out", samples).exit_code == 0
    said = refused(mia, "score", "--samples", samples, "--model", empty, "--out", tmp_path / "score")
    assert "config.json" in said
    assert not (tmp_path / "score").exists()


def test_stages_in_the_wrong_order(mia, tmp_path):
    model = ("--model", "embedded")
    assert "mia augment" in refused(mia, "score", "--samples", tmp_path, *model, "--out", tmp_path / "a")
    assert "mia score" in refused(mia, "select", "--scored", tmp_path, "--out", tmp_path / "b")
    assert "mia select" in refused(mia, "train", "--pairs", tmp_path, *model, "--out", tmp_path / "c")
    assert "mia augment" in refused(mia, "evaluate", "--samples", tmp_path, *model, "--out", tmp_path / "d")
    assert "mia select" in refused(mia, "export", "--pairs", tmp_path, "--format", "trl", "--out", tmp_path / "e")
    assert "mia run" in refused(mia, "status", tmp_path)
    assert "mia run" in refused(mia, "report", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_pair_left(mia, tmp_path, photographs, random_model):
    settings = {
        "run_dir": str(tmp_path / "run"), "data": {"source": "rows.json"}, "model": str(random_model),
        "augment": {"formats": ["sequence"], "sequence": {"counts": [2]}}, "score": {"max_new_tokens": 4},
        "select": {"max_answer_chars": 1}, "evaluate": {"per_bucket": 0},
    }  # fmt: skip
    path = photographs / "pipeline.yaml"
    path.write_text(yaml.safe_dump(settings))
    said = refused(mia, "run", path)
    assert "none of the" in said
    assert "answer_too_long" in said
    assert files(tmp_path / "run" / "select") == set()
    assert not (tmp_path / "run" / "train").exists()


def test_a_value_out_of_range_on_the_command_line(mia, tmp_path):
    said = refused(
        mia, "augment", "--source", __file__, "--image-root", tmp_path, "--out", tmp_path / "x", "--formats", "sequence,spiral"
    )
    assert "spiral" in said


def test_an_adapter_that_is_none(mia, tmp_path, photographs):
    samples = tmp_path / "samples"
    mia("augment", "--source", photographs / "rows.json", "--image-root", photographs, "--out", samples)
    said = refused(
        mia, "evaluate", "--samples", samples, "--model", "embedded", "--adapter", photographs, "--out", tmp_path / "out"
    )
    assert "adapter" in said
