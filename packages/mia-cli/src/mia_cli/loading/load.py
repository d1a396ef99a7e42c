"""Loading the model to be aligned, once for all stages of a process."""

from __future__ import annotations

import gc
import os
import warnings
from pathlib import Path
from typing import Any

from mia_augment import DataError, MiaError, ModelError, model_fingerprint
from mia_augment.storage import read_json

from mia_cli.config.schema import EMBEDDED_MODEL, ModelSettings, home
from mia_cli.loading.hub import only_stored
from mia_cli.loading.template_check import check_chat_template

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
    """Load a vision-language model, ready to answer, and its processor.

    Args:
        name: `embedded`, a folder or a Hugging Face id.
        dtype: `auto` (float32 on a CPU and for the embedded model, bfloat16 elsewhere), `float32`, `bfloat16` or `float16`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        quantization: `4bit` (the language model in NF4, for training adapters on it) or `none`.
        trust_remote_code: run code that comes with the checkpoint; off unless the user asks for it.

    Raises:
        ModelError: there is no such model, or it is none that answers questions about images.
        ConfigError: 4 bits without bitsandbytes.
    """
    folder = model_folder(name)
    where = str(folder or name)
    options = {"trust_remote_code": trust_remote_code}
    if folder is not None:
        check_folder(folder, name)
    else:
        options["local_files_only"] = only_stored(name)
    import torch
    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    place = _device(device)
    exact = place.type == "cpu" or name == EMBEDDED_MODEL
    kind = getattr(torch, dtype) if dtype != "auto" else torch.float32 if exact else torch.bfloat16
    try:
        quantized = _in_four_bits(where, kind, place, options) if quantization == "4bit" else {}
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            where, dtype=kind, use_safetensors=True, **options, **quantized
        )
        processor = transformers.AutoProcessor.from_pretrained(where, **options)
    except (MiaError, MemoryError):
        raise
    except Exception as error:  # transformers raises anything at damaged files: KeyError, TypeError, SafetensorError ..
        raise ModelError(f"model {name}: cannot be used as a vision-language model: {_told(error)}{_cut(folder)}") from error
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise ModelError(f"model {name}: its processor ({type(processor).__name__}) has no {part.replace('_', ' ')}; "
                             "expected the checkpoint of a vision-language model with its processor files")  # fmt: skip
    check_chat_template(processor, name)
    return (model if quantized else model.to(place)).eval(), processor


def _in_four_bits(where: str, dtype: Any, place: Any, options: dict[str, bool]) -> dict[str, Any]:
    """What `from_pretrained` has to be told."""
    from mia_dpo_train import four_bit_config
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(where, **options)
    return {"quantization_config": four_bit_config(config, dtype), "device_map": {"": place}}


def check_folder(folder: Path, name: str) -> None:
    """Raise ModelError unless a folder looks like a Hugging Face model's; needs no torch."""
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"model {name}: {folder} has no config.json; expected a Hugging Face model folder")
    try:
        value = read_json(config, "download the model again")
    except DataError as error:
        raise ModelError(f"model {name}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"model {name}: {config}: expected an object with keys and values; download the model again")


def _told(error: Exception) -> str:
    """An error of another library: its text, and its class where that says more."""
    plain = isinstance(error, OSError | ValueError | ImportError | RuntimeError) and str(error)
    return _first_lines(error) if plain else f"{type(error).__name__}: {_first_lines(error)}"


def _cut(folder: Path | None) -> str:
    """Which weights of a folder are cut off or damaged, if any: the libraries' errors do not name the file."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")) if folder else ():
        try:
            with safe_open(path, "pt"):
                pass
        except Exception as error:  # SafetensorError is only one of them
            return f"; {path} is damaged ({_first_lines(error)}): download it again"
    return ""


def _first_lines(error: Exception, lines: int = 3) -> str:
    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    short = " ".join(text[:lines])
    return short if len(short) <= 400 else f"{short[:400]} ..."


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        own = os.environ.get("LOCAL_RANK")  # set by launchers: one device for each process
        if accelerator is None or own is None or accelerator.type == "mps":
            return accelerator or torch.device("cpu")
        return torch.device(accelerator.type, int(own) % torch.accelerator.device_count())
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name}: not usable here: {_first_lines(error, 1)}") from error
    return device


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
            check_folder(folder, self.settings.name)

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
