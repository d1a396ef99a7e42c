"""Single-image instruction rows over drawn pictures: the quickstart's data, in the LLaVA format."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mia_augment.storage import MANIFEST, Manifest, atomic_write, only_writer, read_manifest, write_json, write_manifest

from mia_cli import __version__
from mia_cli.drawn import drawing

ROWS_FILE = "rows.json"
Questions = Literal["every", "one"]


def write_rows(
    folder: Path,
    split: drawing.Split,
    pictures: int,
    *,
    questions: Questions = "every",
    seed: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Manifest:
    """Draw pictures and write LLaVA-style rows about them: ``rows.json`` and ``pictures/*.png``.

    Args:
        folder: what is there already and agrees is kept.
        split: which combinations of attributes to draw (see `drawing.split_of`).
        pictures: how many.
        questions: `every` attribute of each picture in a row of its own, or `one` drawn at random.
        seed: equal seeds give equal files.
    """
    settings = {"split": split, "pictures": pictures, "questions": questions, "seed": seed}
    manifest = Manifest(stage="draw", version=__version__, settings=settings, inputs={}, image_folders=["."])
    found = read_manifest(folder)
    if found is not None and found.same_work(manifest):
        return found
    with only_writer(folder, also=("pictures",)):
        return _draw(folder, split, pictures, questions, seed, manifest, progress)


def _draw(
    folder: Path,
    split: drawing.Split,
    pictures: int,
    questions: Questions,
    seed: int,
    manifest: Manifest,
    progress: Callable[[int, int | None], None] | None,
) -> Manifest:
    (folder / MANIFEST).unlink(missing_ok=True)
    rows: list[dict[str, Any]] = []
    for index in range(pictures):
        rng = random.Random(f"{seed} {split} {index}")
        scene = rng.choice(drawing.scenes(split))
        name = f"pictures/{split}-{index:05}.png"
        with atomic_write(folder / name, "wb") as file:
            drawing.draw_scene(scene, rng)[0].save(file, format="PNG")
        asked = list(drawing.ATTRIBUTES) if questions == "every" else [rng.choice(list(drawing.ATTRIBUTES))]
        rows += [_row(f"{split}-{index:05}-{attribute}", name, scene, attribute) for attribute in asked]
        if progress is not None:
            progress(index + 1, pictures)
    write_json(folder / ROWS_FILE, rows)
    manifest.counts = {"pictures": pictures, "rows": len(rows)}
    write_manifest(folder, manifest)
    return manifest


def _row(row_id: str, image: str, scene: drawing.Scene, attribute: str) -> dict[str, Any]:
    return {
        "id": row_id,
        "image": image,
        "conversations": [
            {"from": "human", "value": f"<image>\n{drawing.QUESTIONS[attribute]}"},
            {"from": "gpt", "value": drawing.true_answer(scene, attribute)},
        ],
    }
