"""The scripts that draw the pictures of the pages about one answer and about heads run, and draw something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("make_look_pictures.py", ["where-words.png", "image-words.png"]),
        ("make_head_pictures.py", ["which-heads.png", "head-over-pictures.png", "without-each.png"]),
    ],
)
def test_the_pictures_are_drawn(script: str, names: list[str], tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs" / script, tmp_path], check=True, cwd=tmp_path)
    for name in names:
        assert (ROOT / "docs" / name).is_file()
        with Image.open(tmp_path / name) as picture, Image.open(ROOT / "docs" / name) as kept:
            assert picture.size == kept.size
            colours = picture.convert("RGB").resize((60, 60)).getcolors(3600)
            assert colours is not None
            assert len(colours) > 50
