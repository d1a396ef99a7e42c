"""What settings ask of a machine. Importing this needs no torch, so that a pipeline can be checked before a model loads."""

from __future__ import annotations

import importlib.util
import os

from mia_augment import ConfigError

from mia_dpo_train.settings import TrainSettings


def check_environment(settings: TrainSettings) -> None:
    """Fail on what the settings ask for and this machine has not, before a model is loaded.

    Raises:
        ConfigError: a package or a device is missing, with how to get it.
    """
    if settings.tuning == "qlora":
        require_bitsandbytes("tuning qlora")
    if settings.attn_implementation == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise ConfigError("attn_implementation flash_attention_2 needs the package flash-attn; install it or choose sdpa")
    if settings.trackers != "auto":
        for name in settings.trackers:
            if importlib.util.find_spec(name) is None:
                package = name if name == "trackio" else f"'mia-dpo-train[{name}]'"  # it holds Pillow back, so it is no extra
                raise ConfigError(f"tracker {name} is not installed: pip install {package}, or leave it out")
    if settings.precision == "bf16":
        import torch

        if torch.cuda.is_available() and not has_bf16():
            raise ConfigError("precision bf16: this GPU has no bf16; set precision: fp32")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and settings.tuning == "full" and settings.reference == "online":
        raise ConfigError("reference online with tuning full would hold a second model in every process; set reference: stored")


def has_bf16() -> bool:
    """Whether there is a GPU that computes in bf16; older ones only pretend to, far more slowly than in fp32."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def require_bitsandbytes(what: str) -> None:
    """Raise ConfigError, saying what needs it and how to get it, where bitsandbytes is missing."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(f"{what} needs bitsandbytes: pip install 'mia-dpo-train[qlora]'")
