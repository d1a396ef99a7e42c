"""Loading the model to be aligned, once for all stages of a process."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from mia_augment import ModelError, check_model_folder, model_fingerprint

from mia_cli.config.schema import EMBEDDED_MODEL, ModelSettings, home

EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded"


def model_folder(name: str) -> Path | None:
    """Folder of a model on this machine; None: `name` is a Hugging Face id."""
    if name == EMBEDDED_MODEL:
        if not (EMBEDDED_FOLDER / "config.json").is_file():
            raise ModelError(f"the embedded model is missing from {EMBEDDED_FOLDER}; reinstall mia-cli")
        return EMBEDDED_FOLDER
    path = home(Path(name))
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(
            f"model {name}: no such folder; expected a Hugging Face model folder, an id such as 'owner/name', or 'embedded'"
        )
    return None


def load(
    name: str, dtype: str = "auto", device: str = "auto", *, quantization: str = "none", trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """(model, processor), as `mia_attention.load_model`, also of the embedded model, which is float32 unless told otherwise.

    Args:
        quantization: `4bit` (the language model in NF4, for training adapters on it) or `none`.
    """
    from mia_attention import load_model
    from mia_dpo_train import four_bit_config

    folder = model_folder(name)
    exact = "float32" if name == EMBEDDED_MODEL and dtype == "auto" else dtype
    four_bits = four_bit_config if quantization == "4bit" else None
    return load_model(str(folder or name), exact, device, four_bits=four_bits, trust_remote_code=trust_remote_code)


def check_loads(name: str, *, trust_remote_code: bool = False) -> None:
    """Raise ModelError where a model cannot be loaded, as far as its small files tell; the embedded one is sound."""
    folder = model_folder(name)
    if name == EMBEDDED_MODEL:
        return
    if folder is not None:
        check_model_folder(folder, name)  # needs no torch
    from mia_attention import check_loadable

    check_loadable(str(folder or name), trust_remote_code=trust_remote_code)


class SharedModel:
    """A model loaded when it is first needed, then shared by all stages of the process."""

    def __init__(self, settings: ModelSettings, *, trust_remote_code: bool = False) -> None:
        self.settings = settings
        self._trust = trust_remote_code
        self._loaded: tuple[Any, Any] | None = None
        self._id: str | None = None

    @property
    def id(self) -> str:
        """Tells this model from another, without loading it: name and fingerprint of its folder, how it is loaded."""
        if self._id is None:
            settings = self.settings
            folder = model_folder(settings.name)
            named = settings.name if folder is None else f"{folder.resolve().name} {model_fingerprint(folder)[:16]}"
            self._id = " ".join([named, settings.dtype] + [settings.quantization] * (settings.quantization != "none"))
        return self._id

    @property
    def place(self) -> str:
        """Its folder on this machine, or its id on the hub."""
        return str(model_folder(self.settings.name) or self.settings.name)

    def check(self) -> None:
        """Raise ModelError where the model's folder is none; loads nothing."""
        folder = model_folder(self.settings.name)
        if folder is not None:
            check_model_folder(folder, self.settings.name)

    def check_loadable(self) -> None:
        """Raise ModelError where the model's small files tell that it cannot be loaded, or it cannot be had; needs torch."""
        check_loads(self.settings.name, trust_remote_code=self._trust)

    def get(self) -> tuple[Any, Any]:
        """(model, processor)"""
        if self._loaded is None:
            s = self.settings
            self._loaded = load(s.name, s.dtype, s.device, quantization=s.quantization, trust_remote_code=self._trust)
        return self._loaded

    def take(self) -> tuple[Any, Any]:
        """(model, processor) for someone who changes the model: the next `get` loads it anew."""
        loaded = self.get()
        self.release()
        return loaded

    def release(self) -> None:
        """Forget the model; the next `get` loads it anew."""
        self._loaded = None
        gc.collect()
