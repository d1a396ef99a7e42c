"""The code of docs/multi-turn.md and docs/attention-ratio.md, and what the first says becomes of turns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mia_augment import AugmentSettings, augment
from mia_augment.records import Region, Sample, Source
from PIL import Image
from tiny_models import build

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "multi-turn.md").read_text("utf-8")


def pieces(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_each_turn_gets_a_row_of_its_own() -> None:
    made: dict[str, object] = {}
    exec(compile(pieces("python")[0], "multi-turn.md", "exec"), made)
    [row] = json.loads(pieces("json")[0])
    rows = list(made["one_row_a_turn"](row))  # type: ignore[operator]
    talks = [[turn["value"] for turn in each["conversations"]] for each in rows]
    assert [each["id"] for each in rows] == ["17-1", "17-2"]
    assert talks == [
        ["<image>\nWhat color is the bus?", "Red."],
        ["<image>\nHow many people are waiting?", "Three."],
    ]


def test_the_first_turn_is_asked_and_the_later_ones_are_followups_that_name_the_picture(tmp_path: Path) -> None:
    for number, name in enumerate(("bus", "cat", "dog", "hat")):
        Image.new("RGB", (64, 48), (60 * number, 90, 120)).save(tmp_path / f"{name}.jpg")
    [row] = json.loads(pieces("json")[0])
    talk = [{"from": "system", "value": "Answer shortly."}, *row["conversations"]]
    rows = [{**row, "conversations": talk}]
    rows += [
        {"id": name, "image": f"{name}.jpg", "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"A {name}."}]}
        for name in ("cat", "dog", "hat")
    ]  # fmt: skip
    settings = AugmentSettings(formats={"sequence": 1}, sequence={"counts": {2: 1}})
    made = [record for record in augment(rows, tmp_path, settings) if isinstance(record, Sample)]
    [sample] = [record for record in made if record.source.ids[record.target] == "17"]
    assert "what color is the bus?" in sample.prompt.lower()
    assert sample.answer == "Red."
    [later] = sample.followups
    assert "how many people are waiting?" in later.prompt.lower()
    assert sample.regions[sample.target].label.lower() in later.prompt.lower()
    assert "shortly" not in sample.prompt


def test_the_attention_of_a_sample_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = {name: Image.new("RGB", (56, 56), name) for name in ("red", "blue")}
    made = build("llava", strong=True)
    sample = Sample(
        id="1", format="sequence", images=list(pictures), answer="two red cats", target=1,
        prompt="Image1:<image>\nImage2:<image>\nIn Image2, what is on the left?",
        regions=[Region(image=0, label="Image1"), Region(image=1, label="Image2")],
        source=Source(ids=["1", "2"], paths=list(pictures), question="What is on the left?"),
    )  # fmt: skip
    given = {"sample": sample, "model": made.model, "processor": made.processor, "open_image": pictures.__getitem__}
    [code] = re.findall(r"```python\n(.*?)```", (DOCS / "attention-ratio.md").read_text("utf-8"), re.DOTALL)
    exec(compile(code, "attention-ratio.md", "exec"), given)
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1
    assert Image.open(tmp_path / "attention.png").width > 300
