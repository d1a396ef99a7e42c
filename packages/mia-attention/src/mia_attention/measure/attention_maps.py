"""Attention maps: how much of it fell on each cell of a raster laid over a picture, and their file. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from mia_augment import Box, Record
from mia_augment.storage import read_jsonl
from numpy.typing import NDArray
from pydantic import Field

MAPS = "maps.jsonl"
CELLS = 16
"""Cells along a picture's longer side."""


class AttentionMap(Record):
    """Where the model looked while it answered one sample, cell by cell."""

    id: str
    maps: list[list[list[float]]]
    """Per image: rows of cells, each its attention in parts of the sample's highest, 0..1."""
    losses: list[float | None] | None = None
    """Per region: how many nats the response's log-prob loses where its tokens are invisible; None: not measured."""
    alone: list[float] | None = Field(default=None, exclude_if=lambda shares: shares is None)
    """Per region: its share of the response's likelihood under each picture alone, as the readout `alone` has it; None, and not
    written: not measured."""


def read_maps(path: Path) -> dict[str, AttentionMap]:
    """Attention maps by sample id; none where they were not made."""
    return {record.id: record for record in read_jsonl(path, AttentionMap)} if path.is_file() else {}


def cell_masses(
    tokens: NDArray[np.float64],
    size: tuple[int, int],
    coverage: Callable[[tuple[int, int], Box], NDArray[np.float64]],
    cells: int = CELLS,
) -> NDArray[np.float64]:
    """Share the attention on a picture's tokens out to the cells of a raster.

    Args:
        tokens: attention on each visual token, (.., tokens).
        size, coverage, cells: as for `cell_shares`.

    Returns:
        (.., rows, columns); the sum is the attention on tokens that see any pixel.
    """
    in_row, in_column = cell_shares(size, coverage, cells)
    masses: NDArray[np.float64] = np.einsum("...t,tr,tc->...rc", tokens, in_row, in_column, optimize=True)
    return masses


def cell_shares(
    size: tuple[int, int], coverage: Callable[[tuple[int, int], Box], NDArray[np.float64]], cells: int = CELLS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much of what each token sees lies in each row and in each column of a raster.

    A token sees a rectangle, so its share in a cell is its share in the cell's column times that in the cell's row: columns
    and rows are looked up, not every cell.

    Args:
        size: of the picture, (width, height) px.
        coverage: from (size, box) to the share of each token's pixels that lie in the box, (tokens,).
        cells: along the longer side.

    Returns:
        (tokens, rows) and (tokens, columns); each token's row sums to 1, or to 0 for a token that sees nothing.
    """
    width, height = size
    step = max(size) / cells
    columns, rows = (max(1, min(round(side / step), side)) for side in size)
    across = [round(index * width / columns) for index in range(columns + 1)]
    down = [round(index * height / rows) for index in range(rows + 1)]
    in_row = _shares(np.stack([coverage(size, (0, down[r], width, down[r + 1])) for r in range(rows)], axis=1))
    in_column = _shares(np.stack([coverage(size, (across[c], 0, across[c + 1], height)) for c in range(columns)], axis=1))
    return in_row, in_column


def _shares(coverages: NDArray[np.float64]) -> NDArray[np.float64]:
    """(tokens, strips), each token's row summing to 1, or to 0 for a token that sees nothing."""
    total = coverages.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(coverages, total, out=np.zeros_like(coverages), where=total > 0)
    return shares


def relative_maps(masses: Sequence[NDArray[np.float64]]) -> list[list[list[float]]]:
    """Attention on the cells of several pictures, per area, in parts of the highest."""
    densities = [mass * mass.size for mass in masses]
    top = max((float(density.max()) for density in densities), default=0.0) or 1.0
    return [np.round(density / top, 3).tolist() for density in densities]
