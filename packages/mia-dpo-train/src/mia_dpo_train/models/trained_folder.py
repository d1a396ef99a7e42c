"""What a folder of the stage `train` holds, and putting it into a model. Importing this needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mia_augment import DataError, ModelError
from mia_augment.storage import read_json

ADAPTER_CONFIG = "adapter_config.json"
"""Tells an adapter from a whole model."""


def trained_weights(folder: Path) -> Path:
    """What a training folder holds: its adapter, or after full fine-tuning the model. An adapter's folder stands for itself.

    Raises:
        DataError: neither is there, or its configuration is damaged.
    """
    for candidate, mark in ((folder, ADAPTER_CONFIG), (folder / "adapter", ADAPTER_CONFIG), (folder / "model", "config.json")):
        if (candidate / mark).is_file():
            if not isinstance(read_json(candidate / mark, "train again"), dict):
                raise DataError(f"{candidate / mark}: expected an object with keys and values; train again")
            return candidate
    raise DataError(f"{folder}: no adapter there; expected the folder that `mia train` wrote (with adapter/ or model/)")


def is_adapter(weights: Path) -> bool:
    """Whether what was trained is an adapter, which goes beside its model; otherwise it is a model of its own."""
    return (weights / ADAPTER_CONFIG).is_file()


def with_adapter(model: Any, adapter: Path, name: str) -> Any:
    """The model with an adapter beside its layers, for answering.

    Args:
        name: the model's, for the error.

    Raises:
        ModelError: the adapter is damaged or was trained for another model.
    """
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(adapter)).eval()
    except MemoryError:
        raise
    except Exception as error:  # peft and safetensors raise anything at damaged files
        said = f"{type(error).__name__}: {error}"
        raise ModelError(f"{adapter}: this adapter does not fit the model {name}: {said}") from error
