"""A pipeline.yaml small enough for tests that run all of it."""

from __future__ import annotations

from pathlib import Path

import yaml
from mia_cli.drawn.drawn_data import write_rows


def write_pipeline(folder: Path, model: Path | str, **changes: dict) -> Path:
    """A small pipeline.yaml over drawn pictures."""
    settings = {
        "run_dir": "run",
        "data": {"source": "data/rows.json"},
        "model": str(model),
        "augment": {
            "formats": ["sequence", "grid", "pic_in_pic"],
            "grid": {"counts": [2, 4], "cell": 96, "gap": 20, "label": 18},
        },
        "score": {"batch_size": 8, "max_new_tokens": 6, "disturb": False},
        "select": {"attention": False, "min_perplexity": 1.0},
        "report": {"pairs": 6},
        "train": {"max_steps": 2, "accumulation": 2, "gradient_checkpointing": False, "checkpoint_every": 1},
        "evaluate": {"holdout": 0.3, "per_bucket": 2, "batch_size": 8, "max_new_tokens": 6},
    }
    for section, values in changes.items():
        settings[section] = {**settings.get(section, {}), **values}
    write_rows(folder / "data", "train", 40, questions="one")
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path
