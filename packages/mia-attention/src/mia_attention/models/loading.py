"""Loading a vision-language model with its processor, ready to answer, or saying in one message why not."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mia_augment import MiaError, ModelError, check_model_folder
from mia_augment.prompting import check_chat_template

from mia_attention.models.hub import only_stored


def load_model(
    name: str,
    dtype: str = "auto",
    device: str = "auto",
    *,
    four_bits: Callable[[Any, Any], Any] | None = None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """(model, processor) of a checkpoint, ready to answer.

    Args:
        name: a folder or a Hugging Face id.
        dtype: `auto` (float32 on a CPU, bfloat16 elsewhere), `float32`, `bfloat16` or `float16`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        four_bits: from (configuration, type to compute in) to the quantization to load with, as
            `mia_dpo_train.four_bit_config`; None: none.
        trust_remote_code: run code that comes with the checkpoint; off unless the user asks for it.

    Raises:
        ModelError: there is no such model, or it is none that answers questions about images.
        ConfigError: 4 bits without bitsandbytes.
    """
    folder = Path(name) if Path(name).is_dir() else None
    options = _options(name, folder, trust_remote_code)
    import torch
    import transformers

    _quiet(transformers)
    place = _device(device)
    kind = getattr(torch, dtype) if dtype != "auto" else torch.float32 if place.type == "cpu" else torch.bfloat16
    try:
        quantized = _quantized(name, kind, place, options, four_bits) if four_bits else {}
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            name, dtype=kind, use_safetensors=True, **options, **quantized
        )
        processor = transformers.AutoProcessor.from_pretrained(name, **options)
    except (MiaError, MemoryError):
        raise
    except Exception as error:  # transformers raises anything at damaged files: KeyError, TypeError, SafetensorError ..
        raise ModelError(f"model {name}: cannot be used as a vision-language model: {_told(error)}{_cut(folder)}") from error
    _check_processor(processor, name)
    return (model if quantized else model.to(place)).eval(), processor


def check_loadable(name: str, *, trust_remote_code: bool = False) -> None:
    """Look at a checkpoint's small files, for a refusal before hours of work and not after them; weights are not touched.

    Raises:
        ModelError: there is no such model, or it is none that answers questions about images.
    """
    folder = Path(name) if Path(name).is_dir() else None
    options = _options(name, folder, trust_remote_code)
    import transformers

    _quiet(transformers)
    try:
        config = transformers.AutoConfig.from_pretrained(name, **options)
        processor = transformers.AutoProcessor.from_pretrained(name, **options)
    except Exception as error:  # as in `load_model`
        raise ModelError(f"model {name}: cannot be used as a vision-language model: {_told(error)}") from error
    known = type(config) in transformers.AutoModelForImageTextToText._model_mapping
    if not known and not (trust_remote_code and getattr(config, "auto_map", None)):
        raise ModelError(f"model {name}: cannot be used as a vision-language model: transformers "
                         f"{transformers.__version__} loads the type {config.model_type!r} as none")  # fmt: skip
    _check_processor(processor, name)
    if folder is not None and not any(folder.glob("*.safetensors")):
        raise ModelError(f"model {name}: no weights in safetensors in {folder}; download them, or save the model again")


def _options(name: str, folder: Path | None, trust_remote_code: bool) -> dict[str, bool]:
    """What `from_pretrained` is told of a model whose folder is sound, or which the hub can be asked for."""
    if folder is not None:
        check_model_folder(folder, name)
        return {"trust_remote_code": trust_remote_code}
    return {"trust_remote_code": trust_remote_code, "local_files_only": only_stored(name)}


def _quiet(transformers: Any) -> None:
    """Its remarks are for programmers, and its bars run over ours."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _check_processor(processor: Any, name: str) -> None:
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise ModelError(f"model {name}: its processor ({type(processor).__name__}) has no {part.replace('_', ' ')}; "
                             "expected the checkpoint of a vision-language model with its processor files")  # fmt: skip
    check_chat_template(processor, name)


def _quantized(
    name: str, dtype: Any, place: Any, options: dict[str, bool], four_bits: Callable[[Any, Any], Any]
) -> dict[str, Any]:
    """What `from_pretrained` has to be told."""
    from transformers import AutoConfig

    return {"quantization_config": four_bits(AutoConfig.from_pretrained(name, **options), dtype), "device_map": {"": place}}


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

    own = os.environ.get("LOCAL_RANK")  # set by launchers: one device for each process
    if name == "cuda" and own is not None and torch.cuda.is_available():
        return torch.device("cuda", int(own) % torch.cuda.device_count())
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None or own is None or accelerator.type == "mps":
            return accelerator or torch.device("cpu")
        return torch.device(accelerator.type, int(own) % torch.accelerator.device_count())
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name}: not usable here: {_first_lines(error, 1)}") from error
    return device
