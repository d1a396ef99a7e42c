"""The tutorial runs from its first command to its last, on fewer drawn pictures."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from mia_augment.storage.files import read_lines
from mia_cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PICTURES = 120
"""Drawn by the page; here 24."""


def block(language: str) -> str:
    """The only block of a language."""
    [text] = [text for name, text in BLOCKS if name == language]
    return text


def commands() -> Iterator[list[str]]:
    """What is to be typed after the installation, in order."""
    for text in [text for language, text in BLOCKS if not language][1:]:
        yield from (shlex.split(line) for line in text.splitlines())


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = block("python")
    assert f'"train", {PICTURES},' in code
    exec(compile(code.replace(f"{PICTURES},", "24,"), "tutorial.md", "exec"), {})
    with Path("rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 * 5
    assert list(rows[0]) == next(csv.reader([block("csv").splitlines()[0]]))
    settings = block("yaml").replace("epochs: 3", "epochs: 1").replace("per_bucket: 30", "per_bucket: 4")
    Path("pipeline.yaml").write_text(settings)
    for name, *arguments in commands():
        if name == "cp":
            shutil.copytree(*arguments[1:])
        elif name == "sed":
            second = settings.replace("run_dir: first", "run_dir: second").replace("5.0e-5", "1.0e-4")
            assert second != settings
            Path("second.yaml").write_text(second)
        else:
            assert name == "mia"
            fewer = ["16" if argument == "120" else argument for argument in arguments]  # samples of the diagnosis
            result = CliRunner().invoke(main, fewer, catch_exceptions=False)
            assert result.exit_code == 0, (arguments, result.output)
    assert 0 < sum(1 for _ in read_lines(Path("try/samples.jsonl"))) <= 50
    for page in ("first/report.html", "second/report.html", "first/compared.html"):
        assert "</html>" in Path(page).read_text("utf-8")
    assert "train.learning_rate" in Path("first/compared.html").read_text("utf-8")
