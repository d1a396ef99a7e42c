"""What is installed, what the machine has, and what is missing for what."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

NEEDED = (
    "mia-augment", "mia-attention", "mia-select", "mia-dpo-train", "mia-cli", "torch", "torchvision", "transformers",
    "accelerate", "peft", "safetensors", "numpy", "pillow", "pydantic", "rapidfuzz", "rich",
)  # fmt: skip
EXTRAS = {
    "pyarrow": ("pyarrow", "parquet in and out: pip install 'mia-augment[parquet]'"),
    "ray": ("ray", "mia augment --engine ray: pip install 'mia-augment[ray]'"),
    "datasets": ("datasets", "rows of the hub, hf://OWNER/NAME: pip install 'mia-augment[hub]'"),
    "openai": ("openai", "answers from a server: pip install 'mia-cli[server]'"),
    "matplotlib": ("matplotlib", "attention plots: pip install 'mia-attention[plot]'"),
    "bitsandbytes": ("bitsandbytes", "train.tuning: qlora (4 bits): pip install 'mia-dpo-train[qlora]'"),
    "tensorboard": ("tensorboard", "training curves in tensorboard: pip install 'mia-dpo-train[tensorboard]'"),
    "wandb": ("wandb", "training curves in Weights & Biases: pip install 'mia-dpo-train[wandb]'"),
    "trackio": ("trackio", "training curves in trackio: pip install trackio"),
    "deepspeed": ("deepspeed", "training with DeepSpeed's ZeRO: pip install 'mia-dpo-train[deepspeed]'"),
    "flash_attn": ("flash-attn", "train.attn_implementation: flash_attention_2"),
}
"""Module -> (package, what it is for)."""

FREE_GB = 5


class Check(BaseModel):
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "missing", "note"]
    text: str


def examine(folder: Path) -> list[Check]:
    """Look at packages, devices, disk and the embedded model.

    Args:
        folder: where results would go: its disk is looked at.
    """
    return [*_packages(), *_devices(), _embedded(), _disk(folder), *_extras()]


def _packages() -> list[Check]:
    found = [Check(what="python", state="ok", text=f"{platform.python_version()}, {platform.system()} {platform.machine()}")]
    for package in NEEDED:
        try:
            found.append(Check(what=package, state="ok", text=version(package)))
        except PackageNotFoundError:
            found.append(Check(what=package, state="missing", text=f"pip install {package}"))
    return found


def _extras() -> list[Check]:
    found = []
    for module, (package, purpose) in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            found.append(Check(what=package, state="note", text=f"not installed; only for {purpose}"))
        else:
            found.append(Check(what=package, state="ok", text="installed"))
    return found


def _devices() -> list[Check]:
    found = [Check(what="cpu", state="ok", text=f"{os.cpu_count()} cores")]
    if importlib.util.find_spec("torch") is None:
        return found
    import torch

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        text = f"{properties.name}, {properties.total_memory / 2**30:.0f} GB"
        found.append(Check(what=f"cuda:{index}", state="ok", text=text))
    if torch.backends.mps.is_available():
        found.append(Check(what="mps", state="ok", text="Apple GPU"))
    if len(found) == 1:
        found.append(Check(what="gpu", state="note", text="none: fine for the embedded model, slow for large ones"))
    return found


def _embedded() -> Check:
    from mia_cli.loading.load import EMBEDDED_FOLDER

    weights = EMBEDDED_FOLDER / "model.safetensors"
    if not weights.is_file():
        return Check(what="embedded model", state="missing", text="pip install --force-reinstall mia-cli")
    return Check(what="embedded model", state="ok", text=f"{weights.stat().st_size / 1e6:.1f} MB")


def _disk(folder: Path) -> Check:
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free / 2**30
    return Check(what="disk", state="ok" if free >= FREE_GB else "note", text=f"{free:.0f} GB free at {place}")
