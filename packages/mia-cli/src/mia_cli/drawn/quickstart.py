"""`mia quickstart`: drawn pictures and a pipeline.yaml that suits the embedded model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from mia_augment.storage import atomic_write, clear_left_overs_of

from mia_cli.config.commented_yaml import commented_yaml
from mia_cli.config.recipe_files import KEY, laid_under, recipe_settings, without
from mia_cli.config.schema import EMBEDDED_MODEL, PipelineConfig
from mia_cli.drawn import drawing
from mia_cli.drawn.drawn_data import ROWS_FILE, write_rows
from mia_cli.terminal.display import Display, counts_line

PIPELINE = "pipeline.yaml"

SETTINGS: dict[str, Any] = {
    "augment": {
        "formats": {"sequence": 0.7, "grid": 0.15, "pic_in_pic": 0.15},
        "sequence": {"counts": {2: 1, 3: 1, 4: 1, 5: 1}},
        "grid": {"counts": {2: 1, 3: 1, 4: 1}, "cell": drawing.SIZE, "gap": 20, "label": 18},
    },
    "score": {"layer": 3, "batch_size": 32, "max_new_tokens": 12, "disturb": False},
    "select": {"calibrate": "auto", "min_perplexity": 1.0},
    "train": {
        "tuning": "full",
        "gamma": 1.0,
        "epochs": 3,
        "learning_rate": 5e-5,
        "per_device_batch_size": 8,
        "accumulation": 2,
        "gradient_checkpointing": False,
    },
    "evaluate": {"batch_size": 32, "max_new_tokens": 12},
    "report": {"title": "MIA quickstart"},
    "launch": {"processes": 1},
}
"""What differs from the paper's defaults, because the embedded model is 5,000 times smaller than LLaVA-1.5."""

BEST: dict[str, Any] = {
    "score": {"layer": "alone", "confusions": True, "own_answer": True},
    "select": {
        "chosen": "own",
        "correct": "likely",
        "rejected": "both",
        "calibrate": {"by": "groups"},
        "min_perplexity": None,
        "max_pairs": 1000,
    },
    "train": {"beta": 1.0, "learning_rate": 1e-4},
}
"""What differs besides where no recipe is named: the best that is known for short answers, and no ground truth is used."""

PICTURES, PICTURES_WITH_RECIPE = 400, 800
"""Drawn for training by default: a recipe makes fewer pairs of them, as one question in four gives one by the paper's."""


def prepare(
    directory: Path,
    display: Display,
    *,
    pictures: int | None,
    test_pictures: int,
    per_bucket: int,
    seed: int,
    model: str,
    recipe: str | None = None,
) -> Path:
    """Draw the data, unless it is there, and write the pipeline.yaml; returns its path.

    What a recipe sets it decides, without one `BEST` does; the rest suits the embedded model. A pipeline.yaml that is there
    and was edited is kept, so that one can play with the settings.

    Args:
        pictures: for training; None: as many as the settings need.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pictures = pictures or (PICTURES if recipe is None else PICTURES_WITH_RECIPE)
    for split, number in (("train", pictures), ("test", test_pictures)):
        folder = directory / "data" / split
        with display.progress(f"draw {split}") as progress:
            manifest = write_rows(folder, split, number, seed=seed, progress=progress)  # type: ignore[arg-type]
        display.say("draw", f"{split}: {counts_line(manifest.counts)} -> {folder}", "dim")
    path = directory / PIPELINE
    text = _yaml(per_bucket, seed, model, directory, recipe)
    if path.is_file() and path.read_text("utf-8") != text and _edited(path):
        display.say("settings", f"{path} was edited: kept as it is; delete it for the quickstart's own")
        return path
    clear_left_overs_of(path)
    clear_left_overs_of(_written(path))
    with atomic_write(path) as file:
        file.write(text)
    with atomic_write(_written(path)) as file:
        file.write(text)
    return path


def _written(path: Path) -> Path:
    """Copy of the pipeline.yaml as the quickstart wrote it: tells whether a person changed it since."""
    return path.with_name(f".{path.name}.written")


def _edited(path: Path) -> bool:
    written = _written(path)
    return not written.is_file() or written.read_text("utf-8") != path.read_text("utf-8")


def _yaml(per_bucket: int, seed: int, model: str, directory: Path, recipe: str | None) -> str:
    local = Path(model).expanduser()
    name = str(local.resolve()) if model != EMBEDDED_MODEL and local.is_dir() else model
    if recipe is None:
        suited = laid_under(BEST, SETTINGS, PipelineConfig)
    else:
        suited = without(SETTINGS, recipe_settings(recipe), PipelineConfig)
    settings = {
        **({} if recipe is None else {KEY: recipe}),
        **suited,
        "run_dir": "run",
        "seed": seed,
        "data": {"source": f"data/train/{ROWS_FILE}"},
        "model": {"name": name},
        "evaluate": {"source": f"data/test/{ROWS_FILE}", "per_bucket": per_bucket, **suited.get("evaluate", {})},
    }
    head = f"# Written by `mia quickstart {shlex.quote(str(directory))}`: change what you like and call it again.\n"
    return head + commented_yaml(settings)
