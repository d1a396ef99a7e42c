"""Settings to start from that suit a model, for `mia init --model`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mia_select import ADVISED

from mia_cli.config.schema import EMBEDDED_MODEL

PAIRS_PER_STEP = 64
"""Of the paper: 8 devices, a pair at a time, 8 times."""
_PAPERS_MODEL = re.compile(r"llava[-_.]?v?1[._]5", re.IGNORECASE)


class Suited(NamedTuple):
    """What suits a model."""

    values: dict[str, dict[str, Any]]
    """Section -> settings."""
    about: str
    """Why, in a sentence or two."""


def suited_settings(model: str, processes: Callable[[], int], recipe: str | None = None) -> Suited:
    """Settings for a model: the paper's thresholds for LLaVA-1.5, those of its own answers for any other.

    Args:
        model: `embedded`, a folder, or a Hugging Face id.
        processes: counts those that will train together; not asked where it makes no difference.
        recipe: that the file will name; what the embedded model does best with is not for one.
    """
    if model == EMBEDDED_MODEL:
        from mia_cli.drawn.quickstart import BEST, SETTINGS

        best = BEST if recipe is None else {}
        values = {name: {**SETTINGS[name], **best.get(name, {})} for name in ("score", "select", "train", "evaluate", "launch")}
        return Suited(values, "Values that suit the embedded model, which is 5,000 times smaller than LLaVA-1.5.")
    count = processes()
    train = {"per_device_batch_size": 1, "accumulation": max(1, round(PAIRS_PER_STEP / count))}
    step = f"{train['accumulation']} pairs accumulated in {_processes(count)} make the paper's {PAIRS_PER_STEP} a step"
    if is_papers_model(model):
        thresholds: dict[str, dict[str, Any]] = {
            "score": {"layer": "middle"},
            "select": {"calibrate": None, "min_perplexity": 1.1},
        }
        return Suited({**thresholds, "train": train}, f"Values for LLaVA-1.5: thresholds and layer are the paper's; {step}.")
    own: dict[str, dict[str, Any]] = {"score": {"layer": "auto"}, "select": dict(ADVISED)}
    told = "the paper's thresholds hold for LLaVA-1.5, so they, and the layer, are chosen by this model's own answers"
    return Suited({**own, "train": train}, f"Values for {model}: {told}; {step}.")


def is_papers_model(model: str) -> bool:
    """Whether a model is LLaVA-1.5 by its name: that of the hub, of its folder, or of a folder of the hub's cache."""
    *above, own = Path(model).parts or ("",)
    return any(_PAPERS_MODEL.search(name) for name in (own, *(part for part in above if part.startswith("models--"))))


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"each of {count} processes"
