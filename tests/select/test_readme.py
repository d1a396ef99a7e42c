"""The example of the README runs as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mia_augment.records import ScoredSample
from mia_augment.storage.files import Manifest, write_jsonl, write_manifest
from PIL import Image

MakeScored = Callable[..., ScoredSample]
README = Path(__file__).parents[2] / "packages" / "mia-select" / "README.md"


def test_the_example_runs(
    tmp_path: Path, make_scored: MakeScored, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    samples = [
        make_scored(f"s{i}", ratio=0.5 + 0.001 * i, response="The color is red." if i % 2 else "Blue.") for i in range(60)
    ]
    write_jsonl(tmp_path / "run" / "scored" / "scored.jsonl", samples)
    manifest = Manifest(stage="score", version="0", settings={}, inputs={}, image_folders=["../photos"])
    write_manifest(tmp_path / "run" / "scored", manifest)
    for name in {name for sample in samples for name in sample.images}:
        (tmp_path / "run" / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "run" / "photos" / name)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert "correct             60 came in,     30 dropped" in printed
    assert "sequence of 2: the threshold 0.8 is inert" in printed
    assert len((tmp_path / "run" / "trl" / "train.jsonl").read_text("utf-8").splitlines()) == 15
