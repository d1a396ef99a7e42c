"""The script that draws the pictures of "Where did this word come from?" runs, and draws something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]


def test_the_pictures_are_drawn(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "make_look_pictures.py", tmp_path], check=True, cwd=tmp_path)
    for name in ("where-words.png", "image-words.png"):
        assert (ROOT / "docs" / name).is_file()
        with Image.open(tmp_path / name) as picture, Image.open(ROOT / "docs" / name) as kept:
            assert picture.size == kept.size
            colours = picture.convert("RGB").resize((60, 60)).getcolors(3600)
            assert colours is not None
            assert len(colours) > 50
