"""Samples as a WebDataset tar: of one name, the pictures (``000000012.0.jpg``, ``000000012.1.png``) and the record as JSON."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from mia_augment.records import Sample


def write_webdataset(file: IO[bytes], samples: Sequence[tuple[Sample, list[Path]]]) -> None:
    """Write samples and the bytes of their pictures; the same samples give the same bytes.

    Args:
        samples: with the files of their pictures, in the order of `images`.
    """
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (sample, paths) in enumerate(samples):
            for place, path in enumerate(paths):
                _add(tar, f"{number:09d}.{place}{path.suffix.lower()}", path.read_bytes())
            _add(tar, f"{number:09d}.json", sample.model_dump_json().encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
