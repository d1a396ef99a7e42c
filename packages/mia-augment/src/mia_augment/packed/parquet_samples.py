"""Samples as a Parquet file with their pictures inside, whose columns `datasets` decodes by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from mia_augment.errors import ConfigError
from mia_augment.records import Sample

SAMPLES_AT_ONCE = 64
"""Samples whose pictures are held in memory at a time."""

_TEXT = {"dtype": "string", "_type": "Value"}
_FEATURES = {
    "id": _TEXT,
    "format": _TEXT,
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "prompt": _TEXT,
    "answer": _TEXT,
    "target": {"dtype": "int64", "_type": "Value"},
    "sample": _TEXT,
}
"""Column types as `datasets` notes them in a file; `sample` is the whole record as JSON."""


def write_parquet_samples(file: IO[bytes], samples: Sequence[tuple[Sample, list[Path]]]) -> None:
    """Write samples and the bytes of their pictures, a row group at a time.

    Args:
        samples: with the files of their pictures, in the order of `images`.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError("parquet needs pyarrow: pip install 'mia-augment[parquet]'") from error
    text = pa.string()
    pictures = pa.list_(pa.struct([("bytes", pa.binary()), ("path", text)]))
    kinds = {"images": pictures, "target": pa.int64()}
    schema = pa.schema(
        [(name, kinds.get(name, text)) for name in _FEATURES],
        metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
    )
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(samples), SAMPLES_AT_ONCE):
            rows = [_row(sample, paths) for sample, paths in samples[start : start + SAMPLES_AT_ONCE]]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _row(sample: Sample, paths: Sequence[Path]) -> dict[str, Any]:
    pictures = zip(sample.images, paths, strict=True)
    return {
        **{name: getattr(sample, name) for name in ("id", "format", "prompt", "answer", "target")},
        "images": [{"bytes": path.read_bytes(), "path": name} for name, path in pictures],
        "sample": sample.model_dump_json(),
    }
