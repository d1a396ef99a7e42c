"""Configuration and names of weights of LLaVA's original code, in transformers' words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mia_augment import ModelError
from mia_augment.storage import read_json

_NAMES = (
    ("model.vision_tower.vision_tower.", "vision_tower."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.image_newline", None),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
"""Beginnings of names: theirs, ours; None: is left out. The first that fits counts."""
_TEXT_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "initializer_range", "rms_norm_eps", "rope_theta", "attention_bias", "bos_token_id",
    "eos_token_id", "tie_word_embeddings",
)  # fmt: skip
EMBEDDINGS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
"""Weights with a row for every token."""


def renamed(name: str) -> str | None:
    """A weight's name in transformers' layout; None: it is no weight there."""
    if name.endswith(("rotary_emb.inv_freq", "position_ids")):
        return None
    for theirs, ours in _NAMES:
        if name.startswith(theirs):
            return None if ours is None else ours + name[len(theirs) :]
    raise ModelError(f"weight {name}: not of LLaVA-1.5; expected names that begin with model. or lm_head.")


def read_original(checkpoint: Path, vision_tower: Path | None) -> Mapping[str, Any]:
    """The configuration of a checkpoint that can be converted; imports no torch.

    Raises:
        ModelError: it is none, or there is no vision tower in the folder that is given.
    """
    if vision_tower is not None and not (vision_tower / "config.json").is_file():
        raise ModelError(f"{vision_tower} has no config.json; expected the folder of a CLIP model")
    file = checkpoint / "config.json"
    if not file.is_file():
        raise ModelError(f"{checkpoint} has no config.json; expected a checkpoint of LLaVA's original code")
    if any((checkpoint / name).is_file() for name in ("adapter_config.json", "non_lora_trainables.bin")):
        raise ModelError(
            f"{checkpoint} holds a LoRA adapter of LLaVA's original code; expected whole weights: merge it first, with its "
            "scripts/merge_lora_weights.py"
        )
    config = read_json(file, "download the model again")
    if not isinstance(config, dict):
        raise ModelError(f"{file}: expected an object with keys and values; download the model again")
    check_kind(config, str(checkpoint))
    return config


def check_kind(config: Mapping[str, Any], where: str) -> None:
    """Raise ModelError unless the configuration is that of a LLaVA-1.5 of the original code.

    Only what transformers' LLaVA computes alike can be converted.
    """
    if "mm_vision_tower" not in config:
        raise ModelError(f"{where}: expected a checkpoint of LLaVA's original code (mm_vision_tower in its config.json)")
    wanted: tuple[tuple[str, Any, Iterable[Any], str], ...] = (
        ("model_type", config.get("model_type"), ("llava", "llava_llama"), "on Llama or Vicuna"),
        ("mm_projector_type", config.get("mm_projector_type", "linear"), ("mlp2x_gelu",), "as LLaVA-1.5 has"),
        ("image_aspect_ratio", config.get("image_aspect_ratio") or "square", ("square", "pad"), "as LLaVA-1.5 has"),
        ("mm_use_im_start_end", bool(config.get("mm_use_im_start_end")), (False,), "as LLaVA-1.5 has"),
        ("mm_vision_select_feature", config.get("mm_vision_select_feature", "patch"), ("patch", "cls_patch"), "of CLIP"),
    )
    for key, value, known, why in wanted:
        if value not in known:
            raise ModelError(
                f"{where}: {key} is {value!r}: expected {' or '.join(map(repr, known))}, {why}; other checkpoints of that code "
                "stand in transformers' layout as llava-hf/llava-v1.6-.., or are converted by transformers' own scripts"
            )


def llava_config(config: Mapping[str, Any], vision: Any, rows: int, image_token: int) -> Any:
    """transformers' configuration of the same model.

    Args:
        config: of the original code.
        vision: `CLIPVisionConfig` of the vision tower.
        rows: tokens of the vocabulary, the image token included.
        image_token: its id.
    """
    from transformers import LlamaConfig, LlavaConfig

    known = {key: config[key] for key in _TEXT_KEYS if config.get(key) is not None}
    if config.get("rope_scaling"):
        known["rope_scaling"] = config["rope_scaling"]
    side = vision.image_size // vision.patch_size
    whole = config.get("mm_vision_select_feature") == "cls_patch"
    return LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**known, vocab_size=rows, pad_token_id=config.get("pad_token_id") or 0),
        image_token_index=image_token,
        image_seq_length=side * side + whole,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="full" if whole else "default",
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
        tie_word_embeddings=bool(known.get("tie_word_embeddings", False)),
        architectures=["LlavaForConditionalGeneration"],
    )
