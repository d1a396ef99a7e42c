"""Where everything lies in a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_augment.storage import read_json

CONFIG = "pipeline.json"
"""The resolved settings of the last run, in the run directory."""
REPORT = "report.html"
COMPARED = "compared.html"
"""Name of the page that compares a run with another."""
POSITION = ".position.json"
"""How far the stage is that is being made, in the run directory while it is."""
LAUNCHED = ".launched"
"""Folder in the run directory where processes that share a stage tell how far they are."""
ABLATION = "ablate"
"""Folder of an ablation within the run directory."""
RESULT, OUTCOMES = "ablation.json", "outcomes.jsonl"
"""What came of it."""


@dataclass(frozen=True)
class Folders:
    """Where the stages of a run directory leave their files."""

    run_dir: Path

    @property
    def samples(self) -> Path:
        return self.run_dir / "augment"

    @property
    def held_out(self) -> Path:
        return self.run_dir / "held_out"

    @property
    def scored(self) -> Path:
        return self.run_dir / "score"

    @property
    def pairs(self) -> Path:
        return self.run_dir / "select"

    @property
    def attention(self) -> Path:
        return self.run_dir / "attention"

    @property
    def trained(self) -> Path:
        return self.run_dir / "train"

    @property
    def evaluated(self) -> Path:
        return self.run_dir / "evaluate"

    @property
    def reported(self) -> Path:
        """Only the report's manifest; the page itself lies in the run directory."""
        return self.run_dir / ".report"

    def places(self) -> dict[str, Path]:
        """Stage -> folder, in the order of a run, for the stages that leave records."""
        return {
            "augment": self.samples,
            "held_out": self.held_out,
            "score": self.scored,
            "select": self.pairs,
            "attention": self.attention,
            "train": self.trained,
            "evaluate": self.evaluated,
        }


def saved_settings(run_dir: Path) -> dict[str, Any]:
    """The settings of a run directory's last run, as they were written; empty where there are none."""
    path = run_dir / CONFIG
    if not path.is_file():
        return {}
    value = read_json(path, "run `mia run` again, it rewrites it")
    return value if isinstance(value, dict) else {}
