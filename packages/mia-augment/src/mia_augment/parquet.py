"""Rows of parquet files (needs the extra ``mia-augment[parquet]``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mia_augment.errors import ConfigError, DataError

BATCH = 256


def read_parquet(source: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file as plain dicts, a batch in memory at a time.

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
        with parquet.ParquetFile(source) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{source}: not a valid parquet file: {error}") from error
