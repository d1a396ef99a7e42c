"""Exact DPO on multi-image preference pairs, with shared prefixes and stored reference log-probs.

Names are imported when first used, so that `import mia_dpo_train.settings` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mia_dpo_train.environment import check_environment as check_environment
    from mia_dpo_train.export import MergeReport as MergeReport
    from mia_dpo_train.export import export_merged as export_merged
    from mia_dpo_train.quantize import four_bit_config as four_bit_config
    from mia_dpo_train.settings import LoraSettings as LoraSettings
    from mia_dpo_train.settings import TrainSettings as TrainSettings
    from mia_dpo_train.stage import train_pairs as train_pairs
    from mia_dpo_train.trainer import TrainResult as TrainResult
    from mia_dpo_train.trainer import train as train

__version__ = "0.1.0"

_HOMES = {
    "LoraSettings": "settings",
    "MergeReport": "export",
    "TrainResult": "trainer",
    "TrainSettings": "settings",
    "check_environment": "environment",
    "export_merged": "export",
    "four_bit_config": "quantize",
    "train": "trainer",
    "train_pairs": "stage",
}

__all__ = [
    "LoraSettings",
    "MergeReport",
    "TrainResult",
    "TrainSettings",
    "check_environment",
    "export_merged",
    "four_bit_config",
    "train",
    "train_pairs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
