"""What the trainer must know about a model, read from its configuration and modules; no model's numbers stand here."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mia_augment import ModelError, barred_tokens, text_config
from torch import nn

Blocks = Literal["none", "images", "prompt"]

_TYPE_NAMES = ("mm_token_type_ids", "token_type_ids")
_LINEAR_LAYERS = ("linear_attention", "mamba", "conv", "recurrent", "ssm")
_OTHER_SENSES = ("audio", "speech")
_VISION_NAMES = ("vision_tower", "visual", "vision_model", "vision_encoder", "image_tower")


def base_model(model: nn.Module) -> Any:
    """The Hugging Face model inside a PeftModel, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]


@dataclass(frozen=True)
class ModelFacts:
    """How a family wants its inputs."""

    model_type: str
    mrope: bool
    """Positions are (3, batch, tokens), from the model's own `get_rope_index`."""
    blocks: Blocks
    """Tokens that attend to each other in both directions: none, those of one image, or the whole prompt."""
    window: int | None
    """Width of sliding attention, where some layers have it."""
    mask_per_layer_type: bool
    """The model takes a dict of masks, one per kind of layer."""
    linear_layers: bool
    """Some layers carry a state instead of attending: answers can't share one sequence."""
    types: str | None
    """Name under which the model takes the types of its tokens (image or text), where it does."""
    takes: frozenset[str]
    """Names of its inputs."""
    encodes: bool
    """The prompt goes through an encoder, and answers through a decoder that begins with a token of its own."""
    max_positions: int | None
    """Length the language model was built for."""

    @property
    def response_type(self) -> int:
        """Token type of response tokens."""
        return 1 if self.blocks == "prompt" else 0


def model_facts(model: nn.Module) -> ModelFacts:
    """Read the facts.

    Raises:
        ModelError: no vision-language model.
    """
    base = base_model(model)
    config = base.config
    barred_tokens(base)
    text = text_config(base)
    layer_types = getattr(text, "layer_types", None) or []
    window = getattr(text, "sliding_window", None)
    sliding = "sliding_attention" in layer_types or (not layer_types and window is not None)
    names = " ".join(layer_types)
    takes = frozenset(inspect.signature(base.forward).parameters)
    return ModelFacts(
        model_type=config.model_type,
        mrope=hasattr(getattr(base, "model", None), "get_rope_index"),
        blocks=_blocks(config.model_type, text),
        window=window if sliding else None,
        mask_per_layer_type=sliding and bool(layer_types),
        linear_layers=any(kind in names for kind in _LINEAR_LAYERS),
        types=type_name(takes),
        takes=takes,
        encodes=bool(getattr(config, "is_encoder_decoder", False)),
        max_positions=getattr(text, "max_position_embeddings", None),
    )


def _blocks(model_type: str, text: Any) -> Blocks:
    if model_type.startswith("paligemma"):
        return "prompt"
    told = getattr(text, "use_bidirectional_attention", None) == "vision"  # Gemma 4
    return "images" if told or (model_type.startswith("gemma3") and not model_type.startswith("gemma3n")) else "none"


def type_name(names: Any) -> str | None:
    """Which of some names (a processor's outputs, a model's inputs) tells image tokens from text tokens."""
    return next((name for name in _TYPE_NAMES if name in names), None)


def module_path(root: nn.Module, wanted: nn.Module) -> str:
    """Dotted name of a module inside another."""
    for name, module in root.named_modules():
        if module is wanted:
            return str(name)
    raise ModelError(f"{type(wanted).__name__} is no part of {type(root).__name__}")


def language_model(model: nn.Module) -> tuple[str, nn.Module]:
    """Dotted name and module of the language model (without its output head)."""
    base = base_model(model)
    decoder: nn.Module = base.get_decoder()
    if decoder is base or decoder is base.model:
        raise ModelError(f"{type(base).__name__}: its language model was not found (no language_model or text_model)")
    return module_path(base, decoder), decoder


def linear_names(module: nn.Module) -> list[str]:
    """Dotted names of the linear layers inside a module (also quantized ones, which derive from nn.Linear)."""
    return [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]


def vision_tower(model: nn.Module) -> tuple[str, nn.Module] | None:
    """Dotted name and module of the vision tower; None: not found under a usual name."""
    base = base_model(model)
    for name, module in base.named_modules():
        if name.rsplit(".", 1)[-1] in _VISION_NAMES:
            return name, module
    return None


def projector_names(model: nn.Module) -> list[str]:
    """Dotted names of the modules between vision tower and language model (in Qwen-VL the last ones of the tower).

    Raises:
        ModelError: none was found.
    """
    base = base_model(model)
    tower = vision_tower(model)
    inner = base.model
    prefix = module_path(base, inner)
    taken = {language_model(model)[0], tower[0] if tower else ""}
    children = [f"{prefix}.{name}" for name, module in inner.named_children() if any(True for _ in module.parameters())]
    found = [name for name in children if name not in taken and not any(word in name for word in _OTHER_SENSES)]
    if not found and tower:
        found = [f"{tower[0]}.{name}" for name, _ in tower[1].named_children() if "merger" in name]
    if not found:
        raise ModelError(f"{type(base).__name__}: no projector was found between vision tower and language model")
    return [name for part in found for name in _without_lists(base, part)]


def _without_lists(base: Any, name: str) -> list[str]:
    """A module's name; for a list of modules, which no adapter can wrap, the names of its members."""
    module = base.get_submodule(name)
    if not isinstance(module, nn.ModuleList | nn.ModuleDict):
        return [name]
    return [each for member, _ in module.named_children() for each in _without_lists(base, f"{name}.{member}")]


def model_device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
