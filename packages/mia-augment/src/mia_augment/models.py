"""What is known of a model without loading it, and what is read from a loaded one without importing torch."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

from mia_augment.errors import DataError, ModelError
from mia_augment.storage.reading import read_json

WHOLE_FILE_BYTES = 16 * 2**20
"""Larger files, such as weights, are told apart by their size, first and last megabyte."""
_PART = 2**20
_PICTURES = ("pixel_values", "image_patches", "flattened_patches")
"""How the inputs of models that take pictures begin."""
MOST_LOGITS = 2**25
"""So many logits may stand in memory at once (128 MiB in fp32); where a batch needs more, they are made piece by piece."""
_CHANGED_AFTERWARDS: WeakSet[Any] = WeakSet()
"""Output heads whose models do something to the logits behind them."""


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
    positions = _counted(model, positions, inputs)
    known = "logits_to_keep" in _parameters(model)
    if known:
        keywords["logits_to_keep"] = positions
    logits = model(**inputs, **keywords).logits
    return logits if known and logits.shape[1] == len(positions) else logits[:, positions]


def _counted(model: Any, positions: Any, inputs: Mapping[str, Any]) -> Any:
    """Positions of the text; from the end where pictures may stand before it."""
    before = takes_pictures(model) and _named_token(model.config) is None
    return positions - inputs["input_ids"].shape[1] if before else positions


def before_the_head(model: Any, inputs: Mapping[str, Any], positions: Any = None, **keywords: Any) -> tuple[Any, Any] | None:
    """A model's outputs with what its output head is given in the place of `logits`, and the head.

    `head(states)` are the logits, of as many positions at a time as memory holds. None where they would be others than the
    model's: it has no head, or does more to the logits than its head (caps or scales them, bars tokens, adds a bias).

    Args:
        model, inputs, keywords: as for `logits_at`.
        positions: those wanted, likewise; None: all that the model makes logits of.
    """
    inner = getattr(model, "get_base_model", lambda: model)()
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    if head is None or head in _CHANGED_AFTERWARDS:
        return None
    if positions is not None:
        positions = _counted(model, positions, inputs)
        if "logits_to_keep" in _parameters(model):
            keywords["logits_to_keep"] = positions
    outputs, states, logits, as_made = _with_one_position(model, head, inputs, keywords)
    if logits is None or outputs.logits is not logits or not (logits == as_made).all():
        _CHANGED_AFTERWARDS.add(head)
        return None
    outputs.logits = states if positions is None or states.shape[1] == len(positions) else states[:, positions]
    return outputs, head


def _with_one_position(
    model: Any, head: Any, inputs: Mapping[str, Any], keywords: Mapping[str, Any]
) -> tuple[Any, Any, Any, Any]:
    """A model's outputs with logits of the first position alone; what its head was given; the logits that the head gave, and
    a copy of them, which tells whether the model changed them in place. The latter three are None where the head ran otherwise
    than once over rows of positions.
    """
    own, inside = head.forward, vars(head).get("forward")  # one inside moves inputs, where a model is spread over devices
    calls: list[tuple[Any, Any, Any]] = []

    def forward(states: Any) -> Any:
        logits = own(states[:, :1] if states.ndim == 3 else states)
        calls.append((states, logits, logits + 0) if states.ndim == 3 else (None, None, None))
        return logits

    head.forward = forward
    try:
        outputs = model(**inputs, **keywords)
    finally:
        if inside is None:
            del head.forward
        else:
            head.forward = inside
    return (outputs, *calls[0]) if len(calls) == 1 else (outputs, None, None, None)


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
