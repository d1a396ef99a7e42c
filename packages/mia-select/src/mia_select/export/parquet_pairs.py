"""Pairs with their pictures in one parquet file that `datasets` opens as TRL wants it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from mia_augment import ConfigError, PreferencePair
from mia_augment.storage import atomic_write, clear_left_overs_of, resolve_image

from mia_select.export.row_writers import EXTRA, to_row, write_trl

ROW_GROUP = 64
"""Pairs held in memory at a time."""

_STRING = {"dtype": "string", "_type": "Value"}
_MESSAGES = [{"role": _STRING, "content": [{"type": _STRING, "text": _STRING}]}]
_FEATURES = {
    "id": _STRING,
    "images": {"feature": {"_type": "Image"}, "_type": "Sequence"},
    "prompt": _MESSAGES,
    "chosen": _MESSAGES,
    "rejected": _MESSAGES,
    EXTRA: _STRING,
}
"""Column types as `datasets` notes them in a file, so that it decodes the pictures by itself."""


def write_parquet(file: Path, pairs: Iterable[PreferencePair], folders: list[Path]) -> None:
    """Write pairs and the bytes of their pictures, a row group at a time.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    pa, pq = _pyarrow()
    schema = _schema(pa)
    stream = iter(pairs)
    clear_left_overs_of(file)
    with atomic_write(file, "wb") as out, pq.ParquetWriter(out, schema) as writer:
        while rows := [_row(pair, folders) for pair in islice(stream, ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _row(pair: PreferencePair, folders: list[Path]) -> dict[str, Any]:
    row = to_row(pair, pair.images, write_trl)
    return {**row, "images": [{"bytes": resolve_image(name, folders).read_bytes(), "path": name} for name in pair.images]}


def _schema(pa: ModuleType) -> Any:
    text = pa.string()
    messages = pa.list_(pa.struct([("role", text), ("content", pa.list_(pa.struct([("type", text), ("text", text)])))]))
    images = pa.list_(pa.struct([("bytes", pa.binary()), ("path", text)]))
    fields = [
        ("id", text),
        ("images", images),
        ("prompt", messages),
        ("chosen", messages),
        ("rejected", messages),
        (EXTRA, text),
    ]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})})


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError('parquet needs pyarrow: pip install "mia-select[parquet]"') from error
    return pa, pq
