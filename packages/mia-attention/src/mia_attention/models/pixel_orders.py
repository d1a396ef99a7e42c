"""In which order a model's visual tokens see the pixels that its processor gives it, guessed by shape.

A guess is a function of what the processor made of one picture and of how many tokens it became; it returns the mean of the
pixels that each token sees, in the order of the tokens, or None where the shapes do not fit. Which guess is right for a model
is found by painting (`mia_attention.models.painting`): nothing here names a family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mia_attention.models.families import patch_means

Guess = Callable[[Any, Any, Mapping[str, Any], int], Tensor | None]
"""(model, processor, processed picture, tokens) -> (tokens,)."""


_GRIDS = (
    "image_grid_thw", "grid_thws", "image_grid_hws", "image_grid_hw", "spatial_shapes", "image_spatial_shapes", "tgt_sizes",
    "target_sizes",
)  # fmt: skip
"""Outputs that hold rows and columns of patches, or frames before them."""


def _grid(features: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns of patches of the first picture, from whatever output has them."""
    for name in _GRIDS:
        value = features.get(name)
        if torch.is_tensor(value) and value.dim() >= 2 and value.shape[-1] in (2, 3):
            height, width = value.reshape(-1, value.shape[-1])[0, -2:].tolist()
            return int(height), int(width)
    return None


def _pixels(features: Mapping[str, Any]) -> Tensor | None:
    """The pictures as numbers, under whichever of the usual names."""
    found = (value for name, value in features.items() if name.startswith("pixel_values") and torch.is_tensor(value))
    return next(found, None)


def _patch_rows(features: Mapping[str, Any], count: int) -> Tensor | None:
    """Mean of each of the first picture's patches, where the processor gives patches: (count,)."""
    pixels = _pixels(features)
    if pixels is None or pixels.dim() < 2:
        return None
    if pixels.dim() == 3 and pixels.shape[0] >= 1 and pixels.shape[1] >= count and pixels.shape[1] != 3:
        pixels = pixels[0]  # (pictures, patches, numbers)
    rows = pixels.float().flatten(1).mean(-1)
    return rows[:count] if len(rows) >= count else None


def _merge(patches: int, tokens: int) -> int | None:
    """Patches a side of a token, if a square of them becomes one."""
    side = math.isqrt(patches // tokens) if tokens else 0
    return side if side and side * side * tokens == patches else None


def merged_in_order(model: Any, processor: Any, features: Mapping[str, Any], tokens: int) -> Tensor | None:
    """Patches in the order in which squares of them become a token (Qwen-VL)."""
    grid = _grid(features)
    merge = _merge(grid[0] * grid[1], tokens) if grid else None
    rows = _patch_rows(features, grid[0] * grid[1]) if grid and merge else None
    return None if rows is None or merge is None else rows.view(tokens, merge * merge).mean(-1)


def merged_by_rows(model: Any, processor: Any, features: Mapping[str, Any], tokens: int) -> Tensor | None:
    """Patches row by row, squares of them become a token (Kimi, PaddleOCR)."""
    grid = _grid(features)
    merge = _merge(grid[0] * grid[1], tokens) if grid else None
    rows = _patch_rows(features, grid[0] * grid[1]) if grid and merge else None
    if rows is None or grid is None or merge is None or grid[0] % merge or grid[1] % merge:
        return None
    return rows.view(grid[0] // merge, merge, grid[1] // merge, merge).mean((1, 3)).flatten()


def merged_lines(model: Any, processor: Any, features: Mapping[str, Any], tokens: int) -> Tensor | None:
    """Patches row by row, squares of them become a token; a token behind each row and one at either end (HunYuan)."""
    grid = _grid(features)
    rows = _patch_rows(features, grid[0] * grid[1]) if grid else None
    if rows is None or grid is None:
        return None
    for merge in range(1, 9):
        height, width = grid[0] // merge, grid[1] // merge
        if height * merge == grid[0] and width * merge == grid[1] and height * (width + 1) + 2 == tokens:
            cells = rows.view(height, merge, width, merge).mean((1, 3))
            return torch.nn.functional.pad(torch.nn.functional.pad(cells, (0, 1)).flatten(), (1, 1))
    return None


def strips(model: Any, processor: Any, features: Mapping[str, Any], tokens: int) -> Tensor | None:
    """Patches of all parts of a picture side by side in one strip as high as a patch, row by row, merged (MiniCPM-V)."""
    pixels, sizes = _pixels(features), features.get("target_sizes", features.get("tgt_sizes"))
    if pixels is None or not torch.is_tensor(sizes) or pixels.dim() != 4 or sizes.dim() != 2:
        return None
    patch, grids = pixels.shape[-2], [(int(height), int(width)) for height, width in sizes.tolist()]
    merge = _merge(sum(height * width for height, width in grids), tokens)
    if merge is None or pixels.shape[-1] != patch * sum(height * width for height, width in grids):
        return None
    if any(height % merge or width % merge for height, width in grids):
        return None
    patches = patch_means(pixels[:1], patch).flatten().split([height * width for height, width in grids])
    parts = [
        part.view(height // merge, merge, width // merge, merge).mean((1, 3)).flatten()
        for part, (height, width) in zip(patches, grids, strict=True)
    ]
    return torch.cat(parts)


def placed(model: Any, processor: Any, features: Mapping[str, Any], tokens: int) -> Tensor | None:
    """Patches with their columns and rows beside them, squares of which become a token (Gemma 4)."""
    places = features.get("image_position_ids")
    pixels = _pixels(features)
    if not torch.is_tensor(places) or pixels is None or places.dim() != 3:
        return None
    own, real = places[0], (places[0] >= 0).all(-1)
    merge = _merge(int(real.sum()), tokens)
    if merge is None:
        return None
    columns, rows = (own[real] // merge).unbind(-1)
    token = rows * (int(columns.max()) + 1) + columns
    means = pixels[0].float().flatten(1).mean(-1)[real]
    return torch.zeros(tokens).index_add_(0, token.clamp_max(tokens - 1), means) / merge**2


def one_patch_each(model: Any, processor: Any, features: Mapping[str, Any], tokens: int) -> Tensor | None:
    """As many patches as tokens (Inkling)."""
    pixels = _pixels(features)
    return None if pixels is None or len(pixels) != tokens else pixels.float().flatten(1).mean(-1)


def parts_and_whole(model: Any, processor: Any, features: Mapping[str, Any], tokens: int) -> Tensor | None:
    """Parts of the picture one after another, then the whole, in cells of as many pixels (Step 3.7)."""
    whole, parts = features.get("pixel_values"), features.get("pixel_values_local")
    if not (torch.is_tensor(whole) and torch.is_tensor(parts)) or whole.dim() != 4 or parts.dim() != 4:
        return None
    sides = [*whole.shape[-2:], *parts.shape[-2:]]
    for cell in range(4, min(sides) + 1):
        if not any(side % cell for side in sides):
            seen = torch.cat([patch_means(pictures, cell).flatten() for pictures in (parts, whole[:1])])
            if len(seen) == tokens:
                return seen
    return None


def _crops(features: Mapping[str, Any]) -> Tensor | None:
    """The pictures that the processor made of one: (crops, channels, height, width)."""
    pixels = _pixels(features)
    if pixels is None or pixels.dim() < 4 or pixels.shape[-3] not in (1, 3):
        return None
    return pixels.flatten(0, -4)


def crops(model: Any, processor: Any, features: Mapping[str, Any], tokens: int, *, turn: int = 0) -> Tensor | None:
    """Crops one after another, each a grid of equal cells (LLaVA, Gemma 3, InternVL).

    Args:
        turn: by how many places the tokens' order of crops is ahead of the pixels'.
    """
    found = _crops(features)
    if found is None or tokens % len(found):
        return None
    ratio = found.shape[-2] / found.shape[-1]
    rows = round(math.sqrt(tokens // len(found) * ratio))
    columns = tokens // len(found) // rows if rows else 0
    if not rows or rows * columns * len(found) != tokens:
        return None
    cells = torch.nn.functional.adaptive_avg_pool2d(found.float().mean(1, keepdim=True), (rows, columns))[:, 0]
    return cells.roll(turn, 0).flatten()


def own_size(model: Any, processor: Any, features: Mapping[str, Any], tokens: int, *, newline: bool = False) -> Tensor | None:
    """One picture at its own size in a padded canvas, row by row (Pixtral), with a token behind each row or without."""
    found, sizes = _crops(features), features.get("image_sizes")
    if found is None or sizes is None:
        return None
    height, width = (int(side) for side in torch.as_tensor(sizes).reshape(-1, 2)[0])
    for cell in range(4, min(height, width) + 1):
        rows, columns = height // cell, width // cell
        if height % cell == 0 and width % cell == 0 and rows * (columns + newline) == tokens:
            cells = patch_means(found[:1, :, :height, :width], cell)[0]
            return torch.nn.functional.pad(cells, (0, int(newline))).flatten()
    return None


def packed_tiles(model: Any, processor: Any, features: Mapping[str, Any], tokens: int, *, first: bool = False) -> Tensor | None:
    """The model's own packing of a whole picture and its tiles, newline tokens between (LLaVA-NeXT)."""
    packers: Any = [module for module in model.modules() if hasattr(module, "pack_image_features")]
    pixels, sizes = _pixels(features), features.get("image_sizes")
    if not packers or pixels is None or pixels.dim() != 5 or sizes is None:
        return None
    tiles = pixels[0][:1] if first else pixels[0]
    side = _side_of(model)
    if side is None:
        return None
    cells = torch.nn.functional.adaptive_avg_pool2d(tiles.float().mean(1, keepdim=True), side)[:, 0].flatten(1)[..., None]
    size = torch.as_tensor(sizes)[:1]
    for keywords in ({}, {"vision_feature_select_strategy": "full"}, {"vision_feature_select_strategy": "default"}):
        try:
            out = packers[-1].pack_image_features([cells], size, image_newline=torch.zeros(1), **keywords)
        except (TypeError, ValueError, RuntimeError, IndexError):
            continue
        packed: Tensor = (out[0] if isinstance(out, tuple) else out)[0][..., 0]
        if len(packed) == tokens:
            return packed
    return None


def _side_of(model: Any) -> int | None:
    vision = getattr(model.config, "vision_config", None)
    size, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    size = size[0] if isinstance(size, list | tuple) else size
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    return size // patch if isinstance(size, int) and isinstance(patch, int) else None


GUESSES: dict[str, Guess] = {
    "patches, merged in their order": merged_in_order,
    "patches row by row, merged": merged_by_rows,
    "patches row by row, merged, a token after each row": merged_lines,
    "patches of all parts in one strip": strips,
    "patches with their places": placed,
    "a patch for each token": one_patch_each,
    "parts, then the whole picture": parts_and_whole,
    "the picture at its own size": own_size,
    "the picture at its own size, a token after each row": partial(own_size, newline=True),
    "tiles packed by the model": packed_tiles,
    "the whole picture alone, packed by the model": partial(packed_tiles, first=True),
    "crops one after another": crops,
    "crops, the last one first": partial(crops, turn=1),
    "crops, the first one last": partial(crops, turn=-1),
}


def fitting(model: Any, processor: Any, features: Mapping[str, Any], tokens: int) -> Iterator[tuple[str, Tensor]]:
    """Every guess whose shapes fit, by its name."""
    for name, guess in GUESSES.items():
        found = guess(model, processor, features, tokens)
        if found is not None and len(found) == tokens:
            yield name, found
