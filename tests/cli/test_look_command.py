"""`mia look`: the page of one answer, and what is refused before a model is loaded."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from mia_cli.drawn import drawing


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two drawn scenes, the second of red triangles."""
    folder, rng = tmp_path_factory.mktemp("pictures"), random.Random(0)
    scenes = drawing.scenes("test")
    red = next(scene for scene in scenes if (scene["color"], scene["shape"]) == ("red", "triangle"))
    blue = next(scene for scene in scenes if scene["color"] == "blue")
    for scene, name in ((blue, "a.png"), (red, "b.png")):
        drawing.draw_scene(scene, rng)[0].save(folder / name)
    return [folder / "a.png", folder / "b.png"]


def test_a_question_becomes_a_page(mia, pictures, tmp_path):
    out = tmp_path / "new" / "where.html"
    result = mia("look", *pictures, "--question", "In Image2, what color are the shapes?", "--out", out)
    assert result.exit_code == 0, result.output
    first, head, *rows, last = result.stdout.splitlines()
    assert first == "In Image2, what color are the shapes? -> The color is red."
    assert head.split() == ["attention", "gradient", "alone", "knockout"]
    assert [row.split()[0] for row in rows] == ["Image1", "Image2"]
    assert last == f"-> {out}"
    page = out.read_text("utf-8")
    assert "Image1 · a.png" in page
    assert "Image2 · b.png" in page


def test_a_given_answer_as_json(mia, pictures, tmp_path):
    result = mia(
        "look", *pictures, "--question", "In Image2, what color are the shapes?", "--answer", "The color is blue.",
        "--no-gradient", "--layer", "1,3", "--json", "--out", tmp_path / "where.html",
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert found["answer"] == "The color is blue."
    assert found["gradient"] is None
    assert found["alone"][0] > found["alone"][1]  # the first picture's shapes are blue
    assert found["pictures"] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--question", "In Image3, what is it?"], "the question names image 3, but 2 pictures are given"),
        (["--question", "<image> what?"], "holds <image> 1 times for 2 pictures"),
        (["--question", " "], "question: expected a text"),
        (["--question", "what?", "--layer", "last"], "expected middle, or layers counted from 0"),
        (["--question", "what?", "--model", "./nowhere"], "no such folder"),
        ([], "Missing option '--question'"),
    ],
)
def test_what_is_refused(mia, pictures, tmp_path, arguments, message):
    result = mia("look", *pictures, *arguments, "--out", tmp_path / "where.html")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "where.html").exists()


def test_a_wrong_question_or_picture_is_told_before_torch_is_imported(python, pictures, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    line = ["look", str(pictures[0]), "--question", "In Image2, what?"]
    other = ["look", str(pictures[0]), str(tmp_path / "bad.png"), "--question", "In Image2, what?"]
    python(f"""
import sys
from click.testing import CliRunner
from mia_cli.main import main
for line, word in (({line!r}, "names image 2"), ({other!r}, "bad.png")):
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 2 and word in result.stderr, result.output
    assert "torch" not in sys.modules, line
""")
