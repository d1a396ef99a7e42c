"""Rows of parquet files (needs the extra ``mia-augment[parquet]``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mia_augment.errors import ConfigError, DataError
from mia_augment.json_values import Damaged

BATCH = 256


def read_parquet(source: Path) -> Iterator[dict[str, Any] | Damaged]:
    """Yield the rows of a parquet file as plain dicts, a batch in memory at a time, and a `Damaged` for each that is no text.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: no valid parquet file.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            f"{source} is a parquet file: install pyarrow to read it: pip install 'mia-augment[parquet]'"
        ) from error
    try:
        count = 0
        with parquet.ParquetFile(source) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                yield from _rows(batch, source.name, count)
                count += batch.num_rows
    except pyarrow.ArrowException as error:
        raise DataError(f"{source}: not a valid parquet file: {error}") from error


def _rows(batch: Any, name: str, before: int) -> Iterator[dict[str, Any] | Damaged]:
    """The rows of a batch, before which there are so many."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for place in range(batch.num_rows):
            try:
                yield batch.slice(place, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                around = bytes(error.object)[max(0, error.start - 12) : error.start + 12]
                yield Damaged(
                    f"not UTF-8: row {before + place + 1} of {name} holds bytes of another encoding, {around!r}; "
                    "write the file anew from texts that are decoded rightly"
                )
