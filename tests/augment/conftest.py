"""A small data set of plain-coloured pictures, each with questions whose answers differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

COLORS = {
    "red": (200, 30, 30),
    "green": (30, 160, 40),
    "blue": (40, 60, 210),
    "yellow": (230, 220, 40),
    "purple": (140, 40, 180),
    "orange": (240, 140, 20),
    "black": (10, 10, 10),
    "gray": (128, 128, 128),
    "brown": (110, 70, 40),
    "pink": (250, 180, 200),
    "navy": (20, 25, 95),
    "teal": (0, 128, 128),
}
QUESTION = "What color is it?"


def llava_row(row_id: Any, image: str, *turns: tuple[str, str]) -> dict[str, Any]:
    """A row as LLaVA-665k has it, `<image>` first."""
    talk = []
    for index, (question, answer) in enumerate(turns):
        talk.append({"from": "human", "value": question if index else f"<image>\n{question}"})
        talk.append({"from": "gpt", "value": answer})
    return {"id": row_id, "image": image, "conversations": talk}


class Data:
    """`source` (a JSON array) and `root` (the pictures), with `rows` as written there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "pictures"
        self.source = folder / "rows.json"
        self.colors = COLORS
        self.rows: list[dict[str, Any]] = []
        for name, color in COLORS.items():
            self.picture(f"plain/{name}.png", color)
            self.rows.append(llava_row(name, f"plain/{name}.png", (QUESTION, f"It is {name}.")))
        self.write()

    def picture(self, name: str, color: tuple[int, int, int], size: tuple[int, int] = (48, 32)) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, color).save(path)
        return path

    def write(self, rows: list[Any] | None = None) -> Path:
        if rows is not None:
            self.rows = rows
        self.source.write_text(json.dumps(self.rows, ensure_ascii=False), encoding="utf-8")
        return self.source


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


@pytest.fixture
def make_row() -> Callable[..., dict[str, Any]]:
    return llava_row


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Name -> bytes of every file a stage has made, its manifest aside (that one holds the seconds taken)."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json")
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read
