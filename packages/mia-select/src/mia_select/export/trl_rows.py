"""Pairs with opened pictures, as TRL's DPOTrainer takes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mia_augment import DataError, PreferencePair
from mia_augment.images import picture_opener
from mia_augment.storage import read_jsonl

from mia_select.export.plain_pairs import plain_pairs
from mia_select.export.row_writers import EXTRA, to_row, write_trl


def trl_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield TRL's columns for the pairs of a selection, `images` being RGB pictures.

    Made for `datasets.Dataset.from_generator(trl_rows, gen_kwargs={"folder": folder})`. Train with `max_length=None`: a limit
    cuts image tokens.

    Raises:
        DataError: a pair contrasts pictures.
    """
    open_image = picture_opener(folder)
    records = read_jsonl(folder / "pairs.jsonl", PreferencePair)
    for pair in (plain for record in records for plain in plain_pairs(record)):
        if pair.rejected_images is not None:
            raise DataError(f"pair {pair.id}: it contrasts pictures (rejected_images), for which TRL has no place")
        row = to_row(pair, pair.images, write_trl)
        pictures = [open_image(name) for name in pair.images]
        yield {**{name: value for name, value in row.items() if name not in ("id", EXTRA)}, "images": pictures}
