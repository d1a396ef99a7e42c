"""Rows of parquet files (needs the extra ``mia-augment[parquet]``), in bounded memory whatever the file unfolds to.

A few kilobytes can hold gigabytes: a long text that every row repeats is stored once, and compressed. So columns are kept as
they are stored (a dictionary and indices into it) until their size is known, and only then unfolded, some rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mia_augment.errors import ConfigError, DataError
from mia_augment.read.json_values import Damaged

BATCH = 4096
"""Most rows in memory at a time."""
BATCH_BYTES = 128 << 20
"""Most bytes of unfolded rows in memory at a time, unless a single row has more."""
MAX_ROW_BYTES = 256 << 20
"""Largest row, pictures in it included."""
MAX_FOLDED = 1000
"""A file that unfolds to more than `MAX_ROW_BYTES`, and this many times its size, is made to do harm."""
MAX_VALUES = 1 << 27
"""Most values of a column in one group of rows."""
_ELEMENT = 64
"""Bytes that any value takes as a Python object, at least."""


def read_parquet(source: Path) -> Iterator[dict[str, Any] | Damaged]:
    """Yield the rows of a parquet file as plain dicts, some in memory at a time, and a `Damaged` for each that cannot be read.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: no valid parquet file, or one that unfolds to far more than it seems to hold.
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
            _check_groups(file.metadata, source)
            schema, folded = file.schema_arrow, _texts(file.metadata)
        before, unfolded, most = 0, 0, max(MAX_ROW_BYTES, MAX_FOLDED * source.stat().st_size)
        with parquet.ParquetFile(source, read_dictionary=folded) as file:
            for batch in _batches(file):
                for part, size in _parts(batch, before + 1, source):
                    unfolded += size
                    if unfolded > most:
                        raise _folded(source, unfolded)
                    yield from _rows(part.cast(schema), source.name, before)
                    before += part.num_rows
    except (pyarrow.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:  # the last: a damaged column name
        if isinstance(error, OSError) and error.filename is not None:  # arrow's own have none, and may be of any kind
            raise
        raise DataError(f"{source}: not a valid parquet file: {error}") from error


def _batches(file: Any) -> Iterator[Any]:
    """Batches that lie within one group of rows: folded columns of several cannot be joined."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(batch_size=BATCH, row_groups=[group])


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


def _check_groups(metadata: Any, source: Path) -> None:
    """Refuse what would not fit into memory, from what the file says of itself."""
    for group in range(metadata.num_row_groups):
        described = metadata.row_group(group)
        columns = [described.column(index) for index in range(described.num_columns)]
        size, stored = (sum(c.total_uncompressed_size for c in columns), sum(c.total_compressed_size for c in columns))
        if size > MAX_ROW_BYTES and size > MAX_FOLDED * max(stored, 1):
            raise _folded(source, size)
        if size > MAX_ROW_BYTES * max(described.num_rows, 1) or any(c.num_values > MAX_VALUES for c in columns):
            raise DataError(
                f"{source}: {described.num_rows} rows of it have {size >> 20} MB and up to "
                f"{max(c.num_values for c in columns)} values; expected rows of at most {MAX_ROW_BYTES >> 20} MB"
            )


def _folded(source: Path, size: int) -> DataError:
    return DataError(
        f"{source}: {source.stat().st_size >> 10} kB that unfold to {size >> 20} MB or more, over {MAX_FOLDED} times as much: "
        "refused; write the rows as JSONL if this is meant"
    )


def _texts(metadata: Any) -> list[str]:
    """Paths of the columns of texts and bytes, which can be stored folded."""
    schema = metadata.schema
    columns = [schema.column(index) for index in range(len(schema))]
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


def _parts(batch: Any, number: int, source: Path) -> Iterator[tuple[Any, int]]:
    """The rows of a batch in parts that unfold to at most `BATCH_BYTES`, and their sizes; `number` is that of its first row."""
    size = sum(_unfolded(column) for column in batch.columns)
    if size <= BATCH_BYTES or batch.num_rows == 1:
        if size > MAX_ROW_BYTES:
            raise DataError(f"{source}: row {number} unfolds to {size >> 20} MB; expected at most {MAX_ROW_BYTES >> 20} MB")
        yield batch, size
        return
    half = batch.num_rows // 2
    yield from _parts(batch.slice(0, half), number, source)
    yield from _parts(batch.slice(half), number + half, source)


def _unfolded(array: Any) -> int:
    """Bytes that an array takes when each of its values is written out."""
    import pyarrow as pa
    from pyarrow import compute

    kind = array.type
    own = _ELEMENT * len(array)
    if pa.types.is_dictionary(kind):
        lengths = compute.binary_length(array.dictionary)
        return own + (compute.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return own + sum(_unfolded(field) for field in array.flatten())
    if pa.types.is_map(kind):
        return own + _unfolded(array.keys) + _unfolded(array.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return own + _unfolded(array.flatten())
    return own + int(array.nbytes)
