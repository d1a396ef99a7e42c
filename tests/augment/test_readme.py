from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mia_augment.records import Sample
from mia_augment.storage.files import read_jsonl
from PIL import Image

README = Path(__file__).parents[2] / "packages" / "mia-augment" / "README.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the examples speak of: llava.json and images/pets."""
    names = ["cat", "dog", *(f"pet{i}" for i in range(8))]
    rows = []
    for index, name in enumerate(names):
        path = tmp_path / "images" / "pets" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (20 * index, 90, 200 - 20 * index)).save(path)
        talk = [{"from": "human", "value": "<image>\nWhich animal is it?"}, {"from": "gpt", "value": f"A {name}."}]
        rows.append({"id": index, "image": f"pets/{name}.png", "conversations": talk})
    (tmp_path / "llava.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_run_and_print_what_they_promise(folder, capsys):
    scope: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        exec(compile(code, str(README), "exec"), scope)
    printed = capsys.readouterr().out
    assert "0 fine" in printed
    assert "10 samples, 0 skipped" in printed
    assert "In Image1, which animal is it?" in printed or "In Image2, which animal is it?" in printed
    assert "((0, 40, 448, 339), (488, 40, 936, 339))" in printed  # 60 x 40 in cells of 448: 448 x 299
    with Image.open(folder / "grid.png") as grid:
        assert grid.size == (936, 488)
    assert {s.format for s in read_jsonl(folder / "out" / "samples.jsonl", Sample)} <= {"sequence", "grid"}
