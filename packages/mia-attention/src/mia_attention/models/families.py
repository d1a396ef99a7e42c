"""The table of model families: what is known of each beyond transformers' conventions, by `config.model_type`.

Most families need one function, their pixel layout: from what their processor made of a picture (values in 0..1) to the mean
brightness that each visual token sees, in the order of the tokens. A family that is not in the table gets masses of whole
images. To add one: a row in `FAMILIES`, its function, and a tiny build of it for the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mia_attention.models.adapters import Adapter

Brightness = Callable[[Any, Any, Mapping[str, Any]], Tensor]
"""(model, processor, processed picture) -> (tokens,) in 0..1; 0 for tokens that see no pixel, as newline tokens."""


def patch_means(pixels: Tensor, patch: int) -> Tensor:
    """Mean over square patches and channels: (n, channels, height, width) -> (n, height // patch, width // patch)."""
    return nn.functional.avg_pool2d(pixels.float().mean(1, keepdim=True), patch)[:, 0]


def llava(model: Any, processor: Any, features: Mapping[str, Any]) -> Tensor:
    """One crop, row by row."""
    return patch_means(features["pixel_values"][:1], _side(model.config.vision_config.patch_size)).flatten()


def gemma3(model: Any, processor: Any, features: Mapping[str, Any]) -> Tensor:
    """Crops one after another (the whole picture first), k x k patches pooled into a token, row by row."""
    vision = model.config.vision_config
    patches, tokens = vision.image_size // vision.patch_size, round(model.config.mm_tokens_per_image**0.5)
    return patch_means(features["pixel_values"], vision.patch_size * (patches // tokens)).flatten()


def qwen_vl(model: Any, processor: Any, features: Mapping[str, Any]) -> Tensor:
    """Rows of flattened patches, already in the order in which merge_size^2 of them become a token."""
    rows = int(features["image_grid_thw"][0].prod())
    merged = processor.image_processor.merge_size**2
    pixels: Tensor = features["pixel_values"][:rows]
    return pixels.float().mean(-1).view(-1, merged).mean(-1)


def internvl(model: Any, processor: Any, features: Mapping[str, Any]) -> Tensor:
    """Tiles row by row, the thumbnail last."""
    count = features["pixel_values"].shape[0]
    patch = _side(model.config.vision_config.patch_size) * round(1 / model.config.downsample_ratio)
    return patch_means(features["pixel_values"][:count], patch).flatten()


def idefics3(model: Any, processor: Any, features: Mapping[str, Any]) -> Tensor:
    """Tiles row by row, the whole picture last; scale_factor^2 patches become a token."""
    patch = _side(model.config.vision_config.patch_size) * model.config.scale_factor
    return patch_means(features["pixel_values"][0], patch).flatten()


def anyres(model: Any, processor: Any, features: Mapping[str, Any], *, full: bool) -> Tensor:
    """LLaVA-NeXT and OneVision: the whole picture, then its tiles without padding, a newline token after each row."""
    crops = features["pixel_values"][0]
    if int(features.get("batch_num_images", [1])[0]) > 1:  # OneVision: among several images, the whole picture only
        crops = crops[:1]
    patches = patch_means(crops, _side(model.config.vision_config.patch_size)).flatten(1)[..., None]
    packer: Any = [module for module in model.modules() if hasattr(module, "pack_image_features")][-1]
    keywords = {"vision_feature_select_strategy": "full"} if full else {}
    size = torch.as_tensor(features["image_sizes"])[:1]
    packed: list[Tensor]
    packed, _ = packer.pack_image_features([patches], size, image_newline=torch.zeros(1), **keywords)
    return packed[0][:, 0]


def pixtral(model: Any, processor: Any, features: Mapping[str, Any]) -> Tensor:
    """Row by row at the picture's own size; spatial_merge_size^2 patches become a token."""
    height, width = (int(side) for side in features["image_sizes"][0])
    return patch_means(
        features["pixel_values"][:1, :, :height, :width], processor.patch_size * processor.spatial_merge_size
    ).flatten()


@dataclass(frozen=True)
class Family:
    """What is known of a model family.

    Attributes:
        layout: how pixels lie in visual tokens; None: boxes cannot be mapped, only whole images can.
        among_several: a picture is processed otherwise where the prompt holds several.
        refused: why attention on its images cannot be read; None: it can.
        adapter: of a model that does not follow transformers' conventions.
    """

    layout: Brightness | None = None
    among_several: bool = False
    refused: str | None = None
    adapter: Adapter | None = None


FAMILIES: dict[str, Family] = {
    "llava": Family(llava),
    "llava_next": Family(partial(anyres, full=True)),
    "llava_onevision": Family(partial(anyres, full=False), among_several=True),
    "qwen2_vl": Family(qwen_vl),
    "qwen2_5_vl": Family(qwen_vl),
    "qwen3_vl": Family(qwen_vl),
    "internvl": Family(internvl),
    "idefics3": Family(idefics3),
    "smolvlm": Family(idefics3),
    "gemma3": Family(gemma3),
    "mistral3": Family(pixtral),
}

UNKNOWN = Family()


def family_of(model: Any) -> Family:
    """The row of a model; an empty one for a family that is not in the table."""
    return FAMILIES.get(getattr(model.config, "model_type", ""), UNKNOWN)


def register_adapter(model_type: str, adapter: Adapter) -> None:
    """Use `adapter` for models whose configuration has this `model_type`."""
    FAMILIES[model_type] = Family(adapter=adapter)


def adapter_of(model: Any) -> Adapter | None:
    """The adapter registered for a model, None for models that need none."""
    return family_of(model).adapter


def _side(patch_size: int | list[int] | tuple[int, ...]) -> int:
    return patch_size if isinstance(patch_size, int) else patch_size[0]
