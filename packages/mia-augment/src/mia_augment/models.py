"""What is known of a model without loading it, and what is read from a loaded one without importing torch."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mia_augment.errors import DataError, ModelError
from mia_augment.storage.reading import read_json

WHOLE_FILE_BYTES = 16 * 2**20
"""Larger files, such as weights, are told apart by their size, first and last megabyte."""
_PART = 2**20
_PICTURES = ("pixel_values", "image_patches", "flattened_patches")
"""How the inputs of models that take pictures begin."""


def model_fingerprint(model: str | Path) -> str:
    """Tells a model from another: a hash over the files of its folder, wherever that lies; or ``hub:`` and its id on a hub."""
    folder = Path(model)
    if not folder.is_dir():
        return f"hub:{model}"
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= WHOLE_FILE_BYTES:
                digest.update(hashlib.file_digest(file, "sha256").digest())
            else:
                digest.update(file.read(_PART))
                file.seek(-_PART, 2)
                digest.update(file.read())
    return digest.hexdigest()


def text_config(model: Any) -> Any:
    """The configuration of a model's language decoder; the model's own where it is of text alone."""
    config = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def image_token_id(model: Any) -> int:
    """Id of the token that stands for visual features in a prompt.

    Raises:
        ModelError: the configuration names none.
    """
    found = _named_token(model.config)
    if found is not None:
        return found
    raise ModelError(
        f"{type(model.config).__name__}: expected a vision-language model with an image token id in its configuration, "
        "found none; "
        "this is no model that takes pictures, or it needs an adapter (see the README of mia-attention)"
    )


def _named_token(config: Any) -> int | None:
    for name in ("image_token_id", "image_token_index"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    value = (getattr(config, "vocabulary_map", None) or {}).get("<image>")
    return int(value) if isinstance(value, int) else None


def barred_tokens(model: Any) -> list[int]:
    """Ids of the tokens that stand for visual features, which no answer may hold.

    There is none in models that read pictures otherwise: by cross-attention, in an encoder of their own, before the text.

    Raises:
        ModelError: the model takes no pictures.
    """
    found = _named_token(model.config)
    if found is None and not takes_pictures(model):
        return [image_token_id(model)]  # raises
    return [] if found is None else [found]


def takes_pictures(model: Any) -> bool:
    """Whether a model has an input for pictures."""
    return any(name.startswith(_PICTURES) for name in _parameters(model))


def _parameters(model: Any) -> Collection[str]:
    """Names of what a model takes, whatever wraps it."""
    forward = getattr(getattr(model, "get_base_model", lambda: model)(), "forward", None)
    return () if forward is None else inspect.signature(forward).parameters


def logits_at(model: Any, positions: Any, inputs: Mapping[str, Any], **keywords: Any) -> Any:
    """Logits at some positions of a batch alone, (batch, positions, vocabulary).

    Most models compute no others (`logits_to_keep`); of one that does all the same, or does not know the word, they are picked.

    Args:
        model: called with `inputs` and `keywords`; whatever wraps a transformers model passes its call on.
        positions: a tensor of integers.
    """
    if takes_pictures(model) and _named_token(model.config) is None:
        positions = positions - inputs["input_ids"].shape[1]  # pictures may stand before the text: counted from the end
    known = "logits_to_keep" in _parameters(model)
    if known:
        keywords["logits_to_keep"] = positions
    logits = model(**inputs, **keywords).logits
    return logits if known and logits.shape[1] == len(positions) else logits[:, positions]


def behind_start(model: Any, answers: Any) -> Any:
    """What the decoder of an encoder-decoder model is given to predict answers: its first token, and all of them but the last.

    Args:
        answers: token ids, (batch, tokens).

    Raises:
        ModelError: the model names no first token.
    """
    owners = (model.config, getattr(model, "generation_config", None), text_config(model))
    names = ("decoder_start_token_id", "bos_token_id")
    found = (getattr(owner, name, None) for name in names for owner in owners)
    start = next((token for token in found if isinstance(token, int)), None)
    if start is None:
        raise ModelError(f"{type(model).__name__}: expected the token that its decoder begins with, found none")
    shifted = answers.roll(1, 1)
    shifted[:, 0] = start
    return shifted


def check_model_folder(folder: Path, name: str) -> None:
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
    if "mm_vision_tower" in value and "vision_config" not in value:
        raise ModelError(
            f"model {name}: {folder} is a checkpoint of LLaVA's original code (mm_vision_tower in its config.json), whose "
            f"weights have other names; write it in transformers' layout: mia convert {folder} --vision-tower CLIP --out DIR, "
            f"with CLIP the folder of {value['mm_vision_tower']} (hf download), or take llava-hf/llava-1.5-7b-hf"
        )
